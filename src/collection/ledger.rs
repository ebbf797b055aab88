//! The ledger of a collection: what the log adds up to.
//!
//! Each commit record holds what became of each source and which source owns each label afterwards; folding the records
//! answers who owns a region, what comes back when its source is removed, and whether a source version is done. Owners are
//! recorded, not recomputed, so that a later change of the winner rule does not rewrite history.
//!
//! What is under way, and what died on the way, is kept beside it: [`super::journal`].

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::axis_labels::AxisOrder;
use super::journal::{Journal, Prepared};
use super::label::{Label, LabelKey};
use crate::progress::Usage;
use crate::store::clock;

/// A source object as it was seen: key, ETag, size, and when it was last modified (which ranks rivals).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceVersion {
    /// Entity tag.
    pub etag: String,
    /// Version id, on a versioned bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Bytes.
    pub size: u64,
    /// RFC 3339, as the object store says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
}

/// Why a source was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// `unreadable`, `structure`, `grid`, `label`, `label_conflict`, `missing_variable`, `values`, `shrink`, `hook`.
    pub category: String,
    /// What was expected and found.
    pub message: String,
    /// The repair, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
}

/// What became of one source in one commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Key below the source URL.
    pub key: String,
    /// What was done.
    pub action: Action,
    /// The version that was taken; `None` where the source is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SourceVersion>,
    /// The labels it holds, in its own order; empty where it is gone or set aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// Why it was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// What is done with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// New labels at the end of the axis.
    Append,
    /// New labels between others.
    Insert,
    /// Labels that the axis has but no source owned.
    FillSlot,
    /// Labels that it, or a source that it beats, owned.
    Overwrite,
    /// It was removed and a runner-up's data came back.
    Restore,
    /// It was removed and its region is fill.
    Blank,
    /// Known, but another source owns its labels.
    RunnerUp,
    /// Removed, and nothing in the store was its own.
    Forget,
    /// Already done.
    Nothing,
    /// Set aside.
    Quarantine,
}

impl Action {
    /// Whether chunks of the store change.
    #[must_use]
    pub fn writes(self) -> bool {
        matches!(self, Self::Append | Self::Insert | Self::FillSlot | Self::Overwrite | Self::Restore | Self::Blank)
    }
}

/// An intent that a commit settles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettledIntent {
    /// Its id in the inbox.
    pub id: String,
    /// `done` or `quarantined`.
    pub outcome: String,
}

/// One commit, as it is stored in the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// `commit`, `release` (sources taken out of quarantine), `prepared` (the store is about to be written), `attempt` (a
    /// source is about to be opened, after somebody died), `fence` (a new writer took over from one that did not let go).
    pub kind: String,
    /// The epoch of the lease under which it was written; the log adds it.
    #[serde(default, skip_serializing)]
    pub epoch: u64,
    /// The collection's name.
    pub collection: String,
    /// When, for people to read; decides nothing.
    pub time: String,
    /// What became of each source.
    #[serde(default)]
    pub sources: Vec<SourceRecord>,
    /// The intents that it settles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intents: Vec<SettledIntent>,
    /// Owner of each label that changed hands; `None` where nobody owns it any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<(Label, Option<String>)>,
    /// What is about to be written, in a `prepared` record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<Prepared>,
    /// Whether the writer before died, in a `fence` record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub died: bool,
    /// Id of the plan that many workers write: announced by `backfill`, ended by its `commit` or by `abandon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// Length of the axis afterwards.
    #[serde(default)]
    pub axis_length: u64,
    /// How its labels follow one another, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub axis_order: Option<AxisOrder>,
    /// What it cost.
    #[serde(default)]
    pub usage: Usage,
}

impl CommitRecord {
    /// An empty record of `kind`.
    #[must_use]
    pub fn new(kind: &str, collection: &str) -> Self {
        Self { kind: kind.to_owned(), collection: collection.to_owned(), time: clock::now_rfc3339(), ..Self::default() }
    }

    /// Whether it is something that was done, and no announcement.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        !matches!(self.kind.as_str(), "prepared" | "attempt" | "fence" | "backfill" | "abandon")
    }
}

/// A source as the ledger knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceState {
    /// The version last taken or set aside.
    pub version: SourceVersion,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Set where it is set aside.
    pub quarantine: Option<Quarantine>,
    /// The version that its labels are of, where `version` was set aside, or is to be tried again.
    pub earlier: Option<SourceVersion>,
    /// The commit that brought this version.
    pub commit: u64,
    /// When, for people to read.
    pub time: String,
}

impl SourceState {
    /// The version that its labels, and its values in the store, are of; `None` where none was ever taken.
    #[must_use]
    pub fn taken(&self) -> Option<&SourceVersion> {
        let is_taken = self.quarantine.is_none() && !self.version.etag.is_empty();
        self.earlier.as_ref().or_else(|| is_taken.then_some(&self.version))
    }
}

/// A label as the ledger knows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slot {
    /// The source whose data is in the store.
    pub owner: Option<String>,
    /// Every source that holds the label.
    pub claimants: BTreeSet<String>,
}

