//! Columns of real files, read from the named bytes alone and encoded again.

use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaDataReader;
use regraft::error::{Kind, Result};
use regraft::parquet::encode::{Encoder, Settings};
use regraft::parquet::{EncodedChunk, EncodedColumns, Field, File, Parsed, Ranges, RecordBatch, Schema, read};

use crate::parquet_footer::sample_files;

/// Every row group, from the bytes that were named for it and nothing else.
fn row_groups(file: &File, columns: &[String], bytes: &Bytes) -> Result<Vec<RecordBatch>> {
    read::ranges(file, columns)?
        .into_iter()
        .enumerate()
        .map(|(at, ranges)| {
            let parts =
                ranges.into_iter().map(|range| (range.clone(), bytes.slice(range.start as usize..range.end as usize)));
            read::batch(file, at, columns, &Ranges::new(parts)?)
        })
        .collect()
}

/// Every row group as the crate reads a whole file.
fn expected(file: &File, bytes: &Bytes) -> Option<Vec<RecordBatch>> {
    let options = || ArrowReaderOptions::new().with_schema(Arc::clone(file.schema()));
    (0..file.row_groups())
        .map(|at| {
            let rows = file.row_group_rows(at) as usize;
            let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options()).ok()?;
            let mut reader = reader.with_row_groups(vec![at]).with_batch_size(rows.max(1)).build().ok()?;
            reader.next().unwrap_or_else(|| Ok(RecordBatch::new_empty(Arc::clone(file.schema())))).ok()
        })
        .collect()
}

/// The pieces as a reader of their own footer sees them.
fn decode(encoded: &EncodedColumns) -> parquet::errors::Result<Vec<RecordBatch>> {
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(&encoded.footer)?);
    let schema = Arc::new(Schema::new(encoded.fields.clone()));
    let options = ArrowReaderOptions::new().with_schema(Arc::clone(&schema));
    let arrow = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options)?;
    let end = |chunk: &EncodedChunk| chunk.start as usize + chunk.bytes.len();
    let mut file = vec![0; encoded.row_groups.iter().flatten().map(end).max().unwrap_or(0)];
    for chunk in encoded.row_groups.iter().flatten() {
        file[chunk.start as usize..end(chunk)].copy_from_slice(&chunk.bytes);
    }
    let file = Bytes::from(file);
    (0..encoded.row_groups.len())
        .map(|at| {
            let rows = metadata.row_group(at).num_rows() as usize;
            let mut reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), arrow.clone())
                .with_row_groups(vec![at])
                .with_batch_size(rows.max(1))
                .build()?;
            Ok(reader.next().unwrap_or_else(|| Ok(RecordBatch::new_empty(Arc::clone(&schema))))?)
        })
        .collect()
}

#[test]
fn columns_of_real_files_are_read_and_encoded_again_without_a_change() {
    let (mut decoded, mut rewritten, mut refused) = (0, 0, 0);
    for path in sample_files() {
        let (name, bytes) = (path.display().to_string(), Bytes::from(std::fs::read(&path).unwrap()));
        let Ok(Parsed::File(file)) = File::parse(&name, bytes.len() as u64, &bytes) else { continue };
        let columns: Vec<String> = file.schema().fields().iter().map(|field| field.name().clone()).collect();
        let found = match row_groups(&file, &columns, &bytes) {
            Ok(found) => found,
            Err(error) => {
                assert!(expected(&file, &bytes).is_none(), "the crate reads it: {error}");
                assert!([Kind::Invalid, Kind::Corrupt].contains(&error.kind()), "{error}");
                println!("{error}\n");
                refused += 1;
                continue;
            }
        };
        let wanted = expected(&file, &bytes).unwrap_or_else(|| panic!("{name}: read where the crate does not"));
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_eq!(found.columns(), wanted.columns(), "{name}");
        }
        decoded += 1;
        let fields: Vec<Field> = file.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut encoder = match Encoder::new(&file, &fields, &Settings::default()) {
            Ok(encoder) => encoder,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Invalid, "{error}");
                println!("{name}: {error}\n");
                continue;
            }
        };
        for batch in &found {
            encoder.row_group(batch).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for (again, wanted) in decode(&encoder.finish().unwrap()).unwrap().iter().zip(&wanted) {
            for (again, wanted) in again.columns().iter().zip(wanted.columns()) {
                // Only the names inside of lists and maps may differ.
                assert!(again.data_type().equals_datatype(wanted.data_type()), "{name}");
                if again.data_type() == wanted.data_type() {
                    assert_eq!(again, wanted, "{name}");
                } else {
                    assert_eq!(again.len(), wanted.len(), "{name}");
                    assert_eq!(again.nulls(), wanted.nulls(), "{name}");
                }
            }
        }
        rewritten += 1;
    }
    println!("{decoded} files read, {refused} refused, {rewritten} encoded again");
}
