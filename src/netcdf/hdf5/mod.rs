//! NetCDF-4: the conventions that netCDF-C lays over HDF5.
//!
//! `hdf5-reader` reads the container. What makes it NetCDF is here, after netCDF-C's `hdf5open.c`: data sets whose `CLASS`
//! is `DIMENSION_SCALE` are dimensions, other data sets name theirs in `DIMENSION_LIST`, and data sets without either get
//! phony dimensions ([`dimensions`]); bookkeeping attributes are hidden ([`attributes`]); types map to NetCDF's
//! ([`element`]).

mod attributes;
mod chunks;
mod dimensions;
mod element;

pub(crate) use chunks::ChunkIndex;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use hdf5_reader::group::Group as Hdf5Group;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::object_header::ObjectHeader;
use hdf5_reader::storage::DynStorage;
use hdf5_reader::{Dataset as Hdf5Dataset, Hdf5File, OpenOptions};

use self::dimensions::Dimensions;
use super::classic::explicit_fill;
use super::decode::guarded;
use super::limits::Limits;
use super::structure::{Dimension, Group, Variable};
use crate::error::{Context, Error, Result};

/// Deepest nesting of groups.
const DEEPEST: usize = 64;

/// An open HDF5 file.
pub(crate) struct Container {
    file: Hdf5File,
    /// Where addresses count from: behind the user block.
    base: u64,
}

/// A group as found, before dimensions are resolved.
struct Found {
    name: String,
    path: String,
    group: Hdf5Group,
    datasets: Vec<Member>,
    children: Vec<Found>,
    /// Indices of the dimensions that this group declares.
    dimensions: Vec<usize>,
}

/// A data set as found.
struct Member {
    dataset: Hdf5Dataset,
    header: Arc<ObjectHeader>,
    attributes: Vec<hdf5_reader::Attribute>,
    /// The dimension that it is the scale of.
    scale: Option<usize>,
    /// Whether it holds values, and not only a dimension's length.
    is_variable: bool,
    /// The dimensions of its axes.
    axes: Vec<usize>,
}

impl Container {
    /// Opens the file behind `storage`.
    ///
    /// # Errors
    /// `Corrupt` where its structure is damaged or it is shorter than its superblock says.
    pub(crate) fn open(storage: DynStorage, limits: &Limits) -> Result<Self> {
        let size = storage.len();
        let options = OpenOptions::default()
            // Data do not go through the crate: its cache would hold nothing twice.
            .with_chunk_cache_bytes(0)
            .with_max_chunk_bytes(limits.block as usize)
            .with_max_read_bytes(limits.read as usize)
            .with_max_object_header_bytes(limits.header as usize);
        let file = guarded(|| Hdf5File::from_storage_with_options(storage, options))?;
        let superblock = file.superblock();
        let end = superblock.eof_address;
        if end > size && end != undefined(superblock.offset_size) {
            return Err(Error::corrupt(format!("expected a file of `{end}` bytes, found `{size}`"))
                .hint("the file is truncated: the upload or download did not finish, fetch it again"));
        }
        let base = superblock.base_address;
        Ok(Self { file, base })
    }

    /// The whole structure; data are not touched.
    pub(crate) fn structure(&self) -> Result<Group> {
        let root = guarded(|| self.file.root_group())?;
        let mut dimensions = Dimensions::default();
        let mut visited = HashSet::from([root.address()]);
        let mut found = self.explore(root, String::new(), String::new(), &mut dimensions, &mut visited)?;
        dimensions.attach(&mut found);
        dimensions.measure(&found);
        self.assemble(found, &dimensions)
    }

    /// Reads the members of a group and of all below it, in netCDF-C's order: data sets first, then child groups.
    fn explore(
        &self,
        group: Hdf5Group,
        name: String,
        path: String,
        dimensions: &mut Dimensions,
        visited: &mut HashSet<u64>,
    ) -> Result<Found> {
        if path.split('/').count() > DEEPEST {
            return Err(Error::invalid(format!("expected groups nested at most `{DEEPEST}` deep, found `{path}`")));
        }
        let (mut groups, mut datasets) = guarded(|| group.members())?;
        let header = guarded(|| self.file.get_or_parse_header(group.address()))?;
        let ordered = header
            .messages
            .iter()
            .any(|message| matches!(message, HdfMessage::LinkInfo(links) if links.creation_order_tracked));
        if !ordered {
            // Without creation order netCDF-C iterates by name.
            groups.sort_by(|left, right| left.name().cmp(right.name()));
            datasets.sort_by(|left, right| left.name().cmp(right.name()));
        }
        let mut found = Found { name, path, group, datasets: Vec::new(), children: Vec::new(), dimensions: Vec::new() };
        for dataset in datasets {
            let member = self.member(dataset, dimensions, &mut found.dimensions)?;
            found.datasets.push(member);
        }
        for child in groups {
            // A second hard link to a group, or a link to an ancestor: the first one holds it.
            if !visited.insert(child.address()) {
                continue;
            }
            let name = leaf(child.name()).to_owned();
            let path = joined(&found.path, &name);
            let child = self.explore(child, name, path, dimensions, visited)?;
            found.children.push(child);
        }
        Ok(found)
    }

