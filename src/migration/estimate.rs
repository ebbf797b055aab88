//! What an object and a run will cost: bytes, requests, memory, seconds. Pure.

use super::cost::Requests;
use super::document::PlannedObject;
use super::fetch::{Batch, joined};
use super::fuse::Fused;
use crate::error::Result;
use crate::parquet::{DataType, Decision, File, Layout, TAIL};

/// Up to so many bytes an object on a service is read and put whole: parts of an upload are not smaller.
pub const SMALL_OBJECT: u64 = 5 << 20;
/// Bytes that S3 copies in one part at most.
const MOST_COPIED: u64 = 5 << 30;

/// No estimate is larger (16 TiB): a damaged footer may claim any number of rows, and sums must stay sums.
const MOST: u64 = 1 << 44;

/// Where objects lie, as far as it matters for what a rewrite costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Files: bytes are cloned or copied by the operating system.
    Files,
    /// A service that copies parts of objects by itself.
    CopiesParts,
    /// A service that takes whole objects only.
    WholeObjects,
}

/// What the rewrite of one object costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes read, with the footer.
    pub read: u64,
    /// Bytes copied without travelling.
    pub copied: u64,
    /// Bytes written.
    pub written: u64,
    /// Requests.
    pub requests: Requests,
    /// Whether the object is read and put whole.
    pub whole: bool,
    /// Bytes of memory held at most.
    pub memory: u64,
}

/// Bytes of the new columns, from their types.
#[must_use]
pub fn new_bytes(file: &File, fused: &Fused) -> u64 {
    let widths: f64 = fused.change.adds.iter().map(|add| width(add.field.data_type())).sum();
    let pages = file.row_groups() as u64 * fused.change.adds.len() as u64 * 128;
    ((file.rows() as f64 * widths) as u64).min(MOST) + pages.min(MOST)
}

/// Bytes of one value, roughly.
fn width(data_type: &DataType) -> f64 {
    match data_type {
        DataType::Null => 0.0,
        DataType::Boolean => 0.125,
        DataType::Dictionary(_, _) => 2.0,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 12.0,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => 24.0,
        DataType::FixedSizeBinary(length) => f64::from(*length),
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => 3.0 * width(field.data_type()),
        DataType::FixedSizeList(field, length) => f64::from(*length) * width(field.data_type()),
        DataType::Struct(fields) => fields.iter().map(|field| width(field.data_type())).sum(),
        other => other.primitive_width().map_or(16.0, |width| width as f64),
    }
}

/// What rewriting `file` costs.
///
/// # Errors
/// Where the file's chunks contradict each other.
pub fn work(file: &File, fused: &Fused, batches: &[Batch], decision: &Decision, place: Place) -> Result<Work> {
    let new = new_bytes(file, fused);
    let indexes = file.index_ranges();
    let index_bytes: u64 = indexes.iter().map(|range| range.end - range.start).sum();
    let footer = file.footer_length() + TAIL;
    let inputs: u64 = batches.iter().map(Batch::bytes).sum();
    let columns = file.columns().len() as u64;
    let new_footer = footer + footer * fused.change.adds.len() as u64 / columns.max(1) + 600;
    let kept = decision.copied_bytes;
    let written = new + new_footer + index_bytes;
    let reads = batches.iter().map(|batch| batch.reads.len() as u64).sum::<u64>() + joined(&indexes).len() as u64;
    let decoded = decoded(file, fused);
    let held = batches.iter().map(Batch::bytes).max().unwrap_or(0) + index_bytes + decoded + 2 * new + 2 * new_footer;
    let whole = place != Place::Files && file.length() + written <= SMALL_OBJECT;
    let tags = u64::from(place == Place::CopiesParts);
    Ok(match place {
        _ if whole => Work {
            read: file.length(),
            copied: 0,
            written: kept + written,
            requests: Requests { get: 1, head: 1 + tags, put: 1, ..Requests::default() },
            whole,
            memory: held + 2 * file.length() + written,
        },
        // Kept chunks are read for their checksums where nothing of the file before is left.
        Place::Files => Work {
            read: footer
                + inputs
                + index_bytes
                + if decision.layout == Layout::Contiguous { kept.saturating_sub(inputs) } else { 0 },
            copied: kept,
            written,
            requests: Requests { get: reads, head: 1, put: 1, ..Requests::default() },
            whole,
            memory: held,
        },
        Place::CopiesParts => Work {
            read: footer + inputs + index_bytes,
            copied: kept,
            written,
            requests: Requests { get: reads, head: 2, put: 3, copy: kept.div_ceil(MOST_COPIED).max(1), list: 0 },
            whole,
            memory: held,
        },
        Place::WholeObjects => Work {
            read: footer + inputs + index_bytes + kept,
            copied: 0,
            written: kept + written,
            requests: Requests { get: reads + 1, head: 1 + tags, put: 1, ..Requests::default() },
            whole,
            memory: held + 2 * kept,
        },
    })
}

