//! What `verify` compares where it reads bytes: of a sample, or of all.
//!
//! | what | against what |
//! |---|---|
//! | all that was kept | the version before, where the bucket has it |
//! | the first bytes of a widened file, asked for by `full` | the checksum that was known of the file before ([`Previous`](super::stamp::Previous)) |
//! | kept columns that the run read | the checksums that it noted |
//! | new columns | what the steps compute from their inputs again |
//! | pages of all of them | the page indexes |

use std::ops::Range;

use super::Migrations;
use super::compare::{new_name, old_path, renamed};
use super::fetch::joined;
use super::former::{Before, Former};
use super::indexes::compare_pages;
use super::pool::on_pool;
use super::report::{ObjectReport, VerifiedObject};
use super::rewrite::keeps_prefix;
use super::scan::Looked;
use super::stamp::Stamp;
use crate::error::{Context, Error, Result};
use crate::parquet::indexes::check_pages;
use crate::parquet::{Array, Change, Ranges, read, verify};
use crate::progress::Run;
use crate::store::Summing;

/// Bytes that are compared at once.
pub(super) const SLICE: u64 = 8 << 20;

impl Migrations {
    /// What was kept, byte for byte against the version before, where the bucket still has it.
    pub(super) async fn compare_bytes(
        &self,
        looked: &Looked,
        former: &Former,
        change: &Change,
        stamp: &Stamp,
        object: &mut VerifiedObject,
    ) -> Result<()> {
        let Some(version) = &former.version else { return Ok(()) };
        for kept in verify::kept_ranges(&former.file, &looked.file, change, stamp.layout)? {
            let length = kept.old.end - kept.old.start;
            for start in (0..length).step_by(SLICE as usize) {
                let slice = |from: u64| from + start..from + length.min(start + SLICE);
                let old = self.data.get_version_range(&looked.meta.key, version, slice(kept.old.start)).await?;
                let new = self.part(looked, slice(kept.new.start)).await?;
                if old != new {
                    return Err(Error::corrupt(format!(
                        "the bytes `{:?}` are not those of the version before at `{:?}`",
                        slice(kept.new.start),
                        slice(kept.old.start)
                    )));
                }
            }
            object.compared += 1;
        }
        object.checked.push("bytes".into());
        Ok(())
    }

    /// The file before within a widened one, against the checksum that was known of it. What nothing is known of is said.
    pub(super) async fn compare_prefix(
        &self,
        looked: &Looked,
        stamp: &Stamp,
        object: &mut VerifiedObject,
    ) -> Result<()> {
        let known = stamp.previous.checksum.as_ref().filter(|_| keeps_prefix(stamp.layout));
        let summing = known.and_then(|known| Some((known, Summing::new(&known.algorithm)?)));
        let Some((known, mut summing)) = summing else {
            object.trouble.message = Some(
                "nothing is known of the file before to compare it with: columns that no step reads are not proved"
                    .into(),
            );
            return Ok(());
        };
        let length = stamp.previous.length;
        for start in (0..length).step_by(SLICE as usize) {
            summing.update(&self.part(looked, start..length.min(start + SLICE)).await?);
        }
        let found = summing.finish();
        if found != *known {
            return Err(Error::corrupt(format!(
                "the first `{length}` bytes: expected the {} `{}` of the file before, found `{}`",
                known.algorithm, known.value, found.value
            )));
        }
        object.checked.push("prefix".into());
        Ok(())
    }

