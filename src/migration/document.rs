//! Plans as plain data: they can be printed, saved, reviewed, cut into shards and read back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cost::{Dollars, Requests};
use crate::error::{Error, Result};
use crate::parquet::Layout;

/// Version of the documents' form.
pub const SCHEMA_VERSION: u32 = 1;

/// What is to become of an object, or has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// To be migrated.
    Pending,
    /// At the target.
    Done,
    /// No steps lead from its version to the target.
    MissingStep,
    /// Somebody else changed it: their data are kept.
    Conflict,
    /// It cannot be migrated.
    Error,
    /// Left alone.
    Skipped,
    /// What a run did to it was undone.
    RolledBack,
    /// In the data set, and no Parquet file.
    NotParquet,
    /// Its version is past the target.
    Newer,
}

impl State {
    /// Its name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::MissingStep => "missing_step",
            Self::Conflict => "conflict",
            Self::Error => "error",
            Self::Skipped => "skipped",
            Self::RolledBack => "rolled_back",
            Self::NotParquet => "not_parquet",
            Self::Newer => "newer",
        }
    }
}

/// What went wrong with one object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trouble {
    /// What was expected and found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The repair, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same may succeed later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retryable: bool,
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self {
            message: Some(error.message()),
            hint: error.hint_text().map(str::to_owned),
            retryable: error.retryable(),
        }
    }
}

/// What would be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `parquet-plan`.
    pub kind: String,
    /// Name of the migration set.
    pub set: String,
    /// URL of the data set.
    pub data: String,
    /// The version to reach.
    pub target: u64,
    /// When it was made, for display.
    pub created: String,
    /// Every object of the data set, by key.
    pub objects: Vec<PlannedObject>,
    /// The steps of the set.
    pub steps: Vec<PlannedStep>,
    /// Applied steps whose definition is another one now; `apply` refuses while there are any.
    #[serde(default)]
    pub edited: Vec<EditedStep>,
    /// What to know before applying it.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Files that tell readers about pending objects, and would tell them something wrong afterwards.
    #[serde(default)]
    pub sidecars: Vec<String>,
    /// Sums.
    pub totals: Totals,
}

/// What would become of one object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedObject {
    /// Key below the data set's URL.
    pub key: String,
    /// The content that was planned.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// Its version in the bucket, where it keeps versions.
    #[serde(default)]
    pub version_id: Option<String>,
    /// Rows.
    #[serde(default)]
    pub rows: u64,
    /// Row groups.
    #[serde(default)]
    pub row_groups: u64,
    /// Bytes of the footer with its length and magic.
    #[serde(default)]
    pub footer: u64,
    /// The version it has.
    #[serde(default)]
    pub from: Option<u64>,
    /// The version to reach.
    pub to: u64,
    /// Where its version stands: `footer`, `tag` or `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_from: Option<String>,
    /// Indices of the steps of the way.
    #[serde(default)]
    pub steps: Vec<usize>,
    /// What is to be done.
    pub state: State,
    /// How it would be laid out.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// Why so.
    #[serde(default)]
    pub reason: Option<String>,
    /// How it could be undone: `version`, `prefix`, or not at all.
    #[serde(default)]
    pub roll_back: Option<String>,
    /// Bytes that would be read.
    #[serde(default)]
    pub bytes_read: u64,
    /// Bytes that would be copied without travelling.
    #[serde(default)]
    pub bytes_copied: u64,
    /// Bytes that would be written, estimated.
    #[serde(default)]
    pub bytes_written_estimate: u64,
    /// Whether it would be read and put whole.
    #[serde(default)]
    pub whole: bool,
    /// Bytes of memory that it would hold at once.
    #[serde(default)]
    pub memory: u64,
    /// Requests that it would take.
    #[serde(default)]
    pub requests: Requests,
    /// What is said twice and differs, where it is to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<String>,
    /// Why not, where nothing is done.
    #[serde(flatten)]
    pub trouble: Trouble,
}

/// One step of the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The version before.
    pub from: u64,
    /// The version after.
    pub to: u64,
    /// Its name.
    pub name: String,
    /// Its definition.
    pub fingerprint: String,
    /// Its inputs, as first bound.
    #[serde(default)]
    pub reads: Vec<String>,
    /// Its results and their types, as first bound.
    #[serde(default)]
    pub adds: BTreeMap<String, String>,
    /// Columns that it drops.
    #[serde(default)]
    pub drops: Vec<String>,
    /// Columns that it renames.
    #[serde(default)]
    pub renames: BTreeMap<String, String>,
}

/// An applied step whose definition is another one now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditedStep {
    /// The version before.
    pub from: u64,
    /// The version after.
    pub to: u64,
    /// The definition that was applied.
    pub applied: String,
    /// The definition in the configuration.
    pub present: String,
    /// Objects that were migrated by it.
    pub objects: u64,
    /// One of them.
    pub key: String,
}

/// Sums of a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Objects in the data set.
    pub objects: u64,
    /// Objects by state.
    #[serde(flatten)]
    pub states: BTreeMap<State, u64>,
    /// Bytes of the pending objects.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes that would be read.
    #[serde(default)]
    pub bytes_read: u64,
    /// Bytes that would be copied without travelling.
    #[serde(default)]
    pub bytes_copied: u64,
    /// Bytes that would be written, estimated.
    #[serde(default)]
    pub bytes_written: u64,
    /// Requests.
    #[serde(default)]
    pub requests: Requests,
    /// Wall seconds, estimated.
    #[serde(default)]
    pub seconds: f64,
    /// Where the rate comes from: `assumed`, or the run that it was measured in.
    #[serde(default)]
    pub rate_from: String,
    /// Dollars, estimated.
    #[serde(default)]
    pub dollars: Dollars,
}

impl Plan {
    /// Reads a saved plan.
    ///
    /// # Errors
    /// `Invalid` where it is not one, or of another version.
    pub fn from_json(text: &str) -> Result<Self> {
        let plan: Self =
            serde_json::from_str(text).map_err(|error| Error::invalid(format!("not a saved plan: {error}")))?;
        if plan.kind != "parquet-plan" || plan.schema_version != SCHEMA_VERSION {
            return Err(Error::invalid(format!(
                "expected a `parquet-plan` of version `{SCHEMA_VERSION}`, found `{}` of version `{}`",
                plan.kind, plan.schema_version
            ))
            .hint("make the plan again"));
        }
        Ok(plan)
    }

    /// The pending objects of shard `number` of `count`, counted from 1: every `count`-th of those sorted by key, so that
    /// shards are alike in size, and every object is in exactly one.
    ///
    /// # Errors
    /// `Invalid` where there is no such shard.
    pub fn shard(&self, number: u64, count: u64) -> Result<Vec<&PlannedObject>> {
        if number == 0 || number > count {
            return Err(Error::invalid(format!("expected a shard from `1` to `{count}`, found `{number}`")));
        }
        let mut objects: Vec<_> = self.objects.iter().filter(|object| object.state == State::Pending).collect();
        objects.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(objects.into_iter().skip((number - 1) as usize).step_by(count as usize).collect())
    }
}
