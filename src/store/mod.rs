//! The one door to object storage and files.
//!
//! # Problem
//! A commit needs conditional puts whose answer is certain, on S3, on other vendors' storage, and on a laptop's disk; and
//! every request must be counted, retried, throttled and named in errors the same way.
//!
//! # Design
//! - A [`Store`] is a connection, a prefix, and counters; cloning is cheap. Keys are relative to the prefix.
//! - Every single try goes through one place (`attempts`): limit, count, inject faults, classify, pause.
//! - A conditional put has three answers (ours, theirs, unknown). "Unknown" ends here: after a doubtful try a refusal is
//!   read back, and the same bytes are ours. Control records therefore carry a nonce in their body.
//! - One kind of storage is one `Backend` that answers single tries: `local` for files, `remote` for what
//!   `object_store` knows.
//!
//! # Alternatives considered
//! `object_store` as the interface of the other modules: it has no compare-and-swap on files, does not count, and tells a
//! put that it sent twice as "somebody else won". `aws-sdk-s3`: one vendor, and its C cryptography doubles the build.
//!
//! # Caveats
//! Keys with empty segments (`a//b`), `.`, `..` or control characters are refused, since `object_store` cannot name them.
//!
//! # Testing
//! The contract is a set of plain functions over any store, run on memory and files here, and on servers in
//! `tests/rust/servers.rs`.

mod attempts;
mod backend;
pub mod clock;
#[doc(hidden)]
pub mod faults;
mod limit;
mod local;
mod location;
mod object;
mod random;
mod ranges;
mod remote;
mod runtime;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;

pub use self::object::{Condition, ETag, Object, ObjectMeta, PutAnswer};
pub use self::random::random_id;
pub use self::runtime::{block_on, forked, runtime};

use self::attempts::{Outcome, Patience};
use self::backend::{Backend, Cursor, Part};
use self::faults::{Faults, Operation};
use self::limit::Limit;
use self::local::LocalFiles;
use self::location::{Location, key_is_clean};
use self::remote::Remote;
use crate::error::{Error, Result};
use crate::progress::Counters;

/// Settings of a connection: `object_store`'s own keys, in any case.
pub type StorageOptions = BTreeMap<String, String>;

/// Reads of one call that run side by side.
const CONCURRENT_READS: usize = 16;

/// A place under a URL, to read and write objects. Cloning is cheap and shares the connection and the counters.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Connection>,
    prefix: String,
    url: String,
    counters: Counters,
    faults: Option<Arc<dyn Faults>>,
}

/// What clones share.
struct Connection {
    backend: Box<dyn Backend>,
    /// The URL of the empty key, with a `/` at the end.
    root: String,
    limit: Limit,
    patience: Patience,
}

impl Connection {
    fn url_of(&self, key: &str) -> String {
        if self.root.starts_with("file:") {
            // Decoded again by `open`.
            let encoded: String = key
                .chars()
                .map(|c| match c {
                    '%' => "%25".to_owned(),
                    '#' => "%23".to_owned(),
                    '?' => "%3F".to_owned(),
                    c => c.to_string(),
                })
                .collect();
            return format!("{}{encoded}", self.root);
        }
        format!("{}{key}", self.root)
    }

