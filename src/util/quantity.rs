//! Kubernetes resource quantities (`100m`, `64Mi`, `1e3`): parsing, exact arithmetic, and their canonical form.
//!
//! A quantity is stored in billionths, the finest step that Kubernetes keeps, so that sums and comparisons are exact.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
/// The largest amount; larger decimal numbers are clamped to it.
const MAX: i128 = 10_i128.pow(37);
/// The largest amount of a number with a binary suffix, as in Kubernetes.
const MAX_BINARY: i128 = i64::MAX as i128 * NANO;

/// A fixed-point number that remembers its family of suffixes. Quantities are equal if their amounts are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// A family of suffixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`.
    #[default]
    Decimal,
    /// `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`.
    Binary,
    /// `e3`.
    Exponent,
}

/// Text that is not a quantity, with Kubernetes' messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The factor of a suffix.
enum Scale {
    Ten(i32),
    Two(u32),
}

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::Decimal };

    /// A whole number, printed with the suffixes of `format`.
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANO, format }
    }

    /// Thousandths, such as millicores.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * 1_000_000, format: Format::Decimal }
    }

    /// A number of bytes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self::new(bytes, Format::Binary)
    }

    /// The nearest amount to `value`, in whole units; for the floating-point scalars of Mesos. NaN becomes zero.
    pub fn from_f64(value: f64, format: Format) -> Self {
        let nanos = (value * NANO as f64).round() as i128;
        Self { nanos: nanos.clamp(-MAX, MAX), format }
    }

    /// Parses a quantity in an object: a string or a number.
    ///
    /// # Errors
    /// If it is neither, or not a quantity.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    pub const fn format(self) -> Format {
        self.format
    }

    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it may stand for an amount that is larger than what can be computed with.
    pub const fn is_largest(self) -> bool {
        self.nanos == MAX || self.nanos == -MAX
    }

    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount is a whole number.
    pub const fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whole units, rounded away from zero, and clamped to 64 bits.
    pub fn value(self) -> i64 {
        clamp(divide_away_from_zero(self.nanos, NANO))
    }

    /// Thousandths, rounded like [`Quantity::value`].
    pub fn millis(self) -> i64 {
        clamp(divide_away_from_zero(self.nanos, 1_000_000))
    }

    /// The amount in whole thousandths, rounded like [`Quantity::value`].
    pub fn rounded_to_millis(self) -> Self {
        Self { nanos: divide_away_from_zero(self.nanos, 1_000_000) * 1_000_000, ..self }
    }

    /// The amount in whole units as a float, possibly inexact.
    pub fn to_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    fn combine(self, other: Self, nanos: i128) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: nanos.clamp(-MAX, MAX), format }
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn divide_away_from_zero(value: i128, by: i128) -> i128 {
    let rest = value % by;
    value / by + if rest == 0 { 0 } else { rest.signum() }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = unsigned.split_at(digits(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        let letters = suffix.trim_start_matches(|it: char| "eEinumkKMGTP".contains(it));
        let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
        if digits(exponent) != exponent.len() {
            return Err(QuantityError::Format);
        }
        let (scale, format) = interpret(suffix).ok_or(QuantityError::Suffix)?;
        let (nanos, format) = match scale {
            Scale::Ten(exponent) => (decimal(whole, fraction, exponent), format),
            Scale::Two(power) => {
                let nanos = binary(whole, fraction, power);
                (nanos, if nanos < NANO { Format::Decimal } else { format })
            }
        };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

fn interpret(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Ten(*exponent), Format::Decimal));
    }
    if let Some(at) = BINARY.iter().position(|name| *name == suffix) {
        return Some((Scale::Two(10 * (at as u32 + 1)), Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let exponent: i64 = exponent.parse().ok()?;
    Some((Scale::Ten(exponent.clamp(-1_000_000, 1_000_000) as i32), Format::Exponent))
}

/// `whole.fraction` times a power of ten, in billionths: rounded up, and clamped to the largest amount.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let mut nanos: i128 = 0;
    // The number of leading digits that count whole billionths.
    let point = whole.len() as i64 + i64::from(exponent) + 9;
    let mut digits = whole.bytes().chain(fraction.bytes()).map(|it| i128::from(it - b'0'));
    for _ in 0..point.max(0) {
        match digits.next() {
            Some(digit) => nanos = nanos * 10 + digit,
            None if nanos == 0 => break,
            None => nanos *= 10,
        }
        if nanos >= MAX {
            return MAX;
        }
    }
    let below = if point < 0 { whole.bytes().chain(fraction.bytes()).any(|it| it != b'0') } else { digits.any(|it| it != 0) };
    nanos + i128::from(below)
}

fn binary(whole: &str, fraction: &str, power: u32) -> i128 {
    let integer = decimal(whole, "", -9).saturating_mul(NANO << power);
    // A fraction of up to eighteen digits times 2^60 still fits; further digits can only round up.
    let (kept, dropped) = fraction.split_at(fraction.len().min(18));
    let below = dropped.bytes().any(|it| it != b'0');
    let kept_value = kept.bytes().fold(0_i128, |sum, it| sum * 10 + i128::from(it - b'0'));
    let product = kept_value << power;
    let unit = 10_i128.pow(kept.len() as u32);
    let nanos = (product / unit) * NANO + divide_away_from_zero((product % unit) * NANO, unit);
    integer.saturating_add(nanos + i128::from(below && nanos % NANO == 0)).min(MAX_BINARY)
}

/// The canonical form: no fraction, and the largest suffix that loses nothing. Binary suffixes only for whole numbers from 1024 on.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let whole = self.nanos / NANO;
        if self.format == Format::Binary && self.is_integer() && whole.abs() >= 1024 {
            let steps = (whole.trailing_zeros() / 10).min(BINARY.len() as u32);
            let suffix = if steps == 0 { "" } else { BINARY[steps as usize - 1] };
            return write!(f, "{}{suffix}", whole >> (10 * steps));
        }
        let (mut number, mut step) = (self.nanos, 0);
        while number % 1000 == 0 && (step + 1 < DECIMAL.len() || self.format == Format::Exponent) {
            number /= 1000;
            step += 1;
        }
        match (self.format, 3 * step as i32 - 9) {
            (Format::Exponent, 0) => write!(f, "{number}"),
            (Format::Exponent, exponent) => write!(f, "{number}e{exponent}"),
            _ => write!(f, "{number}{}", DECIMAL[step].0),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_add(other.nanos))
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.combine(other, self.nanos.saturating_sub(other.nanos))
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, QuantityError> {
        quantity.0.trim().parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_has_one_canonical_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("0.0Ki", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("1000", "1k"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.1m", "100u"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1e-3", "1e-3"),
            ("12345e1", "123450"),
            ("5E", "5E"),
            ("1000E", "1000E"),
            ("1Ki", "1Ki"),
            ("1024", "1024"),
            ("512Ki", "512Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.3Ki", "307200m"),
            ("0.0001Ki", "102400u"),
            ("1.1Ki", "1126400m"),
            ("-1Ki", "-1Ki"),
            ("-2000m", "-2"),
            ("64Mi", "64Mi"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("9223372036854775807", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("1e-40", "1e-9"),
            ("0e100000", "0"),
            ("00012k", "12k"),
            ("1G", "1G"),
            ("128974848", "128974848"),
            // No digits are zero.
            (".", "0"),
            ("-", "0"),
            ("e3", "0"),
            ("+Ki", "0"),
        ] {
            let quantity: Quantity = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(quantity.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_named() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("1 ", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("--1", QuantityError::Suffix),
            ("1e3k", QuantityError::Format),
            ("1KI", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1Kii", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1k3", QuantityError::Suffix),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap_err(), error, "{text:?}");
        }
        assert!(Quantity::from_json(&serde_json::json!(true)).is_err());
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, value, millis) in [
            ("0", 0, 0),
            ("1m", 1, 1),
            ("1500m", 2, 1500),
            ("-1500m", -2, -1500),
            ("1u", 1, 1),
            ("-1n", -1, -1),
            ("2Ki", 2048, 2_048_000),
            ("1000E", i64::MAX, i64::MAX),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.value(), quantity.millis()), (value, millis), "{text}");
        }
        assert_eq!(Quantity::from_json(&serde_json::json!(0.5)).unwrap(), Quantity::from_millis(500));
        assert_eq!(Quantity::from_json(&serde_json::json!(3)).unwrap(), Quantity::new(3, Format::Decimal));
        assert_eq!(Quantity::from_f64(0.1, Format::Decimal).to_string(), "100m");
    }

    #[test]
    fn thousandths_are_not_divided() {
        for (text, rounded) in [
            ("1n", "1m"),
            ("1500u", "2m"),
            ("-1500u", "-2m"),
            ("123456789n", "124m"),
            ("1e-5", "1e-3"),
            ("0.0001Ki", "103m"),
            ("1Gi", "1Gi"),
            ("5m", "5m"),
            ("0", "0"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().rounded_to_millis().to_string(), rounded, "{text}");
        }
    }

    #[test]
    fn sums_keep_the_first_format_in_use() {
        let add = |a: &str, b: &str| (a.parse::<Quantity>().unwrap() + b.parse::<Quantity>().unwrap()).to_string();
        assert_eq!(add("1Gi", "1Gi"), "2Gi");
        assert_eq!(add("0", "1Ki"), "1Ki");
        assert_eq!(add("100m", "900m"), "1");
        assert_eq!(add("1Mi", "-1Mi"), "0");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-+]?[0-9]{0,30}\\.?[0-9]{0,30}([numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]{0,25})?|\\PC*") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let again: Quantity = quantity.to_string().parse().unwrap();
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), quantity.to_string());
            }
        }

        #[test]
        fn arithmetic_is_that_of_integers(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
            let (x, y) = (Quantity::from_millis(a), Quantity::from_millis(b));
            prop_assert_eq!((x + y).millis(), a + b);
            prop_assert_eq!((x - y).millis(), a - b);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.to_string().parse::<Quantity>().unwrap().millis(), a);
        }
    }
}
