//! The plan of chunk writes: what happens to every stored object when patches and a shift are applied to one array.
//!
//! # Problem
//! Many sources touch many chunks. Written source by source, a chunk that 100 files share would be read, decoded, encoded
//! and written 100 times.
//!
//! # Design
//! [`plan`] is a pure function from the array's grid, the outlines of the patches in order (later ones win) and an
//! optional [`Shift`] to an ordered list of object writes, each object at most once. It decides for every touched chunk
//! where the elements come from that no patch covers ([`Base`]), and gives every covered element to exactly one piece of
//! one tile, so that tiles may arrive in any order. Coverage is exact for unions: five one-step patches fill a five-step
//! chunk, and then it is never read. Tiles that later patches hide do not appear, and are never fetched.
//!
//! With a shift, all chunk rows from the first moved index to the end are rewritten, the last row first; a row is read
//! only by rows at or behind it, so nothing is read after it was overwritten.
//!
//! # Alternatives considered
//! Applying patches one after the other in each chunk is simpler but makes the result depend on the order in which tiles
//! arrive, or serialises them, and decodes tiles nobody sees.
//!
//! # Caveats
//! A plan holds one entry for each touched chunk and each piece of a tile in it, about 200 bytes each.
//!
//! # Testing
//! Property tests run random plans on small arrays against painting a dense array (below, and through real codecs in
//! `tests/rust/zarr_write.rs`).

use serde::{Deserialize, Serialize};

use super::coverage::{Visible, cover};
use super::geometry::{Geometry, flat, for_each_cell};
use super::plan_objects::group_by_object;
use super::shift::Shift;
use super::values::{Content, Patch, Tile};
use crate::error::{Error, Result};
use crate::zarr::Region;

/// A patch as a plan sees it.
#[derive(Debug, Clone, Copy)]
pub struct Outline<'a> {
    /// Which elements of the array.
    pub region: &'a Region,
    /// Where the values come from; `None` puts the fill value there.
    pub source: Option<SourceOutline<'a>>,
}

/// The values of a patch as a plan sees them.
#[derive(Debug, Clone, Copy)]
pub struct SourceOutline<'a> {
    /// The index, in the source, of the element that goes to the start of the region.
    pub origin: &'a [u64],
    /// The shape of the source's index space.
    pub shape: &'a [u64],
    /// Every tile of the source.
    pub tiles: &'a [Tile],
}

impl<'a> From<&'a Patch> for Outline<'a> {
    fn from(patch: &'a Patch) -> Self {
        let source = match &patch.content {
            Content::Fill => None,
            Content::Values { values, origin } => {
                Some(SourceOutline { origin, shape: values.shape(), tiles: values.tiles() })
            }
        };
        Self { region: &patch.region, source }
    }
}

/// What happens to the stored objects of one array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Every touched object once. Objects are in C order of their index; with a shift, those it moves come in falling
    /// order along its dimension, and must be written in this order as far as one reads what another overwrites.
    pub objects: Vec<ObjectPlan>,
}

/// What happens to one stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectPlan {
    /// The index of the chunk, or of the shard, in the grid of stored objects.
    pub index: Vec<u64>,
    /// What happens.
    pub action: Action,
}

/// What happens to a stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It becomes a copy of the object at `from` as that was before this commit.
    Copy {
        /// The index of the object that moves here.
        from: Vec<u64>,
    },
    /// Some of its chunks change.
    Write {
        /// The chunks that change, in C order of their index; without shards exactly one.
        chunks: Vec<ChunkPlan>,
        /// Whether it holds other chunks that stay as they are: then its encoded bytes are needed.
        keeps: bool,
    },
}

/// What happens to one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPlan {
    /// The index in the grid of (inner) chunks.
    pub index: Vec<u64>,
    /// Where elements come from that no piece covers.
    pub base: Base,
    /// Disjoint pieces that take new values.
    pub pieces: Vec<Piece>,
}

/// Where the elements of a chunk come from that no patch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nowhere: all is covered, or what is not covered becomes fill. The stored chunk is never read.
    Blank,
    /// From the chunk as it is stored: a read-modify-write.
    Stored,
    /// The chunk is the old chunk with this index, as its encoded bytes are.
    Moved {
        /// The old chunk.
        from: Vec<u64>,
    },
    /// From parts of old chunks; the rest is fill.
    Assembled {
        /// The parts.
        moves: Vec<Move>,
    },
}

