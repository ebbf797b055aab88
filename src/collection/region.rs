//! `write_region`: a data set in memory into an existing store, without a collection.
//!
//! `auto` finds each dimension's place by its labels, as xarray's `region="auto"` does, but within a tolerance, in the
//! store's own units of time, and for labels that are not neighbours in the store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::document::{AxisChange, Report, SCHEMA_VERSION, Seconds, Written};
use super::fit::convert;
use super::label::{Label, LabelKind};
use super::memory::MemoryDataset;
use super::source::{Source, SourceVariable};
use super::structure::{StoreArray, list};
use crate::error::{Context, Error, Result};
use crate::ledger::{Lease, LeaseOptions};
use crate::progress::Run;
use crate::store::Store;
use crate::zarr::write::{ArrayWrite, WriteOptions, write};
use crate::zarr::{Content, Group, Patch, Region, read};

/// Where the data set goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum RegionRequest {
    /// `auto`: by the labels of each dimension.
    Auto(String),
    /// `[start, stop)` by dimension; dimensions not named are found by their labels, or must be whole.
    Indices(BTreeMap<String, (u64, u64)>),
}

/// Memory of the writer.
const MEMORY: u64 = 1 << 30;

/// How long to wait for another writer.
const LEASE_WAIT: Duration = Duration::from_mins(1);

/// Runs of neighbouring indices: first index in the data set, first index in the store, length.
type Runs = Vec<(u64, u64, u64)>;

/// Writes every variable of `dataset` that has a dimension into its region of the store.
///
/// # Errors
/// `NotFound` where there is no store; `Invalid` where a variable, dimension or label is not in it, or values cannot be
/// represented; `Conflict` where somebody else changed a chunk meanwhile.
pub async fn write_region(store: &Store, dataset: MemoryDataset, request: &RegionRequest, run: &Run) -> Result<Report> {
    let options = LeaseOptions { wait: Some(LEASE_WAIT), ..LeaseOptions::default() };
    let lease = Lease::acquire(&store.sibling(".regraft"), &options).await?;
    let outcome = write_under_lease(&store.with_fence(lease.fence()), dataset, request, run).await;
    // A region is not announced: what was cut off is for the caller to write again.
    lease.release(true).await;
    outcome
}

async fn write_under_lease(
    store: &Store,
    dataset: MemoryDataset,
    request: &RegionRequest,
    run: &Run,
) -> Result<Report> {
    let began = Instant::now();
    let usage = store.counters().usage();
    let group = Group::open(store).await?;
    let source = dataset.into_source("dataset")?;
    let mut places: BTreeMap<String, Runs> = BTreeMap::new();
    for dimension in source.dimensions.keys() {
        if let Some(runs) = place(store, &group, &source, dimension, request).await? {
            places.insert(dimension.clone(), runs);
        }
    }
    let mut writes = Vec::new();
    for variable in &source.variables {
        // Coordinates say where; they are matched, not written.
        if variable.dimensions == [variable.name.clone()] || variable.dimensions.is_empty() {
            continue;
        }
        let array = group.arrays.get(&variable.name).ok_or_else(|| {
            Error::invalid(format!("the store has no array `{}`", variable.name)).hint(format!(
                "arrays of the store: {}; drop the variable from the data set",
                list(group.arrays.keys().map(String::as_str))
            ))
        })?;
        writes.push(
            array_write(variable, StoreArray::plain(array.clone())?, &places)
                .context(|| format!("variable `{}`", variable.name))?,
        );
    }
    let options = WriteOptions { memory: MEMORY, ..WriteOptions::default() };
    let opened = began.elapsed().as_secs_f64();
    let summary = write(store, &writes, &options, run).await?;
    let wall = began.elapsed().as_secs_f64();
    Ok(Report {
        schema_version: SCHEMA_VERSION,
        kind: "zarr-report".into(),
        collection: String::new(),
        store: store.url().to_owned(),
        commits: Vec::new(),
        outcome: if writes.is_empty() { "nothing" } else { "done" }.into(),
        changes: Vec::new(),
        quarantined: Vec::new(),
        axis: AxisChange::default(),
        arrays: Vec::new(),
        usage: store.counters().usage() - usage,
        written: Written {
            chunks_read: summary.chunks_read,
            chunks_written: summary.chunks_written,
            chunks_copied: summary.chunks_copied,
            chunks_dropped: summary.chunks_dropped,
            chunks_passed_through: summary.chunks_passed_through,
            tiles_decoded: summary.tiles_decoded,
        },
        seconds: Seconds { wall, open: opened, write: wall - opened, publish: 0.0 },
        settled: 0,
        holder: None,
    })
}

