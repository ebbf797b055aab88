//! What one run of a verb knows: the ledger, the store's structure and labels, and how they follow each commit.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::axis_labels::{AxisLabels, Neighbours};
use super::checkpoint::{self, Checkpoint};
use super::config::{Config, Guard};
use super::document::AxisChange;
use super::fit::{Category, Fitted, Grids, Misfit, fit};
use super::label::{Label, LabelKind};
use super::layout::{Layout, axis_policy, lay_out};
use super::ledger::{Ledger, SourceVersion};
use super::opening::Opened;
use super::ownership::{Arrival, Assignment, Resolution, resolve};
use super::source::read_values;
use super::structure::{Role, Structure};
use crate::error::{Context, Error, Kind, Result};
use crate::ledger::Log;
use crate::store::Store;
use crate::zarr::{Group, Region, read};

/// A source that fits the store.
pub struct Candidate {
    /// Its key.
    pub key: String,
    /// Its version.
    pub version: SourceVersion,
    /// Its labels.
    pub labels: Vec<Label>,
    /// Its values by array path; empty in a plan.
    pub fitted: Fitted,
}

/// What a batch comes to.
#[derive(Default)]
pub struct Settled {
    /// Who owns what.
    pub resolution: Resolution,
    /// Where it goes.
    pub layout: Layout,
    /// Sources that turned out not to have a place.
    pub misfits: Vec<(String, SourceVersion, Misfit)>,
}

/// The state of a run.
pub struct Session {
    /// The log.
    pub log: Log,
    /// What it adds up to, as far as it was loaded.
    pub ledger: Ledger,
    /// Where the rest of it lies.
    pub checkpoint: Checkpoint,
    /// The store's group; `None` while there is no store.
    pub group: Option<Group>,
    /// The store's structure; `None` until a first source gives it.
    pub structure: Option<Structure>,
    /// The labels of the axis, as far as they are known.
    pub labels: AxisLabels,
    /// The kind of the labels.
    pub kind: Option<LabelKind>,
    /// Values of the arrays that do not depend on the axis.
    pub grids: Grids,
    /// Labels whose steps an unfinished commit may have half written, until the next commit.
    pub doubt: Vec<Label>,
    /// Whether the axis counts as it was before an unfinished commit that was to make it longer.
    pub is_set_back: bool,
    /// Whether the commit at hand ends one that was cut off.
    pub is_redo: bool,
    /// Whether a commit has created the store or arrays of it, whose structure is the source's until it is read again.
    pub has_grown: bool,
    pub(super) tolerance: f64,
}

/// Tolerance of float labels where none is configured, in their own units.
const LABEL_TOLERANCE: f64 = 1e-6;

impl Session {
    /// Reads the log and the store's metadata and labels.
    ///
    /// # Errors
    /// `Corrupt` where the log or the store contradict themselves; `Invalid` where the configuration does not fit the store.
    pub async fn open(store: &Store, control: &Store, config: &Config) -> Result<Self> {
        let tolerance = config.region.tolerance.unwrap_or(LABEL_TOLERANCE);
        let (log, checkpoint, ledger) = checkpoint::open(control, tolerance).await?;
        let group = match Group::open(store).await {
            Ok(group) => Some(group),
            Err(error) if error.kind() == Kind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut session = Self {
            log,
            ledger,
            checkpoint,
            group: None,
            structure: None,
            labels: AxisLabels::default(),
            kind: None,
            grids: Grids::new(),
            doubt: Vec::new(),
            is_set_back: false,
            is_redo: false,
            has_grown: false,
            tolerance,
        };
        if let Some(group) = group {
            let mut structure = Structure::of_group(&group, config).context(|| store.url().to_owned())?;
            session.set_back(&mut structure);
            for array in structure.arrays.iter().filter(|array| array.role == Role::Static) {
                let whole = Region::whole(&array.array.shape);
                session.grids.insert(array.array.path.clone(), read(store, &array.array, &whole).await?);
            }
            session.group = Some(group);
            session.open_labels(&structure, config).await?;
            session.structure = Some(structure);
        }
        Ok(session)
    }

    /// Where a commit that was to make the axis longer was cut off before all arrays said so, none of them counts as longer.
    fn set_back(&mut self, structure: &mut Structure) {
        let Some(unfinished) = &self.ledger.journal.unfinished else { return };
        if !unfinished.is_published(structure) {
            self.is_set_back = true;
            for array in &mut structure.arrays {
                array.array.set_shape(array.shape_with_axis(unfinished.prepared.length_before));
            }
        }
    }

    /// Loads what the ledger knows of `keys`, and all that decides over them.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub async fn load<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.checkpoint.load(&mut self.ledger, keys, []).await
    }

