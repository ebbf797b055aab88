//! What the writer asks of the place where encoded chunks live: a small seam, so that a transactional store can take the
//! place of plain objects.
//!
//! On plain objects every read-modify-write is guarded by the content that was read ([`Guard`]); a transactional store
//! may ignore guards and report a conflict at its commit.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Kind, Result};
use crate::progress::Usage;
use crate::store::{Condition, ETag, PutAnswer, Store};

/// What must still be true of a stored object when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing was read, so nothing can be lost: what is written does not depend on what was there.
    ///
    /// This is sound for chunks that are replaced whole, also against a second writer: whichever comes last has written a
    /// complete chunk of its own, and which commit counts is decided by the log, not here. It also lets a commit that was
    /// cut off be applied again over its own leftovers.
    Unread,
    /// Nothing was there.
    Absent,
    /// This content was there.
    Unchanged(ETag),
}

/// A place for encoded chunks and shards, by key.
#[async_trait]
pub trait ChunkWriter: Send + Sync {
    /// An object and the name of its content, `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn get(&self, key: &str) -> Result<Option<(Bytes, ETag)>>;

    /// Writes an object if `guard` still holds; `false` where it does not, and then nothing was written.
    ///
    /// # Errors
    /// As [`Store::put_if`].
    async fn put(&self, key: &str, bytes: Bytes, guard: &Guard) -> Result<bool>;

    /// Removes an object; none there is no error. No storage offers this with a condition: the caller holds the right to
    /// write alone.
    ///
    /// # Errors
    /// As [`Store::delete`].
    async fn delete(&self, key: &str) -> Result<()>;

    /// Makes `to` what `from` is; `false` where there is no `from`, and then `to` is as it was. `from` is overwritten by
    /// the same commit afterwards, so it may be moved instead where that is cheaper.
    ///
    /// # Errors
    /// As [`Store::copy`].
    async fn copy(&self, from: &str, to: &str) -> Result<bool>;

    /// Makes the written `keys` durable, once, after the last of them.
    ///
    /// # Errors
    /// As [`Store::sync`].
    async fn finish(&self, keys: &[String]) -> Result<()>;

    /// Objects that are worth being under way at once: more where an answer takes long, fewer where all they would do is
    /// to wait in memory.
    fn concurrency(&self) -> usize;

    /// The address of an object, for messages.
    fn address(&self, key: &str) -> String;

    /// Requests and bytes so far, for progress.
    fn usage(&self) -> Usage;
}

#[async_trait]
impl ChunkWriter for Store {
    async fn get(&self, key: &str) -> Result<Option<(Bytes, ETag)>> {
        Ok(Self::get(self, key).await?.map(|object| (object.bytes, object.meta.etag)))
    }

    async fn put(&self, key: &str, bytes: Bytes, guard: &Guard) -> Result<bool> {
        let condition = match guard {
            Guard::Unread => return Self::put(self, key, bytes).await.map(|_| true),
            Guard::Absent => Condition::Absent,
            Guard::Unchanged(etag) => Condition::Matches(etag.clone()),
        };
        Ok(matches!(self.put_if(key, bytes, condition).await?, PutAnswer::Ours(_)))
    }

    async fn delete(&self, key: &str) -> Result<()> {
        Self::delete(self, key).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool> {
        // A rename on files moves no data; on object storage it would be a copy and a deletion, and a copy is enough.
        let answer = if self.local_path(from).is_some() {
            self.rename(from, to).await
        } else {
            Self::copy(self, from, to).await
        };
        match answer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn finish(&self, keys: &[String]) -> Result<()> {
        self.sync(keys).await
    }

    fn concurrency(&self) -> usize {
        if self.local_path("").is_some() { 24 } else { 48 }
    }

    fn address(&self, key: &str) -> String {
        self.url_of(key)
    }

    fn usage(&self) -> Usage {
        self.counters().usage()
    }
}
