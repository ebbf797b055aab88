//! Zarr stores, v2 and v3: metadata, axes, the plan of chunk writes, and the chunk writer.
//!
//! The vocabulary of this module: an **array** has a **shape** and a regular grid of **chunks**; a **region** is a box of
//! element indices; a **patch** replaces a region's values; the **values** of a patch come in **tiles**, each of which
//! is decoded at most once in a commit.

pub mod array;
pub mod axis;
pub mod codec;
mod consolidated;
mod coverage;
pub mod create;
pub mod data_type;
pub mod document;
mod fill_json;
pub mod fill_value;
pub mod geometry;
pub mod group;
mod metadata;
mod metadata_v2;
mod metadata_v3;
pub mod plan;
mod plan_objects;
mod plan_shift;
mod publish;
pub mod read;
pub mod region;
pub(crate) mod scatter;
mod shard;
pub mod shift;
mod type_name;
pub mod values;
pub mod write;

pub use array::{Array, Format};
pub use codec::{Codecs, IndexLocation, Sharding};
pub use create::{ArraySpec, BloscShuffle, Compressor, GroupSpec};
pub use data_type::DataType;
pub use fill_json::{decode_fill_attribute, encode_fill_attribute};
pub use fill_value::FillValue;
pub use geometry::Geometry;
pub use group::Group;
pub use read::read;
pub use region::Region;
pub use shift::Shift;
pub use values::{Content, Elements, Patch, Tile, Values};
