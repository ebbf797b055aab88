//! What only some places can do: tags, versions, uploads that a dead process left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::object::ETag;
use super::{Replaced, Store};
use crate::error::{Error, Result};

/// What a place can do, as far as is known without trying ([`Store::probe`] tries).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one answer per question")]
pub struct Capabilities {
    /// Objects have content headers and metadata of the user's.
    pub metadata: bool,
    /// Objects have tags.
    pub tags: bool,
    /// Bytes of an object can be copied into its successor without travelling.
    pub copies_ranges: bool,
    /// What is overwritten or deleted is kept as a version.
    pub versions: bool,
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

#[expect(clippy::unused_async, reason = "S3 is asked")]
impl Store {
    /// What this place can do; at most one request.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.connection.backend.capabilities())
    }

    /// The object's tags.
    ///
    /// # Errors
    /// `NotFound` when there is no object, `Invalid` where objects have no tags; otherwise as [`Store::get`].
    pub async fn tags(&self, key: &str) -> Result<BTreeMap<String, String>> {
        Err(self.lacks(key, "tags"))
    }

    /// Sets the object's tags, all of them; the object itself stays as it is.
    ///
    /// # Errors
    /// As [`Store::tags`].
    pub async fn set_tags(&self, key: &str, _tags: &BTreeMap<String, String>) -> Result<()> {
        Err(self.lacks(key, "tags"))
    }

    /// The object's versions, the newest first.
    ///
    /// # Errors
    /// `Invalid` where no versions are kept; otherwise as [`Store::get`].
    pub async fn versions(&self, key: &str) -> Result<Vec<ObjectVersion>> {
        Err(self.lacks(key, "versions"))
    }

    /// Makes an old version the object's present content again, with that version's own metadata and tags, where the object
    /// is still `expected`; one commit, which makes a new version.
    ///
    /// # Errors
    /// `Conflict` when the object is not `expected` any more, `NotFound` when the version is not there, `Invalid` where no
    /// versions are kept; otherwise as [`Store::replace`].
    pub async fn restore_version(&self, key: &str, _version: &str, _expected: &ETag, _run: &str) -> Result<Replaced> {
        Err(self.lacks(key, "versions"))
    }

    /// Uploads below `prefix` (any text) that are neither complete nor aborted; none where there are no uploads in parts.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn uploads(&self, _prefix: &str) -> Result<Vec<Upload>> {
        Ok(Vec::new())
    }

    /// Aborts the uploads below `prefix` that are `ours`; says how many.
    ///
    /// A service tells no metadata of an upload that is not complete, so the caller must know its own: by the keys of its
    /// plan, and by `initiated` not before the run's first record (both are stamps of the service's clock).
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn sweep_uploads(&self, prefix: &str, ours: impl Fn(&Upload) -> bool) -> Result<u64> {
        Ok(self.uploads(prefix).await?.iter().filter(|upload| ours(upload)).count() as u64)
    }

    /// As [`Store::inspect`], and whom else the owner lets read or write (one request more, on S3).
    ///
    /// # Errors
    /// As [`Store::inspect`].
    pub async fn inspect_grants(&self, key: &str) -> Result<Option<super::Inspected>> {
        self.inspect(key).await
    }

    fn lacks(&self, key: &str, what: &str) -> Error {
        Error::invalid(format!("`{}` has no {what}: this kind of storage keeps none", self.url_of(key)))
    }
}
