//! What a commit writes into the log: before anything is touched, and when all is done.

use std::collections::{BTreeMap, HashSet};

use super::Collection;
use super::journal::Prepared;
use super::ledger::{Action, CommitRecord, SourceRecord, SourceVersion};
use super::planning::Examined;
use super::session::{Session, Settled};
use crate::progress::Usage;

impl Collection {
    /// The record that announces a commit.
    pub(super) fn prepared(
        &self,
        session: &Session,
        examined: &Examined,
        settled: &Settled,
        stage: Option<String>,
    ) -> CommitRecord {
        let action = |key: &str| settled.layout.actions.get(key).map_or(Action::RunnerUp, |(action, _)| *action);
        let source = |key: &String, version: Option<&SourceVersion>| SourceRecord {
            key: key.clone(),
            action: action(key),
            version: version.cloned(),
            labels: Vec::new(),
            quarantine: None,
        };
        let layout = &settled.layout;
        let moved = layout.shift.as_ref().and_then(|map| {
            map.iter().enumerate().position(|(new, old)| *old != Some(new as u64)).map(|index| index as u64)
        });
        let arrays = session.structure.iter().flat_map(|structure| &structure.arrays);
        CommitRecord {
            sources: examined
                .candidates
                .iter()
                .map(|candidate| source(&candidate.key, Some(&candidate.version)))
                .chain(examined.gone.iter().map(|(key, _)| source(key, None)))
                .collect(),
            prepared: Some(Prepared {
                labels: settled
                    .resolution
                    .assignments
                    .iter()
                    .filter(|assignment| assignment.rewrite)
                    .map(|assignment| assignment.label.clone())
                    .collect(),
                length_before: layout.length_before,
                length_after: layout.length_after,
                first_moved: moved,
                stage,
                creates: arrays
                    .filter(|array| array.to_create.is_some())
                    .map(|array| array.array.path.clone())
                    .collect(),
            }),
            axis_length: layout.length_before,
            ..CommitRecord::new("prepared", &self.config.name)
        }
    }

    /// The record that puts one source at risk, before it is opened.
    pub(super) fn attempt(&self, key: &str, version: Option<&SourceVersion>) -> CommitRecord {
        let source = SourceRecord {
            key: key.to_owned(),
            action: Action::Nothing,
            version: version.cloned(),
            labels: Vec::new(),
            quarantine: None,
        };
        CommitRecord { sources: vec![source], ..CommitRecord::new("attempt", &self.config.name) }
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
            if same || examined.kept.contains(&candidate.key) {
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
            let before = session.ledger.sources.get(key).filter(|state| state.version.etag == version.etag);
            let tried = before.and_then(|state| state.quarantine.as_ref()).map_or(0, |quarantine| quarantine.attempts);
            let died = session.ledger.journal.crashes.get(key).map_or(0, |crashes| crashes.count);
            let attempts = (tried + 1).max(died);
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
            axis_length: settled.layout.length_after,
            usage,
            ..CommitRecord::new("commit", &self.config.name)
        }
    }
}
