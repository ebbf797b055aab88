//! Strided copies between C-order buffers: from a decoded tile straight into a chunk.
//!
//! A box of elements that lies in two buffers is copied run by run. A run is the longest stretch that is contiguous in
//! both: the innermost dimension, joined with the ones outside it as long as the box spans both buffers there. One day
//! of a `(5, 500, 500)` chunk out of a `(1, 500, 500)` tile is therefore a single copy of 250,000 elements. Runs of one
//! element (the patched dimension is the innermost one) take a loop over a fixed element size, because a call of
//! `memcpy` for two bytes costs more than the bytes.
//!
//! Testing: a property test against an index-by-index copy.

use crate::zarr::Region;

/// The runs of a box that lies in two C-order buffers; all numbers count elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Elements of a run.
    length: usize,
    /// Offset of the first run in the source and in the target.
    first: (usize, usize),
    /// Dimensions outside the run, outermost first: repetitions, source stride, target stride.
    outer: Vec<(usize, usize, usize)>,
}

impl Runs {
    /// The runs of a box of `shape` that starts at `source_start` of a buffer of `source_shape` and at `target_start` of a
    /// buffer of `target_shape`. The box must lie inside both.
    pub(crate) fn new(
        shape: &[u64],
        (source_start, source_shape): (&[u64], &[u64]),
        (target_start, target_shape): (&[u64], &[u64]),
    ) -> Self {
        let mut length = 1_usize;
        let mut contiguous = true;
        let mut first = (0_usize, 0_usize);
        let mut strides = (1_usize, 1_usize);
        let mut outer: Vec<(usize, usize, usize)> = Vec::with_capacity(shape.len());
        for dimension in (0..shape.len()).rev() {
            let count = shape[dimension] as usize;
            debug_assert!(source_start[dimension] + shape[dimension] <= source_shape[dimension]);
            debug_assert!(target_start[dimension] + shape[dimension] <= target_shape[dimension]);
            first.0 += source_start[dimension] as usize * strides.0;
            first.1 += target_start[dimension] as usize * strides.1;
            if contiguous {
                length *= count;
                contiguous = shape[dimension] == source_shape[dimension] && shape[dimension] == target_shape[dimension];
            } else if count != 1 {
                outer.push((count, strides.0, strides.1));
            }
            strides.0 *= source_shape[dimension] as usize;
            strides.1 *= target_shape[dimension] as usize;
        }
        outer.reverse();
        if outer.iter().any(|(count, _, _)| *count == 0) {
            length = 0;
        }
        if length == 0 {
            outer.clear();
        }
        Self { length, first, outer }
    }

    /// Calls `copy` with the source offset, the target offset and the length of each run.
    fn for_each(&self, mut copy: impl FnMut(usize, usize, usize)) {
        if self.length == 0 {
            return;
        }
        self.for_each_row(|source, target, count, source_stride, target_stride| {
            for index in 0..count {
                copy(source + index * source_stride, target + index * target_stride, self.length);
            }
        });
    }

    /// Calls `row` for each repetition of the innermost outer dimension: offsets of its first run, number of runs, strides.
    fn for_each_row(&self, mut row: impl FnMut(usize, usize, usize, usize, usize)) {
        let Some((&(count, source_stride, target_stride), slower)) = self.outer.split_last() else {
            return row(self.first.0, self.first.1, 1, 0, 0);
        };
        let mut position = vec![0_usize; slower.len()];
        let (mut source, mut target) = self.first;
        loop {
            row(source, target, count, source_stride, target_stride);
            let mut dimension = slower.len();
            loop {
                if dimension == 0 {
                    return;
                }
                dimension -= 1;
                let (repetitions, source_step, target_step) = slower[dimension];
                position[dimension] += 1;
                source += source_step;
                target += target_step;
                if position[dimension] < repetitions {
                    break;
                }
                source -= repetitions * source_step;
                target -= repetitions * target_step;
                position[dimension] = 0;
            }
        }
    }
}

/// Copies the runs between buffers of `size`-byte elements.
pub(crate) fn copy_fixed(runs: &Runs, size: usize, source: &[u8], target: &mut [u8]) {
    match runs.length * size {
        1 => copy_each::<1>(runs, size, source, target),
        2 => copy_each::<2>(runs, size, source, target),
        4 => copy_each::<4>(runs, size, source, target),
        8 => copy_each::<8>(runs, size, source, target),
        _ => runs.for_each(|from, to, length| {
            target[to * size..(to + length) * size].copy_from_slice(&source[from * size..(from + length) * size]);
        }),
    }
}

/// Copies runs of exactly `BYTES` bytes.
fn copy_each<const BYTES: usize>(runs: &Runs, size: usize, source: &[u8], target: &mut [u8]) {
    runs.for_each_row(|from, to, count, source_stride, target_stride| {
        let (mut from, mut to) = (from * size, to * size);
        for _ in 0..count {
            target[to..to + BYTES].copy_from_slice(&source[from..from + BYTES]);
            from += source_stride * size;
            to += target_stride * size;
        }
    });
}

/// Copies the runs between buffers of strings.
pub(crate) fn copy_strings(runs: &Runs, source: &[String], target: &mut [String]) {
    runs.for_each(|from, to, length| target[to..to + length].clone_from_slice(&source[from..from + length]));
}

/// The runs of `region` in one buffer of `shape`, as source and as target.
fn runs_within(region: &Region, shape: &[u64]) -> Runs {
    Runs::new(&region.shape, (&region.start, shape), (&region.start, shape))
}

/// Sets `region` of a buffer of `shape` to one element's bytes.
pub(crate) fn fill_fixed(target: &mut [u8], shape: &[u64], region: &Region, element: &[u8]) {
    let size = element.len();
    runs_within(region, shape)
        .for_each(|_, to, length| fill_slice(&mut target[to * size..(to + length) * size], element));
}

