//! What a session reads of the axis: all labels, one part, the ends, or what decides over a batch. See [`super::axis_labels`].

use super::axis_labels::{AxisLabels, AxisOrder, Neighbours, Wanted};
use super::config::Config;
use super::label::{Label, LabelKind, join};
use super::layout::{Layout, axis_policy};
use super::session::{Candidate, Session};
use super::structure::Structure;
use crate::error::{Context, Error, Result};
use crate::zarr::{Region, read};

impl Session {
    /// Sets the kind of the labels, and reads them as far as they have to be read now.
    pub(super) async fn open_labels(&mut self, structure: &Structure, config: &Config) -> Result<()> {
        let names = config.region.key.names();
        let mut kinds = names.iter().map(|name| structure.key_array(name)?.label_kind()).collect::<Result<Vec<_>>>()?;
        self.kind = if kinds.len() > 1 { Some(LabelKind::Text) } else { kinds.pop() };
        if let Some(unread) = self.ordered_labels(structure, config)? {
            self.labels = unread;
            return Ok(());
        }
        self.labels = AxisLabels::whole(self.read_labels(structure, config).await?);
        Ok(())
    }

    /// The labels to be read as they are needed, where the last commit says how they follow one another.
    fn ordered_labels(&self, structure: &Structure, config: &Config) -> Result<Option<AxisLabels>> {
        let (names, length) = (config.region.key.names(), structure.axis_length());
        let known = self.ledger.axis_order.as_ref().filter(|known| known.length == length && known.keys == names);
        let Some(known) = known.filter(|_| self.ledger.journal.unfinished.is_none()) else { return Ok(None) };
        let array = structure.key_array(names[0])?;
        let is_plain = names.len() == 1 && array.axis == Some(0) && array.array.shape.len() == 1;
        // Texts are numbered where they repeat, which takes all of them.
        if !is_plain || self.kind.is_none_or(|kind| kind == LabelKind::Text) {
            return Ok(None);
        }
        Ok(Some(AxisLabels::unread(length, array.array.object_shape()[0], known.order)))
    }

    async fn read_labels(&self, structure: &Structure, config: &Config) -> Result<Vec<Label>> {
        let mut columns = Vec::new();
        for name in config.region.key.names() {
            let array = structure.key_array(name)?;
            columns.push((
                array.label_kind()?,
                self.read_column(structure, name, &Region::whole(&array.array.shape)).await?,
            ));
        }
        Ok(join(columns))
    }

    async fn read_column(&self, structure: &Structure, name: &str, region: &Region) -> Result<Vec<Label>> {
        let array = structure.key_array(name)?;
        let group = self.group.as_ref().ok_or_else(|| Error::internal("labels of a store that is not there"))?;
        let elements = read(group.store(), &array.array, region).await?;
        array
            .label_kind()?
            .labels(&elements, array.array.data_type, array.packing.fill.as_deref())
            .context(|| format!("{}: array `{name}`, from index `{}`", group.store().url(), region.start[0]))
    }

    /// Reads all labels that are not known.
    ///
    /// # Errors
    /// What the store raises; `Invalid` where a label is missing.
    pub async fn read_all_labels(&mut self, config: &Config) -> Result<()> {
        if !self.labels.is_complete() {
            let structure = self.structure.as_ref().ok_or_else(|| Error::internal("labels without a structure"))?;
            self.labels = AxisLabels::whole(self.read_labels(structure, config).await?);
        }
        Ok(())
    }

    async fn read_part(&mut self, number: u64, config: &Config) -> Result<()> {
        let structure = self.structure.as_ref().ok_or_else(|| Error::internal("labels without a structure"))?;
        let range = self.labels.part(number);
        let region = Region::new(vec![range.start], vec![range.end - range.start]);
        let labels = self.read_column(structure, config.region.key.names()[0], &region).await?;
        self.labels.put_part(number, labels);
        Ok(())
    }

    /// The first and the last label.
    ///
    /// # Errors
    /// As [`Session::read_all_labels`].
    pub async fn ends(&mut self, config: &Config) -> Result<Option<(Label, Label)>> {
        let Some(last) = self.labels.len().checked_sub(1) else { return Ok(None) };
        for index in [0, last] {
            if self.labels.get(index).is_none() {
                let number = self.labels.part_of(index);
                self.read_part(number, config).await?;
            }
        }
        Ok(self.labels.get(0).cloned().zip(self.labels.get(last).cloned()))
    }

    /// The labels of the axis that decide where candidates go, and where those are that went away.
    pub(super) async fn neighbours(
        &mut self,
        candidates: &[Candidate],
        gone: &[String],
        config: &Config,
    ) -> Result<Neighbours> {
        let Some(kind) = self.kind else { return Ok(Neighbours::default()) };
        if !self.doubt.is_empty() {
            // Labels that only an unfinished commit knows may be anywhere.
            self.read_all_labels(config).await?;
        }
        let policy = axis_policy(&config.region.axis, kind)?;
        loop {
            let keys = candidates.iter().map(|candidate| &candidate.key).chain(gone);
            let held = keys.filter_map(|key| self.ledger.sources.get(key)).flat_map(|state| &state.labels);
            let labels = candidates.iter().flat_map(|candidate| &candidate.labels).chain(held).chain(&self.doubt);
            match self.labels.neighbours(labels, &policy, self.tolerance) {
                Ok(neighbours) => return Ok(neighbours),
                Err(Wanted::Part(number)) => self.read_part(number, config).await?,
                Err(Wanted::All) => self.read_all_labels(config).await?,
            }
        }
    }

    /// How the labels follow one another, for the record of a commit.
    pub(super) fn axis_order(&self, config: &Config) -> Option<AxisOrder> {
        let keys = config.region.key.names().into_iter().map(str::to_owned).collect();
        Some(AxisOrder { keys, length: self.labels.len(), order: self.labels.order()? })
    }

    /// Labels after a commit.
    pub(super) fn follow(&mut self, layout: &Layout, candidates: &[Candidate]) {
        let of_runs = layout.runs.iter().flat_map(|run| {
            let found = run
                .source
                .as_ref()
                .and_then(|(key, step)| Some((candidates.iter().find(|candidate| candidate.key == *key)?, *step)));
            found.into_iter().flat_map(move |(candidate, step)| {
                (0..run.count).filter_map(move |offset| {
                    Some((run.start + offset, candidate.labels.get((step + offset) as usize)?.clone()))
                })
            })
        });
        let changed = layout.gaps.iter().cloned().chain(of_runs);
        if let Some(map) = &layout.shift {
            let mut labels: Vec<Option<Label>> =
                map.iter().map(|old| old.and_then(|old| self.labels.get(old).cloned())).collect();
            for (index, label) in changed {
                labels[index as usize] = Some(label);
            }
            let known: Vec<Label> = labels.into_iter().flatten().collect();
            self.labels = AxisLabels::whole(known);
        } else {
            let mut changed: Vec<(u64, Label)> = changed.collect();
            changed.sort_by_key(|(index, _)| *index);
            for (index, label) in changed {
                self.labels.put(index, label, self.tolerance);
            }
        }
        if self.labels.len() != layout.length_after {
            self.labels.forget(layout.length_after);
        }
    }
}
