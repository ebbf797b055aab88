//! Checksums of column chunks that a migration keeps, noted for verification.
//!
//! Inputs pass through anyway. The others are read for their checksum only where no older version will be left to compare
//! with and reading them is cheap: from local files, and of small objects that are read whole.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Migrations;
use super::fuse::Fused;
use crate::error::Result;
use crate::parquet::{File, Ranges};
use crate::store::ETag;

/// CRC-32C by row group and leaf: `0/temp`.
pub(super) type Checksums = BTreeMap<String, u32>;

/// Bytes read at once.
const SLICE: u64 = 16 << 20;

/// Kept chunks of a row group: name and place.
fn kept<'a>(file: &'a File, fused: &'a Fused, row_group: usize) -> impl Iterator<Item = (&'a str, String, Range<u64>)> {
    let change = &fused.change;
    let gone = |name: &str| {
        change.drops.iter().any(|drop| drop == name)
            || change.adds.iter().any(|add| add.replaces.as_deref() == Some(name))
    };
    let columns = file.columns().iter().filter(move |column| !gone(column.name()));
    columns.filter_map(move |column| {
        let chunk = column.chunks.get(row_group).filter(|chunk| !chunk.range.is_empty())?;
        Some((column.name(), format!("{row_group}/{}", column.path.join(".")), chunk.range.clone()))
    })
}

/// Notes the inputs of a row group that are kept.
pub(super) fn note(
    file: &File,
    fused: &Fused,
    row_group: usize,
    fetched: &Ranges,
    checksums: &mut Checksums,
) -> Result<()> {
    // The pages of no rows are not read.
    if file.row_group_rows(row_group) == 0 {
        return Ok(());
    }
    for (column, name, range) in kept(file, fused, row_group) {
        if fused.reads.iter().any(|read| read == column) {
            checksums.insert(name, crc32c::crc32c(&fetched.get(range)?));
        }
    }
    Ok(())
}

/// Notes every chunk that is kept, of a file that is here whole.
pub(super) fn note_all(file: &File, fused: &Fused, whole: &Ranges, checksums: &mut Checksums) -> Result<()> {
    for row_group in 0..file.row_groups() {
        for (_, name, range) in kept(file, fused, row_group) {
            checksums.insert(name, crc32c::crc32c(&whole.get(range)?));
        }
    }
    Ok(())
}

impl Migrations {
    /// Reads and notes every chunk that is kept and not noted yet; says how many bytes were read.
    pub(super) async fn note_kept(
        &self,
        file: &File,
        fused: &Fused,
        etag: &ETag,
        checksums: &mut Checksums,
    ) -> Result<u64> {
        let chunks: Vec<_> = (0..file.row_groups()).flat_map(|row_group| kept(file, fused, row_group)).collect();
        let chunks: Vec<_> = chunks.into_iter().filter(|(_, name, _)| !checksums.contains_key(name)).collect();
        let (mut read, mut next) = (0, 0);
        while next < chunks.len() {
            let (start, mut bytes) = (next, 0);
            while next < chunks.len() && (next == start || bytes < SLICE) {
                bytes += chunks[next].2.end - chunks[next].2.start;
                next += 1;
            }
            let slice = &chunks[start..next];
            let ranges: Vec<_> = slice.iter().map(|(_, _, range)| range.clone()).collect();
            let found = self.data.get_ranges(file.name(), &ranges, Some(etag)).await?;
            for ((_, name, _), bytes) in slice.iter().zip(found) {
                checksums.insert(name.clone(), crc32c::crc32c(&bytes));
            }
            read += bytes;
        }
        Ok(read)
    }
}
