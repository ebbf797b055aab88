//! The contract on memory and files, and what is special to files and to the web.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use regraft::error::Kind;
use regraft::store::{Condition, StorageOptions, Store, block_on, random_id};

use crate::store_contract::{Names, contract, large_objects_come_back};

pub(crate) fn memory() -> Store {
    Store::open(&format!("memory://{}/some where", random_id()), &StorageOptions::new()).expect("memory opens")
}

pub(crate) fn files(directory: &tempfile::TempDir) -> Store {
    let path = directory.path().join("a %20 #b");
    Store::open(path.to_str().expect("UTF-8"), &StorageOptions::new()).expect("files open")
}

#[test]
fn memory_keeps_the_contract() {
    let store = memory();
    block_on(contract(&store, Names::Flat));
    block_on(large_objects_come_back(&store));
}

#[test]
fn files_keep_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let store = files(&directory);
    block_on(contract(&store, Names::Flat));
    block_on(large_objects_come_back(&store));
}

#[test]
fn a_store_is_opened_again_by_its_url() {
    let directory = tempfile::tempdir().unwrap();
    for store in [memory(), files(&directory)] {
        let again = Store::open(store.url(), &StorageOptions::new()).unwrap();
        assert_eq!(again.url(), store.url());
        block_on(async {
            store.child("x y").put("z", Bytes::from_static(b"1")).await.unwrap();
            assert_eq!(again.get("x y/z").await.unwrap().unwrap().bytes, "1");
            let single = Store::open(&store.url_of("x y/z"), &StorageOptions::new()).unwrap();
            assert_eq!(single.get("").await.unwrap().unwrap().bytes, "1");
            assert_eq!(store.sibling(".regraft").url(), format!("{}.regraft", store.url()));
        });
    }
}

#[test]
fn files_lie_where_their_keys_say_and_nothing_else_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let store = files(&directory);
    block_on(async {
        store.put("t/0.0", Bytes::from_static(b"1")).await.unwrap();
        store.put("t/0.0", Bytes::from_static(b"2")).await.unwrap();
        let refused = store.put_if("t/0.0", Bytes::from_static(b"3"), Condition::Absent).await.unwrap();
        assert_eq!(refused, regraft::store::PutAnswer::Theirs);
        let path = store.local_path("t/0.0").unwrap();
        assert_eq!(path, directory.path().join("a %20 #b/t/0.0"));
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        // What a writer left that was killed in the middle: not listed, and swept.
        let left = path.with_file_name(".0123.regraft-tmp");
        std::fs::write(&left, b"half").unwrap();
        let keys: Vec<_> = store.list("", None).map_ok(|meta| meta.key).try_collect().await.unwrap();
        assert_eq!(keys, ["t/0.0"]);
        // Where others may be writing, a lock says that one does; whoever writes here alone need not ask.
        let locks = path.with_file_name(".regraft-lock");
        std::fs::write(&locks, b"").unwrap();
        let living = std::fs::File::open(&left).unwrap();
        living.lock().unwrap();
        assert_eq!(store.sweep_dead().await.unwrap(), 0);
        drop(living);
        assert_eq!(store.sweep_dead().await.unwrap(), 1);
        assert!(!left.exists() && locks.exists() && path.exists());
        std::fs::write(&left, b"half").unwrap();
        let living = std::fs::File::open(&left).unwrap();
        living.lock().unwrap();
        assert_eq!(store.sweep().await.unwrap(), 2);
        drop(living);
        assert!(!left.exists() && path.exists());

        let error = store.put("t", Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(store.get("t").await.unwrap().is_none());
        assert!(store.get("t/0.0/x").await.unwrap().is_none());
        store.delete("t/0.0").await.unwrap();
        assert!(path.parent().unwrap().is_dir());
    });
}

/// Writes requests while somebody sweeps, 300 of them and on until so `many` temporary files were swept.
fn written_beside(sweep: impl Fn(&Store) -> u64 + Send + 'static, many: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = files(&directory);
    let (swept, sweeper) = (Arc::new(AtomicU64::new(0)), store.clone());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sweeping = std::thread::spawn({
        let swept = swept.clone();
        move || {
            while stopped.recv_timeout(Duration::from_millis(20)).is_err() {
                swept.fetch_add(sweep(&sweeper), Ordering::Relaxed);
            }
        }
    });
    let body = Bytes::from(vec![7_u8; 1 << 16]);
    let began = Instant::now();
    let mut number = 0;
    while number < 300 || swept.load(Ordering::Relaxed) < many {
        assert!(began.elapsed() < Duration::from_mins(2), "nothing was in the middle of being written");
        let answer =
            block_on(store.put_if(&format!("inbox/{number}"), body.clone(), Condition::Absent)).expect("an answer");
        assert!(matches!(answer, regraft::store::PutAnswer::Ours(_)), "{number}: {answer:?}");
        number += 1;
    }
    stop.send(()).expect("a sweeper");
    sweeping.join().expect("a sweeper");
    let keys: Vec<_> = block_on(store.list("inbox/", None).try_collect()).expect("a listing");
    assert_eq!(keys.len(), number);
}

