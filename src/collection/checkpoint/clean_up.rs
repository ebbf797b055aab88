//! What older checkpoints and the log behind them leave to be deleted.

use std::collections::HashSet;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::manifest::{FOLDER, Manifest, key_of};
use crate::error::Result;
use crate::ledger::Log;
use crate::store::Store;

/// Records of the log that stay for `history` and for whoever waits for an intent, whatever checkpoints cover.
pub const KEPT_RECORDS: u64 = 1000;
/// Objects deleted side by side.
const CONCURRENT: usize = 16;

/// Deletes checkpoints before the last two, files that only they list, and records that both of the two cover.
///
/// Files that no checkpoint lists may belong to one that is being written right now, which covers more than the older of the
/// two: only files of lower numbers are deleted.
pub(super) async fn clean_up(control: &Store, latest: &Manifest) -> Result<()> {
    let numbers = Manifest::numbers(control).await?;
    let Some(&before) = numbers.iter().rev().find(|number| **number < latest.number) else { return Ok(()) };
    let Some(previous) = Manifest::read(control, before).await? else { return Ok(()) };
    let kept: HashSet<&str> = latest.files().chain(previous.files()).collect();
    // First the lists, then what they list: a reader that finds a list finds its files, unless it is very slow.
    let lists: Vec<String> = numbers.into_iter().filter(|number| *number < before).map(key_of).collect();
    delete(control, lists).await?;
    let mut files = Vec::new();
    let mut listing = control.list(FOLDER, None);
    while let Some(meta) = listing.try_next().await? {
        if file_number(&meta.key).is_some_and(|number| number < before) && !kept.contains(meta.key.as_str()) {
            files.push(meta.key);
        }
    }
    delete(control, files).await?;
    delete(control, Log::keys_up_to(control, before.min(latest.number.saturating_sub(KEPT_RECORDS))).await?).await
}

/// The number in the name of a file of rows.
fn file_number(key: &str) -> Option<u64> {
    let name = key.strip_prefix(FOLDER)?.strip_suffix(".parquet")?;
    name.split('-').nth(1)?.parse().ok()
}

async fn delete(control: &Store, keys: Vec<String>) -> Result<()> {
    let tasks: Vec<_> = keys.into_iter().map(|key| async move { control.delete(&key).await }).collect();
    stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect::<()>().await
}
