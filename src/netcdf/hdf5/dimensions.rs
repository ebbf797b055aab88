//! Dimensions of NetCDF-4 files, found as netCDF-C finds them.
//!
//! A data set whose `CLASS` is `DIMENSION_SCALE` is a dimension; its name is the data set's. Where its `NAME` begins with
//! "This is a netCDF dimension but not a netCDF variable" it is nothing else. Other data sets point at their scales by
//! `DIMENSION_LIST`; a scale with several axes cannot, and lists dimension ids in `_Netcdf4Coordinates`. A data set without
//! either (plain HDF5) gets phony dimensions, shared within a group by size.
//!
//! Where a damaged file contradicts itself (two scales with one `_Netcdf4Dimid`), references win over ids: they name the
//! object, and h5py agrees. netCDF-C believes the ids.

use std::collections::HashMap;

use hdf5_reader::reference::read_object_references;

use super::attributes::{integers_of, text_of};
use super::{Found, Member, leaf};
use crate::netcdf::structure::Dimension;

/// A variable stands for this dimension no more than its scale.
const NOT_A_VARIABLE: &str = "This is a netCDF dimension but not a netCDF variable";

/// Every dimension of a file.
#[derive(Debug, Default)]
pub(super) struct Dimensions {
    entries: Vec<Entry>,
    next_id: i64,
}

#[derive(Debug)]
struct Entry {
    dimension: Dimension,
    /// `_Netcdf4Dimid`, or the next free one.
    id: i64,
    /// The object header of its scale.
    address: Option<u64>,
}

impl Dimensions {
    pub(super) fn get(&self, index: usize) -> Dimension {
        self.entries[index].dimension.clone()
    }

    pub(super) fn id(&self, index: usize) -> i64 {
        self.entries[index].id
    }

    fn add(&mut self, name: String, size: u64, unlimited: bool, id: Option<i64>, address: Option<u64>) -> usize {
        let id = id.unwrap_or(self.next_id);
        self.next_id = self.next_id.max(id.saturating_add(1));
        self.entries.push(Entry { dimension: Dimension { name, size, unlimited }, id, address });
        self.entries.len() - 1
    }

    /// Notes `member` as a dimension of its group, if it is a scale.
    pub(super) fn declare(&mut self, member: &mut Member, declared: &mut Vec<usize>) {
        let attributes = &member.attributes;
        if text_of(attributes, "CLASS").as_deref() != Some("DIMENSION_SCALE") {
            return;
        }
        let Some(&size) = member.dataset.shape().first() else {
            return;
        };
        let unlimited = member.dataset.max_dims().and_then(<[u64]>::first) == Some(&u64::MAX);
        let id = integers_of(attributes, "_Netcdf4Dimid").and_then(|ids| ids.first().map(|&id| i64::from(id)));
        let name = leaf(member.dataset.name()).to_owned();
        let id = id.filter(|id| *id >= 0);
        let index = self.add(name, size, unlimited, id, Some(member.dataset.address()));
        member.is_variable = !text_of(attributes, "NAME").is_some_and(|name| name.starts_with(NOT_A_VARIABLE));
        member.scale = Some(index);
        declared.push(index);
    }

    /// Gives every axis of every data set its dimension: child groups first, for the names of phony dimensions.
    pub(super) fn attach(&mut self, found: &mut Found) {
        let by_address = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((entry.address?, index)))
            .collect::<HashMap<_, _>>();
        // The first one wins where ids are not unique, as in netCDF-C's list.
        let mut by_id = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            by_id.entry(entry.id).or_insert(index);
        }
        self.attach_group(found, &by_address, &by_id);
    }

    fn attach_group(&mut self, found: &mut Found, by_address: &HashMap<u64, usize>, by_id: &HashMap<i64, usize>) {
        for child in &mut found.children {
            self.attach_group(child, by_address, by_id);
        }
        for member in &mut found.datasets {
            if !member.is_variable {
                continue;
            }
            let rank = member.dataset.shape().len();
            let mut axes: Vec<Option<usize>> = if let (Some(scale), true) = (member.scale, rank == 1) {
                vec![Some(scale)]
            } else {
                references(member, rank).into_iter().map(|address| by_address.get(&address?).copied()).collect()
            };
            if axes.iter().all(Option::is_none)
                && let Some(ids) = integers_of(&member.attributes, "_Netcdf4Coordinates")
                && ids.len() == rank
            {
                axes = ids.iter().map(|&id| by_id.get(&i64::from(id)).copied()).collect();
            }
            if let (Some(scale), Some(first @ None)) = (member.scale, axes.first_mut()) {
                *first = Some(scale);
            }
            let mut attached = Vec::with_capacity(rank);
            for (axis, known) in axes.into_iter().enumerate() {
                let index = known.unwrap_or_else(|| self.phony(member, axis, &mut found.dimensions, &attached));
                attached.push(index);
            }
            member.axes = attached;
        }
    }

    /// A dimension of the right size in this group, or a new one called after its id.
    fn phony(&mut self, member: &Member, axis: usize, declared: &mut Vec<usize>, attached: &[usize]) -> usize {
        let size = member.dataset.shape()[axis];
        let unlimited = member.dataset.max_dims().and_then(|largest| largest.get(axis)) == Some(&u64::MAX);
        let fits = |index: &&usize| {
            let dimension = &self.entries[**index].dimension;
            dimension.size == size && dimension.unlimited == unlimited && !attached.contains(index)
        };
        if let Some(&index) = declared.iter().find(fits) {
            return index;
        }
        let index = self.add(format!("phony_dim_{}", self.next_id), size, unlimited, None, None);
        declared.push(index);
        index
    }

    /// An unlimited dimension is as long as its longest variable.
    pub(super) fn measure(&mut self, found: &Found) {
        for entry in &mut self.entries {
            if entry.dimension.unlimited && entry.address.is_some() {
                entry.dimension.size = 0;
            }
        }
        self.measure_group(found);
    }

    fn measure_group(&mut self, found: &Found) {
        for member in found.datasets.iter().filter(|member| member.is_variable) {
            for (&index, &extent) in member.axes.iter().zip(member.dataset.shape()) {
                let dimension = &mut self.entries[index].dimension;
                if dimension.unlimited {
                    dimension.size = dimension.size.max(extent);
                }
            }
        }
        for child in &found.children {
            self.measure_group(child);
        }
    }
}

/// The address of the first scale of each axis, from `DIMENSION_LIST`.
fn references(member: &Member, rank: usize) -> Vec<Option<u64>> {
    let list = member.attributes.iter().find(|attribute| attribute.name == "DIMENSION_LIST");
    let size = member.dataset.vlen_reference_size();
    let offset_size = size - 8;
    (0..rank)
        .map(|axis| {
            let reference = list?.raw_data.get(axis * size..(axis + 1) * size)?;
            let bytes = member.dataset.resolve_vlen_reference_bytes(reference, offset_size).ok()?;
            read_object_references(&bytes, offset_size as u8).ok()?.first().copied()
        })
        .collect()
}
