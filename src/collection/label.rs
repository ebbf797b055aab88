//! Labels: what places a step of a source on the axis of the store.
//!
//! A label is compared in a form that does not depend on how a producer encoded it: time as whole milliseconds, integers as
//! integers, floats with a tolerance, text without its padding. Where several variables make the key, their texts are
//! joined. A label that occurs more than once in one source (two profiles of one Argo cycle) carries its occurrence.

use serde::{Deserialize, Serialize};

use super::time::{Calendar, TimeUnits, format_milliseconds};
use crate::error::{Error, Result};
use crate::zarr::{DataType, Elements};

/// One label, ordered as the axis is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Milliseconds since 1970.
    Time(i64),
    /// An integer.
    Integer(i64),
    /// A float, matched within a tolerance.
    Float(f64),
    /// Text and its occurrence within the source.
    Text(String, u32),
}

impl Label {
    /// A key for maps and records: equal labels have equal keys. Floats are rounded to the tolerance's grid.
    #[must_use]
    pub fn key(&self, tolerance: f64) -> LabelKey {
        match self {
            Self::Time(value) | Self::Integer(value) => LabelKey::Number(*value),
            Self::Float(value) => LabelKey::Number((value / tolerance).round() as i64),
            Self::Text(text, occurrence) => LabelKey::Text(text.clone(), *occurrence),
        }
    }
}

/// A label as a hashable, ordered key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelKey {
    /// Time, integer, or float on the tolerance's grid.
    Number(i64),
    /// Text and occurrence.
    Text(String, u32),
}

/// How the values of one key variable become labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LabelKind {
    /// CF time.
    Time(TimeUnits),
    /// Integers.
    Integer,
    /// Floats.
    Float,
    /// Text.
    Text,
}

impl LabelKind {
    /// The kind for a variable of `data_type` with CF `units` and `calendar`.
    ///
    /// # Errors
    /// `Invalid` where the units look like time but cannot be understood.
    pub fn of(data_type: DataType, units: Option<&str>, calendar: Option<&str>) -> Result<Self> {
        let integer = matches!(
            data_type,
            DataType::Bool
                | DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::Int64
                | DataType::UInt8
                | DataType::UInt16
                | DataType::UInt32
                | DataType::UInt64
        );
        let float = matches!(data_type, DataType::Float32 | DataType::Float64);
        if (integer || float)
            && let Some(units) = units
            && let Some(time) = TimeUnits::parse(units, calendar)?
        {
            return Ok(Self::Time(time));
        }
        match data_type {
            _ if integer => Ok(Self::Integer),
            _ if float => Ok(Self::Float),
            DataType::FixedBytes { .. } | DataType::FixedUtf32 { .. } | DataType::String => Ok(Self::Text),
            other => Err(Error::invalid(format!("a label of type `{other:?}` is not supported"))
                .hint("use an integer, float, time or text variable as `region.key`")),
        }
    }

    /// Labels of decoded elements; the occurrence of text is counted by [`count_occurrences`] afterwards.
    ///
    /// # Errors
    /// `Invalid` where a time or a number is missing (NaN, the fill value) or out of range.
    pub fn labels(self, elements: &Elements, data_type: DataType, fill: Option<&[u8]>) -> Result<Vec<Label>> {
        if self == Self::Text {
            return Ok(texts(elements, data_type).into_iter().map(|text| Label::Text(text, 0)).collect());
        }
        let Elements::Fixed(bytes) = elements else {
            return Err(Error::internal("numbers decoded to strings"));
        };
        let size = data_type.size().ok_or_else(|| Error::internal("numbers of no size"))?;
        bytes
            .chunks_exact(size)
            .enumerate()
            .map(|(index, element)| {
                let missing = || {
                    Error::invalid(format!("the label at index `{index}` is missing (fill value or not a number)"))
                        .hint("a source without its own label cannot be placed: mend it, or set it in a `preprocess` hook")
                };
                if fill == Some(element) {
                    return Err(missing());
                }
                let number = number(data_type, element);
                match (self, number) {
                    (Self::Time(units), Number::Integer(value)) => {
                        units.milliseconds_of_integer(value).map(Label::Time).ok_or_else(missing)
                    }
                    (Self::Time(units), Number::Float(value)) => {
                        units.milliseconds_of_float(value).map(Label::Time).ok_or_else(missing)
                    }
                    (_, Number::Integer(value)) => Ok(Label::Integer(value)),
                    (_, Number::Float(value)) if value.is_finite() => Ok(Label::Float(value)),
                    (_, Number::Float(_)) => Err(missing()),
                }
            })
            .collect()
    }

    /// How a label is shown.
    #[must_use]
    pub fn show(self, label: &Label) -> String {
        let calendar = match self {
            Self::Time(units) => units.calendar(),
            _ => Calendar::Standard,
        };
        match label {
            Label::Time(milliseconds) => format_milliseconds(*milliseconds, calendar),
            Label::Integer(value) => value.to_string(),
            Label::Float(value) => value.to_string(),
            Label::Text(text, 0) => text.clone(),
            Label::Text(text, occurrence) => format!("{text}#{occurrence}"),
        }
    }
}

