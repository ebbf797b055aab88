//! Workers of one plan, one of which stands still while the others go on without it.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use regraft::collection::backfill::ShardReport;
use regraft::collection::document::Plan;
use regraft::collection::planning::Request;
use regraft::error::{Kind, Result};
use regraft::progress::Run;
use regraft::store::block_on;

use crate::coordination::Gate;
use crate::coordination_model::{Shape, World, sync};

fn world() -> World {
    let mut world = World::memory(Shape { chunk: 2, ..Shape::default() });
    world.ttl = 1.0;
    for (index, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let day = index as i64;
        world.put(key, &[2 * day, 2 * day + 1], day);
    }
    world
}

fn shard(world: &World, plan: &Plan, number: u64) -> Result<ShardReport> {
    block_on(world.collection().apply_shard(plan, number, 2, &Run::default()))
}

/// A worker of shard 1 of 2 that is held up before its first chunk.
fn held_up(world: &World, plan: &Plan) -> (std::sync::Arc<Gate>, JoinHandle<Result<ShardReport>>) {
    // Its own block, not what the announcement creates.
    let gate = Gate::closed("sst/c/0/");
    let (collection, plan) = (world.collection().with_faults(gate.clone()), plan.clone());
    let running = std::thread::spawn(move || block_on(collection.apply_shard(&plan, 1, 2, &Run::default())));
    block_on(gate.held_up());
    (gate, running)
}

#[test]
fn a_shard_that_stood_still_does_not_write_after_its_backfill_was_given_up() {
    let mut world = world();
    let plan = block_on(world.collection().plan(&Request::default(), &Run::default())).expect("planned");
    let (gate, running) = held_up(&world, &plan);
    assert!(block_on(world.collection().unlock()).expect("unlocked")["backfill"].is_string());
    // The same days hold other values by now.
    world.put("a", &[0, 1], 7);
    sync(&world.collection()).expect("synchronised");
    assert_eq!(world.found(), world.expected());
    block_on(async { tokio::time::sleep(Duration::from_millis(500)).await });
    gate.is_closed.store(false, Ordering::SeqCst);
    let error = running.join().expect("joined").expect_err("given up");
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert!(error.message().contains("has ended: given up, or published"), "{error}");
    assert_eq!(world.found(), world.expected());
    world.assert_settled();
}

#[test]
fn a_shard_that_another_worker_did_meanwhile_is_nothing() {
    let mut world = world();
    let plan = block_on(world.collection().plan(&Request::default(), &Run::default())).expect("planned");
    let (gate, running) = held_up(&world, &plan);
    assert_eq!(shard(&world, &plan, 2).expect("written").outcome, "written");
    assert_eq!(shard(&world, &plan, 1).expect("published").outcome, "published");
    world.put("a", &[0, 1], 7);
    world.assert_settled();
    block_on(async { tokio::time::sleep(Duration::from_millis(500)).await });
    gate.is_closed.store(false, Ordering::SeqCst);
    assert_eq!(running.join().expect("joined").expect("nothing to do").outcome, "nothing");
    world.assert_settled();
}
