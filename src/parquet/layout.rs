//! Which layout a rewritten file gets.
//!
//! # Problem
//! Appending new chunks behind the whole old file moves the fewest bytes and leaves the old file readable, but a reader that
//! cuts files into splits loses a row group whose first leaf lies in the tail, and bytes that nothing refers to pile up.
//!
//! # Design
//! *Widened*: the old file, its footer included, is an exact prefix; new chunks, page indexes and the new footer follow.
//! *Contiguous*: the encoded chunks that stay are copied and the new ones put between them; nothing is dead.
//!
//! `auto` widens unless
//! * the **midpoint rule** would fail: parquet-java (Spark, Hive) gives a row group to the split that holds
//!   `start(first leaf) + total_compressed_size / 2`, and when that passes the end of the file no split owns it and its rows
//!   are silently lost. With the first leaf in the old body it always holds; a recast or new first leaf lies in the tail;
//! * too many bytes would be dead: dropped and recast chunks, old footers and page indexes, those of earlier widenings
//!   too. They are counted from what the footer refers to, so no counter has to be kept.
//!
//! A recast column keeps its place in the schema and in the row groups while its chunk lies in the tail: readers go by
//! offsets, and consecutive chunks are only ever a reason to read more at once.
//!
//! # Caveats
//! * Bytes that are dead can still be read by who looks for them: erase with `contiguous`, and delete the old versions.
//! * parquet-cpp before 1.2.9 wrote chunk sizes that leave out the header of the dictionary (PARQUET-816). Readers read a
//!   little past such chunks, so they are never moved: those files are widened or refused.
//!
//! Source of the midpoint rule: `ParquetMetadataConverter.filterFileMetaDataByMidpoint` of apache/parquet-java; found by
//! losing 100,000 rows in Spark 4.3.

use serde::{Deserialize, Serialize};

use super::change::{Change, Origin, Target};
use super::file::{File, HEAD, TAIL};
use super::key_values;
use crate::error::{Error, Result};

/// More dead bytes than this part of the file are too many …
const DEAD_PART: f64 = 0.25;
/// … where they are worth a rewrite at all …
const DEAD_FLOOR: u64 = 256 << 10;
/// … and so many always are.
const DEAD_MOST: u64 = 1 << 30;

/// How a rewritten file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Widened where nothing is against it.
    #[default]
    Auto,
    /// The old file is an exact prefix.
    Widened,
    /// No dead bytes.
    Contiguous,
}

/// The layout of one file, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Never [`Layout::Auto`].
    pub layout: Layout,
    /// Why this one, for people.
    pub reason: String,
    /// Bytes of the result that nothing refers to (estimated; exact once rewritten but for the footer).
    pub dead_bytes: u64,
    /// Bytes of the old file that the new one takes over.
    pub copied_bytes: u64,
    /// What happens to key-values that cannot be kept true, for people.
    pub notes: Vec<String>,
}

