//! Encoding and decoding of one chunk.
//!
//! # Problem
//! Every touched chunk is encoded once, and most of them decoded once: after the source's own inflating, this is where
//! the time of a commit goes. The bytes come from stores that anybody may have written, so a chunk may lie about its size.
//!
//! # Design
//! A chain of stages from bytes to bytes over two buffers, one of which the caller recycles from chunk to chunk, the other
//! kept by the thread; a chain without stages hands the buffer through. Each compressor's library is called directly
//! (zstd, libdeflate, c-blosc), with its context kept by the thread. What a stage must decode to is known from the
//! shape beforehand: it is checked exactly, and is the limit of what is allocated. Strings have only a bound,
//! [`MAXIMUM_STRING_BYTES`]. No stage uses time, chance or threads, so the same elements always give the same bytes: that
//! is what makes the read-back after a doubtful put an answer.
//!
//! # Alternatives
//! The codec chain of `zarrs` covers the same v3 codecs: it allocates for every stage, inflates with `flate2` without a
//! limit, and knows neither `delta` nor the v2 types `|S` and `<M8`, for which this chain would be needed anyway.
//!
//! # Caveats
//! Refused, by name: `lz4`, `lzma`, `bz2`, `fixedscaleoffset`, `quantize`, `packbits`, `categorize`, `vlen-bytes`, `vlen-array`,
//! `json2`, `pickle`, shards within shards, codecs around `sharding_indexed`.
//!
//! # Testing
//! Round trips of every stage under proptest, damaged and lying input, chunks written by numcodecs; stores of zarr-python
//! in `tests/python`.

mod blosc;
mod deflate;
mod delta;
mod parse;
mod sharding;
mod shuffle;
mod stage;
mod strings;
mod transpose;
mod zstandard;

use std::cell::RefCell;

use bytes::Bytes;
use serde_json::Value;

use self::stage::{Chunk, Size, Stage};
use super::DataType;
use super::values::Elements;
use crate::error::{Error, Result};

pub(super) use parse::{V2Encoding, named};
pub use sharding::{IndexLocation, Sharding};

/// More bytes of strings than this in one chunk are refused.
pub const MAXIMUM_STRING_BYTES: usize = 1 << 31;

/// The codecs of an array: how the elements of one chunk become the bytes of one object, and back.
#[derive(Debug, Clone, PartialEq)]
pub struct Codecs {
    data_type: DataType,
    /// In order of encoding.
    stages: Vec<Stage>,
}

thread_local! {
    /// The second of the two buffers that stages alternate between.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A thread does not keep a larger buffer than this.
const MAXIMUM_SPARE: usize = 64 << 20;

fn take_spare() -> Vec<u8> {
    SPARE.with_borrow_mut(std::mem::take)
}

fn keep_spare(buffer: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| {
        if buffer.capacity() > spare.capacity() && buffer.capacity() <= MAXIMUM_SPARE {
            *spare = buffer;
        }
    });
}

/// What is being decoded: bytes as they came, or a buffer of ours.
enum Current {
    Encoded(Bytes),
    Buffer(Vec<u8>),
}

impl Codecs {
    /// Encodes the elements of one chunk of `shape`; the same elements always give the same bytes.
    ///
    /// # Errors
    /// `Internal` where the elements are not exactly a chunk of `shape`; `Invalid` where they cannot be encoded.
    pub fn encode(&self, elements: Elements, shape: &[u64]) -> Result<Bytes> {
        let (bytes, spare) = self.encode_recycling(elements, shape)?;
        keep_spare(spare);
        Ok(bytes)
    }

    /// [`Codecs::encode`], which also gives back a buffer to be filled with the next chunk's elements; empty where the
    /// buffer of `elements` became the answer.
    ///
    /// # Errors
    /// As [`Codecs::encode`].
    pub fn encode_recycling(&self, elements: Elements, shape: &[u64]) -> Result<(Bytes, Vec<u8>)> {
        let chunk = self.geometry(shape)?;
        let mut shape = chunk.shape;
        let mut spare = take_spare();
        let mut stages = self.stages.as_slice();
        let mut current = match (elements, self.data_type.size()) {
            (Elements::Fixed(bytes), Some(_)) if Size::Exactly(bytes.len()) == chunk.decoded => bytes,
            (Elements::Strings(mut strings), None) if strings.len() == chunk.count => {
                while let Some((Stage::Transpose { order }, rest)) = stages.split_first() {
                    let mut transposed = Vec::new();
                    transpose::transpose(&strings, &shape, order, 1, &mut transposed)?;
                    shape = order.iter().map(|dimension| shape[*dimension]).collect();
                    (strings, stages) = (transposed, rest);
                }
                let mut bytes = Vec::new();
                strings::encode(&strings, &mut bytes)?;
                bytes
            }
            (elements, _) => {
                let found = match &elements {
                    Elements::Fixed(bytes) => format!("{} bytes", bytes.len()),
                    Elements::Strings(strings) => format!("{} strings", strings.len()),
                };
                let data_type = self.data_type;
                return Err(Error::internal(format!("expected a chunk `{shape:?}` of {data_type:?}, found `{found}`")));
            }
        };
        for stage in stages {
            stage.encode(&mut current, &mut spare, Chunk { shape: &shape, element_size: chunk.element_size })?;
            if let Stage::Transpose { order } = stage {
                shape = order.iter().map(|dimension| shape[*dimension]).collect();
            }
        }
        // A compressed chunk lies in a buffer of nearly the decoded size: keep the buffer, copy what is small.
        let encoded = if current.capacity() - current.len() > current.len() / 8 {
            let encoded = Bytes::copy_from_slice(&current);
            if current.capacity() > spare.capacity() {
                std::mem::swap(&mut current, &mut spare);
            }
            keep_spare(current);
            encoded
        } else {
            current.into()
        };
        Ok((encoded, spare))
    }

