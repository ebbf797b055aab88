//! Failures on purpose: what is promised when answers are lost, services throttle, and processes die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::Kind;
use regraft::store::faults::{Fault, Faults, Operation};
use regraft::store::{Condition, PutAnswer, Store, block_on, random_id};

use crate::store::{files, memory};

/// Injects `fault` into the first `times` requests of one kind, before or after they are done.
pub(crate) struct First {
    operation: Operation,
    fault: Fault,
    after: bool,
    times: AtomicU32,
}

impl First {
    pub(crate) fn new(operation: Operation, fault: Fault, after: bool, times: u32) -> Arc<Self> {
        Arc::new(Self { operation, fault, after, times: times.into() })
    }

    fn answer(&self, operation: Operation, after: bool) -> Result<(), Fault> {
        let hit = operation == self.operation
            && after == self.after
            && self.times.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if hit { Err(self.fault) } else { Ok(()) }
    }
}

#[async_trait]
impl Faults for First {
    async fn before(&self, operation: Operation, _: &str) -> Result<(), Fault> {
        self.answer(operation, false)
    }

    async fn after(&self, operation: Operation, _: &str) -> Result<(), Fault> {
        self.answer(operation, true)
    }
}

/// A conditional put whose answer is lost is ours, once; one that met somebody else's write is theirs.
pub(crate) async fn lost_answers_are_resolved(store: &Store) {
    let body = || Bytes::from(random_id());
    for after in [true, false] {
        let key = format!("created {after}");
        let shaky = store.with_faults(First::new(Operation::Put, Fault::Lost, after, 1));
        let ours = body();
        let PutAnswer::Ours(etag) = shaky.put_if(&key, ours.clone(), Condition::Absent).await.expect("resolved") else {
            panic!("nobody else wrote")
        };
        let object = store.get(&key).await.expect("get").expect("present");
        assert_eq!((&object.bytes, &object.meta.etag), (&ours, &etag));

        let shaky = store.with_faults(First::new(Operation::Put, Fault::Lost, after, 1));
        let ours = body();
        let answer = shaky.put_if(&key, ours.clone(), Condition::Matches(etag.clone())).await.expect("resolved");
        let object = store.get(&key).await.expect("get").expect("present");
        assert_eq!((answer, object.bytes), (PutAnswer::Ours(object.meta.etag), ours));

        // The first try is refused, its answer is lost, and the second is refused as well.
        let shaky = store.with_faults(First::new(Operation::Put, Fault::Lost, after, 1));
        let answer = shaky.put_if(&key, body(), Condition::Matches(etag)).await.expect("resolved");
        assert_eq!(answer, PutAnswer::Theirs);
        let shaky = store.with_faults(First::new(Operation::Put, Fault::Lost, after, 1));
        assert_eq!(shaky.put_if(&key, body(), Condition::Absent).await.expect("resolved"), PutAnswer::Theirs);
    }
}

#[test]
fn lost_answers_are_resolved_in_memory_and_on_files() {
    let directory = tempfile::tempdir().unwrap();
    block_on(lost_answers_are_resolved(&memory()));
    block_on(lost_answers_are_resolved(&files(&directory)));
}

#[test]
fn failures_that_pass_are_retried_and_counted() {
    for (fault, throttles) in [(Fault::Throttled, 3), (Fault::Lost, 0)] {
        for operation in
            [Operation::Get, Operation::Head, Operation::Put, Operation::List, Operation::Delete, Operation::Copy]
        {
            let place = memory();
            block_on(place.put("x", Bytes::from_static(b"1"))).unwrap();
            let store = place.with_counters(regraft::progress::Counters::default());
            let store = store.with_faults(First::new(operation, fault, false, 3));
            block_on(async {
                match operation {
                    Operation::Get => drop(store.get("x").await.unwrap().unwrap()),
                    Operation::Head => drop(store.head("x").await.unwrap().unwrap()),
                    Operation::Put => drop(store.put("y", Bytes::new()).await.unwrap()),
                    Operation::List => {
                        use futures::TryStreamExt;
                        assert_eq!(store.list("", None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
                    }
                    Operation::Delete => store.delete("x").await.unwrap(),
                    Operation::Copy => store.copy("x", "y").await.unwrap(),
                }
            });
            let usage = store.counters().usage();
            assert_eq!((usage.retry, usage.throttle), (3, throttles), "{operation:?}");
        }
    }
}

#[test]
fn failures_that_stay_are_told_with_the_effort() {
    let store = memory();
    let broken = store.with_faults(First::new(Operation::Put, Fault::Lost, false, u32::MAX));
    let error = block_on(broken.put("x", Bytes::new())).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let start = format!("cannot write `{}` after 5 tries in ", store.url_of("x"));
    assert!(error.message().starts_with(&start), "{error}");
    assert!(error.message().ends_with("injected: the connection broke"), "{error}");
}

#[test]
fn it_stays_unknown_when_reading_back_fails_too() {
    struct Both(Arc<First>, Arc<First>);
    #[async_trait]
    impl Faults for Both {
        async fn before(&self, operation: Operation, _: &str) -> Result<(), Fault> {
            self.0.answer(operation, false)
        }
        async fn after(&self, operation: Operation, _: &str) -> Result<(), Fault> {
            self.1.answer(operation, true)
        }
    }
    let store = memory();
    let faults = Both(
        First::new(Operation::Get, Fault::Lost, false, u32::MAX),
        First::new(Operation::Put, Fault::Lost, true, 1),
    );
    let shaky = store.with_faults(Arc::new(faults));
    let error = block_on(shaky.put_if("x", Bytes::from_static(b"1"), Condition::Absent)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("it is unknown whether"), "{error}");
}

#[test]
fn a_crash_is_not_retried() {
    let store = memory();
    let crashing = store.with_faults(First::new(Operation::Put, Fault::Crash, true, 1));
    assert!(block_on(crashing.put("x", Bytes::new())).is_err());
    assert_eq!(crashing.counters().usage().put, 1);
    assert!(block_on(store.head("x")).unwrap().is_some());
}
