//! Whether page indexes and bloom filters say what the file's pages are.
//!
//! # Problem
//! Readers that skip pages believe the offset index without looking: one wrong offset gives them garbage, or rows that
//! are missing without a word. A rewrite moves every offset of a chunk that moves, and makes indexes for new columns.
//!
//! # Design
//! * Of a kept chunk the indexes must be those that it had before, offsets moved as far as the chunk: whatever its writer
//!   meant is kept ([`compare`]).
//! * Of every other chunk they must make sense by themselves ([`check`]): as many pages in both indexes, first to
//!   last row ascending within the row group, pages one behind the other from the first data page to the end of the chunk.
//! * Where a chunk's bytes are at hand, each page header must stand where the index says, and say the same size and the
//!   same rows ([`check_pages`]).
//!
//! Nothing is fetched here: the caller reads [`ranges`].

use std::ops::Range;

use bytes::Bytes;

use super::Ranges;
use super::change::Change;
use super::columns::Chunk;
use super::fields::{bloom_filter, chunk, column, column_index, file as ids, offset_index, page, row_group};
use super::file::{BLOOM_FILTER_HEADER, File};
use super::place::moved;
use super::ranges::merged;
use super::thrift::Struct;
use super::verify::{Finding, FindingKind, kept_columns};
use crate::error::{Context, Error, Result};

/// Pages of a chunk, as its offset index has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Location {
    offset: u64,
    length: u64,
    row: u64,
}

/// What [`compare`] and [`check`] want read of a file: page indexes, and the headers of bloom filters. Sorted, apart.
#[must_use]
pub fn ranges(file: &File) -> Vec<Range<u64>> {
    let end = file.footer_start();
    let chunks = file.columns().iter().flat_map(|column| &column.chunks);
    merged(chunks.flat_map(|chunk| {
        let header = chunk.bloom_filter.map(|(start, _)| start..end.min(start.saturating_add(BLOOM_FILTER_HEADER)));
        [chunk.column_index.clone(), chunk.offset_index.clone(), header].into_iter().flatten()
    }))
}

/// Bytes that hold the header of any page but one with long statistics, which no writer puts there.
const PAGE_HEADER: usize = 64 << 10;

/// Compares the indexes of the chunks that `change` keeps with those that they had; `read` and `old_read` are what
/// [`ranges`] says of both.
///
/// # Errors
/// [`crate::error::Kind::Invalid`] when the change does not fit the old file; where `read` lacks something.
pub fn compare(old: &File, old_read: &Ranges, new: &File, read: &Ranges, change: &Change) -> Result<Vec<Finding>> {
    let targets = change.targets(old)?;
    let mut findings = Vec::new();
    for (before, now) in kept_columns(old, new, &targets) {
        for (row_group, (was, is)) in before.chunks.iter().zip(&now.chunks).enumerate() {
            let mut find = |what: &str| findings.push(finding(&now.path, row_group, what));
            if let (Some(was), Some(is)) = (&was.column_index, &is.column_index)
                && old_read.get(was.clone())? != read.get(is.clone())?
            {
                find("the column index is not the one before");
            }
            if let (Some(was_at), Some(is_at)) = (&was.offset_index, &is.offset_index) {
                let expected = moved(&old_read.get(was_at.clone())?, was.range.start, is.range.start);
                let found = Struct::read(&read.get(is_at.clone())?).map(|(tree, _)| tree);
                // An index that was broken before may stay so.
                let expected = expected.and_then(|bytes| Ok(Struct::read(&bytes)?.0));
                if let Ok(expected) = expected
                    && found.ok().as_ref() != Some(&expected)
                {
                    find("the offset index is not the one before, moved with its pages");
                }
            }
            if let (Some((was, _)), Some((is, _))) = (was.bloom_filter, is.bloom_filter)
                && filter_length(old_read, was).ok() != filter_length(read, is).ok()
            {
                find("the bloom filter is not as long as the one before");
            }
        }
    }
    Ok(findings)
}

