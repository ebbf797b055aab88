//! Headers to what is carried over, and back.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::{Answer, S3, encoded};
use crate::store::carried::{Carried, Encryption, Inspected, RUN_KEY};
use crate::store::checksum::Checksum;
use crate::store::clock;
use crate::store::object::{ETag, ObjectMeta};

const METADATA: &str = "x-amz-meta-";
/// Checksums that are asked for again; the service makes `CRC64NVME` by itself where nothing else is asked.
const CHECKSUMS: [&str; 4] = ["CRC32", "CRC32C", "SHA1", "SHA256"];

/// What the answer to a HEAD says, all but the tags and grants.
pub(super) fn inspected(key: &str, answer: &Answer) -> Inspected {
    let header = |name: &str| answer.header(name);
    let modified = header("last-modified").and_then(|text| DateTime::parse_from_rfc2822(&text).ok());
    let meta = ObjectMeta {
        key: key.to_owned(),
        size: header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default(),
        etag: ETag(header("etag").unwrap_or_default()),
        version: header("x-amz-version-id"),
        modified: modified
            .and_then(|time| u64::try_from(time.timestamp()).ok())
            .map(|seconds| clock::format(seconds, 0)),
    };
    let metadata = answer
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix(METADATA)?.to_owned(), super::text(value))));
    let encryption = header("x-amz-server-side-encryption").map(|algorithm| Encryption {
        algorithm,
        key: header("x-amz-server-side-encryption-aws-kms-key-id"),
        bucket_key: header("x-amz-server-side-encryption-bucket-key-enabled").is_some_and(|text| text == "true"),
    });
    let checksum = CHECKSUMS.into_iter().find(|name| header(&checksum_header(name)).is_some());
    let storage_class = header("x-amz-storage-class").filter(|class| class != "STANDARD");
    let restored = header("x-amz-restore").is_some_and(|text| text.contains("ongoing-request=\"false\""));
    let archived = header("x-amz-archive-status").is_some()
        || storage_class.as_deref().is_some_and(|class| matches!(class, "GLACIER" | "DEEP_ARCHIVE"));
    let carried = Carried {
        content_type: header("content-type"),
        cache_control: header("cache-control"),
        content_encoding: header("content-encoding"),
        content_disposition: header("content-disposition"),
        content_language: header("content-language"),
        expires: header("expires"),
        metadata: metadata.collect(),
        storage_class,
        encryption,
        checksum: checksum.map(str::to_owned),
        tags: BTreeMap::new(),
        grants: BTreeMap::new(),
    };
    // Those of uploads in parts may be checksums of the parts' checksums.
    let parts = header("x-amz-checksum-type").is_some_and(|kind| kind != "FULL_OBJECT");
    let kept =
        ["CRC64NVME"].into_iter().chain(CHECKSUMS).find_map(|name| Some((name, header(&checksum_header(name))?)));
    let whole = kept.filter(|(_, value)| !parts && !value.contains('-'));
    Inspected {
        meta,
        carried,
        whole: whole.map(|(algorithm, value)| Checksum { algorithm: algorithm.to_owned(), value }),
        archived: archived && !restored,
        locked: header("x-amz-object-lock-mode").is_some()
            || header("x-amz-object-lock-legal-hold").is_some_and(|hold| hold == "ON"),
        customer_key: header("x-amz-server-side-encryption-customer-algorithm").is_some(),
        tags_unread: false,
    }
}

pub(super) fn checksum_header(algorithm: &str) -> String {
    format!("x-amz-checksum-{}", algorithm.to_ascii_lowercase())
}

impl S3 {
    /// The headers of a request that makes an object.
    pub(super) fn creating(&self, carried: &Carried, run: &str) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut say = |name: &str, value: &Option<String>| {
            headers.extend(value.as_ref().map(|value| (name.to_owned(), value.clone())));
        };
        say("content-type", &carried.content_type);
        say("cache-control", &carried.cache_control);
        say("content-encoding", &carried.content_encoding);
        say("content-disposition", &carried.content_disposition);
        say("content-language", &carried.content_language);
        say("expires", &carried.expires);
        say("x-amz-storage-class", &carried.storage_class);
        if let Some(encryption) = &carried.encryption {
            say("x-amz-server-side-encryption", &Some(encryption.algorithm.clone()));
            say("x-amz-server-side-encryption-aws-kms-key-id", &encryption.key);
            if encryption.bucket_key {
                say("x-amz-server-side-encryption-bucket-key-enabled", &Some("true".to_owned()));
            }
        }
        let metadata = carried.metadata.iter().filter(|(key, _)| *key != RUN_KEY);
        headers.extend(metadata.map(|(key, value)| (format!("{METADATA}{key}"), value.clone())));
        headers.push((format!("{METADATA}{RUN_KEY}"), run.to_owned()));
        if self.tagging && !carried.tags.is_empty() {
            let pairs: Vec<String> = carried
                .tags
                .iter()
                .map(|(key, value)| format!("{}={}", encoded(key, false), encoded(value, false)))
                .collect();
            headers.push(("x-amz-tagging".to_owned(), pairs.join("&")));
        }
        headers.extend(carried.grants.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers
    }
}
