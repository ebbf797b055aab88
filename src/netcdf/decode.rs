//! From stored bytes to elements: HDF5 filters undone with libdeflate, fill values, padding, byte order.
//!
//! The pipeline that netCDF-C and h5py write for compressed data (shuffle, deflate, fletcher32, in this order) is decoded
//! here: no allocation besides the result, output bounded to exactly the chunk. Every other pipeline (szip, lz4, n-bit,
//! scale-offset, unusual orders) goes through `hdf5-reader`'s filters, which are bounded too.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hdf5_reader::FilterRegistry;
use hdf5_reader::filters::apply_pipeline_with_limit;
use hdf5_reader::messages::filter_pipeline::FilterDescription;
use libdeflater::Decompressor;
use serde_json::Value;

use super::c_library::advised;
use super::shuffle::unshuffle;
use crate::error::{Error, Result};

const DEFLATE: u16 = 1;
const SHUFFLE: u16 = 2;
const FLETCHER32: u16 = 3;
/// What else `hdf5-reader` undoes: szip, n-bit, scale-offset, lz4.
const OTHERS: [u16; 4] = [4, 5, 6, 32004];

/// The filters of a chunked variable, in order of encoding.
#[derive(Debug, Clone)]
pub(crate) struct Pipeline {
    filters: Vec<FilterDescription>,
    /// Positions of the common pipeline's filters; `None` where the pipeline is another one.
    common: Option<Common>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Common {
    shuffle: Option<usize>,
    deflate: Option<usize>,
    fletcher32: Option<usize>,
}

struct Scratch {
    decompressor: Decompressor,
    inflated: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { decompressor: Decompressor::new(), inflated: Vec::new() });
}

impl Pipeline {
    pub(crate) fn new(filters: Vec<FilterDescription>) -> Self {
        let mut common = Some(Common::default());
        for (position, filter) in filters.iter().enumerate() {
            common = common.and_then(|mut common| {
                let after_deflate = common.deflate.is_some() || common.fletcher32.is_some();
                let slot = match filter.id {
                    SHUFFLE if !after_deflate => &mut common.shuffle,
                    DEFLATE if common.fletcher32.is_none() => &mut common.deflate,
                    FLETCHER32 => &mut common.fletcher32,
                    _ => return None,
                };
                slot.replace(position).is_none().then_some(common)
            });
        }
        Self { filters, common }
    }

    /// Whether there is a filter that is not known here.
    pub(crate) fn has_unknown(&self) -> bool {
        self.common.is_none()
            && self.filters.iter().any(|filter| filter.id > FLETCHER32 && !OTHERS.contains(&filter.id))
    }

    /// The encoding as numcodecs configurations, where chunks may be copied as they are (a checksum is stripped).
    pub(crate) fn encoding(&self, element_size: usize) -> Option<Vec<Value>> {
        let common = self.common?;
        let mut codecs = Vec::new();
        if let Some(position) = common.shuffle {
            if self.filters[position].client_data.first().is_some_and(|&size| size as usize != element_size) {
                return None;
            }
            codecs.push(codec("shuffle", "elementsize", element_size as u64));
        }
        if let Some(position) = common.deflate {
            let level = self.filters[position].client_data.first().copied().filter(|level| *level <= 9)?;
            codecs.push(codec("zlib", "level", u64::from(level)));
        } else if common.shuffle.is_some() {
            return None;
        }
        Some(codecs)
    }

