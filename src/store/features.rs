//! What only some places can do: tags, versions, uploads that a dead process left.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::faults::Operation;
use super::object::{ETag, ObjectMeta};
use super::pieces::Piece;
use super::reading::{present, together};
use super::s3::{Marker, S3, Source};
use super::upload::Commit;
use super::{Replaced, Store};
use crate::error::{Error, Result};

/// What a place can do, as far as is known without trying ([`Store::probe`] tries).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Objects have content headers and metadata of the user's.
    pub metadata: bool,
    /// Objects have tags.
    pub tags: bool,
    /// Bytes of an object can be copied into its successor without travelling.
    pub copies_ranges: bool,
    /// What is overwritten or deleted is kept as a version; `None` when that may not be asked.
    pub versions: Option<bool>,
    /// Largest content that [`Store::replace`] can make, in bytes.
    pub largest_replaced: u64,
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectVersion {
    /// The version's id.
    pub version: String,
    /// The content's name; empty for a deletion.
    pub etag: ETag,
    /// Bytes; 0 for a deletion.
    pub size: u64,
    /// RFC 3339 in UTC, for display.
    pub modified: Option<String>,
    /// Whether it is the present one.
    pub latest: bool,
    /// Whether it says that the object was deleted.
    pub deletion: bool,
}

/// An upload in parts that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The key, relative to the prefix of the store that was asked.
    pub key: String,
    /// The upload's id.
    pub upload: String,
    /// When it was begun, by the service's clock, RFC 3339 in UTC.
    pub initiated: String,
}

