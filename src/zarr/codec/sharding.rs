//! Shards (v3 `sharding_indexed`): several inner chunks in one object, behind or before an index of their places.
//!
//! The index is an array of two 64-bit integers a chunk, in C order of the grid of inner chunks: offset in the object
//! and size, both all ones where the chunk is not stored. Its codecs are `bytes` and, nearly always, `crc32c`; anything
//! else would make its size unknown, and is refused by the specification too.
//! Source: Zarr v3 `sharding_indexed` codec, version 1.0.

use std::ops::Range;

use super::stage::checked;
use crate::error::{Error, Result};

/// Where the index of a shard lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexLocation {
    /// Before the chunks.
    Start,
    /// After the chunks.
    End,
}

/// How the inner chunks of a shard are found.
///
/// Inner chunks are in C order of their grid in the index; in the object they may lie anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sharding {
    /// Where the index lies.
    pub location: IndexLocation,
    /// Whether the index ends with its CRC-32C.
    pub(in crate::zarr) checksum: bool,
    /// Whether its integers are big-endian.
    pub(in crate::zarr) big_endian: bool,
}

/// The offset and the size of a chunk that is not stored.
const EMPTY: u64 = u64::MAX;

impl Sharding {
    /// Bytes of the encoded index of a shard of `chunks` inner chunks.
    #[must_use]
    pub fn index_size(&self, chunks: usize) -> usize {
        chunks * 16 + if self.checksum { 4 } else { 0 }
    }

    /// Where the index lies in a shard object of `object_size` bytes with `chunks` inner chunks.
    ///
    /// # Errors
    /// `Corrupt` where the object is smaller than its index.
    pub fn index_range(&self, object_size: u64, chunks: usize) -> Result<Range<u64>> {
        let size = self.index_size(chunks) as u64;
        let start = object_size.checked_sub(size).ok_or_else(|| {
            Error::corrupt(format!("a shard of `{object_size}` bytes is smaller than its index of `{size}`"))
        })?;
        Ok(match self.location {
            IndexLocation::Start => 0..size,
            IndexLocation::End => start..object_size,
        })
    }

    /// Offset and size of each inner chunk, `None` where it is not stored. Places are not checked against the object:
    /// reading beyond it fails by itself.
    ///
    /// # Errors
    /// `Corrupt` where the size or the checksum is wrong.
    pub fn decode_index(&self, encoded: &[u8]) -> Result<Vec<Option<(u64, u64)>>> {
        let content = if self.checksum { checked(encoded)? } else { encoded };
        let (places, rest) = content.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(Error::corrupt(format!("a shard index of `{}` bytes is not whole", encoded.len())));
        }
        places
            .iter()
            .map(|place| {
                let (halves, _) = place.as_chunks::<8>();
                let integer = |half: [u8; 8]| {
                    if self.big_endian { u64::from_be_bytes(half) } else { u64::from_le_bytes(half) }
                };
                let (offset, size) = (integer(halves[0]), integer(halves[1]));
                match (offset, size) {
                    (EMPTY, EMPTY) => Ok(None),
                    _ if offset.checked_add(size).is_none() => {
                        Err(Error::corrupt(format!("a shard index has a chunk of `{size}` bytes at `{offset}`")))
                    }
                    _ => Ok(Some((offset, size))),
                }
            })
            .collect()
    }

    /// The encoded index of inner chunks at the given offsets and sizes.
    #[must_use]
    pub fn encode_index(&self, chunks: &[Option<(u64, u64)>]) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(self.index_size(chunks.len()));
        for chunk in chunks {
            let (offset, size) = chunk.unwrap_or((EMPTY, EMPTY));
            for integer in [offset, size] {
                encoded.extend(if self.big_endian { integer.to_be_bytes() } else { integer.to_le_bytes() });
            }
        }
        if self.checksum {
            let checksum = crc32c::crc32c(&encoded);
            encoded.extend(checksum.to_le_bytes());
        }
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_survives_and_a_flipped_bit_is_noticed() {
        for (checksum, big_endian) in [(true, false), (false, true), (true, true)] {
            let sharding = Sharding { location: IndexLocation::End, checksum, big_endian };
            let chunks = [Some((0, 5)), None, Some((5, 7)), None];
            let mut encoded = sharding.encode_index(&chunks);
            assert_eq!(encoded.len(), sharding.index_size(4));
            assert_eq!(sharding.decode_index(&encoded).unwrap(), chunks);
            if checksum {
                encoded[3] ^= 1;
                assert_eq!(sharding.decode_index(&encoded).unwrap_err().kind(), crate::error::Kind::Corrupt);
            }
        }
    }

    #[test]
    fn the_index_lies_at_either_end() {
        let sharding = Sharding { location: IndexLocation::End, checksum: true, big_endian: false };
        assert_eq!(sharding.index_range(100, 4).unwrap(), 32..100);
        assert!(sharding.index_range(10, 4).is_err());
        let sharding = Sharding { location: IndexLocation::Start, ..sharding };
        assert_eq!(sharding.index_range(100, 4).unwrap(), 0..68);
    }

    #[test]
    fn a_place_beyond_all_numbers_is_corrupt() {
        let sharding = Sharding { location: IndexLocation::End, checksum: false, big_endian: false };
        let encoded = sharding.encode_index(&[Some((u64::MAX - 1, 7))]);
        assert!(sharding.decode_index(&encoded).is_err());
    }
}
