//! Many workers on one store: racers, zombies, sources that kill, services that misbehave, and random histories.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;
use regraft::collection::document::Report;
use regraft::collection::inspect::ProvenanceRequest;
use regraft::error::Kind;
use regraft::ledger::{Intent, Operation as Wanted};
use regraft::store::block_on;
use regraft::store::faults::{Fault, Faults, Operation};

use crate::coordination_model::{Shape, World, drain, sync};

fn intent(key: &str, operation: Wanted) -> Intent {
    Intent { key: format!("{key}.txt"), operation, sequencer: None, bucket: None }
}

/// Holds up changing requests on keys that contain some text while it is told to.
pub(crate) struct Gate {
    key: &'static str,
    pub(crate) is_closed: AtomicBool,
    waiting: AtomicUsize,
    /// Whether requests pass once it was opened, or break.
    is_lost: bool,
}

impl Gate {
    pub(crate) fn closed(key: &'static str) -> Arc<Self> {
        Arc::new(Self { key, is_closed: true.into(), waiting: 0.into(), is_lost: false })
    }

    pub(crate) async fn held_up(&self) {
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[async_trait]
impl Faults for Gate {
    async fn before(&self, operation: Operation, key: &str) -> Result<(), Fault> {
        if matches!(operation, Operation::Put | Operation::Delete | Operation::Copy) {
            // A process that stands still gives no sign of life either.
            if self.is_closed.load(Ordering::SeqCst) && (key.contains(self.key) || key.ends_with("lease.json")) {
                if key.contains(self.key) {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                }
                let is_first = self.waiting.load(Ordering::SeqCst) > 0 || key.contains(self.key);
                while is_first && self.is_closed.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                if self.is_lost {
                    return Err(Fault::Lost);
                }
            }
        }
        Ok(())
    }
}

/// A is held up at a request, B takes over and commits, A goes on: A fails, and the store is B's.
fn a_zombie_changes_nothing(key: &'static str, change: fn(&mut World), meanwhile: fn(&mut World)) {
    let mut world = World::memory(Shape { chunk: 2, ..Shape::default() });
    world.ttl = 1.0;
    world.put("a", &[10, 11, 12], 1);
    world.put("b", &[13, 14], 2);
    world.assert_settled();
    change(&mut world);
    let gate = Gate::closed(key);
    let zombie = world.collection().with_faults(gate.clone());
    let running = std::thread::spawn(move || sync(&zombie));
    block_on(gate.held_up());
    meanwhile(&mut world);
    let report = sync(&world.collection()).unwrap_or_else(|error| panic!("{key}: {error}"));
    assert_ne!(report.outcome, "busy");
    let before = (world.found(), stored(&world));
    gate.is_closed.store(false, Ordering::SeqCst);
    let error = running.join().expect("joined").expect_err("a zombie");
    assert_eq!(error.kind(), Kind::Conflict, "{key}: {error}");
    assert_eq!((world.found(), stored(&world)), before, "{key}");
    assert_eq!(world.found(), world.expected(), "{key}");
    world.assert_clean();
    world.assert_settled();
}

/// Every object of the store and of the log, with its content.
fn stored(world: &World) -> Vec<(String, Vec<u8>)> {
    use futures::TryStreamExt;
    block_on(async {
        let mut all = Vec::new();
        for name in ["out.zarr", "out.zarr.regraft/log"] {
            let place = world.place(name);
            let keys: Vec<String> = place.list("", None).map_ok(|meta| meta.key).try_collect().await.expect("listed");
            for key in keys {
                let bytes = place.get(&key).await.expect("get").expect("there").bytes.to_vec();
                all.push((format!("{name}/{key}"), bytes));
            }
        }
        all
    })
}

#[test]
fn a_zombie_cannot_overwrite_what_its_successor_committed() {
    // Stopped before the first chunk, the labels, the metadata, the announcement, the record, the deletion of a chunk.
    for key in ["sst/c/", "time/c/", "zarr.json", "log/00000000000000000003", "log/00000000000000000004"] {
        a_zombie_changes_nothing(
            key,
            |world| world.put("b", &[13, 14, 15], 5),
            |world| world.put("b", &[13, 14, 15], 6),
        );
    }
    for key in ["sst/c/", "time/c/", "zarr.json"] {
        a_zombie_changes_nothing(key, |world| world.put("c", &[9], 5), |world| world.put("c", &[8], 6));
    }
    a_zombie_changes_nothing("sst/c/", |world| world.remove("a"), |world| world.put("a", &[10, 11, 12], 7));
}

/// `writers` threads put a file each, submit it and drain, for `rounds` rounds.
pub(crate) fn racers_lose_nothing(world: World, writers: i64, rounds: i64) -> usize {
    let world = Arc::new(std::sync::Mutex::new(world));
    let commits: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let world = world.clone();
                scope.spawn(move || {
                    let collection = world.lock().expect("a world").collection();
                    let mut commits = 0;
                    for round in 0..rounds {
                        // Days of all writers share chunks.
                        let key = format!("e{writer}");
                        let days: Vec<i64> = (0..=round).map(|turn| turn * writers + writer).collect();
                        world.lock().expect("a world").put(&key, &days, writer * 10 + round);
                        let submitted = block_on(collection.submit(&[intent(&key, Wanted::Put)])).expect("submitted");
                        let report: Report = if writer % 2 == 0 {
                            drain(&collection).expect("drained")
                        } else {
                            // Returns at once where another holds the lease, who then settles it.
                            let at_once = regraft::collection::drain::DrainRequest::default();
                            block_on(collection.drain(&at_once, &regraft::progress::Run::default())).expect("drained")
                        };
                        commits += report.commits.len();
                        let run = regraft::progress::Run::default();
                        let waited = collection.wait_for(&submitted.ids, Duration::from_mins(2), &run);
                        let waited = block_on(waited).expect("waited");
                        assert_eq!(waited["pending"], serde_json::json!([]), "stranded");
                    }
                    commits
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("joined")).sum()
    });
    let mut world = Arc::into_inner(world).expect("the last").into_inner().expect("a world");
    assert_eq!(world.found(), world.expected());
    world.assert_settled();
    commits
}

#[test]
fn racing_workers_lose_nothing_in_memory_and_on_files() {
    let rounds = if std::env::var_os("REGRAFT_LONG").is_some() { 20 } else { 3 };
    for writers in [2, 8] {
        let commits = racers_lose_nothing(World::memory(Shape { chunk: 5, ..Shape::default() }), writers, rounds);
        assert!(commits as i64 <= writers * rounds);
        racers_lose_nothing(World::files(Shape { chunk: 5, ..Shape::default() }), writers, rounds);
    }
}

#[test]
fn intents_are_settled_once_and_say_how() {
    let mut world = World::memory(Shape::default());
    let collection = world.collection();
    world.put("a", &[1], 1);
    world.put("b", &[2], 2);
    block_on(world.place("in").put("bad.txt", "nothing".into())).unwrap();
    let intents = [
        intent("a", Wanted::Put),
        intent("a", Wanted::Put),
        intent("b", Wanted::Put),
        intent("bad", Wanted::Put),
        intent("gone", Wanted::Remove),
        Intent { key: "other.nc".into(), ..intent("", Wanted::Put) },
    ];
    let submitted = block_on(collection.submit(&intents)).unwrap();
    assert_eq!((submitted.ids.len(), submitted.duplicates, submitted.ignored.len()), (5, 0, 1));
    let report = drain(&collection).unwrap();
    assert_eq!((report.commits.len(), report.settled, report.outcome.as_str()), (1, 5, "partial"));
    let run = regraft::progress::Run::default();
    let waited = block_on(collection.wait_for(&submitted.ids, Duration::ZERO, &run)).unwrap();
    let outcomes: Vec<&str> =
        submitted.ids.iter().map(|id| waited["done"][id]["outcome"].as_str().expect("settled")).collect();
    assert_eq!(outcomes, ["done", "done", "done", "quarantined", "nothing"]);
    assert_eq!(drain(&collection).unwrap().outcome, "nothing");

    // A removal by name, though the file is there; then the file counts again when it is asked for.
    block_on(collection.submit(&[intent("b", Wanted::ForcedRemove)])).unwrap();
    drain(&collection).unwrap();
    assert_eq!(world.found()[&2], crate::coordination_model::FILL);
    block_on(collection.submit(&[intent("b", Wanted::Put)])).unwrap();
    drain(&collection).unwrap();
    assert_eq!(world.found(), world.expected());
}

#[test]
fn a_runner_up_comes_back_as_it_is_now_and_the_report_says_so() {
    let mut world = World::memory(Shape::default());
    world.put("a", &[5], 1);
    world.put("b", &[5, 6], 2);
    world.put("c", &[5], 3);
    world.assert_settled();
    // Nobody tells of the revision of the runner-up, nor of the loser that goes away.
    world.put("b", &[5, 6], 4);
    world.remove("c");
    world.remove("a");
    let collection = world.collection();
    block_on(collection.submit(&[intent("a", Wanted::Remove)])).unwrap();
    let report = drain(&collection).unwrap();
    let told: Vec<(&str, &str)> =
        report.changes.iter().map(|change| (change.key.as_str(), change.reason.as_str())).collect();
    assert_eq!(told[0], ("a.txt", "removed: a runner-up's data come back"));
    assert_eq!(told[1], ("b.txt", "a new version, or it beats the source that owned its labels"));
    assert_eq!(world.found(), world.expected());
    // A key that never won goes without a trace, and again without a word.
    world.assert_settled();
    assert!(
        block_on(collection.provenance(&ProvenanceRequest::default()))
            .unwrap()
            .iter()
            .all(|step| step.runners_up.is_empty())
    );

    // With nothing but the shared label, it is the removal that brings it.
    world.put("d", &[8], 1);
    world.put("e", &[8], 2);
    world.assert_settled();
    world.put("e", &[8], 3);
    world.remove("d");
    block_on(collection.submit(&[intent("d", Wanted::Remove)])).unwrap();
    let report = drain(&collection).unwrap();
    let back = report.changes.iter().find(|change| change.key == "e.txt").unwrap();
    assert_eq!(back.reason, "its data come back as they are now: the version on record is gone");
    assert_eq!(world.found(), world.expected());
    world.assert_settled();
}

/// Dies whenever a chunk of the source's days is written.
struct Deadly(AtomicU32);

#[async_trait]
impl Faults for Deadly {
    async fn before(&self, operation: Operation, key: &str) -> Result<(), Fault> {
        // Chunk 20 is day 40.
        if operation == Operation::Put && key.contains("sst/c/2/") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        if self.0.load(Ordering::SeqCst) > 0 { Err(Fault::Crash) } else { Ok(()) }
    }
}

#[test]
fn a_source_that_kills_its_workers_is_set_aside_and_the_others_are_not() {
    let mut world = World::memory(Shape { axis: "arrival", chunk: 1, ..Shape::default() });
    world.put("a", &[1], 1);
    world.put("b", &[2], 2);
    world.assert_settled();
    world.put("c", &[3], 3);
    let mut deaths = 0;
    while deaths < 20 {
        let collection = world.collection().with_faults(Arc::new(Deadly(AtomicU32::new(0))));
        if sync(&collection).is_ok() {
            break;
        }
        drop(collection);
        world.take_over();
        deaths += 1;
        if deaths == 1 {
            // One that comes later is innocent, and is not kept waiting for ever.
            world.put("b", &[2], 9);
        }
    }
    assert_eq!(deaths, 3);
    let report = block_on(world.collection().status()).unwrap();
    assert_eq!(report["quarantined"], 1);
    assert_eq!(world.found(), [(1, 101), (2, 902)].into());
    world.assert_clean();
    let released = block_on(world.collection().retry(&[])).unwrap();
    assert_eq!(released, ["c.txt"]);
    world.assert_settled();
}

/// Misbehaves in every way that a service can, but in the end answers.
struct Storm(AtomicU32);

#[async_trait]
impl Faults for Storm {
    async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
        match self.0.fetch_add(1, Ordering::SeqCst) % 11 {
            3 => Err(Fault::Throttled),
            7 => Err(Fault::Lost),
            _ => Ok(()),
        }
    }

