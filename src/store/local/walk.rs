//! Listing files in the order of their keys, a page at a time.
//!
//! Keys sort by bytes, so a directory sorts as its name with `/` behind it: `a.txt` comes before `a/b`, since `.` is
//! before `/`. Sorting each directory's entries that way makes the walk's order the order of whole keys. One directory is
//! in memory at a time per level. Links to directories are followed, except to a directory that the walk is inside of.

use std::fs;
use std::path::PathBuf;

use super::super::backend::{Attempt, Cursor, Failure, Page};
use super::{failure, is_ours, meta_of, path_of};

/// Objects in a page.
const PAGE: usize = 1000;

/// Where a walk stands: for each level its remaining entries, the next one last.
#[derive(Debug, Default)]
pub(in super::super) struct Walk {
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// The real path, to notice circles.
    identity: Option<PathBuf>,
    /// Full keys; directories end with `/`.
    entries: Vec<String>,
}

/// The next page after `cursor`.
pub(super) fn page(mut cursor: Cursor) -> Attempt<Page> {
    let mut walk = if let Some(walk) = cursor.walk.take() {
        walk
    } else {
        let directory = cursor.prefix.rfind('/').map_or("", |end| &cursor.prefix[..=end]);
        Walk { levels: Level::open(directory, &cursor)?.into_iter().collect() }
    };
    let mut objects = Vec::new();
    while let Some(level) = walk.levels.last_mut() {
        let Some(entry) = level.entries.pop() else {
            walk.levels.pop();
            continue;
        };
        if entry.ends_with('/') {
            if let Some(level) = Level::open(&entry, &cursor)?
                && !walk.levels.iter().any(|outer| outer.identity == level.identity)
            {
                walk.levels.push(level);
            }
        } else {
            // A file that went away since its directory was read is not there.
            match fs::metadata(path_of(&entry)) {
                Ok(metadata) => objects.push(meta_of(entry, &metadata)),
                Err(error) if failure(&error) == Failure::Absent => {}
                Err(error) => return Err(failure(&error)),
            }
            if objects.len() == PAGE {
                cursor.walk = Some(walk);
                return Ok(Page { objects, next: Some(cursor) });
            }
        }
    }
    Ok(Page { objects, next: None })
}

impl Level {
    /// The entries of `directory` (a key that ends with `/`, or "" for the root) that `cursor` asks for.
    fn open(directory: &str, cursor: &Cursor) -> Attempt<Option<Self>> {
        let path = path_of(directory);
        let listing = match fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if failure(&error) == Failure::Absent => return Ok(None),
            Err(error) => return Err(failure(&error)),
        };
        let mut entries = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|error| failure(&error))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !is_ours(name)) else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            let kind = if kind.is_symlink() {
                // A dangling link is no object.
                let Ok(target) = fs::metadata(entry.path()) else { continue };
                target.file_type()
            } else {
                kind
            };
            if !kind.is_dir() && !kind.is_file() {
                continue;
            }
            let key = format!("{directory}{name}{}", if kind.is_dir() { "/" } else { "" });
            if wanted(&key, cursor) {
                entries.push(key);
            }
        }
        entries.sort_unstable_by(|left, right| right.cmp(left));
        Ok(Some(Self { identity: fs::canonicalize(&path).ok(), entries }))
    }
}

/// Whether `entry`, or a key below it, can be in the listing.
fn wanted(entry: &str, cursor: &Cursor) -> bool {
    let directory = entry.ends_with('/');
    let inside = entry.starts_with(&cursor.prefix) || (directory && cursor.prefix.starts_with(entry));
    let later =
        cursor.start_after.as_deref().is_none_or(|after| entry > after || (directory && after.starts_with(entry)));
    inside && later
}
