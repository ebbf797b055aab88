//! `plan`: what would be done, without writing anything.
//!
//! # Caveats
//! A plan opens sources without the lease, so that nothing counts the workers who die of one: `sync` and `drain` do, and a
//! plan then leaves the source closed.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::stream::StreamExt;
use serde::Deserialize;

use super::Collection;
use super::backfill::PlannedSource;
use super::document::{Change, Plan, SCHEMA_VERSION, Totals};
use super::fit::{Fitted, Misfit};
use super::layout::show;
use super::ledger::{Action, SourceVersion};
use super::opening::{Outcome, version_of};
use super::reasons::{owner_after, reason, restored};
use super::session::{Candidate, Session, Settled};
use crate::error::{Kind, Result};
use crate::progress::{Progress, Run};
use crate::zarr::Format;

/// What a plan is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Keys or URLs to look at; `None` lists the whole source prefix and reconciles.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
    /// Keys to take out of the store whether they still exist or not.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Looks only at sources modified at this moment or later, and at no removals: UTC as object stores say it here,
    /// `2022-01-05T00:00:00.000Z`.
    #[serde(default)]
    pub since: Option<String>,
    /// `sync` or `keys`; only a check, `keys` decides.
    #[serde(default)]
    pub mode: Option<String>,
}

/// One key that differs from the ledger.
#[derive(Debug, Clone)]
pub struct Work {
    /// Its key.
    pub key: String,
    /// Its version; `None` where it is gone.
    pub version: Option<SourceVersion>,
    /// Whether its removal was asked for by name.
    pub forced: bool,
}

/// What examining a batch of keys found.
#[derive(Default)]
pub struct Examined {
    /// Sources that fit.
    pub candidates: Vec<Candidate>,
    /// Sources that do not.
    pub misfits: Vec<(String, SourceVersion, Misfit)>,
    /// Keys that are gone.
    pub gone: Vec<(String, bool)>,
    /// Candidates that were read in the version on record, which is not the present one.
    pub kept: BTreeSet<String>,
}

impl Collection {
    /// Compares the bucket with the ledger and says what would be done.
    ///
    /// # Errors
    /// `Invalid` where configuration and store contradict each other; `Unavailable` where storage does not answer.
    pub async fn plan(&self, request: &Request, run: &Run) -> Result<Plan> {
        let mut kept = self.session_to_read().await?;
        let plan = self.plan_in(&mut kept.session, request, run).await?;
        self.keep(kept);
        Ok(plan)
    }

    async fn plan_in(&self, session: &mut Session, request: &Request, run: &Run) -> Result<Plan> {
        let creates_store = session.group.is_none();
        let (work, unchanged) = self.survey(session, request, run).await?;
        let mut examined = Examined::default();
        for batch in self.batches(&work, |_, _| false) {
            let (deadly, batch) = self.deadly(session, batch);
            let mut part = self.examine(session, &batch, run, false).await?;
            self.set_aside(session, deadly, &mut part);
            examined.candidates.extend(part.candidates);
            examined.misfits.extend(part.misfits);
            examined.gone.extend(part.gone);
        }
        let gone: Vec<String> = examined.gone.iter().map(|(key, _)| key.clone()).collect();
        let settled = session.settle(&examined.candidates, &gone, &self.config).await?;
        let changes = Self::changes(session, &examined, &settled);
        let arrays = match &session.structure {
            Some(structure) if settled.layout.length_after > 0 => settled.layout.touched(structure),
            _ => Vec::new(),
        };
        Ok(Plan {
            schema_version: SCHEMA_VERSION,
            kind: "zarr-plan".into(),
            collection: self.config.name.clone(),
            store: self.store.url().to_owned(),
            source: self.sources.url().to_owned(),
            format: match session.structure.as_ref().map(|structure| structure.format) {
                Some(Format::V2) => "zarr2".into(),
                Some(Format::V3) => "zarr3".into(),
                None => serde_json::to_value(self.config.store.format)
                    .ok()
                    .and_then(|name| name.as_str().map(str::to_owned))
                    .unwrap_or_default(),
            },
            base: session.ledger.last_commit,
            creates_store: creates_store && !examined.candidates.is_empty(),
            axis: session.axis_change(&settled.layout, &self.config),
            totals: Totals {
                sources: changes.iter().filter(|change| change.action != Action::Nothing).count() as u64,
                regions: settled.layout.runs.len() as u64,
                chunks: arrays.iter().map(|array| array.touched_count).sum(),
                bytes_source: changes
                    .iter()
                    .filter(|change| change.action.writes())
                    .filter_map(|change| change.size)
                    .sum(),
                unchanged,
            },
            sources: planned_sources(&examined, &settled),
            changes,
            arrays,
        })
    }

