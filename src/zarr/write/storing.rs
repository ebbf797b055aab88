//! The last step of one object: waiting until nobody needs what it overwrites, and putting it under its guard.

use bytes::Bytes;
use tokio::sync::watch;

use super::chunk_writer::{ChunkWriter, Guard};
use super::job::ArrayWork;
use crate::error::{Context, Error, Result};

/// Says that an old object is needed no longer, and what then guards its overwriting.
pub(super) type Released = watch::Receiver<Freed>;

/// What has become of an old object that others need.
pub(super) enum Freed {
    NotYet,
    Moved,
    Read(Guard),
}

/// What became of one object.
pub(super) enum Outcome {
    Written(String),
    Dropped,
    Copied,
}

/// Waits until nobody needs what is going to be overwritten, and returns what guards the overwriting, if anybody read it.
pub(super) async fn wait_until_free(released: Vec<Released>, mut guard: Option<Guard>) -> Result<Option<Guard>> {
    for mut released in released {
        match released.wait_for(|freed| !matches!(freed, Freed::NotYet)).await {
            Ok(read) => {
                if let (None, Freed::Read(read)) = (&guard, &*read) {
                    guard = Some(read.clone());
                }
            }
            // The reader failed, and its error is the one that counts.
            Err(_) => return Err(Error::internal("an object was to be overwritten before it was moved")),
        }
    }
    Ok(guard)
}

/// What is put where nothing but fill is left. A deletion that stood still on its way could hit what somebody else wrote
/// since, where it is not one step with its condition: there an object that is there is replaced by fill.
pub(super) fn instead_of_nothing(
    place: &dyn ChunkWriter,
    work: &ArrayWork,
    encoded: Option<Bytes>,
    guard: &Guard,
) -> Result<Option<Bytes>> {
    match (encoded, guard) {
        (None, Guard::Unchanged(_)) if !place.is_at_hand() => work.empty_object().map(Some),
        (encoded, _) => Ok(encoded),
    }
}

/// Puts or deletes one object.
pub(super) async fn put(
    place: &dyn ChunkWriter,
    key: String,
    encoded: Option<Bytes>,
    guard: &Guard,
) -> Result<Outcome> {
    let context = || format!("while writing `{}`", place.address(&key));
    let done = match encoded {
        None => place.delete(&key, guard).await.context(context)?.then_some(Outcome::Dropped),
        Some(bytes) => {
            let written = place.put(&key, bytes, guard).await.context(context)?;
            written.then(|| Outcome::Written(key.clone()))
        }
    };
    done.ok_or_else(|| refused(place, &key, guard))
}

pub(super) fn refused(place: &dyn ChunkWriter, key: &str, guard: &Guard) -> Error {
    let what = if *guard == Guard::Absent { "was created" } else { "was changed" };
    Error::conflict(format!("`{}` {what} by somebody else while it was being rewritten", place.address(key)))
        .hint("run the same command again: it plans from what is there now")
}
