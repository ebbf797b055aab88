//! Which steps of the axis are whose: blocks that share no object, and what of a layout lies inside of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::BadSource;
use crate::collection::layout::{Layout, StepRun};
use crate::collection::structure::{Role, Structure};

pub(super) fn owners(layout: &Layout) -> BTreeSet<&str> {
    layout.runs.iter().filter_map(|run| run.source.as_ref().map(|(key, _)| key.as_str())).collect()
}

/// Steps of the axis whose objects are no other steps' objects, in every data array.
pub(super) fn block_length(structure: &Structure) -> u64 {
    let sides = structure
        .arrays
        .iter()
        .filter(|array| array.role == Role::Data)
        .filter_map(|array| array.axis.map(|axis| array.array.object_shape()[axis].max(1)));
    sides.fold(1, |length, side| {
        let (mut left, mut right) = (length, side);
        while right > 0 {
            (left, right) = (right, left % right);
        }
        (length / left).saturating_mul(side)
    })
}

/// The blocks in which something changes.
pub(super) fn touched(layout: &Layout, block: u64) -> Vec<u64> {
    let runs = layout.runs.iter().map(|run| (run.start, run.start + run.count));
    let gaps = layout.gaps.iter().map(|(index, _)| (*index, *index + 1));
    let blocks = runs.chain(gaps).flat_map(|(start, stop)| start / block..stop.div_ceil(block));
    blocks.collect::<BTreeSet<u64>>().into_iter().collect()
}

/// The blocks of one shard.
pub(super) fn share(blocks: &[u64], (number, count): (u64, u64)) -> Vec<u64> {
    let bound = |number: u64| (blocks.len() as u128 * u128::from(number) / u128::from(count)) as usize;
    blocks[bound(number - 1)..bound(number)].to_vec()
}

/// What lies inside of `blocks`.
pub(super) fn clip(layout: &Layout, blocks: &[u64], block: u64) -> Layout {
    let mut clipped =
        Layout { length_before: layout.length_before, length_after: layout.length_after, ..Layout::default() };
    for &index in blocks {
        let (start, stop) = (index * block, (index + 1) * block);
        let first = layout.runs.partition_point(|run| run.start + run.count <= start);
        for run in layout.runs[first..].iter().take_while(|run| run.start < stop) {
            let from = run.start.max(start);
            let to = (run.start + run.count).min(stop);
            clipped.runs.push(StepRun {
                start: from,
                count: to - from,
                source: run.source.as_ref().map(|(key, step)| (key.clone(), step + from - run.start)),
                state: run.state,
            });
        }
        clipped.gaps.extend(layout.gaps.iter().filter(|(index, _)| (start..stop).contains(index)).cloned());
    }
    clipped
}

pub(super) fn without(layout: &Layout, bad: &BTreeMap<String, BadSource>) -> Layout {
    let mut layout = layout.clone();
    layout.runs.retain(|run| run.source.as_ref().is_none_or(|(key, _)| !bad.contains_key(key)));
    layout
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collection::document::ChunkState;

    proptest! {
        /// Every step is written by one shard, and no two shards touch a block.
        #[test]
        fn shards_share_the_steps_and_no_block(
            lengths in prop::collection::vec((0_u64..5, 1_u64..9), 0..30),
            block in 1_u64..12,
            count in 1_u64..8,
        ) {
            let mut runs = Vec::new();
            let mut end = 0;
            for (index, (gap, length)) in lengths.iter().enumerate() {
                let source = Some((index.to_string(), 3));
                runs.push(StepRun { start: end + gap, count: *length, source, state: ChunkState::New });
                end += gap + length;
            }
            let layout = Layout { runs, length_after: end, ..Layout::default() };
            let mut steps = BTreeMap::new();
            let mut blocks = BTreeSet::new();
            for number in 1..=count {
                let mine = share(&touched(&layout, block), (number, count));
                for index in &mine {
                    prop_assert!(blocks.insert(*index));
                }
                for run in clip(&layout, &mine, block).runs {
                    let (key, step) = run.source.expect("a source");
                    for offset in 0..run.count {
                        prop_assert!(mine.contains(&((run.start + offset) / block)));
                        prop_assert!(steps.insert(run.start + offset, (key.clone(), step + offset)).is_none());
                    }
                }
            }
            let mut expected = BTreeMap::new();
            for run in &layout.runs {
                let (key, step) = run.source.clone().expect("a source");
                expected.extend((0..run.count).map(|offset| (run.start + offset, (key.clone(), step + offset))));
            }
            prop_assert_eq!(steps, expected);
        }
    }
}
