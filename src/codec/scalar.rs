//! Strings that stand for something: quantities, times, base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::object::schema::Shape;
use crate::util::go::{self, TimeLayout};
use crate::util::quantity::Quantity;

/// What a value is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A document.
    Json,
    /// An object that was patched, of which Go speaks in other words.
    Converted,
}

/// The value of a string in a place of this shape. Quantities and times become what Kubernetes would write for them.
///
/// # Errors
/// What is wrong with the text, in the words of Go's decoder; `None` if no string can be there.
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

/// The canonical form of a quantity, so that equal amounts are equal texts.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn quantity(text: &str) -> Result<Value, String> {
    match text.trim().parse::<Quantity>() {
        Ok(quantity) => Ok(Value::String(quantity.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// An amount in a list of resources, of which there is nothing finer than a thousandth: rather more than what was asked for than less.
pub(super) fn amount(quantity: Value) -> Value {
    let is_fine = |text: &str| text.ends_with(['n', 'u']) || text.contains("e-");
    match &quantity {
        Value::String(text) if is_fine(text) => match text.parse::<Quantity>() {
            Ok(it) => it.rounded_to_millis().to_string().into(),
            Err(_) => quantity,
        },
        _ => quantity,
    }
}

fn time(text: &str, layout: TimeLayout, canonical: &str) -> Result<Value, Option<String>> {
    go::parse_time(text, layout).map(|it| Value::String(it.strftime(canonical).to_string())).map_err(Some)
}

fn base64(text: String) -> Result<Value, Option<String>> {
    use base64::DecodeError;
    // Line ends are let pass, but not handed on to readers that do not.
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
