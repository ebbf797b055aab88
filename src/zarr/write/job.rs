//! The computation of one stored object, from its inputs to its encoded bytes; runs on the rayon pool.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rayon::prelude::*;

use super::buffers::Buffers;
use super::inputs::{Input, StoredInput, TileInput};
use crate::error::{Context, Error, Result};
use crate::zarr::coverage::subtract;
use crate::zarr::geometry::flat;
use crate::zarr::plan::{Base, ChunkPlan, Move, Piece};
use crate::zarr::scatter::{Runs, copy_fixed, copy_strings, fill_fixed, fill_strings};
use crate::zarr::{Array, Content, Elements, FillValue, Geometry, Patch, Region, Sharding, shard};

/// An array with its patches, shared by the jobs of its objects.
pub(super) struct ArrayWork {
    pub(super) array: Array,
    pub(super) geometry: Geometry,
    pub(super) patches: Vec<Patch>,
    /// The source of each patch in the commit's list of sources.
    pub(super) patch_sources: Vec<Option<usize>>,
    /// Whether the encoded tiles of a patch could be chunks of this array.
    pub(super) passes: Vec<bool>,
    /// Whether chunks that are all fill are deleted.
    pub(super) drops_empty: bool,
    /// Whether an object is computed by several threads: only where there are too few objects for all of them, since a
    /// thread that waits for the others would begin another object meanwhile, with all its memory.
    pub(super) splits_objects: bool,
}

impl ArrayWork {
    /// An object that holds nothing but fill, where there must be one.
    pub(super) fn empty_object(&self) -> Result<Bytes> {
        let array = &self.array;
        let elements = array.fill_value.elements(array.data_type, array.chunk_elements() as usize, Vec::new());
        let (chunk, _) = array.codecs.encode_recycling(elements, &array.chunk_shape)?;
        let Some(sharding) = &array.sharding else { return Ok(chunk) };
        let mut inner = vec![None; array.chunks_per_object().iter().product::<u64>() as usize];
        inner[0] = Some(chunk);
        shard::assemble(sharding, &inner).ok_or_else(|| Error::internal("a shard with a chunk in it is not empty"))
    }
}

/// What has been done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) read: AtomicU64,
    pub(super) passed_through: AtomicU64,
    pub(super) encoded: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) tiles_decoded: AtomicU64,
}

/// One stored object to be computed.
pub(super) struct ObjectJob {
    work: Arc<ArrayWork>,
    index: Vec<u64>,
    chunks: Vec<ChunkPlan>,
    keeps: bool,
    tiles: HashMap<(usize, usize), Arc<TileInput>>,
    stored: HashMap<Vec<u64>, Arc<StoredInput>>,
    buffers: Arc<Buffers>,
    counts: Arc<Counts>,
}

impl ObjectJob {
    pub(super) fn new(
        work: Arc<ArrayWork>,
        (index, chunks, keeps): (Vec<u64>, Vec<ChunkPlan>, bool),
        inputs: Vec<Input>,
        buffers: Arc<Buffers>,
        counts: Arc<Counts>,
    ) -> Self {
        let (mut tiles, mut stored) = (HashMap::new(), HashMap::new());
        for input in inputs {
            match input {
                Input::Tile(tile) => drop(tiles.insert((tile.source, tile.tile), tile)),
                Input::Stored(object) => drop(stored.insert(object.index.clone(), object)),
            }
        }
        Self { work, index, chunks, keeps, tiles, stored, buffers, counts }
    }

    /// The encoded object; `None` where nothing but fill is left and that is not stored.
    pub(super) fn run(self) -> Result<Option<Bytes>> {
        self.object().context(|| format!("chunk `{:?}` of array `{}`", self.index, self.work.array.path))
    }

    fn object(&self) -> Result<Option<Bytes>> {
        self.decode_shared_tiles()?;
        match (&self.work.array.sharding, self.chunks.as_slice()) {
            (None, [chunk]) => self.chunk(chunk),
            (None, chunks) => {
                Err(Error::internal(format!("expected `1` chunk in an object, found `{}`", chunks.len())))
            }
            (Some(sharding), _) => self.shard(sharding),
        }
    }

