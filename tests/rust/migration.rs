//! Whole migrations of small data sets: what becomes of objects, states, versions and tags.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use regraft::error::{Error, Result};
use regraft::migration::Migrations;
use regraft::migration::apply::ApplyOptions;
use regraft::migration::config::Config;
use regraft::migration::document::{Plan, State};
use regraft::migration::planning::PlanRequest;
use regraft::migration::report::{Report, Verification};
use regraft::migration::rollback::RollBackRequest;
use regraft::migration::step::{Bound, Compute};
use regraft::migration::verify::VerifyRequest;
use regraft::parquet::{File, Parsed};
use regraft::progress::Run;
use regraft::store::{ETag, Store, block_on};

use crate::store::{files, memory};

/// Steps by their index: `c = a + b`, then `d = 2 c`; a third takes `c` and `b` away.
pub(crate) struct Sums;

impl Compute for Sums {
    fn bind(&self, step: usize, schema: &Schema) -> Result<Bound> {
        let double = |name: &str| Field::new(name, DataType::Float64, true);
        let (reads, adds): (&[&str], Vec<Field>) = match step {
            0 => (&["a", "b"], vec![double("c")]),
            1 => (&["c"], vec![double("d")]),
            _ => (&[], Vec::new()),
        };
        for name in reads {
            schema.field_with_name(name).map_err(|error| Error::invalid(error.to_string()))?;
        }
        Ok(Bound { reads: reads.iter().map(|&name| name.to_owned()).collect(), adds })
    }

    fn compute(&self, step: usize, input: &RecordBatch) -> Result<RecordBatch> {
        let column = |index: usize| {
            input.column(index).as_any().downcast_ref::<Float64Array>().expect("doubles").iter().collect::<Vec<_>>()
        };
        let (name, values): (&str, Float64Array) = match step {
            0 => ("c", column(0).into_iter().zip(column(1)).map(|(a, b)| Some(a? + b?)).collect()),
            _ => ("d", column(0).into_iter().map(|c| Some(2.0 * c?)).collect()),
        };
        let schema = Schema::new(vec![Field::new(name, DataType::Float64, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(values)])
            .map_err(|error| Error::internal(error.to_string()))
    }
}

/// A file of `groups` row groups with `rows` rows each; values depend on `seed`.
pub(crate) fn sample_file(seed: u64, groups: usize, rows: usize, key_values: &[(&str, &str)]) -> Bytes {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("a", DataType::Float64, true),
        Field::new("b", DataType::Float64, true),
        Field::new("filler", DataType::Float64, false),
    ]));
    let key_values: Vec<_> =
        key_values.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), Some((*value).to_owned()))).collect();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows.max(1)))
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_key_value_metadata(Some(key_values))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).expect("a writer");
    for group in 0..groups {
        let value = |row: usize| seed as f64 + (group * rows + row) as f64;
        let id: StringArray = (0..rows).map(|row| Some(format!("{seed}-{group}-{row}"))).collect();
        let a: Float64Array = (0..rows).map(|row| (row % 7 != 3).then(|| value(row))).collect();
        let b: Float64Array = (0..rows).map(|row| Some(value(row) * 0.5)).collect();
        let filler: Float64Array = (0..rows).map(|row| Some((value(row) * 12.9898).sin())).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(id), Arc::new(a), Arc::new(b), Arc::new(filler)];
        writer.write(&RecordBatch::try_new(schema.clone(), columns).expect("a batch")).expect("written");
        writer.flush().expect("flushed");
    }
    writer.into_inner().expect("a file").into()
}

/// All columns of a file, each as one array, as the `parquet` crate reads it.
pub(crate) fn columns_of(bytes: Bytes) -> BTreeMap<String, Vec<ArrayRef>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a footer").build().expect("a reader");
    let mut columns: BTreeMap<String, Vec<ArrayRef>> = BTreeMap::new();
    for batch in reader {
        let batch = batch.expect("a batch");
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            columns.entry(field.name().clone()).or_default().push(array.clone());
        }
    }
    columns
}

fn doubles(arrays: &[ArrayRef]) -> Vec<Option<f64>> {
    let values = arrays.iter().map(|array| array.as_any().downcast_ref::<Float64Array>().expect("doubles"));
    values.flat_map(|array| array.iter().collect::<Vec<_>>()).collect()
}

