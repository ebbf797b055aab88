//! What every store promises, as plain functions over an empty place in any store.

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use regraft::error::Kind;
use regraft::store::{Condition, ETag, ObjectMeta, PutAnswer, Store, random_id};

/// What a place makes of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Plain bytes, and listed in their order, as S3 does.
    Flat,
    /// Directories, as SeaweedFS does: `d/x` is listed before `d-`, and a backslash becomes a slash.
    Directories,
}

/// All promises, each in a place of its own.
pub(crate) async fn contract(store: &Store, names: Names) {
    objects_come_back(&store.child("objects")).await;
    ranges_come_back(&store.child("ranges")).await;
    conditions_hold(&store.child("conditions")).await;
    one_creator_wins(&store.child("creators")).await;
    no_update_is_lost(&store.child("updates")).await;
    listings_are_in_order(&store.child("listings"), names).await;
    odd_keys_come_back(&store.child("odd keys"), names).await;
    impossible_keys_are_refused(&store.child("impossible")).await;
    objects_move(&store.child("moves")).await;
}

async fn objects_come_back(store: &Store) {
    assert!(store.get("a/b").await.expect("get").is_none());
    assert!(store.head("a/b").await.expect("head").is_none());
    let before = store.counters().usage();
    let etag = store.put("a/b", Bytes::from_static(b"first")).await.expect("put");
    let object = store.get("a/b").await.expect("get").expect("present");
    let usage = store.counters().usage() - before;
    assert_eq!((usage.put, usage.get, usage.bytes_written, usage.bytes_read), (1, 1, 5, 5));
    assert_eq!(object.bytes, "first");
    assert_eq!((object.meta.key.as_str(), object.meta.size, &object.meta.etag), ("a/b", 5, &etag));
    assert_eq!(store.head("a/b").await.expect("head"), Some(object.meta.clone()));
    assert!(object.meta.modified.is_some_and(|time| time.starts_with("20") && time.ends_with('Z')));

    assert_eq!(store.get_if_match("a/b", &etag).await.expect("unchanged"), "first");
    let second = store.put("a/b", Bytes::from_static(b"other")).await.expect("put");
    assert_ne!(etag, second);
    assert_eq!(store.get_if_match("a/b", &etag).await.expect_err("changed").kind(), Kind::Conflict);
    assert_eq!(store.get_if_match("a/none", &etag).await.expect_err("absent").kind(), Kind::NotFound);

    store.put("empty", Bytes::new()).await.expect("put");
    assert_eq!(store.get("empty").await.expect("get").expect("present").bytes.len(), 0);
    store.delete("a/b").await.expect("delete");
    store.delete("a/b").await.expect("delete again");
    assert!(store.get("a/b").await.expect("get").is_none());
}

async fn ranges_come_back(store: &Store) {
    let body: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let body = Bytes::from(body);
    let etag = store.put("x", body.clone()).await.expect("put");
    assert_eq!(store.get_range("x", 10..20).await.expect("range"), Some(body.slice(10..20)));
    assert_eq!(store.get_range("x", 7..7).await.expect("range"), Some(Bytes::new()));
    assert_eq!(store.get_range("none", 0..1).await.expect("range"), None);
    for outside in [2_999_999..3_000_001, 3_000_000..3_000_001, 4_000_000..4_000_001] {
        assert_eq!(store.get_range("x", outside).await.expect_err("outside").kind(), Kind::Invalid);
    }
    let tail = store.get_suffix("x", 5).await.expect("suffix").expect("present");
    assert_eq!((tail.bytes, tail.meta.size), (body.slice(2_999_995..), 3_000_000));
    let all = store.get_suffix("x", 9_000_000).await.expect("suffix").expect("present");
    assert_eq!(all.bytes, body);

    let ranges = [2_500_000..2_500_100, 0..10, 20..30, 0..0, 5..25];
    let before = store.counters().usage();
    let parts = store.get_ranges("x", &ranges, Some(&etag)).await.expect("ranges");
    assert_eq!((store.counters().usage() - before).get, 2);
    for (part, range) in parts.iter().zip(&ranges) {
        assert_eq!(part, &body.slice(range.start as usize..range.end as usize));
    }
    store.put("x", body.slice(1..)).await.expect("put");
    assert_eq!(store.get_ranges("x", &ranges, Some(&etag)).await.expect_err("changed").kind(), Kind::Conflict);
    assert_eq!(store.get_ranges("none", &ranges, None).await.expect_err("absent").kind(), Kind::NotFound);
}

