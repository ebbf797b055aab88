//! The header of CDF-1, CDF-2 and CDF-5 files, as the "NetCDF Classic Format" specification writes it.
//!
//! Everything is big-endian. Counts are 4 bytes (8 in CDF-5), offsets 4 bytes in CDF-1 and 8 after it; names and values
//! are padded to 4 bytes. No count is believed before as many bytes are there.

use crate::error::{Error, Result};
use crate::netcdf::byte_order;
use crate::netcdf::structure::{Attribute, AttributeValue, DataType, name_without_padding};

/// A parsed header.
#[derive(Debug)]
pub(super) struct Header {
    /// Number of records; `None` where the writer was streaming and did not know.
    pub(super) records: Option<u64>,
    pub(super) dimensions: Vec<(String, u64)>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) variables: Vec<HeaderVariable>,
    /// Bytes of the header.
    pub(super) size: u64,
}

#[derive(Debug)]
pub(super) struct HeaderVariable {
    pub(super) name: String,
    pub(super) dimensions: Vec<usize>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) data_type: DataType,
    pub(super) begin: u64,
}

/// Why a header could not be parsed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The bytes at hand end inside the header.
    Ends,
    /// The header contradicts the specification.
    Wrong(Error),
}

type Parsed<T> = Result<T, Failure>;

fn wrong<T>(message: String) -> Parsed<T> {
    Err(Failure::Wrong(Error::corrupt(message).hint("the file is damaged: fetch it again")))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    version: u8,
}

const DIMENSIONS: u32 = 10;
const VARIABLES: u32 = 11;
const ATTRIBUTES: u32 = 12;

/// Parses the header at the start of `bytes`, of a file of CDF `version`.
pub(super) fn parse(bytes: &[u8], version: u8) -> Parsed<Header> {
    let mut cursor = Cursor { bytes, position: 4, version };
    let streaming = if version == 5 { u64::MAX } else { u64::from(u32::MAX) };
    let records = cursor.count()?;
    let dimensions = cursor.dimensions()?;
    let attributes = cursor.attributes()?;
    let variables = cursor.variables(dimensions.len())?;
    let records = (records != streaming).then_some(records);
    Ok(Header { records, dimensions, attributes, variables, size: cursor.position as u64 })
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Parsed<&'a [u8]> {
        let end = self.position.checked_add(length).ok_or(Failure::Ends)?;
        let bytes = self.bytes.get(self.position..end).ok_or(Failure::Ends)?;
        self.position = end;
        Ok(bytes)
    }

    fn u32(&mut self) -> Parsed<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    /// A non-negative number: 4 bytes, 8 in CDF-5.
    fn count(&mut self) -> Parsed<u64> {
        if self.version == 5 { self.u64() } else { Ok(u64::from(self.u32()?)) }
    }

    fn offset(&mut self) -> Parsed<u64> {
        if self.version == 1 { Ok(u64::from(self.u32()?)) } else { self.u64() }
    }

    /// A number of things that take at least `least` bytes each.
    fn count_of(&mut self, least: usize) -> Parsed<usize> {
        let count = self.count()?;
        let rest = (self.bytes.len() - self.position) as u64;
        if count.checked_mul(least as u64).is_none_or(|bytes| bytes > rest) {
            return Err(Failure::Ends);
        }
        Ok(count as usize)
    }

    /// `length` bytes and their padding to four.
    fn padded(&mut self, length: usize) -> Parsed<&'a [u8]> {
        let bytes = self.take(length)?;
        // The last value of a header may lack its padding at the end of the file.
        let padding = length.next_multiple_of(4) - length;
        self.position = (self.position + padding).min(self.bytes.len());
        Ok(bytes)
    }

    fn name(&mut self) -> Parsed<String> {
        let length = self.count_of(1)?;
        let bytes = self.padded(length)?;
        Ok(name_without_padding(&String::from_utf8_lossy(bytes)))
    }

    /// The number of elements of a list, 0 where it is absent.
    fn list(&mut self, tag: u32, what: &str, least: usize) -> Parsed<usize> {
        let found = self.u32()?;
        if found == 0 {
            return match self.count()? {
                0 => Ok(0),
                count => wrong(format!("expected no {what}s behind an absent tag, found `{count}`")),
            };
        }
        if found != tag {
            return wrong(format!("expected the tag `{tag}` of the {what} list, found `{found}`"));
        }
        self.count_of(least)
    }

    fn dimensions(&mut self) -> Parsed<Vec<(String, u64)>> {
        let count = self.list(DIMENSIONS, "dimension", 8)?;
        (0..count).map(|_| Ok((self.name()?, self.count()?))).collect()
    }

    fn data_type(&mut self) -> Parsed<DataType> {
        Ok(match (self.u32()?, self.version) {
            (1, _) => DataType::I8,
            (2, _) => DataType::Char,
            (3, _) => DataType::I16,
            (4, _) => DataType::I32,
            (5, _) => DataType::F32,
            (6, _) => DataType::F64,
            (7, 5) => DataType::U8,
            (8, 5) => DataType::U16,
            (9, 5) => DataType::U32,
            (10, 5) => DataType::I64,
            (11, 5) => DataType::U64,
            (code, version) => return wrong(format!("`{code}` is no type of CDF-{version}")),
        })
    }

    fn attributes(&mut self) -> Parsed<Vec<Attribute>> {
        let count = self.list(ATTRIBUTES, "attribute", 12)?;
        let mut attributes = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.name()?;
            let data_type = self.data_type()?;
            let size = data_type.size().unwrap_or(1);
            let length = self.count_of(size)?;
            let mut bytes = self.padded(length * size)?.to_vec();
            byte_order::swap(&mut bytes, size);
            attributes.push(Attribute { name, value: AttributeValue::from_little_endian(&data_type, &bytes) });
        }
        Ok(attributes)
    }

    fn variables(&mut self, dimension_count: usize) -> Parsed<Vec<HeaderVariable>> {
        let count = self.list(VARIABLES, "variable", 28)?;
        let mut variables = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.name()?;
            let rank = self.count_of(4)?;
            let mut dimensions = Vec::with_capacity(rank);
            for _ in 0..rank {
                let dimension = self.count()?;
                if dimension >= dimension_count as u64 {
                    return wrong(format!("variable `{name}` names dimension `{dimension}` of `{dimension_count}`"));
                }
                dimensions.push(dimension as usize);
            }
            let attributes = self.attributes()?;
            let data_type = self.data_type()?;
            // `vsize` is redundant, and wrong for variables beyond 4 GB: it is computed instead.
            self.count()?;
            let begin = self.offset()?;
            variables.push(HeaderVariable { name, dimensions, attributes, data_type, begin });
        }
        Ok(variables)
    }
}
