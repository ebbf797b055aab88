//! Looking at the objects of a data set: which there are, and what each says about itself.
//!
//! One request an object: the last 64 KiB hold the footer of most files, and the answer carries the ETag that every later
//! request is bound to. The version stands in the footer; only where it does not, and the storage has tags, a second
//! request reads the tag that other tools left.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use futures::stream::StreamExt;

use super::Migrations;
use super::pool::on_pool;
use super::sidecars::is_sidecar;
use super::stamp::{STAMP_KEY, Stamp, version};
use crate::error::{Error, Kind, Result};
use crate::parquet::{FIRST_READ, File, Parsed};
use crate::progress::{Progress, Run};
use crate::store::{ETag, Object, ObjectMeta};

/// Looks under way at once, at most.
const MOST_LOOKS: usize = 256;
/// Looks at an object that changes each time.
const LOOKS: u32 = 3;
/// Bytes of footers that are kept between plan and apply.
const KEPT_FOOTERS: u64 = 64 << 20;
/// Progress is told every so many objects.
const TELL_EVERY: u64 = 50;

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the places' own names")]
pub enum VersionPlace {
    Footer,
    Tag,
    Default,
}

impl VersionPlace {
    /// Its name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Footer => "footer",
            Self::Tag => "tag",
            Self::Default => "default",
        }
    }
}

/// A Parquet file of the data set.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The object, as it was when its footer was read.
    pub meta: ObjectMeta,
    /// Its footer.
    pub file: File,
    /// Its version.
    pub version: u64,
    /// Where that stands.
    pub place: VersionPlace,
    /// Its last migration, where it had one.
    pub stamp: Option<Stamp>,
    /// The value of its version tag, where tags were read.
    pub tag: Option<Option<String>>,
}

/// What looking at an object found.
#[derive(Debug)]
pub enum Sight {
    /// A Parquet file.
    File(Box<Looked>),
    /// Something else.
    NotParquet(ObjectMeta, Error),
    /// It cannot be read, or says something that makes no sense.
    Failed(ObjectMeta, Error),
    /// It is not there any more.
    Gone,
}

/// What a data set consists of.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Its objects.
    pub(super) keys: Vec<String>,
    /// Files that were listed and tell readers about others.
    pub(super) sidecars: Vec<String>,
}

/// Footers that were read lately, so that an apply after its plan does not read them again.
#[derive(Debug, Default)]
pub struct Footers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    files: HashMap<String, (ETag, File)>,
    bytes: u64,
}

impl Footers {
    /// The footer of `key` as it is under `etag`.
    #[must_use]
    pub fn get(&self, key: &str, etag: &ETag) -> Option<File> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.files.get(key).filter(|(found, _)| found == etag).map(|(_, file)| file.clone())
    }

    fn keep(&self, key: &str, etag: &ETag, file: &File) {
        self.forget(key);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Parsed, a footer takes several times its bytes.
        let bytes = file.footer_length() * 4;
        if kept.bytes + bytes <= KEPT_FOOTERS {
            kept.bytes += bytes;
            kept.files.insert(key.to_owned(), (etag.clone(), file.clone()));
        }
    }

    /// Forgets the footer of `key`: it was rewritten.
    pub fn forget(&self, key: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = kept.files.remove(key) {
            kept.bytes = kept.bytes.saturating_sub(file.footer_length() * 4);
        }
    }
}

impl Migrations {
    /// Looks at every object of the data set, or at `keys`; by key. With `tags`, tags are read of every file.
    ///
    /// # Errors
    /// What concerns the whole data set (it cannot be listed, cancelled); what concerns one object is its [`Sight`].
    pub async fn scan(&self, keys: Option<&[String]>, tags: bool, run: &Run) -> Result<BTreeMap<String, Sight>> {
        let found = self.find(keys, run).await?;
        self.look_at(found.keys, tags, run).await
    }

    /// The objects of the data set, or `keys`, without looking at them.
    pub(super) async fn find(&self, keys: Option<&[String]>, run: &Run) -> Result<Found> {
        match keys {
            Some(keys) => {
                let keys = keys.iter().map(|key| self.relative_key(key)).collect::<Result<Vec<_>>>()?;
                Ok(Found { keys, sidecars: Vec::new() })
            }
            None => self.listed(run).await,
        }
    }

    /// Looks at each of `keys`; by key.
    pub(super) async fn look_at(&self, keys: Vec<String>, tags: bool, run: &Run) -> Result<BTreeMap<String, Sight>> {
        let total = keys.len() as u64;
        let mut sights = BTreeMap::new();
        let mut errors = 0;
        let mut looks = futures::stream::iter(keys)
            .map(|key| async move {
                let sight = self.look(&key, tags).await;
                (key, sight)
            })
            .buffer_unordered(self.config.run.concurrency.min(MOST_LOOKS));
        while let Some((key, sight)) = looks.next().await {
            run.check()?;
            let done = sights.len() as u64 + 1;
            errors += u64::from(matches!(sight, Ok(Sight::Failed(_, _))));
            if done.is_multiple_of(TELL_EVERY) || done == total {
                self.tell(run, "scan", (done, total), &key, errors);
            }
            sights.insert(key, sight?);
        }
        Ok(sights)
    }

