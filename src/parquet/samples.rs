//! Columns of every kind, for tests.

use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder, ListBuilder, MapBuilder, MapFieldNames,
    StringBuilder, StringDictionaryBuilder, StructBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array,
    LargeStringArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

/// Kinds that [`column`] knows.
pub(crate) const KINDS: usize = 17;

/// A column of `rows` values of a kind, which depend on `seed` alone; about one in five is null.
pub(crate) fn column(kind: usize, rows: usize, seed: u64) -> ArrayRef {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = move || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut some = || Some(next()).filter(|value| value % 5 != 0);
    let numbers: Vec<Option<u64>> = (0..rows).map(|_| some()).collect();
    let each = || numbers.iter().copied();
    let word = |value: u64| format!("word {}", value % 97);
    match kind {
        0 => Arc::new(each().map(|value| value.map(|value| value as i64)).collect::<Int64Array>()),
        1 => Arc::new(each().map(|value| value.map(|value| value as f64 / 7.0)).collect::<Float64Array>()),
        2 => Arc::new(each().map(|value| value.map(word)).collect::<StringArray>()),
        3 => Arc::new(each().map(|value| value.map(|value| value % 2 == 0)).collect::<BooleanArray>()),
        4 => Arc::new(
            each()
                .map(|value| value.map(|value| value as i128 - (1 << 40)))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(25, 3)
                .unwrap(),
        ),
        5 => Arc::new(
            each()
                .map(|value| value.map(|value| (value % (1 << 50)) as i64))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
        6 => Arc::new(each().map(|value| value.map(|value| (value % 40_000) as i32)).collect::<Date32Array>()),
        7 => Arc::new(each().map(|value| value.map(|value| value as u32)).collect::<UInt32Array>()),
        8 => Arc::new(each().map(|value| value.map(|value| value as i8)).collect::<Int8Array>()),
        9 => Arc::new(each().map(|value| value.map(|value| value as f32)).collect::<Float32Array>()),
        10 => Arc::new(each().map(|value| value.map(word)).collect::<LargeStringArray>()),
        11 => {
            let mut builder = BinaryBuilder::new();
            each().for_each(|value| builder.append_option(value.map(u64::to_le_bytes)));
            Arc::new(builder.finish())
        }
        12 => {
            let mut builder = FixedSizeBinaryBuilder::new(8);
            each().for_each(|value| match value {
                Some(value) => builder.append_value(value.to_le_bytes()).unwrap(),
                None => builder.append_null(),
            });
            Arc::new(builder.finish())
        }
        13 => {
            let mut builder = StringDictionaryBuilder::<Int32Type>::new();
            each().for_each(|value| builder.append_option(value.map(word)));
            Arc::new(builder.finish())
        }
        14 => {
            let element = Field::new("element", DataType::Float64, true);
            let mut builder = ListBuilder::new(Float64Builder::new()).with_field(element);
            each().for_each(|value| {
                builder.append_option(value.map(|value| {
                    (0..value % 4).map(move |at| (at != 2).then_some((value % 1000 + at) as f64)).collect::<Vec<_>>()
                }));
            });
            Arc::new(builder.finish())
        }
        15 => {
            let fields = [Field::new("number", DataType::Int64, true), Field::new("name", DataType::Utf8, true)];
            let mut builder = StructBuilder::from_fields(fields.to_vec(), rows);
            each().for_each(|value| {
                builder.field_builder::<Int64Builder>(0).unwrap().append_option(value.map(|value| value as i64));
                let name = value.filter(|value| value % 3 != 0).map(word);
                builder.field_builder::<StringBuilder>(1).unwrap().append_option(name);
                builder.append(value.is_some());
            });
            Arc::new(builder.finish())
        }
        _ => {
            let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
            let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), Int64Builder::new());
            each().for_each(|value| {
                for at in 0..value.unwrap_or(0) % 3 {
                    builder.keys().append_value(format!("key {at}"));
                    builder.values().append_option((at != 1).then_some(at as i64));
                }
                builder.append(value.is_some()).unwrap();
            });
            Arc::new(builder.finish())
        }
    }
}

/// Columns `c0`, `c1`, … of the given kinds.
pub(crate) fn batch(kinds: &[usize], rows: usize, seed: u64) -> RecordBatch {
    let arrays: Vec<ArrayRef> =
        kinds.iter().enumerate().map(|(at, &kind)| column(kind, rows, seed ^ at as u64)).collect();
    let fields: Vec<Field> = arrays
        .iter()
        .enumerate()
        .map(|(at, array)| Field::new(format!("c{at}"), array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// A file with one row group per batch.
pub(crate) fn file(batches: &[RecordBatch], properties: WriterProperties) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
        writer.flush().unwrap();
    }
    Bytes::from(writer.into_inner().unwrap())
}