    /// Decodes one chunk of `shape`. `recycled` is an earlier result's buffer, to be reused.
    ///
    /// # Errors
    /// `Corrupt` where the bytes do not decode to exactly `shape`.
    pub fn decode(&self, encoded: Bytes, shape: &[u64], mut recycled: Vec<u8>) -> Result<Elements> {
        let chunk = self.geometry(shape)?;
        let mut sizes = vec![chunk.decoded];
        let mut shapes = vec![chunk.shape];
        for stage in &self.stages {
            sizes.push(stage.encoded_size(sizes[sizes.len() - 1]));
            let shape = &shapes[shapes.len() - 1];
            shapes.push(match stage {
                Stage::Transpose { order } => order.iter().map(|dimension| shape[*dimension]).collect(),
                _ => shape.clone(),
            });
        }
        // Strings are transposed as strings, after they were taken out of the bytes.
        let on_strings = match self.data_type.size() {
            Some(_) => 0,
            None => self.stages.iter().take_while(|stage| matches!(stage, Stage::Transpose { .. })).count(),
        };
        let mut current = Current::Encoded(encoded);
        for position in (on_strings..self.stages.len()).rev() {
            let stage = &self.stages[position];
            let chunk = Chunk { shape: &shapes[position], element_size: chunk.element_size };
            current = match (stage, current) {
                (Stage::Crc32c, Current::Encoded(bytes)) => Current::Encoded(stage::strip(&bytes)?),
                (Stage::Swap { size }, Current::Buffer(mut buffer)) => {
                    stage::swap(&mut buffer, *size);
                    Current::Buffer(buffer)
                }
                (_, Current::Encoded(bytes)) => {
                    let mut output = std::mem::take(&mut recycled);
                    stage.decode(&bytes, &mut output, sizes[position], chunk)?;
                    Current::Buffer(output)
                }
                (_, Current::Buffer(input)) => {
                    let mut output =
                        if recycled.capacity() == 0 { take_spare() } else { std::mem::take(&mut recycled) };
                    stage.decode(&input, &mut output, sizes[position], chunk)?;
                    recycled = input;
                    Current::Buffer(output)
                }
            };
        }
        if self.data_type.size().is_none() {
            let decoded = match &current {
                Current::Encoded(bytes) => strings::decode(bytes, chunk.count),
                Current::Buffer(buffer) => strings::decode(buffer, chunk.count),
            };
            let mut strings = decoded?;
            for position in (0..on_strings).rev() {
                if let Stage::Transpose { order } = &self.stages[position] {
                    let mut transposed = Vec::new();
                    let inverse = transpose::inverse(order);
                    transpose::transpose(&strings, &shapes[position + 1], &inverse, 1, &mut transposed)?;
                    strings = transposed;
                }
            }
            return Ok(Elements::Strings(strings));
        }
        let decoded = match current {
            Current::Buffer(buffer) => buffer,
            Current::Encoded(bytes) if bytes.is_unique() => bytes.into(),
            Current::Encoded(bytes) => {
                recycled.clear();
                recycled.extend_from_slice(&bytes);
                std::mem::take(&mut recycled)
            }
        };
        keep_spare(recycled);
        if chunk.decoded.allows(decoded.len()) {
            Ok(Elements::Fixed(decoded))
        } else {
            Err(stage::wrong_size(chunk.decoded, decoded.len()))
        }
    }

    /// The codecs as numcodecs configurations in order of encoding (`[{"id": "shuffle", ..}, {"id": "zlib", ..}]`), where
    /// the bytes of a chunk in C order and little-endian pass through nothing else; `None` otherwise.
    #[must_use]
    pub fn numcodecs(&self) -> Option<Vec<Value>> {
        self.data_type.size()?;
        self.stages.iter().map(Stage::numcodecs).collect()
    }

    /// Whether bytes encoded as `encoding` says (numcodecs configurations in order of encoding) decode here to the same
    /// elements. Compression levels do not matter, nor does a shuffle of single bytes.
    #[must_use]
    pub fn accept(&self, encoding: &[Value]) -> bool {
        let significant = |codecs: &[Value]| -> Vec<(String, u64)> {
            codecs
                .iter()
                .map(|codec| {
                    let id = codec.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
                    let element_size = match id.as_str() {
                        "shuffle" => codec.get("elementsize").and_then(Value::as_u64).unwrap_or(4),
                        _ => 0,
                    };
                    (id, element_size)
                })
                .filter(|(id, element_size)| id != "shuffle" || *element_size > 1)
                .collect()
        };
        self.numcodecs().is_some_and(|codecs| significant(&codecs) == significant(encoding))
    }

    /// The sizes of a chunk of `shape`.
    fn geometry(&self, shape: &[u64]) -> Result<Geometry> {
        let lengths: Option<Vec<usize>> = shape.iter().map(|length| usize::try_from(*length).ok()).collect();
        let geometry = lengths.and_then(|lengths| {
            let count = lengths.iter().try_fold(1usize, |count, length| count.checked_mul(*length))?;
            let element_size = self.data_type.size().unwrap_or(1);
            let decoded = match self.data_type.size() {
                Some(size) => Size::Exactly(count.checked_mul(size)?),
                None => Size::AtMost(MAXIMUM_STRING_BYTES),
            };
            Some(Geometry { shape: lengths, count, element_size, decoded })
        });
        geometry.ok_or_else(|| Error::invalid(format!("a chunk of shape `{shape:?}` is too large")))
    }
}

/// The sizes of one chunk.
struct Geometry {
    shape: Vec<usize>,
    count: usize,
    element_size: usize,
    decoded: Size,
}

#[cfg(test)]
mod tests;
