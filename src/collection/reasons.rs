//! Why something becomes of a source, in words for plans and reports. Pure.

use std::collections::BTreeSet;

use super::label::Label;
use super::ledger::Action;
use super::planning::Examined;
use super::session::{Session, Settled};

/// Who owns a label when the batch is done.
pub(super) fn owner_after(session: &Session, settled: &Settled, label: &Label) -> Option<String> {
    let key = label.key(session.ledger.tolerance());
    settled
        .resolution
        .assignments
        .iter()
        .find(|assignment| assignment.label.key(session.ledger.tolerance()) == key)
        .map_or_else(|| session.ledger.owner(label).map(str::to_owned), |assignment| assignment.after.clone())
}

/// Whose data come back in place of a removed source, where it is not what lies in the bucket.
pub(super) fn restored(examined: &Examined, settled: &Settled, removed: &str) -> String {
    let assignments = settled.resolution.assignments.iter();
    let owners: BTreeSet<&String> = assignments
        .filter(|assignment| assignment.before.as_deref() == Some(removed))
        .filter_map(|assignment| assignment.after.as_ref())
        .collect();
    let version = |key: &String| {
        let found = examined.candidates.iter().find(|candidate| candidate.key == *key);
        found.and_then(|candidate| candidate.version.version.clone()).unwrap_or_default()
    };
    let kept = examined.kept.iter().filter(|key| owners.contains(key));
    let kept: Vec<String> = kept.map(|key| format!("`{key}` as it was in version `{}`", version(key))).collect();
    match kept.as_slice() {
        [] => reason(Action::Restore).to_owned(),
        kept => format!("{}: {}, which is not its present one", reason(Action::Restore), kept.join(", ")),
    }
}

/// What an action means.
pub(super) fn reason(action: Action) -> &'static str {
    match action {
        Action::Append => "new labels behind the end of the axis",
        Action::Insert => "new labels between others: the tail moves",
        Action::FillSlot => "its labels have a place, and nobody owned it",
        Action::Overwrite => "a new version, or it beats the source that owned its labels",
        Action::Restore => "removed: a runner-up's data come back",
        Action::Blank => "removed, and no other source holds its labels",
        Action::RunnerUp => "another source owns its labels",
        Action::Forget => "removed, and nothing in the store was its own",
        Action::Nothing => "up to date",
        Action::Quarantine => "set aside",
    }
}
