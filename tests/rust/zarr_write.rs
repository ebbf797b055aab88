//! What a write costs, and what happens when something goes wrong, on stores in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::{Kind, Result};
use regraft::progress::{Run, Usage};
use regraft::store::{ETag, Store, block_on};
use regraft::zarr::write::{
    ArrayWrite, ChunkWriter, EmptyChunks, Guard, Stage, WriteOptions, WriteSummary, write, write_to,
};
use regraft::zarr::{
    Array, ArraySpec, Compressor, Content, DataType, Elements, FillValue, Format, Patch, Region, Shift, Tile, Values,
};
use serde_json::{Value, json};

use crate::zarr_write_model::{Counting, Dense, FILL, array, blank, fresh_store, patch, stored};

const ZSTD: Compressor = Compressor::Zstd { level: 1 };

/// A dense array whose elements differ.
fn varied(shape: &[u64], first: u16) -> Dense {
    let count = shape.iter().product::<u64>();
    Dense { shape: shape.to_vec(), values: (0..count).map(|value| first + (value % 5000) as u16).collect() }
}

fn source(dense: Dense, tile_shape: &[u64]) -> Arc<Counting> {
    Arc::new(Counting::new(dense, tile_shape))
}

fn run(store: &Store, write_: ArrayWrite) -> WriteSummary {
    block_on(write(store, &[write_], &WriteOptions::default(), &Run::default())).unwrap()
}

/// Writes all of `dense` into an array and returns it.
fn filled(store: &Store, array: &Array, dense: &Dense) {
    let region = Region::whole(&dense.shape);
    let tile = dense.shape.clone();
    run(store, ArrayWrite::new(array.clone(), vec![patch(region, source(dense.clone(), &tile), &vec![0; tile.len()])]));
}

#[test]
fn separate_regions_of_one_commit_touch_only_their_chunks() {
    let store = fresh_store();
    let array = array(Format::V3, &[5000, 6, 6], &[5, 3, 3], None, ZSTD);
    let mut model = varied(&[5000, 6, 6], 1);
    filled(&store, &array, &model);
    let before = store.counters().usage();
    let steps = [2_u64, 5, 100, 4001];
    let patches: Vec<Patch> = steps
        .iter()
        .map(|step| {
            let dense = varied(&[1, 6, 6], 40_000 + *step as u16);
            let region = Region::new(vec![*step, 0, 0], vec![1, 6, 6]);
            model.apply(&region, Some((&dense, &[0, 0, 0])));
            patch(region, source(dense, &[1, 6, 6]), &[0, 0, 0])
        })
        .collect();
    let summary = run(&store, ArrayWrite::new(array.clone(), patches));
    let usage = store.counters().usage() - before;
    // Four steps in four different chunk rows of 2 by 2 chunks.
    assert_eq!((usage.get, usage.put, usage.head, usage.list, usage.delete), (16, 16, 0, 0, 0));
    assert_eq!((summary.chunks_read, summary.chunks_written, summary.tiles_decoded), (16, 16, 4));
    assert_eq!(stored(&store, &array), model);
}

#[test]
fn ten_days_that_share_chunks_cost_each_chunk_once() {
    let store = fresh_store();
    let array = array(Format::V3, &[20, 6, 6], &[10, 3, 3], None, ZSTD);
    let mut model = varied(&[20, 6, 6], 1);
    filled(&store, &array, &model);
    let before = store.counters().usage();
    let mut sources = Vec::new();
    let patches: Vec<Patch> = (3..13)
        .map(|step| {
            let dense = varied(&[1, 6, 6], 1000 * step as u16);
            let region = Region::new(vec![step, 0, 0], vec![1, 6, 6]);
            model.apply(&region, Some((&dense, &[0, 0, 0])));
            let source = source(dense, &[1, 4, 4]);
            sources.push(Arc::clone(&source));
            patch(region, source, &[0, 0, 0])
        })
        .collect();
    run(&store, ArrayWrite::new(array.clone(), patches));
    let usage = store.counters().usage() - before;
    assert_eq!((usage.get, usage.put), (8, 8));
    for source in sources {
        assert!(source.decoded.iter().chain(&source.fetched).all(|count| count.load(Ordering::Relaxed) == 1));
    }
    assert_eq!(stored(&store, &array), model);
}

/// A place where somebody else writes between a read and a write.
struct Meddler {
    store: Store,
    key: String,
    reads: AtomicUsize,
}

#[async_trait]
impl ChunkWriter for Meddler {
    async fn get(&self, key: &str) -> Result<Option<(Bytes, ETag)>> {
        let answer = ChunkWriter::get(&self.store, key).await?;
        if key == self.key && self.reads.fetch_add(1, Ordering::Relaxed) == 0 {
            self.store.put(key, Bytes::from_static(b"somebody else")).await?;
        }
        Ok(answer)
    }

