//! From a layout and the sources' values to the patches of each array.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::convert::{Conversion, Packing};
use super::document::ChunkState;
use super::fit::Fitted;
use super::label::Label;
use super::layout::{Layout, StepRun};
use super::memory::{MemoryData, MemoryVariable};
use super::structure::{Role, StoreArray, Structure};
use crate::error::{Error, Result};
use crate::zarr::write::ArrayWrite;
use crate::zarr::{Content, DataType, Patch, Region, Shift, Values};

/// The writes of a commit: first the data, then the labels and the provenance.
pub struct Writes {
    /// Written first.
    pub data: Vec<ArrayWrite>,
    /// Written when all data are there.
    pub coordinates: Vec<ArrayWrite>,
}

/// Makes the writes of a layout.
///
/// # Errors
/// `Internal` where an owner was not fitted; `Invalid` where the label of a gap cannot be stored.
pub fn writes(structure: &Structure, layout: &Layout, fitted: &BTreeMap<String, &Fitted>) -> Result<Writes> {
    let mut writes = Writes { data: Vec::new(), coordinates: Vec::new() };
    for array in &structure.arrays {
        let patches = patches(array, layout, fitted)?;
        let shift = array.axis.zip(layout.shift.as_ref()).map(|(dimension, map)| Shift { dimension, map: map.clone() });
        if patches.is_empty() && shift.is_none() {
            continue;
        }
        let mut target = array.array.clone();
        target.set_shape(array.shape_with_axis(layout.length_after));
        // What an unfinished commit left in chunks of an array that nobody can read yet counts as fill.
        let previous_shape = Some(match array.to_create {
            Some(_) => vec![0; array.array.shape.len()],
            None => array.shape_with_axis(layout.length_before),
        });
        let write = ArrayWrite { array: target, patches, shift, previous_shape };
        if array.is_coordinate() {
            writes.coordinates.push(write);
        } else {
            writes.data.push(write);
        }
    }
    Ok(writes)
}

fn patches(array: &StoreArray, layout: &Layout, fitted: &BTreeMap<String, &Fitted>) -> Result<Vec<Patch>> {
    let path = &array.array.path;
    if array.role == Role::Static {
        let values = array.to_create.as_ref().and_then(|_| fitted.values().find_map(|fitted| fitted.get(path)));
        return Ok(values.map(|values| whole(array, values)).into_iter().collect());
    }
    if array.axis.is_none() {
        return Ok(Vec::new());
    }
    let mut patches = Vec::new();
    for (index, label) in &layout.gaps {
        match array.role {
            Role::Key => patches.push(Patch {
                region: Region::new(vec![*index], vec![1]),
                content: Content::Values { values: label_values(array, label)?, origin: vec![0] },
            }),
            _ => patches.push(fill(array, *index, 1)),
        }
    }
    for run in &layout.runs {
        match (&run.source, array.role) {
            (None, Role::Key) => {}
            // The label is in the store already, and stays as the store has it.
            (Some(_), Role::Key) if matches!(run.state, ChunkState::Replaced | ChunkState::Restored) => {}
            (None, _) => patches.push(fill(array, run.start, run.count)),
            (Some((key, _)), Role::Provenance) => patches.push(Patch {
                region: Region::new(vec![run.start], vec![run.count]),
                content: Content::Values { values: text_values(key, run.count)?, origin: vec![0] },
            }),
            (Some((key, step)), _) => {
                let fitted = fitted
                    .get(key)
                    .ok_or_else(|| Error::internal(format!("source `{key}` owns a label but was not opened")))?;
                match fitted.get(path) {
                    Some(values) => source_patches(array, run, values, *step, &mut patches),
                    None => patches.push(fill(array, run.start, run.count)),
                }
            }
        }
    }
    Ok(patches)
}

/// The region of `count` steps from `start`, whole along the other dimensions.
fn steps(array: &StoreArray, start: u64, count: u64) -> Region {
    let mut region = Region::whole(&array.array.shape);
    if let Some(axis) = array.axis {
        region.start[axis] = start;
        region.shape[axis] = count;
    }
    region
}

fn fill(array: &StoreArray, start: u64, count: u64) -> Patch {
    Patch { region: steps(array, start, count), content: Content::Fill }
}

fn whole(array: &StoreArray, values: &Arc<dyn Values>) -> Patch {
    let region = Region::new(vec![0; array.array.shape.len()], values.shape().to_vec());
    Patch { region, content: Content::Values { values: values.clone(), origin: vec![0; array.array.shape.len()] } }
}

/// The steps of a run; where the source is shorter than the store along a padded dimension, the rest becomes fill.
fn source_patches(array: &StoreArray, run: &StepRun, values: &Arc<dyn Values>, step: u64, patches: &mut Vec<Patch>) {
    let region = steps(array, run.start, run.count);
    let mut inner = region.clone();
    let mut origin = vec![0; region.dimensionality()];
    inner.shape.copy_from_slice(values.shape());
    if let Some(axis) = array.axis {
        inner.shape[axis] = run.count;
        origin[axis] = step;
    }
    if inner != region {
        patches.push(Patch { region, content: Content::Fill });
    }
    if !inner.is_empty() {
        patches.push(Patch { region: inner, content: Content::Values { values: values.clone(), origin } });
    }
}

fn in_memory(data_type: DataType, count: u64, data: MemoryData) -> Result<Arc<dyn Values>> {
    let variable = MemoryVariable {
        name: "labels".into(),
        dimensions: vec!["axis".into()],
        shape: vec![count],
        data_type,
        attributes: serde_json::Map::new(),
        fill: None,
        data,
    };
    variable.values()
}

fn text_values(text: &str, count: u64) -> Result<Arc<dyn Values>> {
    in_memory(DataType::String, count, MemoryData::Strings(Arc::new(vec![text.to_owned(); count as usize])))
}

/// One label as the store's key array holds it.
fn label_values(array: &StoreArray, label: &Label) -> Result<Arc<dyn Values>> {
    let value = match (label, array.time) {
        (Label::Time(milliseconds), Some(units)) => units.value_of(*milliseconds),
        (Label::Integer(value) | Label::Time(value), _) => *value as f64,
        (Label::Float(value), _) => *value,
        (Label::Text(text, _), _) => return text_values(text, 1),
    };
    let from = Packing { data_type: DataType::Float64, scale: 1.0, offset: 0.0, fill: None };
    let bytes = value.to_le_bytes().to_vec();
    let bytes = match Conversion::between(&from, &array.packing, None)? {
        Some(conversion) => conversion.apply(&bytes)?,
        None => bytes,
    };
    in_memory(array.array.data_type, 1, MemoryData::Fixed(bytes.into()))
}
