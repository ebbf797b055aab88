//! `apply`: makes the store match, one commit a batch.
//!
//! Order within a commit: data chunks, then labels and provenance, then array metadata with the new lengths, then
//! consolidated metadata, then the log record. A reader never sees a store that has grown but is half filled.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::Collection;
use super::config::EmptyChunksConfig;
use super::document::{Plan, Report, Written};
use super::fit::{Fitted, Misfit};
use super::ledger::{Action, CommitRecord, SettledIntent};
use super::opening::version_of;
use super::planning::{Examined, Request, Work};
use super::proof::Proof;
use super::session::{Session, Settled};
use super::staging::Doors;
use super::turn::{Totals, Turn};
use super::writes::writes;
use crate::error::{Error, Kind, Result};
use crate::ledger::Pending;
use crate::progress::{Progress, Run};
use crate::store::Store;
use crate::zarr::write::{ArrayWrite, EmptyChunks, WriteOptions, WriteSummary, write};
use crate::zarr::{Group, GroupSpec};

/// How long a run waits for another that is writing the same store, where it is not told.
pub const LEASE_WAIT: Duration = Duration::from_mins(1);

impl Collection {
    /// Does what a plan says, as far as it is still to be done: each source is looked at as it is now. Then settles the
    /// intents that wait.
    ///
    /// # Errors
    /// `Conflict` where another writer holds the store for longer than `wait`, or changed it meanwhile: plan again.
    /// `Unavailable` where storage does not answer or the run was cancelled: what is committed stays.
    pub async fn apply(&self, plan: &Plan, wait: Duration, run: &Run) -> Result<Report> {
        let changes = plan.changes.iter().filter(|change| change.action != Action::Nothing);
        let work = changes
            .map(|change| Work { key: change.key.clone(), version: change.version.clone(), forced: change.forced })
            .collect();
        self.settle_work(work, wait, run, Totals::new(self)).await
    }

    /// Does what `request` asks for without a plan: each source is opened once, and under the lease, so that one which kills
    /// whoever opens it is found and set aside. Then settles the intents that wait.
    ///
    /// # Errors
    /// As [`Collection::apply`].
    pub async fn sync(&self, request: &Request, wait: Duration, run: &Run) -> Result<Report> {
        let totals = Totals::new(self);
        let mut kept = self.session_to_read().await?;
        let (work, _) = self.survey(&mut kept.session, request, run).await?;
        self.keep(kept);
        self.settle_work(work, wait, run, totals).await
    }

    async fn settle_work(&self, work: Vec<Work>, wait: Duration, run: &Run, mut totals: Totals) -> Result<Report> {
        let mut turn = self.begin(Some(wait)).await?;
        let outcome = self.settle_in(&mut turn, work, run, &mut totals).await;
        let unchanged = turn.session.axis_change(&turn.session.unchanged(), &self.config);
        self.end(turn, outcome.is_err()).await;
        outcome?;
        Ok(totals.report(self, unchanged))
    }

    async fn settle_in(&self, turn: &mut Turn, work: Vec<Work>, run: &Run, totals: &mut Totals) -> Result<()> {
        self.recover(turn, run, totals).await?;
        turn.session.no_backfill()?;
        let work = self.still_to_do(work, &mut turn.session).await?;
        for batch in turn.batches(self, &work) {
            run.check()?;
            self.commit(turn, batch, &[], run, totals).await?;
        }
        self.settle_inbox(turn, None, run, totals).await
    }

    /// Work without what was done since it was found.
    async fn still_to_do(&self, mut work: Vec<Work>, session: &mut Session) -> Result<Vec<Work>> {
        session.load(work.iter().map(|item| item.key.as_str())).await?;
        for item in work.iter_mut().filter(|item| item.version.is_none() && !item.forced) {
            // It may be back.
            item.version = self.sources.head(&item.key).await?.as_ref().map(version_of);
        }
        work.retain(|item| match &item.version {
            Some(version) => !session.ledger.knows(&item.key, &version.etag),
            None => session.ledger.sources.contains_key(&item.key),
        });
        Ok(work)
    }

