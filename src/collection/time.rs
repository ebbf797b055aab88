//! CF time: `‹unit› since ‹date›` in the calendars that oceanographic files use.
//!
//! Time labels are matched as whole milliseconds since 1970-01-01T00:00:00 of the calendar, because one instant is written
//! as `float64` days by one producer and `int32` seconds by the next; a float of days around today resolves 0.3 µs.
//! Source: CF conventions 1.11, section 4.4. `standard` and `gregorian` are taken as proleptic: the mixed calendar's switch
//! in 1582 is refused rather than guessed.

use crate::error::{Error, Result};

/// A calendar of CF section 4.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "CF's own names")]
pub enum Calendar {
    Standard,
    NoLeap,
    AllLeap,
    Day360,
    Julian,
}

/// How a variable counts time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeUnits {
    /// Milliseconds of one unit, as a fraction: microseconds are 1/1000.
    unit_nanoseconds: i128,
    /// The reference date in milliseconds since 1970 of the calendar.
    reference_milliseconds: i64,
    /// The calendar.
    calendar: Calendar,
}

impl TimeUnits {
    /// Parses `units` and `calendar`; `None` where `units` is not of the form `‹unit› since ‹date›`.
    ///
    /// # Errors
    /// `Invalid` where it is of that form but the unit, the date or the calendar is not known.
    pub fn parse(units: &str, calendar: Option<&str>) -> Result<Option<Self>> {
        let lower = units.trim().to_ascii_lowercase();
        let Some((unit, date)) = lower.split_once(" since ") else {
            return Ok(None);
        };
        let unit_nanoseconds = match unit.trim() {
            "day" | "days" | "d" => 86_400_000_000_000,
            "hour" | "hours" | "hr" | "hrs" | "h" => 3_600_000_000_000,
            "minute" | "minutes" | "min" | "mins" => 60_000_000_000,
            "second" | "seconds" | "sec" | "secs" | "s" => 1_000_000_000,
            "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => 1_000_000,
            "microsecond" | "microseconds" => 1_000,
            "nanosecond" | "nanoseconds" => 1,
            other => {
                return Err(Error::invalid(format!("time unit `{other}` in `{units}` is not supported"))
                    .hint("weeks, months and years have no fixed length: convert in a `preprocess` hook"));
            }
        };
        let calendar = match calendar.map(|name| name.trim().to_ascii_lowercase()).as_deref() {
            None | Some("" | "standard" | "gregorian" | "proleptic_gregorian") => Calendar::Standard,
            Some("noleap" | "365_day") => Calendar::NoLeap,
            Some("all_leap" | "366_day") => Calendar::AllLeap,
            Some("360_day") => Calendar::Day360,
            Some("julian") => Calendar::Julian,
            Some(other) => return Err(Error::invalid(format!("calendar `{other}` is not supported"))),
        };
        let reference_milliseconds = parse_date(date.trim(), calendar)
            .ok_or_else(|| Error::invalid(format!("no date in time units `{units}`")))?;
        Ok(Some(Self { unit_nanoseconds, reference_milliseconds, calendar }))
    }

    /// Milliseconds since 1970 of a value of `float64`.
    #[must_use]
    pub fn milliseconds_of_float(&self, value: f64) -> Option<i64> {
        // The whole units are exact; only the fraction goes through floats.
        let whole = value.trunc();
        if !whole.is_finite() || whole.abs() > 9e15 {
            return None;
        }
        let fraction = (value - whole) * self.unit_nanoseconds as f64;
        let nanoseconds = (whole as i128).checked_mul(self.unit_nanoseconds)? + fraction.round() as i128;
        self.whole_milliseconds(nanoseconds)
    }

    /// Milliseconds since 1970 of an integer value.
    #[must_use]
    pub fn milliseconds_of_integer(&self, value: i64) -> Option<i64> {
        self.whole_milliseconds(i128::from(value).checked_mul(self.unit_nanoseconds)?)
    }

    fn whole_milliseconds(&self, nanoseconds: i128) -> Option<i64> {
        let milliseconds = (nanoseconds + 500_000).div_euclid(1_000_000);
        i64::try_from(milliseconds + i128::from(self.reference_milliseconds)).ok()
    }