    /// Decodes the tiles that this object needs more than once. What is not decoded after this is needed once.
    fn decode_shared_tiles(&self) -> Result<()> {
        let mut users: HashMap<(usize, usize), usize> = HashMap::new();
        for piece in self.chunks.iter().flat_map(|chunk| &chunk.pieces) {
            if let Some(key) = self.tile_key(piece) {
                *users.entry(key).or_default() += 1;
            }
        }
        // With one chunk for several threads, its tiles are all that they can share.
        let least = if self.work.splits_objects && self.chunks.len() == 1 && users.len() > 1 { 1 } else { 2 };
        let wanted = self
            .tiles
            .iter()
            .filter(|(key, tile)| tile.elements().is_none() && users.get(key).is_some_and(|count| *count >= least));
        let wanted: Vec<&Arc<TileInput>> = wanted.map(|(_, tile)| tile).collect();
        let decode = |tile: &&Arc<TileInput>| {
            self.counts.tiles_decoded.fetch_add(1, Ordering::Relaxed);
            tile.decode(u64::MAX)
        };
        if self.work.splits_objects {
            wanted.par_iter().try_for_each(decode)
        } else {
            wanted.iter().try_for_each(decode)
        }
    }

    /// The shard with its changed chunks replaced.
    fn shard(&self, sharding: &Sharding) -> Result<Option<Bytes>> {
        let geometry = &self.work.geometry;
        let encode = |chunk: &ChunkPlan| Ok((self.position(&chunk.index), self.chunk(chunk)?));
        let changed: Vec<(usize, Option<Bytes>)> = if self.work.splits_objects {
            self.chunks.par_iter().map(encode).collect::<Result<_>>()?
        } else {
            self.chunks.iter().map(encode).collect::<Result<_>>()?
        };
        let per_object = geometry.chunks_per_object();
        let count = per_object.iter().product::<u64>() as usize;
        let mut inner: Vec<Option<Bytes>> = vec![None; count];
        if self.keeps
            && let Some(own) = self.stored.get(&self.index)
        {
            for (position, slot) in inner.iter_mut().enumerate() {
                // What lies outside the array that readers see is nobody's.
                if !geometry.previous_region(&self.chunk_at(position)).is_empty() {
                    *slot = own.inner_chunk(sharding, count, position)?;
                }
            }
            let kept = inner.iter().flatten().count() as u64;
            let replaced = changed.iter().filter(|(position, _)| inner[*position].is_some()).count() as u64;
            self.counts.kept.fetch_add(kept - replaced, Ordering::Relaxed);
        }
        for (position, bytes) in changed {
            inner[position] = bytes;
        }
        Ok(shard::assemble(sharding, &inner))
    }

    /// The position of a chunk in its object.
    fn position(&self, chunk: &[u64]) -> usize {
        let per_object = self.work.geometry.chunks_per_object();
        let inside: Vec<u64> = chunk.iter().zip(&per_object).map(|(index, count)| index % count).collect();
        flat(&inside, &per_object) as usize
    }

    /// The index of the chunk at a position of this object.
    fn chunk_at(&self, position: usize) -> Vec<u64> {
        let per_object = self.work.geometry.chunks_per_object();
        let mut rest = position as u64;
        let mut chunk = self.index.clone();
        for dimension in (0..chunk.len()).rev() {
            chunk[dimension] = chunk[dimension] * per_object[dimension] + rest % per_object[dimension];
            rest /= per_object[dimension];
        }
        chunk
    }

    fn tile_key(&self, piece: &Piece) -> Option<(usize, usize)> {
        self.work.patch_sources[piece.patch].zip(piece.tile)
    }

    fn tile(&self, piece: &Piece) -> Result<&Arc<TileInput>> {
        let key = self.tile_key(piece);
        key.and_then(|key| self.tiles.get(&key))
            .ok_or_else(|| Error::internal("a tile is missing from a chunk's inputs"))
    }

