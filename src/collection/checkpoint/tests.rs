use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::collection::ledger::{Action, Quarantine, Slot, SourceRecord, SourceVersion};
use crate::store::faults::{Fault, Faults, Operation};
use crate::store::{StorageOptions, block_on, random_id};

const TOLERANCE: f64 = 0.5;
const KEYS: usize = 14;
const LABELS: i64 = 10;

fn control() -> Store {
    Store::open(&format!("memory://{}/a.zarr.regraft", random_id()), &StorageOptions::new()).unwrap()
}

fn key(at: usize) -> String {
    format!("day/{at:02}.nc")
}

fn label(at: i64) -> Label {
    if at % 5 == 4 { Label::Text(format!("station {at}"), 1) } else { Label::Time(at * 1000) }
}

/// What happens to one source in a record, and who owns its labels then.
type Arrived = (SourceRecord, Vec<(Label, Option<String>)>);

fn changes() -> impl Strategy<Value = Arrived> {
    let held = prop::collection::btree_set(0..LABELS, 1..3);
    (0..KEYS, 0..6_u8, held, any::<u8>(), any::<bool>()).prop_map(|(at, kind, held, etag, owns)| {
        let labels: Vec<Label> = held.into_iter().map(label).collect();
        let version = SourceVersion { etag: format!("{etag}"), version: None, size: 5, modified: None };
        let quarantine = Quarantine { category: "grid".into(), message: "other".into(), hint: None, attempts: 1 };
        let owners = labels.iter().map(|label| (label.clone(), owns.then(|| key(at)))).collect();
        let record = match kind {
            0 => (Action::Forget, None, Vec::new(), None),
            1 => (Action::Quarantine, Some(version), Vec::new(), Some(quarantine)),
            _ => (Action::Append, Some(version), labels, None),
        };
        let (action, version, labels, quarantine) = record;
        (SourceRecord { key: key(at), action, version, labels, quarantine }, owners)
    })
}

#[derive(Debug, Clone)]
enum Step {
    /// One record.
    Commit(Vec<Arrived>),
    /// A checkpoint; it stops dead before so many writes or deletions, where it has that many.
    Checkpoint(u64),
    /// Another process goes on.
    Reopen,
    /// Some rows are asked for.
    Load(Vec<usize>, Vec<i64>),
    /// All rows are asked for.
    LoadAll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => prop::collection::vec(changes(), 1..4).prop_map(Step::Commit),
        3 => prop_oneof![Just(1000), 0..14_u64].prop_map(Step::Checkpoint),
        2 => Just(Step::Reopen),
        3 => (prop::collection::vec(0..KEYS, 0..3), prop::collection::vec(0..LABELS, 0..3))
            .prop_map(|(keys, labels)| Step::Load(keys, labels)),
        1 => Just(Step::LoadAll),
    ];
    prop::collection::vec(step, 1..60)
}

/// Stops dead before the write or deletion of a number.
#[derive(Debug)]
struct Dead {
    left: AtomicU64,
}

#[async_trait::async_trait]
impl Faults for Dead {
    async fn before(&self, operation: Operation, _key: &str) -> Result<(), Fault> {
        if !matches!(operation, Operation::Put | Operation::Delete) {
            return Ok(());
        }
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| Fault::Crash)
    }
}

fn slot(ledger: &Ledger, label: &Label) -> Slot {
    ledger.slots.get(&label.key(TOLERANCE)).cloned().unwrap_or_default()
}

/// That `ledger` answers for `keys` and `labels` as one does that knows everything.
fn agrees(ledger: &Ledger, whole: &Ledger, keys: &[String], labels: &[Label]) {
    let mut labels = labels.to_vec();
    for key in keys {
        assert_eq!(ledger.sources.get(key), whole.sources.get(key), "{key}");
        labels.extend(whole.sources.get(key).into_iter().flat_map(|state| state.labels.clone()));
    }
    for label in &labels {
        assert_eq!(slot(ledger, label), slot(whole, label), "{label:?}");
        for rival in slot(whole, label).claimants {
            assert_eq!(ledger.sources.get(&rival), whole.sources.get(&rival), "{rival}");
        }
    }
}

fn counts(whole: &Ledger) -> Counts {
    let standings: Vec<Standing> = whole.sources.iter().map(|(key, state)| standing(whole, key, state)).collect();
    Counts {
        sources: standings.len() as u64,
        runners_up: standings.iter().filter(|standing| standing.runner_up).count() as u64,
        quarantined: standings.iter().filter(|standing| standing.quarantined).count() as u64,
        labels: whole.slots.values().filter(|slot| slot.owner.is_some() || !slot.claimants.is_empty()).count() as u64,
    }
}