    async fn put(&self, key: &str, bytes: Bytes, guard: &Guard) -> Result<bool> {
        ChunkWriter::put(&self.store, key, bytes, guard).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        ChunkWriter::delete(&self.store, key).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<bool> {
        ChunkWriter::copy(&self.store, from, to).await
    }

    async fn finish(&self, keys: &[String]) -> Result<()> {
        self.store.finish(keys).await
    }

    fn address(&self, key: &str) -> String {
        self.store.address(key)
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }
}

#[test]
fn a_chunk_that_somebody_else_changed_is_a_conflict_that_names_it() {
    for was_there in [true, false] {
        let store = fresh_store();
        let array = array(Format::V3, &[4, 4], &[2, 2], None, ZSTD);
        if was_there {
            filled(&store, &array, &varied(&[4, 4], 1));
        }
        let key = array.chunk_key(&[0, 1]);
        let place = Meddler { store: store.clone(), key: key.clone(), reads: AtomicUsize::new(0) };
        let region = Region::new(vec![0, 0], vec![1, 4]);
        let write = ArrayWrite::new(array, vec![patch(region, source(varied(&[1, 4], 9), &[1, 4]), &[0, 0])]);
        let error = block_on(write_to(&place, &[write], &WriteOptions::default(), &Run::default())).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let what = if was_there { "was changed" } else { "was created" };
        assert_eq!(
            error.message(),
            format!("`{}` {what} by somebody else while it was being rewritten", store.url_of(&key))
        );
        assert_eq!(block_on(store.get(&key)).unwrap().unwrap().bytes, "somebody else");
    }
}

#[test]
fn a_broken_tile_fails_the_write_and_names_the_chunk() {
    let store = fresh_store();
    let array = array(Format::V3, &[4, 4], &[2, 2], None, ZSTD);
    for tile_shape in [[4, 4], [2, 2]] {
        let mut values = Counting::new(varied(&[4, 4], 1), &tile_shape);
        values.broken = Some(0);
        let write = ArrayWrite::new(array.clone(), vec![patch(Region::whole(&[4, 4]), Arc::new(values), &[0, 0])]);
        let error = block_on(regraft::zarr::write::write(&store, &[write], &WriteOptions::default(), &Run::default()))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.message().ends_with("this tile is broken"), "{error}");
    }
}

#[test]
fn a_cancelled_run_writes_nothing_more() {
    let store = fresh_store();
    let array = array(Format::V3, &[4, 4], &[2, 2], None, ZSTD);
    let cancelled = Run::default();
    cancelled.cancel();
    let values = source(varied(&[4, 4], 1), &[4, 4]);
    let write = ArrayWrite::new(array, vec![patch(Region::whole(&[4, 4]), values, &[0, 0])]);
    let error =
        block_on(regraft::zarr::write::write(&store, &[write], &WriteOptions::default(), &cancelled)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(store.counters().usage(), Usage::default());
}

#[test]
fn values_of_another_type_are_refused() {
    let store = fresh_store();
    let mut array = array(Format::V3, &[4], &[2], None, ZSTD);
    array.data_type = DataType::Int16;
    let values = source(varied(&[4], 1), &[4]);
    let write = ArrayWrite::new(array, vec![patch(Region::whole(&[4]), values, &[0])]);
    let error =
        block_on(regraft::zarr::write::write(&store, &[write], &WriteOptions::default(), &Run::default())).unwrap_err();
    assert_eq!(error.message(), "array `a`: expected values of `Int16`, found `UInt16`");
}

#[test]
fn little_memory_is_enough_where_it_can_be_and_named_where_it_cannot() {
    let shape = [8, 64, 64];
    let array = array(Format::V3, &shape, &[8, 16, 16], None, Compressor::None);
    // Eight tiles, each of which touches all 16 chunks.
    let values = source(varied(&shape, 1), &[1, 64, 64]);
    let store = fresh_store();
    let memory = |memory| WriteOptions { memory, ..WriteOptions::default() };
    let commit = |values: &Arc<Counting>| {
        [ArrayWrite::new(array.clone(), vec![patch(Region::whole(&shape), Arc::clone(values) as _, &[0, 0, 0])])]
    };
    let summary = block_on(write(&store, &commit(&values), &memory(256 << 10), &Run::default())).unwrap();
    assert_eq!(stored(&store, &array), varied(&shape, 1));
    assert_eq!(summary.tiles_decoded, 8);
    assert!(summary.peak_memory <= 256 << 10);
    let error = block_on(write(&store, &commit(&values), &memory(64 << 10), &Run::default())).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.message().contains("chunk `[0, 0, 0]` of array `a`"), "{error}");
}

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

