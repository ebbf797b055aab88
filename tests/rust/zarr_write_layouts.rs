//! Shards, shifts, strings and encoded tiles: what is moved or copied without being decoded.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::Result;
use regraft::progress::Run;
use regraft::store::block_on;
use regraft::zarr::write::{ArrayWrite, WriteOptions, overwritten};
use regraft::zarr::{
    ArraySpec, Compressor, Content, DataType, Elements, FillValue, Format, Patch, Region, Shift, Tile, Values,
};
use serde_json::{Value, json};

use crate::zarr_write::{ZSTD, filled, run, source, varied};
use crate::zarr_write_model::{Dense, array, blank, fresh_store, patch, stored};

#[test]
fn one_chunk_of_a_shard_changes_and_the_bytes_of_the_others_stay() {
    for step in [0_u64, 4, 9] {
        let store = fresh_store();
        let array = array(Format::V3, &[10, 4], &[1, 4], Some(&[10, 4]), ZSTD);
        let mut model = varied(&[10, 4], 1);
        filled(&store, &array, &model);
        let key = array.chunk_key(&[0, 0]);
        let before = block_on(store.get(&key)).unwrap().unwrap().bytes;
        let usage = store.counters().usage();
        let dense = varied(&[1, 4], 50_000);
        let region = Region::new(vec![step, 0], vec![1, 4]);
        model.apply(&region, Some((&dense, &[0, 0])));
        let summary = run(&store, ArrayWrite::new(array.clone(), vec![patch(region, source(dense, &[1, 4]), &[0, 0])]));
        let usage = store.counters().usage() - usage;
        assert_eq!((usage.get, usage.put), (1, 1));
        assert_eq!((summary.chunks_encoded, summary.chunks_kept, summary.tiles_decoded), (1, 9, 1));
        assert_eq!(stored(&store, &array), model);
        let sharding = array.sharding.as_ref().unwrap();
        let chunks = |object: &Bytes| -> Vec<Bytes> {
            let range = sharding.index_range(object.len() as u64, 10).unwrap();
            let index = sharding.decode_index(&object[range.start as usize..range.end as usize]).unwrap();
            index
                .into_iter()
                .map(|entry| {
                    entry.map_or(Bytes::new(), |(offset, size)| object.slice(offset as usize..(offset + size) as usize))
                })
                .collect()
        };
        let after = block_on(store.get(&key)).unwrap().unwrap().bytes;
        for (position, (old, new)) in chunks(&before).iter().zip(chunks(&after)).enumerate() {
            assert_eq!(*old == new, position as u64 != step);
        }
    }
}

/// One slot inserted before `index` of an axis of `length`.
fn insert(index: u64, length: u64) -> Shift {
    let map = (0..=length).map(|to| match to.cmp(&index) {
        std::cmp::Ordering::Less => Some(to),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(to - 1),
    });
    Shift { dimension: 0, map: map.collect() }
}

#[test]
fn whole_chunks_move_without_their_bytes() {
    for shard_shape in [None, Some([1_u64, 6])] {
        let store = fresh_store();
        let of =
            |length| array(Format::V3, &[length, 6], &[1, 3], shard_shape.as_ref().map(<[u64; 2]>::as_slice), ZSTD);
        let model = varied(&[10, 6], 1);
        filled(&store, &of(10), &model);
        let before = store.counters().usage();
        let dense = varied(&[1, 6], 50_000);
        let shift = insert(2, 10);
        let mut model = model.grown(&[11, 6], Some((0, &shift.map)));
        let region = Region::new(vec![2, 0], vec![1, 6]);
        model.apply(&region, Some((&dense, &[0, 0])));
        let write = ArrayWrite {
            array: of(11),
            patches: vec![patch(region, source(dense, &[1, 6]), &[0, 0])],
            shift: Some(shift),
            previous_shape: Some(vec![10, 6]),
        };
        let summary = run(&store, write);
        let usage = store.counters().usage() - before;
        let lanes = if shard_shape.is_some() { 1 } else { 2 };
        // No service copies on a condition: what moves is read and written.
        assert_eq!((usage.get, usage.put, usage.copy), (8 * lanes, 9 * lanes, 0));
        assert_eq!(summary.chunks_copied, 8 * lanes);
        assert_eq!(stored(&store, &of(11)), model);
    }
}

