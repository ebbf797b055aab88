//! Page indexes and bloom filters of migrated files, as `verify` looks at them: those of kept columns against the file
//! before where that is left, all others by themselves, and against the headers of pages that are read anyway.

use super::Migrations;
use super::former::Former;
use super::report::VerifiedObject;
use super::scan::Looked;
use crate::error::{Error, Result};
use crate::parquet::indexes::{check, check_pages, compare, ranges};
use crate::parquet::{Change, Ranges};

impl Migrations {
    /// Compares the indexes of an object; gives back what was read of them, for [`Migrations::compare_pages`].
    pub(super) async fn compare_indexes(
        &self,
        looked: &Looked,
        former: Option<(&Former, &Change)>,
        object: &mut VerifiedObject,
    ) -> Result<Ranges> {
        let (file, wanted) = (&looked.file, ranges(&looked.file));
        let read = self.fetch_needed(looked, None, &wanted).await?;
        let mut findings = Vec::new();
        let mut kept = Vec::new();
        if let Some((former, change)) = former {
            let before = self.fetch_needed(looked, Some(former), &ranges(&former.file)).await?;
            findings = compare(&former.file, &before, file, &read, change)?;
            // What a writer's index says of its own pages is not ours to judge.
            let made = |name: &str| change.adds.iter().any(|add| add.field.name() == name);
            kept = file.columns().iter().map(|column| !made(column.name())).collect();
        }
        let others = (0..file.columns().len()).filter(|leaf| !kept.get(*leaf).copied().unwrap_or(false));
        findings.extend(check(file, &read, others)?);
        if !findings.is_empty() {
            let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
            return Err(Error::corrupt(messages.join("; ")));
        }
        let chunks = || file.columns().iter().flat_map(|column| &column.chunks);
        if chunks().any(|chunk| chunk.offset_index.is_some() || chunk.column_index.is_some()) {
            object.checked.push("page indexes".into());
        }
        if chunks().any(|chunk| chunk.bloom_filter.is_some()) {
            object.checked.push("bloom filters".into());
        }
        Ok(read)
    }
}

/// Whether the pages of the leaves that `wanted` names stand where their indexes say, as far as `chunks` holds them.
pub(super) fn compare_pages(
    looked: &Looked,
    indexes: &Ranges,
    row_group: usize,
    chunks: &Ranges,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    for (leaf, column) in looked.file.columns().iter().enumerate().filter(|(_, column)| wanted(column.name())) {
        let Some(chunk) = column.chunks.get(row_group).filter(|chunk| !chunk.range.is_empty()) else { continue };
        let bytes = chunks.get(chunk.range.clone())?;
        if let Some(finding) = check_pages(&looked.file, indexes, row_group, leaf, &bytes)? {
            return Err(Error::corrupt(finding.message));
        }
    }
    Ok(())
}
