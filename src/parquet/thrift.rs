//! Thrift's compact protocol as a tree: read, edit, write; what is not understood survives.
//!
//! # Problem
//! A footer is edited in a few places and must stay the same in all others. A reader that knows the fields of today's
//! `parquet.thrift` loses those of tomorrow, and those that it has no use for (column key-values, encoding statistics).
//!
//! # Design
//! * A [`Struct`] is its fields in the order in which they were written, each a number and a [`Value`]. Nothing is
//!   interpreted: a text is bytes, an enumeration is an `I32`.
//! * Reading and writing again gives the same bytes, for every writer seen so far: fields in ascending order with short
//!   headers, numbers as short as they can be. What a writer might have written longer than needed comes back shorter.
//! * Bytes are slices of the footer, not copies.
//! * The input is hostile: depth, counts (against the bytes that are left; every element takes one at least) and the number
//!   of values are limited before anything is allocated.
//!
//! # Alternatives considered
//! The `parquet` crate's own structs drop column key-values and unknown fields, and write column orders where there were
//! none. The `thrift` crate reads into generated structs, which is the same with more code.
//!
//! # Testing
//! Property: any tree survives writing and reading. Every footer of every sample file comes back byte by byte
//! (`tests/rust/parquet.rs`); mutants end in `Corrupt`.
//!
//! Source of the encoding: `doc/specs/thrift-compact-protocol.md` of Apache Thrift.

mod reader;

use bytes::Bytes;

use crate::error::Result;
use reader::Reader;

/// What type an element or a field has, as the protocol numbers them.
pub mod kind {
    /// `true` as a field; a boolean as an element.
    pub const TRUE: u8 = 1;
    /// `false` as a field; a boolean as an element.
    pub const FALSE: u8 = 2;
    /// One byte.
    pub const I8: u8 = 3;
    /// 16 bits, zigzag.
    pub const I16: u8 = 4;
    /// 32 bits, zigzag.
    pub const I32: u8 = 5;
    /// 64 bits, zigzag.
    pub const I64: u8 = 6;
    /// IEEE 754, little-endian.
    pub const DOUBLE: u8 = 7;
    /// Bytes or text.
    pub const BINARY: u8 = 8;
    /// A list.
    pub const LIST: u8 = 9;
    /// A set.
    pub const SET: u8 = 10;
    /// A map.
    pub const MAP: u8 = 11;
    /// A struct.
    pub const STRUCT: u8 = 12;
    /// 16 bytes.
    pub const UUID: u8 = 13;
}

/// A value of any type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A boolean field.
    Bool(bool),
    /// A byte; also a boolean inside a list, set or map, as it was written (1 is true, 0 or 2 is false).
    I8(i8),
    /// 16 bits.
    I16(i16),
    /// 32 bits.
    I32(i32),
    /// 64 bits.
    I64(i64),
    /// The bits of a double.
    Double(u64),
    /// Bytes or text.
    Binary(Bytes),
    /// A list.
    List(List),
    /// A set.
    Set(List),
    /// A map.
    Map(Map),
    /// A struct.
    Struct(Struct),
    /// 16 bytes.
    Uuid([u8; 16]),
}

/// Elements of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The type of every element, one of [`kind`].
    pub element: u8,
    /// The elements.
    pub values: Vec<Value>,
}

/// Pairs of one type each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// The types of key and value; nothing is written of them where there are no pairs.
    pub types: (u8, u8),
    /// The pairs.
    pub pairs: Vec<(Value, Value)>,
}

/// Numbered fields, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Struct {
    fields: Vec<(i16, Value)>,
}

impl Struct {
    /// Reads one struct from the front of `bytes`; also how many bytes it took.
    ///
    /// # Errors
    /// [`crate::error::Kind::Corrupt`] when the bytes are not a struct or pass the limits.
    pub fn read(bytes: &Bytes) -> Result<(Self, usize)> {
        let mut reader = Reader::new(bytes);
        let value = reader.structure(0)?;
        Ok((value, reader.read()))
    }

