//! Consolidated metadata: every document of a hierarchy in one object, so that opening is one request.
//!
//! v2 keeps it in `.zmetadata`, by key of the document; v3 in the root's `zarr.json`, by path of the node (as zarr-python
//! does; the specification has no word on it yet). Entries that regraft does not know stay as they are.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::array::Format;
use super::metadata::key_of;
use super::{metadata_v2, metadata_v3};

/// The object of v2.
pub(super) const OBJECT: &str = ".zmetadata";
/// The field of v3.
const FIELD: &str = "consolidated_metadata";

/// Documents by their key in the store.
pub(super) type Documents = BTreeMap<String, Map<String, Value>>;

/// The key of the object that holds consolidated metadata.
pub(super) fn key(format: Format) -> &'static str {
    match format {
        Format::V2 => OBJECT,
        Format::V3 => metadata_v3::NODE,
    }
}

/// The documents that `holder` (`.zmetadata`, or the root's `zarr.json`) consolidates, the root's own not among them in
/// v3; `None` where it consolidates nothing.
pub(super) fn documents(format: Format, holder: &Map<String, Value>) -> Option<Documents> {
    let entries = match format {
        Format::V2 => holder.get("metadata"),
        Format::V3 => holder.get(FIELD).and_then(|consolidated| consolidated.get("metadata")),
    };
    let entries = entries?.as_object()?;
    let documents = entries.iter().filter_map(|(name, document)| {
        let key = match format {
            Format::V2 => name.clone(),
            Format::V3 => key_of(name, metadata_v3::NODE),
        };
        Some((key, document.as_object()?.clone()))
    });
    Some(documents.collect())
}

/// Puts `documents` into `holder`, beside or in place of what is there. The root's own `zarr.json` is left to the caller.
pub(super) fn update<'a>(
    format: Format,
    holder: &mut Map<String, Value>,
    documents: impl Iterator<Item = (&'a String, &'a Map<String, Value>)>,
) {
    let entries = match format {
        Format::V2 => {
            holder.entry("metadata").or_insert_with(|| json!({}));
            holder.entry("zarr_consolidated_format").or_insert_with(|| json!(1));
            holder.get_mut("metadata")
        }
        Format::V3 => {
            let field = holder.entry(FIELD).or_insert(Value::Null);
            if !field.is_object() {
                *field = json!({"kind": "inline", "must_understand": false, "metadata": {}});
            }
            field.get_mut("metadata")
        }
    };
    let Some(entries) = entries.and_then(Value::as_object_mut) else { return };
    for (key, document) in documents {
        match format {
            Format::V2 => {
                entries.insert(key.clone(), document.clone().into());
            }
            Format::V3 => {
                if let Some(path) = key.strip_suffix("/zarr.json") {
                    entries.insert(path.to_owned(), document.clone().into());
                }
            }
        }
    }
}

/// A group's own document, before it consolidates anything.
pub(super) fn group_document(format: Format, attributes: &Map<String, Value>) -> Map<String, Value> {
    let mut document = Map::new();
    match format {
        Format::V2 => {
            document.insert("zarr_format".to_owned(), 2.into());
        }
        Format::V3 => {
            document.insert("attributes".to_owned(), attributes.clone().into());
            document.insert("zarr_format".to_owned(), 3.into());
            document.insert("node_type".to_owned(), "group".into());
        }
    }
    document
}

/// The name of a group's own document.
pub(super) fn group_name(format: Format) -> &'static str {
    match format {
        Format::V2 => metadata_v2::GROUP,
        Format::V3 => metadata_v3::NODE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_edited_in_place() {
        let Value::Object(mut holder) = json!({
            "node_type": "group", "zarr_format": 3, "other": {"must_understand": false},
            "consolidated_metadata": {"kind": "inline", "must_understand": false, "extra": 1,
                "metadata": {"a": {"shape": [1]}, "g": {"node_type": "group"}, "odd": 7}},
        }) else {
            unreachable!()
        };
        let documents = documents(Format::V3, &holder).unwrap();
        assert_eq!(documents.keys().collect::<Vec<_>>(), ["a/zarr.json", "g/zarr.json"]);
        let changed = Documents::from([("a/zarr.json".to_owned(), Map::from_iter([("shape".to_owned(), json!([2]))]))]);
        update(Format::V3, &mut holder, changed.iter());
        assert_eq!(
            Value::Object(holder)["consolidated_metadata"],
            json!({"kind": "inline", "must_understand": false, "extra": 1,
                "metadata": {"a": {"shape": [2]}, "g": {"node_type": "group"}, "odd": 7}})
        );
    }

    #[test]
    fn an_absent_or_empty_holder_consolidates_nothing() {
        assert!(documents(Format::V2, &Map::new()).is_none());
        let Value::Object(holder) = json!({"consolidated_metadata": null}) else { unreachable!() };
        assert!(documents(Format::V3, &holder).is_none());
    }
}
