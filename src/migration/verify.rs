//! `verify`: whether migrated objects are what they should be.
//!
//! Every object is compared by its footers alone: version, rows, schema, and where the kept columns lie. Of a sample the
//! bytes are read too: kept columns against what they were (the version before, where the bucket has it; the checksums
//! of the run; in a widened file the old footer within it), new columns against what the steps compute again, and page
//! indexes against the file before and against the pages (`deep`).

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::time::Instant;

use super::Migrations;
use super::compare::compare_schema;
use super::deep::SLICE;
use super::document::{SCHEMA_VERSION, Trouble};
use super::fuse::Fused;
use super::report::{ObjectReport, Seconds, Verification, VerifiedObject, VerifiedTotals};
use super::runs::check_run;
use super::scan::{Looked, Sight};
use super::stamp::{STAMP_KEY, Stamp};
use super::throttle::Throttle;
use crate::error::{Error, Kind, Result};
use crate::parquet::{Change, File, verify};
use crate::progress::Run;

/// What is to be verified.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The run; every object that this set migrated where it is not said.
    #[serde(default)]
    pub run: Option<String>,
    /// Share of the objects whose bytes are read, from 0 to 1; all where it is not said.
    #[serde(default)]
    pub sample: Option<f64>,
    /// Reads the whole file before within the widened files of the sample, too, and compares it with the checksum that was
    /// known of it.
    #[serde(default)]
    pub full: bool,
    /// Chooses the sample.
    #[serde(default)]
    pub seed: u64,
    /// Keys or URLs; all objects where it is not said.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
}

/// How much of an object is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    Footers,
    Columns,
    Full,
}

