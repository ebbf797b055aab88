//! Backfill: one plan, written by many workers that do not touch one another, published once at the end.
//!
//! # Problem
//! Years of files are to go into a store. One worker takes days; many that commit in turn wait for one lease.
//!
//! # Design
//! 1. The first worker announces the plan in the log, under the lease, where nothing was committed since it was made, and
//!    creates the store where there is none. While a backfill is open nobody else commits: events wait in the inbox.
//! 2. Worker `number` of `count` takes its share of the blocks of the axis. A block is as long as the chunks (shards) of all
//!    data arrays allow, so that no two workers touch one object; a source that straddles a border is written by both, each
//!    its part. It writes data only, beyond the end of the axis or into regions of the plan.
//!    While it writes it watches the log, and stops where the backfill has ended ([`watch`]).
//! 3. Its marker, created once, says which sources could not be used.
//! 4. Whoever finds all markers takes the lease and publishes: labels, provenance, metadata, one commit record.
//!
//! Every step may be repeated: chunks get the same bytes, a marker that is there stays. A publisher that dies has announced
//! its commit, and is mended as any other ([`super::redo`]).
//!
//! A plan is known by what it says of sources and labels and by the commit that it builds on, not by when and where it was
//! made: workers that each plan for themselves over the same bucket work on one backfill, also where another has announced
//! it meanwhile. A backfill that was given up counts as a change of the store, so that nobody takes its markers for his own.
//!
//! What a worker would do is a plan of its own ([`ShardPlan`]), made by the function that the worker itself goes by.
//!
//! # Alternatives considered
//! Workers that each open only their share of the sources for its labels, and join the parts: where a step goes depends on
//! the labels of all sources, so that everybody would wait for everybody before the first write, and for ever for one that
//! never comes. One plan, saved, is opened once and read by all.
//!
//! # Caveats
//! - Where sources are inserted or removed the tail of the axis moves: such plans are refused, `apply` does them.
//! - A source that turns out to be bad when its data are read has its labels already: they stay as empty steps without an
//!   owner until it is mended. Where it revises steps of the store, the old values stay.
//! - The publisher opens all sources again for their labels, in the producer's own encoding.

mod blocks;
mod identity;
mod publish;
mod shard;
mod shard_plan;
mod watch;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use self::shard_plan::ShardPlan;

use self::identity::id_of;
use super::Collection;
use super::apply::LEASE_WAIT;
use super::document::{Plan, Report, SCHEMA_VERSION, Written};
use super::fit::{Fitted, Misfit};
use super::label::Label;
use super::layout::Layout;
use super::ledger::{Action, CommitRecord, Ledger, SourceVersion};
use super::opening::Outcome;
use super::session::{Candidate, Session};
use super::turn::Turn;
use super::writes::writes;
use crate::error::{Error, Kind, Result};
use crate::progress::Run;
use crate::store::{Condition, clock};

const FOLDER: &str = "backfill/";
/// How often a chunk is tried that another worker of the same shard writes, too.
const TRIES: u32 = 5;

/// What a worker of a backfill did.
#[derive(Debug, Clone, Serialize)]
pub struct ShardReport {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `zarr-shard-report`.
    pub kind: String,
    /// Id of the plan.
    pub plan: String,
    /// Which shard of how many, counted from 1.
    pub shard: (u64, u64),
    /// `written` (others are still at work), `published`, `nothing` (the backfill was published before).
    pub outcome: String,
    /// Index ranges of the axis that this worker wrote, `[start, stop)`.
    pub indices: Vec<(u64, u64)>,
    /// Shards that have not finished.
    pub waiting: Vec<u64>,
    /// Sources of this shard that could not be used.
    pub bad: BTreeMap<String, BadSource>,
    /// Chunks by what was done with them.
    pub written: Written,
    /// The commit, where this worker published it.
    pub report: Option<Report>,
}

/// Why a source of a backfill was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadSource {
    /// A category of quarantine; `changed` where the source is not the planned version any more: the next sync takes it.
    pub category: String,
    /// What was expected and found.
    pub message: String,
    /// The repair, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a shard leaves when it is done.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    plan: String,
    shard: (u64, u64),
    time: String,
    bad: BTreeMap<String, BadSource>,
}

