//! What is known of a collection, without opening a source: status, history, provenance, gaps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Collection;
use super::apply::LEASE_WAIT;
use super::label::Label;
use super::layout::show;
use super::ledger::{Action, CommitRecord, SourceRecord, SourceState};
use super::session::Session;
use crate::error::{Error, Result};
use crate::ledger::{Inbox, Lease, LeaseState, Log};

/// What provenance is asked for: one of label, index, key, or nothing for all.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenanceRequest {
    /// A label as it is shown, or the beginning of one (`2022-01`).
    #[serde(default)]
    pub label: Option<String>,
    /// An index of the axis.
    #[serde(default)]
    pub index: Option<u64>,
    /// A key of a source.
    #[serde(default)]
    pub key: Option<String>,
}

/// Where the values of one step come from.
#[derive(Debug, Clone, Serialize)]
pub struct Provenance {
    /// The label, as text.
    pub label: String,
    /// Its index.
    pub index: u64,
    /// The owner's key; `None` where the step is blank.
    pub key: Option<String>,
    /// The owner's ETag.
    pub etag: Option<String>,
    /// The owner's version id, on a versioned bucket.
    pub version: Option<String>,
    /// The commit that brought it.
    pub commit: Option<u64>,
    /// When, for people to read.
    pub time: Option<String>,
    /// Other sources that hold the label.
    pub runners_up: Vec<Value>,
}

/// Intents counted at most by `status`.
const PENDING_LIMIT: usize = 100_000;

/// Steps listed at most by `gaps`; beyond it only the count is kept.
const GAPS_LIMIT: usize = 10_000;

impl Collection {
    /// A session that knows the whole ledger and all labels.
    async fn session(&self) -> Result<Session> {
        let mut session = Session::open(&self.store, &self.control, &self.config).await?;
        session.load_all().await?;
        session.read_all_labels(&self.config).await?;
        Ok(session)
    }

