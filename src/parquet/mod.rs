//! Parquet files: footers, layouts, and columns in and out. The only place that knows `parquet` and `arrow`.

mod agreement;
pub mod columns;
pub mod encode;
pub mod encoded;
pub mod fields;
pub mod file;
mod ranges;
pub mod read;
#[cfg(test)]
mod samples;
pub mod table;
pub mod thrift;

pub use arrow_array::{ArrayRef, RecordBatch};
pub use arrow_schema::{DataType, Field, Schema, SchemaRef};
pub use columns::{Chunk, Column, Root};
pub use encoded::{EncodedChunk, EncodedColumns};
pub use file::{File, Parsed};
pub use ranges::Ranges;
