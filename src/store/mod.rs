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
mod carried;
mod checksum;
pub mod clock;
mod copying;
#[doc(hidden)]
pub mod faults;
mod features;
mod fence;
mod http;
mod limit;
mod local;
mod location;
mod object;
mod options;
mod pieces;
mod probe;
mod profile;
mod random;
mod ranges;
mod reading;
mod remote;
mod replace;
mod runtime;
mod s3;
mod services;
mod upload;
mod writing;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use object_store::memory::InMemory;

pub use self::carried::{Carried, Encryption, Inspected, RUN_KEY};
pub use self::checksum::{Checksum, Summing};
pub use self::features::{Capabilities, ObjectVersion, Upload};
pub use self::fence::Fence;
pub use self::object::{Condition, ETag, Object, ObjectMeta, PutAnswer};
pub use self::pieces::Piece;
pub use self::probe::{Check, CheckState, Probe};
pub use self::random::random_id;
pub use self::replace::Replaced;
pub use self::runtime::{block_on, forked, runtime};

use self::attempts::Patience;
use self::backend::Backend;
use self::faults::Faults;
use self::limit::Limit;
use self::local::LocalFiles;
use self::location::{Location, key_is_clean};
use self::remote::Remote;
use crate::error::{Error, Result};
use crate::progress::Counters;

/// Settings of a connection: `object_store`'s own keys, in any case.
pub type StorageOptions = BTreeMap<String, String>;

/// A place under a URL, to read and write objects. Cloning is cheap and shares the connection and the counters.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Connection>,
    prefix: String,
    url: String,
    counters: Counters,
    faults: Option<Arc<dyn Faults>>,
    fence: Option<Arc<dyn Fence>>,
    patience: Patience,
}

/// What clones share.
struct Connection {
    backend: Box<dyn Backend>,
    /// The URL of the empty key, with a `/` at the end.
    root: String,
    limit: Limit,
}

impl Connection {
    fn url_of(&self, key: &str) -> String {
        if self.root.starts_with("file:") || self.root.starts_with("http") {
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
        let at_hand = || (Limit::new(64, 64), Patience::LOCAL);
        let far = || (Limit::new(32, 128), Patience::SERVICE);
        let (backend, root, prefix, (limit, patience)): (Box<dyn Backend>, _, _, _) = match Location::parse(url)? {
            Location::Local { prefix } => {
                options::none(options, "a local file")?;
                (Box::new(LocalFiles), "file:///".to_owned(), prefix, at_hand())
            }
            Location::Memory { name, prefix } => {
                options::none(options, "memory")?;
                (Box::new(Remote::memory(memory(&name))), format!("memory://{name}/"), prefix, at_hand())
            }
            Location::Bucket { scheme, bucket, prefix } => {
                let remote = match scheme.as_str() {
                    "gs" => services::google(&bucket, options)?,
                    "az" => services::azure(&bucket, options)?,
                    _ => services::s3(&bucket, options)?,
                };
                (Box::new(remote), format!("{scheme}://{bucket}/"), prefix, far())
            }
            Location::Http { origin, prefix } => {
                (Box::new(services::http(&origin, options)?), format!("{origin}/"), prefix, far())
            }
        };
        let connection = Arc::new(Connection { backend, root, limit });
        let url = connection.url_of(&prefix);
        Ok(Self { connection, prefix, url, counters: Counters::default(), faults: None, fence: None, patience })
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

    /// The same place, where nothing is written any more once `fence` says so; children and siblings inherit it.
    #[must_use]
    pub fn with_fence(&self, fence: Arc<dyn Fence>) -> Self {
        Self { fence: Some(fence), ..self.clone() }
    }

    /// The same place with less patience: so many tries, so long after the first. Children and siblings inherit it.
    #[must_use]
    pub fn with_patience(&self, tries: u32, time: Duration) -> Self {
        Self { patience: Patience { tries, time, ..self.patience }, ..self.clone() }
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

    fn gone(&self, key: &str) -> Error {
        Error::not_found(format!("`{}` does not exist", self.url_of(key)))
    }

    fn changed(&self, key: &str) -> Error {
        Error::conflict(format!("`{}` was changed by somebody else", self.url_of(key)))
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
