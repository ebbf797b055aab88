//! Replacing by pieces, tags, versions: what every place promises, as plain functions, on memory and files here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;
use regraft::error::Kind;
use regraft::store::faults::{Fault, Operation};
use regraft::store::{Carried, CheckState, Piece, StorageOptions, Store, block_on};

use crate::store::{files, memory};
use crate::store_faults::First;

/// All promises, each in a place of its own.
pub(crate) async fn replacing(store: &Store) {
    pieces_are_joined(&store.child("pieces")).await;
    only_the_expected_is_replaced(&store.child("expected")).await;
    lost_answers_are_ours(&store.child("lost")).await;
    no_replacement_is_lost(&store.child("races")).await;
}

/// Everything is found to work, but for `missing`, and nothing is left.
pub(crate) async fn probing(store: &Store, missing: &[&str]) {
    let store = store.child("probed");
    let probe = store.probe().await.expect("probed");
    assert_eq!(probe.url, store.url());
    for check in &probe.checks {
        let expected = if missing.contains(&check.what.as_str()) { CheckState::Missing } else { CheckState::Ok };
        assert_eq!(check.state, expected, "{check:?}");
    }
    assert!(probe.checks.len() >= 6);
    assert!(store.list("", None).try_next().await.expect("list").is_none());
}

/// Bytes that do not repeat soon.
pub(crate) fn body(length: u32, seed: u32) -> Bytes {
    (0..length).map(|index| ((index ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into()
}

fn content(old: &Bytes, pieces: &[Piece]) -> Vec<u8> {
    let of = |piece: &Piece| match piece {
        Piece::Copy(range) => old.slice(range.start as usize..range.end as usize),
        Piece::Bytes(bytes) => bytes.clone(),
    };
    pieces.iter().flat_map(of).collect()
}

async fn pieces_are_joined(store: &Store) {
    let old = body(200_000, 1);
    let small = |text: &'static str| Piece::Bytes(Bytes::from_static(text.as_bytes()));
    let layouts = [
        vec![Piece::Copy(0..200_000), small("tail")],
        vec![small("head"), Piece::Copy(5..10), small("x"), Piece::Copy(0..3), Piece::Copy(199_999..200_000)],
        vec![Piece::Copy(0..0), small("all new")],
        vec![Piece::Copy(0..7)],
        vec![],
    ];
    for (index, pieces) in layouts.iter().enumerate() {
        let key = format!("a/{index}");
        let etag = store.put(&key, old.clone()).await.expect("put");
        let carried = store.inspect(&key).await.expect("inspect").expect("present").carried;
        let replaced = store.replace(&key, pieces, &etag, &carried, "run 1").await.expect("replaced");
        let object = store.get(&key).await.expect("get").expect("present");
        assert!(object.bytes == content(&old, pieces), "layout {index}");
        assert_eq!((&replaced.etag, replaced.size), (&object.meta.etag, object.meta.size));
        assert_eq!(replaced.bytes_copied + replaced.bytes_written, object.meta.size);
    }
    let inspected = store.inspect("a/0").await.expect("inspect").expect("present");
    assert_eq!((inspected.meta.key.as_str(), inspected.meta.size), ("a/0", 200_004));
    assert!(!inspected.archived && !inspected.locked && !inspected.customer_key);
    let cut = store.truncate("a/0", 200_000, &inspected.meta.etag, &inspected.carried, "run 2").await.expect("cut");
    assert!(store.get_if_match("a/0", &cut.etag).await.expect("present") == old);
    assert_eq!(store.inspect("a/none").await.expect("inspect"), None);
}

async fn only_the_expected_is_replaced(store: &Store) {
    let old = store.put("x", body(1000, 2)).await.expect("put");
    let new = store.put("x", Bytes::from_static(b"theirs")).await.expect("put");
    let pieces = [Piece::Copy(0..2), Piece::Bytes(Bytes::from_static(b"mine"))];
    let error = store.replace("x", &pieces, &old, &Carried::default(), "run").await.expect_err("changed");
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    let whole = [Piece::Bytes(Bytes::from_static(b"mine"))];
    let error = store.replace("x", &whole, &old, &Carried::default(), "run").await.expect_err("changed");
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(store.get_if_match("x", &new).await.expect("untouched"), "theirs");

    let outside = [Piece::Copy(0..7)];
    let error = store.replace("x", &outside, &new, &Carried::default(), "run").await.expect_err("outside");
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    store.delete("x").await.expect("delete");
    for pieces in [&pieces[..], &whole[..]] {
        let error = store.replace("x", pieces, &new, &Carried::default(), "run").await.expect_err("gone");
        assert!(matches!(error.kind(), Kind::Conflict | Kind::NotFound), "{error}");
    }
    assert!(store.get("x").await.expect("get").is_none());
}

/// An answer that is lost before or after the write is ours, once.
async fn lost_answers_are_ours(store: &Store) {
    for after in [true, false] {
        for fault in [Fault::Lost, Fault::Throttled] {
            let old = body(5000, 3);
            let etag = store.put("x", old.clone()).await.expect("put");
            let pieces = [Piece::Copy(0..5000), Piece::Bytes(Bytes::from_static(b"new"))];
            let shaky = store.with_faults(First::new(Operation::Put, fault, after, 1));
            let outcome = shaky.replace("x", &pieces, &etag, &Carried::default(), "run").await;
            let object = store.get("x").await.expect("get").expect("present");
            if after && fault == Fault::Throttled {
                // A service that says slow down has done nothing: a refusal afterwards is somebody else's.
                assert!(outcome.is_err());
                continue;
            }
            assert_eq!(outcome.expect("ours").etag, object.meta.etag);
            assert!(object.bytes == content(&old, &pieces));

            let shaky = store.with_faults(First::new(Operation::Put, fault, after, 1));
            let error = shaky.replace("x", &pieces, &etag, &Carried::default(), "other").await.expect_err("changed");
            assert_eq!(error.kind(), Kind::Conflict, "{error}");
        }
    }
}

/// Writers that append by replacing, beside one that puts: every append that succeeded is there.
async fn no_replacement_is_lost(store: &Store) {
    store.put("log", Bytes::from_static(b"start;")).await.expect("put");
    let stop = Arc::new(AtomicBool::new(false));
    let appenders = (0..4).map(|writer| {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            let mut done = Vec::new();
            for round in 0..5 {
                let text = format!("{writer}.{round};");
                loop {
                    let meta = store.head("log").await.expect("head").expect("present");
                    let pieces = [Piece::Copy(0..meta.size), Piece::Bytes(Bytes::from(text.clone()))];
                    match store.replace("log", &pieces, &meta.etag, &Carried::default(), &text).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
                    }
                }
                done.push(text);
            }
            stop.store(true, Ordering::Relaxed);
            done
        })
    });
    let done: Vec<String> =
        futures::future::join_all(appenders).await.into_iter().flat_map(|done| done.expect("joined")).collect();
    assert!(stop.load(Ordering::Relaxed));
    let log = store.get("log").await.expect("get").expect("present").bytes;
    let log = String::from_utf8(log.to_vec()).expect("text");
    assert_eq!(log.split_terminator(';').count(), 1 + done.len());
    assert!(done.iter().all(|text| log.matches(text.as_str()).count() == 1), "{log}");
}

