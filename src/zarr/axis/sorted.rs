//! Search in the labels of an axis.

use std::cmp::Ordering;

use super::{Known, Label, Tolerance};
use crate::error::{Error, Result};

/// The labels of an axis in rising order, without moving them.
pub(super) struct Sorted<'a> {
    labels: &'a [Label],
    /// Where on the axis they are.
    indices: &'a [u64],
    order: Order,
    tolerance: Tolerance,
}

/// How a place in rising order becomes an index.
enum Order {
    Rising,
    Falling,
    Permuted(Vec<usize>),
}

impl<'a> Sorted<'a> {
    pub(super) fn new(Known { labels, indices, .. }: Known<'a>, tolerance: Tolerance) -> Result<Self> {
        if let Some(first) = labels.first() {
            for (index, label) in indices.iter().zip(labels) {
                label.check()?;
                if !label.is_comparable(first) {
                    return Err(Error::invalid(format!(
                        "the axis mixes texts and numbers: `{first}` at index `{}`, `{label}` at index `{index}`",
                        indices[0]
                    )));
                }
            }
        }
        let order = if labels.is_sorted_by(|one, other| one.order(other) != Ordering::Greater) {
            Order::Rising
        } else if labels.is_sorted_by(|one, other| one.order(other) != Ordering::Less) {
            Order::Falling
        } else {
            let mut permutation: Vec<usize> = (0..labels.len()).collect();
            permutation.sort_by(|one, other| labels[*one].order(&labels[*other]));
            Order::Permuted(permutation)
        };
        Ok(Self { labels, indices, order, tolerance })
    }

    pub(super) fn is_falling(&self) -> bool {
        matches!(self.order, Order::Falling)
    }

    /// The first index that breaks the order which the axis begins with.
    pub(super) fn first_out_of_order(&self) -> Option<usize> {
        if !matches!(self.order, Order::Permuted(_)) {
            return None;
        }
        let mut begun = Ordering::Equal;
        self.labels
            .windows(2)
            .position(|pair| {
                let next = pair[0].order(&pair[1]);
                if begun == Ordering::Equal {
                    begun = next;
                }
                next == begun.reverse() && next != Ordering::Equal
            })
            .map(|index| index + 1)
    }

    /// The index of the label at a place in rising order.
    fn index(&self, place: usize) -> usize {
        match &self.order {
            Order::Rising => place,
            Order::Falling => self.labels.len() - 1 - place,
            Order::Permuted(permutation) => permutation[place],
        }
    }

    /// Number of labels for which `is_before` holds, which must be a beginning of the rising order.
    fn count_before(&self, is_before: impl Fn(&Label) -> bool) -> usize {
        let (mut low, mut high) = (0, self.labels.len());
        while low < high {
            let middle = low.midpoint(high);
            if is_before(&self.labels[self.index(middle)]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The index of the slot that `label` matches.
    pub(super) fn find(&self, label: &Label) -> Result<Option<usize>> {
        label.check()?;
        if let Some(first) = self.labels.first()
            && !first.is_comparable(label)
        {
            return Err(Error::invalid(format!(
                "label `{label}` cannot be compared with the axis, which has `{first}`"
            )));
        }
        let place = self.count_before(|other| other.order(label) == Ordering::Less);
        // Matches lie next to the place: below it as far as the tolerance reaches, and from it on.
        let matches = |place: &usize| self.tolerance.matches(&self.labels[self.index(*place)], label);
        let below = place.checked_sub(1).filter(matches);
        let mut found = below.into_iter().chain((place < self.labels.len()).then_some(place).filter(matches));
        let Some(first) = found.next() else { return Ok(None) };
        let second = found.next().or_else(|| {
            let around = [first.checked_sub(1), Some(first + 1)];
            around.into_iter().flatten().filter(|place| *place < self.labels.len()).find(matches)
        });
        let Some(second) = second else { return Ok(Some(self.index(first))) };
        let (one, other) = (self.indices[self.index(first)], self.indices[self.index(second)]);
        let (one, other) = (one.min(other), one.max(other));
        Err(Error::invalid(format!("label `{label}` matches two slots of the axis, `{one}` and `{other}`"))
            .hint("remove the duplicate from the store, or choose a smaller tolerance"))
    }

    /// The index before which `label`, which is not on the axis, is to be inserted.
    pub(super) fn insertion_index(&self, label: &Label) -> usize {
        let below = self.count_before(|other| other.order(label) == Ordering::Less);
        if self.is_falling() { self.labels.len() - below } else { below }
    }
}
