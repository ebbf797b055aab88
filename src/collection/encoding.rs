//! How a variable of a source is stored in a new array: element type, fill value, chunks, shards, compression.
//!
//! What the configuration does not say is taken from the file, so that values stay as they are packed and chunks as they are
//! cut; along the axis, where a file has one step, a chunk holds about a mebibyte.

use serde_json::{Map, Value, json};

use super::config::{Codec, Config, StoreFormat, Strings};
use super::convert::Packing;
use super::source::SourceVariable;
use crate::error::{Error, Result};
use crate::zarr::{BloscShuffle, Compressor, DataType, Format};

/// Elements of a chunk of a one-dimensional array along the axis: labels are read whole at every start, and one object of
/// 128 kB is read as quickly as one of 8 bytes (pangeo-forge-recipes issue 209: 511 objects took 2 min 34 s).
pub(super) const COORDINATE_CHUNK: u64 = 16_384;
/// Bytes of a chunk that is not configured, about.
const DEFAULT_CHUNK_BYTES: u64 = 1 << 20;

/// Data type, attributes and fill.
pub(super) type ElementType = (DataType, Map<String, Value>, Option<Vec<u8>>);

/// Data type, attributes and fill of a variable in the store.
pub(super) fn element_type(variable: &SourceVariable, config: &Config, format: Format) -> Result<ElementType> {
    let mut attributes = variable.attributes.clone();
    if let DataType::FixedBytes { length } = variable.data_type {
        let strings = config.variables.strings.unwrap_or(match format {
            Format::V2 => Strings::Fixed,
            Format::V3 => Strings::Utf8,
        });
        return Ok(match strings {
            Strings::Fixed => (DataType::FixedBytes { length }, attributes, None),
            Strings::Utf8 => (DataType::String, attributes, None),
        });
    }
    let Some(wanted) = config.variables.packing.get(&variable.name) else {
        return Ok((variable.data_type, attributes, variable.fill.clone()));
    };
    let data_type = match &wanted.dtype {
        Some(name) => data_type_named(name)?,
        None => variable.data_type,
    };
    for (name, value) in [("scale_factor", wanted.scale), ("add_offset", wanted.offset)] {
        if let Some(value) = value {
            attributes.insert(name.into(), json!(value));
        } else if wanted.dtype.is_some() {
            attributes.shift_remove(name);
        }
    }
    // Bounds and markers in packed units of the source mean nothing in another packing (CF section 8.1).
    for name in ["valid_min", "valid_max", "valid_range", "missing_value"] {
        attributes.shift_remove(name);
    }
    let fill = match wanted.fill {
        Some(value) => Some(packed_fill(value, data_type)?),
        None if variable.data_type == data_type => variable.fill.clone(),
        None => Some(default_fill(data_type)),
    };
    Ok((data_type, attributes, fill))
}

fn packed_fill(value: f64, data_type: DataType) -> Result<Vec<u8>> {
    let number = |data_type| Packing { data_type, scale: 1.0, offset: 0.0, fill: None };
    let float = number(DataType::Float64);
    match super::convert::Conversion::between(&float, &number(data_type), Some(0.0))? {
        Some(conversion) => conversion.apply(&value.to_le_bytes()),
        None => Ok(value.to_le_bytes().to_vec()),
    }
}

/// The lowest integer, or NaN: what no packed value should be.
fn default_fill(data_type: DataType) -> Vec<u8> {
    match data_type {
        DataType::Float32 | DataType::Float64 | DataType::Float16 => nan(data_type),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            vec![0xff; data_type.size().unwrap_or(1)]
        }
        other => {
            let mut bytes = vec![0; other.size().unwrap_or(1)];
            if let Some(last) = bytes.last_mut() {
                *last = 0x80;
            }
            bytes
        }
    }
}

pub(super) fn nan(data_type: DataType) -> Vec<u8> {
    match data_type {
        DataType::Float32 => f32::NAN.to_le_bytes().to_vec(),
        DataType::Float16 => vec![0x00, 0x7e],
        _ => f64::NAN.to_le_bytes().to_vec(),
    }
}

