//! Columns and where their bytes lie, out of the footer's tree.

use std::ops::Range;

use super::fields::{chunk, column, element, file, row_group};
use super::file::{HEAD, encrypted};
use super::thrift::Struct;
use crate::error::{Context, Error, Result};

/// Groups inside each other in a schema.
const DEEPEST: usize = 100;

/// A leaf of the schema.
#[derive(Debug, Clone)]
pub struct Column {
    /// Names from the top-level column down to the leaf.
    pub path: Vec<String>,
    /// Number of the top-level column that it belongs to.
    pub root: usize,
    /// One chunk for each row group.
    pub chunks: Vec<Chunk>,
}

impl Column {
    /// The name of its top-level column.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.first().map_or("", String::as_str)
    }
}

/// A top-level column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Its schema elements; the root of the schema is element 0.
    pub elements: Range<usize>,
    /// Its leaves.
    pub leaves: Range<usize>,
}

/// A column chunk: one leaf of one row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// All pages, the dictionary first. Empty where there are none.
    pub range: Range<u64>,
    /// Values, nulls included.
    pub values: u64,
    /// `CompressionCodec` as `parquet.thrift` numbers it.
    pub codec: i64,
    /// Bytes of the pages before compression.
    pub uncompressed: u64,
    /// Where the bloom filter starts, and its length where the footer says it (since format 2.10).
    pub bloom_filter: Option<(u64, Option<u64>)>,
    /// The serialised `ColumnIndex`.
    pub column_index: Option<Range<u64>>,
    /// The serialised `OffsetIndex`.
    pub offset_index: Option<Range<u64>>,
}

impl Chunk {
    /// Everything that the footer points at for this chunk; a bloom filter of unknown length is left out.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let bloom_filter = self.bloom_filter.and_then(|(start, length)| Some(start..start + length?));
        [Some(self.range.clone()), bloom_filter, self.column_index.clone(), self.offset_index.clone()]
            .into_iter()
            .flatten()
    }
}

/// What the tree says about columns.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) columns: Vec<Column>,
    pub(super) roots: Vec<Root>,
    pub(super) row_group_rows: Vec<u64>,
}

/// Reads schema and row groups of a footer that starts at byte `end` of its file.
pub(super) fn describe(tree: &Struct, end: u64) -> Result<Described> {
    let (mut columns, roots) = schema(tree)?;
    let mut row_group_rows = Vec::new();
    for (number, group) in tree.structures(file::ROW_GROUPS).enumerate() {
        let rows = size(group, row_group::ROWS).context(|| format!("row group `{number}`"))?;
        row_group_rows.push(rows);
        let chunks = group.list(row_group::COLUMNS).unwrap_or_default();
        if chunks.len() != columns.len() {
            return Err(Error::corrupt(format!(
                "expected `{}` column chunks in row group `{number}`, found `{}`",
                columns.len(),
                chunks.len()
            )));
        }
        for (column, chunk) in columns.iter_mut().zip(group.structures(row_group::COLUMNS)) {
            let chunk = read_chunk(chunk, end)
                .context(|| format!("column `{}` of row group `{number}`", column.path.join(".")))?;
            column.chunks.push(chunk);
        }
    }
    let rows = size(tree, file::ROWS)?;
    let sum = row_group_rows.iter().try_fold(0_u64, |sum, rows| sum.checked_add(*rows));
    if sum != Some(rows) {
        let found = sum.map_or_else(|| "more than 2^64".to_owned(), |sum| sum.to_string());
        return Err(Error::corrupt(format!("expected `{rows}` rows, found `{found}` in the row groups"))
            .hint("readers differ in which number they believe: write the file again"));
    }
    refuse_overlaps(&columns)?;
    Ok(Described { columns, roots, row_group_rows })
}

/// The schema elements of a footer as leaves without chunks, and top-level columns.
pub(super) fn schema(tree: &Struct) -> Result<(Vec<Column>, Vec<Root>)> {
    let elements: Vec<&Struct> = tree.structures(file::SCHEMA).collect();
    let root = elements.first().ok_or_else(|| Error::corrupt("expected a schema, found no element"))?;
    let top = children(root)?;
    let (mut columns, mut roots) = (Vec::new(), Vec::new());
    let mut at = 1;
    for _ in 0..top {
        let (first_element, first_leaf) = (at, columns.len());
        // Groups that are open: how many of their children are still to come.
        let mut open: Vec<usize> = Vec::new();
        let mut path: Vec<String> = Vec::new();
        loop {
            let element = *elements.get(at).ok_or_else(|| {
                Error::corrupt(format!("expected more than the `{}` elements of the schema", elements.len()))
            })?;
            at += 1;
            let name = element.text(element::NAME);
            path.push(name.ok_or_else(|| Error::corrupt("a schema element has no name that is text"))?.to_owned());
            let below = children(element)?;
            if below > 0 {
                if open.len() >= DEEPEST {
                    return Err(Error::corrupt(format!("a schema of more than `{DEEPEST}` levels")));
                }
                open.push(below);
                continue;
            }
            columns.push(Column { path: path.clone(), root: roots.len(), chunks: Vec::new() });
            path.pop();
            while let Some(left) = open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                open.pop();
                path.pop();
            }
            if open.is_empty() {
                break;
            }
        }
        let name = columns[first_leaf].name().to_owned();
        roots.push(Root { name, elements: first_element..at, leaves: first_leaf..columns.len() });
    }
    if at != elements.len() {
        return Err(Error::corrupt(format!("expected `{at}` elements in the schema, found `{}`", elements.len())));
    }
    Ok((columns, roots))
}