/// A source of a plan with all that decides where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedSource {
    /// Its key.
    pub key: String,
    /// The version planned.
    pub version: SourceVersion,
    /// All its labels.
    pub labels: Vec<Label>,
}

/// How far a plan is.
enum Standing {
    /// Not announced.
    New,
    /// Its workers are at work.
    Open,
    /// Done.
    Published,
}

impl BadSource {
    fn of(misfit: &Misfit) -> Self {
        Self {
            category: misfit.category.to_owned(),
            message: misfit.error.message(),
            hint: misfit.error.hint_text().map(str::to_owned),
        }
    }

    fn changed(message: &str) -> Self {
        Self { category: "changed".into(), message: message.into(), hint: None }
    }
}

impl Collection {
    /// Does shard `number` of `count` (counted from 1) of a plan, and publishes the plan when all shards are done.
    ///
    /// # Errors
    /// `Invalid` where the plan moves the tail of the axis or removes sources, or there is no such shard. `Conflict` where
    /// the store changed since the plan was made, or another backfill is open. `Unavailable` as `apply`: call it again.
    pub async fn apply_shard(&self, plan: &Plan, number: u64, count: u64, run: &Run) -> Result<ShardReport> {
        let sources = shardable(plan, number, count)?;
        let id = id_of(plan)?;
        let mut report = ShardReport {
            schema_version: SCHEMA_VERSION,
            kind: "zarr-shard-report".into(),
            plan: id.clone(),
            shard: (number, count),
            outcome: "nothing".into(),
            indices: Vec::new(),
            waiting: Vec::new(),
            bad: BTreeMap::new(),
            written: Written::default(),
            report: None,
        };
        let Some(mut session) = self.announced(plan, &id, sources, run).await? else { return Ok(report) };
        let mine = marker_key(&id, (number, count));
        if self.control.head(&mine).await?.is_none() {
            if let Err(error) = self.write_shard(&mut session, &id, sources, &mut report, run).await {
                if error.kind() == Kind::Conflict && self.is_published(&id).await? {
                    // Another worker of the same shard was faster, and all others are done.
                    return Ok(report);
                }
                return Err(error);
            }
            let marker = Marker {
                plan: id.clone(),
                shard: (number, count),
                time: clock::now_rfc3339(),
                bad: report.bad.clone(),
            };
            let body = serde_json::to_vec(&marker).map_err(|error| Error::internal(error.to_string()))?;
            // Another worker of the same shard may have been quicker: what it found stands.
            self.control.put_if(&mine, Bytes::from(body), Condition::Absent).await?;
            self.control.sync(std::slice::from_ref(&mine)).await?;
        }
        let done = self.markers(&id, count).await?;
        report.waiting = (1..=count).filter(|number| !done.contains_key(number)).collect();
        report.outcome = "written".into();
        if report.waiting.is_empty() {
            report.report = self.publish_backfill(plan, &id, sources, done, run).await?;
            report.outcome = if report.report.is_some() { "published" } else { "nothing" }.into();
        }
        Ok(report)
    }

    /// Gives up the open backfill, if there is one; what its workers wrote beyond the axis counts as nothing.
    ///
    /// # Errors
    /// As [`Collection::apply`].
    pub async fn abandon_backfill(&self) -> Result<Option<String>> {
        let mut turn = self.begin(Some(LEASE_WAIT)).await?;
        let open = turn.session.ledger.backfill.clone();
        let outcome = match &open {
            Some(_) => turn.session.log.append(&CommitRecord::new("abandon", &self.config.name)).await.map(drop),
            None => Ok(()),
        };
        let outcome = match outcome {
            Ok(()) => turn.doors.drop_markers().await,
            failed => failed,
        };
        self.end(turn, outcome.is_err()).await;
        outcome.map(|()| open)
    }

    async fn is_published(&self, id: &str) -> Result<bool> {
        let session = Session::open(&self.store, &self.control, &self.config).await?;
        Ok(session.ledger.finished_backfill.as_deref() == Some(id))
    }

