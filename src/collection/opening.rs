//! Opening sources: from a key and a version to labels, or to a reason why not.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};

use super::config::Config;
use super::fit::{Category, Misfit, labels};
use super::label::Label;
use super::ledger::SourceVersion;
use super::memory::MemoryDataset;
use super::netcdf_source;
use super::source::Source;
use crate::error::{Context, Error, Kind, Result};
use crate::netcdf::{Dataset, Limits};
use crate::progress::{Progress, Run};
use crate::store::{ETag, ObjectMeta, Store};

/// What a `preprocess` hook is given: a local file where the source is one, else its bytes.
#[derive(Debug, Clone)]
pub enum HookInput {
    /// A local file.
    Path(PathBuf),
    /// The object's bytes.
    Bytes(Bytes),
}

/// A `preprocess` hook: it sees a source before regraft does.
pub trait Hook: Send + Sync {
    /// The data set to be stored in place of the source.
    ///
    /// # Errors
    /// Whatever the hook raises; the source is then set aside.
    fn preprocess(&self, key: &str, input: HookInput) -> Result<MemoryDataset>;
}

/// An opened source with its labels.
#[derive(Clone)]
pub struct Opened {
    /// The version that was opened.
    pub version: SourceVersion,
    /// Its structure and values.
    pub source: Arc<Source>,
    /// Its labels along the axis.
    pub labels: Vec<Label>,
    /// Whether it is a version that the bucket keeps beside the present object, or instead of it.
    pub kept: bool,
}

/// What became of opening one key.
pub enum Outcome {
    /// It is there and has labels.
    Opened(Box<Opened>),
    /// It is not there.
    Gone,
    /// It cannot be used.
    Misfit(SourceVersion, Misfit),
}

/// Opens sources of one collection.
pub struct Opener<'a> {
    /// The collection's configuration.
    pub config: &'a Config,
    /// Where the sources are.
    pub sources: &'a Store,
    /// The hook, where there is one.
    pub hook: Option<&'a Arc<dyn Hook>>,
}

