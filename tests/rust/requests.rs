//! The requests that a commit makes, besides those for its sources: pinned, so that their number cannot grow unnoticed; and
//! that what a collection keeps from verb to verb is not trusted when it is no longer true.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use regraft::collection::Collection;
use regraft::collection::planning::Request;
use regraft::ledger::{Intent, Operation as Wanted};
use regraft::progress::Run;
use regraft::store::block_on;
use regraft::store::faults::{Fault, Faults, Operation};

use crate::coordination_model::{Shape, World, drain, sync};

/// Remembers every request to the store and its control prefix.
#[derive(Default)]
struct Listening(Mutex<Vec<String>>);

#[async_trait]
impl Faults for Listening {
    async fn before(&self, operation: Operation, key: &str) -> Result<(), Fault> {
        let key = key.rsplit_once("out.zarr").map_or(key, |(_, key)| key);
        // The numbers of records and the ids of intents are not what is pinned.
        let key = match key.rsplit_once('/') {
            Some((folder, name)) if folder.ends_with("/log") || folder.ends_with("/inbox") => {
                if name.is_empty() {
                    key.to_owned()
                } else {
                    format!("{folder}/*")
                }
            }
            _ => key.to_owned(),
        };
        self.0.lock().expect("no panic").push(format!("{operation:?} {key}"));
        Ok(())
    }
}

impl Listening {
    /// What was asked since the last time: chunks of the data by number, and everything else, sorted.
    fn heard(&self) -> (usize, Vec<String>) {
        let mut heard = std::mem::take(&mut *self.0.lock().expect("no panic"));
        let all = heard.len();
        heard.retain(|request| !request.contains("/sst/c/"));
        let chunks = all - heard.len();
        heard.sort();
        (chunks, heard)
    }
}

fn listening(world: &World) -> (Collection, Arc<Listening>) {
    let listening = Arc::new(Listening::default());
    (world.collection().with_faults(listening.clone()), listening)
}

/// A store of five days, one source each.
fn world() -> World {
    let mut world = World::memory(Shape { chunk: 4, ..Shape::default() });
    for (key, day) in ["a", "b", "c", "d", "e"].iter().zip(10..) {
        world.put(key, &[day], 1);
    }
    world.assert_settled();
    world
}

/// Of a region in two chunks that are read, patched and written.
const CHUNKS: usize = 4;

#[test]
fn a_region_costs_eight_requests_beside_its_chunks() {
    let mut world = world();
    let (collection, listening) = listening(&world);
    world.put("b", &[11], 2);
    let plan = block_on(collection.plan(&Request::default(), &Run::default())).unwrap();
    listening.heard();
    let report = block_on(collection.apply(&plan, std::time::Duration::ZERO, &Run::default())).unwrap();
    assert_eq!(report.commits.len(), 1);
    let expected = [
        "Get .regraft/lease.json",
        "Head /zarr.json",
        "List .regraft/inbox/",
        "List .regraft/log/",
        "Put .regraft/lease.json",
        "Put .regraft/lease.json",
        "Put .regraft/log/*",
        "Put .regraft/log/*",
    ];
    assert_eq!(listening.heard(), (CHUNKS, expected.map(str::to_owned).to_vec()));

    // Who held the lease last and kept what it knows need not ask who came between, nor read anything to plan.
    world.put("b", &[11], 3);
    sync(&collection).unwrap();
    let expected = [
        "Head /zarr.json",
        "Head /zarr.json",
        "List .regraft/inbox/",
        "List .regraft/log/",
        "Put .regraft/lease.json",
        "Put .regraft/lease.json",
        "Put .regraft/log/*",
        "Put .regraft/log/*",
    ];
    assert_eq!(listening.heard(), (CHUNKS, expected.map(str::to_owned).to_vec()));
    world.assert_settled();
}

