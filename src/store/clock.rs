//! Stamps that people read.
//!
//! Nothing is decided by the wall clock: order comes from log numbers, leases from the waiter's own monotonic clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The present time as RFC 3339 in UTC with milliseconds, `2024-02-29T12:00:00.000Z`; for display only.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock, for display only")]
pub fn now_rfc3339() -> String {
    rfc3339(SystemTime::now())
}

/// `time` as RFC 3339 in UTC with milliseconds; times before 1970 print as 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format(since.as_secs(), since.subsec_millis())
}

/// Seconds and milliseconds since 1970 as text. The calendar arithmetic is Howard Hinnant's `civil_from_days`.
pub(super) fn format(seconds: u64, milliseconds: u32) -> String {
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_print_as_rfc3339() {
        assert_eq!(format(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(format(1_735_689_599, 999), "2024-12-31T23:59:59.999Z");
        assert_eq!(format(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