/// What S3 has besides: metadata, tags, storage class kept; copies that do not travel; versions.
pub(crate) async fn replacing_on_s3(store: &Store) {
    what_is_carried_stays(&store.child("carried")).await;
    checksums_stay(&store.child("checksums")).await;
    large_objects_travel_little(&store.child("large")).await;
    stale_completions_are_refused(&store.child("stale")).await;
    throttled_uploads_finish(&store.child("throttled")).await;
    unfinished_uploads_are_swept(&store.child("unfinished")).await;
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

async fn what_is_carried_stays(store: &Store) {
    for length in [100_000, 6 << 20] {
        let key = format!("a b+c%/{length}");
        let etag = store.put(&key, body(length, 0)).await.expect("put");
        let carried = Carried {
            storage_class: Some("STANDARD_IA".into()),
            content_type: Some("application/x-parquet".into()),
            cache_control: Some("max-age=60".into()),
            content_disposition: Some("attachment".into()),
            content_language: Some("en".into()),
            metadata: pairs(&[("colour", "light blue"), ("x", "1")]),
            tags: pairs(&[("schema:sensor:version", "1"), ("team", "a+b c/ü=")]),
            ..Carried::default()
        };
        let pieces = [Piece::Copy(0..u64::from(length)), Piece::Bytes(Bytes::from_static(b"tail"))];
        let first = store.replace(&key, &pieces, &etag, &carried, "run 1").await.expect("replaced");
        let found = store.inspect(&key).await.expect("inspect").expect("present");
        assert_eq!((&found.meta.etag, found.meta.size), (&first.etag, u64::from(length) + 4));
        let mut with_run = carried.clone();
        with_run.metadata.insert(regraft::store::RUN_KEY.into(), "run 1".into());
        // Servers may say how they encrypt and check, too.
        let said = Carried { encryption: None, checksum: None, ..found.carried.clone() };
        assert_eq!(said, with_run, "{length}");

        // The next rewrite says its own run and keeps the rest.
        let cut = store.truncate(&key, 7, &first.etag, &found.carried, "run 2").await.expect("cut");
        let again = store.inspect(&key).await.expect("inspect").expect("present");
        assert_eq!(again.meta.etag, cut.etag);
        assert_eq!(again.carried.tags, carried.tags);
        with_run.metadata.insert(regraft::store::RUN_KEY.into(), "run 2".into());
        assert_eq!(again.carried.metadata, with_run.metadata);

        assert_eq!(store.tags(&key).await.expect("tags"), carried.tags);
        let changed = pairs(&[("only", "ü + a/b:c=@._-")]);
        store.set_tags(&key, &changed).await.expect("set");
        assert_eq!(store.tags(&key).await.expect("tags"), changed);
        assert_eq!(store.head(&key).await.expect("head").expect("present").etag, cut.etag);
        let shared = store.inspect_grants(&key).await.expect("inspect").expect("present");
        assert_eq!(shared.carried.grants, BTreeMap::new());
    }
    assert_eq!(store.tags("none").await.expect_err("absent").kind(), Kind::NotFound);
}

/// The service keeps a checksum by the algorithm that it kept before, whichever way the object is written.
async fn checksums_stay(store: &Store) {
    let old = body(6 << 20, 4);
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256"] {
        let carried = Carried { checksum: Some(algorithm.into()), ..Carried::default() };
        for length in [1000, 6 << 20] {
            let key = format!("{algorithm}/{length}");
            let etag = store.put(&key, old.clone()).await.expect("put");
            let pieces = [Piece::Copy(0..length), Piece::Bytes(Bytes::from_static(b"tail"))];
            store.replace(&key, &pieces, &etag, &carried, "run").await.expect("replaced");
            let found = store.inspect(&key).await.expect("inspect").expect("present");
            // ministack tells no checksum of an upload in parts, and none of some algorithms.
            assert!(found.carried.checksum.is_none_or(|found| found == algorithm), "{key}");
            assert!(store.get(&key).await.expect("get").expect("present").bytes == content(&old, &pieces));
        }
    }
}

