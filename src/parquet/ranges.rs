//! Parts of an object that were fetched, found again by where they lie in it.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};

/// The ranges without empty ones, sorted; what touches or overlaps is one.
#[must_use]
pub fn merged(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = ranges.into_iter().filter(|range| range.start < range.end).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        if touches {
            last.end = last.end.max(next.end);
        }
        touches
    });
    ranges
}

/// Fetched byte ranges of one object, sorted by their start, none overlapping another.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    parts: Vec<(Range<u64>, Bytes)>,
}

impl Ranges {
    /// The ranges and what was found there, in any order. Ranges that touch stay apart; empty ones are left out.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when a part is not as long as its range, or two of them overlap.
    pub fn new(parts: impl IntoIterator<Item = (Range<u64>, Bytes)>) -> Result<Self> {
        let mut parts: Vec<_> =
            parts.into_iter().filter(|(range, bytes)| range.start != range.end || !bytes.is_empty()).collect();
        parts.sort_by_key(|(range, _)| range.start);
        for (range, bytes) in &parts {
            if range.end.checked_sub(range.start) != Some(bytes.len() as u64) {
                return Err(Error::internal(format!(
                    "expected the bytes `{}..{}`, found `{}` bytes",
                    range.start,
                    range.end,
                    bytes.len()
                )));
            }
        }
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
            return Err(Error::internal(format!("the fetched ranges `{:?}` and `{:?}` overlap", pair[0].0, pair[1].0)));
        }
        Ok(Self { parts })
    }

    /// The bytes of `wanted`, without a copy; `wanted` lies within one of the fetched ranges.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when it was not fetched.
    pub fn get(&self, wanted: Range<u64>) -> Result<Bytes> {
        if wanted.start == wanted.end {
            return Ok(Bytes::new());
        }
        let (from, bytes) = self.part(wanted.start)?;
        let length = wanted.end.checked_sub(wanted.start).and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if length <= bytes.len() - from => Ok(bytes.slice(from..from + length)),
            _ => Err(Error::internal(format!("the bytes `{wanted:?}` were not all fetched"))),
        }
    }

    /// Everything that was fetched from `start` to the end of its range, without a copy.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] when nothing was fetched there.
    pub fn tail(&self, start: u64) -> Result<Bytes> {
        let (from, bytes) = self.part(start)?;
        Ok(bytes.slice(from..))
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The part that holds the byte `start`, and how far into it that byte is.
    fn part(&self, start: u64) -> Result<(usize, &Bytes)> {
        let after = self.parts.partition_point(|(range, _)| range.start <= start);
        match after.checked_sub(1).map(|at| &self.parts[at]) {
            Some((range, bytes)) if start < range.end => Ok(((start - range.start) as usize, bytes)),
            _ => Err(Error::internal(format!("the byte `{start}` was not fetched"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_where_they_lie() {
        let ranges = Ranges::new([
            (20..24, Bytes::from_static(b"wxyz")),
            (4..4, Bytes::new()),
            (10..13, Bytes::from_static(b"abc")),
            (13..15, Bytes::from_static(b"de")),
        ])
        .unwrap();
        assert_eq!(ranges.get(11..13).unwrap(), "bc");
        assert_eq!(ranges.get(20..24).unwrap(), "wxyz");
        assert_eq!(ranges.tail(22).unwrap(), "yz");
        assert_eq!(ranges.get(7..7).unwrap(), "");
        assert_eq!(ranges.bytes(), 9);
        for missing in [9..11, 12..14, 15..16, 22..25, 24..25] {
            assert!(ranges.get(missing.clone()).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn parts_that_contradict_each_other_are_refused() {
        assert!(Ranges::new([(0..3, Bytes::from_static(b"ab"))]).is_err());
        assert!(Ranges::new([(0..2, Bytes::from_static(b"ab")), (1..3, Bytes::from_static(b"bc"))]).is_err());
    }
}