/// Bytes of the inputs and results of the largest row group, decoded.
fn decoded(file: &File, fused: &Fused) -> u64 {
    let inputs = |row_group: usize| -> u64 {
        let chunks = file.columns().iter().filter(|column| fused.reads.iter().any(|name| name == column.name()));
        let sizes = chunks.filter_map(|column| column.chunks.get(row_group)).map(|chunk| chunk.uncompressed);
        sizes.fold(0_u64, u64::saturating_add).saturating_mul(3).min(MOST)
    };
    let results: f64 =
        fused.evaluations.iter().flat_map(|step| &step.adds).map(|(field, _)| width(field.data_type())).sum();
    (0..file.row_groups())
        .map(|row_group| inputs(row_group) + ((2.0 * results * file.row_group_rows(row_group) as f64) as u64).min(MOST))
        .max()
        .unwrap_or(0)
}

/// How fast a machine and its storage are.
#[derive(Debug, Clone, PartialEq)]
pub enum Rate {
    /// Nothing was measured yet.
    Assumed {
        /// Seconds that the requests of one object take one after another.
        latency: f64,
        /// Bytes read and written per second, all objects together.
        bytes_per_second: f64,
        /// Core seconds of one object.
        core_seconds: f64,
    },
    /// As an earlier run.
    Measured {
        /// Its id.
        run: String,
        /// Wall seconds divided by objects.
        per_object: f64,
    },
}

impl Rate {
    /// What is assumed: about 20 ms a round trip in the region, 100 MB/s, 20 ms of a core; round trips are nothing on files.
    #[must_use]
    pub fn assumed(place: Place) -> Self {
        let latency = if place == Place::Files { 0.005 } else { 0.3 };
        Self::Assumed { latency, bytes_per_second: 100e6, core_seconds: 0.02 }
    }

    /// Where it comes from: `assumed`, or the id of the run that it was measured in.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Self::Assumed { .. } => "assumed",
            Self::Measured { run, .. } => run,
        }
    }

    /// Wall seconds for `objects` that move `bytes`, so many at once on `cores`, and no more than `limit` a second.
    #[must_use]
    pub fn seconds(&self, objects: u64, bytes: u64, concurrency: usize, cores: usize, limit: Option<f64>) -> f64 {
        let count = objects as f64;
        let paced = limit.map_or(0.0, |limit| count / limit);
        let working = match self {
            Self::Measured { per_object, .. } => count * per_object,
            Self::Assumed { latency, bytes_per_second, core_seconds } => {
                let at_once = count.min(concurrency as f64).max(1.0);
                let waiting = latency * (count / at_once).ceil();
                waiting.max(bytes as f64 / bytes_per_second).max(core_seconds * count / cores as f64)
            }
        };
        working.max(paced)
    }
}

/// Puts the numbers into a planned object.
pub fn note(object: &mut PlannedObject, work: &Work) {
    object.bytes_read = work.read;
    object.bytes_copied = work.copied;
    object.bytes_written_estimate = work.written;
    object.whole = work.whole;
    object.memory = work.memory;
    object.requests = work.requests;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_limit_decides() {
        let rate = Rate::Assumed { latency: 0.5, bytes_per_second: 1e8, core_seconds: 0.1 };
        assert!((rate.seconds(1000, 0, 100, 1, None) - 100.0).abs() < 1e-9, "one core");
        assert!((rate.seconds(1000, 0, 10, 100, None) - 50.0).abs() < 1e-9, "round trips");
        assert!((rate.seconds(1000, 100_000_000_000, 100, 4, None) - 1000.0).abs() < 1e-9, "bytes");
        assert!((rate.seconds(1000, 0, 100, 4, Some(1.0)) - 1000.0).abs() < 1e-9, "pace");
        assert!(rate.seconds(0, 0, 100, 4, None).abs() < 1e-9);
        let measured = Rate::Measured { run: "r".into(), per_object: 0.01 };
        assert!((measured.seconds(1000, 1 << 40, 100, 4, None) - 10.0).abs() < 1e-9);
    }
}
