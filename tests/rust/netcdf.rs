//! NetCDF over real files: blocks against whole reads, ranges against memory, damage against limits.
//!
//! What the values should be is netCDF4-python's to say (`tests/python/test_netcdf.py`); here the ways of reading are held
//! against each other. Real files lie at `../shared/data`, or where `REGRAFT_SAMPLE_DATA` points.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use regraft::error::{Kind, Result};
use regraft::netcdf::describe::describe;
use regraft::netcdf::{Buffer, DataType, Dataset, Group, Limits, Variable};
use regraft::store::{StorageOptions, Store, block_on};

/// The real files, smallest first; none where they are not at hand, which CI does not accept.
fn sample_files() -> Vec<PathBuf> {
    fn collect(directory: &Path, files: &mut Vec<(u64, PathBuf)>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, files);
            } else if path
                .extension()
                .is_some_and(|extension| ["nc", "nc4", "h5"].iter().any(|known| extension == *known))
            {
                files.push((entry.metadata().map_or(0, |metadata| metadata.len()), path));
            }
        }
    }
    let root = std::env::var_os("REGRAFT_SAMPLE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(
        !files.is_empty() || std::env::var_os("CI").is_none(),
        "no sample files in `{}`: name their folder in REGRAFT_SAMPLE_DATA",
        root.display()
    );
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}

fn variables(group: &Group) -> Vec<&Variable> {
    group.variables.iter().chain(group.groups.iter().flat_map(|group| variables(group))).collect()
}

fn open(path: &Path) -> Result<Dataset> {
    Dataset::from_bytes(&path.display().to_string(), std::fs::read(path).unwrap().into())
}

fn store_of(path: &Path) -> (Store, String) {
    let store = Store::open(path.parent().unwrap().to_str().unwrap(), &StorageOptions::default()).unwrap();
    (store, path.file_name().unwrap().to_str().unwrap().to_owned())
}

#[test]
fn ranges_give_what_memory_gives() {
    let never_whole = Limits { whole_file: 0, ..Limits::default() };
    for path in sample_files() {
        let (store, key) = store_of(&path);
        let Ok(whole) = block_on(Dataset::open(&store, &key, None)) else { continue };
        let ranged = block_on(async {
            let meta = store.head(&key).await?.unwrap();
            Dataset::open_listed(&store, &meta, never_whole).await
        });
        let ranged = ranged.unwrap();
        // The largest files are compared in structure only: the readers are the same from there on.
        if std::fs::metadata(&path).unwrap().len() < 2_000_000 {
            assert_eq!(describe(&ranged), describe(&whole), "{}", path.display());
        } else {
            assert_eq!(variables(ranged.root()).len(), variables(whole.root()).len(), "{}", path.display());
        }
        if let Some(variable) = variables(ranged.root()).into_iter().find(|variable| variable.chunk_shape.is_some()) {
            // The chunk index is walked through waiting reads, on a worker of the runtime too.
            let blocks = block_on(async { ranged.blocks(variable).map(|blocks| blocks.len()) });
            let same = whole.variable(&variable.path).map(|variable| whole.blocks(variable).map(|blocks| blocks.len()));
            assert_eq!(blocks.ok(), same.and_then(Result::ok), "{}", path.display());
        }
    }
}

