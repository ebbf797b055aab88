//! What the default reader refuses, read through netCDF-C: the opt-in feature `netcdf-c`.
//!
//! # Problem
//!
//! Virtual data sets and rare compressions are refused by the default reader. Few collections have them; who does would
//! rather wait for a process-wide lock than rewrite an archive.
//!
//! # Design
//!
//! * **Second choice only.** A local NetCDF-4 file comes here where the default reader says `Invalid` to its structure, and
//!   a single variable where its filters are not known. What is `Corrupt` never comes here: libhdf5 may crash on it.
//! * **The same structure, other blocks.** A [`Library`] gives a [`Group`] whose variables have no layout; their blocks
//!   are [`super::block::Place::Library`], on the grid of the chunks, or rows of about 4 MiB. They are decoded by the
//!   fetch already: decoding them is a copy.
//! * A local file is opened by its path, because virtual data sets name others relative to it, and its version is checked
//!   after that. Every other object is opened in memory, for its compression only: from there no other file is found, and
//!   a virtual data set would be fill values without a word.
//!
//! # Alternatives
//!
//! * `netcdf-sys` alone: every call would be `unsafe`. The price of the safe crate: strings come one by one, characters
//!   of attributes that are not UTF-8 are replaced, and panics have to be caught.
//!
//! # Caveats
//!
//! * All calls into libnetcdf wait for one lock, the `netcdf` crate's.
//! * A virtual data set reaches into files that no `ETag` stands for: it is not read again when only they change. A file
//!   that is missing reads as fill values; that is HDF5's rule, and the C interface of NetCDF does not tell.
//! * Objects on a remote store that are too large to be read whole are refused.
//! * A libhdf5 that is built for threads prints its own account of errors, harmless ones too, to standard error.
//! * `netcdf::open_mem` exists where libnetcdf was built with memory maps, which is its default on Linux.
//!
//! # Testing
//!
//! Every NetCDF-4 sample file that both readers read is compared, structure and values.

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use netcdf::types::{EnumTypeValues, FloatType, IntType, NcVariableType};
use netcdf::{AttributeValue as CValue, Extents, File, FileMem};

use super::block::{Block, Layout, Storage, byte_count};
use super::byte_order;
use super::classic::explicit_fill;
use super::source::Source;
use super::structure::{Attribute, AttributeValue, DataType, Dimension, Group, Variable};
use crate::error::{Error, Result};
use crate::store::{ObjectMeta, Store, block_on};

/// Where a file lies on this machine, and in what version.
pub(crate) type Local = (Store, ObjectMeta, PathBuf);

/// A file as libnetcdf sees it; opened when it is first asked.
#[derive(Debug)]
pub(crate) struct Library {
    source: Arc<Source>,
    local: Option<Local>,
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
enum Opened {
    Path(File),
    Memory(InMemory),
}

/// A file in memory. The fields are dropped in this order: the file is closed before its bytes go.
struct InMemory {
    file: FileMem<'static>,
    _bytes: Bytes,
}

impl std::fmt::Debug for InMemory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("InMemory")
    }
}

impl Deref for Opened {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Self::Path(file) => file,
            Self::Memory(memory) => &memory.file,
        }
    }
}

impl Library {
    /// The library's view of `source`, which lies at `local` where it is a local file. Nothing is opened yet.
    #[expect(clippy::unnecessary_wraps, reason = "a build without the library has none")]
    pub(crate) fn of(source: &Arc<Source>, local: Option<Local>) -> Option<Self> {
        Some(Self { source: Arc::clone(source), local, opened: Mutex::default() })
    }

    /// Whether the file lies on this machine, beside those that it may name.
    pub(crate) fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// The whole structure; data are not touched.
    pub(crate) fn structure(&self) -> Result<Group> {
        self.with_root(|root| group(root, String::new(), ""))
    }

    /// The elements of `blocks`, little-endian, C order.
    pub(crate) fn read(&self, variable: &Variable, blocks: &[Block]) -> Result<Vec<Bytes>> {
        let size = variable.layout.element_size;
        self.with_variable(variable, |found| {
            blocks
                .iter()
                .map(|block| {
                    let mut bytes = vec![0; byte_count(&block.decoded_shape, size as u64)? as usize];
                    let extents = extents(&block.region_start, &block.decoded_shape)?;
                    found.get_raw_values_into(&mut bytes, extents).map_err(|error| unread(&error))?;
                    if cfg!(target_endian = "big") {
                        byte_order::swap(&mut bytes, size);
                    }
                    Ok(Bytes::from(bytes))
                })
                .collect()
        })
    }

    /// The values of a variable of text.
    pub(crate) fn strings(&self, variable: &Variable) -> Result<Vec<String>> {
        let count = byte_count(&variable.shape, 1)?;
        let one = vec![1; variable.shape.len()];
        let mut index = vec![0; variable.shape.len()];
        self.with_variable(variable, |found| {
            let mut strings = Vec::new();
            for _ in 0..count {
                strings.push(found.get_string(extents(&index, &one)?).map_err(|error| unread(&error))?);
                for dimension in (0..index.len()).rev() {
                    index[dimension] += 1;
                    if index[dimension] < variable.shape[dimension] {
                        break;
                    }
                    index[dimension] = 0;
                }
            }
            Ok(strings)
        })
    }

