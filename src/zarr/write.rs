//! The chunk writer: applies patches and shifts to arrays, reading, encoding and writing each stored object at most once.
//!
//! # Problem
//! Most stores that users have hold several steps in a chunk, so one new file changes a part of many chunks. The time goes
//! into inflating the source, decoding old chunks and encoding new ones; everything else is to cost nothing, both cores
//! are to be busy throughout, and memory is bounded.
//!
//! # Design
//! 1. [`plan`](super::plan) says for each stored object what it is made of: tiles of sources, its own old content, other
//!    objects' old content.
//! 2. `schedule`, pure, puts the objects of all arrays in one order, cuts it into small groups, and decides when each
//!    input is loaded and how long it is kept, so that memory suffices by construction.
//! 3. `engine` admits group after group as memory allows. An object waits for its inputs: the fetches of tiles (one
//!    call for each source and group) and one GET of its old bytes. When the last has arrived, one job on the rayon pool decodes,
//!    scatters, compares with fill and encodes, so that a chunk is in one core's cache from its decoding to its
//!    encoding. A tile that one object needs is decoded inside that job, one that several need once, by itself, and
//!    kept until the last of them is done. Then the object is put, while other objects are computed.
//!
//! Every put is conditional on what was there: on the content that was read, where a chunk is changed; else on what a
//! listing found before anything was written ([`lookup`]), one for each row of chunks where that is cheaper than a look at
//! each. A writer that stands still while another takes its place is then refused, also where it replaces chunks whole.
//!
//! # Alternatives considered
//! - Scattering each tile into all chunk buffers as it arrives: needs locks or `unsafe`, keeps every touched chunk decoded
//!   until its last tile comes, and takes each chunk through the cache twice.
//! - Array by array, or wave by wave with a barrier: at each end one core has nothing to do.
//!
//! # Caveats
//! - A tile is decoded once unless memory does not allow to keep it until the last chunk that needs it; then it is
//!   fetched and decoded again. [`WriteSummary::tiles_decoded`] tells.
//! - Services that name contents by their hash (S3) give a chunk that came back to its old bytes its old name.
//! - A shift that is cut off leaves a torn array; who keeps a journal copies away what [`overwritten`] names.
//!
//! # Testing
//! `tests/rust/zarr_write.rs`: random arrays, shards, patches and shifts against a dense model through real codecs;
//! requests counted; a chunk changed between read and write; memory bound.

mod buffers;
mod chunk_writer;
mod engine;
mod inputs;
mod job;
mod lookup;
mod schedule;
mod storing;
mod work;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use chunk_writer::{ChunkWriter, Copied, Guard};
pub(crate) use engine::compute;
pub use lookup::{Lookup, lookups};

use super::geometry::for_each_cell;
use super::plan::{Outline, Plan, plan};
use super::{Array, Geometry, Patch, Region, Shift};
use crate::error::{Context, Result};
use crate::progress::Run;
use crate::store::Store;

/// What happens to one array in a commit.
#[derive(Clone)]
pub struct ArrayWrite {
    /// The array, with the shape that it will have.
    pub array: Array,
    /// New values; later ones win.
    pub patches: Vec<Patch>,
    /// How old elements move first.
    pub shift: Option<Shift>,
    /// The shape that readers see now, where the array grows: see [`Geometry::previous_shape`]. With a shift, the old
    /// length along its dimension.
    pub previous_shape: Option<Vec<u64>>,
}

impl ArrayWrite {
    /// Patches an array that keeps its shape.
    #[must_use]
    pub fn new(array: Array, patches: Vec<Patch>) -> Self {
        Self { array, patches, shift: None, previous_shape: None }
    }

    /// The grid that a plan is made on.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            shape: self.array.shape.clone(),
            chunk_shape: self.array.chunk_shape.clone(),
            shard_shape: self.array.shard_shape.clone(),
            previous_shape: self.previous_shape.clone(),
        }
    }

    /// What would be written.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn plan(&self) -> Result<Plan> {
        let outlines: Vec<Outline<'_>> = self.patches.iter().map(Outline::from).collect();
        plan(&self.geometry(), &outlines, self.shift.as_ref()).context(|| format!("array `{}`", self.array.path))
    }
}

/// What becomes of a chunk whose elements are all fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyChunks {
    /// It is not written; readers see fill where there is none. An object that is there is deleted on files, and becomes
    /// fill elsewhere, where a deletion has no condition. A fill value of `null` (v2) is not defined for readers, so such
    /// chunks are always written.
    #[default]
    Drop,
    /// It is written.
    Fill,
}

