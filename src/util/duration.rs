//! Durations in Go's and Kubernetes' syntax: `1h2m3.5s` in flags and configuration, `3m2s` or `5d3h` for ages in tables. Also durations and
//! times that users choose, which may be of any size: arithmetic on them saturates.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Text that is not a duration, with the messages of Go's `time` package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    #[error("time: unknown unit {1:?} in duration {0:?}")]
    UnknownUnit(String, String),
    #[error("duration {0:?} is negative")]
    Negative(String),
}

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The longest duration that a user can ask for, 68 years: small multiples of it, and times that far from now, are within every range.
const LONGEST: i64 = i32::MAX as i64;

/// The duration of a number of seconds that a user chose: not less than none, not more than [`LONGEST`].
pub fn of_user(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds.clamp(0, LONGEST))
}

/// The time this long after another; at most the last one that there is.
pub fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// Parses `20m0s`, `1.5h`, `300ms` or `0`.
///
/// # Errors
/// For any other text, a negative duration, and one beyond 2^63-1 nanoseconds (292 years).
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(after.find(|it: char| it == '.' || it.is_ascii_digit()).unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(DurationError::UnknownUnit(text.to_owned(), unit.to_owned()));
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        // Digits beyond the fifteenth amount to less than a nanosecond, even of an hour.
        let fraction = &fraction[..fraction.len().min(15)];
        let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().map_err(|_| invalid())? };
        total += u128::from(whole) * nanos + part * nanos / 10_u128.pow(fraction.len() as u32);
        if total > i64::MAX as u128 {
            return Err(invalid());
        }
        rest = after;
    }
    if negative && total > 0 {
        return Err(DurationError::Negative(text.to_owned()));
    }
    Ok(Duration::from_nanos(total as u64))
}

/// `20m0s`, `1.5s`, `300ms`, `0s`: the inverse of [`parse`], as Go prints it.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, name) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let seconds = nanos / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let below_minute = if seconds >= 60 { nanos % 60_000_000_000 } else { nanos };
    let (whole, fraction) = (below_minute / unit, below_minute % unit);
    let mut out = String::new();
    if hours > 0 {
        out += &format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        out += &format!("{minutes}m");
    }
    out += &whole.to_string();
    if fraction > 0 {
        let width = unit.ilog10() as usize;
        out += format!(".{fraction:0width$}").trim_end_matches('0');
    }
    out + name
}

/// An age in the form of kubectl's tables: at most two units, the finer one only for small ages. Slightly negative ages are `0s` (clocks
/// differ), others `<invalid>`.
pub fn human(seconds: i64) -> String {
    const YEAR: i64 = 365;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |major: i64, unit: char, minor: i64, minor_unit: char| {
        if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{minor_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, 'd', hours % 24, 'h'),
        _ if days < 2 * YEAR => format!("{days}d"),
        _ if days < 8 * YEAR => two(days / YEAR, 'y', days % YEAR, 'd'),
        _ => format!("{}y", days / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("-0", 0, "0s"),
            ("+5s", 5_000_000_000, "5s"),
            ("20m0s", 1_200_000_000_000, "20m0s"),
            ("20m", 1_200_000_000_000, "20m0s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("1h", 3_600_000_000_000, "1h0m0s"),
            ("1h1s", 3_601_000_000_000, "1h0m1s"),
            ("300ms", 300_000_000, "300ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5s", 500_000_000, "500ms"),
            ("5.s", 5_000_000_000, "5s"),
            ("1m0.001s", 60_001_000_000, "1m0.001s"),
            ("15us", 15_000, "15µs"),
            ("1.25µs", 1_250, "1.25µs"),
            ("3ns", 3, "3ns"),
        ] {
            let duration = parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(duration.as_nanos(), nanos, "{text}");
            assert_eq!(format(duration), printed, "{text}");
        }
        for (text, error) in [
            ("", r#"time: invalid duration """#),
            ("s", r#"time: invalid duration "s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("3000000h", r#"time: invalid duration "3000000h""#),
            ("10", r#"time: missing unit in duration "10""#),
            ("1s2", r#"time: missing unit in duration "1s2""#),
            ("10x", r#"time: unknown unit "x" in duration "10x""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            ("-1s", r#"duration "-1s" is negative"#),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn ages() {
        let (hour, day) = (3600, 86400);
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (5, "5s"),
            (119, "119s"),
            (120, "2m"),
            (182, "3m2s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * hour - 1, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 60, "3h1m"),
            (8 * hour, "8h"),
            (2 * day - 1, "47h"),
            (2 * day, "2d"),
            (5 * day + 3 * hour, "5d3h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (2 * 365 * day, "2y"),
            (2 * 365 * day + day, "2y1d"),
            (8 * 365 * day + day, "8y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn what_users_choose_is_within_range() {
        let longest = of_user(i64::MAX);
        assert_eq!((of_user(i64::MIN), of_user(30)), (SignedDuration::ZERO, SignedDuration::from_secs(30)));
        assert_eq!(after(Timestamp::MAX, longest), Timestamp::MAX);
        assert!(after(Timestamp::UNIX_EPOCH, longest) < Timestamp::MAX);
        assert_eq!(after(Timestamp::MIN, SignedDuration::MIN), Timestamp::MIN);
    }

    proptest! {
        #[test]
        fn printing_is_the_inverse_of_parsing(nanos in 0..i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)).unwrap(), duration);
        }

        #[test]
        fn nothing_panics(text in "\\PC*|[-+]?([0-9]{0,25}\\.?[0-9]{0,25}(ns|us|µs|ms|s|m|h)){0,4}", seconds: i64) {
            let _ = parse(&text);
            human(seconds);
        }
    }
}
