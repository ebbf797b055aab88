//! Parquet files: footers, layouts, and columns in and out. The only place that knows `parquet` and `arrow`.

mod agreement;
mod change;
pub mod columns;
mod edited;
pub mod encode;
pub mod encoded;
pub mod fields;
pub mod file;
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
pub use ranges::Ranges;
pub use rewrite::rewrite;
