//! What a checkpoint consists of: one small object, created once.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::runs::{Run, Segment};
use crate::collection::axis_labels::AxisOrder;
use crate::collection::journal::Crashes;
use crate::error::{Error, Result};
use crate::store::{Condition, PutAnswer, Store, random_id};

/// Where checkpoints lie below the control prefix.
pub(super) const FOLDER: &str = "checkpoint/";
const VERSION: u64 = 1;

/// What a ledger adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Sources that are there or set aside.
    pub sources: u64,
    /// Sources none of whose labels is their own.
    pub runners_up: u64,
    /// Sources that are set aside.
    pub quarantined: u64,
    /// Labels that a source holds or owns.
    pub labels: u64,
}

/// A checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) schema_version: u64,
    /// Makes the bytes of every try its own, so that reading back tells whose they are.
    pub(super) nonce: String,
    /// The last record that it covers.
    pub(super) number: u64,
    /// The time of the last commit.
    pub(super) last_time: Option<String>,
    pub(super) counts: Counts,
    /// How the labels of the axis follow one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) axis_order: Option<AxisOrder>,
    /// Sources that somebody died on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) crashes: BTreeMap<String, Crashes>,
    /// The backfill that was published last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finished_backfill: Option<String>,
    /// Runs of rows about sources, the latest first.
    pub(super) sources: Vec<Run>,
    /// Runs of rows about labels, the latest first.
    pub(super) labels: Vec<Run>,
}

impl Manifest {
    pub(super) fn new(number: u64) -> Self {
        Self { schema_version: VERSION, nonce: random_id(), number, ..Self::default() }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().chain(&self.labels).flatten().map(|segment: &Segment| segment.file.as_str())
    }

    /// The numbers of all checkpoints, in order.
    pub(super) async fn numbers(control: &Store) -> Result<Vec<u64>> {
        // The digits of a number begin with 0 for a few billion years; files of rows do not.
        let mut keys = control.list(&format!("{FOLDER}0"), None);
        let mut numbers = Vec::new();
        while let Some(meta) = keys.try_next().await? {
            numbers.extend(number_of(&meta.key));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads a checkpoint; `None` where it was cleaned up.
    pub(super) async fn read(control: &Store, number: u64) -> Result<Option<Self>> {
        let key = key_of(number);
        let Some(object) = control.get(&key).await? else { return Ok(None) };
        let url = control.url_of(&key);
        let manifest: Self = serde_json::from_slice(&object.bytes)
            .map_err(|error| Error::corrupt(format!("`{url}` is no checkpoint: {error}")).hint(REPAIR))?;
        if manifest.schema_version > VERSION {
            return Err(Error::invalid(format!(
                "`{url}`: expected a checkpoint of version `{VERSION}`, found `{}`",
                manifest.schema_version
            ))
            .hint("the store was written by a later version: upgrade regraft"));
        }
        if manifest.number != number {
            return Err(Error::corrupt(format!("`{url}`: expected number `{number}`, found `{}`", manifest.number))
                .hint(REPAIR));
        }
        Ok(Some(manifest))
    }

    /// Makes it the latest; `false` where somebody else has written one of this number.
    pub(super) async fn create(&self, control: &Store) -> Result<bool> {
        let body = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::internal(format!("a checkpoint cannot be written as JSON: {error}")))?;
        let key = key_of(self.number);
        match control.put_if(&key, Bytes::from(body), Condition::Absent).await? {
            PutAnswer::Ours(_) => {
                control.sync(&[key]).await?;
                Ok(true)
            }
            PutAnswer::Theirs => Ok(false),
        }
    }
}

const REPAIR: &str =
    "where the log still begins at 1, delete the folder `checkpoint`; otherwise restore it from a backup";

pub(super) fn key_of(number: u64) -> String {
    format!("{FOLDER}{number:020}.json")
}

fn number_of(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(FOLDER)?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}
