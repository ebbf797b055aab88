//! Reports as plain data: what became of each object, and what it cost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cost::{Dollars, Requests};
use super::document::{State, Trouble};
use super::stamp::Previous;
use crate::parquet::Layout;
use crate::progress::Usage;

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`](super::document::SCHEMA_VERSION).
    pub schema_version: u32,
    /// `parquet-report`.
    pub kind: String,
    /// Name of the migration set.
    pub set: String,
    /// Id of the run; empty where nothing was to be done.
    pub run: String,
    /// `apply` or `roll_back`.
    pub verb: String,
    /// `done`, `partial` (some failed), `failed` (stopped by `max_failures`), `cancelled` or `nothing`.
    pub outcome: String,
    /// What became of each object.
    pub objects: Vec<ObjectReport>,
    /// Sums.
    pub totals: ReportTotals,
    /// Requests and bytes, counted.
    pub usage: Usage,
    /// What the plan said of these objects.
    pub estimate: Estimate,
    /// Wall seconds.
    pub seconds: Seconds,
    /// Dollars, from the requests that were counted and the time that passed.
    pub dollars: Dollars,
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectReport {
    /// Its key.
    pub key: String,
    /// How it ended.
    pub state: State,
    /// The version before.
    pub from: Option<u64>,
    /// The version after.
    pub to: Option<u64>,
    /// How it is laid out.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes copied without travelling.
    pub bytes_copied: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Wall seconds from its first request to its last.
    pub seconds: f64,
    /// The content afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Its version in the bucket afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// The content before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Rows.
    #[serde(default)]
    pub rows: u64,
    /// Checksums (CRC-32C) of the column chunks that were read and kept, by row group and leaf: `0/temp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, u32>,
    /// Why, where it was not done.
    #[serde(flatten)]
    pub trouble: Trouble,
}

/// Sums of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportTotals {
    /// Objects.
    pub objects: u64,
    /// Objects by state.
    #[serde(flatten)]
    pub states: BTreeMap<State, u64>,
    /// Bytes read.
    #[serde(default)]
    pub bytes_read: u64,
    /// Bytes copied without travelling.
    #[serde(default)]
    pub bytes_copied: u64,
    /// Bytes written.
    #[serde(default)]
    pub bytes_written: u64,
}

/// What a plan said of the objects of a report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after the fields of `Totals`")]
pub struct Estimate {
    pub objects: u64,
    pub bytes_read: u64,
    pub bytes_copied: u64,
    pub bytes_written: u64,
    pub requests: Requests,
    pub seconds: f64,
    pub dollars: Dollars,
}

/// Wall seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// From the call to the answer.
    pub wall: f64,
}

impl ReportTotals {
    /// The sums of `objects`.
    #[must_use]
    pub fn of(objects: &[ObjectReport]) -> Self {
        let mut totals = Self { objects: objects.len() as u64, ..Self::default() };
        for object in objects {
            *totals.states.entry(object.state).or_default() += 1;
            totals.bytes_read += object.bytes_read;
            totals.bytes_copied += object.bytes_copied;
            totals.bytes_written += object.bytes_written;
        }
        totals
    }

    /// How many are in `state`.
    #[must_use]
    pub fn count(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or_default()
    }
}

impl ObjectReport {
    /// A report of an object that nothing was done to.
    #[must_use]
    pub fn untouched(key: &str, state: State, from: Option<u64>, to: Option<u64>) -> Self {
        Self {
            key: key.to_owned(),
            state,
            from,
            to,
            layout: None,
            bytes_read: 0,
            bytes_copied: 0,
            bytes_written: 0,
            seconds: 0.0,
            etag: None,
            version_id: None,
            previous: None,
            rows: 0,
            checksums: BTreeMap::new(),
            trouble: Trouble::default(),
        }
    }
}

/// What verifying found.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// [`SCHEMA_VERSION`](super::document::SCHEMA_VERSION).
    pub schema_version: u32,
    /// `parquet-verification`.
    pub kind: String,
    /// Name of the migration set.
    pub set: String,
    /// The run.
    pub run: Option<String>,
    /// `ok`, `failed` or `nothing`.
    pub outcome: String,
    /// Each object.
    pub objects: Vec<VerifiedObject>,
    /// Sums.
    pub totals: VerifiedTotals,
    /// Requests and bytes.
    pub usage: Usage,
    /// Wall seconds.
    pub seconds: Seconds,
}

/// What verifying one object found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedObject {
    /// Its key.
    pub key: String,
    /// `ok`, `failed`, `skipped` (not as this run left it) or `error` (it could not be looked at).
    pub state: String,
    /// What was compared.
    pub checked: Vec<String>,
    /// Row groups whose new columns were computed again.
    pub recomputed: u64,
    /// Column chunks whose bytes were compared.
    pub compared: u64,
    /// What was expected and found.
    #[serde(flatten)]
    pub trouble: Trouble,
}

/// Sums of a verification.
#[derive(Debug, Clone, Default, Serialize)]
#[expect(missing_docs, reason = "the states' own names")]
pub struct VerifiedTotals {
    pub objects: u64,
    pub ok: u64,
    pub failed: u64,
    pub skipped: u64,
    pub error: u64,
    pub sampled: u64,
    pub recomputed: u64,
    pub compared: u64,
    /// Those that are well as far as can be told, and of which something cannot.
    pub unproved: u64,
}
