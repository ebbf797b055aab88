//! Files that tell readers about the other files of a data set: `_metadata` and `_common_metadata`.
//!
//! `_metadata` repeats the footers of all files: readers that use it (Dask, fastparquet, `pyarrow.dataset.parquet_dataset`)
//! never look at the footers themselves. After a migration it lies: new columns are not in it, and in a file that is laid
//! out anew its offsets point into other columns. So an `apply` that would make it lie is refused; the user deletes it, or
//! says `data: {sidecars: keep}` and writes it again afterwards. `_common_metadata` holds a schema only: readers that
//! believe it miss new columns, which the plan warns of.
//!
//! Sidecars above the prefixes that are listed are looked for one by one: two requests for each folder.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::Migrations;
use super::config::Sidecars;
use super::document::{Plan, PlannedObject, State};
use crate::error::{Error, Result};

/// The footers of other files.
const FOOTERS: &str = "_metadata";
/// The schema of other files.
const SCHEMA: &str = "_common_metadata";
/// Requests side by side.
const CONCURRENT: usize = 16;

/// Whether a key is that of a sidecar, and lies where readers look.
pub(super) fn is_sidecar(key: &str) -> bool {
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    let hidden = |segment: &str| segment.starts_with('.') || (segment.starts_with('_') && !segment.contains('='));
    (name == FOOTERS || name == SCHEMA) && !folder.split('/').any(hidden)
}

/// The folder of a key, with a `/` at the end, and those above it, up to the data set's own, which is empty.
fn folders(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('/').map(|(at, _)| &key[..=at]).chain([""])
}

/// Whether a sidecar tells about `key`.
fn describes(sidecar: &str, key: &str) -> bool {
    key.starts_with(&sidecar[..sidecar.rfind('/').map_or(0, |at| at + 1)])
}

impl Migrations {
    /// The sidecars that tell about pending objects: those that were `listed`, and those that a listing does not show.
    pub(super) async fn sidecars(
        &self,
        mut listed: Vec<String>,
        asked: Option<&[String]>,
        objects: &[PlannedObject],
    ) -> Result<Vec<String>> {
        let pending = || objects.iter().filter(|object| object.state == State::Pending);
        let mut unseen: BTreeSet<&str> = BTreeSet::new();
        if asked.is_some() {
            unseen.extend(pending().flat_map(|object| folders(&object.key)));
        } else if pending().next().is_some() {
            let prefixes = self.selection.prefixes();
            let above = prefixes.iter().flat_map(|prefix| folders(prefix));
            unseen.extend(above.filter(|folder| !prefixes.iter().any(|prefix| folder.starts_with(prefix.as_str()))));
        }
        let keys: Vec<String> =
            unseen.iter().flat_map(|folder| [FOOTERS, SCHEMA].map(|name| format!("{folder}{name}"))).collect();
        listed.extend(self.present(keys).await?);
        listed.retain(|sidecar| pending().any(|object| describes(sidecar, &object.key)));
        listed.sort();
        Ok(listed)
    }

    /// Those of `keys` that there are.
    async fn present(&self, keys: Vec<String>) -> Result<Vec<String>> {
        let found: Vec<Option<String>> = stream::iter(keys)
            .map(|key| async move { Ok::<_, Error>(self.data.head(&key).await?.map(|_| key)) })
            .buffered(CONCURRENT)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Refuses a plan that would make a sidecar lie which is still there.
    pub(super) async fn refuse_sidecars(&self, plan: &Plan) -> Result<()> {
        if self.config.data.sidecars == Sidecars::Keep {
            return Ok(());
        }
        let footers = plan.sidecars.iter().filter(|sidecar| holds_footers(sidecar)).cloned().collect();
        match self.present(footers).await?.first() {
            None => Ok(()),
            Some(sidecar) => Err(Error::invalid(format!(
                "`{}` repeats the footers of files that would be migrated: readers that use it would read wrong bytes",
                self.data.url_of(sidecar)
            ))
            .hint("delete it, and write it again afterwards; or say `data: {sidecars: keep}`")),
        }
    }
}

/// What a plan warns of.
pub(super) fn warnings(sidecars: &[String]) -> impl Iterator<Item = String> {
    sidecars.iter().map(|sidecar| {
        if holds_footers(sidecar) {
            format!(
                "`{sidecar}` repeats the footers of files: readers that use it (Dask, fastparquet) would read wrong bytes \
                 after the migration; delete it before, and write it again afterwards"
            )
        } else {
            format!("`{sidecar}` holds the schema before: readers that use it will miss new columns; write it again afterwards")
        }
    })
}

fn holds_footers(sidecar: &str) -> bool {
    sidecar.rsplit('/').next() == Some(FOOTERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_tells_about_what_lies_below_its_folder() {
        assert!(is_sidecar("_metadata") && is_sidecar("year=1/_day=2/_common_metadata"));
        assert!(!is_sidecar("_temporary/_metadata") && !is_sidecar("a/_metadata.json") && !is_sidecar("_SUCCESS"));
        assert!(describes("_metadata", "a/b") && describes("a/_metadata", "a/b/c"));
        assert!(!describes("a/_metadata", "b/c") && !describes("a/_metadata", "ab"));
        assert_eq!(folders("a/b/c").collect::<Vec<_>>(), ["a/", "a/b/", ""]);
    }
}
