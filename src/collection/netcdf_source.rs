//! A NetCDF object as a source.
//!
//! Character arrays whose last dimension counts characters (CF section 2.2) lose it here and become fixed-length bytes; the
//! bytes themselves are not touched. A dimension counts characters where no other type of variable has it: Argo's
//! `DIRECTION(N_PROF)` and `PRES_QC(N_PROF, N_LEVELS)` are one character an element and keep their dimensions, while xarray
//! takes the levels for the length of a text.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::source::{Source, SourceVariable};
use crate::error::{Context, Error, Result};
use crate::netcdf::{self, AttributeValue, Buffer, Dataset};
use crate::zarr::{DataType, Elements, Region, Tile, Values};

/// Describes an open NetCDF file as a source called `key`.
///
/// # Errors
/// `Invalid` where the file's structure cannot be used.
pub fn open(key: &str, dataset: &Arc<Dataset>) -> Result<Source> {
    let mut source = Source {
        key: key.to_owned(),
        dimensions: BTreeMap::new(),
        attributes: attributes(&dataset.root().attributes),
        variables: Vec::new(),
        unsupported: Vec::new(),
    };
    let mut counted = HashSet::new();
    data_dimensions(dataset.root(), &mut counted);
    collect(dataset.root(), dataset, &counted, &mut source)?;
    Ok(source)
}

/// The dimensions that variables other than text have.
fn data_dimensions<'a>(group: &'a netcdf::Group, found: &mut HashSet<&'a str>) {
    for variable in group.variables.iter().filter(|variable| variable.data_type != netcdf::DataType::Char) {
        found.extend(variable.dimensions.iter().map(String::as_str));
    }
    for child in &group.groups {
        data_dimensions(child, found);
    }
}

fn collect(
    group: &netcdf::Group,
    dataset: &Arc<Dataset>,
    data_dimensions: &HashSet<&str>,
    source: &mut Source,
) -> Result<()> {
    for dimension in &group.dimensions {
        source.dimensions.entry(dimension.name.clone()).or_insert(dimension.size);
    }
    for variable in &group.variables {
        match describe(variable, dataset, data_dimensions).context(|| format!("variable `{}`", variable.path))? {
            Ok(described) => source.variables.push(described),
            Err(reason) => source.unsupported.push((variable.path.clone(), reason)),
        }
    }
    for child in &group.groups {
        collect(child, dataset, data_dimensions, source)?;
    }
    Ok(())
}

/// The variable, or why it cannot be stored.
fn describe(
    variable: &netcdf::Variable,
    dataset: &Arc<Dataset>,
    data_dimensions: &HashSet<&str>,
) -> Result<Result<SourceVariable, String>> {
    let mut attributes = attributes(&variable.attributes);
    attributes.shift_remove("_FillValue");
    let mut dimensions = variable.dimensions.clone();
    let mut shape = variable.shape.clone();
    let mut chunk_shape = variable.chunk_shape.clone();
    let text = variable.data_type == netcdf::DataType::Char;
    let counts_characters =
        text && variable.dimensions.last().is_some_and(|last| !data_dimensions.contains(last.as_str()));
    let data_type = match &variable.data_type {
        netcdf::DataType::I8 => DataType::Int8,
        netcdf::DataType::U8 => DataType::UInt8,
        netcdf::DataType::I16 => DataType::Int16,
        netcdf::DataType::U16 => DataType::UInt16,
        netcdf::DataType::I32 => DataType::Int32,
        netcdf::DataType::U32 => DataType::UInt32,
        netcdf::DataType::I64 => DataType::Int64,
        netcdf::DataType::U64 => DataType::UInt64,
        netcdf::DataType::F32 => DataType::Float32,
        netcdf::DataType::F64 => DataType::Float64,
        netcdf::DataType::String => DataType::String,
        netcdf::DataType::Char if !counts_characters => DataType::FixedBytes { length: 1 },
        netcdf::DataType::Char => {
            dimensions.pop();
            let length = shape.pop().unwrap_or(1);
            if let Some(chunk) = &mut chunk_shape {
                chunk.pop();
            }
            let length = u32::try_from(length).map_err(|_| Error::invalid("strings longer than 4 GiB"))?;
            DataType::FixedBytes { length: length.max(1) }
        }
        netcdf::DataType::Unsupported(what) => return Ok(Err(format!("type `{what}` is not supported"))),
    };
    let mut fill = variable.fill_value.clone();
    if text {
        // The fill of characters is one byte; a missing text is that byte over and over.
        fill = fill.and_then(|fill| fill.first().map(|byte| vec![*byte; data_type.size().unwrap_or(1)]));
    } else if data_type.size().is_none() || fill.as_ref().is_some_and(|fill| Some(fill.len()) != data_type.size()) {
        fill = None;
    }
    let values = NetcdfValues::new(dataset, variable, data_type, &shape, text)?;
    Ok(Ok(SourceVariable {
        name: variable.path.clone(),
        dimensions,
        shape,
        chunk_shape,
        data_type,
        attributes,
        fill,
        values: Arc::new(values),
    }))
}