async fn conditions_hold(store: &Store) {
    let put = |body: &'static str, condition| store.put_if("x", Bytes::from_static(body.as_bytes()), condition);
    let nobody = Condition::Matches(ETag("\"0123456789abcdef0123456789abcdef\"".into()));
    assert_eq!(put("a", nobody.clone()).await.expect("absent"), PutAnswer::Theirs);
    let PutAnswer::Ours(first) = put("a", Condition::Absent).await.expect("create") else {
        panic!("nothing was there")
    };
    assert_eq!(put("b", Condition::Absent).await.expect("create"), PutAnswer::Theirs);
    assert_eq!(put("b", nobody).await.expect("update"), PutAnswer::Theirs);
    let PutAnswer::Ours(second) = put("b", Condition::Matches(first.clone())).await.expect("update") else {
        panic!("nobody else wrote")
    };
    assert_eq!(put("c", Condition::Matches(first)).await.expect("update"), PutAnswer::Theirs);
    let object = store.get("x").await.expect("get").expect("present");
    assert_eq!((object.bytes, object.meta.etag), (Bytes::from_static(b"b"), second.clone()));
    store.delete("x").await.expect("delete");
    assert_eq!(put("d", Condition::Matches(second)).await.expect("update"), PutAnswer::Theirs);
}

async fn one_creator_wins(store: &Store) {
    let racers = (0..32).map(|racer| {
        let store = store.clone();
        tokio::spawn(async move { store.put_if("x", Bytes::from(format!("{racer}")), Condition::Absent).await })
    });
    let mut winners = Vec::new();
    for (racer, answer) in join_all(racers).await.into_iter().enumerate() {
        if matches!(answer.expect("joined").expect("answered"), PutAnswer::Ours(_)) {
            winners.push(racer.to_string());
        }
    }
    let stored = store.get("x").await.expect("get").expect("present").bytes;
    assert_eq!(winners, [String::from_utf8_lossy(&stored)]);
}

async fn no_update_is_lost(store: &Store) {
    const EACH: u32 = 6;
    store.put("counter", Bytes::from_static(b"0")).await.expect("put");
    let tasks = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { increment(&store, EACH).await })
    });
    for task in join_all(tasks).await {
        task.expect("joined");
    }
    assert_eq!(store.get("counter").await.expect("get").expect("present").bytes, (8 * EACH).to_string());
}

/// Adds 1 to the object `counter`, `times` times, by compare and swap.
pub(crate) async fn increment(store: &Store, times: u32) {
    for _ in 0..times {
        loop {
            let object = store.get("counter").await.expect("get").expect("present");
            let count: u32 = std::str::from_utf8(&object.bytes).expect("text").parse().expect("a number");
            let next = Bytes::from((count + 1).to_string());
            match store.put_if("counter", next, Condition::Matches(object.meta.etag)).await.expect("answered") {
                PutAnswer::Ours(_) => break,
                PutAnswer::Theirs => tokio::task::yield_now().await,
            }
        }
    }
}

async fn listings_are_in_order(store: &Store, names: Names) {
    let mut keys: Vec<String> = (0..1_500).map(|index| format!("d/{:04}", index * 7 % 1_500)).collect();
    keys.extend(["d0", "e/f/g"].map(str::to_owned));
    if names == Names::Flat {
        keys.extend(["d.txt", "d/0001.x/y", "d-"].map(str::to_owned));
    }
    for batch in keys.chunks(100) {
        let puts = batch.iter().map(|key| store.put(key, Bytes::from_static(b"x")));
        for outcome in join_all(puts).await {
            outcome.expect("put");
        }
    }
    keys.sort_unstable();
    same(&listed(store, "", None).await, &keys);
    let inside: Vec<String> = keys.iter().filter(|key| key.starts_with("d/00")).cloned().collect();
    same(&listed(store, "d/00", None).await, &inside);
    let after: Vec<String> = keys.iter().filter(|key| key.as_str() > "d/0999").cloned().collect();
    same(&listed(store, "", Some("d/0999")).await, &after);
    same(&listed(store, "d/", Some("d/1499x")).await, &[]);
    same(&listed(store, "nothing/", None).await, &[]);
    let meta: Vec<_> = store.list("e/", None).try_collect().await.expect("list");
    let head = store.head("e/f/g").await.expect("head").expect("present");
    // Listings do not say versions, and may say times more exactly.
    assert_eq!(meta, [ObjectMeta { version: None, modified: meta[0].modified.clone(), ..head }]);
    // A place beside this one whose name begins the same is another place.
    store.sibling("x").put("y", Bytes::new()).await.expect("put");
    same(&listed(store, "", None).await, &keys);
}

