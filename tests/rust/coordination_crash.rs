//! A worker that dies before or after any request that changes something: the next one makes the store whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::TryStreamExt;
use regraft::collection::planning::Request;
use regraft::error::Kind;
use regraft::progress::Run;
use regraft::store::block_on;
use regraft::store::faults::{Fault, Faults, Operation};
use serde_json::Value;

use crate::coordination_model::{Shape, World, drain, sync};

/// Lets some changing requests through, then the process is dead.
pub(crate) struct DiesAt {
    pub(crate) is_armed: AtomicBool,
    changes: AtomicUsize,
    limit: usize,
    last_is_done: bool,
}

impl DiesAt {
    pub(crate) fn new(limit: usize, last_is_done: bool) -> Arc<Self> {
        Arc::new(Self { is_armed: AtomicBool::new(false), changes: AtomicUsize::new(0), limit, last_is_done })
    }
}

#[async_trait]
impl Faults for DiesAt {
    async fn before(&self, operation: Operation, _: &str) -> Result<(), Fault> {
        let changes = match operation {
            _ if !self.is_armed.load(Ordering::SeqCst) => return Ok(()),
            Operation::Put | Operation::Delete | Operation::Copy => self.changes.fetch_add(1, Ordering::SeqCst) + 1,
            _ => self.changes.load(Ordering::SeqCst),
        };
        let is_dead = changes > self.limit || (changes == self.limit && !self.last_is_done);
        if is_dead { Err(Fault::Crash) } else { Ok(()) }
    }

    async fn after(&self, _: Operation, _: &str) -> Result<(), Fault> {
        if self.changes.load(Ordering::SeqCst) >= self.limit { Err(Fault::Crash) } else { Ok(()) }
    }
}

/// What happens to a store that holds days 10, 12, 14 and 16, and how the bucket changes before it and after the crash.
struct Scenario {
    name: &'static str,
    change: fn(&mut World),
    /// After the crash: what else the bucket went through.
    meanwhile: fn(&mut World),
}

fn begin(world: &mut World) {
    world.put("a", &[10], 1);
    world.put("b", &[12, 14], 2);
    world.put("c", &[16], 3);
    world.put("d", &[12], 4);
}

fn nothing(_: &mut World) {}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "first commit", change: begin, meanwhile: nothing },
    Scenario {
        name: "first commit, sources gone",
        change: begin,
        meanwhile: |world| ["a", "b", "c", "d"].iter().for_each(|key| world.remove(key)),
    },
    Scenario {
        name: "first commit, some sources gone",
        change: begin,
        meanwhile: |world| ["b", "c"].iter().for_each(|key| world.remove(key)),
    },
    Scenario { name: "append", change: |world| world.put("e", &[17, 18, 19], 5), meanwhile: nothing },
    Scenario {
        name: "append, gone",
        change: |world| world.put("e", &[17, 18, 19], 5),
        meanwhile: |world| world.remove("e"),
    },
    Scenario { name: "overwrite", change: |world| world.put("b", &[12, 14], 6), meanwhile: nothing },
    Scenario {
        name: "overwrite, changed again",
        change: |world| world.put("b", &[12, 14], 6),
        meanwhile: |world| world.put("b", &[12, 14], 7),
    },
    Scenario {
        name: "overwrite, gone",
        change: |world| world.put("b", &[12, 14], 6),
        meanwhile: |world| world.remove("b"),
    },
    Scenario { name: "insert", change: |world| world.put("e", &[11, 13], 5), meanwhile: nothing },
    Scenario {
        name: "insert, gone",
        change: |world| world.put("e", &[11, 13], 5),
        meanwhile: |world| world.remove("e"),
    },
    Scenario {
        name: "insert, and a source of the tail gone",
        change: |world| world.put("e", &[9], 5),
        meanwhile: |world| world.remove("c"),
    },
    Scenario {
        name: "insert, moved elsewhere",
        change: |world| world.put("e", &[11], 5),
        meanwhile: |world| world.put("e", &[15, 20], 6),
    },
    Scenario { name: "removal with a runner-up", change: |world| world.remove("b"), meanwhile: nothing },
    Scenario {
        name: "removal, and it is back",
        change: |world| world.remove("b"),
        meanwhile: |world| world.put("b", &[12, 14], 8),
    },
    Scenario {
        name: "everything at once",
        change: |world| {
            world.put("a", &[10], 9);
            world.remove("c");
            world.put("e", &[8, 11, 30], 5);
        },
        meanwhile: nothing,
    },
];

