//! What every kind of storage answers to one try, before retries, limits, counting and prefixes.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;

use super::carried::{Carried, Inspected, Written};
use super::features::Capabilities;
use super::local::Walk;
use super::object::{Condition, ETag, Object, ObjectMeta};
use super::pieces::Piece;
use super::s3::S3;

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

    /// Whether large objects are written in parts.
    fn in_parts(&self) -> bool {
        false
    }
    /// Begins a write in parts; returns its name.
    async fn begin(&self, _key: &str) -> Attempt<String> {
        Err(no_parts())
    }
    /// Writes part `index` (from 0); returns its name.
    async fn upload(&self, _key: &str, _upload: &str, _index: usize, _bytes: Bytes) -> Attempt<String> {
        Err(no_parts())
    }
    /// Joins the parts.
    async fn complete(&self, _key: &str, _upload: &str, _parts: Vec<String>) -> Attempt<ETag> {
        Err(no_parts())
    }
    /// Throws the parts away.
    async fn abort(&self, _key: &str, _upload: &str) -> Attempt<()> {
        Err(no_parts())
    }

    /// The requests that only S3 has.
    fn s3(&self) -> Option<&S3> {
        None
    }
    /// What can be done here, as far as is known without asking.
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            metadata: false,
            tags: false,
            copies_ranges: true,
            versions: Some(false),
            largest_replaced: u64::MAX,
        }
    }
    /// What the object has besides its bytes.
    async fn inspect(&self, key: &str) -> Attempt<Inspected> {
        let meta = self.get(key, Part::Head, None).await?.meta;
        Ok(Inspected { meta, ..Inspected::default() })
    }
    /// Writes with all that is carried over.
    async fn put_carried(&self, key: &str, bytes: Bytes, condition: &Condition, _: &Carried) -> Attempt<Written> {
        let etag = self.put(key, bytes, Some(condition)).await?;
        Ok(Written { etag, version: None })
    }
    /// Whether [`Backend::assemble`] is there.
    fn assembles(&self) -> bool {
        false
    }
    /// Joins `pieces` of the object `expected` in its place; the name of the new content goes to `tries` before it is there.
    async fn assemble(&self, _: &str, _: &[Piece], _: &ETag, _tries: &Tries) -> Attempt<Written> {
        Err(Failure::Invalid("objects are not joined from pieces here".into()))
    }

    /// Makes `to` share the bytes of `from` if `condition` holds for `to`; only where keys are files.
    async fn link(&self, _from: &str, _to: &str, _condition: &Condition) -> Attempt<ETag> {
        Err(Failure::Invalid("objects do not share their bytes here".into()))
    }
    /// Deletes an object that is still `etag`, in one step; only where keys are files.
    async fn delete_if(&self, _key: &str, _etag: &ETag) -> Attempt<()> {
        Err(Failure::Invalid("objects are not deleted on a condition here".into()))
    }
    /// Moves in one step; `None` where the caller must copy and delete.
    async fn rename(&self, _from: &str, _to: &str) -> Option<Attempt<()>> {
        None
    }
    /// Makes the names of `keys` durable; object storage has nothing to do.
    async fn sync(&self, _keys: &[String]) -> Attempt<()> {
        Ok(())
    }
    /// Removes temporary files below `prefix`; `spare`s those whose writer is known to live. Returns how many.
    async fn sweep(&self, _prefix: &str, _spare: bool) -> Attempt<u64> {
        Ok(0)
    }
    fn local_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }
}

/// The names of contents that one call may have written.
pub(super) type Tries = Arc<Mutex<Vec<ETag>>>;

/// A range that the object does not have.
pub(super) fn outside(range: &Range<u64>, size: u64) -> Failure {
    Failure::Invalid(format!("the range `{}..{}` is not inside the object of `{size}` bytes", range.start, range.end))
}

pub(super) fn no_parts() -> Failure {
    Failure::Invalid("objects are not written in parts here".into())
}
