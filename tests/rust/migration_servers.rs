//! Migrations on real S3 servers: what travels, tags and metadata, versions, many objects, throttling and crashes.
//!
//! `REGRAFT_LONG=1` takes the sizes that users have: 5,000 objects scanned, 500 migrated, a file of 120 MB.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use regraft::migration::apply::ApplyOptions;
use regraft::migration::document::State;
use regraft::migration::planning::PlanRequest;
use regraft::migration::rollback::RollBackRequest;
use regraft::parquet::{File, Parsed, read};
use regraft::progress::Run;
use regraft::store::faults::{Fault, Faults, Operation};
use regraft::store::{Carried, Piece, Store, block_on};

use crate::migration::{applied, columns_of, config, content, is_migrated, open, planned, sample_file, verified};
use crate::migration_faults::CrashAt;
use crate::servers::Server;

const TAG: &str = "schema:sums:version";

fn long() -> bool {
    std::env::var_os("REGRAFT_LONG").is_some()
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Puts `bytes` with all that a rewrite must carry over.
async fn put_with(store: &Store, key: &str, bytes: Bytes, carried: &Carried) {
    let etag = store.put(key, Bytes::from_static(b"before")).await.expect("put");
    store.replace(key, &[Piece::Bytes(bytes)], &etag, carried, "test").await.expect("replaced");
}

fn carried() -> Carried {
    Carried {
        content_type: Some("application/vnd.apache.parquet".into()),
        metadata: tags(&[("origin", "buoy 7")]),
        tags: tags(&[("team", "ocean"), (TAG, "1")]),
        ..Carried::default()
    }
}

/// A file of many columns of doubles that do not compress: `a` and `b` far apart.
fn wide_file(columns: usize, groups: usize, rows: usize) -> Bytes {
    let name = |column: usize| match column {
        3 => "a".to_owned(),
        column if column == columns / 2 => "b".to_owned(),
        column => format!("x{column}"),
    };
    let fields: Vec<_> = (0..columns).map(|column| Field::new(name(column), DataType::Float64, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_compression(parquet::basic::Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).expect("a writer");
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..groups {
        let arrays = (0..columns).map(|_| {
            let values: Float64Array = (0..rows)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    Some((state >> 11) as f64)
                })
                .collect();
            Arc::new(values) as ArrayRef
        });
        writer.write(&RecordBatch::try_new(schema.clone(), arrays.collect()).expect("a batch")).expect("written");
        writer.flush().expect("flushed");
    }
    writer.into_inner().expect("a file").into()
}

fn footer(bytes: &Bytes) -> File {
    match File::parse("test", bytes.len() as u64, bytes).expect("a footer") {
        Parsed::File(file) => file,
        Parsed::Needs(_) => panic!("the file is whole"),
    }
}

/// Of a large file only footer, inputs and new columns travel, and everything about the object is as it was.
fn little_travels(server: &Server, bucket: &str) {
    let store = server.bucket(bucket);
    let old = if long() { wide_file(170, 8, 11_000) } else { wide_file(100, 4, 3000) };
    block_on(async {
        put_with(&store, "wide.parquet", old.clone(), &carried()).await;
        let set = open(&store, config(""));
        let before = set.data().counters().usage();
        let plan = planned(&set).await;
        let planning = set.data().counters().usage() - before;
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.outcome, "done", "{report:?}");

        let new = content(&store, "wide.parquet").await;
        assert_eq!(new[..old.len()], old[..]);
        let file = footer(&old);
        let names = ["a".to_owned(), "b".to_owned()];
        let inputs: u64 =
            read::ranges(&file, &names).expect("ranges").iter().flatten().map(|range| range.end - range.start).sum();
        let needed = file.footer_length() + inputs + (new.len() - old.len()) as u64;
        let travelled =
            planning.bytes_read + planning.bytes_written + report.usage.bytes_read + report.usage.bytes_written;
        // The run's own records are a few kilobytes, whatever the file.
        let allowed = needed as f64 * 1.1 + 40_000.0;
        println!(
            "{bucket}: file {}, needed {needed}, travelled {travelled} ({:.3}), requests {:?}",
            old.len(),
            travelled as f64 / needed as f64,
            report.usage
        );
        assert!((travelled as f64) < allowed, "travelled {travelled}, needed {needed}: {:?}", report.usage);
        assert_eq!(report.objects[0].bytes_copied, old.len() as u64);

        let estimate = &report.estimate;
        let close = |expected: u64, found: u64| (expected as f64 / found as f64 - 1.0).abs() < 0.25;
        assert!(close(estimate.bytes_read, report.totals.bytes_read), "{report:?}");
        assert!(close(estimate.bytes_written, report.totals.bytes_written), "{report:?}");

        let inspected = store.inspect("wide.parquet").await.expect("inspected").expect("present");
        assert_eq!(inspected.carried.content_type, carried().content_type);
        assert_eq!(inspected.carried.metadata["origin"], "buoy 7");
        assert_eq!(store.tags("wide.parquet").await.expect("tags"), tags(&[("team", "ocean"), (TAG, "3")]));
        assert_eq!(verified(&set).await.outcome, "ok");

        let undone = set.roll_back(&RollBackRequest::default(), &Run::default()).await.expect("rolled back");
        assert_eq!(undone.outcome, "done", "{undone:?}");
        assert_eq!(content(&store, "wide.parquet").await, old);
        assert_eq!(store.tags("wide.parquet").await.expect("tags"), carried().tags);
    });
}

