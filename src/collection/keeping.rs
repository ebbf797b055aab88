//! The session that stays between the verbs of one [`Collection`]: what was read once is not read again.
//!
//! # Problem
//! A plan and its `apply`, and every commit of a worker that waits for events, begin with the same reading of log, metadata,
//! labels and grids. On object storage that is more requests than the commit itself needs.
//!
//! # Design
//! What a verb ends with is kept where it is whole ([`Session::can_stay`]) and not large, and serves the next verb after it
//! was found to be current:
//! - the log ends with the very record that was seen last (one listing, which also shows what came after). A writer need
//!   not even ask for that where nobody has held the lease since it let it go itself ([`Lease::follows`]): records are
//!   written under the lease, and a holder that was given up before was fenced off;
//! - the object that consolidates the metadata is the one that was read or written last (one look).
//!
//! A writer finds out while it holds the lease. Anything else than yes makes it read everything anew: so does a
//! predecessor that did not let go by itself, a commit to be done again, and an open backfill.
//!
//! # Alternatives considered
//! Adding the records of others to the session: their commits change labels and metadata as well, so that little is saved,
//! and what was kept would be trusted in more cases.
//!
//! # Caveats
//! A program that changes labels or grids of the store without a trace in its consolidated metadata is noticed by the
//! next process only. Data chunks are always read when they are written.
//!
//! # Testing
//! Requests counted, and collections that take turns, in `tests/rust/requests.rs`; random histories of collections that
//! stay open in `tests/rust/coordination.rs`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Collection;
use super::session::Session;
use super::staging::Doors;
use crate::error::Result;
use crate::ledger::{Lease, Left};
use crate::store::Store;
use crate::zarr::Elements;

/// The part of `run.memory` that may stay occupied between two verbs.
const SHARE: u64 = 8;
/// Bytes that a row of the ledger takes in memory, about.
const ROW: u64 = 1 << 10;

/// What stays.
#[derive(Default)]
pub(super) struct Keeping {
    kept: Mutex<Option<Kept>>,
    /// How the lease was left last.
    left: Mutex<Option<Left>>,
}

/// A session, and how the lease was left by the turn that it is from.
pub(super) struct Kept {
    pub(super) session: Session,
    left: Option<Left>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeping {
    /// How this collection left the lease last.
    pub(super) fn left(&self) -> Option<Left> {
        lock(&self.left).clone()
    }
}

impl Collection {
    /// A session to read with: the one that was kept, or a new one.
    pub(super) async fn session_to_read(&self) -> Result<Kept> {
        let kept = lock(&self.keeping.kept).take();
        if let Some(kept) = kept
            && kept.session.is_current(false).await?
        {
            return Ok(kept);
        }
        let session = Session::open(&self.store, &self.control, &self.config).await?;
        Ok(Kept { session, left: None })
    }

    /// A session to write with, under a lease.
    pub(super) async fn session_to_write(&self, lease: &Lease, doors: &Doors) -> Result<Session> {
        let kept = lock(&self.keeping.kept).take();
        if let Some(kept) = kept.filter(|_| !lease.inherited()) {
            let is_ours = kept.left.as_ref().is_some_and(|left| lease.follows(left));
            if kept.session.is_current(is_ours).await? {
                let mut session = kept.session;
                session.write_under(&doors.store, &doors.control, lease.epoch());
                return Ok(session);
            }
        }
        self.open_session(lease, doors).await
    }

    /// Keeps a session that read.
    pub(super) fn keep(&self, mut kept: Kept) {
        kept.session.forget_arrays();
        if kept.session.can_stay() && kept.session.size() <= self.config.run.memory / SHARE {
            *lock(&self.keeping.kept) = Some(kept);
        }
    }

    /// Keeps the session of a turn that ended well.
    pub(super) fn keep_turn(&self, mut session: Session, left: Option<Left>) {
        lock(&self.keeping.left).clone_from(&left);
        session.write_under(&self.store, &self.control, 0);
        self.keep(Kept { session, left });
    }
}

impl Session {
    /// From now on what is written goes to these doors.
    pub(super) fn write_under(&mut self, store: &Store, control: &Store, epoch: u64) {
        self.log.write_under(control.clone(), epoch);
        self.checkpoint.write_under(control.clone());
        if let Some(group) = &mut self.group {
            group.write_under(store.clone());
        }
    }

    /// Whether nothing was changed since it was read, or last committed; `log_is_known` where the log need not be asked.
    async fn is_current(&self, log_is_known: bool) -> Result<bool> {
        let Some(group) = &self.group else { return Ok(false) };
        Ok((log_is_known || self.log.is_current().await?) && group.is_current().await?)
    }

    /// Arrays that a source would have brought are none of the store's.
    fn forget_arrays(&mut self) {
        if let Some(structure) = &mut self.structure {
            structure.arrays.retain(|array| array.to_create.is_none());
        }
    }

    /// Whether another verb may go on with it: it holds the whole log, of which nothing is left to be done, and the
    /// structure is the one that the store says.
    fn can_stay(&self) -> bool {
        let ledger = &self.ledger;
        self.group.as_ref().is_some_and(|group| group.is_consolidated() && group.refused.is_empty())
            && ledger.next_number == self.log.next_number()
            && !ledger.journal.is_open()
            && ledger.journal.crashes.is_empty()
            && ledger.backfill.is_none()
            && self.doubt.is_empty()
            && !(self.is_set_back || self.is_redo || self.has_grown)
    }

    /// Bytes that it takes, about.
    fn size(&self) -> u64 {
        let rows = self.ledger.sources.len() + self.ledger.slots.len() + self.labels.known() as usize / 16;
        let bytes = |elements: &Elements| match elements {
            Elements::Fixed(bytes) => bytes.len() as u64,
            Elements::Strings(strings) => strings.iter().map(|text| text.len() as u64 + 24).sum(),
        };
        rows as u64 * ROW + self.grids.values().map(bytes).sum::<u64>()
    }
}