impl Opener<'_> {
    /// Opens `keys`, several at once, in the order given. A source whose version is expected but has changed is opened as
    /// it is now: the bucket is the truth.
    ///
    /// # Errors
    /// `Unavailable` where the storage does not answer; everything that is wrong with one source is in its [`Outcome`].
    pub async fn open_all(
        &self,
        keys: &[(String, Option<SourceVersion>)],
        run: &Run,
    ) -> Result<Vec<(String, Outcome)>> {
        self.open_each(keys, false, run).await
    }

    /// Opens `keys` as [`Opener::open_all`] does, but in the versions given as long as the bucket has them, whatever lies
    /// there now: for data that are to be again as they were.
    ///
    /// # Errors
    /// As [`Opener::open_all`].
    pub async fn open_recorded(
        &self,
        keys: &[(String, Option<SourceVersion>)],
        run: &Run,
    ) -> Result<Vec<(String, Outcome)>> {
        self.open_each(keys, true, run).await
    }

    async fn open_each(
        &self,
        keys: &[(String, Option<SourceVersion>)],
        kept: bool,
        run: &Run,
    ) -> Result<Vec<(String, Outcome)>> {
        let workers = match self.config.run.workers {
            0 => 8,
            workers => workers,
        };
        let total = keys.len() as u64;
        let mut opened = Vec::with_capacity(keys.len());
        let tasks: Vec<_> =
            keys.iter().cloned().map(|(key, version)| self.open_owned(key, version, kept, run).boxed()).collect();
        let mut stream = stream::iter(tasks).buffered(workers);
        while let Some(outcome) = stream.next().await {
            let (key, outcome) = outcome?;
            opened.push((key.clone(), outcome));
            run.tell(&Progress {
                stage: "open".into(),
                done: opened.len() as u64,
                total,
                item: key,
                errors: 0,
                usage: self.sources.counters().usage(),
            });
        }
        Ok(opened)
    }

    async fn open_owned(
        &self,
        key: String,
        version: Option<SourceVersion>,
        kept: bool,
        run: &Run,
    ) -> Result<(String, Outcome)> {
        run.check()?;
        let outcome = self.open_as(&key, version.as_ref(), kept).await?;
        Ok((key, outcome))
    }

    /// Opens one source.
    ///
    /// # Errors
    /// As [`Opener::open_all`].
    pub async fn open(&self, key: &str, expected: Option<&SourceVersion>) -> Result<Outcome> {
        self.open_as(key, expected, false).await
    }

    async fn open_as(&self, key: &str, expected: Option<&SourceVersion>, kept: bool) -> Result<Outcome> {
        // Twice at most: an object that changes between its version and its bytes is looked at again.
        for attempt in 0..3 {
            let version = match expected {
                Some(version) if attempt == 0 => version.clone(),
                _ => match self.sources.head(key).await? {
                    Some(meta) => version_of(&meta),
                    None => return Ok(Outcome::Gone),
                },
            };
            match self.open_version(key, &version, false).await {
                Ok(opened) => return Ok(Outcome::Opened(Box::new(opened))),
                Err(misfit) => match misfit.error.kind() {
                    Kind::Conflict | Kind::NotFound if kept && attempt == 0 && version.version.is_some() => {
                        match self.open_version(key, &version, true).await {
                            Ok(opened) => return Ok(Outcome::Opened(Box::new(opened))),
                            Err(misfit) if matches!(misfit.error.kind(), Kind::Unavailable | Kind::Internal) => {
                                return Err(misfit.error);
                            }
                            // Deleted for good, or not for us to read: as it is now.
                            Err(_) => {}
                        }
                    }
                    Kind::Conflict | Kind::NotFound if attempt < 2 => {}
                    Kind::NotFound => return Ok(Outcome::Gone),
                    Kind::Unavailable | Kind::Conflict | Kind::Internal => return Err(misfit.error),
                    Kind::Invalid | Kind::Corrupt => return Ok(Outcome::Misfit(version, misfit)),
                },
            }
        }
        Err(Error::conflict(format!("{}: it changes faster than it can be read", self.sources.url_of(key))))
    }

    async fn open_version(&self, key: &str, version: &SourceVersion, kept: bool) -> Result<Opened, Misfit> {
        let etag = ETag(version.etag.clone());
        let url = self.sources.url_of(key);
        let mut version = version.clone();
        let wanted = version.version.clone().filter(|_| kept);
        let source = match self.hook {
            None => {
                // The version says the size: no need to ask for it again.
                let listed = ObjectMeta {
                    key: key.to_owned(),
                    size: version.size,
                    etag,
                    version: version.version.clone(),
                    modified: version.modified.clone(),
                };
                let opened = match &wanted {
                    Some(wanted) => Dataset::open_kept(self.sources, &listed, wanted, Limits::default()).await,
                    None => Dataset::open_listed(self.sources, &listed, Limits::default()).await,
                };
                let dataset = opened.category("unreadable")?;
                // A listing does not name it.
                version.version = dataset.version().map(str::to_owned).or(version.version);
                netcdf_source::open(key, &Arc::new(dataset)).context(|| url.clone()).category("unreadable")?
            }
            Some(hook) => {
                let input = match (self.sources.local_path(key), &wanted) {
                    (Some(path), _) => HookInput::Path(path),
                    (None, Some(wanted)) => {
                        self.sources.expect_version(key, wanted, &etag).await.category("unreadable")?;
                        let read = self.sources.get_version_range(key, wanted, 0..version.size).await;
                        HookInput::Bytes(read.category("unreadable")?)
                    }
                    (None, None) => {
                        let object = self.sources.get_object_if_match(key, &etag).await.category("unreadable")?;
                        version.version = object.meta.version.or(version.version);
                        HookInput::Bytes(object.bytes)
                    }
                };
                let hook = hook.clone();
                let owned = key.to_owned();
                // The hook holds the GIL and computes: it must not stand in the way of I/O.
                let dataset = tokio::task::spawn_blocking(move || hook.preprocess(&owned, input))
                    .await
                    .map_err(|error| Error::internal(format!("the hook's thread ended: {error}")))
                    .and_then(|result| result)
                    .context(|| url.clone())
                    .category("hook")?;
                dataset.into_source(key).context(|| url.clone()).category("hook")?
            }
        };
        let labels = labels(&source, self.config)
            .await
            .map_err(|misfit| Misfit { category: misfit.category, error: misfit.error.context(url.clone()) })?;
        Ok(Opened { version, source: Arc::new(source), labels, kept })
    }
}

/// The version of a listed object.
#[must_use]
pub fn version_of(meta: &ObjectMeta) -> SourceVersion {
    SourceVersion {
        etag: meta.etag.0.clone(),
        version: meta.version.clone(),
        size: meta.size,
        modified: meta.modified.clone(),
    }
}
