//! The right to write: one holder at a time, dead ones taken over, stopped ones fenced, lost answers resolved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use regraft::error::Kind;
use regraft::ledger::{Lease, LeaseOptions};
use regraft::store::faults::{Fault, Faults, Operation};
use regraft::store::{Store, block_on};

use crate::store::{files, memory};

const TTL: Duration = Duration::from_millis(300);

fn options(wait: Duration) -> LeaseOptions {
    LeaseOptions { ttl: TTL, wait: Some(wait), single_writer: false, left: None }
}

fn at_once() -> LeaseOptions {
    options(Duration::ZERO)
}

const LONG: Duration = Duration::from_secs(30);

#[test]
fn one_holder_at_a_time_and_a_waiter_gets_what_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    for control in [memory(), files(&directory)] {
        block_on(async {
            assert!(Lease::state(&control).await.unwrap().is_none());
            let lease = Lease::acquire(&control, &at_once()).await.unwrap();
            assert_eq!((lease.epoch(), lease.inherited()), (1, false));
            let error = Lease::acquire(&control, &at_once()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict);
            let name = format!("is being written by process {}", std::process::id());
            assert!(error.message().contains(&name), "{error}");
            assert!(!Lease::state(&control).await.unwrap().unwrap().free);
            let waiter = tokio::spawn({
                let control = control.clone();
                async move { Lease::acquire(&control, &options(LONG)).await }
            });
            // Longer than the time to live: the heartbeat keeps the waiter waiting.
            tokio::time::sleep(TTL * 2).await;
            assert!(!waiter.is_finished());
            lease.check().unwrap();
            let fence = lease.fence();
            lease.release(true).await;
            let lease = waiter.await.unwrap().unwrap();
            assert_eq!((lease.epoch(), lease.inherited()), (2, false));
            assert!(control.local_path("").is_some() || fence.check().is_err());
            lease.release(false).await;
            assert!(Lease::state(&control).await.unwrap().unwrap().free);
            let lease = Lease::acquire(&control, &at_once()).await.unwrap();
            assert_eq!((lease.epoch(), lease.inherited()), (3, true));
        });
    }
}

#[test]
fn a_dead_holder_is_taken_over_after_its_time_and_not_before() {
    let control = memory();
    block_on(async {
        drop(Lease::acquire(&control, &at_once()).await.unwrap());
        let began = tokio::time::Instant::now();
        let lease = Lease::acquire(&control, &options(LONG)).await.unwrap();
        assert!(began.elapsed() > TTL, "{:?}", began.elapsed());
        assert_eq!((lease.epoch(), lease.inherited()), (2, true));
        drop(lease);
        // Looks of callers that do not wait add up.
        assert!(Lease::acquire(&control, &at_once()).await.is_err());
        tokio::time::sleep(TTL + Duration::from_millis(50)).await;
        assert_eq!(Lease::acquire(&control, &at_once()).await.unwrap().epoch(), 3);
    });
}

/// Keeps puts of the lease from arriving.
#[derive(Default)]
struct Silent(AtomicBool);

#[async_trait]
impl Faults for Silent {
    async fn before(&self, operation: Operation, key: &str) -> Result<(), Fault> {
        let silent = self.0.load(Ordering::SeqCst) && operation == Operation::Put && key.ends_with("lease.json");
        if silent { Err(Fault::Lost) } else { Ok(()) }
    }
}

