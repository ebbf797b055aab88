//! The computations of fused steps over one row group, each checked against what it was bound to give. Pure but for the
//! steps themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::StepConfig;
use super::fuse::{Fused, Origin};
use crate::error::{Context, Error, Result};
use crate::parquet::{Array, ArrayRef, Field, RecordBatch, RecordBatchOptions, Schema};

impl Fused {
    /// Computes the new columns of one row group from its input columns; in the order of `change.adds`.
    ///
    /// # Errors
    /// What `compute` raises; `Invalid` where it gives other columns, types or numbers of rows than were bound.
    pub fn evaluate(
        &self,
        steps: &[StepConfig],
        input: &RecordBatch,
        compute: &mut dyn FnMut(usize, &RecordBatch) -> Result<RecordBatch>,
    ) -> Result<RecordBatch> {
        let mut values = BTreeMap::new();
        for evaluation in &self.evaluations {
            let step = &steps[evaluation.step];
            let name = || format!("step `{}→{}`", step.from, step.to);
            let mut fields = Vec::new();
            let mut arrays = Vec::new();
            for (field, origin) in &evaluation.reads {
                let array = match origin {
                    Origin::File(name) => input.column_by_name(name),
                    Origin::Result(number) => values.get(number),
                };
                arrays.push(array.cloned().ok_or_else(|| Error::internal(format!("`{}` was not read", field.name())))?);
                fields.push(field.clone());
            }
            let batch = batch(fields, arrays, input.num_rows()).context(name)?;
            let output = compute(evaluation.step, &batch).context(name)?;
            if output.num_rows() != input.num_rows() {
                return Err(Error::invalid(format!(
                    "expected `{}` rows, found `{}`",
                    input.num_rows(),
                    output.num_rows()
                ))
                .context(name())
                .hint("a step gives one row for each row"));
            }
            for (field, number) in &evaluation.adds {
                let array = output.column_by_name(field.name()).ok_or_else(|| {
                    Error::invalid(format!("the column `{}` was not given", field.name())).context(name())
                })?;
                if array.data_type() != field.data_type() {
                    return Err(Error::invalid(format!(
                        "the column `{}`: expected the type `{}`, found `{}`",
                        field.name(),
                        field.data_type(),
                        array.data_type()
                    ))
                    .context(name()));
                }
                if !field.is_nullable() && array.null_count() > 0 {
                    return Err(Error::invalid(format!(
                        "the column `{}` has `{}` nulls, and is declared without",
                        field.name(),
                        array.null_count()
                    ))
                    .context(name()));
                }
                values.insert(*number, array.clone());
            }
            if output.num_columns() != evaluation.adds.len() {
                return Err(Error::invalid(format!(
                    "expected the columns {}, found {}",
                    names(evaluation.adds.iter().map(|(field, _)| field.name())),
                    names(output.schema_ref().fields().iter().map(|field| field.name()))
                ))
                .context(name())
                .hint("a step returns the columns that it adds, and only those"));
            }
        }
        let mut arrays = Vec::new();
        for (add, number) in self.change.adds.iter().zip(&self.results) {
            let array = values.get(number).cloned();
            arrays.push(array.ok_or_else(|| Error::internal(format!("`{}` was not computed", add.field.name())))?);
        }
        batch(self.change.adds.iter().map(|add| add.field.clone()).collect(), arrays, input.num_rows())
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A batch that knows its rows even without a column.
fn batch(fields: Vec<Field>, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| Error::invalid(error.to_string()))
}
