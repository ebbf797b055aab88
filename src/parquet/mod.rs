//! Parquet files: footers, layouts, and columns in and out. The only place that knows `parquet` and `arrow`.
//!
//! # Problem
//! A data set of thousands of plain Parquet objects gains computed columns, loses, renames or casts some. Everything else in the
//! files is right already: decoding and encoding it again costs CPU, bytes over the wire, and whatever the rewriting
//! library does not know of.
//!
//! # Design
//! ```text
//!   last bytes of the object ──► file: footer as a tree (thrift) ── agreement: the crate reads the same
//!            │                      │
//!   columns' bytes ──► read ──► (the step computes) ──► encode: new chunks as a little file (encoded)
//!            │                      │
//!            │           change: which columns stay, go, come ──► layout: widened or contiguous
//!            │                      │
//!            └──────────► rewrite: place (bytes) + edited (footer) + key_values ──► pieces: copy | new bytes ──► checks
//!                                   │
//!                              verify: old footer against new footer, and which bytes must be equal
//! ```
//! * **Pure.** Nothing here does I/O: who calls fetches the ranges it is told and puts the pieces that it gets.
//! * **The footer is edited as a generic tree**, so fields of tomorrow, column key-values and encoding statistics survive,
//!   and a round trip is byte-identical.
//! * **A row group has no physical structure** (glossary of apache/parquet-format): a column chunk may lie anywhere in the
//!   file. New chunks follow the whole old file ([`Layout::Widened`]), or stand between copied ones
//!   ([`Layout::Contiguous`]); which, and the rule that one reader makes necessary, is told in [`decide`]'s module.
//! * **Two opinions**: each footer, read or made, is parsed by this module and by the crate, and both must agree.
//!
//! # Alternatives considered
//! * The writer of the `parquet` crate (`ParquetMetaDataWriter`, `append_column`): its offsets count from 0 and cannot be
//!   seeded; it drops column key-values and unknown fields, writes column orders where there were none (readers then begin to
//!   trust statistics), and its own `created_by` (readers then forget their workarounds for the old chunks).
//! * parquet-java's `ParquetRewriter`, DuckDB's `COPY`, fastparquet: decode, or lose types, indexes and bloom filters.
//! * Overwriting the old footer in place: a few bytes less, and no old file as a prefix to roll back to.
//!
//! # Caveats
//! * Refused: encrypted files, `_metadata` sidecars, footers that contradict themselves (also only in their row counts).
//! * Chunks are copied unread: damage inside of pages is carried along, and found by who decodes them.
//! * `iceberg.schema` and what else repeats the schema under keys that [`File`] does not know stays as it was.
//!
//! # Testing
//! Properties: any change of columns of any kind, twice, in any layout, is read back by the crate, with page indexes and
//! bloom filters (`rewrite/tests.rs`). Every file of parquet-testing is migrated and read as before, or refused, and
//! mutants of all footers end in an answer (`tests/rust/parquet_footer.rs`, `tests/rust/parquet_layouts.rs`).
//! Other readers: `tests/python`.

mod agreement;
mod change;
pub mod columns;
mod edited;
pub mod encode;
pub mod encoded;
pub mod fields;
pub mod file;
pub mod indexes;
mod key_values;
mod layout;
mod place;
mod ranges;
pub mod read;
mod rewrite;
#[cfg(test)]
mod samples;
pub mod table;
pub mod thrift;
pub mod verify;

pub use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
pub use arrow_schema::{DataType, Field, Schema, SchemaRef};
pub use change::{Add, Change};
pub use columns::{Chunk, Column, Root};
pub use encoded::{EncodedChunk, EncodedColumns};
pub use file::{FIRST_READ, File, Parsed, TAIL};
pub use layout::{Decision, Layout, decide};
pub use ranges::{Ranges, merged};
pub use rewrite::rewrite;
