//! A rewritten file as pieces: what is copied, what is new.
//!
//! # Problem
//! Between the columns that a migration computed and one atomic replacement lies a footer in which every number must be right,
//! and a wrong one is found by a reader years later, or never.
//!
//! # Design
//! Leaves of the result → where their bytes lie (`place`) → the footer that says so (`edited`) → checks. The footer that
//! was made is parsed again like that of any file, by both readers, and then: every row group has its rows; every
//! chunk that stays has its length, and in a widened file its place; every new one lies where its bytes are; the midpoint
//! rule of [`super::layout`] holds; `ARROW:schema` agrees if it did before. Nothing is returned that fails one of them.

use super::change::{Change, Origin, Target};
use super::columns::{Root, schema};
use super::edited::Edit;
use super::encoded::EncodedColumns;
use super::fields::{chunk, column, file as ids, row_group};
use super::file::{File, TAIL};
use super::layout::{Decision, Layout};
use super::place::{Content, Leaf, Placed, Placing};
use super::thrift::Struct;
use super::{Ranges, key_values};
use crate::error::{Context, Error, Result};
use crate::store::Piece;

/// The content of the rewritten file, in order; [`Piece::Copy`] are bytes of the file as it is.
///
/// `indexes` holds what lies in [`File::index_ranges`], `new` the columns of [`Change::adds`] in their order.
///
/// # Errors
/// [`crate::error::Kind::Corrupt`] when page indexes or bloom filters of the file cannot be read;
/// [`crate::error::Kind::Internal`] when a check of the result fails.
pub fn rewrite(
    file: &File,
    indexes: &Ranges,
    change: &Change,
    new: EncodedColumns,
    decision: &Decision,
) -> Result<Vec<Piece>> {
    made(file, indexes, change, new, decision).context(|| format!("`{}`", file.name()))
}

fn made(
    file: &File,
    indexes: &Ranges,
    change: &Change,
    new: EncodedColumns,
    decision: &Decision,
) -> Result<Vec<Piece>> {
    let targets = change.targets(file)?;
    let (new_tree, new_roots) = new_columns(file, change, &new)?;
    let leaves = leaves(file, &targets, &new_roots);
    let EncodedColumns { mut row_groups, .. } = new;
    if change.adds.is_empty() {
        row_groups = vec![Vec::new(); file.row_groups()];
    }
    let placing = Placing { file, leaves: &leaves, new: &row_groups, indexes };
    let (mut content, placed) = match decision.layout {
        Layout::Widened => placing.widened()?,
        Layout::Contiguous => placing.contiguous()?,
        Layout::Auto => return Err(Error::internal("expected a decided layout, found `auto`")),
    };
    let edit = Edit {
        file,
        targets: &targets,
        leaves: &leaves,
        new: &new_tree,
        new_roots: &new_roots,
        placed: &placed,
        key_values: key_values::edit(file, &targets, change).entries,
    };
    let footer = edit.footer()?.to_bytes();
    let length = u32::try_from(footer.len())
        .map_err(|_| Error::invalid(format!("expected a footer of less than 4 GiB, found `{}` bytes", footer.len())))?;
    let mut tail = footer.to_vec();
    tail.extend(length.to_le_bytes());
    tail.extend(b"PAR1");
    content.bytes(tail.into());
    let result = File::from_footer(file.name(), content.length, &footer)
        .map_err(|error| Error::internal(format!("the footer that was made cannot be read: {}", error.message())))?;
    check(file, &result, &leaves, &placed, &content, decision.layout)?;
    Ok(content.pieces)
}

/// The footer of the new columns and its top-level columns; empty where none come.
fn new_columns(file: &File, change: &Change, new: &EncodedColumns) -> Result<(Struct, Vec<Root>)> {
    let wanted: Vec<&str> = change.adds.iter().map(|add| add.field.name().as_str()).collect();
    if wanted.is_empty() {
        return Ok((Struct::default(), Vec::new()));
    }
    let (tree, _) = Struct::read(&new.footer).context(|| "new columns")?;
    let (leaves, roots) = schema(&tree).context(|| "new columns")?;
    let found: Vec<&str> = roots.iter().map(|root| root.name.as_str()).collect();
    if found != wanted {
        return Err(Error::internal(format!("expected the new columns {wanted:?}, found {found:?}")));
    }
    let groups = new.row_groups.len();
    if groups != file.row_groups() || new.row_groups.iter().any(|group| group.len() != leaves.len()) {
        return Err(Error::internal(format!(
            "expected `{}` row groups of `{}` new chunks, found `{groups}` of {:?}",
            file.row_groups(),
            leaves.len(),
            new.row_groups.iter().map(Vec::len).collect::<Vec<_>>()
        )));
    }
    let rows: Vec<Option<i64>> = tree.structures(ids::ROW_GROUPS).map(|group| group.integer(row_group::ROWS)).collect();
    for (number, rows) in rows.iter().enumerate() {
        let expected = file.row_group_rows(number);
        if rows.and_then(|rows| u64::try_from(rows).ok()) != Some(expected) {
            return Err(Error::internal(format!(
                "expected `{expected}` new rows in row group `{number}`, found `{rows:?}`"
            )));
        }
    }
    Ok((tree, roots))
}

