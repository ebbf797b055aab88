//! Object storage behind `object_store`, one try at a time.
//!
//! What a failure means is decided by the status of the answer (`http`), and by the error code in its body where one
//! status has several meanings: a 404 may be a missing object or a missing bucket.
//!
//! | answer | meaning |
//! |---|---|
//! | 404 | nothing there; with `NoSuchBucket`: no bucket |
//! | 412, 304 | the condition does not hold |
//! | 409 | two conditional puts met: try again |
//! | 429, 503, `SlowDown` | slow down, try again |
//! | 401, 403, no keys | rights |
//! | 408, 500, 502, 504, none | try again; it may have been done |
//! | 301, 307, other 4xx, 501 | can never succeed |

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::backend::{Attempt, Backend, Cursor, Failure, Page, Part, no_parts, outside};
use super::carried::{self, Carried, Inspected, Written};
use super::clock;
use super::features::Capabilities;
use super::http::{Heard, listen};
use super::object::{Condition, ETag, Object, ObjectMeta};
use super::replace::MOST_IN_MEMORY;
use super::s3::S3;

/// How a service names contents in conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `If-Match: <etag>`.
    ETags,
    /// `x-goog-if-generation-match`: the generation of an `ETag` is asked for first.
    Generations,
}

/// The largest object of S3: 5 TiB.
const LARGEST: u64 = 5 << 40;

/// A service that `object_store` knows.
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    pages: Option<Arc<dyn PaginatedListStore>>,
    parts: Option<Arc<dyn MultipartStore>>,
    s3: Option<S3>,
    dialect: Dialect,
    writable: bool,
}

impl Remote {
    pub(super) fn service(
        store: Arc<dyn ObjectStore>,
        pages: Arc<dyn PaginatedListStore>,
        parts: Arc<dyn MultipartStore>,
        dialect: Dialect,
    ) -> Self {
        Self { store, pages: Some(pages), parts: Some(parts), s3: None, dialect, writable: true }
    }

    /// The same with what S3 has and `object_store` lacks.
    pub(super) fn with_s3(self, s3: S3) -> Self {
        Self { s3: Some(s3), ..self }
    }

    pub(super) fn memory(store: Arc<InMemory>) -> Self {
        Self {
            store: store.clone(),
            pages: None,
            parts: Some(store),
            s3: None,
            dialect: Dialect::ETags,
            writable: true,
        }
    }

    /// A web server.
    pub(super) fn read_only(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, pages: None, parts: None, s3: None, dialect: Dialect::ETags, writable: false }
    }

    fn writable(&self) -> Attempt<()> {
        if self.writable { Ok(()) } else { Err(Failure::Invalid("a web server is for reading only".into())) }
    }

    fn parts(&self) -> Attempt<&dyn MultipartStore> {
        self.parts.as_deref().ok_or_else(no_parts)
    }

    async fn mode(&self, key: &str, condition: Option<&Condition>) -> Attempt<PutMode> {
        match condition {
            None => Ok(PutMode::Overwrite),
            Some(Condition::Absent) => Ok(PutMode::Create),
            Some(Condition::Matches(etag)) => {
                let version = match self.dialect {
                    Dialect::ETags => None,
                    // The generation that goes with the ETag pins it: a change in between is refused.
                    Dialect::Generations => match self.get(key, Part::Head, Some(etag)).await {
                        Ok(object) if object.meta.etag == *etag => object.meta.version,
                        Ok(_) | Err(Failure::Absent) => return Err(Failure::Refused),
                        Err(failure) => return Err(failure),
                    },
                };
                Ok(PutMode::Update(UpdateVersion { e_tag: Some(etag.0.clone()), version }))
            }
        }
    }

    /// One page with everything, for stores in memory.
    async fn list_at_once(&self, cursor: &Cursor) -> Attempt<Page> {
        self.writable().map_err(|_| Failure::Invalid("a web server cannot be listed".into()))?;
        let objects = self.store.list(None).map_ok(|meta| meta_of(&meta)).try_collect();
        let mut objects: Vec<ObjectMeta> = answered(objects).await?;
        objects.retain(|meta| {
            meta.key.starts_with(&cursor.prefix) && cursor.start_after.as_ref().is_none_or(|after| meta.key > *after)
        });
        objects.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        Ok(Page { objects, next: None })
    }
}

#[async_trait]
impl Backend for Remote {
    async fn get(&self, key: &str, part: Part, if_match: Option<&ETag>) -> Attempt<Object> {
        let options = GetOptions {
            if_match: if_match.filter(|etag| etag.is_strong()).map(|etag| etag.0.clone()),
            range: match &part {
                Part::Whole | Part::Head => None,
                Part::Range(range) => Some(GetRange::Bounded(range.clone())),
                Part::Suffix(length) => Some(GetRange::Suffix(*length)),
            },
            head: part == Part::Head,
            ..GetOptions::default()
        };
        let path = path_of(key)?;
        let object = answered(async {
            let answer = self.store.get_opts(&path, options).await?;
            let meta = meta_of(&answer.meta);
            let bytes = if part == Part::Head { Bytes::new() } else { answer.bytes().await? };
            Ok(Object { bytes, meta })
        })
        .await?;
        // Services cut a range at the end of the object without a word.
        let size = object.meta.size;
        let expected = match part {
            Part::Whole => size,
            Part::Head => 0,
            Part::Suffix(length) => length.min(size),
            Part::Range(range) if range.end > size => return Err(outside(&range, size)),
            Part::Range(range) => range.end - range.start,
        };
        if object.bytes.len() as u64 != expected {
            let found = object.bytes.len();
            return Err(Failure::Transient(format!("expected `{expected}` bytes, found `{found}`")));
        }
        Ok(object)
    }

