//! Intents: asking for work, and settling all that was asked for in one turn.
//!
//! # Problem
//! Hundreds of workers are told about one file each. If each of them wrote it, they would wait for one another, and write
//! the chunks that their files share once for each file.
//!
//! # Design
//! Every producer only submits. Whoever gets the lease settles everything that waits, in batches, one commit each; the others
//! return at once, or wait for their ids. Intents are folded by key, and the sources are looked at as they are now: what an
//! event says happened decides nothing, but for a removal asked for by name.
//!
//! An intent may arrive between the holder's last look and its letting go, from a producer that was then told that the
//! holder is at work: so the holder looks once more afterwards.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Collection;
use super::checkpoint::KEPT_RECORDS;
use super::document::{AxisChange, Report};
use super::ledger::CommitRecord;
use super::opening::version_of;
use super::planning::Work;
use super::turn::{Totals, Turn};
use crate::error::{Error, Result};
use crate::ledger::{Inbox, Intent, Log, Operation, Pending};
use crate::progress::{Progress, Run};

/// Sources looked at side by side.
const CONCURRENT: usize = 16;
/// How often the inbox is looked at while a batch gathers, or while somebody waits, at most.
const LOOK: Duration = Duration::from_millis(500);
/// Records looked back at for the outcome of an intent.
const LOOK_BACK: u64 = KEPT_RECORDS;

/// How to drain.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Seconds to wait for the lease; none returns at once.
    #[serde(default)]
    pub wait: Option<f64>,
    /// Gather until so many intents wait.
    #[serde(default)]
    pub files: Option<usize>,
    /// Gather for so many seconds at most.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Start no commit after so many seconds.
    #[serde(default)]
    pub deadline: Option<f64>,
}

/// What became of a submission.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Submitted {
    /// The id of each intent that was taken, in the order given.
    pub ids: Vec<String>,
    /// How many of them waited already.
    pub duplicates: u64,
    /// Keys that the collection does not take.
    pub ignored: Vec<String>,
}

impl Collection {
    /// Asks for sources to be looked at. Keys are below the source URL, full URLs, or, where the bucket is named, the
    /// bucket's own.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer: submit again.
    pub async fn submit(&self, intents: &[Intent]) -> Result<Submitted> {
        let mut taken = Vec::with_capacity(intents.len());
        let mut submitted = Submitted::default();
        for intent in intents {
            match self.source_key(intent).filter(|key| self.selection.takes(key)) {
                Some(key) => taken.push(Intent { key, ..intent.clone() }),
                None => submitted.ignored.push(intent.key.clone()),
            }
        }
        for (id, waited) in Inbox::new(self.control.clone()).submit(&taken).await? {
            submitted.ids.push(id);
            submitted.duplicates += u64::from(waited);
        }
        Ok(submitted)
    }

    /// The key below the source URL that an intent means.
    fn source_key(&self, intent: &Intent) -> Option<String> {
        let key = match (&intent.bucket, intent.key.contains("://")) {
            (Some(bucket), false) => {
                let scheme = self.sources.url().split_once("://").map_or("file", |(scheme, _)| scheme);
                format!("{scheme}://{bucket}/{}", intent.key)
            }
            _ => intent.key.clone(),
        };
        self.relative_key(&key).ok()
    }

    /// Settles what waits. A run that cannot have the lease says so in its report and does nothing.
    ///
    /// # Errors
    /// As [`Collection::apply`], but for a lease that somebody else holds.
    pub async fn drain(&self, request: &DrainRequest, run: &Run) -> Result<Report> {
        let wait = duration("wait", request.wait)?;
        let deadline = duration("deadline", request.deadline)?.map(|limit| Instant::now() + limit);
        let mut totals = Totals::new(self);
        let mut unchanged = AxisChange::default();
        let inbox = Inbox::new(self.control.clone());
        self.gather(&inbox, request, deadline, run).await?;
        loop {
            let mut turn = match self.begin_or_holder(wait).await? {
                Ok(turn) => turn,
                Err(holder) => {
                    totals.holder = Some(holder);
                    break;
                }
            };
            let outcome = match self.recover(&mut turn, run, &mut totals).await {
                Ok(()) => self.settle_inbox(&mut turn, deadline, run, &mut totals).await,
                Err(error) => Err(error),
            };
            unchanged = turn.session.axis_change(&turn.session.unchanged(), &self.config);
            self.end(turn, outcome.is_err()).await;
            outcome?;
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_late || inbox.count(1).await? == 0 {
                break;
            }
        }
        Ok(totals.report(self, unchanged))
    }

