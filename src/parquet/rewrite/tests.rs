//! Rewritten files, read back by the reader of the crate.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, ReaderProperties, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader, SerializedRowGroupReader};
use proptest::prelude::*;

use super::*;
use crate::parquet::encode::{Encoder, Settings};
use crate::parquet::verify::{self, FindingKind};
use crate::parquet::{Add, Parsed, decide, samples};

fn parsed(bytes: &Bytes) -> File {
    match File::parse("a.parquet", bytes.len() as u64, bytes).unwrap() {
        Parsed::File(file) => file,
        Parsed::Needs(more) => panic!("{more}"),
    }
}

fn fetched(bytes: &Bytes, file: &File) -> Ranges {
    let ranges = file.index_ranges();
    Ranges::new(ranges.into_iter().map(|range| (range.clone(), bytes.slice(range.start as usize..range.end as usize))))
        .unwrap()
}

fn glued(old: &Bytes, pieces: &[Piece]) -> Bytes {
    let mut content = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Copy(range) => content.extend_from_slice(&old[range.start as usize..range.end as usize]),
            Piece::Bytes(bytes) => content.extend_from_slice(bytes),
        }
    }
    content.into()
}

fn encoded(file: &File, fields: &[Field], batches: &[RecordBatch], bloom: &[String]) -> EncodedColumns {
    if fields.is_empty() {
        return EncodedColumns { fields: Vec::new(), footer: Bytes::new(), row_groups: Vec::new() };
    }
    let settings = Settings { bloom: bloom.to_vec(), ..Settings::default() };
    let mut encoder = Encoder::new(file, fields, &settings).unwrap();
    for batch in batches {
        encoder.row_group(batch).unwrap();
    }
    encoder.finish().unwrap()
}

/// The file after `change`, the new columns of which are `new`, one batch for each row group.
fn changed(old: &Bytes, change: &Change, new: &[RecordBatch], layout: Layout, bloom: &[String]) -> (Bytes, Decision) {
    let file = parsed(old);
    let fields: Vec<Field> = change.adds.iter().map(|add| add.field.clone()).collect();
    let new = encoded(&file, &fields, new, bloom);
    let decision = decide(&file, change, new.bytes(), layout).unwrap();
    let pieces = rewrite(&file, &fetched(old, &file), change, new, &decision).unwrap();
    let result = glued(old, &pieces);
    let new = parsed(&result);
    assert_eq!(verify::compare(&file, &new, change).unwrap(), []);
    let kept = verify::kept_ranges(&file, &new, change, decision.layout).unwrap();
    for kept in &kept {
        let of = |bytes: &Bytes, range: &std::ops::Range<u64>| bytes.slice(range.start as usize..range.end as usize);
        assert_eq!(of(old, &kept.old), of(&result, &kept.new));
    }
    if decision.layout == Layout::Widened {
        assert!(result.starts_with(old));
    }
    (result, decision)
}

/// All row groups, read with page indexes where there are some; `skip` rows are skipped by them.
fn read(bytes: &Bytes, skip: usize) -> Vec<RecordBatch> {
    let options = || ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options()).unwrap();
    let groups = builder.metadata().num_row_groups();
    (0..groups)
        .map(|group| {
            let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options()).unwrap();
            let rows = builder.metadata().row_group(group).num_rows() as usize;
            let skip = skip.min(rows);
            let selection = RowSelection::from(vec![RowSelector::skip(skip), RowSelector::select(rows - skip)]);
            let schema = Arc::clone(builder.schema());
            let reader = builder.with_row_groups(vec![group]).with_row_selection(selection).build().unwrap();
            let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
            arrow_select::concat::concat_batches(&schema, &batches).unwrap()
        })
        .collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap_or_else(|| panic!("no column `{name}` in {:?}", batch.schema()))
}

