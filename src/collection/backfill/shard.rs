//! What one worker writes: the data of its blocks.

use std::collections::{BTreeMap, BTreeSet};

use super::blocks::{block_length, clip, owners, share, touched, without};
use super::watch::Watch;
use super::{BadSource, PlannedSource, ShardReport, TRIES, candidates};
use crate::collection::Collection;
use crate::collection::config::Config;
use crate::collection::fit::Misfit;
use crate::collection::layout::Layout;
use crate::collection::ledger::SourceVersion;
use crate::collection::opening::Outcome;
use crate::collection::proof::Proof;
use crate::collection::session::{Candidate, Session, Settled};
use crate::collection::writes::writes;
use crate::error::{Error, Kind, Result};
use crate::progress::Run;

/// What is one worker's.
pub(super) struct Share {
    /// The whole plan, laid out.
    pub(super) settled: Settled,
    /// Steps of a block.
    pub(super) block: u64,
    /// The worker's blocks.
    pub(super) blocks: Vec<u64>,
}

impl Share {
    /// Lays the plan out and takes the blocks of one shard.
    pub(super) async fn of(
        session: &mut Session,
        sources: &[PlannedSource],
        config: &Config,
        shard: (u64, u64),
    ) -> Result<Self> {
        let settled = session.settle(&candidates(sources), &[], config).await?;
        let structure = session.structure.as_ref().ok_or_else(|| Error::internal("a backfill without a store"))?;
        let block = block_length(structure);
        let blocks = share(&touched(&settled.layout, block), shard);
        Ok(Self { settled, block, blocks })
    }
}

impl Collection {
    /// Writes the data of one shard.
    pub(super) async fn write_shard(
        &self,
        session: &mut Session,
        id: &str,
        sources: &[PlannedSource],
        report: &mut ShardReport,
        run: &Run,
    ) -> Result<()> {
        let ttl = self.lease_options(None).ttl;
        let watch = Watch::begin(&self.control, id, session.log.len(), ttl).await?;
        let store = self.store.with_fence(watch.fence());
        let Share { settled, block, blocks } = Share::of(session, sources, &self.config, report.shard).await?;
        let versions: BTreeMap<&str, &SourceVersion> =
            sources.iter().map(|source| (source.key.as_str(), &source.version)).collect();
        for part in self.parts(&blocks, block, &settled.layout, &versions) {
            run.check()?;
            let layout = clip(&settled.layout, &part, block);
            let keys: BTreeSet<&str> = owners(&layout);
            let keys: Vec<_> = keys
                .into_iter()
                .map(|key| (key.to_owned(), versions.get(key).map(|&version| version.clone())))
                .collect();
            let mut opened = self.open_planned(session, &keys, &mut report.bad, run).await?;
            let structure = session.structure.as_ref().ok_or_else(|| Error::internal("no structure"))?;
            let mut proof = Proof::new(self.config.run.memory / 4);
            for (key, error) in proof.examine(&mut opened, structure, &layout, run).await? {
                opened.retain(|candidate| candidate.key != key);
                report.bad.insert(key, BadSource::of(&Misfit::new("unreadable", error)));
            }
            let layout = without(&layout, &report.bad);
            let fitted = opened.iter().map(|candidate| (candidate.key.clone(), &candidate.fitted)).collect();
            let data = writes(structure, &layout, &fitted)?.data;
            let memory = self.config.run.memory - proof.kept();
            let mut tries = 1;
            while let Err(error) = self.write_arrays(&store, &data, memory, run, &mut report.written).await {
                watch.fence().check()?;
                if error.kind() != Kind::Conflict || tries == TRIES {
                    return Err(error);
                }
                tries += 1;
            }
            let ranges = layout.runs.iter().map(|run| (run.start, run.start + run.count));
            for (start, stop) in ranges {
                match report.indices.last_mut() {
                    Some(last) if last.1 == start => last.1 = stop,
                    _ => report.indices.push((start, stop)),
                }
            }
        }
        Ok(())
    }

    /// Blocks that are opened and written together, as far as files and memory go.
    fn parts(
        &self,
        blocks: &[u64],
        block: u64,
        layout: &Layout,
        versions: &BTreeMap<&str, &SourceVersion>,
    ) -> Vec<Vec<u64>> {
        let limit = (self.config.run.memory / 3).max(1);
        let mut parts: Vec<Vec<u64>> = Vec::new();
        let mut keys: BTreeSet<String> = BTreeSet::new();
        for &index in blocks {
            let here = clip(layout, &[index], block);
            let mut together = keys.clone();
            together.extend(owners(&here).into_iter().map(str::to_owned));
            let bytes: u64 =
                together.iter().filter_map(|key| versions.get(key.as_str())).map(|version| version.size).sum();
            match parts.last_mut() {
                Some(part) if together.len() <= self.config.run.batch.files.max(1) && bytes <= limit => {
                    part.push(index);
                    keys = together;
                }
                _ => {
                    parts.push(vec![index]);
                    keys = owners(&here).into_iter().map(str::to_owned).collect();
                }
            }
        }
        parts
    }

    /// Opens planned versions; what cannot be used is `bad`.
    pub(super) async fn open_planned(
        &self,
        session: &mut Session,
        keys: &[(String, Option<SourceVersion>)],
        bad: &mut BTreeMap<String, BadSource>,
        run: &Run,
    ) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        let planned: BTreeMap<&String, &Option<SourceVersion>> =
            keys.iter().map(|(key, version)| (key, version)).collect();
        for (key, outcome) in self.opener().open_all(keys, run).await? {
            let opened = match outcome {
                Outcome::Gone => {
                    bad.insert(key, BadSource::changed("it is gone"));
                    continue;
                }
                Outcome::Misfit(_, misfit) => {
                    bad.insert(key, BadSource::of(&misfit));
                    continue;
                }
                Outcome::Opened(opened) => opened,
            };
            let same = planned.get(&key).and_then(|version| version.as_ref()).map(|version| &version.etag);
            if same != Some(&opened.version.etag) {
                bad.insert(key, BadSource::changed("it was revised since the plan was made"));
                continue;
            }
            let known = session.structure.as_ref().map_or(0, |structure| structure.arrays.len());
            match session.fit(&key, &opened, &self.config).await {
                Ok(_) if session.structure.as_ref().is_some_and(|structure| structure.arrays.len() > known) => {
                    if let Some(structure) = &mut session.structure {
                        structure.arrays.truncate(known);
                    }
                    bad.insert(
                        key,
                        BadSource::changed("it has variables that the store lacks: the next sync adds them"),
                    );
                }
                Ok(fitted) => {
                    candidates.push(Candidate { key, version: opened.version, labels: opened.labels, fitted });
                }
                Err(misfit) if matches!(misfit.error.kind(), Kind::Unavailable | Kind::Conflict) => {
                    return Err(misfit.error);
                }
                Err(misfit) => drop(bad.insert(key, BadSource::of(&misfit))),
            }
        }
        Ok(candidates)
    }
}
