//! What one file may cost, checked before anything is allocated for it.

/// Limits of one open file. The defaults fit what real producers write; a file beyond them is refused as `Invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files and objects below this are read whole, in bytes.
    pub whole_file: u64,
    /// Largest decoded block, in bytes.
    pub block: u64,
    /// Largest variable that `read` brings into memory at once, in bytes.
    pub read: u64,
    /// Most blocks of one variable.
    pub blocks: u64,
    /// Largest header: a classic header, or one HDF5 object header, in bytes.
    pub header: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { whole_file: 256 << 20, block: 256 << 20, read: 1 << 30, blocks: 1 << 20, header: 64 << 20 }
    }
}
