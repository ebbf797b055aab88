//! The part of a plan that moves old elements: what every chunk row behind the first moved index is put together from.

use std::collections::HashMap;

use super::geometry::{flat, for_each_cell};
use super::plan::{Base, Candidate, ChunkPlan, Groups, Move, Planner};
use super::shift::{RowMove, Shift};
use crate::zarr::Region;

impl Planner<'_> {
    /// Plans the touched chunks where everything from chunk row `first_row` on moves.
    pub(super) fn shift_all(&mut self, candidates: Vec<Candidate>, shift: &Shift, first_row: u64) {
        let dimension = shift.dimension;
        let chunk = self.geometry.chunk_shape[dimension];
        let mut patched = HashMap::new();
        for group in Groups(candidates.into_iter().peekable()) {
            let index = self.unflat(group[0].chunk);
            if index[dimension] < first_row {
                self.patch_chunk(index, group);
            } else {
                patched.insert(group[0].chunk, group);
            }
        }
        let mut lanes = self.counts.clone();
        lanes[dimension] = 1;
        for row in first_row..self.counts[dimension] {
            let start = row * chunk;
            let length = chunk.min(self.geometry.shape[dimension] - start);
            let moves = shift.moves_into(start, length, chunk);
            for_each_cell(&Region::whole(&lanes), &vec![1; lanes.len()], |lane| {
                let mut index = lane.to_vec();
                index[dimension] = row;
                let group = patched.remove(&flat(&index, &self.counts)).unwrap_or_default();
                self.chunks.push(self.shift_chunk(index, group, &moves, dimension));
            });
        }
    }

    /// Plans one chunk into which old elements move.
    fn shift_chunk(
        &self,
        index: Vec<u64>,
        group: Vec<Candidate>,
        row_moves: &[RowMove],
        dimension: usize,
    ) -> ChunkPlan {
        let whole = self.geometry.chunk_region(&index);
        let chunk = self.geometry.chunk_shape[dimension];
        let old_chunk = |from: u64| {
            let mut old = index.clone();
            old[dimension] = from / chunk;
            old
        };
        if let [only] = row_moves
            && group.is_empty()
            && only.from % chunk == 0
            && only.to % chunk == 0
            && only.length == whole.shape[dimension]
            && self.keeps_other_sides(&old_chunk(only.from), &whole, dimension)
        {
            return ChunkPlan { base: Base::Moved { from: old_chunk(only.from) }, index, pieces: Vec::new() };
        }
        let (pieces, uncovered) = self.pieces(&whole, group);
        let mut moves = Vec::new();
        for row_move in row_moves {
            let old = old_chunk(row_move.from);
            let mut bounds = self.geometry.previous_region(&old);
            // A shift knows its own old length; the other dimensions may have grown as well.
            bounds.start[dimension] = row_move.from;
            bounds.shape[dimension] = row_move.length;
            let mut target = bounds.clone();
            target.start[dimension] = row_move.to;
            if !bounds.is_empty() && uncovered.iter().any(|rest| rest.intersection(&target).is_some()) {
                moves.push(Move { chunk: old, source: bounds, target: target.start });
            }
        }
        let base = if moves.is_empty() { Base::Blank } else { Base::Assembled { moves } };
        ChunkPlan { index, base, pieces }
    }

    /// Whether all of an old chunk, but for its extent along `dimension`, was in the array before it grew.
    fn keeps_other_sides(&self, old: &[u64], whole: &Region, dimension: usize) -> bool {
        let previous = self.geometry.previous_region(old);
        (0..whole.dimensionality()).all(|other| other == dimension || previous.shape[other] == whole.shape[other])
    }
}