    async fn after(&self, operation: Operation, _: &str) -> Result<(), Fault> {
        let lost = operation != Operation::List && self.0.load(Ordering::SeqCst) % 7 == 2;
        if lost { Err(Fault::Lost) } else { Ok(()) }
    }
}

#[test]
fn storms_lost_answers_and_resets_change_nothing() {
    for files in [false, true] {
        let shape = Shape::default();
        let mut world = if files { World::files(shape) } else { World::memory(shape) };
        let shaky = world.collection().with_faults(Arc::new(Storm(AtomicU32::new(0))));
        for turn in 0..6 {
            world.put("a", &[turn, 20 - turn], turn);
            world.put("b", &[10 + turn], turn);
            if turn == 3 {
                world.remove("a");
            }
            sync(&shaky).unwrap();
            world.seen = world.expected().into_keys().collect();
            assert_eq!(world.found(), world.expected());
        }
        world.assert_settled();
    }
}

#[test]
fn an_operator_fences_a_holder_that_hangs() {
    for files in [false, true] {
        let shape = Shape::default();
        let mut world = if files { World::files(shape) } else { World::memory(shape) };
        world.put("a", &[1, 2], 1);
        world.assert_settled();
        world.put("a", &[1, 2], 2);
        let gate = Gate::closed("sst/c/");
        let zombie = world.collection().with_faults(gate.clone());
        let running = std::thread::spawn(move || sync(&zombie));
        block_on(gate.held_up());
        let collection = world.collection();
        let status = block_on(collection.status()).unwrap();
        assert_eq!(status["lease"]["free"], false);
        assert_eq!(status["unfinished"]["sources"][0]["key"], "a.txt");
        let unlocked = block_on(collection.unlock()).unwrap();
        assert!(unlocked["was"].as_str().is_some_and(|was| was.starts_with("process ")), "{unlocked}");
        drain(&collection).unwrap();
        gate.is_closed.store(false, Ordering::SeqCst);
        let error = running.join().expect("joined").expect_err("a zombie");
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        assert_eq!(world.found(), world.expected());
        world.assert_settled();
    }
}

