//! Headers to what is carried over, and back.

use std::collections::BTreeMap;

use chrono::DateTime;

use super::{Answer, S3, encoded};
use crate::store::carried::{Carried, Encryption, Inspected, RUN_KEY};
use crate::store::clock;
use crate::store::object::{ETag, ObjectMeta};

const METADATA: &str = "x-amz-meta-";
/// Checksums that are made here; the service makes `CRC64NVME` by itself where nothing else is asked.
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
    Inspected {
        meta,
        carried,
        archived: archived && !restored,
        locked: header("x-amz-object-lock-mode").is_some()
            || header("x-amz-object-lock-legal-hold").is_some_and(|hold| hold == "ON"),
        customer_key: header("x-amz-server-side-encryption-customer-algorithm").is_some(),
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

/// The checksum of `bytes` as the service writes it.
pub(super) fn checksum(algorithm: &str, bytes: &[u8]) -> Option<String> {
    use base64::Engine;
    use ring::digest;
    let digest = match algorithm {
        "CRC32" => libdeflater::crc32(bytes).to_be_bytes().to_vec(),
        "CRC32C" => crc32c::crc32c(bytes).to_be_bytes().to_vec(),
        "SHA1" => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec(),
        "SHA256" => digest::digest(&digest::SHA256, bytes).as_ref().to_vec(),
        _ => return None,
    };
    Some(base64::engine::general_purpose::STANDARD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_check_strings() {
        // The catalogue of CRCs (Cook, RevEng) and FIPS 180: of "123456789" and "abc".
        assert_eq!(checksum("CRC32", b"123456789").as_deref(), Some("y/Q5Jg=="));
        assert_eq!(checksum("CRC32C", b"123456789").as_deref(), Some("4waSgw=="));
        assert_eq!(checksum("SHA1", b"abc").as_deref(), Some("qZk+NkcGgWq6PiVxeFDCbJzQ2J0="));
        assert_eq!(checksum("SHA256", b"abc").as_deref(), Some("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="));
        assert_eq!(checksum("CRC64NVME", b""), None);
    }
}
