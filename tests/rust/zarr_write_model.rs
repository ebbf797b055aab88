//! A dense array that does what a store should do, and sources that count what is asked of them.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::{Error, Result};
use regraft::store::{StorageOptions, Store};
use regraft::zarr::{
    Array, ArraySpec, Compressor, Content, DataType, Elements, FillValue, Format, Patch, Region, Tile, Values,
};

/// What the tests fill their arrays with.
pub(crate) const FILL: u16 = 0x0100;

/// A store of its own.
pub(crate) fn fresh_store() -> Store {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Store::open(&format!("memory://zarr-write-{number}"), &StorageOptions::default()).unwrap()
}

/// An array of `uint16`.
pub(crate) fn array(
    format: Format,
    shape: &[u64],
    chunk_shape: &[u64],
    shard_shape: Option<&[u64]>,
    compressor: Compressor,
) -> Array {
    ArraySpec {
        path: "a".to_owned(),
        shape: shape.to_vec(),
        chunk_shape: chunk_shape.to_vec(),
        shard_shape: shard_shape.map(<[u64]>::to_vec),
        data_type: DataType::UInt16,
        fill_value: FillValue::Bytes(FILL.to_le_bytes().to_vec()),
        dimension_names: (0..shape.len()).map(|dimension| format!("d{dimension}")).collect(),
        attributes: serde_json::Map::new(),
        compressor,
    }
    .array(format)
    .unwrap()
}

/// A dense array of `uint16`, C order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dense {
    pub(crate) shape: Vec<u64>,
    pub(crate) values: Vec<u16>,
}

/// Every index of a box of `shape`, C order.
pub(crate) fn indices(shape: &[u64]) -> impl Iterator<Item = Vec<u64>> {
    let shape = shape.to_vec();
    (0..shape.iter().product::<u64>()).map(move |mut flat| {
        let mut index = vec![0; shape.len()];
        for dimension in (0..shape.len()).rev() {
            index[dimension] = flat % shape[dimension];
            flat /= shape[dimension];
        }
        index
    })
}

pub(crate) fn plus(one: &[u64], other: &[u64]) -> Vec<u64> {
    one.iter().zip(other).map(|(a, b)| a + b).collect()
}

impl Dense {
    pub(crate) fn filled(shape: &[u64]) -> Self {
        Self { shape: shape.to_vec(), values: vec![FILL; shape.iter().product::<u64>() as usize] }
    }

    fn offset(&self, index: &[u64]) -> usize {
        index.iter().zip(&self.shape).fold(0, |offset, (index, side)| offset * side + index) as usize
    }

    pub(crate) fn get(&self, index: &[u64]) -> u16 {
        self.values[self.offset(index)]
    }

    pub(crate) fn set(&mut self, index: &[u64], value: u16) {
        let offset = self.offset(index);
        self.values[offset] = value;
    }

    /// The same elements in an array that is larger, or where slots of `dimension` moved.
    pub(crate) fn grown(&self, shape: &[u64], moved: Option<(usize, &[Option<u64>])>) -> Self {
        let mut grown = Self::filled(shape);
        for index in indices(shape) {
            let mut old = index.clone();
            if let Some((dimension, map)) = moved {
                let Some(from) = map[index[dimension] as usize] else { continue };
                old[dimension] = from;
            }
            if old.iter().zip(&self.shape).all(|(index, side)| index < side) {
                grown.set(&index, self.get(&old));
            }
        }
        grown
    }

    /// Applies a patch whose source is `Counting`.
    pub(crate) fn apply(&mut self, region: &Region, source: Option<(&Dense, &[u64])>) {
        for index in indices(&region.shape) {
            let value = source.map_or(FILL, |(source, origin)| source.get(&plus(origin, &index)));
            self.set(&plus(&region.start, &index), value);
        }
    }
}

/// What an array holds.
pub(crate) fn stored(store: &Store, array: &Array) -> Dense {
    let region = Region::whole(&array.shape);
    let elements = regraft::store::block_on(regraft::zarr::read(store, array, &region)).unwrap();
    let Elements::Fixed(bytes) = elements else { panic!("not strings") };
    let values = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Dense { shape: array.shape.clone(), values }
}

