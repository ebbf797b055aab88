//! The configuration of a collection as the core sees it: the Python models' JSON with every default filled in.
//!
//! The models in `regraft.config` own validation, defaults, inheritance and the JSON Schema; this is their mirror, and it
//! refuses unknown fields so that the two cannot drift apart unseen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::StorageOptions;

/// One collection: a named set of NetCDF sources and the Zarr store made from them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Always `zarr-collection`.
    pub kind: String,
    /// The collection's name.
    pub name: String,
    /// Where the sources are.
    pub source: SourceConfig,
    /// Where the store is and how it is laid out.
    pub store: StoreConfig,
    /// How a source finds its place.
    pub region: RegionConfig,
    /// Which variables are taken, and how they are stored.
    #[serde(default)]
    pub variables: VariablesConfig,
    /// What may not change from source to source.
    #[serde(default)]
    pub guards: GuardsConfig,
    /// Memory, workers, batches.
    #[serde(default)]
    pub run: RunConfig,
}

/// Where the sources are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// URL of the folder or prefix that holds the sources.
    pub url: String,
    /// Options of the object store.
    #[serde(default)]
    pub storage_options: StorageOptions,
    /// Globs, or regular expressions written `re:…`, on the key below `url`; empty takes every `.nc` and `.nc4`.
    #[serde(default)]
    pub include: Vec<String>,
    /// Keys left out, in the same notation.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Name of the hook; the function itself is passed beside the configuration.
    #[serde(default)]
    pub preprocess: Option<String>,
}

/// Zarr format of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the formats' own names")]
pub enum StoreFormat {
    Zarr2,
    Zarr3,
}

/// Where the store is and how it is laid out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// URL of the Zarr store.
    pub url: String,
    /// Options of the object store.
    #[serde(default)]
    pub storage_options: StorageOptions,
    /// Format of a store that is created; an existing one keeps its own.
    #[serde(default = "zarr3")]
    pub format: StoreFormat,
    /// Chunk length of each dimension; a dimension not named is one chunk.
    #[serde(default)]
    pub chunks: BTreeMap<String, u64>,
    /// Shard length of each dimension (zarr3).
    #[serde(default)]
    pub shards: Option<BTreeMap<String, u64>>,
    /// Codec of the chunks of a store that is created.
    #[serde(default)]
    pub codec: Codec,
    /// Compression level, the codec's own scale.
    #[serde(default)]
    pub level: Option<i32>,
    /// Name of an array along the axis that holds the key of each region's source.
    #[serde(default)]
    pub provenance: Option<String>,
    /// What becomes of a chunk that is all fill.
    #[serde(default)]
    pub empty_chunks: EmptyChunksConfig,
}

fn zarr3() -> StoreFormat {
    StoreFormat::Zarr3
}

/// Codec of the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the codecs' own names")]
pub enum Codec {
    #[default]
    Zstd,
    Blosc,
    Gzip,
    Zlib,
    /// The source's own, so that encoded chunks pass through.
    Source,
    None,
}

/// What becomes of a chunk that is all fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmptyChunksConfig {
    /// The object is deleted or never written.
    #[default]
    Drop,
    /// It is written like any other.
    Fill,
}

/// How a source finds its place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    /// The variables whose values label a step of the axis; more than one are joined.
    pub key: OneOrMany,
    /// The axis dimension; the key's own first dimension where it is not said.
    #[serde(default)]
    pub dimension: Option<String>,
    /// The axis policy.
    #[serde(default)]
    pub axis: AxisConfig,
    /// Who wins where two sources claim one label.
    #[serde(default)]
    pub winner: WinnerConfig,
    /// What becomes of a region whose source is removed.
    #[serde(default)]
    pub on_remove: OnRemove,
    /// Tolerance of float labels and grids in their own units; by default a thousandth of the grid's step.
    #[serde(default)]
    pub tolerance: Option<f64>,
}

/// One name or several.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a slice.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::Many(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

/// The axis policy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisConfig {
    /// Which policy.
    #[serde(default)]
    pub policy: AxisPolicyName,
    /// First label of a regular axis, as text (RFC 3339 for time) or number.
    #[serde(default)]
    pub start: Option<serde_json::Value>,
    /// Step of a regular axis: a number in the key's units, or seconds written `3600s`, for time.
    #[serde(default)]
    pub step: Option<serde_json::Value>,
}

/// Names of the axis policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AxisPolicyName {
    /// `start + index · step`: the slot by arithmetic.
    Regular,
    /// Ascending: a late label is inserted.
    #[default]
    Sorted,
    /// In order of arrival: a new label is appended.
    Arrival,
    /// No label is added.
    Fixed,
}

/// Who wins where two sources claim one label.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WinnerConfig {
    /// The source last modified; equal times by key.
    #[default]
    Latest,
    /// The first pattern that matches the key; equal ones by `latest`.
    Priority(Vec<String>),
    /// The later claimant is quarantined.
    Error,
}

