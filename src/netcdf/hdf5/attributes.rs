//! HDF5 attributes as NetCDF attributes.

use hdf5_reader::messages::datatype::{Datatype, StringSize, VarLenKind};

use super::element;
use crate::netcdf::byte_order;
use crate::netcdf::structure::{Attribute, AttributeValue, DataType, name_without_padding, text};

/// What netCDF-C keeps for itself (`NC_reservedatt` with the flag "hidden", and `_nc3_strict`).
const HIDDEN: [&str; 8] = [
    "CLASS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_NCProperties",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_nc3_strict",
];

/// Brings the bytes behind a reference to the global heap.
pub(super) type Resolve<'a> = &'a dyn Fn(&[u8], usize) -> hdf5_reader::error::Result<Vec<u8>>;

/// The attributes that NetCDF shows.
pub(super) fn visible(attributes: &[hdf5_reader::Attribute], resolve: Resolve<'_>) -> Vec<Attribute> {
    attributes
        .iter()
        .filter(|attribute| !HIDDEN.contains(&attribute.name.as_str()))
        .map(|attribute| Attribute { name: name_without_padding(&attribute.name), value: value(attribute, resolve) })
        .collect()
}

fn value(attribute: &hdf5_reader::Attribute, resolve: Resolve<'_>) -> AttributeValue {
    match &attribute.datatype {
        Datatype::String { size: StringSize::Fixed(length), .. } => fixed_text(attribute, *length as usize),
        Datatype::String { size: StringSize::Variable, .. } => heap_text(attribute, resolve),
        Datatype::VarLen { base, kind: VarLenKind::String, .. } if base.is_vlen_string_base() => {
            heap_text(attribute, resolve)
        }
        other => {
            let element = element::element(other);
            match element.data_type.size() {
                Some(size) => {
                    let mut bytes = attribute.raw_data.clone();
                    if element.big_endian {
                        byte_order::swap(&mut bytes, size);
                    }
                    AttributeValue::from_little_endian(&element.data_type, &bytes)
                }
                None => AttributeValue::Unsupported(element.data_type.name().to_owned()),
            }
        }
    }
}

/// A scalar of fixed-length text is a character array; an array of them is an array of strings, as in netCDF-C.
fn fixed_text(attribute: &hdf5_reader::Attribute, length: usize) -> AttributeValue {
    if attribute.shape.is_empty() || attribute.shape.contains(&0) {
        return text(&attribute.raw_data);
    }
    let strings = attribute.raw_data.chunks_exact(length.max(1)).map(terminated);
    AttributeValue::Strings(strings.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
}

fn heap_text(attribute: &hdf5_reader::Attribute, resolve: Resolve<'_>) -> AttributeValue {
    if let Some(strings) = &attribute.decoded_strings {
        return AttributeValue::Strings(strings.clone());
    }
    if attribute.shape.is_empty() || attribute.shape == [1] {
        // The crate has resolved a single value; it is not UTF-8, else it would have been decoded.
        return text(terminated(&attribute.raw_data));
    }
    let count = attribute.shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size)).unwrap_or(0);
    let Some(size) = (attribute.raw_data.len() as u64).checked_div(count).filter(|size| *size >= 12) else {
        return AttributeValue::Unsupported("damaged string".to_owned());
    };
    let strings: Option<Vec<String>> = attribute
        .raw_data
        .chunks_exact(size as usize)
        .map(|reference| Some(String::from_utf8_lossy(terminated(&resolve(reference, 1).ok()?)).into_owned()))
        .collect();
    strings.map_or_else(|| AttributeValue::Unsupported("damaged string".to_owned()), AttributeValue::Strings)
}

/// The bytes up to the first NUL.
pub(super) fn terminated(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The text of attribute `name`, where it is text.
pub(super) fn text_of(attributes: &[hdf5_reader::Attribute], name: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.name == name)?;
    match value(attribute, &|_, _| Ok(Vec::new())) {
        AttributeValue::Text(text) => Some(text),
        AttributeValue::Strings(mut strings) if strings.len() == 1 => strings.pop(),
        _ => None,
    }
}

/// The integers of attribute `name`, where it holds 32-bit integers.
pub(super) fn integers_of(attributes: &[hdf5_reader::Attribute], name: &str) -> Option<Vec<i32>> {
    let attribute = attributes.iter().find(|attribute| attribute.name == name)?;
    match value(attribute, &|_, _| Ok(Vec::new())) {
        AttributeValue::I32(values) => Some(values),
        _ => None,
    }
}

/// Whether the type is a character, for which padding is text's and not a number's.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Char | DataType::String)
}
