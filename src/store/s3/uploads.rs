//! Uploads in parts: begin, copy, send, complete under a condition, abort.

use std::fmt::Write;
use std::ops::Range;

use bytes::Bytes;
use object_store::signer::Method;
use quick_xml::escape::escape;
use serde::Deserialize;

use super::carried::checksum_header;
use super::{Call, S3, encoded};
use crate::store::backend::{Attempt, Failure};
use crate::store::carried::{Carried, Written};
use crate::store::checksum::Checksum;
use crate::store::object::ETag;

/// Where a part goes.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct PartPlace<'a> {
    pub(in crate::store) key: &'a str,
    pub(in crate::store) upload: &'a str,
    /// From 1.
    pub(in crate::store) number: usize,
    /// The upload's checksum algorithm.
    pub(in crate::store) checksum: Option<&'a str>,
}

/// Where copied bytes come from.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Source<'a> {
    pub(in crate::store) key: &'a str,
    pub(in crate::store) version: Option<&'a str>,
    pub(in crate::store) etag: &'a ETag,
}

/// A part that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::store) struct PartName {
    etag: String,
    checksum: Option<String>,
}

/// What a completion came to.
#[derive(Debug)]
pub(in crate::store) enum Completed {
    Done(Written),
    /// Somebody else wrote at the same moment: the upload is of no use any more.
    Again,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Begun {
    upload_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Copied {
    #[serde(rename = "ETag")]
    etag: String,
    #[serde(rename = "ChecksumCRC32", alias = "ChecksumCRC32C", alias = "ChecksumSHA1", alias = "ChecksumSHA256")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct Joined {
    #[serde(rename = "ETag")]
    etag: String,
}

impl S3 {
    /// Begins an upload of an object with all that is carried over; returns its id.
    pub(in crate::store) async fn begin(&self, key: &str, carried: &Carried, run: &str) -> Attempt<String> {
        let mut call = Call::new(Method::POST, key).query("uploads", "");
        call.headers = self.creating(carried, run);
        if let Some(algorithm) = &carried.checksum {
            call = call.header("x-amz-checksum-algorithm", algorithm.as_str());
        }
        Ok(self.send(call).await?.xml::<Begun>()?.upload_id)
    }

    /// Copies a range of `source`, which must still be its `ETag`.
    pub(in crate::store) async fn copy_part(
        &self,
        place: PartPlace<'_>,
        source: Source<'_>,
        range: &Range<u64>,
    ) -> Attempt<PartName> {
        let mut from = format!("/{}/{}", encoded(&self.bucket, false), encoded(source.key, true));
        if let Some(version) = source.version {
            let _ = write!(from, "?versionId={}", encoded(version, false));
        }
        let call = part_call(place)
            .header("x-amz-copy-source", from)
            .header("x-amz-copy-source-if-match", source.etag.as_str())
            .header("x-amz-copy-source-range", format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let copied: Copied = self.send(call).await?.xml()?;
        Ok(PartName { etag: copied.etag, checksum: copied.checksum })
    }

    /// Sends a part.
    pub(in crate::store) async fn send_part(&self, place: PartPlace<'_>, bytes: Bytes) -> Attempt<PartName> {
        let mut call = part_call(place);
        let checksum = place.checksum.and_then(|algorithm| Some((algorithm, Checksum::of(algorithm, &bytes)?.value)));
        if let Some((algorithm, value)) = &checksum {
            call = call.header(checksum_header(algorithm), value.as_str());
        }
        let answer = self.send(call.body(bytes)).await?;
        let etag = answer.header("etag").ok_or_else(|| Failure::Transient("the answer has no `ETag`".into()))?;
        Ok(PartName { etag, checksum: checksum.map(|(_, value)| value) })
    }

    /// Joins the parts where the object is still `expected`.
    pub(in crate::store) async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: &[PartName],
        expected: &ETag,
        algorithm: Option<&str>,
    ) -> Attempt<Completed> {
        let mut body = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for (index, part) in parts.iter().enumerate() {
            let _ = write!(body, "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag>", index + 1, escape(&part.etag));
            if let (Some(algorithm), Some(checksum)) = (algorithm, &part.checksum) {
                let _ = write!(body, "<Checksum{algorithm}>{}</Checksum{algorithm}>", escape(checksum));
            }
            body.push_str("</Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let call = Call::new(Method::POST, key)
            .query("uploadId", upload)
            .header("content-type", "application/xml")
            .header("if-match", expected.as_str());
        match self.send(call.body(body)).await {
            Ok(answer) => {
                let etag = ETag(answer.xml::<Joined>()?.etag);
                Ok(Completed::Done(Written { etag, version: answer.header("x-amz-version-id") }))
            }
            Err(Failure::Transient(reason)) if reason.contains("Conflict") || reason.starts_with("409") => {
                Ok(Completed::Again)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Throws the parts away; none is as good.
    pub(in crate::store) async fn abort(&self, key: &str, upload: &str) -> Attempt<()> {
        match self.send(Call::new(Method::DELETE, key).query("uploadId", upload)).await {
            Ok(_) | Err(Failure::Absent) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

fn part_call(place: PartPlace<'_>) -> Call<'_> {
    Call::new(Method::PUT, place.key).query("partNumber", place.number.to_string()).query("uploadId", place.upload)
}
