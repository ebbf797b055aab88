//! Replacing by pieces, tags, versions: what every place promises, as plain functions, on memory and files here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use regraft::error::Kind;
use regraft::store::faults::{Fault, Operation};
use regraft::store::{Carried, Piece, Store, block_on};

use crate::store::{files, memory};
use crate::store_faults::First;

/// All promises, each in a place of its own.
pub(crate) async fn replacing(store: &Store) {
    pieces_are_joined(&store.child("pieces")).await;
    only_the_expected_is_replaced(&store.child("expected")).await;
    lost_answers_are_ours(&store.child("lost")).await;
    no_replacement_is_lost(&store.child("races")).await;
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

#[test]
fn memory_replaces_by_pieces_and_keeps_metadata() {
    let store = memory();
    block_on(async {
        replacing(&store).await;
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
    block_on(replacing(&files(&directory)));
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