/// A source that serves a dense array in tiles and counts what is asked of it.
pub(crate) struct Counting {
    dense: Dense,
    tiles: Vec<Tile>,
    pub(crate) fetched: Vec<AtomicUsize>,
    pub(crate) decoded: Vec<AtomicUsize>,
    /// Encoded bytes that somebody holds now, and the most that were held at once.
    held: Arc<(AtomicU64, AtomicU64)>,
    /// A tile that cannot be decoded.
    pub(crate) broken: Option<usize>,
}

/// Encoded bytes that know when they are given up.
struct Held(Vec<u8>, Arc<(AtomicU64, AtomicU64)>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.1.0.fetch_sub(self.0.len() as u64, Ordering::Relaxed);
    }
}

impl Counting {
    /// Tiles of `tile_shape`; edge tiles are stored whole, as HDF5 does.
    pub(crate) fn new(dense: Dense, tile_shape: &[u64]) -> Self {
        let grid: Vec<u64> = dense.shape.iter().zip(tile_shape).map(|(side, tile)| side.div_ceil(*tile)).collect();
        let tiles: Vec<Tile> = indices(&grid)
            .map(|index| {
                let start: Vec<u64> = index.iter().zip(tile_shape).map(|(index, side)| index * side).collect();
                let shape =
                    start.iter().zip(tile_shape).zip(&dense.shape).map(|((start, side), end)| (end - start).min(*side));
                let region = Region::new(start.clone(), shape.collect());
                let encoded_size = tile_shape.iter().product::<u64>() * 2;
                Tile { region, decoded_shape: tile_shape.to_vec(), encoded_size }
            })
            .collect();
        let counters = || (0..tiles.len()).map(|_| AtomicUsize::new(0)).collect();
        Self { dense, fetched: counters(), decoded: counters(), tiles, held: Arc::default(), broken: None }
    }

    pub(crate) fn most_decoded(&self) -> usize {
        self.decoded.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    pub(crate) fn most_held(&self) -> u64 {
        self.held.1.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Values for Counting {
    fn data_type(&self) -> DataType {
        DataType::UInt16
    }

    fn shape(&self) -> &[u64] {
        &self.dense.shape
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        tokio::task::yield_now().await;
        Ok(tiles
            .iter()
            .map(|tile| {
                self.fetched[*tile].fetch_add(1, Ordering::Relaxed);
                let size = self.tiles[*tile].encoded_size;
                let now = self.held.0.fetch_add(size, Ordering::Relaxed) + size;
                self.held.1.fetch_max(now, Ordering::Relaxed);
                let mut encoded = vec![0; size as usize];
                encoded[0] = *tile as u8;
                Bytes::from_owner(Held(encoded, Arc::clone(&self.held)))
            })
            .collect())
    }

    fn decode(&self, tile: usize, encoded: &Bytes, mut recycled: Vec<u8>) -> Result<Elements> {
        assert_eq!(encoded[0], tile as u8, "bytes of another tile");
        self.decoded[tile].fetch_add(1, Ordering::Relaxed);
        if self.broken == Some(tile) {
            return Err(Error::corrupt("this tile is broken"));
        }
        let Tile { region, decoded_shape, .. } = &self.tiles[tile];
        recycled.clear();
        for index in indices(decoded_shape) {
            let inside = index.iter().zip(&region.shape).all(|(index, side)| index < side);
            // What lies outside the source must never be seen.
            let value = if inside { self.dense.get(&plus(&region.start, &index)) } else { 0xDEAD };
            recycled.extend(value.to_le_bytes());
        }
        Ok(Elements::Fixed(recycled))
    }
}

/// A patch from a source.
pub(crate) fn patch(region: Region, values: Arc<dyn Values>, origin: &[u64]) -> Patch {
    Patch { region, content: Content::Values { values, origin: origin.to_vec() } }
}

/// A patch of fill.
pub(crate) fn blank(region: Region) -> Patch {
    Patch { region, content: Content::Fill }
}
