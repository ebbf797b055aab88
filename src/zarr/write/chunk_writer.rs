//! What the writer asks of the place where encoded chunks live: a small seam, so that a transactional store can take the
//! place of plain objects.
//!
//! On plain objects every write is guarded by what was there when the writer looked ([`Guard`]): a writer that stood still
//! while another one took its place is refused. A transactional store may ignore guards and report a conflict at its
//! commit.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::lookup::Lookup;
use crate::error::Result;
use crate::progress::Usage;
use crate::store::{Condition, ETag, PutAnswer, Store};

/// Lookups, and pages of listings, under way at once.
const CONCURRENT: usize = 16;

/// What must still be true of a stored object when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// It lies beyond what readers see, so that nothing is there but what a commit that was cut off has left. Whatever that
    /// is may be replaced, as it is found; finding out costs a request only where there is something.
    Beyond,
    /// Nothing was there.
    Absent,
    /// This content was there.
    Unchanged(ETag),
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The target is what the source is.
    Done,
    /// There is no source; the target is as it was.
    NoSource,
    /// The guard does not hold; the target is as it was.
    Refused,
}

/// A place for encoded chunks and shards, by key.
#[async_trait]
pub trait ChunkWriter: Send + Sync {
    /// An object and the name of its content, `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::get`].
    async fn get(&self, key: &str) -> Result<Option<(Bytes, ETag)>>;

    /// Which of the keys that are looked up are there, and the names of their contents.
    ///
    /// # Errors
    /// As [`Store::list`].
    async fn find(&self, lookups: &[Lookup]) -> Result<HashMap<String, ETag>>;

    /// Writes an object if `guard` still holds; `false` where it does not, and then nothing was written.
    ///
    /// # Errors
    /// As [`Store::put_if`].
    async fn put(&self, key: &str, bytes: Bytes, guard: &Guard) -> Result<bool>;

    /// Removes an object if `guard` holds; `false` where it does not. Where that is not one step ([`Self::is_at_hand`]),
    /// the writer asks for it only for what lies beyond the array.
    ///
    /// # Errors
    /// As [`Store::delete`].
    async fn delete(&self, key: &str, guard: &Guard) -> Result<bool>;

    /// Makes `to` what `from` is, if `guard` holds for `to`.
    ///
    /// # Errors
    /// As [`Store::copy`].
    async fn copy(&self, from: &str, to: &str, guard: &Guard) -> Result<Copied>;

    /// Makes the written `keys` durable, once, after the last of them.
    ///
    /// # Errors
    /// As [`Store::sync`].
    async fn finish(&self, keys: &[String]) -> Result<()>;

    /// Objects that are worth being under way at once: more where an answer takes long, fewer where all they would do is
    /// to wait in memory.
    fn concurrency(&self) -> usize;

    /// Whether this is at hand, like files: looking at each key by itself costs less than listing, and the right content
    /// is deleted or none.
    fn is_at_hand(&self) -> bool;

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

    async fn find(&self, lookups: &[Lookup]) -> Result<HashMap<String, ETag>> {
        let tasks: Vec<_> = lookups.iter().map(|lookup| look_up(self, lookup).boxed()).collect();
        let found: Vec<Vec<(String, ETag)>> = stream::iter(tasks).buffered(CONCURRENT).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn put(&self, key: &str, bytes: Bytes, guard: &Guard) -> Result<bool> {
        let condition = match guard {
            Guard::Beyond | Guard::Absent => Condition::Absent,
            Guard::Unchanged(etag) => Condition::Matches(etag.clone()),
        };
        let answer = self.put_if(key, bytes.clone(), condition).await?;
        if *guard != Guard::Beyond || matches!(answer, PutAnswer::Ours(_)) {
            return Ok(matches!(answer, PutAnswer::Ours(_)));
        }
        // What lies there is named first; only then is the right to write asked again, by the put.
        let Some(left) = self.head(key).await? else { return Ok(false) };
        Ok(matches!(self.put_if(key, bytes, Condition::Matches(left.etag)).await?, PutAnswer::Ours(_)))
    }

    async fn delete(&self, key: &str, guard: &Guard) -> Result<bool> {
        match guard {
            // Nothing is there, and nothing is to be.
            Guard::Absent => Ok(true),
            Guard::Unchanged(etag) => self.delete_if(key, etag).await,
            Guard::Beyond => match self.head(key).await? {
                Some(left) => self.delete_if(key, &left.etag).await,
                None => Ok(true),
            },
        }
    }

    async fn copy(&self, from: &str, to: &str, guard: &Guard) -> Result<Copied> {
        let condition = match guard {
            Guard::Absent => Condition::Absent,
            Guard::Unchanged(etag) => Condition::Matches(etag.clone()),
            Guard::Beyond => self.head(to).await?.map_or(Condition::Absent, |left| Condition::Matches(left.etag)),
        };
        Ok(match self.copy_if(from, self, to, condition).await? {
            None => Copied::NoSource,
            Some(PutAnswer::Ours(_)) => Copied::Done,
            Some(PutAnswer::Theirs) => Copied::Refused,
        })
    }

    async fn finish(&self, keys: &[String]) -> Result<()> {
        self.sync(keys).await
    }

    fn concurrency(&self) -> usize {
        if self.local_path("").is_some() { 24 } else { 48 }
    }

    fn is_at_hand(&self) -> bool {
        self.local_path("").is_some()
    }

    fn address(&self, key: &str) -> String {
        self.url_of(key)
    }

    fn usage(&self) -> Usage {
        self.counters().usage()
    }
}

async fn look_up(store: &Store, lookup: &Lookup) -> Result<Vec<(String, ETag)>> {
    match lookup {
        Lookup::Key(key) => Ok(store.head(key).await?.map(|meta| (key.clone(), meta.etag)).into_iter().collect()),
        Lookup::Prefix { prefix, keys } => {
            let mut found = Vec::with_capacity(keys.len());
            let mut listing = store.list(prefix, None);
            while let Some(meta) = listing.try_next().await? {
                if keys.contains(&meta.key) {
                    found.push((meta.key, meta.etag));
                }
            }
            Ok(found)
        }
    }
}
