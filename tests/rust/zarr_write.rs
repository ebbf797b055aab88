//! What a write costs, and what happens when something goes wrong, on stores in memory.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::{Kind, Result};
use regraft::progress::{Run, Usage};
use regraft::store::{ETag, Store, block_on};
use regraft::zarr::write::{
    ArrayWrite, ChunkWriter, Copied, EmptyChunks, Guard, Lookup, WriteOptions, WriteSummary, write, write_to,
};
use regraft::zarr::{Array, Compressor, DataType, Elements, Format, Patch, Region, Tile, Values};

use crate::zarr_write_model::{Counting, Dense, FILL, array, blank, fresh_store, patch, stored};

pub(crate) const ZSTD: Compressor = Compressor::Zstd { level: 1 };

/// A dense array whose elements differ.
pub(crate) fn varied(shape: &[u64], first: u16) -> Dense {
    let count = shape.iter().product::<u64>();
    Dense { shape: shape.to_vec(), values: (0..count).map(|value| first + (value % 5000) as u16).collect() }
}

pub(crate) fn source(dense: Dense, tile_shape: &[u64]) -> Arc<Counting> {
    Arc::new(Counting::new(dense, tile_shape))
}

pub(crate) fn run(store: &Store, write_: ArrayWrite) -> WriteSummary {
    block_on(write(store, &[write_], &WriteOptions::default(), &Run::default())).unwrap()
}

/// Writes all of `dense` into an array and returns it.
pub(crate) fn filled(store: &Store, array: &Array, dense: &Dense) {
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
    meddles_with_what_was_found: bool,
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

    async fn find(&self, lookups: &[Lookup]) -> Result<HashMap<String, ETag>> {
        let found = self.store.find(lookups).await?;
        if self.meddles_with_what_was_found {
            self.store.put(&self.key, Bytes::from_static(b"somebody else")).await?;
        }
        Ok(found)
    }

    async fn delete(&self, key: &str, guard: &Guard) -> Result<bool> {
        ChunkWriter::delete(&self.store, key, guard).await
    }

    async fn copy(&self, from: &str, to: &str, guard: &Guard) -> Result<Copied> {
        ChunkWriter::copy(&self.store, from, to, guard).await
    }

    fn is_at_hand(&self) -> bool {
        false
    }

    async fn finish(&self, keys: &[String]) -> Result<()> {
        self.store.finish(keys).await
    }

    fn concurrency(&self) -> usize {
        4
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
        let place = Meddler {
            store: store.clone(),
            key: key.clone(),
            reads: AtomicUsize::new(0),
            meddles_with_what_was_found: false,
        };
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
fn a_chunk_that_is_replaced_whole_is_not_written_over_somebody_elses() {
    for (was_there, is_blanked) in [(true, false), (false, false), (true, true)] {
        let store = fresh_store();
        let array = array(Format::V3, &[4, 4], &[2, 2], None, ZSTD);
        if was_there {
            filled(&store, &array, &varied(&[4, 4], 1));
        }
        let key = array.chunk_key(&[1, 1]);
        let place = Meddler {
            store: store.clone(),
            key: key.clone(),
            reads: AtomicUsize::new(0),
            meddles_with_what_was_found: true,
        };
        let whole = Region::whole(&[4, 4]);
        let patch = if is_blanked { blank(whole) } else { patch(whole, source(varied(&[4, 4], 9), &[4, 4]), &[0, 0]) };
        let write = ArrayWrite::new(array, vec![patch]);
        let error = block_on(write_to(&place, &[write], &WriteOptions::default(), &Run::default())).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(block_on(store.get(&key)).unwrap().unwrap().bytes, "somebody else");
    }
}

#[test]
fn what_a_commit_left_beyond_the_array_is_replaced() {
    let store = fresh_store();
    let array = array(Format::V3, &[4, 4], &[2, 2], None, ZSTD);
    let key = array.chunk_key(&[1, 1]);
    block_on(store.put(&key, Bytes::from_static(b"left"))).unwrap();
    let dense = varied(&[4, 4], 9);
    let before = store.counters().usage();
    let write = ArrayWrite {
        previous_shape: Some(vec![0, 4]),
        ..ArrayWrite::new(array.clone(), vec![patch(Region::whole(&[4, 4]), source(dense.clone(), &[4, 4]), &[0, 0])])
    };
    run(&store, write);
    let usage = store.counters().usage() - before;
    // Nothing is asked where nothing is.
    assert_eq!((usage.put, usage.head, usage.list, usage.get), (5, 1, 0, 0));
    assert_eq!(stored(&store, &array), dense);
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
fn empty_chunks_are_dropped_or_written_as_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = crate::store::files(&directory);
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

#[test]
fn an_empty_chunk_is_not_deleted_where_that_has_no_condition() {
    let store = fresh_store();
    for shard in [None, Some(&[4_u64, 4][..])] {
        let array = array(Format::V3, &[4, 4], &[2, 2], shard, ZSTD);
        filled(&store, &array, &varied(&[4, 4], 1));
        let before = store.counters().usage();
        run(&store, ArrayWrite::new(array.clone(), vec![blank(Region::whole(&[4, 4]))]));
        let usage = store.counters().usage() - before;
        assert_eq!((usage.delete, usage.get), (0, 0));
        assert_eq!(stored(&store, &array), Dense::filled(&[4, 4]));
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

#[test]
fn an_array_twice_in_a_commit_is_refused() {
    let store = fresh_store();
    let array = array(Format::V3, &[2], &[2], None, ZSTD);
    let write = ArrayWrite::new(array, vec![blank(Region::whole(&[2]))]);
    let writes = [write.clone(), write];
    let error =
        block_on(regraft::zarr::write::write(&store, &writes, &WriteOptions::default(), &Run::default())).unwrap_err();
    assert_eq!(error.message(), "array `a` is in a commit twice");
}