/// How many chunks have a bloom filter that can be read.
fn bloom_filters(bytes: &Bytes) -> usize {
    let options = ReadOptionsBuilder::new().build();
    let reader = SerializedFileReader::new_with_options(bytes.clone(), options).unwrap();
    let properties = Arc::new(ReaderProperties::builder().set_read_bloom_filter(true).build());
    let mut found = 0;
    for group in 0..reader.num_row_groups() {
        let metadata = reader.metadata().row_group(group);
        let group =
            SerializedRowGroupReader::new(Arc::new(bytes.clone()), metadata, None, Arc::clone(&properties)).unwrap();
        found += (0..metadata.num_columns()).filter(|&leaf| group.get_column_bloom_filter(leaf).is_some()).count();
    }
    found
}

#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "four ways in which files differ")]
struct Source {
    pages: bool,
    bloom: bool,
    dictionary: bool,
    arrow: bool,
}

fn source(kinds: &[usize], rows: &[usize], seed: u64, how: Source) -> (Bytes, Vec<RecordBatch>) {
    let batches: Vec<_> =
        rows.iter().enumerate().map(|(at, &rows)| samples::batch(kinds, rows, seed ^ (at as u64) << 8)).collect();
    let properties = WriterProperties::builder()
        .set_statistics_enabled(if how.pages { EnabledStatistics::Page } else { EnabledStatistics::Chunk })
        .set_offset_index_disabled(!how.pages)
        .set_bloom_filter_enabled(how.bloom)
        .set_dictionary_enabled(how.dictionary)
        .set_data_page_row_count_limit(37)
        .set_write_batch_size(16)
        .build();
    let mut bytes = samples::file(&batches, properties);
    if !how.arrow {
        // As a writer that knows nothing of Arrow.
        let file = parsed(&bytes);
        let mut tree = file.tree().clone();
        tree.remove(ids::KEY_VALUES);
        let footer = tree.to_bytes();
        let mut content = bytes[..file.footer_start() as usize].to_vec();
        content.extend_from_slice(&footer);
        content.extend((footer.len() as u32).to_le_bytes());
        content.extend(b"PAR1");
        bytes = content.into();
    }
    (bytes, batches)
}

/// Named batches of new columns, one for each row group.
fn additions(names: &[&str], kinds: &[usize], rows: &[usize], seed: u64) -> Vec<RecordBatch> {
    rows.iter()
        .enumerate()
        .map(|(at, &rows)| {
            let batch = samples::batch(kinds, rows, seed ^ (at as u64) << 16);
            let fields: Vec<Field> = batch
                .schema()
                .fields()
                .iter()
                .zip(names)
                .map(|(field, name)| field.as_ref().clone().with_name(*name))
                .collect();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap()
        })
        .collect()
}

