//! Proof that the sources of a commit can be read to their end, before the first put.
//!
//! # Problem
//! A NetCDF-4 chunk shows that it is damaged only when it is inflated, and a number that the store's packing cannot hold only
//! when it is converted. Found out while chunks are written, that leaves a region half old and half new, with nothing to mend
//! it from, and takes every other source of the batch down as well.
//!
//! # Design
//! Every tile that a layout will write is decoded before anything is written; a source that fails is set aside, and the rest
//! is settled again. What was decoded is kept for the writer, as far as the share of memory goes, so that nothing is inflated
//! twice; beyond that a tile is decoded, thrown away and decoded again by the writer.
//!
//! # Alternatives considered
//! - Going on after a failure and mending: the old values of a revised file are nowhere but in the chunks.
//! - Decoding while writing and staging all chunks until the last source is proven: twice the puts.
//!
//! # Caveats
//! Chunks that pass through encoded are not inflated here, which is their point: only their checksums are verified, where they
//! have some.
//!
//! # Testing
//! `tests/python/test_bad_input.py`: a flipped byte in a chunk, and mutants of real files.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use rayon::prelude::*;

use super::layout::Layout;
use super::session::Candidate;
use super::structure::Structure;
use crate::error::{Error, Kind, Result};
use crate::progress::Run;
use crate::zarr::write::compute;
use crate::zarr::{DataType, Elements, Tile, Values};

/// Variables that are fetched and decoded at once; each decodes its tiles on all cores.
const VARIABLES_AT_ONCE: usize = 8;
/// Tiles of a variable that are fetched at once.
const TILES_AT_ONCE: usize = 64;

/// What has been proven in one commit.
pub struct Proof {
    proven: HashSet<(String, String)>,
    budget: u64,
    kept: u64,
}

impl Proof {
    /// Keeps at most `budget` bytes of decoded values.
    #[must_use]
    pub fn new(budget: u64) -> Self {
        Self { proven: HashSet::new(), budget, kept: 0 }
    }

    /// Bytes of decoded values that are kept.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Decodes what `layout` will write of `candidates`; returns the sources that cannot be read, each with its first error.
    ///
    /// # Errors
    /// `Unavailable` where the storage does not answer or the run was cancelled, `Conflict` where a source changed meanwhile.
    pub async fn examine(
        &mut self,
        candidates: &mut [Candidate],
        structure: &Structure,
        layout: &Layout,
        run: &Run,
    ) -> Result<Vec<(String, Error)>> {
        let owners: HashSet<&str> =
            layout.runs.iter().filter_map(|run| run.source.as_ref().map(|(key, _)| key.as_str())).collect();
        let mut jobs = Vec::new();
        for (position, candidate) in candidates.iter().enumerate() {
            if !owners.contains(candidate.key.as_str()) {
                continue;
            }
            for (path, values) in &candidate.fitted {
                let passes = values.encoding().is_some_and(|encoding| {
                    structure
                        .arrays
                        .iter()
                        .any(|array| array.array.path == *path && array.array.codecs.accept(encoding))
                });
                if passes || !self.proven.insert((candidate.key.clone(), path.clone())) {
                    continue;
                }
                let size = decoded_size(values.as_ref());
                let keep = self.kept.saturating_add(size) <= self.budget;
                if keep {
                    self.kept += size;
                }
                jobs.push((position, path.clone(), values.clone(), keep));
            }
        }
        let mut damaged: Vec<(String, Error)> = Vec::new();
        let mut seen = BTreeSet::new();
        // Boxed, or the compiler cannot see that the whole is `Send`.
        let tasks: Vec<_> = jobs
            .into_iter()
            .map(|(position, path, values, keep)| {
                async move { (position, path, decode(values, keep, run).await) }.boxed()
            })
            .collect();
        let mut outcomes = stream::iter(tasks).buffered(VARIABLES_AT_ONCE);
        while let Some((position, path, outcome)) = outcomes.next().await {
            match outcome {
                Ok(Some(proven)) => {
                    candidates[position].fitted.insert(path, proven);
                }
                Ok(None) => {}
                Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Corrupt) => {
                    if seen.insert(position) {
                        damaged.push((candidates[position].key.clone(), error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }
}

fn decoded_size(values: &dyn Values) -> u64 {
    let element = values.data_type().size().unwrap_or(64) as u64;
    let elements =
        |tile: &Tile| tile.decoded_shape.iter().fold(1_u64, |product, length| product.saturating_mul(*length));
    values.tiles().iter().fold(0, |sum: u64, tile| sum.saturating_add(elements(tile).saturating_mul(element)))
}

/// Decodes every tile; the values with their decoded tiles where they are to be kept.
async fn decode(values: Arc<dyn Values>, keep: bool, run: &Run) -> Result<Option<Arc<dyn Values>>> {
    let tiles: Vec<usize> = (0..values.tiles().len()).collect();
    let mut decoded = Vec::with_capacity(if keep { tiles.len() } else { 0 });
    for group in tiles.chunks(TILES_AT_ONCE) {
        run.check()?;
        let encoded = values.fetch(group).await?;
        let (source, group) = (values.clone(), group.to_vec());
        let part = compute(move || {
            group
                .into_par_iter()
                .zip(encoded)
                .map(|(tile, encoded)| {
                    let elements = source.decode(tile, &encoded, Vec::new())?;
                    Ok(keep.then_some(elements))
                })
                .collect::<Result<Vec<_>>>()
        })
        .await?;
        decoded.extend(part.into_iter().flatten());
    }
    Ok(keep.then(|| Arc::new(Proven { values, decoded }) as Arc<dyn Values>))
}

/// Values whose tiles are decoded already.
struct Proven {
    values: Arc<dyn Values>,
    decoded: Vec<Elements>,
}

#[async_trait]
impl Values for Proven {
    fn data_type(&self) -> DataType {
        self.values.data_type()
    }

    fn shape(&self) -> &[u64] {
        self.values.shape()
    }

    fn tiles(&self) -> &[Tile] {
        self.values.tiles()
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        Ok(vec![Bytes::new(); tiles.len()])
    }

    fn decode(&self, tile: usize, _encoded: &Bytes, mut recycled: Vec<u8>) -> Result<Elements> {
        match self.decoded.get(tile) {
            Some(Elements::Fixed(bytes)) => {
                recycled.clear();
                recycled.extend_from_slice(bytes);
                Ok(Elements::Fixed(recycled))
            }
            Some(Elements::Strings(strings)) => Ok(Elements::Strings(strings.clone())),
            None => Err(Error::internal(format!("tile `{tile}` was not proven"))),
        }
    }
}
