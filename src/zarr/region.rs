//! Boxes of element indices, the one geometry of plans.

use serde::{Deserialize, Serialize};

/// A half-open box of element indices, one `start..end` a dimension; a scalar has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Region {
    /// First index of each dimension.
    pub start: Vec<u64>,
    /// Number of indices of each dimension.
    pub shape: Vec<u64>,
}

impl Region {
    /// The box that begins at `start` and spans `shape`.
    #[must_use]
    pub fn new(start: Vec<u64>, shape: Vec<u64>) -> Self {
        debug_assert_eq!(start.len(), shape.len());
        Self { start, shape }
    }

    /// The whole of an array of `shape`.
    #[must_use]
    pub fn whole(shape: &[u64]) -> Self {
        Self { start: vec![0; shape.len()], shape: shape.to_vec() }
    }

    /// Number of dimensions.
    #[must_use]
    pub fn dimensionality(&self) -> usize {
        self.start.len()
    }

    /// Number of elements.
    #[must_use]
    pub fn element_count(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether it holds no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// One past the last index of dimension `dimension`.
    #[must_use]
    pub fn end(&self, dimension: usize) -> u64 {
        self.start[dimension] + self.shape[dimension]
    }

    /// The common part, or `None` where there is none.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let mut start = Vec::with_capacity(self.start.len());
        let mut shape = Vec::with_capacity(self.start.len());
        for dimension in 0..self.dimensionality() {
            let low = self.start[dimension].max(other.start[dimension]);
            let high = self.end(dimension).min(other.end(dimension));
            if low >= high {
                return None;
            }
            start.push(low);
            shape.push(high - low);
        }
        Some(Self { start, shape })
    }

    /// Whether every element of `other` is in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        (0..self.dimensionality()).all(|dimension| {
            self.start[dimension] <= other.start[dimension] && other.end(dimension) <= self.end(dimension)
        })
    }

    /// The same box seen from `origin` (which must not lie behind its start).
    #[must_use]
    pub fn relative_to(&self, origin: &[u64]) -> Self {
        let start = self.start.iter().zip(origin).map(|(start, origin)| start - origin).collect();
        Self { start, shape: self.shape.clone() }
    }
}
