//! Encodes new columns, row group by row group, as pieces that a layout can place.
//!
//! # Problem
//! The new columns of a file must have its row groups, and should look as if its own writer had made them: same
//! codec, same page version, page indexes where the file has them. And the same input must give the same bytes, since a
//! commit whose answer got lost is recognised by them.
//!
//! # Design
//! An [`Encoder`] writes the new columns alone into a Parquet file in memory (see [`super::encoded`]), with
//! properties read off the source's footer. Columns are encoded side by side; what is written does not depend on how many
//! threads did it. Numbers of which hardly two are equal are written without a dictionary (see [`dictionary`]).
//!
//! # Alternatives considered
//! The encodings of page version 2 (`DELTA_*`) for what does not fit a dictionary: smaller, but older readers know only `PLAIN`.
//!
//! # Caveats
//! The level that the source was compressed with is not in the file: the codec's default is taken. Inner fields of lists and
//! maps are named as the Parquet specification wants (`element`; `key_value`, `key`, `value`), whatever
//! Arrow called them; [`EncodedColumns::fields`] says the names that were written.
//!
//! # Testing
//! Round trips of generated columns through the crate's own reader, nested ones too; bytes equal over runs and threads.

mod dictionary;
mod storable;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, RecordBatch};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{BrotliLevel, Compression as Codec, CompressionCodec, Encoding, GzipLevel, ZstdLevel};
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, SchemaDescriptor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::encoded::{EncodedChunk, EncodedColumns};
use super::read::guarded;
use super::{File, fields};
use crate::error::{Context, Error, Result};

/// How new columns are encoded, where it shall not be as in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The codec; by default the one that most chunks of the source have, `lz4_raw` in place of `lz4`.
    pub compression: Option<Compression>,
    /// Top-level new columns that get bloom filters, on each of their leaves.
    pub bloom: Vec<String>,
}

/// A codec and how hard it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compression {
    /// `uncompressed`, `snappy`, `gzip`, `brotli`, `lz4_raw`, `lz4` (Hadoop's framing) or `zstd`.
    pub name: String,
    /// Gzip 0 to 9, Brotli 0 to 11, Zstandard 1 to 22; the codec's default otherwise. The others have none.
    #[serde(default)]
    pub level: Option<i32>,
}

impl Compression {
    fn codec(&self) -> Result<Codec> {
        let level = self.level.map(u32::try_from).transpose();
        let codec = match (self.name.as_str(), level, self.level) {
            ("uncompressed", Ok(None), _) => Ok(Codec::UNCOMPRESSED),
            ("snappy", Ok(None), _) => Ok(Codec::SNAPPY),
            ("lz4", Ok(None), _) => Ok(Codec::LZ4),
            ("lz4_raw", Ok(None), _) => Ok(Codec::LZ4_RAW),
            ("gzip", Ok(level), _) => level.map_or(Ok(GzipLevel::default()), GzipLevel::try_new).map(Codec::GZIP),
            ("brotli", Ok(level), _) => {
                level.map_or(Ok(BrotliLevel::default()), BrotliLevel::try_new).map(Codec::BROTLI)
            }
            ("zstd", _, level) => level.map_or(Ok(ZstdLevel::default()), ZstdLevel::try_new).map(Codec::ZSTD),
            ("uncompressed" | "snappy" | "lz4" | "lz4_raw", _, _) => {
                return Err(Error::invalid(format!(
                    "expected no level for the compression `{}`, found one",
                    self.name
                )));
            }
            ("gzip" | "brotli", Err(_), Some(level)) => {
                return Err(Error::invalid(format!("the level `{level}` of `{}` is below 0", self.name)));
            }
            _ => {
                return Err(Error::invalid(format!(
                    "expected a compression of `uncompressed`, `snappy`, `gzip`, `brotli`, `lz4`, `lz4_raw`, `zstd`, \
                     found `{}`",
                    self.name
                )));
            }
        };
        codec.map_err(|error| Error::invalid(format!("the level of `{}`: {error}", self.name)))
    }
}

/// Encodes the new columns of one file.
pub struct Encoder {
    schema: Arc<Schema>,
    descriptor: SchemaDescriptor,
    properties: WriterProperties,
    /// Made when the first values are there: they decide over dictionaries.
    writer: Option<Writer>,
    /// Rows of each row group of the source.
    rows: Vec<u64>,
}