/// Checks the indexes of leaves by themselves; `read` is what [`ranges`] says of the file.
///
/// # Errors
/// Where `read` lacks something.
pub fn check(file: &File, read: &Ranges, leaves: impl IntoIterator<Item = usize>) -> Result<Vec<Finding>> {
    let (mut findings, first_pages) = (Vec::new(), data_pages(file));
    for leaf in leaves {
        let Some(found) = file.columns().get(leaf) else { continue };
        for (row_group, chunk) in found.chunks.iter().enumerate() {
            let first_page = first_pages.get(row_group).and_then(|pages| *pages.get(leaf)?);
            if let Err(error) = check_chunk(file, read, row_group, chunk, first_page) {
                if error.kind() != crate::error::Kind::Corrupt {
                    return Err(error);
                }
                findings.push(finding(&found.path, row_group, &error.message()));
            }
        }
    }
    Ok(findings)
}

/// Checks that the pages of a chunk stand where its offset index says. `bytes` are those of the chunk.
///
/// # Errors
/// Where `read` lacks the index.
pub fn check_pages(
    file: &File,
    read: &Ranges,
    row_group: usize,
    leaf: usize,
    bytes: &Bytes,
) -> Result<Option<Finding>> {
    let column = &file.columns()[leaf];
    let Some(chunk) = column.chunks.get(row_group) else { return Ok(None) };
    let Some(index) = &chunk.offset_index else { return Ok(None) };
    // Of repeated values there are more, or fewer, than rows.
    let flat = file.metadata().file_metadata().schema_descr().column(leaf).max_rep_level() == 0;
    let found = locations(&read.get(index.clone())?)
        .and_then(|pages| walk(&pages, chunk, file.row_group_rows(row_group), flat, bytes));
    Ok(found.err().map(|error| finding(&column.path, row_group, &error.message())))
}

fn finding(path: &[String], row_group: usize, what: &str) -> Finding {
    Finding {
        kind: FindingKind::Index,
        message: format!("column `{}` of row group `{row_group}`: {what}", path.join(".")),
    }
}

fn check_chunk(file: &File, read: &Ranges, row_group: usize, found: &Chunk, first_page: Option<u64>) -> Result<()> {
    if let Some((start, length)) = found.bloom_filter {
        let said = filter_length(read, start)?;
        let end = start.checked_add(said).filter(|end| *end <= file.footer_start());
        if end.is_none() || length.is_some_and(|length| length != said) {
            return Err(Error::corrupt(format!("the bloom filter has `{said}` bytes, expected `{length:?}`")));
        }
    }
    let Some(index) = &found.offset_index else { return Ok(()) };
    let pages = locations(&read.get(index.clone())?).context(|| "the offset index")?;
    let rows = file.row_group_rows(row_group);
    let mut at = first_page.unwrap_or(found.range.start);
    let mut row = 0;
    for (number, page) in pages.iter().enumerate() {
        let in_order = if number == 0 { page.row == 0 } else { page.row >= row };
        if page.offset != at || page.length == 0 || !in_order || (page.row >= rows && rows > 0) {
            return Err(Error::corrupt(format!(
                "page `{number}` of the offset index: expected it at byte `{at}` and a row from `{row}` to `{rows}`, found \
                 `{}` bytes at `{}` and row `{}`",
                page.length, page.offset, page.row
            )));
        }
        at = at.saturating_add(page.length);
        row = page.row;
    }
    if at != found.range.end && !pages.is_empty() {
        return Err(Error::corrupt(format!(
            "expected the last page of the offset index to end at byte `{}`, found `{at}`",
            found.range.end
        )));
    }
    if found.values > 0 && pages.is_empty() {
        return Err(Error::corrupt("the offset index has no pages"));
    }
    let Some(index) = &found.column_index else { return Ok(()) };
    let (tree, _) = Struct::read(&read.get(index.clone())?).context(|| "the column index")?;
    for (what, list) in [
        ("null pages", column_index::NULL_PAGES),
        ("least values", column_index::LEAST),
        ("greatest values", column_index::GREATEST),
        ("null counts", column_index::NULLS),
    ] {
        let found = tree.list(list).map(<[_]>::len);
        // Null counts are optional.
        if found != Some(pages.len()) && !(list == column_index::NULLS && found.is_none()) {
            return Err(Error::corrupt(format!(
                "expected the {what} of `{}` pages in the column index, found `{found:?}`",
                pages.len()
            )));
        }
    }
    Ok(())
}

