//! Classic NetCDF: CDF-1, CDF-2 (64-bit offsets), CDF-5 (64-bit data).
//!
//! Fixed variables are one run each. Record variables are interleaved: record `r` of a variable is at
//! `begin + r × record size`, where the record size is the sum of all record variables' bytes, each padded to four; a
//! file with exactly one record variable has no padding (the specification's special case).
//!
//! The checks are netCDF-C's (`NC_computeshapes`, `NC_check_voffs`): data begin behind the header, runs do not overlap, the
//! records come last; and ours: every run ends inside the file, for a half-uploaded day is the ordinary accident, and
//! netCDF-C reads the missing part as zeros.

mod header;

use std::sync::{Arc, OnceLock};

use header::{Failure, Header, HeaderVariable};

use super::block::{Layout, Storage, byte_count};
use super::structure::{AttributeValue, Dimension, Group, Variable};
use crate::error::{Context, Error, Result};

/// Parses the structure of a file of CDF `version` and `file_size` bytes from `head`, its first bytes. `None` where the
/// header goes on behind `head`.
///
/// # Errors
/// `Corrupt` where the header is damaged or the file is shorter than it says.
pub(crate) fn structure(head: &[u8], version: u8, file_size: u64) -> Result<Option<Group>> {
    let header = match header::parse(head, version) {
        Ok(header) => header,
        Err(Failure::Ends) if (head.len() as u64) < file_size => return Ok(None),
        Err(Failure::Ends) => {
            return Err(Error::corrupt(format!("the file ends inside its header, after `{file_size}` bytes"))
                .hint("the upload or download did not finish: fetch the file again"));
        }
        Err(Failure::Wrong(error)) => return Err(error),
    };
    let record_dimension = header.dimensions.iter().position(|(_, size)| *size == 0);
    let mut runs = Vec::with_capacity(header.variables.len());
    for variable in &header.variables {
        runs.push(Run::new(variable, &header, record_dimension).context(|| variable_name(variable))?);
    }
    let stride = record_size(&runs)?;
    let records = match header.records {
        Some(records) => records,
        None => streamed_records(&runs, stride, file_size),
    };
    check_offsets(&header, &runs)?;
    check_ends(&header, &runs, stride, records, file_size)?;
    Ok(Some(group(header, &runs, record_dimension, stride, records)))
}

fn variable_name(variable: &HeaderVariable) -> String {
    format!("variable `{}`", variable.name)
}

/// Where a variable's bytes are: all of them, or those of one record.
struct Run {
    begin: u64,
    is_record: bool,
    bytes: u64,
}

impl Run {
    fn new(variable: &HeaderVariable, header: &Header, record_dimension: Option<usize>) -> Result<Self> {
        let is_record = variable.dimensions.first().is_some_and(|first| Some(*first) == record_dimension);
        let inner = &variable.dimensions[usize::from(is_record)..];
        if inner.iter().any(|dimension| Some(*dimension) == record_dimension) {
            return Err(Error::corrupt("expected the unlimited dimension to come first"));
        }
        let sizes: Vec<u64> = inner.iter().map(|&dimension| header.dimensions[dimension].1).collect();
        let bytes = byte_count(&sizes, variable.data_type.size().unwrap_or(1) as u64)?;
        if bytes > u64::MAX / 4 {
            return Err(Error::corrupt(format!("a size of `{bytes}` bytes is beyond any file")));
        }
        Ok(Self { begin: variable.begin, is_record, bytes })
    }
}

fn record_size(runs: &[Run]) -> Result<u64> {
    let mut records = runs.iter().filter(|run| run.is_record);
    match (records.next(), records.next()) {
        (Some(only), None) => Ok(only.bytes),
        _ => runs
            .iter()
            .filter(|run| run.is_record)
            .try_fold(0_u64, |sum, run| sum.checked_add(run.bytes.next_multiple_of(4)))
            .ok_or_else(|| Error::corrupt("the record size overflows 64 bits")),
    }
}

/// The number of whole records that the file has room for: what a streaming writer left us to find out.
fn streamed_records(runs: &[Run], stride: u64, file_size: u64) -> u64 {
    let begin = runs.iter().filter(|run| run.is_record).map(|run| run.begin).min();
    begin.map_or(0, |begin| file_size.saturating_sub(begin).checked_div(stride).unwrap_or(0))
}