    fn rights_hint(&self) -> &'static str {
        if self.root.starts_with("file:") {
            "look at the owner and the mode of the file and its directory"
        } else {
            "look at the credentials, in `storage_options` or the environment, and at their rights; \
             a public bucket is read with the option `skip_signature: true`"
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the place that `url` names; no request is made.
    ///
    /// Known are a plain path, `file://`, `memory://NAME` (one store per name and process), `s3://`, `gs://`, `az://`, and
    /// `http(s)://` for reading. `options` are the keys of `object_store`; the vendor's environment variables
    /// fill in what is not given.
    ///
    /// # Errors
    /// `Invalid` when the URL is not understood, or when an option is unknown, given twice or malformed.
    pub fn open(url: &str, options: &StorageOptions) -> Result<Self> {
        let (backend, root, prefix, limit, patience): (Box<dyn Backend>, _, _, _, _) = match Location::parse(url)? {
            Location::Local { prefix } => {
                (Box::new(LocalFiles), "file:///".to_owned(), prefix, Limit::new(64, 64), Patience::LOCAL)
            }
            Location::Memory { name, prefix } => {
                let root = format!("memory://{name}/");
                (Box::new(Remote::new(memory(&name), None)), root, prefix, Limit::new(64, 64), Patience::LOCAL)
            }
            Location::Bucket { .. } | Location::Http { .. } => {
                return Err(Error::internal(format!("`{url}`: not yet")));
            }
        };
        let _ = options;
        let connection = Arc::new(Connection { backend, root, limit, patience });
        Ok(Self { url: connection.url_of(&prefix), connection, prefix, counters: Counters::default(), faults: None })
    }

    /// The place `path` deeper, on the same connection and counters.
    #[must_use]
    pub fn child(&self, path: &str) -> Self {
        self.moved(join(&self.prefix, path.trim_matches('/')))
    }

    /// The place beside this one whose name is this one's with `suffix` behind it: `a/b.zarr` and `.regraft` give
    /// `a/b.zarr.regraft`.
    #[must_use]
    pub fn sibling(&self, suffix: &str) -> Self {
        self.moved(format!("{}{suffix}", self.prefix))
    }

    fn moved(&self, prefix: String) -> Self {
        Self { url: self.connection.url_of(&prefix), prefix, ..self.clone() }
    }

    /// The same place, counting into `counters`.
    #[must_use]
    pub fn with_counters(&self, counters: Counters) -> Self {
        Self { counters, ..self.clone() }
    }

    /// The same place with failures on purpose, for tests; children and siblings inherit them.
    #[doc(hidden)]
    #[must_use]
    pub fn with_faults(&self, faults: Arc<dyn Faults>) -> Self {
        Self { faults: Some(faults), ..self.clone() }
    }

    /// Requests and bytes of this place and all that share its counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The URL; [`Store::open`] with the same options opens the same place.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL of `key`.
    #[must_use]
    pub fn url_of(&self, key: &str) -> String {
        self.connection.url_of(&join(&self.prefix, key))
    }

    /// The file of `key`, on local files.
    #[must_use]
    pub fn local_path(&self, key: &str) -> Option<PathBuf> {
        self.connection.backend.local_path(&join(&self.prefix, key))
    }

    /// Reads an object; `None` when there is none. The key `""` is the object at the prefix itself.
    ///
    /// # Errors
    /// `Unavailable` when the service does not answer, `Invalid` for a key that cannot be and for missing rights,
    /// `NotFound` when the bucket is not there.
    pub async fn get(&self, key: &str) -> Result<Option<Object>> {
        present(self.fetch(key, Part::Whole, None).await?)
    }

    /// Reads an object as it was under `etag`.
    ///
    /// # Errors
    /// `Conflict` when it has changed, `NotFound` when it is gone; otherwise as [`Store::get`].
    pub async fn get_if_match(&self, key: &str, etag: &ETag) -> Result<Bytes> {
        Ok(self.unchanged(key, etag, self.fetch(key, Part::Whole, Some(etag)).await?)?.bytes)
    }

    /// Reads the bytes `range`; `None` when there is no object.
    ///
    /// # Errors
    /// `Invalid` when the range is not inside the object; otherwise as [`Store::get`].
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        if range.is_empty() {
            return Ok(self.head(key).await?.map(|_| Bytes::new()));
        }
        Ok(present(self.fetch(key, Part::Range(range), None).await?)?.map(|object| object.bytes))
    }

