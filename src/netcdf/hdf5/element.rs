//! HDF5 types and layouts as NetCDF types and [`Layout`]s.

use bytes::Bytes;
use hdf5_reader::ByteOrder;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::dataspace::DataspaceMessage;
use hdf5_reader::messages::datatype::{Datatype, ReferenceType, StringPadding, StringSize, VarLenKind};
use hdf5_reader::messages::filter_pipeline::FilterDescription;
use hdf5_reader::messages::layout::DataLayout;
use hdf5_reader::object_header::ObjectHeader;

use super::attributes::is_text;
use super::chunks::ChunkIndex;
use super::undefined;
use crate::error::{Error, Result};
use crate::netcdf::block::{Layout, Storage, Text};
use crate::netcdf::byte_order;
use crate::netcdf::decode::Pipeline;
use crate::netcdf::structure::DataType;

/// An element's NetCDF type and how it is stored.
pub(super) struct Element {
    pub(super) data_type: DataType,
    pub(super) big_endian: bool,
    pub(super) text: Option<Text>,
}

/// Maps an HDF5 type as netCDF-C's `get_type_info2` does; enumerations are their base integers.
pub(super) fn element(hdf5: &Datatype) -> Element {
    let plain = |data_type: DataType| Element { data_type, big_endian: false, text: None };
    let unsupported = |what: String| plain(DataType::Unsupported(what));
    match hdf5 {
        Datatype::FixedPoint { size, signed, byte_order } => {
            let data_type = match (size, signed) {
                (1, true) => DataType::I8,
                (1, false) => DataType::U8,
                (2, true) => DataType::I16,
                (2, false) => DataType::U16,
                (4, true) => DataType::I32,
                (4, false) => DataType::U32,
                (8, true) => DataType::I64,
                (8, false) => DataType::U64,
                _ => DataType::Unsupported(format!("{size}-byte integer")),
            };
            Element { data_type, big_endian: *byte_order == ByteOrder::BigEndian, text: None }
        }
        Datatype::FloatingPoint { size, byte_order } => {
            let data_type = match size {
                4 => DataType::F32,
                8 => DataType::F64,
                _ => DataType::Unsupported(format!("{size}-byte float")),
            };
            Element { data_type, big_endian: *byte_order == ByteOrder::BigEndian, text: None }
        }
        Datatype::String { size: StringSize::Fixed(1), .. } => plain(DataType::Char),
        Datatype::String { size: StringSize::Fixed(_), padding, .. } => {
            let padding = match padding {
                StringPadding::NullTerminate => None,
                StringPadding::NullPad => Some(0),
                StringPadding::SpacePad => Some(b' '),
            };
            Element { data_type: DataType::String, big_endian: false, text: Some(Text::Fixed { padding }) }
        }
        Datatype::String { size: StringSize::Variable, .. } => {
            Element { data_type: DataType::String, big_endian: false, text: Some(Text::Heap) }
        }
        Datatype::VarLen { base, kind: VarLenKind::String, .. } if base.is_vlen_string_base() => {
            Element { data_type: DataType::String, big_endian: false, text: Some(Text::Heap) }
        }
        Datatype::Enum { base, .. } => element(base),
        Datatype::Compound { .. } => unsupported("compound".to_owned()),
        Datatype::Array { .. } => unsupported("array".to_owned()),
        Datatype::VarLen { .. } => unsupported("variable-length sequence".to_owned()),
        Datatype::Opaque { .. } => unsupported("opaque".to_owned()),
        Datatype::Reference { ref_type: ReferenceType::Object, .. } => unsupported("object reference".to_owned()),
        Datatype::Reference { .. } => unsupported("region reference".to_owned()),
        Datatype::Bitfield { .. } => unsupported("bit field".to_owned()),
    }
}

/// Whether a type is written as a number that fills its bytes, IEEE where it is a float. `hdf5-reader` drops the fields
/// that tell, and reading a 12-bit integer as a 16-bit one would be silently wrong. What is no number is plain.
fn is_plain_number(encoded: &[u8]) -> bool {
    let [class, bits, _, _, size @ 0..=255, 0, 0, 0, offset, 0, precision, 0, properties @ ..] = encoded else {
        return true;
    };
    let fills = *offset == 0 && u16::from(*precision) == u16::from(*size) * 8;
    match (class & 15, size) {
        (0, _) => fills,
        // Exponent and mantissa: location and size; the bias. Bit 6 of the flags is the byte order of a VAX.
        (1, 4) => fills && bits & 64 == 0 && properties.starts_with(&[23, 8, 0, 23, 127, 0, 0, 0]),
        (1, 8) => fills && bits & 64 == 0 && properties.starts_with(&[52, 11, 0, 52, 255, 3, 0, 0]),
        _ => true,
    }
}

