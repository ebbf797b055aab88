//! Chunk indexes: where each chunk of a data set lies. All six kinds of HDF5.

use hdf5_reader::btree_v1::{BTreeV1Key, collect_btree_v1_leaves_storage};
use hdf5_reader::chunk_index::{
    ChunkEntry, collect_implicit_chunk_entries, collect_v2_chunk_entries_storage, single_chunk_entry,
};
use hdf5_reader::extensible_array::collect_extensible_array_chunk_entries_storage;
use hdf5_reader::fixed_array::collect_fixed_array_chunk_entries_storage;
use hdf5_reader::messages::layout::ChunkIndexing;

use super::Container;
use crate::error::{Error, Result};
use crate::netcdf::block::{Layout, Storage};
use crate::netcdf::decode::guarded;

/// What is needed to find the index of a data set's chunks.
#[derive(Debug)]
pub(crate) struct ChunkIndex {
    /// Where the index begins; `None` where no chunk was ever written.
    pub(super) address: Option<u64>,
    pub(crate) chunk_shape: Vec<u32>,
    pub(super) extent: Vec<u64>,
    /// The largest extent, which shapes extensible arrays.
    pub(super) largest: Option<Vec<u64>>,
    /// The kind of index; `None` is the B-tree of version 1.
    pub(super) indexing: Option<ChunkIndexing>,
}

impl Container {
    /// Walks the index of a chunked layout. A size of 0 means that the chunk is not filtered.
    pub(crate) fn chunk_entries(&self, layout: &Layout) -> Result<Vec<ChunkEntry>> {
        let Storage::Chunks { index, .. } = &layout.storage else {
            return Err(Error::internal("the chunk index of a variable without chunks was asked for"));
        };
        let ChunkIndex { address, chunk_shape, extent, largest, indexing } = index;
        let Some(address) = *address else {
            return Ok(Vec::new());
        };
        // The walks divide by chunk sizes.
        if chunk_shape.len() != extent.len() || chunk_shape.contains(&0) {
            return Err(Error::corrupt(format!(
                "chunks of shape `{chunk_shape:?}` do not fit an extent of `{extent:?}`"
            )));
        }
        let storage = self.file.storage();
        let superblock = self.file.superblock();
        let (offset_size, length_size) = (superblock.offset_size, superblock.length_size);
        let rank = extent.len();
        let mut entries = guarded(|| match indexing {
            None => {
                let leaves = collect_btree_v1_leaves_storage(
                    storage,
                    address,
                    offset_size,
                    length_size,
                    Some(rank as u32),
                    chunk_shape,
                    None,
                )?;
                Ok(leaves.into_iter().filter_map(|(key, address)| leaf_entry(key, address, rank)).collect())
            }
            Some(ChunkIndexing::SingleChunk { filtered_size, filters }) => {
                Ok(vec![single_chunk_entry(address, *filtered_size, *filters, rank)])
            }
            Some(ChunkIndexing::Implicit) => {
                collect_implicit_chunk_entries(address, extent, chunk_shape, layout.element_size, None, storage.len())
            }
            Some(ChunkIndexing::FixedArray { .. }) => collect_fixed_array_chunk_entries_storage(
                storage,
                address,
                offset_size,
                length_size,
                extent,
                chunk_shape,
                None,
            ),
            Some(ChunkIndexing::ExtensibleArray { .. }) => collect_extensible_array_chunk_entries_storage(
                storage,
                address,
                offset_size,
                length_size,
                extent,
                largest.as_deref(),
                chunk_shape,
                None,
            ),
            Some(ChunkIndexing::BTreeV2) => collect_v2_chunk_entries_storage(
                storage,
                address,
                offset_size,
                length_size,
                rank as u32,
                chunk_shape,
                None,
            ),
        })?;
        for entry in &mut entries {
            // Addresses count from behind the user block.
            entry.address = entry.address.saturating_add(self.base);
        }
        Ok(entries)
    }
}

fn leaf_entry(key: BTreeV1Key, address: u64, rank: usize) -> Option<ChunkEntry> {
    let BTreeV1Key::RawData { chunk_size, filter_mask, offsets } = key else {
        return None;
    };
    let offsets = offsets.get(..rank)?.to_vec();
    Some(ChunkEntry { address, size: u64::from(chunk_size), filter_mask, offsets })
}
