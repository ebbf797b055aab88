//! Round trips of every chain, damaged chunks, and chunks that numcodecs wrote.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::error::Kind;
use crate::zarr::data_type::TimeUnit;

fn v2(data_type: DataType, filters: &Value, compressor: &Value) -> Result<Codecs> {
    v2_ordered(data_type, 2, false, false, filters, compressor)
}

fn v2_ordered(
    data_type: DataType,
    dimensionality: usize,
    big_endian: bool,
    column_major: bool,
    filters: &Value,
    compressor: &Value,
) -> Result<Codecs> {
    let filters = filters.as_array().map_or(&[][..], Vec::as_slice);
    let compressor = Some(compressor).filter(|compressor| !compressor.is_null());
    Codecs::from_v2(data_type, V2Encoding { dimensionality, big_endian, column_major, filters, compressor })
}

fn v3(data_type: DataType, codecs: &Value) -> Result<Codecs> {
    Codecs::from_v3(data_type, 2, codecs.as_array().unwrap())
}

fn bytes_of(hexadecimal: &str) -> Bytes {
    let digits: Vec<char> = hexadecimal.chars().collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

/// Every compressor and filter that takes bytes, over elements of four bytes.
fn chains() -> Vec<Codecs> {
    let bytes = json!({"name": "bytes", "configuration": {"endian": "little"}});
    let mut chains = vec![v2(DataType::Int32, &Value::Null, &Value::Null).unwrap()];
    let filters = [
        Value::Null,
        json!([{"id": "shuffle", "elementsize": 4}]),
        json!([{"id": "delta", "dtype": "<i4"}]),
        json!([{"id": "delta", "dtype": "<i4", "astype": "<i8"}, {"id": "shuffle", "elementsize": 8}]),
    ];
    let mut compressors = vec![
        Value::Null,
        json!({"id": "zstd", "level": 1, "checksum": true}),
        json!({"id": "gzip", "level": 1}),
        json!({"id": "zlib", "level": 6}),
    ];
    for name in ["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"] {
        for shuffle in [-1, 0, 1, 2] {
            compressors.push(json!({"id": "blosc", "cname": name, "clevel": 3, "shuffle": shuffle, "blocksize": 0}));
        }
    }
    for filters in &filters {
        for compressor in &compressors {
            for (big_endian, column_major) in [(false, false), (true, false), (false, true)] {
                chains.push(v2_ordered(DataType::Int32, 2, big_endian, column_major, filters, compressor).unwrap());
            }
        }
    }
    for codecs in [
        json!([bytes, {"name": "zstd", "configuration": {"level": 3, "checksum": false}}, {"name": "crc32c"}]),
        json!([{"name": "transpose", "configuration": {"order": [1, 0]}}, bytes, {"name": "gzip", "configuration": {"level": 5}}]),
        json!([bytes, {"name": "crc32c"}]),
        json!(["bytes", "crc32c", {"name": "zstd", "configuration": {"level": 1, "checksum": true}}]),
        json!([{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "blosc", "configuration":
            {"typesize": 4, "cname": "zstd", "clevel": 5, "shuffle": "bitshuffle", "blocksize": 0}}]),
        json!([{"name": "numcodecs.delta", "configuration": {"dtype": "<i4"}}, bytes,
            {"name": "numcodecs.shuffle", "configuration": {"elementsize": 4}},
            {"name": "numcodecs.zlib", "configuration": {"level": 4}}]),
    ] {
        chains.push(v3(DataType::Int32, &codecs).unwrap());
    }
    chains
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_chain_gives_back_what_it_was_given(
        rows in 0u64..40, columns in 1u64..50, seed in proptest::collection::vec(any::<u8>(), 1..64), recycled in 0usize..10_000,
    ) {
        let length = (rows * columns * 4) as usize;
        let elements: Vec<u8> = seed.iter().cycle().take(length).copied().collect();
        for codecs in chains() {
            let encoded = codecs.encode(Elements::Fixed(elements.clone()), &[rows, columns]).unwrap();
            let again = codecs.encode(Elements::Fixed(elements.clone()), &[rows, columns]).unwrap();
            prop_assert_eq!(&encoded, &again);
            let decoded = codecs.decode(encoded, &[rows, columns], vec![7; recycled]).unwrap();
            prop_assert_eq!(decoded, Elements::Fixed(elements.clone()), "{:?}", codecs);
        }
    }

    #[test]
    fn strings_come_back(strings in proptest::collection::vec(".{0,12}", 6), column_major in any::<bool>()) {
        let filters = json!([{"id": "vlen-utf8"}]);
        for compressor in [Value::Null, json!({"id": "zstd", "level": 1}), json!({"id": "zlib", "level": 1}), json!({"id": "blosc"})] {
            let codecs = v2_ordered(DataType::String, 2, false, column_major, &filters, &compressor).unwrap();
            let encoded = codecs.encode(Elements::Strings(strings.clone()), &[2, 3]).unwrap();
            let decoded = codecs.decode(encoded, &[2, 3], Vec::new()).unwrap();
            prop_assert_eq!(decoded, Elements::Strings(strings.clone()));
        }
    }

    #[test]
    fn damaged_chunks_are_errors_or_other_values_but_never_another_size(
        position in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>(), truncate in any::<bool>(),
    ) {
        let elements: Vec<u8> = (0..4000u32).map(|number| (number / 3) as u8).collect();
        for codecs in chains() {
            let mut encoded = codecs.encode(Elements::Fixed(elements.clone()), &[10, 100]).unwrap().to_vec();
            let index = position.index(encoded.len());
            encoded[index] ^= flip;
            if truncate {
                encoded.truncate(cut.index(encoded.len()));
            }
            match codecs.decode(encoded.into(), &[10, 100], Vec::new()) {
                Ok(Elements::Fixed(decoded)) => prop_assert_eq!(decoded.len(), 4000),
                Ok(Elements::Strings(_)) => prop_assert!(false),
                Err(error) => prop_assert_eq!(error.kind(), Kind::Corrupt, "{}", error),
            }
        }
    }

    #[test]
    fn any_bytes_are_no_reason_to_panic(encoded in proptest::collection::vec(any::<u8>(), 0..200)) {
        for codecs in chains() {
            let _ = codecs.decode(encoded.clone().into(), &[3, 5], Vec::new());
        }
        let strings = v2(DataType::String, &json!([{"id": "vlen-utf8"}]), &Value::Null).unwrap();
        let _ = strings.decode(encoded.into(), &[3, 5], Vec::new());
    }
}

#[test]
fn a_chain_without_stages_hands_the_buffer_through() {
    let codecs = v2(DataType::Float32, &Value::Null, &Value::Null).unwrap();
    let elements = vec![1u8; 400];
    let address = elements.as_ptr();
    let encoded = codecs.encode(Elements::Fixed(elements), &[10, 10]).unwrap();
    assert_eq!(encoded.as_ptr(), address);
    match codecs.decode(encoded, &[10, 10], Vec::new()).unwrap() {
        Elements::Fixed(decoded) => assert_eq!(decoded.as_ptr(), address),
        Elements::Strings(_) => unreachable!(),
    }
}

#[test]
fn a_bomb_is_stopped_at_the_size_of_the_chunk() {
    let large = vec![0u8; 64 << 20];
    let compressors = [
        json!({"id": "zstd", "level": 1}),
        json!({"id": "zlib", "level": 6}),
        json!({"id": "gzip"}),
        json!({"id": "blosc"}),
    ];
    for compressor in compressors {
        let codecs = v2(DataType::UInt8, &Value::Null, &compressor).unwrap();
        let bomb = codecs.encode(Elements::Fixed(large.clone()), &[64, 1 << 20]).unwrap();
        let error = codecs.decode(bomb, &[10, 10], Vec::new()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{compressor}");
    }
}

#[test]
fn what_numcodecs_wrote_is_read() {
    // numcodecs 0.16: each of numpy.arange(12, dtype="<i4"), encoded.
    let elements: Vec<u8> = (0..12i32).flat_map(i32::to_le_bytes).collect();
    for (filters, compressor, encoded) in NUMCODECS {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let codecs = v2(DataType::Int32, &parse(filters), &parse(compressor)).unwrap();
        let decoded = codecs.decode(bytes_of(encoded), &[3, 4], Vec::new()).unwrap();
        assert_eq!(decoded, Elements::Fixed(elements.clone()), "{filters} {compressor}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let zlib = json!({"id": "zlib"});
    for (filters, compressor, name) in [
        (
            json!([{"id": "fixedscaleoffset", "scale": 10, "offset": 0, "dtype": "<f4"}]),
            zlib.clone(),
            "`fixedscaleoffset`",
        ),
        (Value::Null, json!({"id": "lz4"}), "`lz4`"),
        (json!([{"id": "delta", "dtype": "<f2"}]), Value::Null, "`delta`"),
        (Value::Null, json!({"id": "blosc", "cname": "zippy"}), "`zippy`"),
        (Value::Null, json!({"id": "zlib", "level": 12}), "`12`"),
        (json!([{"id": "vlen-utf8"}]), Value::Null, "`vlen-utf8`"),
    ] {
        let error = v2(DataType::Float32, &filters, &compressor).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(
        v2(DataType::String, &json!([{"id": "pickle"}]), &Value::Null).unwrap_err().to_string().contains("`pickle`")
    );
    for codecs in [
        json!([]),
        json!([{"name": "zstd"}]),
        json!(["bytes", "bytes"]),
        json!(["bytes", {"name": "transpose", "configuration": {"order": [0, 1]}}]),
        json!([{"name": "transpose", "configuration": {"order": [0, 0]}}, "bytes"]),
        json!(["bytes", "sharding_indexed"]),
        json!(["vlen-utf8"]),
        json!([7]),
    ] {
        assert_eq!(v3(DataType::Float32, &codecs).unwrap_err().kind(), Kind::Invalid, "{codecs}");
    }
}

#[test]
fn chunks_that_pass_through_are_recognised() {
    let shuffle = json!({"id": "shuffle", "elementsize": 2});
    let zlib = |level: i32| json!({"id": "zlib", "level": level});
    let codecs = v2(DataType::Int16, &json!([shuffle]), &zlib(4)).unwrap();
    assert_eq!(codecs.numcodecs().unwrap(), vec![shuffle.clone(), zlib(4)]);
    assert!(codecs.accept(&[shuffle.clone(), zlib(9)]));
    assert!(!codecs.accept(&[zlib(4)]));
    assert!(!codecs.accept(&[json!({"id": "shuffle", "elementsize": 4}), zlib(4)]));
    let bytes = v2(DataType::UInt8, &Value::Null, &zlib(4)).unwrap();
    assert!(bytes.accept(&[json!({"id": "shuffle", "elementsize": 1}), zlib(4)]));
    let swapped = v2_ordered(DataType::Int16, 2, true, false, &json!([shuffle]), &zlib(4)).unwrap();
    assert!(!swapped.accept(&[shuffle, zlib(4)]) && swapped.numcodecs().is_none());
}

#[test]
fn elements_of_the_wrong_number_are_not_encoded() {
    let codecs = v2(DataType::DateTime(TimeUnit::Day), &Value::Null, &Value::Null).unwrap();
    assert_eq!(codecs.encode(Elements::Fixed(vec![0; 7]), &[1, 1]).unwrap_err().kind(), Kind::Internal);
    assert_eq!(codecs.encode(Elements::Strings(vec![String::new()]), &[1, 1]).unwrap_err().kind(), Kind::Internal);
    assert!(codecs.decode(Bytes::new(), &[u64::MAX, 3], Vec::new()).is_err());
}

/// Filters, compressor, chunk.
const NUMCODECS: [(&str, &str, &str); 9] = [
    ("[]", r#"{"id": "zlib", "level": 1}"#, "78010dc3870d00200003a0bad7ffff0a094952ac36bbc3e9727bbc3e3f04a80043"),
    (
        r#"[{"id": "shuffle", "elementsize": 4}]"#,
        r#"{"id": "zlib", "level": 4}"#,
        "785e6360646266616563e7e0e4e266200200000a960043",
    ),
    (
        "[]",
        r#"{"id": "gzip", "level": 1}"#,
        "1f8b08003c15026b04ff0dc3870d00200003a0bad7ffff0a094952ac36bbc3e9727bbc3e3f510b52b630000000",
    ),
    (
        "[]",
        r#"{"id": "zstd", "level": 3}"#,
        "28b52ffd2030810100000000000100000002000000030000000400000005000000060000000700000008000000090000000a0000000b000000",
    ),
    (
        "[]",
        r#"{"id": "zstd", "level": 3, "checksum": true}"#,
        "28b52ffd2430810100000000000100000002000000030000000400000005000000060000000700000008000000090000000a0000000b000000e6fd9792",
    ),
    (r#"[{"id": "delta", "dtype": "<i4", "astype": "|i1"}]"#, "null", "000101010101010101010101"),
    (
        r#"[{"id": "delta", "dtype": "<i4", "astype": "<i4"}]"#,
        r#"{"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}"#,
        "02013304300000003000000040000000000000000100000001000000010000000100000001000000010000000100000001000000010000000100000001000000",
    ),
    (
        "[]",
        r#"{"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 2, "blocksize": 0}"#,
        "02019604300000003000000040000000000000000100000002000000030000000400000005000000060000000700000008000000090000000a0000000b000000",
    ),
    (
        "[]",
        r#"{"id": "crc32c"}"#,
        "000000000100000002000000030000000400000005000000060000000700000008000000090000000a0000000b000000e66d6810",
    ),
];
