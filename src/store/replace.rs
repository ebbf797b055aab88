//! Replacing an object by pieces of itself and new bytes, in one commit.
//!
//! # Problem
//! A rewrite changes a little of a large object: most of the new content is in the old one. It must happen at once or not at
//! all, only while the object is still the one that was read, and with its metadata, tags, storage class, encryption and
//! grants; and a lost answer must not become a second write, nor somebody else's write be taken for ours.
//!
//! # Design
//! | place | how |
//! |---|---|
//! | S3, new content that travels whole (under 5 MiB, or nothing to copy) | conditional `PutObject` |
//! | S3 | multipart upload: `UploadPartCopy` with `x-amz-copy-source-if-match`, `UploadPart`, completion with `If-Match` |
//! | files | temporary file beside, bytes cloned where the file system can, comparison and rename under the directory's lock |
//! | others | pieces read, joined in memory, one conditional put with attributes and tags |
//!
//! All that is carried over is said in the request that creates the object, so that data, metadata and tags are one commit.
//! After a doubtful answer the object is looked at: it is ours only where our run's id is in its metadata (S3), where its
//! bytes are ours (others), or where its name is one that we gave (files).
//!
//! # Caveats
//! A content that is joined in memory is refused above 1 GiB. Azure's tags cannot be read through `object_store`: where
//! there are any, [`Inspected::tags_unread`] says so (Azure tells their number to whoever may read them). On files, hard links keep the old content, and extended attributes are not kept.

use std::ops::Range;
use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};

use super::attempts::Outcome;
use super::backend::Tries;
use super::carried::{Carried, Inspected, RUN_KEY, Written};
use super::faults::Operation;
use super::pieces::Piece;
use super::reading::present;
use super::s3::Source;
use super::upload::Commit;
use super::{Condition, ETag, Store};
use crate::error::{Error, Result};

/// A content that passes through memory may be so large.
pub(super) const MOST_IN_MEMORY: u64 = 1 << 30;

/// What a committed replacement came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// The new content's name.
    pub etag: ETag,
    /// Its version, in a bucket that keeps versions.
    pub version: Option<String>,
    /// Bytes in the new object.
    pub size: u64,
    /// Bytes that were read for it.
    pub bytes_read: u64,
    /// Bytes that were copied without travelling.
    pub bytes_copied: u64,
    /// Bytes that were sent.
    pub bytes_written: u64,
}

