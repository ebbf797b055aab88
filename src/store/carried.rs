//! What an object has besides its bytes, and what a rewrite must therefore carry over.
//!
//! A put replaces everything: a multipart upload keeps no metadata, tags, storage class, encryption or grants of the object
//! that it overwrites unless they are said again.

use std::collections::BTreeMap;

use object_store::{Attribute, Attributes, TagSet};
use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::object::{ETag, ObjectMeta};

/// The metadata key under which a rewrite leaves the id of its run, so that a lost answer can be told from somebody else's
/// write. On S3 it is the header `x-amz-meta-regraft-run`.
pub const RUN_KEY: &str = "regraft-run";

/// What is said again when an object is replaced. Empty where the place keeps nothing but bytes (files).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, as the service sends it.
    pub expires: Option<String>,
    /// The user's metadata, without the vendor's prefix (`x-amz-meta-`).
    pub metadata: BTreeMap<String, String>,
    /// The storage class where it is not the usual one.
    pub storage_class: Option<String>,
    /// Encryption at rest, where the service names it.
    pub encryption: Option<Encryption>,
    /// The algorithm of the checksum that the service keeps: `CRC32`, `CRC32C`, `SHA1`, `SHA256`, `CRC64NVME`.
    pub checksum: Option<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
    /// Access granted to others than the owner, as the headers that say it (`x-amz-grant-read`: `id="…"`); filled by
    /// [`Store::inspect_grants`](super::Store::inspect_grants) only.
    pub grants: BTreeMap<String, String>,
}

/// Encryption at rest by the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub algorithm: String,
    /// The KMS key's id.
    pub key: Option<String>,
    /// Whether one data key serves the whole bucket.
    pub bucket_key: bool,
}

/// An object without its body, as a rewrite must know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property that a service tells by itself")]
pub struct Inspected {
    /// Key, size, `ETag`, version.
    pub meta: ObjectMeta,
    /// What is to be said again.
    pub carried: Carried,
    /// The checksum of the whole content that the service keeps, where it does.
    pub whole: Option<Checksum>,
    /// In an archive: it cannot be read before somebody restores it.
    pub archived: bool,
    /// Under a retention period or a legal hold, which a rewrite would not have.
    pub locked: bool,
    /// Encrypted with a key that only the customer has.
    pub customer_key: bool,
    /// It has tags, and they cannot be read, so that they would be lost.
    pub tags_unread: bool,
}

/// A committed write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) etag: ETag,
    pub(super) version: Option<String>,
}

/// As `object_store` says it, for services other than S3.
pub(super) fn to_attributes(carried: &Carried) -> Attributes {
    let known = [
        (Attribute::ContentType, &carried.content_type),
        (Attribute::CacheControl, &carried.cache_control),
        (Attribute::ContentEncoding, &carried.content_encoding),
        (Attribute::ContentDisposition, &carried.content_disposition),
        (Attribute::ContentLanguage, &carried.content_language),
        (Attribute::StorageClass, &carried.storage_class),
    ];
    let known = known.into_iter().filter_map(|(attribute, value)| Some((attribute, value.clone()?)));
    let metadata = carried.metadata.iter().map(|(key, value)| (Attribute::Metadata(key.clone().into()), value.clone()));
    known.chain(metadata).collect()
}

/// The inverse of [`to_attributes`].
pub(super) fn from_attributes(attributes: &Attributes) -> Carried {
    let mut carried = Carried::default();
    for (attribute, value) in attributes {
        let value = value.to_string();
        match attribute {
            Attribute::ContentType => carried.content_type = Some(value),
            Attribute::CacheControl => carried.cache_control = Some(value),
            Attribute::ContentEncoding => carried.content_encoding = Some(value),
            Attribute::ContentDisposition => carried.content_disposition = Some(value),
            Attribute::ContentLanguage => carried.content_language = Some(value),
            Attribute::StorageClass => carried.storage_class = Some(value),
            Attribute::Metadata(key) => drop(carried.metadata.insert(key.to_string(), value)),
            _ => {}
        }
    }
    carried
}

/// The tags, as `object_store` says them.
pub(super) fn to_tags(carried: &Carried) -> TagSet {
    let mut tags = TagSet::default();
    for (key, value) in &carried.tags {
        tags.push(key, value);
    }
    tags
}
