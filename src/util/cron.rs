//! Schedules in cron's syntax: five fields (minute, hour, day of the month, month, day of the week), or a word such as `@daily`.

use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

use super::{duration, go};

/// A recurring time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields(Fields),
    /// `@every 1h30m`: this long after the last time.
    Every(Duration),
}

/// The selected values of each field, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// `*` in the day of the month, and in the day of the week. If neither is `*`, one matching day is enough; otherwise both must match.
    any_day: bool,
    any_weekday: bool,
}

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// How many years ahead to search: 29 February may be eight years away.
const HORIZON: i16 = 9;

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if let Some(word) = text.strip_prefix('@') {
            return of_word(text, word);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(ScheduleError(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" "))));
        };
        let (minutes, _) = field(minutes, 0, 59, &[])?;
        let (hours, _) = field(hours, 0, 23, &[])?;
        let (days, any_day) = field(days, 1, 31, &[])?;
        let (months, _) = field(months, 1, 12, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, 0, 6, &WEEKDAYS)?;
        Ok(Self::Fields(Fields { minutes, hours, days, months, weekdays, any_day, any_weekday }))
    }
}

fn of_word(text: &str, word: &str) -> Result<Schedule, ScheduleError> {
    let unknown = || ScheduleError(format!("unrecognized descriptor: {text}"));
    if let Some(pause) = word.strip_prefix("every ") {
        // The shortest pause stands for a negative one.
        let pause = match duration::parse(pause) {
            Err(_) if pause.starts_with('-') => duration::parse(&pause[1..]).map(|_| Duration::ZERO),
            parsed => parsed,
        };
        let pause = pause.map_err(|_| unknown())?;
        // Whole seconds, at least one.
        return Ok(Schedule::Every(Duration::from_secs(pause.as_secs().max(1))));
    }
    match word {
        "yearly" | "annually" => "0 0 1 1 *",
        "monthly" => "0 0 1 * *",
        "weekly" => "0 0 * * 0",
        "daily" | "midnight" => "0 0 * * *",
        "hourly" => "0 * * * *",
        _ => return Err(unknown()),
    }
    .parse()
}

/// The selected values of a field, and whether it is `*`.
fn field(text: &str, low: u32, high: u32, words: &[&str]) -> Result<(u64, bool), ScheduleError> {
    let number = |text: &str| -> Result<u32, ScheduleError> {
        if let Some(at) = words.iter().position(|it| it.eq_ignore_ascii_case(text)) {
            return Ok(at as u32 + low);
        }
        let why = || format!("failed to parse int from {text}: strconv.Atoi: parsing {}: invalid syntax", go::quote(text));
        text.parse().map_err(|_| ScheduleError(why()))
    };
    let (mut bits, mut open) = (0, false);
    for part in text.split(',').filter(|it| !it.is_empty()) {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let all = matches!(range, "*" | "?");
        let (start, end) = match range.split_once('-') {
            _ if all => (low, high),
            Some((start, end)) => (number(start)?, number(end)?),
            None if step.is_some() => (number(range)?, high),
            None => (number(range)?, number(range)?),
        };
        let step = step.map(number).transpose()?.unwrap_or(1);
        let wrong = if step == 0 {
            Some(format!("step of range should be a positive number: {part}"))
        } else if start < low {
            Some(format!("beginning of range ({start}) below minimum ({low}): {part}"))
        } else if end > high {
            Some(format!("end of range ({end}) above maximum ({high}): {part}"))
        } else if start > end {
            Some(format!("beginning of range ({start}) beyond end of range ({end}): {part}"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(ScheduleError(wrong));
        }
        open |= all && step == 1;
        (start..=end).step_by(step as usize).for_each(|it| bits |= 1 << it);
    }
    Ok((bits, open))
}

impl Schedule {
    /// The first time after `after` on the clocks of `zone`; `None` if there is none within the next years, such as for 30 February. Times
    /// that the clocks skip do not occur, and repeated ones occur twice.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Fields(fields) => fields.next(after.to_zoned(zone.clone())),
            Self::Every(pause) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::try_from(*pause).ok()?).ok()
            }
        }
    }
}

