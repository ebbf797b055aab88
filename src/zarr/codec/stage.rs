//! One step of a chain of codecs, from bytes to bytes.

use bytes::Bytes;
use serde_json::{Value, json};

use super::blosc;
use super::deflate::{self, Container};
use super::delta::Delta;
use super::shuffle;
use super::transpose::{inverse, transpose};
use super::zstandard;
use crate::error::{Error, Result};

/// What is known of the number of bytes that a stage decodes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// Known: anything else is corrupt.
    Exactly(usize),
    /// Only bounded: strings, and compression of what is already compressed.
    AtMost(usize),
}

impl Size {
    /// Whether `length` bytes may come.
    pub(super) fn allows(self, length: usize) -> bool {
        match self {
            Self::Exactly(size) => size == length,
            Self::AtMost(size) => length <= size,
        }
    }
}

/// The error of a stage that decodes to another number of bytes than it must.
pub(super) fn wrong_size(size: Size, length: usize) -> Error {
    match size {
        Size::Exactly(size) => Error::corrupt(format!("expected `{size}` bytes, found `{length}`")),
        Size::AtMost(size) => Error::corrupt(format!("expected at most `{size}` bytes, found `{length}`")),
    }
}

/// Calls `decode` with a buffer of enough capacity: the exact size where it is known, else one that grows from a guess
/// up to the limit. `decode` answers whether the capacity was enough.
///
/// A hostile chunk thus never costs more memory than the chunk that it claims to be.
pub(super) fn decode_growing(
    encoded: usize,
    stated: Option<u64>,
    size: Size,
    output: &mut Vec<u8>,
    mut decode: impl FnMut(&mut Vec<u8>) -> Result<bool>,
) -> Result<()> {
    let (mut capacity, limit) = match size {
        Size::Exactly(exact) => (exact, exact),
        Size::AtMost(limit) => {
            let plausible = encoded.saturating_mul(16).max(1 << 16);
            let guess = stated.and_then(|stated| usize::try_from(stated).ok()).filter(|stated| *stated <= plausible);
            (guess.unwrap_or(encoded.saturating_mul(4)).clamp(1 << 10, 1 << 30).min(limit), limit)
        }
    };
    if let Some(stated) = stated
        && stated > limit as u64
    {
        return Err(Error::corrupt(format!("expected at most `{limit}` bytes, found `{stated}`")));
    }
    loop {
        output.truncate(capacity);
        output.reserve(capacity - output.len());
        if decode(output)? {
            let length = output.len();
            return if size.allows(length) { Ok(()) } else { Err(wrong_size(size, length)) };
        }
        if output.capacity() >= limit {
            return Err(Error::corrupt(format!("expected at most `{limit}` bytes, found more")));
        }
        capacity = output.capacity().saturating_mul(2).min(limit);
    }
}

/// One step, in order of encoding.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    /// Elements in another order; `order` has one entry a dimension.
    Transpose { order: Vec<usize> },
    /// Every run of `size` bytes reversed: big-endian arrays.
    Swap { size: usize },
    /// Differences of neighbours.
    Delta(Delta),
    /// Bytes of elements regrouped.
    Shuffle { element_size: usize },
    /// Zstandard.
    Zstd { level: i32, checksum: bool },
    /// Zlib or gzip.
    Deflate { container: Container, level: i32 },
    /// Blosc 1.
    Blosc(blosc::Settings),
    /// A CRC-32C behind the bytes.
    Crc32c,
}

/// The chunk that a chain of stages works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk<'a> {
    /// Its shape before this stage encodes (after it decodes).
    pub(super) shape: &'a [usize],
    /// Bytes of one element.
    pub(super) element_size: usize,
}

impl Stage {
    /// Encodes `current`, using `spare` as the target where it cannot be done in place; the answer is in `current`.
    pub(super) fn encode(&self, current: &mut Vec<u8>, spare: &mut Vec<u8>, chunk: Chunk<'_>) -> Result<()> {
        match self {
            Self::Swap { size } => {
                swap(current, *size);
                return Ok(());
            }
            Self::Crc32c => {
                let checksum = crc32c::crc32c(current);
                current.extend_from_slice(&checksum.to_le_bytes());
                return Ok(());
            }
            Self::Transpose { order } => transpose(current, chunk.shape, order, chunk.element_size, spare)?,
            Self::Delta(delta) => delta.encode(current, spare)?,
            Self::Shuffle { element_size } => {
                check_shuffle(current.len(), *element_size).map_err(|error| Error::invalid(error.message()))?;
                shuffle::encode(current, *element_size, spare);
            }
            Self::Zstd { level, checksum } => zstandard::encode(current, *level, *checksum, spare)?,
            Self::Deflate { container, level } => deflate::encode(current, *container, *level, spare)?,
            Self::Blosc(settings) => blosc::encode(current, settings, spare)?,
        }
        std::mem::swap(current, spare);
        Ok(())
    }