/// The grid indices of the objects that a shift is about to overwrite and that cannot be computed again from anything
/// else: every object of the old array from the first row on that holds a moved element. Not all of them need exist.
#[must_use]
pub fn overwritten(write: &ArrayWrite) -> BTreeSet<Vec<u64>> {
    let Some((shift, first)) = write.shift.as_ref().and_then(|shift| Some((shift, shift.first_moved()?))) else {
        return BTreeSet::new();
    };
    let shape = write.previous_shape.as_ref().unwrap_or(&write.array.shape);
    rows_from(&write.array, shape, shift.dimension, first)
}

/// The grid indices of the objects of an array of `shape` that hold elements at or behind index `first` of a dimension.
#[must_use]
pub fn rows_from(array: &Array, shape: &[u64], dimension: usize, first: u64) -> BTreeSet<Vec<u64>> {
    let mut found = BTreeSet::new();
    let object = array.object_shape().to_vec();
    let mut region =
        Region::whole(&shape.iter().zip(&object).map(|(length, side)| length.div_ceil(*side)).collect::<Vec<_>>());
    let start = (first / object[dimension]).min(region.shape[dimension]);
    region.start[dimension] = start;
    region.shape[dimension] -= start;
    for_each_cell(&region, &vec![1; shape.len()], |index| {
        found.insert(index.to_vec());
    });
    found
}

/// How to write.
#[derive(Clone)]
pub struct WriteOptions {
    /// Bytes that buffers, decoded tiles and fetched bytes may take together.
    pub memory: u64,
    /// What becomes of chunks that are all fill.
    pub empty_chunks: EmptyChunks,
}

impl Default for WriteOptions {
    /// 2 GiB, empty chunks dropped.
    fn default() -> Self {
        Self { memory: 2 << 30, empty_chunks: EmptyChunks::Drop }
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSummary {
    /// Stored objects (chunks, or shards) that were read.
    pub chunks_read: u64,
    /// Stored objects that were written.
    pub chunks_written: u64,
    /// Stored objects that were moved as they are.
    pub chunks_copied: u64,
    /// Stored objects that became all fill and were deleted.
    pub chunks_dropped: u64,
    /// Chunks that were stored with the bytes of their source.
    pub chunks_passed_through: u64,
    /// Chunks that were encoded.
    pub chunks_encoded: u64,
    /// Inner chunks of rewritten shards whose bytes were kept.
    pub chunks_kept: u64,
    /// Tiles that were decoded.
    pub tiles_decoded: u64,
    /// The most bytes that were reserved at once.
    pub peak_memory: u64,
}

impl std::ops::AddAssign for WriteSummary {
    fn add_assign(&mut self, other: Self) {
        self.chunks_read += other.chunks_read;
        self.chunks_written += other.chunks_written;
        self.chunks_copied += other.chunks_copied;
        self.chunks_dropped += other.chunks_dropped;
        self.chunks_passed_through += other.chunks_passed_through;
        self.chunks_encoded += other.chunks_encoded;
        self.chunks_kept += other.chunks_kept;
        self.tiles_decoded += other.tiles_decoded;
        self.peak_memory = self.peak_memory.max(other.peak_memory);
    }
}

/// Applies `writes` to the arrays of `store`, in no particular order among objects (but see [`Shift`]); metadata is not
/// touched.
///
/// # Errors
/// `Conflict` naming the object when somebody else changed a chunk between its read and its write; `Invalid` when an
/// array's parts do not fit together, when values have another type than their array, or when one stored object and its
/// inputs need more than [`WriteOptions::memory`]; `Corrupt` when a stored chunk or a source cannot be decoded;
/// `Unavailable` when `run` was cancelled or the storage does not answer. Objects that were written stay written;
/// nothing is in flight any more when this returns.
pub async fn write(store: &Store, writes: &[ArrayWrite], options: &WriteOptions, run: &Run) -> Result<WriteSummary> {
    write_to(store, writes, options, run).await
}

/// [`write`] to any place for chunks.
///
/// # Errors
/// As [`write`].
pub async fn write_to(
    place: &dyn ChunkWriter,
    writes: &[ArrayWrite],
    options: &WriteOptions,
    run: &Run,
) -> Result<WriteSummary> {
    engine::run(place, writes, options, run).await
}