fn add(batch: &RecordBatch, at: usize, replaces: Option<&str>) -> Add {
    Add { field: batch.schema().field(at).clone(), replaces: replaces.map(str::to_owned) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("REGRAFT_LONG").is_some() { 2000 } else { 60 }))]
    #[test]
    fn any_change_in_any_layout_reads_back(
        kinds in prop::collection::vec(0..samples::KINDS, 5..8),
        new_kinds in prop::collection::vec(0..samples::KINDS, 3),
        rows in prop::collection::vec(1_usize..200, 1..4),
        seed: u64,
        (pages, bloom, dictionary, arrow) in any::<(bool, bool, bool, bool)>(),
        first in prop::sample::select(vec![Layout::Auto, Layout::Widened, Layout::Contiguous]),
        second in prop::sample::select(vec![Layout::Auto, Layout::Widened, Layout::Contiguous]),
        recast in 0_usize..5,
    ) {
        let how = Source { pages, bloom, dictionary, arrow };
        let (bytes, _) = source(&kinds, &rows, seed, how);
        // What the reader says before, not what was written: without `ARROW:schema` types differ.
        let before = read(&bytes, 0);

        // Two columns come, one of them with a bloom filter; then one is recast, one dropped, one renamed, one comes.
        let new = additions(&["x", "y"], &new_kinds[..2], &rows, seed ^ 1);
        let change = Change { adds: vec![add(&new[0], 0, None), add(&new[0], 1, None)], ..Change::default() };
        let (widened, _) = changed(&bytes, &change, &new, first, &["x".into()]);
        let middle = read(&widened, 0);
        for (group, batch) in middle.iter().enumerate() {
            for field in before[group].schema().fields() {
                prop_assert_eq!(column(batch, field.name()), column(&before[group], field.name()));
            }
            if arrow {
                prop_assert_eq!(column(batch, "x"), column(&new[group], "x"));
                prop_assert_eq!(column(batch, "y"), column(&new[group], "y"));
            }
        }
        let skipped = read(&widened, 40);
        for (batch, whole) in skipped.iter().zip(&middle) {
            let skip = 40.min(whole.num_rows());
            prop_assert_eq!(batch, &whole.slice(skip, whole.num_rows() - skip));
        }

        let recast_name = format!("c{recast}");
        let others: Vec<String> = (0..kinds.len()).filter(|&at| at != recast).map(|at| format!("c{at}")).collect();
        let newer = additions(&[&recast_name, "z"], &new_kinds[1..], &rows, seed ^ 2);
        let change = Change {
            drops: vec![others[0].clone(), "x".into()],
            renames: vec![(others[1].clone(), "renamed".into())],
            adds: vec![add(&newer[0], 0, Some(&recast_name)), add(&newer[0], 1, None)],
            key_values: vec![("version".into(), Some("3".into()))],
        };
        let (result, decision) = changed(&widened, &change, &newer, second, &[]);
        let first_leaf_stays = recast > 1;
        prop_assert_eq!(
            decision.layout == Layout::Widened, second != Layout::Contiguous && first_leaf_stays, "{}", decision.reason
        );
        let after = read(&result, 0);
        for (group, batch) in after.iter().enumerate() {
            for name in &others[2..] {
                prop_assert_eq!(column(batch, name), column(&before[group], name));
            }
            prop_assert_eq!(column(batch, "renamed"), column(&before[group], &others[1]));
            prop_assert_eq!(column(batch, "y"), column(&middle[group], "y"));
            if arrow {
                prop_assert_eq!(column(batch, &recast_name), column(&newer[group], &recast_name));
                prop_assert_eq!(column(batch, "z"), column(&newer[group], "z"));
            }
            prop_assert!(batch.column_by_name(&others[0]).is_none() && batch.column_by_name("x").is_none());
            let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            let mut expected: Vec<String> = (0..kinds.len()).map(|at| format!("c{at}")).collect();
            expected.retain(|name| *name != others[0]);
            expected.iter_mut().filter(|name| **name == others[1]).for_each(|name| *name = "renamed".into());
            expected.extend(["y".into(), "z".into()]);
            prop_assert_eq!(names, expected);
        }
        let skipped = read(&result, 40);
        for (batch, whole) in skipped.iter().zip(&after) {
            let skip = 40.min(whole.num_rows());
            prop_assert_eq!(batch, &whole.slice(skip, whole.num_rows() - skip));
        }
        let file = parsed(&result);
        prop_assert_eq!(file.key_value("version"), Some("3"));
        let original = parsed(&bytes);
        prop_assert_eq!(file.created_by(), original.created_by());
        prop_assert_eq!(lost_row_group(&file), None);
        prop_assert_eq!(file.key_value(key_values::ARROW_SCHEMA).is_some(), arrow);
        prop_assert_eq!(file.schema_fault(), None);
        if decision.layout == Layout::Contiguous {
            let live: u64 = file.live_ranges().iter().map(|range| range.end - range.start).sum();
            prop_assert_eq!(live + 4 + file.footer_length() + TAIL, file.length());
        }
        let expected = parsed(&widened).columns().iter().filter(|column| ![others[0].as_str(), "x", &recast_name].contains(&column.name()))
            .flat_map(|column| &column.chunks).filter(|chunk| chunk.bloom_filter.is_some()).count();
        prop_assert_eq!(bloom_filters(&result), expected);
    }
}

