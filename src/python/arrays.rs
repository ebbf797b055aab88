//! NumPy arrays into the crate and out of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use serde_json::{Map, Value};

use super::errors::to_python;
use crate::collection::memory::{MemoryData, MemoryDataset, MemoryVariable};
use crate::error::Error;
use crate::zarr::{DataType, Elements};

/// A NumPy array's buffer, kept alive by its owner.
struct Buffer {
    _owner: Py<PyAny>,
    pointer: *const u8,
    length: usize,
}

// SAFETY: the pointer is only read, and the array that it belongs to is kept alive by `_owner`. Whoever passes an array to
// the core must not write to it until the call returns, as with any buffer that is handed to another thread.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `pointer` and `length` were taken from one C-contiguous array that `_owner` keeps alive.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }
}

/// An `EncodedDataset` (see the stub) without copying its arrays.
pub(super) fn dataset(encoded: &Bound<'_, PyAny>) -> PyResult<MemoryDataset> {
    let dimensions: BTreeMap<String, u64> = encoded.get_item("dimensions")?.extract()?;
    let (attributes, _) = attributes(&encoded.get_item("attributes")?, None)?;
    let mut variables = Vec::new();
    for item in encoded.get_item("variables")?.try_iter()? {
        variables.push(variable(&item?)?);
    }
    Ok(MemoryDataset { dimensions, attributes, variables })
}

fn variable(item: &Bound<'_, PyAny>) -> PyResult<MemoryVariable> {
    let py = item.py();
    let name: String = item.get_item("name")?.extract()?;
    let data = item.get_item("data")?;
    let array = data.cast::<PyUntypedArray>()?;
    let invalid = |message: String| to_python(py, &Error::invalid(format!("variable `{name}`: {message}")));
    let data_type =
        data_type(array).ok_or_else(|| invalid(format!("data type `{}` cannot be stored", array.dtype())))?;
    if !array.is_c_contiguous() {
        return Err(invalid("expected a C-contiguous array".into()));
    }
    let shape: Vec<u64> = array.shape().iter().map(|length| *length as u64).collect();
    let length = array.len() * array.dtype().itemsize();
    let (attributes, fill) = attributes(&item.get_item("attributes")?, Some(array))?;
    let bytes = if length == 0 {
        Bytes::new()
    } else {
        // SAFETY: the array object is valid, and its data pointer spans `length` bytes because it is C-contiguous.
        let pointer = unsafe { (*array.as_array_ptr()).fields.data.cast::<u8>().cast_const() };
        Bytes::from_owner(Buffer { _owner: data.clone().unbind(), pointer, length })
    };
    Ok(MemoryVariable {
        name,
        dimensions: item.get_item("dimensions")?.extract()?,
        shape,
        data_type,
        attributes,
        fill,
        data: MemoryData::Fixed(bytes),
    })
}

/// The element type of an array in native (little-endian) byte order.
fn data_type(array: &Bound<'_, PyUntypedArray>) -> Option<DataType> {
    let dtype = array.dtype();
    if dtype.byteorder() == b'>' {
        return None;
    }
    let size = dtype.itemsize();
    Some(match (dtype.kind(), size) {
        (b'b', 1) => DataType::Bool,
        (b'i', 1) => DataType::Int8,
        (b'i', 2) => DataType::Int16,
        (b'i', 4) => DataType::Int32,
        (b'i', 8) => DataType::Int64,
        (b'u', 1) => DataType::UInt8,
        (b'u', 2) => DataType::UInt16,
        (b'u', 4) => DataType::UInt32,
        (b'u', 8) => DataType::UInt64,
        (b'f', 4) => DataType::Float32,
        (b'f', 8) => DataType::Float64,
        (b'S', _) => DataType::FixedBytes { length: u32::try_from(size).ok()?.max(1) },
        (b'U', _) => DataType::FixedUtf32 { length: (u32::try_from(size).ok()? / 4).max(1) },
        _ => return None,
    })
}

