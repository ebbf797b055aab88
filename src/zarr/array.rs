//! One array of a store: its geometry, its element type, its codecs, and the metadata document that it came from.
//!
//! The document is kept and edited, never made again: fields that regraft does not know survive a change of shape.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::codec::{Codecs, Sharding};
use super::document::render;
use super::fill_json::decode_fill_attribute;
use super::metadata::key_of;
use super::{DataType, FillValue, metadata_v2, metadata_v3};
use crate::error::Result;

/// The version of the Zarr format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// `.zarray`, `.zattrs`, `.zgroup`, `.zmetadata`.
    #[serde(rename = "zarr2")]
    V2,
    /// `zarr.json`.
    #[serde(rename = "zarr3")]
    V3,
}

/// How the index of a chunk becomes the key of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyEncoding {
    /// v3 `default` puts a `c` before the indices.
    pub(super) prefixed: bool,
    /// `/` or `.`.
    pub(super) separator: char,
}

/// An array that regraft can read and write.
#[derive(Debug, Clone)]
pub struct Array {
    /// Its path in the store, `group/name`; empty where the store itself is an array.
    pub path: String,
    /// The format of its metadata.
    pub format: Format,
    /// Elements along each dimension.
    pub shape: Vec<u64>,
    /// The chunk that codecs encode as one: the inner chunk where there are shards. No dimension is 0.
    pub chunk_shape: Vec<u64>,
    /// Elements of one stored object along each dimension, a multiple of the chunk; `None` without shards.
    pub shard_shape: Option<Vec<u64>>,
    /// The type of one element.
    pub data_type: DataType,
    /// What a chunk that is not stored reads as.
    pub fill_value: FillValue,
    /// One name a dimension, "" where one has none; empty where the array names no dimension at all.
    pub dimension_names: Vec<String>,
    /// The user's attributes; v2's `_ARRAY_DIMENSIONS` is not among them, it is `dimension_names`.
    pub attributes: Map<String, Value>,
    /// How one chunk is encoded.
    pub codecs: Arc<Codecs>,
    /// How chunks are put together into a shard; `Some` exactly where `shard_shape` is.
    pub sharding: Option<Arc<Sharding>>,
    pub(super) key_encoding: KeyEncoding,
    /// Whether v2's attributes name dimensions; a scalar's list is empty, but xarray wants it.
    pub(super) has_dimension_names: bool,
    /// `zarr.json`, or `.zarray`, as it was read.
    pub(super) document: Map<String, Value>,
}

impl Array {
    /// The last component of its path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The position of the dimension called `name`.
    #[must_use]
    pub fn dimension(&self, name: &str) -> Option<usize> {
        self.dimension_names.iter().position(|dimension| dimension == name)
    }

    /// Elements along each dimension of one stored object: the shard, or the chunk where there are no shards.
    #[must_use]
    pub fn object_shape(&self) -> &[u64] {
        self.shard_shape.as_deref().unwrap_or(&self.chunk_shape)
    }

    /// Objects along each dimension, edges included.
    #[must_use]
    pub fn object_grid(&self) -> Vec<u64> {
        self.shape.iter().zip(self.object_shape()).map(|(size, step)| size.div_ceil(*step)).collect()
    }

    /// Inner chunks along each dimension of one shard; all ones without shards.
    #[must_use]
    pub fn chunks_per_object(&self) -> Vec<u64> {
        self.object_shape().iter().zip(&self.chunk_shape).map(|(object, chunk)| object / chunk).collect()
    }

    /// The key, in the store, of the object with grid index `index`: a shard, or a chunk without shards.
    #[must_use]
    pub fn chunk_key(&self, index: &[u64]) -> String {
        let mut key = String::with_capacity(self.path.len() + 8 * index.len() + 4);
        key.push_str(&self.path);
        if !self.path.is_empty() {
            key.push('/');
        }
        let KeyEncoding { prefixed, separator } = self.key_encoding;
        if prefixed {
            key.push('c');
        } else if index.is_empty() {
            key.push('0');
        }
        for (position, number) in index.iter().enumerate() {
            if prefixed || position > 0 {
                key.push(separator);
            }
            key.push_str(&number.to_string());
        }
        key
    }