#[test]
fn a_shift_across_chunk_borders_reads_and_writes_each_object_once() {
    let store = fresh_store();
    let of = |length| array(Format::V3, &[length, 6], &[5, 3], None, ZSTD);
    let model = varied(&[23, 6], 1);
    filled(&store, &of(23), &model);
    let before = store.counters().usage();
    let shift = insert(7, 23);
    let dense = varied(&[1, 6], 50_000);
    let mut model = model.grown(&[24, 6], Some((0, &shift.map)));
    let region = Region::new(vec![7, 0], vec![1, 6]);
    model.apply(&region, Some((&dense, &[0, 0])));
    let write = ArrayWrite {
        array: of(24),
        patches: vec![patch(region, source(dense, &[1, 6]), &[0, 0])],
        shift: Some(shift),
        previous_shape: Some(vec![23, 6]),
    };
    let tail = overwritten(&write);
    let summary =
        block_on(regraft::zarr::write::write(&store, &[write], &WriteOptions::default(), &Run::default())).unwrap();
    let usage = store.counters().usage() - before;
    // Rows 1 to 4 of two lanes; row 0 stays.
    assert_eq!((usage.get, usage.put, usage.copy), (8, 8, 0));
    assert_eq!((summary.chunks_read, summary.tiles_decoded), (8, 1));
    assert_eq!(stored(&store, &of(24)), model);
    let expected: BTreeSet<Vec<u64>> = (1..5).flat_map(|row| (0..2).map(move |lane| vec![row, lane])).collect();
    assert_eq!(tail, expected);
}

/// A source whose tiles are stored as they are.
struct Encoded {
    dense: Dense,
    tiles: Vec<Tile>,
    encoding: Vec<Value>,
    bytes: Vec<Bytes>,
}

#[async_trait]
impl Values for Encoded {
    fn data_type(&self) -> DataType {
        DataType::UInt16
    }

    fn shape(&self) -> &[u64] {
        &self.dense.shape
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        Ok(tiles.iter().map(|tile| self.bytes[*tile].clone()).collect())
    }

    fn decode(&self, _: usize, _: &Bytes, _: Vec<u8>) -> Result<Elements> {
        panic!("a tile that passes through is not decoded")
    }

    fn encoding(&self) -> Option<&[Value]> {
        Some(&self.encoding)
    }

    fn pass_through(&self, _: usize, encoded: &Bytes) -> Result<Option<Bytes>> {
        Ok(Some(encoded.clone()))
    }
}