/// Checks a migrated file against the one it was made from: kept columns equal, `c = a + b`, `d = 2 c` where it is there.
pub(crate) fn is_migrated(old: &Bytes, new: &Bytes, d: bool) {
    let (before, after) = (columns_of(old.clone()), columns_of(new.clone()));
    for (name, arrays) in &before {
        assert_eq!(arrays, &after[name], "{name}");
    }
    let (a, b) = (doubles(&before["a"]), doubles(&before["b"]));
    let sums: Vec<_> = a.iter().zip(&b).map(|(a, b)| Some((*a)? + (*b)?)).collect();
    assert_eq!(doubles(&after["c"]), sums);
    if d {
        assert_eq!(doubles(&after["d"]), sums.iter().map(|c| Some(2.0 * (*c)?)).collect::<Vec<_>>());
    }
    assert_eq!(after.len(), before.len() + 1 + usize::from(d));
}

/// The configuration of steps 1→2→3, with `more` fields of JSON.
pub(crate) fn config(more: &str) -> Config {
    Config::from_json(&format!(
        r#"{{"kind":"migration-set","name":"sums","data":{{"url":"memory://unused"}},
            "version":{{"key":"schema:sums:version","default":1}},
            "steps":[{{"from":1,"to":2,"fingerprint":"one"}},{{"from":2,"to":3,"fingerprint":"two"}}]{more}}}"#
    ))
    .expect("a configuration")
}

/// A data set of `count` files below `store`.
pub(crate) async fn data_set(store: &Store, count: u64) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    for index in 0..count {
        let key = format!("year=2019/month={}/part-{index:04}.parquet", index % 3);
        let bytes = sample_file(index, 2, 50, &[]);
        store.put(&key, bytes.clone()).await.expect("put");
        objects.insert(key, bytes);
    }
    objects
}

pub(crate) fn open(store: &Store, config: Config) -> Migrations {
    Migrations::with_store(config, store, Arc::new(Sums)).expect("opens")
}

pub(crate) async fn planned(set: &Migrations) -> Plan {
    set.plan(&PlanRequest::default(), &Run::default()).await.expect("a plan")
}

pub(crate) async fn applied(set: &Migrations) -> Report {
    let plan = planned(set).await;
    set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied")
}

pub(crate) async fn verified(set: &Migrations) -> Verification {
    set.verify(&VerifyRequest::default(), &Run::default()).await.expect("verified")
}

pub(crate) async fn content(store: &Store, key: &str) -> Bytes {
    store.get(key).await.expect("get").expect("present").bytes
}

fn version_in(store: &Store, key: &str) -> Option<String> {
    let bytes = block_on(content(store, key));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a footer");
    let key_values = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    key_values.into_iter().find(|entry| entry.key == "schema:sums:version").and_then(|entry| entry.value)
}

