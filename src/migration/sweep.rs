//! Uploads in parts that a killed run left behind cost money until somebody throws them away.
//!
//! A service tells nothing of an unfinished upload but its key and when it was begun. So an upload is taken for ours only
//! where its key is one that this run is about to write, and where it was begun while a run of this set was alive that never
//! ended: between the first and the last of its records, a little later at most. All these times are the service's own.
//! What falls through is for the bucket's lifecycle rule (`AbortIncompleteMultipartUpload`).

use std::collections::HashSet;

use futures::stream::TryStreamExt;

use super::Migrations;
use crate::error::Result;

/// Runs looked back at.
const RUNS: usize = 20;
/// Seconds after its last record in which a run may have begun an upload.
const LATER: u64 = 60;

impl Migrations {
    /// Aborts uploads for `keys` that killed runs left; says how many.
    pub(super) async fn sweep<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<u64> {
        let mut alive = Vec::new();
        for run in self.runs(Some(RUNS)).await?.iter().filter(|run| run.ended.is_none()) {
            let records: Vec<_> = self.run_store(&run.run).list("", None).try_collect().await?;
            let times: Vec<u64> = records.iter().filter_map(|meta| seconds(meta.modified.as_deref()?)).collect();
            if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
                alive.push(*first..=last + LATER);
            }
        }
        if alive.is_empty() {
            return Ok(0);
        }
        let keys: HashSet<&str> = keys.collect();
        let mut swept = 0;
        for prefix in self.selection.prefixes() {
            let ours = |key: &str, begun: &str| {
                keys.contains(key) && seconds(begun).is_some_and(|begun| alive.iter().any(|span| span.contains(&begun)))
            };
            swept += self.data.sweep_uploads(prefix, |upload| ours(&upload.key, &upload.initiated)).await?;
        }
        Ok(swept)
    }
}

/// Seconds since an epoch of its own, from RFC 3339 in UTC; good for differences.
fn seconds(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Howard Hinnant's `days_from_civil`, counted from the year 0.
    let shifted = if month > 2 { year } else { year.checked_sub(1)? };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_times_are_seconds() {
        let between = |one: &str, other: &str| seconds(other).unwrap() - seconds(one).unwrap();
        assert_eq!(between("2024-02-28T23:59:59.000Z", "2024-03-01T00:00:00Z"), 86_401);
        assert_eq!(between("2023-12-31T23:59:59.999Z", "2024-01-01T00:00:00.000Z"), 1);
        assert_eq!(between("2100-02-28T00:00:00Z", "2100-03-01T00:00:00Z"), 86_400);
        assert_eq!(seconds("yesterday"), None);
    }
}
