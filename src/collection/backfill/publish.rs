//! The end of a backfill: what all workers wrote becomes one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;

use super::blocks::{owners, without};
use super::{BadSource, FOLDER, Marker, PlannedSource, candidates};
use crate::collection::Collection;
use crate::collection::apply::LEASE_WAIT;
use crate::collection::document::{Plan, Report};
use crate::collection::fit::Fitted;
use crate::collection::label::Label;
use crate::collection::layout::Layout;
use crate::collection::ledger::{Action, CommitRecord, Quarantine, SourceRecord, SourceVersion};
use crate::collection::memory::{MemoryData, MemoryVariable};
use crate::collection::planning::Examined;
use crate::collection::session::{Candidate, Session, Settled};
use crate::collection::source::read_values;
use crate::collection::staging::Doors;
use crate::collection::structure::{Role, StoreArray, Structure};
use crate::collection::turn::{Totals, Turn};
use crate::collection::writes::writes;
use crate::error::{Error, Result};
use crate::progress::Run;
use crate::zarr::Elements;

impl Collection {
    /// Publishes what all shards wrote; `None` where somebody else did.
    pub(super) async fn publish_backfill(
        &self,
        plan: &Plan,
        id: &str,
        sources: &[PlannedSource],
        markers: BTreeMap<u64, Marker>,
        run: &Run,
    ) -> Result<Option<Report>> {
        let mut totals = Totals::new(self);
        let mut turn = self.begin(Some(LEASE_WAIT)).await?;
        let outcome = async {
            self.recover(&mut turn, run, &mut totals).await?;
            let is_open = turn.session.ledger.backfill.as_deref() == Some(id);
            if is_open {
                let bad = markers.into_values().flat_map(|marker| marker.bad).collect();
                self.publish_under(&mut turn, plan, id, sources, bad, run, &mut totals).await?;
            }
            // Workers of shards hold no lease that somebody inherits.
            turn.doors.store.sweep_dead().await?;
            turn.doors.drop_markers().await?;
            Ok::<_, Error>(!is_open && totals.commits.is_empty())
        }
        .await;
        let unchanged = turn.session.axis_change(&turn.session.unchanged(), &self.config);
        self.end(turn, outcome.is_err()).await;
        if outcome? {
            return Ok(None);
        }
        Ok(Some(totals.report(self, unchanged)))
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing that a commit knows")]
    async fn publish_under(
        &self,
        turn: &mut Turn,
        plan: &Plan,
        id: &str,
        sources: &[PlannedSource],
        mut bad: BTreeMap<String, BadSource>,
        run: &Run,
        totals: &mut Totals,
    ) -> Result<()> {
        let usage_before = self.store.counters().usage();
        let (doors, session) = (turn.doors.clone(), &mut turn.session);
        let candidates = candidates(sources);
        let mut settled = session.settle(&candidates, &[], &self.config).await?;
        let labels = self.label_values(session, sources, &owners(&settled.layout), &mut bad, run).await?;
        empty_steps(&mut settled, &candidates, &bad);
        let examined = Examined {
            candidates: candidates.into_iter().filter(|candidate| !bad.contains_key(&candidate.key)).collect(),
            ..Examined::default()
        };

        let record = self.prepared(session, &examined, &settled, None);
        let number = session.log.append(&record).await?;
        session.ledger.fold(number, &record);
        let structure = session.structure.as_ref().ok_or_else(|| Error::internal("a backfill without a store"))?;
        totals.arrays = settled.layout.touched(structure);
        let labels = labels.iter().map(|(key, fitted)| (key.clone(), fitted)).collect();
        // What shards wrote beyond the axis stays beside the steps that become empty.
        let length = settled.layout.length_after;
        let blank = Layout { runs: Vec::new(), length_before: length, ..settled.layout.clone() };
        let memory = self.config.run.memory;
        let data = writes(structure, &blank, &BTreeMap::new())?.data;
        self.write_arrays(&doors.store, &data, memory, run, &mut totals.written).await?;
        let coordinates = writes(&only_coordinates(structure), &settled.layout, &labels)?.coordinates;
        self.write_arrays(&doors.store, &coordinates, memory, run, &mut totals.written).await?;
        self.publish((&doors.store, session), settled.layout.length_after).await?;

        let usage = self.store.counters().usage() - usage_before;
        let mut record =
            CommitRecord { backfill: Some(id.to_owned()), ..self.record(session, &examined, &settled, usage) };
        record.sources.extend(set_aside(plan, sources, &bad));
        let mut changes = Self::changes(session, &examined, &settled);
        session.advance(&settled.layout, &examined.candidates);
        record.axis_order = session.axis_order(&self.config);
        let number = session.log.append(&record).await?;
        session.ledger.fold(number, &record);
        for change in &mut changes {
            change.outcome = Some("done".into());
        }
        totals.changes = changes;
        totals.commits.push(number);
        totals.set_aside(&record);
        totals.axis = Some(session.axis_change(&settled.layout, &self.config));
        Ok(())
    }

    /// The values of the key's arrays of all sources that own a step, in memory.
    async fn label_values(
        &self,
        session: &mut Session,
        sources: &[PlannedSource],
        owners: &BTreeSet<&str>,
        bad: &mut BTreeMap<String, BadSource>,
        run: &Run,
    ) -> Result<BTreeMap<String, Fitted>> {
        let mut labels = BTreeMap::new();
        let wanted: Vec<_> = sources
            .iter()
            .filter(|source| owners.contains(source.key.as_str()) && !bad.contains_key(&source.key))
            .map(|source| (source.key.clone(), Some(source.version.clone())))
            .collect();
        for batch in wanted.chunks(self.config.run.batch.files.max(1)) {
            run.check()?;
            for candidate in self.open_planned(session, batch, bad, run).await? {
                let structure = session.structure.as_ref().ok_or_else(|| Error::internal("no structure"))?;
                let mut kept = Fitted::new();
                for array in structure.arrays.iter().filter(|array| array.role == Role::Key) {
                    let Some(values) = candidate.fitted.get(&array.array.path) else { continue };
                    let data = match read_values(values.as_ref()).await? {
                        Elements::Fixed(bytes) => MemoryData::Fixed(bytes.into()),
                        Elements::Strings(strings) => MemoryData::Strings(Arc::new(strings)),
                    };
                    let variable = MemoryVariable {
                        name: array.array.path.clone(),
                        dimensions: vec!["axis".into(); values.shape().len()],
                        shape: values.shape().to_vec(),
                        data_type: values.data_type(),
                        attributes: serde_json::Map::new(),
                        fill: None,
                        data,
                    };
                    kept.insert(array.array.path.clone(), variable.values()?);
                }
                labels.insert(candidate.key, kept);
            }
        }
        Ok(labels)
    }
}

impl Doors {
    /// Removes the markers of all backfills; none is open.
    pub(in crate::collection) async fn drop_markers(&self) -> Result<()> {
        for meta in self.control.list(FOLDER, None).try_collect::<Vec<_>>().await? {
            self.control.delete(&meta.key).await?;
        }
        self.control.child(FOLDER).sweep_dead().await.map(drop)
    }
}

/// Only the labels and the provenance, so that no data are asked for.
fn only_coordinates(structure: &Structure) -> Structure {
    let mut structure = structure.clone();
    structure.arrays.retain(StoreArray::is_coordinate);
    structure
}

/// New steps of bad sources become empty ones without an owner; steps that the store had stay as they were.
fn empty_steps(settled: &mut Settled, candidates: &[Candidate], bad: &BTreeMap<String, BadSource>) {
    let layout = &mut settled.layout;
    let length = layout.length_before;
    let labels: BTreeMap<&str, &Vec<Label>> =
        candidates.iter().map(|candidate| (candidate.key.as_str(), &candidate.labels)).collect();
    for run in &layout.runs {
        let Some((key, step)) = run.source.as_ref().filter(|(key, _)| bad.contains_key(key)) else { continue };
        for offset in (0..run.count).filter(|offset| run.start + offset >= length) {
            if let Some(label) = labels.get(key.as_str()).and_then(|labels| labels.get((step + offset) as usize)) {
                layout.gaps.push((run.start + offset, label.clone()));
            }
        }
    }
    layout.gaps.sort_by_key(|(index, _)| *index);
    *layout = without(layout, bad);
    layout.actions.retain(|key, _| !bad.contains_key(key));
    let is_bad = |key: &Option<String>| key.as_ref().is_some_and(|key| bad.contains_key(key));
    settled.resolution.assignments.retain(|assignment| !is_bad(&assignment.after));
}

/// The records of sources that the plan or a shard set aside; changed ones are left to the next sync.
fn set_aside(plan: &Plan, sources: &[PlannedSource], bad: &BTreeMap<String, BadSource>) -> Vec<SourceRecord> {
    let record = |key: &str, version: &SourceVersion, quarantine: Quarantine| SourceRecord {
        key: key.to_owned(),
        action: Action::Quarantine,
        version: Some(version.clone()),
        labels: Vec::new(),
        quarantine: Some(quarantine),
    };
    let found = sources.iter().filter_map(|source| {
        let bad = bad.get(&source.key).filter(|bad| bad.category != "changed")?;
        let quarantine = Quarantine {
            category: bad.category.clone(),
            message: bad.message.clone(),
            hint: bad.hint.clone(),
            attempts: 1,
        };
        Some(record(&source.key, &source.version, quarantine))
    });
    let planned = plan.changes.iter().filter(|change| change.action == Action::Quarantine).filter_map(|change| {
        let quarantine = Quarantine {
            category: change.category.clone()?,
            message: change.message.clone().unwrap_or_default(),
            hint: change.hint.clone(),
            attempts: 1,
        };
        Some(record(&change.key, change.version.as_ref()?, quarantine))
    });
    found.chain(planned).collect()
}
