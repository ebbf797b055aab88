//! Blosc 1 through the C library, one thread a chunk (chunks are what runs in parallel).
//!
//! A chunk names its own compressor and filter in its header, so decoding needs no configuration.

use std::ffi::CStr;

use blosc_src::{
    BLOSC_MAX_BUFFERSIZE, BLOSC_MAX_OVERHEAD, blosc_cbuffer_validate, blosc_compress_ctx, blosc_decompress_ctx,
};

use super::stage::{Size, wrong_size};
use crate::error::{Error, Result};

/// How Blosc compresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// The compressor inside.
    pub(super) name: &'static CStr,
    /// 0 to 9.
    pub(super) level: i32,
    /// 0 none, 1 bytes, 2 bits, as in the header.
    pub(super) shuffle: i32,
    /// Bytes of one element.
    pub(super) element_size: usize,
    /// Bytes of one block, 0 for Blosc's choice.
    pub(super) block_size: usize,
}

/// The name of a compressor as the C library wants it.
pub(super) fn compressor(name: &str) -> Option<&'static CStr> {
    [c"blosclz", c"lz4", c"lz4hc", c"snappy", c"zlib", c"zstd"]
        .into_iter()
        .find(|known| known.to_bytes() == name.as_bytes())
}

/// Compresses `input`.
pub(super) fn encode(input: &[u8], settings: &Settings, output: &mut Vec<u8>) -> Result<()> {
    if input.len() > BLOSC_MAX_BUFFERSIZE as usize {
        return Err(Error::invalid(format!("a chunk of `{}` bytes is more than blosc can hold", input.len()))
            .hint(format!("choose chunks of at most {BLOSC_MAX_BUFFERSIZE} bytes, or another codec")));
    }
    let bound = input.len() + BLOSC_MAX_OVERHEAD as usize;
    output.clear();
    output.reserve(bound);
    // SAFETY: `output` has room for `bound` bytes, `input` is `input.len()` bytes, the name is NUL-terminated.
    let written = unsafe {
        blosc_compress_ctx(
            settings.level,
            settings.shuffle,
            settings.element_size.max(1),
            input.len(),
            input.as_ptr().cast(),
            output.as_mut_ptr().cast(),
            bound,
            settings.name.as_ptr(),
            settings.block_size,
            1,
        )
    };
    let written = usize::try_from(written)
        .ok()
        .filter(|written| (1..=bound).contains(written))
        .ok_or_else(|| Error::internal(format!("blosc answered `{written}` to {settings:?}")))?;
    // SAFETY: the library wrote `written` bytes, no more than `bound`.
    unsafe { output.set_len(written) };
    Ok(())
}

/// Decompresses `input` into at most `size` bytes.
pub(super) fn decode(input: &[u8], size: Size, output: &mut Vec<u8>) -> Result<()> {
    let mut length = 0usize;
    // SAFETY: `input` is `input.len()` bytes; only its header is looked at.
    let valid = unsafe { blosc_cbuffer_validate(input.as_ptr().cast(), input.len(), &raw mut length) };
    if valid != 0 {
        return Err(Error::corrupt("the bytes are not a whole blosc buffer"));
    }
    if !size.allows(length) {
        return Err(wrong_size(size, length));
    }
    output.clear();
    output.reserve(length);
    if length == 0 {
        return Ok(());
    }
    // SAFETY: the header was validated against the length of `input`; the library writes at most `length` bytes.
    let written = unsafe { blosc_decompress_ctx(input.as_ptr().cast(), output.as_mut_ptr().cast(), length, 1) };
    if usize::try_from(written) != Ok(length) {
        return Err(Error::corrupt(format!("blosc answered `{written}`, expected `{length}` bytes")));
    }
    // SAFETY: the library wrote exactly `length` bytes.
    unsafe { output.set_len(length) };
    Ok(())
}