impl Migrations {
    /// Verifies what was migrated.
    ///
    /// # Errors
    /// `Invalid` where the sample is not from 0 to 1; `NotFound` where there is no such run; `Unavailable` where storage does
    /// not answer. What is wrong with one object is among the objects.
    pub async fn verify(&self, request: &VerifyRequest, run: &Run) -> Result<Verification> {
        let (began, usage_before) = (Instant::now(), self.data.counters().usage());
        let share = request.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::invalid(format!("expected a sample from `0` to `1`, found `{share}`")));
        }
        let id = match &request.run {
            Some(asked) => Some(self.run_of(Some(asked)).await?),
            None => None,
        };
        let mut outcomes = BTreeMap::new();
        if let Some(id) = &id {
            outcomes.insert(id.clone(), self.outcomes(id).await?);
        }
        let keys = match (&id, &request.keys) {
            (_, Some(keys)) => Some(keys.clone()),
            (Some(id), None) => Some(self.keys_of(id, None, &outcomes[id], run).await?),
            (None, None) => None,
        };
        let sights = self.scan(keys.as_deref(), false, run).await?;
        let total = sights.len() as u64;
        let ours = |stamp: &&Stamp| stamp.set == self.config.name && check_run(&stamp.run).is_ok();
        for stamp in sights.values().filter_map(stamp_of).filter(ours) {
            if !outcomes.contains_key(&stamp.run) {
                outcomes.insert(stamp.run.clone(), self.outcomes(&stamp.run).await?);
            }
        }
        let mut objects = Vec::new();
        let (mut sampled, mut failed, mut done) = (0, 0, 0);
        let throttle = Throttle::new(&self.config.run);
        let mut under_way = stream::iter(sights)
            .map(|(key, sight)| {
                let depth = match chosen(&key, share, request.seed) {
                    true if request.full => Depth::Full,
                    true => Depth::Columns,
                    false => Depth::Footers,
                };
                let deep = depth != Depth::Footers;
                let run_of = id.as_ref().or_else(|| stamp_of(&sight).map(|stamp| &stamp.run));
                let known = run_of.and_then(|run| outcomes.get(run)?.get(&key));
                let (id, throttle) = (id.as_deref(), &throttle);
                async move {
                    let memory = if deep { held(&sight) } else { 0 };
                    let _admitted = throttle.admit(0, memory).await;
                    (deep, self.verify_sight(key, sight, id, known, depth, run).await)
                }
            })
            .buffer_unordered(self.config.run.concurrency);
        while let Some((deep, object)) = under_way.next().await {
            run.check()?;
            done += 1;
            if let Some(object) = object {
                sampled += u64::from(deep);
                failed += u64::from(matches!(object.state.as_str(), "failed" | "error"));
                self.tell(run, "verify", (done, total), &object.key, failed);
                objects.push(object);
            }
        }
        drop(under_way);
        objects.sort_by(|left, right| left.key.cmp(&right.key));
        let count = |state: &str| objects.iter().filter(|object| object.state == state).count() as u64;
        let totals = VerifiedTotals {
            objects: objects.len() as u64,
            ok: count("ok"),
            failed: count("failed"),
            skipped: count("skipped"),
            error: count("error"),
            sampled,
            recomputed: objects.iter().map(|object| object.recomputed).sum(),
            compared: objects.iter().map(|object| object.compared).sum(),
            unproved: objects.iter().filter(|object| object.state == "ok" && object.trouble.message.is_some()).count()
                as u64,
        };
        let outcome = match totals.failed + totals.error {
            0 if totals.ok == 0 => "nothing",
            0 => "ok",
            _ => "failed",
        };
        Ok(Verification {
            schema_version: SCHEMA_VERSION,
            kind: "parquet-verification".into(),
            set: self.config.name.clone(),
            run: id,
            outcome: outcome.into(),
            objects,
            totals,
            usage: self.data.counters().usage() - usage_before,
            seconds: Seconds { wall: began.elapsed().as_secs_f64() },
        })
    }

    /// One object; `None` where nobody asked for it and this set never migrated it.
    async fn verify_sight(
        &self,
        key: String,
        sight: Sight,
        id: Option<&str>,
        known: Option<&ObjectReport>,
        depth: Depth,
        run: &Run,
    ) -> Option<VerifiedObject> {
        let mut object = VerifiedObject {
            key,
            state: "ok".into(),
            checked: Vec::new(),
            recomputed: 0,
            compared: 0,
            trouble: Trouble::default(),
        };
        let skipped = |mut object: VerifiedObject, why: &str| {
            object.state = "skipped".into();
            object.trouble.message = Some(why.to_owned());
            Some(object)
        };
        let looked = match sight {
            Sight::File(looked) => looked,
            Sight::Gone => return skipped(object, "it was removed since"),
            Sight::NotParquet(_, _) if id.is_none() => return None,
            Sight::NotParquet(_, error) | Sight::Failed(_, error) => {
                object.state = if known.is_some() { "failed" } else { "error" }.into();
                object.trouble = (&error).into();
                return Some(object);
            }
        };
        let stamp = looked.stamp.clone().filter(|stamp| stamp.set == self.config.name);
        let Some(stamp) = stamp else {
            return if id.is_some() { skipped(object, "it is not as the run left it") } else { None };
        };
        if id.is_some_and(|id| id != stamp.run) {
            return skipped(object, "another run migrated it since");
        }
        if known.and_then(|report| report.etag.as_ref()).is_some_and(|etag| *etag != looked.meta.etag.0) {
            return skipped(object, "it was changed since");
        }
        if let Err(error) = self.verify_object(&looked, &stamp, known, depth, run, &mut object).await {
            let unseen = matches!(error.kind(), Kind::Unavailable | Kind::Conflict | Kind::NotFound);
            object.state = if unseen { "error" } else { "failed" }.into();
            object.trouble = (&error).into();
        }
        Some(object)
    }

    async fn verify_object(
        &self,
        looked: &Looked,
        stamp: &Stamp,
        known: Option<&ObjectReport>,
        depth: Depth,
        run: &Run,
        object: &mut VerifiedObject,
    ) -> Result<()> {
        if looked.version != stamp.to {
            return Err(Error::corrupt(format!(
                "expected the version `{}`, found `{}` in the {}",
                stamp.to,
                looked.version,
                looked.place.name()
            )));
        }
        object.checked.push("version".into());
        let before = self.before(looked, stamp, object).await?;
        let new = &looked.file;
        let change = before.fused.as_ref().map(|fused| changed(fused, new, &self.config.version.key));
        match (&before.former, &before.fused, &change) {
            (Some(former), Some(_), Some(change)) => {
                let findings = verify::compare(&former.file, new, change)?;
                if !findings.is_empty() {
                    let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
                    return Err(Error::corrupt(messages.join("; ")));
                }
                object.checked.extend(["rows", "schema", "kept columns"].map(str::to_owned));
            }
            (None, Some(fused), _) => {
                compare_schema(fused, new)?;
                object.checked.push("schema".into());
            }
            _ => {}
        }
        if let Some(known) = known.filter(|known| known.rows != 0 && known.rows != new.rows()) {
            return Err(Error::corrupt(format!("expected `{}` rows, found `{}`", known.rows, new.rows())));
        }
        if depth != Depth::Footers {
            run.check()?;
            let former = before.former.as_ref().zip(change.as_ref());
            if let Some((former, change)) = former {
                self.compare_bytes(looked, former, change, stamp, object).await?;
            }
            let indexes = self.compare_indexes(looked, former, object).await?;
            self.compare_checksums(looked, known, &before, &indexes, object).await?;
            self.recompute(looked, &before, &indexes, run, object).await?;
        }
        if depth == Depth::Full && !object.checked.iter().any(|checked| checked == "bytes") {
            run.check()?;
            self.compare_prefix(looked, stamp, object).await?;
        }
        Ok(())
    }
}