struct Writer {
    file: SerializedFileWriter<Vec<u8>>,
    columns: ArrowRowGroupWriterFactory,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Encoder")
            .field("schema", &self.schema)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder of `fields` for the row groups of `file`.
    ///
    /// # Errors
    /// `Invalid`, naming the column, when Parquet cannot hold a type, and when the settings do not fit; naming the file
    /// when its codec cannot be written.
    pub fn new(file: &File, fields: &[Field], settings: &Settings) -> Result<Self> {
        let metadata = file.metadata();
        let rows = metadata
            .row_groups()
            .iter()
            .map(|group| u64::try_from(group.num_rows()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::corrupt("a row group has a negative number of rows"))?;
        let fields = fields
            .iter()
            .map(|field| storable::field(field).context(|| format!("column `{}`", field.name())))
            .collect::<Result<Vec<_>>>()?;
        if let Some(name) = settings.bloom.iter().find(|&name| fields.iter().all(|field| field.name() != name)) {
            return Err(Error::invalid(format!("a bloom filter is wanted for `{name}`, which is not a new column")));
        }
        let schema = Arc::new(Schema::new(fields));
        let descriptor = guarded(|| ArrowSchemaConverter::new().convert(&schema))?;
        let most = rows.iter().copied().max().unwrap_or(0);
        let properties = properties(file, &descriptor, settings, most).context(|| format!("`{}`", file.name()))?;
        Ok(Self { schema, descriptor, properties, writer: None, rows })
    }

    /// The writer for columns like those of `batch`.
    fn open(&self, batch: Option<&RecordBatch>) -> Result<Writer> {
        let mut builder = self.properties.clone().into_builder();
        for (field, array) in self.schema.fields().iter().zip(batch.map_or(&[][..], RecordBatch::columns)) {
            if !dictionary::pays(array) {
                builder = builder.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
            }
        }
        let properties = Arc::new(builder.build());
        let file = guarded(|| SerializedFileWriter::new(Vec::new(), self.descriptor.root_schema_ptr(), properties))?;
        let columns = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&self.schema));
        Ok(Writer { file, columns })
    }

    /// Encodes the next row group.
    ///
    /// # Errors
    /// `Invalid` when the batch has other columns or types than announced, nulls where the field allows none, or other than
    /// the rows of the source's row group.
    pub fn row_group(&mut self, batch: &RecordBatch) -> Result<()> {
        let at = self.encoded();
        match self.rows.get(at) {
            Some(&rows) if rows == batch.num_rows() as u64 => {}
            Some(rows) => {
                return Err(Error::invalid(format!(
                    "expected `{rows}` rows for row group `{at}`, found `{}`",
                    batch.num_rows()
                )));
            }
            None => return Err(Error::internal(format!("the source has no row group `{at}`"))),
        }
        self.check(batch)?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.open(Some(batch))?,
        };
        let writers = guarded(|| writer.columns.create_column_writers(at))?;
        let mut leaves = Vec::with_capacity(writers.len());
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            leaves.extend(
                guarded(|| compute_leaves(field, array))
                    .map_err(|error| Error::invalid(error.message()).context(format!("column `{}`", field.name())))?,
            );
        }
        if leaves.len() != writers.len() {
            return Err(Error::internal(format!("expected `{}` leaves, found `{}`", writers.len(), leaves.len())));
        }
        let chunks = writers
            .into_par_iter()
            .zip(leaves)
            .map(|(mut writer, leaf)| {
                guarded(|| {
                    writer.write(&leaf)?;
                    writer.close()
                })
                .map_err(|error| Error::invalid(error.message()))
            })
            .collect::<Result<Vec<ArrowColumnChunk>>>()?;
        guarded(|| {
            let mut group = writer.file.next_row_group()?;
            for chunk in chunks {
                chunk.append_to_row_group(&mut group)?;
            }
            group.close()?;
            Ok(())
        })?;
        self.writer = Some(writer);
        Ok(())
    }

    fn encoded(&self) -> usize {
        self.writer.as_ref().map_or(0, |writer| writer.file.flushed_row_groups().len())
    }

    fn check(&self, batch: &RecordBatch) -> Result<()> {
        let expected = self.schema.fields();
        let found = batch.schema();
        if expected.len() != found.fields().len() {
            let names: Vec<_> = found.fields().iter().map(|field| format!("`{}`", field.name())).collect();
            return Err(Error::invalid(format!("expected `{}` columns, found {}", expected.len(), names.join(", "))));
        }
        for (field, (given, array)) in expected.iter().zip(found.fields().iter().zip(batch.columns())) {
            if field.name() != given.name() {
                return Err(Error::invalid(format!(
                    "expected the column `{}`, found `{}`",
                    field.name(),
                    given.name()
                )));
            }
            if !field.data_type().equals_datatype(array.data_type()) {
                return Err(Error::invalid(format!(
                    "column `{}`: expected type `{}`, found `{}`",
                    field.name(),
                    field.data_type(),
                    array.data_type()
                )));
            }
            if !field.is_nullable() && array.null_count() > 0 {
                return Err(Error::invalid(format!(
                    "column `{}`: expected a value in every row, found `{}` nulls",
                    field.name(),
                    array.null_count()
                )));
            }
        }
        Ok(())
    }

    /// The pieces, once every row group of the source was given.
    ///
    /// # Errors
    /// `Internal` when a row group is missing.
    pub fn finish(self) -> Result<EncodedColumns> {
        if self.encoded() != self.rows.len() {
            return Err(Error::internal(format!(
                "expected `{}` row groups, found `{}`",
                self.rows.len(),
                self.encoded()
            )));
        }
        let writer = match self.writer {
            Some(writer) => writer,
            None => self.open(None)?,
        };
        let file = Bytes::from(guarded(|| writer.file.into_inner())?);
        // … footer, its length in 4 bytes, magic.
        let end = file.len() - FOOTER_SIZE;
        let length = file[end..end + 4].iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let footer = file.slice(end - length..end);
        let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&footer))?;
        let row_groups = metadata
            .row_groups()
            .iter()
            .map(|group| group.columns().iter().map(|chunk| piece(&file, chunk)).collect())
            .collect::<Result<Vec<Vec<_>>>>()?;
        let fields = self.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        Ok(EncodedColumns { fields, footer, row_groups })
    }
}

