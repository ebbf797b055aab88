//! Reading the compact protocol; every limit stands before what it guards.

use bytes::Bytes;

use super::{List, Map, Struct, Value, kind};
use crate::error::{Error, Result};

/// Structs, lists and maps inside each other.
const DEEPEST: usize = 64;
/// Values of one tree: a file of 10,000 columns and 100 row groups has 25 million; each takes 40 bytes of memory.
const MOST_VALUES: usize = 64 << 20;
/// Fields of one struct; `parquet.thrift` has at most 17.
const MOST_FIELDS: usize = 1024;
/// Room that is set aside for a list before its elements are seen.
const FORESEEN: usize = 1024;

/// Where the reading stands.
pub(super) struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    values: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0, values: 0 }
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::corrupt(format!("thrift: {what} at byte `{}` of `{}`", self.at, self.bytes.len()))
    }

    fn take(&mut self, count: usize) -> Result<Bytes> {
        if count > self.left() {
            return Err(self.corrupt(&format!("expected `{count}` more bytes, found `{}`", self.left())));
        }
        let bytes = self.bytes.slice(self.at..self.at + count);
        self.at += count;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| self.corrupt("expected `1` more byte, found `0`"))?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(self.corrupt("a number of more than 64 bits"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number of more than 10 bytes"))
    }

    fn zigzag<T: TryFrom<i64>>(&mut self) -> Result<T> {
        let value = self.varint()?;
        let value = ((value >> 1) as i64) ^ -((value & 1) as i64);
        T::try_from(value).map_err(|_| self.corrupt(&format!("the number `{value}` does not fit its type")))
    }

    /// A number of elements, each of at least `smallest` bytes.
    fn count(&mut self, count: u64, smallest: usize) -> Result<usize> {
        let found = usize::try_from(count).ok().filter(|count| *count <= self.left() / smallest);
        let count = found.ok_or_else(|| self.corrupt(&format!("`{count}` elements in `{}` bytes", self.left())))?;
        self.values += count;
        if self.values > MOST_VALUES {
            return Err(self.corrupt(&format!("more than `{MOST_VALUES}` values")));
        }
        Ok(count)
    }

    /// Reads one struct.
    pub(super) fn structure(&mut self, depth: usize) -> Result<Struct> {
        if depth > DEEPEST {
            return Err(self.corrupt(&format!("more than `{DEEPEST}` levels")));
        }
        let mut fields: Vec<(i16, Value)> = Vec::new();
        let (mut last, mut highest) = (0_i16, i16::MIN);
        loop {
            let header = self.byte()?;
            let (delta, kind) = (header >> 4, header & 0x0f);
            if kind == 0 {
                return if header == 0 {
                    fields.shrink_to_fit();
                    Ok(Struct { fields })
                } else {
                    Err(self.corrupt(&format!("a field header `{header:#04x}`")))
                };
            }
            let id = match delta {
                0 => self.zigzag::<i16>()?,
                delta => last.checked_add(i16::from(delta)).ok_or_else(|| self.corrupt("a field number past 32767"))?,
            };
            if fields.len() >= MOST_FIELDS || (id <= highest && fields.iter().any(|(found, _)| *found == id)) {
                return Err(self.corrupt(&format!("field `{id}` twice, or more than `{MOST_FIELDS}` fields")));
            }
            self.count(1, 1)?;
            let value = match kind {
                kind::TRUE => Value::Bool(true),
                kind::FALSE => Value::Bool(false),
                kind => self.value(kind, depth)?,
            };
            fields.push((id, value));
            last = id;
            highest = highest.max(id);
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Value> {
        Ok(match kind {
            kind::TRUE | kind::FALSE | kind::I8 => Value::I8(self.byte()? as i8),
            kind::I16 => Value::I16(self.zigzag()?),
            kind::I32 => Value::I32(self.zigzag()?),
            kind::I64 => Value::I64(self.zigzag()?),
            kind::DOUBLE => Value::Double(u64::from_le_bytes(self.array()?)),
            kind::BINARY => {
                let length = self.varint()?;
                Value::Binary(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            kind::LIST => Value::List(self.list(depth + 1)?),
            kind::SET => Value::Set(self.list(depth + 1)?),
            kind::MAP => Value::Map(self.map(depth + 1)?),
            kind::STRUCT => Value::Struct(self.structure(depth + 1)?),
            kind::UUID => Value::Uuid(self.array()?),
            other => return Err(self.corrupt(&format!("the unknown type `{other}`"))),
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    fn list(&mut self, depth: usize) -> Result<List> {
        if depth > DEEPEST {
            return Err(self.corrupt(&format!("more than `{DEEPEST}` levels")));
        }
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        let element = header & 0x0f;
        let count = self.count(count, 1)?;
        let mut values = Vec::with_capacity(count.min(FORESEEN));
        for _ in 0..count {
            values.push(self.value(element, depth)?);
        }
        Ok(List { element, values })
    }

    fn map(&mut self, depth: usize) -> Result<Map> {
        if depth > DEEPEST {
            return Err(self.corrupt(&format!("more than `{DEEPEST}` levels")));
        }
        let count = self.varint()?;
        if count == 0 {
            return Ok(Map { types: (0, 0), pairs: Vec::new() });
        }
        let types = self.byte()?;
        let types = (types >> 4, types & 0x0f);
        let count = self.count(count, 2)?;
        let mut pairs = Vec::with_capacity(count.min(FORESEEN));
        for _ in 0..count {
            pairs.push((self.value(types.0, depth)?, self.value(types.1, depth)?));
        }
        Ok(Map { types, pairs })
    }
}
