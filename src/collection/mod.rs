//! Job 1: a Zarr store is kept equal to a set of NetCDF files.
//!
//! # Problem
//! Files arrive, are revised and are removed, late and out of order, in whatever packing their producer chose that day. The
//! store must hold, for each label of its axis, the values of the one source that owns it, exactly once, and say which
//! source that is.
//!
//! # Design
//! Every verb is level-triggered: it looks at the bucket as it is and at the ledger, and makes the store match. One run goes
//! through these rooms:
//!
//! | room | question |
//! |---|---|
//! | [`listing`] | which keys are sources? |
//! | [`opening`] | what is in a source, and how is it labelled? ([`netcdf_source`], [`memory`] behind one [`source::Source`]) |
//! | [`structure`], [`fit`] | does it fit the store, and how are its values converted? ([`convert`], [`text`], [`time`]) |
//! | [`ownership`] | who owns each label now? (pure) |
//! | [`axis_labels`] | which of the store's labels are needed for that? |
//! | [`layout`] | at which indices does it go? (pure) |
//! | [`writes`] | which patches does each array get? |
//! | [`apply`] | announce, write data, then labels, then metadata, then one log record |
//! | [`checkpoint`] | which part of the ledger is needed? |
//! | [`keeping`] | what is still true of what the verb before read? |
//! | [`drain`] | what do the intents that wait ask for? |
//! | [`backfill`] | how do many workers write one plan? |
//!
//! A plan is the same walk that stops before `writes`.
//!
//! Everything that writes does it in a [`turn`], under the lease; what a dead worker left half done is done again at the
//! beginning of the next turn ([`redo`], from the [`journal`]; an insert keeps the tail that it moves, [`staging`]).
//!
//! # Caveats
//! Between a crash and the next turn readers of plain Zarr may see a region half overwritten.
//!
//! # Testing
//! Pure rooms by property tests here; the whole against xarray and netCDF4 on real files in `tests/python`.

pub mod apply;
pub mod axis_labels;
mod axis_reading;
pub mod backfill;
pub mod checkpoint;
pub mod config;
pub mod convert;
pub mod document;
pub mod drain;
pub mod encoding;
pub mod fit;
pub mod inspect;
pub mod journal;
mod keeping;
pub mod label;
pub mod layout;
pub mod ledger;
pub mod listing;
pub mod memory;
pub mod netcdf_source;
pub mod opening;
pub mod ownership;
pub mod planning;
pub mod proof;
mod reasons;
mod recording;
mod redo;
pub mod region;
pub mod session;
pub mod source;
mod staging;
pub mod structure;
pub mod text;
pub mod time;
mod turn;
pub mod verify;
pub mod writes;

use std::sync::Arc;

use self::config::Config;
use self::keeping::Keeping;
use self::listing::Selection;
use self::opening::{Hook, Opener};
use crate::error::{Error, Result};
use crate::progress::Counters;
use crate::store::Store;

/// A collection: its configuration and its open doors to sources, store and control prefix.
pub struct Collection {
    config: Config,
    selection: Selection,
    sources: Store,
    store: Store,
    control: Store,
    hook: Option<Arc<dyn Hook>>,
    keeping: Keeping,
}

impl Collection {
    /// Opens the doors of a collection; nothing is read yet.
    ///
    /// # Errors
    /// `Invalid` where a URL, an option or a pattern is wrong, or a hook is configured but not given.
    pub fn new(config: Config, hook: Option<Arc<dyn Hook>>) -> Result<Self> {
        if config.source.preprocess.is_some() && hook.is_none() {
            return Err(Error::invalid("`source.preprocess` names a hook, but none was passed"));
        }
        let counters = Counters::default();
        let sources = Store::open(&config.source.url, &config.source.storage_options)?.with_counters(counters.clone());
        let store = Store::open(&config.store.url, &config.store.storage_options)?.with_counters(counters);
        let control = store.sibling(".regraft");
        let selection = Selection::new(&config.source)?;
        Ok(Self { config, selection, sources, store, control, hook, keeping: Keeping::default() })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The same collection with failures on purpose in its store and its control prefix, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn crate::store::faults::Faults>) -> Self {
        self.store = self.store.with_faults(faults.clone());
        self.control = self.control.with_faults(faults);
        self
    }

    fn opener(&self) -> Opener<'_> {
        Opener { config: &self.config, sources: &self.sources, hook: self.hook.as_ref() }
    }

    /// A key below the source URL, from a key or a full URL.
    ///
    /// # Errors
    /// `Invalid` where a URL lies elsewhere.
    pub fn relative_key(&self, key: &str) -> Result<String> {
        let base = self.sources.url().trim_end_matches('/');
        let plain = base.trim_start_matches("file://");
        for prefix in [base, plain] {
            if let Some(rest) = key.strip_prefix(prefix)
                && let Some(rest) = rest.strip_prefix('/')
            {
                return Ok(rest.to_owned());
            }
        }
        if key.contains("://") || key.starts_with('/') {
            return Err(Error::invalid(format!("`{key}` does not lie below the sources at `{base}`")));
        }
        Ok(key.to_owned())
    }
}