/// Where footer and tag say the version, and where only one of them does.
fn versions_stand_in_footers_and_tags(server: &Server, bucket: &str) {
    let store = server.bucket(bucket);
    block_on(async {
        let two = config(r#","target":2"#);
        // Migrated to 2 by ourselves, then the tag is changed or lost.
        for key in ["both", "footer only", "differ"] {
            put_with(&store, key, sample_file(1, 1, 30, &[]), &carried()).await;
        }
        assert_eq!(applied(&open(&store, two)).await.totals.count(State::Done), 3);
        store.set_tags("footer only", &tags(&[("team", "ocean")])).await.expect("tags");
        store.set_tags("differ", &tags(&[("team", "ocean"), (TAG, "1")])).await.expect("tags");
        // By another tool, which knows tags only.
        let by_tag = |version: &str| Carried { tags: tags(&[(TAG, version)]), ..Carried::default() };
        let with_c = content(&store, "both").await;
        put_with(&store, "tag only", strip(&with_c), &by_tag("2")).await;
        put_with(&store, "tag three", sample_file(2, 1, 30, &[]), &by_tag("3")).await;
        put_with(&store, "tag ten", sample_file(2, 1, 30, &[]), &by_tag("10")).await;
        put_with(&store, "tag word", sample_file(2, 1, 30, &[]), &by_tag("v2")).await;
        put_with(&store, "neither", sample_file(3, 1, 30, &[]), &Carried::default()).await;

        let set = open(&store, config(""));
        let plan = planned(&set).await;
        let seen: BTreeMap<_, _> = plan
            .objects
            .iter()
            .map(|object| (object.key.as_str(), (object.from, object.version_from.as_deref(), object.state)))
            .collect();
        let pending = |version, place| (Some(version), Some(place), State::Pending);
        assert_eq!(seen["both"], pending(2, "footer"));
        assert_eq!(seen["footer only"], pending(2, "footer"));
        assert_eq!(seen["differ"], pending(2, "footer"));
        assert_eq!(seen["tag only"], pending(2, "tag"));
        assert_eq!(seen["neither"], pending(1, "default"));
        assert_eq!(seen["tag three"], (Some(3), Some("tag"), State::Done));
        assert_eq!(seen["tag ten"], (Some(10), Some("tag"), State::Newer));
        assert_eq!(seen["tag word"].2, State::Error);
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.totals.count(State::Done), 5, "{report:?}");
        for key in ["both", "footer only", "differ", "tag only", "neither"] {
            let found = store.tags(key).await.expect("tags");
            assert_eq!(found[TAG], "3", "{key}");
            assert_eq!(found.contains_key("team"), !matches!(key, "tag only" | "neither"), "{key}");
        }
        // What is at the target and says it once only is mended where that is asked for.
        store.set_tags("both", &tags(&[("team", "ocean"), (TAG, "1")])).await.expect("tags");
        assert_eq!(applied(&set).await.outcome, "nothing");
        let repair = PlanRequest { repair: true, ..PlanRequest::default() };
        let plan = set.plan(&repair, &Run::default()).await.expect("a plan");
        assert!(plan.warnings.iter().any(|text| text.contains("differ in")), "{:?}", plan.warnings);
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.outcome, "done", "{report:?}");
        assert_eq!(store.tags("both").await.expect("tags")[TAG], "3");
        let plan = set.plan(&repair, &Run::default()).await.expect("a plan");
        assert!(plan.objects.iter().all(|object| object.repair.is_none()), "{plan:?}");
    });
}