/// How a write of ours is known again.
pub(super) enum Mark<'a> {
    /// By the run's id in the metadata.
    Run(&'a str),
    /// By its bytes.
    Bytes(&'a Bytes),
    /// By the names of the contents that were tried.
    Tries(&'a Tries),
}

impl Store {
    /// All that a rewrite of an object must know; `None` when there is none. Two requests on S3, one elsewhere.
    ///
    /// # Errors
    /// `Invalid` when the tags may not be read: they would be lost; otherwise as [`Store::get`].
    pub async fn inspect(&self, key: &str) -> Result<Option<Inspected>> {
        let full = self.full(key)?;
        let Some(mut found) = self.look(key, &full, None).await? else { return Ok(None) };
        if let Some(s3) = self.connection.backend.s3() {
            let outcome = self.attempts(Operation::Head, &full, || s3.tags(&full, None)).await?;
            let Some(tags) = present(outcome)? else { return Ok(None) };
            found.carried.tags = tags.unwrap_or_default();
        }
        Ok(Some(found))
    }

    /// As [`Store::inspect`], and whom besides the owner the object is shared with: one request more, on S3.
    ///
    /// # Errors
    /// As [`Store::inspect`] and [`Store::grants`].
    pub async fn inspect_grants(&self, key: &str) -> Result<Option<Inspected>> {
        let Some(mut found) = self.inspect(key).await? else { return Ok(None) };
        let Some(grants) = self.grants(key).await? else { return Ok(None) };
        found.carried.grants = grants;
        Ok(Some(found))
    }

    /// The object, or one version of it, without tags and grants.
    pub(super) async fn look(&self, key: &str, full: &str, version: Option<&str>) -> Result<Option<Inspected>> {
        let backend = &self.connection.backend;
        let outcome = self
            .attempts(Operation::Head, full, || async {
                match backend.s3() {
                    Some(s3) => s3.inspect(full, version).await,
                    None => backend.inspect(full).await,
                }
            })
            .await?;
        Ok(present(outcome)?.map(|mut inspected| {
            key.clone_into(&mut inspected.meta.key);
            inspected
        }))
    }

    /// Replaces the object `key`, which must still be `expected`, by `pieces` of its present content and new bytes, with all
    /// that is `carried` over; one commit. `run` goes into the metadata where the place keeps any.
    ///
    /// # Errors
    /// `Conflict` when the object is not `expected` any more: it was left alone. `Invalid` when a piece lies outside of the
    /// object, or when a content that must pass through memory is larger than 1 GiB. `Unavailable` when it stays unknown
    /// whether the object was replaced; otherwise as [`Store::get`].
    pub async fn replace(
        &self,
        key: &str,
        pieces: &[Piece],
        expected: &ETag,
        carried: &Carried,
        run: &str,
    ) -> Result<Replaced> {
        let full = self.full(key)?;
        if !expected.is_strong() {
            return Err(Error::invalid(format!(
                "`{}` cannot be replaced: the service gives no `ETag` to compare, found `{expected}`",
                self.url_of(key)
            )));
        }
        let size = total(pieces);
        if let Some(s3) = self.connection.backend.s3() {
            let source = Source { key: &full, version: None, etag: expected };
            return self.uploaded(s3, &Commit { key, full: &full, expected, carried, run }, source, pieces).await;
        }
        if self.connection.backend.assembles() {
            let written = self.assembled(key, &full, pieces, expected).await?;
            return Ok(Replaced {
                etag: written.etag,
                version: written.version,
                size,
                bytes_read: 0,
                bytes_copied: copied(pieces),
                bytes_written: size - copied(pieces),
            });
        }
        if size > MOST_IN_MEMORY {
            return Err(Error::invalid(format!(
                "`{}` would have `{size}` bytes, more than the `{MOST_IN_MEMORY}` that are joined in memory",
                self.url_of(key)
            ))
            .hint("this storage cannot join parts under a condition; rewrite the object as several smaller ones"));
        }
        let bytes = self.joined(key, pieces, expected).await?;
        let condition = Condition::Matches(expected.clone());
        let outcome = self
            .attempts(Operation::Put, &full, || {
                self.connection.backend.put_carried(&full, bytes.clone(), &condition, carried)
            })
            .await;
        self.counters.written(size);
        let written = self.settle(key, outcome, expected, Mark::Bytes(&bytes)).await?;
        Ok(Replaced {
            etag: written.etag,
            version: written.version,
            size,
            bytes_read: copied(pieces),
            bytes_copied: 0,
            bytes_written: size,
        })
    }

    /// Cuts the object to its first `length` bytes.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub async fn truncate(
        &self,
        key: &str,
        length: u64,
        expected: &ETag,
        carried: &Carried,
        run: &str,
    ) -> Result<Replaced> {
        self.replace(key, &[Piece::Copy(0..length)], expected, carried, run).await
    }

    /// On places that join pieces by themselves.
    async fn assembled(&self, key: &str, full: &str, pieces: &[Piece], expected: &ETag) -> Result<Written> {
        let (backend, tries) = (&self.connection.backend, Tries::default());
        let outcome = self.attempts(Operation::Put, full, || backend.assemble(full, pieces, expected, &tries)).await;
        self.counters.written(total(pieces) - copied(pieces));
        self.settle(key, outcome, expected, Mark::Tries(&tries)).await
    }

    /// The content that `pieces` of the object `etag` make.
    pub(super) async fn joined(&self, key: &str, pieces: &[Piece], etag: &ETag) -> Result<Bytes> {
        let ranges: Vec<Range<u64>> = pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Copy(range) => Some(range.clone()),
                Piece::Bytes(_) => None,
            })
            .collect();
        let mut read = self.get_ranges(key, &ranges, Some(etag)).await?.into_iter();
        if let [Piece::Bytes(bytes)] = pieces {
            return Ok(bytes.clone());
        }
        let mut joined = BytesMut::with_capacity(total(pieces) as usize);
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => joined.extend_from_slice(bytes),
                Piece::Copy(_) => joined.extend_from_slice(&read.next().unwrap_or_default()),
            }
        }
        Ok(joined.freeze())
    }

    /// Turns the outcome of a conditional write into ours or an error: what is doubtful is looked at.
    pub(super) async fn settle(
        &self,
        key: &str,
        outcome: Result<Outcome<Written>>,
        expected: &ETag,
        mark: Mark<'_>,
    ) -> Result<Written> {
        let failed = match outcome {
            Ok(Outcome::Done(written)) => return Ok(written),
            Ok(Outcome::Refused { doubtful: false }) => return Err(self.changed(key)),
            // An upload that is not there any more may be complete.
            Ok(Outcome::Absent | Outcome::Refused { doubtful: true }) => None,
            Err(error) if error.retryable() => Some(error),
            Err(error) => return Err(error),
        };
        let unknown = |error: Error| error.context(format!("it is unknown whether `{}` was written", self.url_of(key)));
        let found = match self.look(key, &self.full(key)?, None).await {
            Ok(found) => found,
            Err(error) => return Err(unknown(failed.unwrap_or(error))),
        };
        let Some(found) = found else { return Err(self.changed(key)) };
        if found.meta.etag == *expected {
            // Nobody wrote.
            return Err(failed.unwrap_or_else(|| self.changed(key)));
        }
        let ours = match mark {
            Mark::Run(run) => found.carried.metadata.get(RUN_KEY).is_some_and(|found| found == run),
            Mark::Tries(tries) => tries.lock().unwrap_or_else(PoisonError::into_inner).contains(&found.meta.etag),
            Mark::Bytes(bytes) => match self.get_if_match(key, &found.meta.etag).await {
                Ok(stored) => stored == *bytes,
                Err(error) if error.kind() == crate::error::Kind::Conflict => false,
                Err(error) => return Err(unknown(error)),
            },
        };
        if ours { Ok(Written { etag: found.meta.etag, version: found.meta.version }) } else { Err(self.changed(key)) }
    }
}

pub(super) fn total(pieces: &[Piece]) -> u64 {
    pieces.iter().map(Piece::len).fold(0, u64::saturating_add)
}

pub(super) fn copied(pieces: &[Piece]) -> u64 {
    pieces.iter().filter(|piece| matches!(piece, Piece::Copy(_))).map(Piece::len).fold(0, u64::saturating_add)
}
