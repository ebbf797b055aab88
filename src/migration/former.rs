//! The file before a migration, as far as it can still be read.
//!
//! In a widened file it is the first bytes; in a bucket that keeps versions it is the version before. Both are the same
//! bytes, which is what verification compares where both are there.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Migrations;
use super::fuse::Fused;
use super::report::VerifiedObject;
use super::rewrite::keeps_prefix;
use super::scan::Looked;
use super::stamp::Stamp;
use crate::error::{Error, Kind, Result};
use crate::parquet::{FIRST_READ, File, Parsed, Schema};

/// The file before.
pub(super) struct Former {
    /// Its footer.
    pub(super) file: File,
    /// Whether it is the beginning of the file now.
    prefix: bool,
    /// The version that it is, where that is still there.
    pub(super) version: Option<String>,
}

/// What an object was made from.
pub(super) struct Before {
    /// The file before.
    pub(super) former: Option<Former>,
    /// The steps that were applied to it, where they can be told.
    pub(super) fused: Option<Arc<Fused>>,
}

impl Migrations {
    /// The file before, and the steps that were applied to it.
    pub(super) async fn before(&self, looked: &Looked, stamp: &Stamp, object: &mut VerifiedObject) -> Result<Before> {
        let former = self.former(looked, stamp).await?;
        let mut chain = Vec::new();
        for applied in &stamp.steps {
            let step = self.config.steps.iter().position(|step| {
                (step.from, step.to, &step.fingerprint) == (applied.from, applied.to, &applied.fingerprint)
            });
            let Some(step) = step else {
                object.trouble.message = Some(format!(
                    "the step `{}→{}` is not in the configuration as it was applied: columns are not compared",
                    applied.from, applied.to
                ));
                return Ok(Before { former, fused: None });
            };
            chain.push(step);
        }
        let fused = match &former {
            Some(former) => Some(self.binder.fused(&chain, former.file.schema()).await?),
            None => self.fused_backwards(&chain, stamp, &looked.file).await?,
        };
        Ok(Before { former, fused })
    }

    /// The steps over a file whose form before is not stored anywhere: where they only added and renamed, it can be told
    /// from the file as it is.
    async fn fused_backwards(&self, chain: &[usize], stamp: &Stamp, file: &File) -> Result<Option<Arc<Fused>>> {
        let changes = &stamp.columns;
        if !(changes.dropped.is_empty() && changes.recast.is_empty()) {
            return Ok(None);
        }
        let fields = file.schema().fields().iter().filter(|field| !changes.added.contains(field.name()));
        let fields = fields.map(|field| {
            let old = changes.renamed.iter().find(|(_, new)| new == field.name());
            old.map_or_else(|| field.as_ref().clone(), |(old, _)| field.as_ref().clone().with_name(old))
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self.binder.fused(chain, &schema).await.map(Some)
    }

    /// Finds the file before; `None` where nothing is left of it.
    pub(super) async fn former(&self, looked: &Looked, stamp: &Stamp) -> Result<Option<Former>> {
        let prefix = keeps_prefix(stamp.layout);
        let (key, length) = (looked.meta.key.as_str(), stamp.previous.length);
        if prefix && length >= looked.meta.size {
            return Err(Error::corrupt(format!(
                "expected more than the `{length}` bytes of the file before, found `{}`",
                looked.meta.size
            )));
        }
        if let Some(version) = &stamp.previous.version {
            let read = |range| async move { self.data.get_version_range(key, version, range).await };
            match parsed(key, length, read).await {
                Ok(file) => return Ok(Some(Former { file, prefix, version: Some(version.clone()) })),
                // Expired.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if !prefix {
            return Ok(None);
        }
        let file = parsed(key, length, |range| self.part(looked, range)).await?;
        Ok(Some(Former { file, prefix, version: None }))
    }

    /// Bytes of the file before: of the version where it is there.
    pub(super) async fn former_part(&self, looked: &Looked, former: &Former, range: Range<u64>) -> Result<Bytes> {
        match &former.version {
            Some(version) if !former.prefix => self.data.get_version_range(&looked.meta.key, version, range).await,
            _ => self.part(looked, range).await,
        }
    }

    /// Bytes of the object as it was looked at.
    pub(super) async fn part(&self, looked: &Looked, range: Range<u64>) -> Result<Bytes> {
        let (key, etag) = (&looked.meta.key, &looked.meta.etag);
        let mut read = self.data.get_ranges(key, std::slice::from_ref(&range), Some(etag)).await?;
        Ok(read.pop().unwrap_or_default())
    }
}

/// The footer of the `length` bytes that `read` reads.
async fn parsed<F: Future<Output = Result<Bytes>>>(
    key: &str,
    length: u64,
    read: impl Fn(Range<u64>) -> F,
) -> Result<File> {
    let mut tail = read(length.saturating_sub(FIRST_READ)..length).await?;
    for _ in 0..2 {
        match File::parse(key, length, &tail)? {
            Parsed::File(file) => return Ok(file),
            Parsed::Needs(bytes) => tail = read(length.saturating_sub(bytes)..length).await?,
        }
    }
    Err(Error::corrupt(format!("the footer of `{key}` before its migration could not be read whole")))
}