#[test]
fn chunks_pass_through_where_source_and_array_agree() {
    let encoding = |level| vec![json!({"id": "shuffle", "elementsize": 2}), json!({"id": "zlib", "level": level})];
    for format in [Format::V2, Format::V3] {
        let store = fresh_store();
        let compressor = Compressor::Source(encoding(6));
        let array = array(format, &[6, 5], &[2, 3], None, compressor);
        // Two steps of an array whose second column of chunks is an edge.
        let dense = varied(&[2, 5], 7);
        let tiles: Vec<Tile> = [(0, 3), (3, 2)]
            .map(|(start, count)| Tile {
                region: Region::new(vec![0, start], vec![2, count]),
                decoded_shape: vec![2, 3],
                encoded_size: 1,
            })
            .to_vec();
        let bytes = tiles.iter().map(|tile| {
            let mut chunk = vec![0_u8; 12];
            for index in crate::zarr_write_model::indices(&tile.region.shape) {
                let value = dense.get(&crate::zarr_write_model::plus(&tile.region.start, &index));
                let at = (index[0] * 3 + index[1]) as usize * 2;
                chunk[at..at + 2].copy_from_slice(&value.to_le_bytes());
            }
            array.codecs.encode(Elements::Fixed(chunk), &[2, 3]).unwrap()
        });
        let bytes: Vec<Bytes> = bytes.collect();
        let values = Arc::new(Encoded { dense: dense.clone(), tiles, encoding: encoding(1), bytes: bytes.clone() });
        let region = Region::new(vec![2, 0], vec![2, 5]);
        let summary = run(&store, ArrayWrite::new(array.clone(), vec![patch(region.clone(), values, &[0, 0])]));
        assert_eq!((summary.chunks_passed_through, summary.tiles_decoded, summary.chunks_encoded), (2, 0, 0));
        let mut model = Dense::filled(&[6, 5]);
        model.apply(&region, Some((&dense, &[0, 0])));
        assert_eq!(stored(&store, &array), model);
        for (column, expected) in bytes.iter().enumerate() {
            let object = block_on(store.get(&array.chunk_key(&[1, column as u64]))).unwrap().unwrap();
            assert_eq!(object.bytes, expected);
        }
    }
}

/// A source of strings in one tile.
struct Texts {
    tiles: Vec<Tile>,
    strings: Vec<String>,
}

#[async_trait]
impl Values for Texts {
    fn data_type(&self) -> DataType {
        DataType::String
    }

    fn shape(&self) -> &[u64] {
        &self.tiles[0].decoded_shape
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        Ok(vec![Bytes::new(); tiles.len()])
    }

    fn decode(&self, _: usize, _: &Bytes, _: Vec<u8>) -> Result<Elements> {
        Ok(Elements::Strings(self.strings.clone()))
    }
}

#[test]
fn strings_are_patched_blanked_and_moved() {
    for (format, shard_shape) in [(Format::V2, None), (Format::V3, None), (Format::V3, Some(vec![6]))] {
        let store = fresh_store();
        let of = |length| {
            ArraySpec {
                path: "names".to_owned(),
                shape: vec![length],
                chunk_shape: vec![3],
                shard_shape: shard_shape.clone(),
                data_type: DataType::String,
                fill_value: FillValue::String(String::new()),
                dimension_names: vec!["n".to_owned()],
                attributes: serde_json::Map::new(),
                compressor: ZSTD,
            }
            .array(format)
            .unwrap()
        };
        let texts = |strings: &[&str]| {
            let length = strings.len() as u64;
            let tile = Tile { region: Region::whole(&[length]), decoded_shape: vec![length], encoded_size: 0 };
            let strings = strings.iter().map(|one| (*one).to_owned()).collect();
            Content::Values { values: Arc::new(Texts { tiles: vec![tile], strings }), origin: vec![0] }
        };
        let put = |start, strings: &[&str]| Patch {
            region: Region::new(vec![start], vec![strings.len() as u64]),
            content: texts(strings),
        };
        let read = |length| {
            let array = of(length);
            let elements = block_on(regraft::zarr::read(&store, &array, &Region::whole(&array.shape))).unwrap();
            let Elements::Strings(strings) = elements else { panic!("not strings") };
            strings
        };
        run(&store, ArrayWrite::new(of(5), vec![put(0, &["a", "bb", "ccc", "d"]), put(3, &["é", "ff"])]));
        assert_eq!(read(5), ["a", "bb", "ccc", "é", "ff"]);
        run(&store, ArrayWrite::new(of(5), vec![blank(Region::new(vec![1], vec![1]))]));
        assert_eq!(read(5), ["a", "", "ccc", "é", "ff"]);
        let write = ArrayWrite {
            array: of(6),
            patches: vec![put(2, &["new"])],
            shift: Some(insert(2, 5)),
            previous_shape: Some(vec![5]),
        };
        run(&store, write);
        assert_eq!(read(6), ["a", "", "new", "ccc", "é", "ff"]);
    }
}