/// Two versions in one read and one write, again without harm, verified, undone, undone again.
fn goes_through(store: &Store, layout: &str) {
    block_on(async {
        let objects = data_set(store, 7).await;
        store.put("_SUCCESS", Bytes::new()).await.expect("put");
        store.put("notes.txt", Bytes::from_static(b"hello, this is no Parquet")).await.expect("put");
        store.put("empty.parquet", Bytes::new()).await.expect("put");
        let set = open(store, config(&format!(r#","layout":"{layout}""#)));
        let plan = planned(&set).await;
        assert_eq!(plan.totals.states[&State::Pending], 7);
        assert_eq!(plan.totals.states[&State::NotParquet], 2, "{plan:?}");
        assert!(plan.objects.iter().all(|object| object.key != "_SUCCESS"));
        let text = serde_json::to_string(&plan).expect("JSON");
        let plan = Plan::from_json(&text).expect("a plan");
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.outcome, "done", "{report:?}");
        for (key, old) in &objects {
            let new = content(store, key).await;
            is_migrated(old, &new, true);
            assert_eq!(new.starts_with(old), layout == "widened", "{layout}");
        }
        assert_eq!(content(store, "notes.txt").await, "hello, this is no Parquet");

        // The same plan and a new one: nothing is done twice.
        let before: BTreeMap<_, ETag> = etags(store, objects.keys()).await;
        let again = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(again.outcome, "done", "{again:?}");
        assert_eq!(applied(&set).await.outcome, "nothing");
        assert_eq!(etags(store, objects.keys()).await, before);

        let verification = verified(&set).await;
        assert_eq!((verification.outcome.as_str(), verification.totals.ok), ("ok", 7), "{verification:?}");
        assert_eq!(verification.totals.recomputed, 14);
        // The inputs `a` and `b`; all four columns where nothing else is left of the file before.
        let columns = if layout == "widened" { 2 } else { 4 };
        assert_eq!(verification.totals.compared, 14 * columns, "{verification:?}");

        let undo = RollBackRequest { run: Some(report.run.clone()), keys: None };
        let undone = set.roll_back(&undo, &Run::default()).await.expect("rolled back");
        if layout == "contiguous" {
            assert_eq!(undone.totals.count(State::Error), 7, "{undone:?}");
            assert!(plan.warnings[0].contains("7 objects cannot be rolled back"), "{:?}", plan.warnings);
            return;
        }
        assert_eq!((undone.outcome.as_str(), undone.totals.count(State::RolledBack)), ("done", 7), "{undone:?}");
        for (key, old) in &objects {
            assert_eq!(content(store, key).await, old);
        }
        let twice = set.roll_back(&undo, &Run::default()).await.expect("rolled back");
        assert_eq!(twice.totals.count(State::RolledBack), 7, "{twice:?}");
        assert_eq!(planned(&set).await.totals.states[&State::Pending], 7);
        let runs = set.history(None).await.expect("history").runs;
        let verbs: Vec<_> = runs.iter().map(|run| (run.verb.as_str(), run.outcome.as_str())).collect();
        assert_eq!(verbs, [("roll_back", "done"), ("roll_back", "done"), ("apply", "done"), ("apply", "done")]);
    });
}

async fn etags(store: &Store, keys: impl Iterator<Item = &String>) -> BTreeMap<String, ETag> {
    let mut found = BTreeMap::new();
    for key in keys {
        found.insert(key.clone(), store.head(key).await.expect("head").expect("present").etag);
    }
    found
}

#[test]
fn widened_and_contiguous_files_go_through_in_memory_and_on_files() {
    let directory = tempfile::tempdir().expect("a directory");
    for layout in ["widened", "contiguous"] {
        goes_through(&memory().child(layout), layout);
        goes_through(&files(&directory).child(layout), layout);
    }
}

#[test]
fn versions_are_integers_and_every_object_goes_its_own_way() {
    let store = memory();
    let file = |version: Option<&str>| {
        let entry = version.map(|version| ("schema:sums:version", version));
        sample_file(1, 1, 20, entry.as_slice())
    };
    let cases =
        [("default", None), ("nine", Some("9")), ("ten", Some("10")), ("eleven", Some("11")), ("word", Some("v9"))];
    let steps = r#"[{"from":9,"to":10,"fingerprint":"one"},{"from":2,"to":4,"fingerprint":"three"}]"#;
    let mut config = config("");
    config.steps = serde_json::from_str(steps).expect("steps");
    block_on(async {
        for (key, version) in cases {
            store.put(key, file(version)).await.expect("put");
        }
        let set = open(&store, config);
        let plan = planned(&set).await;
        assert_eq!(plan.target, 10);
        let states: BTreeMap<_, _> = plan.objects.iter().map(|object| (object.key.as_str(), object.state)).collect();
        assert_eq!(states["default"], State::MissingStep);
        assert_eq!(states["nine"], State::Pending);
        assert_eq!(states["ten"], State::Done);
        assert_eq!(states["eleven"], State::Newer);
        assert_eq!(states["word"], State::Error);
        let word = plan.objects.iter().find(|object| object.key == "word").expect("there");
        assert!(word.trouble.message.as_ref().expect("a message").contains("`word`"), "{word:?}");
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.totals.count(State::Done), 1);
    });
    assert_eq!(version_in(&store, "nine").as_deref(), Some("10"));
    assert_eq!(version_in(&store, "eleven").as_deref(), Some("11"));
}

#[test]
fn damage_is_found() {
    for layout in ["widened", "contiguous"] {
        let store = memory();
        block_on(async {
            store.put("a.parquet", sample_file(1, 2, 50, &[])).await.expect("put");
            let set = open(&store, config(&format!(r#","layout":"{layout}""#)));
            applied(&set).await;
            let good = content(&store, "a.parquet").await;
            let run = set.history(None).await.expect("history").runs[0].run.clone();
            let ours = |line: &str| line.contains("a.parquet");
            let mut found = 0;
            let end = match File::parse("a.parquet", good.len() as u64, &good).expect("a footer") {
                Parsed::File(file) => file.footer_start() as usize,
                Parsed::Needs(_) => panic!("the file is whole"),
            };
            // A flipped byte of the data, with the recorded name of the content made to fit.
            for at in (5..end).step_by(61) {
                let mut bad = good.to_vec();
                bad[at] ^= 0x10;
                let etag = store.put("a.parquet", bad.into()).await.expect("put");
                let parts = store.sibling(".regraft").child("sums").child("runs").child(&run);
                let part =
                    futures::TryStreamExt::try_collect::<Vec<_>>(parts.list("parts/", None)).await.expect("list");
                let text = content(&parts, &part[0].key).await;
                let text = String::from_utf8(text.to_vec()).expect("text");
                let mut line: serde_json::Value =
                    serde_json::from_str(text.lines().find(|line| ours(line)).expect("a line")).expect("JSON");
                line["etag"] = etag.0.into();
                parts.put(&part[0].key, line.to_string().into()).await.expect("put");
                found += usize::from(verified(&open(&store, config(""))).await.outcome == "failed");
            }
            let tried = (5..end).step_by(61).count();
            println!("{layout}: {found} of {tried} flipped bytes found");
            // Not looked at: page indexes, statistics in page headers, and in a widened file columns that no step reads, whose
            // bytes nothing tells where the bucket keeps no versions.
            assert!(found * 10 >= tried * if layout == "widened" { 4 } else { 8 }, "{layout}: {found} of {tried}");
        });
    }
}

#[test]
fn somebody_elses_data_are_kept_and_so_are_later_changes_when_rolled_back() {
    let store = memory();
    block_on(async {
        let objects = data_set(&store, 5).await;
        let keys: Vec<_> = objects.keys().cloned().collect();
        let set = open(&store, config(""));
        let plan = planned(&set).await;
        let theirs = sample_file(99, 1, 10, &[]);
        store.put(&keys[1], theirs.clone()).await.expect("put");
        store.delete(&keys[2]).await.expect("deleted");
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.outcome, "partial");
        assert_eq!((report.totals.count(State::Conflict), report.totals.count(State::Done)), (2, 3), "{report:?}");
        assert_eq!(content(&store, &keys[1]).await, theirs);
        assert!(store.head(&keys[2]).await.expect("head").is_none());

        // A new plan takes their data along.
        assert_eq!(applied(&set).await.totals.count(State::Done), 1);
        is_migrated(&theirs, &content(&store, &keys[1]).await, true);

        store.put(&keys[0], theirs.clone()).await.expect("put");
        let undo = RollBackRequest { run: Some(report.run.clone()), keys: None };
        let undone = set.roll_back(&undo, &Run::default()).await.expect("rolled back");
        let counts = (undone.totals.count(State::Skipped), undone.totals.count(State::RolledBack));
        assert_eq!(counts, (1, 2), "{undone:?}");
        assert_eq!(content(&store, &keys[0]).await, theirs);
        is_migrated(&theirs, &content(&store, &keys[1]).await, true);
    });
}

#[test]
fn an_edited_step_that_was_applied_stops_apply() {
    let store = memory();
    block_on(async {
        data_set(&store, 3).await;
        let mut first = config("");
        first.target = Some(2);
        let plan_of_two = {
            let set = open(&store, first);
            assert_eq!(applied(&set).await.totals.count(State::Done), 3);
            set
        };
        let mut edited = config("");
        edited.steps[0].fingerprint = "another".into();
        let set = open(&store, edited);
        let plan = planned(&set).await;
        assert_eq!((plan.edited[0].from, plan.edited[0].to, plan.edited[0].objects), (1, 2, 3));
        let error = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect_err("refused");
        assert!(error.to_string().contains("restore the step as it was"), "{error}");
        // The steps as they were still lead on.
        drop(plan_of_two);
        let set = open(&store, config(""));
        let plan = planned(&set).await;
        assert_eq!(set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied").outcome, "done");
        // A plan that was made with other steps is refused.
        let mut other = config("");
        other.steps[1].fingerprint = "changed".into();
        let error = open(&store, other).apply(&plan, &ApplyOptions::default(), &Run::default()).await;
        assert!(error.expect_err("refused").to_string().contains("make the plan again"));
    });
}

/// Fails at every object.
struct Broken;

impl Compute for Broken {
    fn bind(&self, step: usize, schema: &Schema) -> Result<Bound> {
        Sums.bind(step, schema)
    }

    fn compute(&self, _: usize, _: &RecordBatch) -> Result<RecordBatch> {
        Err(Error::invalid("the sensor was upside down"))
    }
}

#[test]
fn shards_do_the_work_together_and_failures_stop_the_rest() {
    let store = memory();
    block_on(async {
        let objects = data_set(&store, 10).await;
        let set = open(&store, config(""));
        let plan = planned(&set).await;
        for number in 1..=3 {
            let options = ApplyOptions { shard: Some((number, 3)), run: Some("nightly".into()) };
            let report = set.apply(&plan, &options, &Run::default()).await.expect("applied");
            assert_eq!(report.outcome, "done");
        }
        for (key, old) in &objects {
            is_migrated(old, &content(&store, key).await, true);
        }
        assert_eq!(set.outcomes("nightly").await.expect("outcomes").len(), 10);
        let request = VerifyRequest { run: Some("nightly".into()), ..VerifyRequest::default() };
        assert_eq!(set.verify(&request, &Run::default()).await.expect("verified").totals.ok, 10);
    });

    let store = memory();
    block_on(async {
        let objects = data_set(&store, 20).await;
        let config = config(r#","run":{"concurrency":1,"max_failures":"10%"}"#);
        let set = Migrations::with_store(config, &store, Arc::new(Broken)).expect("opens");
        let report = applied(&set).await;
        assert_eq!(report.outcome, "failed");
        assert_eq!((report.totals.count(State::Error), report.totals.count(State::Pending)), (3, 17), "{report:?}");
        let broken = report.objects.iter().find(|object| object.state == State::Error).expect("one");
        let message = broken.trouble.message.as_ref().expect("a message");
        assert!(message.contains("row group `0`: step `1→2`: the sensor was upside down"), "{message}");
        assert!(message.contains(&broken.key), "{message}");
        for (key, old) in &objects {
            assert_eq!(content(&store, key).await, old);
        }
    });
}

/// Cancels when two objects are done.
struct AfterTwo(std::sync::Mutex<Option<Run>>);

impl regraft::progress::Sink for AfterTwo {
    fn progress(&self, progress: &regraft::progress::Progress) {
        if progress.stage == "migrate" && progress.done == 2 {
            self.0.lock().expect("not poisoned").as_ref().expect("a run").cancel();
        }
    }
}

#[test]
fn a_cancelled_run_is_resumed_by_running_again() {
    let store = memory();
    block_on(async {
        let objects = data_set(&store, 6).await;
        let set = open(&store, config(r#","run":{"concurrency":1}"#));
        let plan = planned(&set).await;

        let sink = Arc::new(AfterTwo(std::sync::Mutex::new(None)));
        let run = Run::new(sink.clone());
        *sink.0.lock().expect("not poisoned") = Some(run.clone());
        let report = set.apply(&plan, &ApplyOptions::default(), &run).await.expect("a report");
        assert_eq!(report.outcome, "cancelled");
        assert_eq!((report.totals.count(State::Done), report.totals.count(State::Pending)), (2, 4));
        let report = applied(&set).await;
        assert_eq!((report.outcome.as_str(), report.totals.count(State::Done)), ("done", 4));
        for (key, old) in &objects {
            is_migrated(old, &content(&store, key).await, true);
        }
    });
}