    /// Waits until enough intents are there, or for long enough.
    async fn gather(&self, inbox: &Inbox, request: &DrainRequest, deadline: Option<Instant>, run: &Run) -> Result<()> {
        if request.files.is_none() && request.seconds.is_none() {
            return Ok(());
        }
        let batch = &self.config.run.batch;
        let files = request.files.unwrap_or(batch.files).max(1);
        let longest = duration("seconds", Some(request.seconds.unwrap_or(batch.wait)))?.unwrap_or_default();
        let mut end = Instant::now() + longest;
        if let Some(deadline) = deadline {
            end = end.min(deadline);
        }
        loop {
            run.check()?;
            let count = inbox.count(files).await?;
            let left = end.saturating_duration_since(Instant::now());
            if count >= files || left.is_zero() {
                return Ok(());
            }
            run.tell(&Progress {
                stage: "gather".into(),
                done: count as u64,
                total: files as u64,
                item: String::new(),
                errors: 0,
                usage: self.store.counters().usage(),
            });
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    /// Settles what waits until nothing does.
    pub(super) async fn settle_inbox(
        &self,
        turn: &mut Turn,
        deadline: Option<Instant>,
        run: &Run,
        totals: &mut Totals,
    ) -> Result<()> {
        turn.session.no_backfill()?;
        let inbox = Inbox::new(self.control.with_fence(turn.lease.fence()));
        // First, so that neither a deadline nor a queue without end keeps it from being done.
        inbox.sweep().await?;
        let is_late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        while !is_late() {
            run.check()?;
            let pending = inbox.pending().await?;
            if pending.is_empty() {
                break;
            }
            let mut by_key: HashMap<&str, Vec<&Pending>> = HashMap::new();
            for one in &pending {
                by_key.entry(&one.intent.key).or_default().push(one);
            }
            let work = self.work_of(turn, &by_key).await?;
            // What is as it should be needs no commit.
            let busy: std::collections::HashSet<&str> = work.iter().map(|item| item.key.as_str()).collect();
            let idle: Vec<String> = pending
                .iter()
                .filter(|one| !busy.contains(one.intent.key.as_str()))
                .map(|one| one.id.clone())
                .collect();
            inbox.acknowledge(&idle).await?;
            totals.settled += idle.len() as u64;
            for batch in turn.batches(self, &work) {
                if is_late() {
                    return Ok(());
                }
                run.check()?;
                let intents: Vec<&Pending> = batch
                    .iter()
                    .flat_map(|item| by_key.get(item.key.as_str()).into_iter().flatten().copied())
                    .collect();
                self.commit(turn, batch, &intents, run, totals).await?;
                let ids: Vec<String> = intents.iter().map(|one| one.id.clone()).collect();
                inbox.acknowledge(&ids).await?;
            }
        }
        Ok(())
    }

    /// What the keys need, as their sources are now.
    async fn work_of(&self, turn: &mut Turn, by_key: &HashMap<&str, Vec<&Pending>>) -> Result<Vec<Work>> {
        let tasks: Vec<_> = by_key.iter().map(|(key, pending)| self.look_at(key, is_forced(pending)).boxed()).collect();
        let looked: Vec<Work> = stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await?;
        turn.session.load(looked.iter().map(|item| item.key.as_str())).await?;
        let ledger = &turn.session.ledger;
        let mut work: Vec<Work> = looked
            .into_iter()
            .filter(|item| match &item.version {
                Some(version) => !ledger.knows(&item.key, &version.etag),
                None => ledger.sources.contains_key(&item.key),
            })
            .collect();
        work.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(work)
    }

    /// A source as it is now.
    pub(super) async fn look_at(&self, key: &str, forced: bool) -> Result<Work> {
        let found = if forced { None } else { self.sources.head(key).await? };
        Ok(Work { key: key.to_owned(), version: found.as_ref().map(version_of), forced })
    }

    /// Waits until intents are settled, and says how: `{"done": {id: {"commit", "outcome"}}, "pending": [ids]}`. An intent
    /// that found nothing to do has no commit; neither has one that is not known (any more).
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer.
    pub async fn wait_for(&self, ids: &[String], timeout: Duration, run: &Run) -> Result<Value> {
        let end = Instant::now() + timeout;
        let inbox = Inbox::new(self.control.clone());
        let mut log = Log::open(self.control.clone()).await?;
        let read = log.len().saturating_sub(LOOK_BACK);
        let mut outcomes: HashMap<String, (u64, String)> = HashMap::new();
        let mut pause = Duration::from_millis(10);
        let pending = loop {
            run.check()?;
            let pending = inbox.waiting(ids).await?;
            let left = end.saturating_duration_since(Instant::now());
            if pending.is_empty() || left.is_zero() {
                break pending;
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LOOK);
        };
        // The record comes before the deletion of the intent.
        log.refresh().await?;
        let first = read.max(log.len().saturating_sub(LOOK_BACK)) + 1;
        for (number, record) in log.records::<CommitRecord>(first).await? {
            for settled in record.intents {
                outcomes.insert(settled.id, (number, settled.outcome));
            }
        }
        let done: BTreeMap<&String, Value> = ids
            .iter()
            .filter(|id| !pending.contains(id))
            .map(|id| match outcomes.get(id) {
                Some((commit, outcome)) => (id, json!({"commit": commit, "outcome": outcome})),
                None => (id, json!({"commit": null, "outcome": "nothing"})),
            })
            .collect();
        Ok(json!({"done": done, "pending": pending}))
    }
}

/// Whether a removal by name is the last word of intents that contradict each other, by the storage's own order.
fn is_forced(pending: &[&Pending]) -> bool {
    pending
        .iter()
        .max_by_key(|one| (one.submitted.as_deref(), one.intent.operation))
        .is_some_and(|last| last.intent.operation == Operation::ForcedRemove)
}

/// A time that a caller gave in seconds.
///
/// # Errors
/// `Invalid` where it is no time.
pub fn duration(name: &str, value: Option<f64>) -> Result<Option<Duration>> {
    value
        .map(|value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| Error::invalid(format!("expected `{name}` in seconds, 0 or more, found `{value}`")))
        })
        .transpose()
}