    /// The encoded bytes without their checksum, verified; `None` where a filter was left out of this chunk, or the
    /// stream cannot be one of zlib's.
    pub(crate) fn without_checksum<'a>(&self, encoded: &'a [u8], filter_mask: u32) -> Result<Option<&'a [u8]>> {
        let Some(common) = self.common.filter(|_| filter_mask == 0) else {
            return Ok(None);
        };
        let payload = if common.fletcher32.is_some() { verified(encoded)? } else { encoded };
        // RFC 1950: method 8, and the first two bytes are a multiple of 31.
        let zlib = |bytes: &[u8]| {
            bytes.len() > 6 && bytes[0] & 15 == 8 && u16::from_be_bytes([bytes[0], bytes[1]]).is_multiple_of(31)
        };
        Ok((common.deflate.is_none() || zlib(payload)).then_some(payload))
    }

    /// Undoes the filters of one chunk into `output`, exactly `size` bytes.
    pub(crate) fn decode(
        &self,
        encoded: &[u8],
        filter_mask: u32,
        element_size: usize,
        size: usize,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        let active = |position: Option<usize>| position.is_some_and(|position| filter_mask & (1 << position) == 0);
        let Some(common) = self.common else {
            return self.decode_uncommon(encoded, filter_mask, element_size, size, output);
        };
        let encoded = if active(common.fletcher32) { verified(encoded)? } else { encoded };
        let shuffled = active(common.shuffle) && element_size > 1;
        SCRATCH.with_borrow_mut(|Scratch { decompressor, inflated }| {
            let data: &[u8] = if active(common.deflate) {
                let target = if shuffled { &mut *inflated } else { &mut *output };
                target.resize(size, 0);
                let written = decompressor
                    .zlib_decompress(encoded, target)
                    .map_err(|error| Error::corrupt(format!("a chunk does not inflate to `{size}` bytes: {error}")))?;
                if written != size {
                    return Err(wrong_size(size, written));
                }
                if !shuffled {
                    return Ok(());
                }
                inflated
            } else if encoded.len() == size {
                encoded
            } else {
                return Err(wrong_size(size, encoded.len()));
            };
            if shuffled {
                output.resize(size, 0);
                unshuffle(data, element_size, output);
            } else {
                output.clear();
                output.extend_from_slice(data);
            }
            Ok(())
        })
    }

    fn decode_uncommon(
        &self,
        encoded: &[u8],
        filter_mask: u32,
        element_size: usize,
        size: usize,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        let registry = FilterRegistry::new();
        let decoded = guarded(|| {
            apply_pipeline_with_limit(
                encoded,
                &self.filters,
                filter_mask,
                element_size,
                Some(&registry),
                Some(size.saturating_add(1)),
            )
        })?;
        if decoded.len() != size {
            return Err(wrong_size(size, decoded.len()));
        }
        *output = decoded;
        Ok(())
    }
}

/// A numcodecs configuration.
fn codec(id: &str, setting: &str, value: u64) -> Value {
    Value::from_iter([("id", Value::from(id)), (setting, Value::from(value))])
}

fn wrong_size(expected: usize, found: usize) -> Error {
    Error::corrupt(format!("expected a chunk of `{expected}` bytes, found `{found}`"))
}

/// The payload in front of its fletcher32 checksum.
fn verified(encoded: &[u8]) -> Result<&[u8]> {
    let (payload, stored) =
        encoded.split_last_chunk::<4>().ok_or_else(|| Error::corrupt("a chunk is too short for its checksum"))?;
    let stored = u32::from_le_bytes(*stored);
    let computed = hdf5_reader::checksum::fletcher32(payload);
    // HDF5 before 1.6.3 stored the halves of the sum with swapped bytes; libhdf5 accepts both.
    let swapped = (computed & 0x00ff_00ff) << 8 | (computed >> 8) & 0x00ff_00ff;
    if stored == computed || stored == swapped {
        return Ok(payload);
    }
    Err(Error::corrupt(format!("expected checksum `{stored:#010x}` of a chunk, found `{computed:#010x}`"))
        .hint("the file is damaged: fetch it again"))
}

/// Runs code of the reader crate: its errors become ours, and a panic, should one be left, becomes `Corrupt`.
pub(crate) fn guarded<T>(run: impl FnOnce() -> hdf5_reader::error::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| translated(&error)),
        Err(_) => Err(Error::corrupt("the HDF5 structure is damaged beyond what the reader can tell")),
    }
}