    /// Reads the last `length` bytes, or all where there are fewer; `None` when there is no object.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_suffix(&self, key: &str, length: u64) -> Result<Option<Object>> {
        present(self.fetch(key, Part::Suffix(length), None).await?)
    }

    /// Reads many ranges of one object, near ones together, several reads side by side; answers in the order asked.
    ///
    /// # Errors
    /// `Conflict` when `if_match` is given and the object has changed, `NotFound` when there is none, `Invalid` when a
    /// range is not inside the object; otherwise as [`Store::get`].
    pub async fn get_ranges(&self, key: &str, ranges: &[Range<u64>], if_match: Option<&ETag>) -> Result<Vec<Bytes>> {
        let mut answers = vec![Bytes::new(); ranges.len()];
        let mut reads = stream::iter(ranges::coalesce(ranges))
            .map(|read| async move {
                let outcome = self.fetch(key, Part::Range(read.range.clone()), if_match).await?;
                let object = match if_match {
                    Some(etag) => self.unchanged(key, etag, outcome)?,
                    None => present(outcome)?.ok_or_else(|| self.gone(key))?,
                };
                Ok::<_, Error>((read, object.bytes))
            })
            .buffer_unordered(CONCURRENT_READS);
        while let Some((read, bytes)) = reads.try_next().await? {
            for index in read.serves {
                let start = (ranges[index].start - read.range.start) as usize;
                let length = (ranges[index].end - ranges[index].start) as usize;
                answers[index] = bytes.slice(start..start + length);
            }
        }
        Ok(answers)
    }

    /// An object's metadata; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        Ok(present(self.fetch(key, Part::Head, None).await?)?.map(|object| object.meta))
    }

    /// Objects whose key begins with `prefix` (any text, not only whole segments) and comes after `start_after`, in the
    /// order of their keys' bytes. Nothing at the prefix is an empty listing.
    ///
    /// The stream yields `Unavailable`, `Invalid` and `NotFound` as [`Store::get`] does, and ends there.
    #[must_use]
    pub fn list(&self, prefix: &str, start_after: Option<&str>) -> BoxStream<'_, Result<ObjectMeta>> {
        let root = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let cursor = Cursor {
            prefix: format!("{root}{prefix}"),
            start_after: start_after.map(|key| format!("{root}{key}")),
            ..Cursor::default()
        };
        let cut = root.len();
        stream::try_unfold(Some(cursor), move |cursor| async move {
            let Some(cursor) = cursor else { return Ok(None) };
            let page = self.page(cursor).await?;
            let objects = page.objects.into_iter().map(move |mut meta| {
                meta.key.drain(..cut);
                Ok(meta)
            });
            Ok::<_, Error>(Some((stream::iter(objects), page.next)))
        })
        .try_flatten()
        .boxed()
    }

    async fn page(&self, cursor: Cursor) -> Result<backend::Page> {
        let key = cursor.prefix.clone();
        // A walk through directories cannot be repeated and is never retried; a token can.
        let Cursor { prefix, start_after, token, mut walk } = cursor;
        let outcome = self
            .attempts(Operation::List, &key, || {
                let cursor = Cursor {
                    prefix: prefix.clone(),
                    start_after: start_after.clone(),
                    token: token.clone(),
                    walk: walk.take(),
                };
                self.connection.backend.list_page(cursor)
            })
            .await?;
        match outcome {
            Outcome::Done(page) => Ok(page),
            Outcome::Absent | Outcome::Refused { .. } => Ok(backend::Page { objects: Vec::new(), next: None }),
        }
    }

    /// Writes an object, whatever was there.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<ETag> {
        let full = self.full(key)?;
        let outcome =
            self.attempts(Operation::Put, &full, || self.connection.backend.put(&full, bytes.clone(), None)).await?;
        self.counters.written(bytes.len() as u64);
        match outcome {
            Outcome::Done(etag) => Ok(etag),
            Outcome::Absent => Err(self.gone(key)),
            Outcome::Refused { .. } => Err(self.changed(key)),
        }
    }

    /// Writes an object if `condition` holds.
    ///
    /// When an earlier try may have been done and a later one is refused, the object is read back: the same bytes are
    /// ours. Two writers of the same bytes are therefore both told `Ours`; control records carry a nonce.
    ///
    /// # Errors
    /// `Unavailable` when it stays unknown whether the object was written; otherwise as [`Store::get`].
    pub async fn put_if(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<PutAnswer> {
        let full = self.full(key)?;
        let outcome = self
            .attempts(Operation::Put, &full, || self.connection.backend.put(&full, bytes.clone(), Some(&condition)))
            .await;
        self.counters.written(bytes.len() as u64);
        match outcome {
            Ok(Outcome::Done(etag)) => Ok(PutAnswer::Ours(etag)),
            Ok(Outcome::Absent | Outcome::Refused { doubtful: false }) => Ok(PutAnswer::Theirs),
            Ok(Outcome::Refused { doubtful: true }) => match self.get(key).await? {
                Some(object) if object.bytes == bytes => Ok(PutAnswer::Ours(object.meta.etag)),
                _ => Ok(PutAnswer::Theirs),
            },
            Err(error) => Err(error),
        }
    }

    /// Deletes an object; none is as good. On files the directories stay.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        let full = self.full(key)?;
        self.attempts(Operation::Delete, &full, || self.connection.backend.delete(&full)).await.map(drop)
    }

    /// Copies an object inside the store, whatever was at `to`.
    ///
    /// # Errors
    /// `NotFound` when there is no object `from`; otherwise as [`Store::get`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.full(from)?, self.full(to)?);
        let outcome =
            self.attempts(Operation::Copy, &source, || self.connection.backend.copy(&source, &target)).await?;
        present(outcome)?.ok_or_else(|| self.gone(from))
    }

    /// Moves an object; one step on files, a copy and a deletion elsewhere.
    ///
    /// # Errors
    /// `NotFound` when there is no object `from`; otherwise as [`Store::get`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (source, target) = (self.full(from)?, self.full(to)?);
        let outcome = self
            .attempts(Operation::Copy, &source, || async {
                self.connection.backend.rename(&source, &target).await.transpose()
            })
            .await?;
        if present(outcome)?.ok_or_else(|| self.gone(from))?.is_none() {
            self.copy(from, to).await?;
            self.delete(from).await?;
        }
        Ok(())
    }

    /// Makes the names of written keys durable: on files, syncs each directory once. Called once per batch, before the
    /// record that says that the batch is done.
    ///
    /// # Errors
    /// `Unavailable` when the disk refuses.
    pub async fn sync(&self, keys: &[String]) -> Result<()> {
        let full = keys.iter().map(|key| self.full(key)).collect::<Result<Vec<_>>>()?;
        match self.connection.backend.sync(&full).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(Error::unavailable(format!("cannot sync the files of `{}`: {failure:?}", self.url))),
        }
    }

    /// Removes temporary files that writers left when they died, below this place; returns how many. Only for whoever
    /// holds the right to write here alone.
    ///
    /// # Errors
    /// `Unavailable` when the disk refuses.
    pub async fn sweep(&self) -> Result<u64> {
        self.connection
            .backend
            .sweep(&self.prefix)
            .await
            .map_err(|failure| Error::unavailable(format!("cannot sweep `{}`: {failure:?}", self.url)))
    }

    async fn fetch(&self, key: &str, part: Part, if_match: Option<&ETag>) -> Result<Outcome<Object>> {
        let full = self.full(key)?;
        let operation = if part == Part::Head { Operation::Head } else { Operation::Get };
        let mut outcome =
            self.attempts(operation, &full, || self.connection.backend.get(&full, part.clone(), if_match)).await?;
        if let Outcome::Done(object) = &mut outcome {
            self.counters.read(object.bytes.len() as u64);
            key.clone_into(&mut object.meta.key);
        }
        Ok(outcome)
    }

    /// The key from the root of the connection.
    fn full(&self, key: &str) -> Result<String> {
        let full = join(&self.prefix, key);
        if key_is_clean(&full) {
            Ok(full)
        } else {
            Err(Error::invalid(format!(
                "the key `{key}` below `{}` is empty, or has an empty, `.` or `..` segment or a control character",
                self.url
            )))
        }
    }

    fn unchanged(&self, key: &str, etag: &ETag, outcome: Outcome<Object>) -> Result<Object> {
        match outcome {
            // Some servers ignore `If-Match` on reads.
            Outcome::Done(object) if object.meta.etag == *etag => Ok(object),
            Outcome::Done(_) | Outcome::Refused { .. } => Err(self.changed(key)),
            Outcome::Absent => Err(self.gone(key)),
        }
    }

    fn gone(&self, key: &str) -> Error {
        Error::not_found(format!("`{}` does not exist", self.url_of(key)))
    }

    fn changed(&self, key: &str) -> Error {
        Error::conflict(format!("`{}` was changed by somebody else", self.url_of(key)))
    }
}

fn present<T>(outcome: Outcome<T>) -> Result<Option<T>> {
    match outcome {
        Outcome::Done(value) => Ok(Some(value)),
        Outcome::Absent => Ok(None),
        Outcome::Refused { .. } => Err(Error::internal("an unconditional request was refused")),
    }
}

fn join(prefix: &str, key: &str) -> String {
    match (prefix, key) {
        ("", key) => key.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, key) => format!("{prefix}/{key}"),
    }
}

/// The store in memory under `name`, one per process.
fn memory(name: &str) -> Arc<InMemory> {
    static STORES: LazyLock<Mutex<BTreeMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(name.to_owned()).or_default().clone()
}
