//! The plain data that crosses the door: metadata, bodies, conditions and answers.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Names one content of one key, opaque; quotes, where the service sends them, are part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ETag(pub String);

impl ETag {
    /// The text, as the service gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a service compares it: an `ETag` that is missing or weak (`W/…`) never matches there.
    pub(super) fn is_strong(&self) -> bool {
        !self.0.is_empty() && !self.0.starts_with("W/")
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is known of an object without its body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectMeta {
    /// The key, relative to the prefix of the store that was asked.
    pub key: String,
    /// Bytes in the whole object.
    pub size: u64,
    /// The content's name; empty where the service sends none (some HTTP servers).
    pub etag: ETag,
    /// The version in a bucket that keeps versions.
    pub version: Option<String>,
    /// RFC 3339 in UTC, for display.
    pub modified: Option<String>,
}

/// An object, or the part of it that was asked for.
#[derive(Debug, Clone)]
pub struct Object {
    /// The bytes asked for.
    pub bytes: Bytes,
    /// The whole object's metadata, from the same answer as the bytes.
    pub meta: ObjectMeta,
}

/// What must be true of a key for a put to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is there: `If-None-Match: *`.
    Absent,
    /// This content is there: `If-Match`.
    Matches(ETag),
}

/// Who won a conditional put.
///
/// The third answer, "unknown", is resolved inside by reading back: the same bytes are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutAnswer {
    /// Our bytes are there, under this name.
    Ours(ETag),
    /// Somebody else's bytes are there, or the object is gone: nothing was written.
    Theirs,
}
