//! Blocks: which box of a variable's index space lies where in the file.
//!
//! A block is what is fetched and decoded as one. An HDF5 chunk is a block; contiguous data and classic variables are cut
//! into boxes of whole rows of about [`TARGET`] bytes, so that both cores have work and memory stays small; records of a
//! classic file are gathered, several to a block. Blocks do not overlap, cover the variable, and come in C order.

use bytes::Bytes;
use hdf5_reader::chunk_index::ChunkEntry;

use super::decode::Pipeline;
use super::hdf5::ChunkIndex;
use super::limits::Limits;
use crate::error::{Error, Result};

/// The size that row blocks aim at, in bytes.
pub(crate) const TARGET: u64 = 4 << 20;

/// A box of a variable that is fetched and decoded as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The first index of each dimension.
    pub region_start: Vec<u64>,
    /// Its shape, clipped to the variable's.
    pub region_shape: Vec<u64>,
    /// The shape it decodes to, at least `region_shape`: an edge chunk of HDF5 is stored whole.
    pub decoded_shape: Vec<u64>,
    /// Bytes that `fetch` brings, 0 where nothing is stored and the fill value is decoded.
    pub encoded_size: u64,
    pub(crate) place: Place,
}

/// Where a block's bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Never written.
    Missing,
    /// Inside the object header, from this byte of [`Storage::Inline`].
    Inline { offset: usize },
    /// One run of the file.
    Run { address: u64 },
    /// `count` runs of `bytes`, each `stride` after the one before.
    Records { address: u64, stride: u64, count: u64, bytes: u64 },
    /// An HDF5 chunk; a set bit of the mask leaves out that filter.
    Chunk { address: u64, filter_mask: u32 },
    /// Known to the C library only, which gives the elements decoded.
    Library,
}

/// How a variable's elements are stored.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Bytes of one stored element.
    pub(crate) element_size: usize,
    /// Whether stored numbers are big-endian.
    pub(crate) big_endian: bool,
    /// How stored elements become text, for strings.
    pub(crate) text: Option<Text>,
    /// The extent that is stored; shorter than the shape along an unlimited dimension that another variable extends.
    pub(crate) extent: Vec<u64>,
    /// What an element reads as that was never written, little-endian.
    pub(crate) fill: Vec<u8>,
    /// What an element beyond the extent reads as, little-endian.
    pub(crate) padding: Vec<u8>,
    /// Where the bytes are.
    pub(crate) storage: Storage,
}

/// How text is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    /// In place, padded with this byte, or ended by a NUL where there is none.
    Fixed { padding: Option<u8> },
    /// On the global heap, behind references.
    Heap,
}

/// Where a variable's bytes are.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Cannot be read, for this reason.
    Unreadable(String),
    /// Never written.
    Absent,
    /// In the object header.
    Inline(Bytes),
    /// One run of the file.
    Contiguous { address: u64 },
    /// One run a record, `stride` apart.
    Records { begin: u64, stride: u64 },
    /// HDF5 chunks.
    Chunks { index: ChunkIndex, pipeline: Pipeline },
}

/// The product of `sizes` and `factor`; `Invalid` where it overflows.
pub(crate) fn byte_count(sizes: &[u64], factor: u64) -> Result<u64> {
    sizes
        .iter()
        .try_fold(factor, |product, &size| product.checked_mul(size))
        .ok_or_else(|| Error::corrupt(format!("a shape of `{sizes:?}` elements overflows 64 bits")))
}

impl Layout {
    fn element_size(&self) -> u64 {
        self.element_size as u64
    }