/// Dies at every request of every scenario; returns how often.
fn die_everywhere(shape: &Shape, world: fn(Shape) -> World, every: usize) -> usize {
    let mut deaths = 0;
    for scenario in SCENARIOS {
        for last_is_done in [false, true] {
            for limit in (1..).step_by(every) {
                let mut world = world(shape.clone());
                if !scenario.name.starts_with("first") {
                    begin(&mut world);
                    world.assert_settled();
                }
                let faults = DiesAt::new(limit, last_is_done);
                let dying = world.collection().with_faults(faults.clone());
                let next = world.collection();
                // Every other time both know the store from before.
                if (limit / every) % 2 == 1 {
                    sync(&next).expect("synchronised");
                    sync(&dying).expect("synchronised");
                    world.seen.extend(world.found().keys());
                }
                let old = world.found();
                (scenario.change)(&mut world);
                let new = world.expected();
                let told = format!("{}, request {limit}, done: {last_is_done}, {shape:?}", scenario.name);
                println!("{told}");
                faults.is_armed.store(true, Ordering::SeqCst);
                if sync(&dying).is_ok() {
                    break;
                }
                drop(dying);
                world.take_over();
                deaths += 1;
                let changed_meanwhile = scenario.meanwhile as usize != nothing as *const () as usize;
                (scenario.meanwhile)(&mut world);
                // The next worker was asked for nothing, and makes it whole all the same.
                drain(&next).unwrap_or_else(|error| panic!("{told}: {error}"));
                let found = world.found();
                // With several commits there are states between.
                if !changed_meanwhile && shape.batch > 1 {
                    assert!(found == old || found == new, "{told}: {found:?} is neither {old:?} nor {new:?}");
                }
                world.assert_clean();
                world.seen.extend(found.keys());
                if limit % 3 == 0 || every > 1 {
                    sync(&next).unwrap_or_else(|error| panic!("{told}: {error}"));
                    world.assert_settled();
                }
            }
        }
    }
    deaths
}

fn is_long() -> bool {
    std::env::var_os("REGRAFT_LONG").is_some()
}

#[test]
fn a_worker_may_die_at_every_request_in_memory() {
    let mut deaths = die_everywhere(&Shape::default(), World::memory, if is_long() { 1 } else { 2 });
    // The labels of the axis lie in several chunks, of which not all are read.
    let many_parts = Shape { coordinate: Some(2), ..Shape::default() };
    deaths += die_everywhere(&many_parts, World::memory, if is_long() { 1 } else { 3 });
    if is_long() {
        deaths += die_everywhere(&Shape { chunk: 1, ..Shape::default() }, World::memory, 1);
        deaths += die_everywhere(&Shape { shard: Some(2), ..Shape::default() }, World::memory, 1);
        deaths += die_everywhere(&Shape { axis: "arrival", ..Shape::default() }, World::memory, 1);
        deaths += die_everywhere(&Shape { batch: 1, ..Shape::default() }, World::memory, 1);
    }
    println!("{deaths} deaths");
}

#[test]
fn a_worker_may_die_at_every_request_of_zarr_2() {
    let shape = Shape { format: "zarr2", chunk: 3, ..Shape::default() };
    println!("{} deaths", die_everywhere(&shape, World::memory, if is_long() { 1 } else { 5 }));
}

#[test]
fn a_worker_may_die_at_every_request_on_files() {
    let mut deaths = die_everywhere(&Shape::default(), World::files, if is_long() { 1 } else { 4 });
    if is_long() {
        deaths += die_everywhere(&Shape { chunk: 1, ..Shape::default() }, World::files, 1);
    }
    println!("{deaths} deaths");
}