    /// The session of an announced plan; `None` where it was published before.
    async fn announced(&self, plan: &Plan, id: &str, sources: &[PlannedSource], run: &Run) -> Result<Option<Session>> {
        for _ in 0..TRIES {
            let session = Session::open(&self.store, &self.control, &self.config).await?;
            if session.ledger.finished_backfill.as_deref() == Some(id) {
                return Ok(None);
            }
            if session.ledger.backfill.as_deref() == Some(id) && session.group.is_some() {
                return Ok(Some(session));
            }
            let mut turn = self.begin(Some(LEASE_WAIT)).await?;
            let outcome = self.announce(&mut turn, plan, id, sources, run).await;
            self.end(turn, outcome.is_err()).await;
            outcome?;
        }
        Err(Error::conflict(format!("`{}` changes too fast to begin a backfill", self.store.url())))
    }

    async fn announce(
        &self,
        turn: &mut Turn,
        plan: &Plan,
        id: &str,
        sources: &[PlannedSource],
        run: &Run,
    ) -> Result<()> {
        match self.standing(&turn.session.ledger, plan, id)? {
            Standing::Published => return Ok(()),
            Standing::Open => {}
            Standing::New => {
                let record = CommitRecord {
                    backfill: Some(id.to_owned()),
                    axis_length: plan.axis.length_before,
                    ..CommitRecord::new("backfill", &self.config.name)
                };
                let number = turn.session.log.append(&record).await?;
                turn.session.ledger.fold(number, &record);
            }
        }
        if turn.session.group.is_none() {
            self.create_empty(turn, sources, run).await?;
        }
        Ok(())
    }

    /// Creates the store from the first source that fits, with an axis of length 0.
    async fn create_empty(&self, turn: &mut Turn, sources: &[PlannedSource], run: &Run) -> Result<()> {
        let (doors, session) = (turn.doors.clone(), &mut turn.session);
        let (key, fitted) = self.adopt_first(session, sources).await?;
        let structure = session.structure.as_ref().ok_or_else(|| Error::internal("no structure"))?;
        let writes = writes(structure, &Layout::default(), &BTreeMap::from([(key, &fitted)]))?;
        let mut written = Written::default();
        self.write_arrays(&doors.store, &writes.data, self.config.run.memory, run, &mut written).await?;
        self.publish((&doors.store, session), 0).await
    }

    /// Takes the structure of a store that is not there yet from the first source that fits.
    async fn adopt_first(&self, session: &mut Session, sources: &[PlannedSource]) -> Result<(String, Fitted)> {
        for source in sources {
            let Outcome::Opened(opened) = self.opener().open(&source.key, Some(&source.version)).await? else {
                continue;
            };
            session.load([source.key.as_str()]).await?;
            if let Ok(fitted) = session.fit(&source.key, &opened, &self.config).await {
                return Ok((source.key.clone(), fitted));
            }
        }
        Err(Error::invalid("no source of the plan can be opened, so that there is nothing to make a store from")
            .hint("plan again: the report says why each is set aside"))
    }

    /// How far a plan is; nothing but itself may have happened since it was made.
    fn standing(&self, ledger: &Ledger, plan: &Plan, id: &str) -> Result<Standing> {
        if ledger.finished_backfill.as_deref() == Some(id) {
            return Ok(Standing::Published);
        }
        match ledger.backfill.as_deref() {
            Some(open) if open == id => Ok(Standing::Open),
            Some(open) => {
                Err(Error::conflict(format!("the backfill `{open}` is not finished, and this plan is `{id}`")).hint(
                    "the sources may have changed between the plans of two workers: give all of them one saved plan; \
                     or finish the other, or give it up with `unlock`",
                ))
            }
            None if ledger.last_commit != plan.base || ledger.journal.unfinished.is_some() => {
                Err(Error::conflict(format!("`{}` was changed since the plan was made", self.store.url()))
                    .hint("plan again"))
            }
            None => Ok(Standing::New),
        }
    }