    /// Loads the whole ledger.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub async fn load_all(&mut self) -> Result<()> {
        self.checkpoint.load_all(&mut self.ledger).await
    }

    /// Takes the structure of a new store from its first source.
    ///
    /// # Errors
    /// `Invalid` where source and configuration contradict each other.
    pub fn adopt_structure(&mut self, opened: &Opened, config: &Config) -> Result<()> {
        if self.structure.is_some() {
            return Ok(());
        }
        let structure = Structure::of_source(&opened.source, config)?;
        let keys = config.region.key.names();
        self.kind = Some(if keys.len() > 1 { LabelKind::Text } else { structure.key_array(keys[0])?.label_kind()? });
        self.structure = Some(structure);
        Ok(())
    }

    /// Checks an opened source against the store; variables that the store lacks are added to its structure.
    ///
    /// # Errors
    /// [`Misfit`] with its category.
    pub async fn fit(&mut self, key: &str, opened: &Opened, config: &Config) -> Result<Fitted, Misfit> {
        let is_first = self.structure.is_none();
        self.adopt_structure(opened, config).category("structure")?;
        let structure = self.structure.as_mut().ok_or_else(|| Error::internal("no structure")).category("structure")?;
        let known = structure.arrays.len();
        for variable in &opened.source.variables {
            let is_new = structure.arrays.iter().all(|array| array.array.path != variable.name);
            if is_new && variable.dimensions.contains(&structure.axis) && structure.wants(variable, config) {
                let array = structure
                    .new_array(variable, config)
                    .context(|| format!("variable `{}`", variable.name))
                    .category("structure")?;
                structure.arrays.push(array);
            }
        }
        let fitted = match fit(&opened.source, structure, &self.grids, config).await {
            Ok(fitted) => fitted,
            Err(misfit) => {
                // What only a misfit has does not shape the store.
                structure.arrays.truncate(known);
                if is_first {
                    self.structure = None;
                    self.kind = None;
                }
                return Err(misfit);
            }
        };
        // The first source of a new store gives the grid that all others are compared with.
        for array in structure.arrays.iter().filter(|array| array.role == Role::Static) {
            let path = &array.array.path;
            if let (Some(values), false) = (fitted.get(path), self.grids.contains_key(path)) {
                self.grids.insert(path.clone(), read_values(values.as_ref()).await.category("unreadable")?);
            }
        }
        if let (Some(before), Guard::Error) = (self.ledger.sources.get(key), config.guards.shrink)
            && before.quarantine.is_none()
            && opened.labels.len() < before.labels.len()
        {
            let error = Error::invalid(format!(
                "expected at least `{}` labels, as its earlier version has, found `{}`",
                before.labels.len(),
                opened.labels.len()
            ))
            .hint("set `guards.shrink: allow` where a revision may hold less");
            return Err(Misfit::new("shrink", error));
        }
        Ok(fitted)
    }

    /// Resolves and lays out candidates and removals; sources whose labels have no place become misfits.
    ///
    /// # Errors
    /// `Invalid` where the configuration is wrong.
    pub async fn settle(&mut self, candidates: &[Candidate], gone: &[String], config: &Config) -> Result<Settled> {
        let keys = candidates.iter().map(|candidate| &candidate.key).chain(gone).map(String::as_str);
        let labels = candidates.iter().flat_map(|candidate| &candidate.labels).chain(&self.doubt);
        self.checkpoint.load(&mut self.ledger, keys, labels).await?;
        let near = self.neighbours(candidates, gone, config).await?;
        let mut settled = Settled::default();
        let mut refused: HashMap<&str, Misfit> = HashMap::new();
        loop {
            let arrivals: Vec<Arrival> = candidates
                .iter()
                .filter(|candidate| !refused.contains_key(candidate.key.as_str()))
                .map(|candidate| Arrival {
                    key: candidate.key.clone(),
                    present: Some((candidate.version.clone(), candidate.labels.clone())),
                })
                .chain(gone.iter().map(|key| Arrival { key: key.clone(), present: None }))
                .collect();
            let mut resolution = resolve(&self.ledger, &arrivals, &config.region.winner, config.region.on_remove)?;
            self.add_doubt(&mut resolution);
            let before = refused.len();
            for (key, rival) in &resolution.refused {
                if let Some(candidate) = candidates.iter().find(|candidate| candidate.key == *key) {
                    let error = Error::invalid(format!("`{rival}` already holds one of its labels"))
                        .hint("set `region.winner` to `latest` or to priorities where sources may overlap");
                    refused.insert(&candidate.key, Misfit::new("label_conflict", error));
                }
            }
            if refused.len() > before {
                continue;
            }
            match self.lay_out(&near, &resolution, candidates, config) {
                Ok(layout) => {
                    settled.resolution = resolution;
                    settled.layout = layout;
                    break;
                }
                Err(error) if error.kind() == Kind::Invalid => {
                    let culprits = self.without_place(&near, candidates, config)?;
                    let before = refused.len();
                    refused.extend(culprits);
                    if refused.len() == before {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        settled.misfits = candidates
            .iter()
            .filter_map(|candidate| {
                refused
                    .get(candidate.key.as_str())
                    .map(|misfit| (candidate.key.clone(), candidate.version.clone(), misfit.clone()))
            })
            .collect();
        Ok(settled)
    }

    /// Steps in doubt are written again by whoever owns them now, and become fill where nobody does.
    fn add_doubt(&self, resolution: &mut Resolution) {
        if self.doubt.is_empty() {
            return;
        }
        let key = |label: &Label| label.key(self.tolerance);
        let mut doubt: BTreeMap<_, _> = self.doubt.iter().map(|label| (key(label), label)).collect();
        for assignment in &mut resolution.assignments {
            if doubt.remove(&key(&assignment.label)).is_some() {
                assignment.rewrite = true;
            }
        }
        let stored: HashSet<_> = self.labels.iter().map(key).collect();
        for (key, label) in doubt {
            let owner = self.ledger.owner(label).map(str::to_owned);
            if owner.is_some() || stored.contains(&key) {
                resolution.assignments.push(Assignment {
                    label: label.clone(),
                    before: owner.clone(),
                    after: owner,
                    rewrite: true,
                    restored: false,
                });
            }
        }
    }

    fn lay_out(
        &self,
        near: &Neighbours,
        resolution: &Resolution,
        candidates: &[Candidate],
        config: &Config,
    ) -> Result<Layout> {
        let Some(kind) = self.kind else {
            return Ok(Layout::default());
        };
        let policy = axis_policy(&config.region.axis, kind)?;
        let mut sources: BTreeMap<String, Vec<Label>> =
            candidates.iter().map(|candidate| (candidate.key.clone(), candidate.labels.clone())).collect();
        // Runner-ups that come back are known by their labels, whether they are open or not.
        for owner in resolution.assignments.iter().filter_map(|assignment| assignment.after.as_ref()) {
            if !sources.contains_key(owner)
                && let Some(state) = self.ledger.sources.get(owner)
            {
                sources.insert(owner.clone(), state.labels.clone());
            }
        }
        lay_out(near, resolution, &sources, &policy, kind, self.tolerance)
    }

    /// Candidates whose own labels have no place on the axis.
    fn without_place<'a>(
        &self,
        near: &Neighbours,
        candidates: &'a [Candidate],
        config: &Config,
    ) -> Result<Vec<(&'a str, Misfit)>> {
        let mut culprits = Vec::new();
        for candidate in candidates {
            let arrival = Arrival {
                key: candidate.key.clone(),
                present: Some((candidate.version.clone(), candidate.labels.clone())),
            };
            let resolution =
                resolve(&Ledger::new(self.tolerance), &[arrival], &config.region.winner, config.region.on_remove)?;
            if let Err(error) = self.lay_out(near, &resolution, std::slice::from_ref(candidate), config) {
                culprits.push((candidate.key.as_str(), Misfit::new("label", error)));
            }
        }
        Ok(culprits)
    }

    /// Follows a commit: labels, lengths, arrays that now exist.
    pub fn advance(&mut self, layout: &Layout, candidates: &[Candidate]) {
        self.follow(layout, candidates);
        if let Some(structure) = &mut self.structure {
            for array in &mut structure.arrays {
                let shape = array.shape_with_axis(layout.length_after);
                array.array.set_shape(shape);
                array.to_create = None;
            }
        }
    }

    /// The layout of a run that changes nothing.
    #[must_use]
    pub fn unchanged(&self) -> Layout {
        let length = self.labels.len();
        Layout { length_before: length, length_after: length, ..Layout::default() }
    }

    /// How the axis changes.
    #[must_use]
    pub fn axis_change(&self, layout: &Layout, config: &Config) -> AxisChange {
        AxisChange {
            name: self
                .structure
                .as_ref()
                .map(|structure| structure.axis.clone())
                .or_else(|| config.region.dimension.clone())
                .unwrap_or_else(|| config.region.key.names()[0].to_owned()),
            key: config.region.key.names().into_iter().map(str::to_owned).collect(),
            policy: serde_json::to_value(config.region.axis.policy)
                .ok()
                .and_then(|name| name.as_str().map(str::to_owned))
                .unwrap_or_default(),
            length_before: layout.length_before,
            length_after: layout.length_after,
            moved: layout.moved(),
        }
    }
}
