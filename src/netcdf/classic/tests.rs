use super::*;
use crate::error::Kind;
use crate::netcdf::DataType;
use crate::netcdf::block::Place;
use crate::netcdf::limits::Limits;

/// Writes big-endian words.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn word(mut self, word: u32) -> Self {
        self.0.extend_from_slice(&word.to_be_bytes());
        self
    }

    fn name(self, name: &str) -> Self {
        let mut words = self.word(name.len() as u32);
        words.0.extend_from_slice(name.as_bytes());
        words.0.resize(words.0.len().next_multiple_of(4), 0);
        words
    }
}

/// CDF-1: `time` unlimited, `x` of 3; `a(time, x)` of i16 and, where `two`, `b(time)` of i8; begins as given.
fn file(records: u32, two: bool, begin: u32) -> Vec<u8> {
    let mut words = Words(b"CDF\x01".to_vec())
        .word(records)
        .word(10)
        .word(2)
        .name("time")
        .word(0)
        .name("x\0")
        .word(3)
        .word(0)
        .word(0)
        .word(11)
        .word(1 + u32::from(two))
        .name("a")
        .word(2)
        .word(0)
        .word(1)
        .word(0)
        .word(0)
        .word(3)
        .word(8)
        .word(begin);
    if two {
        words = words.name("b").word(1).word(0).word(0).word(0).word(1).word(4).word(begin + 8);
    }
    words.0
}

#[test]
fn one_record_variable_is_packed_and_several_are_padded() {
    let mut bytes = file(2, false, 200);
    bytes.resize(212, 0);
    let group = structure(&bytes, 1, 212).unwrap().unwrap();
    assert_eq!(group.dimensions[0], Dimension { name: "time".into(), size: 2, unlimited: true });
    assert_eq!(group.dimensions[1].name, "x");
    let a = &group.variables[0];
    assert_eq!((a.shape.as_slice(), &a.data_type), (&[2, 3][..], &DataType::I16));
    assert_eq!(a.layout.row_blocks(&a.shape, &Limits::default()).unwrap()[0].place, Place::Run { address: 200 });

    let mut bytes = file(2, true, 200);
    bytes.resize(224, 0);
    let group = structure(&bytes, 1, 224).unwrap().unwrap();
    let b = &group.variables[1];
    let blocks = b.layout.row_blocks(&b.shape, &Limits::default()).unwrap();
    assert_eq!(blocks[0].place, Place::Records { address: 208, stride: 12, count: 2, bytes: 1 });
}

#[test]
fn streaming_writers_leave_the_number_of_records_to_the_file_size() {
    let mut bytes = file(u32::MAX, true, 200);
    bytes.resize(200 + 3 * 12, 0);
    let group = structure(&bytes, 1, bytes.len() as u64).unwrap().unwrap();
    assert_eq!(group.dimensions[0].size, 3);
}

#[test]
fn truncated_and_damaged_files_are_told() {
    let mut bytes = file(2, true, 200);
    bytes.resize(224, 0);
    let failed = |bytes: &[u8]| structure(bytes, 1, bytes.len() as u64).unwrap_err();
    assert!(structure(&bytes[..100], 1, 224).unwrap().is_none(), "the header goes on");
    assert!(failed(&bytes[..100]).message().contains("ends inside its header"));
    let short = failed(&bytes[..216]);
    assert_eq!(short.kind(), Kind::Corrupt);
    assert_eq!(short.message(), "variable `a`: expected a file of at least `218` bytes, found `216`");
    assert!(failed(&file(0, false, 20)).message().contains("expected data behind offset"));
    bytes[8] = 7;
    assert!(failed(&bytes).message().contains("expected the tag `10`"));
}