fn leaves(file: &File, targets: &[Target], new_roots: &[Root]) -> Vec<Leaf> {
    let mut leaves = Vec::new();
    for target in targets {
        match target.origin {
            Origin::Kept(root) => leaves.extend(file.roots()[root].leaves.clone().map(Leaf::Kept)),
            Origin::Recast { add, .. } | Origin::Added(add) => {
                leaves.extend(new_roots[add].leaves.clone().map(Leaf::New));
            }
        }
    }
    leaves
}

/// What must hold of every rewritten file.
fn check(
    file: &File,
    result: &File,
    leaves: &[Leaf],
    placed: &[Vec<Placed>],
    content: &Content,
    layout: Layout,
) -> Result<()> {
    let fail = |what: String| Err(Error::internal(format!("the rewritten file would be wrong: {what}")));
    let rows = |file: &File| (0..file.row_groups()).map(|group| file.row_group_rows(group)).collect::<Vec<_>>();
    if rows(file) != rows(result) {
        return fail(format!("expected the rows {:?}, found {:?}", rows(file), rows(result)));
    }
    if result.columns().len() != leaves.len() {
        return fail(format!("expected `{}` leaves, found `{}`", leaves.len(), result.columns().len()));
    }
    for (leaf, column) in leaves.iter().zip(result.columns()) {
        for (row_group, chunk) in column.chunks.iter().enumerate() {
            let same = match leaf {
                Leaf::Kept(old) => {
                    let old = &file.columns()[*old].chunks[row_group];
                    let length = |range: &std::ops::Range<u64>| range.end - range.start;
                    length(&old.range) == length(&chunk.range)
                        && old.values == chunk.values
                        && old.codec == chunk.codec
                        && (layout == Layout::Contiguous || old.range == chunk.range)
                }
                Leaf::New(_) => true,
            };
            if !same {
                return fail(format!("column `{}` of row group `{row_group}` changed", column.path.join(".")));
            }
        }
    }
    for (row_group, chunks) in placed.iter().enumerate() {
        for (placed, column) in chunks.iter().zip(result.columns()) {
            let chunk = &column.chunks[row_group];
            // A chunk without pages lies nowhere: some writers say 0.
            let nowhere = placed.range.is_empty() && chunk.range.is_empty();
            if (placed.range != chunk.range && !nowhere) || placed.offset_index != chunk.offset_index {
                return fail(format!("column `{}` of row group `{row_group}` lies elsewhere", column.path.join(".")));
            }
        }
    }
    if let Some(row_group) = lost_row_group(result) {
        return fail(format!("row group `{row_group}` has its midpoint past the end of the file"));
    }
    if let (None, Some(fault)) = (file.schema_fault(), result.schema_fault()) {
        return fail(format!("key `ARROW:schema` contradicts it: {fault}"));
    }
    let pieces: u64 = content.pieces.iter().map(Piece::len).sum();
    if pieces != result.length() || result.footer_start() + TAIL >= result.length() {
        return fail(format!("expected `{}` bytes, found `{pieces}`", result.length()));
    }
    Ok(())
}

/// A row group that parquet-java would give to no split (`getOffset`, `filterFileMetaDataByMidpoint`).
pub(super) fn lost_row_group(file: &File) -> Option<usize> {
    file.tree().structures(ids::ROW_GROUPS).position(|group| {
        let metadata = |chunk: &'_ Struct, id| chunk.structure(chunk::METADATA).and_then(|found| found.integer(id));
        let Some(first) = group.structures(row_group::COLUMNS).next() else { return false };
        let data = metadata(first, column::DATA_PAGE_OFFSET).unwrap_or(0);
        let start = metadata(first, column::DICTIONARY_PAGE_OFFSET).map_or(data, |dictionary| dictionary.min(data));
        let total = group.integer(row_group::COMPRESSED_BYTES).unwrap_or_else(|| {
            let sizes = group.structures(row_group::COLUMNS).map(|chunk| metadata(chunk, column::COMPRESSED_BYTES));
            sizes.map(|size| size.unwrap_or(0)).fold(0, i64::saturating_add)
        });
        let middle = start.saturating_add(total / 2);
        !(0..i64::try_from(file.length()).unwrap_or(i64::MAX)).contains(&middle)
    })
}

#[cfg(test)]
mod tests;
