//! The last step of a plan: chunks become stored objects, in the order in which they are to be written.

use super::geometry::Geometry;
use super::plan::{Action, Base, ChunkPlan, ObjectPlan};
use super::shift::Shift;

/// Gathers chunks into stored objects and puts the objects in order.
pub(super) fn group_by_object(
    geometry: &Geometry,
    chunks: Vec<ChunkPlan>,
    shift: Option<(&Shift, u64)>,
) -> Vec<ObjectPlan> {
    let mut keyed: Vec<(Vec<u64>, ChunkPlan)> =
        chunks.into_iter().map(|chunk| (geometry.object_of(&chunk.index), chunk)).collect();
    // Rows that move come last and in falling order; the rows before them in C order.
    let rank = |object: &[u64]| {
        shift.map_or((0, 0), |(shift, first_row)| {
            let row = object[shift.dimension];
            let first = first_row / geometry.chunks_per_object()[shift.dimension];
            if row < first { (0, 0) } else { (1, u64::MAX - row) }
        })
    };
    keyed.sort_by(|(one, one_chunk), (other, other_chunk)| {
        (rank(one), one, &one_chunk.index).cmp(&(rank(other), other, &other_chunk.index))
    });
    let mut objects: Vec<ObjectPlan> = Vec::new();
    for (object, chunk) in keyed {
        match objects.last_mut() {
            Some(ObjectPlan { index, action: Action::Write { chunks, .. } }) if *index == object => chunks.push(chunk),
            _ => {
                objects.push(ObjectPlan { index: object, action: Action::Write { chunks: vec![chunk], keeps: false } });
            }
        }
    }
    for object in &mut objects {
        let Action::Write { chunks, keeps } = &mut object.action else { continue };
        *keeps = geometry.shard_shape.is_some() && keeps_chunks(geometry, &object.index, chunks);
        if !*keeps && let Some(from) = moves_whole(geometry, chunks) {
            object.action = Action::Copy { from };
        }
    }
    objects
}

/// Whether a shard holds chunks, visible to readers, that are not in `chunks`.
fn keeps_chunks(geometry: &Geometry, object: &[u64], chunks: &[ChunkPlan]) -> bool {
    let visible = |chunk: &[u64]| !geometry.previous_region(chunk).is_empty();
    let mut total = 1_u64;
    for (dimension, per_object) in geometry.chunks_per_object().into_iter().enumerate() {
        let mut bound = geometry.shape[dimension];
        if let Some(previous) = &geometry.previous_shape {
            bound = bound.min(previous[dimension]);
        }
        let end = bound.div_ceil(geometry.chunk_shape[dimension]);
        total *= end.saturating_sub(object[dimension] * per_object).min(per_object);
    }
    chunks.iter().filter(|chunk| visible(&chunk.index)).count() as u64 != total
}

/// The object that moves here as it is, where that is all that happens.
fn moves_whole(geometry: &Geometry, chunks: &[ChunkPlan]) -> Option<Vec<u64>> {
    let per_object = geometry.chunks_per_object();
    let mut origin = None;
    for chunk in chunks {
        let Base::Moved { from } = &chunk.base else { return None };
        let same_place = from.iter().zip(&chunk.index).zip(&per_object).all(|((a, b), count)| a % count == b % count);
        let object = geometry.object_of(from);
        if !same_place || origin.as_ref().is_some_and(|origin| *origin != object) {
            return None;
        }
        origin = Some(object);
    }
    origin
}
