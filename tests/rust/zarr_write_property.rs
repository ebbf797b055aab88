//! Random commits on random arrays, through real codecs into a store in memory, against a dense array.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::sync::Arc;

use futures::TryStreamExt;
use proptest::prelude::*;
use regraft::error::Kind;
use regraft::progress::Run;
use regraft::store::{StorageOptions, Store, block_on};
use regraft::zarr::write::{ArrayWrite, EmptyChunks, WriteOptions, write};
use regraft::zarr::{Array, Compressor, Format, Patch, Region, Shift};

use crate::zarr_write_model::{Counting, Dense, FILL, array, blank, fresh_store, indices, patch, plus, stored};

/// A side of a box, as parts of a thousand of whatever the array's side is by then.
type Side = (u64, u64);

#[derive(Debug, Clone)]
struct PatchSketch {
    sides: Vec<Side>,
    /// Tile shape and origin; `None` for fill.
    source: Option<Vec<(u64, u64)>>,
    /// Whether the source holds nothing but fill.
    is_empty: bool,
}

#[derive(Debug, Clone)]
enum Growth {
    None,
    /// Slots at the end of a dimension.
    End(usize, u64),
    /// Slots inserted where the parts of a thousand say.
    Insert(usize, Vec<u64>),
}

#[derive(Debug, Clone)]
struct CommitSketch {
    growth: Growth,
    patches: Vec<PatchSketch>,
}

#[derive(Debug, Clone)]
struct Case {
    format: Format,
    shape: Vec<u64>,
    chunk_shape: Vec<u64>,
    shard_shape: Option<Vec<u64>>,
    compressor: Compressor,
    drops: bool,
    /// On files, where objects are renamed instead of copied.
    is_local: bool,
    memory: u64,
    commits: Vec<CommitSketch>,
}

fn commits(dimensionality: usize) -> impl Strategy<Value = Vec<CommitSketch>> {
    let part = || 0_u64..1000;
    let sketch = (
        proptest::collection::vec((part(), part()), dimensionality),
        proptest::option::weighted(0.85, proptest::collection::vec((1_u64..5, 0_u64..2), dimensionality)),
        proptest::bool::weighted(0.15),
    )
        .prop_map(|(sides, source, is_empty)| PatchSketch { sides, source, is_empty });
    let growth = prop_oneof![
        2 => Just(Growth::None),
        2 => (0..dimensionality, 1_u64..4).prop_map(|(dimension, count)| Growth::End(dimension, count)),
        3 => (0..dimensionality, proptest::collection::vec(part(), 1..4))
            .prop_map(|(dimension, places)| Growth::Insert(dimension, places)),
    ];
    let commit = (growth, proptest::collection::vec(sketch, 0..5))
        .prop_map(|(growth, patches)| CommitSketch { growth, patches });
    proptest::collection::vec(commit, 1..6)
}

fn cases() -> impl Strategy<Value = Case> {
    (1_usize..4).prop_flat_map(|dimensionality| {
        (
            proptest::collection::vec((1_u64..8, 1_u64..4, 1_u64..4), dimensionality),
            0_usize..5,
            (any::<bool>(), proptest::bool::weighted(0.1)),
            prop_oneof![Just(1_u64 << 20), 1_u64 << 10..20 << 10],
            commits(dimensionality),
        )
            .prop_map(|(dimensions, encoding, (drops, is_local), memory, commits)| {
                let shape = dimensions.iter().map(|one| one.0).collect();
                let chunk_shape = dimensions.iter().map(|one| one.1).collect();
                let sharded = || Some(dimensions.iter().map(|one| one.1 * one.2).collect());
                let (format, compressor, shard_shape) = match encoding {
                    0 => (Format::V2, Compressor::Zlib { level: 1, shuffle: true }, None),
                    1 => (Format::V3, Compressor::None, None),
                    2 => (Format::V3, Compressor::Zstd { level: 1 }, None),
                    3 => (Format::V3, Compressor::None, sharded()),
                    _ => (Format::V3, Compressor::Zstd { level: 1 }, sharded()),
                };
                Case { format, shape, chunk_shape, shard_shape, compressor, drops, is_local, memory, commits }
            })
    })
}

/// The shape after a growth, and what moves.
fn grow(shape: &[u64], growth: &Growth) -> (Vec<u64>, Option<Shift>) {
    let mut grown = shape.to_vec();
    match growth {
        Growth::None => (grown, None),
        Growth::End(dimension, count) => {
            grown[*dimension] += count;
            (grown, None)
        }
        Growth::Insert(dimension, places) => {
            let old = shape[*dimension];
            let mut before: Vec<u64> = places.iter().map(|place| place * (old + 1) / 1000).collect();
            before.sort_unstable();
            let mut map = Vec::new();
            for index in 0..=old {
                map.extend(before.iter().filter(|place| **place == index).map(|_| None));
                map.extend((index < old).then_some(Some(index)));
            }
            grown[*dimension] = map.len() as u64;
            (grown, Some(Shift { dimension: *dimension, map }))
        }
    }
}

/// What a patch puts there: a source's elements from an origin on, or fill.
type Painted = Option<(Dense, Vec<u64>)>;

