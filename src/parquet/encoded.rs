//! New columns, encoded and ready to be placed into a file.
//!
//! # Problem
//! The footer of the rewritten file needs everything about a new column that its encoder knew: schema elements, encodings
//! and their counts, statistics, size statistics, sort order. What differs is only where its bytes come to lie, and that is
//! not known while they are encoded.
//!
//! # Design
//! The new columns are encoded as a Parquet file of their own (in memory, never stored), whose footer says all of that
//! in Thrift already. A layout takes the pieces of that little file apart: [`EncodedChunk::bytes`] go where the layout wants
//! them, and every offset in the metadata moves by the same distance, new place less [`EncodedChunk::start`].
//!
//! # Alternatives considered
//! Describing a chunk in structs of ours would drop whatever the structs do not name; `ArrowColumnChunk` of the `parquet`
//! crate does not give its bytes except through a writer.

use arrow_schema::Field;
use bytes::Bytes;

/// The new columns of a file: as many row groups as the source has, each with the leaves of all new fields.
#[derive(Debug, Clone)]
pub struct EncodedColumns {
    /// The new top-level columns, in the order in which their leaves follow each other.
    pub fields: Vec<Field>,
    /// Thrift-compact `FileMetaData` of the file that holds these columns alone.
    ///
    /// `schema[1..]` are the schema elements of the new fields, depth first; `column_orders` those of its leaves;
    /// `row_groups[g].columns[l]` is the `ColumnChunk` of `self.row_groups[g][l]`. Its offsets (`data_page_offset`,
    /// `dictionary_page_offset`) count from the start of that file, like [`EncodedChunk::start`]; its
    /// `bloom_filter_offset`, `column_index_offset` and `offset_index_offset` mean nothing outside of it (their
    /// lengths are right).
    pub footer: Bytes,
    /// `[row group][leaf]`.
    pub row_groups: Vec<Vec<EncodedChunk>>,
}

/// One column chunk: its pages and what belongs to them.
#[derive(Debug, Clone)]
pub struct EncodedChunk {
    /// Dictionary page (where there is one) and data pages.
    pub bytes: Bytes,
    /// The offset that the metadata gives to the first of `bytes`.
    pub start: u64,
    /// The bloom filter with its header, as it stands in a file; where asked for.
    pub bloom_filter: Option<Bytes>,
    /// Thrift-compact `ColumnIndex`; it holds no offsets. Where asked for.
    pub column_index: Option<Bytes>,
    /// Thrift-compact `OffsetIndex`; `page_locations[].offset` count like `start`. Where asked for.
    pub offset_index: Option<Bytes>,
}

impl EncodedColumns {
    /// Bytes of all pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.row_groups.iter().flatten().map(|chunk| chunk.bytes.len() as u64).sum()
    }
}
