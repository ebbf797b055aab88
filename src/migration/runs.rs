//! What each run did: a numbered log of runs, and for each run its plan and what became of its objects.
//!
//! ```text
//! <data>.regraft/<set>/log/<20 digits>.json      one record when a run begins, one when it ends
//! <data>.regraft/<set>/runs/<run>/plan-….json    the plan that it carries out
//! <data>.regraft/<set>/runs/<run>/parts/….jsonl  what became of objects, a line each, every few seconds
//! ```
//! Everything is created, nothing is overwritten, and nothing here decides what is done next: that stands in the objects
//! themselves ([`super::stamp`]). A run that was killed has no last record, and perhaps lacks its last part.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use super::Migrations;
use super::document::{SCHEMA_VERSION, State};
use super::report::{ObjectReport, Report, ReportTotals};
use crate::error::{Error, Kind, Result};
use crate::ledger::Log;
use crate::progress::Usage;
use crate::store::{Checksum, Condition, ETag, PutAnswer, Store, clock, random_id};

/// Outcomes in one part at most.
const PART: usize = 500;
/// Outcomes wait no longer than this for the next to join them.
const PART_TIME: Duration = Duration::from_secs(3);
/// Parts that are read side by side.
const CONCURRENT: usize = 16;
/// Records that are read at a time, from the latest back, and how many times.
const LOOK: u64 = 8;
const LOOKS: usize = 3;
/// Times that a record's number may be taken by another run.
const TURNS: usize = 64;

/// One record of the log of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// `begun` or `ended`.
    pub event: String,
    /// `apply` or `roll_back`.
    pub verb: String,
    /// Id of the run; its shards share it.
    pub run: String,
    /// Which shard of how many, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<(u64, u64)>,
    /// When, for display.
    pub at: String,
    /// The version to reach, or for a roll back none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    /// The run that is rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// How many objects it is about.
    #[serde(default)]
    pub objects: u64,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Sums, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<ReportTotals>,
    /// Requests and bytes, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Wall seconds, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl RunRecord {
    /// A run begins, now.
    pub(super) fn begun(verb: &str, run: &str, objects: usize) -> Self {
        Self {
            event: "begun".into(),
            verb: verb.into(),
            run: run.into(),
            shard: None,
            at: clock::now_rfc3339(),
            target: None,
            of: None,
            objects: objects as u64,
            outcome: None,
            totals: None,
            usage: None,
            seconds: None,
        }
    }

    /// The same run has ended, now.
    pub(super) fn ended(self, report: &Report) -> Self {
        Self {
            event: "ended".into(),
            at: clock::now_rfc3339(),
            outcome: Some(report.outcome.clone()),
            totals: Some(report.totals.clone()),
            usage: Some(report.usage),
            seconds: Some(report.seconds.wall),
            ..self
        }
    }
}

/// A run as its records tell it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run: String,
    /// `apply` or `roll_back`.
    pub verb: String,
    /// Which shard of how many.
    pub shard: Option<(u64, u64)>,
    /// When it began, for display.
    pub begun: String,
    /// When it ended; `None` while it runs, and where it was killed.
    pub ended: Option<String>,
    /// The version to reach.
    pub target: Option<u64>,
    /// The run that it rolls back.
    pub of: Option<String>,
    /// How many objects it is about.
    pub objects: u64,
    /// How it ended; `unfinished` where it did not.
    pub outcome: String,
    /// Sums.
    pub totals: Option<ReportTotals>,
    /// Requests and bytes.
    pub usage: Option<Usage>,
    /// Wall seconds.
    pub seconds: Option<f64>,
}

/// The runs of a set, as JSON for people.
#[derive(Debug, Clone, Serialize)]
pub struct History {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `parquet-history`.
    pub kind: String,
    /// Name of the migration set.
    pub set: String,
    /// The runs, the latest first.
    pub runs: Vec<RunSummary>,
}

/// An id for a run: when it began, for people, and what nobody else has.
#[must_use]
pub fn new_run() -> String {
    let stamp: String = clock::now_rfc3339().chars().filter(char::is_ascii_alphanumeric).take(15).collect();
    format!("{stamp}-{}", &random_id()[..8])
}

/// Whether a run's id given by a caller can be part of a key.
///
/// # Errors
/// `Invalid` where it cannot.
pub fn check_run(run: &str) -> Result<()> {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    if run.is_empty() || run.len() > 128 || run.starts_with('.') || !run.chars().all(fits) {
        return Err(Error::invalid(format!("`{run}` cannot be the id of a run"))
            .hint("use up to 128 letters, digits, `-`, `_` and `.`"));
    }
    Ok(())
}

