//! The footer of the rewritten file: the old tree with the changes and nothing else changed.
//!
//! * Schema: elements of kept columns stay as they are (a renamed one gets its name), new ones are those that their encoder
//!   wrote; a recast column keeps its field id. The root counts its children.
//! * Row groups: chunks in the order of the leaves. `total_byte_size` changes by what goes and comes;
//!   `total_compressed_size` and `file_offset` are made right where they were written. Sorting columns end before
//!   the first that goes.
//! * Column orders stay absent where they were: otherwise readers would begin to trust statistics that they ignored.
//! * `created_by` stays: readers' workarounds for the old chunks go by it.

use std::ops::Range;

use super::change::{Origin, Target};
use super::columns::Root;
use super::fields::{chunk, column, element, file as ids, row_group, sorting};
use super::file::File;
use super::place::{Leaf, Placed, move_offset};
use super::thrift::{List, Struct, Value, kind};
use crate::error::{Error, Result};

/// What the new footer is made of.
pub(super) struct Edit<'a> {
    pub(super) file: &'a File,
    pub(super) targets: &'a [Target],
    pub(super) leaves: &'a [Leaf],
    /// The footer of the new columns, and their top-level columns.
    pub(super) new: &'a Struct,
    pub(super) new_roots: &'a [Root],
    /// `[row group][leaf of the result]`.
    pub(super) placed: &'a [Vec<Placed>],
    pub(super) key_values: Option<Vec<Struct>>,
}

impl Edit<'_> {
    pub(super) fn footer(self) -> Result<Struct> {
        // Of a wide file, a copy of the whole tree takes as much memory as it.
        let mut tree = without(self.file.tree(), &[ids::SCHEMA, ids::ROW_GROUPS, ids::KEY_VALUES]);
        tree.set_structures(ids::SCHEMA, self.schema()?);
        let mut groups = Vec::with_capacity(self.placed.len());
        let new_groups: Vec<&Struct> = self.new.structures(ids::ROW_GROUPS).collect();
        for (number, group) in self.file.tree().structures(ids::ROW_GROUPS).enumerate() {
            groups.push(self.row_group(group, new_groups.get(number).copied(), &self.placed[number])?);
        }
        tree.set_structures(ids::ROW_GROUPS, groups);
        if let Some(orders) = self.file.tree().list(ids::COLUMN_ORDERS) {
            let new_orders = self.new.list(ids::COLUMN_ORDERS).unwrap_or_default();
            let values: Option<Vec<Value>> = self
                .leaves
                .iter()
                .map(|leaf| match leaf {
                    Leaf::Kept(leaf) => orders.get(*leaf).cloned(),
                    Leaf::New(leaf) => new_orders.get(*leaf).cloned(),
                })
                .collect();
            let values = values.filter(|values| values.iter().all(|order| matches!(order, Value::Struct(_))));
            let values = values.ok_or_else(|| Error::corrupt("expected one column order for each leaf"))?;
            tree.set(ids::COLUMN_ORDERS, Value::List(List { element: kind::STRUCT, values }));
        }
        if let Some(entries) = self.key_values {
            tree.set_structures(ids::KEY_VALUES, entries);
        }
        Ok(tree)
    }

    fn schema(&self) -> Result<Vec<Struct>> {
        let old: Vec<&Struct> = self.file.tree().structures(ids::SCHEMA).collect();
        let new: Vec<&Struct> = self.new.structures(ids::SCHEMA).collect();
        let children =
            i32::try_from(self.targets.len()).map_err(|_| Error::invalid("more columns than Parquet can count"))?;
        let mut root = old[0].clone();
        root.set(element::CHILDREN, Value::I32(children));
        let mut schema = vec![root];
        let take = |elements: &[&Struct], range: &Range<usize>| -> Vec<Struct> {
            elements[range.clone()].iter().map(|element| (*element).clone()).collect()
        };
        for target in self.targets {
            let mut elements = match target.origin {
                Origin::Kept(root) => take(&old, &self.file.roots()[root].elements),
                Origin::Recast { add, .. } | Origin::Added(add) => take(&new, &self.new_roots[add].elements),
            };
            if elements[0].text(element::NAME) != Some(&target.name) {
                elements[0].set(element::NAME, Value::text(&target.name));
            }
            if let Origin::Recast { root, .. } = target.origin
                && let Some(id) = old[self.file.roots()[root].elements.start].get(element::FIELD_ID)
            {
                elements[0].set(element::FIELD_ID, id.clone());
            }
            schema.extend(elements);
        }
        Ok(schema)
    }

    fn row_group(&self, old: &Struct, new: Option<&Struct>, placed: &[Placed]) -> Result<Struct> {
        let mut group = without(old, &[row_group::COLUMNS]);
        let old_chunks: Vec<&Struct> = old.structures(row_group::COLUMNS).collect();
        let new_chunks: Vec<&Struct> = new.into_iter().flat_map(|new| new.structures(row_group::COLUMNS)).collect();
        let mut names = self.targets.iter().flat_map(|target| {
            let leaves = match target.origin {
                Origin::Kept(root) => self.file.roots()[root].leaves.len(),
                Origin::Recast { add, .. } | Origin::Added(add) => self.new_roots[add].leaves.len(),
            };
            std::iter::repeat_n(target.name.as_str(), leaves)
        });
        let mut chunks = Vec::with_capacity(self.leaves.len());
        for (leaf, placed) in self.leaves.iter().zip(placed) {
            let (chunk, new) = match leaf {
                Leaf::Kept(leaf) => (old_chunks.get(*leaf), false),
                Leaf::New(leaf) => (new_chunks.get(*leaf), true),
            };
            let mut chunk = chunk.copied().cloned().ok_or_else(|| Error::internal("a chunk has no metadata"))?;
            edit_chunk(&mut chunk, names.next().unwrap_or_default(), placed, new)?;
            chunks.push(chunk);
        }
        // What goes and comes, on top of what the writer counted: some count otherwise.
        let bytes = |chunk: &Struct| {
            chunk.structure(chunk::METADATA).and_then(|metadata| metadata.integer(column::BYTES)).unwrap_or(0)
        };
        let sum = |chunks: &mut dyn Iterator<Item = &Struct>| chunks.map(bytes).fold(0_i64, i64::saturating_add);
        let before = sum(&mut old_chunks.iter().copied());
        let total = old.integer(row_group::BYTES).unwrap_or(0);
        let total = total.saturating_sub(before).saturating_add(sum(&mut chunks.iter())).max(0);
        put(&mut group, row_group::BYTES, total);
        if group.get(row_group::COMPRESSED_BYTES).is_some() {
            let total: u64 = placed.iter().map(|placed| placed.range.end - placed.range.start).sum();
            put(&mut group, row_group::COMPRESSED_BYTES, total as i64);
        }
        if group.get(row_group::FILE_OFFSET).is_some()
            && let Some(first) = placed.first()
            && (first.was != first.range.start || self.leaves.first() != Some(&Leaf::Kept(0)))
        {
            put(&mut group, row_group::FILE_OFFSET, first.range.start as i64);
        }
        self.sorting_columns(&mut group);
        group.set_structures(row_group::COLUMNS, chunks);
        Ok(group)
    }

    /// Rows stay sorted by the columns before the first that goes.
    fn sorting_columns(&self, group: &mut Struct) {
        let Some(list) = group.list(row_group::SORTING_COLUMNS) else { return };
        let sorted = list.iter().map_while(|value| {
            let Value::Struct(sorted) = value else { return None };
            let old = usize::try_from(sorted.integer(sorting::COLUMN)?).ok()?;
            let leaf = self.leaves.iter().position(|leaf| *leaf == Leaf::Kept(old))?;
            let mut sorted = sorted.clone();
            sorted.set(sorting::COLUMN, Value::I32(i32::try_from(leaf).ok()?));
            Some(sorted)
        });
        let sorted: Vec<Struct> = sorted.collect();
        if sorted.is_empty() && !list.is_empty() {
            group.remove(row_group::SORTING_COLUMNS);
        } else {
            group.set_structures(row_group::SORTING_COLUMNS, sorted);
        }
    }
}