fn translated(error: &hdf5_reader::error::Error) -> Error {
    use hdf5_reader::error::Error as Reader;
    match error {
        Reader::Context { path, source } => translated(source).context(format!("`{path}`")),
        Reader::UnsupportedLayoutClass(3) => advised(
            Error::invalid("virtual data sets are not read: they reach into other files")
                .hint("add the files that it is made of, or materialise it with `h5repack` or `nccopy`"),
        ),
        Reader::UnsupportedFilter(what) => advised(
            Error::invalid(format!("compression {what} is not supported"))
                .hint("rewrite the file with deflate: `nccopy -d 4 -s`"),
        ),
        Reader::ResourceLimit(what) => Error::invalid(what.clone()),
        Reader::UnexpectedEof { offset, needed, available } => Error::corrupt(format!(
            "expected `{needed}` bytes at offset `{offset}`, found `{available}` before the end of the file"
        ))
        .hint("the file is truncated or damaged: fetch it again"),
        other => {
            let text = other.to_string();
            if text.starts_with("unsupported") { advised(Error::invalid(text)) } else { Error::corrupt(text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use libdeflater::{CompressionLvl, Compressor};
    use serde_json::json;

    use super::*;
    use crate::error::Kind;

    fn filter(id: u16, client_data: &[u32]) -> FilterDescription {
        FilterDescription { id, name: None, client_data: client_data.to_vec() }
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut output = vec![0; compressor.zlib_compress_bound(bytes.len())];
        let size = compressor.zlib_compress(bytes, &mut output).unwrap();
        output.truncate(size);
        output
    }

    #[test]
    fn decodes_the_common_pipeline_by_mask_and_strips_the_checksum() {
        let pipeline = Pipeline::new(vec![filter(SHUFFLE, &[2]), filter(DEFLATE, &[4]), filter(FLETCHER32, &[])]);
        let mut encoded = deflated(b"acbd");
        let payload = encoded.clone();
        encoded.extend_from_slice(&hdf5_reader::checksum::fletcher32(&payload).to_le_bytes());
        let mut output = Vec::new();
        pipeline.decode(&encoded, 0, 2, 4, &mut output).unwrap();
        assert_eq!(output, b"abcd");
        assert_eq!(pipeline.without_checksum(&encoded, 0).unwrap().unwrap(), payload);
        assert_eq!(pipeline.without_checksum(&encoded, 2).unwrap(), None);
        pipeline.decode(b"abcd", 7, 2, 4, &mut output).unwrap();
        assert_eq!(output, b"abcd");
        encoded[3] ^= 1;
        assert_eq!(pipeline.decode(&encoded, 0, 2, 4, &mut output).unwrap_err().kind(), Kind::Corrupt);
        let codecs = pipeline.encoding(2).unwrap();
        assert_eq!(codecs, [json!({"id": "shuffle", "elementsize": 2}), json!({"id": "zlib", "level": 4})]);
    }

    #[test]
    fn output_is_bounded_to_exactly_the_chunk() {
        let pipeline = Pipeline::new(vec![filter(DEFLATE, &[4])]);
        let bomb = deflated(&vec![0; 1 << 20]);
        let mut output = Vec::new();
        for size in [10, (1 << 20) - 1, (1 << 20) + 1] {
            assert_eq!(pipeline.decode(&bomb, 0, 1, size, &mut output).unwrap_err().kind(), Kind::Corrupt);
        }
        pipeline.decode(&bomb, 0, 1, 1 << 20, &mut output).unwrap();
    }

    #[cfg(not(feature = "netcdf-c"))]
    #[test]
    fn a_refusal_names_the_feature_that_reads_it() {
        let error = translated(&hdf5_reader::error::Error::UnsupportedLayoutClass(3));
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(
            error
                .hint_text()
                .unwrap()
                .ends_with("or build with the feature `netcdf-c` to read it through the C library")
        );
    }

    #[test]
    fn unusual_pipelines_take_the_general_way() {
        let pipeline = Pipeline::new(vec![filter(DEFLATE, &[4]), filter(SHUFFLE, &[1])]);
        assert_eq!(pipeline.common, None);
        assert_eq!(pipeline.encoding(1), None);
        let mut output = Vec::new();
        pipeline.decode(&deflated(b"abcd"), 0, 1, 4, &mut output).unwrap();
        assert_eq!(output, b"abcd");
        let unknown = Pipeline::new(vec![filter(32001, &[])]);
        assert_eq!(unknown.decode(b"abcd", 0, 1, 4, &mut output).unwrap_err().kind(), Kind::Invalid);
        assert!(unknown.has_unknown() && !pipeline.has_unknown());
    }
}