/// The patches of a commit with what they put where.
fn patches(shape: &[u64], sketches: &[PatchSketch], seed: u16) -> (Vec<Patch>, Vec<Arc<Counting>>, Vec<Painted>) {
    let (mut patches, mut sources, mut contents) = (Vec::new(), Vec::new(), Vec::new());
    for (number, sketch) in sketches.iter().enumerate() {
        let start: Vec<u64> = shape.iter().zip(&sketch.sides).map(|(side, (start, _))| start * side / 1000).collect();
        let count = (0..shape.len()).map(|one| 1 + sketch.sides[one].1 * (shape[one] - start[one]) / 1000);
        let region = Region::new(
            start.clone(),
            count.zip(shape).zip(&start).map(|((count, side), start)| count.min(side - start)).collect(),
        );
        let Some(sides) = &sketch.source else {
            patches.push(blank(region));
            contents.push(None);
            continue;
        };
        let (tile_shape, origin): (Vec<u64>, Vec<u64>) = sides.iter().copied().unzip();
        let source_shape = plus(&origin, &region.shape);
        let mut dense = Dense::filled(&source_shape);
        if !sketch.is_empty {
            for (position, value) in dense.values.iter_mut().enumerate() {
                *value = FILL + 1 + seed * 4000 + number as u16 * 800 + position as u16;
            }
        }
        let source = Arc::new(Counting::new(dense.clone(), &tile_shape));
        patches.push(patch(region, Arc::clone(&source) as _, &origin));
        sources.push(source);
        contents.push(Some((dense, origin)));
    }
    (patches, sources, contents)
}

fn object_keys(store: &Store) -> Vec<String> {
    block_on(store.list("", None).map_ok(|meta| meta.key).try_collect::<Vec<String>>()).unwrap()
}

/// Whether the elements of a stored object are all fill.
fn is_empty(array: &Array, dense: &Dense, object: &[u64]) -> bool {
    let start: Vec<u64> = object.iter().zip(array.object_shape()).map(|(index, side)| index * side).collect();
    indices(array.object_shape())
        .map(|index| plus(&start, &index))
        .filter(|index| index.iter().zip(&dense.shape).all(|(index, side)| index < side))
        .all(|index| dense.get(&index) == FILL)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn commits_do_what_a_dense_array_does(case in cases()) {
        let directory = tempfile::tempdir().unwrap();
        let store = if case.is_local {
            Store::open(directory.path().to_str().unwrap(), &StorageOptions::default()).unwrap()
        } else {
            fresh_store()
        };
        let empty_chunks = if case.drops { EmptyChunks::Drop } else { EmptyChunks::Fill };
        let options = WriteOptions { memory: case.memory, empty_chunks };
        let mut shape = case.shape.clone();
        let mut model = Dense::filled(&shape);
        for (number, commit) in case.commits.iter().enumerate() {
            let (grown, shift) = grow(&shape, &commit.growth);
            let (patches, sources, contents) = patches(&grown, &commit.patches, number as u16);
            let array = array(case.format, &grown, &case.chunk_shape, case.shard_shape.as_deref(), case.compressor.clone());
            model = model.grown(&grown, shift.as_ref().map(|shift| (shift.dimension, shift.map.as_slice())));
            for (patch, content) in patches.iter().zip(&contents) {
                model.apply(&patch.region, content.as_ref().map(|(dense, origin)| (dense, origin.as_slice())));
            }
            let commit = ArrayWrite { array: array.clone(), patches, shift, previous_shape: Some(shape) };
            let plan = commit.plan().unwrap();
            let before = store.counters().usage();
            let writes = [commit];
            let answer = block_on(write(&store, &writes, &options, &Run::default()));
            let summary = match answer {
                Err(error) if error.kind() == Kind::Invalid && case.memory < 1 << 20 => {
                    // One object alone is too large for so little memory; nothing was done yet.
                    prop_assert_eq!(store.counters().usage(), before);
                    block_on(write(&store, &writes, &WriteOptions { empty_chunks, ..WriteOptions::default() }, &Run::default())).unwrap()
                }
                answer => answer.unwrap(),
            };
            let usage = store.counters().usage() - before;
            prop_assert_eq!(stored(&store, &array), model.clone());

            prop_assert!(summary.peak_memory <= case.memory.max(1 << 20));
            prop_assert!(sources.iter().all(|source| source.most_held() <= case.memory.max(1 << 20)));
            let objects = plan.objects.len() as u64;
            prop_assert_eq!(summary.chunks_written + summary.chunks_dropped + summary.chunks_copied, objects);
            // What moves as it is is read and written, since no service copies on a condition; on files it is linked.
            prop_assert!(usage.get + usage.copy >= summary.chunks_read + summary.chunks_copied);
            prop_assert!(usage.get + usage.copy <= summary.chunks_read + objects);
            prop_assert!(usage.put + usage.copy >= summary.chunks_written + summary.chunks_copied);
            prop_assert!(usage.put <= summary.chunks_written + summary.chunks_copied);
            prop_assert!(usage.delete <= summary.chunks_dropped);
            prop_assert!(usage.head + usage.list <= 2 * objects);
            if case.memory >= 1 << 20 {
                prop_assert!(sources.iter().all(|source| source.most_decoded() <= 1));
                prop_assert!(sources.iter().all(|source| source.fetched.iter().all(|count| count.load(std::sync::atomic::Ordering::Relaxed) <= 1)));
            }
            if case.drops {
                let grid = array.object_grid();
                let mut expected: Vec<String> = indices(&grid)
                    .filter(|object| !is_empty(&array, &model, object))
                    .map(|object| array.chunk_key(&object))
                    .collect();
                expected.sort();
                let found = object_keys(&store);
                // Without conditions for deletions, what was there becomes fill.
                if case.is_local {
                    prop_assert_eq!(found, expected);
                } else {
                    prop_assert!(expected.iter().all(|key| found.contains(key)));
                }
            }
            shape = grown;
        }
    }
}
