//! A process that dies between any two puts of metadata leaves a store that opens as it was before or as it is after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use regraft::error::Kind;
use regraft::store::faults::{Fault, Faults, Operation};
use regraft::store::{Store, block_on, random_id};
use regraft::zarr::{ArraySpec, Compressor, DataType, FillValue, Format, Group, GroupSpec};
use serde_json::Map;

/// Lets some puts through, then the process is dead; the last put is done or not, its answer is lost either way.
struct DiesAt {
    puts: AtomicUsize,
    limit: usize,
    last_is_done: bool,
}

#[async_trait]
impl Faults for DiesAt {
    async fn before(&self, operation: Operation, _key: &str) -> Result<(), Fault> {
        let dead = |puts: usize| puts > self.limit || (puts == self.limit && !self.last_is_done);
        let puts = match operation {
            Operation::Put => self.puts.fetch_add(1, Ordering::SeqCst) + 1,
            _ => self.puts.load(Ordering::SeqCst),
        };
        if dead(puts) { Err(Fault::Crash) } else { Ok(()) }
    }

    async fn after(&self, operation: Operation, _key: &str) -> Result<(), Fault> {
        let dead = operation == Operation::Put && self.puts.load(Ordering::SeqCst) >= self.limit;
        if dead { Err(Fault::Crash) } else { Ok(()) }
    }
}

fn memory() -> Store {
    Store::open(&format!("memory://{}", random_id()), &BTreeMap::new()).expect("memory opens")
}

fn dying(store: &Store, limit: usize, last_is_done: bool) -> Store {
    store.with_faults(Arc::new(DiesAt { puts: AtomicUsize::new(0), limit, last_is_done }))
}

fn spec(format: Format) -> GroupSpec {
    let array = |path: &str| ArraySpec {
        path: path.to_owned(),
        shape: vec![1],
        chunk_shape: vec![1],
        shard_shape: None,
        data_type: DataType::Int16,
        fill_value: FillValue::zero(DataType::Int16),
        dimension_names: vec!["time".to_owned()],
        attributes: Map::new(),
        compressor: Compressor::None,
    };
    GroupSpec { format, attributes: Map::new(), arrays: vec![array("a"), array("b"), array("g/c")] }
}

fn shapes(group: &Group) -> Vec<u64> {
    group.arrays.values().map(|array| array.shape[0]).collect()
}

#[test]
fn a_creation_that_dies_is_no_store_or_a_whole_one() {
    for format in [Format::V2, Format::V3] {
        for limit in 1..12 {
            for last_is_done in [false, true] {
                let store = memory();
                let died = block_on(Group::create(&dying(&store, limit, last_is_done), &spec(format))).is_err();
                match block_on(Group::open(&store)) {
                    Ok(group) => assert_eq!(shapes(&group), [1, 1, 1], "{format:?} {limit} {last_is_done}"),
                    Err(error) => {
                        assert!(died && error.kind() == Kind::NotFound, "{error}");
                        let group = block_on(Group::create(&store, &spec(format))).expect("the next one finishes it");
                        assert_eq!(shapes(&group), [1, 1, 1]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_change_that_dies_is_seen_whole_or_not_at_all_and_can_be_made_again() {
    for format in [Format::V2, Format::V3] {
        for limit in 1..6 {
            for last_is_done in [false, true] {
                let store = memory();
                block_on(Group::create(&store, &spec(format))).expect("created");
                let grow = |store: &Store, length: u64| {
                    let mut group = block_on(Group::open(store))?;
                    for array in group.arrays.values_mut() {
                        array.set_shape(vec![length]);
                    }
                    block_on(group.publish())
                };
                let died = grow(&dying(&store, limit, last_is_done), 5).is_err();
                let found = shapes(&block_on(Group::open(&store)).expect("still a store"));
                assert!(found == [1, 1, 1] || found == [5, 5, 5], "{format:?} {limit} {last_is_done}: {found:?}");
                assert!(died || found == [5, 5, 5]);
                // The same again, or with what arrived meanwhile.
                grow(&store, 4 + limit as u64).expect("the next one finishes it");
                assert_eq!(shapes(&block_on(Group::open(&store)).expect("a store")), vec![4 + limit as u64; 3]);
            }
        }
    }
}
