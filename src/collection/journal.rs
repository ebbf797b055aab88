//! The redo journal: what is under way, and which sources somebody died on.
//!
//! # Problem
//! A worker may die between any two requests. The next one must know what may be half written, without asking the store,
//! which cannot tell; and a source that kills whoever opens it must not kill everybody in turn.
//!
//! # Design
//! Before anything of the store is touched, a `prepared` record names everything that will be: the sources with their
//! versions, the labels, the lengths of the axis, the arrays that are created, and where the tail was staged that an insert
//! moves. The `commit` record ends it. Who finds a `prepared` record without its end doubts every label in it
//! ([`Unfinished`]); a second one before the first has ended adds its own doubts.
//!
//! Each of the two kinds of announcement, `prepared` and `attempt`, puts its sources at risk. When the next worker's `fence`
//! record says that its predecessor died, the sources at risk have crashed once. A source that was alone when it crashed for
//! the last time, and did so often enough, is set aside.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::label::Label;
use super::ledger::{CommitRecord, SourceRecord};
use super::structure::Structure;

/// What a commit is about to write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// Every label that gets values, or loses them.
    pub labels: Vec<Label>,
    /// Length of the axis before.
    pub length_before: u64,
    /// Length of the axis afterwards.
    pub length_after: u64,
    /// The first index whose elements move, where the tail of the axis moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_moved: Option<u64>,
    /// Where the tail was staged, below the control prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Arrays that are created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub creates: Vec<String>,
}

/// A commit that was announced and has not ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Unfinished {
    /// Number of the record that announced it.
    pub number: u64,
    /// When, for people to read.
    pub time: String,
    /// Its sources.
    pub sources: Vec<SourceRecord>,
    /// What may be half written. Labels and arrays are those of all commits that did not end.
    pub prepared: Prepared,
    /// The longest that any of them would have made the axis.
    pub longest: u64,
}

impl Unfinished {
    /// Whether readers see the axis as it was to become: then everything else was written before.
    #[must_use]
    pub fn is_published(&self, structure: &Structure) -> bool {
        structure
            .arrays
            .iter()
            .all(|array| array.axis.is_none_or(|position| array.array.shape[position] == self.prepared.length_after))
    }
}

/// How often somebody died on a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crashes {
    /// How often.
    pub count: u32,
    /// Whether it was the only one at risk the last time.
    pub alone: bool,
}

/// What the announcements in the log add up to.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// The commit that has not ended.
    pub unfinished: Option<Unfinished>,
    /// Sources that somebody died on, and that no commit has taken or set aside since.
    pub crashes: BTreeMap<String, Crashes>,
    at_risk: BTreeSet<String>,
}

impl Journal {
    /// Adds one record.
    pub fn fold(&mut self, number: u64, record: &CommitRecord) {
        match record.kind.as_str() {
            "prepared" | "attempt" => {
                self.at_risk.extend(record.sources.iter().map(|source| source.key.clone()));
                if let Some(prepared) = &record.prepared {
                    self.announce(number, record, prepared.clone());
                }
            }
            "fence" => {
                let at_risk = std::mem::take(&mut self.at_risk);
                let alone = at_risk.len() == 1;
                for key in at_risk.into_iter().filter(|_| record.died) {
                    let crashes = self.crashes.entry(key).or_default();
                    crashes.count += 1;
                    crashes.alone = alone;
                }
            }
            "commit" => {
                self.unfinished = None;
                let ended = std::mem::take(&mut self.at_risk);
                let settled = record.sources.iter().map(|source| source.key.as_str());
                for key in settled.chain(ended.iter().map(String::as_str)) {
                    self.crashes.remove(key);
                }
            }
            // `release`: whoever took it out of quarantine has mended it.
            _ => self.crashes.retain(|key, _| record.sources.iter().all(|source| source.key != *key)),
        }
    }

    fn announce(&mut self, number: u64, record: &CommitRecord, mut prepared: Prepared) {
        let mut sources = record.sources.clone();
        let mut longest = prepared.length_after;
        if let Some(before) = self.unfinished.take() {
            // A label may come twice.
            prepared.labels.extend(before.prepared.labels);
            for path in before.prepared.creates {
                if !prepared.creates.contains(&path) {
                    prepared.creates.push(path);
                }
            }
            longest = longest.max(before.longest);
            sources
                .extend(before.sources.into_iter().filter(|old| record.sources.iter().all(|new| new.key != old.key)));
        }
        self.unfinished = Some(Unfinished { number, time: record.time.clone(), sources, prepared, longest });
    }

    /// Whether an announcement waits for its end.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.unfinished.is_some() || !self.at_risk.is_empty()
    }

    /// Whether a source has crashed by itself so often that it is to be set aside.
    #[must_use]
    pub fn is_deadly(&self, key: &str, after: u32) -> bool {
        self.crashes.get(key).is_some_and(|crashes| crashes.alone && crashes.count >= after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::ledger::Action;

    fn record(kind: &str, keys: &[&str], labels: Option<&[i64]>) -> CommitRecord {
        CommitRecord {
            sources: keys
                .iter()
                .map(|key| SourceRecord {
                    key: (*key).to_owned(),
                    action: Action::Append,
                    version: None,
                    labels: Vec::new(),
                    quarantine: None,
                })
                .collect(),
            prepared: labels.map(|labels| Prepared {
                labels: labels.iter().map(|label| Label::Integer(*label)).collect(),
                length_after: labels.len() as u64,
                ..Prepared::default()
            }),
            died: kind == "fence",
            ..CommitRecord::new(kind, "test")
        }
    }

    fn fold(journal: &mut Journal, records: &[CommitRecord]) {
        for (number, record) in records.iter().enumerate() {
            journal.fold(number as u64 + 1, record);
        }
    }

    #[test]
    fn doubts_add_up_until_a_commit_ends_them() {
        let mut journal = Journal::default();
        fold(
            &mut journal,
            &[
                record("prepared", &["a", "b"], Some(&[1, 2])),
                record("fence", &[], None),
                record("prepared", &["a"], Some(&[1])),
            ],
        );
        let unfinished = journal.unfinished.clone().unwrap();
        assert_eq!(unfinished.prepared.labels, [1, 1, 2].map(Label::Integer));
        assert_eq!((unfinished.number, unfinished.sources.len(), unfinished.longest), (3, 2, 2));
        fold(&mut journal, &[record("commit", &["a"], None)]);
        assert!(journal.unfinished.is_none());
        // The other one has still died once.
        assert_eq!(journal.crashes.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_source_is_deadly_when_it_crashed_alone() {
        let mut journal = Journal::default();
        let fence = || record("fence", &[], None);
        fold(&mut journal, &[record("prepared", &["a", "b"], Some(&[1])), fence()]);
        assert!(!journal.is_deadly("a", 1));
        fold(&mut journal, &[record("attempt", &["a"], None), record("prepared", &["a"], Some(&[1])), fence()]);
        assert!(journal.is_deadly("a", 2) && !journal.is_deadly("a", 3));
        // One that let go by itself is not the source's fault.
        fold(&mut journal, &[record("attempt", &["b"], None), CommitRecord { died: false, ..fence() }]);
        assert!(!journal.is_deadly("b", 2));
        fold(&mut journal, &[record("release", &["a"], None)]);
        assert!(!journal.is_deadly("a", 2));
    }
}
