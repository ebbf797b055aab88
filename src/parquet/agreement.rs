//! The second opinion: what the `parquet` crate reads from a footer must be what the tree says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};

use super::columns::Described;
use crate::error::{Error, Result};

/// The footer as the crate reads it.
pub(super) fn decode(footer: &[u8]) -> Result<ParquetMetaData> {
    guarded(|| ParquetMetaDataReader::decode_metadata(footer))
        .map_err(|message| Error::corrupt(format!("footer: {message}")))
}

/// Rows, leaves and the bytes of every chunk.
pub(super) fn check(metadata: &ParquetMetaData, described: &Described) -> Result<()> {
    let differ = |what: &str, tree: String, other: String| {
        Err(Error::corrupt(format!("the footer is read in two ways: {what} `{tree}` and `{other}`"))
            .hint("the file is damaged, or its writer is not known yet: report it with the file"))
    };
    let schema = metadata.file_metadata().schema_descr();
    if schema.num_columns() != described.columns.len() {
        return differ("leaves", described.columns.len().to_string(), schema.num_columns().to_string());
    }
    let rows: Vec<i64> = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    if rows.len() != described.row_group_rows.len()
        || rows.iter().zip(&described.row_group_rows).any(|(other, rows)| u64::try_from(*other) != Ok(*rows))
    {
        return differ("rows of the row groups", format!("{:?}", described.row_group_rows), format!("{rows:?}"));
    }
    for (leaf, column) in described.columns.iter().enumerate() {
        if schema.column(leaf).path().parts() != column.path {
            return differ("column", column.path.join("."), schema.column(leaf).path().string());
        }
        for (chunk, group) in column.chunks.iter().zip(metadata.row_groups()) {
            let other = group.columns().get(leaf).map(|other| {
                let start = other.dictionary_page_offset().unwrap_or_else(|| other.data_page_offset());
                (start, other.compressed_size(), other.num_values())
            });
            let (start, length, values) = (chunk.range.start, chunk.range.end - chunk.range.start, chunk.values);
            let same = other.is_some_and(|other| {
                (u64::try_from(other.0), u64::try_from(other.1), u64::try_from(other.2))
                    == (Ok(start), Ok(length), Ok(values))
            });
            if !same {
                let (tree, other) = (format!("{:?}", (start, length, values)), format!("{other:?}"));
                return differ(&format!("column `{}` (offset, bytes, values)", column.path.join(".")), tree, other);
            }
        }
    }
    Ok(())
}

/// The Arrow schema, and why `ARROW:schema` has no say in it where it has none.
pub(super) fn schema(metadata: &ParquetMetaData) -> Result<(SchemaRef, Option<String>)> {
    let file = metadata.file_metadata();
    let read = |key_values| guarded(|| parquet_to_arrow_schema(file.schema_descr(), key_values));
    let bare = |schema: Schema| Arc::new(Schema::new(schema.fields));
    match read(file.key_value_metadata()) {
        Ok(schema) => Ok((bare(schema), None)),
        Err(fault) => match read(None) {
            Ok(schema) => Ok((bare(schema), Some(fault))),
            Err(message) => Err(Error::invalid(format!("the schema has no counterpart in Arrow: {message}"))),
        },
    }
}

/// The crate is careful, but not with every footer that an enemy writes (asserts, types of Arrow that it does not know).
pub(super) fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the reader of the crate `parquet` gave up".to_owned()),
    }
}