    /// Cuts a variable of `shape` that is not chunked into blocks.
    pub(crate) fn row_blocks(&self, shape: &[u64], limits: &Limits) -> Result<Vec<Block>> {
        if shape.contains(&0) {
            return Ok(Vec::new());
        }
        let size = self.element_size();
        let total = byte_count(shape, size)?;
        let block = |(start, shape): (Vec<u64>, Vec<u64>), place: Place, stored: bool| -> Result<Block> {
            let encoded_size = if stored { byte_count(&shape, size)? } else { 0 };
            Ok(Block { region_start: start, decoded_shape: shape.clone(), region_shape: shape, encoded_size, place })
        };
        match &self.storage {
            Storage::Unreadable(reason) => Err(Error::invalid(reason.clone())),
            Storage::Absent => {
                row_boxes(shape, size, limits)?.into_iter().map(|rows| block(rows, Place::Missing, false)).collect()
            }
            Storage::Inline(_) => {
                let mut offset = 0;
                row_boxes(shape, size, limits)?
                    .into_iter()
                    .map(|rows| {
                        let block = block(rows, Place::Inline { offset }, true)?;
                        offset += block.encoded_size as usize;
                        Ok(block)
                    })
                    .collect()
            }
            Storage::Contiguous { address } => {
                checked_end(*address, total)?;
                let mut address = *address;
                row_boxes(shape, size, limits)?
                    .into_iter()
                    .map(|rows| {
                        let block = block(rows, Place::Run { address }, true)?;
                        address += block.encoded_size;
                        Ok(block)
                    })
                    .collect()
            }
            Storage::Records { begin, stride } => record_blocks(shape, size, *begin, *stride, limits),
            Storage::Chunks { .. } => Err(Error::internal("row blocks were asked of a chunked variable")),
        }
    }

    /// The blocks of a variable of `shape` that the C library reads: its chunks, clipped, or rows.
    pub(crate) fn library_blocks(
        &self,
        shape: &[u64],
        chunk_shape: Option<&[u64]>,
        limits: &Limits,
    ) -> Result<Vec<Block>> {
        let mut blocks = match (&self.storage, chunk_shape) {
            (Storage::Unreadable(reason), _) => return Err(Error::invalid(reason.clone())),
            (_, Some(chunk_shape)) => self.chunk_blocks(shape, chunk_shape, Vec::new(), limits)?,
            (_, None) => self.row_blocks(shape, limits)?,
        };
        for block in &mut blocks {
            block.decoded_shape.clone_from(&block.region_shape);
            block.encoded_size = byte_count(&block.decoded_shape, self.element_size())?;
            block.place = Place::Library;
        }
        Ok(blocks)
    }

    /// Whether its compression is not known here.
    pub(crate) fn has_unknown_filter(&self) -> bool {
        matches!(&self.storage, Storage::Chunks { pipeline, .. } if pipeline.has_unknown())
    }

    /// The chunks of a variable of `shape`, from the entries of its index.
    pub(crate) fn chunk_blocks(
        &self,
        shape: &[u64],
        chunk_shape: &[u64],
        mut entries: Vec<ChunkEntry>,
        limits: &Limits,
    ) -> Result<Vec<Block>> {
        if chunk_shape.len() != shape.len() || chunk_shape.contains(&0) {
            return Err(Error::corrupt(format!("chunks of shape `{chunk_shape:?}` do not fit a shape of `{shape:?}`")));
        }
        if shape.contains(&0) {
            return Ok(Vec::new());
        }
        let chunk_bytes = byte_count(chunk_shape, self.element_size())?;
        if chunk_bytes > limits.block {
            return Err(too_large("a chunk", chunk_bytes, limits.block));
        }
        let grid: Vec<u64> = shape.iter().zip(chunk_shape).map(|(size, chunk)| size.div_ceil(*chunk)).collect();
        let count = byte_count(&grid, 1)?;
        if count > limits.blocks {
            return Err(Error::invalid(format!("expected at most `{}` chunks, found `{count}`", limits.blocks)));
        }
        // Chunks that a shrunken extent left behind are still in the index; they are no part of the variable.
        entries.retain(|entry| entry.offsets.iter().zip(&self.extent).all(|(offset, extent)| offset < extent));
        for entry in &entries {
            let aligned = entry.offsets.len() == shape.len()
                && entry.offsets.iter().zip(chunk_shape).all(|(offset, chunk)| offset % chunk == 0);
            if !aligned {
                return Err(Error::corrupt(format!(
                    "expected chunk offsets on a grid of `{chunk_shape:?}`, found `{:?}`",
                    entry.offsets
                )));
            }
        }
        entries.sort_by(|left, right| left.offsets.cmp(&right.offsets));
        if let Some(twice) = entries.windows(2).find(|pair| pair[0].offsets == pair[1].offsets) {
            return Err(Error::corrupt(format!("the chunk at `{:?}` is in the index twice", twice[0].offsets)));
        }
        let mut blocks = Vec::with_capacity(count as usize);
        let mut stored = entries.into_iter().peekable();
        let mut start = vec![0; shape.len()];
        for _ in 0..count {
            let region_shape =
                start.iter().zip(shape).zip(chunk_shape).map(|((start, size), chunk)| (size - start).min(*chunk));
            let (encoded_size, place) = match stored.next_if(|entry| entry.offsets == start) {
                Some(ChunkEntry { address, size, filter_mask, .. }) => {
                    // The index of unfiltered chunks does not hold their size.
                    let size = if size == 0 { chunk_bytes } else { size };
                    checked_end(address, size)?;
                    (size, Place::Chunk { address, filter_mask })
                }
                None => (0, Place::Missing),
            };
            blocks.push(Block {
                region_shape: region_shape.collect(),
                region_start: start.clone(),
                decoded_shape: chunk_shape.to_vec(),
                encoded_size,
                place,
            });
            for dimension in (0..start.len()).rev() {
                start[dimension] += chunk_shape[dimension];
                if start[dimension] < shape[dimension] {
                    break;
                }
                start[dimension] = 0;
            }
        }
        Ok(blocks)
    }
}

