//! Fill values in metadata, and the `_FillValue` attribute that xarray puts beside them.
//!
//! | | v2 | v3 |
//! |---|---|---|
//! | floats | number, `"NaN"`, `"Infinity"`, `"-Infinity"` | the same, or the bits as `"0x7fc00000"` |
//! | `\|S`, `null_terminated_bytes` | base64 | base64 |
//! | datetime64, timedelta64 | integer | integer |
//! | undefined | `null` | not possible |
//! | masked by xarray | the fill value itself | the attribute `_FillValue`: base64 of a little-endian double for floats |
//!
//! Sources: Zarr v2 and v3 specifications; what zarr-python 3 writes; `FillValueCoder` of xarray.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::array::Format;
use super::data_type::DataType;
use super::document::{as_float, number};
use super::fill_value::FillValue;
use crate::error::{Error, Result};

/// Not a time, in NumPy's integers.
const NOT_A_TIME: i64 = i64::MIN;

/// Reads the `fill_value` of array metadata.
///
/// # Errors
/// `Invalid` where it is no value of the type.
pub(super) fn from_json(value: &Value, data_type: DataType, format: Format) -> Result<FillValue> {
    if value.is_null() && format == Format::V2 {
        return Ok(FillValue::Null);
    }
    let wrong = || Error::invalid(format!("fill value `{value}` is no value of type {data_type:?}"));
    let parsed = match data_type {
        DataType::Bool => boolean(value).map(|value| vec![u8::from(value)]),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => float(value, data_type),
        DataType::DateTime(_) | DataType::TimeDelta(_) if value == "NaT" => Some(NOT_A_TIME.to_le_bytes().to_vec()),
        DataType::FixedBytes { length } => {
            let text = match value {
                // zarr-python 2 wrote 0 for an empty default.
                Value::Number(_) if as_float(value) == Some(0.0) => Some(""),
                value => value.as_str(),
            };
            text.and_then(|text| BASE64.decode(text).ok()).and_then(|bytes| padded(bytes, length as usize))
        }
        DataType::FixedUtf32 { length } => {
            let text = if as_float(value) == Some(0.0) { Some("") } else { value.as_str() };
            text.and_then(|text| utf32(text, length as usize))
        }
        DataType::String => {
            let text = if as_float(value) == Some(0.0) { Some("") } else { value.as_str() };
            return text.map(|text| FillValue::String(text.to_owned())).ok_or_else(wrong);
        }
        integer => integer_bytes(value, integer),
    };
    parsed.map(FillValue::Bytes).ok_or_else(wrong)
}

/// The `fill_value` of array metadata.
///
/// # Errors
/// `Invalid` where the value is not one of the type, or undefined in v3.
pub(super) fn to_json(fill_value: &FillValue, data_type: DataType, format: Format) -> Result<Value> {
    let wrong = || Error::invalid(format!("fill value {fill_value:?} is no value of type {data_type:?}"));
    let bytes = match (fill_value, format) {
        (FillValue::Null, Format::V2) => return Ok(Value::Null),
        (FillValue::Null, Format::V3) => {
            return Err(Error::invalid("an undefined fill value cannot be stored in Zarr v3"));
        }
        (FillValue::String(text), _) if data_type == DataType::String => return Ok(text.as_str().into()),
        (FillValue::Bytes(bytes), _) if data_type.size() == Some(bytes.len()) => bytes,
        _ => return Err(wrong()),
    };
    Ok(match data_type {
        DataType::Bool => (bytes[0] != 0).into(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let value = load_float(bytes, data_type).ok_or_else(wrong)?;
            if value.is_nan() && format == Format::V3 && float(&"NaN".into(), data_type).as_ref() != Some(bytes) {
                let bits = bytes.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
                return Ok(format!("0x{bits:0width$x}", width = 2 * bytes.len()).into());
            }
            float_name(value).map_or_else(|| number(value), Value::from)
        }
        DataType::FixedBytes { .. } => BASE64.encode(unpadded(bytes)).into(),
        DataType::FixedUtf32 { .. } => text_of_utf32(bytes).ok_or_else(wrong)?.into(),
        integer => load_integer(bytes, integer).ok_or_else(wrong)?,
    })
}

/// The `_FillValue` attribute that makes xarray mask `fill_value`; `None` where there must be none: v2 masks the fill value
/// of the array, and times are not masked by an attribute.
///
/// # Errors
/// `Invalid` where the value is not one of the type.
pub fn encode_fill_attribute(format: Format, data_type: DataType, fill_value: &FillValue) -> Result<Option<Value>> {
    if format == Format::V2 || *fill_value == FillValue::Null {
        return Ok(None);
    }
    match (data_type, fill_value) {
        (DataType::DateTime(_) | DataType::TimeDelta(_), _) => Ok(None),
        (DataType::Float16 | DataType::Float32 | DataType::Float64, FillValue::Bytes(bytes)) => {
            let value = load_float(bytes, data_type).ok_or_else(|| {
                Error::invalid(format!("fill value {fill_value:?} is no value of type {data_type:?}"))
            })?;
            Ok(Some(BASE64.encode(value.to_le_bytes()).into()))
        }
        _ => to_json(fill_value, data_type, format).map(Some),
    }
}