/// Attributes as JSON. Values that JSON cannot hold (NaN, infinities, bytes that are not text) are left out: they are
/// missing-value markers, and `_FillValue` travels by its bytes.
fn attributes(attributes: &[netcdf::Attribute]) -> Map<String, Value> {
    let mut map = Map::new();
    for attribute in attributes {
        if let Some(value) = attribute_value(&attribute.value) {
            map.insert(attribute.name.clone(), value);
        }
    }
    map
}

fn attribute_value(value: &AttributeValue) -> Option<Value> {
    fn list<T: Copy + Into<Value>>(numbers: &[T]) -> Option<Value> {
        match numbers {
            [] => None,
            [one] => Some((*one).into()),
            many => Some(Value::Array(many.iter().map(|number| (*number).into()).collect())),
        }
    }
    let finite = |value: Option<Value>| value.filter(|value| !matches!(value, Value::Null) && !has_null(value));
    match value {
        AttributeValue::Text(text) => Some(Value::String(text.clone())),
        AttributeValue::Strings(strings) => match strings.as_slice() {
            [one] => Some(Value::String(one.clone())),
            many => Some(Value::Array(many.iter().cloned().map(Value::String).collect())),
        },
        AttributeValue::I8(numbers) => list(numbers),
        AttributeValue::U8(numbers) => list(numbers),
        AttributeValue::I16(numbers) => list(numbers),
        AttributeValue::U16(numbers) => list(numbers),
        AttributeValue::I32(numbers) => list(numbers),
        AttributeValue::U32(numbers) => list(numbers),
        AttributeValue::I64(numbers) => list(numbers),
        AttributeValue::U64(numbers) => list(numbers),
        // Through its shortest text, as NumPy shows a float32: 0.1 stays 0.1.
        AttributeValue::F32(numbers) => {
            let widened: Vec<f64> =
                numbers.iter().map(|number| number.to_string().parse().unwrap_or(f64::NAN)).collect();
            finite(list(&widened))
        }
        AttributeValue::F64(numbers) => finite(list(numbers)),
        _ => None,
    }
}

fn has_null(value: &Value) -> bool {
    matches!(value, Value::Array(values) if values.iter().any(Value::is_null))
}

/// The structure of a sample file, for guessing a configuration.
#[must_use]
pub fn outline(dataset: &Dataset) -> Value {
    let mut dimensions = Map::new();
    let mut variables = Vec::new();
    outline_group(dataset.root(), &mut dimensions, &mut variables);
    let mut document = Map::new();
    document.insert("dimensions".into(), Value::Object(dimensions));
    document.insert("variables".into(), Value::Array(variables));
    document.insert("attributes".into(), Value::Object(attributes(&dataset.root().attributes)));
    Value::Object(document)
}

