//! Where everything goes: a pure function from owners and labels to index runs of the store.
//!
//! It knows labels and lengths, never values, so the same function makes the plan that people read and the writes that
//! `apply` does.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::axis_labels::Neighbours;
use super::config::{AxisConfig, AxisPolicyName};
use super::document::{ArrayChange, ChunkState, TOUCHED_LIMIT, TouchedChunk};
use super::label::{Label, LabelKey, LabelKind};
use super::ledger::Action;
use super::ownership::{Assignment, Resolution};
use super::structure::{Role, StoreArray, Structure};
use super::time::{Calendar, parse_date};
use crate::error::{Error, Result};
use crate::zarr::axis::{self, AxisPolicy, Slot, Tolerance};

/// A run of steps that take values of one source, or become fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRun {
    /// First index in the store, after the commit.
    pub start: u64,
    /// Number of steps.
    pub count: u64,
    /// The source and its first step; `None` where the steps become fill.
    pub source: Option<(String, u64)>,
    /// What becomes of the chunks.
    pub state: ChunkState,
}

/// The outcome.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Runs of steps that change, by index.
    pub runs: Vec<StepRun>,
    /// Length of the axis before.
    pub length_before: u64,
    /// Length of the axis after.
    pub length_after: u64,
    /// New index to old index, where the tail moves.
    pub shift: Option<Vec<Option<u64>>>,
    /// Steps that a regular axis gains without a source, with their labels.
    pub gaps: Vec<(u64, Label)>,
    /// What becomes of each source, with the index ranges that change.
    pub actions: HashMap<String, (Action, Vec<(u64, u64)>)>,
}

/// One step that changes: its index, the source and its step there, what becomes of the chunk.
type Cell<'a> = (u64, Option<(&'a str, u64)>, ChunkState);

/// The axis policy with its start and step in the form that labels have.
///
/// # Errors
/// `Invalid` where a regular axis has no start or step, or they do not fit the key.
pub fn axis_policy(config: &AxisConfig, kind: LabelKind) -> Result<AxisPolicy> {
    Ok(match config.policy {
        AxisPolicyName::Sorted => AxisPolicy::Sorted,
        AxisPolicyName::Arrival => AxisPolicy::Arrival,
        AxisPolicyName::Fixed => AxisPolicy::Fixed,
        AxisPolicyName::Regular => {
            let (Some(start), Some(step)) = (&config.start, &config.step) else {
                return Err(Error::invalid("`region.axis` is regular but has no `start` and `step`"));
            };
            AxisPolicy::Regular { start: policy_label(start, kind, false)?, step: policy_label(step, kind, true)? }
        }
    })
}

fn policy_label(value: &serde_json::Value, kind: LabelKind, is_step: bool) -> Result<axis::Label> {
    let wrong = || {
        Error::invalid(format!("`region.axis`: `{value}` is no {}", if is_step { "step" } else { "label" }))
            .hint("for time write `start: 2020-01-01T00:00:00Z` and `step: 1h` (s, m, h, d); else numbers")
    };
    match kind {
        LabelKind::Time(units) => {
            let text = value.as_str().ok_or_else(wrong)?;
            if is_step {
                step_milliseconds(text).map(axis::Label::Int).ok_or_else(wrong)
            } else {
                parse_date(text, units.calendar()).map(axis::Label::Int).ok_or_else(wrong)
            }
        }
        LabelKind::Integer => value.as_i64().map(axis::Label::Int).ok_or_else(wrong),
        LabelKind::Float => value.as_f64().map(axis::Label::Float).ok_or_else(wrong),
        LabelKind::Text => Err(Error::invalid("a regular axis needs a number or a time as `region.key`, found text")),
    }
}