    /// One encoded chunk, `None` where it is all fill and that is not stored.
    fn chunk(&self, chunk: &ChunkPlan) -> Result<Option<Bytes>> {
        if let Base::Moved { from } = &chunk.base {
            return self.old_chunk(from);
        }
        if let Some(bytes) = self.passed_through(chunk)? {
            self.counts.passed_through.fetch_add(1, Ordering::Relaxed);
            return Ok(Some(bytes));
        }
        let array = &self.work.array;
        let elements = if let Some(tile) = self.whole_tile(chunk)? {
            let mut elements = self.take(tile)?;
            self.fill_outside(&mut elements, &self.inside(chunk));
            elements
        } else {
            let mut elements = self.base(chunk)?;
            for piece in &chunk.pieces {
                self.put_piece(chunk, piece, &mut elements)?;
            }
            elements
        };
        let is_empty =
            self.work.drops_empty && array.fill_value != FillValue::Null && array.fill_value.fills(&elements);
        if is_empty {
            self.recycle(elements);
            return Ok(None);
        }
        self.counts.encoded.fetch_add(1, Ordering::Relaxed);
        let (bytes, buffer) = array.codecs.encode_recycling(elements, &array.chunk_shape)?;
        self.buffers.give(buffer);
        Ok(Some(bytes))
    }

    /// Decodes a tile that is needed once.
    fn take(&self, tile: &TileInput) -> Result<Elements> {
        self.counts.tiles_decoded.fetch_add(1, Ordering::Relaxed);
        tile.take()
    }

    /// The encoded bytes of a chunk as it was before this commit.
    fn old_chunk(&self, chunk: &[u64]) -> Result<Option<Bytes>> {
        let geometry = &self.work.geometry;
        let Some(object) = self.stored.get(&geometry.object_of(chunk)) else {
            return Err(Error::internal("an old object is missing from a chunk's inputs"));
        };
        match &self.work.array.sharding {
            None => Ok(object.bytes().cloned()),
            Some(sharding) => {
                let count = geometry.chunks_per_object().iter().product::<u64>() as usize;
                object.inner_chunk(sharding, count, self.position(chunk))
            }
        }
    }

    /// The encoded bytes of the source, where the chunk can be stored with them.
    fn passed_through(&self, chunk: &ChunkPlan) -> Result<Option<Bytes>> {
        let [piece] = chunk.pieces.as_slice() else { return Ok(None) };
        if piece.tile.is_none() || !self.work.passes[piece.patch] {
            return Ok(None);
        }
        match self.whole_tile(chunk)? {
            Some(tile) => tile.pass_through(),
            None => Ok(None),
        }
    }

    /// The tile that is exactly this chunk, where there is one and nothing else needs it.
    fn whole_tile(&self, chunk: &ChunkPlan) -> Result<Option<&Arc<TileInput>>> {
        let (Base::Blank, [piece]) = (&chunk.base, chunk.pieces.as_slice()) else { return Ok(None) };
        let Content::Values { values, .. } = &self.work.patches[piece.patch].content else { return Ok(None) };
        let Some(outline) = piece.tile.and_then(|tile| values.tiles().get(tile)) else { return Ok(None) };
        let geometry = &self.work.geometry;
        if outline.decoded_shape != geometry.chunk_shape
            || piece.region.shape != outline.region.shape
            || piece.region != geometry.chunk_region(&chunk.index)
        {
            return Ok(None);
        }
        let tile = self.tile(piece)?;
        Ok(tile.elements().is_none().then_some(tile))
    }

    /// The elements of the array that lie in a chunk, seen from the chunk.
    fn inside(&self, chunk: &ChunkPlan) -> Region {
        let geometry = &self.work.geometry;
        geometry.chunk_region(&chunk.index).relative_to(&geometry.chunk_start(&chunk.index))
    }

    /// A chunk buffer with all that no piece covers.
    fn base(&self, chunk: &ChunkPlan) -> Result<Elements> {
        let array = &self.work.array;
        let geometry = &self.work.geometry;
        let size = array.chunk_bytes().unwrap_or(0) as usize;
        let filled =
            || array.fill_value.elements(array.data_type, array.chunk_elements() as usize, self.buffers.take(size));
        match &chunk.base {
            Base::Blank => {
                let covered: u64 = chunk.pieces.iter().map(|piece| piece.region.element_count()).sum();
                if covered == array.chunk_elements() && array.data_type.size().is_some() {
                    // Every byte is overwritten: what an earlier chunk left in the buffer may stay.
                    let mut buffer = self.buffers.take(size);
                    buffer.resize(size, 0);
                    return Ok(Elements::Fixed(buffer));
                }
                Ok(filled())
            }
            Base::Stored => {
                let Some(encoded) = self.old_chunk(&chunk.index)? else { return Ok(filled()) };
                let mut elements = self.decode(encoded)?;
                let start = geometry.chunk_start(&chunk.index);
                let seen = geometry.previous_region(&chunk.index);
                self.fill_outside(&mut elements, &seen.relative_to(&start));
                Ok(elements)
            }
            Base::Assembled { moves } => {
                let mut elements = filled();
                for one in moves {
                    if let Some(encoded) = self.old_chunk(&one.chunk)? {
                        let old = self.decode(encoded)?;
                        self.put_move(chunk, one, &old, &mut elements)?;
                        self.recycle(old);
                    }
                }
                Ok(elements)
            }
            Base::Moved { .. } => Err(Error::internal("a chunk that moves as it is was to be decoded")),
        }
    }