async fn large_objects_travel_little(store: &Store) {
    let old = body(24 << 20, 5);
    let new = |seed| Piece::Bytes(body(1000, seed));
    let layouts = [
        (vec![Piece::Copy(0..24 << 20), new(1)], 0, 1000),
        // A piece in the middle takes what it lacks from the copy behind it.
        (
            vec![Piece::Copy(0..8 << 20), new(1), Piece::Copy(9 << 20..24 << 20), new(2)],
            (5 << 20) - 1000,
            (5 << 20) + 1000,
        ),
        // Many small pieces.
        (
            (0..300).flat_map(|index| [Piece::Copy(index * 70_000..index * 70_000 + 20_000), new(7)]).collect(),
            6_000_000,
            6_300_000,
        ),
    ];
    for (index, (pieces, read, written)) in layouts.into_iter().enumerate() {
        let key = index.to_string();
        let etag = store.put(&key, old.clone()).await.expect("put");
        let before = store.counters().usage();
        let replaced = store.replace(&key, &pieces, &etag, &Carried::default(), "run").await.expect("replaced");
        let usage = store.counters().usage() - before;
        assert_eq!((replaced.bytes_read, replaced.bytes_written), (read, written), "layout {index}");
        assert_eq!(usage.bytes_written, written);
        assert_eq!(replaced.bytes_copied + replaced.bytes_written, replaced.size);
        let object = store.get(&key).await.expect("get").expect("present");
        assert!(object.bytes == content(&old, &pieces), "layout {index}");
        assert_eq!(object.meta.etag, replaced.etag);
        if index == 0 {
            // Begin, one part, completion; the copy.
            assert_eq!((usage.put, usage.copy, usage.get, usage.head), (3, 1, 0, 0));
        }
    }
}

