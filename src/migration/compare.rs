//! A migrated file against the file before, by their footers. Pure.

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

/// Row groups have the rows that they had.
pub(super) fn compare_rows(old: &File, new: &File) -> Result<()> {
    if old.row_groups() != new.row_groups() {
        return Err(Error::corrupt(format!(
            "expected `{}` row groups, found `{}`",
            old.row_groups(),
            new.row_groups()
        )));
    }
    for row_group in 0..old.row_groups() {
        let (expected, found) = (old.row_group_rows(row_group), new.row_group_rows(row_group));
        if expected != found {
            return Err(Error::corrupt(format!(
                "row group `{row_group}`: expected `{expected}` rows, found `{found}`"
            )));
        }
    }
    Ok(())
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

/// Kept columns have the same chunks: in a widened file at the same place, elsewhere of the same size.
pub(super) fn compare_places(fused: &Fused, old: &File, new: &File, same_place: bool) -> Result<()> {
    let gone = |name: &str| {
        fused.change.drops.iter().any(|drop| drop == name)
            || fused.change.adds.iter().any(|add| add.replaces.as_deref() == Some(name))
    };
    for column in old.columns().iter().filter(|column| !gone(column.name())) {
        let path = column.path.join(".");
        let found = new.columns().iter().find(|other| old_path(fused, &other.path) == path);
        let Some(found) = found else {
            return Err(Error::corrupt(format!("the column `{path}` was to be kept, and is not there")));
        };
        for (row_group, (before, after)) in column.chunks.iter().zip(&found.chunks).enumerate() {
            let moved = same_place && before.range != after.range;
            let length = |range: &std::ops::Range<u64>| range.end - range.start;
            if moved || length(&before.range) != length(&after.range) || before.values != after.values {
                return Err(Error::corrupt(format!(
                    "the kept column `{path}` of row group `{row_group}`: expected the bytes `{:?}`, found `{:?}`",
                    before.range, after.range
                )));
            }
        }
    }
    Ok(())
}
