//! Plain tables in Parquet files of their own, for what the ledgers keep; no Arrow in the interface.
//!
//! # Problem
//! A ledger of a million rows must answer for a handful of keys without being read, and must be open to DuckDB and pandas.
//!
//! # Design
//! A table is sorted by one text column and written in row groups of a given number of rows, with minimum and maximum of that
//! column only: the footer stays small, and tells which row groups may hold a key. [`TableFile::open`] reads the footer
//! (and with it a small file whole) in one request, [`TableFile::read`] the row groups asked for. Keys of
//! objects share long prefixes, so the sorted column is written as differences to the row before.
//!
//! # Caveats
//! A file is written once and never changed; a changed one is refused by its `ETag`.
//!
//! # Testing
//! Round trips of generated tables; that every key is found in the row groups named for it; DuckDB and pandas in
//! `tests/python/test_checkpoint.py`.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, KeyValue, ParquetMetaDataReader, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;

use super::Ranges;
use super::read::{Described, guarded};
use crate::error::{Context, Error, Result};
use crate::store::{ETag, Store};

/// Read at first of a file: its footer, and all of a small file.
const SUFFIX: u64 = 64 << 10;
const LEVEL: i32 = 3;

/// The values of a column, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// UTF-8.
    Text(Vec<Option<String>>),
    /// 64-bit integers.
    Integer(Vec<Option<i64>>),
    /// 64-bit floats.
    Float(Vec<Option<f64>>),
    /// Truth values.
    Boolean(Vec<Option<bool>>),
    /// Lists of UTF-8.
    Texts(Vec<Option<Vec<String>>>),
}

/// Named columns of equal length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// In the order of the file.
    pub columns: Vec<(String, Column)>,
}

impl Column {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(values) => values.len(),
            Self::Integer(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Boolean(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Text(_) => DataType::Utf8,
            Self::Integer(_) => DataType::Int64,
            Self::Float(_) => DataType::Float64,
            Self::Boolean(_) => DataType::Boolean,
            Self::Texts(_) => DataType::List(Arc::new(Field::new("element", DataType::Utf8, false))),
        }
    }

    fn array(&self) -> ArrayRef {
        match self {
            Self::Text(values) => Arc::new(values.iter().map(Option::as_deref).collect::<StringArray>()),
            Self::Integer(values) => Arc::new(Int64Array::from(values.clone())),
            Self::Float(values) => Arc::new(Float64Array::from(values.clone())),
            Self::Boolean(values) => Arc::new(BooleanArray::from(values.clone())),
            Self::Texts(values) => {
                let field = Field::new("element", DataType::Utf8, false);
                let mut lists = ListBuilder::new(StringBuilder::new()).with_field(field);
                for value in values {
                    lists.append_option(value.as_ref().map(|texts| texts.iter().map(Some)));
                }
                Arc::new(lists.finish())
            }
        }
    }

    fn from_array(array: &ArrayRef) -> Result<Self> {
        let any = array.as_any();
        if let Some(values) = any.downcast_ref::<StringArray>() {
            return Ok(Self::Text(values.iter().map(|value| value.map(str::to_owned)).collect()));
        }
        if let Some(values) = any.downcast_ref::<Int64Array>() {
            return Ok(Self::Integer(values.iter().collect()));
        }
        if let Some(values) = any.downcast_ref::<Float64Array>() {
            return Ok(Self::Float(values.iter().collect()));
        }
        if let Some(values) = any.downcast_ref::<BooleanArray>() {
            return Ok(Self::Boolean(values.iter().collect()));
        }
        let unknown = || Error::corrupt(format!("expected a type of our tables, found `{}`", array.data_type()));
        let lists = any.downcast_ref::<ListArray>().ok_or_else(unknown)?;
        let texts = |list: ArrayRef| {
            let texts = list.as_any().downcast_ref::<StringArray>().ok_or_else(unknown)?;
            Ok(texts.iter().flatten().map(str::to_owned).collect())
        };
        Ok(Self::Texts(lists.iter().map(|list| list.map(texts).transpose()).collect::<Result<_>>()?))
    }
}

