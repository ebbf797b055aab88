//! Where the bytes of the rewritten file come to lie.
//!
//! Page indexes are written together behind everything else, since readers fetch one span from the first to the last of
//! them. Offset indexes hold absolute offsets, so those of moved and of new chunks are edited; column indexes hold none.

use std::ops::Range;

use bytes::Bytes;

use super::Ranges;
use super::columns::Chunk;
use super::encoded::EncodedChunk;
use super::fields::{bloom_filter, offset_index};
use super::file::{File, HEAD};
use super::thrift::{Struct, Value};
use crate::error::{Context, Error, Result};
use crate::store::Piece;

/// Where a leaf of the result comes from: the number of a leaf of the file, or of the new columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaf {
    Kept(usize),
    New(usize),
}

/// Where one chunk of the result lies, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    /// Where it was, as its metadata say.
    pub(super) was: u64,
    /// Its pages.
    pub(super) range: Range<u64>,
    pub(super) bloom_filter: Option<Range<u64>>,
    pub(super) column_index: Option<Range<u64>>,
    pub(super) offset_index: Option<Range<u64>>,
}

/// The content of the new file so far.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) pieces: Vec<Piece>,
    pub(super) length: u64,
}

impl Content {
    /// Takes bytes of the old file over; what follows the last copied range becomes one piece with it.
    fn copy(&mut self, range: Range<u64>) -> Range<u64> {
        let start = self.length;
        self.length += range.end - range.start;
        match self.pieces.last_mut() {
            _ if range.is_empty() => {}
            Some(Piece::Copy(last)) if last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece::Copy(range)),
        }
        start..self.length
    }

    /// Adds new bytes.
    pub(super) fn bytes(&mut self, bytes: Bytes) -> Range<u64> {
        let start = self.length;
        self.length += bytes.len() as u64;
        if !bytes.is_empty() {
            self.pieces.push(Piece::Bytes(bytes));
        }
        start..self.length
    }
}

/// What a layout places.
pub(super) struct Placing<'a> {
    pub(super) file: &'a File,
    /// The leaves of the result.
    pub(super) leaves: &'a [Leaf],
    /// `[row group][new leaf]`.
    pub(super) new: &'a [Vec<EncodedChunk>],
    /// What was read of [`File::index_ranges`].
    pub(super) indexes: &'a Ranges,
}