    fn with_variable<T>(&self, variable: &Variable, run: impl FnOnce(&netcdf::Variable<'_>) -> Result<T>) -> Result<T> {
        self.with_root(|root| {
            let found = root
                .variable(&variable.path)
                .ok_or_else(|| Error::invalid("the C library does not list the variable"))?;
            let shape: Vec<u64> = found.dimensions().iter().map(|dimension| dimension.len() as u64).collect();
            let data_type = data_type(&found.vartype());
            if shape != variable.shape || data_type != variable.data_type {
                return Err(Error::invalid(format!(
                    "expected `{}` of shape `{:?}` from the C library, found `{}` of shape `{shape:?}`",
                    variable.data_type.name(),
                    variable.shape,
                    data_type.name()
                )));
            }
            run(&found)
        })
    }

    /// Runs calls into the library; the crate panics where it does not expect an answer, names that are not UTF-8 for one.
    fn with_root<T>(&self, run: impl FnOnce(&netcdf::Group<'_>) -> Result<T>) -> Result<T> {
        let mut slot = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(self.open()?);
        }
        let file = slot.as_ref().ok_or_else(|| Error::internal("the file was not opened"))?;
        catch_unwind(AssertUnwindSafe(|| match file.root() {
            Some(root) => run(&root),
            None => Err(Error::invalid("the C library finds no root group")),
        }))
        .unwrap_or_else(|_| Err(Error::invalid("the C library gives an answer that its binding cannot read")))
    }

    fn open(&self) -> Result<Opened> {
        if let Some((store, meta, path)) = &self.local {
            let file = netcdf::open(path).map_err(|error| unopened(&error))?;
            // Opened by name: it may be another file by now than the one that was asked for.
            let now = block_on(store.head(&meta.key))?;
            if now.as_ref().map(|now| &now.etag) != Some(&meta.etag) {
                return Err(Error::conflict("the file has changed since it was listed").hint("plan again"));
            }
            return Ok(Opened::Path(file));
        }
        let Source::Memory(bytes) = &*self.source else {
            return Err(Error::invalid("the C library reads remote objects only whole, and this one is too large")
                .hint("copy it to a local disk"));
        };
        let bytes = bytes.clone();
        // SAFETY: the slice stays where it is as long as a `Bytes` of it lives, wherever that is moved; the one beside the
        // file outlives it (fields are dropped in order), and `InMemory` hands out no reference that outlives itself.
        let slice: &'static [u8] = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        let file = netcdf::open_mem(None, slice).map_err(|error| unopened(&error))?;
        Ok(Opened::Memory(InMemory { file, _bytes: bytes }))
    }
}

/// The refusal, and where the C library might do better.
pub(crate) fn advised(refusal: Error) -> Error {
    const ADVICE: &str = "copy it to a local disk, with the files that it names, for the C library to read it there";
    let hint = refusal.hint_text().map_or_else(|| ADVICE.to_owned(), |hint| format!("{hint}; or {ADVICE}"));
    refusal.hint(hint)
}

fn unopened(error: &netcdf::Error) -> Error {
    Error::invalid(format!("the C library cannot open it: {error}"))
}

fn unread(error: &netcdf::Error) -> Error {
    Error::invalid(format!("the C library cannot read it: {error}"))
        .hint("a compression needs its plugin for libhdf5: name the folder in HDF5_PLUGIN_PATH")
}

fn extents(start: &[u64], count: &[u64]) -> Result<Extents> {
    let sizes = |sizes: &[u64]| sizes.iter().map(|&size| size as usize).collect::<Vec<usize>>();
    (sizes(start), sizes(count)).try_into().map_err(|error: netcdf::Error| Error::internal(error.to_string()))
}

fn group(of: &netcdf::Group<'_>, name: String, path: &str) -> Result<Group> {
    let joined = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    let dimensions = of.dimensions().map(|dimension| Dimension {
        name: dimension.name(),
        size: dimension.len() as u64,
        unlimited: dimension.is_unlimited(),
    });
    let groups = of.groups().map(|child| {
        let name = child.name();
        let path = joined(&name);
        group(&child, name, &path)
    });
    Ok(Group {
        name,
        path: path.to_owned(),
        dimensions: dimensions.collect(),
        attributes: of.attributes().map(|attribute| converted(&attribute)).collect(),
        variables: of.variables().map(|of| variable(&of, joined(&of.name()))).collect(),
        groups: groups.collect::<Result<_>>()?,
    })
}

fn variable(of: &netcdf::Variable<'_>, path: String) -> Variable {
    let data_type = data_type(&of.vartype());
    let shape: Vec<u64> = of.dimensions().iter().map(|dimension| dimension.len() as u64).collect();
    let chunk_shape = of.chunking().ok().flatten();
    let attributes: Vec<Attribute> = of.attributes().map(|attribute| converted(&attribute)).collect();
    let layout = Layout {
        // Text counts by what its handles take, towards the limits.
        element_size: data_type.size().unwrap_or(size_of::<String>()),
        big_endian: false,
        text: None,
        extent: shape.clone(),
        fill: Vec::new(),
        padding: Vec::new(),
        storage: match &data_type {
            DataType::Unsupported(what) => Storage::Unreadable(format!("values of type `{what}` are not read")),
            _ => Storage::Absent,
        },
    };
    Variable {
        name: of.name(),
        path,
        data_type,
        dimensions: of.dimensions().iter().map(netcdf::Dimension::name).collect(),
        shape,
        chunk_shape: chunk_shape.map(|sizes| sizes.into_iter().map(|size| size as u64).collect()),
        fill_value: explicit_fill(&attributes, &layout),
        attributes,
        layout: Arc::new(layout),
        blocks: OnceLock::new(),
    }
}

/// Enumerations are their base integers, as with the default reader.
fn data_type(of: &NcVariableType) -> DataType {
    match of {
        NcVariableType::Int(IntType::I8) => DataType::I8,
        NcVariableType::Int(IntType::U8) => DataType::U8,
        NcVariableType::Int(IntType::I16) => DataType::I16,
        NcVariableType::Int(IntType::U16) => DataType::U16,
        NcVariableType::Int(IntType::I32) => DataType::I32,
        NcVariableType::Int(IntType::U32) => DataType::U32,
        NcVariableType::Int(IntType::I64) => DataType::I64,
        NcVariableType::Int(IntType::U64) => DataType::U64,
        NcVariableType::Float(FloatType::F32) => DataType::F32,
        NcVariableType::Float(FloatType::F64) => DataType::F64,
        NcVariableType::Char => DataType::Char,
        NcVariableType::String => DataType::String,
        NcVariableType::Enum(names) => match names.fieldvalues {
            EnumTypeValues::I8(_) => DataType::I8,
            EnumTypeValues::U8(_) => DataType::U8,
            EnumTypeValues::I16(_) => DataType::I16,
            EnumTypeValues::U16(_) => DataType::U16,
            EnumTypeValues::I32(_) => DataType::I32,
            EnumTypeValues::U32(_) => DataType::U32,
            EnumTypeValues::I64(_) => DataType::I64,
            EnumTypeValues::U64(_) => DataType::U64,
        },
        NcVariableType::Compound(_) => DataType::Unsupported("compound".to_owned()),
        NcVariableType::Opaque(_) => DataType::Unsupported("opaque".to_owned()),
        NcVariableType::Vlen(_) => DataType::Unsupported("variable-length sequence".to_owned()),
    }
}

fn converted(attribute: &netcdf::Attribute<'_>) -> Attribute {
    let value = match attribute.value() {
        Ok(CValue::Schar(value)) => AttributeValue::I8(vec![value]),
        Ok(CValue::Schars(values)) => AttributeValue::I8(values),
        Ok(CValue::Uchar(value)) => AttributeValue::U8(vec![value]),
        Ok(CValue::Uchars(values)) => AttributeValue::U8(values),
        Ok(CValue::Short(value)) => AttributeValue::I16(vec![value]),
        Ok(CValue::Shorts(values)) => AttributeValue::I16(values),
        Ok(CValue::Ushort(value)) => AttributeValue::U16(vec![value]),
        Ok(CValue::Ushorts(values)) => AttributeValue::U16(values),
        Ok(CValue::Int(value)) => AttributeValue::I32(vec![value]),
        Ok(CValue::Ints(values)) => AttributeValue::I32(values),
        Ok(CValue::Uint(value)) => AttributeValue::U32(vec![value]),
        Ok(CValue::Uints(values)) => AttributeValue::U32(values),
        Ok(CValue::Longlong(value)) => AttributeValue::I64(vec![value]),
        Ok(CValue::Longlongs(values)) => AttributeValue::I64(values),
        Ok(CValue::Ulonglong(value)) => AttributeValue::U64(vec![value]),
        Ok(CValue::Ulonglongs(values)) => AttributeValue::U64(values),
        Ok(CValue::Float(value)) => AttributeValue::F32(vec![value]),
        Ok(CValue::Floats(values)) => AttributeValue::F32(values),
        Ok(CValue::Double(value)) => AttributeValue::F64(vec![value]),
        Ok(CValue::Doubles(values)) => AttributeValue::F64(values),
        Ok(CValue::Str(text)) => AttributeValue::Text(text),
        Ok(CValue::Strs(strings)) => AttributeValue::Strings(strings),
        Err(error) => AttributeValue::Unsupported(error.to_string()),
    };
    Attribute { name: attribute.name().to_owned(), value }
}
