//! From fetched bytes to elements in their place: fill values, padding, byte order, rows.

use bytes::Bytes;

use super::block::{Block, Layout, Place, Storage, byte_count};
use super::byte_order;
use crate::error::{Error, Result};

impl Layout {
    /// Decodes the fetched bytes of a block of a variable of `shape`.
    pub(crate) fn decoded(&self, shape: &[u64], block: &Block, encoded: &Bytes, recycled: Vec<u8>) -> Result<Vec<u8>> {
        let mut output = recycled;
        let size = byte_count(&block.decoded_shape, self.element_size as u64)? as usize;
        match (&block.place, &self.storage) {
            (Place::Missing, _) => {
                output.clear();
                repeat(&self.fill, size, &mut output);
            }
            (Place::Chunk { filter_mask, .. }, Storage::Chunks { pipeline, .. }) => {
                pipeline.decode(encoded, *filter_mask, self.element_size, size, &mut output)?;
            }
            _ => {
                if encoded.len() != size {
                    return Err(Error::corrupt(format!("expected `{size}` bytes, found `{}`", encoded.len())));
                }
                output.clear();
                output.extend_from_slice(encoded);
            }
        }
        if block.place == Place::Library {
            return Ok(output);
        }
        if self.big_endian && block.place != Place::Missing {
            byte_order::swap(&mut output, self.element_size);
        }
        if self.extent != shape {
            self.pad(block, &mut output);
        }
        Ok(output)
    }

    /// Overwrites what lies beyond the stored extent: chunks may hold old bytes there.
    fn pad(&self, block: &Block, elements: &mut [u8]) {
        let last = |dimension: usize| block.region_start[dimension] + block.decoded_shape[dimension];
        if (0..self.extent.len()).all(|dimension| last(dimension) <= self.extent[dimension]) {
            return;
        }
        let mut index = block.region_start.clone();
        for element in elements.chunks_exact_mut(self.element_size) {
            if index.iter().zip(&self.extent).any(|(index, extent)| index >= extent) {
                element.copy_from_slice(&self.padding);
            }
            for dimension in (0..index.len()).rev() {
                index[dimension] += 1;
                if index[dimension] < last(dimension) {
                    break;
                }
                index[dimension] = block.region_start[dimension];
            }
        }
    }
}

/// `size` bytes of `element` after another.
fn repeat(element: &[u8], size: usize, output: &mut Vec<u8>) {
    match element {
        [] => {}
        _ if element.iter().all(|byte| *byte == element[0]) => output.resize(size, element[0]),
        _ => {
            output.reserve_exact(size);
            output.extend_from_slice(element);
            while output.len() < size {
                let more = output.len().min(size - output.len());
                output.extend_from_within(..more);
            }
        }
    }
}

/// Copies the rows of a decoded block to their place in the whole variable.
pub(crate) fn place_block(block: &Block, decoded: &[u8], shape: &[u64], element_size: usize, whole: &mut [u8]) {
    let Some((&row, outer)) = block.region_shape.split_last() else {
        whole.copy_from_slice(decoded);
        return;
    };
    let row_bytes = row as usize * element_size;
    let mut index = vec![0_u64; outer.len()];
    for _ in 0..outer.iter().product::<u64>() {
        let mut source = 0;
        let mut target = 0;
        for (dimension, position) in index.iter().chain([&0]).enumerate() {
            source = source * block.decoded_shape[dimension] + position;
            target = target * shape[dimension] + block.region_start[dimension] + position;
        }
        let (source, target) = (source as usize * element_size, target as usize * element_size);
        whole[target..target + row_bytes].copy_from_slice(&decoded[source..source + row_bytes]);
        for dimension in (0..index.len()).rev() {
            index[dimension] += 1;
            if index[dimension] < outer[dimension] {
                break;
            }
            index[dimension] = 0;
        }
    }
}

/// The text of a stored string: up to the first NUL, or without what pads it.
pub(crate) fn without_padding(bytes: &[u8], padding: Option<u8>) -> Vec<u8> {
    let end = match padding {
        // netCDF-C hands out C strings, whatever pads them.
        None | Some(0) => bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()),
        Some(padding) => bytes.iter().rposition(|&byte| byte != padding).map_or(0, |last| last + 1),
    };
    bytes[..end].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(start: &[u64], region: &[u64], decoded: &[u64]) -> Block {
        Block {
            region_start: start.to_vec(),
            region_shape: region.to_vec(),
            decoded_shape: decoded.to_vec(),
            encoded_size: 0,
            place: Place::Missing,
        }
    }

    #[test]
    fn edge_chunks_are_clipped_on_their_way_to_the_whole() {
        let mut whole = vec![0; 3 * 5];
        place_block(&block(&[2, 3], &[1, 2], &[2, 3]), b"abcdef", &[3, 5], 1, &mut whole);
        assert_eq!(&whole[13..], b"ab");
        assert_eq!(whole[..13], [0; 13]);
        let mut scalar = vec![0; 2];
        place_block(&block(&[], &[], &[]), b"xy", &[], 2, &mut scalar);
        assert_eq!(scalar, b"xy");
    }

    #[test]
    fn unwritten_elements_are_filled_and_those_beyond_the_extent_padded() {
        let layout = Layout {
            element_size: 2,
            big_endian: true,
            text: None,
            extent: vec![3],
            fill: b"fi".to_vec(),
            padding: b"pa".to_vec(),
            storage: Storage::Absent,
        };
        let output = layout.decoded(&[6], &block(&[0], &[6], &[6]), &Bytes::new(), vec![9; 40]).unwrap();
        assert_eq!(output, b"fififipapapa");
        let output = layout.decoded(&[3], &block(&[0], &[2], &[2]), &Bytes::new(), Vec::new()).unwrap();
        assert_eq!(output, b"fifi");
        let run = Block { place: Place::Run { address: 0 }, ..block(&[0], &[2], &[2]) };
        assert_eq!(layout.decoded(&[3], &run, &Bytes::from_static(b"abcd"), Vec::new()).unwrap(), b"badc");
        assert!(layout.decoded(&[3], &run, &Bytes::from_static(b"abc"), Vec::new()).is_err());
    }

    #[test]
    fn text_loses_its_padding() {
        assert_eq!(without_padding(b"ab\0\0", Some(0)), b"ab");
        assert_eq!(without_padding(b"a b  ", Some(b' ')), b"a b");
        assert_eq!(without_padding(b"ab\0c", None), b"ab");
    }
}