    /// One batch, one commit, which settles `intents`.
    pub(super) async fn commit(
        &self,
        turn: &mut Turn,
        batch: &[Work],
        intents: &[&Pending],
        run: &Run,
        totals: &mut Totals,
    ) -> Result<()> {
        turn.announce_attempt(self, batch).await?;
        let is_redo = turn.session.ledger.journal.unfinished.is_some();
        turn.session.is_redo = is_redo;
        let (doors, session) = (turn.doors.clone(), &mut turn.session);
        let usage_before = self.store.counters().usage();
        let opening = Instant::now();
        let keys = batch.iter().map(|item| item.key.as_str());
        session.checkpoint.load(&mut session.ledger, keys, &session.doubt).await?;
        let (deadly, batch) = self.deadly(session, batch);
        let mut examined = self.examine(session, &batch, run, true).await?;
        self.set_aside(session, deadly, &mut examined);
        let mut proof = Proof::new(self.config.run.memory / 4);
        let settled = self.settle_and_prove(session, &mut examined, &mut proof, run).await?;
        totals.seconds.open += opening.elapsed().as_secs_f64();

        let writing = Instant::now();
        let mut stage = None;
        if settled.resolution.assignments.iter().any(|assignment| assignment.rewrite) {
            let memory = self.config.run.memory - proof.kept();
            stage = self.write_layout((&doors, session), &examined, &settled, memory, run, totals).await?;
        } else if is_redo && session.group.is_some() {
            self.publish((&doors.store, session), settled.layout.length_after).await?;
        }
        if is_redo {
            self.remove_beyond(&doors, session).await?;
        }
        totals.seconds.write += writing.elapsed().as_secs_f64();

        let publishing = Instant::now();
        let mut record = self.record(session, &examined, &settled, self.store.counters().usage() - usage_before);
        record.intents = settle(intents, &record);
        record.axis_order = session.axis_order(&self.config);
        let mut changes = Self::changes(session, &examined, &settled);
        if !record.sources.is_empty() || session.ledger.journal.is_open() {
            let number = session.log.append(&record).await?;
            session.ledger.fold(number, &record);
            totals.commits.push(number);
            self.keep_checkpoint(session).await?;
        }
        session.doubt.clear();
        if let Some(stage) = stage {
            doors.drop_stage(&stage).await?;
        }
        totals.seconds.publish += publishing.elapsed().as_secs_f64();

        for change in &mut changes {
            change.outcome = Some(if change.action == Action::Quarantine { "quarantined" } else { "done" }.into());
        }
        totals.set_aside(&record);
        totals.changes.extend(changes);
        totals.settled += intents.len() as u64;
        let axis = session.axis_change(&settled.layout, &self.config);
        match &mut totals.axis {
            Some(total) => {
                total.length_after = axis.length_after;
                total.moved += axis.moved;
            }
            None => totals.axis = Some(axis),
        }
        Ok(())
    }

