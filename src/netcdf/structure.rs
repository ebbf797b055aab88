//! What a file holds: groups, dimensions, attributes, variables.

use std::sync::{Arc, OnceLock};

use super::block::{Block, Layout};

/// A group; the root group has an empty name and path. Classic files have only a root.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The last part of the path.
    pub name: String,
    /// Names from the root, joined by `/`; empty for the root.
    pub path: String,
    /// Dimensions declared in this group, not the inherited ones.
    pub dimensions: Vec<Dimension>,
    /// Attributes in the file's order.
    pub attributes: Vec<Attribute>,
    /// Variables in the file's order.
    pub variables: Vec<Variable>,
    /// Child groups in the file's order.
    pub groups: Vec<Group>,
}

/// A named extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// Its name, without padding.
    pub name: String,
    /// The number of indices now.
    pub size: u64,
    /// Whether it may grow.
    pub unlimited: bool,
}

/// A named value of a group or a variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: AttributeValue,
}

/// An attribute's value. Numbers are one-dimensional, as in the NetCDF data model; a scalar has one element.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum AttributeValue {
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// A character array that is UTF-8, without trailing NULs.
    Text(String),
    /// A character array that is not UTF-8, as stored, without trailing NULs.
    Bytes(Vec<u8>),
    /// NetCDF strings.
    Strings(Vec<String>),
    /// A type that regraft does not read, by name.
    Unsupported(String),
}

/// The type of a variable's elements.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum DataType {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    /// One byte of text (`NC_CHAR`).
    Char,
    /// Text of any length (`NC_STRING`), UTF-8.
    String,
    /// A type that is listed but cannot be read, by name.
    Unsupported(String),
}

impl DataType {
    /// Bytes of one decoded element; `None` for strings and unsupported types.
    #[must_use]
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Self::I8 | Self::U8 | Self::Char => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
            Self::String | Self::Unsupported(_) => return None,
        })
    }

    /// The NumPy-like name, `int16`; `char` and `string` for text.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::I16 => "int16",
            Self::U16 => "uint16",
            Self::I32 => "int32",
            Self::U32 => "uint32",
            Self::I64 => "int64",
            Self::U64 => "uint64",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Char => "char",
            Self::String => "string",
            Self::Unsupported(what) => what,
        }
    }

    /// netCDF-C's default fill value (`NC_FILL_SHORT` …), little-endian; empty for strings and unsupported types.
    pub(crate) fn default_fill(&self) -> Vec<u8> {
        match self {
            Self::I8 => vec![(-127_i8).to_le_bytes()[0]],
            Self::U8 => vec![255],
            Self::I16 => (-32767_i16).to_le_bytes().to_vec(),
            Self::U16 => 65535_u16.to_le_bytes().to_vec(),
            Self::I32 => (-2_147_483_647_i32).to_le_bytes().to_vec(),
            Self::U32 => 4_294_967_295_u32.to_le_bytes().to_vec(),
            Self::I64 => (-9_223_372_036_854_775_806_i64).to_le_bytes().to_vec(),
            Self::U64 => 18_446_744_073_709_551_614_u64.to_le_bytes().to_vec(),
            Self::F32 => 9.969_21e36_f32.to_le_bytes().to_vec(),
            Self::F64 => 9.969_209_968_386_869e36_f64.to_le_bytes().to_vec(),
            Self::Char => vec![0],
            Self::String | Self::Unsupported(_) => Vec::new(),
        }
    }
}

/// A variable: its shape, type and attributes, and where its elements lie.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The last part of the path.
    pub name: String,
    /// `group/name`; the name alone in the root group.
    pub path: String,
    /// The element type.
    pub data_type: DataType,
    /// Dimension names, outermost first.
    pub dimensions: Vec<String>,
    /// The size of each dimension.
    pub shape: Vec<u64>,
    /// The shape of HDF5 chunks; `None` where the variable is not chunked.
    pub chunk_shape: Option<Vec<u64>>,
    /// Attributes in the file's order.
    pub attributes: Vec<Attribute>,
    /// The explicit `_FillValue`, one element, little-endian.
    pub fill_value: Option<Vec<u8>>,
    /// Where the elements lie.
    pub(crate) layout: Arc<Layout>,
    /// The blocks, once asked for.
    pub(crate) blocks: OnceLock<Arc<[Block]>>,
}

