//! What a worker that died left half done is done again, before anything else.
//!
//! # Design
//! Nothing is guessed from the store: the journal says what was announced and never ended.
//! 1. A store that was being created is created from the beginning; so is an array.
//! 2. Where the longer axis was not published, a tail that was moved comes back from its stage. Where it was, everything but
//!    the record was done.
//! 3. Every label that was announced is in doubt. Its sources are looked at as they are now: the same version is done again, a
//!    newer one in its place, and one that is gone is gone. A runner-up that was coming back comes back in the version on
//!    record, as long as the bucket has it. Labels that then belong to somebody else are written by him, and those that
//!    belong to nobody become fill, or are cut off where readers never saw them.
//!
//! So it needs no source that was not part of the commit, but for those whose regions it was overwriting.
//!
//! # Caveats
//! A redo may die as well: it announces itself like any commit, and its doubts are added to those that are there.

use super::Collection;
use super::fit::Misfit;
use super::journal::Unfinished;
use super::ledger::SourceState;
use super::planning::{Examined, Work};
use super::session::Session;
use super::staging::Doors;
use super::turn::{Totals, Turn};
use crate::error::{Error, Result};
use crate::progress::Run;
use crate::zarr::Format;

impl Collection {
    /// Does again what was announced and never ended, and removes what the dead left.
    pub(super) async fn recover(&self, turn: &mut Turn, run: &Run, totals: &mut Totals) -> Result<()> {
        let unfinished = turn.session.ledger.journal.unfinished.clone();
        if turn.lease.inherited() {
            let stage = unfinished.as_ref().and_then(|unfinished| unfinished.prepared.stage.as_deref());
            turn.doors.sweep_stages(stage).await?;
            turn.doors.store.sweep().await?;
            turn.doors.control.sweep().await?;
        }
        let Some(unfinished) = unfinished else { return self.end_backfill(turn).await };
        run.check()?;
        if self.set_back(turn, &unfinished).await? {
            turn.session = self.open_session(&turn.lease, &turn.doors).await?;
        }
        turn.session.doubt.clone_from(&unfinished.prepared.labels);
        let mut work = Vec::new();
        turn.session.load(unfinished.sources.iter().map(|source| source.key.as_str())).await?;
        for source in &unfinished.sources {
            let before = turn.session.ledger.sources.get(&source.key).and_then(SourceState::taken);
            if before.zip(source.version.as_ref()).is_some_and(|(before, version)| before.etag == version.etag) {
                // A runner-up that was coming back: the labels in doubt bring it again, in the same version.
                continue;
            }
            let item = self.look_at(&source.key, false).await?;
            let ledger = &turn.session.ledger;
            let is_done = match &item.version {
                Some(version) => ledger.knows(&item.key, &version.etag),
                None => !ledger.sources.contains_key(&item.key),
            };
            if !is_done {
                work.push(item);
            }
        }
        for batch in turn.batches(self, &work) {
            run.check()?;
            self.commit(turn, batch, &[], run, totals).await?;
        }
        if turn.session.ledger.journal.unfinished.is_some() {
            // No source is left, but its labels are still in doubt.
            self.commit(turn, &[], &[], run, totals).await?;
        }
        // The stage was named until now, in case this had died as well.
        turn.doors.sweep_stages(None).await?;
        self.end_backfill(turn).await
    }

    /// Removes what a backfill leaves whose publisher died.
    async fn end_backfill(&self, turn: &Turn) -> Result<()> {
        if turn.lease.inherited() && turn.session.ledger.backfill.is_none() {
            turn.doors.drop_markers().await?;
        }
        Ok(())
    }

    /// Brings the store back to where a commit can begin again; whether anything was to be done.
    async fn set_back(&self, turn: &Turn, unfinished: &Unfinished) -> Result<bool> {
        let (doors, prepared) = (&turn.doors, &unfinished.prepared);
        let group = turn.session.group.as_ref();
        let is_created = |path: &String| prepared.creates.contains(path);
        // What is created is consolidated by its last put.
        let half_made = group.is_some_and(|group| {
            group.format == Format::V2 && !group.is_consolidated() && group.arrays.keys().all(is_created)
        });
        let mut changed = false;
        if !prepared.creates.is_empty() && (group.is_none() || half_made) {
            changed = true;
            for document in [".zgroup", ".zattrs"] {
                doors.store.delete(document).await?;
            }
        }
        let is_there = |path: &String| !half_made && group.is_some_and(|group| group.arrays.contains_key(path));
        for path in prepared.creates.iter().filter(|path| !is_there(path)) {
            changed = true;
            doors.remove_array(path).await?;
        }
        if let (Some(stage), Some(first), Some(structure)) =
            (&prepared.stage, prepared.first_moved, &turn.session.structure)
            && turn.session.is_set_back
        {
            changed = true;
            doors.restore_tail(stage, structure, first, unfinished.longest).await?;
        }
        Ok(changed)
    }

    /// Deletes what lies beyond the axis as it is now and unfinished commits may have written.
    pub(super) async fn remove_beyond(&self, doors: &Doors, session: &Session) -> Result<()> {
        let (Some(unfinished), Some(structure)) = (&session.ledger.journal.unfinished, &session.structure) else {
            return Ok(());
        };
        doors.remove_rows(structure, session.labels.len(), unfinished.longest).await
    }

    /// Takes the sources out of a batch that have killed everybody who touched them.
    pub(super) fn deadly(&self, session: &Session, batch: &[Work]) -> (Vec<Work>, Vec<Work>) {
        let after = self.config.run.quarantine.after;
        batch
            .iter()
            .cloned()
            .partition(|item| item.version.is_some() && session.ledger.journal.is_deadly(&item.key, after))
    }

    /// Sets sources aside that have killed everybody who touched them.
    pub(super) fn set_aside(&self, session: &Session, deadly: Vec<Work>, examined: &mut Examined) {
        for item in deadly {
            let Some(version) = item.version else { continue };
            let count = session.ledger.journal.crashes.get(&item.key).map_or(0, |crashes| crashes.count);
            let url = self.sources.url_of(&item.key);
            let error = Error::invalid(format!(
                "{url}: expected a file that can be read, found one on which `{count}` workers died"
            ))
            .hint("look at the file, and at the memory that the workers have; `retry` tries it again");
            if session.doubt.iter().any(|label| session.ledger.owner(label) == Some(item.key.as_str())) {
                // Its earlier version cannot be written again: its steps go to a runner-up, or are blanked.
                examined.gone.push((item.key.clone(), false));
            }
            examined.misfits.push((item.key, version, Misfit::new("crash", error)));
        }
    }
}