/// Opens the latest checkpoint and folds the log behind it, as a new process does.
async fn open(control: &Store, log: &[(u64, CommitRecord)]) -> (Checkpoint, Ledger) {
    let mut checkpoint = Checkpoint::open(control).await.unwrap();
    checkpoint.files.sizes = (4, 2);
    let mut ledger = checkpoint.ledger(TOLERANCE);
    checkpoint.fold(&mut ledger, &log[checkpoint.number() as usize..]).await.unwrap();
    (checkpoint, ledger)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("REGRAFT_LONG").is_some() { 2000 } else { 60 }))]
    #[test]
    fn a_ledger_with_checkpoints_answers_as_one_without(steps in steps()) {
        block_on(async {
            let control = control();
            let mut log: Vec<(u64, CommitRecord)> = Vec::new();
            let mut whole = Ledger::new(TOLERANCE);
            let (mut checkpoint, mut ledger) = open(&control, &log).await;
            for step in steps {
                match step {
                    Step::Commit(changes) => {
                        let (sources, owners): (BTreeMap<String, _>, Vec<_>) = changes
                            .into_iter()
                            .map(|(source, owners)| ((source.key.clone(), source), owners))
                            .unzip();
                        let record = CommitRecord {
                            sources: sources.into_values().collect(),
                            owners: owners.into_iter().flatten().collect(),
                            ..CommitRecord::new("commit", "c")
                        };
                        log.push((log.len() as u64 + 1, record));
                        let last = &log[log.len() - 1..];
                        whole.fold(last[0].0, &last[0].1);
                        checkpoint.fold(&mut ledger, last).await.unwrap();
                    }
                    Step::Checkpoint(dies) => {
                        let dead = Arc::new(Dead { left: AtomicU64::new(dies) });
                        checkpoint.write_under(control.with_faults(dead).with_patience(1, std::time::Duration::ZERO));
                        if checkpoint.write(&mut ledger).await.is_err() {
                            (checkpoint, ledger) = open(&control, &log).await;
                        }
                        checkpoint.write_under(control.clone());
                    }
                    Step::Reopen => (checkpoint, ledger) = open(&control, &log).await,
                    Step::Load(keys, labels) => {
                        let keys: Vec<String> = keys.into_iter().map(key).collect();
                        let labels: Vec<Label> = labels.into_iter().map(label).collect();
                        checkpoint.load(&mut ledger, keys.iter().map(String::as_str), &labels).await.unwrap();
                        agrees(&ledger, &whole, &keys, &labels);
                    }
                    Step::LoadAll => {
                        checkpoint.load_all(&mut ledger).await.unwrap();
                        let keys: Vec<String> = (0..KEYS).map(key).collect();
                        agrees(&ledger, &whole, &keys, &(0..LABELS).map(label).collect::<Vec<_>>());
                        assert_eq!(ledger.sources, whole.sources);
                    }
                }
                assert_eq!((ledger.next_number, &ledger.last_time), (whole.next_number.max(1), &whole.last_time));
            }
            assert_eq!(checkpoint.counts(&mut ledger).await.unwrap(), counts(&whole));
        });
    }
}

/// A record that brings `count` new sources, one label each.
fn arrivals(first: usize, count: usize) -> CommitRecord {
    let keys: Vec<String> = (first..first + count).map(|at| format!("2020/file-{at:07}.nc")).collect();
    let label = |at: usize| Label::Time((first + at) as i64 * 3_600_000);
    CommitRecord {
        owners: keys.iter().enumerate().map(|(at, key)| (label(at), Some(key.clone()))).collect(),
        sources: keys
            .into_iter()
            .enumerate()
            .map(|(at, key)| SourceRecord {
                version: Some(SourceVersion { etag: format!("\"{key}\""), version: None, size: 9, modified: None }),
                key,
                action: Action::Append,
                labels: vec![label(at)],
                quarantine: None,
            })
            .collect(),
        ..CommitRecord::new("commit", "c")
    }
}

#[test]
fn growing_keys_leave_few_files_and_each_is_written_few_times() {
    block_on(async {
        let control = control();
        let mut checkpoint = Checkpoint::open(&control).await.unwrap();
        checkpoint.files.sizes = (64, 16);
        let mut ledger = checkpoint.ledger(TOLERANCE);
        for number in 0..200 {
            checkpoint.fold(&mut ledger, &[(number + 1, arrivals(number as usize * 10, 10))]).await.unwrap();
            assert!(checkpoint.write(&mut ledger).await.unwrap());
        }
        let segments: Vec<_> = checkpoint.manifest.sources.iter().flatten().collect();
        assert_eq!(segments.iter().map(|segment| segment.rows).sum::<u64>(), 2000);
        assert!(checkpoint.manifest.sources.len() < 9, "{:?}", checkpoint.manifest.sources);
        assert!(segments.len() < 2000 / 32 + 9, "{}", segments.len());
        assert_eq!(Manifest::numbers(&control).await.unwrap(), [199, 200]);
        let files: Vec<_> = control.list("checkpoint/sources", None).try_collect().await.unwrap();
        assert!(files.len() <= segments.len() + 4, "{} of {}", files.len(), segments.len());
    });
}

#[test]
fn a_lookup_costs_the_same_in_small_and_large_ledgers() {
    block_on(async {
        let mut read = Vec::new();
        for rows in [2_000, 60_000] {
            let control = control();
            let mut checkpoint = Checkpoint::open(&control).await.unwrap();
            let mut ledger = checkpoint.ledger(TOLERANCE);
            checkpoint.fold(&mut ledger, &[(1, arrivals(0, rows))]).await.unwrap();
            checkpoint.write(&mut ledger).await.unwrap();
            let before = control.counters().usage();
            let mut checkpoint = Checkpoint::open(&control).await.unwrap();
            let mut ledger = checkpoint.ledger(TOLERANCE);
            checkpoint.fold(&mut ledger, &[(2, arrivals(1000, 5)), (3, arrivals(rows, 5))]).await.unwrap();
            let usage = control.counters().usage() - before;
            assert_eq!(ledger.sources.len(), 10);
            assert_eq!(checkpoint.counts(&mut ledger).await.unwrap().sources, rows as u64 + 5);
            read.push(usage);
        }
        assert!(read[1].get <= read[0].get + 2, "{read:?}");
        assert!(read[1].bytes_read < read[0].bytes_read * 3, "{read:?}");
    });
}
