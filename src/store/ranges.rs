//! Fewer, larger reads: which ranges to fetch together, and how to cut the answers.

use std::ops::Range;

/// A gap up to this is cheaper to read than another request (a round trip of 20 ms at 50 MB/s).
const GAP: u64 = 1 << 20;
/// A merged read stays below this, so that large reads still run side by side.
const LARGEST: u64 = 64 << 20;

/// One read, and which of the wanted ranges it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) range: Range<u64>,
    /// Positions in the list of wanted ranges.
    pub(super) serves: Vec<usize>,
}

/// Merges `wanted` into few reads. Empty ranges need no read and appear in none; a range larger than the
/// limit stays whole.
pub(super) fn coalesce(wanted: &[Range<u64>]) -> Vec<Read> {
    let mut order: Vec<usize> = (0..wanted.len()).filter(|&index| !wanted[index].is_empty()).collect();
    order.sort_by_key(|&index| (wanted[index].start, wanted[index].end));
    let mut reads: Vec<Read> = Vec::new();
    for index in order {
        let range = wanted[index].clone();
        if let Some(last) = reads.last_mut()
            && range.start <= last.range.end.saturating_add(GAP)
            && (range.end <= last.range.end || range.end - last.range.start <= LARGEST)
        {
            last.range.end = last.range.end.max(range.end);
            last.serves.push(index);
        } else {
            reads.push(Read { range, serves: vec![index] });
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn near_ranges_are_read_together_and_far_ones_apart() {
        let far = 10 * GAP;
        let reads = coalesce(&[far..far + 1, 0..10, 20..30, 5..5]);
        assert_eq!(reads, [Read { range: 0..30, serves: vec![1, 2] }, Read { range: far..far + 1, serves: vec![0] }]);
    }

    proptest! {
        #[test]
        fn every_range_is_inside_exactly_one_read(
            wanted in prop::collection::vec((0..LARGEST * 4, 0..LARGEST * 2).prop_map(|(start, length)| start..start + length), 0..40)
        ) {
            let reads = coalesce(&wanted);
            let mut served = vec![0; wanted.len()];
            for read in &reads {
                let longest = read.serves.iter().map(|&index| wanted[index].end - wanted[index].start).max();
                prop_assert!(read.range.end - read.range.start <= LARGEST.max(longest.unwrap_or(0)));
                for &index in &read.serves {
                    served[index] += 1;
                    prop_assert!(read.range.start <= wanted[index].start && wanted[index].end <= read.range.end);
                }
            }
            for (range, times) in wanted.iter().zip(served) {
                prop_assert_eq!(times, i32::from(!range.is_empty()));
            }
        }
    }
}
