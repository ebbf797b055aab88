//! Files on this machine, with the promises of object storage.
//!
//! # Problem
//! `object_store`'s `LocalFileSystem` creates exclusively but cannot compare and swap, does not sync, and encodes some
//! names; a Zarr store on disk needs all of it, between threads and between processes.
//!
//! # Design
//! - A key is the file's path below `/`, byte for byte. Segments that are empty, `.` or `..` never get here.
//! - A put writes a temporary file `.<random>.regraft-tmp` beside the target, syncs it, and renames it over the target:
//!   a reader sees the old bytes or the new ones. Listings leave such names out; [`sweep`] removes what a dead writer
//!   left. Whoever holds the writer lock removes all of it, so that a writer who was locked out and comes back has nothing
//!   left to rename. Where others may be writing, what is locked stays: a writer locks its temporary file, and the
//!   lock ends with its process.
//! - The file's content is durable when a put returns; its **name** is durable after [`sync`] of its key, once per
//!   directory and batch, because syncing a directory for every chunk would double the cost of a write.
//! - The [`ETag`] is inode, modification time in nanoseconds, and size. File systems stamp by the tick of the kernel's
//!   clock (up to 4 ms) and reuse inodes at once, so each put adds up to 4 ms of randomness to the stamp; without
//!   it two updates within a tick could bring an old name back.
//! - Compare-and-rename happens under an exclusive lock of the directory ([`DirectoryLock`]), which excludes other
//!   threads and other processes alike, because each holder opens the directory anew.
//! - Reads check that the file did not change below them (other programs write in place).
//!
//! # Caveats
//! - File names that are not UTF-8 cannot be keys and are not listed.
//! - On network file systems the lock is as good as their `flock`. Where files cannot be locked, and between the making of a
//!   temporary file and its locking, a living writer is taken for a dead one: it writes its file again.

mod assemble;
mod lock;
mod walk;

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::lock::DirectoryLock;
pub(super) use self::walk::Walk;
use super::backend::{Attempt, Backend, Cursor, Failure, Page, Part, Tries, outside};
use super::carried::Written;
use super::clock;
use super::object::{Condition, ETag, Object, ObjectMeta};
use super::pieces::Piece;
use super::random::{random_id, up_to};

const TEMPORARY: &str = ".regraft-tmp";

/// Files below `/`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LocalFiles;

#[async_trait]
impl Backend for LocalFiles {
    async fn get(&self, key: &str, part: Part, if_match: Option<&ETag>) -> Attempt<Object> {
        let (key, if_match) = (key.to_owned(), if_match.cloned());
        blocking(move || get(&key, &part, if_match.as_ref())).await
    }

    async fn list_page(&self, cursor: Cursor) -> Attempt<Page> {
        blocking(move || walk::page(cursor)).await
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Option<&Condition>) -> Attempt<ETag> {
        let (key, condition) = (key.to_owned(), condition.cloned());
        blocking(move || put(&path_of(&key), &bytes, condition.as_ref())).await
    }

    async fn delete(&self, key: &str) -> Attempt<()> {
        let path = path_of(key);
        blocking(move || delete(&path, None)).await
    }

    async fn delete_if(&self, key: &str, etag: &ETag) -> Attempt<()> {
        let (path, condition) = (path_of(key), Condition::Matches(etag.clone()));
        blocking(move || delete(&path, Some(&condition))).await
    }

    async fn copy(&self, from: &str, to: &str) -> Attempt<()> {
        let (from, to) = (path_of(from), path_of(to));
        blocking(move || copy(&from, &to)).await
    }

    fn assembles(&self) -> bool {
        true
    }

    async fn assemble(&self, key: &str, pieces: &[Piece], expected: &ETag, tries: &Tries) -> Attempt<Written> {
        let (path, pieces, expected, tries) = (path_of(key), pieces.to_vec(), expected.clone(), tries.clone());
        blocking(move || assemble::assemble(&path, &pieces, &expected, &tries)).await
    }

    async fn link(&self, from: &str, to: &str, condition: &Condition) -> Attempt<ETag> {
        let (from, to, condition) = (path_of(from), path_of(to), condition.clone());
        blocking(move || link(&from, &to, &condition)).await
    }

    async fn rename(&self, from: &str, to: &str) -> Option<Attempt<()>> {
        let (from, to) = (path_of(from), path_of(to));
        Some(blocking(move || rename(&from, &to)).await)
    }

    async fn sync(&self, keys: &[String]) -> Attempt<()> {
        let mut directories: Vec<PathBuf> =
            keys.iter().filter_map(|key| path_of(key).parent().map(Path::to_path_buf)).collect();
        directories.sort_unstable();
        directories.dedup();
        blocking(move || directories.iter().try_for_each(|directory| sync(directory))).await
    }

    async fn sweep(&self, prefix: &str, spare: bool) -> Attempt<u64> {
        let path = path_of(prefix);
        blocking(move || Ok(sweep(&path, spare))).await
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        Some(path_of(key))
    }
}

