//! Checkpoints: what the ledger adds up to, in Parquet files, and the part of it that a commit needs.
//!
//! # Problem
//! The log tells everything, but reading all of it costs more with every commit. A commit that concerns ten files must
//! cost the same whether the ledger knows a thousand sources or a million; and people want to query the ledger.
//!
//! # Design
//! Below `<store>.regraft/checkpoint/`:
//! - `sources-*.parquet` and `labels-*.parquet`: sorted rows, never changed once written ([`runs`] says how they are merged);
//! - `<20 digits>.json`: one checkpoint each, created only if absent, named after the last log record that it covers. It lists
//!   its files with their first and last keys, and holds the counts that `status` shows.
//!
//! A [`Ledger`] in memory holds the log's tail behind the checkpoint, and of what is older only what was asked for:
//! [`Checkpoint::load`] brings the rows of keys and labels, and all that decides over them (their labels, and every source that
//! claims those, with its version). From then on the ledger answers for them as if it held everything. What the tail is
//! about is loaded before the tail is folded.
//!
//! Whoever holds the lease writes a checkpoint every `run.checkpoint` records, and cleans up: the last two checkpoints
//! stay, and the log behind the older of them, but at least the last [`KEPT_RECORDS`] records. Nothing depends on it: without
//! a checkpoint the log is read from the one before, or from its beginning. A crash leaves files that no checkpoint lists, and
//! a later clean-up finds them.
//!
//! # Alternatives considered
//! * One file, rewritten: every checkpoint would cost all rows.
//! * A row group per change appended to one file: objects cannot be appended to, and lookups would read all footers.
//! * An embedded database: a file that several machines cannot share over object storage.
//!
//! # Caveats
//! A checkpoint is not written while a commit is under way or to be done again. A session older than two checkpoints of other writers
//! may find its files gone: it is told to plan again.
//!
//! # Testing
//! A ledger with checkpoints against one without, over random records, with crashes at every put (here); DuckDB and pandas
//! in `tests/python/test_checkpoint.py`; cost against size in `tests/benches`.

mod clean_up;
mod manifest;
mod row;
mod runs;

use std::collections::{BTreeSet, HashMap};

pub use self::clean_up::KEPT_RECORDS;
pub use self::manifest::Counts;

use self::manifest::{FOLDER, Manifest};
use self::row::{LabelRow, SourceRow, sort_key};
use self::runs::Files;
use super::label::{Label, LabelKey};
use super::ledger::{CommitRecord, Ledger, SourceState};
use crate::error::{Error, Kind, Result};
use crate::ledger::Log;
use crate::store::Store;

/// How often a checkpoint is looked for again that was cleaned up while it was read.
const TRIES: usize = 5;

/// What the counts need to know of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    runner_up: bool,
    quarantined: bool,
}

/// The latest checkpoint, and what was loaded of it.
#[derive(Debug)]
pub struct Checkpoint {
    files: Files,
    manifest: Manifest,
    /// Sources looked up, and how they stood in the checkpoint; `None` where it does not know them.
    sources: HashMap<String, Option<Standing>>,
    /// Labels looked up, and whether the checkpoint knows them.
    labels: HashMap<LabelKey, bool>,
    /// Whether everything is loaded.
    complete: bool,
}

