//! Replacing an object on S3: one conditional put, or an upload whose parts the service copies.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::attempts::Outcome;
use super::carried::{Carried, Written};
use super::faults::Operation;
use super::pieces::Piece;
use super::reading::present;
use super::replace::{Mark, Replaced, copied, total};
use super::s3::parts::{PartRules, UploadPart, parts};
use super::s3::{Completed, PartName, PartPlace, S3, Source};
use super::{Condition, ETag, Store};
use crate::error::{Error, Result};

/// Parts of one object under way at once.
const CONCURRENT_PARTS: usize = 4;
/// S3's own limit.
const MOST_PARTS: usize = 10_000;
/// Uploads that are begun because another writer's request met ours.
const ROUNDS: u32 = 4;

/// One conditional write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit<'a> {
    pub(super) key: &'a str,
    pub(super) full: &'a str,
    /// What must still be there.
    pub(super) expected: &'a ETag,
    pub(super) carried: &'a Carried,
    pub(super) run: &'a str,
}

impl Store {
    /// Writes `pieces`, whose copies come from `source`.
    pub(super) async fn uploaded(
        &self,
        s3: &S3,
        commit: &Commit<'_>,
        source: Source<'_>,
        pieces: &[Piece],
    ) -> Result<Replaced> {
        let parts = parts(pieces, PartRules::S3);
        if parts.len() > MOST_PARTS {
            return Err(Error::invalid(format!(
                "`{}` would be written in `{}` parts, more than the `{MOST_PARTS}` that S3 takes",
                self.url_of(commit.key),
                parts.len()
            )));
        }
        let (size, mut sent, mut read) = (total(pieces), 0, 0);
        for part in &parts {
            if let UploadPart::Sent(pieces) = part {
                sent += total(pieces);
                read += copied(pieces);
            }
        }
        let written = match parts.as_slice() {
            [] => self.put_small(s3, commit, Bytes::new()).await?,
            [UploadPart::Sent(pieces)] => {
                let bytes = self.gathered(s3, commit, source, pieces).await?;
                self.put_small(s3, commit, bytes).await?
            }
            parts => {
                let written = self.upload(s3, commit, source, parts).await?;
                self.keep_upload_tags(s3, commit).await?;
                written
            }
        };
        Ok(Replaced {
            etag: written.etag,
            version: written.version,
            size,
            bytes_read: read,
            bytes_copied: size - sent,
            bytes_written: sent,
        })
    }

    async fn put_small(&self, s3: &S3, commit: &Commit<'_>, bytes: Bytes) -> Result<Written> {
        let Commit { key, full, expected, carried, run } = *commit;
        let condition = Condition::Matches(expected.clone());
        let outcome =
            self.attempts(Operation::Put, full, || s3.put(full, bytes.clone(), &condition, carried, run)).await;
        self.counters.written(bytes.len() as u64);
        self.settle(key, outcome, expected, Mark::Run(run)).await
    }

    /// Some services (ministack) forget the tags that an upload begins with. Whether this one does is looked up after
    /// the first upload of a connection; there, tags are set again after the commit.
    async fn keep_upload_tags(&self, s3: &S3, commit: &Commit<'_>) -> Result<()> {
        if !s3.tagging || commit.carried.tags.is_empty() || s3.upload_tags.get() == Some(&true) {
            return Ok(());
        }
        if s3.upload_tags.get().is_none() {
            let outcome = self.attempts(Operation::Head, commit.full, || s3.tags(commit.full, None)).await?;
            let Some(Some(found)) = present(outcome)? else { return Ok(()) };
            // A service may also have kept the tags of the object before.
            let kept = found == commit.carried.tags;
            let _ = s3.upload_tags.set(kept);
            if kept {
                return Ok(());
            }
        }
        self.attempts(Operation::Put, commit.full, || s3.set_tags(commit.full, &commit.carried.tags)).await.map(drop)
    }

    async fn upload(&self, s3: &S3, commit: &Commit<'_>, source: Source<'_>, parts: &[UploadPart]) -> Result<Written> {
        let Commit { key, full, expected, carried, run } = *commit;
        for _ in 0..ROUNDS {
            let begun = self.attempts(Operation::Put, full, || s3.begin(full, carried, run)).await?;
            let upload = present(begun)?.ok_or_else(|| self.gone(key))?;
            let outcome = self.join(s3, commit, source, parts, &upload).await;
            if let Ok(Some(written)) = outcome {
                return Ok(written);
            }
            // Parts cost money until they are thrown away. The first error is the one to tell.
            let _ = self.attempts(Operation::Delete, full, || s3.abort(full, &upload)).await;
            outcome?;
            // Another writer's request met ours: who won is seen in the object.
            let found = self.look(key, full, None).await?;
            if found.is_none_or(|found| found.meta.etag != *expected) {
                return Err(self.changed(key));
            }
        }
        Err(Error::unavailable(format!(
            "cannot write `{}` after {ROUNDS} uploads: other writers' requests meet ours",
            self.url_of(key)
        )))
    }

    /// Fills and completes one upload; `None` where it must be begun again.
    async fn join(
        &self,
        s3: &S3,
        commit: &Commit<'_>,
        source: Source<'_>,
        parts: &[UploadPart],
        upload: &str,
    ) -> Result<Option<Written>> {
        let Commit { key, full, expected, carried, run } = *commit;
        let algorithm = carried.checksum.as_deref();
        let names: Vec<PartName> = stream::iter(0..parts.len())
            .map(|index| async move {
                let part = &parts[index];
                let place = PartPlace { key: full, upload, number: index + 1, checksum: algorithm };
                let outcome = match part {
                    UploadPart::Copied(range) => {
                        self.attempts(Operation::Copy, full, || s3.copy_part(place, source, range)).await?
                    }
                    UploadPart::Sent(pieces) => {
                        let bytes = self.gathered(s3, commit, source, pieces).await?;
                        self.counters.written(bytes.len() as u64);
                        self.attempts(Operation::Put, full, || s3.send_part(place, bytes.clone())).await?
                    }
                };
                match outcome {
                    Outcome::Done(name) => Ok(name),
                    Outcome::Absent | Outcome::Refused { .. } => Err(self.changed(key)),
                }
            })
            .buffered(CONCURRENT_PARTS)
            .try_collect()
            .await?;
        let outcome =
            self.attempts(Operation::Put, full, || s3.complete(full, upload, &names, expected, algorithm)).await;
        let outcome = match outcome {
            Ok(Outcome::Done(Completed::Again)) => return Ok(None),
            Ok(Outcome::Done(Completed::Done(written))) => Ok(Outcome::Done(written)),
            Ok(Outcome::Absent) => Ok(Outcome::Absent),
            Ok(Outcome::Refused { doubtful }) => Ok(Outcome::Refused { doubtful }),
            Err(error) => Err(error),
        };
        self.settle(key, outcome, expected, Mark::Run(run)).await.map(Some)
    }

    /// The bytes of a part that travels.
    async fn gathered(&self, s3: &S3, commit: &Commit<'_>, source: Source<'_>, pieces: &[Piece]) -> Result<Bytes> {
        let Some(version) = source.version else { return self.joined(commit.key, pieces, source.etag).await };
        // Only whole versions are restored, so that a part that travels is all of a small one.
        let outcome = self.attempts(Operation::Get, commit.full, || s3.get_version(commit.full, version)).await?;
        let bytes = present(outcome)?.ok_or_else(|| self.gone(commit.key))?;
        self.counters.read(bytes.len() as u64);
        Ok(bytes)
    }
}
