//! In a bucket that keeps versions a runner-up comes back as it was when it was recorded, whatever lies there by now.

use std::sync::atomic::Ordering;

use regraft::collection::Collection;
use regraft::collection::document::Report;
use regraft::ledger::{Intent, Operation};
use regraft::store::block_on;

use crate::coordination_crash::DiesAt;
use crate::coordination_model::{FILL, World, drain, sync};

fn removed(collection: &Collection, key: &str) {
    let intent = Intent { key: format!("{key}.txt"), operation: Operation::Remove, sequencer: None, bucket: None };
    block_on(collection.submit(&[intent])).expect("submitted");
}

fn reason(report: &Report, key: &str) -> String {
    let change = report.changes.iter().find(|change| change.key == format!("{key}.txt"));
    change.unwrap_or_else(|| panic!("nothing of `{key}`: {:?}", report.changes)).reason.clone()
}

/// Day 5 is claimed by `a`, which wins, and by `b`, which owns day 6 as well.
fn rivals(world: &mut World) {
    world.put("a", &[5], 1);
    world.put("b", &[5, 6], 2);
    world.assert_settled();
}

pub(crate) fn runners_up_come_back_by_version(world: impl Fn(&str) -> World) {
    // Overwritten by a version that is about another day, of which nobody told.
    let mut moved = world("moved");
    rivals(&mut moved);
    moved.put("b", &[7], 4);
    moved.remove("a");
    let collection = moved.collection();
    removed(&collection, "a");
    let report = drain(&collection).expect("drained");
    assert_eq!(moved.found(), [(5, 205), (6, 206)].into());
    let told = reason(&report, "a");
    assert!(told.starts_with("removed: a runner-up's data come back: `b.txt` as it was in version `"), "{told}");
    assert!(told.ends_with("`, which is not its present one"), "{told}");
    assert_eq!(report.changes.len(), 1, "{:?}", report.changes);
    // Whoever looks at the bucket finds the later version then.
    moved.seen.extend([5, 6]);
    moved.assert_settled();
    assert_eq!(moved.found(), [(5, FILL), (6, FILL), (7, 407)].into());

    // Deleted, of which nobody told.
    let mut deleted = world("deleted");
    rivals(&mut deleted);
    deleted.remove("b");
    deleted.remove("a");
    let collection = deleted.collection();
    removed(&collection, "a");
    let report = drain(&collection).expect("drained");
    assert_eq!(deleted.found(), [(5, 205), (6, 206)].into());
    assert!(reason(&report, "a").contains("`b.txt` as it was in version `"), "{report:?}");
    deleted.seen.extend([5, 6]);
    deleted.assert_settled();

    // Overwritten by a version that was set aside: the one before is what the ledger holds, also out of a checkpoint.
    for checkpoints in [false, true] {
        let mut broken = world(if checkpoints { "checkpoint" } else { "broken" });
        broken.checkpoint = if checkpoints { 1 } else { 1000 };
        rivals(&mut broken);
        block_on(broken.place("in").put("b.txt", "nothing".into())).expect("put");
        let report = sync(&broken.collection()).expect("synchronised");
        assert_eq!(report.quarantined.iter().map(|source| source.key.as_str()).collect::<Vec<_>>(), ["b.txt"]);
        assert_eq!(broken.found(), [(5, 105), (6, 206)].into());
        broken.remove("a");
        let report = sync(&broken.collection()).expect("synchronised");
        assert_eq!(broken.found(), [(5, 205), (6, 206)].into());
        assert!(reason(&report, "a").contains("`b.txt` as it was in version `"), "{report:?}");
        // Still set aside, and not tried again before it changes.
        let status = block_on(broken.collection().status()).expect("status");
        assert_eq!(status["quarantined"], 1, "{status}");
        assert_eq!(sync(&broken.collection()).expect("synchronised").outcome, "nothing");
        broken.put("b", &[5, 6], 3);
        broken.assert_settled();
    }
}

pub(crate) fn a_worker_may_die_while_a_version_comes_back(world: impl Fn(&str) -> World) {
    let mut deaths = 0;
    for last_is_done in [false, true] {
        for limit in 1.. {
            let mut world = world(&format!("death-{last_is_done}-{limit}"));
            rivals(&mut world);
            // Out of the way by turns: overwritten, or deleted.
            if limit % 2 == 0 {
                world.put("b", &[7], 4);
            } else {
                world.remove("b");
            }
            world.remove("a");
            removed(&world.collection(), "a");
            let faults = DiesAt::new(limit, last_is_done);
            faults.is_armed.store(true, Ordering::SeqCst);
            let dying = world.collection().with_faults(faults);
            if drain(&dying).is_ok() {
                break;
            }
            drop(dying);
            world.take_over();
            deaths += 1;
            drain(&world.collection()).expect("drained");
            assert_eq!(world.found(), [(5, 205), (6, 206)].into(), "request {limit}, done: {last_is_done}");
            world.seen.extend([5, 6]);
            if limit % 4 == 0 {
                world.assert_settled();
            }
        }
    }
    assert!(deaths > 10, "{deaths}");
}
