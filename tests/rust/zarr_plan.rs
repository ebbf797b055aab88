//! Plans against painting a dense array: nothing is read, encoded or fetched here.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::collections::HashSet;

use proptest::prelude::*;
use regraft::zarr::plan::{Action, Base, ChunkPlan, ChunkState, Outline, Plan, SourceOutline, plan};
use regraft::zarr::{Geometry, Region, Shift, Tile};

use crate::zarr_write_model::{Counting, Dense, indices, plus};
use regraft::zarr::Values;

/// A patch of a plan: where it lies and, unless it is fill, the tile shape and the origin in the source.
#[derive(Debug, Clone)]
struct Sketch {
    region: Region,
    source: Option<(Vec<u64>, Vec<u64>)>,
}

#[derive(Debug, Clone)]
struct Case {
    geometry: Geometry,
    patches: Vec<Sketch>,
    shift: Option<Shift>,
}

fn inside(shape: &[u64]) -> impl Strategy<Value = Region> + use<> {
    let sides: Vec<_> = shape
        .iter()
        .map(|side| {
            (0..*side).prop_flat_map({
                let side = *side;
                move |start| (Just(start), 1..=side - start)
            })
        })
        .collect();
    sides.prop_map(|sides| {
        let (start, shape) = sides.into_iter().unzip();
        Region::new(start, shape)
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let dimension = (1_u64..8, 1_u64..4, 1_u64..3, 0_u64..3);
    proptest::collection::vec(dimension, 1..4)
        .prop_flat_map(|dimensions| {
            let shape: Vec<u64> = dimensions.iter().map(|one| one.0).collect();
            let sketch = (
                inside(&shape),
                proptest::option::weighted(0.8, proptest::collection::vec((1_u64..4, 0_u64..2), shape.len())),
            )
                .prop_map(|(region, source)| Sketch { region, source: source.map(|sides| sides.into_iter().unzip()) });
            let shifted = proptest::option::of((0..shape.len(), proptest::collection::vec(any::<bool>(), 8)));
            (Just(dimensions), proptest::collection::vec(sketch, 0..5), shifted, any::<bool>(), any::<bool>())
        })
        .prop_map(|(dimensions, patches, shifted, sharded, grows)| {
            let shape: Vec<u64> = dimensions.iter().map(|one| one.0).collect();
            let chunk_shape: Vec<u64> = dimensions.iter().map(|one| one.1).collect();
            let shard_shape = sharded.then(|| dimensions.iter().map(|one| one.1 * one.2).collect());
            let mut previous: Vec<u64> = dimensions.iter().map(|one| one.0.saturating_sub(one.3)).collect();
            let shift = shifted.map(|(dimension, is_new)| {
                let mut next = 0;
                let map = (0..shape[dimension] as usize)
                    .map(|index| {
                        let from = (!is_new[index % is_new.len()]).then_some(next);
                        next += u64::from(from.is_some());
                        from
                    })
                    .collect();
                previous.clone_from(&shape);
                previous[dimension] = next;
                Shift { dimension, map }
            });
            let previous_shape = (grows || shift.is_some()).then_some(previous);
            Case { geometry: Geometry { shape, chunk_shape, shard_shape, previous_shape }, patches, shift }
        })
}

/// A source for each patch, its elements unlike all others.
fn sources(case: &Case) -> Vec<Option<(Counting, Dense, Vec<u64>)>> {
    case.patches
        .iter()
        .enumerate()
        .map(|(number, sketch)| {
            let (tile_shape, origin) = sketch.source.clone()?;
            let shape = plus(&origin, &sketch.region.shape);
            let count = shape.iter().product::<u64>() as u16;
            let dense = Dense { shape, values: (0..count).map(|value| value + 1000 * (number as u16 + 1)).collect() };
            Some((Counting::new(dense.clone(), &tile_shape), dense, origin))
        })
        .collect()
}

fn planned(case: &Case, sources: &[Option<(Counting, Dense, Vec<u64>)>]) -> Plan {
    let outlines: Vec<Outline<'_>> = case
        .patches
        .iter()
        .zip(sources)
        .map(|(sketch, source)| Outline {
            region: &sketch.region,
            source: source.as_ref().map(|(values, dense, origin)| SourceOutline {
                origin,
                shape: &dense.shape,
                tiles: values.tiles(),
            }),
        })
        .collect();
    plan(&case.geometry, &outlines, case.shift.as_ref()).unwrap()
}

/// The old array, every element unlike all others.
fn before(case: &Case) -> Dense {
    let mut shape = case.geometry.previous_shape.clone().unwrap_or_else(|| case.geometry.shape.clone());
    for (side, bound) in shape.iter_mut().zip(&case.geometry.shape) {
        *side = (*side).min(*bound);
    }
    let count = shape.iter().product::<u64>() as u16;
    Dense { values: (0..count).map(|value| value + 30_000).collect(), shape }
}

/// Does what a plan says, object by object, in its order.
fn apply(case: &Case, plan: &Plan, sources: &[Option<(Counting, Dense, Vec<u64>)>]) -> Dense {
    let geometry = &case.geometry;
    let old = before(case);
    let mut new = old.grown(&geometry.shape, None);
    let mut written: HashSet<Vec<u64>> = HashSet::new();
    let chunk_box = |chunk: &[u64]| geometry.chunk_region(chunk);
    for object in &plan.objects {
        let read = |from: &[u64]| {
            let from = geometry.object_of(from);
            assert!(
                from == object.index || !written.contains(&from),
                "object {from:?} is read after it was overwritten"
            );
        };
        match &object.action {
            Action::Copy { from } => {
                let shift = case.shift.as_ref().unwrap();
                let side = geometry.object_shape()[shift.dimension];
                assert!(!written.contains(from), "object {from:?} moves after it was overwritten");
                let distance = (object.index[shift.dimension] - from[shift.dimension]) * side;
                let per_object = geometry.chunks_per_object();
                for inner in indices(&per_object) {
                    let chunk: Vec<u64> =
                        (0..inner.len()).map(|one| object.index[one] * per_object[one] + inner[one]).collect();
                    let region = chunk_box(&chunk);
                    for index in indices(&region.shape) {
                        let index = plus(&region.start, &index);
                        let mut moved = index.clone();
                        moved[shift.dimension] -= distance;
                        new.set(
                            &index,
                            if moved.iter().zip(&old.shape).all(|(a, b)| a < b) {
                                old.get(&moved)
                            } else {
                                crate::zarr_write_model::FILL
                            },
                        );
                    }
                }
            }
            Action::Write { chunks, keeps } => {
                let mut seen = HashSet::new();
                let mut reads = *keeps;
                for chunk in chunks {
                    assert!(seen.insert(&chunk.index), "chunk {:?} twice", chunk.index);
                    assert_eq!(geometry.object_of(&chunk.index), object.index);
                    write_chunk(chunk, case, &old, &mut new, sources, &read);
                    reads |= chunk.base == Base::Stored;
                }
                if case.geometry.shard_shape.is_none() {
                    assert_eq!(chunks.len(), 1);
                }
                if !reads && case.shift.is_none() {
                    // Nothing that readers see now may get lost with the object.
                    for inner in indices(&geometry.chunks_per_object()) {
                        let chunk: Vec<u64> = (0..inner.len())
                            .map(|one| object.index[one] * geometry.chunks_per_object()[one] + inner[one])
                            .collect();
                        assert!(seen.contains(&chunk) || geometry.previous_region(&chunk).is_empty());
                    }
                }
            }
        }
        assert!(written.insert(object.index.clone()), "object {:?} twice", object.index);
    }
    new
}

fn write_chunk(
    chunk: &ChunkPlan,
    case: &Case,
    old: &Dense,
    new: &mut Dense,
    sources: &[Option<(Counting, Dense, Vec<u64>)>],
    read: &impl Fn(&[u64]),
) {
    let geometry = &case.geometry;
    let whole = geometry.chunk_region(&chunk.index);
    match &chunk.base {
        Base::Stored => read(&chunk.index),
        Base::Blank => new.apply(&whole, None),
        Base::Moved { from } => {
            read(from);
            let distance = geometry.chunk_start(&chunk.index);
            let from = geometry.chunk_start(from);
            for index in indices(&whole.shape) {
                let value = old.get(&plus(&from, &index));
                new.set(&plus(&distance, &index), value);
            }
        }
        Base::Assembled { moves } => {
            new.apply(&whole, None);
            for one in moves {
                read(&one.chunk);
                for index in indices(&one.source.shape) {
                    let from = plus(&one.source.start, &index);
                    assert_eq!(
                        from.iter().zip(&geometry.chunk_shape).map(|(a, b)| a / b).collect::<Vec<_>>(),
                        one.chunk
                    );
                    new.set(&plus(&one.target, &index), old.get(&from));
                }
            }
        }
    }
    let mut covered = HashSet::new();
    for piece in &chunk.pieces {
        assert!(whole.contains(&piece.region) && !piece.region.is_empty());
        let patch = &case.patches[piece.patch];
        for index in indices(&piece.region.shape) {
            let target = plus(&piece.region.start, &index);
            assert!(covered.insert(target.clone()), "element {target:?} is written twice");
            let value = match (&sources[piece.patch], piece.tile) {
                (Some((values, dense, origin)), Some(tile)) => {
                    let from: Vec<u64> =
                        (0..target.len()).map(|one| target[one] - patch.region.start[one] + origin[one]).collect();
                    let Tile { region, .. } = &values.tiles()[tile];
                    assert!(region.contains(&Region::new(from.clone(), vec![1; from.len()])));
                    dense.get(&from)
                }
                (None, None) => crate::zarr_write_model::FILL,
                _ => panic!("a tile of fill"),
            };
            new.set(&target, value);
        }
    }
    if chunk.base == Base::Stored {
        let previous = geometry.previous_region(&chunk.index);
        let reads = indices(&previous.shape).any(|index| !covered.contains(&plus(&previous.start, &index)));
        assert!(reads, "chunk {:?} is read although all of it is covered", chunk.index);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn plans_do_what_painting_does(case in cases()) {
        let sources = sources(&case);
        let plan = planned(&case, &sources);
        let moved = case.shift.as_ref().map(|shift| (shift.dimension, shift.map.as_slice()));
        let mut expected = before(&case).grown(&case.geometry.shape, moved);
        for (sketch, source) in case.patches.iter().zip(&sources) {
            expected.apply(&sketch.region, source.as_ref().map(|(_, dense, origin)| (dense, origin.as_slice())));
        }
        prop_assert_eq!(apply(&case, &plan, &sources), expected);
        if case.shift.is_none() {
            // Nothing is touched that no patch touches.
            for object in &plan.objects {
                if let Action::Write { chunks, .. } = &object.action {
                    for chunk in chunks {
                        prop_assert!(!chunk.pieces.is_empty());
                    }
                }
            }
        }
    }
}

/// `count` steps of a `(5, 4, 4)`-chunked array of 20 steps, one patch each.
fn steps(steps: &[u64]) -> Plan {
    let geometry =
        Geometry { shape: vec![20, 4, 4], chunk_shape: vec![5, 4, 4], shard_shape: None, previous_shape: None };
    let source = Counting::new(Dense::filled(&[1, 4, 4]), &[1, 4, 4]);
    let regions: Vec<Region> = steps.iter().map(|step| Region::new(vec![*step, 0, 0], vec![1, 4, 4])).collect();
    let outlines: Vec<Outline<'_>> = regions
        .iter()
        .map(|region| Outline {
            region,
            source: Some(SourceOutline { origin: &[0, 0, 0], shape: &[1, 4, 4], tiles: source.tiles() }),
        })
        .collect();
    plan(&geometry, &outlines, None).unwrap()
}

fn states(plan: &Plan) -> Vec<ChunkState> {
    plan.objects
        .iter()
        .filter_map(|object| match &object.action {
            Action::Write { chunks, .. } => Some(chunks[0].state()),
            Action::Copy { .. } => None,
        })
        .collect()
}

#[test]
fn five_one_step_patches_fill_a_five_step_chunk() {
    assert_eq!(states(&steps(&[5, 9, 7, 6, 8])), [ChunkState::Whole]);
    assert_eq!(states(&steps(&[5, 9, 7, 6])), [ChunkState::Patch]);
    assert_eq!(states(&steps(&[0, 5, 6, 7, 8, 9, 10])), [ChunkState::Patch, ChunkState::Whole, ChunkState::Patch]);
}

#[test]
fn tiles_that_a_later_patch_hides_do_not_appear() {
    let plan = steps(&[3, 3, 3]);
    let Action::Write { chunks, .. } = &plan.objects[0].action else { panic!("a copy") };
    assert_eq!(chunks[0].pieces.iter().map(|piece| piece.patch).collect::<Vec<_>>(), [2]);
}

#[test]
fn patches_outside_the_array_are_refused() {
    let geometry = Geometry { shape: vec![4], chunk_shape: vec![2], shard_shape: None, previous_shape: None };
    let region = Region::new(vec![3], vec![2]);
    let error = plan(&geometry, &[Outline { region: &region, source: None }], None).unwrap_err();
    assert_eq!(error.message(), "region `[3]` + `[2]` lies outside the array of shape `[4]`");
}
