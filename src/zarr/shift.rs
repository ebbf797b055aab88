//! How the elements of an array move along one dimension when labels are inserted into a sorted axis.
//!
//! A shift says, for every index of the grown axis, which index of the old axis its elements come from; new labels come
//! from nowhere. Elements only ever move towards the end and keep their order, so chunk rows can be rewritten from the
//! last to the first without a row being read after it was overwritten.
//!
//! Caveat: that order protects a running shift, not one that is cut off. Half a shift is a torn array, and what was
//! already overwritten cannot be computed again from the store; the journal of the ledger repairs it, for which the
//! writer offers to stage the old chunks first (`Stage`).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Moves the elements of an array along `dimension`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// The dimension that grows.
    pub dimension: usize,
    /// For every index of the new axis the index of the old one, `None` for a new slot. Old indices rise strictly, and no
    /// element moves towards the beginning.
    pub map: Vec<Option<u64>>,
}

/// A run of elements that move together and lie in one old and in one new chunk row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowMove {
    /// First old index.
    pub(crate) from: u64,
    /// First new index.
    pub(crate) to: u64,
    /// Number of indices.
    pub(crate) length: u64,
}

impl Shift {
    /// Checks the rules of [`Shift::map`] against the new length of the axis and, where it is known, the old one.
    pub(crate) fn check(&self, new_length: u64, old_length: Option<u64>) -> Result<()> {
        if self.map.len() as u64 != new_length {
            return Err(Error::internal(format!(
                "expected a shift of `{new_length}` indices, found `{}`",
                self.map.len()
            )));
        }
        let mut next = 0;
        for (to, from) in self.map.iter().enumerate().filter_map(|(to, from)| from.map(|from| (to as u64, from))) {
            if from < next || from > to || old_length.is_some_and(|length| from >= length) {
                return Err(Error::internal(format!("index `{from}` cannot move to `{to}` in a shift")));
            }
            next = from + 1;
        }
        Ok(())
    }

    /// The first index whose elements change place, `None` where all stay.
    #[must_use]
    pub fn first_moved(&self) -> Option<u64> {
        self.map.iter().enumerate().position(|(to, from)| *from != Some(to as u64)).map(|index| index as u64)
    }

    /// Number of elements whose index changes.
    #[must_use]
    pub fn moved_count(&self) -> u64 {
        self.map.iter().enumerate().filter(|(to, from)| from.is_some_and(|from| from != *to as u64)).count() as u64
    }

    /// The moves into the chunk row that begins at `start` and spans `length` indices, cut where an old chunk row of
    /// `chunk` indices ends.
    pub(crate) fn moves_into(&self, start: u64, length: u64, chunk: u64) -> Vec<RowMove> {
        let mut moves: Vec<RowMove> = Vec::new();
        for to in start..start + length {
            let Some(from) = self.map[to as usize] else { continue };
            match moves.last_mut() {
                Some(last) if last.from + last.length == from && last.to + last.length == to && from % chunk != 0 => {
                    last.length += 1;
                }
                _ => moves.push(RowMove { from, to, length: 1 }),
            }
        }
        moves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert_at(index: u64, count: u64, old_length: u64) -> Shift {
        let map = (0..old_length + count)
            .map(|to| match to {
                to if to < index => Some(to),
                to if to < index + count => None,
                to => Some(to - count),
            })
            .collect();
        Shift { dimension: 0, map }
    }

    #[test]
    fn rows_take_from_at_most_two_old_rows() {
        let shift = insert_at(3, 1, 9);
        shift.check(10, Some(9)).unwrap();
        assert_eq!(shift.first_moved(), Some(3));
        assert_eq!(shift.moved_count(), 6);
        assert_eq!(shift.moves_into(0, 4, 4), vec![RowMove { from: 0, to: 0, length: 3 }],);
        assert_eq!(
            shift.moves_into(4, 4, 4),
            vec![RowMove { from: 3, to: 4, length: 1 }, RowMove { from: 4, to: 5, length: 3 }],
        );
    }

    #[test]
    fn what_would_read_after_overwriting_is_refused() {
        assert!(Shift { dimension: 0, map: vec![Some(1), Some(0)] }.check(2, None).is_err());
        assert!(Shift { dimension: 0, map: vec![Some(1)] }.check(1, None).is_err());
        assert!(Shift { dimension: 0, map: vec![Some(0), Some(0)] }.check(2, None).is_err());
        assert!(Shift { dimension: 0, map: vec![Some(0), Some(1)] }.check(2, Some(1)).is_err());
        assert!(Shift { dimension: 0, map: vec![Some(0)] }.check(2, None).is_err());
    }
}
