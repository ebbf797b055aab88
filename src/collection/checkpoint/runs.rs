//! Sorted runs of rows, kept in files that are never changed, and how they are merged.
//!
//! A checkpoint writes what changed as a new run. A run that is not much smaller than the one before it is merged with it, so
//! that their number grows with the logarithm of the rows and each row is written as often. A merge reads and writes one file
//! of each run at a time; a file that no row of the other run falls into is taken over as it is, so that a ledger whose
//! keys only grow is hardly rewritten at all.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::error::Result;
use crate::parquet::table::{self, TableFile};
use crate::store::{Store, random_id};

/// Rows of a file, at most.
const FILE_ROWS: usize = 32 << 10;
/// Rows that are read together.
const ROW_GROUP_ROWS: usize = 1 << 10;
/// Files read side by side.
const CONCURRENT: usize = 16;

/// One file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Segment {
    /// Its key below the control prefix.
    pub(super) file: String,
    pub(super) rows: u64,
    /// Those of them that say that there is nothing any more.
    pub(super) gone: u64,
    pub(super) bytes: u64,
    /// The first and the last key in it.
    pub(super) first: String,
    pub(super) last: String,
}

/// Files that follow one another.
pub(super) type Run = Vec<Segment>;

/// The files of a checkpoint, and what is known of them.
#[derive(Debug)]
pub(super) struct Files {
    control: Store,
    folder: &'static str,
    open: Mutex<HashMap<String, TableFile>>,
    /// Rows of a file and of a row group, at most.
    pub(super) sizes: (usize, usize),
}

impl Files {
    pub(super) fn new(control: Store, folder: &'static str) -> Self {
        Self { control, folder, open: Mutex::default(), sizes: (FILE_ROWS, ROW_GROUP_ROWS) }
    }

    pub(super) fn control(&self) -> &Store {
        &self.control
    }

    pub(super) fn write_to(&mut self, control: Store) {
        self.control = control;
    }

    async fn file(&self, segment: &Segment) -> Result<TableFile> {
        let known = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = known().get(&segment.file) {
            return Ok(file.clone());
        }
        let file = TableFile::open(&self.control, &segment.file).await?;
        known().insert(segment.file.clone(), file.clone());
        Ok(file)
    }

    async fn all<R: Row>(&self, segment: &Segment) -> Result<Vec<R>> {
        R::rows(self.file(segment).await?.all().await?)
    }

    /// The latest row of each of `keys` (sorted) that has one; `runs` begin with the latest.
    pub(super) async fn find<R: Row>(&self, runs: &[Run], keys: &[String]) -> Result<Vec<R>> {
        let mut wanted: Vec<(usize, &Segment, &[String])> = Vec::new();
        for (age, run) in runs.iter().enumerate() {
            for segment in run {
                let from = keys.partition_point(|key| *key < segment.first);
                let to = keys.partition_point(|key| *key <= segment.last);
                if from < to {
                    wanted.push((age, segment, &keys[from..to]));
                }
            }
        }
        let tasks: Vec<_> = wanted
            .into_iter()
            .map(|(age, segment, keys)| async move {
                let file = self.file(segment).await?;
                let mut rows = R::rows(file.read(&file.row_groups_with(keys)).await?)?;
                rows.retain(|row| keys.binary_search_by(|key| key.as_str().cmp(row.key())).is_ok());
                Ok::<_, crate::error::Error>((age, rows))
            })
            .collect();
        let found: Vec<(usize, Vec<R>)> = stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await?;
        Ok(latest(found))
    }

    /// The latest row of every key.
    pub(super) async fn every<R: Row>(&self, runs: &[Run]) -> Result<Vec<R>> {
        let tasks: Vec<_> = runs
            .iter()
            .enumerate()
            .flat_map(|(age, run)| run.iter().map(move |segment| (age, segment)))
            .map(|(age, segment)| async move { Ok::<_, crate::error::Error>((age, self.all::<R>(segment).await?)) })
            .collect();
        let found: Vec<(usize, Vec<R>)> = stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await?;
        Ok(latest(found))
    }