#[test]
fn a_holder_that_is_not_heard_stops_by_itself_and_a_fenced_store_is_not_written() {
    let place = memory();
    let silent = Arc::new(Silent::default());
    block_on(async {
        let lease = Lease::acquire(&place.with_faults(silent.clone()), &at_once()).await.unwrap();
        let fenced = place.with_fence(lease.fence());
        fenced.put("x", Bytes::from_static(b"1")).await.unwrap();
        silent.0.store(true, Ordering::SeqCst);
        tokio::time::sleep(TTL).await;
        let error = fenced.put("x", Bytes::from_static(b"2")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains("was lost: its last sign of life is "), "{error}");
        assert_eq!(fenced.delete("x").await.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(fenced.copy("x", "y").await.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(fenced.get("x").await.unwrap().unwrap().bytes, "1");
        // Nobody took it over: the next sign of life that arrives opens the fence again.
        silent.0.store(false, Ordering::SeqCst);
        tokio::time::sleep(TTL).await;
        fenced.put("x", Bytes::from_static(b"3")).await.unwrap();
    });
}

#[test]
fn an_operator_takes_the_right_from_a_holder_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    for control in [memory(), files(&directory)] {
        block_on(async {
            let unlocked = Lease::seize(&control, &at_once()).await.unwrap();
            assert!(unlocked.was.is_none());
            unlocked.lease.release(true).await;
            let stopped = Lease::acquire(&control, &at_once()).await.unwrap();
            stopped.check().unwrap();
            let unlocked = Lease::seize(&control, &at_once()).await.unwrap();
            assert_eq!(unlocked.was.unwrap().holder.process, std::process::id());
            assert!(unlocked.lease.inherited());
            assert_eq!(unlocked.lease.epoch(), 3);
            // What the heartbeat finds out, at the latest.
            tokio::time::sleep(TTL).await;
            assert_eq!(stopped.check().unwrap_err().kind(), Kind::Conflict);
            stopped.release(true).await;
            unlocked.lease.check().unwrap();
            assert!(!Lease::state(&control).await.unwrap().unwrap().free);
            assert!(Lease::acquire(&control, &at_once()).await.is_err());
        });
    }
}

/// Loses every second answer, and every fifth request.
#[derive(Default)]
struct Shaky(AtomicU32);

#[async_trait]
impl Faults for Shaky {
    async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
        if self.0.fetch_add(1, Ordering::SeqCst).is_multiple_of(5) { Err(Fault::Lost) } else { Ok(()) }
    }

    async fn after(&self, _: Operation, _: &str) -> Result<(), Fault> {
        if self.0.load(Ordering::SeqCst).is_multiple_of(2) { Err(Fault::Lost) } else { Ok(()) }
    }
}

#[test]
fn answers_that_are_lost_do_not_cost_the_lease() {
    let control = memory().with_faults(Arc::new(Shaky::default()));
    block_on(async {
        let lease = Lease::acquire(&control, &at_once()).await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(TTL / 6).await;
            lease.check().unwrap();
        }
        lease.release(true).await;
        assert!(Lease::state(&control).await.unwrap().unwrap().free);
    });
}

/// `racers` tasks take the lease `each` times and add one to a counter by two steps that are not atomic.
pub(crate) async fn holders_exclude_each_other(control: &Store, racers: u64, each: u64) {
    let counter = Arc::new(AtomicU64::new(0));
    let tasks = (0..racers).map(|_| {
        let (control, counter) = (control.clone(), counter.clone());
        tokio::spawn(async move {
            for _ in 0..each {
                let options = LeaseOptions { wait: Some(Duration::from_mins(2)), ..LeaseOptions::default() };
                let lease = Lease::acquire(&control, &options).await.expect("in time");
                let seen = counter.load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                counter.store(seen + 1, Ordering::SeqCst);
                lease.check().expect("still held");
                lease.release(true).await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("joined");
    }
    assert_eq!(counter.load(Ordering::SeqCst), racers * each);
    let state = Lease::state(control).await.expect("a state").expect("a lease");
    assert_eq!((state.epoch, state.free), (racers * each, true));
}

#[test]
fn holders_exclude_each_other_in_memory_and_on_files() {
    let directory = tempfile::tempdir().unwrap();
    for control in [memory(), files(&directory)] {
        block_on(holders_exclude_each_other(&control, 8, 5));
    }
}

/// Storage that ignores conditions, as far as a wrapper can make one: every create finds nothing there.
struct Forgetful(Store);

#[async_trait]
impl Faults for Forgetful {
    async fn before(&self, operation: Operation, key: &str) -> Result<(), Fault> {
        if operation == Operation::Put && key.ends_with("lease.json") {
            let _ = self.0.delete("lease.json").await;
        }
        Ok(())
    }
}

#[test]
fn storage_that_ignores_conditions_is_refused_unless_there_is_a_single_writer() {
    let place = memory();
    let forgetful = place.with_faults(Arc::new(Forgetful(place.clone())));
    block_on(async {
        let error = Lease::acquire(&forgetful, &at_once()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains("run.single_writer: true"), "{error}");
        let options = LeaseOptions { single_writer: true, ..at_once() };
        Lease::acquire(&forgetful, &options).await.unwrap();
    });
}