    fn decode(&self, encoded: Bytes) -> Result<Elements> {
        let array = &self.work.array;
        let buffer = self.buffers.take(array.chunk_bytes().unwrap_or(0) as usize);
        array.codecs.decode(encoded, &array.chunk_shape, buffer)
    }

    fn recycle(&self, elements: Elements) {
        if let Elements::Fixed(buffer) = elements {
            self.buffers.give(buffer);
        }
    }

    /// Copies old elements to their new place.
    fn put_move(&self, chunk: &ChunkPlan, one: &Move, old: &Elements, elements: &mut Elements) -> Result<()> {
        let geometry = &self.work.geometry;
        let from = one.source.relative_to(&geometry.chunk_start(&one.chunk)).start;
        let start = geometry.chunk_start(&chunk.index);
        let to: Vec<u64> = one.target.iter().zip(&start).map(|(target, start)| target - start).collect();
        let sides = geometry.chunk_shape.as_slice();
        self.copy(&Runs::new(&one.source.shape, (&from, sides), (&to, sides)), old, elements)
    }

    /// Puts new values into the elements of a piece.
    fn put_piece(&self, chunk: &ChunkPlan, piece: &Piece, elements: &mut Elements) -> Result<()> {
        let geometry = &self.work.geometry;
        let patch = &self.work.patches[piece.patch];
        let target = piece.region.relative_to(&geometry.chunk_start(&chunk.index));
        let (Content::Values { values, origin }, Some(tile)) = (&patch.content, piece.tile) else {
            self.fill(elements, &target);
            return Ok(());
        };
        let outline = &values.tiles()[tile];
        let from: Vec<u64> = (0..origin.len())
            .map(|dimension| {
                piece.region.start[dimension] - patch.region.start[dimension] + origin[dimension]
                    - outline.region.start[dimension]
            })
            .collect();
        let runs =
            Runs::new(&piece.region.shape, (&from, &outline.decoded_shape), (&target.start, &geometry.chunk_shape));
        let tile = self.tile(piece)?;
        if let Some(decoded) = tile.elements() {
            return self.copy(&runs, decoded, elements);
        }
        let decoded = self.take(tile)?;
        self.copy(&runs, &decoded, elements)?;
        self.recycle(decoded);
        Ok(())
    }

    fn copy(&self, runs: &Runs, source: &Elements, target: &mut Elements) -> Result<()> {
        match (source, target, self.work.array.data_type.size()) {
            (Elements::Fixed(source), Elements::Fixed(target), Some(size)) => copy_fixed(runs, size, source, target),
            (Elements::Strings(source), Elements::Strings(target), None) => copy_strings(runs, source, target),
            _ => return Err(Error::internal("strings and elements of a fixed size do not mix")),
        }
        Ok(())
    }

    fn fill(&self, elements: &mut Elements, region: &Region) {
        let array = &self.work.array;
        let shape = &self.work.geometry.chunk_shape;
        match elements {
            Elements::Fixed(buffer) => {
                let element = array.fill_value.element(array.data_type.size().unwrap_or(0));
                fill_fixed(buffer, shape, region, &element);
            }
            Elements::Strings(strings) => fill_strings(strings, shape, region, array.fill_value.text()),
        }
    }

    /// Makes everything of a chunk outside `kept` fill: what lies beyond the array may be seen when it grows.
    fn fill_outside(&self, elements: &mut Elements, kept: &Region) {
        let mut rest = Vec::new();
        subtract(&Region::whole(&self.work.geometry.chunk_shape), kept, &mut rest);
        for region in rest {
            self.fill(elements, &region);
        }
    }
}