/// One past the last byte of a run; `Corrupt` where it overflows.
fn checked_end(address: u64, size: u64) -> Result<u64> {
    address.checked_add(size).ok_or_else(|| Error::corrupt(format!("a run of `{size}` bytes at `{address}` overflows")))
}

pub(crate) fn too_large(what: &str, bytes: u64, limit: u64) -> Error {
    Error::invalid(format!("expected {what} of at most `{limit}` bytes, found `{bytes}` bytes"))
        .hint("the file is damaged, or was written with extreme chunks: rewrite it with smaller ones")
}

/// Boxes of whole rows of about [`TARGET`] bytes, in C order; `shape` has no zero.
fn row_boxes(shape: &[u64], element_size: u64, limits: &Limits) -> Result<Vec<(Vec<u64>, Vec<u64>)>> {
    // The dimension to cut: the first one whose rows are at most a target's worth.
    let mut cut = 0;
    let mut row_bytes = byte_count(shape.get(1..).unwrap_or_default(), element_size)?;
    while row_bytes > TARGET && cut + 1 < shape.len() {
        cut += 1;
        row_bytes /= shape[cut];
    }
    let Some(&length) = shape.get(cut) else {
        return Ok(vec![(Vec::new(), Vec::new())]);
    };
    let rows = (TARGET / row_bytes.max(1)).clamp(1, length);
    let outer = byte_count(&shape[..cut], 1)?;
    let count = outer.saturating_mul(length.div_ceil(rows));
    if count > limits.blocks {
        return Err(Error::invalid(format!("expected at most `{}` blocks, found `{count}`", limits.blocks)));
    }
    let mut boxes = Vec::with_capacity(count as usize);
    for outer_index in 0..outer {
        let mut start = vec![0; shape.len()];
        let mut box_shape = shape.to_vec();
        let mut rest = outer_index;
        for dimension in (0..cut).rev() {
            start[dimension] = rest % shape[dimension];
            box_shape[dimension] = 1;
            rest /= shape[dimension];
        }
        for first in (0..length).step_by(rows as usize) {
            start[cut] = first;
            box_shape[cut] = rows.min(length - first);
            boxes.push((start.clone(), box_shape.clone()));
        }
    }
    Ok(boxes)
}

