//! Lets a worker write its shard only while the backfill is open.
//!
//! # Problem
//! Workers of a backfill hold no lease, since they write side by side. One that stands still, while an operator gives the
//! backfill up and others commit, must not write when it goes on: its chunks would be read, patched and put anew over theirs.
//!
//! # Design
//! As a holder of the lease shows that it lives, a worker looks whether the log says that the backfill has ended: every third
//! of the lease's time to live. It writes nothing after the end, and nothing either where it has not seen for two thirds of
//! that time that the backfill is open. What is under way at that moment, other conditions of the puts must catch, as for a
//! lease that is taken away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::collection::ledger::CommitRecord;
use crate::error::{Error, Result};
use crate::ledger::Log;
use crate::store::{Fence, Store};

/// Looks so often within the time to live.
const LOOKS: u32 = 3;

/// Looks at the log until it is dropped.
pub(super) struct Watch {
    seen: Arc<Seen>,
    looking: JoinHandle<()>,
}

struct Seen {
    id: String,
    control: Store,
    /// Records that were read before.
    known: u64,
    ttl: Duration,
    state: Mutex<State>,
}

struct State {
    /// When the last look began that found the backfill open.
    last: Instant,
    is_over: bool,
}

impl Watch {
    /// Watches the backfill `id`, which was open when the log had `known` records.
    ///
    /// # Errors
    /// `Conflict` where it has ended since; `Unavailable` where storage does not answer.
    pub(super) async fn begin(control: &Store, id: &str, known: u64, ttl: Duration) -> Result<Self> {
        let state = Mutex::new(State { last: Instant::now(), is_over: false });
        let control = control.with_patience(4, ttl / LOOKS);
        let seen = Arc::new(Seen { id: id.to_owned(), control, known, ttl, state });
        if seen.has_ended().await? {
            return Err(seen.ended());
        }
        Ok(Self { looking: tokio::spawn(seen.clone().look_on()), seen })
    }

    pub(super) fn fence(&self) -> Arc<dyn Fence> {
        self.seen.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Fence for Seen {
    fn check(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_over {
            return Err(self.ended());
        }
        let silent = state.last.elapsed();
        if silent > self.ttl * 2 / 3 {
            return Err(Error::conflict(format!(
                "it is `{:.1}` s ago that the backfill `{}` was seen to be open",
                silent.as_secs_f64(),
                self.id
            ))
            .hint("do the shard again: what it wrote is not written twice"));
        }
        Ok(())
    }
}

impl Seen {
    fn ended(&self) -> Error {
        Error::conflict(format!("the backfill `{}` has ended: given up, or published", self.id)).hint("plan again")
    }

    async fn look_on(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.ttl / LOOKS).await;
            let now = Instant::now();
            let ended = match self.has_ended().await {
                Ok(ended) => ended,
                // The next look may succeed; until then the fence closes by itself.
                Err(error) if error.retryable() => continue,
                // Records are cleaned up by commits only.
                Err(_) => true,
            };
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if ended {
                state.is_over = true;
                return;
            }
            state.last = now;
        }
    }

    async fn has_ended(&self) -> Result<bool> {
        let log = Log::open_after(self.control.clone(), self.known).await?;
        let records = log.records::<CommitRecord>(self.known + 1).await?;
        Ok(records.iter().any(|(_, record)| matches!(record.kind.as_str(), "abandon" | "commit")))
    }
}
