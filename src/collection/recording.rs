//! What a commit writes into the log: before a tail moves, and when all is done.

use std::collections::{BTreeMap, HashSet};

use super::Collection;
use super::label::Label;
use super::ledger::{Action, CommitRecord, SourceRecord};
use super::planning::Examined;
use super::session::{Session, Settled};
use crate::progress::Usage;

impl Collection {
    /// The record that announces the move of a tail; `None` where nothing moves.
    pub(super) fn prepared(&self, session: &Session, settled: &Settled) -> Option<CommitRecord> {
        let moves = moved_labels(session, settled)?;
        Some(CommitRecord {
            moves: Some(moves),
            axis_length: settled.layout.length_before,
            ..CommitRecord::new("prepared", &self.config.name)
        })
    }

    /// The commit's record; without sources where nothing is to be remembered.
    pub(super) fn record(
        &self,
        session: &Session,
        examined: &Examined,
        settled: &Settled,
        usage: Usage,
    ) -> CommitRecord {
        let mut sources: BTreeMap<String, SourceRecord> = BTreeMap::new();
        let refused: HashSet<&str> = settled.misfits.iter().map(|(key, _, _)| key.as_str()).collect();
        for (key, _) in examined.gone.iter().filter(|(key, _)| session.ledger.sources.contains_key(key)) {
            let action = settled.layout.actions.get(key).map_or(Action::Forget, |(action, _)| *action);
            sources.insert(
                key.clone(),
                SourceRecord { key: key.clone(), action, version: None, labels: Vec::new(), quarantine: None },
            );
        }
        for candidate in examined.candidates.iter().filter(|candidate| !refused.contains(candidate.key.as_str())) {
            let action = settled.layout.actions.get(&candidate.key).map_or(Action::RunnerUp, |(action, _)| *action);
            let same = session
                .ledger
                .sources
                .get(&candidate.key)
                .is_some_and(|state| state.version.etag == candidate.version.etag && state.quarantine.is_none());
            if same {
                // A runner-up that came back: its own state does not change, only who owns its labels.
                continue;
            }
            sources.insert(
                candidate.key.clone(),
                SourceRecord {
                    key: candidate.key.clone(),
                    action,
                    version: Some(candidate.version.clone()),
                    labels: candidate.labels.clone(),
                    quarantine: None,
                },
            );
        }
        for (key, version, misfit) in examined.misfits.iter().chain(&settled.misfits) {
            let attempts = session
                .ledger
                .sources
                .get(key)
                .filter(|state| state.version.etag == version.etag)
                .and_then(|state| state.quarantine.as_ref())
                .map_or(1, |quarantine| quarantine.attempts + 1);
            sources.insert(
                key.clone(),
                SourceRecord {
                    key: key.clone(),
                    action: Action::Quarantine,
                    version: Some(version.clone()),
                    labels: Vec::new(),
                    quarantine: Some(misfit.quarantine(attempts)),
                },
            );
        }
        CommitRecord {
            sources: sources.into_values().collect(),
            owners: settled
                .resolution
                .assignments
                .iter()
                .map(|assignment| (assignment.label.clone(), assignment.after.clone()))
                .collect(),
            whole: session.doubted.is_empty(),
            axis_length: settled.layout.length_after,
            usage,
            ..CommitRecord::new("commit", &self.config.name)
        }
    }
}

/// The lowest and the highest label that a shift may leave half moved: the tail, and what is inserted.
fn moved_labels(session: &Session, settled: &Settled) -> Option<(Label, Label)> {
    let map = settled.layout.shift.as_ref()?;
    let first = map.iter().enumerate().find_map(|(new, old)| old.filter(|old| *old != new as u64))?;
    let tail = session.labels.iter().skip(first as usize);
    let placed = settled.resolution.assignments.iter().filter(|assignment| assignment.after.is_some());
    let labels: Vec<&Label> = tail.chain(placed.map(|assignment| &assignment.label)).collect();
    let key = |label: &&&Label| label.key(session.ledger.tolerance());
    let lowest = labels.iter().min_by_key(key)?;
    let highest = labels.iter().max_by_key(key)?;
    Some(((*lowest).clone(), (*highest).clone()))
}