impl Fields {
    fn next(&self, after: Zoned) -> Option<Timestamp> {
        let last_year = after.year().saturating_add(HORIZON);
        // The next whole minute.
        let minute = Timestamp::from_second((after.timestamp().as_second().div_euclid(60) + 1) * 60).ok()?;
        let mut at = minute.to_zoned(after.time_zone().clone());
        while at.year() < last_year {
            let has = |bits: u64, value: i8| bits >> value & 1 == 1;
            if !has(self.months, at.month()) {
                at = midnight(at.first_of_month().ok()?.checked_add(1.month()).ok()?)?;
            } else if !self.on_day(&at) {
                at = midnight(at.checked_add(1.day()).ok()?)?;
            } else if !has(self.hours, at.hour()) {
                at = at.checked_add(i64::from(60 - at.minute()).minutes()).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn on_day(&self, at: &Zoned) -> bool {
        let day = self.days >> at.day() & 1 == 1;
        let weekday = self.weekdays >> at.weekday().to_sunday_zero_offset() & 1 == 1;
        if self.any_day || self.any_weekday { day && weekday } else { day || weekday }
    }
}

/// The beginning of the day, which need not be midnight.
fn midnight(at: Zoned) -> Option<Zoned> {
    at.with().time(Time::midnight()).build().ok()?.start_of_day().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_no_schedules() {
        for good in ["* * * * *", "*/5 0-6,12 1 JAN-mar ?", "@hourly", "@every 1h30m", "0 0 1/2 * sun", "?, 1,,2 * * *", "@every -1s"] {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        for (bad, fault) in [
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(bad.parse::<Schedule>().unwrap_err().to_string(), fault, "{bad}");
        }
    }

    #[test]
    fn times_follow_each_other() {
        let utc = ["2026-01-31T23:59:30Z"];
        for (schedule, zone, after, expected) in [
            ("* * * * *", "UTC", utc[0], "2026-02-01T00:00:00Z"),
            ("* * * * *", "UTC", "2026-02-01T00:00:00Z", "2026-02-01T00:01:00Z"),
            ("*/15 * * * *", "UTC", "2026-02-01T00:46:00Z", "2026-02-01T01:00:00Z"),
            ("30 6-16/4 * * 1-5", "UTC", "2026-01-30T14:31:00Z", "2026-02-02T06:30:00Z"),
            ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // If both kinds of days are given, either is enough.
            ("0 0 13 * fri", "UTC", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z"),
            ("0 0 */2 * fri", "UTC", "2026-02-01T00:00:00Z", "2026-02-03T00:00:00Z"),
            ("@monthly", "UTC", utc[0], "2026-02-01T00:00:00Z"),
            ("@every -1h", "UTC", "2026-02-01T00:00:00Z", "2026-02-01T00:00:01Z"),
            ("@every 90s", "UTC", "2026-02-01T00:00:00.5Z", "2026-02-01T00:01:30Z"),
            ("0 9 * * *", "Asia/Tokyo", "2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z"),
            // In spring half past two does not exist; in autumn half past one occurs twice.
            ("30 2 * * *", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-09T06:30:00Z"),
            ("30 1 * * *", "America/New_York", "2026-11-01T05:00:00Z", "2026-11-01T05:30:00Z"),
            ("30 1 * * *", "America/New_York", "2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"),
            // A day that begins at one o'clock.
            ("0 * * * *", "America/Santiago", "2026-09-06T03:30:00Z", "2026-09-06T04:00:00Z"),
        ] {
            let zone = TimeZone::get(zone).unwrap();
            let next = schedule.parse::<Schedule>().unwrap().next(after.parse().unwrap(), &zone);
            assert_eq!(next, Some(expected.parse().unwrap()), "{schedule} after {after}");
        }
        assert_eq!("0 0 30 2 *".parse::<Schedule>().unwrap().next("2026-01-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC), None);
    }
}