    /// Tells one step: how many of how many are done, the latest, and how many failed.
    pub(super) fn tell(&self, run: &Run, stage: &str, (done, total): (u64, u64), item: &str, errors: u64) {
        let usage = self.data.counters().usage();
        run.tell(&Progress { stage: stage.into(), done, total, item: item.to_owned(), errors, usage });
    }

    /// Keys of the data set, and what lies beside them.
    async fn listed(&self, run: &Run) -> Result<Found> {
        let mut found = Found::default();
        let mut seen = 0_u64;
        for prefix in self.selection.prefixes() {
            let mut listing = self.data.list(prefix, None);
            while let Some(meta) = listing.next().await {
                let meta = meta?;
                seen += 1;
                if seen.is_multiple_of(1000) {
                    run.check()?;
                    self.tell(run, "scan", (0, 0), &meta.key, 0);
                }
                if self.selection.takes(&meta.key) {
                    found.keys.push(meta.key);
                } else if is_sidecar(&meta.key) {
                    found.sidecars.push(meta.key);
                }
            }
        }
        Ok(found)
    }

    /// Looks at one object; again where it changes meanwhile.
    ///
    /// # Errors
    /// `Unavailable` where the storage does not answer.
    pub async fn look(&self, key: &str, tags: bool) -> Result<Sight> {
        for _ in 1..LOOKS {
            match self.look_once(key, tags).await? {
                Sight::Failed(_, error) if error.kind() == Kind::Conflict => {}
                sight => return Ok(sight),
            }
        }
        self.look_once(key, tags).await
    }

    async fn look_once(&self, key: &str, tags: bool) -> Result<Sight> {
        let object = match self.data.get_suffix(key, FIRST_READ).await {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(Sight::Gone),
            // An empty object has no last bytes: some services refuse to read them.
            Err(error) if error.kind() == Kind::Invalid => {
                let Some(meta) = self.data.head(key).await? else { return Ok(Sight::Gone) };
                let empty = meta.size == 0;
                let error = if empty { Error::invalid(format!("`{key}` is empty")) } else { error };
                return Ok(if empty { Sight::NotParquet(meta, error) } else { Sight::Failed(meta, error) });
            }
            Err(error) => return Err(error),
        };
        let meta = object.meta.clone();
        if !object.bytes.ends_with(b"PAR1") && !object.bytes.ends_with(b"PARE") {
            let error = Error::invalid(format!("`{key}` is not a Parquet file: its last bytes are not `PAR1`"))
                .hint("leave it out of the data set by `suffix` or `contains`, or write it again");
            return Ok(Sight::NotParquet(meta, error));
        }
        match self.parse(key, object).await {
            Ok(file) => {
                self.footers.keep(key, &meta.etag, &file);
                match self.judge(&meta, file, tags).await {
                    Ok(looked) => Ok(Sight::File(Box::new(looked))),
                    Err(error) if error.kind() == Kind::Unavailable => Err(error),
                    Err(error) => Ok(Sight::Failed(meta, error)),
                }
            }
            Err(error) if error.kind() == Kind::Unavailable => Err(error),
            Err(error) => Ok(Sight::Failed(meta, error)),
        }
    }

    /// The footer of an object of which the last bytes are here; a second read where they do not suffice.
    pub(super) async fn parse(&self, key: &str, object: Object) -> Result<File> {
        let (meta, mut tail) = (object.meta, object.bytes);
        for _ in 0..2 {
            let (name, length) = (key.to_owned(), meta.size);
            // Small footers are parsed faster than a thread is woken.
            let parsed = if tail.len() < 16 << 10 {
                File::parse(&name, length, &tail)?
            } else {
                let tail = tail.clone();
                on_pool(move || File::parse(&name, length, &tail)).await?
            };
            match parsed {
                Parsed::File(file) => return Ok(file),
                Parsed::Needs(bytes) => {
                    // Only what is missing before the bytes that are here.
                    let (start, end) = (length.saturating_sub(bytes), length - tail.len() as u64);
                    if start >= end {
                        break;
                    }
                    let mut read =
                        self.data.get_ranges(key, std::slice::from_ref(&(start..end)), Some(&meta.etag)).await?;
                    tail = [read.pop().unwrap_or_default(), tail].concat().into();
                }
            }
        }
        Err(Error::corrupt(format!("the footer of `{key}` could not be read whole")))
    }

    /// What a file says about itself.
    async fn judge(&self, meta: &ObjectMeta, file: File, tags: bool) -> Result<Looked> {
        let key = &meta.key;
        let wanted = &self.config.version;
        let stamp = file.key_value(STAMP_KEY).map(|text| Stamp::parse(text, key)).transpose()?;
        let in_footer = file.key_value(&wanted.key).map(|text| version(text, "footer", key)).transpose()?;
        let mut tag = None;
        if (tags || in_footer.is_none()) && self.capabilities().await?.tags {
            tag = Some(self.data.tags(key).await?.remove(&wanted.key));
        }
        let (version, place) = match (in_footer, tag.as_ref().and_then(Option::as_ref)) {
            (Some(version), _) => (version, VersionPlace::Footer),
            (None, Some(text)) => (version(text, "tag", key)?, VersionPlace::Tag),
            (None, None) => (wanted.default, VersionPlace::Default),
        };
        Ok(Looked { meta: meta.clone(), file, version, place, stamp, tag })
    }
}