/// Sources and versions that two commits have taken.
fn taken_twice(world: &World) -> Vec<(String, String)> {
    let log = world.place("out.zarr.regraft/log");
    let mut keys: Vec<String> = block_on(log.list("", None).map_ok(|meta| meta.key).try_collect()).expect("listed");
    keys.sort();
    let mut taken: Vec<(String, String)> = Vec::new();
    let mut twice = Vec::new();
    for key in keys {
        let object = block_on(log.get(&key)).expect("get").expect("a record");
        let record: Value = serde_json::from_slice(&object.bytes).expect("JSON");
        if record["kind"] != "commit" {
            continue;
        }
        for source in record["sources"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let one = (text(&source["key"]), text(&source["version"]["etag"]));
            if taken.contains(&one) { twice.push(one) } else { taken.push(one) }
        }
    }
    twice
}

/// The last worker of a backfill dies at each of its requests; the next one publishes, or finds that it was published.
fn publishers_die(world: fn(Shape) -> World, ttl: f64, exists: bool, every: usize) -> usize {
    let mut deaths = 0;
    let shape = Shape { chunk: 3, ..Shape::default() };
    let run = Run::default();
    for last_is_done in [false, true] {
        for limit in (1..).step_by(every) {
            let mut world = world(shape.clone());
            world.ttl = ttl;
            // A checkpoint must not forget which plan was published.
            world.checkpoint = 1;
            if exists {
                world.put("a", &[10, 11], 1);
                world.assert_settled();
                world.put("a", &[10, 11], 2);
            }
            let old = world.found();
            world.put("b", &[12, 13, 14, 15], 3);
            world.put("c", &[16, 17], 4);
            world.put("d", &[18, 19, 20, 21, 22], 5);
            let new = world.expected();
            // Regions that a source revises are written at once, new ones are not seen.
            let revised =
                new.iter().filter(|(day, _)| old.contains_key(day)).map(|(day, value)| (*day, *value)).collect();
            let told = format!("store exists: {exists}, request {limit}, done: {last_is_done}");
            println!("{told}");
            let plan = block_on(world.collection().plan(&Request::default(), &run)).expect("planned");
            let first = block_on(world.collection().apply_shard(&plan, 1, 2, &run)).expect("a shard");
            assert_eq!(first.outcome, "written", "{told}");
            let death = DiesAt::new(limit, last_is_done);
            death.is_armed.store(true, Ordering::SeqCst);
            let dying = world.collection().with_faults(death);
            if let Ok(done) = block_on(dying.apply_shard(&plan, 2, 2, &run)) {
                assert!(limit > 3, "{told}: {done:?}");
                break;
            }
            drop(dying);
            deaths += 1;
            if limit % 2 == 0 {
                // Somebody else comes by before: he mends what was announced, or is told that the backfill is not finished.
                match drain(&world.collection()) {
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{told}: {error}"),
                }
            }
            let found = world.found();
            assert!([&old, &revised, &new].contains(&&found), "{told}: {found:?}");
            let second = block_on(world.collection().apply_shard(&plan, 2, 2, &run))
                .unwrap_or_else(|error| panic!("{told}: {error}"));
            assert!(["published", "nothing"].contains(&second.outcome.as_str()), "{told}: {second:?}");
            assert_eq!(world.found(), new, "{told}");
            assert_eq!(taken_twice(&world), [], "{told}");
            // A publisher that died with nothing but its last words unsaid is inherited from by whoever comes next.
            drain(&world.collection()).unwrap_or_else(|error| panic!("{told}: {error}"));
            world.assert_clean();
            if limit % 5 == 0 || every > 1 {
                world.assert_settled();
            }
        }
    }
    deaths
}

#[test]
fn the_publisher_of_a_backfill_may_die_at_every_request() {
    let every = if is_long() { 1 } else { 3 };
    let mut deaths = 0;
    for exists in [false, true] {
        deaths += publishers_die(World::files, 60.0, exists, every);
        // Who dies in memory is waited for.
        deaths += publishers_die(World::memory, 1.0, exists, if is_long() { 1 } else { 10 });
    }
    println!("{deaths} publishers died");
}
