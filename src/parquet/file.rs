//! One Parquet file as its footer describes it.
//!
//! # Problem
//! A scan looks at thousands of footers, a rewrite edits one, and both must not be led astray by a footer that lies: what it
//! says ends up in `UploadPartCopy` ranges.
//!
//! # Design
//! [`File::parse`] is pure: it gets the last bytes of an object and says when it needs more of them. The footer is read twice,
//! as a generic tree ([`super::thrift`]) for editing and by the `parquet` crate for decoding, and both must agree on
//! rows, leaves and the bytes of every chunk. Chunks, page indexes and bloom filters must lie inside the file, and no
//! chunk on another.
//!
//! # Caveats
//! * Refused as [`Kind::Invalid`]: encrypted files (their pages are bound to their ordinals), `_metadata` sidecars (their
//!   chunks lie in other files), what is not Parquet. As [`Kind::Corrupt`]: footers that contradict themselves.
//! * An `ARROW:schema` that contradicts the Parquet schema is ignored for [`File::schema`]; an edit drops it
//!   ([`super::key_values`]).
//!
//! # Testing
//! `tests/rust/parquet.rs`: every sample file, truncated ones, thousands of mutants.
//!
//! [`Kind::Invalid`]: crate::error::Kind::Invalid
//! [`Kind::Corrupt`]: crate::error::Kind::Corrupt

use std::ops::Range;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;

use super::columns::{Chunk, Column, Root};
use super::fields::{file, key_value};
use super::ranges::merged;
use super::thrift::Struct;
use super::{agreement, columns};
use crate::error::{Context, Error, Result};

/// The magic number and the length of the footer, at the end of the file.
pub const TAIL: u64 = 8;
/// The magic number at the start.
pub(super) const HEAD: u64 = 4;
/// What is worth reading at once before the length of the footer is known: the footers of most files, one request.
pub const FIRST_READ: u64 = 64 << 10;
/// More than any header of a bloom filter has.
pub(super) const BLOOM_FILTER_HEADER: u64 = 64;
/// A footer of 10,000 columns and 100 row groups has 150 MB.
const LARGEST_FOOTER: u64 = 256 << 20;

/// What the last bytes of an object gave.
#[derive(Debug, Clone)]
pub enum Parsed {
    /// The footer was whole.
    File(File),
    /// So many bytes of the end are needed.
    Needs(u64),
}

/// The footer of one file; cheap to clone.
#[derive(Debug, Clone)]
pub struct File(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    length: u64,
    footer_length: u64,
    tree: Struct,
    columns: Vec<Column>,
    roots: Vec<Root>,
    row_group_rows: Vec<u64>,
    schema: SchemaRef,
    schema_fault: Option<String>,
    metadata: Arc<ParquetMetaData>,
}

impl File {
    /// Reads the footer of the object `name` of `length` bytes, of which `tail` are the last.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`] for what is not Parquet, encrypted, or the sidecar of a data set;
    /// [`crate::error::Kind::Corrupt`] for what contradicts itself. The message names the file.
    pub fn parse(name: &str, length: u64, tail: &[u8]) -> Result<Parsed> {
        Self::parse_tail(name, length, tail).context(|| format!("`{name}`"))
    }

    fn parse_tail(name: &str, length: u64, tail: &[u8]) -> Result<Parsed> {
        if length < HEAD + TAIL {
            return Err(not_parquet(&format!("expected at least `12` bytes, found `{length}`")));
        }
        let tail = &tail[tail.len().saturating_sub(usize::try_from(length).unwrap_or(usize::MAX))..];
        let Some((rest, &[a, b, c, d, ref magic @ ..])) = tail.split_last_chunk::<8>() else {
            return Ok(Parsed::Needs(length.min(FIRST_READ)));
        };
        match magic {
            b"PAR1" => {}
            b"PARE" => return Err(encrypted("the footer is encrypted (magic number `PARE`)")),
            magic => {
                let found = magic.escape_ascii();
                return Err(not_parquet(&format!("expected the magic number `PAR1` at the end, found `{found}`")));
            }
        }
        if tail.len() as u64 == length && !tail.starts_with(b"PAR1") {
            let found = tail[..4].escape_ascii();
            return Err(not_parquet(&format!("expected the magic number `PAR1` at the start, found `{found}`")));
        }
        let footer_length = u64::from(u32::from_le_bytes([a, b, c, d]));
        if footer_length > length - HEAD - TAIL {
            return Err(Error::corrupt(format!(
                "expected a footer within the `{length}` bytes of the file, found a length of `{footer_length}`"
            ))
            .hint("the file was cut or overwritten: write it again"));
        }
        if footer_length > LARGEST_FOOTER {
            return Err(Error::invalid(format!(
                "expected a footer of at most `{LARGEST_FOOTER}` bytes, found `{footer_length}`"
            )));
        }
        let Some(start) = rest.len().checked_sub(footer_length as usize) else {
            return Ok(Parsed::Needs(footer_length + TAIL));
        };
        Self::from_footer(name, length, &Bytes::copy_from_slice(&rest[start..])).map(Parsed::File)
    }

