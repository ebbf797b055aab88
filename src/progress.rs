//! What a long verb tells while it runs, and what it has cost so far.
//!
//! Progress is plain data pushed into a sink that the caller passes in; nothing here knows a terminal or Python.
//! Requests and bytes do not depend on the machine, so they are what reports and benchmarks compare.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One step of a long verb.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done: `list`, `open`, `write`, `publish`, `verify`.
    pub stage: String,
    /// Items done in this stage.
    pub done: u64,
    /// Items in this stage, 0 while unknown.
    pub total: u64,
    /// The item at hand: a key or an array.
    pub item: String,
    /// Items that failed.
    #[serde(default)]
    pub errors: u64,
    /// Requests and bytes since the verb began.
    pub usage: Usage,
}

/// Requests by class and bytes moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Object and range reads.
    pub get: u64,
    /// Metadata reads.
    pub head: u64,
    /// Writes, conditional or not; each part of a multipart write counts.
    pub put: u64,
    /// Deletions.
    pub delete: u64,
    /// Pages listed.
    pub list: u64,
    /// Copies inside the store.
    pub copy: u64,
    /// Requests sent again after a failure.
    pub retry: u64,
    /// Answers that asked to slow down (429, 503).
    pub throttle: u64,
    /// Bytes received in bodies.
    pub bytes_read: u64,
    /// Bytes sent in bodies.
    pub bytes_written: u64,
}

/// Which counter a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the fields of `Usage`")]
pub enum Request {
    Get,
    Head,
    Put,
    Delete,
    List,
    Copy,
    Retry,
    Throttle,
}

/// Shared counters; cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    requests: [AtomicU64; 8],
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Counters {
    /// Counts one request.
    pub fn request(&self, request: Request) {
        self.0.requests[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes received.
    pub fn read(&self, bytes: u64) {
        self.0.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes sent.
    pub fn written(&self, bytes: u64) {
        self.0.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let of = |request: Request| self.0.requests[request as usize].load(Ordering::Relaxed);
        Usage {
            get: of(Request::Get),
            head: of(Request::Head),
            put: of(Request::Put),
            delete: of(Request::Delete),
            list: of(Request::List),
            copy: of(Request::Copy),
            retry: of(Request::Retry),
            throttle: of(Request::Throttle),
            bytes_read: self.0.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.0.bytes_written.load(Ordering::Relaxed),
        }
    }
}

impl std::ops::Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            get: self.get - earlier.get,
            head: self.head - earlier.head,
            put: self.put - earlier.put,
            delete: self.delete - earlier.delete,
            list: self.list - earlier.list,
            copy: self.copy - earlier.copy,
            retry: self.retry - earlier.retry,
            throttle: self.throttle - earlier.throttle,
            bytes_read: self.bytes_read - earlier.bytes_read,
            bytes_written: self.bytes_written - earlier.bytes_written,
        }
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            get: self.get + other.get,
            head: self.head + other.head,
            put: self.put + other.put,
            delete: self.delete + other.delete,
            list: self.list + other.list,
            copy: self.copy + other.copy,
            retry: self.retry + other.retry,
            throttle: self.throttle + other.throttle,
            bytes_read: self.bytes_read + other.bytes_read,
            bytes_written: self.bytes_written + other.bytes_written,
        }
    }
}

/// Receives progress; called from any thread, so it must be quick.
pub trait Sink: Send + Sync {
    /// One step.
    fn progress(&self, progress: &Progress);
}

/// Throws progress away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn progress(&self, _: &Progress) {}
}

/// What a long verb is given besides its arguments: where to tell progress, and whether to stop.
#[derive(Clone)]
pub struct Run {
    sink: Arc<dyn Sink>,
    cancelled: Arc<AtomicBool>,
}

impl Default for Run {
    fn default() -> Self {
        Self::new(Arc::new(Silent))
    }
}

impl Run {
    /// A run that tells `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, cancelled: Arc::default() }
    }

    /// Tells one step.
    pub fn tell(&self, progress: &Progress) {
        self.sink.progress(progress);
    }

    /// Asks the verb to stop at its next safe point.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Returns early when the caller asked to stop; called between chunks.
    ///
    /// # Errors
    /// `Unavailable` when the run was cancelled: what is committed stays, the same call resumes.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(
                Error::unavailable("cancelled before the commit").hint("nothing is lost: run the same command again")
            );
        }
        Ok(())
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}