fn check_offsets(header: &Header, runs: &[Run]) -> Result<()> {
    let damaged = |index: usize, message: String| {
        Error::corrupt(message)
            .hint("the file is damaged: fetch it again")
            .context(variable_name(&header.variables[index]))
    };
    let mut order: Vec<usize> = (0..runs.len()).collect();
    // Empty runs first: they may share an offset with their neighbour.
    order.sort_by_key(|&index| (runs[index].is_record, runs[index].begin, runs[index].bytes));
    let mut end = header.size;
    for index in order {
        let run = &runs[index];
        if run.begin < end {
            return Err(damaged(index, format!("expected data behind offset `{end}`, found them at `{}`", run.begin)));
        }
        end = run
            .begin
            .checked_add(run.bytes)
            .ok_or_else(|| damaged(index, format!("offset `{}` is beyond any file", run.begin)))?;
    }
    Ok(())
}

fn check_ends(header: &Header, runs: &[Run], stride: u64, records: u64, file_size: u64) -> Result<()> {
    for (variable, run) in header.variables.iter().zip(runs) {
        let before = if run.is_record {
            let Some(last) = records.checked_sub(1) else { continue };
            last.checked_mul(stride)
        } else {
            Some(0)
        };
        let end = before.and_then(|before| before.checked_add(run.begin)?.checked_add(run.bytes));
        if run.bytes > 0 && end.is_none_or(|end| end > file_size) {
            let end = end.map_or_else(|| "more than 2^64".to_owned(), |end| end.to_string());
            return Err(Error::corrupt(format!("expected a file of at least `{end}` bytes, found `{file_size}`"))
                .hint("the file is truncated: the upload or download did not finish, fetch it again")
                .context(variable_name(variable)));
        }
    }
    Ok(())
}

fn group(header: Header, runs: &[Run], record_dimension: Option<usize>, stride: u64, records: u64) -> Group {
    let dimensions: Vec<Dimension> = header
        .dimensions
        .into_iter()
        .enumerate()
        .map(|(index, (name, size))| {
            let unlimited = Some(index) == record_dimension;
            Dimension { name, size: if unlimited { records } else { size }, unlimited }
        })
        .collect();
    let variables =
        header.variables.into_iter().zip(runs).map(|(variable, run)| described(variable, run, &dimensions, stride));
    Group { variables: variables.collect(), dimensions, attributes: header.attributes, ..Group::default() }
}

fn described(variable: HeaderVariable, run: &Run, dimensions: &[Dimension], stride: u64) -> Variable {
    let HeaderVariable { name, dimensions: indices, attributes, data_type, begin } = variable;
    let shape: Vec<u64> = indices.iter().map(|&index| dimensions[index].size).collect();
    let fill = data_type.default_fill();
    let storage =
        if run.is_record { Storage::Records { begin, stride } } else { Storage::Contiguous { address: begin } };
    let layout = Layout {
        element_size: data_type.size().unwrap_or(1),
        big_endian: true,
        text: None,
        extent: shape.clone(),
        padding: fill.clone(),
        fill,
        storage,
    };
    let fill_value = explicit_fill(&attributes, &layout);
    Variable {
        path: name.clone(),
        name,
        data_type,
        dimensions: indices.iter().map(|&index| dimensions[index].name.clone()).collect(),
        shape,
        chunk_shape: None,
        attributes,
        fill_value,
        layout: Arc::new(layout),
        blocks: OnceLock::new(),
    }
}

/// The `_FillValue` among `attributes`, where it is one element of the variable's size.
pub(crate) fn explicit_fill(attributes: &[super::Attribute], layout: &Layout) -> Option<Vec<u8>> {
    let fill = attributes.iter().find(|attribute| attribute.name == "_FillValue")?;
    if let AttributeValue::Text(text) = &fill.value
        && text.is_empty()
        && layout.element_size == 1
    {
        return Some(vec![0]);
    }
    fill.value.to_little_endian().filter(|bytes| bytes.len() == layout.element_size)
}

#[cfg(test)]
mod tests;