/// Milliseconds of `90`, `90s`, `1.5h`, `1d`, `P1D`-less durations.
fn step_milliseconds(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match text[digits.len()..].trim() {
        "" | "s" => 1e3,
        "ms" => 1.0,
        "m" | "min" => 60e3,
        "h" => 3600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    let milliseconds = digits.trim().parse::<f64>().ok()? * unit;
    (milliseconds.is_finite() && milliseconds.fract() == 0.0).then_some(milliseconds as i64)
}

/// As the axis knows labels.
#[must_use]
pub fn axis_label(label: &Label) -> axis::Label {
    match label {
        Label::Time(value) | Label::Integer(value) => axis::Label::Int(*value),
        Label::Float(value) => axis::Label::Float(*value),
        // Behind NUL, which text never holds, so that no text collides with another's occurrence.
        Label::Text(text, 0) => axis::Label::Text(text.clone()),
        Label::Text(text, occurrence) => axis::Label::Text(format!("{text}\0{occurrence:06}")),
    }
}

/// Back from the axis, for the labels of gaps.
fn label_of_axis(label: &axis::Label, kind: LabelKind) -> Label {
    match (label, kind) {
        (axis::Label::Int(value), LabelKind::Time(_)) => Label::Time(*value),
        (axis::Label::Int(value), _) => Label::Integer(*value),
        (axis::Label::Float(value), _) => Label::Float(*value),
        (axis::Label::Text(text), _) => Label::Text(text.clone(), 0),
    }
}

/// Lays out a resolution.
///
/// `known` are the store's labels as far as they decide; `sources` gives each present source's labels in its own order.
///
/// # Errors
/// `Invalid` where a label has no place on the axis (off a regular grid, unknown to a fixed one).
pub fn lay_out(
    known: &Neighbours,
    resolution: &Resolution,
    sources: &BTreeMap<String, Vec<Label>>,
    policy: &AxisPolicy,
    kind: LabelKind,
    tolerance: f64,
) -> Result<Layout> {
    let wanted: Vec<&Assignment> = resolution.assignments.iter().filter(|assignment| assignment.rewrite).collect();
    let existing: Vec<axis::Label> = known.labels.iter().map(axis_label).collect();
    // Labels that get values, and labels that lose them (those are in the store, or there is nothing to lose).
    let mut placed: Vec<&&Assignment> = wanted.iter().filter(|assignment| assignment.after.is_some()).collect();
    let steps = steps_of(&placed, sources, tolerance);
    if matches!(policy, AxisPolicy::Arrival) {
        // Labels have no order of their own here: sources by key, and each source's steps as it has them.
        placed.sort_by_key(|assignment| (assignment.after.as_deref(), step_of(&steps, assignment, tolerance)));
    }
    let requested: Vec<axis::Label> = placed.iter().map(|assignment| axis_label(&assignment.label)).collect();
    let existing = axis::Known { length: known.length, indices: &known.indices, labels: &existing };
    let placement = axis::place_known(existing, &requested, policy, Tolerance { absolute: tolerance, relative: 0.0 })?;
    let slots: Vec<Slot> = placement.slots.iter().cloned().collect::<Result<_>>()?;
    let gap_labels: HashMap<u64, &axis::Label> = placement.added.iter().map(|(index, label)| (*index, label)).collect();
    let mut layout = Layout {
        length_before: known.length,
        length_after: placement.length,
        shift: placement.map().map(<[Option<u64>]>::to_vec),
        gaps: placement
            .gaps
            .iter()
            .filter_map(|index| gap_labels.get(index).map(|label| (*index, label_of_axis(label, kind))))
            .collect(),
        ..Layout::default()
    };

    let mut cells: Vec<Cell<'_>> = Vec::with_capacity(wanted.len());
    let last_old = known.length;
    let mut actions: HashMap<String, (Action, Vec<u64>)> = HashMap::new();
    for (assignment, place) in placed.iter().zip(&slots) {
        let Some(owner) = assignment.after.as_deref() else { continue };
        let step = step_of(&steps, assignment, tolerance)
            .ok_or_else(|| Error::internal(format!("source `{owner}` does not hold a label that it owns")))?;
        let (state, action) = if place.is_new {
            let at_end = place.index >= last_old + inserted_before_end(&layout, last_old);
            (ChunkState::New, if at_end { Action::Append } else { Action::Insert })
        } else {
            match &assignment.before {
                None => (ChunkState::New, Action::FillSlot),
                Some(before) if before == owner => (ChunkState::Replaced, Action::Overwrite),
                Some(_) if assignment.restored => (ChunkState::Restored, Action::Restore),
                Some(_) => (ChunkState::Replaced, Action::Overwrite),
            }
        };
        cells.push((place.index, Some((owner, step)), state));
        // What is restored is reported with the source that went away.
        let credited = match (&assignment.before, action) {
            (Some(before), Action::Restore) => before.as_str(),
            _ => owner,
        };
        note(&mut actions, credited, action, place.index);
    }
    blank_cells(known, &wanted, &layout, tolerance, &mut cells, &mut actions);
    cells.sort_unstable_by_key(|cell| cell.0);
    layout.runs = join_runs(&cells);
    layout.actions = actions.into_iter().map(|(key, (action, indices))| (key, (action, ranges(indices)))).collect();
    Ok(layout)
}

/// The step of each label, by owner.
type Steps<'a> = HashMap<&'a str, HashMap<LabelKey, u64>>;

fn steps_of<'a>(placed: &[&&'a Assignment], sources: &BTreeMap<String, Vec<Label>>, tolerance: f64) -> Steps<'a> {
    let mut steps = Steps::new();
    for owner in placed.iter().filter_map(|assignment| assignment.after.as_deref()) {
        steps.entry(owner).or_insert_with(|| {
            let labels = sources.get(owner).map(Vec::as_slice).unwrap_or_default();
            labels.iter().enumerate().map(|(step, label)| (label.key(tolerance), step as u64)).collect()
        });
    }
    steps
}

