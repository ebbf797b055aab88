//! Where the time of a region write goes, against the floor of its codecs; run by hand:
//!
//! ```text
//! cargo test --release --test rust -- --ignored --nocapture timing
//! ```
//! W1 of the project's benchmarks: 4 variables of 2250 × 3000 `int16`, chunks 5 × 500 × 500, zstd 3, on a local disk; one day
//! (tiles of 1 × 500 × 500, shuffle and deflate) overwritten. The floor is the CPU time of inflating the tiles, decoding and
//! encoding the chunks, by the same codecs on one thread. `REGRAFT_TIMING_MEMORY` sets the limit of memory in MiB. The numbers that the project publishes come from
//! `tests/benches`, not from here.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use regraft::error::Result;
use regraft::progress::Run;
use regraft::store::{StorageOptions, Store, block_on};
use regraft::zarr::write::{ArrayWrite, WriteOptions, write};
use regraft::zarr::{
    Array, ArraySpec, Compressor, Content, DataType, Elements, FillValue, Format, Patch, Region, Tile, Values,
};

const LAT: u64 = 2250;
const LON: u64 = 3000;

fn array(name: &str, days: u64, chunk: [u64; 3], shard: Option<[u64; 3]>, compressor: Compressor) -> Array {
    ArraySpec {
        path: name.to_owned(),
        shape: vec![days, LAT, LON],
        chunk_shape: chunk.to_vec(),
        shard_shape: shard.map(Vec::from),
        data_type: DataType::Int16,
        fill_value: FillValue::Bytes((-999_i16).to_le_bytes().to_vec()),
        dimension_names: ["time", "lat", "lon"].map(str::to_owned).to_vec(),
        attributes: serde_json::Map::new(),
        compressor,
    }
    .array(Format::V3)
    .unwrap()
}

/// A source of one day in deflated tiles.
struct Day {
    codecs: Array,
    tiles: Vec<Tile>,
    encoded: Vec<Bytes>,
}

impl Day {
    /// A smooth field with noise in the last bits and a land mask.
    fn new(seed: u64) -> Self {
        let codecs = array("source", 1, [1, 500, 500], None, Compressor::Zlib { level: 4, shuffle: true });
        let mut random = seed * 2 + 1;
        let mut tiles = Vec::new();
        let mut encoded = Vec::new();
        for top in (0..LAT).step_by(500) {
            for left in (0..LON).step_by(500) {
                let mut chunk = Vec::with_capacity(500_000);
                for lat in top..top + 500 {
                    for lon in left..left + 500 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let wave = (lat as f64 / 300.0 + seed as f64).sin() + (lon as f64 / 400.0).cos();
                        let is_land = (lat as f64 / 500.0).sin() * (lon as f64 / 700.0).cos() > 0.55;
                        let value = if is_land { -999 } else { (wave * 800.0) as i16 + (random >> 61) as i16 };
                        chunk.extend(value.to_le_bytes());
                    }
                }
                let shape = vec![1, 500.min(LAT - top), 500.min(LON - left)];
                let region = Region::new(vec![0, top, left], shape);
                let bytes = codecs.codecs.encode(Elements::Fixed(chunk), &[1, 500, 500]).unwrap();
                tiles.push(Tile { region, decoded_shape: vec![1, 500, 500], encoded_size: bytes.len() as u64 });
                encoded.push(bytes);
            }
        }
        Self { codecs, tiles, encoded }
    }
}

#[async_trait]
impl Values for Day {
    fn data_type(&self) -> DataType {
        DataType::Int16
    }

    fn shape(&self) -> &[u64] {
        &self.codecs.shape
    }

    fn tiles(&self) -> &[Tile] {
        &self.tiles
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        Ok(tiles.iter().map(|tile| self.encoded[*tile].clone()).collect())
    }