    /// The value of `milliseconds` in these units.
    #[must_use]
    pub fn value_of(&self, milliseconds: i64) -> f64 {
        let nanoseconds = i128::from(milliseconds - self.reference_milliseconds) * 1_000_000;
        let whole = nanoseconds.div_euclid(self.unit_nanoseconds);
        let rest = nanoseconds.rem_euclid(self.unit_nanoseconds);
        whole as f64 + rest as f64 / self.unit_nanoseconds as f64
    }

    /// `a` and `b` of `target = a · value + b` from these units to `target`; `None` between different calendars.
    #[must_use]
    pub fn affine_to(&self, target: &Self) -> Option<(f64, f64)> {
        if self.calendar != target.calendar {
            return None;
        }
        let shift = i128::from(self.reference_milliseconds - target.reference_milliseconds) * 1_000_000;
        Some((
            self.unit_nanoseconds as f64 / target.unit_nanoseconds as f64,
            shift as f64 / target.unit_nanoseconds as f64,
        ))
    }

    /// The calendar.
    #[must_use]
    pub fn calendar(&self) -> Calendar {
        self.calendar
    }
}

/// `YYYY-MM-DDThh:mm:ss.sssZ` of milliseconds since 1970 in `calendar`; whole seconds leave the fraction out.
#[must_use]
pub fn format_milliseconds(milliseconds: i64, calendar: Calendar) -> String {
    let days = milliseconds.div_euclid(86_400_000);
    let rest = milliseconds.rem_euclid(86_400_000);
    let (year, month, day) = date_of_days(days, calendar);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, fraction) = (rest / 1000 % 60, rest % 1000);
    if fraction == 0 {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    } else {
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z")
    }
}

/// Milliseconds since 1970 of a date as CF units and people write it: `1985-01-01`, `1985-1-1 00:00:00+00:00`, `…Z`, `… UTC`.
#[must_use]
pub fn parse_date(text: &str, calendar: Calendar) -> Option<i64> {
    let text = text.trim().trim_end_matches("utc").trim_end_matches("UTC").trim().trim_end_matches(['z', 'Z']).trim();
    let (date, clock) = match text.find(['t', 'T', ' ']) {
        Some(at) => (&text[..at], text[at + 1..].trim()),
        None => (text, ""),
    };
    let (sign, digits) = date.strip_prefix('-').map_or((1, date), |rest| (-1, rest));
    let mut parts = digits.split('-');
    let year: i64 = parts.next()?.parse().ok()?;
    let month: i64 = parts.next().map_or(Some(1), |part| part.parse().ok())?;
    let day: i64 = parts.next().map_or(Some(1), |part| part.parse().ok())?;
    if parts.next().is_some()
        || year > 200_000
        || !(1..=12).contains(&month)
        || day < 1
        || day > month_days(year, month, calendar)
    {
        return None;
    }
    let days = days_of_date(sign * year, month, day, calendar);
    let (clock, zone_minutes) = split_zone(clock)?;
    let mut milliseconds = 0;
    if !clock.is_empty() {
        let mut parts = clock.split(':');
        let hour: i64 = parts.next()?.parse().ok()?;
        let minute: i64 = parts.next().map_or(Some(0), |part| part.parse().ok())?;
        let second: f64 = parts.next().map_or(Some(0.0), |part| part.parse().ok())?;
        if parts.next().is_some()
            || !(0..=24).contains(&hour)
            || !(0..60).contains(&minute)
            || !(0.0..61.0).contains(&second)
        {
            return None;
        }
        milliseconds = (hour * 60 + minute) * 60_000 + (second * 1000.0).round() as i64;
    }
    Some(days * 86_400_000 + milliseconds - zone_minutes * 60_000)
}

/// Splits a trailing `+hh:mm`, `-hh`, `+hhmm` off a clock.
fn split_zone(clock: &str) -> Option<(&str, i64)> {
    let Some(at) = clock.find(['+', '-']) else {
        return Some((clock, 0));
    };
    let sign = if clock.as_bytes()[at] == b'-' { -1 } else { 1 };
    let digits: String = clock[at + 1..].chars().filter(|character| *character != ':').collect();
    let (hours, minutes) = match digits.len() {
        1 | 2 => (digits.parse::<i64>().ok()?, 0),
        3 | 4 => (digits[..digits.len() - 2].parse::<i64>().ok()?, digits[digits.len() - 2..].parse::<i64>().ok()?),
        _ => return None,
    };
    Some((clock[..at].trim(), sign * (hours * 60 + minutes)))
}

