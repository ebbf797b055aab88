//! What a write is given: patches, and the values they take.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{DataType, Region};
use crate::error::Result;

/// A block of a source's values that is fetched and decoded as one: an HDF5 chunk, a run of a classic variable, a
/// NumPy array. Tiles of one source do not overlap and cover its shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Where it lies in the source's index space, clipped to the source's shape.
    pub region: Region,
    /// The shape it decodes to, at least `region.shape`: an edge chunk of HDF5 is stored whole.
    pub decoded_shape: Vec<u64>,
    /// Bytes that `fetch` brings for it, 0 where it is not stored (then it decodes to the source's own fill value).
    pub encoded_size: u64,
}

/// Decoded elements of a tile or a region, C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// Fixed-size elements, little-endian.
    Fixed(Vec<u8>),
    /// Variable-length strings.
    Strings(Vec<String>),
}

/// The values of one variable of one source, ready to be scattered into chunks.
///
/// I/O is in `fetch` (async), computation in `decode` (called on a CPU pool): the writer calls each at most once a tile
/// in a commit, unless memory does not allow it to keep a tile until the last chunk that needs it.
#[async_trait]
pub trait Values: Send + Sync {
    /// The element type that `decode` yields; the target array's type.
    fn data_type(&self) -> DataType;

    /// The shape of the index space of the tiles.
    fn shape(&self) -> &[u64];

    /// Every tile, in C order of their regions.
    fn tiles(&self) -> &[Tile];

    /// The encoded bytes of `tiles` (indices into [`Values::tiles`]), in that order.
    ///
    /// # Errors
    /// What reading the source raises; `Conflict` where the source is no longer the version that was planned.
    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>>;

    /// Decodes one tile into elements of its `decoded_shape`. `recycled` is an earlier result's buffer, to be reused.
    ///
    /// # Errors
    /// `Corrupt` where the bytes do not decode to exactly the tile; `Invalid` where a value cannot be represented.
    fn decode(&self, tile: usize, encoded: &Bytes, recycled: Vec<u8>) -> Result<Elements>;

    /// How tiles are encoded, as numcodecs configurations in order of encoding (`shuffle`, `zlib`), where the bytes could
    /// be stored as they are. `None` (the default) where they cannot.
    fn encoding(&self) -> Option<&[serde_json::Value]> {
        None
    }

    /// The bytes of a fetched tile as [`Values::encoding`] says, checksums verified and stripped; `None` where this tile
    /// deviates (an HDF5 filter mask).
    ///
    /// # Errors
    /// `Corrupt` where a checksum does not match.
    fn pass_through(&self, tile: usize, encoded: &Bytes) -> Result<Option<Bytes>> {
        let _ = (tile, encoded);
        Ok(None)
    }
}

/// What a patch puts into its region.
#[derive(Clone)]
pub enum Content {
    /// The array's fill value.
    Fill,
    /// Values of a source: element `origin + i` goes to `patch.region.start + i`.
    Values {
        /// Where the values come from.
        values: Arc<dyn Values>,
        /// The first index, in the source's index space.
        origin: Vec<u64>,
    },
}

/// New values for one region of one array; later patches of a list win over earlier ones.
#[derive(Clone)]
pub struct Patch {
    /// Which elements of the array.
    pub region: Region,
    /// What they become.
    pub content: Content,
}
