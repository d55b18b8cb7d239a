//! The value of an unquoted text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const PREFIX: &str = "tag:yaml.org,2002:";
const NULL_TAG: &str = "tag:yaml.org,2002:null";
const BOOL_TAG: &str = "tag:yaml.org,2002:bool";
const STR_TAG: &str = "tag:yaml.org,2002:str";
const INT_TAG: &str = "tag:yaml.org,2002:int";
const FLOAT_TAG: &str = "tag:yaml.org,2002:float";
const TIMESTAMP_TAG: &str = "tag:yaml.org,2002:timestamp";
const BINARY_TAG: &str = "tag:yaml.org,2002:binary";
pub(super) const MERGE_TAG: &str = "tag:yaml.org,2002:merge";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Boolean(bool),
    /// Within 64 bits, with a sign or without.
    Integer(i128),
    Float(f64),
    Text(String),
    /// A text that some parsers read as a timestamp.
    Timestamp,
}

impl Scalar {
    fn tag(&self) -> &'static str {
        match self {
            Self::Null => NULL_TAG,
            Self::Boolean(_) => BOOL_TAG,
            Self::Integer(_) => INT_TAG,
            Self::Float(_) => FLOAT_TAG,
            Self::Text(_) => STR_TAG,
            Self::Timestamp => TIMESTAMP_TAG,
        }
    }
}

/// The value of a text with a tag.
///
/// # Errors
/// Why the text does not fit the tag.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Scalar, String> {
    let found = match tag {
        STR_TAG => return Ok(Scalar::Text(text.to_owned())),
        BINARY_TAG => {
            let text: String = text.chars().filter(|it| !matches!(it, '\r' | '\n')).collect();
            let bytes = STANDARD.decode(text).map_err(|_| "!!binary value contains invalid base64 data".to_owned())?;
            return Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()));
        }
        BOOL_TAG | INT_TAG | FLOAT_TAG | NULL_TAG | TIMESTAMP_TAG => plain(text),
        _ => return Ok(Scalar::Text(text.to_owned())),
    };
    match found {
        Scalar::Integer(number) if tag == FLOAT_TAG => Ok(Scalar::Float(number as f64)),
        found if found.tag() == tag => Ok(found),
        found => Err(format!("cannot decode {} `{text}` as a {}", short(found.tag()), short(tag))),
    }
}

fn short(tag: &str) -> String {
    tag.strip_prefix(PREFIX).map_or_else(|| tag.to_owned(), |name| format!("!!{name}"))
}

/// The value of a text without quotes and tag.
pub(super) fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Boolean(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Scalar::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => float(text),
        b'+' | b'-' | b'0'..=b'9' if is_timestamp(text) => Some(Scalar::Timestamp),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).map(Scalar::Integer).or_else(|| float(&digits))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', _, ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', _, ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.as_bytes().first().is_some_and(u8::is_ascii_hexdigit) {
        return None;
    }
    let value = sign * i128::from(u64::from_str_radix(digits, radix).ok()?);
    // Only a number without any sign may need all 64 bits.
    let most = if text.starts_with(['+', '-']) { i128::from(i64::MAX) } else { i128::from(u64::MAX) };
    (i128::from(i64::MIN)..=most).contains(&value).then_some(value)
}

/// Digits with a point, or an exponent, or neither.
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let is_digits = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let well_formed = is_digits(whole)
        && is_digits(part)
        && !(whole.is_empty() && part.is_empty())
        && exponent.is_none_or(|it| !it.is_empty() && is_digits(it));
    let value: f64 = text.parse().ok().filter(|_| well_formed)?;
    value.is_finite().then_some(Scalar::Float(value))
}

/// Whether a text looks like a date, or a date and a time.
fn is_timestamp(text: &str) -> bool {
    fn number(text: &str, least: usize, most: usize) -> Option<&str> {
        let found = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
        (found >= least).then(|| &text[found..])
    }
    let date = || {
        let rest = number(text, 4, 4)?.strip_prefix('-')?;
        number(number(rest, 1, 2)?.strip_prefix('-')?, 1, 2)
    };
    let time = |rest| {
        let rest = number(rest, 1, 2)?.strip_prefix(':')?;
        let rest = number(number(rest, 1, 2)?.strip_prefix(':')?, 1, 2)?;
        match rest.strip_prefix(['.', ',']) {
            Some(fraction) => number(fraction, 1, usize::MAX),
            None => Some(rest),
        }
    };
    let zone = |rest: &str| {
        let hours = || number(rest.strip_prefix(['+', '-'])?, 2, 2)?.strip_prefix(':').and_then(|it| number(it, 2, 2));
        rest == "Z" || hours() == Some("")
    };
    match date() {
        None => false,
        Some("") => true,
        Some(rest) => match rest.strip_prefix(['T', 't']) {
            Some(rest) => time(rest).is_some_and(zone),
            None => rest.strip_prefix(' ').and_then(time) == Some(""),
        },
    }
}

