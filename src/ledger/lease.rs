//! The exclusive right to write one store.
//!
//! # Problem
//! Two writers on one store refuse each other at every chunk they share; one of them is to wait. But a holder may die, or
//! stand still for any time, and nobody's wall clock can be trusted to tell.
//!
//! # Design
//! One object, `lease.json`, says who holds the right, in which epoch.
//! - On object storage ([`object`]) it is taken by conditional puts. The holder writes it again every third of the time to
//!   live, with a new nonce; a waiter takes it over, as the next epoch, once it has seen the same `ETag` for longer than the
//!   time to live **on its own monotonic clock**. A holder whose last heartbeat that succeeded began more than two thirds
//!   of the time to live ago starts no write ([`Lease::check`]).
//! - On files ([`file`]) it is the operating system's lock of that file, which ends with its process. A process that is
//!   stopped keeps it, until an operator calls [`Lease::seize`]: then the file is replaced, and the holder finds that the
//!   file it locked is not the one that lies there.
//!
//! A holder that lets go says so in the object, and whether its work was whole; the next one need not wait then.
//!
//! # Caveats
//! - Between a check and the arrival of the request any time may pass. So the lease saves work; what saves data is that every
//!   put is conditional on content that was read while the lease was held.
//! - A single look cannot tell a dead holder from a live one: who does not wait is refused, but what he saw is remembered
//!   in this process, so that looking again later counts.

mod file;
mod object;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::file::FileLease;
use self::object::ObjectLease;
use crate::error::{Error, Result};
use crate::store::{ETag, Fence, Store, clock, random_id};

const KEY: &str = "lease.json";
/// Waiters look this often, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// How to take a lease.
#[derive(Debug, Clone)]
pub struct LeaseOptions {
    /// How long after its last sign of life a holder may be taken for dead. Files need none.
    pub ttl: Duration,
    /// How long to wait while somebody else holds it; `None` does not wait.
    pub wait: Option<Duration>,
    /// Whether the user says that nobody else writes: storage without conditional puts is then not refused.
    pub single_writer: bool,
    /// How this process left the lease when it held it last: where it still is so, one request takes it.
    pub left: Option<Left>,
}

/// A lease as its last holder left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    epoch: u64,
    holder: String,
    /// On object storage.
    etag: Option<ETag>,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), wait: None, single_writer: false, left: None }
    }
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process number.
    pub process: u32,
    /// Name of the machine.
    pub host: String,
    /// One for each time that a lease was taken.
    pub id: String,
}

impl Holder {
    fn here() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .or_else(|_| std::env::var("HOSTNAME"))
            .map_or_else(|_| "this machine".to_owned(), |name| name.trim().to_owned());
        Self { process: std::process::id(), host, id: random_id() }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {} on {}", self.process, self.host)
    }
}

/// What the object holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Body {
    epoch: u64,
    holder: Holder,
    /// Another for each write, so that each has an `ETag` of its own.
    nonce: String,
    /// Seconds.
    ttl: f64,
    /// For people to read; decides nothing.
    since: String,
    /// Whether the holder let go.
    released: bool,
    /// Whether its work was whole when it did.
    clean: bool,
}

impl Body {
    fn new(epoch: u64, ttl: Duration) -> Self {
        Self {
            epoch,
            holder: Holder::here(),
            nonce: random_id(),
            ttl: ttl.as_secs_f64(),
            since: clock::now_rfc3339(),
            released: false,
            clean: false,
        }
    }
}

/// A lease as it was found, for people to read.
#[derive(Debug, Clone, Serialize)]
pub struct LeaseState {
    /// Who holds it, or held it last.
    pub holder: Holder,
    /// Counts the holders.
    pub epoch: u64,
    /// When it was taken.
    pub since: String,
    /// Whether nobody holds it.
    pub free: bool,
    /// Whether its holder let go by himself.
    pub released: bool,
}

impl LeaseState {
    fn of(body: Body, free: bool) -> Self {
        Self { holder: body.holder, epoch: body.epoch, since: body.since, free, released: body.released }
    }

    /// As errors and reports name the holder.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{} since {}", self.holder, self.since)
    }
}

/// What [`Lease::seize`] did.
#[derive(Debug)]
pub struct Unlocked {
    /// Who held it; `None` where nobody did.
    pub was: Option<LeaseState>,
    /// The lease, held now by the caller.
    pub lease: Lease,
}

/// The right to write one store. Dropped without [`Lease::release`], it ends as if the process had died.
#[derive(Debug)]
pub struct Lease {
    held: Held,
    epoch: u64,
    inherited: bool,
    died: bool,
    /// Who held it before, where he let go with his work whole.
    before: Option<String>,
}

#[derive(Debug)]
enum Held {
    File(Arc<FileLease>),
    Object(ObjectLease),
}

/// One try: the lease, or who has it and whether it is worth looking again at once.
enum Attempt {
    Taken(Lease),
    Busy(Option<LeaseState>),
}