    async fn list_page(&self, mut cursor: Cursor) -> Attempt<Page> {
        let Some(pages) = &self.pages else { return self.list_at_once(&cursor).await };
        let options = PaginatedListOptions {
            offset: cursor.start_after.clone(),
            page_token: cursor.token.take(),
            ..PaginatedListOptions::default()
        };
        let prefix = Some(cursor.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let page = answered(pages.list_paginated(prefix, options)).await?;
        let objects = page.result.objects.iter().map(meta_of);
        // Some services begin at the key, some after it.
        let objects =
            objects.filter(|meta| cursor.start_after.as_ref().is_none_or(|after| meta.key > *after)).collect();
        cursor.token = page.page_token;
        Ok(Page { objects, next: cursor.token.is_some().then_some(cursor) })
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Option<&Condition>) -> Attempt<ETag> {
        self.writable()?;
        let options = PutOptions { mode: self.mode(key, condition).await?, ..PutOptions::default() };
        let path = path_of(key)?;
        let result = answered(self.store.put_opts(&path, PutPayload::from_bytes(bytes), options)).await?;
        Ok(ETag(result.e_tag.unwrap_or_default()))
    }

    fn s3(&self) -> Option<&S3> {
        self.s3.as_ref()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            metadata: self.writable,
            tags: self.s3.as_ref().is_some_and(|s3| s3.tagging),
            copies_ranges: self.s3.is_some(),
            versions: Some(false),
            largest_replaced: if self.s3.is_some() { LARGEST } else { MOST_IN_MEMORY },
        }
    }

    async fn inspect(&self, key: &str) -> Attempt<Inspected> {
        let path = path_of(key)?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        let (answer, heard) = listen(self.store.get_opts(&path, options)).await;
        let answer = answer.map_err(|error| failure(&error, &heard))?;
        let carried = carried::from_attributes(&answer.attributes);
        Ok(Inspected { meta: meta_of(&answer.meta), carried, tags_unread: heard.tags > 0, ..Inspected::default() })
    }

    async fn put_carried(&self, key: &str, bytes: Bytes, condition: &Condition, carried: &Carried) -> Attempt<Written> {
        self.writable()?;
        let options = PutOptions {
            mode: self.mode(key, Some(condition)).await?,
            attributes: carried::to_attributes(carried),
            tags: carried::to_tags(carried),
            ..PutOptions::default()
        };
        let path = path_of(key)?;
        let result = answered(self.store.put_opts(&path, PutPayload::from_bytes(bytes), options)).await?;
        Ok(Written { etag: ETag(result.e_tag.unwrap_or_default()), version: result.version })
    }

    fn in_parts(&self) -> bool {
        self.parts.is_some()
    }

    async fn begin(&self, key: &str) -> Attempt<String> {
        answered(self.parts()?.create_multipart(&path_of(key)?)).await
    }

    async fn upload(&self, key: &str, upload: &str, index: usize, bytes: Bytes) -> Attempt<String> {
        let (path, upload) = (path_of(key)?, upload.to_owned());
        let part = answered(self.parts()?.put_part(&path, &upload, index, PutPayload::from_bytes(bytes))).await?;
        Ok(part.content_id)
    }

    async fn complete(&self, key: &str, upload: &str, parts: Vec<String>) -> Attempt<ETag> {
        let (path, upload) = (path_of(key)?, upload.to_owned());
        let parts = parts.into_iter().map(|content_id| PartId { content_id }).collect();
        let result = answered(self.parts()?.complete_multipart(&path, &upload, parts)).await?;
        Ok(ETag(result.e_tag.unwrap_or_default()))
    }

    async fn abort(&self, key: &str, upload: &str) -> Attempt<()> {
        let (path, upload) = (path_of(key)?, upload.to_owned());
        answered(self.parts()?.abort_multipart(&path, &upload)).await
    }

    async fn delete(&self, key: &str) -> Attempt<()> {
        self.writable()?;
        let path = path_of(key)?;
        match answered(self.store.delete(&path)).await {
            Err(Failure::Absent) => Ok(()),
            outcome => outcome,
        }
    }

    async fn copy(&self, from: &str, to: &str) -> Attempt<()> {
        self.writable()?;
        let (from, to) = (path_of(from)?, path_of(to)?);
        answered(self.store.copy(&from, &to)).await
    }
}

/// Runs one request and classifies its failure.
async fn answered<T>(request: impl Future<Output = object_store::Result<T>>) -> Attempt<T> {
    let (outcome, heard) = listen(request).await;
    outcome.map_err(|error| failure(&error, &heard))
}