impl Table {
    /// Rows; those of the first column.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, column)| column.len())
    }

    /// The column `name`.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(given, _)| given == name).map(|(_, column)| column)
    }

    fn from_batches(batches: &[RecordBatch], schema: &Schema) -> Result<Self> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (at, field) in schema.fields().iter().enumerate() {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(at).as_ref()).collect();
            let array = match parts.as_slice() {
                [] => arrow_array::new_empty_array(field.data_type()),
                parts => arrow_select::concat::concat(parts)
                    .map_err(|error| Error::invalid(format!("column `{}` is too large: {error}", field.name())))?,
            };
            columns.push((
                field.name().clone(),
                Column::from_array(&array).context(|| format!("column `{}`", field.name()))?,
            ));
        }
        Ok(Self { columns })
    }
}

/// The file of `table`, which is sorted by the text column `sorted_by`, with `key_values` in its footer.
///
/// # Errors
/// `Internal` when the columns differ in length, or when the table is not sorted by a column without nulls.
pub fn write(table: &Table, sorted_by: &str, row_group_rows: usize, key_values: &[(&str, String)]) -> Result<Bytes> {
    if let Some((name, column)) = table.columns.iter().find(|(_, column)| column.len() != table.rows()) {
        let message = format!("expected `{}` rows in column `{name}`, found `{}`", table.rows(), column.len());
        return Err(Error::internal(message));
    }
    let place = table.columns.iter().position(|(name, _)| name == sorted_by);
    let sorted = match place.map(|place| &table.columns[place].1) {
        Some(Column::Text(values)) => values.iter().all(Option::is_some) && values.is_sorted(),
        _ => false,
    };
    let (Some(place), true) = (place, sorted) else {
        return Err(Error::internal(format!("the table is not sorted by a column `{sorted_by}` without nulls")));
    };
    let fields: Vec<Field> =
        table.columns.iter().map(|(name, column)| Field::new(name, column.data_type(), name != sorted_by)).collect();
    let schema = Arc::new(Schema::new(fields));
    let path = ColumnPath::from(sorted_by.to_owned());
    let level = ZstdLevel::try_new(LEVEL).map_err(|error| Error::internal(error.to_string()))?;
    let notes = key_values.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone())).collect();
    let properties = WriterProperties::builder()
        .set_created_by(format!("regraft version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(row_group_rows.max(1)))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk)
        .set_statistics_truncate_length(None)
        .set_offset_index_disabled(true)
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path, Encoding::DELTA_BYTE_ARRAY)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: place as i32,
            descending: false,
            nulls_first: false,
        }]))
        .set_key_value_metadata(Some(notes))
        .build();
    let arrays: Vec<ArrayRef> = table.columns.iter().map(|(_, column)| column.array()).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)
        .map_err(|error| Error::internal(format!("the table: {error}")))?;
    let file = guarded(|| {
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
        writer.write(&batch)?;
        writer.into_inner()
    })?;
    Ok(Bytes::from(file))
}

/// A table on a store, known by its footer.
#[derive(Debug, Clone)]
pub struct TableFile {
    store: Store,
    key: String,
    etag: ETag,
    described: Described,
    names: Vec<String>,
    /// First and last value of the sorted column, per row group; `None` where the footer does not say.
    bounds: Vec<Option<(String, String)>>,
    /// The end of the file, which came with the footer.
    suffix: Ranges,
    /// Where the suffix begins.
    from: u64,
}

impl TableFile {
    /// Opens the table at `key`, reading its footer.
    ///
    /// # Errors
    /// `NotFound` when there is no such object, `Corrupt` when it is no table of ours; otherwise as [`Store::get_suffix`].
    pub async fn open(store: &Store, key: &str) -> Result<Self> {
        let gone = || Error::not_found(format!("`{}` does not exist", store.url_of(key)));
        let mut object = store.get_suffix(key, SUFFIX).await?.ok_or_else(gone)?;
        let named = || format!("`{}`", store.url_of(key));
        let needed = footer_length(&object.bytes).context(named)?;
        if needed > object.bytes.len() as u64 {
            if needed > object.meta.size {
                return Err(Error::corrupt("the footer is longer than the file").context(named()));
            }
            let etag = object.meta.etag.clone();
            object = store.get_suffix(key, needed).await?.ok_or_else(gone)?;
            if object.meta.etag != etag {
                return Err(Error::conflict("the file changed while it was read").context(named()));
            }
        }
        Self::parse(store, key, &object.bytes, object.meta.size, object.meta.etag).context(named)
    }

