//! Where labels go on an axis: which index a label has, where a new one is put, and what moves because of it.
//!
//! # Problem
//! A source is placed by its labels (its times, its float's cycle), never by the order of arrival of files. Which index a
//! new label gets is a property of the store, so it is a policy: some axes are a grid with known gaps, some are kept
//! sorted, some only ever grow at the end, some are fixed.
//!
//! # Design
//! [`place`] is pure: the labels of the store and the requested ones in, a [`Placement`] out. Labels are compared in the
//! store's own encoded values (integers exactly, floats within a tolerance), never as decoded dates. Matching is a binary
//! search, in the axis itself where it is sorted, else in a sorted permutation of it. A label that cannot be placed is an
//! error of that label alone, so that one bad file does not stop its batch; only an axis that contradicts its policy
//! fails as a whole.
//!
//! # Caveats
//! A label that lies within the tolerance of two slots, or of a label that the axis holds twice, is refused: whichever was
//! taken, the other would go stale. An axis of at most one label counts as rising.
//!
//! # Testing
//! Properties against a naive search and insertion, below.

mod label;
mod sorted;

use serde::{Deserialize, Serialize};

pub use label::{Label, Tolerance};

use super::Shift;
use crate::error::{Error, Result};
use sorted::Sorted;

/// How an axis takes new labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "policy")]
pub enum AxisPolicy {
    /// The slot of a label is arithmetic: `start + index * step`. Growth fills the gap with labels that have no values yet.
    Regular {
        /// The label of index 0.
        start: Label,
        /// The distance of two labels, of the same type as `start`; negative where labels fall.
        step: Label,
    },
    /// New labels are inserted where they belong; what is behind them moves.
    Sorted,
    /// New labels are put at the end in the order in which they come.
    Arrival,
    /// There are no new labels.
    Fixed,
}

/// The slot of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its index on the axis as it will be.
    pub index: u64,
    /// Whether the axis did not have it before.
    pub is_new: bool,
}

/// Where the requested labels go.
#[derive(Debug, Clone)]
pub struct Placement {
    /// For each requested label its slot, or why it has none. Equal labels share a slot.
    pub slots: Vec<Result<Slot>>,
    /// The length of the axis as it will be.
    pub length: u64,
    /// What was not on the axis before, by rising index, gaps included: the coordinate takes these values.
    pub added: Vec<(u64, Label)>,
    /// Indices of slots that exist only because the axis grew past them, rising: they read as fill.
    pub gaps: Vec<u64>,
    /// For each new index the old one where slots move, see [`Shift::map`].
    map: Option<Vec<Option<u64>>>,
}

impl Placement {
    /// How arrays that have the axis as dimension `dimension` shift; `None` where nothing moves.
    #[must_use]
    pub fn shift(&self, dimension: usize) -> Option<Shift> {
        self.map.as_ref().map(|map| Shift { dimension, map: map.clone() })
    }

    /// For each new index the old one where slots move.
    #[must_use]
    pub fn map(&self) -> Option<&[Option<u64>]> {
        self.map.as_deref()
    }

    /// Number of old slots whose index changes.
    #[must_use]
    pub fn moved_count(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| {
            map.iter().enumerate().filter(|(to, from)| from.is_some_and(|from| from != *to as u64)).count() as u64
        })
    }
}

/// A regular axis grows by at most this many slots in one commit: a wrong label must not make a store of fill.
pub const MOST_GROWTH: u64 = 1 << 24;

/// Places `requested` labels on an axis that holds `labels`.
///
/// # Errors
/// `Invalid` when the axis itself contradicts the policy (unsorted, off the grid, not comparable). What is wrong with one
/// requested label is in its entry of [`Placement::slots`]: `Invalid` for a label off the grid, unknown to a fixed axis,
/// not a number, of another type than the axis, or that matches two slots.
pub fn place(labels: &[Label], requested: &[Label], policy: &AxisPolicy, tolerance: Tolerance) -> Result<Placement> {
    let indices: Vec<u64> = (0..labels.len() as u64).collect();
    place_known(Known { length: labels.len() as u64, indices: &indices, labels }, requested, policy, tolerance)
}

