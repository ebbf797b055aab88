//! Variable-length strings, numcodecs `vlen-utf8`: a count, then each string as its length and its bytes, all lengths
//! four bytes little-endian.

use crate::error::{Error, Result};

/// Encodes `strings`.
pub(super) fn encode(strings: &[String], output: &mut Vec<u8>) -> Result<()> {
    let length = |length: usize| {
        i32::try_from(length).map_err(|_| Error::invalid(format!("`{length}` is more than `vlen-utf8` can count")))
    };
    output.clear();
    output.reserve(4 + strings.iter().map(|string| 4 + string.len()).sum::<usize>());
    output.extend_from_slice(&length(strings.len())?.to_le_bytes());
    for string in strings {
        output.extend_from_slice(&length(string.len())?.to_le_bytes());
        output.extend_from_slice(string.as_bytes());
    }
    Ok(())
}

/// Decodes exactly `count` strings.
pub(super) fn decode(input: &[u8], count: usize) -> Result<Vec<String>> {
    let mut rest = input;
    let stated = take_length(&mut rest)?;
    // Each string takes four bytes at least: no allocation that the input does not pay for.
    if stated != count || rest.len() / 4 < count {
        return Err(Error::corrupt(format!("expected `{count}` strings, found `{stated}` in `{}` bytes", input.len())));
    }
    let mut strings = Vec::with_capacity(count);
    for _ in 0..count {
        let length = take_length(&mut rest)?;
        let (bytes, after) = rest.split_at_checked(length).ok_or_else(truncated)?;
        rest = after;
        let string = std::str::from_utf8(bytes)
            .map_err(|error| Error::corrupt(format!("string `{}` is not UTF-8: {error}", strings.len())))?;
        strings.push(string.to_owned());
    }
    if rest.is_empty() {
        Ok(strings)
    } else {
        Err(Error::corrupt(format!("`{}` bytes follow the last string", rest.len())))
    }
}

fn take_length(rest: &mut &[u8]) -> Result<usize> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    *rest = after;
    Ok(u32::from_le_bytes(*bytes) as usize)
}

fn truncated() -> Error {
    Error::corrupt("the strings of a chunk end early")
}
