//! Real Parquet files, widened and made contiguous: columns come, one is recast, one goes, one gets another name. The
//! reader of the crate `parquet` must find in them what it found before, and the new columns.

use std::sync::Arc;

use arrow_array::builder::{Float64Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use regraft::error::{Error, Kind, Result};
use regraft::parquet::encode::{Encoder, Settings};
use regraft::parquet::verify::{compare, kept_ranges};
use regraft::parquet::{Add, Change, Decision, EncodedColumns, File, Layout, Parsed, Ranges, decide, rewrite};
use regraft::parquet::{Column, indexes};
use regraft::store::Piece;

use super::parquet_footer::sample_files;

fn parsed(name: &str, bytes: &[u8]) -> Result<File> {
    match File::parse(name, bytes.len() as u64, bytes)? {
        Parsed::File(file) => Ok(file),
        Parsed::Needs(length) => panic!("`{name}` whole, and `{length}` bytes are needed"),
    }
}

/// All rows as the crate's reader sees them; page indexes are used where there are some.
fn read(bytes: &Bytes, arrow_schema: bool) -> std::result::Result<Vec<RecordBatch>, String> {
    let options = ArrowReaderOptions::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .with_skip_arrow_metadata(!arrow_schema);
    let read = || -> std::result::Result<Vec<RecordBatch>, String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options)
            .map_err(|error| error.to_string())?;
        let reader = builder.with_batch_size(1 << 20).build().map_err(|error| error.to_string())?;
        reader.map(|batch| batch.map_err(|error| error.to_string())).collect()
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| Err("panic".into()))
}

fn new_fields() -> Vec<Field> {
    let inner: Fields = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)].into();
    let element = Field::new("element", DataType::Float64, true);
    vec![
        Field::new("regraft_x", DataType::Float64, true),
        Field::new("regraft_s", DataType::Utf8, true),
        Field::new("regraft_list", DataType::List(Arc::new(element)), true),
        Field::new("regraft_struct", DataType::Struct(inner), true),
    ]
}

/// The rows `from..to` of a new column.
fn values(field: &Field, from: u64, to: u64) -> ArrayRef {
    match field.data_type() {
        DataType::Float64 => Arc::new(
            (from..to)
                .map(|row| (!row.is_multiple_of(7)).then_some(row as f64 / 2.0))
                .collect::<arrow_array::Float64Array>(),
        ),
        DataType::Int64 => Arc::new((from..to).map(|row| Some(row as i64)).collect::<arrow_array::Int64Array>()),
        DataType::Utf8 => {
            let word = |row: u64| (!row.is_multiple_of(11)).then(|| format!("word {}", row % 13));
            Arc::new((from..to).map(word).collect::<arrow_array::StringArray>())
        }
        DataType::List(element) => {
            let mut builder = ListBuilder::new(Float64Builder::new()).with_field(Arc::clone(element));
            for row in from..to {
                builder.append_option(
                    (!row.is_multiple_of(5))
                        .then(|| [Some(row as f64), None, Some(0.5)].into_iter().take((row % 4) as usize)),
                );
            }
            Arc::new(builder.finish())
        }
        DataType::Struct(fields) => {
            let mut builder = StructBuilder::from_fields(fields.clone(), 0);
            for row in from..to {
                let (number, text) = (builder.field_builder::<Int64Builder>(0), !row.is_multiple_of(3));
                number.expect("a is a number").append_option((!row.is_multiple_of(6)).then_some(row as i64));
                let word = text.then(|| format!("b{row}"));
                builder.field_builder::<StringBuilder>(1).expect("b is a text").append_option(word);
                builder.append(!row.is_multiple_of(9));
            }
            Arc::new(builder.finish())
        }
        other => panic!("no values of type {other}"),
    }
}

fn encoded(file: &File, fields: &[Field]) -> Result<EncodedColumns> {
    let mut encoder = Encoder::new(file, fields, &Settings::default())?;
    let mut row = 0;
    for row_group in 0..file.row_groups() {
        let end = row + file.row_group_rows(row_group);
        let arrays = fields.iter().map(|field| values(field, row, end)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), arrays)
            .map_err(|error| Error::internal(error.to_string()))?;
        encoder.row_group(&batch)?;
        row = end;
    }
    encoder.finish()
}

/// Page indexes and bloom filters: kept ones as they were, and all of them true where those of the file before are.
fn indexes_are_true(name: &str, (old, before): (&File, &Bytes), (new, after): (&File, &Bytes), change: &Change) {
    let read = |file: &File, bytes: &Bytes| {
        let slice = |range: &std::ops::Range<u64>| bytes.slice(range.start as usize..range.end as usize);
        Ranges::new(indexes::ranges(file).into_iter().map(|range| (range.clone(), slice(&range)))).expect("ranges")
    };
    let (was, is) = (read(old, before), read(new, after));
    assert_eq!(indexes::compare(old, &was, new, &is, change).expect("compared"), [], "{name}");
    let leaves = |file: &File| 0..file.columns().len();
    let mut wrong = indexes::check(old, &was, leaves(old)).expect("checked");
    for finding in &wrong {
        println!("{name}, before: {}", finding.message);
    }
    let paths = |columns: &[Column]| columns.iter().map(|column| column.path.clone()).collect::<Vec<_>>();
    let known = paths(old.columns());
    let added = leaves(new).filter(|leaf| !known.contains(&new.columns()[*leaf].path) && wrong.is_empty());
    wrong = indexes::check(new, &is, if wrong.is_empty() { leaves(new).collect() } else { added.collect::<Vec<_>>() })
        .expect("checked");
    assert_eq!(wrong, [], "{name}");
    for (leaf, column) in new.columns().iter().enumerate() {
        for (row_group, chunk) in column.chunks.iter().enumerate() {
            let bytes = after.slice(chunk.range.start as usize..chunk.range.end as usize);
            let found = indexes::check_pages(new, &is, row_group, leaf, &bytes).expect("checked");
            assert_eq!(found, None, "{name}");
        }
    }
}

