//! Whether a rewritten file holds what it should, against the file that it was made from.
//!
//! # Design
//! Everything that two footers tell is compared by [`compare`]; which bytes must be equal is told by [`kept_ranges`],
//! and fetched and compared by the caller, who may take a sample of them. A widened file holds the old one as its prefix, so
//! its old footer is at hand without any other object: `File::parse(name, old length, tail of the prefix)`.
//!
//! Nothing here trusts what wrote the file: the schema that it should have is made again from the old footer and the
//! change.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow_schema::Schema;
use parquet::arrow::ArrowSchemaConverter;
use serde::{Deserialize, Serialize};

use super::agreement::guarded;
use super::change::{Change, Origin, Target};
use super::columns::Column;
use super::fields::{element, file as ids, key_value};
use super::file::File;
use super::key_values::{self, ARROW_SCHEMA};
use super::layout::Layout;
use super::rewrite::lost_row_group;
use super::thrift::Struct;
use crate::error::Result;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Rows or row groups.
    Rows,
    /// Columns, their order or their types.
    Schema,
    /// A chunk that should have stayed.
    Chunk,
    /// A key-value of the footer.
    KeyValue,
    /// Readers that split the file would lose rows.
    Midpoint,
    /// A page index or a bloom filter.
    Index,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// Expected against found, for people.
    pub message: String,
}

/// Bytes of the old file that must be found in the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// In the old file.
    pub old: Range<u64>,
    /// In the new file; as long.
    pub new: Range<u64>,
}

/// Compares what the footers of a file before and after `change` say; empty when all is well.
///
/// # Errors
/// [`crate::error::Kind::Invalid`] when the change does not fit the old file.
pub fn compare(old: &File, new: &File, change: &Change) -> Result<Vec<Finding>> {
    let targets = change.targets(old)?;
    let mut findings = Vec::new();
    let mut find = |kind, message| findings.push(Finding { kind, message });
    let rows = |file: &File| (0..file.row_groups()).map(|group| file.row_group_rows(group)).collect::<Vec<_>>();
    if rows(old) != rows(new) {
        find(FindingKind::Rows, format!("expected row groups of {:?} rows, found {:?}", rows(old), rows(new)));
    }
    for message in schema_findings(old, new, change, &targets) {
        find(FindingKind::Schema, message);
    }
    if let (None, Some(fault)) = (old.schema_fault(), new.schema_fault()) {
        find(FindingKind::KeyValue, format!("key `{ARROW_SCHEMA}` contradicts the file: {fault}"));
    }
    for (kept, found) in kept_columns(old, new, &targets) {
        for (row_group, (old, new)) in kept.chunks.iter().zip(&found.chunks).enumerate() {
            let length = |range: &Range<u64>| range.end - range.start;
            let told = |chunk: &super::Chunk| (length(&chunk.range), chunk.values, chunk.codec, chunk.uncompressed);
            let indexed = |chunk: &super::Chunk| {
                (chunk.bloom_filter.is_some(), chunk.column_index.is_some(), chunk.offset_index.is_some())
            };
            if told(old) != told(new) || indexed(old) != indexed(new) {
                find(
                    FindingKind::Chunk,
                    format!(
                        "column `{}` of row group `{row_group}`: expected (bytes, values, codec, uncompressed bytes) {:?} \
                         and (bloom filter, column index, offset index) {:?}, found {:?} and {:?}",
                        found.path.join("."),
                        told(old),
                        indexed(old),
                        told(new),
                        indexed(new)
                    ),
                );
            }
        }
    }
    for message in key_value_findings(old, new, change, &targets) {
        find(FindingKind::KeyValue, message);
    }
    if let (None, Some(row_group)) = (lost_row_group(old), lost_row_group(new)) {
        find(
            FindingKind::Midpoint,
            format!("the midpoint of row group `{row_group}` lies past the end: Spark loses its rows"),
        );
    }
    Ok(findings)
}

/// The bytes that must be the same: the whole old file in a widened one, else each chunk that stays and its bloom filter,
/// neighbours as one.
///
/// `layout` is that of the new file, never [`Layout::Auto`]: two footers alone do not tell a widened file from a contiguous one
/// whose chunks did not move.
///
/// # Errors
/// [`crate::error::Kind::Invalid`] when the change does not fit the old file.
pub fn kept_ranges(old: &File, new: &File, change: &Change, layout: Layout) -> Result<Vec<Kept>> {
    let targets = change.targets(old)?;
    if layout == Layout::Widened {
        let all = 0..old.length();
        return Ok(vec![Kept { old: all.clone(), new: all }]);
    }
    let mut kept: Vec<Kept> = Vec::new();
    for (old, new) in kept_columns(old, new, &targets) {
        for (old, new) in old.chunks.iter().zip(&new.chunks) {
            kept.push(Kept { old: old.range.clone(), new: new.range.clone() });
            // Where the footer says how long its bloom filter is.
            let filter =
                |chunk: &super::Chunk| chunk.bloom_filter.and_then(|(start, length)| Some(start..start + length?));
            if let (Some(old), Some(new)) = (filter(old), filter(new)) {
                kept.push(Kept { old, new });
            }
        }
    }
    kept.retain(|kept| !kept.old.is_empty());
    kept.sort_by_key(|kept| (kept.old.start, kept.new.start));
    kept.dedup_by(|next, last| {
        let touches = last.old.end == next.old.start && last.new.end == next.new.start;
        if touches {
            last.old.end = next.old.end;
            last.new.end = next.new.end;
        }
        touches
    });
    Ok(kept)
}