/// Runs file I/O on the blocking pool, never on a worker of the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Attempt<T> + Send + 'static) -> Attempt<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Failure::Transient("the runtime is shutting down".into())),
    }
}

fn path_of(key: &str) -> PathBuf {
    Path::new("/").join(key)
}

/// What went wrong with a file, for the one who must act on it.
fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::Absent,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Failure::Denied(error.to_string()),
        io::ErrorKind::Interrupted | io::ErrorKind::TimedOut | io::ErrorKind::StaleNetworkFileHandle => {
            Failure::Transient(error.to_string())
        }
        io::ErrorKind::InvalidFilename => Failure::Invalid(error.to_string()),
        _ => Failure::Other(error.to_string()),
    }
}

#[cfg(unix)]
fn etag_of(metadata: &Metadata) -> ETag {
    use std::os::unix::fs::MetadataExt;
    let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    ETag(format!("{:x}-{nanoseconds:x}-{:x}", metadata.ino(), metadata.len()))
}

#[cfg(not(unix))]
fn etag_of(metadata: &Metadata) -> ETag {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    ETag(format!("0-{:x}-{:x}", modified.unwrap_or_default().as_nanos(), metadata.len()))
}

fn meta_of(key: String, metadata: &Metadata) -> ObjectMeta {
    ObjectMeta {
        key,
        size: metadata.len(),
        etag: etag_of(metadata),
        version: None,
        modified: metadata.modified().ok().map(clock::rfc3339),
    }
}

fn get(key: &str, part: &Part, if_match: Option<&ETag>) -> Attempt<Object> {
    let path = path_of(key);
    // Other programs write in place: three looks, then the caller tries again later.
    for _ in 0..3 {
        let mut file = match part {
            Part::Head => None,
            _ => Some(File::open(&path).map_err(|error| failure(&error))?),
        };
        let metadata = match &file {
            Some(file) => file.metadata(),
            None => fs::metadata(&path),
        }
        .map_err(|error| failure(&error))?;
        if metadata.is_dir() {
            return Err(Failure::Absent);
        }
        let etag = etag_of(&metadata);
        if if_match.is_some_and(|expected| *expected != etag) {
            return Err(Failure::Refused);
        }
        let bytes = match &mut file {
            None => Bytes::new(),
            Some(file) => {
                let range = range_of(part, metadata.len())?;
                let bytes = read(file, &range).map_err(|error| failure(&error))?;
                let after = file.metadata().map_err(|error| failure(&error))?;
                if bytes.len() as u64 != range.end - range.start || etag_of(&after) != etag {
                    continue;
                }
                Bytes::from(bytes)
            }
        };
        return Ok(Object { bytes, meta: meta_of(key.to_owned(), &metadata) });
    }
    Err(Failure::Transient("the file changes while it is read".into()))
}

/// The bytes that `part` means in a file of `size` bytes.
fn range_of(part: &Part, size: u64) -> Attempt<Range<u64>> {
    match part {
        Part::Whole => Ok(0..size),
        Part::Head => Ok(0..0),
        Part::Suffix(length) => Ok(size.saturating_sub(*length)..size),
        Part::Range(range) if range.start <= range.end && range.end <= size => Ok(range.clone()),
        Part::Range(range) => Err(outside(range, size)),
    }
}

fn read(file: &mut File, range: &Range<u64>) -> io::Result<Vec<u8>> {
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start))?;
    }
    let length = range.end - range.start;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn put(path: &Path, bytes: &[u8], condition: Option<&Condition>) -> Attempt<ETag> {
    if path.is_dir() {
        return Err(Failure::Invalid(format!("`{}` is a directory", path.display())));
    }
    // Losers of a race leave before they write anything.
    check(path, condition)?;
    replace(path, condition, |_| (), |file| file.write_all(bytes))
}

fn copy(from: &Path, to: &Path) -> Attempt<()> {
    let mut source = File::open(from).map_err(|error| failure(&error))?;
    replace(to, None, |_| (), |file| io::copy(&mut source, file).map(drop)).map(drop)
}

/// Gives `from` the second name `to`, or copies it where the file system has no second names.
fn link(from: &Path, to: &Path, condition: &Condition) -> Attempt<ETag> {
    let metadata = fs::metadata(from).map_err(|error| failure(&error))?;
    check(to, Some(condition))?;
    let directory = to.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        make_directory(directory)?;
    }
    let temporary = directory.join(format!(".{}{TEMPORARY}", random_id()));
    if fs::hard_link(from, &temporary).is_err() {
        let mut source = File::open(from).map_err(|error| failure(&error))?;
        return replace(to, Some(condition), |_| (), |file| io::copy(&mut source, file).map(drop));
    }
    let outcome = DirectoryLock::acquire(directory).map_err(|error| not_absent(&error)).and_then(|_lock| {
        check(to, Some(condition))?;
        give_name(&temporary, to)
    });
    // A rename over another name of the same file leaves both.
    let _ = fs::remove_file(&temporary);
    outcome.map(|()| etag_of(&metadata))
}