    /// Writes a checkpoint where it is time for one. What stands in its way is for the next one to find out: the commit is
    /// done, and the log holds it.
    async fn keep_checkpoint(&self, session: &mut Session) -> Result<()> {
        let behind = session.log.len().saturating_sub(session.checkpoint.number());
        if behind < self.config.run.checkpoint.max(1) {
            return Ok(());
        }
        match session.checkpoint.write(&mut session.ledger).await {
            Ok(_) => Ok(()),
            Err(error) if error.retryable() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Settles a batch without the sources that turn out to be damaged.
    async fn settle_and_prove(
        &self,
        session: &mut Session,
        examined: &mut Examined,
        proof: &mut Proof,
        run: &Run,
    ) -> Result<Settled> {
        loop {
            let settled = self.settle_with_runners_up(session, examined, run).await?;
            let Some(structure) = &session.structure else { return Ok(settled) };
            let damaged = proof.examine(&mut examined.candidates, structure, &settled.layout, run).await?;
            if damaged.is_empty() {
                return Ok(settled);
            }
            for (key, error) in damaged {
                let Some(position) = examined.candidates.iter().position(|candidate| candidate.key == key) else {
                    continue;
                };
                let candidate = examined.candidates.remove(position);
                if session.ledger.knows(&key, &candidate.version.etag) || examined.kept.remove(&key) {
                    // A runner-up that cannot come back.
                    examined.gone.push((key.clone(), false));
                }
                examined.misfits.push((key, candidate.version, Misfit::new("unreadable", error)));
            }
        }
    }

    /// Settles a batch, opening the runners-up whose data come back, in the versions on record as long as the bucket has
    /// them. Of those that it has not, one that changed or went away joins the batch.
    async fn settle_with_runners_up(
        &self,
        session: &mut Session,
        examined: &mut Examined,
        run: &Run,
    ) -> Result<Settled> {
        loop {
            let gone: Vec<String> = examined.gone.iter().map(|(key, _)| key.clone()).collect();
            let settled = session.settle(&examined.candidates, &gone, &self.config).await?;
            let known: HashSet<&str> = examined.candidates.iter().map(|candidate| candidate.key.as_str()).collect();
            let missing: Vec<String> = settled
                .resolution
                .assignments
                .iter()
                .filter(|assignment| assignment.rewrite)
                .filter_map(|assignment| assignment.after.clone())
                .filter(|owner| !known.contains(owner.as_str()))
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            if missing.is_empty() {
                return Ok(settled);
            }
            let keys: Vec<_> = missing
                .iter()
                .map(|key| {
                    let state = session.ledger.sources.get(key);
                    (key.clone(), state.map(|state| state.taken().unwrap_or(&state.version).clone()))
                })
                .collect();
            for (key, outcome) in self.opener().open_recorded(&keys, run).await? {
                let before = examined.misfits.len();
                self.fit_outcome(session, key.clone(), outcome, true, examined).await?;
                if examined.misfits.len() > before {
                    // It can no longer be read: it cannot come back, and must not be asked for again.
                    examined.gone.push((key, false));
                }
            }
        }
    }

    /// Writes a layout: data, labels, metadata. Returns where the tail of the axis was staged.
    async fn write_layout(
        &self,
        (doors, session): (&Doors, &mut Session),
        examined: &Examined,
        settled: &Settled,
        memory: u64,
        run: &Run,
        totals: &mut Totals,
    ) -> Result<Option<String>> {
        let structure = session.structure.as_ref().ok_or_else(|| Error::internal("a layout without a structure"))?;
        let fitted: BTreeMap<String, &Fitted> =
            examined.candidates.iter().map(|candidate| (candidate.key.clone(), &candidate.fitted)).collect();
        let writes = writes(structure, &settled.layout, &fitted)?;
        totals.arrays = settled.layout.touched(structure);
        let stage = doors.stage_tail(writes.data.iter().chain(&writes.coordinates)).await?;
        let record = self.prepared(session, examined, settled, stage.clone());
        let number = match (session.log.append(&record).await, &stage) {
            // Somebody else has the number, so nobody will ever read of this stage.
            (Err(error), Some(stage)) if error.kind() == Kind::Conflict => {
                doors.take_back_stage(stage).await;
                return Err(error);
            }
            (answer, _) => answer?,
        };
        session.ledger.fold(number, &record);
        let store = &doors.store;
        self.write_arrays(store, &writes.data, memory, run, &mut totals.written).await?;
        self.write_arrays(store, &writes.coordinates, memory, run, &mut totals.written).await?;
        run.tell(&Progress {
            stage: "publish".into(),
            done: 0,
            total: 1,
            item: self.store.url().to_owned(),
            errors: 0,
            usage: self.store.counters().usage(),
        });
        self.publish((store, session), settled.layout.length_after).await?;
        session.advance(&settled.layout, &examined.candidates);
        Ok(stage)
    }

    pub(super) async fn write_arrays(
        &self,
        store: &Store,
        writes: &[ArrayWrite],
        memory: u64,
        run: &Run,
        written: &mut Written,
    ) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        let options = WriteOptions {
            memory,
            empty_chunks: match self.config.store.empty_chunks {
                EmptyChunksConfig::Drop => EmptyChunks::Drop,
                EmptyChunksConfig::Fill => EmptyChunks::Fill,
            },
        };
        let summary: WriteSummary = write(store, writes, &options, run).await?;
        written.chunks_read += summary.chunks_read;
        written.chunks_written += summary.chunks_written;
        written.chunks_copied += summary.chunks_copied;
        written.chunks_dropped += summary.chunks_dropped;
        written.chunks_passed_through += summary.chunks_passed_through;
        written.tiles_decoded += summary.tiles_decoded;
        Ok(())
    }

    /// Makes the metadata say what the chunks hold: creates the group, or grows and adds arrays, consolidated metadata last.
    pub(super) async fn publish(&self, (store, session): (&Store, &mut Session), length: u64) -> Result<()> {
        let structure = session.structure.as_ref().ok_or_else(|| Error::internal("a layout without a structure"))?;
        let specs = |only_new: bool| {
            structure
                .arrays
                .iter()
                .filter(move |array| !only_new || array.to_create.is_some())
                .filter_map(move |array| {
                    array.to_create.clone().map(|mut spec| {
                        spec.shape = array.shape_with_axis(length);
                        spec
                    })
                })
                .collect::<Vec<_>>()
        };
        if let Some(group) = &mut session.group {
            for array in structure.arrays.iter().filter(|array| array.to_create.is_none() && array.axis.is_some()) {
                if let Some(target) = group.arrays.get_mut(&array.array.path) {
                    target.set_shape(array.shape_with_axis(length));
                }
            }
            for spec in specs(true) {
                session.has_grown = true;
                group.insert(spec.array(structure.format)?)?;
            }
            if session.is_redo {
                group.reread().await?;
            }
            group.publish().await?;
        } else {
            let spec =
                GroupSpec { format: structure.format, attributes: structure.attributes.clone(), arrays: specs(false) };
            session.has_grown = true;
            session.group = Some(Group::create(store, &spec).await?);
        }
        Ok(())
    }
}

/// How the intents of a commit end.
fn settle(intents: &[&Pending], record: &CommitRecord) -> Vec<SettledIntent> {
    let set_aside: HashSet<&str> = record
        .sources
        .iter()
        .filter(|source| source.action == Action::Quarantine)
        .map(|source| source.key.as_str())
        .collect();
    intents
        .iter()
        .map(|pending| SettledIntent {
            id: pending.id.clone(),
            outcome: if set_aside.contains(pending.intent.key.as_str()) { "quarantined" } else { "done" }.into(),
        })
        .collect()
}
