//! Migrations while answers are lost, services throttle and processes die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::Kind;
use regraft::migration::apply::ApplyOptions;
use regraft::migration::document::State;
use regraft::migration::planning::PlanRequest;
use regraft::migration::rollback::RollBackRequest;
use regraft::progress::Run;
use regraft::store::faults::{Fault, Faults, Operation};
use regraft::store::{Store, block_on};

use crate::migration::{applied, config, content, data_set, is_migrated, open, planned, verified};
use crate::store::{files, memory};

/// The process dies at the `at`-th request, before or after it was done; every later one fails too.
pub(crate) struct CrashAt {
    at: u64,
    after: bool,
    count: AtomicU64,
}

impl CrashAt {
    pub(crate) fn new(at: u64, after: bool) -> Arc<Self> {
        Arc::new(Self { at, after, count: AtomicU64::new(0) })
    }

    /// Whether it was reached.
    pub(crate) fn reached(&self) -> bool {
        self.count.load(Ordering::SeqCst) > self.at
    }
}

#[async_trait]
impl Faults for CrashAt {
    async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        if number > self.at || (number == self.at && !self.after) { Err(Fault::Crash) } else { Ok(()) }
    }

    async fn after(&self, _: Operation, _: &str) -> Result<(), Fault> {
        // The count is that of the latest request: with one at a time it is this one.
        if self.after && self.count.load(Ordering::SeqCst) == self.at + 1 { Err(Fault::Crash) } else { Ok(()) }
    }
}

/// Every object is as it was or as it is to be, never between; a second run makes all of them so.
async fn half_way(store: &Store, objects: &BTreeMap<String, Bytes>, crash: &str) {
    for (key, old) in objects {
        let now = content(store, key).await;
        if now != *old {
            is_migrated(old, &now, true);
        }
    }
    let set = open(store, config(""));
    let report = applied(&set).await;
    assert!(matches!(report.outcome.as_str(), "done" | "nothing"), "{crash}: {report:?}");
    for (key, old) in objects {
        is_migrated(old, &content(store, key).await, true);
    }
    let verification = verified(&set).await;
    assert_eq!((verification.outcome.as_str(), verification.totals.ok), ("ok", objects.len() as u64), "{crash}");
}

/// Kills a migration at each of its requests in turn, then runs it again.
fn survives_a_crash_at_any_request(place: impl Fn() -> Store) {
    for after in [false, true] {
        for at in 0.. {
            let store = place();
            let finished = block_on(async {
                let objects = data_set(&store, 2).await;
                let crash = CrashAt::new(at, after);
                let shaky = store.with_faults(crash.clone());
                let set = open(&shaky, config(r#","run":{"concurrency":1}"#));
                if let Ok(plan) = set.plan(&PlanRequest::default(), &Run::default()).await {
                    // Whatever it says: the process is gone.
                    let _ = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await;
                }
                half_way(&store, &objects, &format!("crash at {at}, after: {after}")).await;
                !crash.reached()
            });
            if finished {
                assert!(at > 8, "a migration has more requests than `{at}`");
                break;
            }
        }
    }
}

#[test]
fn a_crash_at_any_request_leaves_old_or_new_objects_and_is_resumed() {
    survives_a_crash_at_any_request(memory);
    let directory = tempfile::tempdir().expect("a directory");
    let counter = AtomicU64::new(0);
    survives_a_crash_at_any_request(|| files(&directory).child(&counter.fetch_add(1, Ordering::SeqCst).to_string()));
}

#[test]
fn a_roll_back_that_dies_is_finished_by_another() {
    for at in (0..40).step_by(3) {
        let store = memory();
        block_on(async {
            let objects = data_set(&store, 3).await;
            let report = applied(&open(&store, config(""))).await;
            let shaky = store.with_faults(CrashAt::new(at, true));
            let undo = RollBackRequest { run: Some(report.run.clone()), keys: None };
            let _ = open(&shaky, config(r#","run":{"concurrency":1}"#)).roll_back(&undo, &Run::default()).await;
            let undone = open(&store, config("")).roll_back(&undo, &Run::default()).await.expect("rolled back");
            assert_eq!(undone.totals.count(State::RolledBack), 3, "crash at {at}: {undone:?}");
            for (key, old) in &objects {
                assert_eq!(content(&store, key).await, old, "crash at {at}");
            }
        });
    }
}

/// Every so many requests fail in some way.
struct Every {
    nth: u64,
    fault: Fault,
    after: bool,
    count: AtomicU64,
}

impl Every {
    fn new(nth: u64, fault: Fault, after: bool) -> Arc<Self> {
        Arc::new(Self { nth, fault, after, count: AtomicU64::new(0) })
    }

    fn hit(&self) -> Result<(), Fault> {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count.is_multiple_of(self.nth) { Err(self.fault) } else { Ok(()) }
    }
}

#[async_trait]
impl Faults for Every {
    async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
        if self.after { Ok(()) } else { self.hit() }
    }

    async fn after(&self, _: Operation, _: &str) -> Result<(), Fault> {
        if self.after { self.hit() } else { Ok(()) }
    }
}

#[test]
fn lost_answers_and_throttling_cost_time_and_nothing_else() {
    let faults = [(20, Fault::Throttled, false), (7, Fault::Lost, true), (5, Fault::Lost, false)];
    for (nth, fault, after) in faults {
        let store = memory();
        block_on(async {
            let objects = data_set(&store, 30).await;
            let set = open(&store.with_faults(Every::new(nth, fault, after)), config(""));
            let report = applied(&set).await;
            assert_eq!((report.outcome.as_str(), report.totals.count(State::Done)), ("done", 30), "{report:?}");
            assert!(report.usage.retry > 0);
            for (key, old) in &objects {
                is_migrated(old, &content(&store, key).await, true);
            }
        });
    }
}

#[test]
fn an_outage_is_unavailable_and_harms_nothing() {
    let store = memory();
    block_on(async {
        let objects = data_set(&store, 3).await;
        let plan = planned(&open(&store, config(""))).await;
        let set = open(&store.with_faults(Every::new(1, Fault::Lost, false)), config(r#","run":{"tries":2}"#));
        let error = set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect_err("no storage");
        assert_eq!(error.kind(), Kind::Unavailable);
        for (key, old) in &objects {
            assert_eq!(content(&store, key).await, old);
        }
    });
}

#[test]
fn two_machines_with_one_plan_do_each_object_once() {
    let store = memory();
    block_on(async {
        let objects = data_set(&store, 40).await;
        let (one, other) = (open(&store, config("")), open(&store, config("")));
        let plan = planned(&one).await;
        let (options, run) = (ApplyOptions::default(), Run::default());
        let (first, second) =
            futures::future::join(one.apply(&plan, &options, &run), other.apply(&plan, &options, &run)).await;
        for report in [first.expect("applied"), second.expect("applied")] {
            assert_eq!((report.outcome.as_str(), report.totals.count(State::Done)), ("done", 40), "{report:?}");
        }
        for (key, old) in &objects {
            is_migrated(old, &content(&store, key).await, true);
        }
        assert_eq!(verified(&one).await.totals.ok, 40);
    });
}
