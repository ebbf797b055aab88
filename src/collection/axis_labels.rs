//! The labels of the axis, as far as they are needed: a commit of a few steps reads a few chunks of the coordinate, however
//! long it is.
//!
//! # Problem
//! Where a source goes is decided by the labels that the store has. Reading all of them, and walking over all of them, makes
//! every commit cost as much as the store is old.
//!
//! # Design
//! - An axis whose labels are known to rise (or fall) strictly is searched: by bisection over its parts, one part for each
//!   object of the coordinate, guided by the even spacing that most axes have. A regular axis is not even searched: its part
//!   is arithmetic. What is found is looked at, so a guess may be wrong and costs a read.
//! - That the order holds is proven once, by reading everything, and then kept true: every commit compares what it appends,
//!   and its record says so, with the length and the keys ([`AxisOrder`]). A session trusts it where the store has that very
//!   length and no commit is unfinished.
//! - Only the neighbours of the labels asked for go to [`place`](crate::zarr::axis::place_known): the two on either side
//!   decide whether a label is there, and where it would be put.
//! - An axis without such an order (arrival) is read whole, once for a session, and searched by hash.
//!
//! # Caveats
//! Everything is read where labels are inserted between others, since the tail moves; where the labels are text or made of
//! several variables, since repeated ones are counted; where nothing says that the order holds (a store that others made or
//! grew, one whose last commit was made by an earlier version); after a commit that was cut off; and for
//! `provenance`, `gaps` and `verify`.
//!
//! # Testing
//! Partial against whole knowledge on random axes, here; requests in `tests/rust/requests.rs`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::label::{Label, LabelKey};
use super::layout::axis_label;
use crate::error::Result;
use crate::zarr::axis::{AxisPolicy, Tolerance, regular_index};

/// Labels of a part where all of them are known.
const PART: u64 = 16_384;
/// Neighbours on either side that decide over a label.
const REACH: u64 = 2;
/// Parts that are guessed before the rest is halved.
const GUESSES: usize = 6;

/// How the labels of an axis follow one another, strictly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Each is greater than the one before.
    Rising,
    /// Each is less than the one before.
    Falling,
}

/// What a commit record says of the axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AxisOrder {
    /// The arrays that label it.
    pub keys: Vec<String>,
    /// Its length.
    pub length: u64,
    /// How its labels follow one another.
    pub order: Order,
}

impl Order {
    fn compare(self, one: &Label, other: &Label) -> Option<Ordering> {
        let found = compare(one, other)?;
        Some(if self == Self::Rising { found } else { found.reverse() })
    }
}

/// As the axis compares; `None` where it cannot.
fn compare(one: &Label, other: &Label) -> Option<Ordering> {
    match (one, other) {
        (Label::Time(one) | Label::Integer(one), Label::Time(other) | Label::Integer(other)) => Some(one.cmp(other)),
        (Label::Float(one), Label::Float(other)) => one.partial_cmp(other),
        (Label::Text(..), Label::Text(..)) => Some(axis_label(one).order(&axis_label(other))),
        _ => None,
    }
}

fn number(label: &Label) -> Option<f64> {
    match label {
        Label::Time(value) | Label::Integer(value) => Some(*value as f64),
        Label::Float(value) => Some(*value),
        Label::Text(..) => None,
    }
}

/// The labels that decide over those asked for, with their indices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Neighbours {
    /// The length of the axis.
    pub length: u64,
    /// Rising.
    pub indices: Vec<u64>,
    /// The label at each.
    pub labels: Vec<Label>,
}

/// What has to be read before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// One part, by its number.
    Part(u64),
    /// Everything.
    All,
}

/// The labels of the axis.
#[derive(Debug, Clone)]
pub struct AxisLabels {
    length: u64,
    /// Labels of a part.
    side: u64,
    /// What is known, by number of the part.
    parts: BTreeMap<u64, Vec<Label>>,
    order: Option<Order>,
    /// Where each label is, for an axis without an order.
    by_key: Option<HashMap<LabelKey, Vec<u64>>>,
}

impl Default for AxisLabels {
    fn default() -> Self {
        Self::whole(Vec::new())
    }
}

impl AxisLabels {
    /// An axis all of whose labels are known.
    #[must_use]
    pub fn whole(labels: Vec<Label>) -> Self {
        let length = labels.len() as u64;
        let first = match labels.first_chunk::<2>() {
            Some([one, other]) => match compare(one, other) {
                Some(Ordering::Less) => Some(Order::Rising),
                Some(Ordering::Greater) => Some(Order::Falling),
                _ => None,
            },
            None => Some(Order::Rising),
        };
        let is_strict =
            |order: &Order| labels.windows(2).all(|pair| order.compare(&pair[0], &pair[1]) == Some(Ordering::Less));
        let order = first.filter(is_strict);
        let mut rest = labels.into_iter();
        let parts =
            (0..length.div_ceil(PART)).map(|part| (part, rest.by_ref().take(PART as usize).collect())).collect();
        Self { length, side: PART, parts, order, by_key: None }
    }

