use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Int64Array, StringArray};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use proptest::prelude::*;

use super::*;
use crate::parquet::read::Described;
use crate::parquet::{Parsed, Ranges, samples, thrift};

fn parsed(file: &Bytes) -> File {
    match File::parse("source.parquet", file.len() as u64, file).unwrap() {
        Parsed::File(file) => file,
        Parsed::Needs(more) => panic!("{more}"),
    }
}

fn encode(source: &Bytes, batches: &[RecordBatch], settings: &Settings) -> Result<EncodedColumns> {
    let fields: Vec<Field> = batches[0].schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut encoder = Encoder::new(&parsed(source), &fields, settings)?;
    for batch in batches {
        encoder.row_group(batch)?;
    }
    encoder.finish()
}

/// Decodes the pieces where their own footer says they are.
fn decode(encoded: &EncodedColumns) -> Vec<RecordBatch> {
    let metadata = Arc::new(ParquetMetaDataReader::decode_metadata(&encoded.footer).unwrap());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(encoded.fields.clone())));
    ArrowReaderMetadata::try_new(Arc::clone(&metadata), options).unwrap();
    let schema = Arc::new(Schema::new(encoded.fields.clone()));
    let described = Described::new(&metadata, Some(&schema), u64::MAX).unwrap();
    let names = described.names();
    (0..encoded.row_groups.len())
        .map(|at| {
            let parts = encoded.row_groups[at]
                .iter()
                .map(|chunk| (chunk.start..chunk.start + chunk.bytes.len() as u64, chunk.bytes.clone()));
            described.batch(at, &names, &Ranges::new(parts).unwrap()).unwrap()
        })
        .collect()
}

fn source(rows: &[usize], properties: WriterProperties) -> Bytes {
    samples::file(&rows.iter().map(|&rows| samples::batch(&[0, 2], rows, 7)).collect::<Vec<_>>(), properties)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_is_encoded_is_decoded(
        kinds in prop::collection::vec(0..samples::KINDS, 1..6),
        rows in prop::collection::vec(1_usize..300, 1..4),
        seed: u64,
        pages: bool,
    ) {
        let statistics = if pages { EnabledStatistics::Page } else { EnabledStatistics::Chunk };
        let source = source(
            &rows,
            WriterProperties::builder().set_statistics_enabled(statistics).set_offset_index_disabled(!pages).build(),
        );
        let batches: Vec<_> =
            rows.iter().enumerate().map(|(at, &rows)| samples::batch(&kinds, rows, seed ^ (at as u64) << 8)).collect();
        let encoded = encode(&source, &batches, &Settings { bloom: vec!["c0".to_owned()], ..Settings::default() }).unwrap();
        prop_assert_eq!(encoded.row_groups.len(), rows.len());
        for (found, expected) in decode(&encoded).iter().zip(&batches) {
            prop_assert_eq!(found, expected);
        }
        for (leaf, chunk) in encoded.row_groups[0].iter().enumerate() {
            prop_assert_eq!(chunk.column_index.is_some(), pages);
            prop_assert_eq!(chunk.offset_index.is_some(), pages);
            // Parquet has no bloom filters of booleans.
            prop_assert!(leaf > 0 || chunk.bloom_filter.is_some() || kinds[0] == 3);
        }
        let again = encode(&source, &batches, &Settings { bloom: vec!["c0".to_owned()], ..Settings::default() }).unwrap();
        prop_assert_eq!(again.footer, encoded.footer);
        for (again, first) in again.row_groups.iter().flatten().zip(encoded.row_groups.iter().flatten()) {
            prop_assert_eq!(&again.bytes, &first.bytes);
        }
    }
}

#[test]
fn inner_fields_get_the_names_of_the_specification() {
    let mut lists = ListBuilder::new(Int64Builder::new());
    lists.append_value([Some(1), None]);
    let lists: arrow_array::ArrayRef = Arc::new(lists.finish());
    let batch = RecordBatch::try_from_iter_with_nullable([("l", lists, true)]).unwrap();
    assert_eq!(batch.schema().field(0).data_type().to_string(), "List(Int64)");
    let encoded =
        encode(&source(&[1], WriterProperties::default()), std::slice::from_ref(&batch), &Settings::default()).unwrap();
    assert_eq!(encoded.fields[0].data_type().to_string(), "List(Int64, field: 'element')");
    let found = decode(&encoded)[0].column(0).clone();
    assert_eq!(found.as_list::<i32>().value(0).as_ref(), batch.column(0).as_list::<i32>().value(0).as_ref());
}

#[test]
fn row_groups_without_rows_are_kept() {
    let empty = samples::batch(&[0, 2, 14], 0, 1);
    let mut writer = SerializedFileWriter::new(
        Vec::new(),
        ArrowSchemaConverter::new().convert(&empty.schema()).unwrap().root_schema_ptr(),
        Arc::default(),
    )
    .unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(column) = group.next_column().unwrap() {
        column.close().unwrap();
    }
    group.close().unwrap();
    let source = Bytes::from(writer.into_inner().unwrap());
    let encoded = encode(&source, std::slice::from_ref(&empty), &Settings::default()).unwrap();
    assert_eq!(encoded.row_groups.len(), 1);
    assert_eq!(decode(&encoded)[0].num_rows(), 0);
}