fn outline_group(group: &netcdf::Group, dimensions: &mut Map<String, Value>, variables: &mut Vec<Value>) {
    for dimension in &group.dimensions {
        let mut described = Map::new();
        described.insert("size".into(), dimension.size.into());
        described.insert("unlimited".into(), dimension.unlimited.into());
        dimensions.entry(dimension.name.clone()).or_insert(Value::Object(described));
    }
    for variable in &group.variables {
        let mut described = Map::new();
        described.insert("name".into(), variable.path.clone().into());
        described.insert("dtype".into(), variable.data_type.name().into());
        described.insert("dimensions".into(), variable.dimensions.clone().into());
        described.insert("shape".into(), variable.shape.clone().into());
        described.insert("chunk_shape".into(), variable.chunk_shape.clone().map_or(Value::Null, Into::into));
        described.insert("attributes".into(), Value::Object(attributes(&variable.attributes)));
        variables.push(Value::Object(described));
    }
    for child in &group.groups {
        outline_group(child, dimensions, variables);
    }
}

struct NetcdfValues {
    dataset: Arc<Dataset>,
    variable: netcdf::Variable,
    data_type: DataType,
    shape: Vec<u64>,
    tiles: Vec<Tile>,
    encoding: Option<Vec<Value>>,
}

impl NetcdfValues {
    fn new(
        dataset: &Arc<Dataset>,
        variable: &netcdf::Variable,
        data_type: DataType,
        shape: &[u64],
        text: bool,
    ) -> Result<Self> {
        let rank = shape.len();
        let tiles = if data_type == DataType::String {
            let region = Region::whole(shape);
            vec![Tile { decoded_shape: region.shape.clone(), encoded_size: region.element_count() * 64, region }]
        } else {
            dataset
                .blocks(variable)?
                .iter()
                .map(|block| {
                    // A character block covers whole strings, or it cannot lose its last dimension.
                    if text && block.decoded_shape.len() > rank && block.decoded_shape[rank] != variable.shape[rank] {
                        return Err(Error::invalid("strings that are cut by chunks are not supported")
                            .hint("rewrite the file with whole strings in each chunk"));
                    }
                    Ok(Tile {
                        region: Region::new(block.region_start[..rank].to_vec(), block.region_shape[..rank].to_vec()),
                        decoded_shape: block.decoded_shape[..rank].to_vec(),
                        encoded_size: block.encoded_size,
                    })
                })
                .collect::<Result<_>>()?
        };
        let encoding = if text { None } else { dataset.encoding(variable) };
        Ok(Self {
            dataset: dataset.clone(),
            variable: variable.clone(),
            data_type,
            shape: shape.to_vec(),
            tiles,
            encoding,
        })
    }
}

#[async_trait]
impl Values for NetcdfValues {
    fn data_type(&self) -> DataType {
        self.data_type
    }

    fn shape(&self) -> &[u64] {
        &self.shape
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        if self.data_type == DataType::String {
            // Strings lie in heaps all over the file: they are read here and travel as JSON to `decode`.
            let Buffer::Strings(strings) = self.dataset.read(&self.variable).await? else {
                return Err(Error::internal("a string variable was read as numbers"));
            };
            let text = serde_json::to_vec(&strings).map_err(|error| Error::internal(error.to_string()))?;
            return Ok(vec![Bytes::from(text); tiles.len()]);
        }
        self.dataset.fetch(&self.variable, tiles).await
    }

    fn decode(&self, tile: usize, encoded: &Bytes, recycled: Vec<u8>) -> Result<Elements> {
        if self.data_type == DataType::String {
            let strings = serde_json::from_slice(encoded).map_err(|error| Error::internal(error.to_string()))?;
            return Ok(Elements::Strings(strings));
        }
        self.dataset.decode(&self.variable, tile, encoded, recycled).map(Elements::Fixed)
    }

    fn encoding(&self) -> Option<&[Value]> {
        self.encoding.as_deref()
    }

    fn pass_through(&self, tile: usize, encoded: &Bytes) -> Result<Option<Bytes>> {
        self.dataset.pass_through(&self.variable, tile, encoded)
    }
}
