//! Promises between processes on one machine: this binary runs itself again as the other process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use regraft::error::Kind;
use regraft::ledger::{Lease, LeaseOptions};
use regraft::store::{StorageOptions, Store, block_on};

use crate::store_contract::increment;

const PLACE: &str = "REGRAFT_TEST_CHILD_PLACE";

/// Runs the test `name` in another process, with the place in its environment.
fn child(name: &str, place: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(PLACE, place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the other process starts")
}

fn place() -> Option<Store> {
    let place = std::env::var(PLACE).ok()?;
    Some(Store::open(&place, &StorageOptions::new()).expect("opens"))
}

#[test]
#[ignore = "the other process of `a_lock_ends_with_its_process`"]
fn child_locks() {
    let Some(control) = place() else { return };
    let _lease = block_on(Lease::acquire(&control, &LeaseOptions::default())).unwrap();
    println!("\nlocked");
    // Until it is killed.
    std::io::stdin().lines().for_each(drop);
}

#[test]
#[ignore = "the other process of `no_update_is_lost_between_processes`"]
fn child_increments() {
    let Some(store) = place() else { return };
    block_on(increment(&store, 40));
}

#[test]
fn a_lock_ends_with_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.zarr.regraft");
    let control = Store::open(path.to_str().unwrap(), &StorageOptions::new()).unwrap();
    let mut holder = child("processes::child_locks", &path);
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "locked"));

    let waiting =
        |milliseconds| LeaseOptions { wait: Some(Duration::from_millis(milliseconds)), ..LeaseOptions::default() };
    let error = block_on(Lease::acquire(&control, &waiting(50))).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let expected =
        format!("`{}` is being written by process {} on ", control.url().trim_end_matches(".regraft"), holder.id());
    assert!(error.message().starts_with(&expected), "{error}");
    assert!(!block_on(Lease::state(&control)).unwrap().unwrap().free);

    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(block_on(Lease::state(&control)).unwrap().unwrap().free);
    let lease = block_on(Lease::acquire(&control, &waiting(10_000))).unwrap();
    assert!(lease.inherited());
    assert_eq!(lease.epoch(), 2);
}

#[test]
fn no_update_is_lost_between_processes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap(), &StorageOptions::new()).unwrap();
    block_on(store.put("counter", Bytes::from_static(b"0"))).unwrap();
    let children: Vec<Child> = (0..3).map(|_| child("processes::child_increments", directory.path())).collect();
    block_on(increment(&store, 40));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(block_on(store.get("counter")).unwrap().unwrap().bytes, "160");
}
