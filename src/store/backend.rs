//! What every kind of storage answers to one try, before retries, limits, counting and prefixes.

use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use super::local::Walk;
use super::object::{Condition, ETag, Object, ObjectMeta};

/// The outcome of one try.
pub(super) type Attempt<T> = Result<T, Failure>;

/// Why one try did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing under this key.
    Absent,
    /// The bucket itself is not there.
    Missing(String),
    /// The condition did not hold, as far as the service says.
    Refused,
    /// 429 or 503: slow down.
    Throttled(String),
    /// No answer or a broken one: it may have been done.
    Transient(String),
    /// Credentials or rights are missing.
    Denied(String),
    /// The request can never succeed.
    Invalid(String),
    /// Anything else: disk full, a directory in the way.
    Other(String),
}

/// Which bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Range(Range<u64>),
    /// The last so many bytes, or all where there are fewer.
    Suffix(u64),
    /// No bytes.
    Head,
}

/// One page of a listing.
pub(super) struct Page {
    pub(super) objects: Vec<ObjectMeta>,
    pub(super) next: Option<Cursor>,
}

/// Where a listing goes on. Keys here are full keys, from the root of the connection.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// Keys begin with this text, which need not end at a `/`.
    pub(super) prefix: String,
    /// Only keys after this one.
    pub(super) start_after: Option<String>,
    /// The service's continuation token.
    pub(super) token: Option<String>,
    /// The walk through directories, on local files.
    pub(super) walk: Option<Walk>,
}

/// One kind of storage. Keys are full keys, checked by the caller: no empty, `.` or `..` segments.
#[async_trait]
pub(super) trait Backend: Send + Sync {
    async fn get(&self, key: &str, part: Part, if_match: Option<&ETag>) -> Attempt<Object>;
    async fn list_page(&self, cursor: Cursor) -> Attempt<Page>;
    async fn put(&self, key: &str, bytes: Bytes, condition: Option<&Condition>) -> Attempt<ETag>;
    async fn delete(&self, key: &str) -> Attempt<()>;
    async fn copy(&self, from: &str, to: &str) -> Attempt<()>;
    /// Whether [`Backend::rename`] is one step here; otherwise the caller copies and deletes.
    async fn rename(&self, from: &str, to: &str) -> Option<Attempt<()>>;
    /// Makes the names of `keys` durable; object storage has nothing to do.
    async fn sync(&self, keys: &[String]) -> Attempt<()>;
    /// Removes temporary files below `prefix` that a dead writer left; returns how many.
    async fn sweep(&self, prefix: &str) -> Attempt<u64>;
    fn local_path(&self, key: &str) -> Option<PathBuf>;
}
