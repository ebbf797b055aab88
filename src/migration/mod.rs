//! Job 2: the plain Parquet objects of a data set are brought from one schema version to another.
//!
//! # Problem
//! A data set of thousands of plain Parquet objects gains computed columns, loses, renames or recasts some, while others read
//! it and perhaps write it. Every object must be migrated once, whatever crashes in between, and nothing that does not
//! change is to be decoded, moved or rewritten.
//!
//! # Design
//! | room | question |
//! |---|---|
//! | [`config`], [`step`] | what are the steps, and what computes them? |
//! | [`selection`], [`scan`] | which objects are there, and which version has each? One read of the footer an object |
//! | `sidecars` | which files would tell readers something wrong afterwards? |
//! | [`graph`] | which steps lead from there to the target? (pure) |
//! | [`fuse`], `evaluate` | the steps as one change of columns, one read, one write (pure) |
//! | [`estimate`], [`cost`] | bytes, requests, seconds and dollars (pure) |
//! | [`planning`], [`status`], `totals` | the plan: plain data in [`document`] (and [`report`]) that is saved, reviewed, cut into shards |
//! | [`rewrite`], `grants` | one object: read inputs, compute, encode, commit; with what others were granted |
//! | [`apply`], [`throttle`], `sweep` | all objects of a plan, so many at once |
//! | [`runs`] | what each run did, for people and for `verify` and `roll_back` |
//! | [`verify`] (`deep`, `indexes`), [`rollback`] | is it right, and how is it undone? |
//!
//! **The truth is in the objects.** A file says its version, and what its last migration was ([`stamp`]), in its own
//! footer, written in the same commit as the data and the tag: there is no moment between data and tag in which a crash
//! could leave a file that was migrated and does not say so. So a run that was killed is resumed by running again; run
//! records only tell people what happened, and help to verify.
//!
//! **Somebody else wins.** Every read and the commit carry the ETag that was scanned. An object that was changed in the
//! meantime is a `conflict`, and their data are kept.
//!
//! # Alternatives considered
//! A ledger of objects in a database or a growing file: a second truth, which a crash between both makes wrong. One task
//! an object in an orchestrator: thousands of tasks are what makes it fall over; a plan is cut into shards instead.
//!
//! # Caveats
//! - Objects that arrive while a run goes on are found by the next plan.
//! - A contiguous rewrite on storage without versions cannot be rolled back; the plan warns of it.
//! - Whoever writes an object without looking at its version key makes it look as new as that key says.
//!
//! # Testing
//! Pure rooms by property tests here; whole runs, with crashes between any two requests, in `tests/rust/migration.rs`.

pub mod apply;
pub mod binding;
mod checksum;
mod compare;
pub mod config;
pub mod cost;
mod deep;
pub mod document;
pub mod estimate;
mod evaluate;
pub mod fetch;
mod former;
pub mod fuse;
mod grants;
pub mod graph;
mod indexes;
pub mod planning;
mod pool;
pub mod report;
pub mod rewrite;
pub mod rollback;
pub mod runs;
pub mod scan;
pub mod selection;
mod sidecars;
pub mod stamp;
pub mod status;
pub mod step;
mod sweep;
pub mod throttle;
mod totals;
pub mod verify;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use self::binding::Binder;
use self::config::Config;
use self::graph::Graph;
use self::scan::Footers;
use self::selection::Selection;
use self::step::Compute;
use crate::error::{Error, Result};
use crate::progress::Counters;
use crate::store::{Capabilities, Store};

/// No request is begun later than this after its first try.
const PATIENCE: Duration = Duration::from_mins(5);

/// A migration set: its configuration and its open doors to the data set and the run records.
pub struct Migrations {
    config: Config,
    graph: Graph,
    selection: Selection,
    data: Store,
    control: Store,
    binder: Binder,
    footers: Footers,
    /// What the storage can do, asked once.
    known: OnceCell<Capabilities>,
    /// Whether objects' grants are carried over, found out once.
    grants: OnceCell<bool>,
}

impl Migrations {
    /// Opens the doors of a migration set; nothing is read yet.
    ///
    /// # Errors
    /// `Invalid` where a URL or an option is wrong, or steps contradict each other.
    pub fn new(config: Config, compute: Arc<dyn Compute>) -> Result<Self> {
        let graph = Graph::new(&config.steps)?;
        let data = Store::open(&config.data.url, &config.data.storage_options)?;
        Ok(Self::over(config, graph, &data, compute))
    }

    /// The same over a store that is open already, for tests that inject failures.
    ///
    /// # Errors
    /// As [`Migrations::new`].
    #[doc(hidden)]
    pub fn with_store(config: Config, data: &Store, compute: Arc<dyn Compute>) -> Result<Self> {
        let graph = Graph::new(&config.steps)?;
        Ok(Self::over(config, graph, data, compute))
    }

    fn over(config: Config, graph: Graph, data: &Store, compute: Arc<dyn Compute>) -> Self {
        let data = data.with_counters(Counters::default()).with_patience(config.run.tries, PATIENCE);
        let control = data.sibling(".regraft").child(&config.name);
        let selection = Selection::new(&config.data);
        let binder = Binder::new(compute, config.steps.clone());
        Self {
            config,
            graph,
            selection,
            data,
            control,
            binder,
            footers: Footers::default(),
            known: OnceCell::new(),
            grants: OnceCell::new(),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The data set.
    #[must_use]
    pub fn data(&self) -> &Store {
        &self.data
    }

    /// What the storage can do; at most one request in all.
    async fn capabilities(&self) -> Result<&Capabilities> {
        self.known.get_or_try_init(|| self.data.capabilities()).await
    }

    /// Whether an overwritten object stays as a version that can be named: `version` is that of the object now. In a bucket
    /// whose versioning is suspended every object has the version `null`, and overwriting it loses it.
    async fn keeps(&self, version: Option<&str>) -> Result<bool> {
        Ok(match (version, self.capabilities().await?.versions) {
            (None, _) | (_, Some(false)) => false,
            (Some(_), Some(true)) => true,
            (Some(version), None) => version != "null",
        })
    }

    /// The version to reach: `asked`, else the configuration's, else the highest that a step leads to.
    ///
    /// # Errors
    /// `Invalid` where there is no step and no target.
    pub fn target(&self, asked: Option<u64>) -> Result<u64> {
        asked.or(self.config.target).or(self.graph.highest()).ok_or_else(|| {
            Error::invalid("the migration set has neither a step nor a target").hint("add a step to `steps`")
        })
    }

    /// A key below the data set's URL, from a key or a full URL.
    ///
    /// # Errors
    /// `Invalid` where a URL lies elsewhere.
    pub fn relative_key(&self, key: &str) -> Result<String> {
        let base = self.data.url().trim_end_matches('/');
        for prefix in [base, base.trim_start_matches("file://")] {
            if let Some(rest) = key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) {
                return Ok(rest.to_owned());
            }
        }
        if key.contains("://") || key.starts_with('/') {
            return Err(Error::invalid(format!("`{key}` does not lie below the data set at `{base}`")));
        }
        Ok(key.to_owned())
    }
}

impl std::fmt::Debug for Migrations {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Migrations").field("config", &self.config).finish_non_exhaustive()
    }
}