/// Dies after so many requests of any kind.
struct DiesAfter(AtomicUsize);

impl DiesAfter {
    fn never() -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(usize::MAX)))
    }
}

#[async_trait]
impl Faults for DiesAfter {
    async fn before(&self, _: Operation, _: &str) -> Result<(), Fault> {
        let less = |left: usize| Some(if left == usize::MAX { left } else { left.saturating_sub(1) });
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(0) => Err(Fault::Crash),
            _ => Ok(()),
        }
    }

    async fn after(&self, _: Operation, _: &str) -> Result<(), Fault> {
        if self.0.load(Ordering::SeqCst) == 0 { Err(Fault::Crash) } else { Ok(()) }
    }
}

/// What happens to a bucket, and to whoever watches it.
#[derive(Debug, Clone)]
enum Event {
    Put {
        key: usize,
        days: Vec<i64>,
    },
    Remove {
        key: usize,
    },
    /// Told about a key, perhaps twice, perhaps about one that nothing happened to.
    Tell {
        key: usize,
        times: usize,
    },
    Drain {
        worker: usize,
    },
    Sync {
        worker: usize,
    },
    /// A worker that dies; another one takes its place.
    Die {
        worker: usize,
        after: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..5_usize, prop::collection::btree_set(0..12_i64, 1..4)).prop_map(|(key, days)| Event::Put { key, days: days.into_iter().collect() }),
        2 => (0..5_usize).prop_map(|key| Event::Remove { key }),
        2 => (0..5_usize, 1..3_usize).prop_map(|(key, times)| Event::Tell { key, times }),
        1 => (0..WORKERS).prop_map(|worker| Event::Drain { worker }),
        2 => (0..WORKERS).prop_map(|worker| Event::Sync { worker }),
        2 => (0..WORKERS, 4..60_usize).prop_map(|(worker, after)| Event::Die { worker, after }),
    ]
}