    /// The keys that differ from the ledger, and how many do not.
    pub(super) async fn survey(&self, session: &mut Session, request: &Request, run: &Run) -> Result<(Vec<Work>, u64)> {
        if let Some(keys) = &request.keys {
            let keys = keys.iter().map(|key| self.relative_key(key)).collect::<Result<Vec<_>>>()?;
            session.load(keys.iter().map(String::as_str)).await?;
        } else if request.removed.is_empty() {
            session.load_all().await?;
        }
        let ledger = &session.ledger;
        let mut work: BTreeMap<String, Work> = BTreeMap::new();
        let mut unchanged = 0;
        if let Some(keys) = &request.keys {
            for key in keys {
                let key = self.relative_key(key)?;
                let version = self.sources.head(&key).await?.as_ref().map(version_of);
                match version {
                    Some(version) if ledger.knows(&key, &version.etag) => unchanged += 1,
                    None if !ledger.sources.contains_key(&key) => {
                        work.insert(key.clone(), Work { key, version: None, forced: false });
                    }
                    version => {
                        work.insert(key.clone(), Work { key, version, forced: false });
                    }
                }
            }
        } else if request.removed.is_empty() {
            let mut seen = HashSet::new();
            let mut listing = self.sources.list("", None);
            while let Some(meta) = listing.next().await {
                let meta = meta?;
                if !self.selection.takes(&meta.key) {
                    continue;
                }
                seen.insert(meta.key.clone());
                if seen.len() % 1000 == 0 {
                    run.check()?;
                    run.tell(&Progress {
                        stage: "list".into(),
                        done: seen.len() as u64,
                        total: 0,
                        item: meta.key.clone(),
                        errors: 0,
                        usage: self.sources.counters().usage(),
                    });
                }
                let version = version_of(&meta);
                // Both are written the same way, so that their texts are in the order of time.
                let is_old =
                    version.modified.as_ref().zip(request.since.as_ref()).is_some_and(|(at, since)| at < since);
                if is_old || ledger.knows(&meta.key, &version.etag) {
                    unchanged += 1;
                } else {
                    work.insert(meta.key.clone(), Work { key: meta.key, version: Some(version), forced: false });
                }
            }
            let gone = ledger.sources.keys().filter(|key| request.since.is_none() && !seen.contains(*key));
            for key in gone {
                work.insert(key.clone(), Work { key: key.clone(), version: None, forced: false });
            }
        }
        for key in &request.removed {
            let key = self.relative_key(key)?;
            work.insert(key.clone(), Work { key, version: None, forced: true });
        }
        Ok((work.into_values().collect(), unchanged))
    }

