//! Which bytes of a file are read together, and when. Pure.
//!
//! The store joins reads that are up to a mebibyte apart, which is right for latency and wrong here: two columns of a file
//! of 170 lie closer than that, and everything between them would travel. So gaps are closed here, the smallest first, as
//! long as what is read in vain stays a small share of what is needed.

use std::ops::Range;

use super::fuse::Fused;
use crate::error::Result;
use crate::parquet::{File, merged, read};

/// What may be read in vain: a twenty-fifth of what is needed.
const VAIN: u64 = 25;
/// A read that stays below this is worth two requests less.
const SMALL: u64 = 16 << 10;
/// A joined read stays below this, so that reads go side by side.
const LARGEST: u64 = 16 << 20;
/// Encoded bytes of row groups that are read at once.
const BATCH: u64 = 32 << 20;

/// Row groups that are read together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The row groups.
    pub row_groups: Range<usize>,
    /// What is read for them, sorted, none touching another.
    pub reads: Vec<Range<u64>>,
    /// What is needed of it for each row group.
    pub needs: Vec<Vec<Range<u64>>>,
}

impl Batch {
    /// Bytes that are read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.reads.iter().map(|range| range.end - range.start).sum()
    }
}

/// The batches in which the inputs of `fused` are read, and the reads of `indexes`, which a rewrite needs besides.
///
/// # Errors
/// As [`read::ranges`].
pub fn batches(file: &File, fused: &Fused) -> Result<Vec<Batch>> {
    if fused.evaluations.is_empty() {
        return Ok(Vec::new());
    }
    let needs = read::ranges(file, &fused.reads)?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut held = 0;
    for (row_group, ranges) in needs.into_iter().enumerate() {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        match batches.last_mut() {
            Some(batch) if held + bytes <= BATCH => {
                batch.row_groups.end = row_group + 1;
                batch.needs.push(ranges);
                held += bytes;
            }
            _ => {
                held = bytes;
                batches.push(Batch { row_groups: row_group..row_group + 1, reads: Vec::new(), needs: vec![ranges] });
            }
        }
    }
    for batch in &mut batches {
        let needed: Vec<_> = batch.needs.iter().flatten().cloned().collect();
        batch.reads = joined(&needed);
    }
    Ok(batches)
}

/// Reads that hold all of `needed`, with few bytes in vain.
#[must_use]
pub fn joined(needed: &[Range<u64>]) -> Vec<Range<u64>> {
    let reads = merged(needed.iter().cloned());
    let bytes: u64 = reads.iter().map(|range| range.end - range.start).sum();
    let mut allowed = (bytes / VAIN).max(SMALL);
    let mut gaps: Vec<(u64, usize)> =
        reads.windows(2).enumerate().map(|(at, pair)| (pair[1].start - pair[0].end, at)).collect();
    gaps.sort_unstable();
    let mut closed = vec![false; reads.len()];
    for (gap, at) in gaps {
        if gap > allowed {
            break;
        }
        allowed -= gap;
        closed[at] = true;
    }
    let mut joined: Vec<Range<u64>> = Vec::new();
    let mut goes_on = false;
    for (at, range) in reads.into_iter().enumerate() {
        match joined.last_mut() {
            Some(last) if goes_on && range.end - last.start <= LARGEST => last.end = range.end,
            _ => joined.push(range),
        }
        goes_on = closed[at];
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn columns_that_lie_apart_are_read_apart() {
        let columns = [1_000_000..1_100_000, 1_500_000..1_600_000, 1_600_000..1_700_000];
        assert_eq!(joined(&columns), [1_000_000..1_100_000, 1_500_000..1_700_000]);
        // A few kilobytes between them are cheaper than a request.
        assert_eq!(joined(&[4..1000, 5000..6000]).as_slice(), std::slice::from_ref(&(4..6000)));
    }

    proptest! {
        #[test]
        fn everything_needed_is_read_once_and_little_in_vain(
            needed in prop::collection::vec((0_u64..5_000_000, 0_u64..200_000).prop_map(|(start, length)| start..start + length), 0..30)
        ) {
            let reads = joined(&needed);
            for range in needed.iter().filter(|range| !range.is_empty()) {
                prop_assert_eq!(reads.iter().filter(|read| read.start <= range.start && range.end <= read.end).count(), 1);
            }
            prop_assert!(reads.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let mut bytes = 0;
            let mut end = 0;
            let mut sorted = needed.clone();
            sorted.sort_by_key(|range| range.start);
            for range in sorted {
                bytes += range.end.max(end) - range.start.max(end);
                end = end.max(range.end);
            }
            let read: u64 = reads.iter().map(|range| range.end - range.start).sum();
            prop_assert!(read >= bytes && read - bytes <= (bytes / VAIN).max(SMALL));
        }
    }
}