impl Lease {
    /// Takes the lease of the store whose control prefix is `control`.
    ///
    /// # Errors
    /// `Conflict` naming the holder when the time is over; otherwise as [`Lease::acquire_or_holder`].
    pub async fn acquire(control: &Store, options: &LeaseOptions) -> Result<Self> {
        Self::acquire_or_holder(control, options).await?.map_err(|holder| {
            let waited = options.wait.filter(|wait| !wait.is_zero());
            let waited = waited.map_or_else(String::new, |wait| format!(" for {:.1} s", wait.as_secs_f64()));
            Error::conflict(format!("`{}` is being written by {holder}{waited}", store_url(control))).hint(
                "wait for it to end, or give a longer time to wait; `unlock` takes the right from a holder that hangs",
            )
        })
    }

    /// [`Lease::acquire`] for callers who have something else to do: who holds it is no error.
    ///
    /// # Errors
    /// `Invalid` where the storage has no conditional puts, or rights are missing; `Unavailable` where it does not answer.
    pub async fn acquire_or_holder(
        control: &Store,
        options: &LeaseOptions,
    ) -> Result<std::result::Result<Self, String>> {
        let started = Instant::now();
        let mut pause = PAUSE.0;
        let mut options = options.clone();
        loop {
            let answer = attempt(control, &options).await?;
            options.left = None;
            let holder = match answer {
                Attempt::Taken(lease) => return Ok(Ok(lease)),
                Attempt::Busy(holder) => holder,
            };
            let left = options.wait.unwrap_or_default().saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(Err(holder.map_or_else(|| "another process".to_owned(), |holder| holder.text())));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Takes the lease whoever holds it. From then on [`Lease::check`] fails for the one who held it.
    ///
    /// # Errors
    /// As [`Lease::acquire`]; `Conflict` only where somebody else was faster several times.
    pub async fn seize(control: &Store, options: &LeaseOptions) -> Result<Unlocked> {
        let before = Self::state(control).await?;
        // On files the lock of a dead holder is free, and yet he never let go.
        let died = before.as_ref().is_some_and(|state| !state.released);
        let was = before.filter(|state| !state.free);
        for _ in 0..8 {
            let done = match control.local_path(KEY) {
                Some(_) => file::replace(control).await?,
                None => object::replace(control).await?,
            };
            if done && let Attempt::Taken(mut lease) = attempt(control, options).await? {
                lease.died |= died;
                return Ok(Unlocked { was, lease });
            }
            tokio::time::sleep(PAUSE.0).await;
        }
        Err(Error::conflict(format!(
            "`{}`: others take the right to write faster than it can be seized",
            store_url(control)
        )))
    }

    /// Who holds the lease, or held it last; `None` where nobody ever did.
    ///
    /// # Errors
    /// `Unavailable` where the storage does not answer.
    pub async fn state(control: &Store) -> Result<Option<LeaseState>> {
        match control.local_path(KEY) {
            Some(_) => file::state(control).await,
            None => object::state(control).await,
        }
    }

    /// Counts the holders of this store; carried by every log record.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the holder before did not let go by itself with its work whole: it may have died in the middle, or may
    /// still be about to write.
    #[must_use]
    pub fn inherited(&self) -> bool {
        self.inherited
    }

    /// Whether the holder before did not let go at all: it died, or was locked out.
    #[must_use]
    pub fn died(&self) -> bool {
        self.died
    }

    /// Whether nobody has held it since it was left so. Then nothing can have been recorded meanwhile either: a holder that
    /// was given up before that was fenced off.
    #[must_use]
    pub fn follows(&self, left: &Left) -> bool {
        self.before.as_ref() == Some(&left.holder) && self.epoch == left.epoch + 1
    }

    /// Whether writing is still allowed.
    ///
    /// # Errors
    /// `Conflict` when it is not, or may soon not be.
    pub fn check(&self) -> Result<()> {
        self.fence().check()
    }

    /// [`Lease::check`] for the stores that are written under this lease.
    #[must_use]
    pub fn fence(&self) -> Arc<dyn Fence> {
        match &self.held {
            Held::File(lease) => lease.clone(),
            Held::Object(lease) => lease.fence(),
        }
    }

    /// Lets go, and says whether everything that was begun is whole. A lease that cannot be given back, because the storage
    /// does not answer or it was lost meanwhile, ends by its time to live. Returns how it was left, where it was whole.
    pub async fn release(self, clean: bool) -> Option<Left> {
        let left = match self.held {
            Held::File(lease) => lease.release(clean).await,
            Held::Object(lease) => lease.release(clean).await,
        };
        left.filter(|_| clean)
    }
}

async fn attempt(control: &Store, options: &LeaseOptions) -> Result<Attempt> {
    match control.local_path(KEY) {
        Some(_) => file::attempt(control, options).await,
        None => object::attempt(control, options).await,
    }
}

fn store_url(control: &Store) -> &str {
    control.url().trim_end_matches(".regraft")
}

/// The error of a holder that is none any more.
fn lost(store: &str, reason: &str) -> Error {
    Error::conflict(format!("the right to write `{store}` was lost: {reason}"))
        .hint("run the same command again: it goes on from what is there now")
}