#[test]
fn empty_chunks_are_dropped_or_written_as_told() {
    let store = fresh_store();
    let array = array(Format::V3, &[4, 4], &[2, 2], None, ZSTD);
    let exists = |index: &[u64]| block_on(store.head(&array.chunk_key(index))).unwrap().is_some();
    filled(&store, &array, &varied(&[4, 4], 1));
    let write = |region, empty_chunks| {
        let write = [ArrayWrite::new(array.clone(), vec![blank(region)])];
        let options = WriteOptions { empty_chunks, ..WriteOptions::default() };
        block_on(regraft::zarr::write::write(&store, &write, &options, &Run::default())).unwrap()
    };
    // A whole chunk, and the half of another: the whole one is not even read.
    let summary = write(Region::new(vec![0, 0], vec![2, 3]), EmptyChunks::Drop);
    assert_eq!((summary.chunks_read, summary.chunks_dropped, summary.chunks_written), (1, 1, 1));
    assert_eq!((exists(&[0, 0]), exists(&[0, 1])), (false, true));
    let summary = write(Region::new(vec![0, 3], vec![2, 1]), EmptyChunks::Drop);
    assert_eq!((summary.chunks_read, summary.chunks_dropped), (1, 1));
    assert!(!exists(&[0, 1]));
    let summary = write(Region::new(vec![0, 0], vec![2, 2]), EmptyChunks::Fill);
    assert_eq!((summary.chunks_read, summary.chunks_written), (0, 1));
    assert!(exists(&[0, 0]));
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
        assert_eq!((usage.get, usage.put, usage.copy), (0, lanes, 8 * lanes));
        assert_eq!(summary.chunks_copied, 8 * lanes);
        assert_eq!(stored(&store, &of(11)), model);
    }
}

/// A journal that wants to know what is overwritten.
struct Journal(std::sync::Mutex<Vec<String>>);

#[async_trait]
impl Stage for Journal {
    async fn stage(&self, array: &Array, keys: &[String]) -> Result<()> {
        assert_eq!(array.path, "a");
        self.0.lock().unwrap().extend_from_slice(keys);
        Ok(())
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
    let journal = Arc::new(Journal(std::sync::Mutex::default()));
    let options = WriteOptions { stage: Some(Arc::clone(&journal) as _), ..WriteOptions::default() };
    let write = ArrayWrite {
        array: of(24),
        patches: vec![patch(region, source(dense, &[1, 6]), &[0, 0])],
        shift: Some(shift),
        previous_shape: Some(vec![23, 6]),
    };
    let summary = block_on(regraft::zarr::write::write(&store, &[write], &options, &Run::default())).unwrap();
    let usage = store.counters().usage() - before;
    // Rows 1 to 4 of two lanes; row 0 stays.
    assert_eq!((usage.get, usage.put, usage.copy), (8, 8, 0));
    assert_eq!((summary.chunks_read, summary.tiles_decoded), (8, 1));
    assert_eq!(stored(&store, &of(24)), model);
    let mut staged = journal.0.lock().unwrap().clone();
    staged.sort();
    let expected: Vec<String> = (1..5)
        .flat_map(|row| (0..2).map(move |lane| (row, lane)))
        .map(|(row, lane)| of(24).chunk_key(&[row, lane]))
        .collect();
    assert_eq!(staged, expected);
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

#[test]
fn what_lies_beyond_the_array_is_never_seen_when_it_grows() {
    let store = fresh_store();
    let of = |length| array(Format::V3, &[length], &[4], None, Compressor::None);
    // A writer that died had already stored a longer array's chunk.
    filled(&store, &of(4), &varied(&[4], 1));
    let write = ArrayWrite {
        array: of(4),
        patches: vec![patch(Region::new(vec![3], vec![1]), source(varied(&[1], 9), &[1]), &[0])],
        shift: None,
        previous_shape: Some(vec![2]),
    };
    run(&store, write);
    assert_eq!(stored(&store, &of(4)).values, [1, 2, FILL, 9]);
}

#[test]
fn a_source_that_panics_is_an_error() {
    struct Panics(Vec<Tile>);
    #[async_trait]
    impl Values for Panics {
        fn data_type(&self) -> DataType {
            DataType::UInt16
        }
        fn shape(&self) -> &[u64] {
            &[2]
        }
        fn tiles(&self) -> &[Tile] {
            &self.0
        }
        async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
            Ok(vec![Bytes::new(); tiles.len()])
        }
        fn decode(&self, _: usize, _: &Bytes, _: Vec<u8>) -> Result<Elements> {
            panic!("on purpose")
        }
    }
    let store = fresh_store();
    let array = array(Format::V3, &[2], &[2], None, ZSTD);
    let tile = Tile { region: Region::whole(&[2]), decoded_shape: vec![2], encoded_size: 0 };
    let write = ArrayWrite::new(array, vec![patch(Region::whole(&[2]), Arc::new(Panics(vec![tile])), &[0])]);
    let error =
        block_on(regraft::zarr::write::write(&store, &[write], &WriteOptions::default(), &Run::default())).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
}
