//! Zstandard, with one context a thread.
//!
//! The crate underneath is called directly: a context costs a few hundred kilobytes to make, and a chunk is decoded
//! straight into the buffer that the caller recycles.

use std::cell::RefCell;

use zstd_safe::{CCtx, CParameter, DCtx, ResetDirective};

use super::stage::{Size, decode_growing};
use crate::error::{Error, Result};

thread_local! {
    static COMPRESSION: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
    static DECOMPRESSION: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

fn failed(what: &str, code: usize) -> Error {
    Error::internal(format!("zstd {what}: {}", zstd_safe::get_error_name(code)))
}

/// Compresses `input` into one frame that knows its content size.
pub(super) fn encode(input: &[u8], level: i32, checksum: bool, output: &mut Vec<u8>) -> Result<()> {
    COMPRESSION.with_borrow_mut(|context| {
        let set = |context: &mut CCtx<'static>, parameter| {
            context.set_parameter(parameter).map_err(|code| failed("parameter", code))
        };
        context.reset(ResetDirective::SessionAndParameters).map_err(|code| failed("reset", code))?;
        set(context, CParameter::CompressionLevel(level))?;
        set(context, CParameter::ChecksumFlag(checksum))?;
        output.clear();
        output.reserve(zstd_safe::compress_bound(input.len()));
        context.compress2(output, input).map_err(|code| failed("compression", code))?;
        Ok(())
    })
}

/// Decompresses `input`, all its frames, into at most `size` bytes.
pub(super) fn decode(input: &[u8], size: Size, output: &mut Vec<u8>) -> Result<()> {
    DECOMPRESSION.with_borrow_mut(|context| {
        let stated = zstd_safe::get_frame_content_size(input)
            .map_err(|_| Error::corrupt("the bytes do not begin with a zstd frame"))?;
        decode_growing(input.len(), stated, size, output, |output| match context.decompress(output, input) {
            Ok(_) => Ok(true),
            Err(code) => {
                let name = zstd_safe::get_error_name(code);
                if name == "Destination buffer is too small" {
                    Ok(false)
                } else {
                    Err(Error::corrupt(format!("zstd: {}", name.to_lowercase())))
                }
            }
        })
    })
}
