//! Pieces of which an object's new content is made.

use std::ops::Range;

use bytes::Bytes;

/// A piece of an object's new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the object's present content.
    Copy(Range<u64>),
    /// New bytes.
    Bytes(Bytes),
}

impl Piece {
    /// Bytes in the piece.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Copy(range) => range.end.saturating_sub(range.start),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether the piece has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