    /// An axis of which nothing is known but its order; read in parts of `side` labels.
    #[must_use]
    pub fn unread(length: u64, side: u64, order: Order) -> Self {
        Self { length, side: side.max(1), parts: BTreeMap::new(), order: Some(order), by_key: None }
    }

    /// The number of labels.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the labels are known to follow one another strictly.
    #[must_use]
    pub fn order(&self) -> Option<Order> {
        self.order
    }

    /// How many are known.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.parts.values().map(|part| part.len() as u64).sum()
    }

    /// Whether all are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.known() == self.length
    }

    /// All that are known, in index order.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.parts.values().flatten()
    }

    /// The label at an index, where it is known.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Label> {
        self.parts.get(&(index / self.side))?.get((index % self.side) as usize)
    }

    /// The number of the part that an index is in.
    #[must_use]
    pub fn part_of(&self, index: u64) -> u64 {
        index / self.side
    }

    /// The indices of a part.
    #[must_use]
    pub fn part(&self, number: u64) -> std::ops::Range<u64> {
        let start = number.saturating_mul(self.side).min(self.length);
        start..start.saturating_add(self.side).min(self.length)
    }

    /// Notes the labels of a part that was read.
    pub fn put_part(&mut self, number: u64, labels: Vec<Label>) {
        // What breaks the order that was promised shows in the neighbours as well, but not always.
        let is_ordered = self.order.is_some_and(|order| {
            let of = |part: Option<(&u64, &Vec<Label>)>, last: bool| {
                part.and_then(|(_, labels)| if last { labels.last() } else { labels.first() }.cloned())
            };
            let before = of(self.parts.range(..number).next_back(), true);
            let after = of(self.parts.range(number + 1..).next(), false);
            let around: Vec<&Label> = before.iter().chain(&labels).chain(&after).collect();
            around.windows(2).all(|pair| order.compare(pair[0], pair[1]) == Some(Ordering::Less))
        });
        if !is_ordered {
            self.order = None;
        }
        self.parts.insert(number, labels);
    }

    /// The labels that decide over `labels`.
    ///
    /// # Errors
    /// [`Wanted`] where more has to be read first.
    pub fn neighbours<'a>(
        &mut self,
        labels: impl Iterator<Item = &'a Label> + Clone,
        policy: &AxisPolicy,
        tolerance: f64,
    ) -> Result<Neighbours, Wanted> {
        let is_complete = self.is_complete();
        let Some(order) = self.order else {
            if !is_complete {
                return Err(Wanted::All);
            }
            // Only all of it shows what is wrong with an axis that is to have an order.
            if matches!(policy, AxisPolicy::Sorted | AxisPolicy::Regular { .. }) {
                return Ok(self.all());
            }
            let places = self.places(labels, tolerance);
            return Ok(self.among(places));
        };
        if labels.clone().next().is_none() {
            return Ok(self.among(BTreeSet::new()));
        }
        let mut indices: BTreeSet<u64> = (self.length.saturating_sub(REACH)..self.length).collect();
        // Most labels go to the end, and the end tells how far apart labels are.
        if let Some(unknown) = indices.iter().find(|index| self.get(**index).is_none()) {
            return Err(Wanted::Part(unknown / self.side));
        }
        let within = Tolerance { absolute: tolerance, relative: 0.0 };
        let mut places = Vec::new();
        for label in labels {
            if let AxisPolicy::Regular { start, step } = policy {
                indices.extend(regular_index(start, step, &axis_label(label), within).filter(|at| *at < self.length));
            } else {
                let position = self.position(order, label).map_err(Wanted::Part)?;
                let around = position.saturating_sub(REACH)..(position + REACH + 1).min(self.length);
                indices.extend(around.clone());
                places.push((label, position, around));
            }
        }
        if let Some(unknown) = indices.iter().find(|index| self.get(**index).is_none()) {
            return Err(Wanted::Part(unknown / self.side));
        }
        let is_inserted = |(label, position, around): (&Label, u64, std::ops::Range<u64>)| {
            let matches = |found: &Label| within.matches(&axis_label(found), &axis_label(label));
            position < self.length && !around.filter_map(|index| self.get(index)).any(matches)
        };
        if *policy == AxisPolicy::Sorted && places.into_iter().any(is_inserted) {
            // The tail moves, all of it.
            return if is_complete { Ok(self.all()) } else { Err(Wanted::All) };
        }
        Ok(self.among(indices))
    }

    /// How many labels come before `label`, by the axis' order.
    ///
    /// # Errors
    /// The number of a part that has to be known first.
    fn position(&self, order: Order, label: &Label) -> Result<u64, u64> {
        let comes = |other: &Label| order.compare(label, other).unwrap_or(Ordering::Equal);
        let (mut low, mut high) = (0, self.length);
        if !self.is_complete() {
            for (number, part) in &self.parts {
                let range = self.part(*number);
                let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
                match (comes(first), comes(last)) {
                    (Ordering::Less, _) => high = high.min(range.start),
                    (_, Ordering::Greater) => low = low.max(range.end),
                    _ => (low, high) = (low.max(range.start), high.min(range.end)),
                }
            }
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle) {
                Some(found) if comes(found) == Ordering::Greater => low = middle + 1,
                Some(_) => high = middle,
                // Parts that are known are outside of the bounds, or hold them both.
                None => return Err(self.guess(label, low, high) / self.side),
            }
        }
        Ok(low)
    }

    /// An index from `low` to `high`, none of which is known, near which `label` should be.
    fn guess(&self, label: &Label, low: u64, high: u64) -> u64 {
        let middle = low.midpoint(high);
        let nearest = |parts: &mut dyn Iterator<Item = (&u64, &Vec<Label>)>| -> Option<(u64, f64, f64)> {
            // The part's first index, its first label, and the step between its labels.
            let (part, labels) = parts.next()?;
            let (first, last) = (number(labels.first()?)?, number(labels.last()?)?);
            let step = (last - first) / (labels.len() as f64 - 1.0);
            (step.is_finite() && step != 0.0).then_some((part * self.side, first, step))
        };
        let known = nearest(&mut self.parts.range(high / self.side..))
            .or_else(|| nearest(&mut self.parts.range(..=low / self.side).rev()));
        match (known, number(label)) {
            (Some((start, first, step)), Some(wanted)) if self.parts.len() < GUESSES => {
                // Casts saturate.
                let index = (start as f64 + (wanted - first) / step).max(0.0) as u64;
                index.clamp(low, high - 1)
            }
            _ => middle,
        }
    }

    /// Where labels are that may match, on an axis without an order.
    fn places<'a>(&mut self, labels: impl Iterator<Item = &'a Label>, tolerance: f64) -> BTreeSet<u64> {
        let Self { parts, by_key, length, .. } = self;
        let by_key = by_key.get_or_insert_with(|| {
            let mut by_key: HashMap<LabelKey, Vec<u64>> = HashMap::with_capacity(*length as usize);
            for (index, label) in (0..).zip(parts.values().flatten()) {
                by_key.entry(label.key(tolerance)).or_default().push(index);
            }
            by_key
        });
        let around = |label: &Label| match label.key(tolerance) {
            // Floats match beyond the bounds of their cell of the grid.
            LabelKey::Number(cell) if matches!(label, Label::Float(_)) => {
                [-1, 0, 1].iter().map(|step| LabelKey::Number(cell.saturating_add(*step))).collect()
            }
            key => vec![key],
        };
        let mut places: BTreeSet<u64> =
            labels.flat_map(around).filter_map(|key| by_key.get(&key)).flatten().copied().collect();
        // So that what cannot be compared with the axis is refused.
        places.extend(length.checked_sub(1));
        places
    }

    fn among(&self, indices: BTreeSet<u64>) -> Neighbours {
        let labels = indices.iter().filter_map(|index| self.get(*index)).cloned().collect();
        Neighbours { length: self.length, indices: indices.into_iter().collect(), labels }
    }

    fn all(&self) -> Neighbours {
        Neighbours { length: self.length, indices: (0..self.length).collect(), labels: self.iter().cloned().collect() }
    }

    /// Notes the label at an index, the next one or one that is there; `tolerance` as for [`AxisLabels::neighbours`].
    pub fn put(&mut self, index: u64, label: Label, tolerance: f64) {
        if index == self.length {
            self.push(label, tolerance);
        } else if self.get(index) != Some(&label)
            && let Some(there) =
                self.parts.get_mut(&(index / self.side)).and_then(|part| part.get_mut((index % self.side) as usize))
        {
            // Another float within the tolerance.
            *there = label;
            (self.order, self.by_key) = (None, None);
        }
    }

    fn push(&mut self, label: Label, tolerance: f64) {
        let last = self.length.checked_sub(1).map(|index| self.get(index));
        self.order = match last {
            None => Some(Order::Rising),
            // The end was not known, so nothing is known of what follows it.
            Some(None) => None,
            Some(Some(last)) => match (compare(last, &label), self.order) {
                (Some(Ordering::Less), Some(order)) if order == Order::Rising || self.length == 1 => {
                    Some(Order::Rising)
                }
                (Some(Ordering::Greater), Some(order)) if order == Order::Falling || self.length == 1 => {
                    Some(Order::Falling)
                }
                _ => None,
            },
        };
        if let Some(by_key) = &mut self.by_key {
            by_key.entry(label.key(tolerance)).or_default().push(self.length);
        }
        let (number, offset) = (self.length / self.side, (self.length % self.side) as usize);
        self.length += 1;
        let known = self.parts.get(&number).map_or(0, Vec::len);
        if known == offset {
            self.parts.entry(number).or_default().push(label);
        } else {
            self.parts.remove(&number);
        }
    }

    /// Forgets all labels: they have to be read again.
    pub fn forget(&mut self, length: u64) {
        *self = Self { length, side: self.side, parts: BTreeMap::new(), order: None, by_key: None };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zarr::axis::{self, Known, place, place_known};

    /// Reads what is wanted from `all` until there is an answer; returns it, how many parts were read, and whether all were.
    fn read(
        labels: &mut AxisLabels,
        all: &[Label],
        requested: &[Label],
        policy: &AxisPolicy,
        tolerance: f64,
    ) -> (Neighbours, usize, bool) {
        let mut reads = 0;
        loop {
            match labels.neighbours(requested.iter(), policy, tolerance) {
                Ok(neighbours) => return (neighbours, reads, false),
                Err(Wanted::Part(number)) => {
                    let range = labels.part(number);
                    assert!(!range.is_empty() && labels.get(range.start).is_none(), "part {number} is wanted twice");
                    labels.put_part(number, all[range.start as usize..range.end as usize].to_vec());
                    reads += 1;
                }
                Err(Wanted::All) => {
                    *labels = AxisLabels::whole(all.to_vec());
                    return (labels.neighbours(requested.iter(), policy, tolerance).unwrap(), reads, true);
                }
            }
        }
    }

    /// Slots, length and additions of a placement, or why there is none.
    type Answer = Result<(Vec<Result<(u64, bool), String>>, u64, Vec<(u64, axis::Label)>, Vec<u64>), String>;

    fn answer(placement: Result<axis::Placement, crate::error::Error>) -> Answer {
        let placement = placement.map_err(|error| error.message())?;
        let slots = placement.slots.into_iter();
        let slots = slots.map(|slot| slot.map(|slot| (slot.index, slot.is_new)).map_err(|error| error.message()));
        Ok((slots.collect(), placement.length, placement.added, placement.gaps))
    }

    fn hours(count: i64) -> Vec<Label> {
        (0..count).map(|hour| Label::Time(hour * 3_600_000)).collect()
    }

    #[test]
    fn a_label_is_found_in_two_or_three_parts_of_an_even_axis_and_a_few_of_any_other() {
        let even = hours(1_000_000);
        let uneven: Vec<Label> = (0..1_000_000_i64).map(|at| Label::Time(at * at / 7 * 1000 + at)).collect();
        // A third where neighbours lie in the next part.
        for (all, most) in [(&even, 3), (&uneven, 10)] {
            for at in [0, 1, 16_383, 16_384, 500_000, 999_998, 999_999] {
                let mut labels = AxisLabels::unread(1_000_000, 16_384, Order::Rising);
                let (near, reads, is_whole) = read(&mut labels, all, &all[at..=at], &AxisPolicy::Sorted, 1e-6);
                assert!(reads <= most && !is_whole, "label {at}: {reads} parts");
                assert!(near.indices.contains(&(at as u64)) && near.labels.len() < 10);
            }
        }
        let mut labels = AxisLabels::unread(1_000_000, 16_384, Order::Rising);
        let behind = [Label::Time(1_000_000 * 3_600_000)];
        assert_eq!(read(&mut labels, &even, &behind, &AxisPolicy::Sorted, 1e-6).1, 1);
        let between = [Label::Time(1_800_000)];
        assert!(read(&mut labels, &even, &between, &AxisPolicy::Sorted, 1e-6).2);
    }

    #[test]
    fn a_broken_promise_is_noticed_where_it_is_seen() {
        let mut all = hours(40);
        all.swap(3, 4);
        let mut labels = AxisLabels::unread(40, 10, Order::Rising);
        let (near, _, is_whole) = read(&mut labels, &all, &all[2..3], &AxisPolicy::Sorted, 1e-6);
        assert!(is_whole && labels.order().is_none() && near.labels.len() == 40);
    }

    proptest! {
        #[test]
        fn what_is_known_in_part_places_as_what_is_known_whole(
            steps in prop::collection::vec(1_i64..6, 0..60),
            asked in prop::collection::vec(-10_i64..200, 0..6),
            side in 1_u64..9,
            (kind, shape) in (0..3_usize, 0..3_usize),
            policy in 0..4_usize,
        ) {
            let make = |value: i64| match kind {
                0 => Label::Time(value),
                // Apart from one another by less, and by more, than the tolerance.
                1 => Label::Float(value as f64 / 4.0),
                _ => Label::Float(value as f64),
            };
            let mut values: Vec<i64> = steps.iter().scan(0, |sum, step| { *sum += step; Some(*sum) }).collect();
            match shape {
                0 => {}
                1 => values.reverse(),
                _ => values.rotate_left(steps.len() / 3),
            }
            let all: Vec<Label> = values.iter().copied().map(make).collect();
            let asked: Vec<Label> = asked.iter().copied().map(make).collect();
            let (start, step) = (axis_label(&make(1)), axis_label(&make(2)));
            let policy = [AxisPolicy::Sorted, AxisPolicy::Arrival, AxisPolicy::Fixed, AxisPolicy::Regular { start, step }]
                [policy].clone();
            let tolerance = 0.3;
            let whole = AxisLabels::whole(all.clone());
            let mut labels = match whole.order() {
                Some(order) => AxisLabels::unread(all.len() as u64, side, order),
                None => whole.clone(),
            };
            let within = Tolerance { absolute: tolerance, relative: 0.0 };
            let on_axis = |labels: &[Label]| labels.iter().map(axis_label).collect::<Vec<_>>();
            let expected = answer(place(&on_axis(&all), &on_axis(&asked), &policy, within));
            let (near, _, is_whole) = read(&mut labels, &all, &asked, &policy, tolerance);
            let known = on_axis(&near.labels);
            let known = Known { length: near.length, indices: &near.indices, labels: &known };
            let found = answer(place_known(known, &on_axis(&asked), &policy, within));
            // An irregular axis is found out only as far as it was looked at.
            let is_hidden = matches!(policy, AxisPolicy::Regular { .. }) && expected.is_err();
            if !is_hidden {
                prop_assert_eq!(&found, &expected);
            } else if let Ok((slots, ..)) = found {
                for (slot, label) in slots.iter().zip(&asked) {
                    if let Ok((index, false)) = slot {
                        prop_assert!(within.matches(&axis_label(&all[*index as usize]), &axis_label(label)));
                    }
                }
            }
            prop_assert!(is_whole || labels.order() == whole.order());
            // What is known whole answers the same.
            let mut whole = whole;
            let near = whole.neighbours(asked.iter(), &policy, tolerance).unwrap();
            let known = on_axis(&near.labels);
            let known = Known { length: near.length, indices: &near.indices, labels: &known };
            if !is_hidden {
                prop_assert_eq!(answer(place_known(known, &on_axis(&asked), &policy, within)), expected);
            }
        }

        #[test]
        fn what_is_appended_is_known_and_keeps_the_order(
            values in prop::collection::vec(0_i64..50, 0..20),
            asked in prop::collection::vec(0_i64..50, 0..5),
            known in 0..20_usize,
            is_rising in any::<bool>(),
        ) {
            let mut values = values;
            if is_rising {
                values.sort_unstable();
                values.dedup();
            }
            let all: Vec<Label> = values.iter().copied().map(Label::Integer).collect();
            let known = known.min(all.len());
            let mut labels = AxisLabels::whole(all[..known].to_vec());
            // Some are asked for in between, so that the hash is kept as well.
            let asked: Vec<Label> = asked.into_iter().map(Label::Integer).collect();
            labels.neighbours(asked.iter(), &AxisPolicy::Arrival, 1e-6).unwrap();
            for (index, label) in all.iter().enumerate().skip(known) {
                labels.put(index as u64, label.clone(), 1e-6);
            }
            let mut expected = AxisLabels::whole(all.clone());
            prop_assert_eq!(labels.order(), expected.order());
            prop_assert_eq!(labels.iter().collect::<Vec<_>>(), all.iter().collect::<Vec<_>>());
            let answers = |labels: &mut AxisLabels| labels.neighbours(asked.iter(), &AxisPolicy::Arrival, 1e-6).unwrap();
            prop_assert_eq!(answers(&mut labels), answers(&mut expected));
        }
    }
}