    /// Writes the struct at the end of `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut last = 0_i16;
        for (id, value) in &self.fields {
            let kind = match value {
                Value::Bool(true) => kind::TRUE,
                Value::Bool(false) => kind::FALSE,
                other => other.kind(),
            };
            let delta = i32::from(*id) - i32::from(last);
            if (1..=15).contains(&delta) {
                out.push(((delta as u8) << 4) | kind);
            } else {
                out.push(kind);
                write_zigzag(out, i64::from(*id));
            }
            if !matches!(value, Value::Bool(_)) {
                value.write(out);
            }
            last = *id;
        }
        out.push(0);
    }

    /// The bytes of the struct.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    /// The fields in their order.
    #[must_use]
    pub fn fields(&self) -> &[(i16, Value)] {
        &self.fields
    }

    /// The field numbered `id`.
    #[must_use]
    pub fn get(&self, id: i16) -> Option<&Value> {
        self.fields.iter().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    /// The field numbered `id`, to be changed.
    pub fn get_mut(&mut self, id: i16) -> Option<&mut Value> {
        self.fields.iter_mut().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    /// Sets a field: in its place where it exists, else before the first with a higher number.
    pub fn set(&mut self, id: i16, value: Value) {
        if let Some(present) = self.get_mut(id) {
            *present = value;
        } else {
            let at = self.fields.iter().position(|(found, _)| *found > id).unwrap_or(self.fields.len());
            self.fields.insert(at, (id, value));
        }
    }

    /// Takes a field out.
    pub fn remove(&mut self, id: i16) -> Option<Value> {
        let at = self.fields.iter().position(|(found, _)| *found == id)?;
        Some(self.fields.remove(at).1)
    }

    /// A whole number of any width.
    #[must_use]
    pub fn integer(&self, id: i16) -> Option<i64> {
        match self.get(id)? {
            Value::I8(value) => Some(i64::from(*value)),
            Value::I16(value) => Some(i64::from(*value)),
            Value::I32(value) => Some(i64::from(*value)),
            Value::I64(value) => Some(*value),
            _ => None,
        }
    }

    /// Bytes.
    #[must_use]
    pub fn binary(&self, id: i16) -> Option<&Bytes> {
        match self.get(id)? {
            Value::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Bytes that are text.
    #[must_use]
    pub fn text(&self, id: i16) -> Option<&str> {
        std::str::from_utf8(self.binary(id)?).ok()
    }

    /// A struct.
    #[must_use]
    pub fn structure(&self, id: i16) -> Option<&Self> {
        match self.get(id)? {
            Value::Struct(value) => Some(value),
            _ => None,
        }
    }

    /// A struct, to be changed.
    pub fn structure_mut(&mut self, id: i16) -> Option<&mut Self> {
        match self.get_mut(id)? {
            Value::Struct(value) => Some(value),
            _ => None,
        }
    }

    /// The elements of a list.
    #[must_use]
    pub fn list(&self, id: i16) -> Option<&[Value]> {
        match self.get(id)? {
            Value::List(list) => Some(&list.values),
            _ => None,
        }
    }

    /// The structs of a list of structs; nothing where the field is absent or something else.
    pub fn structures(&self, id: i16) -> impl Iterator<Item = &Self> {
        self.list(id).unwrap_or_default().iter().filter_map(|value| match value {
            Value::Struct(value) => Some(value),
            _ => None,
        })
    }

    /// Sets a list of structs. The element type stands in the header of an empty list too: readers look at it.
    pub fn set_structures(&mut self, id: i16, structures: impl IntoIterator<Item = Self>) {
        let values = structures.into_iter().map(Value::Struct).collect();
        self.set(id, Value::List(List { element: kind::STRUCT, values }));
    }
}

impl FromIterator<(i16, Value)> for Struct {
    fn from_iter<I: IntoIterator<Item = (i16, Value)>>(fields: I) -> Self {
        Self { fields: fields.into_iter().collect() }
    }
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Binary(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The type of the value as an element.
    fn kind(&self) -> u8 {
        match self {
            Self::Bool(_) => kind::TRUE,
            Self::I8(_) => kind::I8,
            Self::I16(_) => kind::I16,
            Self::I32(_) => kind::I32,
            Self::I64(_) => kind::I64,
            Self::Double(_) => kind::DOUBLE,
            Self::Binary(_) => kind::BINARY,
            Self::List(_) => kind::LIST,
            Self::Set(_) => kind::SET,
            Self::Map(_) => kind::MAP,
            Self::Struct(_) => kind::STRUCT,
            Self::Uuid(_) => kind::UUID,
        }
    }

    /// Writes the value as an element, or as a field after its header.
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.push(if *value { kind::TRUE } else { kind::FALSE }),
            Self::I8(value) => out.push(*value as u8),
            Self::I16(value) => write_zigzag(out, i64::from(*value)),
            Self::I32(value) => write_zigzag(out, i64::from(*value)),
            Self::I64(value) => write_zigzag(out, *value),
            Self::Double(bits) => out.extend(bits.to_le_bytes()),
            Self::Binary(bytes) => {
                write_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::List(list) | Self::Set(list) => {
                match list.values.len() {
                    count @ 0..=14 => out.push(((count as u8) << 4) | list.element),
                    count => {
                        out.push(0xf0 | list.element);
                        write_varint(out, count as u64);
                    }
                }
                for value in &list.values {
                    value.write(out);
                }
            }
            Self::Map(map) => {
                write_varint(out, map.pairs.len() as u64);
                if !map.pairs.is_empty() {
                    out.push((map.types.0 << 4) | map.types.1);
                }
                for (key, value) in &map.pairs {
                    key.write(out);
                    value.write(out);
                }
            }
            Self::Struct(value) => value.write(out),
            Self::Uuid(bytes) => out.extend(bytes),
        }
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_zigzag(out: &mut Vec<u8>, value: i64) {
    write_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalar(kind: u8) -> BoxedStrategy<Value> {
        match kind {
            kind::TRUE | kind::FALSE | kind::I8 => any::<i8>().prop_map(Value::I8).boxed(),
            kind::I16 => any::<i16>().prop_map(Value::I16).boxed(),
            kind::I32 => any::<i32>().prop_map(Value::I32).boxed(),
            kind::I64 => any::<i64>().prop_map(Value::I64).boxed(),
            kind::DOUBLE => any::<u64>().prop_map(Value::Double).boxed(),
            kind::UUID => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
            _ => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Binary(bytes.into())).boxed(),
        }
    }

    fn scalars() -> impl Strategy<Value = (u8, Vec<Value>)> {
        prop::sample::select(vec![1_u8, 2, 3, 4, 5, 6, 7, 8, 13])
            .prop_flat_map(|kind| (Just(kind), prop::collection::vec(scalar(kind), 0..20)))
    }

    fn structure() -> impl Strategy<Value = Struct> {
        let flat = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            prop::sample::select(vec![3_u8, 4, 5, 6, 7, 8, 13]).prop_flat_map(scalar),
            scalars().prop_map(|(element, values)| Value::List(List { element, values })),
            scalars().prop_map(|(element, values)| Value::Set(List { element, values })),
            (scalars(), any::<i32>()).prop_map(|((kind, values), value)| {
                let pairs: Vec<_> = values.into_iter().map(|key| (key, Value::I32(value))).collect();
                let types = if pairs.is_empty() { (0, 0) } else { (kind, kind::I32) };
                Value::Map(Map { types, pairs })
            }),
        ];
        let value = flat.prop_recursive(4, 60, 6, |inner| {
            let inner = prop::collection::btree_map(any::<i16>(), inner, 0..6).prop_map(Struct::from_iter);
            prop_oneof![
                inner.clone().prop_map(Value::Struct),
                prop::collection::vec(inner, 0..20).prop_map(|values| {
                    let values = values.into_iter().map(Value::Struct).collect();
                    Value::List(List { element: kind::STRUCT, values })
                }),
            ]
        });
        prop::collection::btree_map(any::<i16>(), value, 0..8).prop_map(Struct::from_iter)
    }

    proptest! {
        #[test]
        fn any_tree_survives_writing_and_reading(tree in structure()) {
            let bytes = tree.to_bytes();
            let (again, length) = Struct::read(&bytes).unwrap();
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(again, tree);
        }

        #[test]
        fn any_bytes_end_in_a_tree_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Struct::read(&bytes.into());
        }

        #[test]
        fn cut_trees_are_corrupt(tree in structure(), cut in any::<prop::sample::Index>()) {
            let bytes = tree.to_bytes();
            let cut = cut.index(bytes.len());
            prop_assert!(Struct::read(&bytes.slice(..cut)).is_err());
        }
    }

    #[test]
    fn a_field_is_set_in_its_place_or_in_order() {
        let mut tree = Struct::default();
        for id in [4, 1, 9, 4] {
            tree.set(id, Value::I64(i64::from(id)));
        }
        assert_eq!(tree.fields().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 4, 9]);
        assert_eq!(tree.remove(4), Some(Value::I64(4)));
        assert_eq!(tree.integer(4), None);
        assert_eq!(tree.to_bytes().as_ref(), [0x16, 2, 0x86, 18, 0]);
    }

    #[test]
    fn limits_come_before_memory() {
        // A list that claims 2^40 elements; a struct in a struct in a struct …; one field twice.
        let claims = Bytes::from_static(&[0x19, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0]);
        let deep = Bytes::from(vec![0x1c; 10_000]);
        let twice = Bytes::from_static(&[0x15, 2, 0x05, 2, 2, 0]);
        for bytes in [claims, deep, twice] {
            assert_eq!(Struct::read(&bytes).unwrap_err().kind(), crate::error::Kind::Corrupt);
        }
    }
}
