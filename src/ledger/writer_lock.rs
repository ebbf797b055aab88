//! One writer at a time, where the place can promise it.
//!
//! On files it is the operating system's lock of `writer.lock`, which a dead process does not keep; in memory a name in a
//! table of this process. On object storage there is none yet, and none is needed for safety: the number of the log
//! record is taken by one writer only. The lock saves work; it does not save data.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::store::{Store, clock, random_id};

const KEY: &str = "writer.lock";
/// Waiters look this often, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The right to write one store, until it is dropped or the process dies.
#[derive(Debug)]
pub struct WriterLock {
    _held: Held,
}

#[derive(Debug)]
#[expect(dead_code, reason = "the file is held for its lock")]
enum Held {
    File(File),
    Memory(InMemory),
    Nothing,
}

/// Who holds a lock: written into the file for those who are refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holder {
    process: u32,
    host: String,
    id: String,
    since: String,
}

impl Holder {
    fn here() -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .or_else(|_| std::env::var("HOSTNAME"))
            .map_or_else(|_| "this machine".to_owned(), |name| name.trim().to_owned());
        Self { process: std::process::id(), host, id: random_id(), since: clock::now_rfc3339() }
    }

    fn text(&self) -> String {
        format!("process {} on {} since {}", self.process, self.host, self.since)
    }
}

impl WriterLock {
    /// Takes the lock of the store whose control prefix is `control`, waiting up to `wait` while somebody else has it;
    /// `None` does not wait.
    ///
    /// # Errors
    /// `Conflict` naming the holder when the time is over; `Invalid` or `Unavailable` when the file cannot be made.
    pub async fn acquire(control: &Store, wait: Option<Duration>) -> Result<Self> {
        let started = Instant::now();
        let mut pause = PAUSE.0;
        loop {
            let holder = match attempt(control).await? {
                Ok(held) => return Ok(Self { _held: held }),
                Err(holder) => holder,
            };
            let left = wait.unwrap_or_default().saturating_sub(started.elapsed());
            if left.is_zero() {
                let waited = wait.map_or_else(String::new, |wait| format!(" for {:.1} s", wait.as_secs_f64()));
                return Err(Error::conflict(format!(
                    "`{}` is being written by {holder}{waited}",
                    control.url().trim_end_matches(".regraft")
                ))
                .hint("wait for it to end, or give a longer time to wait"));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Who holds the lock now, for people to read; `None` when nobody does, or when the place has no lock.
    ///
    /// # Errors
    /// As [`WriterLock::acquire`], but no `Conflict`.
    pub async fn holder(control: &Store) -> Result<Option<String>> {
        if let Some(path) = control.local_path(KEY)
            && !path.exists()
        {
            return Ok(None);
        }
        Ok(attempt(control).await?.err())
    }
}

/// The lock, or who has it.
async fn attempt(control: &Store) -> Result<std::result::Result<Held, String>> {
    if let Some(path) = control.local_path(KEY) {
        let url = control.url_of(KEY);
        let outcome = tokio::task::spawn_blocking(move || lock_file(&path)).await;
        outcome
            .map_err(|error| Error::internal(format!("`{url}`: {error}")))?
            .map(|outcome| outcome.map(Held::File))
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    Error::invalid(format!("cannot lock `{url}`: {error}"))
                        .hint("look at the owner and the mode of the directory")
                }
                _ => Error::unavailable(format!("cannot lock `{url}`: {error}")),
            })
    } else if control.url().starts_with("memory:") {
        Ok(InMemory::lock(control.url()).map(Held::Memory))
    } else {
        Ok(Ok(Held::Nothing))
    }
}

fn lock_file(path: &PathBuf) -> std::io::Result<std::result::Result<File, String>> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    // The file stays for ever: deleting it would let two processes lock two files of one name.
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {
            let holder = serde_json::to_vec(&Holder::here())?;
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&holder)?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The holder may be about to write its name.
            let _ = file.read_to_string(&mut text);
            let holder = serde_json::from_str::<Holder>(&text);
            Ok(Err(holder.map_or_else(|_| "another process".to_owned(), |holder| holder.text())))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

static IN_MEMORY: LazyLock<Mutex<BTreeMap<String, Holder>>> = LazyLock::new(Mutex::default);

/// A lock within this process.
#[derive(Debug)]
struct InMemory(String);

impl InMemory {
    fn lock(url: &str) -> std::result::Result<Self, String> {
        let mut holders = IN_MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = holders.get(url) {
            return Err(holder.text());
        }
        holders.insert(url.to_owned(), Holder::here());
        Ok(Self(url.to_owned()))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        IN_MEMORY.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::store::{StorageOptions, block_on};

    fn one_writer_at_a_time(control: &Store) {
        block_on(async {
            assert_eq!(WriterLock::holder(control).await.unwrap(), None);
            let lock = WriterLock::acquire(control, None).await.unwrap();
            let error = WriterLock::acquire(control, None).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict);
            let name = format!("process {}", std::process::id());
            assert!(error.message().contains(&name), "{error}");
            assert!(WriterLock::holder(control).await.unwrap().is_some_and(|holder| holder.contains(&name)));
            let waiter = tokio::spawn({
                let control = control.clone();
                async move { WriterLock::acquire(&control, Some(Duration::from_secs(20))).await }
            });
            tokio::time::sleep(Duration::from_millis(30)).await;
            drop(lock);
            let lock = waiter.await.unwrap().unwrap();
            drop(lock);
            assert_eq!(WriterLock::holder(control).await.unwrap(), None);
        });
    }

    #[test]
    fn files_have_one_writer_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let url = directory.path().join("a.zarr.regraft");
        one_writer_at_a_time(&Store::open(url.to_str().unwrap(), &StorageOptions::new()).unwrap());
    }

    #[test]
    fn memory_has_one_writer_at_a_time() {
        let url = format!("memory://{}/a.zarr.regraft", random_id());
        one_writer_at_a_time(&Store::open(&url, &StorageOptions::new()).unwrap());
    }
}