impl Migrations {
    /// Appends a record to the log of runs; other runs may append meanwhile.
    pub(super) async fn record(&self, record: &RunRecord) -> Result<()> {
        let mut log = Log::open(self.control.clone()).await?;
        for _ in 0..TURNS {
            match log.append(record).await {
                Err(error) if error.kind() == Kind::Conflict => log.refresh().await?,
                appended => return appended.map(drop),
            }
        }
        Err(Error::conflict(format!("the log of runs at `{}` grows too fast", self.control.url())))
    }

    /// The last run that ended and is `wanted`, if it is among the latest.
    ///
    /// # Errors
    /// As [`Log::records`].
    pub(super) async fn last_ended(&self, wanted: impl Fn(&RunRecord) -> bool) -> Result<Option<RunRecord>> {
        let log = Log::open(self.control.clone()).await?;
        let mut end = log.next_number();
        for _ in 0..LOOKS {
            let start = end.saturating_sub(LOOK).max(1);
            let records: Vec<(u64, RunRecord)> = log.records_in(start..end).await?;
            if let Some((_, found)) =
                records.into_iter().rev().find(|(_, record)| record.event == "ended" && wanted(record))
            {
                return Ok(Some(found));
            }
            end = start;
        }
        Ok(None)
    }

    /// The runs of this set, the latest first.
    ///
    /// # Errors
    /// As [`Log::records`].
    pub async fn runs(&self, limit: Option<usize>) -> Result<Vec<RunSummary>> {
        let log = Log::open(self.control.clone()).await?;
        // Two records a run, and those of other shards between.
        let wanted = limit.map_or(u64::MAX, |limit| (limit as u64).saturating_mul(2).saturating_add(64));
        let records: Vec<(u64, RunRecord)> = log.records(log.len().saturating_sub(wanted) + 1).await?;
        let mut runs: Vec<RunSummary> = Vec::new();
        for (_, record) in records {
            if record.event == "begun" {
                runs.push(RunSummary {
                    run: record.run,
                    verb: record.verb,
                    shard: record.shard,
                    begun: record.at,
                    ended: None,
                    target: record.target,
                    of: record.of,
                    objects: record.objects,
                    outcome: "unfinished".into(),
                    totals: None,
                    usage: None,
                    seconds: None,
                });
            } else if let Some(run) = runs.iter_mut().rev().find(|run| {
                run.run == record.run && run.verb == record.verb && run.shard == record.shard && run.ended.is_none()
            }) {
                run.ended = Some(record.at);
                run.outcome = record.outcome.unwrap_or_default();
                run.totals = record.totals;
                run.usage = record.usage;
                run.seconds = record.seconds;
            }
        }
        runs.reverse();
        runs.truncate(limit.unwrap_or(usize::MAX));
        Ok(runs)
    }

    /// The runs of this set, the latest first, as a document.
    ///
    /// # Errors
    /// As [`Log::records`].
    pub async fn history(&self, limit: Option<usize>) -> Result<History> {
        Ok(History {
            schema_version: SCHEMA_VERSION,
            kind: "parquet-history".into(),
            set: self.config.name.clone(),
            runs: self.runs(limit).await?,
        })
    }

    pub(super) fn run_store(&self, run: &str) -> Store {
        self.control.child("runs").child(run)
    }

    /// What became of the objects of a run, by key.
    ///
    /// # Errors
    /// `Corrupt` where a part cannot be read; otherwise as [`Store::get`].
    pub async fn outcomes(&self, run: &str) -> Result<BTreeMap<String, ObjectReport>> {
        check_run(run)?;
        let place = self.run_store(run);
        let keys: Vec<String> = place.list("parts/", None).map_ok(|meta| meta.key).try_collect().await?;
        let mut parts = stream::iter(keys)
            .map(|key| {
                let place = &place;
                async move {
                    let object = place.get(&key).await?;
                    Ok::<_, Error>((key, object.map(|object| object.bytes).unwrap_or_default()))
                }
            })
            .buffered(CONCURRENT);
        let mut outcomes: BTreeMap<String, ObjectReport> = BTreeMap::new();
        while let Some((key, bytes)) = parts.try_next().await? {
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let report: ObjectReport = serde_json::from_slice(line)
                    .map_err(|error| Error::corrupt(format!("`{}` cannot be read: {error}", place.url_of(&key))))?;
                // Where a run was begun again, what it did counts, and not that it found it done.
                if outcomes.get(&report.key).is_none_or(|known| known.previous.is_none()) {
                    outcomes.insert(report.key.clone(), report);
                }
            }
        }
        Ok(outcomes)
    }
}

/// Writes what became of objects while a run goes on.
pub(super) struct Recorder {
    place: Store,
    writer: String,
    parts: u32,
    waiting: Vec<u8>,
    lines: usize,
    since: Instant,
}