/// Whether some reader of YAML 1.1 may take a plain text for something else.
pub(super) fn is_ambiguous(text: &str) -> bool {
    matches!(text, "=" | "<<") || !matches!(plain(text), Scalar::Text(_)) || is_sexagesimal(text)
}

/// Whether a text is a number of base 60, such as `1:30`.
fn is_sexagesimal(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let is_number = |it: &str| it.bytes().all(|it| it.is_ascii_digit() || it == b'_');
    let mut places = whole.split(':');
    let first = places.next().unwrap_or_default();
    let mut more = 0;
    let fits = places.all(|it| {
        more += 1;
        matches!(it.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'])
    });
    fits && more > 0 && first.starts_with(|it: char| it.is_ascii_digit()) && is_number(first) && is_number(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts_are_what_yaml_1_1_says() {
        let text = |it: &str| Scalar::Text(it.to_owned());
        for (written, expected) in [
            ("yes", Scalar::Boolean(true)),
            ("Off", Scalar::Boolean(false)),
            ("y", Scalar::Boolean(true)),
            ("yEs", text("yEs")),
            ("~", Scalar::Null),
            ("", Scalar::Null),
            ("0644", Scalar::Integer(420)),
            ("0o644", Scalar::Integer(420)),
            ("0x1F", Scalar::Integer(31)),
            ("-0b11", Scalar::Integer(-3)),
            ("-1_000", Scalar::Integer(-1000)),
            ("+1", Scalar::Integer(1)),
            ("18446744073709551615", Scalar::Integer(u64::MAX.into())),
            ("-9223372036854775808", Scalar::Integer(i64::MIN.into())),
            ("123456789012345678901", Scalar::Float(123_456_789_012_345_678_901.0)),
            ("080", Scalar::Float(80.0)),
            ("8e1", Scalar::Float(80.0)),
            ("1.", Scalar::Float(1.0)),
            (".5", Scalar::Float(0.5)),
            ("12e03", Scalar::Float(12_000.0)),
            ("1e400", text("1e400")),
            ("1e", text("1e")),
            (".", text(".")),
            ("-", text("-")),
            ("+-1", text("+-1")),
            ("0x", text("0x")),
            ("0x-1", text("0x-1")),
            ("1:30", text("1:30")),
            ("2001-01-01", Scalar::Timestamp),
            ("2001-1-1t1:2:3.5+01:00", Scalar::Timestamp),
            ("2001-01-01 10:00:00", Scalar::Timestamp),
            ("2001-01-01T10:00:00", text("2001-01-01T10:00:00")),
            ("2001-01", text("2001-01")),
            ("NaN", text("NaN")),
            ("=", text("=")),
            ("<<", text("<<")),
        ] {
            assert_eq!(plain(written), expected, "{written}");
        }
        assert_eq!((plain(".inf"), plain("-.INF")), (Scalar::Float(f64::INFINITY), Scalar::Float(f64::NEG_INFINITY)));
    }

    #[test]
    fn tags_say_what_a_text_is() {
        let tag = |name: &str| format!("{PREFIX}{name}");
        assert_eq!(tagged(&tag("str"), "1"), Ok(Scalar::Text("1".to_owned())));
        assert_eq!(tagged(&tag("float"), "1"), Ok(Scalar::Float(1.0)));
        assert_eq!(tagged(&tag("binary"), "aGk="), Ok(Scalar::Text("hi".to_owned())));
        assert_eq!(tagged("!foo", "a"), Ok(Scalar::Text("a".to_owned())));
        assert_eq!(tagged(&tag("int"), "a").unwrap_err(), "cannot decode !!str `a` as a !!int");
        assert_eq!(tagged(&tag("binary"), "a").unwrap_err(), "!!binary value contains invalid base64 data");
    }

    #[test]
    fn what_others_read_otherwise_is_ambiguous() {
        for text in ["yes", "1:30", "190:20:30.15", "-1:5", "2001-01-01", "=", "~", "", "0o7", ".5", "TRUE"] {
            assert!(is_ambiguous(text), "{text}");
        }
        for text in ["a", "1:60", "1:", ":1", "1:a", "10.0.0.1", "1.2.3", "None"] {
            assert!(!is_ambiguous(text), "{text}");
        }
    }
}