#[test]
fn the_codec_is_that_of_most_chunks_or_the_one_configured() {
    let codec = |properties, settings: &Settings| {
        let encoded = encode(&source(&[50], properties), &[samples::batch(&[0], 50, 1)], settings).unwrap();
        ParquetMetaDataReader::decode_metadata(&encoded.footer).unwrap().row_group(0).column(0).compression_codec()
    };
    let with = |codec| WriterProperties::builder().set_compression(codec).build();
    let own = Settings::default();
    assert_eq!(codec(with(Codec::LZ4_RAW), &own), CompressionCodec::LZ4_RAW);
    assert_eq!(codec(with(Codec::ZSTD(ZstdLevel::default())), &own), CompressionCodec::ZSTD);
    assert_eq!(codec(with(Codec::UNCOMPRESSED), &own), CompressionCodec::UNCOMPRESSED);
    let brotli = Compression { name: "brotli".to_owned(), level: Some(4) };
    let configured = Settings { compression: Some(brotli), ..Settings::default() };
    assert_eq!(codec(with(Codec::SNAPPY), &configured), CompressionCodec::BROTLI);
    for (name, level) in
        [("snappy", Some(1)), ("gzip", Some(-1)), ("gzip", Some(10)), ("zstd", Some(40)), ("lzo", None)]
    {
        let error = Compression { name: name.to_owned(), level }.codec().unwrap_err();
        assert!(error.message().contains(name), "{error}");
    }
}

#[test]
fn the_version_of_data_pages_is_that_of_the_source() {
    for (version, expected) in [(WriterVersion::PARQUET_1_0, false), (WriterVersion::PARQUET_2_0, true)] {
        let source = source(&[50], WriterProperties::builder().set_writer_version(version).build());
        let encoded = encode(&source, &[samples::batch(&[0], 50, 1)], &Settings::default()).unwrap();
        let (footer, _) = thrift::Struct::read(&encoded.footer).unwrap();
        let group = footer.structures(fields::file::ROW_GROUPS).next().unwrap();
        let chunk = group.structures(fields::row_group::COLUMNS).next().unwrap();
        let column = chunk.structure(fields::chunk::METADATA).unwrap();
        let types: Vec<_> = column
            .structures(fields::column::PAGE_ENCODINGS)
            .map(|pages| pages.integer(fields::page_encoding::TYPE))
            .collect();
        assert_eq!(types.contains(&Some(fields::page_encoding::DATA_V2)), expected, "{types:?}");
    }
}

#[test]
fn what_parquet_cannot_hold_is_refused_by_name() {
    let source = source(&[3], WriterProperties::default());
    let seconds = DataType::Timestamp(arrow_schema::TimeUnit::Second, None);
    let inside = DataType::Struct(vec![Field::new("at", seconds, true)].into());
    let error = Encoder::new(&parsed(&source), &[Field::new("when", inside, true)], &Settings::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `when`: field `at`: Parquet cannot hold the type `Timestamp(s)`\n\nhint: cast it to milliseconds"
    );
}

#[test]
fn other_columns_than_announced_are_refused() {
    let source = source(&[3], WriterProperties::default());
    let field = Field::new("n", DataType::Int64, false);
    let text = |error: Error| error.to_string();
    let attempt = |name: &str, array: arrow_array::ArrayRef| {
        let mut encoder = Encoder::new(&parsed(&source), std::slice::from_ref(&field), &Settings::default()).unwrap();
        encoder.row_group(&RecordBatch::try_from_iter_with_nullable([(name, array, true)]).unwrap()).map_err(text)
    };
    let numbers = |values: Vec<Option<i64>>| -> arrow_array::ArrayRef { Arc::new(Int64Array::from(values)) };
    assert_eq!(attempt("n", numbers(vec![Some(1); 3])), Ok(()));
    let refused = |answer: Result<(), String>| answer.unwrap_err();
    assert_eq!(refused(attempt("n", numbers(vec![Some(1); 2]))), "expected `3` rows for row group `0`, found `2`");
    assert_eq!(refused(attempt("m", numbers(vec![Some(1); 3]))), "expected the column `n`, found `m`");
    let words: arrow_array::ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    assert_eq!(refused(attempt("n", words)), "column `n`: expected type `Int64`, found `Utf8`");
    let gap = numbers(vec![Some(1), None, Some(3)]);
    assert_eq!(refused(attempt("n", gap)), "column `n`: expected a value in every row, found `1` nulls");
    let encoder = Encoder::new(&parsed(&source), std::slice::from_ref(&field), &Settings::default()).unwrap();
    assert!(encoder.finish().is_err());
}