    /// `runs` (latest first) with `rows` (sorted) as the latest, merged as far as they should be; `number` is what the
    /// checkpoint covers.
    pub(super) async fn add<R: Row>(&self, runs: &[Run], rows: Vec<R>, number: u64) -> Result<Vec<Run>> {
        let mut runs: VecDeque<Run> = runs.to_vec().into();
        if rows.is_empty() {
            return Ok(runs.into());
        }
        let count = |run: &Run| run.iter().map(|segment| segment.rows).sum::<u64>();
        // What is to be merged is known before anything is written: no row is written twice in one checkpoint.
        let mut size = rows.len() as u64;
        let mut merged = 0;
        while runs.get(merged).is_some_and(|older| count(older) < 2 * size) {
            size += count(&runs[merged]);
            merged += 1;
        }
        let older: Vec<Run> = runs.drain(..merged).collect();
        let is_last = runs.is_empty();
        let mut sources: Vec<Cursor<R>> = vec![Cursor { rows: rows.into(), files: VecDeque::new() }];
        sources.extend(older.into_iter().map(|run| Cursor { rows: VecDeque::new(), files: run.into() }));
        let run = self.merge(sources, is_last, number).await?;
        if !run.is_empty() {
            runs.push_front(run);
        }
        Ok(runs.into())
    }

    /// One run of all `sources`, of which the first is the latest; without rows that are gone where nothing older is left.
    async fn merge<R: Row>(&self, mut sources: Vec<Cursor<R>>, is_last: bool, number: u64) -> Result<Run> {
        let mut run = Run::new();
        let mut rows: Vec<R> = Vec::new();
        loop {
            // The source with the lowest key; of equals the latest.
            let lowest = sources
                .iter()
                .enumerate()
                .filter_map(|(at, source)| source.first().map(|key| (key, at)))
                .min()
                .map(|(key, at)| (key.to_owned(), at));
            let Some((key, at)) = lowest else { break };
            if let Some(whole) = sources[at].whole() {
                let is_alone = sources.iter().enumerate().all(|(other, source)| {
                    other == at || source.first().is_none_or(|first| first > whole.last.as_str())
                });
                // A small file is worth a rewrite together with its neighbours, and a large one is not.
                let is_large =
                    whole.rows as usize >= self.sizes.0 / 2 && (rows.is_empty() || rows.len() >= self.sizes.0 / 4);
                if is_alone && is_large && !(is_last && whole.gone > 0) {
                    self.flush(&mut run, &mut rows, number).await?;
                    run.extend(sources[at].files.pop_front());
                    continue;
                }
                let Some(segment) = sources[at].files.pop_front() else { break };
                sources[at].rows = self.all::<R>(&segment).await?.into();
                continue;
            }
            let row = sources[at].rows.pop_front();
            for source in sources.iter_mut().skip(at + 1) {
                while source.first() == Some(key.as_str()) {
                    // An older row of the same key.
                    if source.rows.pop_front().is_none() {
                        let Some(segment) = source.files.pop_front() else { break };
                        source.rows = self.all::<R>(&segment).await?.into();
                    }
                }
            }
            rows.extend(row.filter(|row| !(is_last && row.is_gone())));
            if rows.len() >= self.sizes.0 {
                self.flush(&mut run, &mut rows, number).await?;
            }
        }
        self.flush(&mut run, &mut rows, number).await?;
        Ok(run)
    }

    /// Writes `rows` as the next file of `run`.
    async fn flush<R: Row>(&self, run: &mut Run, rows: &mut Vec<R>, number: u64) -> Result<()> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let (first, last) = (first.key().to_owned(), last.key().to_owned());
        let gone = rows.iter().filter(|row| row.is_gone()).count() as u64;
        let notes = [("regraft:checkpoint", number.to_string())];
        let bytes = table::write(&R::table(rows), R::SORTED_BY, self.sizes.1, &notes)?;
        let file = format!("{}{}-{number:020}-{}.parquet", self.folder, R::NAME, random_id());
        let segment = Segment { file, rows: rows.len() as u64, gone, bytes: bytes.len() as u64, first, last };
        self.control.put(&segment.file, bytes).await?;
        rows.clear();
        run.push(segment);
        Ok(())
    }
}

/// Where a merge stands in a run: rows that are read, then files that are not.
struct Cursor<R> {
    rows: VecDeque<R>,
    files: VecDeque<Segment>,
}

impl<R: Row> Cursor<R> {
    fn first(&self) -> Option<&str> {
        self.rows.front().map(R::key).or_else(|| self.files.front().map(|segment| segment.first.as_str()))
    }

    /// The next file, where none of its rows was taken.
    fn whole(&self) -> Option<&Segment> {
        if self.rows.is_empty() { self.files.front() } else { None }
    }
}

/// Of rows with their age, the youngest of each key, sorted; none that is gone.
fn latest<R: Row>(mut found: Vec<(usize, Vec<R>)>) -> Vec<R> {
    found.sort_by_key(|(age, _)| *age);
    let mut rows: BTreeMap<String, R> = BTreeMap::new();
    for row in found.into_iter().flat_map(|(_, rows)| rows) {
        rows.entry(row.key().to_owned()).or_insert(row);
    }
    rows.into_values().filter(|row| !row.is_gone()).collect()
}