    /// What there is, and whether somebody writes.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn status(&self) -> Result<Value> {
        let mut session = Session::open(&self.store, &self.control, &self.config).await?;
        let counts = session.checkpoint.counts(&mut session.ledger).await?;
        let ends = session.ends(&self.config).await?;
        let ledger = &session.ledger;
        let sizes: BTreeMap<&str, u64> = session
            .structure
            .iter()
            .flat_map(|structure| &structure.arrays)
            .map(|array| {
                let elements: u64 = array.array.shape.iter().product();
                (array.array.path.as_str(), elements * array.array.data_type.size().unwrap_or(0) as u64)
            })
            .collect();
        let last =
            ledger.last_time.as_ref().map(|time| json!({"number": ledger.next_number.saturating_sub(1), "time": time}));
        let lease = Lease::state(&self.control).await?;
        Ok(json!({
            "collection": self.config.name,
            "store": self.store.url(),
            "store_exists": session.group.is_some(),
            "format": session.group.as_ref().map(|group| group.format),
            "axis": session.structure.as_ref().map(|structure| structure.axis.clone()),
            "axis_length": session.labels.len(),
            "first_label": ends.as_ref().map(|(first, _)| show(session.kind, first)),
            "last_label": ends.as_ref().map(|(_, last)| show(session.kind, last)),
            "sources": counts.sources,
            "runners_up": counts.runners_up,
            "quarantined": counts.quarantined,
            "checkpoint": Some(session.checkpoint.number()).filter(|number| *number > 0),
            "last_commit": last,
            "unfinished": ledger.journal.unfinished,
            "backfill": self.open_backfill(ledger).await?,
            "locked_by": lease.as_ref().filter(|lease| !lease.free).map(LeaseState::text),
            "lease": lease.as_ref().map(|lease| {
                json!({
                    "holder": lease.holder.to_string(),
                    "epoch": lease.epoch,
                    "since": lease.since,
                    "free": lease.free,
                })
            }),
            "pending": Inbox::new(self.control.clone()).count(PENDING_LIMIT).await?,
            "size": sizes,
        }))
    }

    /// The commits, latest first.
    ///
    /// # Errors
    /// As [`Log::records`].
    pub async fn history(&self, limit: Option<usize>) -> Result<Vec<Value>> {
        let log = Log::open(self.control.clone()).await?;
        let mut reach = limit.map_or(log.len(), |limit| 2 * limit as u64 + 8);
        let first = log.first_number().await?;
        // Between the commits stand announcements and fences: look further back until there are enough.
        let records = loop {
            let from = log.next_number().saturating_sub(reach).max(first);
            let mut records = log.records::<CommitRecord>(from).await?;
            records.retain(|(_, record)| record.is_commit());
            if from == first || limit.is_some_and(|limit| records.len() >= limit) {
                break records;
            }
            reach *= 2;
        };
        Ok(records
            .into_iter()
            .rev()
            .take(limit.unwrap_or(usize::MAX))
            .map(|(number, record)| {
                let mut actions: BTreeMap<Action, usize> = BTreeMap::new();
                for source in &record.sources {
                    *actions.entry(source.action).or_default() += 1;
                }
                json!({
                    "number": number,
                    "kind": record.kind,
                    "time": record.time,
                    "sources": record.sources.len(),
                    "actions": actions,
                    "axis_length": record.axis_length,
                    "keys": record.sources.iter().take(10).map(|source| &source.key).collect::<Vec<_>>(),
                    "usage": record.usage,
                })
            })
            .collect())
    }

    /// Which source each step comes from.
    ///
    /// # Errors
    /// `NotFound` where the label, index or key is not in the store.
    pub async fn provenance(&self, request: &ProvenanceRequest) -> Result<Vec<Provenance>> {
        let session = self.session().await?;
        let ledger = &session.ledger;
        let key = request.key.as_ref().map(|key| self.relative_key(key)).transpose()?;
        let mut found = Vec::new();
        for (index, label) in session.labels.iter().enumerate() {
            let index = index as u64;
            if request.index.is_some_and(|wanted| wanted != index) {
                continue;
            }
            let text = show(session.kind, label);
            if request.label.as_ref().is_some_and(|wanted| !text.starts_with(wanted.trim_end_matches('Z'))) {
                continue;
            }
            let slot = ledger.slots.get(&label.key(ledger.tolerance()));
            let owner = slot.and_then(|slot| slot.owner.clone());
            let claims = |wanted: &String| slot.is_some_and(|slot| slot.claimants.contains(wanted));
            if key.as_ref().is_some_and(|wanted| owner.as_ref() != Some(wanted) && !claims(wanted)) {
                continue;
            }
            let state = owner.as_ref().and_then(|owner| ledger.sources.get(owner));
            // What was set aside since wrote nothing.
            let taken = |key: &String| ledger.sources.get(key).and_then(SourceState::taken);
            let version = owner.as_ref().and_then(taken);
            let runners_up = slot
                .iter()
                .flat_map(|slot| &slot.claimants)
                .filter(|claimant| Some(*claimant) != owner.as_ref())
                .map(|claimant| json!({"key": claimant, "etag": taken(claimant).map(|version| version.etag.clone())}))
                .collect();
            found.push(Provenance {
                label: text,
                index,
                key: owner,
                etag: version.map(|version| version.etag.clone()),
                version: version.and_then(|version| version.version.clone()),
                commit: state.map(|state| state.commit),
                time: state.map(|state| state.time.clone()),
                runners_up,
            });
        }
        let asked = request.label.clone().or_else(|| request.index.map(|index| index.to_string())).or(key);
        match asked {
            Some(asked) if found.is_empty() => {
                let range = ends_of(&session).map(|(first, last)| {
                    format!("the axis goes from `{}` to `{}`", show(session.kind, first), show(session.kind, last))
                });
                Err(Error::not_found(format!("nothing in the store comes from, or is labelled, `{asked}`"))
                    .hint(range.unwrap_or_else(|| "the store is empty".into())))
            }
            _ => Ok(found),
        }
    }

    /// Labels that are missing between the first and the last, and steps that nobody owns.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn gaps(&self) -> Result<Value> {
        let session = self.session().await?;
        let blank: Vec<String> = session
            .labels
            .iter()
            .filter(|label| session.ledger.owner(label).is_none())
            .map(|label| show(session.kind, label))
            .collect();
        let labels: Vec<Label> = session.labels.iter().cloned().collect();
        let (step, missing) = missing_labels(&labels);
        let count = missing.len() + blank.len();
        Ok(json!({
            "axis": session.structure.as_ref().map(|structure| structure.axis.clone()),
            "step": step.map(|step| show_step(&labels, step)),
            "missing": missing.iter().take(GAPS_LIMIT).map(|label| show(session.kind, label)).collect::<Vec<_>>(),
            "blank": blank.iter().take(GAPS_LIMIT).collect::<Vec<_>>(),
            "count": count,
        }))
    }

    /// Takes sources out of quarantine, so that the next `sync` tries them again; none means all.
    ///
    /// # Errors
    /// `NotFound` where a key is not in quarantine; `Conflict` where another writer recorded something meanwhile.
    pub async fn retry(&self, keys: &[String]) -> Result<Vec<String>> {
        let mut turn = self.begin(Some(LEASE_WAIT)).await?;
        let outcome = self.release_from_quarantine(&mut turn.session, keys).await;
        self.end(turn, outcome.is_err()).await;
        outcome
    }

    async fn release_from_quarantine(&self, session: &mut Session, keys: &[String]) -> Result<Vec<String>> {
        session.load_all().await?;
        let set_aside: BTreeMap<&String, &SourceState> = session.ledger.quarantined().collect();
        let wanted: Vec<String> = if keys.is_empty() {
            set_aside.keys().map(|key| (*key).clone()).collect()
        } else {
            keys.iter().map(|key| self.relative_key(key)).collect::<Result<_>>()?
        };
        let mut sources = Vec::new();
        for key in &wanted {
            let state = set_aside.get(key).ok_or_else(|| Error::not_found(format!("`{key}` is not in quarantine")))?;
            let mut version = state.version.clone();
            // No object has an empty ETag, so the source counts as changed.
            version.etag = String::new();
            sources.push(SourceRecord {
                key: key.clone(),
                action: Action::Forget,
                version: Some(version),
                labels: state.labels.clone(),
                quarantine: None,
            });
        }
        if !sources.is_empty() {
            let record = CommitRecord {
                sources,
                axis_length: session.labels.len(),
                ..CommitRecord::new("release", &self.config.name)
            };
            session.log.append(&record).await?;
        }
        Ok(wanted)
    }
}