/// Whoever takes over from a dead writer sweeps, while others leave their requests beside it.
#[test]
fn a_writer_whose_temporary_file_is_swept_writes_again() {
    written_beside(|store| block_on(store.sweep()).unwrap(), 3);
}

#[test]
fn a_sweep_for_the_dead_disturbs_nobody() {
    written_beside(|store| block_on(store.sweep_dead()).unwrap(), 0);
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    std::fs::create_dir_all(root.join("data/inner")).unwrap();
    std::fs::write(root.join("data/inner/x"), b"1").unwrap();
    std::os::unix::fs::symlink(root.join("data"), root.join("data/inner/circle")).unwrap();
    std::os::unix::fs::symlink(root.join("data"), root.join("link")).unwrap();
    std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling")).unwrap();
    let store = Store::open(root.to_str().unwrap(), &StorageOptions::new()).unwrap();
    let keys: Vec<_> = block_on(store.list("", None).map_ok(|meta| meta.key).try_collect()).unwrap();
    assert_eq!(keys, ["data/inner/x", "link/inner/x"]);
}

#[test]
fn files_and_memory_take_no_options() {
    let options = StorageOptions::from([("region".to_owned(), "x".to_owned())]);
    let error = Store::open("/tmp/x", &options).unwrap_err();
    assert_eq!(error.message(), "unknown storage option `region`: a local file takes none");
    assert!(Store::open("memory://x", &options).is_err());
}

#[test]
fn a_web_server_is_read_and_not_written() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(&stream.expect("a connection")));
        }
    });
    let store = Store::open(&format!("http://{address}/some%20data"), &StorageOptions::new()).unwrap();
    block_on(async {
        let object = store.get("a.nc").await.unwrap().unwrap();
        assert_eq!((&object.bytes[..], object.meta.etag.as_str()), (&b"0123456789"[..], "W/\"1\""));
        assert_eq!(store.get_range("a.nc", 2..5).await.unwrap().unwrap(), "234");
        assert_eq!(store.get_ranges("a.nc", &[0..1, 9..10], Some(&object.meta.etag)).await.unwrap()[1], "9");
        assert_eq!(store.get_suffix("a.nc", 3).await.unwrap().unwrap().bytes, "789");
        assert!(store.get("none.nc").await.unwrap().is_none());
        assert_eq!(store.put("x", Bytes::new()).await.unwrap_err().kind(), Kind::Invalid);
        assert_eq!(store.list("", None).try_collect::<Vec<_>>().await.unwrap_err().kind(), Kind::Invalid);
        assert_eq!(Store::open(store.url(), &StorageOptions::new()).unwrap().url(), store.url());
    });
}

/// A web server with one object, `/some%20data/a.nc`, of ten bytes.
fn serve(mut stream: &std::net::TcpStream) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let range = lines
            .by_ref()
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        // `find_map` stops in the middle of the headers.
        if range.is_some() {
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        }
        let body = b"0123456789";
        let bounds = range.map(|range| match range.split_once('-').expect("a range") {
            ("", suffix) => (10 - suffix.parse::<usize>().expect("a number"), 10),
            (start, end) => (start.parse().expect("a number"), end.parse::<usize>().expect("a number") + 1),
        });
        let headers = "ETag: W/\"1\"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n";
        let (status, extra, body) = match bounds {
            _ if !request.contains("/some%20data/a.nc ") => ("404 Not Found", String::new(), &b""[..]),
            None => ("200 OK", String::new(), &body[..]),
            Some((start, end)) => {
                ("206 Partial Content", format!("Content-Range: bytes {start}-{}/10\r\n", end - 1), &body[start..end])
            }
        };
        let head = format!("HTTP/1.1 {status}\r\n{headers}{extra}Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("written");
        if !request.starts_with("HEAD") {
            stream.write_all(body).expect("written");
        }
    }
}