#[test]
fn a_changed_object_is_a_conflict_and_an_absent_one_not_found() {
    let directory = tempfile::tempdir().unwrap();
    let Some(file) = sample_files().into_iter().find(|path| path.ends_with("simple_chunked_deflate.h5")) else {
        return;
    };
    let copy = directory.path().join("day.nc");
    std::fs::copy(&file, &copy).unwrap();
    let (store, key) = store_of(&copy);
    let meta = block_on(store.head(&key)).unwrap().unwrap();
    let ranged = Limits { whole_file: 0, ..Limits::default() };
    let opened = block_on(Dataset::open_listed(&store, &meta, ranged)).unwrap();
    let mut longer = std::fs::read(&file).unwrap();
    longer.push(0);
    std::fs::write(&copy, longer).unwrap();
    let error = block_on(Dataset::open(&store, &key, Some(&meta.etag))).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    let variable = variables(opened.root())[0];
    let error = block_on(opened.read(variable)).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");
    assert_eq!(block_on(Dataset::open(&store, "none.nc", None)).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn blocks_tile_every_variable_and_pass_through_bytes_decode_to_the_same() {
    for path in sample_files() {
        let Ok(dataset) = open(&path) else { continue };
        for variable in variables(dataset.root()) {
            if matches!(variable.data_type, DataType::String | DataType::Unsupported(_)) {
                assert_eq!(dataset.blocks(variable).unwrap_err().kind(), Kind::Invalid);
                continue;
            }
            let blocks = dataset.blocks(variable).unwrap();
            let tiled: u64 = blocks.iter().map(|block| block.region_shape.iter().product::<u64>()).sum();
            assert_eq!(Some(tiled), variable.element_count(), "{} {}", path.display(), variable.path);
            let Some(codecs) = dataset.encoding(variable) else { continue };
            let some: Vec<usize> = (0..blocks.len().min(4)).collect();
            for (&index, encoded) in some.iter().zip(block_on(dataset.fetch(variable, &some)).unwrap()) {
                let Some(payload) = dataset.pass_through(variable, index, &encoded).unwrap() else { continue };
                let decoded = dataset.decode(variable, index, &encoded, Vec::new()).unwrap();
                assert_eq!(undone(&codecs, &payload, decoded.len()), decoded, "{} {}", path.display(), variable.path);
            }
        }
    }
}

/// Undoes numcodecs' `zlib` and `shuffle`, slowly.
fn undone(codecs: &[serde_json::Value], payload: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    for codec in codecs.iter().rev() {
        if codec["id"] == "zlib" {
            let mut inflated = vec![0; size];
            libdeflater::Decompressor::new().zlib_decompress(&bytes, &mut inflated).unwrap();
            bytes = inflated;
        } else {
            let element_size = codec["elementsize"].as_u64().unwrap() as usize;
            let count = bytes.len() / element_size;
            bytes = (0..bytes.len()).map(|at| bytes[at % element_size * count + at / element_size]).collect();
        }
    }
    bytes
}

#[test]
fn opening_is_lazy() {
    for (name, most) in [("ref_hdf5_compat1.nc", 200), ("satellite_ghrsst_l3c_4hour_himawari8.nc", 100)] {
        let Some(path) = sample_files().into_iter().find(|path| path.ends_with(name)) else { return };
        let bytes = Bytes::from(std::fs::read(path).unwrap());
        let start = Instant::now();
        let dataset = Dataset::from_bytes(name, bytes).unwrap();
        let took = start.elapsed();
        eprintln!("{name}: {} variables in {took:?}", variables(dataset.root()).len());
        assert!(took < Duration::from_millis(most), "{name} took {took:?} to open");
    }
}

/// Seeded numbers (`SplitMix64`), the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit.max(1) as u64) as usize
    }
}

/// Damaged bytes: some changed near the head where structure is, some anywhere, some cut off.
fn damaged(original: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let mut below = |limit: usize| numbers.below(limit);
    match below(8) {
        0 => bytes.truncate(below(original.len())),
        kind => {
            let reach = if kind < 5 { bytes.len().min(8192) } else { bytes.len() };
            for _ in 0..=below(16) {
                let at = below(reach);
                bytes[at] = match below(4) {
                    0 => 0,
                    1 => 0xff,
                    2 => bytes[at] ^ (1 << below(8)),
                    _ => below(256) as u8,
                };
            }
        }
    }
    bytes
}

fn read_everything(dataset: &Dataset) -> Vec<regraft::error::Error> {
    let mut errors = Vec::new();
    for variable in variables(dataset.root()) {
        match block_on(dataset.read(variable)) {
            Ok(Buffer::Fixed(bytes)) => {
                let size = variable.data_type.size().unwrap() as u64;
                assert_eq!(bytes.len() as u64, variable.element_count().unwrap() * size);
            }
            Ok(Buffer::Strings(strings)) => assert_eq!(Some(strings.len() as u64), variable.element_count()),
            Err(error) => errors.push(error),
        }
    }
    errors
}

