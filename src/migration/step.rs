//! The seam to what computes new columns: SQL expressions and Python functions alike, seen as one thing.

use crate::error::{Error, Result};
use crate::parquet::{Field, RecordBatch, Schema};

/// What a step reads and adds, given the schema that it meets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// Names of its input columns, as they are before the step.
    pub reads: Vec<String>,
    /// Its results, under the names that they are computed by. One that has the name of a column that `cast` names takes
    /// that column's place.
    pub adds: Vec<Field>,
}

/// Computes the new columns of a step.
///
/// Both calls give the same answer for the same input whenever they are made: a retry must give the same bytes.
pub trait Compute: Send + Sync {
    /// Finds inputs and results of the step at the index `step` of the configuration. `schema` is that of the file as it is
    /// before that step, without metadata. Called once for each distinct schema.
    ///
    /// # Errors
    /// `Invalid` where the step does not fit the schema.
    fn bind(&self, step: usize, schema: &Schema) -> Result<Bound>;

    /// Computes exactly the columns [`Bound::adds`] from exactly the columns [`Bound::reads`] of one row group, in order.
    ///
    /// # Errors
    /// `Invalid` where a value cannot be computed.
    fn compute(&self, step: usize, input: &RecordBatch) -> Result<RecordBatch>;
}

/// Computes nothing: for sets whose steps only rename and drop.
#[derive(Debug, Clone, Copy, Default)]
pub struct NothingComputed;

impl Compute for NothingComputed {
    fn bind(&self, _: usize, _: &Schema) -> Result<Bound> {
        Ok(Bound::default())
    }

    fn compute(&self, _: usize, _: &RecordBatch) -> Result<RecordBatch> {
        Err(Error::internal("nothing was bound, so nothing is computed"))
    }
}