impl Placing<'_> {
    /// The whole old file, then what is new.
    pub(super) fn widened(&self) -> Result<(Content, Vec<Vec<Placed>>)> {
        let mut content = Content::default();
        content.copy(0..self.file.length());
        let mut placed = Vec::with_capacity(self.file.row_groups());
        for row_group in 0..self.file.row_groups() {
            let mut chunks = Vec::with_capacity(self.leaves.len());
            for &leaf in self.leaves {
                chunks.push(match leaf {
                    Leaf::Kept(leaf) => {
                        let chunk = self.kept(row_group, leaf);
                        Placed {
                            was: chunk.range.start,
                            range: chunk.range.clone(),
                            // The length is not used: the footer keeps what it says of it.
                            bloom_filter: chunk.bloom_filter.map(|(start, length)| start..start + length.unwrap_or(0)),
                            column_index: chunk.column_index.clone(),
                            offset_index: chunk.offset_index.clone(),
                        }
                    }
                    Leaf::New(leaf) => self.place_new(row_group, leaf, &mut content),
                });
            }
            placed.push(chunks);
        }
        for (row_group, chunks) in placed.iter_mut().enumerate() {
            for (chunk, &leaf) in chunks.iter_mut().zip(self.leaves) {
                if let Leaf::New(leaf) = leaf {
                    chunk.bloom_filter = self.place_new_filter(row_group, leaf, &mut content);
                }
            }
        }
        // Where no new index comes, the old ones are together already.
        let chunks = self.new.iter().flatten();
        if chunks.into_iter().any(|chunk| chunk.column_index.is_some() || chunk.offset_index.is_some()) {
            self.place_indexes(&mut content, &mut placed)?;
        }
        Ok((content, placed))
    }

    /// Row group by row group, the leaves in their order, then their bloom filters.
    pub(super) fn contiguous(&self) -> Result<(Content, Vec<Vec<Placed>>)> {
        let mut content = Content::default();
        content.copy(0..HEAD);
        let mut placed = Vec::with_capacity(self.file.row_groups());
        for row_group in 0..self.file.row_groups() {
            let mut chunks = Vec::with_capacity(self.leaves.len());
            for &leaf in self.leaves {
                chunks.push(match leaf {
                    Leaf::Kept(leaf) => {
                        let chunk = self.kept(row_group, leaf);
                        Placed {
                            was: chunk.range.start,
                            range: content.copy(chunk.range.clone()),
                            bloom_filter: None,
                            column_index: None,
                            offset_index: None,
                        }
                    }
                    Leaf::New(leaf) => self.place_new(row_group, leaf, &mut content),
                });
            }
            for (chunk, &leaf) in chunks.iter_mut().zip(self.leaves) {
                chunk.bloom_filter = match leaf {
                    Leaf::Kept(leaf) => match self.kept(row_group, leaf).bloom_filter {
                        Some((start, length)) => Some(content.copy(self.bloom_filter(start, length)?)),
                        None => None,
                    },
                    Leaf::New(leaf) => self.place_new_filter(row_group, leaf, &mut content),
                };
            }
            placed.push(chunks);
        }
        self.place_indexes(&mut content, &mut placed)?;
        Ok((content, placed))
    }

    fn kept(&self, row_group: usize, leaf: usize) -> &Chunk {
        &self.file.columns()[leaf].chunks[row_group]
    }

    fn place_new(&self, row_group: usize, leaf: usize, content: &mut Content) -> Placed {
        let chunk = &self.new[row_group][leaf];
        let range = content.bytes(chunk.bytes.clone());
        Placed { was: chunk.start, range, bloom_filter: None, column_index: None, offset_index: None }
    }

    fn place_new_filter(&self, row_group: usize, leaf: usize, content: &mut Content) -> Option<Range<u64>> {
        self.new[row_group][leaf].bloom_filter.clone().map(|filter| content.bytes(filter))
    }

    /// All column indexes, then all offset indexes.
    fn place_indexes(&self, content: &mut Content, placed: &mut [Vec<Placed>]) -> Result<()> {
        for (row_group, chunks) in placed.iter_mut().enumerate() {
            for (chunk, &leaf) in chunks.iter_mut().zip(self.leaves) {
                let bytes = match leaf {
                    Leaf::Kept(leaf) => self.fetched(self.kept(row_group, leaf).column_index.as_ref())?,
                    Leaf::New(leaf) => self.new[row_group][leaf].column_index.clone(),
                };
                chunk.column_index = bytes.map(|bytes| content.bytes(bytes));
            }
        }
        for (row_group, chunks) in placed.iter_mut().enumerate() {
            for (chunk, &leaf) in chunks.iter_mut().zip(self.leaves) {
                let bytes = match leaf {
                    Leaf::Kept(leaf) => self.fetched(self.kept(row_group, leaf).offset_index.as_ref())?,
                    Leaf::New(leaf) => self.new[row_group][leaf].offset_index.clone(),
                };
                let bytes = bytes.map(|bytes| moved(&bytes, chunk.was, chunk.range.start)).transpose();
                let bytes = bytes.context(|| format!("offset index of row group `{row_group}`"))?;
                chunk.offset_index = bytes.map(|bytes| content.bytes(bytes));
            }
        }
        Ok(())
    }

    fn fetched(&self, range: Option<&Range<u64>>) -> Result<Option<Bytes>> {
        range.map(|range| self.indexes.get(range.clone())).transpose()
    }

    /// The bytes of a bloom filter, whose length its header says where the footer does not.
    fn bloom_filter(&self, start: u64, length: Option<u64>) -> Result<Range<u64>> {
        let length = if let Some(length) = length {
            length
        } else {
            let (header, read) =
                Struct::read(&self.indexes.tail(start)?).context(|| format!("bloom filter at byte `{start}`"))?;
            let bytes = header.integer(bloom_filter::BYTES).and_then(|bytes| u64::try_from(bytes).ok());
            bytes.ok_or_else(|| Error::corrupt(format!("the bloom filter at byte `{start}` has no length")))?
                + read as u64
        };
        let end = start.checked_add(length).filter(|end| *end <= self.file.footer_start());
        let end = end.ok_or_else(|| {
            Error::corrupt(format!("expected a bloom filter inside the file, found `{length}` bytes at `{start}`"))
        })?;
        Ok(start..end)
    }
}

/// An offset index whose chunk moves from one place to another.
pub(super) fn moved(bytes: &Bytes, from: u64, to: u64) -> Result<Bytes> {
    if from == to {
        return Ok(bytes.clone());
    }
    let (mut tree, _) = Struct::read(bytes)?;
    if let Some(Value::List(locations)) = tree.get_mut(offset_index::LOCATIONS) {
        for location in &mut locations.values {
            let Value::Struct(location) = location else { continue };
            move_offset(location, offset_index::OFFSET, from, to)?;
        }
    }
    Ok(tree.to_bytes())
}

/// Moves the offset in a field, where there is one, as far as its chunk moves. Some writers say 0 where there is no such page.
pub(super) fn move_offset(tree: &mut Struct, id: i16, from: u64, to: u64) -> Result<()> {
    let Some(offset) = tree.integer(id).filter(|offset| from != to && *offset != 0) else { return Ok(()) };
    let offset = u64::try_from(offset).ok().and_then(|offset| offset.checked_sub(from)?.checked_add(to));
    let offset = offset.and_then(|offset| i64::try_from(offset).ok()).ok_or_else(|| {
        Error::corrupt(format!("expected offsets from byte `{from}` on, found `{:?}`", tree.integer(id)))
    })?;
    tree.set(id, Value::I64(offset));
    Ok(())
}