/// The change as it was written: with the key-values that the file has now.
fn changed(fused: &Fused, new: &File, version_key: &str) -> Change {
    let mut change = fused.change.clone();
    for key in [version_key, STAMP_KEY] {
        change.key_values.push((key.to_owned(), new.key_value(key).map(str::to_owned)));
    }
    change
}

/// Memory for the comparison of an object: two slices, and a part of its columns decoded.
fn held(sight: &Sight) -> u64 {
    let Sight::File(looked) = sight else { return 0 };
    let touched = looked.stamp.as_ref().map_or(0, |stamp| 4 * stamp.columns.added.len() + 4);
    let columns = looked.file.columns();
    let largest = (0..looked.file.row_groups())
        .map(|row_group| {
            columns
                .iter()
                .filter_map(|column| Some(column.chunks.get(row_group)?.uncompressed))
                .fold(0, u64::saturating_add)
        })
        .max()
        .unwrap_or(0);
    let part = largest.saturating_mul(3) / columns.len().max(1) as u64;
    part.saturating_mul(touched as u64).saturating_add(2 * SLICE)
}

/// The last migration of what was looked at.
fn stamp_of(sight: &Sight) -> Option<&Stamp> {
    match sight {
        Sight::File(looked) => looked.stamp.as_ref(),
        _ => None,
    }
}

/// Whether an object is of the sample: the same ones for the same seed.
fn chosen(key: &str, share: f64, seed: u64) -> bool {
    let hash = crc32c::crc32c_append(crc32c::crc32c(&seed.to_le_bytes()), key.as_bytes());
    f64::from(hash) < share * (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_about_as_large_as_asked_and_the_same_each_time() {
        let keys: Vec<String> = (0..10_000).map(|index| format!("year=2019/part-{index}.parquet")).collect();
        let count = |share, seed| keys.iter().filter(|key| chosen(key, share, seed)).count();
        assert_eq!((count(0.0, 0), count(1.0, 0)), (0, 10_000));
        assert!((50..200).contains(&count(0.01, 0)), "{}", count(0.01, 0));
        assert_eq!(count(0.1, 7), count(0.1, 7));
    }
}
