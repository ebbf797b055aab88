//! The structure of the store: which arrays it has, what each is for, and how a new store is laid out from its first source.

use serde_json::{Map, Value, json};

use super::config::{Config, OneOrMany, StoreFormat};
use super::convert::{Packing, is_float};
use super::encoding::{COORDINATE_CHUNK, chunk_shape, compressor, element_type, nan, shard_shape};
use super::label::LabelKind;
use super::source::{Source, SourceVariable, packing, time_units};
use super::time::TimeUnits;
use crate::error::{Context, Error, Result};
use crate::zarr::{Array, ArraySpec, Compressor, DataType, FillValue, Format, Group, encode_fill_attribute};

/// The store as a collection sees it.
#[derive(Debug, Clone)]
pub struct Structure {
    /// Zarr format.
    pub format: Format,
    /// Name of the axis dimension.
    pub axis: String,
    /// Arrays that the collection writes, and those that it only keeps aligned.
    pub arrays: Vec<StoreArray>,
    /// Attributes of the root group, for a store that is to be created.
    pub attributes: Map<String, Value>,
}

/// One array of the store.
#[derive(Debug, Clone)]
pub struct StoreArray {
    /// Its metadata; the shape is the one before the commit.
    pub array: Array,
    /// Set where it does not exist yet.
    pub to_create: Option<ArraySpec>,
    /// Position of the axis among its dimensions.
    pub axis: Option<usize>,
    /// How its numbers are packed.
    pub packing: Packing,
    /// Its CF time units.
    pub time: Option<TimeUnits>,
    /// What it is for.
    pub role: Role,
}

/// What an array is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Values along the axis.
    Data,
    /// The labels of the axis, never blanked.
    Key,
    /// The keys of the sources.
    Provenance,
    /// Values that do not depend on the axis: written once, compared ever after.
    Static,
}

impl Structure {
    /// The arrays of the store in array order of the group.
    ///
    /// # Errors
    /// `Invalid` where the key of the configuration is not in the store.
    pub fn of_group(group: &Group, config: &Config) -> Result<Self> {
        let keys = config.region.key.names();
        let first = group.arrays.get(keys[0]).ok_or_else(|| {
            Error::invalid(format!("the store has no array `{}`, which `region.key` names", keys[0])).hint(format!(
                "arrays of the store: {}",
                group.arrays.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ))
        })?;
        let axis =
            match &config.region.dimension {
                Some(name) => name.clone(),
                None => first.dimension_names.first().cloned().ok_or_else(|| {
                    Error::invalid(format!("array `{}` has no dimension, so it labels no axis", keys[0]))
                })?,
            };
        let arrays = group
            .arrays
            .values()
            .map(|array| {
                StoreArray::existing(array.clone(), &axis, config).context(|| format!("array `{}`", array.path))
            })
            .collect::<Result<_>>()?;
        Ok(Self { format: group.format, axis, arrays, attributes: Map::new() })
    }

    /// The layout of a store that its first source and the configuration ask for; the axis has length 0.
    ///
    /// # Errors
    /// `Invalid` where the key is missing, or the configuration names what the source does not have.
    pub fn of_source(source: &Source, config: &Config) -> Result<Self> {
        let format = match config.store.format {
            StoreFormat::Zarr2 => Format::V2,
            StoreFormat::Zarr3 => Format::V3,
        };
        let axis = axis_of(source, &config.region.key, config.region.dimension.as_deref())?;
        for named in &config.variables.include {
            if source.variable(named).is_none() && source.variables.iter().all(|variable| variable.name != *named) {
                let why = source.unsupported.iter().find(|(name, _)| name == named).map(|(_, why)| why.as_str());
                // An included variable that the first source lacks is added when one comes that has it.
                if let Some(why) = why {
                    return Err(Error::invalid(format!("variable `{named}` cannot be stored: {why}"))
                        .hint("leave it out of `variables.include`"));
                }
            }
        }
        let mut structure = Self { format, axis, arrays: Vec::new(), attributes: source.attributes.clone() };
        for variable in &source.variables {
            if structure.wants(variable, config) {
                let array =
                    structure.new_array(variable, config).context(|| format!("variable `{}`", variable.name))?;
                structure.arrays.push(array);
            }
        }
        if let Some(name) = &config.store.provenance {
            structure.arrays.push(provenance_array(name, &structure.axis, format)?);
        }
        Ok(structure)
    }

