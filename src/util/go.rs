//! Values as Go prints them: Kubernetes' error messages quote values in this form, and scripts parse those. Also Go's parsing of booleans
//! and times.

use serde_json::Value;

/// Whether `strconv.ParseBool` reads this text as true.
pub fn is_true(text: &str) -> bool {
    parse_bool(text) == Some(true)
}

/// As `strconv.ParseBool`; `None` for an invalid text.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `%v` of a decoded JSON value: `map[image:nginx name:web ports:[80 443]]`, keys sorted.
pub fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            format!("map[{}]", pairs.iter().map(|(key, value)| format!("{key}:{}", print(value))).collect::<Vec<_>>().join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// `%#v` of a map of strings: `map[string]string{"app":"web"}`, keys sorted.
pub fn string_map<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_unstable();
    format!(
        "map[string]string{{{}}}",
        pairs.iter().map(|(key, value)| format!("{}:{}", quote(key), quote(value))).collect::<Vec<_>>().join(", ")
    )
}

/// `%#v` of a list of strings: `[]string{"a", "b"}`.
pub fn string_list(items: &[Value]) -> String {
    format!("[]string{{{}}}", items.iter().map(|it| quote(it.as_str().unwrap_or_default())).collect::<Vec<_>>().join(", "))
}

/// `%#v` of a number that may be a percentage (`intstr.IntOrString`).
pub fn int_or_string(value: &Value) -> String {
    match value {
        Value::String(text) => format!("intstr.IntOrString{{Type:1, IntVal:0, StrVal:{}}}", quote(text)),
        value => format!("intstr.IntOrString{{Type:0, IntVal:{}, StrVal:\"\"}}", value.as_i64().unwrap_or_default()),
    }
}

/// `%v` of a time given as `2020-01-01T00:00:00Z`.
pub fn shown_time(text: &str) -> String {
    text.replace('T', " ").replace('Z', " +0000 UTC")
}

/// `%q`: a quoted string, with unprintable characters escaped.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for it in text.chars() {
        match it {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            it if it.is_control() && (it as u32) < 0x80 => out.push_str(&format!("\\x{:02x}", it as u32)),
            it if it.is_control() => out.push_str(&format!("\\u{:04x}", it as u32)),
            it => out.push(it),
        }
    }
    out.push('"');
    out
}

/// Kubernetes' layouts of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLayout {
    /// `metav1.Time`: a fraction of a second is optional.
    Seconds,
    /// `metav1.MicroTime`: six fractional digits are required.
    Microseconds,
}