fn step_of(steps: &Steps<'_>, assignment: &Assignment, tolerance: f64) -> Option<u64> {
    steps.get(assignment.after.as_deref()?)?.get(&assignment.label.key(tolerance)).copied()
}

/// How far the end of the old axis moved: labels at or behind it are appended, others inserted.
fn inserted_before_end(layout: &Layout, last_old: u64) -> u64 {
    match (&layout.shift, last_old) {
        (None, _) | (_, 0) => 0,
        (Some(map), _) => {
            let last = map.iter().rposition(|old| *old == Some(last_old - 1)).unwrap_or(0) as u64;
            (last + 1).saturating_sub(last_old)
        }
    }
}

/// Steps that lose their owner and become fill.
fn blank_cells<'a>(
    known: &Neighbours,
    wanted: &[&'a Assignment],
    layout: &Layout,
    tolerance: f64,
    cells: &mut Vec<Cell<'a>>,
    actions: &mut HashMap<String, (Action, Vec<u64>)>,
) {
    let blanked: HashSet<LabelKey> = wanted
        .iter()
        .filter(|assignment| assignment.after.is_none())
        .map(|assignment| assignment.label.key(tolerance))
        .collect();
    if blanked.is_empty() {
        return;
    }
    let new_index: HashMap<u64, u64> = match &layout.shift {
        Some(map) => map.iter().enumerate().filter_map(|(new, old)| old.map(|old| (old, new as u64))).collect(),
        None => HashMap::new(),
    };
    let index_of: HashMap<LabelKey, u64> = known
        .indices
        .iter()
        .zip(&known.labels)
        .map(|(index, label)| (label.key(tolerance), *index))
        .filter(|(key, _)| blanked.contains(key))
        .collect();
    for assignment in wanted.iter().filter(|assignment| assignment.after.is_none()) {
        let Some(old) = index_of.get(&assignment.label.key(tolerance)) else { continue };
        let index = new_index.get(old).copied().unwrap_or(*old);
        cells.push((index, None, ChunkState::Blanked));
        if let Some(before) = &assignment.before {
            note(actions, before, Action::Blank, index);
        }
    }
}

/// Remembers the strongest action of a source and every index that changes for it.
fn note(actions: &mut HashMap<String, (Action, Vec<u64>)>, key: &str, action: Action, index: u64) {
    let strength = |action: Action| match action {
        Action::Insert => 6,
        Action::Append => 5,
        Action::Overwrite => 4,
        Action::FillSlot => 3,
        Action::Restore => 2,
        Action::Blank => 1,
        _ => 0,
    };
    let entry = actions.entry(key.to_owned()).or_insert((action, Vec::new()));
    if strength(action) > strength(entry.0) {
        entry.0 = action;
    }
    entry.1.push(index);
}

/// Indices as sorted half-open ranges.
fn ranges(mut indices: Vec<u64>) -> Vec<(u64, u64)> {
    indices.sort_unstable();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some(last) if last.1 == index => last.1 += 1,
            Some(last) if last.1 > index => {}
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
}