/// A data type by its NumPy name.
///
/// # Errors
/// `Invalid` where it is not a number type.
pub fn data_type_named(name: &str) -> Result<DataType> {
    Ok(match name {
        "bool" => DataType::Bool,
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        other => {
            return Err(Error::invalid(format!("data type `{other}` is not a number type"))
                .hint("use a NumPy name: int8, int16, int32, int64, uint8 … uint64, float32, float64"));
        }
    })
}

/// The chunk of a new array: what is configured, else the source's own where its codec is kept, else about a mebibyte
/// along the axis and whole otherwise.
pub(super) fn chunk_shape(
    variable: &SourceVariable,
    shape: &[u64],
    axis: Option<usize>,
    data_type: DataType,
    config: &Config,
) -> Vec<u64> {
    let size = data_type.size().unwrap_or(32) as u64;
    if shape.len() == 1 {
        return vec![if axis.is_some() { COORDINATE_CHUNK } else { shape[0].max(1) }];
    }
    let configured = &config.store.chunks;
    let own = variable.chunk_shape.as_ref().filter(|_| config.store.codec == Codec::Source);
    let mut chunk: Vec<u64> = variable
        .dimensions
        .iter()
        .enumerate()
        .map(|(position, name)| {
            let whole = shape[position].max(1);
            match (configured.get(name), own) {
                (Some(length), _) if Some(position) == axis => (*length).max(1),
                (Some(length), _) => (*length).clamp(1, whole),
                (None, Some(own)) => own[position].max(1),
                (None, None) if Some(position) == axis => 0,
                (None, None) => whole,
            }
        })
        .collect();
    if let Some(axis) = axis
        && chunk[axis] == 0
    {
        let step: u64 = size
            * chunk
                .iter()
                .enumerate()
                .filter(|(position, _)| *position != axis)
                .map(|(_, length)| length)
                .product::<u64>();
        chunk[axis] = (DEFAULT_CHUNK_BYTES / step.max(1)).clamp(1, 1024);
    }
    chunk
}

/// The shard of a new array: configured lengths, rounded up to whole chunks; dimensions not named are one chunk.
pub(super) fn shard_shape(
    variable: &SourceVariable,
    chunk: &[u64],
    shape: &[u64],
    axis: Option<usize>,
    config: &Config,
) -> Result<Option<Vec<u64>>> {
    let Some(shards) = &config.store.shards else {
        return Ok(None);
    };
    if config.store.format == StoreFormat::Zarr2 {
        return Err(Error::invalid("`store.shards` needs `format: zarr3`: Zarr v2 has no shards"));
    }
    if axis.is_none() || shape.len() == 1 {
        return Ok(None);
    }
    let shard: Vec<u64> = variable
        .dimensions
        .iter()
        .zip(chunk)
        .map(|(name, chunk)| shards.get(name).map_or(*chunk, |length| length.div_ceil(*chunk).max(1) * chunk))
        .collect();
    Ok((shard != chunk).then_some(shard))
}

pub(super) fn compressor(variable: &SourceVariable, data_type: DataType, config: &Config) -> Compressor {
    let level = config.store.level;
    let wide = data_type.size().is_some_and(|size| size > 1);
    match config.store.codec {
        Codec::Zstd => Compressor::Zstd { level: level.unwrap_or(3) },
        Codec::Blosc => Compressor::Blosc {
            name: "lz4".into(),
            level: level.unwrap_or(5) as u8,
            shuffle: if wide { BloscShuffle::Byte } else { BloscShuffle::None },
        },
        Codec::Gzip => Compressor::Gzip { level: level.unwrap_or(4) as u8 },
        Codec::Zlib => Compressor::Zlib { level: level.unwrap_or(4) as u8, shuffle: wide },
        Codec::None => Compressor::None,
        Codec::Source => match variable.values.encoding() {
            Some(codecs) if variable.data_type == data_type => Compressor::Source(codecs.to_vec()),
            _ => Compressor::Zstd { level: 3 },
        },
    }
}