/// Where a dimension's indices go; `None` where nothing says so and it must be whole.
async fn place(
    store: &Store,
    group: &Group,
    source: &Source,
    dimension: &str,
    request: &RegionRequest,
) -> Result<Option<Runs>> {
    match request {
        RegionRequest::Auto(word) if word != "auto" => {
            return Err(Error::invalid(format!("expected region `auto` or indices by dimension, found `{word}`")));
        }
        RegionRequest::Indices(indices) => {
            if let Some((start, stop)) = indices.get(dimension) {
                let length = source.dimensions.get(dimension).copied().unwrap_or(0);
                if stop.checked_sub(*start) != Some(length) {
                    return Err(Error::invalid(format!(
                        "expected `{length}` indices along `{dimension}`, found region `{start}:{stop}`"
                    )));
                }
                return Ok(Some(vec![(0, *start, length)]));
            }
        }
        RegionRequest::Auto(_) => {}
    }
    let (Some(variable), Some(array)) = (source.variable(dimension), group.arrays.get(dimension)) else {
        return Ok(None);
    };
    if variable.dimensions != [dimension.to_owned()] {
        return Ok(None);
    }
    let array = StoreArray::plain(array.clone())?;
    let text = |name: &str| variable.attributes.get(name).and_then(serde_json::Value::as_str);
    let wanted_kind = LabelKind::of(variable.data_type, text("units"), text("calendar"))?;
    let wanted = wanted_kind.labels(&variable.read().await?, variable.data_type, variable.fill.as_deref())?;
    let kind = array.label_kind()?;
    let elements = read(store, &array.array, &Region::whole(&array.array.shape)).await?;
    let stored = kind.labels(&elements, array.array.data_type, array.packing.fill.as_deref())?;
    let named = |error: Error| error.context(format!("dimension `{dimension}`"));
    match_labels(&wanted, &stored, kind).map(Some).map_err(named)
}

/// A label as a number for tolerant matching; text has none.
fn as_number(label: &Label) -> Option<f64> {
    match label {
        Label::Time(value) | Label::Integer(value) => Some(*value as f64),
        Label::Float(value) => Some(*value),
        Label::Text(..) => None,
    }
}

/// Runs of neighbours in both.
fn match_labels(wanted: &[Label], stored: &[Label], kind: LabelKind) -> Result<Runs> {
    let missing = |label: &Label| {
        let ends = stored.first().zip(stored.last());
        Error::invalid(format!("label `{}` is not in the store", kind.show(label))).hint(match ends {
            Some((first, last)) => {
                format!(
                    "the store goes from `{}` to `{}`; a collection can append and insert",
                    kind.show(first),
                    kind.show(last)
                )
            }
            None => "the store is empty".into(),
        })
    };
    let mut indices = Vec::with_capacity(wanted.len());
    if wanted.first().is_some_and(|label| as_number(label).is_some()) {
        let numbers: Vec<f64> = stored.iter().filter_map(as_number).collect();
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by(|left, right| numbers[*left].total_cmp(&numbers[*right]));
        // A thousandth of the smallest step tells neighbours apart and forgives rounding; whole numbers match exactly.
        let step = order
            .windows(2)
            .map(|pair| numbers[pair[1]] - numbers[pair[0]])
            .filter(|step| *step > 0.0)
            .fold(f64::INFINITY, f64::min);
        let exact = !matches!(wanted[0], Label::Float(_)) && !matches!(stored.first(), Some(Label::Float(_)));
        let tolerance = if exact {
            0.0
        } else if step.is_finite() {
            step * 1e-3
        } else {
            1e-6
        };
        for label in wanted {
            let value = as_number(label).ok_or_else(|| missing(label))?;
            let at = order.partition_point(|index| numbers[*index] < value - tolerance);
            let index = order.get(at).filter(|index| (numbers[**index] - value).abs() <= tolerance);
            indices.push(*index.ok_or_else(|| missing(label))? as u64);
        }
    } else {
        for label in wanted {
            indices.push(stored.iter().position(|own| own == label).ok_or_else(|| missing(label))? as u64);
        }
    }
    let mut runs: Runs = Vec::new();
    for (from, to) in indices.into_iter().enumerate() {
        match runs.last_mut() {
            Some((_, start, length)) if *start + *length == to => *length += 1,
            _ => runs.push((from as u64, to, 1)),
        }
    }
    Ok(runs)
}

/// The patches of one variable: every combination of its dimensions' runs.
fn array_write(variable: &SourceVariable, array: StoreArray, places: &BTreeMap<String, Runs>) -> Result<ArrayWrite> {
    if variable.dimensions != array.array.dimension_names {
        return Err(Error::invalid(format!(
            "expected dimensions {:?}, found {:?}",
            array.array.dimension_names, variable.dimensions
        ))
        .hint("transpose the data set; dimensions are matched by name and order"));
    }
    let mut boxes = vec![(Vec::new(), Vec::new(), Vec::new())];
    for (position, name) in variable.dimensions.iter().enumerate() {
        let (found, length) = (variable.shape[position], array.array.shape[position]);
        let whole = vec![(0, 0, found)];
        let runs = places.get(name).unwrap_or(&whole);
        if !places.contains_key(name) && found != length {
            return Err(Error::invalid(format!("expected `{length}` along dimension `{name}`, found `{found}`")).hint(
                format!(
                    "give the data set a coordinate `{name}`, or name the indices: region={{\"{name}\": slice(…)}}"
                ),
            ));
        }
        if let Some((_, start, count)) = runs.iter().find(|(_, start, count)| start + count > length) {
            return Err(Error::invalid(format!(
                "region `{start}:{}` along `{name}` ends behind the store's `{length}`",
                start + count
            )));
        }
        boxes = boxes
            .into_iter()
            .flat_map(|(origin, start, shape): (Vec<u64>, Vec<u64>, Vec<u64>)| {
                runs.iter().map(move |(from, to, count)| {
                    let with = |list: &[u64], value: u64| [list, &[value]].concat();
                    (with(&origin, *from), with(&start, *to), with(&shape, *count))
                })
            })
            .collect();
    }
    let values = convert(variable, &array, None)?;
    let patches = boxes
        .into_iter()
        .map(|(origin, start, shape)| Patch {
            region: Region::new(start, shape),
            content: Content::Values { values: values.clone(), origin },
        })
        .collect();
    Ok(ArrayWrite::new(array.array, patches))
}
