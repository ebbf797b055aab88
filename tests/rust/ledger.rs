//! The log under racers and lost answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures::future::join_all;
use regraft::error::Kind;
use regraft::ledger::Log;
use regraft::store::faults::{Fault, Faults, Operation};
use regraft::store::{Store, block_on};
use serde_json::{Value, json};

use crate::store::{files, memory};

/// `racers` tasks append `each` records, planning again after a conflict; all are there once, in numbers without gaps.
pub(crate) async fn racers_lose_nothing(control: &Store, racers: u32, each: u32) {
    let tasks = (0..racers).map(|racer| {
        let control = control.clone();
        tokio::spawn(async move {
            let mut log = Log::open(control).await.expect("open");
            for turn in 0..each {
                loop {
                    match log.append(&json!({"kind": "race", "racer": racer, "turn": turn})).await {
                        Ok(_) => break,
                        Err(error) if error.kind() == Kind::Conflict => log.refresh().await.expect("refresh"),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("joined");
    }
    let log = Log::open(control.clone()).await.expect("open");
    let records: Vec<(u64, Value)> = log.records(1).await.expect("records");
    assert!(records.iter().map(|(number, _)| *number).eq(1..=u64::from(racers * each)));
    let mut told: Vec<(u64, u64)> = records
        .iter()
        .map(|(_, record)| (record["racer"].as_u64().expect("racer"), record["turn"].as_u64().expect("turn")))
        .collect();
    // Each racer's turns come in its order.
    for racer in 0..u64::from(racers) {
        assert!(told.iter().filter(|(of, _)| *of == racer).map(|(_, turn)| *turn).eq(0..u64::from(each)));
    }
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), (racers * each) as usize);
}

/// Loses every third answer of a put.
struct EveryThird(AtomicU32);

#[async_trait]
impl Faults for EveryThird {
    async fn after(&self, operation: Operation, _: &str) -> Result<(), Fault> {
        let lost = operation == Operation::Put && self.0.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
        if lost { Err(Fault::Lost) } else { Ok(()) }
    }
}

#[test]
fn racers_lose_nothing_in_memory_and_on_files() {
    let directory = tempfile::tempdir().unwrap();
    for control in [memory(), files(&directory)] {
        block_on(racers_lose_nothing(&control.child("quiet"), 16, 8));
        let shaky = control.child("shaky").with_faults(Arc::new(EveryThird(AtomicU32::new(0))));
        block_on(racers_lose_nothing(&shaky, 16, 8));
    }
}
