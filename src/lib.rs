//! regraft changes a little of a big store, safely, and pays only for the little.
//!
//! # The story of a write
//!
//! 1. A source (a NetCDF object) arrives, is revised or is removed. [`collection`] looks at the bucket, which is the
//!    truth, and at the [`ledger`], which says what the store was made from.
//! 2. Where they differ, the source is opened by [`netcdf`]: its structure, its labels, and the addresses of its
//!    chunks, nothing more.
//! 3. The labels become indices of the store's axis, and all regions of all sources become one plan of chunk writes
//!    ([`zarr`]): every touched chunk is read at most once, encoded once and put once.
//! 4. Source chunks are inflated in parallel and scattered into target chunks; every put is conditional ([`store`]).
//! 5. One numbered record in the log says that it is done, and what it cost.
//!
//! # Who may import whom
//!
//! ```text
//! python ──► collection ──► zarr, netcdf, ledger ──► store ──► error, progress
//! ```
//! `zarr` knows nothing of `netcdf`; what joins them is `collection`.

pub mod collection;
pub mod error;
pub mod ledger;
pub mod migration;
pub mod netcdf;
pub mod parquet;
pub mod progress;
pub mod store;
pub mod zarr;

#[cfg(feature = "python")]
mod python;
