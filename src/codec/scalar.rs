//! Strings that stand for something: quantities, times, base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::object::schema::Shape;
use crate::util::go::{self, TimeLayout};
use crate::util::quantity::{Format, Quantity};

/// The suffixes of decimal quantities, from billionths on, a thousand apart.
const UNITS: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Larger exponents of quantities are cut off, as nobody means them.
const MOST_ZEROS: i64 = 1000;

/// The source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A document.
    Json,
    /// A patched object, for which Go has other messages.
    Converted,
}

/// The value of a string in a field of this shape. Quantities and times get Kubernetes' canonical form.
///
/// # Errors
/// The message of Go's decoder; `None` if the field cannot hold a string.
pub(super) fn string(shape: &Shape, text: String) -> Result<Value, Option<String>> {
    match shape {
        Shape::String | Shape::Any | Shape::IntOrString => Ok(Value::String(text)),
        Shape::Quantity => quantity(&text).map_err(Some),
        Shape::Time => time(&text, TimeLayout::Seconds, "%Y-%m-%dT%H:%M:%SZ"),
        Shape::MicroTime => time(&text, TimeLayout::Microseconds, "%Y-%m-%dT%H:%M:%S.%6fZ"),
        Shape::Bytes => base64(text),
        _ => Err(None),
    }
}