/// The key as `object_store` wants it: `Path::from` would percent-encode some characters and so name another object.
fn path_of(key: &str) -> Attempt<Path> {
    Path::parse(key).map_err(|error| Failure::Invalid(error.to_string()))
}

fn meta_of(meta: &object_store::ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        key: meta.location.to_string(),
        size: meta.size,
        etag: ETag(meta.e_tag.clone().unwrap_or_default()),
        version: meta.version.clone(),
        modified: u64::try_from(meta.last_modified.timestamp())
            .ok()
            .map(|seconds| clock::format(seconds, meta.last_modified.timestamp_subsec_millis())),
    }
}

/// What an error of `object_store` means for the next try.
pub(super) fn failure(error: &object_store::Error, heard: &Heard) -> Failure {
    use object_store::Error;
    let text = error.to_string();
    let deepest = deepest(error);
    // Without an answer only the last cause tells: a refused connection, a certificate.
    let reason = || {
        let reason = reason_of(&text);
        if heard.status == 0 && !reason.contains(&deepest) { format!("{reason}: {deepest}") } else { reason }
    };
    if heard.no_keys {
        return Failure::Denied(format!("no keys were found for this place: {}", reason()));
    }
    if deepest.contains("peer certificate") {
        return Failure::Invalid(format!("{deepest}; `SSL_CERT_FILE` names the certificates that are trusted"));
    }
    if let Some(failure) = meaning(heard.status, &text, heard) {
        return failure;
    }
    match error {
        Error::NotFound { .. } => Failure::Absent,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => Failure::Refused,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Failure::Denied(reason()),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            Failure::Invalid(reason())
        }
        // Memory says this without any answer heard.
        _ if heard.status == 0 && text.contains("range") => Failure::Invalid(reason()),
        _ => Failure::Transient(reason()),
    }
}

/// What an answer's status means, with the code in its `text` where one status has several meanings; `None` for none.
pub(super) fn meaning(status: u16, text: &str, heard: &Heard) -> Option<Failure> {
    if text.contains("NoSuchBucket") || text.contains("ContainerNotFound") {
        return Some(Failure::Missing("the bucket does not exist".into()));
    }
    let reason = || reason_of(text);
    Some(match status {
        404 => Failure::Absent,
        304 | 412 => Failure::Refused,
        429 | 503 => Failure::Throttled(reason()),
        401 | 403 => Failure::Denied(reason()),
        400 if text.contains("ExpiredToken") || text.contains("InvalidToken") => Failure::Denied(reason()),
        400 if text.contains("RequestTimeout") => Failure::Transient(reason()),
        200 | 206 if text.contains("Header missing") => Failure::Invalid(reason()),
        200 if text.contains("SlowDown") => Failure::Throttled(reason()),
        408 | 409 | 500 | 502 | 504 => Failure::Transient(reason()),
        301 | 307 => Failure::Invalid(elsewhere(heard)),
        400 if text.contains("AuthorizationHeaderMalformed") => {
            Failure::Invalid(format!("{}: {}", elsewhere(heard), reason()))
        }
        400..=499 | 501 => Failure::Invalid(reason()),
        _ => return None,
    })
}

/// The service answers only in the bucket's own region.
fn elsewhere(heard: &Heard) -> String {
    match &heard.region {
        Some(region) => format!("the bucket is in the region `{region}`; set the storage option `region`"),
        None => "the bucket is in another region; set the storage option `region`".to_owned(),
    }
}

/// The text of the last cause.
fn deepest(error: &object_store::Error) -> String {
    let mut current: &dyn std::error::Error = error;
    while let Some(cause) = current.source() {
        current = cause;
    }
    current.to_string()
}

/// The part of an error's text that a person needs: the service's code and message where it sent XML, without the URL that
/// our own message names.
pub(super) fn reason_of(text: &str) -> String {
    let element = |name: &str| {
        let start = text.find(&format!("<{name}>"))? + name.len() + 2;
        let end = text[start..].find(&format!("</{name}>"))? + start;
        Some(&text[start..end])
    };
    let status = text.split("status code: ").nth(1).and_then(|rest| rest.split(':').next()).map(str::trim);
    match (element("Code"), element("Message"), status) {
        (Some(code), Some(message), _) => format!("{code}: {message}"),
        (Some(code), None, _) => code.to_owned(),
        (None, _, Some(status)) => status.to_owned(),
        (None, _, None) => text.rsplit(" - ").next().unwrap_or(text).trim_start_matches("HTTP error: ").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_own_words_are_kept() {
        let text = "Generic S3 error: Error performing PUT http://h/b/k in 3ms - Server returned non-2xx status code: \
                    403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature \
                    differs.</Message></Error>";
        assert_eq!(reason_of(text), "SignatureDoesNotMatch: The signature differs.");
        assert_eq!(
            reason_of("x - Server returned non-2xx status code: 503 Service Unavailable: "),
            "503 Service Unavailable"
        );
        assert_eq!(reason_of("Error performing GET http://h in 1ms - HTTP error: refused"), "refused");
    }
}