    fn member(&self, dataset: Hdf5Dataset, dimensions: &mut Dimensions, declared: &mut Vec<usize>) -> Result<Member> {
        let header = guarded(|| self.file.get_or_parse_header(dataset.address()))?;
        let attributes = guarded(|| Ok(dataset.attributes()))?;
        let mut member = Member { header, attributes, scale: None, is_variable: true, axes: Vec::new(), dataset };
        dimensions.declare(&mut member, declared);
        Ok(member)
    }

    fn assemble(&self, found: Found, dimensions: &Dimensions) -> Result<Group> {
        let attributes = guarded(|| found.group.attributes()).context(|| format!("group `/{}`", found.path))?;
        let mut group = Group {
            attributes: attributes::visible(&attributes, &|reference, size| {
                found.group.resolve_vlen_reference_bytes(reference, size)
            }),
            name: found.name,
            path: found.path,
            ..Group::default()
        };
        let mut declared = found.dimensions;
        declared.sort_by_key(|&index| dimensions.id(index));
        group.dimensions = declared.into_iter().map(|index| dimensions.get(index)).collect();
        for member in &found.datasets {
            if member.is_variable {
                let variable = self.variable(member, &group.path, dimensions);
                group.variables.push(variable.context(|| format!("variable `{}`", member.dataset.name()))?);
            }
        }
        for child in found.children {
            group.groups.push(self.assemble(child, dimensions)?);
        }
        Ok(group)
    }

    fn variable(&self, member: &Member, group_path: &str, dimensions: &Dimensions) -> Result<Variable> {
        let dataset = &member.dataset;
        let name = leaf(dataset.name());
        // A variable named like a dimension that it does not use is stored under this prefix.
        let name = name.strip_prefix("_nc4_non_coord_").unwrap_or(name).to_owned();
        let attributes = attributes::visible(&member.attributes, &|reference, size| {
            dataset.resolve_vlen_reference_bytes(reference, size)
        });
        let axes: Vec<Dimension> = member.axes.iter().map(|&index| dimensions.get(index)).collect();
        let extent = dataset.shape();
        let shape: Vec<u64> = axes
            .iter()
            .zip(extent)
            .enumerate()
            .map(|(axis, (dimension, &extent))| {
                let grows = dataset.max_dims().and_then(|largest| largest.get(axis)) == Some(&u64::MAX);
                if grows { dimension.size.max(extent) } else { extent }
            })
            .collect();
        let encoded = guarded(|| dataset.raw_datatype()).unwrap_or_default();
        let (data_type, layout) =
            element::layout(&member.header, &encoded, self.file.superblock().offset_size, self.base)?;
        let chunk_shape = layout.chunk_shape();
        let fill_value = explicit_fill(&attributes, &layout).filter(|_| data_type.size().is_some());
        Ok(Variable {
            path: joined(group_path, &name),
            name,
            data_type,
            dimensions: axes.into_iter().map(|dimension| dimension.name).collect(),
            shape,
            chunk_shape,
            attributes,
            fill_value,
            layout: Arc::new(layout),
            blocks: OnceLock::new(),
        })
    }

    /// The bytes behind a reference to the global heap (strings of any length).
    pub(crate) fn heap_bytes(&self, reference: &[u8]) -> Result<Vec<u8>> {
        guarded(|| self.file.root_group()?.resolve_vlen_reference_bytes(reference, 1))
    }
}

impl std::fmt::Debug for Container {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Container").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The address that means "nowhere" in a file with offsets of `size` bytes.
fn undefined(size: u8) -> u64 {
    if size >= 8 { u64::MAX } else { (1 << (8 * u32::from(size))) - 1 }
}

fn leaf(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
