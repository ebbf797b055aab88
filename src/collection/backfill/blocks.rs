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

/// Blocks as index ranges of an axis of `length`, neighbours joined.
pub(super) fn joined(blocks: &[u64], block: u64, length: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &index in blocks {
        let (start, stop) = (index * block, ((index + 1) * block).min(length));
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = stop,
            _ => ranges.push((start, stop)),
        }
    }
    ranges
}

/// By source: its runs as first index, count, and its own first step.
pub(super) fn steps_of(layout: &Layout) -> BTreeMap<&str, Vec<(u64, u64, u64)>> {
    let mut steps: BTreeMap<&str, Vec<(u64, u64, u64)>> = BTreeMap::new();
    for run in &layout.runs {
        if let Some((key, step)) = &run.source {
            steps.entry(key).or_default().push((run.start, run.count, *step));
        }
    }
    steps
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
    use crate::collection::label::Label;
    use crate::collection::structure::StoreArray;
    use crate::zarr::{ArraySpec, Compressor, DataType, FillValue, Format};

    /// A data array with an axis among its dimensions; `parts` > 1 makes shards of so many chunks along the axis.
    fn array(index: usize, format: Format, axis: usize, chunk: u64, parts: u64) -> StoreArray {
        let mut chunk_shape = vec![2, 3];
        chunk_shape.insert(axis, chunk);
        let mut shape = vec![4, 3];
        shape.insert(axis, 0);
        let mut dimension_names = vec!["y".to_owned(), "x".to_owned()];
        dimension_names.insert(axis, "time".into());
        let shard_shape = (format == Format::V3 && parts > 1).then(|| {
            let mut shard = chunk_shape.clone();
            shard[axis] *= parts;
            shard
        });
        let spec = ArraySpec {
            path: format!("array{index}"),
            shape,
            chunk_shape,
            shard_shape,
            data_type: DataType::Int16,
            fill_value: FillValue::zero(DataType::Int16),
            dimension_names,
            attributes: serde_json::Map::new(),
            compressor: Compressor::None,
        };
        let array = StoreArray::plain(spec.array(format).expect("a spec")).expect("an array");
        StoreArray { axis: Some(axis), role: Role::Data, ..array }
    }

    /// Runs with gaps between them; of a gap some steps are gained without a source.
    fn layout(lengths: &[(u64, u64)]) -> Layout {
        let mut layout = Layout::default();
        for (index, (gap, length)) in lengths.iter().enumerate() {
            let end = layout.length_after;
            layout.gaps.extend((end..end + gap).step_by(2).map(|index| (index, Label::Integer(index as i64))));
            let source = Some((index.to_string(), 3));
            layout.runs.push(StepRun { start: end + gap, count: *length, source, state: ChunkState::New });
            layout.length_after = end + gap + length;
        }
        layout
    }

    /// The objects of each array that a layout writes.
    fn objects(layout: &Layout, structure: &Structure) -> BTreeSet<(usize, u64)> {
        let runs = layout.runs.iter().flat_map(|run| run.start..run.start + run.count);
        let steps: Vec<u64> = runs.chain(layout.gaps.iter().map(|(index, _)| *index)).collect();
        let arrays = structure.arrays.iter().enumerate();
        arrays
            .flat_map(|(index, array)| {
                let side = array.array.object_shape()[array.axis.expect("an axis")];
                steps.iter().map(move |step| (index, step / side))
            })
            .collect()
    }

    proptest! {
        /// Whatever the chunks and shards of the arrays: no two shares write into one object, every chunk is counted by one
        /// share, and all shares together are the plan.
        #[test]
        fn shares_are_disjoint_in_objects_and_cover_the_plan(
            lengths in prop::collection::vec((0_u64..5, 1_u64..9), 0..30),
            arrays in prop::collection::vec((0_usize..3, 1_u64..7, 1_u64..4), 1..4),
            is_v3 in any::<bool>(),
            count in 1_u64..9,
        ) {
            let format = if is_v3 { Format::V3 } else { Format::V2 };
            let arrays = arrays.iter().enumerate();
            let structure = Structure {
                format,
                axis: "time".into(),
                arrays: arrays.map(|(index, (axis, chunk, parts))| array(index, format, *axis, *chunk, *parts)).collect(),
                attributes: serde_json::Map::new(),
            };
            let layout = layout(&lengths);
            let block = block_length(&structure);
            let chunks = |layout: &Layout| {
                let touched = layout.touched(&structure);
                touched.iter().map(|array| array.touched_count).sum::<u64>()
            };
            let (mut written, mut counted, mut covered) = (BTreeSet::new(), 0, Vec::new());
            for number in 1..=count {
                let mine = share(&touched(&layout, block), (number, count));
                let clipped = clip(&layout, &mine, block);
                for object in objects(&clipped, &structure) {
                    prop_assert!(written.insert(object), "{object:?} is in two shares");
                }
                counted += chunks(&clipped);
                let ranges = joined(&mine, block, layout.length_after);
                for run in &clipped.runs {
                    prop_assert!(ranges.iter().any(|(start, stop)| *start <= run.start && run.start + run.count <= *stop));
                }
                covered.extend(ranges);
            }
            prop_assert_eq!(written, objects(&layout, &structure));
            prop_assert_eq!(counted, chunks(&layout));
            prop_assert!(covered.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{:?}", covered);
        }

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