/// Compares page headers with the index.
fn walk(pages: &[Location], chunk: &Chunk, rows: u64, flat: bool, bytes: &Bytes) -> Result<()> {
    let mut values = 0_u64;
    for (number, location) in pages.iter().enumerate() {
        let outside = || Error::corrupt(format!("page `{number}` of the offset index lies outside of its chunk"));
        let start = location.offset.checked_sub(chunk.range.start).ok_or_else(outside)?;
        let end = start.checked_add(location.length).filter(|end| *end <= bytes.len() as u64).ok_or_else(outside)?;
        let (start, end) = (start as usize, end as usize);
        let (header, read) = Struct::read(&bytes.slice(start..end.min(start + PAGE_HEADER)))
            .context(|| format!("no page header where page `{number}` of the offset index is"))?;
        let length = header.integer(page::COMPRESSED_BYTES).and_then(|length| u64::try_from(length).ok());
        let data = header.structure(page::DATA).or_else(|| header.structure(page::DATA_V2));
        let (Some(length), Some(data)) = (length, data) else {
            return Err(Error::corrupt(format!("page `{number}` of the offset index is no page of data")));
        };
        if length.saturating_add(read as u64) != location.length {
            return Err(Error::corrupt(format!(
                "page `{number}` of the offset index: expected `{}` bytes, found `{}`",
                location.length,
                length.saturating_add(read as u64)
            )));
        }
        let count = data.integer(page::VALUES).and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
        let next = pages.get(number + 1).map_or(rows, |next| next.row);
        if flat && next.checked_sub(location.row) != Some(count) {
            return Err(Error::corrupt(format!(
                "page `{number}` of the offset index: expected the rows `{}` to `{next}`, found `{count}` values",
                location.row
            )));
        }
        values = values.saturating_add(count);
    }
    if values != chunk.values {
        return Err(Error::corrupt(format!(
            "expected `{}` values in the pages of the offset index, found `{values}`",
            chunk.values
        )));
    }
    Ok(())
}

fn locations(bytes: &Bytes) -> Result<Vec<Location>> {
    let (tree, _) = Struct::read(bytes)?;
    let number = |location: &Struct, id: i16| {
        let value = location.integer(id).and_then(|value| u64::try_from(value).ok());
        value.ok_or_else(|| Error::corrupt(format!("expected a number in field `{id}` of a page's location")))
    };
    tree.structures(offset_index::LOCATIONS)
        .map(|location| {
            Ok(Location {
                offset: number(location, offset_index::OFFSET)?,
                length: number(location, offset_index::BYTES)?,
                row: number(location, offset_index::ROW)?,
            })
        })
        .collect()
}

/// Bytes of a bloom filter with its header.
fn filter_length(read: &Ranges, start: u64) -> Result<u64> {
    let (header, read) = Struct::read(&read.tail(start)?).context(|| format!("bloom filter at byte `{start}`"))?;
    let bytes = header.integer(bloom_filter::BYTES).and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .and_then(|bytes| bytes.checked_add(read as u64))
        .ok_or_else(|| Error::corrupt(format!("the bloom filter at byte `{start}` has no length")))
}

/// Where the first data page of each chunk starts: `[row group][leaf]`.
fn data_pages(file: &File) -> Vec<Vec<Option<u64>>> {
    let start = |chunk: &Struct| {
        let offset = chunk.structure(chunk::METADATA)?.integer(column::DATA_PAGE_OFFSET)?;
        u64::try_from(offset).ok()
    };
    let groups = file.tree().structures(ids::ROW_GROUPS);
    groups.map(|group| group.structures(row_group::COLUMNS).map(start).collect()).collect()
}
