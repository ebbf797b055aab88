//! The delta filter of numcodecs: the first element, then differences, wrapping as NumPy's integers do.
//!
//! `zarrs` has no such filter, and stores of early zarr use it for time and counts. Integers may be stored in a
//! narrower type (`astype`); floats only in their own.

use crate::error::{Error, Result};

/// A numeric type of at most eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// `i`, `u` or `f`.
    pub(super) letter: char,
    /// Bytes of one element.
    pub(super) size: usize,
    /// Byte order.
    pub(super) big_endian: bool,
}

/// The types of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delta {
    /// What is encoded.
    pub(super) decoded: Kind,
    /// What is stored.
    pub(super) encoded: Kind,
}

impl Delta {
    /// Elements to differences.
    pub(super) fn encode(self, input: &[u8], output: &mut Vec<u8>) -> Result<()> {
        self.convert(input, output, self.decoded, self.encoded, true)
    }

    /// Differences to elements.
    pub(super) fn decode(self, input: &[u8], output: &mut Vec<u8>) -> Result<()> {
        self.convert(input, output, self.encoded, self.decoded, false)
    }

    fn convert(self, input: &[u8], output: &mut Vec<u8>, from: Kind, to: Kind, encoding: bool) -> Result<()> {
        if !input.len().is_multiple_of(from.size) {
            return Err(Error::corrupt(format!(
                "delta: `{}` bytes are no whole number of elements of `{}`",
                input.len(),
                from.size
            )));
        }
        output.clear();
        output.reserve(input.len() / from.size * to.size);
        match (self.decoded.letter, self.decoded.size) {
            ('f', 4) => {
                let mut previous = 0f32;
                for element in input.chunks_exact(4) {
                    let value = f32::from_bits(from.load(element) as u32);
                    let stored = match (output.is_empty(), encoding) {
                        (true, _) => value,
                        (false, true) => value - previous,
                        (false, false) => value + previous,
                    };
                    previous = if encoding { value } else { stored };
                    to.store(u64::from(stored.to_bits()), output);
                }
            }
            ('f', _) => {
                let mut previous = 0f64;
                for element in input.chunks_exact(8) {
                    let value = f64::from_bits(from.load(element));
                    let stored = match (output.is_empty(), encoding) {
                        (true, _) => value,
                        (false, true) => value - previous,
                        (false, false) => value + previous,
                    };
                    previous = if encoding { value } else { stored };
                    to.store(stored.to_bits(), output);
                }
            }
            _ => {
                let mut previous = 0u64;
                for element in input.chunks_exact(from.size) {
                    let value = from.load(element);
                    let stored = if encoding { value.wrapping_sub(previous) } else { value.wrapping_add(previous) };
                    previous = if encoding { value } else { stored };
                    to.store(stored, output);
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    /// One element, sign- or zero-extended.
    fn load(self, element: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        bytes[..element.len()].copy_from_slice(element);
        if self.big_endian {
            bytes[..element.len()].reverse();
        }
        let value = u64::from_le_bytes(bytes);
        let unused = 64 - 8 * element.len() as u32;
        if self.letter == 'i' { (((value << unused) as i64) >> unused) as u64 } else { value }
    }

    /// The low bytes of one element.
    fn store(self, value: u64, output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(&value.to_le_bytes()[..self.size]);
        if self.big_endian {
            output[start..].reverse();
        }
    }
}