/// A chunk of the little file and what belongs to it.
fn piece(file: &Bytes, chunk: &ColumnChunkMetaData) -> Result<EncodedChunk> {
    // A chunk without rows has no page, and its offsets say nothing.
    let start = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    Ok(EncodedChunk {
        bytes: cut(file, Some(start), Some(chunk.compressed_size()))?.unwrap_or_default(),
        start: start as u64,
        bloom_filter: cut(file, chunk.bloom_filter_offset(), chunk.bloom_filter_length().map(i64::from))?,
        column_index: cut(file, chunk.column_index_offset(), chunk.column_index_length().map(i64::from))?,
        offset_index: cut(file, chunk.offset_index_offset(), chunk.offset_index_length().map(i64::from))?,
    })
}

fn cut(file: &Bytes, offset: Option<i64>, length: Option<i64>) -> Result<Option<Bytes>> {
    let (Some(offset), Some(length)) = (offset, length) else { return Ok(None) };
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    match range.and_then(|(start, length)| Some(start..start.checked_add(length)?)) {
        Some(range) if range.end <= file.len() => Ok(Some(file.slice(range))),
        _ => Err(Error::internal(format!("the encoder wrote no `{length}` bytes at `{offset}`"))),
    }
}

/// What the source's footer and `settings` say about how to write; `most` rows are in its largest row group.
fn properties(file: &File, descriptor: &SchemaDescriptor, settings: &Settings, most: u64) -> Result<WriterProperties> {
    let metadata = file.metadata();
    let chunks = || metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let column_index = chunks().any(|chunk| chunk.column_index_offset().is_some());
    let offset_index = chunks().any(|chunk| chunk.offset_index_offset().is_some());
    let second = file
        .tree()
        .structures(fields::file::ROW_GROUPS)
        .flat_map(|group| group.structures(fields::row_group::COLUMNS))
        .filter_map(|chunk| chunk.structure(fields::chunk::METADATA))
        .flat_map(|column| column.structures(fields::column::PAGE_ENCODINGS))
        .any(|pages| pages.integer(fields::page_encoding::TYPE) == Some(fields::page_encoding::DATA_V2));
    let mut builder = WriterProperties::builder()
        .set_writer_version(if second { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 })
        .set_dictionary_enabled(true)
        .set_encoding(Encoding::PLAIN)
        .set_compression(codec(metadata, settings)?)
        .set_statistics_enabled(if column_index { EnabledStatistics::Page } else { EnabledStatistics::Chunk })
        .set_offset_index_disabled(!column_index && !offset_index);
    for leaf in descriptor.columns() {
        if leaf.path().parts().first().is_some_and(|name| settings.bloom.contains(name)) {
            builder = builder
                .set_column_bloom_filter_enabled(leaf.path().clone(), true)
                .set_column_bloom_filter_max_ndv(leaf.path().clone(), most.max(1));
        }
    }
    Ok(builder.build())
}

/// The codec of the settings, or the one that most chunks of the source have.
fn codec(metadata: &ParquetMetaData, settings: &Settings) -> Result<Codec> {
    if let Some(compression) = &settings.compression {
        return compression.codec();
    }
    let mut votes = BTreeMap::<i32, (usize, CompressionCodec)>::new();
    for chunk in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let codec = chunk.compression_codec();
        votes.entry(codec as i32).or_insert((0, codec)).0 += 1;
    }
    // The first of equals, so that the answer does not depend on the order of the chunks.
    match votes.values().rev().max_by_key(|(count, _)| *count) {
        Some((_, CompressionCodec::LZO)) => {
            Err(Error::invalid("the source is compressed with LZO, which cannot be written")
                .hint("set the compression of the new columns"))
        }
        // Two framings go by the name of LZ4, and readers know one or the other; this one has a name of its own.
        Some((_, CompressionCodec::LZ4)) => Ok(Codec::LZ4_RAW),
        Some((_, codec)) => Ok(Codec::from(*codec)),
        None => Ok(Codec::SNAPPY),
    }
}

#[cfg(test)]
mod tests;