    /// A file of `length` bytes that ends in `footer`, the length of it and the magic number.
    pub(super) fn from_footer(name: &str, length: u64, footer: &Bytes) -> Result<Self> {
        let (tree, read) = Struct::read(footer).context(|| "footer")?;
        if tree.get(file::ENCRYPTION_ALGORITHM).is_some() {
            return Err(encrypted("columns are encrypted under a plain footer"));
        }
        if read != footer.len() {
            return Err(Error::corrupt(format!(
                "expected a footer of `{}` bytes, found that its metadata end after `{read}`",
                footer.len()
            )));
        }
        let footer_start = length - TAIL - footer.len() as u64;
        let described = columns::describe(&tree, footer_start)?;
        let metadata = agreement::decode(footer)?;
        agreement::check(&metadata, &described)?;
        let (schema, schema_fault) = agreement::schema(&metadata)?;
        let columns::Described { columns, roots, row_group_rows } = described;
        Ok(Self(Arc::new(Inner {
            name: name.to_owned(),
            length,
            footer_length: footer.len() as u64,
            tree,
            columns,
            roots,
            row_group_rows,
            schema,
            schema_fault,
            metadata: Arc::new(metadata),
        })))
    }

    /// What the file was called when it was parsed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.length
    }

    /// Bytes of the Thrift metadata, without the eight that follow it.
    #[must_use]
    pub fn footer_length(&self) -> u64 {
        self.0.footer_length
    }

    /// Where the metadata start.
    #[must_use]
    pub fn footer_start(&self) -> u64 {
        self.0.length - TAIL - self.0.footer_length
    }

    /// Rows of all row groups.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.row_group_rows.iter().sum()
    }

    /// How many row groups there are.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.0.row_group_rows.len()
    }

    /// Rows of one row group; none past the last.
    #[must_use]
    pub fn row_group_rows(&self, row_group: usize) -> u64 {
        self.0.row_group_rows.get(row_group).copied().unwrap_or_default()
    }

    /// The Arrow schema, without key-values: what `ARROW:schema` says where it agrees with the Parquet types.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// Why `ARROW:schema` is not what [`File::schema`] says, where it is not.
    #[must_use]
    pub fn schema_fault(&self) -> Option<&str> {
        self.0.schema_fault.as_deref()
    }

    /// The leaves, in the order of the schema.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.0.columns
    }

    /// The top-level columns, in the order of the schema.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.0.roots
    }

    /// The first value of a key of the footer; nothing where it has none or is not text.
    #[must_use]
    pub fn key_value(&self, key: &str) -> Option<&str> {
        self.key_values().find(|(found, _)| *found == key).and_then(|(_, value)| value)
    }

    /// Keys and values of the footer that are text.
    pub fn key_values(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0
            .tree
            .structures(file::KEY_VALUES)
            .filter_map(|entry| Some((entry.text(key_value::KEY)?, entry.text(key_value::VALUE))))
    }

    /// The program that wrote the file.
    #[must_use]
    pub fn created_by(&self) -> Option<&str> {
        self.0.tree.text(file::CREATED_BY)
    }

    /// The footer as a tree.
    #[must_use]
    pub fn tree(&self) -> &Struct {
        &self.0.tree
    }

    /// The footer as the `parquet` crate reads it, without page indexes.
    #[must_use]
    pub fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.0.metadata
    }

    /// Everything that the footer points at, sorted: chunks, bloom filters of known length, page indexes. None empty.
    #[must_use]
    pub fn live_ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<_> = self.chunks().flat_map(Chunk::ranges).filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        ranges
    }

    /// What a rewrite reads besides the input columns: page indexes, and the headers of bloom filters whose length the
    /// footer does not say. Sorted, none overlapping another; what touches is one range.
    #[must_use]
    pub fn index_ranges(&self) -> Vec<Range<u64>> {
        let end = self.footer_start();
        let indexes = self.chunks().flat_map(|chunk| {
            let header = match chunk.bloom_filter {
                Some((start, None)) => Some(start..end.min(start + BLOOM_FILTER_HEADER)),
                _ => None,
            };
            [chunk.column_index.clone(), chunk.offset_index.clone(), header].into_iter().flatten()
        });
        merged(indexes)
    }

    /// About how many bytes the bloom filters have whose length the footer does not say: up to what comes next.
    pub(super) fn unmeasured_bloom_bytes(&self) -> u64 {
        let mut starts: Vec<u64> = self.live_ranges().iter().map(|range| range.start).collect();
        let filters: Vec<u64> = self
            .chunks()
            .filter_map(|chunk| chunk.bloom_filter)
            .filter(|filter| filter.1.is_none())
            .map(|filter| filter.0)
            .collect();
        starts.extend(&filters);
        starts.push(self.footer_start());
        starts.sort_unstable();
        let next = |start: u64| starts[starts.partition_point(|other| *other <= start)..].first().copied();
        filters.iter().map(|&start| next(start).unwrap_or(start) - start).sum()
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.0.columns.iter().flat_map(|column| &column.chunks)
    }
}

fn not_parquet(message: &str) -> Error {
    Error::invalid(format!("not a Parquet file: {message}")).hint("leave it out of the data set, or write it again")
}

pub(super) fn encrypted(message: &str) -> Error {
    Error::invalid(format!("{message}: encrypted files cannot be migrated"))
        .hint("pages are bound to their place by encryption: write the file again without it, or leave it out")
}
