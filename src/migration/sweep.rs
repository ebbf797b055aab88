//! Uploads in parts that a killed run left behind cost money until somebody throws them away.
//!
//! A service tells nothing of an unfinished upload but its key and when it was begun. So an upload is taken for ours only
//! where its key is one that this run is about to write, and where it was begun while a run of this set was alive that never
//! ended: between the first and the last of its records, a little later at most. All these times are the service's own.
//! What falls through is for the bucket's lifecycle rule (`AbortIncompleteMultipartUpload`).

use std::collections::HashSet;
use std::ops::RangeInclusive;

use futures::stream::TryStreamExt;

use super::Migrations;
use crate::error::Result;
use crate::store::Upload;

/// Runs looked back at.
const RUNS: usize = 20;
/// Seconds after its last record in which a run may have begun an upload.
const LATER: u64 = 60;

impl Migrations {
    /// Aborts uploads for `keys` that killed runs left; says how many. One request for each prefix, where there are none.
    pub(super) async fn sweep<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<u64> {
        let keys: HashSet<&str> = keys.collect();
        let left = match self.left_uploads(&keys).await {
            Ok(left) if left.is_empty() => return Ok(0),
            left => left,
        };
        let alive = self.alive().await?;
        // Who may not list uploads is told so only where a killed run may have left some.
        if alive.is_empty() {
            return Ok(0);
        }
        let mut swept = 0;
        for upload in left? {
            if seconds(&upload.initiated).is_some_and(|begun| alive.iter().any(|span| span.contains(&begun))) {
                self.data.abort_upload(&upload).await?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    async fn left_uploads(&self, keys: &HashSet<&str>) -> Result<Vec<Upload>> {
        let mut left = Vec::new();
        for prefix in self.selection.prefixes() {
            let uploads = self.data.uploads(prefix).await?;
            left.extend(uploads.into_iter().filter(|upload| keys.contains(upload.key.as_str())));
        }
        Ok(left)
    }

    /// When runs that never ended were alive.
    async fn alive(&self) -> Result<Vec<RangeInclusive<u64>>> {
        let mut alive = Vec::new();
        for run in self.runs(Some(RUNS)).await?.iter().filter(|run| run.ended.is_none()) {
            let records: Vec<_> = self.run_store(&run.run).list("", None).try_collect().await?;
            let times: Vec<u64> = records.iter().filter_map(|meta| seconds(meta.modified.as_deref()?)).collect();
            if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
                alive.push(*first..=last + LATER);
            }
        }
        Ok(alive)
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
