//! A file as JSON: structure, attributes, and a SHA-256 of every variable's values. For tests against other readers.

use ring::digest::{Context as Digest, SHA256};
use serde_json::{Map, Value, json};

use super::structure::{Attribute, AttributeValue, Group, Variable};
use super::{Buffer, Dataset};
use crate::error::Result;
use crate::store::block_on;

/// Everything in `dataset`: groups, dimensions, attributes, and per variable the SHA-256 of its little-endian bytes in C
/// order (strings joined by NUL). Numbers are lists, text that is not UTF-8 is `{"bytes": hexadecimal}`, a variable that
/// cannot be read has an `error`.
#[doc(hidden)]
#[must_use]
pub fn describe(dataset: &Dataset) -> Value {
    group(dataset, dataset.root())
}

fn group(dataset: &Dataset, of: &Group) -> Value {
    let dimensions: Vec<Value> =
        of.dimensions.iter().map(|dimension| json!([dimension.name, dimension.size, dimension.unlimited])).collect();
    let variables: Map<String, Value> =
        of.variables.iter().map(|of| (of.name.clone(), variable(dataset, of))).collect();
    let groups: Map<String, Value> = of.groups.iter().map(|of| (of.name.clone(), group(dataset, of))).collect();
    json!({
        "dimensions": dimensions,
        "attributes": attributes(&of.attributes),
        "variables": variables,
        "groups": groups,
    })
}

fn attributes(of: &[Attribute]) -> Value {
    of.iter()
        .map(|attribute| {
            let value = &attribute.value;
            (attribute.name.clone(), json!({"type": value.type_name(), "value": attribute_value(value)}))
        })
        .collect::<Map<String, Value>>()
        .into()
}

fn attribute_value(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => json!(text),
        AttributeValue::Strings(strings) => json!(strings),
        AttributeValue::Unsupported(_) => Value::Null,
        // Numbers as bytes: NaN, infinities and 64-bit integers survive.
        other => json!({"bytes": hexadecimal(&other.to_little_endian().unwrap_or_default())}),
    }
}

fn variable(dataset: &Dataset, of: &Variable) -> Value {
    let mut described = json!({
        "type": of.data_type.name(),
        "dimensions": of.dimensions,
        "shape": of.shape,
        "chunks": of.chunk_shape,
        "attributes": attributes(&of.attributes),
    });
    let values = match digest(dataset, of) {
        Ok(digest) => ("sha256", digest),
        Err(error) => ("error", format!("{}: {error}", error.kind().name())),
    };
    described[values.0] = values.1.into();
    described
}

/// The SHA-256 of all values.
fn digest(dataset: &Dataset, of: &Variable) -> Result<String> {
    let mut digest = Digest::new(&SHA256);
    match block_on(dataset.read(of))? {
        Buffer::Fixed(bytes) => digest.update(&bytes),
        Buffer::Strings(strings) => digest.update(strings.join("\0").as_bytes()),
    }
    Ok(hexadecimal(digest.finish().as_ref()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('?'));
        }
    }
    text
}
