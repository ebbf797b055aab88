//! Names of columns before and after a migration. Pure.

use std::sync::Arc;

use super::fuse::Fused;
use crate::error::{Error, Result};
use crate::parquet::{Field, File, RecordBatch, RecordBatchOptions, Schema};

/// What a column of the file before is called now.
pub(super) fn new_name(fused: &Fused, name: &str) -> String {
    let renamed = fused.change.renames.iter().find(|(old, _)| old == name);
    renamed.map_or_else(|| name.to_owned(), |(_, new)| new.clone())
}

/// What the path of a leaf was before.
pub(super) fn old_path(fused: &Fused, path: &[String]) -> String {
    let mut path = path.to_vec();
    if let Some(first) = path.first_mut()
        && let Some((old, _)) = fused.change.renames.iter().find(|(_, new)| new == first)
    {
        first.clone_from(old);
    }
    path.join(".")
}

/// The batch with its columns called as the steps know them.
pub(super) fn renamed(batch: &RecordBatch, names: &[String]) -> Result<RecordBatch> {
    let fields: Vec<_> = batch
        .schema_ref()
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| field.as_ref().clone().with_name(name))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)
        .map_err(|error| Error::internal(error.to_string()))
}

/// Names in order, and the types of new columns.
pub(super) fn compare_schema(fused: &Fused, new: &File) -> Result<()> {
    let names = |fields: &[Arc<Field>]| fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let (expected, found) = (names(fused.schema.fields()), names(new.schema().fields()));
    if expected != found {
        return Err(Error::corrupt(format!(
            "expected the columns `{}`, found `{}`",
            expected.join(", "),
            found.join(", ")
        )));
    }
    Ok(())
}
