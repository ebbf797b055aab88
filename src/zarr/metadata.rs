//! What both formats' array metadata have in common.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// More decoded bytes than this in one chunk are refused: metadata must not decide how much memory is taken.
const MAXIMUM_CHUNK: u64 = 1 << 33;

/// The document of a node as a key of the store.
pub(super) fn key_of(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// A list of non-negative integers.
pub(super) fn lengths(document: &Map<String, Value>, field: &str) -> Result<Vec<u64>> {
    document
        .get(field)
        .and_then(Value::as_array)
        .and_then(|lengths| lengths.iter().map(Value::as_u64).collect())
        .ok_or_else(|| {
            let found = document.get(field).unwrap_or(&Value::Null);
            Error::invalid(format!("expected lengths in `{field}`, found `{found}`"))
        })
}

/// Checks that chunks can be a grid over the array, and are not too large.
pub(super) fn check_chunks(shape: &[u64], chunk: &[u64], item_size: Option<usize>) -> Result<()> {
    if chunk.len() != shape.len() || chunk.contains(&0) {
        return Err(Error::invalid(format!("chunks `{chunk:?}` do not fit an array of shape `{shape:?}`")));
    }
    let item_size = item_size.unwrap_or(4) as u64;
    let bytes = chunk.iter().try_fold(item_size, |bytes, length| bytes.checked_mul(*length));
    if bytes.is_none_or(|bytes| bytes > MAXIMUM_CHUNK) {
        return Err(Error::invalid(format!("chunks `{chunk:?}` are of more than `{MAXIMUM_CHUNK}` bytes")));
    }
    if shape.iter().try_fold(1u64, |count, length| count.checked_mul(*length)).is_none() {
        return Err(Error::invalid(format!("shape `{shape:?}` has more elements than can be counted")));
    }
    Ok(())
}

/// `.` or `/`.
pub(super) fn separator(value: Option<&Value>, default: char) -> Result<char> {
    match value.map(|value| (value, value.as_str())) {
        None => Ok(default),
        Some((_, Some("."))) => Ok('.'),
        Some((_, Some("/"))) => Ok('/'),
        Some((value, _)) => Err(Error::invalid(format!("expected the separator `.` or `/`, found `{value}`"))),
    }
}

/// Attributes, which may be absent.
pub(super) fn attributes(value: Option<&Value>) -> Result<Map<String, Value>> {
    match value {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(attributes)) => Ok(attributes.clone()),
        Some(other) => Err(Error::invalid(format!("expected attributes, found `{other}`"))),
    }
}