fn changed(name: &str, old: &Bytes, change: &Change, layout: Layout) -> Result<(Bytes, Decision)> {
    let file = parsed(name, old)?;
    let fields: Vec<Field> = change.adds.iter().map(|add| add.field.clone()).collect();
    let new = encoded(&file, &fields)?;
    let slice = |range: &std::ops::Range<u64>| old.slice(range.start as usize..range.end as usize);
    let indexes = Ranges::new(file.index_ranges().into_iter().map(|range| (range.clone(), slice(&range))))?;
    let decision = decide(&file, change, new.bytes(), layout)?;
    let mut content = Vec::new();
    for piece in rewrite(&file, &indexes, change, new, &decision)? {
        match piece {
            Piece::Copy(range) => content.extend_from_slice(&slice(&range)),
            Piece::Bytes(bytes) => content.extend_from_slice(&bytes),
        }
    }
    let content = Bytes::from(content);
    let result = parsed(name, &content)?;
    assert_eq!(compare(&file, &result, change)?, [], "{name}");
    indexes_are_true(name, (&file, old), (&result, &content), change);
    for kept in kept_ranges(&file, &result, change, decision.layout)? {
        let new = content.slice(kept.new.start as usize..kept.new.end as usize);
        assert_eq!(new, slice(&kept.old), "{name}");
    }
    if decision.layout == Layout::Widened {
        assert!(content.starts_with(old), "{name}");
    }
    Ok((content, decision))
}

/// What the change of names leaves of `old` must be in `new`; then come the values of new columns.
fn assert_same(name: &str, old: &[RecordBatch], new: &[RecordBatch], change: &Change) {
    let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
    assert_eq!(rows(old), rows(new), "{name}");
    let mut row = 0;
    for (old, new) in old.iter().zip(new) {
        let end = row + new.num_rows() as u64;
        for (at, field) in old.schema().fields().iter().enumerate() {
            let replaced = |add: &Add| add.replaces.as_deref() == Some(field.name());
            if change.drops.contains(field.name()) || change.adds.iter().any(replaced) {
                continue;
            }
            let renamed =
                change.renames.iter().find(|(from, _)| from == field.name()).map_or(field.name(), |(_, to)| to);
            let column = new.column_by_name(renamed).unwrap_or_else(|| panic!("{name}: no column `{renamed}`"));
            assert_eq!(column, old.column(at), "{name}: column `{renamed}`");
        }
        for add in &change.adds {
            let column = new.column_by_name(add.field.name()).unwrap_or_else(|| panic!("{name}: {add:?}"));
            assert_eq!(column, &values(&add.field, row, end), "{name}: column `{}`", add.field.name());
        }
        row = end;
    }
}

#[test]
fn real_files_are_migrated_or_refused_and_read_as_before() {
    let (mut migrated, mut compared) = (0, 0);
    for path in sample_files() {
        let name = path.display().to_string();
        let bytes = Bytes::from(std::fs::read(&path).expect("a sample file can be read"));
        let Ok(file) = parsed(&name, &bytes) else { continue };
        // Where `ARROW:schema` contradicts the file, the reader refuses the original.
        let before = read(&bytes, true);
        let adds: Vec<Add> = new_fields().into_iter().map(|field| Add { field, replaces: None }).collect();
        let change = Change { adds, key_values: vec![("version".into(), Some("2".into()))], ..Change::default() };
        let names: Vec<String> = file.roots().iter().map(|root| root.name.clone()).collect();
        let mut next = Change { key_values: vec![("version".into(), Some("3".into()))], ..Change::default() };
        if names.len() > 2 {
            next.drops.push(names[1].clone());
        }
        next.renames.push((names[names.len() - 1].clone(), "regraft renamed".into()));
        next.adds
            .push(Add { field: Field::new("regraft_x", DataType::Int64, true), replaces: Some("regraft_x".into()) });
        next.adds.push(Add { field: Field::new("regraft_y", DataType::Float64, true), replaces: None });
        for layout in [Layout::Widened, Layout::Contiguous] {
            let (first, decision) = match changed(&name, &bytes, &change, layout) {
                Ok(changed) => changed,
                Err(error) => {
                    assert!([Kind::Invalid, Kind::Corrupt].contains(&error.kind()), "{error}");
                    println!("{error}\n");
                    continue;
                }
            };
            assert_eq!(decision.layout, layout, "{name}: {}", decision.reason);
            let (second, _) = changed(&name, &first, &next, layout).unwrap_or_else(|error| panic!("{error}"));
            migrated += 1;
            let (Ok(before), true) =
                (&before, names.iter().collect::<std::collections::HashSet<_>>().len() == names.len())
            else {
                continue;
            };
            let after = read(&first, true).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_same(&name, before, &after, &change);
            let last = read(&second, true).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_same(&name, &after, &last, &next);
            compared += 1;
        }
    }
    println!("{migrated} rewritten, {compared} compared");
}
