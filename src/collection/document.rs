//! Plans and reports as plain data: they can be printed, saved, reviewed and read back.

use serde::{Deserialize, Serialize};

use super::backfill::PlannedSource;
use super::ledger::{Action, SourceVersion};
use crate::error::{Error, Result};
use crate::progress::Usage;

/// Version of both documents' form.
pub const SCHEMA_VERSION: u32 = 1;

/// What would be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `zarr-plan`.
    pub kind: String,
    /// The collection's name.
    pub collection: String,
    /// URL of the store.
    pub store: String,
    /// URL of the sources.
    pub source: String,
    /// `zarr2` or `zarr3`.
    pub format: String,
    /// Number of the commit that the plan builds on, among the records of the log; 0 where there is none.
    pub base: u64,
    /// Whether the store is to be created.
    pub creates_store: bool,
    /// The axis before and after.
    pub axis: AxisChange,
    /// What becomes of each source.
    pub changes: Vec<Change>,
    /// Chunks touched, by array.
    pub arrays: Vec<ArrayChange>,
    /// The sources with all their labels, for workers that each write a part of the plan; empty where that cannot be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<PlannedSource>,
    /// Sums.
    pub totals: Totals,
}

/// The axis before and after.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisChange {
    /// Name of the dimension.
    pub name: String,
    /// The variables that label it.
    pub key: Vec<String>,
    /// The axis policy.
    pub policy: String,
    /// Length before.
    pub length_before: u64,
    /// Length after.
    pub length_after: u64,
    /// Labels whose index changes.
    pub moved: u64,
}

/// What becomes of one source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Key below the source URL.
    pub key: String,
    /// The version planned; `None` for a removed source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SourceVersion>,
    /// Its ETag, for display.
    #[serde(default)]
    pub etag: Option<String>,
    /// Its size in bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// What is done.
    pub action: Action,
    /// Its first labels, as text.
    pub labels: Vec<String>,
    /// How many labels it has.
    pub label_count: u64,
    /// Index ranges of the store that change, `[start, stop)`, in the store's state after the plan.
    pub indices: Vec<(u64, u64)>,
    /// Why.
    pub reason: String,
    /// Category, where it is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// What was expected and found, where it is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The repair, where it is set aside and one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether a removal was asked for by name: then it holds even where the source still exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// How it ended, in a report: `done`, `quarantined`, `skipped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// Chunks of one array that change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayChange {
    /// Path of the array.
    pub name: String,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Shape after the plan.
    pub shape: Vec<u64>,
    /// Chunk shape.
    pub chunk_shape: Vec<u64>,
    /// Shard shape, where it has shards.
    pub shard_shape: Option<Vec<u64>>,
    /// Number of chunks along each dimension.
    pub grid: Vec<u64>,
    /// Touched chunks, the first [`TOUCHED_LIMIT`].
    pub touched: Vec<TouchedChunk>,
    /// How many are touched.
    pub touched_count: u64,
}

/// Chunks listed by array; beyond it only the count is kept.
pub const TOUCHED_LIMIT: usize = 4096;

/// One chunk that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchedChunk {
    /// Its index in the grid.
    pub index: Vec<u64>,
    /// What becomes of it.
    pub state: ChunkState,
}

/// What becomes of a chunk; a later one wins where several regions of a commit share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkState {
    /// Its steps move along the axis.
    Moved,
    /// Fill.
    Blanked,
    /// A runner-up's values.
    Restored,
    /// Values of the same steps' new version.
    Replaced,
    /// Values of new steps.
    New,
}

/// Sums of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Sources that change.
    pub sources: u64,
    /// Regions that change.
    pub regions: u64,
    /// Chunks touched, of all arrays.
    pub chunks: u64,
    /// Bytes of the sources that are read.
    pub bytes_source: u64,
    /// Sources that are up to date.
    pub unchanged: u64,
}

impl Plan {
    /// Reads a saved plan.
    ///
    /// # Errors
    /// `Invalid` where it is not one, or of another version.
    pub fn from_json(text: &str) -> Result<Self> {
        let plan: Self =
            serde_json::from_str(text).map_err(|error| Error::invalid(format!("not a saved plan: {error}")))?;
        if plan.kind != "zarr-plan" || plan.schema_version != SCHEMA_VERSION {
            return Err(Error::invalid(format!(
                "expected a `zarr-plan` of version `{SCHEMA_VERSION}`, found `{}` of version `{}`",
                plan.kind, plan.schema_version
            ))
            .hint("make the plan again"));
        }
        Ok(plan)
    }
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `zarr-report`.
    pub kind: String,
    /// The collection's name.
    pub collection: String,
    /// URL of the store.
    pub store: String,
    /// Numbers of the log records written.
    pub commits: Vec<u64>,
    /// `done`, `partial` (something was set aside), `nothing`, or `busy` (another writer holds the store).
    pub outcome: String,
    /// What became of each source.
    pub changes: Vec<Change>,
    /// Sources set aside.
    pub quarantined: Vec<QuarantinedSource>,
    /// The axis before and after.
    pub axis: AxisChange,
    /// Chunks touched, by array, of the last commit.
    pub arrays: Vec<ArrayChange>,
    /// Requests and bytes, of sources, store and log together.
    pub usage: Usage,
    /// Chunks by what was done with them.
    pub written: Written,
    /// Wall seconds.
    pub seconds: Seconds,
    /// Intents that were settled.
    #[serde(default)]
    pub settled: u64,
    /// Who held the store, where that kept the run from doing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// A source set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuarantinedSource {
    /// Its key.
    pub key: String,
    /// Category.
    pub category: String,
    /// What was expected and found.
    pub message: String,
    /// The repair, where one is known.
    pub hint: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

/// Chunks by what was done with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the fields of the writer's summary")]
pub struct Written {
    pub chunks_read: u64,
    pub chunks_written: u64,
    pub chunks_copied: u64,
    pub chunks_dropped: u64,
    pub chunks_passed_through: u64,
    pub tiles_decoded: u64,
}

/// Wall seconds by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the stages' own names")]
pub struct Seconds {
    pub wall: f64,
    pub open: f64,
    pub write: f64,
    pub publish: f64,
}
