//! `roll_back`: undoes what a run did, object by object, where nobody changed the object since.
//!
//! Two ways, both one conditional commit on the ETag that the migration wrote: a bucket that keeps versions restores the one
//! before; a widened file is cut to its first bytes, which are the file before, footer and all. The version tag gets back
//! what it said before. A contiguous file in a bucket without versions cannot be undone: the plan warned of it.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::time::Instant;

use super::Migrations;
use super::document::State;
use super::estimate::Place;
use super::report::{Estimate, ObjectReport, Report};
use super::rewrite::{keeps_prefix, refuse_what_would_be_lost};
use super::runs::{Recorder, RunRecord, check_run, new_run};
use super::scan::{Looked, Sight};
use super::stamp::Stamp;
use super::throttle::Throttle;
use crate::error::{Context, Error, Kind, Result};
use crate::progress::Run;
use crate::store::Replaced;

/// What is to be rolled back.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBackRequest {
    /// The run; the latest `apply` where it is not said.
    #[serde(default)]
    pub run: Option<String>,
    /// Keys or URLs; all objects of the run where it is not said.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
}

impl Migrations {
    /// Undoes a run.
    ///
    /// # Errors
    /// `NotFound` where there is no such run. What goes wrong with one object is in its report.
    pub async fn roll_back(&self, request: &RollBackRequest, run: &Run) -> Result<Report> {
        let (began, usage_before) = (Instant::now(), self.data.counters().usage());
        let of = self.run_of(request.run.as_deref()).await?;
        let outcomes = self.outcomes(&of).await?;
        let keys = self.keys_of(&of, request.keys.as_deref(), &outcomes, run).await?;
        let id = new_run();
        let record = RunRecord { of: Some(of.clone()), ..RunRecord::begun("roll_back", &id, keys.len()) };
        if !keys.is_empty() {
            self.sweep(keys.iter().map(String::as_str)).await?;
            self.record(&record).await?;
        }
        let mut recorder = Recorder::new(self.run_store(&id));
        let throttle = Throttle::new(&self.config.run);
        let total = keys.len() as u64;
        let under_way = stream::iter(0..keys.len())
            .map(|index| {
                let (key, of, id, throttle) = (keys[index].as_str(), of.as_str(), id.as_str(), &throttle);
                let known = outcomes.get(key);
                async move {
                    let began = Instant::now();
                    let mut report = self.undo(key, of, known, id, throttle, run).await;
                    report.seconds = began.elapsed().as_secs_f64();
                    report
                }
            })
            .buffer_unordered(self.config.run.concurrency);
        let (mut done, mut errors) = (0, 0);
        let tell = |report: &ObjectReport| {
            done += 1;
            errors += u64::from(report.state == State::Error);
            self.tell(run, "roll_back", (done, total), &report.key, errors);
        };
        let reports = recorder.take_all(under_way, tell).await?;
        recorder.flush().await?;
        let cancelled = run.check().is_err();
        let report = self.report("roll_back", id, reports, cancelled, false, usage_before, began, Estimate::default());
        if !keys.is_empty() {
            self.record(&record.ended(&report)).await?;
        }
        Ok(report)
    }

    /// The run asked for, or the latest that applied something.
    pub(super) async fn run_of(&self, asked: Option<&str>) -> Result<String> {
        let runs = self.runs(None).await?;
        let mut applied = runs.iter().filter(|run| run.verb == "apply");
        match asked {
            Some(asked) => {
                check_run(asked)?;
                applied.find(|run| run.run == asked).map(|run| run.run.clone()).ok_or_else(|| {
                    Error::not_found(format!("there is no run `{asked}` of `{}`", self.config.name))
                        .hint("`history` lists the runs")
                })
            }
            None => applied
                .next()
                .map(|run| run.run.clone())
                .ok_or_else(|| Error::not_found(format!("`{}` has no run yet", self.config.name))),
        }
    }