/// Writes a temporary file by `write` and renames it over `path` where `condition` holds; `note` hears its name before.
fn replace(
    path: &Path,
    condition: Option<&Condition>,
    note: impl FnOnce(&ETag),
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Attempt<ETag> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let temporary = directory.join(format!(".{}{TEMPORARY}", random_id()));
    let create = || File::options().write(true).create_new(true).open(&temporary);
    let file = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directory(directory)?;
            create()
        }
        outcome => outcome,
    };
    let mut file = file.map_err(|error| not_absent(&error))?;
    // Says that its writer lives. Where it cannot be said, and the file is swept, it is written again.
    let _ = file.try_lock();
    let outcome = write(&mut file)
        .and_then(|()| stamp(&file))
        .and_then(|()| file.sync_data())
        .and_then(|()| file.metadata())
        .map_err(|error| not_absent(&error))
        .and_then(|metadata| {
            let _lock = DirectoryLock::acquire(directory).map_err(|error| not_absent(&error))?;
            check(path, condition)?;
            let etag = etag_of(&metadata);
            note(&etag);
            give_name(&temporary, path)?;
            Ok(etag)
        });
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

/// Renames a temporary file to what it was made for.
fn give_name(temporary: &Path, path: &Path) -> Attempt<()> {
    fs::rename(temporary, path).map_err(|error| match not_absent(&error) {
        // Somebody who removed what a dead writer left took this for one of its files: write it again.
        Failure::Other(reason) if !temporary.exists() => Failure::Transient(reason),
        other => other,
    })
}

/// A missing directory is no absent object: the caller asked to write.
fn not_absent(error: &io::Error) -> Failure {
    match failure(error) {
        Failure::Absent => Failure::Other(error.to_string()),
        other => other,
    }
}

/// Makes `directory` and its parents, and makes the new names durable.
fn make_directory(directory: &Path) -> Attempt<()> {
    let existing = directory.ancestors().find(|ancestor| ancestor.exists());
    fs::create_dir_all(directory).map_err(|error| not_absent(&error))?;
    for parent in directory.ancestors().skip(1) {
        sync(parent)?;
        if Some(parent) == existing {
            break;
        }
    }
    Ok(())
}

/// Makes this write's name unlike that of any write in the same tick of the clock.
fn stamp(file: &File) -> io::Result<()> {
    let written = file.metadata()?.modified()?;
    file.set_modified(written + Duration::from_nanos(u64::from(up_to(4_000_000))))
}

fn check(path: &Path, condition: Option<&Condition>) -> Attempt<()> {
    let Some(condition) = condition else { return Ok(()) };
    let present = match fs::metadata(path) {
        Ok(metadata) => Some(etag_of(&metadata)),
        Err(error) => match failure(&error) {
            Failure::Absent => None,
            other => return Err(other),
        },
    };
    let holds = match condition {
        Condition::Absent => present.is_none(),
        Condition::Matches(etag) => present.as_ref() == Some(etag),
    };
    if holds { Ok(()) } else { Err(Failure::Refused) }
}

fn delete(path: &Path, condition: Option<&Condition>) -> Attempt<()> {
    let Some(directory) = path.parent().filter(|directory| directory.is_dir()) else { return Ok(()) };
    let _lock = DirectoryLock::acquire(directory).map_err(|error| not_absent(&error))?;
    if path.exists() {
        check(path, condition)?;
    }
    match fs::remove_file(path) {
        Err(error) if failure(&error) != Failure::Absent => Err(failure(&error)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Attempt<()> {
    if !from.exists() {
        return Err(Failure::Absent);
    }
    let directory = to.parent().unwrap_or(Path::new("/"));
    make_directory(directory)?;
    let _lock = DirectoryLock::acquire(directory).map_err(|error| not_absent(&error))?;
    fs::rename(from, to).map_err(|error| failure(&error))
}

fn sync(directory: &Path) -> Attempt<()> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // Some file systems cannot sync directories; the content was synced by the put.
        Err(error) if failure(&error) != Failure::Absent && error.kind() != io::ErrorKind::InvalidInput => {
            Err(failure(&error))
        }
        _ => Ok(()),
    }
}

/// Removes the files below `directory` that are ours and no objects; `spare`s those whose writer lives.
fn sweep(directory: &Path, spare: bool) -> u64 {
    let mut removed = 0;
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            // The type of the entry itself: links are not followed.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                pending.push(entry.path());
            } else if let Some(name) = entry.file_name().to_str().filter(|name| is_ours(name)) {
                // Whoever is about to lock a file of locks does not hold it yet.
                let stays = spare && (name == lock::FALLBACK || is_in_use(&entry.path()));
                removed += u64::from(!stays && fs::remove_file(entry.path()).is_ok());
            }
        }
    }
    removed
}

/// Whether a process holds the lock of a file. Asked by a shared one, so that two who look do not see each other.
fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Names that are ours and no objects.
fn is_ours(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(TEMPORARY) || name == lock::FALLBACK)
}