/// Chooses the layout; pure, for planning. `new_bytes` is what the new chunks are expected to take in the whole file.
///
/// `wanted` is followed, but a file is never widened against the midpoint rule: it becomes contiguous, with the reason.
///
/// # Errors
/// [`crate::error::Kind::Invalid`] when the change does not fit the file: columns that it does not have, names that are
/// taken, types that Parquet cannot hold, chunks that cannot be moved.
pub fn decide(file: &File, change: &Change, new_bytes: u64, wanted: Layout) -> Result<Decision> {
    let targets = change.targets(file)?;
    change.added_schema()?;
    let notes = key_values::edit(file, &targets, change).notes;
    let sizes = Sizes::of(file, &targets);
    let dead = sizes.dead_when_widened(file);
    let length = file.length().saturating_add(new_bytes).saturating_add(file.footer_length() + TAIL);
    let too_many = dead > DEAD_MOST || (dead > DEAD_FLOOR && dead as f64 > DEAD_PART * length as f64);
    let against = against_widening(file, &targets);
    let decision = |layout, reason: String| {
        let widened = layout == Layout::Widened;
        Decision {
            layout,
            reason,
            dead_bytes: if widened { dead } else { 0 },
            copied_bytes: if widened { file.length() } else { sizes.kept.saturating_add(HEAD) },
            notes: notes.clone(),
        }
    };
    let chosen = match (wanted, against) {
        (Layout::Contiguous, _) => decision(Layout::Contiguous, "as configured".into()),
        (Layout::Auto, Some(against)) => decision(Layout::Contiguous, against),
        (Layout::Widened, Some(against)) => {
            decision(Layout::Contiguous, format!("`widened` is configured, but {against}"))
        }
        (Layout::Widened, None) => decision(Layout::Widened, "as configured".into()),
        (Layout::Auto, None) if too_many && !movable(file) => decision(
            Layout::Widened,
            format!("`{dead}` dead bytes, but chunks of parquet-cpp before 1.2.9 cannot move"),
        ),
        (Layout::Auto, None) if too_many => {
            decision(Layout::Contiguous, format!("widened, `{dead}` of about `{length}` bytes would be dead"))
        }
        (Layout::Auto, None) => decision(Layout::Widened, "the first leaf stays, and few bytes are dead".into()),
    };
    if chosen.layout == Layout::Contiguous && !movable(file) {
        return Err(Error::invalid(format!(
            "`{}`: the chunks cannot be moved: `{}` wrote sizes that are too small (PARQUET-816), and the file cannot be \
             widened: {}",
            file.name(),
            file.created_by().unwrap_or_default(),
            chosen.reason
        ))
        .hint("write the file again with a newer program"));
    }
    Ok(chosen)
}

/// Why the file may not be widened.
fn against_widening(file: &File, targets: &[Target]) -> Option<String> {
    let first = targets.first()?;
    let Origin::Kept(root) = first.origin else {
        let how = if matches!(first.origin, Origin::Recast { .. }) { "recast" } else { "new" };
        return Some(format!("the first leaf is {how} (`{}`): Spark would lose rows", first.name));
    };
    let leaf = &file.columns()[file.roots()[root].leaves.start];
    let kept = |row_group: usize| {
        let kept = targets.iter().filter_map(|target| match target.origin {
            Origin::Kept(root) => Some(&file.columns()[file.roots()[root].leaves.clone()]),
            _ => None,
        });
        kept.flatten()
            .map(|column| column.chunks[row_group].range.end - column.chunks[row_group].range.start)
            .sum::<u64>()
    };
    let lost = leaf.chunks.iter().enumerate().find(|(row_group, chunk)| {
        // The new chunks of one row group are at most all that comes after the old file.
        chunk.range.start.saturating_add(kept(*row_group) / 2) >= file.length()
    })?;
    Some(format!("the first leaf of row group `{}` lies too far back: Spark would lose its rows", lost.0))
}

/// Whether the byte ranges of the chunks are all that readers need.
fn movable(file: &File) -> bool {
    let version = file.created_by().and_then(|text| text.strip_prefix("parquet-cpp version "));
    let Some(version) = version else { return true };
    let parts: Vec<u64> = version
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|part| part.parse().ok())
        .take(3)
        .collect();
    parts >= vec![1, 2, 9]
}

/// What becomes of the bytes of the old file.
struct Sizes {
    /// Chunks, bloom filters and page indexes that stay.
    kept: u64,
    /// Those of columns that go or are recast.
    dropped: u64,
    /// Page indexes of what stays, which are written again when new columns have some too.
    indexes: u64,
}

impl Sizes {
    fn of(file: &File, targets: &[Target]) -> Self {
        let mut sizes = Self { kept: 0, dropped: 0, indexes: 0 };
        let mut stays = vec![false; file.roots().len()];
        let mut comes = false;
        for target in targets {
            match target.origin {
                Origin::Kept(root) => stays[root] = true,
                _ => comes = true,
            }
        }
        for column in file.columns() {
            for chunk in &column.chunks {
                let bytes: u64 = chunk.ranges().map(|range| range.end - range.start).sum();
                if stays[column.root] {
                    sizes.kept = sizes.kept.saturating_add(bytes);
                    let indexes = [&chunk.column_index, &chunk.offset_index].into_iter().flatten();
                    sizes.indexes += if comes { indexes.map(|range| range.end - range.start).sum() } else { 0 };
                } else {
                    sizes.dropped = sizes.dropped.saturating_add(bytes);
                }
            }
        }
        sizes
    }