impl Variable {
    /// The attribute called `name`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|attribute| attribute.name == name).map(|attribute| &attribute.value)
    }

    /// Number of elements; `None` where it overflows 64 bits.
    #[must_use]
    pub fn element_count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size))
    }
}

impl Group {
    /// The attribute called `name`.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|attribute| attribute.name == name).map(|attribute| &attribute.value)
    }

    /// The variable at `path` (`group/name`), below this group.
    #[must_use]
    pub fn variable(&self, path: &str) -> Option<&Variable> {
        let path = path.trim_start_matches('/');
        match path.split_once('/') {
            None => self.variables.iter().find(|variable| variable.name == path),
            Some((name, rest)) => self.groups.iter().find(|group| group.name == name)?.variable(rest),
        }
    }
}

/// The name as NetCDF's C interface shows it: up to the first NUL.
pub(crate) fn name_without_padding(name: &str) -> String {
    name.split('\0').next().unwrap_or_default().to_owned()
}

/// Characters as text where they are UTF-8, as bytes where they are not; trailing NULs are padding.
pub(crate) fn text(bytes: &[u8]) -> AttributeValue {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    match std::str::from_utf8(&bytes[..end]) {
        Ok(text) => AttributeValue::Text(text.to_owned()),
        Err(_) => AttributeValue::Bytes(bytes[..end].to_vec()),
    }
}

impl AttributeValue {
    /// Numbers of type `data_type` from little-endian bytes; text from characters.
    pub(crate) fn from_little_endian(data_type: &DataType, bytes: &[u8]) -> Self {
        fn numbers<const N: usize, T>(bytes: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks::<N>().0.iter().map(|chunk| from(*chunk)).collect()
        }
        match data_type {
            DataType::I8 => Self::I8(numbers(bytes, i8::from_le_bytes)),
            DataType::U8 => Self::U8(bytes.to_vec()),
            DataType::I16 => Self::I16(numbers(bytes, i16::from_le_bytes)),
            DataType::U16 => Self::U16(numbers(bytes, u16::from_le_bytes)),
            DataType::I32 => Self::I32(numbers(bytes, i32::from_le_bytes)),
            DataType::U32 => Self::U32(numbers(bytes, u32::from_le_bytes)),
            DataType::I64 => Self::I64(numbers(bytes, i64::from_le_bytes)),
            DataType::U64 => Self::U64(numbers(bytes, u64::from_le_bytes)),
            DataType::F32 => Self::F32(numbers(bytes, f32::from_le_bytes)),
            DataType::F64 => Self::F64(numbers(bytes, f64::from_le_bytes)),
            DataType::Char => text(bytes),
            DataType::String => Self::Unsupported("string".to_owned()),
            DataType::Unsupported(what) => Self::Unsupported(what.clone()),
        }
    }

    /// The value's type as [`DataType`] names it.
    #[must_use]
    pub fn type_name(&self) -> &str {
        match self {
            Self::I8(_) => "int8",
            Self::U8(_) => "uint8",
            Self::I16(_) => "int16",
            Self::U16(_) => "uint16",
            Self::I32(_) => "int32",
            Self::U32(_) => "uint32",
            Self::I64(_) => "int64",
            Self::U64(_) => "uint64",
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
            Self::Text(_) | Self::Bytes(_) => "char",
            Self::Strings(_) => "string",
            Self::Unsupported(what) => what,
        }
    }

    /// The bytes of numbers and characters, little-endian; `None` for strings and unsupported types.
    #[must_use]
    pub fn to_little_endian(&self) -> Option<Vec<u8>> {
        Some(match self {
            Self::I8(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U8(values) => values.clone(),
            Self::I16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::U64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Strings(_) | Self::Unsupported(_) => return None,
        })
    }
}