    /// What `status` says of a backfill that is open: `{"plan", "count", "written", "waiting"}`, shards counted from 1. Where
    /// workers do not agree how many they are, it is the number that most of the markers have.
    pub(super) async fn open_backfill(&self, ledger: &Ledger) -> Result<Option<Value>> {
        let Some(plan) = &ledger.backfill else { return Ok(None) };
        let folder = format!("{FOLDER}{plan}/");
        let mut written = BTreeMap::<u64, BTreeSet<u64>>::new();
        let mut listed = self.control.list(&folder, None);
        while let Some(meta) = listed.try_next().await? {
            let shard = meta.key.strip_prefix(&folder).and_then(|name| name.strip_suffix(".json")?.split_once("-of-"));
            if let Some((Ok(number), Ok(count))) = shard.map(|(number, count)| (number.parse(), count.parse())) {
                written.entry(count).or_default().insert(number);
            }
        }
        let most = written.into_iter().max_by_key(|(_, numbers)| numbers.len());
        let (count, written) = most.map_or((None, BTreeSet::new()), |(count, numbers)| (Some(count), numbers));
        let waiting: Vec<u64> = (1..=count.unwrap_or(0)).filter(|number| !written.contains(number)).collect();
        Ok(Some(json!({"plan": plan, "count": count, "written": written, "waiting": waiting})))
    }

    /// The markers of the shards that are done.
    async fn markers(&self, id: &str, count: u64) -> Result<BTreeMap<u64, Marker>> {
        let folder = format!("{FOLDER}{id}/");
        let listed: Vec<_> = self.control.list(&folder, None).try_collect().await?;
        let mut markers = BTreeMap::new();
        for meta in listed {
            let Some(object) = self.control.get(&meta.key).await? else { continue };
            let marker: Marker = serde_json::from_slice(&object.bytes)
                .map_err(|error| Error::corrupt(format!("`{}`: {error}", self.control.url_of(&meta.key))))?;
            if marker.shard.1 == count {
                markers.insert(marker.shard.0, marker);
            }
        }
        Ok(markers)
    }
}

impl Session {
    /// Refuses to commit while many workers write one plan.
    ///
    /// # Errors
    /// `Conflict` that names the plan.
    pub fn no_backfill(&self) -> Result<()> {
        match &self.ledger.backfill {
            None => Ok(()),
            Some(plan) => Err(Error::conflict(format!("the backfill `{plan}` is not finished"))
                .hint("finish its shards (`apply --shard i/n`), or give it up with `unlock`")),
        }
    }
}

/// The sources of a plan that can be cut into shards, where there is a shard `number`.
fn shardable(plan: &Plan, number: u64, count: u64) -> Result<&[PlannedSource]> {
    if number == 0 || number > count {
        return Err(Error::invalid(format!("expected a shard from `1` to `{count}`, found `{number}`")));
    }
    let removes = |action: Action| matches!(action, Action::Restore | Action::Blank | Action::Forget);
    if let Some(change) = plan.changes.iter().find(|change| removes(change.action)) {
        return Err(Error::invalid(format!("the plan removes `{}`, which cannot be done in shards", change.key))
            .hint("apply the removals first: `regraft zarr sync` for those keys; then plan again"));
    }
    if plan.axis.moved > 0 {
        return Err(Error::invalid(format!(
            "the plan moves `{}` steps of the axis `{}`, which cannot be done in shards",
            plan.axis.moved, plan.axis.name
        ))
        .hint("use `apply` without shards; a backfill in shards wants labels behind the store's end, or a new store"));
    }
    if plan.sources.is_empty() {
        return Err(Error::invalid("the plan has no sources to write in shards").hint("use `apply` without shards"));
    }
    Ok(&plan.sources)
}

/// Where a shard says that it is done.
fn marker_key(id: &str, (number, count): (u64, u64)) -> String {
    format!("{FOLDER}{id}/{number}-of-{count}.json")
}

fn candidates(sources: &[PlannedSource]) -> Vec<Candidate> {
    sources
        .iter()
        .map(|source| Candidate {
            key: source.key.clone(),
            version: source.version.clone(),
            labels: source.labels.clone(),
            fitted: Fitted::new(),
        })
        .collect()
}
