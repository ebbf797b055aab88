//! The lease on files: the operating system's lock of `lease.json`, and what is written in it.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Attempt, Body, Held, KEY, Lease, LeaseOptions, LeaseState, Left, lost, store_url};
use crate::error::{Error, Result};
use crate::store::{Fence, Store, random_id};

/// Bytes of the file: always the same, so that each write is one whole replacement of the last.
const SIZE: usize = 1024;

/// The locked file.
#[derive(Debug)]
pub(super) struct FileLease {
    file: Mutex<File>,
    path: PathBuf,
    store: String,
    body: Body,
}

impl Fence for FileLease {
    fn check(&self) -> Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(held), Ok(there)) => same_file(&held, &there),
            _ => false,
        };
        if is_same { Ok(()) } else { Err(lost(&self.store, "an operator unlocked it, or its file was removed")) }
    }
}

impl FileLease {
    /// Writes that it was given back. The lock itself goes with the file, when the last fence is dropped: so it is let go
    /// here.
    pub(super) async fn release(self: std::sync::Arc<Self>, clean: bool) -> Option<Left> {
        let left = Left { epoch: self.body.epoch, holder: self.body.holder.id.clone(), etag: None };
        let released = tokio::task::spawn_blocking(move || {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let written = write(&mut file, &Body { released: true, clean, ..self.body.clone() });
            file.unlock().and(written)
        });
        // A lock that cannot be let go is let go by the end of the process, and the next holder counts it as inherited.
        released.await.is_ok_and(|written| written.is_ok()).then_some(left)
    }
}

pub(super) async fn attempt(control: &Store, options: &LeaseOptions) -> Result<Attempt> {
    let ttl = options.ttl;
    let store = store_url(control).to_owned();
    blocking(control, move |path| {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        loop {
            // The file stays for ever: deleting it would let two processes lock two files of one name.
            let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
            match file.try_lock() {
                Ok(())
                    if !std::fs::metadata(&path)
                        .is_ok_and(|there| file.metadata().is_ok_and(|held| same_file(&held, &there))) =>
                {
                    // It was replaced between the opening and the locking.
                }
                Ok(()) => {
                    let before = read(&mut file)?;
                    let body = Body::new(before.as_ref().map_or(1, |before| before.epoch + 1), ttl);
                    write(&mut file, &body)?;
                    let inherited = before.as_ref().is_some_and(|before| !before.clean);
                    let died = before.as_ref().is_some_and(|before| !before.released);
                    let epoch = body.epoch;
                    let lease = FileLease { file: Mutex::new(file), path, store, body };
                    let before = before.filter(|before| before.clean).map(|before| before.holder.id);
                    return Ok(Attempt::Taken(Lease {
                        held: Held::File(lease.into()),
                        epoch,
                        inherited,
                        died,
                        before,
                    }));
                }
                Err(TryLockError::WouldBlock) => {
                    // The holder may be about to write its name.
                    let body = read(&mut file)?.filter(|body| !body.released);
                    return Ok(Attempt::Busy(body.map(|body| LeaseState::of(body, false))));
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    })
    .await
}

/// Who holds it, or held it last.
pub(super) async fn state(control: &Store) -> Result<Option<LeaseState>> {
    blocking(control, |path| {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(body) = read(&mut file)? else { return Ok(None) };
        // A dead holder's lock is free though nobody gave it back. Shared, so that two who look do not see each other.
        let free = body.released || file.try_lock_shared().is_ok();
        Ok(Some(LeaseState::of(body, free)))
    })
    .await
}

/// Puts another file in the place of the one that is locked, with the next epoch.
pub(super) async fn replace(control: &Store) -> Result<bool> {
    blocking(control, |path| {
        let before = match File::open(&path) {
            Ok(mut file) => read(&mut file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some(before) = before else { return Ok(true) };
        let temporary = path.with_file_name(format!(".{}.regraft-tmp", random_id()));
        let mut file = File::options().create_new(true).write(true).open(&temporary)?;
        let body = Body { released: true, clean: false, ..before };
        write(&mut file, &body).and_then(|()| std::fs::rename(&temporary, &path))?;
        Ok(true)
    })
    .await
}

fn read(file: &mut File) -> io::Result<Option<Body>> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    Ok(serde_json::from_str(text.trim_end()).ok())
}

fn write(file: &mut File, body: &Body) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(body)?;
    bytes.resize(bytes.len().max(SIZE), b' ');
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)
}

#[cfg(unix)]
fn same_file(left: &Metadata, right: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (left.dev(), left.ino()) == (right.dev(), right.ino())
}

#[cfg(not(unix))]
fn same_file(left: &Metadata, right: &Metadata) -> bool {
    left.created().ok() == right.created().ok() && left.len() == right.len()
}

async fn blocking<T: Send + 'static>(
    control: &Store,
    work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let url = control.url_of(KEY);
    let Some(path) = control.local_path(KEY) else {
        return Err(Error::internal(format!("`{url}` is no file")));
    };
    tokio::task::spawn_blocking(move || work(path))
        .await
        .map_err(|error| Error::internal(format!("`{url}`: {error}")))?
        .map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::invalid(format!("cannot lock `{url}`: {error}"))
                    .hint("look at the owner and the mode of the directory")
            }
            _ => Error::unavailable(format!("cannot lock `{url}`: {error}")),
        })
}