impl TimeLayout {
    fn text(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Microseconds => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// `time.Parse`: the date and time in UTC. Not a timestamp, whose range ends a day before the year 9999 does: clients write the last second
/// of that year for "for ever".
///
/// # Errors
/// The element of the layout that the text does not match, with Go's message.
pub fn parse_time(text: &str, layout: TimeLayout) -> Result<jiff::civil::DateTime, String> {
    let mut rest = Rest(text);
    time(&mut rest, layout).map_err(|fault| match fault {
        TimeFault::Element(element) => {
            let (text, layout) = (quote(text), quote(layout.text()));
            format!("parsing time {text} as {layout}: cannot parse {} as {}", quote(rest.0), quote(element))
        }
        TimeFault::Range(what) => format!("parsing time {}: {what} out of range", quote(text)),
        TimeFault::Extra => format!("parsing time {}: extra text: {}", quote(text), quote(rest.0)),
    })
}

enum TimeFault {
    Element(&'static str),
    Range(&'static str),
    Extra,
}

/// The unread rest of a text.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// At least `least` and at most `most` digits.
    fn digits(&mut self, least: usize, most: usize) -> Option<i32> {
        let found = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let number = (found >= least).then(|| self.0[..found].parse().ok())??;
        self.0 = &self.0[found..];
        Some(number)
    }

    fn take(&mut self, prefix: &'static str) -> Result<(), TimeFault> {
        self.0 = self.0.strip_prefix(prefix).ok_or(TimeFault::Element(prefix))?;
        Ok(())
    }

    fn number(&mut self, element: &'static str, least: usize, most: usize) -> Result<i8, TimeFault> {
        self.digits(least, most).and_then(|it| i8::try_from(it).ok()).ok_or(TimeFault::Element(element))
    }
}

fn time(rest: &mut Rest<'_>, layout: TimeLayout) -> Result<jiff::civil::DateTime, TimeFault> {
    let within =
        |number: i8, least: i8, most: i8, what| if (least..=most).contains(&number) { Ok(number) } else { Err(TimeFault::Range(what)) };
    let year = rest.digits(4, 4).ok_or(TimeFault::Element("2006"))?;
    rest.take("-")?;
    let month = within(rest.number("01", 2, 2)?, 1, 12, "month")?;
    rest.take("-")?;
    let day = rest.number("02", 2, 2)?;
    rest.take("T")?;
    let hour = within(rest.number("15", 1, 2)?, 0, 23, "hour")?;
    rest.take(":")?;
    let minute = within(rest.number("04", 2, 2)?, 0, 59, "minute")?;
    rest.take(":")?;
    let second = within(rest.number("05", 2, 2)?, 0, 59, "second")?;
    let nanoseconds = fraction(rest, layout)?;
    let offset = zone(rest)?;
    if !rest.0.is_empty() {
        return Err(TimeFault::Extra);
    }
    let date = jiff::civil::Date::new(i16::try_from(year).unwrap_or_default(), month, day).map_err(|_| TimeFault::Range("day"))?;
    let there = date.at(hour, minute, second, nanoseconds);
    there.checked_sub(offset).map_err(|_| TimeFault::Range("day"))
}

fn fraction(rest: &mut Rest<'_>, layout: TimeLayout) -> Result<i32, TimeFault> {
    let digits = rest.0.strip_prefix(['.', ',']).map_or(0, |it| it.bytes().take_while(u8::is_ascii_digit).count());
    let (read, counted) = match layout {
        TimeLayout::Microseconds if digits < 6 => return Err(TimeFault::Element(".000000")),
        TimeLayout::Microseconds => (7, 6),
        TimeLayout::Seconds if digits == 0 => return Ok(0),
        TimeLayout::Seconds => (1 + digits, digits.min(9)),
    };
    let number: i32 = rest.0[1..=counted].parse().unwrap_or_default();
    rest.0 = &rest.0[read..];
    Ok(number * 10_i32.pow(9 - counted as u32))
}

/// A zone's offset from UTC.
fn zone(rest: &mut Rest<'_>) -> Result<jiff::SignedDuration, TimeFault> {
    const ELEMENT: TimeFault = TimeFault::Element("Z07:00");
    if let Some(after) = rest.0.strip_prefix('Z') {
        rest.0 = after;
        return Ok(jiff::SignedDuration::ZERO);
    }
    let [sign @ (b'+' | b'-'), h, hh, b':', m, mm, ..] = rest.0.as_bytes() else { return Err(ELEMENT) };
    if ![h, hh, m, mm].into_iter().all(u8::is_ascii_digit) {
        return Err(ELEMENT);
    }
    let number = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
    let (hours, minutes) = (number(*h, *hh), number(*m, *mm));
    if hours > 24 {
        return Err(TimeFault::Range("time zone offset hour"));
    }
    if minutes > 60 {
        return Err(TimeFault::Range("time zone offset minute"));
    }
    let seconds = (hours * 60 + minutes) * 60;
    rest.0 = &rest.0[6..];
    Ok(jiff::SignedDuration::from_secs(if *sign == b'-' { -seconds } else { seconds }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forms() {
        assert_eq!(print(&json!({"b": [1, "x", null], "a": {"c": true}})), "map[a:map[c:true] b:[1 x <nil>]]");
        assert_eq!(string_map([("b", "2"), ("a", "1\"")]), r#"map[string]string{"a":"1\"", "b":"2"}"#);
        assert_eq!(string_map([]), "map[string]string{}");
        assert_eq!(string_list(&[json!("a"), json!("b")]), r#"[]string{"a", "b"}"#);
        assert_eq!(int_or_string(&json!(3)), r#"intstr.IntOrString{Type:0, IntVal:3, StrVal:""}"#);
        assert_eq!(int_or_string(&json!("3%")), r#"intstr.IntOrString{Type:1, IntVal:0, StrVal:"3%"}"#);
        assert_eq!(quote("a\nb\u{1}é"), r#""a\nb\x01é""#);
    }

    #[test]
    fn times_are_read_as_go_reads_them() {
        use TimeLayout::{Microseconds, Seconds};
        for (text, layout, time) in [
            ("2024-02-29T12:00:00Z", Seconds, "2024-02-29T12:00:00"),
            ("2024-02-29T1:00:00.5+01:00", Seconds, "2024-02-29T00:00:00.5"),
            ("2024-02-29T12:00:00.1234567891Z", Seconds, "2024-02-29T12:00:00.123456789"),
            ("2024-02-29T12:00:00.123456Z", Microseconds, "2024-02-29T12:00:00.123456"),
            ("2024-02-29T12:00:00+24:60", Seconds, "2024-02-28T11:00:00"),
            ("9999-12-31T23:59:59Z", Seconds, "9999-12-31T23:59:59"),
            ("9999-12-31T00:00:00.999999Z", Microseconds, "9999-12-31T00:00:00.999999"),
            ("0000-01-01T00:00:00Z", Seconds, "0000-01-01T00:00:00"),
        ] {
            assert_eq!(parse_time(text, layout).unwrap(), time.parse::<jiff::civil::DateTime>().unwrap(), "{text}");
        }
        let rejected = |text: &str, layout: TimeLayout, why: &str| {
            let start = format!("parsing time {text:?}");
            assert_eq!(parse_time(text, layout).unwrap_err(), format!("{start}{why}"));
        };
        let cannot = |rest: &str, element: &str| format!(" as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {element:?}");
        for (text, rest, element) in [
            ("", "", "2006"),
            ("today", "today", "2006"),
            ("2024/02/29", "/02/29", "-"),
            ("2024-2-29T12:00:00Z", "2-29T12:00:00Z", "01"),
            ("2024-02-29", "", "T"),
            ("2024-02-29T12:00:00", "", "Z07:00"),
            ("2024-02-29T12:00:00+0100", "+0100", "Z07:00"),
        ] {
            rejected(text, Seconds, &cannot(rest, element));
        }
        rejected("2023-02-29T12:00:00Z", Seconds, ": day out of range");
        rejected("2023-13-29T12:00:00Z", Seconds, ": month out of range");
        rejected("2023-01-29T24:00:00Z", Seconds, ": hour out of range");
        rejected("2023-01-29T12:00:00Zulu", Seconds, ": extra text: \"ulu\"");
        let layout = "2006-01-02T15:04:05.000000Z07:00";
        rejected("2024-02-29T12:00:00Z", Microseconds, &format!(" as {layout:?}: cannot parse \"Z\" as \".000000\""));
        rejected("2024-02-29T12:00:00.5Z", Microseconds, &format!(" as {layout:?}: cannot parse \".5Z\" as \".000000\""));
        rejected("2024-02-29T12:00:00.1234567Z", Microseconds, &format!(" as {layout:?}: cannot parse \"7Z\" as \"Z07:00\""));
    }
}