    /// Kept chunks that the run read, against the checksums that it noted.
    pub(super) async fn compare_checksums(
        &self,
        looked: &Looked,
        known: Option<&ObjectReport>,
        before: &Before,
        indexes: &Ranges,
        object: &mut VerifiedObject,
    ) -> Result<()> {
        let (Some(known), Some(fused)) = (known, before.fused.as_deref()) else { return Ok(()) };
        let mut wanted = Vec::new();
        for (name, checksum) in &known.checksums {
            let Some((row_group, path)) = name.split_once('/') else { continue };
            let row_group: usize = row_group.parse().unwrap_or(usize::MAX);
            let mut leaves = looked.file.columns().iter().enumerate();
            let leaf = leaves.find(|(_, column)| old_path(fused, &column.path) == path);
            let chunk = leaf.and_then(|(leaf, column)| Some((leaf, column.chunks.get(row_group)?)));
            let Some((leaf, chunk)) = chunk else {
                return Err(Error::corrupt(format!("the kept column `{path}` is not in row group `{row_group}`")));
            };
            wanted.push((name, (row_group, leaf), chunk.range.clone(), *checksum));
        }
        for (name, (row_group, leaf), range, checksum) in wanted {
            let bytes = self.part(looked, range).await?;
            let found = crc32c::crc32c(&bytes);
            if found != checksum {
                return Err(Error::corrupt(format!(
                    "the kept column chunk `{name}`: expected the checksum `{checksum:08x}`, found `{found:08x}`"
                )));
            }
            if let Some(finding) = check_pages(&looked.file, indexes, row_group, leaf, &bytes)? {
                return Err(Error::corrupt(finding.message));
            }
            object.compared += 1;
        }
        if object.compared > 0 {
            object.checked.push("checksums".into());
        }
        Ok(())
    }

    /// Computes the new columns again.
    pub(super) async fn recompute(
        &self,
        looked: &Looked,
        before: &Before,
        indexes: &Ranges,
        run: &Run,
        object: &mut VerifiedObject,
    ) -> Result<()> {
        let Some(fused) = &before.fused else { return Ok(()) };
        let (old, names) = match &before.former {
            Some(former) => (former.file.clone(), fused.reads.clone()),
            // The inputs as they are called now.
            None => (looked.file.clone(), fused.reads.iter().map(|name| new_name(fused, name)).collect()),
        };
        let results: Vec<String> = fused.change.adds.iter().map(|add| add.field.name().clone()).collect();
        let inputs = read::ranges(&old, &names)?;
        let outputs = read::ranges(&looked.file, &results)?;
        for (row_group, (needs, made)) in inputs.iter().zip(&outputs).enumerate() {
            run.check()?;
            let inputs = self.fetch_needed(looked, before.former.as_ref(), needs).await?;
            let outputs = self.fetch_needed(looked, None, made).await?;
            compare_pages(looked, indexes, row_group, &outputs, |name| results.iter().any(|made| made == name))?;
            let (old, new, names, results) = (old.clone(), looked.file.clone(), names.clone(), results.clone());
            let (fused, binder) = (fused.clone(), self.binder.clone());
            on_pool(move || {
                let place = || format!("row group `{row_group}`");
                let input = read::batch(&old, row_group, &names, &inputs).context(place)?;
                let input = renamed(&input, &fused.reads)?;
                let expected = binder.evaluate(&fused, &input).context(place)?;
                let found = read::batch(&new, row_group, &results, &outputs).context(place)?;
                for (name, (expected, found)) in results.iter().zip(expected.columns().iter().zip(found.columns())) {
                    if expected.data_type().equals_datatype(found.data_type()) && expected.to_data() != found.to_data()
                    {
                        return Err(Error::corrupt(format!("the new column `{name}` is not what its step computes"))
                            .context(place()));
                    }
                }
                Ok(())
            })
            .await?;
            object.recomputed += 1;
        }
        if object.recomputed > 0 {
            object.checked.push("new columns".into());
        }
        Ok(())
    }

    /// Bytes of the file before, or of the object as it is.
    pub(super) async fn fetch_needed(
        &self,
        looked: &Looked,
        former: Option<&Former>,
        needed: &[Range<u64>],
    ) -> Result<Ranges> {
        let mut parts = Vec::new();
        for range in joined(needed) {
            let bytes = match former {
                Some(former) => self.former_part(looked, former, range.clone()).await?,
                None => self.part(looked, range.clone()).await?,
            };
            parts.push((range, bytes));
        }
        Ranges::new(parts)
    }
}
