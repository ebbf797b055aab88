use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder as Oracle;
use parquet::basic::Compression;
use parquet::data_type::{Int96, Int96Type};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;
use crate::parquet::samples;

fn described(file: &Bytes) -> Described {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file).unwrap();
    Described::new(&Arc::new(metadata), None, file.len() as u64).unwrap()
}

/// Only the bytes that were asked for.
fn fetch(file: &Bytes, ranges: &[Range<u64>]) -> Ranges {
    Ranges::new(ranges.iter().map(|range| (range.clone(), file.slice(range.start as usize..range.end as usize))))
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_row_group_is_read_from_the_named_bytes_alone(
        kinds in prop::collection::vec(0..samples::KINDS, 1..6),
        rows in prop::collection::vec(1_usize..300, 1..4),
        seed: u64,
        first in 0_usize..6,
    ) {
        let batches: Vec<_> =
            rows.iter().enumerate().map(|(at, &rows)| samples::batch(&kinds, rows, seed ^ (at as u64) << 8)).collect();
        let file = samples::file(&batches, WriterProperties::builder().set_compression(Compression::SNAPPY).build());
        let described = described(&file);
        let wanted = [format!("c{}", kinds.len() - 1), format!("c{}", first % kinds.len())];
        let wanted = if wanted[0] == wanted[1] { &wanted[..1] } else { &wanted[..] };
        let ranges = described.ranges(wanted).unwrap();
        for (at, batch) in batches.iter().enumerate() {
            let found = described.batch(at, wanted, &fetch(&file, &ranges[at])).unwrap();
            prop_assert_eq!(found.num_columns(), wanted.len());
            for name in wanted {
                prop_assert_eq!(found.column_by_name(name), batch.column_by_name(name));
            }
        }
    }
}

#[test]
fn large_row_groups_come_as_one_batch() {
    let rows = STEP as usize + 17;
    let batch = samples::batch(&[0, 2], rows, 1);
    let file = samples::file(
        std::slice::from_ref(&batch),
        WriterProperties::builder().set_max_row_group_row_count(Some(rows)).build(),
    );
    let described = described(&file);
    let columns = described.names();
    let found = described.batch(0, &columns, &fetch(&file, &described.ranges(&columns).unwrap()[0])).unwrap();
    assert_eq!(found, batch);
}

#[test]
fn legacy_timestamps_are_nanoseconds() {
    let schema = Arc::new(parse_message_type("message legacy { required int96 time; }").unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let noon_of_the_second_day = Int96::from(vec![0x71d3_b000, 0x274d, 2_440_589]);
    column.typed::<Int96Type>().write_batch(&[noon_of_the_second_day], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let file = Bytes::from(writer.into_inner().unwrap());
    let described = described(&file);
    let columns = ["time".to_owned()];
    let found = described.batch(0, &columns, &fetch(&file, &described.ranges(&columns).unwrap()[0])).unwrap();
    let expected = Oracle::try_new(file).unwrap().build().unwrap().next().unwrap().unwrap();
    assert_eq!(found.column(0), expected.column(0));
    assert_eq!(found.schema().field(0).data_type().to_string(), "Timestamp(ns)");
}

#[test]
fn names_that_are_not_there_and_bytes_that_are_missing_are_told() {
    let file = samples::file(&[samples::batch(&[0, 1], 5, 0)], WriterProperties::default());
    let described = described(&file);
    let error = described.ranges(&["c2".to_owned()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a column `c2`, found none of this name\n\nhint: the columns are `c0`, `c1`"
    );
    let error = described.batch(0, &["c0".to_owned()], &Ranges::default()).unwrap_err();
    assert!(error.to_string().ends_with("the byte `4` was not fetched"), "{error}");
}

#[test]
fn damaged_pages_are_errors() {
    let batch = samples::batch(&[0, 2, 14, 15], 500, 3);
    let file = samples::file(
        std::slice::from_ref(&batch),
        WriterProperties::builder().set_compression(Compression::SNAPPY).build(),
    );
    let described = described(&file);
    let columns = described.names();
    let ranges = described.ranges(&columns).unwrap();
    for at in (4..file.len() / 2).step_by(11) {
        let mut bytes = file.to_vec();
        bytes[at] ^= 0x5a;
        // Wrong values or an error; the value of a byte without a checksum cannot be told.
        let _ = described.batch(0, &columns, &fetch(&Bytes::from(bytes), &ranges[0]));
    }
}
