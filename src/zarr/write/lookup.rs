//! How to find out, in few requests, which objects of an array are there: a pure choice between looking at each key and
//! listing rows of the grid, or all of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::zarr::Array;

/// Keys that one page of a listing brings.
const PAGE: u64 = 1000;
/// A listing costs as much as so many looks at single keys.
const LISTING: u64 = 3;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Is this key there?
    Key(String),
    /// Which of `keys` are there? All of them begin with `prefix`.
    Prefix {
        /// What they begin with.
        prefix: String,
        /// The keys.
        keys: HashSet<String>,
    },
}

/// The questions to ask about the objects of `array` at the grid indices `indices`. Where the place `is_at_hand`, a look at a
/// key costs next to nothing.
#[must_use]
pub fn lookups(array: &Array, indices: &BTreeSet<Vec<u64>>, is_at_hand: bool) -> Vec<Lookup> {
    let keys = || indices.iter().map(|index| array.chunk_key(index));
    let singly = || keys().map(Lookup::Key).collect();
    let count = indices.len() as u64;
    if is_at_hand || count <= LISTING {
        return singly();
    }
    let grid = array.object_grid();
    let pages = |objects: u64| 1 + objects / PAGE;
    let mut rows: BTreeMap<u64, HashSet<String>> = BTreeMap::new();
    for index in indices {
        rows.entry(index.first().copied().unwrap_or(0)).or_default().insert(array.chunk_key(index));
    }
    let by_row = rows.len() as u64 * pages(grid.iter().skip(1).product());
    let whole = pages(grid.iter().product());
    if by_row.min(whole) * LISTING >= count {
        return singly();
    }
    // The text that keys have in common before their indices begin to differ.
    let ends = |first: Option<u64>| {
        let index = |fill: u64| -> Vec<u64> {
            (0..grid.len()).map(|dimension| first.filter(|_| dimension == 0).unwrap_or(fill)).collect()
        };
        common(&array.chunk_key(&index(1)), &array.chunk_key(&index(2)))
    };
    if whole <= by_row || grid.len() < 2 {
        return vec![Lookup::Prefix { prefix: ends(None), keys: keys().collect() }];
    }
    rows.into_iter().map(|(row, keys)| Lookup::Prefix { prefix: ends(Some(row)), keys }).collect()
}

fn common(left: &str, right: &str) -> String {
    left.chars().zip(right.chars()).take_while(|(left, right)| left == right).map(|(character, _)| character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zarr::{ArraySpec, Compressor, DataType, FillValue, Format};

    fn array(shape: &[u64], format: Format) -> Array {
        let spec = ArraySpec {
            path: "g/sst".into(),
            shape: shape.to_vec(),
            chunk_shape: vec![1; shape.len()],
            shard_shape: None,
            data_type: DataType::Int16,
            fill_value: FillValue::zero(DataType::Int16),
            dimension_names: (0..shape.len()).map(|dimension| format!("d{dimension}")).collect(),
            attributes: serde_json::Map::new(),
            compressor: Compressor::None,
        };
        spec.array(format).unwrap()
    }

    fn region(starts: &[u64], shape: &[u64]) -> BTreeSet<Vec<u64>> {
        let mut found = BTreeSet::from([Vec::new()]);
        for (start, length) in starts.iter().zip(shape) {
            found = found
                .into_iter()
                .flat_map(|index: Vec<u64>| {
                    (*start..start + length).map(move |next| [index.clone(), vec![next]].concat())
                })
                .collect();
        }
        found
    }

    #[test]
    fn a_row_is_one_listing_and_a_few_keys_are_looked_at() {
        for (format, prefix, row) in [(Format::V3, "g/sst/c/", "g/sst/c/70/"), (Format::V2, "g/sst/", "g/sst/70.")] {
            let array = array(&[5000, 6, 5], format);
            let whole_row = region(&[70, 0, 0], &[1, 6, 5]);
            let [Lookup::Prefix { prefix: found, keys }] = &lookups(&array, &whole_row, false)[..] else { panic!() };
            assert_eq!((found.as_str(), keys.len()), (row, 30));
            assert_eq!(lookups(&array, &whole_row, true).len(), 30);
            assert_eq!(lookups(&array, &region(&[70, 0, 0], &[1, 1, 3]), false).len(), 3);
            // Most rows: 150 pages of all objects are fewer than a listing for each row.
            let most = lookups(&array, &region(&[10, 0, 0], &[4000, 6, 5]), false);
            let [Lookup::Prefix { prefix: found, .. }] = &most[..] else { panic!() };
            assert_eq!(found.as_str(), prefix);
        }
        // An axis that is not the first dimension: one row is everything.
        let array = array(&[2, 100_000], Format::V3);
        assert_eq!(lookups(&array, &region(&[0, 7], &[2, 1]), false).len(), 2);
    }
}