    /// The array of a key.
    ///
    /// # Errors
    /// `Invalid` where there is none of that name.
    pub fn key_array(&self, name: &str) -> Result<&StoreArray> {
        self.arrays
            .iter()
            .find(|array| array.array.path == name)
            .ok_or_else(|| Error::invalid(format!("the store has no array `{name}`, which `region.key` names")))
    }

    /// Length of the axis.
    #[must_use]
    pub fn axis_length(&self) -> u64 {
        self.arrays
            .iter()
            .filter(|array| array.role == Role::Key)
            .find_map(|array| array.axis.map(|position| array.array.shape[position]))
            .unwrap_or(0)
    }

    /// Whether the configuration takes a variable.
    #[must_use]
    pub fn wants(&self, variable: &SourceVariable, config: &Config) -> bool {
        let names = &config.variables;
        let is_key = config.region.key.names().contains(&variable.name.as_str());
        // The coordinates of the dimensions come along: without them the data have no place.
        let is_coordinate = variable.dimensions == [variable.name.clone()];
        is_key
            || (!names.exclude.contains(&variable.name)
                && (names.include.is_empty() || is_coordinate || names.include.contains(&variable.name)))
    }

    /// An array to be created for `variable`, with an axis of length 0.
    ///
    /// # Errors
    /// `Invalid` where the configured chunks or packing do not fit.
    pub fn new_array(&self, variable: &SourceVariable, config: &Config) -> Result<StoreArray> {
        let position = variable.dimensions.iter().position(|name| *name == self.axis);
        let mut shape: Vec<u64> = variable
            .dimensions
            .iter()
            .zip(&variable.shape)
            .map(|(name, length)| config.variables.pad.get(name).copied().unwrap_or(*length))
            .collect();
        let (data_type, attributes, fill) = element_type(variable, config, self.format)?;
        let chunk_shape = chunk_shape(variable, &shape, position, data_type, config);
        if let Some(position) = position {
            shape[position] = 0;
        }
        let shard_shape = shard_shape(variable, &chunk_shape, &shape, position, config)?;
        let mut attributes = attributes;
        let fill_value = match &fill {
            Some(bytes) => FillValue::Bytes(bytes.clone()),
            None if self.format == Format::V2 => FillValue::Null,
            None if is_float(data_type) => FillValue::Bytes(nan(data_type)),
            None => FillValue::zero(data_type),
        };
        if fill.is_some()
            && let Some(attribute) = encode_fill_attribute(self.format, data_type, &fill_value)?
        {
            attributes.insert("_FillValue".into(), attribute);
        }
        let spec = ArraySpec {
            path: variable.name.clone(),
            shape,
            chunk_shape,
            shard_shape,
            data_type,
            fill_value,
            dimension_names: variable.dimensions.clone(),
            attributes,
            compressor: compressor(variable, data_type, config),
        };
        let array = spec.array(self.format)?;
        let mut created = StoreArray::existing(array, &self.axis, config)?;
        created.packing.fill = fill;
        created.to_create = Some(spec);
        Ok(created)
    }
}

impl StoreArray {
    /// An array of a store that belongs to no collection.
    ///
    /// # Errors
    /// `Invalid` where its attributes cannot be understood.
    pub fn plain(array: Array) -> Result<Self> {
        let packing = packing(array.data_type, &array.attributes, missing_value(&array)?);
        let time = time_units(&array.attributes)?;
        Ok(Self { array, to_create: None, axis: None, packing, time, role: Role::Static })
    }