/// Opens the log and the ledger that it adds up to, of which no more is loaded than the log's tail is about.
///
/// # Errors
/// `Corrupt` where checkpoint or log contradict themselves; `Unavailable` where storage does not answer.
pub async fn open(control: &Store, tolerance: f64) -> Result<(Log, Checkpoint, Ledger)> {
    let mut tries = 0;
    loop {
        let mut checkpoint = Checkpoint::open(control).await?;
        let log = Log::open_after(control.clone(), checkpoint.number()).await?;
        let mut ledger = checkpoint.ledger(tolerance);
        let folded = match log.records(checkpoint.number() + 1).await {
            Ok(records) => checkpoint.fold(&mut ledger, &records).await,
            Err(error) => Err(error),
        };
        match folded {
            Ok(()) => return Ok((log, checkpoint, ledger)),
            // Somebody may have cleaned up meanwhile.
            Err(error) if tries < TRIES && matches!(error.kind(), Kind::Conflict | Kind::Corrupt) => {
                tries += 1;
                if Manifest::numbers(control).await?.pop().unwrap_or(0) == checkpoint.number() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl Checkpoint {
    /// Finds the latest checkpoint below `control`; without one, the ledger is all in the log.
    ///
    /// # Errors
    /// `Corrupt` where it cannot be read; otherwise as [`Store::list`].
    pub async fn open(control: &Store) -> Result<Self> {
        for _ in 0..TRIES {
            let Some(number) = Manifest::numbers(control).await?.pop() else {
                return Ok(Self::of(control, Manifest::new(0)));
            };
            if let Some(manifest) = Manifest::read(control, number).await? {
                return Ok(Self::of(control, manifest));
            }
        }
        Err(Error::unavailable(format!("`{}`: checkpoints are cleaned up faster than they can be read", control.url())))
    }

    fn of(control: &Store, manifest: Manifest) -> Self {
        let complete = manifest.sources.is_empty() && manifest.labels.is_empty();
        let files = Files::new(control.clone(), FOLDER);
        Self { files, manifest, sources: HashMap::new(), labels: HashMap::new(), complete }
    }

    /// The last record that it covers; 0 where there is none.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.manifest.number
    }

    /// From now on checkpoints are written to `control`, the same place under a lease.
    pub fn write_under(&mut self, control: Store) {
        self.files.write_to(control);
    }

    /// The ledger as it begins: nothing is loaded, and the next record is the first behind the checkpoint.
    #[must_use]
    pub fn ledger(&self, tolerance: f64) -> Ledger {
        let mut ledger = Ledger::new(tolerance);
        ledger.next_number = self.manifest.number + 1;
        ledger.last_commit = self.manifest.number;
        ledger.last_time.clone_from(&self.manifest.last_time);
        ledger.journal.crashes.clone_from(&self.manifest.crashes);
        ledger.axis_order.clone_from(&self.manifest.axis_order);
        ledger.finished_backfill.clone_from(&self.manifest.finished_backfill);
        ledger
    }

    /// Adds records to the ledger, after what they are about.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub async fn fold(&mut self, ledger: &mut Ledger, records: &[(u64, CommitRecord)]) -> Result<()> {
        let sources = || records.iter().flat_map(|(_, record)| &record.sources);
        let owners = records.iter().flat_map(|(_, record)| &record.owners).map(|(label, _)| label);
        let labels = sources().flat_map(|source| &source.labels).chain(owners);
        self.load(ledger, sources().map(|source| source.key.as_str()), labels).await?;
        for (number, record) in records {
            ledger.fold(*number, record);
        }
        Ok(())
    }

    /// Loads what the checkpoint knows of `keys` and `labels`, and all that decides over them.
    ///
    /// # Errors
    /// `Conflict` where its files were cleaned up meanwhile; `Corrupt` where they are damaged; `Unavailable` where storage
    /// does not answer.
    pub async fn load<'a>(
        &mut self,
        ledger: &mut Ledger,
        keys: impl IntoIterator<Item = &'a str>,
        labels: impl IntoIterator<Item = &'a Label>,
    ) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        let keys: BTreeSet<String> = keys.into_iter().map(str::to_owned).collect();
        self.load_sources(ledger, keys.iter()).await?;
        let tolerance = ledger.tolerance();
        let mut labels: BTreeSet<LabelKey> = labels.into_iter().map(|label| label.key(tolerance)).collect();
        let held = keys.iter().filter_map(|key| ledger.sources.get(key)).flat_map(|state| &state.labels);
        labels.extend(held.map(|label| label.key(tolerance)));
        self.load_labels(ledger, &labels).await?;
        let slots = || labels.iter().filter_map(|label| ledger.slots.get(label));
        let rivals: BTreeSet<String> =
            slots().flat_map(|slot| slot.claimants.iter().chain(&slot.owner)).cloned().collect();
        self.load_sources(ledger, rivals.iter()).await
    }

    async fn load_sources(&mut self, ledger: &mut Ledger, keys: impl Iterator<Item = &String>) -> Result<()> {
        let wanted: Vec<String> = keys.filter(|key| !self.sources.contains_key(*key)).cloned().collect();
        let found: Vec<SourceRow> = self.files.find(&self.manifest.sources, &wanted).await.map_err(cleaned_up)?;
        self.sources.extend(wanted.into_iter().map(|key| (key, None)));
        for row in found {
            self.put_source(ledger, row);
        }
        Ok(())
    }

    async fn load_labels(&mut self, ledger: &mut Ledger, labels: &BTreeSet<LabelKey>) -> Result<()> {
        let wanted: Vec<&LabelKey> = labels.iter().filter(|label| !self.labels.contains_key(*label)).collect();
        let mut keys: Vec<String> = wanted.iter().map(|label| sort_key(label)).collect();
        keys.sort_unstable();
        let found: Vec<LabelRow> = self.files.find(&self.manifest.labels, &keys).await.map_err(cleaned_up)?;
        self.labels.extend(wanted.into_iter().map(|label| (label.clone(), false)));
        for row in found {
            self.put_label(ledger, row);
        }
        Ok(())
    }

    /// Loads everything.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub async fn load_all(&mut self, ledger: &mut Ledger) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        let sources: Vec<SourceRow> = self.files.every(&self.manifest.sources).await.map_err(cleaned_up)?;
        let labels: Vec<LabelRow> = self.files.every(&self.manifest.labels).await.map_err(cleaned_up)?;
        for row in sources {
            if !self.sources.contains_key(&row.key) {
                self.put_source(ledger, row);
            }
        }
        for row in labels {
            if !self.labels.contains_key(&row.label.key(ledger.tolerance())) {
                self.put_label(ledger, row);
            }
        }
        self.complete = true;
        Ok(())
    }

    fn put_source(&mut self, ledger: &mut Ledger, row: SourceRow) {
        let Some(state) = row.state else { return };
        let standing = Standing { runner_up: row.runner_up, quarantined: state.quarantine.is_some() };
        self.sources.insert(row.key.clone(), Some(standing));
        ledger.sources.insert(row.key, state);
    }

    fn put_label(&mut self, ledger: &mut Ledger, row: LabelRow) {
        let key = row.label.key(ledger.tolerance());
        self.labels.insert(key.clone(), true);
        ledger.slots.insert(key, row.slot);
    }

    /// Sources whose standing the tail may have changed: those of its records, and the rivals of what they hold. Their labels'
    /// owners are loaded.
    async fn affected(&mut self, ledger: &mut Ledger) -> Result<BTreeSet<String>> {
        let slots = ledger.changed.labels.keys().filter_map(|label| ledger.slots.get(label));
        let mut affected: BTreeSet<String> =
            slots.flat_map(|slot| slot.claimants.iter().chain(&slot.owner)).cloned().collect();
        affected.extend(ledger.changed.sources.iter().cloned());
        self.load(ledger, affected.iter().map(String::as_str), []).await?;
        Ok(affected)
    }

    /// What the ledger adds up to, whether it is loaded or not.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub async fn counts(&mut self, ledger: &mut Ledger) -> Result<Counts> {
        let affected = self.affected(ledger).await?;
        let mut counts = self.manifest.counts;
        let step = |count: &mut u64, before: bool, after: bool| {
            *count = (*count + u64::from(after)).saturating_sub(u64::from(before));
        };
        for key in &affected {
            let before = self.sources.get(key).copied().flatten();
            let after = ledger.sources.get(key).map(|state| standing(ledger, key, state));
            step(&mut counts.sources, before.is_some(), after.is_some());
            let is = |standing: Option<Standing>, test: fn(Standing) -> bool| standing.is_some_and(test);
            let runner_up = |standing: Standing| standing.runner_up;
            step(&mut counts.runners_up, is(before, runner_up), is(after, runner_up));
            let quarantined = |standing: Standing| standing.quarantined;
            step(&mut counts.quarantined, is(before, quarantined), is(after, quarantined));
        }
        for label in ledger.changed.labels.keys() {
            let before = self.labels.get(label).copied().unwrap_or(false);
            let after = ledger.slots.get(label).is_some_and(|slot| slot.owner.is_some() || !slot.claimants.is_empty());
            step(&mut counts.labels, before, after);
        }
        Ok(counts)
    }

    /// Writes what changed since this checkpoint as the next one, up to the last record that was folded, and cleans up. `false`
    /// where there is nothing new, a commit is under way, or somebody else was faster.
    ///
    /// # Errors
    /// As [`Store::put`]; what is committed stays, and the next one includes it.
    pub async fn write(&mut self, ledger: &mut Ledger) -> Result<bool> {
        let number = ledger.next_number.saturating_sub(1);
        if number <= self.manifest.number || ledger.journal.is_open() || ledger.backfill.is_some() {
            return Ok(false);
        }
        let counts = self.counts(ledger).await?;
        let affected = self.affected(ledger).await?;
        let source = |key: &String| {
            let state = ledger.sources.get(key).cloned();
            let runner_up = state.as_ref().is_some_and(|state| standing(ledger, key, state).runner_up);
            SourceRow { key: key.clone(), state, runner_up }
        };
        let is_news = |key: &String| self.sources.get(key).copied().flatten().is_some();
        let sources: Vec<SourceRow> =
            affected.iter().map(source).filter(|row| row.state.is_some() || is_news(&row.key)).collect();
        let mut labels: Vec<LabelRow> = ledger
            .changed
            .labels
            .iter()
            .map(|(key, label)| {
                let slot = ledger.slots.get(key).cloned().unwrap_or_default();
                (key, LabelRow { key: sort_key(key), label: label.clone(), slot })
            })
            .filter(|(key, row)| !row::Row::is_gone(row) || self.labels.get(*key).copied().unwrap_or(false))
            .map(|(_, row)| row)
            .collect();
        labels.sort_by(|left, right| left.key.cmp(&right.key));
        let mut manifest = Manifest {
            counts,
            last_time: ledger.last_time.clone(),
            axis_order: ledger.axis_order.clone(),
            crashes: ledger.journal.crashes.clone(),
            finished_backfill: ledger.finished_backfill.clone(),
            ..Manifest::new(number)
        };
        manifest.sources = self.files.add(&self.manifest.sources, sources, number).await?;
        manifest.labels = self.files.add(&self.manifest.labels, labels, number).await?;
        let known: BTreeSet<&str> = self.manifest.files().collect();
        let new: Vec<String> = manifest.files().filter(|file| !known.contains(file)).map(str::to_owned).collect();
        self.files.control().sync(&new).await?;
        if !manifest.create(self.files.control()).await? {
            return Ok(false);
        }
        for key in affected {
            let after = ledger.sources.get(&key).map(|state| standing(ledger, &key, state));
            self.sources.insert(key, after);
        }
        for label in std::mem::take(&mut ledger.changed.labels).into_keys() {
            let after = ledger.slots.get(&label).is_some_and(|slot| slot.owner.is_some() || !slot.claimants.is_empty());
            self.labels.insert(label, after);
        }
        ledger.changed.sources.clear();
        self.manifest = manifest;
        clean_up::clean_up(self.files.control(), &self.manifest).await?;
        Ok(true)
    }
}

fn standing(ledger: &Ledger, key: &str, state: &SourceState) -> Standing {
    let runner_up = !state.labels.is_empty() && state.labels.iter().all(|label| ledger.owner(label) != Some(key));
    Standing { runner_up, quarantined: state.quarantine.is_some() }
}

fn cleaned_up(error: Error) -> Error {
    if error.kind() == Kind::NotFound {
        return Error::conflict(format!("the checkpoint was cleaned up while it was read: {}", error.message()))
            .hint("plan again: the store has changed");
    }
    error
}

#[cfg(test)]
mod tests;