/// A number as its data type holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Of an integer type.
    Integer(i64),
    /// Of a float type.
    Float(f64),
}

impl Number {
    /// As a float.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// The number in one little-endian element; `uint64` above `i64::MAX` saturates.
#[must_use]
pub fn number(data_type: DataType, element: &[u8]) -> Number {
    fn bytes<const N: usize>(element: &[u8]) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&element[..N]);
        array
    }
    match data_type {
        DataType::Int8 => Number::Integer(i64::from(element[0] as i8)),
        DataType::UInt8 | DataType::Bool => Number::Integer(i64::from(element[0])),
        DataType::Int16 => Number::Integer(i64::from(i16::from_le_bytes(bytes(element)))),
        DataType::UInt16 => Number::Integer(i64::from(u16::from_le_bytes(bytes(element)))),
        DataType::Int32 => Number::Integer(i64::from(i32::from_le_bytes(bytes(element)))),
        DataType::UInt32 => Number::Integer(i64::from(u32::from_le_bytes(bytes(element)))),
        DataType::Float32 => Number::Float(f64::from(f32::from_le_bytes(bytes(element)))),
        DataType::Float64 => Number::Float(f64::from_le_bytes(bytes(element))),
        DataType::UInt64 => Number::Integer(i64::try_from(u64::from_le_bytes(bytes(element))).unwrap_or(i64::MAX)),
        _ => Number::Integer(i64::from_le_bytes(bytes(element))),
    }
}

/// Text elements without their NUL and space padding.
#[must_use]
pub fn texts(elements: &Elements, data_type: DataType) -> Vec<String> {
    let clean = |text: &str| text.trim_end_matches(['\0', ' ']).to_owned();
    match (elements, data_type) {
        (Elements::Strings(strings), _) => strings.iter().map(|text| clean(text)).collect(),
        (Elements::Fixed(bytes), DataType::FixedUtf32 { length }) => bytes
            .chunks_exact(length as usize * 4)
            .map(|element| {
                let text: String = element
                    .chunks_exact(4)
                    .filter_map(|unit| char::from_u32(u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])))
                    .collect();
                clean(&text)
            })
            .collect(),
        (Elements::Fixed(bytes), other) => bytes
            .chunks_exact(other.size().unwrap_or(1).max(1))
            .map(|element| clean(&String::from_utf8_lossy(element)))
            .collect(),
    }
}

/// Joins the labels of several key variables into one text a step, and counts repeated texts.
#[must_use]
pub fn join(columns: Vec<(LabelKind, Vec<Label>)>) -> Vec<Label> {
    if columns.len() == 1 {
        let mut labels = columns.into_iter().next().map(|(_, labels)| labels).unwrap_or_default();
        count_occurrences(&mut labels);
        return labels;
    }
    let steps = columns.iter().map(|(_, labels)| labels.len()).max().unwrap_or(0);
    let mut joined: Vec<Label> = (0..steps)
        .map(|step| {
            let parts: Vec<String> = columns
                .iter()
                .map(|(kind, labels)| labels.get(step).map(|label| kind.show(label)).unwrap_or_default())
                .collect();
            Label::Text(parts.join("|"), 0)
        })
        .collect();
    count_occurrences(&mut joined);
    joined
}

/// Numbers the repetitions of each text.
fn count_occurrences(labels: &mut [Label]) {
    let mut seen = std::collections::HashMap::<String, u32>::new();
    for label in labels {
        if let Label::Text(text, occurrence) = label {
            let count = seen.entry(text.clone()).or_insert(0);
            *occurrence = *count;
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_loses_its_padding_and_repeats_are_numbered() {
        let elements = Elements::Fixed(b"A1  A1\0\0B   ".to_vec());
        let labels = LabelKind::Text.labels(&elements, DataType::FixedBytes { length: 4 }, None).unwrap();
        let joined = join(vec![(LabelKind::Text, labels)]);
        assert_eq!(joined, [Label::Text("A1".into(), 0), Label::Text("A1".into(), 1), Label::Text("B".into(), 0)]);
        assert_eq!(LabelKind::Text.show(&joined[1]), "A1#1");
    }

    #[test]
    fn a_missing_time_is_named() {
        let units = TimeUnits::parse("days since 1950-01-01", None).unwrap().unwrap();
        let elements = Elements::Fixed([1.0f64, 999_999.0].iter().flat_map(|value| value.to_le_bytes()).collect());
        let error =
            LabelKind::Time(units).labels(&elements, DataType::Float64, Some(&999_999.0f64.to_le_bytes())).unwrap_err();
        assert!(error.to_string().contains("index `1`"), "{error}");
    }

    #[test]
    fn several_keys_join() {
        let joined = join(vec![
            (LabelKind::Text, vec![Label::Text("2902269".into(), 0), Label::Text("2902269".into(), 0)]),
            (LabelKind::Integer, vec![Label::Integer(7), Label::Integer(7)]),
        ]);
        assert_eq!(joined, [Label::Text("2902269|7".into(), 0), Label::Text("2902269|7".into(), 1)]);
    }
}
