//! The names of element types: NumPy type strings in v2, names with configuration in v3.

use serde_json::{Value, json};

use super::codec::named;
use super::data_type::{DataType, TimeUnit};
use crate::error::{Error, Result};

/// More bytes than this in one element are refused.
const MAXIMUM_ELEMENT: u32 = 1 << 24;

fn unsupported(name: &Value) -> Error {
    Error::invalid(format!("data type `{name}` is not supported"))
        .hint("supported: bool, integers, floats, datetime64, timedelta64, fixed-length bytes and text, strings")
}

const UNITS: [(&str, TimeUnit); 8] = [
    ("D", TimeUnit::Day),
    ("h", TimeUnit::Hour),
    ("m", TimeUnit::Minute),
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
    ("\u{3bc}s", TimeUnit::Microsecond),
];

fn unit_from(name: &str) -> Option<TimeUnit> {
    UNITS.iter().find(|(known, _)| *known == name).map(|(_, unit)| *unit)
}

fn unit_name(unit: TimeUnit) -> &'static str {
    UNITS.iter().find(|(_, known)| *known == unit).map_or("generic", |(name, _)| name)
}

/// The type that a NumPy type string names, and whether it is big-endian.
///
/// # Errors
/// `Invalid` where it is not supported: complex, structured, raw (`|V8`) and odd units (`<M8[25s]`).
pub(super) fn from_v2(value: &Value) -> Result<(DataType, bool)> {
    let parsed = value.as_str().and_then(|text| {
        let rest = text.strip_prefix(['<', '>', '|', '='])?;
        let letter = rest.chars().next()?;
        Some((parse_v2(letter, rest.get(letter.len_utf8()..)?)?, text.starts_with('>')))
    });
    parsed.ok_or_else(|| unsupported(value))
}

fn parse_v2(letter: char, rest: &str) -> Option<DataType> {
    let length = || rest.parse::<u32>().ok().filter(|length| *length > 0 && *length <= MAXIMUM_ELEMENT / 4);
    let unit = || unit_from(rest.strip_prefix("8[")?.strip_suffix(']')?);
    Some(match (letter, rest) {
        ('b', "1") => DataType::Bool,
        ('i', "1") => DataType::Int8,
        ('i', "2") => DataType::Int16,
        ('i', "4") => DataType::Int32,
        ('i', "8") => DataType::Int64,
        ('u', "1") => DataType::UInt8,
        ('u', "2") => DataType::UInt16,
        ('u', "4") => DataType::UInt32,
        ('u', "8") => DataType::UInt64,
        ('f', "2") => DataType::Float16,
        ('f', "4") => DataType::Float32,
        ('f', "8") => DataType::Float64,
        ('M', _) => DataType::DateTime(unit()?),
        ('m', _) => DataType::TimeDelta(unit()?),
        ('S', _) => DataType::FixedBytes { length: length()? },
        ('U', _) => DataType::FixedUtf32 { length: length()? },
        ('O', "") => DataType::String,
        _ => return None,
    })
}

/// The NumPy type string of a little-endian type.
pub(super) fn to_v2(data_type: DataType) -> Value {
    let text = match data_type {
        DataType::Bool => "|b1",
        DataType::Int8 => "|i1",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::UInt8 => "|u1",
        DataType::UInt16 => "<u2",
        DataType::UInt32 => "<u4",
        DataType::UInt64 => "<u8",
        DataType::Float16 => "<f2",
        DataType::Float32 => "<f4",
        DataType::Float64 => "<f8",
        DataType::String => "|O",
        DataType::DateTime(unit) => return format!("<M8[{}]", unit_name(unit)).into(),
        DataType::TimeDelta(unit) => return format!("<m8[{}]", unit_name(unit)).into(),
        DataType::FixedBytes { length } => return format!("|S{length}").into(),
        DataType::FixedUtf32 { length } => return format!("<U{length}").into(),
    };
    text.into()
}