    fn parse(store: &Store, key: &str, suffix: &Bytes, length: u64, etag: ETag) -> Result<Self> {
        let footer = footer_length(suffix)? as usize;
        let end = suffix.len();
        let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&suffix[end - footer..end - FOOTER_SIZE]))?;
        let described = Described::new(&Arc::new(metadata), None, length)?;
        let names = described.names();
        let metadata = described.metadata();
        let sorted = metadata.row_groups().first().and_then(|group| group.sorting_columns()?.first());
        let place = sorted.and_then(|sorted| usize::try_from(sorted.column_idx).ok());
        let bounds = metadata
            .row_groups()
            .iter()
            .map(|group| match group.columns().get(place?)?.statistics()? {
                Statistics::ByteArray(values) => {
                    Some((values.min_opt()?.as_utf8().ok()?.to_owned(), values.max_opt()?.as_utf8().ok()?.to_owned()))
                }
                _ => None,
            })
            .collect();
        let from =
            length.checked_sub(end as u64).ok_or_else(|| Error::corrupt("the answer is longer than the file"))?;
        let suffix = Ranges::new([(from..length, suffix.clone())])?;
        Ok(Self { store: store.clone(), key: key.to_owned(), etag, described, names, bounds, suffix, from })
    }

    /// Rows of all row groups.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.described.metadata().file_metadata().num_rows().max(0) as u64
    }

    /// Row groups.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.bounds.len()
    }

    /// A value of the footer.
    #[must_use]
    pub fn key_value(&self, key: &str) -> Option<&str> {
        let pairs = self.described.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    }

    /// The row groups that may hold one of `values` in the sorted column; `values` are sorted.
    #[must_use]
    pub fn row_groups_with(&self, values: &[impl AsRef<str>]) -> Vec<usize> {
        (0..self.bounds.len())
            .filter(|&at| match &self.bounds[at] {
                None => true,
                Some((first, last)) => {
                    let next = values.partition_point(|value| value.as_ref() < first.as_str());
                    values.get(next).is_some_and(|value| value.as_ref() <= last.as_str())
                }
            })
            .collect()
    }

    /// The rows of `row_groups`, in the order asked.
    ///
    /// # Errors
    /// `Corrupt` when they cannot be decoded, `Conflict` when the file has changed since it was opened; otherwise as
    /// [`Store::get_ranges`].
    pub async fn read(&self, row_groups: &[usize]) -> Result<Table> {
        let named = || format!("`{}`", self.store.url_of(&self.key));
        let all = self.described.ranges(&self.names).context(named)?;
        let mut wanted = Vec::new();
        for &at in row_groups {
            let ranges = all.get(at).ok_or_else(|| Error::internal(format!("there is no row group `{at}`")))?;
            wanted.extend(ranges.iter().filter(|range| !range.is_empty()).cloned());
        }
        let held = wanted.iter().all(|range| range.start >= self.from);
        let bytes = if held {
            self.suffix.clone()
        } else {
            wanted.sort_by_key(|range| range.start);
            wanted.dedup();
            let parts = self.store.get_ranges(&self.key, &wanted, Some(&self.etag)).await?;
            Ranges::new(wanted.into_iter().zip(parts))?
        };
        let batches = row_groups
            .iter()
            .map(|&at| self.described.batch(at, &self.names, &bytes))
            .collect::<Result<Vec<_>>>()
            .context(named)?;
        Table::from_batches(&batches, self.described.schema()).context(named)
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`TableFile::read`].
    pub async fn all(&self) -> Result<Table> {
        self.read(&(0..self.row_groups()).collect::<Vec<_>>()).await
    }
}

/// Bytes of the footer with its length and magic, of which `suffix` is the end.
fn footer_length(suffix: &[u8]) -> Result<u64> {
    let tail: &[u8; FOOTER_SIZE] =
        suffix.last_chunk().ok_or_else(|| Error::corrupt("the file is too short to be Parquet"))?;
    let tail = guarded(|| FooterTail::try_new(tail))?;
    if tail.is_encrypted_footer() {
        return Err(Error::invalid("the file is encrypted"));
    }
    Ok(tail.metadata_length() as u64 + FOOTER_SIZE as u64)
}

#[cfg(test)]
mod tests;