#[test]
fn damage_is_an_error_never_a_panic_a_hang_or_a_flood() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let limits = Limits { read: 64 << 20, block: 64 << 20, blocks: 1 << 16, ..Limits::default() };
    let files: Vec<PathBuf> =
        sample_files().into_iter().filter(|path| std::fs::metadata(path).unwrap().len() < 400_000).collect();
    if files.is_empty() {
        return;
    }
    let mut numbers = Numbers(7);
    let (mut whole, mut refused, mut partly) = (0, 0, 0);
    for number in 0..4000 {
        // Every fifth or so file, so that all kinds come up.
        let path = &files[number * 5 % files.len()];
        let bytes = damaged(&std::fs::read(path).unwrap(), &mut numbers);
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            Dataset::from_bytes_within("mutant.nc", bytes.into(), limits).map(|dataset| read_everything(&dataset))
        }));
        let errors = match outcome {
            Ok(Ok(errors)) => errors,
            Ok(Err(error)) => {
                refused += 1;
                vec![error]
            }
            Err(_) => {
                PANICS.fetch_add(1, Ordering::Relaxed);
                eprintln!("mutant {number} of {} panicked", path.display());
                continue;
            }
        };
        for error in &errors {
            assert!(matches!(error.kind(), Kind::Invalid | Kind::Corrupt), "mutant {number}: {error}");
            assert!(error.message().contains("mutant.nc"), "mutant {number}: {error}");
        }
        whole += usize::from(errors.is_empty());
        partly += usize::from(!errors.is_empty());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "mutant {number} of {} took {took:?}", path.display());
    }
    eprintln!("4000 mutants: {whole} read, {refused} refused, {} damaged in part", partly - refused);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    if let Ok(status) = std::fs::read_to_string("/proc/self/status")
        && let Some(peak) = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))
    {
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        eprintln!("peak memory {} MB", kilobytes >> 10);
        assert!(kilobytes < 4 << 20, "{kilobytes} kB");
    }
}

#[test]
fn errors_name_the_file() {
    let error =
        Dataset::from_bytes("s3://bucket/day.nc", Bytes::from_static(b"Dear user, quota exceeded")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`s3://bucket/day.nc`: expected a NetCDF file (`CDF` or HDF5 signature), found text `Dear user, quota exceeded…`\n\n\
         hint: check that the key names a data file; a filter on the source (`include`) can leave it out"
    );
    for path in sample_files() {
        let bytes = std::fs::read(&path).unwrap();
        if Dataset::from_bytes("", bytes.clone().into()).is_err() {
            continue;
        }
        // Half an upload.
        let half = Dataset::from_bytes("half.nc", Bytes::copy_from_slice(&bytes[..bytes.len() / 2]));
        let errors = match half {
            Ok(dataset) => read_everything(&dataset),
            Err(error) => vec![error],
        };
        for error in errors {
            assert!(matches!(error.kind(), Kind::Invalid | Kind::Corrupt));
            assert!(error.message().starts_with("`half.nc`"), "{error}");
        }
    }
}

/// Seconds of processor time that this process has used.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// `REGRAFT_DECODE=day.nc cargo test --release decoding_speed -- --ignored --nocapture` prints what all chunks of a file
/// cost on two threads, beside inflating alone.
#[test]
#[ignore = "a measurement"]
fn decoding_speed() {
    use rayon::prelude::*;

    let Some(path) = std::env::var_os("REGRAFT_DECODE").map(PathBuf::from) else { return };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let measure = |what: &str, run: &(dyn Fn() -> usize + Sync)| {
        let mut best = (f64::MAX, f64::MAX, 0);
        for _ in 0..5 {
            let (processor, wall) = (processor_seconds(), Instant::now());
            let bytes = pool.install(run);
            let took = (processor_seconds() - processor, wall.elapsed().as_secs_f64(), bytes);
            best = if took.0 < best.0 { took } else { best };
        }
        eprintln!("{what}: {:.3} CPU s, {:.3} s, {} MB", best.0, best.1, best.2 / 1_000_000);
    };
    measure("open and index", &|| {
        let dataset = open(&path).unwrap();
        variables(dataset.root()).iter().map(|variable| dataset.blocks(variable).unwrap().len()).sum()
    });
    let dataset = open(&path).unwrap();
    let jobs: Vec<(&Variable, usize, Bytes)> = variables(dataset.root())
        .into_iter()
        .flat_map(|variable| {
            let all: Vec<usize> = (0..dataset.blocks(variable).unwrap().len()).collect();
            let fetched = block_on(dataset.fetch(variable, &all)).unwrap();
            all.into_iter().zip(fetched).map(move |(block, encoded)| (variable, block, encoded))
        })
        .collect();
    measure("decode", &|| {
        let decoded = jobs.par_iter().map_init(Vec::new, |buffer, (variable, block, encoded)| {
            *buffer = dataset.decode(variable, *block, encoded, std::mem::take(buffer)).unwrap();
            buffer.len()
        });
        decoded.sum()
    });
    measure("inflate alone", &|| {
        let inflated = jobs.par_iter().map_init(
            || (libdeflater::Decompressor::new(), Vec::new()),
            |(decompressor, buffer), (variable, block, encoded)| {
                let shape = &dataset.blocks(variable).unwrap()[*block].decoded_shape;
                buffer.resize(shape.iter().product::<u64>() as usize * variable.data_type.size().unwrap(), 0);
                decompressor.zlib_decompress(encoded, buffer).unwrap_or(0)
            },
        );
        inflated.sum()
    });
}