/// The value that a `_FillValue` attribute stands for, as xarray reads it; plain numbers are taken for floats too.
///
/// # Errors
/// `Invalid` where it is no value of the type.
pub fn decode_fill_attribute(format: Format, data_type: DataType, attribute: &Value) -> Result<FillValue> {
    if let (DataType::Float16 | DataType::Float32 | DataType::Float64, Value::String(text)) = (data_type, attribute)
        && let Ok(bytes) = BASE64.decode(text)
        && let Ok(double) = <[u8; 8]>::try_from(bytes)
    {
        let value = number(f64::from_le_bytes(double));
        return float(&value, data_type)
            .map(FillValue::Bytes)
            .ok_or_else(|| Error::invalid(format!("`_FillValue` `{attribute}` is no value of type {data_type:?}")));
    }
    from_json(attribute, data_type, format).map_err(|error| error.context("attribute `_FillValue`"))
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        value => as_float(value).map(|number| number != 0.0),
    }
}

/// Integers, also written as floats without a fraction; nothing out of range.
fn integer_bytes(value: &Value, data_type: DataType) -> Option<Vec<u8>> {
    let wide: i128 = match value.as_i64() {
        Some(integer) => integer.into(),
        None => match value.as_u64() {
            Some(integer) => integer.into(),
            None => {
                as_float(value).filter(|float| float.fract() == 0.0 && float.abs() < 1e19).map(|float| float as i128)?
            }
        },
    };
    Some(match data_type {
        DataType::Int8 => i8::try_from(wide).ok()?.to_le_bytes().to_vec(),
        DataType::Int16 => i16::try_from(wide).ok()?.to_le_bytes().to_vec(),
        DataType::Int32 => i32::try_from(wide).ok()?.to_le_bytes().to_vec(),
        DataType::Int64 | DataType::DateTime(_) | DataType::TimeDelta(_) => {
            i64::try_from(wide).ok()?.to_le_bytes().to_vec()
        }
        DataType::UInt8 => u8::try_from(wide).ok()?.to_le_bytes().to_vec(),
        DataType::UInt16 => u16::try_from(wide).ok()?.to_le_bytes().to_vec(),
        DataType::UInt32 => u32::try_from(wide).ok()?.to_le_bytes().to_vec(),
        DataType::UInt64 => u64::try_from(wide).ok()?.to_le_bytes().to_vec(),
        _ => return None,
    })
}

fn load_integer(bytes: &[u8], data_type: DataType) -> Option<Value> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    Some(match data_type {
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => unsigned.into(),
        _ => {
            let unused = 64 - 8 * bytes.len() as u32;
            (((unsigned << unused) as i64) >> unused).into()
        }
    })
}

fn float_name(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

fn float(value: &Value, data_type: DataType) -> Option<Vec<u8>> {
    let float = match value.as_str() {
        Some("NaN") => f64::NAN,
        Some("Infinity") => f64::INFINITY,
        Some("-Infinity") => f64::NEG_INFINITY,
        Some(text) if text.starts_with("0x") => return bits(&text[2..], data_type),
        _ => as_float(value)?,
    };
    Some(match data_type {
        DataType::Float16 => half::f16::from_f64(float).to_le_bytes().to_vec(),
        DataType::Float32 => (float as f32).to_le_bytes().to_vec(),
        _ => float.to_le_bytes().to_vec(),
    })
}

/// The bits of a float, most significant first.
fn bits(digits: &str, data_type: DataType) -> Option<Vec<u8>> {
    let size = data_type.size()?;
    let bits = u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2 * size)?;
    Some(bits.to_le_bytes()[..size].to_vec())
}

fn load_float(bytes: &[u8], data_type: DataType) -> Option<f64> {
    Some(match data_type {
        DataType::Float16 => half::f16::from_le_bytes(bytes.try_into().ok()?).to_f64(),
        DataType::Float32 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        _ => f64::from_le_bytes(bytes.try_into().ok()?),
    })
}

fn padded(mut bytes: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    // zarr-python pads the value itself, too: trailing NULs may go beyond the length.
    while bytes.len() > length && bytes.last() == Some(&0) {
        bytes.pop();
    }
    (bytes.len() <= length).then(|| {
        bytes.resize(length, 0);
        bytes
    })
}

fn unpadded(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..length]
}

fn utf32(text: &str, length: usize) -> Option<Vec<u8>> {
    let mut bytes: Vec<u8> = text.chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect();
    (bytes.len() <= length * 4).then(|| {
        bytes.resize(length * 4, 0);
        bytes
    })
}

