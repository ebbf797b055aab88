//! Key-values of the footer, kept true: several of them repeat the schema, and a stale one hides or breaks columns.
//!
//! | key | stale | what is done |
//! |---|---|---|
//! | `ARROW:schema` | readers of arrow-rs refuse the file | decoded, edited, encoded |
//! | `org.apache.spark.sql.parquet.row.metadata` | Spark does not see new columns | edited as JSON |
//! | `pandas` | an index that is gone cannot be restored | edited as JSON |
//! | `parquet.avro.schema`, `avro.schema` | readers of parquet-avro do not see new columns | edited as JSON |
//! | `geo` | `GeoParquet` columns under old names | edited as JSON |
//!
//! All others are kept byte for byte. One that is absent stays absent. One that cannot be read, or cannot say what the file
//! holds now, is taken out, and a note says why: without it, readers go by the Parquet schema. Where only key-values
//! change, none of this is touched.
//!
//! # Caveats
//! Spark's `org.apache.spark.legacyDateTime` makes it shift dates before 1900 of all columns, new ones too: a note says so.

mod arrow;
mod avro;
mod json;
mod pandas;
mod spark;

use std::collections::HashSet;

use arrow_schema::{DataType, Field};

use super::change::{Change, Origin, Target};
use super::fields::{file as ids, key_value};
use super::file::File;
use super::thrift::{Struct, Value};

/// The key under which Arrow keeps its schema.
pub(super) const ARROW_SCHEMA: &str = "ARROW:schema";
const SPARK_ROW: &str = "org.apache.spark.sql.parquet.row.metadata";
const SPARK_LEGACY_DATES: &str = "org.apache.spark.legacyDateTime";

/// A column of the result, as the edits of schemas see it.
struct Wanted<'a> {
    name: &'a str,
    /// Its name in the file, unless it is added.
    old: Option<&'a str>,
    /// Its new type, unless it is kept.
    field: Option<&'a Field>,
}

/// A value after its edit, or why it has to go.
type Outcome = Result<String, String>;

/// The key-values of the result.
pub(super) struct Edited {
    /// As `KeyValue`s; none where the file had none.
    pub(super) entries: Option<Vec<Struct>>,
    /// What could not be kept true, for people.
    pub(super) notes: Vec<String>,
}

/// Edits the key-values of `file` for the columns `targets`.
pub(super) fn edit(file: &File, targets: &[Target], change: &Change) -> Edited {
    let wanted: Vec<Wanted> = targets
        .iter()
        .map(|target| {
            let (root, add) = match target.origin {
                Origin::Kept(root) => (Some(root), None),
                Origin::Recast { root, add } => (Some(root), Some(add)),
                Origin::Added(add) => (None, Some(add)),
            };
            let old = root.map(|root| file.roots()[root].name.as_str());
            Wanted { name: &target.name, old, field: add.map(|add| &change.adds[add].field) }
        })
        .collect();
    let mut notes = Vec::new();
    let present = file.tree().get(ids::KEY_VALUES).is_some();
    let mut entries: Vec<Struct> = Vec::new();
    for entry in file.tree().structures(ids::KEY_VALUES) {
        let mut entry = entry.clone();
        let edited = if change.changes_columns() { edit_one(file, &entry, &wanted, &mut notes) } else { None };
        match edited {
            None => {}
            Some(Ok(value)) => entry.set(key_value::VALUE, Value::text(&value)),
            Some(Err(reason)) => {
                notes.push(format!("key `{}` is taken out: {reason}", entry.text(key_value::KEY).unwrap_or_default()));
                continue;
            }
        }
        entries.push(entry);
    }
    for (key, value) in &change.key_values {
        set(&mut entries, key, value.as_deref());
    }
    let entries = (present || !entries.is_empty()).then_some(entries);
    Edited { entries, notes }
}

/// What becomes of one value; nothing where it stays as it is.
fn edit_one(file: &File, entry: &Struct, wanted: &[Wanted], notes: &mut Vec<String>) -> Option<Outcome> {
    let key = entry.text(key_value::KEY)?;
    if key == SPARK_LEGACY_DATES {
        let dated = wanted
            .iter()
            .filter_map(|wanted| wanted.field)
            .filter(|field| matches!(field.data_type(), DataType::Date32 | DataType::Timestamp(..)));
        notes.extend(dated.map(|field| {
            format!("Spark shifts dates before 1900 of the new column `{}`: key `{key}` is set", field.name())
        }));
        return None;
    }
    let edit: fn(&File, &str, &[Wanted], &mut Vec<String>) -> Outcome = match key {
        ARROW_SCHEMA => arrow::edit,
        SPARK_ROW => spark::edit,
        "pandas" => |_, text, wanted, _| pandas::edit(text, wanted),
        "parquet.avro.schema" | "avro.schema" => |_, text, wanted, _| avro::edit(text, wanted),
        "geo" => |_, text, wanted, _| json::edit_geo(text, wanted),
        _ => return None,
    };
    Some(match entry.text(key_value::VALUE) {
        Some(text) => edit(file, text, wanted, notes),
        None => Err("its value is not text".into()),
    })
}

/// Sets the first entry of a key and removes the others; removes all where there is no value.
fn set(entries: &mut Vec<Struct>, key: &str, value: Option<&str>) {
    let mut seen = HashSet::new();
    entries.retain(|entry| entry.text(key_value::KEY) != Some(key) || (value.is_some() && seen.insert(())));
    let Some(value) = value else { return };
    let value = Value::text(value);
    if let Some(entry) = entries.iter_mut().find(|entry| entry.text(key_value::KEY) == Some(key)) {
        entry.set(key_value::VALUE, value);
    } else {
        entries.push([(key_value::KEY, Value::text(key)), (key_value::VALUE, value)].into_iter().collect());
    }
}

#[cfg(test)]
mod tests;
