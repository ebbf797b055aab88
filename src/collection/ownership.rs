//! Who owns each label after a change: a pure function of the ledger, the changes and the winner rule.
//!
//! The outcome depends on what is in the bucket, not on the order in which it was noticed: rivals are ranked by the time
//! that the object store says they were last modified, then by key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::config::{OnRemove, WinnerConfig};
use super::label::{Label, LabelKey};
use super::ledger::{Ledger, SourceVersion};
use super::listing::Patterns;
use crate::error::Result;

/// A source as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// Its key.
    pub key: String,
    /// Its version and labels; `None` where it is gone.
    pub present: Option<(SourceVersion, Vec<Label>)>,
}

/// What a label's region becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The label.
    pub label: Label,
    /// Who owned it.
    pub before: Option<String>,
    /// Who owns it now.
    pub after: Option<String>,
    /// Whether the region's values change: a new owner, or a new version of the same.
    pub rewrite: bool,
    /// Whether the owner went away and a runner-up comes back.
    pub restored: bool,
}

/// The outcome for a batch of arrivals.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolution {
    /// Every label whose owner or values change, in label order.
    pub assignments: Vec<Assignment>,
    /// Arrivals refused because another source holds one of their labels (`winner: error`), with that source.
    pub refused: Vec<(String, String)>,
}

/// Resolves `arrivals` (one a key) against the ledger.
///
/// # Errors
/// `Invalid` where a priority pattern cannot be parsed.
pub fn resolve(
    ledger: &Ledger,
    arrivals: &[Arrival],
    winner: &WinnerConfig,
    on_remove: OnRemove,
) -> Result<Resolution> {
    let tolerance = ledger.tolerance();
    let ranks = Ranks::new(winner)?;
    let mut resolution = Resolution::default();
    let mut changed: HashMap<&str, &Arrival> = arrivals.iter().map(|arrival| (arrival.key.as_str(), arrival)).collect();

    if matches!(winner, WinnerConfig::Error) {
        refuse_rivals(ledger, arrivals, &mut changed, &mut resolution);
    }

    let mut affected: BTreeMap<LabelKey, Label> = BTreeMap::new();
    let mut claims: HashMap<LabelKey, Vec<&str>> = HashMap::new();
    for arrival in arrivals.iter().filter(|arrival| changed.contains_key(arrival.key.as_str())) {
        if let Some((_, labels)) = &arrival.present {
            for label in labels {
                let key = label.key(tolerance);
                claims.entry(key.clone()).or_default().push(&arrival.key);
                affected.insert(key, label.clone());
            }
        }
        if let Some(state) = ledger.sources.get(&arrival.key) {
            for label in &state.labels {
                affected.entry(label.key(tolerance)).or_insert_with(|| label.clone());
            }
        }
    }

    for (key, label) in affected {
        let slot = ledger.slots.get(&key);
        let before = slot.and_then(|slot| slot.owner.clone());
        // Claimants of the ledger that did not change, and arrivals that hold the label now.
        let mut candidates: BTreeSet<&str> = slot
            .map(|slot| slot.claimants.iter().map(String::as_str).filter(|key| !changed.contains_key(key)).collect())
            .unwrap_or_default();
        candidates.extend(claims.get(&key).into_iter().flatten());
        let version_of = |candidate: &str| -> Option<&SourceVersion> {
            match changed.get(candidate) {
                Some(arrival) => arrival.present.as_ref().map(|(version, _)| version),
                // A version that was set aside ranks nothing: the values are those of the one before.
                None => ledger.sources.get(candidate).map(|state| state.taken().unwrap_or(&state.version)),
            }
        };
        let best = candidates.iter().copied().max_by(|left, right| ranks.compare(left, right, &version_of));
        let claimed = claims.contains_key(&key);
        let released = before
            .as_deref()
            .is_some_and(|owner| changed.get(owner).is_some_and(|arrival| !holds(arrival, &key, tolerance)));
        let (after, rewrite) = if claimed {
            let after = best.map(str::to_owned);
            let rewrite = after != before
                || after.as_deref().is_some_and(|owner| revised(ledger, owner, changed.get(owner).copied()));
            (after, rewrite)
        } else if released {
            match on_remove {
                OnRemove::Restore => (best.map(str::to_owned), true),
                OnRemove::Blank => (None, true),
                OnRemove::Keep => (None, false),
            }
        } else {
            continue;
        };
        if rewrite || before != after {
            // In an apply the runner-up is opened and joins the arrivals, so a claim of its own does not tell.
            let restored = released
                && rewrite
                && after.as_ref().is_some_and(|owner| slot.is_some_and(|slot| slot.claimants.contains(owner)));
            resolution.assignments.push(Assignment { label, before, after, rewrite, restored });
        }
    }
    Ok(resolution)
}

fn holds(arrival: &Arrival, key: &LabelKey, tolerance: f64) -> bool {
    arrival.present.as_ref().is_some_and(|(_, labels)| labels.iter().any(|label| label.key(tolerance) == *key))
}

/// Whether `owner` comes in another version than the ledger holds.
fn revised(ledger: &Ledger, owner: &str, arrival: Option<&Arrival>) -> bool {
    let Some(Some((version, _))) = arrival.map(|arrival| &arrival.present) else {
        return false;
    };
    ledger.sources.get(owner).is_none_or(|state| state.version.etag != version.etag || state.quarantine.is_some())
}

/// Takes out arrivals whose labels another source holds.
fn refuse_rivals<'a>(
    ledger: &Ledger,
    arrivals: &'a [Arrival],
    changed: &mut HashMap<&'a str, &'a Arrival>,
    resolution: &mut Resolution,
) {
    let tolerance = ledger.tolerance();
    let mut taken: HashMap<LabelKey, &str> = HashMap::new();
    for arrival in arrivals {
        let Some((_, labels)) = &arrival.present else { continue };
        let rival = labels.iter().find_map(|label| {
            let key = label.key(tolerance);
            let held = ledger.slots.get(&key).and_then(|slot| {
                slot.claimants.iter().find(|claimant| {
                    **claimant != arrival.key
                        && changed.get(claimant.as_str()).is_none_or(|other| holds(other, &key, tolerance))
                })
            });
            held.map(String::as_str).or_else(|| taken.get(&key).copied()).map(str::to_owned)
        });
        if let Some(rival) = rival {
            resolution.refused.push((arrival.key.clone(), rival));
            changed.remove(arrival.key.as_str());
        } else {
            for label in labels {
                taken.insert(label.key(tolerance), &arrival.key);
            }
        }
    }
}

/// The order of rivals.
struct Ranks {
    priorities: Vec<Patterns>,
}

impl Ranks {
    fn new(winner: &WinnerConfig) -> Result<Self> {
        let priorities = match winner {
            WinnerConfig::Priority(patterns) => {
                patterns.iter().map(|pattern| Patterns::new(std::slice::from_ref(pattern))).collect::<Result<_>>()?
            }
            _ => Vec::new(),
        };
        Ok(Self { priorities })
    }

    fn compare<'a>(
        &self,
        left: &str,
        right: &str,
        version_of: &impl Fn(&str) -> Option<&'a SourceVersion>,
    ) -> std::cmp::Ordering {
        let rank = |key: &str| {
            self.priorities.iter().position(|pattern| pattern.matches(key)).unwrap_or(self.priorities.len())
        };
        let modified = |key: &str| version_of(key).and_then(|version| version.modified.as_deref()).unwrap_or("");
        // A lower rank is better, so it compares as greater.
        rank(right).cmp(&rank(left)).then_with(|| modified(left).cmp(modified(right))).then_with(|| left.cmp(right))
    }
}
