//! Parquet files: footers, layouts, and columns in and out. The only place that knows `parquet` and `arrow`.

pub mod encoded;
mod ranges;

pub use arrow_array::{ArrayRef, RecordBatch};
pub use arrow_schema::{DataType, Field, Schema, SchemaRef};
pub use encoded::{EncodedChunk, EncodedColumns};
pub use ranges::Ranges;