impl Store {
    /// What this place can do; at most one request.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn capabilities(&self) -> Result<Capabilities> {
        let mut known = self.connection.backend.capabilities();
        if let Some(s3) = self.connection.backend.s3() {
            let outcome = self.attempts(Operation::Head, &self.prefix, || s3.keeps_versions()).await?;
            known.versions = present(outcome)?.flatten();
        }
        Ok(known)
    }

    /// The object's tags.
    ///
    /// # Errors
    /// `NotFound` when there is no object, `Invalid` where objects have no tags; otherwise as [`Store::get`].
    pub async fn tags(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let full = self.full(key)?;
        let s3 = self.s3(key, "tags")?;
        let outcome = self.attempts(Operation::Head, &full, || s3.tags(&full, None)).await?;
        present(outcome)?.ok_or_else(|| self.gone(key))?.ok_or_else(|| self.lacks(key, "tags"))
    }

    /// Sets the object's tags, all of them; the object itself stays as it is.
    ///
    /// # Errors
    /// As [`Store::tags`].
    pub async fn set_tags(&self, key: &str, tags: &BTreeMap<String, String>) -> Result<()> {
        let full = self.full(key)?;
        let s3 = self.s3(key, "tags")?;
        let outcome = self.attempts(Operation::Put, &full, || s3.set_tags(&full, tags)).await?;
        present(outcome)?.ok_or_else(|| self.gone(key))?.ok_or_else(|| self.lacks(key, "tags"))
    }

    /// Whether objects of this place may be shared by grants of their own, which a rewrite must then say again; at most one
    /// request. `None` where the service does not tell: each object must be asked.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn keeps_grants(&self) -> Result<Option<bool>> {
        let Some(s3) = self.connection.backend.s3() else { return Ok(Some(false)) };
        let outcome = self.attempts(Operation::Head, &self.prefix, || s3.keeps_grants()).await?;
        Ok(present(outcome)?.flatten())
    }

    /// Whom besides its owner an object is shared with, as the headers that say it again (`x-amz-grant-read`: `id="…"`);
    /// nobody where places have no such grants. `None` when there is no object.
    ///
    /// # Errors
    /// `Invalid` when the grants may not be read; otherwise as [`Store::get`].
    pub async fn grants(&self, key: &str) -> Result<Option<BTreeMap<String, String>>> {
        let full = self.full(key)?;
        let Some(s3) = self.connection.backend.s3() else { return Ok(Some(BTreeMap::new())) };
        present(self.attempts(Operation::Head, &full, || s3.grants(&full, None)).await?)
    }

    /// The object's versions, the newest first; deletions are among them. None in a bucket that never kept versions, but for
    /// the present content.
    ///
    /// # Errors
    /// `Invalid` where no versions are kept; otherwise as [`Store::get`].
    pub async fn versions(&self, key: &str) -> Result<Vec<ObjectVersion>> {
        let full = self.full(key)?;
        let s3 = self.s3(key, "versions")?;
        let (mut versions, mut marker): (Vec<ObjectVersion>, Marker) = (Vec::new(), None);
        loop {
            let outcome = self.attempts(Operation::List, &full, || s3.versions(&full, marker.clone())).await?;
            let Some((page, next)) = present(outcome)? else { break };
            versions.extend(page);
            match next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
        versions.sort_by(|left, right| (right.latest, &right.modified).cmp(&(left.latest, &left.modified)));
        Ok(versions)
    }

    /// What is known of one version; `None` where it is not there.
    ///
    /// # Errors
    /// `Invalid` where no versions are kept; otherwise as [`Store::get`].
    pub async fn head_version(&self, key: &str, version: &str) -> Result<Option<ObjectMeta>> {
        let full = self.full(key)?;
        self.s3(key, "versions")?;
        Ok(self.look(key, &full, Some(version)).await?.map(|found| found.meta))
    }

    /// Makes sure that a version is there and has the content `etag`.
    ///
    /// # Errors
    /// `NotFound` where it is not there, or where its id is that of all objects which were written while no versions were
    /// kept; `Conflict` where it has another content; otherwise as [`Store::head_version`].
    pub async fn expect_version(&self, key: &str, version: &str, etag: &ETag) -> Result<()> {
        let none = || Error::not_found(format!("`{}` has no version `{version}`", self.url_of(key)));
        if version == "null" {
            return Err(none());
        }
        let found = self.head_version(key, version).await?.ok_or_else(none)?;
        if found.etag == *etag { Ok(()) } else { Err(self.changed(key)) }
    }

    /// Reads many ranges of one version, near ones together; answers in the order asked.
    ///
    /// # Errors
    /// As [`Store::get_version_range`].
    pub async fn get_version_ranges(&self, key: &str, version: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = |range| async move { Ok((self.get_version_range(key, version, range).await?, ())) };
        Ok(together(ranges, read).await?.0)
    }

    /// Reads the bytes `range` of one version.
    ///
    /// # Errors
    /// `NotFound` when the version is not there, `Invalid` where no versions are kept or when the range is not inside of it;
    /// otherwise as [`Store::get`].
    pub async fn get_version_range(&self, key: &str, version: &str, range: Range<u64>) -> Result<Bytes> {
        let full = self.full(key)?;
        let s3 = self.s3(key, "versions")?;
        let outcome = self.attempts(Operation::Get, &full, || s3.get_version_range(&full, version, &range)).await?;
        let bytes = present(outcome)?
            .ok_or_else(|| Error::not_found(format!("`{}` has no version `{version}`", self.url_of(key))))?;
        self.counters.read(bytes.len() as u64);
        if bytes.len() as u64 == range.end.saturating_sub(range.start) {
            return Ok(bytes);
        }
        // Some services (ministack) send the whole version.
        if range.start > range.end || range.end > bytes.len() as u64 {
            return Err(Error::invalid(format!(
                "expected the bytes `{range:?}` of the version `{version}` of `{}`, found `{}` bytes",
                self.url_of(key),
                bytes.len()
            )));
        }
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    /// Makes an old version the object's present content again, with that version's own metadata and tags, where the object
    /// is still `expected`; one commit, which makes a new version. With `grants` that version's grants, too.
    ///
    /// It is an upload in parts that the service copies, completed under `If-Match`, and not `CopyObject`: services that
    /// do not know `If-Match` on its destination overwrite without a word.
    ///
    /// # Errors
    /// `Conflict` when the object is not `expected` any more, `NotFound` when the version is not there, `Invalid` where no
    /// versions are kept; otherwise as [`Store::replace`].
    pub async fn restore_version(
        &self,
        key: &str,
        version: &str,
        expected: &ETag,
        grants: bool,
        run: &str,
    ) -> Result<Replaced> {
        let full = self.full(key)?;
        let s3 = self.s3(key, "versions")?;
        let none = || Error::not_found(format!("`{}` has no version `{version}`", self.url_of(key)));
        let mut old = self.look(key, &full, Some(version)).await?.ok_or_else(none)?;
        let outcome = self.attempts(Operation::Head, &full, || s3.tags(&full, Some(version))).await?;
        old.carried.tags = present(outcome)?.ok_or_else(none)?.unwrap_or_default();
        if grants {
            let outcome = self.attempts(Operation::Head, &full, || s3.grants(&full, Some(version))).await?;
            old.carried.grants = present(outcome)?.ok_or_else(none)?;
        }
        let commit = Commit { key, full: &full, expected, carried: &old.carried, run };
        let source = Source { key: &full, version: Some(version), etag: &old.meta.etag };
        self.uploaded(s3, &commit, source, &[Piece::Copy(0..old.meta.size)]).await
    }

    /// Uploads below `prefix` (any text) that are neither complete nor aborted; none where there are no uploads in parts.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        let Some(s3) = self.connection.backend.s3() else { return Ok(Vec::new()) };
        let root = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let full = format!("{root}{prefix}");
        let (mut uploads, mut marker): (Vec<Upload>, Marker) = (Vec::new(), None);
        loop {
            let outcome = self.attempts(Operation::List, &full, || s3.uploads(&full, marker.clone())).await?;
            let Some((page, next)) = present(outcome)? else { break };
            uploads.extend(page.into_iter().map(|mut upload| {
                upload.key.drain(..root.len());
                upload
            }));
            match next {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
        Ok(uploads)
    }

    /// Aborts one of the [`Store::uploads`]; one that is gone is fine.
    ///
    /// A service tells no metadata of an upload that is not complete, so the caller must know its own: by the keys of its
    /// plan, and by `initiated` not before the run's first record (both are stamps of the service's clock).
    ///
    /// # Errors
    /// As [`Store::get`]; `Invalid` where there are no uploads in parts.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<()> {
        let s3 = self.s3(&upload.key, "uploads in parts")?;
        let full = self.full(&upload.key)?;
        present(self.attempts(Operation::Delete, &full, || s3.abort(&full, &upload.upload)).await?).map(drop)
    }

    fn s3(&self, key: &str, what: &str) -> Result<&S3> {
        self.connection.backend.s3().ok_or_else(|| self.lacks(key, what))
    }

    fn lacks(&self, key: &str, what: &str) -> Error {
        Error::invalid(format!("`{}` has no {what}: this kind of storage keeps none", self.url_of(key)))
    }
}
