//! NetCDF reading: structure, chunk addresses, parallel decoding. Classic CDF-1, CDF-2 and CDF-5, and NetCDF-4.
//!
//! # Problem
//!
//! A collection wants the *encoded* values of a file's variables, tile by tile, on every core, without a process-wide
//! lock, and a hostile or half-uploaded file must cost one error message, never the batch.
//!
//! # Design
//!
//! ```text
//!           bytes or ranges (source)
//!            │                 │
//!   classic: header         hdf5: hdf5-reader (containers: headers, heaps, B-trees)
//!            │                 │   └─ the NetCDF-4 conventions are ours: dimensions, attributes, strings
//!            └──► structure: Group, Dimension, Attribute, Variable
//!                              │
//!               blocks: where each run of elements lies   ──► fetch: slices or coalesced ranges
//!                                                          ──► decode: inflate, unshuffle, swap → little-endian C order
//! ```
//!
//! * **One geometry for all layouts.** HDF5 chunks, HDF5 contiguous data, classic variables and classic records all
//!   become [`Block`]s: a box of the variable's index space and where its bytes lie. What reads them knows no format.
//! * **Fetch and decode are apart**: `fetch` is input and output (async, zero-copy where the file is in memory),
//!   [`Dataset::decode`] is computation and may be called from any thread.
//! * **Files are read whole below 256 MB**, local or remote: one request, and every later read is a slice. Above it the
//!   head and the tail are prefetched, metadata goes through a block cache, and data through coalesced ranges guarded by
//!   the `ETag` of the version that was opened. A memory map would be quicker still, but a file that is truncated under
//!   a map kills the process (SIGBUS).
//! * **The HDF5 container is `hdf5-reader`'s, the NetCDF conventions are ours.** Dimension scales, phony dimensions,
//!   hidden attributes, `_nc4_non_coord_` names and padding follow netCDF-C's `hdf5open.c` as observed; netCDF4-python is
//!   the oracle of the tests. The classic header is a page of specification and is parsed here.
//!
//! # Alternatives
//!
//! * libhdf5/netCDF-C: one lock, 2.5 times the CPU, and a crash on a hostile file kills the whole batch.
//! * `netcdf-reader`, the sister crate of `hdf5-reader`: hides chunk addresses, refuses classic characters, lists inherited
//!   dimensions, and one attribute that is not UTF-8 costs the file or is dropped silently. Everything needed from it
//!   was a page of conventions.
//! * netCDF-C as a second reader, for what this one refuses: the feature `netcdf-c`, off by default (`c_library`).
//!
//! # Caveats
//!
//! * Compound, opaque, reference and variable-length sequence types are listed as [`DataType::Unsupported`]; enumerations
//!   are read as their base integers.
//! * Virtual data sets, external raw data and external links are refused or left out: they reach outside the object. With
//!   the feature `netcdf-c` the C library reads virtual data sets, and compressions that are not known here.
//! * HDF5's option to leave partial edge chunks unfiltered is not seen (`hdf5-reader` drops the flag): such chunks end as
//!   `Corrupt`, never as wrong values.
//! * A variable shorter than its unlimited dimension is padded as netCDF-C does.
//!
//! # Testing
//!
//! Every sample file is compared with netCDF4-python, values, types, attributes and dimensions, through [`describe`];
//! seeded mutants of real files must end in `Ok`, `Invalid` or `Corrupt`, in bounded time and memory.

pub mod block;
mod byte_order;
#[cfg_attr(not(feature = "netcdf-c"), path = "no_c_library.rs")]
mod c_library;
mod classic;
mod dataset;
mod decode;
pub mod describe;
mod elements;
mod hdf5;
mod limits;
mod shuffle;
mod signature;
mod source;
pub mod structure;

pub use block::Block;
pub use dataset::{Buffer, Dataset};
pub use limits::Limits;
pub use structure::{Attribute, AttributeValue, DataType, Dimension, Group, Variable};
