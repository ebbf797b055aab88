//! Element types of Zarr arrays as regraft moves them: little-endian fixed-size elements, or strings.

use serde::{Deserialize, Serialize};

/// The type of one element **in memory**, always little-endian; a big-endian array is swapped by its codec.
///
/// Sources: Zarr v3 core data types; NumPy array-protocol type strings for v2 (`|S5`, `<U5`, `<M8[ns]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum DataType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float16,
    Float32,
    Float64,
    /// `datetime64[unit]`, 64-bit.
    DateTime(TimeUnit),
    /// `timedelta64[unit]`, 64-bit.
    TimeDelta(TimeUnit),
    /// Fixed-length bytes, padded with NUL: NumPy `|S<length>`, v3 `null_terminated_bytes`.
    FixedBytes {
        length: u32,
    },
    /// Fixed-length UTF-32 (four bytes a character, little-endian): NumPy `<U<length>`, v3 `fixed_length_utf32`.
    FixedUtf32 {
        length: u32,
    },
    /// Variable-length UTF-8: v3 `string`, v2 `|O` with filter `vlen-utf8`. No fixed size.
    String,
}

/// The unit of `datetime64` and `timedelta64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum TimeUnit {
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
}

impl DataType {
    /// Bytes of one element, `None` for variable-length strings.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        Some(match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 | Self::Float16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 | Self::DateTime(_) | Self::TimeDelta(_) => 8,
            Self::FixedBytes { length } => length as usize,
            Self::FixedUtf32 { length } => length as usize * 4,
            Self::String => return None,
        })
    }

    /// The size of the unit that byte order applies to (1 where it does not apply).
    #[must_use]
    pub fn swap_size(self) -> usize {
        match self {
            Self::FixedBytes { .. } | Self::String => 1,
            Self::FixedUtf32 { .. } => 4,
            other => other.size().unwrap_or(1),
        }
    }
}
