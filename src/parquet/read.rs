//! Reads columns of one row group: which bytes they need, and those bytes decoded.
//!
//! # Problem
//! A computed column needs a few input columns out of hundreds, whole row groups of them, in the types that the file's
//! writer meant, and the file may be damaged.
//!
//! # Design
//! [`ranges`] names the bytes (dictionary and data pages of every leaf of the columns), the caller fetches them as it
//! likes, [`batch`] decodes them. Nothing here does I/O. Columns are decoded side by side. A row group comes as one batch, since
//! the new columns are encoded row group by row group; it is decoded in steps, so that memory follows the pages
//! that are there and not the number of rows that a damaged footer claims.
//!
//! # Alternatives considered
//! The crate's asynchronous reader over `object_store`: a second door to storage, which does not count requests.
//!
//! # Caveats
//! Types are those of the file's `ARROW:schema` where it agrees with the Parquet types, otherwise the ones that the Parquet types
//! imply; `INT96` is a timestamp in nanoseconds. A column name that occurs twice cannot be asked for.
//!
//! # Testing
//! Round trips of generated columns, and of files that other writers made, against the crate's own reader of a whole file.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use bytes::{Buf, Bytes, buf::Reader};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};
use rayon::prelude::*;

use super::{File, Ranges};
use crate::error::{Context, Error, Result};

/// Rows decoded in one step.
const STEP: u64 = 1 << 20;

/// The bytes that `columns` (top-level names) need, in the order of the file, for each row group; none for one without rows.
///
/// # Errors
/// `Invalid` when a column is not there, or there are several of its name.
pub fn ranges(file: &File, columns: &[String]) -> Result<Vec<Vec<Range<u64>>>> {
    described(file).and_then(|described| described.ranges(columns)).context(|| format!("`{}`", file.name()))
}

/// One row group of `columns` (top-level names), in the order asked, as one batch, out of the `bytes` that [`ranges`] named.
///
/// # Errors
/// As [`ranges`]; `Corrupt` when the bytes cannot be decoded, `Internal` when some of them were not fetched.
pub fn batch(file: &File, row_group: usize, columns: &[String], bytes: &Ranges) -> Result<RecordBatch> {
    described(file)
        .and_then(|described| described.batch(row_group, columns, bytes))
        .context(|| format!("`{}`", file.name()))
}

fn described(file: &File) -> Result<Described> {
    Described::new(file.metadata(), Some(file.schema()), file.length())
}

/// What decoding needs to know of a file.
#[derive(Debug, Clone)]
pub(super) struct Described {
    arrow: ArrowReaderMetadata,
    length: u64,
}