/// What records have touched since the last checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// Keys of sources.
    pub sources: BTreeSet<String>,
    /// Labels that changed hands, or that a source claims or claimed.
    pub labels: HashMap<LabelKey, Label>,
}

/// What the log adds up to, as far as it was loaded ([`super::checkpoint`]).
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Every source ever seen that is still there or set aside.
    pub sources: HashMap<String, SourceState>,
    /// Every label that some source holds or held.
    pub slots: HashMap<LabelKey, Slot>,
    /// Number of the next record.
    pub next_number: u64,
    /// The last record's time.
    pub last_time: Option<String>,
    /// Number of the last record of something that was done, or of a backfill that was given up.
    pub last_commit: u64,
    /// Id of the plan that many workers are writing.
    pub backfill: Option<String>,
    /// Id of the last such plan that was published.
    pub finished_backfill: Option<String>,
    /// How the labels of the axis follow one another, where the last commit knew.
    pub axis_order: Option<AxisOrder>,
    /// What the next checkpoint will hold.
    pub changed: Changed,
    /// What is under way, and what died on the way.
    pub journal: Journal,
    tolerance: f64,
}

impl Ledger {
    /// An empty ledger; float labels within `tolerance` are one label.
    #[must_use]
    pub fn new(tolerance: f64) -> Self {
        Self { tolerance, ..Self::default() }
    }

    /// The tolerance of float labels.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        self.tolerance
    }

    /// Adds one record.
    pub fn fold(&mut self, number: u64, record: &CommitRecord) {
        self.next_number = number + 1;
        self.journal.fold(number, record);
        if matches!(record.kind.as_str(), "backfill" | "abandon") {
            self.backfill.clone_from(&record.backfill);
        }
        if record.kind == "abandon" {
            // What its workers left must not be taken up by the same plan: whoever planned before plans again.
            self.last_commit = number;
        }
        if !record.is_commit() {
            return;
        }
        self.last_commit = number;
        if record.kind == "commit" {
            self.axis_order.clone_from(&record.axis_order);
            // Whatever ends it; a backfill whose publisher died is done by whoever mends its commit.
            self.finished_backfill = self.backfill.take().or(self.finished_backfill.take());
        }
        for source in &record.sources {
            self.fold_source(number, &record.time, source);
        }
        for (label, owner) in &record.owners {
            let key = self.touch(label);
            self.slots.entry(key).or_default().owner.clone_from(owner);
        }
        self.last_time = Some(record.time.clone());
    }

    /// The key of a label that a record touches.
    fn touch(&mut self, label: &Label) -> LabelKey {
        let key = label.key(self.tolerance);
        self.changed.labels.insert(key.clone(), label.clone());
        key
    }

    fn fold_source(&mut self, number: u64, time: &str, source: &SourceRecord) {
        if source.action == Action::Nothing {
            return;
        }
        self.changed.sources.insert(source.key.clone());
        if let Some(quarantine) = &source.quarantine {
            // The regions that an earlier version of it owns stay as they are: only the new version is set aside.
            if let Some(version) = &source.version {
                let before = self.sources.get(&source.key);
                let labels = before.map(|state| state.labels.clone()).unwrap_or_default();
                let earlier = before.and_then(SourceState::taken).filter(|_| !labels.is_empty()).cloned();
                self.sources.insert(
                    source.key.clone(),
                    SourceState {
                        version: version.clone(),
                        labels,
                        quarantine: Some(quarantine.clone()),
                        earlier,
                        commit: number,
                        time: time.to_owned(),
                    },
                );
            }
            return;
        }
        let old = self.sources.remove(&source.key);
        if let Some(old) = &old {
            for label in &old.labels {
                let key = self.touch(label);
                if let Some(slot) = self.slots.get_mut(&key) {
                    slot.claimants.remove(&source.key);
                }
            }
        }
        if let Some(version) = &source.version {
            for label in &source.labels {
                let key = self.touch(label);
                self.slots.entry(key).or_default().claimants.insert(source.key.clone());
            }
            // What is to be tried again is not taken yet.
            let earlier = old.as_ref().and_then(SourceState::taken).filter(|_| version.etag.is_empty()).cloned();
            self.sources.insert(
                source.key.clone(),
                SourceState {
                    version: version.clone(),
                    labels: source.labels.clone(),
                    quarantine: None,
                    earlier,
                    commit: number,
                    time: time.to_owned(),
                },
            );
        }
    }

    /// Who owns a label.
    #[must_use]
    pub fn owner(&self, label: &Label) -> Option<&str> {
        self.slots.get(&label.key(self.tolerance))?.owner.as_deref()
    }

    /// Whether this very version is done or set aside.
    #[must_use]
    pub fn knows(&self, key: &str, etag: &str) -> bool {
        self.sources.get(key).is_some_and(|state| state.version.etag == etag)
    }

    /// Sources that are set aside.
    pub fn quarantined(&self) -> impl Iterator<Item = (&String, &SourceState)> {
        self.sources.iter().filter(|(_, state)| state.quarantine.is_some())
    }
}
