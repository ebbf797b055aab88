//! Object storage behind `object_store`, one try at a time.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::backend::{Attempt, Backend, Cursor, Failure, Page, Part};
use super::clock;
use super::object::{Condition, ETag, Object, ObjectMeta};

/// A service that `object_store` knows.
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    pages: Option<Arc<dyn PaginatedListStore>>,
}

impl Remote {
    pub(super) fn new(store: Arc<dyn ObjectStore>, pages: Option<Arc<dyn PaginatedListStore>>) -> Self {
        Self { store, pages }
    }
}

#[async_trait]
impl Backend for Remote {
    async fn get(&self, key: &str, part: Part, if_match: Option<&ETag>) -> Attempt<Object> {
        let options = GetOptions {
            if_match: if_match.map(|etag| etag.0.clone()),
            range: match &part {
                Part::Whole | Part::Head => None,
                Part::Range(range) => Some(GetRange::Bounded(range.clone())),
                Part::Suffix(length) => Some(GetRange::Suffix(*length)),
            },
            head: part == Part::Head,
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&path_of(key)?, options).await.map_err(|error| failure(&error))?;
        let meta = meta_of(&answer.meta);
        let expected = answer.range.end - answer.range.start;
        let bytes =
            if part == Part::Head { Bytes::new() } else { answer.bytes().await.map_err(|error| failure(&error))? };
        if part != Part::Head && bytes.len() as u64 != expected {
            return Err(Failure::Transient(format!("expected `{expected}` bytes, found `{}`", bytes.len())));
        }
        Ok(Object { bytes, meta })
    }

    async fn list_page(&self, mut cursor: Cursor) -> Attempt<Page> {
        let Some(pages) = &self.pages else { return self.list_at_once(&cursor).await };
        let options = PaginatedListOptions {
            offset: cursor.start_after.clone(),
            page_token: cursor.token.take(),
            ..PaginatedListOptions::default()
        };
        let prefix = Some(cursor.prefix.as_str()).filter(|prefix| !prefix.is_empty());
        let page = pages.list_paginated(prefix, options).await.map_err(|error| failure(&error))?;
        let objects = page.result.objects.iter().map(meta_of).collect();
        cursor.token = page.page_token;
        Ok(Page { objects, next: cursor.token.is_some().then_some(cursor) })
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Option<&Condition>) -> Attempt<ETag> {
        let mode = match condition {
            None => PutMode::Overwrite,
            Some(Condition::Absent) => PutMode::Create,
            Some(Condition::Matches(etag)) => {
                PutMode::Update(UpdateVersion { e_tag: Some(etag.0.clone()), version: None })
            }
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        let result = self.store.put_opts(&path_of(key)?, PutPayload::from_bytes(bytes), options).await;
        Ok(ETag(result.map_err(|error| failure(&error))?.e_tag.unwrap_or_default()))
    }

    async fn delete(&self, key: &str) -> Attempt<()> {
        match self.store.delete(&path_of(key)?).await.map_err(|error| failure(&error)) {
            Err(Failure::Absent) => Ok(()),
            outcome => outcome,
        }
    }

    async fn copy(&self, from: &str, to: &str) -> Attempt<()> {
        self.store.copy(&path_of(from)?, &path_of(to)?).await.map_err(|error| failure(&error))
    }

    async fn rename(&self, _: &str, _: &str) -> Option<Attempt<()>> {
        None
    }

    async fn sync(&self, _: &[String]) -> Attempt<()> {
        Ok(())
    }

    async fn sweep(&self, _: &str) -> Attempt<u64> {
        Ok(0)
    }

    fn local_path(&self, _: &str) -> Option<std::path::PathBuf> {
        None
    }
}

impl Remote {
    /// One page with everything, for stores in memory.
    async fn list_at_once(&self, cursor: &Cursor) -> Attempt<Page> {
        let mut objects: Vec<ObjectMeta> =
            self.store.list(None).map_ok(|meta| meta_of(&meta)).try_collect().await.map_err(|error| failure(&error))?;
        objects.retain(|meta| {
            meta.key.starts_with(&cursor.prefix) && cursor.start_after.as_ref().is_none_or(|after| meta.key > *after)
        });
        objects.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        Ok(Page { objects, next: None })
    }
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
fn failure(error: &object_store::Error) -> Failure {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => Failure::Absent,
        Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. } => Failure::Refused,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Failure::Denied(error.to_string()),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            Failure::Invalid(error.to_string())
        }
        _ => Failure::Transient(error.to_string()),
    }
}