/// A part of an old chunk that moves into a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The old chunk.
    pub chunk: Vec<u64>,
    /// The elements, in old indices of the array; they lie in `chunk`.
    pub source: Region,
    /// The new index of the first of them.
    pub target: Vec<u64>,
}

/// Elements of a chunk that take new values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which patch of the list.
    pub patch: usize,
    /// Which tile of the patch's source; `None` for the fill value.
    pub tile: Option<usize>,
    /// Which elements of the array.
    pub region: Region,
}

/// A word for what happens to a chunk, for people and reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkState {
    /// All elements take new values: written without being read.
    Whole,
    /// Some elements take new values: read, changed, written.
    Patch,
    /// All elements become fill.
    Fill,
    /// It moves as it is.
    Copy,
    /// It is put together from parts of old chunks.
    Assemble,
}

impl ChunkPlan {
    /// The word for what happens to it.
    #[must_use]
    pub fn state(&self) -> ChunkState {
        match &self.base {
            Base::Blank if self.pieces.iter().all(|piece| piece.tile.is_none()) => ChunkState::Fill,
            Base::Blank => ChunkState::Whole,
            Base::Stored => ChunkState::Patch,
            Base::Moved { .. } => ChunkState::Copy,
            Base::Assembled { .. } => ChunkState::Assemble,
        }
    }
}

/// A part of a patch in a chunk, before it is known what covers it.
pub(super) struct Candidate {
    pub(super) chunk: u64,
    patch: usize,
    tile: Option<usize>,
    region: Region,
}

/// Plans the writes of one array.
///
/// # Errors
/// `Invalid` for a grid that does not fit together ([`Geometry::check`]), a patch outside the array, or a source that does
/// not cover its patch; `Internal` for a shift that does not fit the array.
pub fn plan(geometry: &Geometry, patches: &[Outline<'_>], shift: Option<&Shift>) -> Result<Plan> {
    geometry.check()?;
    let first_moved_row = match shift {
        None => None,
        Some(shift) => {
            let Some(new_length) = geometry.shape.get(shift.dimension) else {
                return Err(Error::internal(format!(
                    "shift along dimension `{}` of an array with `{}`",
                    shift.dimension,
                    geometry.shape.len()
                )));
            };
            let old_length = geometry.previous_shape.as_ref().map(|shape| shape[shift.dimension]);
            shift.check(*new_length, old_length)?;
            shift.first_moved().map(|first| first / geometry.chunk_shape[shift.dimension])
        }
    };
    let mut planner = Planner { geometry, counts: geometry.chunk_counts(), patches, chunks: Vec::new() };
    let candidates = planner.candidates()?;
    match shift.zip(first_moved_row) {
        None => planner.patch_all(candidates),
        Some((shift, first_row)) => planner.shift_all(candidates, shift, first_row),
    }
    let chunks = planner.chunks;
    Ok(Plan { objects: group_by_object(geometry, chunks, shift.zip(first_moved_row)) })
}

pub(super) struct Planner<'a> {
    pub(super) geometry: &'a Geometry,
    /// Number of chunks in each dimension.
    pub(super) counts: Vec<u64>,
    patches: &'a [Outline<'a>],
    /// The result.
    pub(super) chunks: Vec<ChunkPlan>,
}