    fn dead_when_widened(&self, file: &File) -> u64 {
        let live: u64 = self.kept + self.dropped + file.unmeasured_bloom_bytes();
        let dead_now = file.footer_start().saturating_sub(HEAD).saturating_sub(live);
        dead_now + self.dropped + self.indexes + file.footer_length() + TAIL
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatch;
    use bytes::Bytes;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

    use super::super::encode::{Encoder, Settings};
    use super::super::fields::{chunk, column, file as ids, row_group};
    use super::super::thrift::{Struct, Value};
    use super::super::{Add, EncodedColumns, Parsed, Ranges, rewrite, samples};
    use super::*;

    fn parsed(bytes: &Bytes) -> File {
        match File::parse("a.parquet", bytes.len() as u64, bytes).unwrap() {
            Parsed::File(file) => file,
            Parsed::Needs(more) => panic!("{more}"),
        }
    }

    /// The file with another footer.
    fn with_footer(bytes: &Bytes, tree: &Struct) -> Bytes {
        let footer = tree.to_bytes();
        let mut content = bytes[..parsed(bytes).footer_start() as usize].to_vec();
        content.extend_from_slice(&footer);
        content.extend((footer.len() as u32).to_le_bytes());
        content.extend(b"PAR1");
        content.into()
    }

    /// Columns of unequal size, c2 and c3 large, with page indexes and bloom filters.
    fn source() -> Bytes {
        let properties = WriterProperties::builder()
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_bloom_filter_enabled(true)
            .set_dictionary_enabled(false);
        samples::file(&[samples::batch(&[3, 8, 0, 11, 11], 60_000, 1)], properties.build())
    }

    fn apply(old: &Bytes, change: &Change, new: &[RecordBatch], wanted: Layout) -> (Bytes, Decision) {
        let file = parsed(old);
        let fields: Vec<_> = change.adds.iter().map(|add| add.field.clone()).collect();
        let mut encoded = EncodedColumns { fields: Vec::new(), footer: Bytes::new(), row_groups: Vec::new() };
        if !fields.is_empty() {
            let mut columns = Encoder::new(&file, &fields, &Settings::default()).unwrap();
            new.iter().try_for_each(|batch| columns.row_group(batch)).unwrap();
            encoded = columns.finish().unwrap();
        }
        let slice = |range: &std::ops::Range<u64>| old.slice(range.start as usize..range.end as usize);
        let parts = file.index_ranges().into_iter().map(|range| (range.clone(), slice(&range)));
        let decision = decide(&file, change, encoded.bytes(), wanted).unwrap();
        let mut content = Vec::new();
        for piece in rewrite(&file, &Ranges::new(parts).unwrap(), change, encoded, &decision).unwrap() {
            match piece {
                crate::store::Piece::Copy(range) => content.extend_from_slice(&slice(&range)),
                crate::store::Piece::Bytes(bytes) => content.extend_from_slice(&bytes),
            }
        }
        (content.into(), decision)
    }

    fn recast(seed: u64) -> (Change, Vec<RecordBatch>) {
        let batch = samples::batch(&[3, 8, 0, 11], 60_000, seed).project(&[2]).unwrap();
        let field = batch.schema().field(0).clone();
        (Change { adds: vec![Add { field, replaces: Some("c2".into()) }], ..Change::default() }, vec![batch])
    }

    #[test]
    fn dead_bytes_add_up_over_widenings_until_they_are_too_many() {
        let mut bytes = source();
        let mut seen = Vec::new();
        for seed in 0..6 {
            let (change, new) = recast(seed);
            let old = parsed(&bytes);
            let (result, decision) = apply(&bytes, &change, &new, Layout::Auto);
            let file = parsed(&result);
            let live: u64 = file.live_ranges().iter().map(|range| range.end - range.start).sum();
            let dead = file.footer_start() - HEAD - live;
            // What was foreseen is what is dead.
            assert_eq!(decision.dead_bytes, dead, "{decision:?}");
            if decision.layout == Layout::Widened {
                assert!(dead > old.footer_length() && decision.copied_bytes == old.length());
            } else {
                assert!(decision.reason.contains("would be dead"), "{}", decision.reason);
                assert!(result.len() < bytes.len(), "{seen:?}: {} {} {decision:?}", result.len(), bytes.len());
            }
            seen.push(decision.layout);
            bytes = result;
        }
        let contiguous = seen.iter().position(|layout| *layout == Layout::Contiguous);
        assert!(contiguous.is_some() && seen[0] == Layout::Widened, "{seen:?}");
        // Afterwards it starts again.
        assert!(seen[contiguous.unwrap() + 1..].contains(&Layout::Widened), "{seen:?}");
    }

    #[test]
    fn chunks_of_a_writer_that_counted_wrongly_are_never_moved() {
        let bytes = source();
        let file = parsed(&bytes);
        for (created_by, moves) in [
            ("parquet-cpp version 1.0.0", false),
            ("parquet-cpp version 1.2.8-SNAPSHOT", false),
            ("parquet-cpp version 1.2.9", true),
            ("parquet-cpp version 1.5.1", true),
            ("parquet-cpp-arrow version 1.0.0", true),
            ("parquet-mr version 1.0.0", true),
        ] {
            let mut tree = file.tree().clone();
            tree.set(ids::CREATED_BY, Value::text(created_by));
            let file = parsed(&with_footer(&bytes, &tree));
            let change = Change { drops: vec!["c3".into()], ..Change::default() };
            assert_eq!(decide(&file, &change, 0, Layout::Contiguous).is_ok(), moves, "{created_by}");
            decide(&file, &change, 0, Layout::Auto).unwrap();
            let (first, _) = recast(1);
            let field = first.adds[0].field.clone().with_name("c0");
            let first = Change { adds: vec![Add { field, replaces: Some("c0".into()) }], ..first };
            let decided = decide(&file, &first, 0, Layout::Auto);
            assert_eq!(decided.is_ok(), moves);
            if let Err(error) = decided {
                assert!(error.message().contains("PARQUET-816") && error.kind() == crate::error::Kind::Invalid);
            }
        }
    }
    #[test]
    fn bloom_filters_whose_length_only_their_header_says_are_measured_and_moved() {
        let bytes = source();
        let file = parsed(&bytes);
        let mut tree = file.tree().clone();
        let mut groups: Vec<Struct> = tree.structures(ids::ROW_GROUPS).cloned().collect();
        let Some(Value::List(chunks)) = groups[0].get_mut(row_group::COLUMNS) else { panic!("no chunks") };
        for chunk in &mut chunks.values {
            let Value::Struct(chunk) = chunk else { panic!("no chunk") };
            chunk.structure_mut(chunk::METADATA).unwrap().remove(column::BLOOM_FILTER_LENGTH).unwrap();
        }
        tree.set_structures(ids::ROW_GROUPS, groups);
        let unmeasured = with_footer(&bytes, &tree);
        let told = |file: &File| -> Vec<u64> {
            file.columns().iter().filter_map(|column| column.chunks[0].bloom_filter?.1).collect()
        };
        assert_eq!(parsed(&unmeasured).unmeasured_bloom_bytes(), told(&file).iter().sum::<u64>());
        assert!(parsed(&unmeasured).index_ranges().len() > file.index_ranges().len());
        let drop = Change { drops: vec!["c0".into()], ..Change::default() };
        let (measured, _) = apply(&bytes, &drop, &[], Layout::Contiguous);
        let (result, _) = apply(&unmeasured, &drop, &[], Layout::Contiguous);
        let body = |bytes: &Bytes| bytes.slice(..parsed(bytes).footer_start() as usize);
        assert_eq!(body(&measured), body(&result));
    }
}
