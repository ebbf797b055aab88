//! The grid of an array: which chunk an element is in, and which stored object a chunk is in.

use crate::error::{Error, Result};
use crate::zarr::Region;

/// The grid of an array as a plan sees it.
///
/// A **stored object** is a shard where there are shards, else a chunk. All indices of chunks are global: a chunk of a
/// shard has the index it would have if there were no shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// The shape the array will have.
    pub shape: Vec<u64>,
    /// The shape of the (inner) chunks.
    pub chunk_shape: Vec<u64>,
    /// The shape of the shards, a multiple of the chunk shape.
    pub shard_shape: Option<Vec<u64>>,
    /// The shape that readers see now, where the array has grown since: what stored chunks hold beyond it, left by a
    /// writer that died or by an array that once was larger, counts as fill.
    pub previous_shape: Option<Vec<u64>>,
}

impl Geometry {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// `Invalid` for unequal dimensionality, a chunk side of 0, a shard that is no multiple of the chunk, a shape whose
    /// elements cannot be counted in 64 bits.
    pub fn check(&self) -> Result<()> {
        let dimensionality = self.shape.len();
        let sides = [Some(&self.chunk_shape), self.shard_shape.as_ref(), self.previous_shape.as_ref()];
        if let Some(other) = sides.into_iter().flatten().find(|other| other.len() != dimensionality) {
            return Err(Error::invalid(format!(
                "expected `{dimensionality}` dimensions, found `{}` in `{other:?}`",
                other.len()
            )));
        }
        if self.chunk_shape.contains(&0) {
            return Err(Error::invalid(format!("expected chunk sides above `0`, found `{:?}`", self.chunk_shape)));
        }
        if let Some(shard_shape) = &self.shard_shape
            && shard_shape.iter().zip(&self.chunk_shape).any(|(shard, chunk)| *shard == 0 || shard % chunk != 0)
        {
            return Err(Error::invalid(format!(
                "expected shards that are a multiple of chunks `{:?}`, found `{shard_shape:?}`",
                self.chunk_shape
            )));
        }
        let countable =
            |shape: &[u64]| shape.iter().try_fold(1_u64, |product, side| product.checked_mul((*side).max(1))).is_some();
        let rounded_up = self.shape.iter().zip(self.object_shape()).map(|(side, object)| side.checked_add(*object));
        let rounded_up: Option<Vec<u64>> = rounded_up.collect();
        if !countable(&self.chunk_shape)
            || !countable(self.object_shape())
            || !rounded_up.is_some_and(|up| countable(&up))
        {
            return Err(Error::invalid(format!("array of shape `{:?}` is too large to be indexed", self.shape)));
        }
        Ok(())
    }

    /// The shape of a stored object.
    #[must_use]
    pub fn object_shape(&self) -> &[u64] {
        self.shard_shape.as_deref().unwrap_or(&self.chunk_shape)
    }

    /// Number of chunks in each dimension.
    #[must_use]
    pub fn chunk_counts(&self) -> Vec<u64> {
        self.shape.iter().zip(&self.chunk_shape).map(|(side, chunk)| side.div_ceil(*chunk)).collect()
    }

    /// Number of chunks of a stored object in each dimension, `1` everywhere without shards.
    #[must_use]
    pub fn chunks_per_object(&self) -> Vec<u64> {
        self.object_shape().iter().zip(&self.chunk_shape).map(|(object, chunk)| object / chunk).collect()
    }

    /// The stored object that holds a chunk.
    #[must_use]
    pub fn object_of(&self, chunk: &[u64]) -> Vec<u64> {
        chunk.iter().zip(self.chunks_per_object()).map(|(index, per_object)| index / per_object).collect()
    }

    /// The first index of a chunk in each dimension.
    #[must_use]
    pub fn chunk_start(&self, chunk: &[u64]) -> Vec<u64> {
        chunk.iter().zip(&self.chunk_shape).map(|(index, side)| index * side).collect()
    }

