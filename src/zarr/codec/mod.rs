//! Encoding and decoding of one chunk.

mod sharding;

use bytes::Bytes;
use serde_json::Value;

use super::DataType;
use super::values::Elements;
use crate::error::{Error, Result};

pub use sharding::{IndexLocation, Sharding};

/// The codecs of an array: how the elements of one chunk become the bytes of one object, and back.
#[derive(Debug)]
pub struct Codecs {
    data_type: DataType,
}

impl Codecs {
    /// Encodes the elements of one chunk of `shape`; the same elements always give the same bytes.
    ///
    /// # Errors
    /// `Internal` where the elements are not exactly a chunk of `shape`; `Invalid` where they cannot be encoded.
    pub fn encode(&self, elements: Elements, shape: &[u64]) -> Result<Bytes> {
        self.encode_recycling(elements, shape).map(|(bytes, _)| bytes)
    }

    /// [`Codecs::encode`], which also gives back the buffer of `elements` (or another one of its size) where it is no
    /// longer needed; empty where it became the answer.
    ///
    /// # Errors
    /// As [`Codecs::encode`].
    pub fn encode_recycling(&self, elements: Elements, _shape: &[u64]) -> Result<(Bytes, Vec<u8>)> {
        match elements {
            Elements::Fixed(bytes) => Ok((bytes.into(), Vec::new())),
            Elements::Strings(_) => Err(Error::internal(format!("strings of `{:?}`: not yet", self.data_type))),
        }
    }

    /// Decodes one chunk of `shape`. `recycled` is an earlier result's buffer, to be reused.
    ///
    /// # Errors
    /// `Corrupt` where the bytes do not decode to exactly `shape`.
    pub fn decode(&self, encoded: Bytes, _shape: &[u64], mut recycled: Vec<u8>) -> Result<Elements> {
        recycled.clear();
        recycled.extend_from_slice(&encoded);
        Ok(Elements::Fixed(recycled))
    }

    /// The codecs as numcodecs configurations in order of encoding (`[{"id": "shuffle", ..}, {"id": "zlib", ..}]`), where
    /// the bytes of a chunk in C order and little-endian pass through nothing else; `None` otherwise.
    #[must_use]
    pub fn numcodecs(&self) -> Option<Vec<Value>> {
        None
    }
}
