//! Regions read from stores of every layout equal the array they were written from.

use std::collections::BTreeMap;

use proptest::prelude::*;
use regraft::error::Kind;
use regraft::store::{Store, block_on, random_id};
use regraft::zarr::{Array, ArraySpec, Compressor, DataType, Elements, FillValue, Format, IndexLocation, Region, read};
use serde_json::Map;

const SHAPE: [u64; 2] = [11, 9];
const CHUNK: [u64; 2] = [3, 2];
const SHARD: [u64; 2] = [6, 4];
const FILL: [u8; 2] = [0xfe, 0xff];

fn memory() -> Store {
    Store::open(&format!("memory://{}", random_id()), &BTreeMap::new()).expect("memory opens")
}

fn array(format: Format, shard_shape: Option<Vec<u64>>, data_type: DataType) -> Array {
    let fill_value = match data_type {
        DataType::String => FillValue::String("none".to_owned()),
        _ => FillValue::Bytes(FILL.to_vec()),
    };
    let spec = ArraySpec {
        path: "group/a".to_owned(),
        shape: SHAPE.to_vec(),
        chunk_shape: CHUNK.to_vec(),
        shard_shape,
        data_type,
        fill_value,
        dimension_names: vec!["y".to_owned(), "x".to_owned()],
        attributes: Map::new(),
        compressor: Compressor::Zstd { level: 1 },
    };
    spec.array(format).expect("a sound specification")
}

/// The value at an index, `None` where its chunk is not stored.
fn value(index: [u64; 2]) -> Option<u16> {
    let chunk = index[0] / CHUNK[0] * 7 + index[1] / CHUNK[1];
    (!chunk.is_multiple_of(3)).then_some((index[0] * 100 + index[1]) as u16)
}

fn expected(region: &Region, data_type: DataType) -> Elements {
    let values =
        (region.start[0]..region.end(0)).flat_map(|y| (region.start[1]..region.end(1)).map(move |x| value([y, x])));
    match data_type {
        DataType::String => {
            Elements::Strings(values.map(|value| value.map_or("none".to_owned(), |value| value.to_string())).collect())
        }
        _ => Elements::Fixed(values.flat_map(|value| value.map_or(FILL, u16::to_le_bytes)).collect()),
    }
}

fn encoded_chunk(array: &Array, start: [u64; 2]) -> Option<bytes::Bytes> {
    value(start)?;
    let cells = (0..CHUNK[0]).flat_map(|y| (0..CHUNK[1]).map(move |x| [start[0] + y, start[1] + x]));
    let values = cells.map(|index| (index[0] * 100 + index[1]) as u16);
    let elements = match array.data_type {
        DataType::String => Elements::Strings(values.map(|value| value.to_string()).collect()),
        _ => Elements::Fixed(values.flat_map(u16::to_le_bytes).collect()),
    };
    Some(array.codecs.encode(elements, &CHUNK).expect("a whole chunk"))
}

fn store_of(array: &Array) -> Store {
    let store = memory();
    let object = array.object_shape().to_vec();
    for y in 0..SHAPE[0].div_ceil(object[0]) {
        for x in 0..SHAPE[1].div_ceil(object[1]) {
            let start = [y * object[0], x * object[1]];
            let bytes = match &array.sharding {
                None => encoded_chunk(array, start),
                Some(sharding) => {
                    let grid = array.chunks_per_object();
                    let inner = (0..grid[0]).flat_map(|y| (0..grid[1]).map(move |x| [y, x]));
                    let index_size = sharding.index_size((grid[0] * grid[1]) as usize) as u64;
                    let before = if sharding.location == IndexLocation::Start { index_size } else { 0 };
                    let (mut places, mut content) = (Vec::new(), Vec::new());
                    for inner in inner {
                        let start = [start[0] + inner[0] * CHUNK[0], start[1] + inner[1] * CHUNK[1]];
                        let chunk = encoded_chunk(array, start);
                        places.push(chunk.as_ref().map(|chunk| (before + content.len() as u64, chunk.len() as u64)));
                        content.extend(chunk.unwrap_or_default());
                    }
                    let index = sharding.encode_index(&places);
                    Some(match sharding.location {
                        IndexLocation::Start => [index, content].concat().into(),
                        IndexLocation::End => [content, index].concat().into(),
                    })
                }
            };
            if let Some(bytes) = bytes {
                block_on(store.put(&array.chunk_key(&[y, x]), bytes)).expect("memory takes it");
            }
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_region_of_any_layout(y in 0u64..=11, x in 0u64..=9, height in 0u64..=11, width in 0u64..=9) {
        let region = Region::new(vec![y, x], vec![height.min(11 - y), width.min(9 - x)]);
        for (format, shard) in [(Format::V2, None), (Format::V3, None), (Format::V3, Some(SHARD.to_vec()))] {
            for data_type in [DataType::UInt16, DataType::String] {
                let array = array(format, shard.clone(), data_type);
                let store = store_of(&array);
                let found = block_on(read(&store, &array, &region)).unwrap();
                prop_assert_eq!(found, expected(&region, data_type));
            }
        }
    }
}

#[test]
fn a_part_of_a_shard_costs_its_index_and_its_chunks() {
    let array = array(Format::V3, Some(SHARD.to_vec()), DataType::UInt16);
    let store = store_of(&array);
    let before = store.counters().usage();
    block_on(read(&store, &array, &Region::new(vec![0, 2], vec![1, 1]))).unwrap();
    let part = store.counters().usage();
    assert_eq!(part.get - before.get, 2);
    block_on(read(&store, &array, &Region::new(vec![0, 0], SHARD.to_vec()))).unwrap();
    assert_eq!(store.counters().usage().get - part.get, 1, "a whole shard is one request");
}

#[test]
fn damage_and_nonsense_are_errors() {
    let array = array(Format::V3, Some(SHARD.to_vec()), DataType::UInt16);
    let store = store_of(&array);
    let whole = Region::whole(&array.shape);
    for region in [
        Region::new(vec![0], vec![1]),
        Region::new(vec![0, 0], vec![12, 9]),
        Region::new(vec![u64::MAX, 0], vec![2, 1]),
        Region::new(vec![0, 0], vec![u64::MAX, u64::MAX]),
    ] {
        assert_eq!(block_on(read(&store, &array, &region)).unwrap_err().kind(), Kind::Invalid);
    }
    let key = array.chunk_key(&[0, 0]);
    let object = block_on(store.get(&key)).unwrap().unwrap().bytes;
    for damaged in [object.slice(..object.len() / 2), object.slice(..3), object.slice(1..)] {
        block_on(store.put(&key, damaged)).unwrap();
        for region in [&whole, &Region::new(vec![0, 2], vec![1, 1])] {
            let error = block_on(read(&store, &array, region)).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
            assert!(error.to_string().contains(&key), "{error}");
        }
    }
}