fn ends_of(session: &Session) -> Option<(&Label, &Label)> {
    session.labels.get(0).zip(session.labels.get(session.labels.len().checked_sub(1)?))
}

/// The commonest step of a numeric axis and the labels that it leaves out.
fn missing_labels(labels: &[Label]) -> (Option<i64>, Vec<Label>) {
    let mut numbers: Vec<i64> = labels
        .iter()
        .filter_map(|label| match label {
            Label::Time(value) | Label::Integer(value) => Some(*value),
            _ => None,
        })
        .collect();
    if numbers.len() != labels.len() || numbers.len() < 3 {
        return (None, Vec::new());
    }
    numbers.sort_unstable();
    numbers.dedup();
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    for pair in numbers.windows(2) {
        *counts.entry(pair[1] - pair[0]).or_default() += 1;
    }
    // The commonest difference; the smallest of equally common ones, so that a sparse axis shows its gaps.
    let step = counts.iter().max_by_key(|(step, count)| (**count, std::cmp::Reverse(**step))).map(|(step, _)| *step);
    let Some(step) = step.filter(|step| *step > 0) else {
        return (None, Vec::new());
    };
    let time = matches!(labels[0], Label::Time(_));
    let mut missing = Vec::new();
    for pair in numbers.windows(2) {
        let mut next = pair[0] + step;
        while next < pair[1] && missing.len() <= GAPS_LIMIT {
            missing.push(if time { Label::Time(next) } else { Label::Integer(next) });
            next += step;
        }
    }
    (Some(step), missing)
}

fn show_step(labels: &[Label], step: i64) -> String {
    if !matches!(labels.first(), Some(Label::Time(_))) {
        return step.to_string();
    }
    for (unit, milliseconds) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)] {
        if step % milliseconds == 0 {
            return format!("{} {unit}", step / milliseconds);
        }
    }
    format!("{step} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_day_is_found() {
        let day = 86_400_000;
        let labels: Vec<Label> = [0, 1, 2, 4, 5].iter().map(|index| Label::Time(index * day)).collect();
        let (step, missing) = missing_labels(&labels);
        assert_eq!(step, Some(day));
        assert_eq!(missing, [Label::Time(3 * day)]);
        assert_eq!(show_step(&labels, day), "1 d");
    }
}