#[test]
fn a_tail_as_first_leaf_falls_back_to_contiguous() {
    let how = Source { pages: false, bloom: false, dictionary: true, arrow: true };
    let rows = [5000, 5000, 5000];
    let (bytes, _) = source(&[0, 1, 1], &rows, 5, how);
    let new = additions(&["c0"], &[1], &rows, 6);
    let change = Change { adds: vec![add(&new[0], 0, Some("c0"))], ..Change::default() };
    for wanted in [Layout::Auto, Layout::Widened] {
        let decision = decide(&parsed(&bytes), &change, 3000, wanted).unwrap();
        assert_eq!(decision.layout, Layout::Contiguous);
        assert!(decision.reason.contains("the first leaf is recast (`c0`)"), "{}", decision.reason);
    }
    // Widened all the same, a check finds the row group that Spark would lose.
    let file = parsed(&bytes);
    let decision =
        Decision { layout: Layout::Widened, reason: String::new(), dead_bytes: 0, copied_bytes: 0, notes: Vec::new() };
    let new = encoded(&file, &[change.adds[0].field.clone()], &new, &[]);
    let error = rewrite(&file, &fetched(&bytes, &file), &change, new, &decision).unwrap_err();
    assert!(error.message().contains("has its midpoint past the end of the file"), "{error}");
}

#[test]
fn absent_stays_absent_and_unknown_stays() {
    let how = Source { pages: false, bloom: false, dictionary: true, arrow: false };
    let (bytes, _) = source(&[0, 2], &[50], 5, how);
    let file = parsed(&bytes);
    // No column orders, no totals, a field of tomorrow, a sorted row group, key-values of a column.
    let mut tree = file.tree().clone();
    tree.remove(ids::COLUMN_ORDERS);
    tree.set(77, crate::parquet::thrift::Value::text("tomorrow"));
    let mut groups: Vec<Struct> = tree.structures(ids::ROW_GROUPS).cloned().collect();
    groups[0].remove(row_group::COMPRESSED_BYTES);
    groups[0].remove(row_group::FILE_OFFSET);
    let sorted = |leaf: i32| {
        use crate::parquet::thrift::Value;
        [(1, Value::I32(leaf)), (2, Value::Bool(false)), (3, Value::Bool(true))].into_iter().collect::<Struct>()
    };
    groups[0].set_structures(row_group::SORTING_COLUMNS, [sorted(1), sorted(0)]);
    tree.set_structures(ids::ROW_GROUPS, groups);
    let footer = tree.to_bytes();
    let mut content = bytes[..file.footer_start() as usize].to_vec();
    content.extend_from_slice(&footer);
    content.extend((footer.len() as u32).to_le_bytes());
    content.extend(b"PAR1");
    let bytes = Bytes::from(content);

    let new = additions(&["x"], &[1], &[50], 6);
    let change = Change { adds: vec![add(&new[0], 0, None)], ..Change::default() };
    for layout in [Layout::Widened, Layout::Contiguous] {
        let (result, _) = changed(&bytes, &change, &new, layout, &[]);
        let result = parsed(&result);
        assert_eq!(result.tree().get(ids::COLUMN_ORDERS), None);
        assert_eq!(result.tree().get(ids::KEY_VALUES), None);
        assert_eq!(result.tree().text(77), Some("tomorrow"));
        let group = result.tree().structures(ids::ROW_GROUPS).next().unwrap();
        assert_eq!(group.get(row_group::COMPRESSED_BYTES), None);
        assert_eq!(group.structures(row_group::SORTING_COLUMNS).count(), 2);
    }
    // Sorted by c1, then c0: without c0 still by c1, which is leaf 0 now.
    let change = Change { drops: vec!["c0".into()], ..Change::default() };
    let (result, _) = changed(&bytes, &change, &[], Layout::Auto, &[]);
    let result = parsed(&result);
    let group = result.tree().structures(ids::ROW_GROUPS).next().unwrap();
    let sorting: Vec<_> = group.structures(row_group::SORTING_COLUMNS).map(|column| column.integer(1)).collect();
    assert_eq!(sorting, [Some(0)]);
    let change = Change { drops: vec!["c1".into()], ..Change::default() };
    let (result, _) = changed(&bytes, &change, &[], Layout::Auto, &[]);
    let group = parsed(&result).tree().structures(ids::ROW_GROUPS).next().unwrap().clone();
    assert_eq!(group.get(row_group::SORTING_COLUMNS), None);
}

