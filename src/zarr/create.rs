//! What a new store and its arrays are to be.

use serde_json::{Map, Value};

use super::{Array, DataType, FillValue, Format, metadata_v2, metadata_v3};
use crate::error::{Context, Error, Result};

/// A group to be created, with its arrays.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// The format of all metadata.
    pub format: Format,
    /// Attributes of the root group.
    pub attributes: Map<String, Value>,
    /// The arrays; paths are unique, intermediate groups are created.
    pub arrays: Vec<ArraySpec>,
}

/// An array to be created.
#[derive(Debug, Clone)]
pub struct ArraySpec {
    /// Its path in the store, `name` or `group/name`.
    pub path: String,
    /// Elements along each dimension.
    pub shape: Vec<u64>,
    /// The chunk that is encoded as one (the inner chunk of a shard); no dimension 0.
    pub chunk_shape: Vec<u64>,
    /// Elements of one shard, a multiple of the chunk along each dimension; v3 only.
    pub shard_shape: Option<Vec<u64>>,
    /// The type of one element.
    pub data_type: DataType,
    /// What is not stored reads as.
    pub fill_value: FillValue,
    /// One name a dimension.
    pub dimension_names: Vec<String>,
    /// Attributes, without `_ARRAY_DIMENSIONS`. A `_FillValue` for xarray: see [`super::encode_fill_attribute`].
    pub attributes: Map<String, Value>,
    /// How chunks are compressed.
    pub compressor: Compressor,
}

/// How chunks of a new array are compressed.
#[derive(Debug, Clone, PartialEq)]
pub enum Compressor {
    /// Not at all.
    None,
    /// Zstandard, level -131072 to 22.
    Zstd {
        /// The compression level.
        level: i32,
    },
    /// Blosc 1.
    Blosc {
        /// `blosclz`, `lz4`, `lz4hc`, `snappy`, `zlib` or `zstd`.
        name: String,
        /// 0 to 9.
        level: u8,
        /// What is done before compression.
        shuffle: BloscShuffle,
    },
    /// Gzip, level 0 to 9.
    Gzip {
        /// The compression level.
        level: u8,
    },
    /// Zlib, level 0 to 9, behind a byte shuffle where `shuffle` is set.
    Zlib {
        /// The compression level.
        level: u8,
        /// Whether bytes are shuffled first (elements of more than one byte only).
        shuffle: bool,
    },
    /// numcodecs configurations in order of encoding, as a source's chunks have them (`shuffle`, `zlib`), so that encoded
    /// chunks can be copied.
    Source(Vec<Value>),
}

/// The filter inside Blosc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BloscShuffle {
    /// None.
    None,
    /// Bytes.
    Byte,
    /// Bits.
    Bit,
}

impl ArraySpec {
    /// The array as it will be, without storing anything. It is read from the document that would be written, so that
    /// nothing is created that cannot be opened again.
    ///
    /// # Errors
    /// `Invalid` where the specification contradicts itself or the format cannot express it.
    pub fn array(&self, format: Format) -> Result<Array> {
        if self.dimension_names.len() != self.shape.len() {
            let (path, names, shape) = (&self.path, &self.dimension_names, &self.shape);
            return Err(Error::invalid(format!(
                "array `{path}`: dimension names `{names:?}` do not fit shape `{shape:?}`"
            )));
        }
        let array = match format {
            Format::V2 => metadata_v2::create(self).and_then(|document| {
                let mut attributes = self.attributes.clone();
                attributes.insert(metadata_v2::DIMENSIONS.to_owned(), self.dimension_names.clone().into());
                metadata_v2::parse(&self.path, &document, &attributes)
            }),
            Format::V3 => metadata_v3::create(self).and_then(|document| metadata_v3::parse(&self.path, &document)),
        };
        array.context(|| format!("array `{}`", self.path))
    }
}