/// What is known of the labels of an axis.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The length of the axis.
    pub length: u64,
    /// The indices of `labels`, rising.
    pub indices: &'a [u64],
    /// Labels: all that may match a requested one, and those between which a new one belongs.
    pub labels: &'a [Label],
}

/// [`place`] where only those labels of the axis are known that decide. What is wrong with other labels is not found.
///
/// # Errors
/// As [`place`]; `Internal` where slots would move and not all labels are known.
pub fn place_known(
    known: Known<'_>,
    requested: &[Label],
    policy: &AxisPolicy,
    tolerance: Tolerance,
) -> Result<Placement> {
    match policy {
        AxisPolicy::Regular { start, step } => place_regular(known, requested, (start, step), tolerance),
        AxisPolicy::Sorted | AxisPolicy::Arrival | AxisPolicy::Fixed => {
            let mut placement = place_searched(known, requested, policy, tolerance)?;
            let count = known.labels.len() as u64;
            if count < known.length {
                if placement.map.is_some() {
                    return Err(Error::internal("an axis moves of which not all labels are known"));
                }
                let whole = |index: u64| match known.indices.get(index as usize) {
                    Some(index) => *index,
                    None => known.length + (index - count),
                };
                placement.slots.iter_mut().flatten().for_each(|slot| slot.index = whole(slot.index));
                placement.added.iter_mut().for_each(|(index, _)| *index = whole(*index));
                placement.length = known.length + (placement.length - count);
            }
            Ok(placement)
        }
    }
}

/// The slot that a label has on a regular axis; `None` where it has none.
#[must_use]
pub fn regular_index(start: &Label, step: &Label, label: &Label, tolerance: Tolerance) -> Option<u64> {
    label::Grid::new(start, step, tolerance).ok()?.index_of(label).ok()
}

/// [`place`] by arithmetic.
fn place_regular(
    known: Known<'_>,
    requested: &[Label],
    (start, step): (&Label, &Label),
    tolerance: Tolerance,
) -> Result<Placement> {
    let grid = label::Grid::new(start, step, tolerance)?;
    for (index, found) in known.indices.iter().zip(known.labels) {
        if !grid.index_of(found).is_ok_and(|at| at == *index) {
            return Err(Error::invalid(format!(
                "the axis is not regular: expected label `{}` at index `{index}`, found `{found}`",
                grid.label(*index)
            ))
            .hint("correct `start` and `step`, or use another axis policy"));
        }
    }
    let old = known.length;
    let slots: Vec<Result<Slot>> = requested
        .iter()
        .map(|label| {
            let index = grid.index_of(label)?;
            if index >= old + MOST_GROWTH {
                return Err(Error::invalid(format!(
                    "label `{label}` is slot `{index}`, the axis has `{old}` and grows by at most `{MOST_GROWTH}`"
                ))
                .hint("look for a wrong unit or a wrong epoch in the file"));
            }
            Ok(Slot { index, is_new: index >= old })
        })
        .collect();
    let placed = slots.iter().flatten().map(|slot| slot.index);
    let length = placed.clone().map(|index| index + 1).max().unwrap_or(0).max(old);
    let mut is_gap = vec![true; (length - old) as usize];
    for index in placed.filter(|index| *index >= old) {
        is_gap[(index - old) as usize] = false;
    }
    let gaps = is_gap.iter().enumerate().filter(|(_, gap)| **gap).map(|(index, _)| old + index as u64).collect();
    let added = (old..length).map(|index| (index, grid.label(index))).collect();
    Ok(Placement { slots, length, added, gaps, map: None })
}

/// A requested label that the axis does not have, and its places in the request.
struct Fresh<'a> {
    label: &'a Label,
    requests: Vec<usize>,
}