/// Sets `region` of a buffer of `shape` to one string.
pub(crate) fn fill_strings(target: &mut [String], shape: &[u64], region: &Region, element: &str) {
    runs_within(region, shape).for_each(|_, to, length| {
        for string in &mut target[to..to + length] {
            element.clone_into(string);
        }
    });
}

/// Repeats one element's bytes over `target`, whose length is a multiple of it.
fn fill_slice(target: &mut [u8], element: &[u8]) {
    if element.iter().all(|byte| *byte == element[0]) {
        if let Some(byte) = element.first() {
            target.fill(*byte);
        }
        return;
    }
    if let Ok(element) = <[u8; 2]>::try_from(element) {
        fill_each(target, element);
    } else if let Ok(element) = <[u8; 4]>::try_from(element) {
        fill_each(target, element);
    } else if let Ok(element) = <[u8; 8]>::try_from(element) {
        fill_each(target, element);
    } else {
        for slot in target.chunks_exact_mut(element.len()) {
            slot.copy_from_slice(element);
        }
    }
}

fn fill_each<const BYTES: usize>(target: &mut [u8], element: [u8; BYTES]) {
    for slot in target.chunks_exact_mut(BYTES) {
        slot.copy_from_slice(&element);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Box shape, and for source and target: start and shape.
    type Case = (Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>, Vec<u64>);

    fn cases() -> impl Strategy<Value = Case> {
        proptest::collection::vec((1_u64..5, 0_u64..3, 0_u64..3, 0_u64..3, 0_u64..3), 0..5).prop_map(|dimensions| {
            let mut case: Case = Default::default();
            for (count, source_before, source_after, target_before, target_after) in dimensions {
                case.0.push(count);
                case.1.push(source_before);
                case.2.push(source_before + count + source_after);
                case.3.push(target_before);
                case.4.push(target_before + count + target_after);
            }
            case
        })
    }

    fn offset(start: &[u64], shape: &[u64], position: &[u64]) -> usize {
        (0..shape.len()).fold(0, |offset, dimension| offset * shape[dimension] + start[dimension] + position[dimension])
            as usize
    }

    fn positions(shape: &[u64]) -> Vec<Vec<u64>> {
        let mut all = vec![vec![]];
        for &count in shape {
            all = all
                .iter()
                .flat_map(|head: &Vec<u64>| (0..count).map(|index| [head.as_slice(), &[index]].concat()))
                .collect();
        }
        all
    }

    proptest! {
        #[test]
        fn copies_equal_an_element_by_element_copy(
            (shape, source_start, source_shape, target_start, target_shape) in cases(),
            size in prop::sample::select(vec![1_usize, 2, 3, 4, 8, 12]),
        ) {
            let source_count = source_shape.iter().product::<u64>() as usize;
            let target_count = target_shape.iter().product::<u64>() as usize;
            let source: Vec<u8> = (0..source_count * size).map(|index| (index % 251) as u8).collect();
            let mut expected = vec![255_u8; target_count * size];
            for position in positions(&shape) {
                let from = offset(&source_start, &source_shape, &position) * size;
                let to = offset(&target_start, &target_shape, &position) * size;
                expected[to..to + size].copy_from_slice(&source[from..from + size]);
            }
            let runs = Runs::new(&shape, (&source_start, &source_shape), (&target_start, &target_shape));
            let mut target = vec![255_u8; target_count * size];
            copy_fixed(&runs, size, &source, &mut target);
            prop_assert_eq!(&target, &expected);

            let source: Vec<String> = (0..source_count).map(|index| index.to_string()).collect();
            let mut strings = vec![String::new(); target_count];
            copy_strings(&runs, &source, &mut strings);
            for position in positions(&shape) {
                prop_assert_eq!(
                    &strings[offset(&target_start, &target_shape, &position)],
                    &source[offset(&source_start, &source_shape, &position)]
                );
            }
            prop_assert_eq!(
                strings.iter().filter(|string| !string.is_empty()).count() as u64,
                shape.iter().product::<u64>()
            );
        }

        #[test]
        fn fills_exactly_the_region((shape, start, whole, _, _) in cases(), element in prop::sample::select(vec![
            vec![7_u8], vec![1, 2], vec![3, 3, 3, 3], vec![1, 2, 3, 4], vec![1, 2, 3, 4, 5, 6, 7, 8], vec![9, 8, 7],
        ])) {
            let size = element.len();
            let region = Region::new(start.clone(), shape.clone());
            let mut buffer = vec![0_u8; whole.iter().product::<u64>() as usize * size];
            fill_fixed(&mut buffer, &whole, &region, &element);
            prop_assert_eq!(
                buffer.chunks(size).filter(|slot| *slot == element.as_slice()).count() as u64,
                region.element_count()
            );
            for position in positions(&shape) {
                let at = offset(&start, &whole, &position) * size;
                prop_assert_eq!(&buffer[at..at + size], element.as_slice());
            }
            let mut strings = vec![String::new(); whole.iter().product::<u64>() as usize];
            fill_strings(&mut strings, &whole, &region, "x");
            prop_assert_eq!(strings.iter().filter(|string| *string == "x").count() as u64, region.element_count());
        }
    }

    #[test]
    fn one_day_of_a_chunk_is_one_run() {
        let runs = Runs::new(&[1, 500, 500], (&[0, 0, 0], &[1, 500, 500]), (&[3, 0, 0], &[5, 500, 500]));
        assert_eq!(runs, Runs { length: 250_000, first: (0, 750_000), outer: vec![] });
    }
}