impl Planner<'_> {
    /// Every part of a patch in a chunk, ordered by chunk, patch and tile.
    fn candidates(&self) -> Result<Vec<Candidate>> {
        let array = Region::whole(&self.geometry.shape);
        let mut candidates = Vec::new();
        for (patch, outline) in self.patches.iter().enumerate() {
            self.check_patch(outline, &array)?;
            if outline.region.is_empty() {
                continue;
            }
            let mut add = |tile: Option<usize>, part: &Region| {
                for_each_cell(part, &self.geometry.chunk_shape, |index| {
                    if let Some(region) = part.intersection(&self.geometry.chunk_region(index)) {
                        candidates.push(Candidate { chunk: flat(index, &self.counts), patch, tile, region });
                    }
                });
            };
            let Some(source) = &outline.source else {
                add(None, outline.region);
                continue;
            };
            let wanted = Region::new(source.origin.to_vec(), outline.region.shape.clone());
            let mut found = 0;
            for (tile, region) in source.tiles.iter().map(|tile| &tile.region).enumerate() {
                if let Some(part) = region.intersection(&wanted) {
                    found += part.element_count();
                    let seen = part.relative_to(source.origin);
                    let start = seen.start.iter().zip(&outline.region.start).map(|(a, b)| a + b).collect();
                    add(Some(tile), &Region::new(start, seen.shape));
                }
            }
            if found != wanted.element_count() {
                return Err(Error::internal(format!(
                    "tiles of a source hold `{found}` of the `{}` elements of a patch",
                    wanted.element_count()
                )));
            }
        }
        candidates.sort_unstable_by_key(|candidate| (candidate.chunk, candidate.patch, candidate.tile));
        Ok(candidates)
    }

    fn check_patch(&self, outline: &Outline<'_>, array: &Region) -> Result<()> {
        let region = outline.region;
        let dimensionality = array.dimensionality();
        let fits = |start: &[u64], shape: &[u64], bounds: &[u64]| {
            [start.len(), shape.len(), bounds.len()] == [dimensionality; 3]
                && (0..dimensionality).all(|dimension| {
                    start[dimension].checked_add(shape[dimension]).is_some_and(|end| end <= bounds[dimension])
                })
        };
        if !fits(&region.start, &region.shape, &self.geometry.shape) {
            return Err(Error::invalid(format!(
                "region `{:?}` + `{:?}` lies outside the array of shape `{:?}`",
                region.start, region.shape, self.geometry.shape
            )));
        }
        if let Some(source) = &outline.source
            && !fits(source.origin, &region.shape, source.shape)
        {
            return Err(Error::invalid(format!(
                "expected values of shape `{:?}` from `{:?}` on, found a source of shape `{:?}`",
                region.shape, source.origin, source.shape
            )));
        }
        Ok(())
    }

    /// Plans the touched chunks where nothing moves.
    fn patch_all(&mut self, candidates: Vec<Candidate>) {
        for group in Groups(candidates.into_iter().peekable()) {
            let index = self.unflat(group[0].chunk);
            self.patch_chunk(index, group);
        }
    }

    /// Plans one chunk whose elements stay where they are.
    pub(super) fn patch_chunk(&mut self, index: Vec<u64>, group: Vec<Candidate>) {
        let (pieces, uncovered) = self.pieces(&self.geometry.chunk_region(&index), group);
        let previous = self.geometry.previous_region(&index);
        let reads = uncovered.iter().any(|rest| rest.intersection(&previous).is_some());
        self.chunks.push(ChunkPlan { index, base: if reads { Base::Stored } else { Base::Blank }, pieces });
    }

    /// The visible pieces of the candidates of one chunk, and what they leave uncovered.
    pub(super) fn pieces(&self, whole: &Region, group: Vec<Candidate>) -> (Vec<Piece>, Vec<Region>) {
        let mut patches: Vec<usize> = group.iter().map(|candidate| candidate.patch).collect();
        patches.dedup();
        let boxes: Vec<Region> =
            patches.iter().filter_map(|&patch| self.patches[patch].region.intersection(whole)).collect();
        let coverage = cover(whole, &boxes);
        let mut visible = coverage.visible.iter();
        let mut current = None;
        let mut pieces = Vec::with_capacity(group.len());
        for Candidate { patch, tile, region, .. } in group {
            if current.is_none_or(|(before, _)| before != patch) {
                current = visible.next().map(|visible| (patch, visible));
            }
            match current {
                Some((_, Visible::Parts(parts))) => {
                    let parts = parts.iter().filter_map(|part| part.intersection(&region));
                    pieces.extend(parts.map(|region| Piece { patch, tile, region }));
                }
                _ => pieces.push(Piece { patch, tile, region }),
            }
        }
        (pieces, coverage.uncovered)
    }

    pub(super) fn unflat(&self, mut chunk: u64) -> Vec<u64> {
        let mut index = vec![0; self.counts.len()];
        for dimension in (0..index.len()).rev() {
            index[dimension] = chunk % self.counts[dimension];
            chunk /= self.counts[dimension];
        }
        index
    }
}

/// Candidates of one chunk after the other.
pub(super) struct Groups<I: Iterator<Item = Candidate>>(pub(super) std::iter::Peekable<I>);

impl<I: Iterator<Item = Candidate>> Iterator for Groups<I> {
    type Item = Vec<Candidate>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.0.next()?;
        let chunk = first.chunk;
        let mut group = vec![first];
        while let Some(candidate) = self.0.next_if(|candidate| candidate.chunk == chunk) {
            group.push(candidate);
        }
        Some(group)
    }
}