/// Joins neighbouring cells whose values are neighbours in the same source.
fn join_runs(cells: &[Cell<'_>]) -> Vec<StepRun> {
    let mut runs: Vec<StepRun> = Vec::new();
    for (index, source, state) in cells {
        if let Some(last) = runs.last_mut()
            && last.start + last.count == *index
            && last.state == *state
            && match (&last.source, source) {
                (None, None) => true,
                (Some((key, start)), Some((owner, step))) => key == owner && start + last.count == *step,
                _ => false,
            }
        {
            last.count += 1;
            continue;
        }
        runs.push(StepRun {
            start: *index,
            count: 1,
            source: source.map(|(key, step)| (key.to_owned(), step)),
            state: *state,
        });
    }
    runs
}

impl Layout {
    /// Labels whose index changes.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.shift.as_ref().map_or(0, |map| {
            map.iter().enumerate().filter(|(new, old)| old.is_some_and(|old| old != *new as u64)).count() as u64
        })
    }

    /// Chunks of each array that change, for plans and chunk maps.
    #[must_use]
    pub fn touched(&self, structure: &Structure) -> Vec<ArrayChange> {
        structure
            .arrays
            .iter()
            .filter(|array| array.axis.is_some() && array.role == Role::Data || array.to_create.is_some())
            .map(|array| self.touched_array(array))
            .filter(|change| change.touched_count > 0)
            .collect()
    }

    fn touched_array(&self, array: &StoreArray) -> ArrayChange {
        let shape = array.shape_with_axis(self.length_after);
        let chunk_shape = array.array.chunk_shape.clone();
        let grid: Vec<u64> = shape.iter().zip(&chunk_shape).map(|(length, chunk)| length.div_ceil(*chunk)).collect();
        let mut rows: BTreeMap<u64, ChunkState> = BTreeMap::new();
        if let Some(axis) = array.axis {
            let chunk = chunk_shape[axis];
            if let Some(map) = &self.shift {
                for (new, old) in map.iter().enumerate() {
                    if old.is_some_and(|old| old != new as u64) {
                        rows.entry(new as u64 / chunk).or_insert(ChunkState::Moved);
                    }
                }
            }
            for run in &self.runs {
                for row in run.start / chunk..=(run.start + run.count - 1) / chunk {
                    let state = rows.entry(row).or_insert(run.state);
                    *state = (*state).max(run.state);
                }
            }
        } else {
            rows.insert(0, ChunkState::New);
        }
        let others: u64 = grid
            .iter()
            .enumerate()
            .filter(|(dimension, _)| Some(*dimension) != array.axis)
            .map(|(_, count)| *count)
            .product();
        let mut touched = Vec::new();
        'rows: for (row, state) in &rows {
            for other in 0..others {
                if touched.len() == TOUCHED_LIMIT {
                    break 'rows;
                }
                touched.push(TouchedChunk { index: chunk_index(&grid, array.axis, *row, other), state: *state });
            }
        }
        ArrayChange {
            name: array.array.path.clone(),
            dimensions: array.array.dimension_names.clone(),
            shape,
            chunk_shape,
            shard_shape: array.array.shard_shape.clone(),
            grid,
            touched,
            touched_count: rows.len() as u64 * others,
        }
    }
}

/// The index of a chunk in row `row` of the axis and at position `other` of the other dimensions in C order.
fn chunk_index(grid: &[u64], axis: Option<usize>, row: u64, mut other: u64) -> Vec<u64> {
    let mut index = vec![0; grid.len()];
    for dimension in (0..grid.len()).rev() {
        if Some(dimension) == axis {
            index[dimension] = row;
        } else {
            index[dimension] = other % grid[dimension];
            other /= grid[dimension];
        }
    }
    index
}

/// How a label of `kind` is shown when only the label is at hand.
#[must_use]
pub fn show(kind: Option<LabelKind>, label: &Label) -> String {
    match (kind, label) {
        (Some(kind), label) => kind.show(label),
        (None, Label::Time(milliseconds)) => super::time::format_milliseconds(*milliseconds, Calendar::Standard),
        (None, label) => LabelKind::Text.show(label),
    }
}
