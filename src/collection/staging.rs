//! The doors of a turn, and the stage: what an insert is about to overwrite and nobody could compute again.
//!
//! # Problem
//! An insert into a sorted axis moves every later step. Cut off half-way, the old tail is neither in the store nor, perhaps,
//! in any source that still exists.
//!
//! # Design
//! Before the commit is announced, every object of the tail is copied below `<store>.regraft/stage/<id>/`, under its own
//! key: by a second name on files, by the service itself elsewhere. The announcement names the id. Whoever finds it without
//! its end, and the longer axis not yet published, brings the tail back ([`Doors::restore_tail`]) and begins again from the
//! old store. When the commit is recorded the stage is deleted; one that nobody names is swept by the next worker that finds
//! that its predecessor did not let go.

use std::collections::{BTreeSet, HashSet};

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::structure::Structure;
use crate::error::{Error, Result};
use crate::store::{Condition, ETag, PutAnswer, Store, random_id};
use crate::zarr::Array;
use crate::zarr::write::{ArrayWrite, ChunkWriter, Guard, lookups, overwritten, rows_from};

/// Where the stages are, below the control prefix.
const FOLDER: &str = "stage/";
/// Copies and deletions under way at once.
const CONCURRENT: usize = 32;

/// The places that a turn writes to; they refuse when the lease is lost.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    pub(super) store: Store,
    pub(super) control: Store,
    /// The control prefix, for taking back what nobody else knows of: a worker that has lost the lease may still do that.
    pub(super) unfenced: Store,
}