fn text_of_utf32(bytes: &[u8]) -> Option<String> {
    let letters: Option<String> =
        bytes.as_chunks::<4>().0.iter().map(|letter| char::from_u32(u32::from_le_bytes(*letter))).collect();
    letters.map(|letters| letters.trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::data_type::TimeUnit;
    use super::*;

    fn round_trip(value: &Value, data_type: DataType) {
        for format in [Format::V2, Format::V3] {
            let fill_value = from_json(value, data_type, format).unwrap();
            assert_eq!(&to_json(&fill_value, data_type, format).unwrap(), value, "{data_type:?} {format:?}");
        }
    }

    #[test]
    fn values_of_every_type_survive() {
        round_trip(&json!(true), DataType::Bool);
        round_trip(&json!(-32768), DataType::Int16);
        round_trip(&json!(i64::MIN), DataType::Int64);
        round_trip(&json!(u64::MAX), DataType::UInt64);
        round_trip(&json!(-999.0), DataType::Float32);
        round_trip(&json!(0.5), DataType::Float16);
        round_trip(&json!("NaN"), DataType::Float16);
        round_trip(&json!("NaN"), DataType::Float64);
        round_trip(&json!("-Infinity"), DataType::Float32);
        round_trip(&json!("YWI="), DataType::FixedBytes { length: 5 });
        round_trip(&json!("né"), DataType::FixedUtf32 { length: 3 });
        round_trip(&json!("né"), DataType::String);
        round_trip(&json!(i64::MIN), DataType::DateTime(TimeUnit::Nanosecond));
        round_trip(&json!(-5), DataType::TimeDelta(TimeUnit::Day));
    }

    #[test]
    fn the_bits_of_a_float_can_be_given() {
        let nan = from_json(&json!("0x7fc00001"), DataType::Float32, Format::V3).unwrap();
        assert_eq!(nan, FillValue::Bytes(vec![1, 0, 0xc0, 0x7f]));
        assert_eq!(to_json(&nan, DataType::Float32, Format::V3).unwrap(), json!("0x7fc00001"));
        assert_eq!(to_json(&nan, DataType::Float32, Format::V2).unwrap(), json!("NaN"));
        assert!(from_json(&json!("0x7fc0"), DataType::Float32, Format::V3).is_err());
    }

    #[test]
    fn looseness_of_older_writers_is_accepted_and_nonsense_is_not() {
        assert_eq!(from_json(&json!(-1.0), DataType::Int16, Format::V2).unwrap(), FillValue::Bytes(vec![255, 255]));
        assert_eq!(from_json(&json!(0), DataType::String, Format::V2).unwrap(), FillValue::String(String::new()));
        assert_eq!(
            from_json(&json!("NaT"), DataType::DateTime(TimeUnit::Second), Format::V3).unwrap(),
            FillValue::Bytes(i64::MIN.to_le_bytes().to_vec())
        );
        for (value, data_type) in [
            (json!(300), DataType::UInt8),
            (json!(-1), DataType::UInt16),
            (json!(1.5), DataType::Int32),
            (json!("x"), DataType::Float32),
            (json!("0xzz"), DataType::Float32),
            (json!("abc"), DataType::FixedUtf32 { length: 2 }),
            (json!("AAEC"), DataType::FixedBytes { length: 2 }),
            (json!([1]), DataType::Int32),
        ] {
            assert!(from_json(&value, data_type, Format::V2).is_err(), "{value} {data_type:?}");
        }
        assert!(from_json(&Value::Null, DataType::Int8, Format::V3).is_err());
        assert!(to_json(&FillValue::Null, DataType::Int8, Format::V3).is_err());
    }

    #[test]
    fn the_attribute_is_xarrays() {
        // `FillValueCoder.encode(np.float32(-999), np.dtype("f4"))`
        let fill = FillValue::Bytes((-999f32).to_le_bytes().to_vec());
        let attribute = encode_fill_attribute(Format::V3, DataType::Float32, &fill).unwrap().unwrap();
        assert_eq!(attribute, json!("AAAAAAA4j8A="));
        assert_eq!(decode_fill_attribute(Format::V3, DataType::Float32, &attribute).unwrap(), fill);
        let nan =
            encode_fill_attribute(Format::V3, DataType::Float64, &FillValue::Bytes(f64::NAN.to_le_bytes().to_vec()));
        assert_eq!(nan.unwrap().unwrap(), json!("AAAAAAAA+H8="));
        let integer = FillValue::Bytes(vec![255, 255]);
        let attribute = encode_fill_attribute(Format::V3, DataType::Int16, &integer).unwrap().unwrap();
        assert_eq!(attribute, json!(-1));
        assert_eq!(decode_fill_attribute(Format::V3, DataType::Int16, &attribute).unwrap(), integer);
        assert_eq!(encode_fill_attribute(Format::V2, DataType::Int16, &integer).unwrap(), None);
        assert_eq!(
            decode_fill_attribute(Format::V3, DataType::Float32, &json!(1.5)).unwrap(),
            FillValue::Bytes(1.5f32.to_le_bytes().to_vec())
        );
    }
}