#[test]
fn a_change_that_does_not_fit_is_refused() {
    let how = Source { pages: false, bloom: false, dictionary: true, arrow: true };
    let file = parsed(&source(&[0, 1], &[10], 5, how).0);
    let field = |name: &str| Field::new(name, DataType::Int64, true);
    let adds =
        |name: &str, replaces: Option<&str>| vec![Add { field: field(name), replaces: replaces.map(Into::into) }];
    let none = Change::default();
    let both = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    for (change, expected) in [
        (Change { drops: vec!["c7".into()], ..none.clone() }, "expected a column `c7`, found none of this name"),
        (Change { drops: both(["c0", "c1"]), ..none.clone() }, "expected a column to stay, found that all go"),
        (Change { drops: both(["c0", "c0"]), ..none.clone() }, "column `c0` is dropped, renamed or replaced twice"),
        (Change { adds: adds("c0", None), ..none.clone() }, "there is a column `c0` already"),
        (Change { renames: vec![("c0".into(), "c1".into())], ..none.clone() }, "there is a column `c1` already"),
        (
            Change { drops: vec!["c0".into()], adds: adds("c0", Some("c0")), ..none.clone() },
            "column `c0` is dropped, renamed or replaced twice",
        ),
    ] {
        let error = decide(&file, &change, 100, Layout::Auto).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid);
        assert!(error.message().contains(expected), "{error}");
    }
    // A name that becomes free can be taken.
    let change = Change { drops: vec!["c0".into()], adds: adds("c0", None), ..none.clone() };
    decide(&file, &change, 100, Layout::Auto).unwrap();
    let swap = vec![("c0".into(), "c1".into()), ("c1".into(), "c0".into())];
    decide(&file, &Change { renames: swap, ..none }, 100, Layout::Auto).unwrap();
}

#[test]
fn what_is_not_as_it_should_be_is_found() {
    let how = Source { pages: true, bloom: true, dictionary: true, arrow: true };
    let (bytes, _) = source(&[0, 1, 2], &[50, 60], 5, how);
    let new = additions(&["x"], &[1], &[50, 60], 6);
    let change = Change {
        drops: vec!["c2".into()],
        adds: vec![add(&new[0], 0, None)],
        key_values: vec![("version".into(), Some("2".into()))],
        ..Change::default()
    };
    let (result, _) = changed(&bytes, &change, &new, Layout::Contiguous, &[]);
    let (old, new) = (parsed(&bytes), parsed(&result));
    let found = |change: &Change| -> Vec<FindingKind> {
        verify::compare(&old, &new, change).unwrap().into_iter().map(|finding| finding.kind).collect()
    };
    assert_eq!(found(&change), []);
    assert_eq!(found(&Change { drops: vec![], ..change.clone() }), [FindingKind::Schema, FindingKind::KeyValue]);
    let older = vec![("version".into(), Some("1".into()))];
    assert_eq!(found(&Change { key_values: older, ..change.clone() }), [FindingKind::KeyValue]);
    let other = Add { field: Field::new("x", DataType::Int64, true), replaces: None };
    assert_eq!(found(&Change { adds: vec![other], ..change }), [FindingKind::Schema, FindingKind::KeyValue]);
}