/// Attributes, and the bytes of `_FillValue`.
type Attributes = (Map<String, Value>, Option<Vec<u8>>);

/// Attributes as JSON, and `_FillValue` as the bytes of one element of `array`. Numbers that JSON cannot hold are left out.
fn attributes(attributes: &Bound<'_, PyAny>, array: Option<&Bound<'_, PyUntypedArray>>) -> PyResult<Attributes> {
    let mut map = Map::new();
    let mut fill = None;
    for (name, value) in attributes.cast::<PyDict>()?.iter() {
        let name: String = name.extract()?;
        match array {
            Some(array) if name == "_FillValue" => {
                let numpy = value.py().import("numpy")?;
                let element = numpy.call_method1("asarray", (&value, array.dtype()))?;
                fill = Some(element.call_method0("tobytes")?.cast::<PyBytes>()?.as_bytes().to_vec());
            }
            _ => {
                if let Some(value) = attribute(&value)? {
                    map.insert(name, value);
                }
            }
        }
    }
    Ok((map, fill))
}

fn attribute(value: &Bound<'_, PyAny>) -> PyResult<Option<Value>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Some(Value::String(text.to_str()?.to_owned())));
    }
    if value.is_instance_of::<PyBool>() {
        return Ok(Some(Value::Bool(value.extract()?)));
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(match value.extract::<i64>() {
            Ok(number) => Some(number.into()),
            Err(_) => value.extract::<u64>().ok().map(Into::into),
        });
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(serde_json::Number::from_f64(value.extract()?).map(Value::Number));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let mut list = Vec::new();
        for item in value.try_iter()? {
            match attribute(&item?)? {
                Some(item) => list.push(item),
                None => return Ok(None),
            }
        }
        return Ok(Some(Value::Array(list)));
    }
    if value.hasattr("tolist")? {
        return attribute(&value.call_method0("tolist")?);
    }
    Ok(None)
}

/// Elements as a NumPy array of `shape`, or as a list of strings.
pub(super) fn to_numpy(py: Python<'_>, elements: Elements, data_type: DataType, shape: &[u64]) -> PyResult<Py<PyAny>> {
    let bytes = match elements {
        Elements::Strings(strings) => return Ok(PyList::new(py, strings)?.into_any().unbind()),
        Elements::Fixed(bytes) => bytes,
    };
    let unit = |unit| {
        use crate::zarr::data_type::TimeUnit;
        match unit {
            TimeUnit::Day => "D",
            TimeUnit::Hour => "h",
            TimeUnit::Minute => "m",
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "us",
            TimeUnit::Nanosecond => "ns",
        }
    };
    let dtype = match data_type {
        DataType::Bool => "?".to_owned(),
        DataType::Int8 => "<i1".into(),
        DataType::Int16 => "<i2".into(),
        DataType::Int32 => "<i4".into(),
        DataType::Int64 => "<i8".into(),
        DataType::UInt8 => "<u1".into(),
        DataType::UInt16 => "<u2".into(),
        DataType::UInt32 => "<u4".into(),
        DataType::UInt64 => "<u8".into(),
        DataType::Float16 => "<f2".into(),
        DataType::Float32 => "<f4".into(),
        DataType::Float64 => "<f8".into(),
        DataType::DateTime(time) => format!("<M8[{}]", unit(time)),
        DataType::TimeDelta(time) => format!("<m8[{}]", unit(time)),
        DataType::FixedBytes { length } => format!("|S{length}"),
        DataType::FixedUtf32 { length } => format!("<U{length}"),
        DataType::String => "O".into(),
    };
    let numpy = py.import("numpy")?;
    let flat = numpy.call_method1("frombuffer", (PyBytes::new(py, &bytes), dtype))?;
    Ok(flat.call_method1("reshape", (PyTuple::new(py, shape)?,))?.unbind())
}