/// What becomes of a region whose source is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemove {
    /// The runner-up's data comes back, else it is blanked.
    #[default]
    Restore,
    /// It is blanked with each variable's fill value.
    Blank,
    /// It stays as it is.
    Keep,
}

/// Which variables are taken, and how they are stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariablesConfig {
    /// Names taken; empty takes all that can be stored.
    #[serde(default)]
    pub include: Vec<String>,
    /// Names left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Length in the store of dimensions that vary from source to source.
    #[serde(default)]
    pub pad: BTreeMap<String, u64>,
    /// What a variable absent from one source means.
    #[serde(default)]
    pub missing: Missing,
    /// Packing in the store, by variable; one that is not named keeps its source's.
    #[serde(default)]
    pub packing: BTreeMap<String, PackingConfig>,
    /// How character arrays are stored.
    #[serde(default)]
    pub strings: Option<Strings>,
}

/// What a variable absent from one source means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// Its region becomes fill.
    #[default]
    Fill,
    /// The source is quarantined.
    Error,
}

/// How character arrays are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strings {
    /// Fixed-length bytes, `|S…`.
    Fixed,
    /// Variable-length UTF-8.
    Utf8,
}

/// Packing of one variable in the store (CF conventions, section 8.1).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackingConfig {
    /// Data type in the store, a NumPy name (`int16`).
    #[serde(default)]
    pub dtype: Option<String>,
    /// `scale_factor`.
    #[serde(default)]
    pub scale: Option<f64>,
    /// `add_offset`.
    #[serde(default)]
    pub offset: Option<f64>,
    /// `_FillValue`, in packed units.
    #[serde(default)]
    pub fill: Option<f64>,
    /// The largest error allowed, in unpacked units; by default half a step of the packing.
    #[serde(default)]
    pub max_error: Option<f64>,
}

/// What may not change from source to source.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardsConfig {
    /// Dimensions, data types and grids.
    #[serde(default = "guard_error")]
    pub structure: Guard,
    /// A revised source that owns fewer labels than before.
    #[serde(default = "guard_error")]
    pub shrink: Guard,
}

impl Default for GuardsConfig {
    fn default() -> Self {
        Self { structure: Guard::Error, shrink: Guard::Error }
    }
}

fn guard_error() -> Guard {
    Guard::Error
}

/// How strict a guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// The source is quarantined.
    Error,
    /// It is taken as far as it fits.
    Allow,
}

/// Memory, workers, batches.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Bytes of decoded and encoded data held at once.
    pub memory: u64,
    /// Sources opened at once; 0 chooses by the machine.
    pub workers: usize,
    /// When a batch becomes a commit.
    pub batch: BatchConfig,
    /// When a source is set aside.
    pub quarantine: QuarantineConfig,
    /// A checkpoint of the ledger is written every so many records.
    pub checkpoint: u64,
    /// Declares that nobody else writes, for a store without conditional puts.
    pub single_writer: bool,
    /// Seconds after its last sign of life in which nobody takes a writer for dead; on object storage.
    pub lease: f64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            memory: 2 << 30,
            workers: 0,
            batch: BatchConfig::default(),
            quarantine: QuarantineConfig::default(),
            checkpoint: 100,
            single_writer: false,
            lease: 30.0,
        }
    }
}

/// When a batch becomes a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Sources in one commit at most.
    #[serde(default = "default_batch_files")]
    pub files: usize,
    /// Seconds that a watcher waits for more.
    #[serde(default)]
    pub wait: f64,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { files: default_batch_files(), wait: 30.0 }
    }
}

fn default_batch_files() -> usize {
    100
}

/// When a source is set aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineConfig {
    /// Attempts after which a source that kills its worker is set aside.
    #[serde(default = "default_attempts")]
    pub after: u32,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self { after: default_attempts() }
    }
}

fn default_attempts() -> u32 {
    3
}

impl Config {
    /// Reads the JSON that the Python models dump.
    ///
    /// # Errors
    /// `Invalid` where it is not such a document.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("collection configuration: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_configuration_has_every_default() {
        let config = Config::from_json(
            r#"{"kind":"zarr-collection","name":"sst","source":{"url":"in"},"store":{"url":"out"},"region":{"key":"time"}}"#,
        )
        .unwrap();
        assert_eq!(config.region.key.names(), ["time"]);
        assert_eq!(config.region.axis.policy, AxisPolicyName::Sorted);
        assert_eq!(config.run.batch.files, 100);
        assert!(matches!(config.region.winner, WinnerConfig::Latest));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = Config::from_json(r#"{"kind":"zarr-collection","nane":"sst"}"#).unwrap_err();
        assert!(error.to_string().contains("nane"), "{error}");
    }
}