    fn decode(&self, _: usize, encoded: &Bytes, recycled: Vec<u8>) -> Result<Elements> {
        self.codecs.codecs.decode(encoded.clone(), &[1, 500, 500], recycled)
    }
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> (T, f64) {
    let (started, before) = (Instant::now(), cpu());
    let result = work();
    let spent = cpu() - before;
    println!("{what:<44} {:6.2} s wall {spent:6.2} s CPU", started.elapsed().as_secs_f64());
    (result, spent)
}

fn put(days: &[Arc<Day>], first: u64) -> Vec<Patch> {
    let patch = |(step, day): (usize, &Arc<Day>)| Patch {
        region: Region::new(vec![first + step as u64, 0, 0], vec![1, LAT, LON]),
        content: Content::Values { values: Arc::clone(day) as _, origin: vec![0, 0, 0] },
    };
    days.iter().enumerate().map(patch).collect()
}

/// Runs one workload: fills `days` days, then overwrites `changed` days from `first` on, three times.
fn workload(name: &str, chunk: [u64; 3], shard: Option<[u64; 3]>, (days, first, changed): (u64, u64, u64)) {
    println!("\n{name}");
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().to_str().unwrap(), &StorageOptions::default()).unwrap();
    let zstd = Compressor::Zstd { level: 3 };
    let arrays: Vec<Array> =
        (0..4).map(|variable| array(&format!("v{variable}"), days, chunk, shard, zstd.clone())).collect();
    // One source for each variable and day, though a few distinct ones are enough: what is shared is decoded once.
    let day = |seed: u64| Arc::new(Day::new(seed));
    let commit = |first: u64, count: u64, salt: u64| -> Vec<ArrayWrite> {
        let make = |variable: u64| (0..count).map(|step| day(salt + step * 4 + variable)).collect::<Vec<_>>();
        (0..4_u64)
            .map(|variable| ArrayWrite::new(arrays[variable as usize].clone(), put(&make(variable), first)))
            .collect()
    };
    let go =
        |writes: &[ArrayWrite]| block_on(write(&store, writes, &WriteOptions::default(), &Run::default())).unwrap();
    let all = commit(0, days, 0);
    timed("all days", || go(&all));
    drop(all);
    for round in 0..3 {
        let writes = commit(first, changed, 1000 + round * 100);
        let before = store.counters().usage();
        let (summary, spent) = timed("write", || go(&writes));
        let usage = store.counters().usage() - before;
        println!("    {summary:?}\n    get {} put {}", usage.get, usage.put);
        // The floor, by the same codecs on one thread: every tile inflated, every touched chunk decoded and encoded.
        let ((), inflate) = timed("  floor: inflate", || {
            let mut buffer = Vec::new();
            for patch in writes.iter().flat_map(|write| &write.patches) {
                let Content::Values { values, .. } = &patch.content else { continue };
                for tile in 0..values.tiles().len() {
                    let encoded = block_on(values.fetch(&[tile])).unwrap().remove(0);
                    let Elements::Fixed(decoded) = values.decode(tile, &encoded, std::mem::take(&mut buffer)).unwrap()
                    else {
                        continue;
                    };
                    buffer = decoded;
                }
            }
        });
        let mut decode_and_encode = 0.0;
        if shard.is_none() {
            let objects: Vec<(usize, Bytes)> = writes
                .iter()
                .enumerate()
                .flat_map(|(number, write)| {
                    write.plan().unwrap().objects.into_iter().map(move |object| (number, object.index))
                })
                .filter_map(|(number, index)| {
                    let object = block_on(store.get(&arrays[number].chunk_key(&index))).unwrap();
                    object.map(|object| (number, object.bytes))
                })
                .collect();
            let (decoded, spent) = timed("  floor: decode and encode", || {
                let mut buffer = Vec::new();
                let mut total = 0;
                for (number, bytes) in objects {
                    let codecs = &arrays[number].codecs;
                    let elements = codecs.decode(bytes, &arrays[number].chunk_shape, buffer).unwrap();
                    let (encoded, recycled) = codecs.encode_recycling(elements, &arrays[number].chunk_shape).unwrap();
                    total += encoded.len();
                    buffer = recycled;
                }
                total
            });
            println!("    {decoded} bytes");
            decode_and_encode = spent;
            if summary.chunks_read == 0 {
                println!("    (chunks are not read here: the floor has one decoding too much)");
            }
        }
        println!("  CPU / floor: {:.3}", spent / (inflate + decode_and_encode));
    }
}

#[test]
#[ignore = "takes minutes and measures time: run by hand"]
fn timing_w1() {
    workload("W1: chunks 5 x 500 x 500, one day", [5, 500, 500], None, (10, 7, 1));
}

#[test]
#[ignore = "takes minutes and measures time: run by hand"]
fn timing_w1b() {
    workload("W1b: chunks 1 x 500 x 500, one day", [1, 500, 500], None, (3, 1, 1));
}

#[test]
#[ignore = "takes minutes and measures time: run by hand"]
fn timing_ten_days() {
    workload("ten days that share time chunks 10 x 500 x 500", [10, 500, 500], None, (10, 0, 9));
}

#[test]
#[ignore = "takes minutes and measures time: run by hand"]
fn timing_shard() {
    workload("one day into a 30-day shard", [1, 500, 500], Some([30, 500, 500]), (30, 12, 1));
}
