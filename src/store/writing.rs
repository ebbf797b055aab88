//! Writing: whole objects, conditions, parts, copies, deletions.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::attempts::Outcome;
use super::faults::Operation;
use super::reading::present;
use super::{Condition, ETag, PutAnswer, Store};
use crate::error::{Error, Result};

/// Larger objects are written in parts: a failure repeats one part only, and parts go side by side.
const IN_PARTS_ABOVE: usize = 64 << 20;
/// Bytes in a part.
const PART: usize = 32 << 20;
/// S3 takes at most 10,000 parts.
const MOST_PARTS: usize = 9_000;
const CONCURRENT_PARTS: usize = 4;

impl Store {
    /// Writes an object, whatever was there; above 64 MiB in parts, where the service has them.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<ETag> {
        let full = self.full(key)?;
        if bytes.len() > IN_PARTS_ABOVE && self.connection.backend.in_parts() {
            return self.put_in_parts(key, &full, &bytes).await;
        }
        let outcome =
            self.attempts(Operation::Put, &full, || self.connection.backend.put(&full, bytes.clone(), None)).await?;
        self.counters.written(bytes.len() as u64);
        self.written(key, outcome)
    }

    async fn put_in_parts(&self, key: &str, full: &str, bytes: &Bytes) -> Result<ETag> {
        let backend = &self.connection.backend;
        let begun = self.attempts(Operation::Put, full, || backend.begin(full)).await?;
        let upload = self.written(key, begun)?;
        let size = bytes.len().div_ceil(MOST_PARTS).max(PART);
        let parts: Result<Vec<String>> = stream::iter((0..bytes.len()).step_by(size).enumerate())
            .map(|(index, start)| {
                let part = bytes.slice(start..bytes.len().min(start + size));
                let upload = &upload;
                async move {
                    let outcome = self
                        .attempts(Operation::Put, full, || backend.upload(full, upload, index, part.clone()))
                        .await?;
                    self.counters.written(part.len() as u64);
                    self.written(key, outcome)
                }
            })
            .buffered(CONCURRENT_PARTS)
            .try_collect()
            .await;
        let outcome = match parts {
            Ok(parts) => self.attempts(Operation::Put, full, || backend.complete(full, &upload, parts.clone())).await,
            Err(error) => Err(error),
        };
        match outcome {
            // The answer was lost, and the upload is complete: it is not there any more under its name.
            Ok(Outcome::Absent) => match self.head(key).await? {
                Some(meta) if meta.size == bytes.len() as u64 => Ok(meta.etag),
                _ => Err(self.gone(key)),
            },
            Ok(outcome) => self.written(key, outcome),
            Err(error) => {
                // Parts cost money until they are thrown away. The first error is the one to tell.
                let _ = self.attempts(Operation::Delete, full, || backend.abort(full, &upload)).await;
                Err(error)
            }
        }
    }

    /// An unconditional write is never refused; a missing key means a missing bucket.
    fn written<T>(&self, key: &str, outcome: Outcome<T>) -> Result<T> {
        match outcome {
            Outcome::Done(value) => Ok(value),
            Outcome::Absent => Err(Error::not_found(format!("there is no place for `{}`", self.url_of(key)))
                .hint("does the bucket exist?")),
            Outcome::Refused { .. } => Err(self.changed(key)),
        }
    }

    /// Writes an object if `condition` holds.
    ///
    /// When an earlier try may have been done and a later one is refused, or no try was answered, the object is read back:
    /// the same bytes are ours. Two writers of the same bytes are therefore both told `Ours`; control records carry a nonce.
    ///
    /// # Errors
    /// `Unavailable` when it stays unknown whether the object was written; otherwise as [`Store::get`].
    pub async fn put_if(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<PutAnswer> {
        let full = self.full(key)?;
        let outcome = self
            .attempts(Operation::Put, &full, || self.connection.backend.put(&full, bytes.clone(), Some(&condition)))
            .await;
        self.counters.written(bytes.len() as u64);
        let failed = match outcome {
            Ok(Outcome::Done(etag)) => return Ok(PutAnswer::Ours(etag)),
            Ok(Outcome::Absent | Outcome::Refused { doubtful: false }) => return Ok(PutAnswer::Theirs),
            Ok(Outcome::Refused { doubtful: true }) => None,
            Err(error) if error.retryable() => Some(error),
            Err(error) => return Err(error),
        };
        // Nobody answered for good, or a refusal came after a try that may have been done.
        match (self.get(key).await, failed) {
            (Ok(Some(object)), _) if object.bytes == bytes => Ok(PutAnswer::Ours(object.meta.etag)),
            (Ok(found), failed) => {
                let etag = found.map(|object| object.meta.etag);
                let holds_still = match condition {
                    Condition::Absent => etag.is_none(),
                    Condition::Matches(expected) => etag == Some(expected),
                };
                // Where the condition still holds, nobody wrote, and nobody answered why.
                failed.filter(|_| holds_still).map_or(Ok(PutAnswer::Theirs), Err)
            }
            (Err(error), failed) => Err(failed
                .unwrap_or(error)
                .context(format!("it is unknown whether `{}` was written", self.url_of(key)))),
        }
    }

    /// Deletes an object; none is as good. On files the directories stay.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        let full = self.full(key)?;
        self.attempts(Operation::Delete, &full, || self.connection.backend.delete(&full)).await.map(drop)
    }

    /// Copies an object inside the store, whatever was at `to`.
    ///
    /// # Errors
    /// `NotFound` when there is no object `from`; otherwise as [`Store::get`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.full(from)?, self.full(to)?);
        let outcome =
            self.attempts(Operation::Copy, &source, || self.connection.backend.copy(&source, &target)).await?;
        present(outcome)?.ok_or_else(|| self.gone(from))
    }

    /// Moves an object; one step on files, a copy and a deletion elsewhere.
    ///
    /// # Errors
    /// `NotFound` when there is no object `from`; otherwise as [`Store::get`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.full(from)?, self.full(to)?);
        let outcome = self
            .attempts(Operation::Copy, &source, || async {
                self.connection.backend.rename(&source, &target).await.transpose()
            })
            .await?;
        if present(outcome)?.ok_or_else(|| self.gone(from))?.is_none() {
            self.copy(from, to).await?;
            self.delete(from).await?;
        }
        Ok(())
    }

    /// Makes the names of written keys durable: on files, syncs each directory once. Called once per batch, before the
    /// record that says that the batch is done.
    ///
    /// # Errors
    /// `Unavailable` when the disk refuses.
    pub async fn sync(&self, keys: &[String]) -> Result<()> {
        let full = keys.iter().map(|key| self.full(key)).collect::<Result<Vec<_>>>()?;
        match self.connection.backend.sync(&full).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(Error::unavailable(format!("cannot sync the files of `{}`: {failure:?}", self.url))),
        }
    }

    /// Removes temporary files that writers left when they died, below this place; returns how many. Only for whoever
    /// holds the right to write here alone: a writer that lives loses its file, too, and writes it again if it still may.
    ///
    /// # Errors
    /// `Unavailable` when the disk refuses.
    pub async fn sweep(&self) -> Result<u64> {
        self.remove_temporary(false).await
    }

    /// [`Store::sweep`] where others may be writing: what a living writer is writing stays.
    ///
    /// # Errors
    /// As [`Store::sweep`].
    pub async fn sweep_dead(&self) -> Result<u64> {
        self.remove_temporary(true).await
    }

    async fn remove_temporary(&self, spare: bool) -> Result<u64> {
        self.connection
            .backend
            .sweep(&self.prefix, spare)
            .await
            .map_err(|failure| Error::unavailable(format!("cannot sweep `{}`: {failure:?}", self.url)))
    }
}