/// Where the elements of the data set behind `header` lie, whose type is written as `encoded_type`; addresses count from
/// `base`.
pub(super) fn layout(
    header: &ObjectHeader,
    encoded_type: &[u8],
    offset_size: u8,
    base: u64,
) -> Result<(DataType, Layout)> {
    let mut hdf5 = None;
    let mut dataspace = None;
    let mut place = None;
    let mut fill_value = None;
    let mut filters = Vec::new();
    let mut external = false;
    for message in &header.messages {
        match message {
            HdfMessage::Dataspace(message) => dataspace = Some(message),
            HdfMessage::Datatype(message) => hdf5 = Some(message),
            HdfMessage::DataLayout(message) => place = Some(&message.layout),
            // Old and new messages may both be there; the one with a value wins.
            HdfMessage::FillValue(message) => fill_value = message.value.as_ref().or(fill_value),
            HdfMessage::FilterPipeline(message) => filters.clone_from(&message.filters),
            HdfMessage::ExternalFiles(_) => external = true,
            _ => {}
        }
    }
    let missing = |what: &str| Error::corrupt(format!("expected a {what} in the object header, found none"));
    let hdf5 = hdf5.ok_or_else(|| missing("data type"))?;
    let dataspace = dataspace.ok_or_else(|| missing("shape"))?;
    let place = place.ok_or_else(|| missing("data layout"))?;
    let Element { mut data_type, big_endian, text } = element(&hdf5.datatype);
    if data_type.size().is_some() && !is_plain_number(encoded_type) {
        data_type = DataType::Unsupported("number with unused bits".to_owned());
    }
    let element_size = match (data_type.size(), &hdf5.datatype) {
        (Some(size), _) => size,
        (None, Datatype::String { size: StringSize::Fixed(length), .. }) => *length as usize,
        (None, _) if text == Some(Text::Heap) => 8 + usize::from(offset_size),
        (None, _) => hdf5.size as usize,
    };
    let mut fill = vec![0; element_size];
    let user_fill = fill_value.filter(|bytes| bytes.len() == element_size);
    if let Some(bytes) = user_fill {
        fill.copy_from_slice(bytes);
        if big_endian {
            byte_order::swap(&mut fill, element_size);
        }
    }
    let padding = if user_fill.is_some() || is_text(&data_type) || data_type.size().is_none() {
        fill.clone()
    } else {
        data_type.default_fill()
    };
    let storage = if let DataType::Unsupported(what) = &data_type {
        Storage::Unreadable(format!("values of type `{what}` are not read"))
    } else if external {
        Storage::Unreadable("external raw data are not read: they are in another file".to_owned())
    } else {
        stored(place, filters, dataspace, undefined(offset_size), base)
    };
    Ok((data_type, Layout { element_size, big_endian, text, extent: dataspace.dims.clone(), fill, padding, storage }))
}

fn stored(
    place: &DataLayout,
    filters: Vec<FilterDescription>,
    dataspace: &DataspaceMessage,
    undefined: u64,
    base: u64,
) -> Storage {
    match place {
        DataLayout::Compact { data } => Storage::Inline(Bytes::copy_from_slice(data)),
        DataLayout::Contiguous { address, size } if *address == undefined || *size == 0 => Storage::Absent,
        DataLayout::Contiguous { address, .. } => Storage::Contiguous { address: address.saturating_add(base) },
        DataLayout::Chunked { address, dims, chunk_indexing, .. } => {
            // Layouts before version 4 end with the element size.
            let chunk_shape = dims[..dims.len().min(dataspace.dims.len())].to_vec();
            let index = ChunkIndex {
                address: Some(*address).filter(|address| *address != undefined),
                extent: dataspace.dims.clone(),
                largest: dataspace.max_dims.clone(),
                indexing: chunk_indexing.clone(),
                chunk_shape,
            };
            Storage::Chunks { index, pipeline: Pipeline::new(filters) }
        }
    }
}

impl Layout {
    /// The shape of its chunks, where it is chunked.
    pub(super) fn chunk_shape(&self) -> Option<Vec<u64>> {
        match &self.storage {
            Storage::Chunks { index, .. } => Some(index.chunk_shape.iter().map(|&size| u64::from(size)).collect()),
            _ => None,
        }
    }
}