    /// Decodes `input` into `output`, where it is not a view of `input` (see [`Stage::strip`]).
    pub(super) fn decode(&self, input: &[u8], output: &mut Vec<u8>, size: Size, chunk: Chunk<'_>) -> Result<()> {
        match self {
            Self::Swap { size } => {
                output.clear();
                output.extend_from_slice(input);
                swap(output, *size);
            }
            Self::Crc32c => {
                output.clear();
                output.extend_from_slice(checked(input)?);
            }
            Self::Transpose { order } => {
                let transposed: Vec<usize> = order.iter().map(|dimension| chunk.shape[*dimension]).collect();
                transpose(input, &transposed, &inverse(order), chunk.element_size, output)?;
            }
            Self::Delta(delta) => delta.decode(input, output)?,
            Self::Shuffle { element_size } => {
                check_shuffle(input.len(), *element_size)?;
                shuffle::decode(input, *element_size, output);
            }
            Self::Zstd { .. } => zstandard::decode(input, size, output)?,
            Self::Deflate { container, .. } => deflate::decode(input, *container, size, output)?,
            Self::Blosc(_) => blosc::decode(input, size, output)?,
        }
        if size.allows(output.len()) { Ok(()) } else { Err(wrong_size(size, output.len())) }
    }

    /// What is known of the encoded size when the decoded size is known; `slack` for what only a bound is known of.
    pub(super) fn encoded_size(&self, decoded: Size) -> Size {
        let (length, exact) = match decoded {
            Size::Exactly(length) => (length, true),
            Size::AtMost(length) => (length, false),
        };
        let known = |length| if exact { Size::Exactly(length) } else { Size::AtMost(length) };
        match self {
            Self::Transpose { .. } | Self::Swap { .. } | Self::Shuffle { .. } => decoded,
            Self::Delta(delta) => known(length / delta.decoded.size * delta.encoded.size),
            Self::Crc32c => known(length.saturating_add(4)),
            // No compressor here makes more of incompressible bytes than this.
            Self::Zstd { .. } | Self::Deflate { .. } | Self::Blosc(_) => {
                Size::AtMost(length.saturating_add(length / 64).saturating_add(1 << 10))
            }
        }
    }

    /// The numcodecs configuration of it, where there is one.
    pub(super) fn numcodecs(&self) -> Option<Value> {
        Some(match self {
            Self::Shuffle { element_size } => json!({"id": "shuffle", "elementsize": element_size}),
            Self::Zstd { level, checksum } => json!({"id": "zstd", "level": level, "checksum": checksum}),
            Self::Deflate { container: Container::Zlib, level } => json!({"id": "zlib", "level": level}),
            Self::Deflate { container: Container::Gzip, level } => json!({"id": "gzip", "level": level}),
            Self::Blosc(settings) => json!({
                "id": "blosc",
                "cname": settings.name.to_str().ok()?,
                "clevel": settings.level,
                "shuffle": settings.shuffle,
                "blocksize": settings.block_size,
            }),
            Self::Crc32c => json!({"id": "crc32c"}),
            Self::Transpose { .. } | Self::Swap { .. } | Self::Delta(_) => return None,
        })
    }
}

/// The bytes before a checksum, without a copy.
pub(super) fn strip(input: &Bytes) -> Result<Bytes> {
    let length = checked(input)?.len();
    Ok(input.slice(..length))
}

/// What lies before the CRC-32C at the end of `input`.
pub(super) fn checked(input: &[u8]) -> Result<&[u8]> {
    let (content, stated) = input
        .split_last_chunk::<4>()
        .ok_or_else(|| Error::corrupt(format!("expected a checksum, found `{}` bytes", input.len())))?;
    let (stated, found) = (u32::from_le_bytes(*stated), crc32c::crc32c(content));
    if stated == found {
        Ok(content)
    } else {
        Err(Error::corrupt(format!("expected CRC-32C `{stated:08x}`, found `{found:08x}`")))
    }
}

pub(super) fn swap(bytes: &mut [u8], size: usize) {
    match size {
        2 => bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|element| element.reverse()),
        4 => bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|element| element.reverse()),
        8 => bytes.as_chunks_mut::<8>().0.iter_mut().for_each(|element| element.reverse()),
        _ => bytes.chunks_exact_mut(size.max(1)).for_each(<[u8]>::reverse),
    }
}

fn check_shuffle(length: usize, element_size: usize) -> Result<()> {
    if element_size > 0 && length.is_multiple_of(element_size) {
        Ok(())
    } else {
        Err(Error::corrupt(format!("shuffle: `{length}` bytes are no whole number of elements of `{element_size}`")))
    }
}
