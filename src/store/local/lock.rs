//! An exclusive lock of one directory, held for a comparison and a rename.

use std::fs::File;
use std::io;
use std::path::Path;

/// The lock file where directories themselves cannot be locked (NFS, Windows).
pub(super) const FALLBACK: &str = ".regraft-lock";

/// Released when dropped, and by the operating system when the process dies.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Waits for the lock; holders keep it for microseconds.
    pub(super) fn acquire(directory: &Path) -> io::Result<Self> {
        if let Ok(file) = File::open(directory)
            && file.lock().is_ok()
        {
            return Ok(Self { _file: file });
        }
        let file = File::options().create(true).truncate(false).write(true).open(directory.join(FALLBACK))?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}
