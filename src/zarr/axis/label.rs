//! Labels, how they compare, and the grid of a regular axis.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One label of an axis, as the store encodes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// An integer: encoded times, cycle numbers. Matches exactly.
    Int(i64),
    /// A float. Matches within a [`Tolerance`].
    Float(f64),
    /// A text. Matches exactly.
    Text(String),
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(formatter),
            // As a float of any JSON: `5.0`, not `5`.
            Self::Float(value) => write!(formatter, "{value:?}"),
            Self::Text(value) => value.fmt(formatter),
        }
    }
}

impl Label {
    /// A total order; numbers before texts, NaN last among numbers.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Text(_), _) => Ordering::Greater,
            (_, Self::Text(_)) => Ordering::Less,
            (Self::Float(one), Self::Float(other)) => order_floats(*one, *other),
            (Self::Int(one), Self::Float(other)) => order_mixed(*one, *other),
            (Self::Float(one), Self::Int(other)) => order_mixed(*other, *one).reverse(),
        }
    }

    /// Whether two labels can be on one axis.
    pub(super) fn is_comparable(&self, other: &Self) -> bool {
        matches!(self, Self::Text(_)) == matches!(other, Self::Text(_))
    }

    /// Refuses what equals nothing.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Float(value) if !value.is_finite() => {
                Err(Error::invalid(format!("label `{self}` is not a finite number")))
            }
            _ => Ok(()),
        }
    }

    /// Its value as a float, `None` for a text.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Text(_) => None,
        }
    }
}

/// Zeros of both signs are equal, as they are in arithmetic.
fn order_floats(one: f64, other: f64) -> Ordering {
    one.partial_cmp(&other).unwrap_or_else(|| one.is_nan().cmp(&other.is_nan()))
}

/// Compares exactly where the float cannot hold the integer.
fn order_mixed(integer: i64, float: f64) -> Ordering {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float.is_nan() || float >= LIMIT {
        return Ordering::Less;
    }
    if float < -LIMIT {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    integer.cmp(&(whole as i64)).then(order_floats(0.0, float - whole))
}

/// How far apart two float labels may be and still be the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// In units of the labels.
    pub absolute: f64,
    /// As a part of the larger label.
    pub relative: f64,
}

impl Default for Tolerance {
    /// Nothing absolute, and a relative part that covers rounding: 2 milliseconds in days since 1950.
    fn default() -> Self {
        Self { absolute: 0.0, relative: 1e-12 }
    }
}

impl Tolerance {
    /// How far a label may be from `label`; 0 for texts.
    pub(super) fn around(self, label: &Label) -> f64 {
        label.number().map_or(0.0, |value| self.absolute.max(self.relative * value.abs()))
    }

    /// Whether two labels are the same.
    #[must_use]
    pub fn matches(self, one: &Label, other: &Label) -> bool {
        match (one, other) {
            (Label::Int(one), Label::Int(other)) => one == other,
            (Label::Text(one), Label::Text(other)) => one == other,
            _ => match (one.number(), other.number()) {
                (Some(a), Some(b)) => (a - b).abs() <= self.around(one).max(self.around(other)),
                _ => false,
            },
        }
    }
}

/// `start + index * step`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Grid {
    Integers { start: i64, step: i64 },
    Floats { start: f64, step: f64, tolerance: Tolerance },
}

impl Grid {
    pub(super) fn new(start: &Label, step: &Label, tolerance: Tolerance) -> Result<Self> {
        start.check()?;
        step.check()?;
        if let (Label::Int(start), Label::Int(step)) = (start, step)
            && *step != 0
        {
            return Ok(Self::Integers { start: *start, step: *step });
        }
        match (start.number(), step.number()) {
            (Some(start), Some(step)) if step != 0.0 => Ok(Self::Floats { start, step, tolerance }),
            _ => Err(Error::invalid(format!(
                "a regular axis needs a number as start and one other than `0` as step, found `{start}` and `{step}`"
            ))),
        }
    }

    /// The label of a slot.
    pub(super) fn label(&self, index: u64) -> Label {
        match *self {
            Self::Integers { start, step } => {
                let value = i128::from(start) + i128::from(index) * i128::from(step);
                Label::Int(value.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
            }
            Self::Floats { start, step, .. } => Label::Float(start + index as f64 * step),
        }
    }

    /// The slot of a label.
    pub(super) fn index_of(&self, label: &Label) -> Result<u64> {
        label.check()?;
        let index = if let (Self::Integers { start, step }, Label::Int(value)) = (self, label) {
            let (distance, step) = (i128::from(*value) - i128::from(*start), i128::from(*step));
            if distance % step != 0 {
                return Err(self.off(label));
            }
            distance / step
        } else {
            let Some(value) = label.number() else { return Err(self.off(label)) };
            let (start, step, tolerance) = match *self {
                Self::Integers { start, step } => (start as f64, step as f64, Tolerance::default()),
                Self::Floats { start, step, tolerance } => (start, step, tolerance),
            };
            let index = ((value - start) / step).round();
            // The rounding of `index * step` is covered by the relative part of the tolerance.
            let nearest = Label::Float(start + index * step);
            if index.abs() > 9e15 || !tolerance.matches(&nearest, label) {
                return Err(self.off(label));
            }
            index as i128
        };
        u64::try_from(index).map_err(|_| {
            Error::invalid(format!("label `{label}` lies before the start of the axis, `{}`", self.label(0)))
                .hint("a regular axis cannot grow at its start: choose an earlier `start` when the store is made")
        })
    }

    fn off(&self, label: &Label) -> Error {
        let step = match self {
            Self::Integers { step, .. } => step.to_string(),
            Self::Floats { step, .. } => format!("{step:?}"),
        };
        Error::invalid(format!(
            "label `{label}` is not on the axis, which starts at `{}` in steps of `{step}`",
            self.label(0)
        ))
    }
}