impl Doors {
    /// Which of some objects of an array are there.
    async fn find(&self, array: &Array, indices: &BTreeSet<Vec<u64>>) -> Result<Vec<(String, ETag)>> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.store.find(&lookups(array, indices, self.store.is_at_hand())).await?;
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort();
        Ok(found)
    }

    /// Copies what `writes` will overwrite by moving it; returns the id of the stage, `None` where nothing moves.
    pub(super) async fn stage_tail(&self, writes: impl Iterator<Item = &ArrayWrite>) -> Result<Option<String>> {
        let mut keys = Vec::new();
        let mut moves = false;
        for write in writes {
            let tail = overwritten(write);
            moves |= !tail.is_empty();
            keys.extend(self.find(&write.array, &tail).await?.into_iter().map(|(key, _)| key));
        }
        if !moves {
            return Ok(None);
        }
        let id = random_id();
        match self.copy_to_stage(&keys, &id).await {
            Ok(()) => Ok(Some(id)),
            Err(error) => {
                self.take_back_stage(&id).await;
                Err(error)
            }
        }
    }

    async fn copy_to_stage(&self, keys: &[String], id: &str) -> Result<()> {
        let targets: Vec<String> = keys.iter().map(|key| format!("{FOLDER}{id}/{key}")).collect();
        let tasks: Vec<_> = keys
            .iter()
            .zip(&targets)
            .map(|(key, target)| {
                async move {
                    if self.store.copy_to(key, &self.control, target).await? {
                        return Ok(());
                    }
                    Err(Error::conflict(format!("`{}` went away", self.store.url_of(key))))
                }
                .boxed()
            })
            .collect();
        // All of them, also after a failure: none is to land when the stage was taken back.
        let copied: Vec<Result<()>> = stream::iter(tasks).buffer_unordered(CONCURRENT).collect().await;
        copied.into_iter().collect::<Result<()>>()?;
        self.control.sync(&targets).await
    }

    /// Deletes a stage that was never announced, as far as that can be done.
    pub(super) async fn take_back_stage(&self, id: &str) {
        // The failure that led here is the one to tell; what stays is swept by the next worker.
        let _ = delete_all(&self.unfenced, &format!("{FOLDER}{id}/")).await;
    }

    /// Brings a staged tail back: objects become what they were, and those that were not there are deleted.
    pub(super) async fn restore_tail(&self, id: &str, structure: &Structure, first: u64, longest: u64) -> Result<()> {
        let prefix = format!("{FOLDER}{id}/");
        let staged: Vec<_> = self.control.list(&prefix, None).try_collect().await?;
        let mut there: Vec<(String, ETag)> = Vec::new();
        for array in structure.arrays.iter().filter(|array| array.to_create.is_none()) {
            if let Some(axis) = array.axis {
                let rows = rows_from(&array.array, &array.shape_with_axis(longest), axis, first);
                there.extend(self.find(&array.array, &rows).await?);
            }
        }
        let there: std::collections::HashMap<String, ETag> = there.into_iter().collect();
        let kept: HashSet<&str> = staged.iter().filter_map(|meta| meta.key.strip_prefix(&prefix)).collect();
        let tasks: Vec<_> = staged
            .iter()
            .filter_map(|meta| meta.key.strip_prefix(&prefix).map(|key| (meta, key)))
            .filter(|(meta, key)| there.get(*key) != Some(&meta.etag))
            .map(|(meta, key)| self.restore(&meta.key, key, there.get(key)).boxed())
            .collect();
        stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        self.store.sync(&kept.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()).await?;
        let surplus: Vec<(String, ETag)> =
            there.iter().filter(|(key, _)| !kept.contains(key.as_str())).map(|(k, e)| (k.clone(), e.clone())).collect();
        self.remove(&surplus).await
    }

    async fn restore(&self, from: &str, key: &str, there: Option<&ETag>) -> Result<()> {
        let condition = there.map_or(Condition::Absent, |etag| Condition::Matches(etag.clone()));
        match self.control.copy_if(from, &self.store, key, condition).await? {
            Some(PutAnswer::Ours(_)) => Ok(()),
            Some(PutAnswer::Theirs) => {
                Err(Error::conflict(format!("`{}` was changed by somebody else", self.store.url_of(key))))
            }
            None => Err(Error::conflict(format!("`{}` went away", self.control.url_of(from)))),
        }
    }

    /// Deletes objects that are still what they were.
    async fn remove(&self, objects: &[(String, ETag)]) -> Result<()> {
        let tasks: Vec<_> = objects.iter().map(|(key, etag)| self.remove_one(key, etag).boxed()).collect();
        stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await
    }

    async fn remove_one(&self, key: &str, etag: &ETag) -> Result<()> {
        if ChunkWriter::delete(&self.store, key, &Guard::Unchanged(etag.clone())).await? {
            return Ok(());
        }
        Err(Error::conflict(format!("`{}` was changed by somebody else", self.store.url_of(key))))
    }

    /// Deletes the objects of the arrays that lie wholly between two lengths of the axis.
    pub(super) async fn remove_rows(&self, structure: &Structure, length: u64, longest: u64) -> Result<()> {
        for array in structure.arrays.iter().filter(|array| array.to_create.is_none()) {
            let Some(axis) = array.axis else { continue };
            let side = array.array.object_shape()[axis];
            let rows =
                rows_from(&array.array, &array.shape_with_axis(longest), axis, length.next_multiple_of(side.max(1)));
            let found = self.find(&array.array, &rows).await?;
            self.remove(&found).await?;
        }
        Ok(())
    }

    /// Deletes everything below a path of the store: an array that was never finished.
    pub(super) async fn remove_array(&self, path: &str) -> Result<()> {
        delete_all(&self.store, &format!("{path}/")).await
    }

    /// Deletes a stage.
    pub(super) async fn drop_stage(&self, id: &str) -> Result<()> {
        delete_all(&self.control, &format!("{FOLDER}{id}/")).await
    }

    /// Deletes every stage but one.
    pub(super) async fn sweep_stages(&self, keep: Option<&str>) -> Result<()> {
        let kept = keep.map(|id| format!("{FOLDER}{id}/"));
        let listed: Vec<_> = self.control.list(FOLDER, None).try_collect().await?;
        let doomed = listed.iter().filter(|meta| kept.as_ref().is_none_or(|kept| !meta.key.starts_with(kept)));
        let tasks: Vec<_> = doomed.map(|meta| self.control.delete(&meta.key).boxed()).collect();
        stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await
    }
}

async fn delete_all(place: &Store, prefix: &str) -> Result<()> {
    let listed: Vec<_> = place.list(prefix, None).try_collect().await?;
    let tasks: Vec<_> = listed.iter().map(|meta| place.delete(&meta.key).boxed()).collect();
    stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await
}