impl Recorder {
    /// For one process of a run.
    pub(super) fn new(place: Store) -> Self {
        Self {
            place,
            writer: random_id()[..8].to_owned(),
            parts: 0,
            waiting: Vec::new(),
            lines: 0,
            since: Instant::now(),
        }
    }

    /// Keeps a document of the run, once; says whether the ETag that it is given is the MD5 of its bytes.
    pub(super) async fn keep(&self, name: &str, document: &impl Serialize) -> Result<bool> {
        let text = serde_json::to_vec(document)
            .map_err(|error| Error::internal(format!("`{name}` cannot be written as JSON: {error}")))?;
        let sum = Checksum::of("MD5", &text);
        let etag = self.create(&format!("{name}-{}.json", self.writer), text.into()).await?;
        Ok(sum.is_some() && Checksum::of_etag(&etag) == sum)
    }

    /// Takes all outcomes, each told first, and gives them back. While a part is written the others go on: they hold the
    /// right to requests, of which after many 503s there are so few that a part would wait for them for ever.
    pub(super) async fn take_all(
        &mut self,
        outcomes: impl Stream<Item = ObjectReport>,
        mut tell: impl FnMut(&ObjectReport),
    ) -> Result<Vec<ObjectReport>> {
        let (sender, mut receiver) = unbounded_channel();
        let working = async move {
            let mut outcomes = pin!(outcomes);
            while let Some(report) = outcomes.next().await {
                tell(&report);
                // Nobody listens where recording failed; that is the error.
                let _ = sender.send(report);
            }
            Ok::<_, Error>(())
        };
        let recording = async {
            let mut reports = Vec::new();
            while let Some(report) = receiver.recv().await {
                if report.state != State::Pending {
                    self.take(&report).await?;
                }
                reports.push(report);
            }
            Ok(reports)
        };
        let ((), reports) = futures::try_join!(working, recording)?;
        Ok(reports)
    }

    /// Takes one outcome; writes a part where enough are waiting, or long enough.
    async fn take(&mut self, report: &ObjectReport) -> Result<()> {
        serde_json::to_writer(&mut self.waiting, report)
            .map_err(|error| Error::internal(format!("an outcome cannot be written as JSON: {error}")))?;
        self.waiting.push(b'\n');
        self.lines += 1;
        if self.lines >= PART || self.since.elapsed() >= PART_TIME {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what is waiting.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if self.lines > 0 {
            let key = format!("parts/{}-{:06}.jsonl", self.writer, self.parts);
            let waiting = std::mem::take(&mut self.waiting);
            self.create(&key, waiting.into()).await?;
            (self.lines, self.parts) = (0, self.parts + 1);
        }
        self.since = Instant::now();
        Ok(())
    }

    async fn create(&self, key: &str, bytes: Bytes) -> Result<ETag> {
        match self.place.put_if(key, bytes, Condition::Absent).await? {
            PutAnswer::Ours(etag) => Ok(etag),
            PutAnswer::Theirs => Err(Error::conflict(format!("`{}` exists already", self.place.url_of(key)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;
    use crate::store::block_on;
    use crate::store::faults::{Fault, Faults, Operation};

    /// A put that ends when somebody else went on.
    #[derive(Default)]
    struct Waiting {
        begun: Notify,
        went_on: Notify,
    }

    #[async_trait]
    impl Faults for Waiting {
        async fn before(&self, _: Operation, _: &str) -> std::result::Result<(), Fault> {
            self.begun.notify_one();
            self.went_on.notified().await;
            Ok(())
        }
    }

    #[test]
    fn objects_go_on_while_outcomes_are_recorded() {
        let waiting = Arc::new(Waiting::default());
        let store = Store::open("memory://runs", &BTreeMap::default()).unwrap().with_faults(waiting.clone());
        block_on(async {
            let outcome = |index: usize| {
                let waiting = waiting.clone();
                async move {
                    // As one that holds the right to a request which the record waits for.
                    if index == PART {
                        waiting.begun.notified().await;
                        waiting.went_on.notify_one();
                    }
                    ObjectReport::untouched(&index.to_string(), State::Done, None, None)
                }
            };
            let outcomes = stream::iter(0..=PART).map(outcome).buffer_unordered(PART + 1);
            let mut recorder = Recorder::new(store);
            let taken = recorder.take_all(outcomes, |_| {});
            let taken = tokio::time::timeout(Duration::from_secs(20), taken).await;
            assert_eq!(taken.expect("nobody waits for ever").unwrap().len(), PART + 1);
        });
    }

    #[test]
    fn ids_of_runs_can_be_parts_of_keys() {
        let run = new_run();
        assert!(check_run(&run).is_ok() && run.len() == 24, "{run}");
        for wrong in ["", "a/b", "..", "a b"] {
            assert!(check_run(wrong).is_err(), "{wrong}");
        }
    }
}
