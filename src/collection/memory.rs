//! A data set in memory as a source: what a `preprocess` hook returns and `write_region` is given.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::source::{Source, SourceVariable};
use crate::error::{Error, Result};
use crate::zarr::{DataType, Elements, Region, Tile, Values};

/// A data set whose encoded values are in memory.
#[derive(Debug, Clone)]
pub struct MemoryDataset {
    /// Length of each dimension.
    pub dimensions: BTreeMap<String, u64>,
    /// Global attributes.
    pub attributes: Map<String, Value>,
    /// Variables, encoded as a file would hold them.
    pub variables: Vec<MemoryVariable>,
}

/// One variable of a [`MemoryDataset`].
#[derive(Debug, Clone)]
pub struct MemoryVariable {
    /// Its name.
    pub name: String,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Their lengths.
    pub shape: Vec<u64>,
    /// The type of its elements.
    pub data_type: DataType,
    /// Attributes, `_FillValue` left out.
    pub attributes: Map<String, Value>,
    /// The missing value, one little-endian element.
    pub fill: Option<Vec<u8>>,
    /// Its elements, C order; fixed-size ones little-endian, strings as a list.
    pub data: MemoryData,
}

/// Elements in memory.
#[derive(Debug, Clone)]
pub enum MemoryData {
    /// Fixed-size elements, little-endian; shared with whoever made them.
    Fixed(Bytes),
    /// Strings.
    Strings(Arc<Vec<String>>),
}

impl MemoryDataset {
    /// As a source called `key`.
    ///
    /// # Errors
    /// `Invalid` where a variable's data do not have its shape.
    pub fn into_source(self, key: &str) -> Result<Source> {
        let variables = self
            .variables
            .into_iter()
            .map(|variable| {
                let values = variable.values()?;
                Ok(SourceVariable {
                    name: variable.name,
                    dimensions: variable.dimensions,
                    shape: variable.shape,
                    chunk_shape: None,
                    data_type: variable.data_type,
                    attributes: variable.attributes,
                    fill: variable.fill,
                    values,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Source {
            key: key.to_owned(),
            dimensions: self.dimensions,
            attributes: self.attributes,
            variables,
            unsupported: Vec::new(),
        })
    }
}

impl MemoryVariable {
    /// Its values.
    ///
    /// # Errors
    /// `Invalid` where its data do not have its shape.
    pub fn values(&self) -> Result<Arc<dyn Values>> {
        Ok(Arc::new(MemoryValues::new(self)?))
    }
}

/// Bytes of a tile: rows are grouped until they reach it, so that large arrays are spread over the cores.
const TILE_BYTES: u64 = 4 << 20;

struct MemoryValues {
    data_type: DataType,
    shape: Vec<u64>,
    tiles: Vec<Tile>,
    data: MemoryData,
}

impl MemoryValues {
    fn new(variable: &MemoryVariable) -> Result<Self> {
        let count: u64 = variable.shape.iter().product();
        let found = match &variable.data {
            MemoryData::Fixed(bytes) => bytes.len() as u64 / variable.data_type.size().unwrap_or(1).max(1) as u64,
            MemoryData::Strings(strings) => strings.len() as u64,
        };
        if found != count {
            return Err(Error::invalid(format!(
                "variable `{}`: expected `{count}` elements for shape {:?}, found `{found}`",
                variable.name, variable.shape
            )));
        }
        Ok(Self {
            data_type: variable.data_type,
            shape: variable.shape.clone(),
            tiles: row_tiles(&variable.shape, variable.data_type.size().unwrap_or(64) as u64),
            data: variable.data.clone(),
        })
    }

    /// Position of a tile's first element; tiles are runs of whole rows, so they are contiguous.
    fn element_range(&self, tile: usize) -> std::ops::Range<usize> {
        let mut start = 0;
        for (index, length) in self.tiles[tile].region.start.iter().zip(&self.shape) {
            start = start * length + index;
        }
        let start = start as usize;
        start..start + self.tiles[tile].region.element_count() as usize
    }
}

/// Cuts an array into runs of rows of about [`TILE_BYTES`], along its first dimensions.
fn row_tiles(shape: &[u64], element_size: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if shape.contains(&0) {
        return tiles;
    }
    // The dimension that is cut: everything behind it fits one tile.
    let mut cut = shape.len();
    let mut row_bytes = element_size;
    while cut > 0 && row_bytes * shape[cut - 1] <= TILE_BYTES {
        cut -= 1;
        row_bytes *= shape[cut];
    }
    if cut == 0 {
        let region = Region::whole(shape);
        return vec![Tile { encoded_size: row_bytes, decoded_shape: region.shape.clone(), region }];
    }
    let rows = (TILE_BYTES / row_bytes).max(1);
    let outer: u64 = shape[..cut - 1].iter().product();
    for outer_index in 0..outer {
        let mut start = vec![0; shape.len()];
        let mut rest = outer_index;
        for dimension in (0..cut - 1).rev() {
            start[dimension] = rest % shape[dimension];
            rest /= shape[dimension];
        }
        let mut row = 0;
        while row < shape[cut - 1] {
            let count = rows.min(shape[cut - 1] - row);
            let mut start = start.clone();
            start[cut - 1] = row;
            let mut length = vec![1; cut - 1];
            length.push(count);
            length.extend_from_slice(&shape[cut..]);
            tiles.push(Tile {
                encoded_size: count * row_bytes,
                decoded_shape: length.clone(),
                region: Region::new(start, length),
            });
            row += count;
        }
    }
    tiles
}

#[async_trait]
impl Values for MemoryValues {
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
        Ok(match (&self.data, self.data_type.size()) {
            (MemoryData::Fixed(bytes), Some(size)) => tiles
                .iter()
                .map(|tile| {
                    let range = self.element_range(*tile);
                    bytes.slice(range.start * size..range.end * size)
                })
                .collect(),
            _ => vec![Bytes::new(); tiles.len()],
        })
    }

    fn decode(&self, tile: usize, encoded: &Bytes, mut recycled: Vec<u8>) -> Result<Elements> {
        match &self.data {
            MemoryData::Fixed(_) => {
                recycled.clear();
                recycled.extend_from_slice(encoded);
                Ok(Elements::Fixed(recycled))
            }
            MemoryData::Strings(strings) => Ok(Elements::Strings(strings[self.element_range(tile)].to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_an_array_once_in_order() {
        for (shape, size) in
            [(vec![3, 2000, 3000], 2), (vec![7], 8), (vec![], 4), (vec![5, 1, 4_000_000], 4), (vec![0, 4], 1)]
        {
            let tiles = row_tiles(&shape, size);
            let total: u64 = tiles.iter().map(|tile| tile.region.element_count()).sum();
            let expected: u64 = if shape.contains(&0) { 0 } else { shape.iter().product() };
            assert_eq!(total, expected, "{shape:?}");
            assert!(tiles.windows(2).all(|pair| pair[0].region.start < pair[1].region.start), "{shape:?}");
        }
    }
}
