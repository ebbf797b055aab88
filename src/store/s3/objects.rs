//! One object: HEAD, tags, grants, a small conditional put, an old version's bytes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use bytes::Bytes;
use object_store::signer::Method;
use quick_xml::escape::escape;
use serde::Deserialize;

use super::carried::{checksum_header, inspected};
use super::{Call, S3};
use crate::store::backend::{Attempt, Failure};
use crate::store::carried::{Carried, Inspected, Written};
use crate::store::checksum::Checksum;
use crate::store::object::{Condition, ETag};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tagging {
    #[serde(default)]
    tag_set: TagSet,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TagSet {
    tag: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OwnershipControls {
    #[serde(default)]
    rule: Vec<OwnershipRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OwnershipRule {
    object_ownership: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AccessControlPolicy {
    owner: Owner,
    access_control_list: AccessControlList,
}

#[derive(Default, Deserialize)]
struct Owner {
    #[serde(rename = "ID", default)]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AccessControlList {
    #[serde(default)]
    grant: Vec<Grant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Grant {
    grantee: Grantee,
    permission: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Grantee {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "URI")]
    uri: Option<String>,
    #[serde(rename = "EmailAddress")]
    email: Option<String>,
}

impl S3 {
    /// All that HEAD says of an object, or of one version of it.
    pub(in crate::store) async fn inspect(&self, key: &str, version: Option<&str>) -> Attempt<Inspected> {
        let call = Call::new(Method::HEAD, key).version(version).header("x-amz-checksum-mode", "ENABLED");
        Ok(inspected(key, &self.send(call).await?))
    }

    /// The tags; `None` where the service has none.
    pub(in crate::store) async fn tags(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Attempt<Option<BTreeMap<String, String>>> {
        if !self.tagging {
            return Ok(None);
        }
        let call = Call::new(Method::GET, key).query("tagging", "").version(version);
        match self.send(call).await {
            Ok(answer) => {
                let tagging: Tagging = answer.xml()?;
                Ok(Some(tagging.tag_set.tag.into_iter().map(|tag| (tag.key, tag.value)).collect()))
            }
            Err(Failure::Invalid(reason)) if not_there(&reason) => Ok(None),
            Err(Failure::Denied(reason)) => {
                Err(Failure::Denied(format!("its tags may not be read, and would be lost: {reason}")))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Sets all tags; `None` where the service has none.
    pub(in crate::store) async fn set_tags(&self, key: &str, tags: &BTreeMap<String, String>) -> Attempt<Option<()>> {
        if !self.tagging {
            return Ok(None);
        }
        let mut body = String::from("<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>");
        for (key, value) in tags {
            let _ = write!(body, "<Tag><Key>{}</Key><Value>{}</Value></Tag>", escape(key), escape(value));
        }
        body.push_str("</TagSet></Tagging>");
        let call = Call::new(Method::PUT, key).query("tagging", "").header("content-type", "application/xml");
        match self.send(call.body(body)).await {
            Ok(_) => Ok(Some(())),
            Err(Failure::Invalid(reason)) if not_there(&reason) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether objects may have grants of their own: not where the bucket's owner owns, and alone shares, everything in it.
    /// `None` where the service does not tell.
    pub(in crate::store) async fn keeps_grants(&self) -> Attempt<Option<bool>> {
        match self.send(Call::new(Method::GET, "").query("ownershipControls", "")).await {
            Ok(answer) => {
                let controls: OwnershipControls = answer.xml()?;
                Ok(Some(controls.rule.iter().all(|rule| rule.object_ownership != "BucketOwnerEnforced")))
            }
            // A bucket from before 2023 that nobody set otherwise.
            Err(Failure::Absent) => Ok(Some(true)),
            Err(Failure::Denied(_)) => Ok(None),
            Err(Failure::Invalid(reason)) if not_there(&reason) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The grants to others than the owner, as headers; of one version.
    pub(in crate::store) async fn grants(&self, key: &str, version: Option<&str>) -> Attempt<BTreeMap<String, String>> {
        let answer = match self.send(Call::new(Method::GET, key).query("acl", "").version(version)).await {
            Ok(answer) => answer,
            // The bucket's owner has everything: there are no grants.
            Err(Failure::Invalid(reason)) if reason.contains("AccessControlListNotSupported") || not_there(&reason) => {
                return Ok(BTreeMap::new());
            }
            Err(Failure::Denied(reason)) => {
                return Err(Failure::Denied(format!(
                    "its grants may not be read (`s3:GetObjectAcl`), and would be lost: {reason}"
                )));
            }
            Err(failure) => return Err(failure),
        };
        let policy: AccessControlPolicy = answer.xml()?;
        let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut others = false;
        for grant in policy.access_control_list.grant {
            let header = match grant.permission.as_str() {
                "READ" => "x-amz-grant-read",
                "READ_ACP" => "x-amz-grant-read-acp",
                "WRITE_ACP" => "x-amz-grant-write-acp",
                "FULL_CONTROL" => "x-amz-grant-full-control",
                // WRITE means nothing on objects.
                _ => continue,
            };
            others |= grant.grantee.id.as_deref() != Some(policy.owner.id.as_str());
            let grantee = match (grant.grantee.id, grant.grantee.uri, grant.grantee.email) {
                (Some(id), _, _) => format!("id=\"{id}\""),
                (None, Some(uri), _) => format!("uri=\"{uri}\""),
                (None, None, Some(email)) => format!("emailAddress=\"{email}\""),
                (None, None, None) => continue,
            };
            headers.entry(header.to_owned()).or_default().push(grantee);
        }
        if !others {
            return Ok(BTreeMap::new());
        }
        Ok(headers.into_iter().map(|(name, grantees)| (name, grantees.join(", "))).collect())
    }

    /// Writes a small object where `condition` holds.
    pub(in crate::store) async fn put(
        &self,
        key: &str,
        bytes: Bytes,
        condition: &Condition,
        carried: &Carried,
        run: &str,
    ) -> Attempt<Written> {
        let mut call = Call::new(Method::PUT, key);
        call.headers = self.creating(carried, run);
        call = match condition {
            Condition::Absent => call.header("if-none-match", "*"),
            Condition::Matches(etag) => call.header("if-match", etag.as_str()),
        };
        if let Some(algorithm) = &carried.checksum
            && let Some(Checksum { value, .. }) = Checksum::of(algorithm, &bytes)
        {
            call = call.header(checksum_header(algorithm), value);
        }
        let answer = self.send(call.body(bytes)).await?;
        Ok(Written {
            etag: ETag(answer.header("etag").unwrap_or_default()),
            version: answer.header("x-amz-version-id"),
        })
    }

    /// The bytes of one version.
    pub(in crate::store) async fn get_version(&self, key: &str, version: &str) -> Attempt<Bytes> {
        Ok(self.send(Call::new(Method::GET, key).version(Some(version))).await?.body)
    }

    /// Some bytes of one version.
    pub(in crate::store) async fn get_version_range(
        &self,
        key: &str,
        version: &str,
        range: &Range<u64>,
    ) -> Attempt<Bytes> {
        let last = range.end.saturating_sub(1);
        let call = Call::new(Method::GET, key).version(Some(version));
        Ok(self.send(call.header("range", format!("bytes={}-{last}", range.start))).await?.body)
    }
}

/// Whether a refusal means that the service does not know the request.
fn not_there(reason: &str) -> bool {
    ["NotImplemented", "MethodNotAllowed", "501", "405"].iter().any(|word| reason.starts_with(word))
}
