//! Listings of a bucket that `object_store` does not have: versions, uploads, and whether versions are kept.

use object_store::signer::Method;
use serde::Deserialize;

use super::{Call, S3};
use crate::store::backend::{Attempt, Failure};
use crate::store::features::{ObjectVersion, Upload};
use crate::store::object::ETag;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct VersionPage {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_version_id_marker: Option<String>,
    version: Vec<Version>,
    delete_marker: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    key: String,
    #[serde(rename = "VersionId")]
    id: String,
    #[serde(default)]
    is_latest: bool,
    last_modified: Option<String>,
    #[serde(rename = "ETag", default)]
    etag: String,
    #[serde(default)]
    size: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UploadPage {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    upload: Vec<ListedUpload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedUpload {
    key: String,
    upload_id: String,
    #[serde(default)]
    initiated: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Versioning {
    status: Option<String>,
}

/// Where a listing goes on: after a key and an id.
pub(in crate::store) type Marker = Option<(String, String)>;

impl S3 {
    /// One page of the versions of `key`, and where the next begins.
    pub(in crate::store) async fn versions(&self, key: &str, marker: Marker) -> Attempt<(Vec<ObjectVersion>, Marker)> {
        let mut call = Call::new(Method::GET, "").query("versions", "").query("prefix", key);
        if let Some((key, version)) = marker {
            call = call.query("key-marker", key).query("version-id-marker", version);
        }
        let page: VersionPage = self.send(call).await?.xml()?;
        // The key's own versions come first: where others follow, there are no more of it.
        let others = page.version.iter().chain(&page.delete_marker).any(|version| version.key != key);
        let next = if page.is_truncated && !others {
            page.next_key_marker.map(|key| (key, page.next_version_id_marker.unwrap_or_default()))
        } else {
            None
        };
        let version = |version: Version, deletion: bool| {
            (version.key == key).then_some(ObjectVersion {
                version: version.id,
                etag: ETag(version.etag),
                size: version.size,
                modified: version.last_modified,
                latest: version.is_latest,
                deletion,
            })
        };
        let versions = page.version.into_iter().filter_map(|listed| version(listed, false));
        let deletions = page.delete_marker.into_iter().filter_map(|listed| version(listed, true));
        Ok((versions.chain(deletions).collect(), next))
    }

    /// One page of the unfinished uploads whose key begins with `prefix`.
    pub(in crate::store) async fn uploads(&self, prefix: &str, marker: Marker) -> Attempt<(Vec<Upload>, Marker)> {
        let mut call = Call::new(Method::GET, "").query("uploads", "").query("prefix", prefix);
        if let Some((key, upload)) = marker {
            call = call.query("key-marker", key).query("upload-id-marker", upload);
        }
        let page: UploadPage = self.send(call).await?.xml()?;
        let next = if page.is_truncated {
            page.next_key_marker.map(|key| (key, page.next_upload_id_marker.unwrap_or_default()))
        } else {
            None
        };
        let uploads = page.upload.into_iter().filter(|upload| upload.key.starts_with(prefix));
        let uploads =
            uploads.map(|upload| Upload { key: upload.key, upload: upload.upload_id, initiated: upload.initiated });
        Ok((uploads.collect(), next))
    }

    /// Whether the bucket keeps versions; `None` when that may not be asked.
    pub(in crate::store) async fn keeps_versions(&self) -> Attempt<Option<bool>> {
        match self.send(Call::new(Method::GET, "").query("versioning", "")).await {
            Ok(answer) => Ok(Some(answer.xml::<Versioning>()?.status.as_deref() == Some("Enabled"))),
            Err(Failure::Denied(_) | Failure::Invalid(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