    fn existing(array: Array, axis: &str, config: &Config) -> Result<Self> {
        let mut plain = Self::plain(array)?;
        let (array, position) = (&plain.array, plain.array.dimension(axis));
        let role = if config.region.key.names().contains(&array.path.as_str()) {
            Role::Key
        } else if config.store.provenance.as_deref() == Some(array.path.as_str()) {
            Role::Provenance
        } else if position.is_some() {
            Role::Data
        } else {
            Role::Static
        };
        plain.axis = position;
        plain.role = role;
        Ok(plain)
    }

    /// The kind of labels that it holds.
    ///
    /// # Errors
    /// As [`LabelKind::of`].
    pub fn label_kind(&self) -> Result<LabelKind> {
        let text = |name: &str| self.array.attributes.get(name).and_then(Value::as_str);
        LabelKind::of(self.array.data_type, text("units"), text("calendar"))
    }

    /// Whether it is written after the data: the labels and the provenance.
    #[must_use]
    pub fn is_coordinate(&self) -> bool {
        matches!(self.role, Role::Key | Role::Provenance)
    }

    /// Its shape with an axis of `length`.
    #[must_use]
    pub fn shape_with_axis(&self, length: u64) -> Vec<u64> {
        let mut shape = self.array.shape.clone();
        if let Some(position) = self.axis {
            shape[position] = length;
        }
        shape
    }
}

/// What readers take for missing, as one packed element; text has none.
fn missing_value(array: &Array) -> Result<Option<Vec<u8>>> {
    Ok(match array.missing_value()? {
        Some(FillValue::Bytes(bytes)) if array.data_type.size() == Some(bytes.len()) => Some(bytes),
        _ => None,
    })
}

/// The axis dimension of a source.
///
/// # Errors
/// `Invalid` where the key is not there or has no dimension.
pub fn axis_of(source: &Source, key: &OneOrMany, dimension: Option<&str>) -> Result<String> {
    let name = key.names()[0];
    let variable = source.variable(name).ok_or_else(|| {
        Error::invalid(format!("expected variable `{name}`, which `region.key` names, found none")).hint(format!(
            "variables of the file: {}",
            list(source.variables.iter().map(|variable| variable.name.as_str()))
        ))
    })?;
    if let Some(dimension) = dimension {
        return if variable.dimensions.iter().any(|name| name == dimension) {
            Ok(dimension.to_owned())
        } else {
            Err(Error::invalid(format!(
                "expected `{name}` along dimension `{dimension}`, found dimensions {:?}",
                variable.dimensions
            )))
        };
    }
    variable.dimensions.first().cloned().ok_or_else(|| {
        Error::invalid(format!("variable `{name}` has no dimension, so it cannot label the axis"))
            .hint("give the data a step of their own in a `preprocess` hook: `dataset.expand_dims(\"time\")`")
    })
}

pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The array that holds the key of each region's source.
fn provenance_array(name: &str, axis: &str, format: Format) -> Result<StoreArray> {
    let mut attributes = Map::new();
    attributes.insert("long_name".into(), json!("key of the source that the values come from"));
    let spec = ArraySpec {
        path: name.to_owned(),
        shape: vec![0],
        chunk_shape: vec![COORDINATE_CHUNK],
        shard_shape: None,
        data_type: DataType::String,
        fill_value: FillValue::zero(DataType::String),
        dimension_names: vec![axis.to_owned()],
        attributes,
        compressor: Compressor::Zstd { level: 3 },
    };
    let array = spec.array(format)?;
    let packing = Packing { data_type: DataType::String, scale: 1.0, offset: 0.0, fill: None };
    Ok(StoreArray { array, to_create: Some(spec), axis: Some(0), packing, time: None, role: Role::Provenance })
}