/// Somebody else writes between the parts and the completion: theirs stays.
async fn stale_completions_are_refused(store: &Store) {
    struct Meddler(Store, std::sync::atomic::AtomicU32);
    #[async_trait::async_trait]
    impl regraft::store::faults::Faults for Meddler {
        async fn before(&self, operation: Operation, _: &str) -> Result<(), Fault> {
            // Begin, the part that travels, completion.
            if operation == Operation::Put && self.1.fetch_add(1, Ordering::SeqCst) == 2 {
                self.0.put("x", Bytes::from_static(b"theirs")).await.expect("put");
            }
            Ok(())
        }
    }
    let etag = store.put("x", body(6 << 20, 6)).await.expect("put");
    let pieces = [Piece::Copy(0..6 << 20), Piece::Bytes(Bytes::from_static(b"mine"))];
    let meddled = store.with_faults(Arc::new(Meddler(store.clone(), 0.into())));
    let error = meddled.replace("x", &pieces, &etag, &Carried::default(), "run").await.expect_err("changed");
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(store.get("x").await.expect("get").expect("present").bytes, "theirs");
    assert_eq!(store.uploads("").await.expect("uploads"), []);
}

/// One answer in three says slow down, and answers get lost around every request: it comes to one write.
async fn throttled_uploads_finish(store: &Store) {
    struct Rough(std::sync::atomic::AtomicU32);
    #[async_trait::async_trait]
    impl regraft::store::faults::Faults for Rough {
        async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
            match self.0.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => Err(Fault::Throttled),
                _ => Ok(()),
            }
        }
        async fn after(&self, operation: Operation, _: &str) -> Result<(), Fault> {
            let lost = operation != Operation::Get && self.0.load(Ordering::SeqCst) % 3 == 2;
            if lost { Err(Fault::Lost) } else { Ok(()) }
        }
    }
    let old = body(6 << 20, 8);
    let pieces = [Piece::Copy(0..6 << 20), Piece::Bytes(Bytes::from_static(b"new"))];
    for start in 0..3 {
        let etag = store.put("x", old.clone()).await.expect("put");
        let rough = store.with_faults(Arc::new(Rough(start.into())));
        let replaced = rough.replace("x", &pieces, &etag, &Carried::default(), "run").await.expect("replaced");
        let object = store.get("x").await.expect("get").expect("present");
        assert_eq!(object.meta.etag, replaced.etag);
        assert!(object.bytes == content(&old, &pieces));
    }
}

/// A process that dies in the middle leaves its upload, which is swept; others' are left alone.
async fn unfinished_uploads_are_swept(store: &Store) {
    struct Dead(std::sync::atomic::AtomicU32);
    #[async_trait::async_trait]
    impl regraft::store::faults::Faults for Dead {
        async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
            if self.0.fetch_add(1, Ordering::SeqCst) < 2 { Ok(()) } else { Err(Fault::Crash) }
        }
    }
    let pieces = [Piece::Copy(0..6 << 20), Piece::Bytes(Bytes::from_static(b"new"))];
    for key in ["ours/x", "theirs"] {
        let etag = store.put(key, body(6 << 20, 9)).await.expect("put");
        let dying = store.with_faults(Arc::new(Dead(0.into())));
        assert!(dying.replace(key, &pieces, &etag, &Carried::default(), "run").await.is_err());
    }
    let left = store.uploads("").await.expect("uploads");
    assert_eq!(left.iter().map(|upload| upload.key.as_str()).collect::<Vec<_>>(), ["ours/x", "theirs"]);
    assert!(left.iter().all(|upload| upload.initiated.starts_with("20")), "{left:?}");
    for upload in store.uploads("ours/").await.expect("uploads") {
        assert_eq!(upload.key, "ours/x");
        store.abort_upload(&upload).await.expect("aborted");
        store.abort_upload(&upload).await.expect("aborted before");
    }
    let left = store.uploads("").await.expect("uploads");
    assert_eq!(left.iter().map(|upload| upload.key.as_str()).collect::<Vec<_>>(), ["theirs"]);
    for upload in &left {
        store.abort_upload(upload).await.expect("aborted");
    }
    assert_eq!(store.uploads("").await.expect("uploads"), []);
}

