//! Zlib and gzip through libdeflate, which decodes two to three times faster than zlib; contexts are kept by thread.

use std::cell::RefCell;

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

use super::stage::{Size, decode_growing};
use crate::error::{Error, Result};

/// What is around a deflate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// RFC 1950.
    Zlib,
    /// RFC 1952; without name and time, so that the same input gives the same bytes.
    Gzip,
}

thread_local! {
    static COMPRESSION: RefCell<Option<(i32, Compressor)>> = const { RefCell::new(None) };
    static DECOMPRESSION: RefCell<Decompressor> = RefCell::new(Decompressor::new());
}

/// Compresses `input` at `level`, 0 to 9.
pub(super) fn encode(input: &[u8], container: Container, level: i32, output: &mut Vec<u8>) -> Result<()> {
    COMPRESSION.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(kept_level, _)| *kept_level != level) {
            let valid = CompressionLvl::new(level)
                .map_err(|_| Error::invalid(format!("deflate level `{level}` is not between `0` and `9`")))?;
            *kept = Some((level, Compressor::new(valid)));
        }
        let Some((_, compressor)) = kept.as_mut() else {
            return Err(Error::internal("no deflate compressor"));
        };
        let bound = match container {
            Container::Zlib => compressor.zlib_compress_bound(input.len()),
            Container::Gzip => compressor.gzip_compress_bound(input.len()),
        };
        set_length(output, bound);
        let written = match container {
            Container::Zlib => compressor.zlib_compress(input, output),
            Container::Gzip => compressor.gzip_compress(input, output),
        }
        .map_err(|error| Error::internal(format!("deflate: {error}")))?;
        output.truncate(written);
        Ok(())
    })
}

/// Decompresses `input` into at most `size` bytes.
pub(super) fn decode(input: &[u8], container: Container, size: Size, output: &mut Vec<u8>) -> Result<()> {
    DECOMPRESSION.with_borrow_mut(|decompressor| {
        decode_growing(input.len(), None, size, output, |output| {
            // libdeflate writes into initialised memory only.
            set_length(output, output.capacity());
            let answer = match container {
                Container::Zlib => decompressor.zlib_decompress(input, output),
                Container::Gzip => decompressor.gzip_decompress(input, output),
            };
            match answer {
                Ok(written) => {
                    output.truncate(written);
                    Ok(true)
                }
                Err(DecompressionError::InsufficientSpace) => Ok(false),
                Err(DecompressionError::BadData) => {
                    Err(Error::corrupt(format!("the bytes are not a {container:?} stream")))
                }
            }
        })
    })
}

/// Makes `buffer` `length` bytes long; what was there stays, so that a recycled buffer is not written twice.
fn set_length(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() >= length {
        buffer.truncate(length);
    } else {
        buffer.resize(length, 0);
    }
}
