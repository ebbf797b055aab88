//! Trying again: which failures, how often, how long, and what the error says in the end.
//!
//! `object_store` retries on its own, but its tries are not counted, its jitter is not full, and a put that it sent twice
//! comes back as a plain "precondition failed". So its retries are switched off and every try passes here: it takes a
//! place in the [`Limit`](super::limit::Limit), is counted, may be made to fail by a test, and is classified.
//!
//! Full jitter (AWS architecture blog, "Exponential backoff and jitter"): the pause is uniform between 0 and a doubling
//! bound, so that a crowd that was refused together does not come back together.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use super::Store;
use super::backend::{Attempt, Failure};
use super::faults::{Fault, Operation};
use super::random::up_to;
use crate::error::{Error, Result};
use crate::progress::Request;

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Tries in all.
    pub(super) tries: u32,
    /// No try starts later than this after the first.
    pub(super) time: Duration,
    /// The bound of the first pause; it doubles.
    pub(super) first_pause: Duration,
    /// The bound of the longest pause.
    pub(super) longest_pause: Duration,
}

impl Patience {
    /// For services: about two minutes through an outage.
    pub(super) const SERVICE: Self = Self {
        tries: 10,
        time: Duration::from_mins(2),
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_secs(15),
    };
    /// For files and memory, which do not recover by waiting long.
    pub(super) const LOCAL: Self = Self {
        tries: 5,
        time: Duration::from_secs(10),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(500),
    };

    /// The pause before try number `next` (2 is the first one that is paused for).
    fn pause(&self, next: u32) -> Duration {
        let bound = self.first_pause.saturating_mul(1 << (next - 2).min(16)).min(self.longest_pause);
        Duration::from_micros(u64::from(up_to(u32::try_from(bound.as_micros()).unwrap_or(u32::MAX))))
    }
}

/// What came of all tries.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    Done(T),
    /// Nothing under this key.
    Absent,
    /// The condition does not hold. Where `doubtful`, an earlier try may have been done.
    Refused {
        doubtful: bool,
    },
}

impl Store {
    /// Runs `once` until it succeeds, is answered for good, or patience ends.
    pub(super) async fn attempts<T, F>(
        &self,
        operation: Operation,
        key: &str,
        mut once: impl FnMut() -> F,
    ) -> Result<Outcome<T>>
    where
        F: Future<Output = Attempt<T>>,
    {
        let (started, patience) = (Instant::now(), self.patience);
        let mut tries = 0;
        let mut doubtful = false;
        loop {
            tries += 1;
            if let (Some(fence), Operation::Put | Operation::Delete | Operation::Copy) = (&self.fence, operation) {
                fence.check()?;
            }
            let failure = match self.attempt(operation, key, &mut once).await {
                Ok(value) => return Ok(Outcome::Done(value)),
                Err(Failure::Absent) => return Ok(Outcome::Absent),
                Err(Failure::Refused) => return Ok(Outcome::Refused { doubtful }),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::Transient(_) => {
                    doubtful = true;
                    true
                }
                Failure::Throttled(_) => true,
                _ => false,
            };
            let pause = patience.pause(tries + 1);
            if !again || tries >= patience.tries || started.elapsed() + pause > patience.time {
                return Err(self.error(operation, key, failure, tries, started.elapsed()));
            }
            self.counters.request(Request::Retry);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T, F>(&self, operation: Operation, key: &str, once: &mut impl FnMut() -> F) -> Attempt<T>
    where
        F: Future<Output = Attempt<T>>,
    {
        let limit = &self.connection.limit;
        let permit = limit.acquire().await;
        let outcome = match &self.faults {
            None => self.send(operation, once).await,
            Some(faults) => {
                if let Err(fault) = faults.before(operation, key).await {
                    Err(injected(fault))
                } else {
                    let outcome = self.send(operation, once).await;
                    faults.after(operation, key).await.map_err(injected).and(outcome)
                }
            }
        };
        match &outcome {
            Err(Failure::Throttled(_)) => {
                self.counters.request(Request::Throttle);
                limit.throttled();
            }
            Err(Failure::Transient(_)) => {}
            _ => limit.succeeded(),
        }
        drop(permit);
        outcome
    }

    async fn send<T, F>(&self, operation: Operation, once: &mut impl FnMut() -> F) -> Attempt<T>
    where
        F: Future<Output = Attempt<T>>,
    {
        self.counters.request(match operation {
            Operation::Get => Request::Get,
            Operation::Head => Request::Head,
            Operation::List => Request::List,
            Operation::Put => Request::Put,
            Operation::Delete => Request::Delete,
            Operation::Copy => Request::Copy,
        });
        once().await
    }

    /// The error that names the URL, what was tried, how often, for how long.
    fn error(&self, operation: Operation, key: &str, failure: Failure, tries: u32, elapsed: Duration) -> Error {
        let what = match operation {
            Operation::Get => "read",
            Operation::Head => "look at",
            Operation::List => "list",
            Operation::Put => "write",
            Operation::Delete => "delete",
            Operation::Copy => "copy",
        };
        let url = self.connection.url_of(key);
        let effort =
            if tries == 1 { String::new() } else { format!(" after {tries} tries in {:.1} s", elapsed.as_secs_f64()) };
        let message = |reason: &str| format!("cannot {what} `{url}`{effort}: {reason}");
        match failure {
            Failure::Absent => Error::not_found(message("there is no such object")),
            Failure::Missing(reason) => Error::not_found(message(&reason)),
            Failure::Refused => Error::conflict(message("the object was changed by somebody else")),
            Failure::Throttled(reason) => Error::unavailable(message(&reason)).hint("the service asks to slow down"),
            Failure::Transient(reason) | Failure::Other(reason) => Error::unavailable(message(&reason)),
            Failure::Denied(reason) => Error::invalid(message(&reason)).hint(self.connection.rights_hint()),
            Failure::Invalid(reason) => Error::invalid(message(&reason)),
        }
    }
}

fn injected(fault: Fault) -> Failure {
    match fault {
        Fault::Throttled => Failure::Throttled("injected: slow down".into()),
        Fault::Lost => Failure::Transient("injected: the connection broke".into()),
        Fault::Crash => Failure::Other("injected: the process died".into()),
    }
}