fn edit_chunk(chunk: &mut Struct, name: &str, placed: &Placed, new: bool) -> Result<()> {
    let (from, to) = (placed.was, placed.range.start);
    if new {
        put(chunk, chunk::FILE_OFFSET, 0);
    } else if from != to {
        let starts = chunk.integer(chunk::FILE_OFFSET).and_then(|offset| u64::try_from(offset).ok()) == Some(from);
        put(chunk, chunk::FILE_OFFSET, if starts { to as i64 } else { 0 });
    }
    for (index, offset, length) in [
        (&placed.offset_index, chunk::OFFSET_INDEX_OFFSET, chunk::OFFSET_INDEX_LENGTH),
        (&placed.column_index, chunk::COLUMN_INDEX_OFFSET, chunk::COLUMN_INDEX_LENGTH),
    ] {
        if let Some(range) = index {
            put(chunk, offset, range.start as i64);
            put_short(chunk, length, range.end - range.start)?;
        } else {
            chunk.remove(offset);
            chunk.remove(length);
        }
    }
    let metadata = chunk.structure_mut(chunk::METADATA).ok_or_else(|| Error::internal("a chunk has no metadata"))?;
    match metadata.get_mut(column::PATH) {
        Some(Value::List(path)) if path.element == kind::BINARY => {
            if let Some(first) = path.values.first_mut().filter(|first| **first != Value::text(name)) {
                *first = Value::text(name);
            }
        }
        _ => return Err(Error::corrupt(format!("expected a path of names in the metadata of column `{name}`"))),
    }
    move_offset(metadata, column::DATA_PAGE_OFFSET, from, to)?;
    move_offset(metadata, column::DICTIONARY_PAGE_OFFSET, from, to)?;
    if from != to {
        metadata.remove(column::INDEX_PAGE_OFFSET);
    }
    if let Some(range) = &placed.bloom_filter {
        put(metadata, column::BLOOM_FILTER_OFFSET, range.start as i64);
        if new {
            put_short(metadata, column::BLOOM_FILTER_LENGTH, range.end - range.start)?;
        }
    } else {
        metadata.remove(column::BLOOM_FILTER_OFFSET);
        metadata.remove(column::BLOOM_FILTER_LENGTH);
    }
    Ok(())
}

/// A struct but for some of its fields.
fn without(tree: &Struct, left_out: &[i16]) -> Struct {
    tree.fields().iter().filter(|(id, _)| !left_out.contains(id)).cloned().collect()
}

/// Sets an `i64`, unless it has the value already, in whatever width.
fn put(tree: &mut Struct, id: i16, value: i64) {
    if tree.integer(id) != Some(value) {
        tree.set(id, Value::I64(value));
    }
}

fn put_short(tree: &mut Struct, id: i16, value: u64) -> Result<()> {
    let short = i32::try_from(value).map_err(|_| Error::invalid(format!("an index or filter of `{value}` bytes")))?;
    if tree.integer(id) != Some(i64::from(short)) {
        tree.set(id, Value::I32(short));
    }
    Ok(())
}
