//! Which parts of overlapping boxes can be seen when later boxes lie on top of earlier ones.
//!
//! The writer lets tiles arrive in any order, so the plan must not depend on the order of writing: every element of a
//! chunk is given to exactly one patch here, the last one that covers it. What no patch covers is what a
//! read-modify-write would have to read; if that is nothing, the chunk is written whole.
//!
//! Boxes are laid down from the last to the first, each taking what is still free. Where all boxes span the chunk in all
//! dimensions but one (steps of a time axis), the free space is a set of intervals and the whole costs `n log n`, so that
//! a coordinate of a million labels in one chunk can be patched label by label; otherwise free space is a list of boxes.
//!
//! Testing: a property test against painting an array.

use std::collections::BTreeMap;

use crate::zarr::Region;

/// What can be seen of one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Visible {
    /// All of it.
    All,
    /// These disjoint parts; none where it is hidden.
    Parts(Vec<Region>),
}

/// What can be seen of each box, and what no box covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coverage {
    /// One entry a box, in their order.
    pub(crate) visible: Vec<Visible>,
    /// Disjoint boxes that together are the rest.
    pub(crate) uncovered: Vec<Region>,
}

/// Lays `boxes` (each inside `whole`, none empty) over `whole`, later ones on top.
pub(crate) fn cover(whole: &Region, boxes: &[Region]) -> Coverage {
    if let [only] = boxes {
        let mut uncovered = Vec::new();
        subtract(whole, only, &mut uncovered);
        return Coverage { visible: vec![Visible::All], uncovered };
    }
    let mut differing = (0..whole.dimensionality())
        .filter(|&dimension| boxes.iter().any(|one| one.shape[dimension] != whole.shape[dimension]));
    match (differing.next(), differing.next()) {
        (Some(dimension), None) => cover_intervals(whole, boxes, dimension),
        _ => cover_boxes(whole, boxes),
    }
}

/// [`cover`] where all boxes span `whole` in every dimension but `dimension`.
fn cover_intervals(whole: &Region, boxes: &[Region], dimension: usize) -> Coverage {
    let slab = |start: u64, end: u64| {
        let mut slab = whole.clone();
        slab.start[dimension] = start;
        slab.shape[dimension] = end - start;
        slab
    };
    let mut free = BTreeMap::from([(whole.start[dimension], whole.end(dimension))]);
    let mut visible = Vec::with_capacity(boxes.len());
    for one in boxes.iter().rev() {
        let (low, high) = (one.start[dimension], one.end(dimension));
        let mut parts = Vec::new();
        while let Some((&start, &end)) = free.range(..high).next_back().filter(|(_, end)| **end > low) {
            free.remove(&start);
            parts.push(slab(start.max(low), end.min(high)));
            if end > high {
                free.insert(high, end);
            }
            if start < low {
                free.insert(start, low);
            }
        }
        let all = matches!(parts.as_slice(), [part] if part == one);
        visible.push(if all { Visible::All } else { Visible::Parts(parts) });
    }
    visible.reverse();
    Coverage { visible, uncovered: free.into_iter().map(|(start, end)| slab(start, end)).collect() }
}

/// [`cover`] in general.
fn cover_boxes(whole: &Region, boxes: &[Region]) -> Coverage {
    let mut free = vec![whole.clone()];
    let mut visible = Vec::with_capacity(boxes.len());
    for one in boxes.iter().rev() {
        let mut parts = Vec::new();
        let mut rest = Vec::with_capacity(free.len());
        for space in free {
            if let Some(part) = space.intersection(one) {
                subtract(&space, &part, &mut rest);
                parts.push(part);
            } else {
                rest.push(space);
            }
        }
        free = rest;
        let all = matches!(parts.as_slice(), [part] if part == one);
        visible.push(if all { Visible::All } else { Visible::Parts(parts) });
    }
    visible.reverse();
    Coverage { visible, uncovered: free }
}

/// Adds to `rest` disjoint boxes that together are `space` without `part`, which lies inside it.
pub(crate) fn subtract(space: &Region, part: &Region, rest: &mut Vec<Region>) {
    let mut core = space.clone();
    for dimension in 0..space.dimensionality() {
        let (start, end) = (core.start[dimension], core.end(dimension));
        let (low, high) = (part.start[dimension], part.end(dimension));
        if start < low {
            let mut before = core.clone();
            before.shape[dimension] = low - start;
            rest.push(before);
        }
        if high < end {
            let mut after = core.clone();
            after.start[dimension] = high;
            after.shape[dimension] = end - high;
            rest.push(after);
        }
        core.start[dimension] = low;
        core.shape[dimension] = high - low;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inside(region: &Region, position: &[u64]) -> bool {
        (0..position.len())
            .all(|dimension| (region.start[dimension]..region.end(dimension)).contains(&position[dimension]))
    }

    fn boxes() -> impl Strategy<Value = (Region, Vec<Region>)> {
        (1_usize..4).prop_flat_map(|dimensionality| {
            let whole = Region::new(vec![10; dimensionality], vec![6; dimensionality]);
            let one = proptest::collection::vec((0_u64..6, 1_u64..7), dimensionality).prop_map(|sides| {
                let start: Vec<u64> = sides.iter().map(|(start, _)| 10 + start).collect();
                let shape = sides.iter().map(|(start, count)| (*count).min(6 - start)).collect();
                Region::new(start, shape)
            });
            (Just(whole), proptest::collection::vec(one, 0..6))
        })
    }

    proptest! {
        #[test]
        fn every_element_is_seen_once_and_belongs_to_the_last_box((whole, boxes) in boxes()) {
            let coverage = cover(&whole, &boxes);
            let count = whole.element_count();
            for flat in 0..count {
                let mut position = vec![0; whole.dimensionality()];
                let mut rest = flat;
                for dimension in (0..position.len()).rev() {
                    position[dimension] = whole.start[dimension] + rest % whole.shape[dimension];
                    rest /= whole.shape[dimension];
                }
                let expected = boxes.iter().rposition(|one| inside(one, &position));
                for (index, (one, visible)) in boxes.iter().zip(&coverage.visible).enumerate() {
                    let seen = match visible {
                        Visible::All => usize::from(inside(one, &position)),
                        Visible::Parts(parts) => parts.iter().filter(|part| inside(part, &position)).count(),
                    };
                    prop_assert_eq!(seen, usize::from(expected == Some(index)));
                }
                let uncovered = coverage.uncovered.iter().filter(|part| inside(part, &position)).count();
                prop_assert_eq!(uncovered, usize::from(expected.is_none()));
            }
        }
    }

    #[test]
    fn a_hundred_thousand_labels_in_one_chunk_are_quick() {
        let whole = Region::new(vec![0], vec![1_000_000]);
        let boxes: Vec<Region> =
            (0..100_000_u64).map(|index| Region::new(vec![index * 7919 % 1_000_000], vec![1])).collect();
        let coverage = cover(&whole, &boxes);
        assert!(coverage.visible.iter().all(|visible| *visible == Visible::All));
        assert_eq!(coverage.uncovered.iter().map(Region::element_count).sum::<u64>(), 900_000);
    }
}
