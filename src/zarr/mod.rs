//! Zarr stores, v2 and v3: metadata, axes, the plan of chunk writes, and the chunk writer.
//!
//! The vocabulary of this module: an **array** has a **shape** and a regular grid of **chunks**; a **region** is a box of
//! element indices; a **patch** replaces a region's values; the **values** of a patch come in **tiles**, each of which
//! is decoded at most once in a commit.

pub mod array;
pub mod codec;
pub mod create;
pub mod data_type;
pub mod fill_value;
pub mod region;
pub mod values;

pub use array::{Array, Format};
pub use codec::{Codecs, IndexLocation, Sharding};
pub use create::{ArraySpec, BloscShuffle, Compressor, GroupSpec};
pub use data_type::DataType;
pub use fill_value::FillValue;
pub use region::Region;
pub use values::{Content, Elements, Patch, Tile, Values};