#[test]
fn a_worker_that_waits_for_events_pays_for_each_commit_alone() {
    let mut world = world();
    let (collection, listening) = listening(&world);
    for round in 2..5 {
        world.put("b", &[11], round);
        let intent = Intent { key: "b.txt".into(), operation: Wanted::Put, sequencer: None, bucket: None };
        block_on(collection.submit(&[intent])).unwrap();
        listening.heard();
        drain(&collection).unwrap();
        let heard = listening.heard();
        let expected = [
            "Delete .regraft/inbox/*",
            "Get .regraft/inbox/*",
            "Head /zarr.json",
            "List .regraft/inbox/",
            "List .regraft/inbox/",
            "List .regraft/inbox/",
            "Put .regraft/lease.json",
            "Put .regraft/lease.json",
            "Put .regraft/log/*",
            "Put .regraft/log/*",
        ];
        // The first one reads everything.
        if round > 2 {
            assert_eq!(heard, (CHUNKS, expected.map(str::to_owned).to_vec()));
        }
    }
    // An append: the labels, and the metadata of both arrays and of the store, are written besides, and read no more.
    world.put("f", &[20], 5);
    sync(&collection).unwrap();
    listening.heard();
    world.put("g", &[21], 6);
    sync(&collection).unwrap();
    let (_, heard) = listening.heard();
    let others: Vec<&String> = heard.iter().filter(|request| !request.contains(".regraft/")).collect();
    let expected = [
        "Get /time/c/0",
        "Head /zarr.json",
        "Head /zarr.json",
        "Put /sst/zarr.json",
        "Put /time/c/0",
        "Put /time/zarr.json",
        "Put /zarr.json",
    ];
    assert_eq!(others, expected);
    world.assert_settled();
}

/// The chunks of the coordinate that were read, by number, and how often it was written.
fn labels_of(heard: &[String]) -> (Vec<&str>, usize) {
    let read = heard.iter().filter_map(|request| request.strip_prefix("Get /time/c/")).collect();
    (read, heard.iter().filter(|request| request.starts_with("Put /time/c/")).count())
}

#[test]
fn a_long_axis_is_read_where_it_matters_and_written_where_it_changes() {
    for axis in ["sorted", "arrival", "fixed"] {
        // 400 days in 100 chunks of the coordinate.
        let grown = if axis == "fixed" { "sorted" } else { axis };
        let mut world = World::memory(Shape { axis: grown, chunk: 10, coordinate: Some(4), ..Shape::default() });
        for (key, first) in ["a", "b", "c", "d"].iter().zip((0..).step_by(100)) {
            world.put(key, &(first..first + 100).collect::<Vec<i64>>(), 1);
        }
        world.assert_settled();
        world.shape.axis = axis;
        let fresh = |world: &World| {
            let (collection, listening) = listening(world);
            sync(&collection).unwrap();
            let (_, heard) = listening.heard();
            heard
        };
        // Nothing to do: nothing is read.
        assert_eq!(labels_of(&fresh(&world)), (vec![], 0));
        // One day is replaced: the end, the part where it is, and a neighbour at most.
        world.put("e", &[150], 2);
        world.remove("b");
        let heard = fresh(&world);
        let (read, written) = labels_of(&heard);
        assert!(read.contains(&"37") && read.len() < 60 && written == 0, "{axis}: {read:?}");
        world.put("b", &(100..200).filter(|day| *day != 150).collect::<Vec<i64>>(), 3);
        fresh(&world);
        world.put("e", &[150], 4);
        let heard = fresh(&world);
        let (read, written) = labels_of(&heard);
        assert!(read.contains(&"37") && read.len() <= 3 && written == 0, "{axis}: {read:?}");
        if axis == "fixed" {
            continue;
        }
        // One more day: the end is read, and one chunk written.
        world.put("A", &[400], 5);
        let (read, written) = {
            let heard = fresh(&world);
            let (read, written) = labels_of(&heard);
            (read.len(), written)
        };
        assert!(read <= 2 && written == 1, "{axis}: {read}");
        world.seen.extend(world.found().keys());
        assert_eq!(world.found(), world.expected());
        if axis == "sorted" {
            // One between two others: all of it.
            world.put("B", &[-5], 6);
            let heard = fresh(&world);
            let (read, written) = labels_of(&heard);
            assert!(read.len() >= 100 && written >= 100, "{} {written}", read.len());
            world.seen.extend(world.found().keys());
            assert_eq!(world.found(), world.expected());
        }
        world.assert_settled();
    }
}