/// Workers that stay, and keep what they know.
const WORKERS: usize = 2;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn cases() -> u32 {
    if std::env::var_os("REGRAFT_LONG").is_some() { 300 } else { 15 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_what_the_bucket_says(
        events in prop::collection::vec(event(), 4..16),
        chunk in 1..4_u64,
        shard in prop::option::of(2..3_u64),
        axis in prop_oneof![Just("sorted"), Just("arrival")],
        batch in 1..4_usize,
        zarr2 in any::<bool>(),
        coordinate in prop::option::of(1..4_u64),
    ) {
        let shard = shard.filter(|_| !zarr2 && coordinate.is_none());
        let format = if zarr2 { "zarr2" } else { "zarr3" };
        let mut world = World::memory(Shape { chunk, shard, format, axis, batch, coordinate });
        // Of many deaths some hit the same source, which is not its fault.
        world.crashes = 100;
        let hire = |world: &World| {
            let faults = DiesAfter::never();
            (world.collection().with_faults(faults.clone()), faults)
        };
        let mut workers = [hire(&world), hire(&world)];
        for (number, event) in events.iter().enumerate() {
            match event {
                Event::Put { key, days } => world.put(KEYS[*key], days, number as i64),
                Event::Remove { key } => world.remove(KEYS[*key]),
                Event::Tell { key, times } => {
                    for _ in 0..*times {
                        block_on(world.collection().submit(&[intent(KEYS[*key], Wanted::Put)])).unwrap();
                    }
                }
                Event::Drain { worker } => drop(drain(&workers[*worker].0).unwrap()),
                Event::Sync { worker } => {
                    sync(&workers[*worker].0).unwrap();
                    world.seen.extend(world.found().keys());
                    prop_assert_eq!(world.found(), world.expected());
                    world.assert_clean();
                }
                Event::Die { worker, after } => {
                    workers[*worker].1.0.store(*after, Ordering::SeqCst);
                    let _ = sync(&workers[*worker].0);
                    workers[*worker] = hire(&world);
                    world.take_over();
                }
            }
        }
        // A dead worker may have brought days whose source is gone since.
        drain(&workers[0].0).unwrap();
        world.seen.extend(world.found().keys());
        world.assert_settled();
    }
}