    /// Bytes of one decoded chunk, `None` for strings.
    #[must_use]
    pub fn chunk_bytes(&self) -> Option<u64> {
        let size = self.data_type.size()? as u64;
        self.chunk_shape.iter().try_fold(size, |bytes, length| bytes.checked_mul(*length))
    }

    /// Elements of one chunk.
    #[must_use]
    pub fn chunk_elements(&self) -> u64 {
        self.chunk_shape.iter().product()
    }

    /// What the metadata of the array is stored as: keys in the store, and documents.
    #[must_use]
    pub fn metadata_documents(&self) -> Vec<(String, Bytes)> {
        self.documents().into_iter().map(|(key, document)| (key, render(&document))).collect()
    }

    /// [`Array::metadata_documents`] before they become text.
    pub(super) fn documents(&self) -> Vec<(String, Map<String, Value>)> {
        match self.format {
            Format::V2 => {
                let array = (key_of(&self.path, metadata_v2::ARRAY), metadata_v2::document(self));
                let attributes = (key_of(&self.path, metadata_v2::ATTRIBUTES), metadata_v2::attributes(self));
                vec![array, attributes]
            }
            Format::V3 => vec![(key_of(&self.path, metadata_v3::NODE), metadata_v3::document(self))],
        }
    }

    /// What xarray shows as missing: the fill value in v2, the attribute `_FillValue` in v3.
    ///
    /// # Errors
    /// `Invalid` where the attribute is no value of the array's type.
    pub fn missing_value(&self) -> Result<Option<FillValue>> {
        match (self.format, self.attributes.get("_FillValue")) {
            (_, Some(attribute)) => decode_fill_attribute(self.format, self.data_type, attribute).map(Some),
            (Format::V2, None) => Ok(Some(self.fill_value.clone()).filter(|fill| *fill != FillValue::Null)),
            (Format::V3, None) => Ok(None),
        }
    }

    /// Changes the shape; stored when the group is published.
    pub fn set_shape(&mut self, shape: Vec<u64>) {
        debug_assert_eq!(shape.len(), self.shape.len());
        self.shape = shape;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn array(encoding: &Value, shape: &[u64]) -> Array {
        let document = json!({
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "int16", "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": vec![4; shape.len()]}},
            "chunk_key_encoding": encoding,
            "codecs": [{"name": "sharding_indexed", "configuration": {
                "chunk_shape": vec![2; shape.len()], "codecs": ["bytes"], "index_codecs": ["bytes", "crc32c"]}}],
        });
        metadata_v3::parse("g/a", document.as_object().unwrap()).unwrap()
    }

    #[test]
    fn keys_follow_the_encoding() {
        for (encoding, key, scalar) in [
            (json!("default"), "g/a/c/1/20", "g/a/c"),
            (json!({"name": "default", "configuration": {"separator": "."}}), "g/a/c.1.20", "g/a/c"),
            (json!({"name": "v2"}), "g/a/1.20", "g/a/0"),
            (json!({"name": "v2", "configuration": {"separator": "/"}}), "g/a/1/20", "g/a/0"),
        ] {
            assert_eq!(array(&encoding, &[9, 90]).chunk_key(&[1, 20]), key);
            assert_eq!(array(&encoding, &[]).chunk_key(&[]), scalar);
        }
    }

    #[test]
    fn objects_are_shards() {
        let array = array(&json!("default"), &[9, 8]);
        assert_eq!(array.object_shape(), [4, 4]);
        assert_eq!(array.object_grid(), [3, 2]);
        assert_eq!(array.chunks_per_object(), [2, 2]);
        assert_eq!((array.chunk_elements(), array.chunk_bytes()), (4, Some(8)));
        assert_eq!(array.name(), "a");
        assert_eq!(array.dimension("x"), None);
    }
}