#[test]
fn an_axis_that_others_have_grown_is_read_whole() {
    let mut world = World::memory(Shape { chunk: 10, coordinate: Some(4), ..Shape::default() });
    world.put("a", &(0..100).collect::<Vec<i64>>(), 1);
    world.assert_settled();
    // Another program appends a day that is out of order, and says so in the metadata.
    let place = world.place("out.zarr");
    block_on(async {
        let mut group = regraft::zarr::Group::open(&place).await.unwrap();
        for name in ["time", "sst"] {
            let array = group.array_mut(name).unwrap();
            let mut shape = array.shape.clone();
            shape[0] = 101;
            array.set_shape(shape);
        }
        group.publish().await.unwrap();
    });
    let collection = world.collection();
    world.put("b", &[7], 2);
    let error = sync(&collection).unwrap_err();
    assert!(error.message().contains("the axis is not sorted"), "{error}");
}

#[test]
fn collections_that_take_turns_see_each_other() {
    for axis in ["sorted", "arrival"] {
        let mut world = World::memory(Shape { axis, ..Shape::default() });
        let workers = [world.collection(), world.collection(), world.collection()];
        for round in 0..12_usize {
            // Appends, inserts, overwrites and removals, each by another one than the last time.
            match round % 4 {
                0 => world.put("a", &[50 + round as i64, 60 + round as i64], round as i64),
                1 => world.put("b", &[40 - round as i64], round as i64),
                2 => world.put("c", &[30, 31], round as i64),
                _ => world.remove("b"),
            }
            sync(&workers[round * 2 % 3]).unwrap();
            world.seen.extend(world.found().keys());
            assert_eq!(world.found(), world.expected(), "{axis}, round {round}");
            world.assert_clean();
        }
        world.assert_settled();
    }
}

#[test]
fn a_store_that_was_made_anew_or_changed_by_others_is_read_again() {
    let mut world = world();
    let (collection, listening) = listening(&world);
    sync(&collection).unwrap();
    // Another program rewrites the metadata.
    let place = world.place("out.zarr");
    let object = block_on(place.get("zarr.json")).unwrap().unwrap();
    let text = String::from_utf8(object.bytes.to_vec()).unwrap();
    block_on(place.put("zarr.json", Bytes::from(format!("{text}\n")))).unwrap();
    listening.heard();
    world.put("b", &[11], 2);
    sync(&collection).unwrap();
    let (_, heard) = listening.heard();
    assert!(heard.contains(&"Get /zarr.json".to_owned()) && heard.contains(&"Get /time/c/0".to_owned()), "{heard:?}");
    world.assert_settled();

    // Store and control prefix are removed, and another worker makes them anew with as many records.
    sync(&collection).unwrap();
    let records = |world: &World| {
        let keys =
            block_on(futures::TryStreamExt::try_collect::<Vec<_>>(world.place("out.zarr.regraft/log").list("", None)));
        keys.unwrap().len()
    };
    let before = records(&world);
    for name in ["out.zarr", "out.zarr.regraft"] {
        let place = world.place(name);
        let listed: Vec<_> = block_on(futures::TryStreamExt::try_collect(place.list("", None))).unwrap();
        for meta in listed {
            block_on(place.delete(&meta.key)).unwrap();
        }
    }
    for key in ["a", "b", "c", "d", "e"] {
        world.remove(key);
    }
    world.seen.clear();
    let mut round = 0;
    while records(&world) < before {
        world.put("a", &[90, 91], round);
        sync(&world.collection()).unwrap();
        round += 1;
    }
    assert_eq!(records(&world), before);
    world.put("b", &[80], 7);
    sync(&collection).unwrap();
    world.seen.extend(world.found().keys());
    assert_eq!(world.found(), world.expected());
    world.assert_settled();
}