/// A quantity as Kubernetes writes it: in its canonical form, but for what is written in another one that Kubernetes takes for it.
///
/// # Errors
/// Why the text is invalid.
pub(super) fn quantity(text: &str) -> Result<Value, String> {
    let text = text.trim();
    match text.parse::<Quantity>() {
        Ok(quantity) => {
            let canonical = if quantity.is_largest() { enormous(text, quantity.format()) } else { quantity.to_string() };
            Ok(Value::String(if canonical != text && is_kept(text) { text.to_owned() } else { canonical }))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether Kubernetes keeps a quantity as it is written although it is not canonical: its parser keeps the text of numbers that are
/// integers in one of the units, unless a quick check shows that the canonical form differs.
fn is_kept(text: &str) -> bool {
    let digits = |text: &str| text.len() - text.trim_start_matches(|it: char| it.is_ascii_digit()).len();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, rest) = unsigned.split_at(digits(unsigned));
    let whole = whole.trim_start_matches('0');
    let (fraction, unit) = rest.strip_prefix('.').map_or(("", rest), |it| it.split_at(digits(it)));
    let length = whole.len() + fraction.len();
    if let Some(power) = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|it| *it == unit) {
        let precise = whole.len() + (power + 1) * 3 < 15;
        return fraction.is_empty() && precise && whole.parse::<u64>().is_ok_and(|it| it % 8 != 0);
    }
    let exponent = match UNITS.iter().position(|it| *it == unit) {
        Some(at) => 3 * at as i64 - 9,
        None => match unit.strip_prefix(['e', 'E']).map(str::parse) {
            Some(Ok(exponent)) => exponent,
            _ => return false,
        },
    };
    let scale = exponent.saturating_sub(fraction.len() as i64);
    let ends_in_zeros = fraction.bytes().rev().chain(whole.bytes().rev()).take(3).all(|it| it == b'0') && length >= 3;
    !whole.is_empty() && length <= 18 && scale >= -9 && scale % 3 == 0 && !ends_in_zeros
}

/// The canonical form of a decimal number of any size. Nothing is computed with such numbers: they count as the largest amount.
fn enormous(text: &str, format: Format) -> String {
    let (sign, unsigned) = text.strip_prefix('-').map_or(("", text.trim_start_matches('+')), |it| ("-", it));
    let end = unsigned.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(unsigned.len());
    let (number, unit) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exponent = match UNITS.iter().position(|it| *it == unit) {
        Some(at) => 3 * at as i64 - 9,
        None => unit[1..].parse().unwrap_or(MOST_ZEROS),
    };
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    let mut exponent = exponent.min(MOST_ZEROS) - fraction.len() as i64;
    // Less than a billionth does not count.
    while exponent < -9 {
        digits.pop();
        exponent += 1;
    }
    while exponent.rem_euclid(3) != 0 {
        digits.push('0');
        exponent -= 1;
    }
    let largest = if format == Format::Exponent { i64::MAX } else { 3 * (UNITS.len() as i64 - 1) - 9 };
    while digits.ends_with("000") && exponent < largest {
        digits.truncate(digits.len() - 3);
        exponent += 3;
    }
    while exponent > largest {
        digits.push_str("000");
        exponent -= 3;
    }
    match UNITS.get(((exponent + 9) / 3) as usize) {
        Some(unit) if format == Format::Decimal => format!("{sign}{digits}{unit}"),
        _ if exponent == 0 => format!("{sign}{digits}"),
        _ => format!("{sign}{digits}e{exponent}"),
    }
}

/// An amount in a list of resources, rounded up to thousandths.
pub(super) fn amount(quantity: Value) -> Value {
    let is_fine = |text: &str| text.ends_with(['n', 'u']) || text.contains(['-', '.']);
    match &quantity {
        Value::String(text) if is_fine(text) => match text.parse::<Quantity>() {
            Ok(it) if it != it.rounded_to_millis() => it.rounded_to_millis().to_string().into(),
            _ => quantity,
        },
        _ => quantity,
    }
}

fn time(text: &str, layout: TimeLayout, canonical: &str) -> Result<Value, Option<String>> {
    go::parse_time(text, layout).map(|it| Value::String(it.strftime(canonical).to_string())).map_err(Some)
}

fn base64(text: String) -> Result<Value, Option<String>> {
    use base64::DecodeError;
    // Line ends are accepted, but removed for decoders that reject them.
    let text = if text.contains(['\r', '\n']) { text.replace(['\r', '\n'], "") } else { text };
    match STANDARD.decode(&text) {
        Ok(_) => Ok(Value::String(text)),
        Err(error) => {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() / 4 * 4,
            };
            Err(Some(format!("illegal base64 data at input byte {at}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_checked_and_become_canonical() {
        let becomes = |shape, text: &str, canonical: &str| {
            assert_eq!(string(&shape, text.to_owned()), Ok(canonical.into()), "{text}");
        };
        for (text, canonical) in [("0.5", "500m"), ("0.50", "500m"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1e3", "1e3"), ("1000", "1k")]
        {
            becomes(Shape::Quantity, text, canonical);
        }
        for kept in ["1E3", "01", "+1", "5.", "1e+3", "929.6553e4", "1.125", "1.250", "+63M", "01Ki", "1.000001", "77470.474591202P"] {
            becomes(Shape::Quantity, kept, kept);
        }
        for (text, canonical) in [("2.000", "2"), ("1.5", "1500m"), ("1000m", "1"), ("+8Ki", "8Ki"), ("0.125", "125m"), ("1E4", "10e3")] {
            becomes(Shape::Quantity, text, canonical);
        }
        for (text, canonical) in [
            ("1e29", "100e27"),
            ("-1e40", "-10e39"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("123456789012345678901234567890.5", "123456789012345678901234567890500m"),
            ("0.1e50", "10e48"),
            ("1e99999998", "10e999"),
        ] {
            becomes(Shape::Quantity, text, canonical);
        }
        for (text, rounded) in [("1.125", "1.125"), ("1.000001", "1001m"), ("1500e-6", "2e-3"), ("1e-3", "1e-3"), ("1u", "1m")] {
            assert_eq!(quantity(text).map(amount), Ok(rounded.into()), "{text}");
        }
        becomes(Shape::Time, "2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z");
        becomes(Shape::Time, "2024-02-29T12:00:00.5+01:00", "2024-02-29T11:00:00Z");
        becomes(Shape::MicroTime, "2024-02-29T12:00:00.123456Z", "2024-02-29T12:00:00.123456Z");
        becomes(Shape::MicroTime, "2024-02-29T12:00:00.000000+01:00", "2024-02-29T11:00:00.000000Z");
        becomes(Shape::Time, "9999-12-31T23:59:59.9Z", "9999-12-31T23:59:59Z");
        becomes(Shape::MicroTime, "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z");
        becomes(Shape::Bytes, "aGk=", "aGk=");
        let wrong = |shape, text: &str| string(&shape, text.to_owned()).unwrap_err().unwrap();
        assert!(wrong(Shape::Quantity, "1 Gi").starts_with("quantities must match the regular expression"));
        assert!(wrong(Shape::Time, "2024-02-29").starts_with("parsing time \"2024-02-29\" as \"2006-01-02T15:04:05Z07:00\""));
        assert!(wrong(Shape::Time, "").starts_with("parsing time"));
        assert_eq!(wrong(Shape::Bytes, "a$k="), "illegal base64 data at input byte 1");
        assert_eq!(string(&Shape::Bytes, "aG\nk=".to_owned()), Ok("aGk=".into()));
        assert_eq!(string(&Shape::Boolean, "yes".to_owned()), Err(None));
    }
}