    /// Cuts work into batches that become one commit each: by number, and by bytes so that what is open fits the memory.
    /// Sources of which `alone` is true make a commit of their own.
    pub(super) fn batches<'a>(&self, work: &'a [Work], alone: impl Fn(usize, &Work) -> bool) -> Vec<&'a [Work]> {
        let limit = (self.config.run.memory / 3).max(1);
        let mut batches = Vec::new();
        let mut start = 0;
        let mut bytes = 0;
        for (position, item) in work.iter().enumerate() {
            let size = item.version.as_ref().map_or(0, |version| version.size);
            let full = position - start >= self.config.run.batch.files.max(1)
                || bytes + size > limit
                || alone(position, item)
                || (position > 0 && alone(position - 1, &work[position - 1]));
            if position > start && full {
                batches.push(&work[start..position]);
                start = position;
                bytes = 0;
            }
            bytes += size;
        }
        if start < work.len() {
            batches.push(&work[start..]);
        }
        batches
    }

    /// Opens and fits a batch.
    ///
    /// # Errors
    /// What concerns the whole batch; what concerns one source is among the misfits.
    pub(super) async fn examine(
        &self,
        session: &mut Session,
        batch: &[Work],
        run: &Run,
        keep_values: bool,
    ) -> Result<Examined> {
        session.load(batch.iter().map(|item| item.key.as_str())).await?;
        let mut examined = Examined::default();
        let mut keys = Vec::new();
        for item in batch {
            match &item.version {
                Some(version) => keys.push((item.key.clone(), Some(version.clone()))),
                None => examined.gone.push((item.key.clone(), item.forced)),
            }
        }
        for (key, outcome) in self.opener().open_all(&keys, run).await? {
            self.fit_outcome(session, key, outcome, keep_values, &mut examined).await?;
        }
        Ok(examined)
    }

    /// Sorts one opened source into fits, misfits and gone.
    pub(super) async fn fit_outcome(
        &self,
        session: &mut Session,
        key: String,
        outcome: Outcome,
        keep_values: bool,
        examined: &mut Examined,
    ) -> Result<()> {
        match outcome {
            Outcome::Gone => examined.gone.push((key, false)),
            Outcome::Misfit(version, misfit) => examined.misfits.push((key, version, misfit)),
            Outcome::Opened(opened) => match session.fit(&key, &opened, &self.config).await {
                Ok(fitted) => {
                    if opened.kept {
                        examined.kept.insert(key.clone());
                    }
                    examined.candidates.push(Candidate {
                        key,
                        version: opened.version,
                        labels: opened.labels,
                        fitted: if keep_values { fitted } else { Fitted::new() },
                    });
                }
                Err(misfit) if matches!(misfit.error.kind(), Kind::Unavailable | Kind::Conflict) => {
                    return Err(misfit.error);
                }
                Err(misfit) => {
                    let error = misfit.error.context(self.sources.url_of(&key));
                    examined.misfits.push((key, opened.version, Misfit { error, ..misfit }));
                }
            },
        }
        Ok(())
    }

    /// What becomes of each source, for plans and reports.
    pub(super) fn changes(session: &Session, examined: &Examined, settled: &Settled) -> Vec<Change> {
        let mut changes = Vec::new();
        let kind = session.kind;
        let blank = |key: &str, version: Option<&SourceVersion>| Change {
            key: key.to_owned(),
            version: version.cloned(),
            etag: version.map(|version| version.etag.clone()),
            size: version.map(|version| version.size),
            action: Action::Nothing,
            labels: Vec::new(),
            label_count: 0,
            indices: Vec::new(),
            reason: String::new(),
            category: None,
            message: None,
            hint: None,
            forced: false,
            outcome: None,
        };
        let misfits = || examined.misfits.iter().chain(&settled.misfits);
        let refused: HashSet<&str> = misfits().map(|(key, _, _)| key.as_str()).collect();
        for candidate in examined.candidates.iter().filter(|candidate| !refused.contains(candidate.key.as_str())) {
            let done = settled.layout.actions.get(&candidate.key).cloned();
            let is_known = session.ledger.knows(&candidate.key, &candidate.version.etag);
            if done.is_none() && (is_known || examined.kept.contains(&candidate.key)) {
                // A runner-up that comes back: the source that went away says so.
                continue;
            }
            let (mut action, indices) = done.unwrap_or((Action::RunnerUp, Vec::new()));
            let mut reason = reason(action).to_owned();
            if action == Action::RunnerUp {
                let owner = candidate.labels.iter().find_map(|label| owner_after(session, settled, label));
                if owner.as_ref() == Some(&candidate.key) {
                    action = Action::Restore;
                    "its data come back as they are now: the version on record is gone".clone_into(&mut reason);
                } else {
                    reason = format!("`{}` owns its labels; it is kept as runner-up", owner.unwrap_or_default());
                }
            }
            changes.push(Change {
                action,
                labels: candidate.labels.iter().take(5).map(|label| show(kind, label)).collect(),
                label_count: candidate.labels.len() as u64,
                indices,
                reason,
                ..blank(&candidate.key, Some(&candidate.version))
            });
        }
        for (key, forced) in &examined.gone {
            let known = session.ledger.sources.get(key);
            let (action, indices) = match (settled.layout.actions.get(key).cloned(), known) {
                (Some(done), _) => done,
                (None, Some(_)) => (Action::Forget, Vec::new()),
                (None, None) => (Action::Nothing, Vec::new()),
            };
            let labels = known.map(|state| state.labels.as_slice()).unwrap_or_default();
            let reason = match (known, action) {
                (None, _) => "gone, and not in the ledger: nothing to do".to_owned(),
                (_, Action::Restore) => restored(examined, settled, key),
                _ => reason(action).to_owned(),
            };
            changes.push(Change {
                action,
                labels: labels.iter().take(5).map(|label| show(kind, label)).collect(),
                label_count: labels.len() as u64,
                indices,
                reason,
                forced: *forced,
                ..blank(key, None)
            });
        }
        for (key, version, misfit) in misfits() {
            changes.push(Change {
                action: Action::Quarantine,
                reason: "set aside; everything else goes on".into(),
                category: Some(misfit.category.to_owned()),
                message: Some(misfit.error.message()),
                hint: misfit.error.hint_text().map(str::to_owned),
                ..blank(key, Some(version))
            });
        }
        changes.sort_by(|left, right| left.key.cmp(&right.key));
        changes
    }
}

/// What workers need that each write a part of the plan; nothing where the tail of the axis moves.
fn planned_sources(examined: &Examined, settled: &Settled) -> Vec<PlannedSource> {
    let refused: HashSet<&str> = settled.misfits.iter().map(|(key, _, _)| key.as_str()).collect();
    if settled.layout.moved() > 0 {
        return Vec::new();
    }
    let fitting = examined.candidates.iter().filter(|candidate| !refused.contains(candidate.key.as_str()));
    fitting
        .map(|candidate| PlannedSource {
            key: candidate.key.clone(),
            version: candidate.version.clone(),
            labels: candidate.labels.clone(),
        })
        .collect()
}