/// The type that v3 metadata names.
///
/// # Errors
/// `Invalid` where it is not supported: complex, structured, raw bits, variable-length bytes.
pub(super) fn from_v3(value: &Value) -> Result<DataType> {
    let (name, config) = named(value)?;
    let length = |unit: u64| {
        let bytes = config.get("length_bytes").and_then(Value::as_u64).filter(|bytes| *bytes > 0)?;
        let whole = bytes.is_multiple_of(unit) && bytes <= u64::from(MAXIMUM_ELEMENT);
        whole.then_some((bytes / unit) as u32)
    };
    let unit = || {
        let scale = config.get("scale_factor").map_or(Some(1), Value::as_u64);
        config.get("unit").and_then(Value::as_str).and_then(unit_from).filter(|_| scale == Some(1))
    };
    let parsed = match name {
        "bool" => Some(DataType::Bool),
        "int8" => Some(DataType::Int8),
        "int16" => Some(DataType::Int16),
        "int32" => Some(DataType::Int32),
        "int64" => Some(DataType::Int64),
        "uint8" => Some(DataType::UInt8),
        "uint16" => Some(DataType::UInt16),
        "uint32" => Some(DataType::UInt32),
        "uint64" => Some(DataType::UInt64),
        "float16" => Some(DataType::Float16),
        "float32" => Some(DataType::Float32),
        "float64" => Some(DataType::Float64),
        "string" => Some(DataType::String),
        "numpy.datetime64" => unit().map(DataType::DateTime),
        "numpy.timedelta64" => unit().map(DataType::TimeDelta),
        "null_terminated_bytes" => length(1).map(|length| DataType::FixedBytes { length }),
        "fixed_length_utf32" => length(4).map(|length| DataType::FixedUtf32 { length }),
        _ => None,
    };
    parsed.ok_or_else(|| unsupported(value))
}

/// The v3 name of a type.
pub(super) fn to_v3(data_type: DataType) -> Value {
    let name = match data_type {
        DataType::Bool => "bool",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float16 => "float16",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        DataType::String => "string",
        DataType::DateTime(unit) => {
            return json!({"name": "numpy.datetime64", "configuration": {"unit": unit_name(unit), "scale_factor": 1}});
        }
        DataType::TimeDelta(unit) => {
            return json!({"name": "numpy.timedelta64", "configuration": {"unit": unit_name(unit), "scale_factor": 1}});
        }
        DataType::FixedBytes { length } => {
            return json!({"name": "null_terminated_bytes", "configuration": {"length_bytes": length}});
        }
        DataType::FixedUtf32 { length } => {
            return json!({"name": "fixed_length_utf32", "configuration": {"length_bytes": u64::from(length) * 4}});
        }
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_name_in_both_formats() {
        let types = [
            "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "|S5", "<U7",
            "<M8[ns]", "<M8[D]", "<m8[us]", "|O",
        ];
        for name in types {
            let (data_type, big_endian) = from_v2(&name.into()).unwrap();
            assert!(!big_endian);
            assert_eq!(to_v2(data_type), name);
            assert_eq!(from_v3(&to_v3(data_type)).unwrap(), data_type);
        }
        assert_eq!(from_v2(&">f4".into()).unwrap(), (DataType::Float32, true));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for name in ["<c8", "|V8", "<M8", "<M8[25s]", "<M8[Y]", "|S0", "<U99999999", "<f16", "", "<", "é", "<é"] {
            assert_eq!(from_v2(&name.into()).unwrap_err().kind(), crate::error::Kind::Invalid, "{name}");
        }
        let structured = json!([["a", "<i4"], ["b", "<f8"]]);
        assert!(from_v2(&structured).unwrap_err().to_string().contains(r#"[["a","<i4"],["b","<f8"]]"#));
        for name in
            [json!("complex64"), json!("r16"), json!({"name": "structured"}), json!({"name": "fixed_length_utf32"})]
        {
            assert!(from_v3(&name).is_err());
        }
    }
}