/// On a bucket that keeps versions: they are listed, and an old one comes back unless somebody wrote since.
pub(crate) async fn versions_come_back(store: &Store) {
    for length in [1000, 6 << 20] {
        let key = format!("v/{length}");
        let first = body(length, 1);
        let etag = store.put(&key, first.clone()).await.expect("put");
        let carried = Carried { tags: pairs(&[("version", "1")]), ..Carried::default() };
        let pieces = [Piece::Copy(0..u64::from(length))];
        let one = store.replace(&key, &pieces, &etag, &carried, "run 1").await.expect("replaced");
        let carried = Carried { tags: pairs(&[("version", "2")]), ..Carried::default() };
        let two = store
            .replace(&key, &[Piece::Bytes(Bytes::from_static(b"two"))], &one.etag, &carried, "run 2")
            .await
            .expect("replaced");
        store.put(&format!("{key}.other"), Bytes::new()).await.expect("put");
        let versions = store.versions(&key).await.expect("versions");
        assert_eq!(versions.len(), 3, "{versions:?}");
        assert_eq!((&versions[0].etag, versions[0].latest), (&two.etag, true));
        assert_eq!(Some(&versions[0].version), two.version.as_ref());
        assert_eq!(Some(&versions[1].version), one.version.as_ref());

        let old = one.version.expect("a version");
        let ends = [900..1000, 0..10];
        let read = store.get_version_ranges(&key, &old, &ends).await.expect("ranges");
        assert!(read.iter().zip(&ends).all(|(read, range)| *read == first[range.start as usize..range.end as usize]));
        assert_eq!(store.head_version(&key, &old).await.expect("head").map(|meta| meta.etag), Some(one.etag.clone()));
        store.expect_version(&key, &old, &one.etag).await.expect("it is there");
        let error = store.expect_version(&key, &old, &two.etag).await.expect_err("another content");
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        let error = store.expect_version(&key, "null", &one.etag).await.expect_err("no version");
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        let error = store.restore_version(&key, &old, &one.etag, true, "back").await.expect_err("changed since");
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        let back = store.restore_version(&key, &old, &two.etag, true, "back").await.expect("restored");
        let found = store.inspect(&key).await.expect("inspect").expect("present");
        assert_eq!((&found.meta.etag, found.meta.version), (&back.etag, back.version));
        assert_eq!(found.carried.tags, pairs(&[("version", "1")]));
        assert!(store.get(&key).await.expect("get").expect("present").bytes == first);
        let error =
            store.restore_version(&key, "no-such-version", &back.etag, false, "back").await.expect_err("no version");
        assert!(matches!(error.kind(), Kind::NotFound | Kind::Invalid), "{error}");
    }
}

#[test]
fn memory_replaces_by_pieces_and_keeps_metadata() {
    let store = memory();
    block_on(async {
        replacing(&store).await;
        probing(&store, &[]).await;
        let etag = store.put("kept", body(10, 0)).await.expect("put");
        let carried = Carried {
            content_type: Some("application/x-parquet".into()),
            metadata: BTreeMap::from([("colour".into(), "blue".into())]),
            ..Carried::default()
        };
        store.replace("kept", &[Piece::Copy(0..5)], &etag, &carried, "run").await.expect("replaced");
        assert_eq!(store.inspect("kept").await.expect("inspect").expect("present").carried, carried);
        assert_eq!(store.tags("kept").await.expect_err("none").kind(), Kind::Invalid);
        assert_eq!(store.versions("kept").await.expect_err("none").kind(), Kind::Invalid);
    });
}

#[test]
fn files_are_replaced_by_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let store = files(&directory);
    block_on(replacing(&store));
    block_on(probing(&store, &[]));
    assert!(!store.local_path("probed").unwrap().exists());
}

#[test]
fn a_place_that_cannot_be_written_says_so() {
    let store = Store::open("http://127.0.0.1:9", &StorageOptions::new()).unwrap();
    let probe = block_on(store.probe()).unwrap();
    assert_eq!(probe.checks.len(), 1);
    assert_eq!(probe.checks[0].state, CheckState::Failed);
    assert!(probe.checks[0].detail.contains("a web server is for reading only"), "{probe:?}");
}

#[cfg(unix)]
#[test]
fn a_replaced_file_keeps_its_mode_and_a_link_stays_a_link() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let store = files(&directory);
    block_on(async {
        store.put("d/file", body(10, 0)).await.unwrap();
        let path = store.local_path("d/file").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, store.local_path("link").unwrap()).unwrap();
        let etag = store.head("link").await.unwrap().unwrap().etag;
        store.replace("link", &[Piece::Copy(0..5)], &etag, &Carried::default(), "run").await.unwrap();
        assert_eq!(store.get("d/file").await.unwrap().unwrap().bytes, body(10, 0).slice(..5));
        assert!(std::fs::symlink_metadata(store.local_path("link").unwrap()).unwrap().is_symlink());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    });
}