fn is_leap(year: i64, calendar: Calendar) -> bool {
    match calendar {
        Calendar::Standard => year % 4 == 0 && (year % 100 != 0 || year % 400 == 0),
        Calendar::Julian => year.rem_euclid(4) == 0,
        Calendar::AllLeap => true,
        Calendar::NoLeap | Calendar::Day360 => false,
    }
}

fn month_days(year: i64, month: i64, calendar: Calendar) -> i64 {
    if calendar == Calendar::Day360 {
        return 30;
    }
    match month {
        2 if is_leap(year, calendar) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before January 1st of `year`, counted from year 0.
fn days_before_year(year: i64, calendar: Calendar) -> i64 {
    let before = year - 1;
    match calendar {
        Calendar::Standard => year * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) + 1,
        Calendar::Julian => year * 365 + before.div_euclid(4) + 1,
        Calendar::NoLeap => year * 365,
        Calendar::AllLeap => year * 366,
        Calendar::Day360 => year * 360,
    }
}

fn days_of_date(year: i64, month: i64, day: i64, calendar: Calendar) -> i64 {
    let in_year: i64 = (1..month).map(|earlier| month_days(year, earlier, calendar)).sum();
    days_before_year(year, calendar) - days_before_year(1970, calendar) + in_year + day - 1
}

fn date_of_days(days: i64, calendar: Calendar) -> (i64, i64, i64) {
    let days = days + days_before_year(1970, calendar);
    // The mean year is close enough that at most two corrections follow.
    let mut year = days.div_euclid(366);
    while days_before_year(year + 1, calendar) <= days {
        let missing = days - days_before_year(year + 1, calendar);
        year += 1 + missing / 367;
    }
    let mut rest = days - days_before_year(year, calendar);
    let mut month = 1;
    while rest >= month_days(year, month, calendar) {
        rest -= month_days(year, month, calendar);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units(text: &str) -> TimeUnits {
        TimeUnits::parse(text, None).unwrap().unwrap()
    }

    #[test]
    fn one_instant_in_the_units_of_three_producers() {
        let days = units("days since 1985-01-01 00:00:00+00:00");
        let utc = units("days since 1985-01-01 00:00:00 UTC");
        let seconds = units("seconds since 1981-01-01");
        let instant = days.milliseconds_of_float(9739.0).unwrap();
        assert_eq!(format_milliseconds(instant, Calendar::Standard), "2011-09-01T00:00:00Z");
        assert_eq!(utc.milliseconds_of_float(9739.0), Some(instant));
        assert_eq!(seconds.milliseconds_of_integer(seconds.value_of(instant) as i64), Some(instant));
        let (factor, shift) = days.affine_to(&seconds).unwrap();
        assert_eq!((9739.0 * factor + shift).to_bits(), seconds.value_of(instant).to_bits());
    }

    #[test]
    fn units_that_are_not_time_and_units_that_have_no_length() {
        assert!(TimeUnits::parse("degrees_north", None).unwrap().is_none());
        assert!(TimeUnits::parse("months since 2000-01-01", None).is_err());
        assert!(TimeUnits::parse("days since noon", None).is_err());
        assert!(TimeUnits::parse("days since 2001-02-30", None).is_err());
        assert!(TimeUnits::parse("days since 2001-02-30", Some("360_day")).is_ok());
    }

    #[test]
    fn a_zone_moves_the_reference() {
        let zoned = units("hours since 2000-01-01 10:00:00 +10:00");
        assert_eq!(
            format_milliseconds(zoned.milliseconds_of_integer(0).unwrap(), Calendar::Standard),
            "2000-01-01T00:00:00Z"
        );
    }

    proptest! {
        #[test]
        fn a_date_survives_formatting_and_parsing(days in -800_000i64..800_000, rest in 0i64..86_400_000, which in 0usize..5) {
            let calendar = [Calendar::Standard, Calendar::NoLeap, Calendar::AllLeap, Calendar::Day360, Calendar::Julian][which];
            let milliseconds = days * 86_400_000 + rest;
            prop_assume!(date_of_days(days, calendar).0 > 0);
            prop_assert_eq!(parse_date(&format_milliseconds(milliseconds, calendar), calendar), Some(milliseconds));
        }
    }
}