/// [`place`] by search.
fn place_searched(
    known: Known<'_>,
    requested: &[Label],
    policy: &AxisPolicy,
    tolerance: Tolerance,
) -> Result<Placement> {
    let labels = known.labels;
    let sorted = Sorted::new(known, tolerance)?;
    if *policy == AxisPolicy::Sorted
        && let Some(index) = sorted.first_out_of_order()
    {
        return Err(Error::invalid(format!(
            "the axis is not sorted: label `{}` at index `{index}` follows `{}`",
            labels[index],
            labels[index - 1]
        ))
        .hint("use the axis policy `arrival`, which leaves old labels where they are, or build the store again"));
    }
    let old = labels.len() as u64;
    let mut slots: Vec<Result<Slot>> = Vec::with_capacity(requested.len());
    let mut unknown = Vec::new();
    for (position, label) in requested.iter().enumerate() {
        slots.push(match sorted.find(label) {
            Ok(Some(index)) => Ok(Slot { index: index as u64, is_new: false }),
            Ok(None) if *policy == AxisPolicy::Fixed => {
                Err(Error::invalid(format!("label `{label}` is not on the axis, which is fixed")))
            }
            Ok(None) => {
                unknown.push(position);
                Ok(Slot { index: 0, is_new: true })
            }
            Err(error) => Err(error),
        });
    }
    let mut fresh = distinct(requested, unknown, tolerance);
    let mut map = None;
    let mut added = Vec::with_capacity(fresh.len());
    if *policy == AxisPolicy::Sorted {
        if sorted.is_falling() {
            fresh.reverse();
        }
        let before: Vec<usize> = fresh.iter().map(|one| sorted.insertion_index(one.label)).collect();
        for (number, index) in before.iter().enumerate() {
            added.push((index + number) as u64);
        }
        if before.first().is_some_and(|first| *first < labels.len()) {
            map = Some(insertion_map(labels.len(), &before));
        }
        // What existed moves behind everything that is inserted at or before it.
        for slot in slots.iter_mut().flatten().filter(|slot| !slot.is_new) {
            slot.index += before.partition_point(|index| *index as u64 <= slot.index) as u64;
        }
    } else {
        fresh.sort_by_key(|one| one.requests[0]);
        added.extend((0..fresh.len() as u64).map(|number| old + number));
    }
    for (one, index) in fresh.iter().zip(&added) {
        for request in &one.requests {
            slots[*request] = Ok(Slot { index: *index, is_new: true });
        }
    }
    let length = old + fresh.len() as u64;
    let added = added.into_iter().zip(fresh.into_iter().map(|one| one.label.clone())).collect();
    Ok(Placement { slots, length, added, gaps: Vec::new(), map })
}

/// The distinct labels among `positions` of the request, rising.
fn distinct(requested: &[Label], mut positions: Vec<usize>, tolerance: Tolerance) -> Vec<Fresh<'_>> {
    positions.sort_by(|one, other| requested[*one].order(&requested[*other]).then(one.cmp(other)));
    let mut fresh: Vec<Fresh<'_>> = Vec::new();
    for position in positions {
        let label = &requested[position];
        match fresh.last_mut() {
            Some(last) if tolerance.matches(last.label, label) => last.requests.push(position),
            _ => fresh.push(Fresh { label, requests: vec![position] }),
        }
    }
    for one in &mut fresh {
        one.requests.sort_unstable();
    }
    fresh
}

/// For each index of the grown axis the old one, when a slot is inserted before each index of `before` (which rises).
fn insertion_map(old: usize, before: &[usize]) -> Vec<Option<u64>> {
    let mut map = Vec::with_capacity(old + before.len());
    let mut waiting = before.iter().peekable();
    for index in 0..=old {
        while waiting.next_if(|before| **before == index).is_some() {
            map.push(None);
        }
        if index < old {
            map.push(Some(index as u64));
        }
    }
    map
}

#[cfg(test)]
mod tests;