impl Described {
    /// A file of `length` bytes; `schema` wins over what the metadata say where the two agree on the Parquet types.
    pub(super) fn new(metadata: &Arc<ParquetMetaData>, schema: Option<&SchemaRef>, length: u64) -> Result<Self> {
        let plain = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let mut tries = vec![ArrowReaderOptions::new(), plain()];
        if let Some(schema) = schema {
            tries.insert(0, ArrowReaderOptions::new().with_schema(Arc::clone(schema)));
        }
        let mut last = Error::internal("no way to read the schema was tried");
        for options in tries {
            match guarded(|| ArrowReaderMetadata::try_new(Arc::clone(metadata), options)) {
                Ok(arrow) => return Ok(Self { arrow, length }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(super) fn metadata(&self) -> &ParquetMetaData {
        self.arrow.metadata()
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        self.arrow.schema()
    }

    /// Names of all top-level columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Positions of top-level columns.
    fn roots(&self, columns: &[String]) -> Result<Vec<usize>> {
        let fields = self.arrow.schema().fields();
        columns
            .iter()
            .map(|name| {
                let mut found = (0..fields.len()).filter(|&at| fields[at].name() == name);
                match (found.next(), found.next()) {
                    (Some(at), None) => Ok(at),
                    (None, _) => Err(Error::invalid(format!("expected a column `{name}`, found none of this name"))
                        .hint(format!(
                            "the columns are {}",
                            fields.iter().map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ")
                        ))),
                    (Some(_), Some(_)) => Err(Error::invalid(format!("expected one column `{name}`, found several"))),
                }
            })
            .collect()
    }

    /// The bytes of each leaf of `columns`, in the order of the file, per row group.
    pub(super) fn ranges(&self, columns: &[String]) -> Result<Vec<Vec<Range<u64>>>> {
        let roots = self.roots(columns)?;
        let descriptor = self.metadata().file_metadata().schema_descr();
        let leaves: Vec<usize> = (0..descriptor.num_columns())
            .filter(|&leaf| roots.contains(&descriptor.get_column_root_idx(leaf)))
            .collect();
        (0..self.metadata().num_row_groups())
            .map(|at| {
                let group = self.metadata().row_group(at);
                let mut ranges = Vec::with_capacity(leaves.len());
                for &leaf in &leaves {
                    let chunk = group.columns().get(leaf).ok_or_else(|| {
                        Error::corrupt(format!(
                            "expected `{}` column chunks in row group `{at}`, found `{}`",
                            descriptor.num_columns(),
                            group.num_columns()
                        ))
                    })?;
                    if group.num_rows() == 0 {
                        continue;
                    }
                    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
                    let range = u64::try_from(start).ok().zip(u64::try_from(chunk.compressed_size()).ok());
                    match range.and_then(|(start, length)| Some(start..start.checked_add(length)?)) {
                        Some(range) if range.end <= self.length => ranges.push(range),
                        _ => {
                            return Err(Error::corrupt(format!(
                                "expected column `{}` of row group `{at}` within the `{}` bytes of the file, found `{}` \
                                 bytes at `{start}`",
                                chunk.column_path().string(),
                                self.length,
                                chunk.compressed_size()
                            )));
                        }
                    }
                }
                ranges.sort_by_key(|range| range.start);
                Ok(ranges)
            })
            .collect()
    }

    /// One row group of `columns`, in the order asked.
    pub(super) fn batch(&self, row_group: usize, columns: &[String], bytes: &Ranges) -> Result<RecordBatch> {
        let roots = self.roots(columns)?;
        if row_group >= self.metadata().num_row_groups() {
            return Err(Error::internal(format!(
                "there is no row group `{row_group}` among `{}`",
                self.metadata().num_row_groups()
            )));
        }
        let rows = self.metadata().row_group(row_group).num_rows();
        let rows = u64::try_from(rows).map_err(|_| {
            Error::corrupt(format!("expected a number of rows in row group `{row_group}`, found `{rows}`"))
        })?;
        let fields: Vec<FieldRef> = roots.iter().map(|&root| Arc::clone(&self.arrow.schema().fields()[root])).collect();
        let arrays = roots
            .par_iter()
            .zip(&fields)
            .map(|(&root, field)| {
                if rows == 0 {
                    return Ok(new_empty_array(field.data_type()));
                }
                self.column(row_group, root, rows, bytes)
                    .context(|| format!("column `{}` of row group `{row_group}`", field.name()))
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|error| Error::corrupt(format!("the columns of row group `{row_group}` do not agree: {error}")))
    }

    fn column(&self, row_group: usize, root: usize, rows: u64, bytes: &Ranges) -> Result<ArrayRef> {
        let mask = ProjectionMask::roots(self.metadata().file_metadata().schema_descr(), [root]);
        let fetched = Fetched { ranges: bytes.clone(), length: self.length };
        let arrays = guarded(|| {
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(fetched, self.arrow.clone())
                .with_row_groups(vec![row_group])
                .with_projection(mask)
                .with_batch_size(rows.min(STEP) as usize)
                .build()?;
            let mut arrays = Vec::new();
            for batch in reader {
                arrays.push(Arc::clone(batch?.column(0)));
            }
            Ok(arrays)
        })?;
        let found: usize = arrays.iter().map(arrow_array::Array::len).sum();
        if found as u64 != rows {
            return Err(Error::corrupt(format!("expected `{rows}` rows, found `{found}`")));
        }
        if let [array] = arrays.as_slice() {
            return Ok(Arc::clone(array));
        }
        let parts: Vec<&dyn arrow_array::Array> = arrays.iter().map(AsRef::as_ref).collect();
        arrow_select::concat::concat(&parts)
            .map_err(|error| Error::invalid(format!("a row group of `{rows}` rows does not fit one batch: {error}")))
    }
}

/// Runs code of the `parquet` crate on bytes that may be damaged: its errors become ours, and so does a panic.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(translated),
        Err(_) => Err(Error::corrupt("the Parquet structure is damaged beyond what the reader can tell")),
    }
}

fn translated(error: ParquetError) -> Error {
    match error {
        ParquetError::NYI(what) => Error::invalid(what),
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::corrupt(other.to_string()),
        },
        ParquetError::General(what) if what.starts_with("Disabled feature") => Error::invalid(what),
        ParquetError::General(what) | ParquetError::ArrowError(what) => Error::corrupt(what),
        ParquetError::EOF(what) => Error::corrupt(what).hint("the file is truncated or damaged: fetch it again"),
        other => Error::corrupt(other.to_string()),
    }
}

/// The fetched parts of a file, as the crate wants to see a file.
struct Fetched {
    ranges: Ranges,
    length: u64,
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Fetched {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.ranges.tail(start).map_err(|error| ParquetError::External(Box::new(error)))?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end =
            start.checked_add(length as u64).ok_or_else(|| ParquetError::EOF("a page ends past 2^64".to_owned()))?;
        self.ranges.get(start..end).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

#[cfg(test)]
mod tests;