    /// The objects of a run: those recorded, and those that say so themselves where a killed run could not record them.
    pub(super) async fn keys_of(
        &self,
        of: &str,
        asked: Option<&[String]>,
        outcomes: &BTreeMap<String, ObjectReport>,
        run: &Run,
    ) -> Result<Vec<String>> {
        if let Some(asked) = asked {
            return asked.iter().map(|key| self.relative_key(key)).collect();
        }
        let mut keys: Vec<String> =
            outcomes.values().filter(|report| report.state == State::Done).map(|report| report.key.clone()).collect();
        let complete = self
            .runs(None)
            .await?
            .iter()
            .filter(|known| known.run == of && known.verb == "apply")
            .all(|known| known.ended.is_some());
        if !complete {
            for (key, sight) in self.scan(None, false, run).await? {
                let ours = matches!(&sight, Sight::File(looked)
                    if looked.stamp.as_ref().is_some_and(|stamp| stamp.run == of && stamp.set == self.config.name));
                if ours && !outcomes.contains_key(&key) {
                    keys.push(key);
                }
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// Undoes one object.
    async fn undo(
        &self,
        key: &str,
        of: &str,
        known: Option<&ObjectReport>,
        id: &str,
        throttle: &Throttle,
        run: &Run,
    ) -> ObjectReport {
        let from = known.and_then(|report| report.to);
        let mut report = ObjectReport::untouched(key, State::Pending, from, from);
        if run.check().is_err() {
            return report;
        }
        if let Err(error) = self.undo_object(key, of, known, id, throttle, &mut report).await {
            report.state = if error.kind() == Kind::Conflict { State::Skipped } else { State::Error };
            report.trouble = (&error).into();
        }
        report
    }

    async fn undo_object(
        &self,
        key: &str,
        of: &str,
        known: Option<&ObjectReport>,
        id: &str,
        throttle: &Throttle,
        report: &mut ObjectReport,
    ) -> Result<()> {
        let changed = |what: &str| {
            Error::conflict(format!("`{}` {what} since", self.data.url_of(key))).hint("it is left as it is now")
        };
        let looked = match self.look(key, false).await? {
            Sight::File(looked) => looked,
            Sight::Gone => return Err(changed("was removed")),
            Sight::NotParquet(_, _) | Sight::Failed(_, _) => return Err(changed("was changed")),
        };
        let previous = known.and_then(|report| report.previous.as_ref());
        let Some(stamp) = looked.stamp.clone().filter(|stamp| stamp.run == of && stamp.set == self.config.name) else {
            // Undone before, or never done: either way it is as it was.
            let as_before = previous
                .is_some_and(|previous| looked.meta.etag.0 == previous.etag || looked.meta.size == previous.length)
                && known.and_then(|report| report.from) == Some(looked.version);
            if as_before {
                report.state = State::RolledBack;
                report.to = Some(looked.version);
                report.etag = Some(looked.meta.etag.0);
                return Ok(());
            }
            return Err(changed("was migrated or changed"));
        };
        if known.and_then(|report| report.etag.as_ref()).is_some_and(|etag| *etag != looked.meta.etag.0) {
            return Err(changed("was changed"));
        }
        // Elsewhere what is small, or cannot be copied by the service, passes through memory.
        let near = self.place().await? == Place::Files;
        let _admitted = throttle.admit(0, if near { 0 } else { stamp.previous.length }).await?;
        let replaced = self.restore(&looked, &stamp, id).await?;
        self.footers.forget(key);
        report.state = State::RolledBack;
        report.from = Some(stamp.to);
        report.to = Some(stamp.from);
        report.bytes_read = replaced.bytes_read;
        report.bytes_copied = replaced.bytes_copied;
        report.bytes_written = replaced.bytes_written;
        report.etag = Some(replaced.etag.0);
        report.version_id = replaced.version;
        Ok(())
    }

    /// The object before, by its version in the bucket or by the prefix that was kept.
    async fn restore(&self, looked: &Looked, stamp: &Stamp, id: &str) -> Result<Replaced> {
        let (key, etag) = (looked.meta.key.as_str(), &looked.meta.etag);
        let previous = &stamp.previous;
        let prefix = keeps_prefix(stamp.layout);
        if let Some(version) = previous.version.as_deref() {
            match self.data.restore_version(key, version, etag, self.carries_grants().await?, id).await {
                // Expired: the prefix is the same file.
                Err(error) if prefix && error.kind() == Kind::NotFound => {}
                restored => return restored,
            }
        }
        if !prefix {
            return Err(Error::invalid(format!(
                "`{}` cannot be rolled back: it was laid out anew, and the storage kept no version of it",
                self.data.url_of(key)
            ))
            .hint("restore it from a backup; `layout: widened` keeps the old file in the new one"));
        }
        if previous.length >= looked.meta.size {
            return Err(Error::corrupt(format!(
                "`{}`: expected more than the `{}` bytes of the file before, found `{}`",
                self.data.url_of(key),
                previous.length,
                looked.meta.size
            )));
        }
        let inspected = self.inspect(key).await?;
        let inspected = inspected.ok_or_else(|| Error::conflict(format!("`{key}` was removed since")))?;
        refuse_what_would_be_lost(&inspected).context(|| self.data.url_of(key))?;
        let mut carried = inspected.carried;
        match &previous.tag {
            Some(tag) => carried.tags.insert(self.config.version.key.clone(), tag.clone()),
            None => carried.tags.remove(&self.config.version.key),
        };
        self.data.truncate(key, previous.length, etag, &carried, id).await
    }
}