fn children(element: &Struct) -> Result<usize> {
    let count = element.integer(element::CHILDREN).unwrap_or(0);
    usize::try_from(count).map_err(|_| Error::corrupt(format!("a schema element of `{count}` children")))
}

fn read_chunk(tree: &Struct, end: u64) -> Result<Chunk> {
    if tree.get(chunk::CRYPTO_METADATA).is_some() || tree.get(chunk::ENCRYPTED_METADATA).is_some() {
        return Err(encrypted("the column is encrypted"));
    }
    if let Some(path) = tree.binary(chunk::FILE_PATH)
        && !path.is_empty()
    {
        let path = path.escape_ascii();
        return Err(Error::invalid(format!("expected the column in this file, found that it lies in `{path}`"))
            .hint("this is the `_metadata` sidecar of a data set: leave it out, and delete it after the migration"));
    }
    let metadata =
        tree.structure(chunk::METADATA).ok_or_else(|| Error::corrupt("expected metadata of the column, found none"))?;
    let inside = |what: &str, start: u64, length: u64| {
        let range = start.checked_add(length).map(|stop| start..stop);
        range.filter(|range| range.start >= HEAD && range.end <= end).ok_or_else(|| {
            Error::corrupt(format!(
                "expected {what} between the bytes `{HEAD}` and `{end}`, found `{length}` bytes at `{start}`"
            ))
        })
    };
    let length = size(metadata, column::COMPRESSED_BYTES)?;
    let start = match metadata.integer(column::DICTIONARY_PAGE_OFFSET) {
        Some(_) => size(metadata, column::DICTIONARY_PAGE_OFFSET)?,
        None => size(metadata, column::DATA_PAGE_OFFSET)?,
    };
    let range = if length == 0 { start..start } else { inside("its pages", start, length)? };
    let index = |what: &str, offset: i16, length: i16| match (tree.get(offset), tree.get(length)) {
        (Some(_), Some(_)) if tree.integer(length) != Some(0) => {
            inside(what, size(tree, offset)?, size(tree, length)?).map(Some)
        }
        _ => Ok(None),
    };
    let optional = |id: i16| metadata.get(id).map(|_| size(metadata, id)).transpose();
    let bloom_filter = optional(column::BLOOM_FILTER_OFFSET)?.zip(Some(optional(column::BLOOM_FILTER_LENGTH)?));
    if let Some((start, length)) = bloom_filter {
        inside("its bloom filter", start, length.unwrap_or(1))?;
    }
    Ok(Chunk {
        range,
        values: size(metadata, column::VALUES)?,
        codec: metadata.integer(column::CODEC).unwrap_or(0),
        uncompressed: size(metadata, column::BYTES)?,
        bloom_filter,
        column_index: index("its column index", chunk::COLUMN_INDEX_OFFSET, chunk::COLUMN_INDEX_LENGTH)?,
        offset_index: index("its offset index", chunk::OFFSET_INDEX_OFFSET, chunk::OFFSET_INDEX_LENGTH)?,
    })
}

/// A required number that is not negative.
fn size(tree: &Struct, id: i16) -> Result<u64> {
    let value =
        tree.integer(id).ok_or_else(|| Error::corrupt(format!("expected a number in field `{id}`, found none")))?;
    u64::try_from(value).map_err(|_| Error::corrupt(format!("expected a size in field `{id}`, found `{value}`")))
}

fn refuse_overlaps(columns: &[Column]) -> Result<()> {
    let mut chunks: Vec<(&Range<u64>, &Column)> = columns
        .iter()
        .flat_map(|column| column.chunks.iter().map(move |chunk| (&chunk.range, column)))
        .filter(|(range, _)| !range.is_empty())
        .collect();
    chunks.sort_by_key(|(range, _)| (range.start, range.end));
    match chunks.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        None => Ok(()),
        Some(pair) => Err(Error::corrupt(format!(
            "expected column chunks apart from each other, found `{}` at `{:?}` and `{}` at `{:?}`",
            pair[0].1.path.join("."),
            pair[0].0,
            pair[1].1.path.join("."),
            pair[1].0
        ))),
    }
}