/// The file without key-values, as a tool that does not know ours would write it again.
fn strip(bytes: &Bytes) -> Bytes {
    let columns = columns_of(bytes.clone());
    let fields: Vec<_> =
        columns.iter().map(|(name, arrays)| Field::new(name, arrays[0].data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).expect("a writer");
    let arrays = columns.values().map(|arrays| arrays[0].clone()).collect();
    writer.write(&RecordBatch::try_new(schema, arrays).expect("a batch")).expect("written");
    writer.into_inner().expect("a file").into()
}

/// In a bucket that keeps versions a contiguous file comes back by its version, with its tags.
fn versions_undo_what_was_laid_out_anew(server: &Server, bucket: &str) {
    let store = server.bucket_with_versions(bucket);
    block_on(async {
        let old = sample_file(1, 3, 40, &[]);
        put_with(&store, "a.parquet", old.clone(), &carried()).await;
        put_with(&store, "b.parquet", old.clone(), &carried()).await;
        let set = open(&store, config(r#","layout":"contiguous""#));
        let plan = planned(&set).await;
        assert!(plan.objects.iter().all(|object| object.roll_back.as_deref() == Some("version")), "{plan:?}");
        let report = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        assert_eq!(report.outcome, "done", "{report:?}");
        is_migrated(&old, &content(&store, "a.parquet").await, true);
        let verification = verified(&set).await;
        assert_eq!(verification.outcome, "ok", "{verification:?}");
        let checked = &verification.objects[0].checked;
        assert!(checked.contains(&"bytes".to_owned()), "against the version before: {checked:?}");
        let theirs = sample_file(9, 1, 5, &[]);
        store.put("b.parquet", theirs.clone()).await.expect("put");
        for _ in 0..2 {
            let undo = RollBackRequest { run: Some(report.run.clone()), keys: None };
            let undone = set.roll_back(&undo, &Run::default()).await.expect("rolled back");
            let counts = (undone.totals.count(State::RolledBack), undone.totals.count(State::Skipped));
            assert_eq!(counts, (1, 1), "{undone:?}");
            assert_eq!(content(&store, "a.parquet").await, old);
            assert_eq!(content(&store, "b.parquet").await, theirs);
            assert_eq!(store.tags("a.parquet").await.expect("tags"), carried().tags);
        }
    });
}

/// One request in twenty is answered with 503.
struct Throttling(AtomicU64);

#[async_trait]
impl Faults for Throttling {
    async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        if number % 20 == 7 { Err(Fault::Throttled) } else { Ok(()) }
    }
}

/// Many objects at once through throttling, killed on the way, resumed, verified, rolled back: every object looked at.
fn many_objects(server: &Server, bucket: &str) {
    let store = server.bucket(bucket);
    let count = if long() { 500 } else { 60 };
    block_on(async {
        let objects: BTreeMap<String, Bytes> = (0..count)
            .map(|index| (format!("day={}/{index:04}.parquet", index % 7), sample_file(index, 2, 40, &[])))
            .collect();
        let stuck = sample_file(0, 1, 5, &[(TAG, "0")]);
        let puts = objects.iter().map(|(key, bytes)| store.put(key, bytes.clone()));
        stream::iter(puts).buffer_unordered(16).for_each(|put| async { drop(put.expect("put")) }).await;
        store.put("day=0/stuck.parquet", stuck.clone()).await.expect("put");

        // Killed after a third of its requests.
        let crash = CrashAt::new(count * 4, true);
        let dying = open(&store.with_faults(crash), config(r#","run":{"concurrency":8}"#));
        let plan = planned(&dying).await;
        assert_eq!((plan.totals.states[&State::Pending], plan.totals.states[&State::MissingStep]), (count, 1));
        let _ = dying.apply(&plan, &ApplyOptions::default(), &Run::default()).await;
        let mut done = 0;
        for (key, old) in &objects {
            let now = content(&store, key).await;
            if now != *old {
                is_migrated(old, &now, true);
                done += 1;
            }
        }
        assert!((1..count).contains(&done), "killed on the way: {done} of {count}");

        let set = open(&store.with_faults(Arc::new(Throttling(AtomicU64::new(0)))), config(""));
        let began = tokio::time::Instant::now();
        let report = applied(&set).await;
        println!(
            "{bucket}: {count} objects, {done} done by the killed run, the rest in {:?}: {:?}",
            began.elapsed(),
            report.usage
        );
        assert_eq!((report.outcome.as_str(), report.totals.count(State::Done)), ("done", count - done), "{report:?}");
        assert!(report.usage.throttle > 0);
        for (key, old) in &objects {
            is_migrated(old, &content(&store, key).await, true);
            assert_eq!(store.tags(key).await.expect("tags")[TAG], "3");
        }
        assert_eq!(content(&store, "day=0/stuck.parquet").await, stuck);
        assert!(store.uploads("").await.expect("uploads").is_empty());
        let verification = verified(&set).await;
        assert_eq!((verification.outcome.as_str(), verification.totals.ok), ("ok", count), "{verification:?}");

        // Both runs are undone, the killed one too. ministack leaves the tags of an object that is put again without any.
        let etag = store.put("tagged", Bytes::new()).await.expect("put");
        store.set_tags("tagged", &tags(&[("team", "ocean")])).await.expect("tags");
        let etag = store.head("tagged").await.expect("head").map_or(etag, |meta| meta.etag);
        let empty = Carried::default();
        store.replace("tagged", &[Piece::Bytes("x".into())], &etag, &empty, "test").await.expect("replaced");
        let forgets = store.tags("tagged").await.expect("tags").is_empty();
        store.delete("tagged").await.expect("deleted");
        let runs = set.history(None).await.expect("history").runs;
        assert_eq!(runs.iter().map(|run| run.outcome.as_str()).collect::<Vec<_>>(), ["done", "unfinished"]);
        for run in runs {
            let undo = RollBackRequest { run: Some(run.run), keys: None };
            let undone = set.roll_back(&undo, &Run::default()).await.expect("rolled back");
            assert_eq!(undone.outcome, "done", "{undone:?}");
        }
        for (key, old) in &objects {
            assert_eq!(content(&store, key).await, old, "{key}");
            assert!(!forgets || !store.tags(key).await.expect("tags").contains_key(TAG), "{key}");
        }
    });
}

/// Listing goes on page by page, and each object is looked at once.
fn scans_by_pages(server: &Server, bucket: &str) {
    let store = server.bucket(bucket);
    let count = if long() { 5000 } else { 1100 };
    block_on(async {
        let file = sample_file(1, 1, 3, &[(TAG, "3")]);
        let puts = (0..count).map(|index| {
            let (store, file) = (&store, file.clone());
            async move { store.put(&format!("year={}/{index:05}.parquet", index % 5), file).await }
        });
        stream::iter(puts).buffer_unordered(32).for_each(|put| async { drop(put.expect("put")) }).await;
        let set = open(&store, config(""));
        let began = tokio::time::Instant::now();
        let plan = planned(&set).await;
        let usage = set.data().counters().usage();
        println!("{bucket}: {count} objects scanned in {:?}: {usage:?}", began.elapsed());
        assert_eq!(plan.totals.states[&State::Done], count);
        assert_eq!(usage.get, count);
        assert!(usage.list >= count.div_ceil(1000) && usage.list <= count.div_ceil(1000) + 3, "{usage:?}");
    });
}

fn everything(server: &Server) {
    little_travels(server, "travels");
    versions_stand_in_footers_and_tags(server, "tags");
    versions_undo_what_was_laid_out_anew(server, "versions");
    many_objects(server, "many");
    scans_by_pages(server, "pages");
}

#[test]
fn ministack_is_migrated() {
    let Some(server) = Server::ministack() else { return };
    everything(&server);
}

#[test]
fn weed_is_migrated() {
    let Some(server) = Server::weed() else { return };
    everything(&server);
}