/// Leaves that stay, in the old and in the new file; those that are not found are a matter of the schema.
pub(super) fn kept_columns<'a>(old: &'a File, new: &'a File, targets: &[Target]) -> Vec<(&'a Column, &'a Column)> {
    let mut columns = Vec::new();
    for (target, root) in targets.iter().zip(new.roots()) {
        let Origin::Kept(kept) = target.origin else { continue };
        let kept = &old.columns()[old.roots()[kept].leaves.clone()];
        let found = &new.columns()[root.leaves.clone()];
        if target.name == root.name && kept.len() == found.len() {
            columns.extend(kept.iter().zip(found));
        }
    }
    columns
}

fn schema_findings(old: &File, new: &File, change: &Change, targets: &[Target]) -> Vec<String> {
    let expected: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let found: Vec<&str> = new.roots().iter().map(|root| root.name.as_str()).collect();
    if expected != found {
        return vec![format!("expected the columns {expected:?}, found {found:?}")];
    }
    let elements = |file: &File, root: usize| {
        let range = file.roots()[root].elements.clone();
        let mut elements: Vec<Struct> =
            file.tree().structures(ids::SCHEMA).skip(range.start).take(range.len()).cloned().collect();
        if let Some(top) = elements.first_mut() {
            top.remove(element::NAME);
        }
        elements
    };
    let converted = |field: &arrow_schema::Field| {
        guarded(|| ArrowSchemaConverter::new().convert(&Schema::new(vec![field.clone()])))
    };
    let mut findings = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let root = &new.roots()[at];
        match target.origin {
            Origin::Kept(kept) if elements(old, kept) != elements(new, at) => {
                findings.push(format!("the type of column `{}` changed", target.name));
            }
            Origin::Kept(_) => {}
            Origin::Recast { add, .. } | Origin::Added(add) => {
                let wanted = converted(&change.adds[add].field);
                let leaves = &new.metadata().file_metadata().schema_descr().columns()[root.leaves.clone()];
                // Names below the top are the encoder's affair.
                let told = |leaf: &parquet::schema::types::ColumnDescPtr| {
                    let kind = (leaf.physical_type(), leaf.logical_type_ref().cloned(), leaf.type_length());
                    format!("{kind:?} {} {}", leaf.max_def_level(), leaf.max_rep_level())
                };
                let wanted: Vec<String> = wanted.iter().flat_map(|wanted| wanted.columns().iter().map(told)).collect();
                let leaves: Vec<String> = leaves.iter().map(told).collect();
                if wanted != leaves {
                    findings
                        .push(format!("column `{}`: expected the leaves {wanted:?}, found {leaves:?}", target.name));
                }
            }
        }
    }
    findings
}

fn key_value_findings(old: &File, new: &File, change: &Change, targets: &[Target]) -> Vec<String> {
    let by_key = |entries: &mut dyn Iterator<Item = &Struct>| {
        let mut keys: BTreeMap<String, Vec<Option<bytes::Bytes>>> = BTreeMap::new();
        for entry in entries {
            let key = entry.text(key_value::KEY).unwrap_or_default().to_owned();
            keys.entry(key).or_default().push(entry.binary(key_value::VALUE).cloned());
        }
        keys
    };
    let expected = key_values::edit(old, targets, change).entries.unwrap_or_default();
    let expected = by_key(&mut expected.iter());
    let found = by_key(&mut new.tree().structures(ids::KEY_VALUES));
    let keys: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    keys.into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            let told = |values: Option<&Vec<Option<bytes::Bytes>>>| match values {
                None => "nothing".to_owned(),
                Some(values) => {
                    let texts = values.iter().map(|value| match value {
                        Some(bytes) => bytes.escape_ascii().to_string().chars().take(200).collect::<String>(),
                        None => "no value".into(),
                    });
                    texts.collect::<Vec<_>>().join(", ")
                }
            };
            format!("key `{key}`: expected `{}`, found `{}`", told(expected.get(key)), told(found.get(key)))
        })
        .collect()
}
