//! A file joined from pieces of its present content and new bytes.
//!
//! Copied ranges go through `std::io::copy` between two files, which is `copy_file_range` on Linux: where the file system
//! can (Btrfs, XFS, bcachefs, NFS 4.2) the blocks are shared and nothing is copied, elsewhere the bytes stay in the kernel. So
//! no crate for `FICLONE` is needed; the start of a file is block-aligned by itself, as a shared range must be.
//!
//! A link is followed: the file that it names is replaced, not the link. Owner (where we may) and mode are kept; the time of
//! modification is new, because the content is.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::PoisonError;

use super::{etag_of, failure, replace};
use crate::store::backend::{Attempt, Failure, Tries, outside};
use crate::store::carried::Written;
use crate::store::object::{Condition, ETag};
use crate::store::pieces::Piece;

/// Replaces the file at `path`, which must be `expected`, by `pieces`.
pub(super) fn assemble(path: &Path, pieces: &[Piece], expected: &ETag, tries: &Tries) -> Attempt<Written> {
    let path = fs::canonicalize(path).map_err(|error| failure(&error))?;
    let mut present = File::open(&path).map_err(|error| failure(&error))?;
    let metadata = present.metadata().map_err(|error| failure(&error))?;
    if metadata.is_dir() {
        return Err(Failure::Absent);
    }
    if etag_of(&metadata) != *expected {
        return Err(Failure::Refused);
    }
    for piece in pieces {
        if let Piece::Copy(range) = piece
            && (range.start > range.end || range.end > metadata.len())
        {
            return Err(outside(range, metadata.len()));
        }
    }
    let note = |etag: &ETag| tries.lock().unwrap_or_else(PoisonError::into_inner).push(etag.clone());
    let etag = replace(&path, Some(&Condition::Matches(expected.clone())), note, |file| {
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => file.write_all(bytes)?,
                Piece::Copy(range) => {
                    present.seek(SeekFrom::Start(range.start))?;
                    let length = range.end - range.start;
                    if io::copy(&mut (&present).take(length), file)? != length {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
                    }
                }
            }
        }
        keep_owner_and_mode(file, &metadata)
    })?;
    Ok(Written { etag, version: None })
}

#[cfg(unix)]
fn keep_owner_and_mode(file: &File, metadata: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let created = file.metadata()?;
    if (created.uid(), created.gid()) != (metadata.uid(), metadata.gid()) {
        // Only the superuser may give files away; the content matters more than its owner.
        let _ = fchown(file, Some(metadata.uid()), Some(metadata.gid()));
    }
    file.set_permissions(metadata.permissions())
}

#[cfg(not(unix))]
fn keep_owner_and_mode(file: &File, metadata: &Metadata) -> io::Result<()> {
    file.set_permissions(metadata.permissions())
}