    /// The elements of a chunk that lie in the array; empty for a chunk outside.
    #[must_use]
    pub fn chunk_region(&self, chunk: &[u64]) -> Region {
        clip(self.chunk_start(chunk), &self.chunk_shape, &self.shape)
    }

    /// The elements of a chunk that readers may see now.
    #[must_use]
    pub fn previous_region(&self, chunk: &[u64]) -> Region {
        let shape = match &self.previous_shape {
            Some(previous) => previous.iter().zip(&self.shape).map(|(previous, new)| *previous.min(new)).collect(),
            None => self.shape.clone(),
        };
        clip(self.chunk_start(chunk), &self.chunk_shape, &shape)
    }
}

fn clip(start: Vec<u64>, sides: &[u64], bounds: &[u64]) -> Region {
    let shape = start
        .iter()
        .zip(sides)
        .zip(bounds)
        .map(|((start, side), bound)| bound.saturating_sub(*start).min(*side))
        .collect();
    Region::new(start, shape)
}

/// Calls `visit` with the index of every cell of a grid of `cell`-shaped cells that `region` touches, in C order.
pub(crate) fn for_each_cell(region: &Region, cell: &[u64], mut visit: impl FnMut(&[u64])) {
    if region.is_empty() {
        return;
    }
    let first: Vec<u64> = region.start.iter().zip(cell).map(|(start, side)| start / side).collect();
    let last: Vec<u64> = cell.iter().enumerate().map(|(dimension, side)| (region.end(dimension) - 1) / side).collect();
    let mut index = first.clone();
    loop {
        visit(&index);
        let mut dimension = index.len();
        loop {
            if dimension == 0 {
                return;
            }
            dimension -= 1;
            if index[dimension] < last[dimension] {
                index[dimension] += 1;
                break;
            }
            index[dimension] = first[dimension];
        }
    }
}

/// The C-order position of `index` in a grid of `counts` cells.
pub(crate) fn flat(index: &[u64], counts: &[u64]) -> u64 {
    index.iter().zip(counts).fold(0, |position, (index, count)| position * count + index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry {
            shape: vec![7, 10],
            chunk_shape: vec![2, 5],
            shard_shape: Some(vec![4, 5]),
            previous_shape: Some(vec![3, 10]),
        }
    }

    #[test]
    fn edge_chunks_are_clipped_and_belong_to_their_shard() {
        let geometry = geometry();
        geometry.check().unwrap();
        assert_eq!(geometry.chunk_counts(), [4, 2]);
        assert_eq!(geometry.chunks_per_object(), [2, 1]);
        assert_eq!(geometry.object_of(&[3, 1]), [1, 1]);
        assert_eq!(geometry.chunk_region(&[3, 1]), Region::new(vec![6, 5], vec![1, 5]));
        assert_eq!(geometry.previous_region(&[1, 0]), Region::new(vec![2, 0], vec![1, 5]));
        assert!(geometry.previous_region(&[3, 0]).is_empty());
    }

    #[test]
    fn grids_that_do_not_fit_are_refused() {
        assert!(Geometry { shard_shape: Some(vec![3, 5]), ..geometry() }.check().is_err());
        assert!(Geometry { chunk_shape: vec![0, 5], ..geometry() }.check().is_err());
        assert!(Geometry { chunk_shape: vec![5], ..geometry() }.check().is_err());
        assert!(Geometry { shape: vec![u64::MAX, 2], ..geometry() }.check().is_err());
    }

    #[test]
    fn cells_are_visited_in_c_order() {
        let mut seen = Vec::new();
        for_each_cell(&Region::new(vec![1, 4], vec![2, 3]), &[2, 5], |index| seen.push(index.to_vec()));
        assert_eq!(seen, [[0, 0], [0, 1], [1, 0], [1, 1]]);
        let mut scalar = 0;
        for_each_cell(&Region::whole(&[]), &[], |_| scalar += 1);
        assert_eq!(scalar, 1);
        assert_eq!(flat(&[1, 2], &[3, 4]), 6);
    }
}