async fn listed(store: &Store, prefix: &str, after: Option<&str>) -> Vec<String> {
    store.list(prefix, after).map_ok(|meta| meta.key).try_collect().await.expect("list")
}

/// Compares long listings; says where they differ, not all of both.
fn same(found: &[String], expected: &[String]) {
    if let Some(position) = (0..found.len().max(expected.len())).find(|&index| found.get(index) != expected.get(index))
    {
        panic!("key {position}: found {:?}, expected {:?}", found.get(position), expected.get(position));
    }
}

async fn odd_keys_come_back(store: &Store, names: Names) {
    let mut keys: Vec<String> = [
        "a b",
        "a+b",
        "a%20b",
        "a%b",
        "a#b",
        "a?b",
        "a&b=c",
        "ü/日本",
        "emoji 😀",
        "(x)[y]{z}",
        "a'b\"c",
        "tilde~",
        "c:d",
        "*",
        "@x",
        "a.b..c",
        "...",
        "dir%2Fname/x",
        "semi;colon,comma",
        "$dollar!",
        "^|`<>",
    ]
    .map(str::to_owned)
    .to_vec();
    if names == Names::Flat {
        keys.push("back\\slash".to_owned());
    }
    for key in &keys {
        store.put(key, Bytes::from(key.clone())).await.expect("put");
    }
    for key in &keys {
        let object = store.get(key).await.expect("get");
        assert_eq!(object.unwrap_or_else(|| panic!("`{key}` was written")).bytes, key.as_bytes());
    }
    keys.sort_unstable();
    same(&listed(store, "", None).await, &keys);
    assert_eq!(listed(store, "a%", None).await, ["a%20b", "a%b"]);
    assert_eq!(listed(store, "", Some("a%20b")).await, keys[keys.binary_search(&"a%b".to_owned()).expect("there")..]);
    for key in &keys {
        store.delete(key).await.expect("delete");
    }
    assert_eq!(listed(store, "", None).await, [""; 0]);
}

async fn impossible_keys_are_refused(store: &Store) {
    for key in ["/a", "a/", "a//b", "a/../b", "..", ".", "./a", "a\nb", "a\0b"] {
        let error = store.put(key, Bytes::new()).await.expect_err("no such key");
        assert_eq!(error.kind(), Kind::Invalid, "{key}");
        assert!(error.message().contains("segment"), "{error}");
        assert!(store.get(key).await.is_err());
    }
}

async fn objects_move(store: &Store) {
    store.put("a", Bytes::from_static(b"x")).await.expect("put");
    store.copy("a", "deep/b").await.expect("copy");
    store.rename("a", "deep/er/c").await.expect("rename");
    assert_eq!(listed(store, "", None).await, ["deep/b", "deep/er/c"]);
    assert_eq!(store.get("deep/er/c").await.expect("get").expect("present").bytes, "x");
    assert_eq!(store.copy("none", "b").await.expect_err("absent").kind(), Kind::NotFound);
    assert_eq!(store.rename("none", "b").await.expect_err("absent").kind(), Kind::NotFound);
    store.sync(&["deep/b".to_owned(), "deep/er/c".to_owned()]).await.expect("sync");
}

/// Objects above the size from which they are written in parts; apart, because it takes a while.
pub(crate) async fn large_objects_come_back(store: &Store) {
    let body: Vec<u8> = (0..70_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let body = Bytes::from(body);
    store.put("large", body.clone()).await.expect("put");
    let object = store.get("large").await.expect("get").expect("present");
    assert!(object.bytes == body, "the bytes of a large object differ");
    let etag = object.meta.etag;
    let small = Bytes::from(random_id());
    assert!(matches!(
        store.put_if("large", small, Condition::Matches(etag)).await.expect("update"),
        PutAnswer::Ours(_)
    ));
}