/// Blocks of a classic record variable: several records to a block, or several blocks to a record.
fn record_blocks(shape: &[u64], element_size: u64, begin: u64, stride: u64, limits: &Limits) -> Result<Vec<Block>> {
    let records = shape[0];
    let bytes = byte_count(&shape[1..], element_size)?;
    let last = stride.checked_mul(records - 1).and_then(|offset| begin.checked_add(offset));
    let last = last.ok_or_else(|| Error::corrupt(format!("`{records}` records of `{stride}` bytes overflow")))?;
    checked_end(last, bytes)?;
    let mut blocks = Vec::new();
    for (start, region) in row_boxes(shape, element_size, limits)? {
        let address = begin + start[0] * stride;
        let encoded_size = byte_count(&region, element_size)?;
        let place = if region[0] == 1 {
            // Part of one record, or one whole record.
            let mut offset = 0;
            for dimension in 1..shape.len() {
                offset = offset * shape[dimension] + start[dimension];
            }
            Place::Run { address: address + offset * element_size }
        } else if stride == bytes {
            Place::Run { address }
        } else {
            Place::Records { address, stride, count: region[0], bytes }
        };
        blocks.push(Block {
            region_start: start,
            decoded_shape: region.clone(),
            region_shape: region,
            encoded_size,
            place,
        });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(storage: Storage, extent: &[u64], element_size: usize) -> Layout {
        Layout {
            element_size,
            big_endian: false,
            text: None,
            extent: extent.to_vec(),
            fill: vec![0; element_size],
            padding: vec![0; element_size],
            storage,
        }
    }

    #[test]
    fn scalars_are_one_block_and_empty_variables_none() {
        let scalar = layout(Storage::Contiguous { address: 8 }, &[], 4);
        let blocks = scalar.row_blocks(&[], &Limits::default()).unwrap();
        assert_eq!(blocks.len(), 1);
        assert_eq!((blocks[0].encoded_size, &blocks[0].place), (4, &Place::Run { address: 8 }));
        assert!(scalar.row_blocks(&[3, 0], &Limits::default()).unwrap().is_empty());
    }

    #[test]
    fn records_are_gathered_and_long_ones_cut() {
        let records = layout(Storage::Records { begin: 100, stride: 24 }, &[3, 2], 4);
        let blocks = records.row_blocks(&[3, 2], &Limits::default()).unwrap();
        assert_eq!(blocks[0].place, Place::Records { address: 100, stride: 24, count: 3, bytes: 8 });
        let long = layout(Storage::Records { begin: 100, stride: 16 << 20 }, &[2, 2 << 20], 4);
        let blocks = long.row_blocks(&[2, 2 << 20], &Limits::default()).unwrap();
        assert_eq!(blocks.len(), 4);
        assert_eq!(blocks[3].place, Place::Run { address: 100 + (16 << 20) + (4 << 20) });
    }

    #[test]
    fn stale_chunks_are_dropped_and_unwritten_ones_filled() {
        let entry =
            |offsets: &[u64], address, size| ChunkEntry { address, size, filter_mask: 0, offsets: offsets.to_vec() };
        let chunked = layout(Storage::Absent, &[5], 2);
        let entries = vec![entry(&[4], 900, 0), entry(&[8], 700, 3), entry(&[0], 500, 3)];
        let blocks = chunked.chunk_blocks(&[7], &[4], entries, &Limits::default()).unwrap();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].encoded_size, blocks[1].encoded_size), (3, 8));
        assert_eq!((blocks[1].region_shape[0], blocks[1].decoded_shape[0]), (3, 4));
        let twice = vec![entry(&[0], 1, 1), entry(&[0], 2, 1)];
        assert!(chunked.chunk_blocks(&[7], &[4], twice, &Limits::default()).is_err());
        assert!(chunked.chunk_blocks(&[7], &[4], vec![entry(&[2], 1, 1)], &Limits::default()).is_err());
        assert!(chunked.chunk_blocks(&[1 << 40], &[1], vec![], &Limits::default()).is_err());
    }

    proptest! {
        #[test]
        fn row_boxes_tile_the_shape_in_order(shape in prop::collection::vec(1_u64..40, 0..4), size in 1_u64..2_000_000) {
            let boxes = row_boxes(&shape, size, &Limits::default()).unwrap();
            let mut next = 0;
            for (start, region) in boxes {
                let offset = start.iter().zip(&shape).fold(0, |offset, (index, length)| offset * length + index);
                prop_assert_eq!(offset, next);
                let count: u64 = region.iter().product();
                prop_assert!(count == 1 || count * size <= TARGET);
                next += count;
            }
            prop_assert_eq!(next, shape.iter().product::<u64>());
        }
    }
}
