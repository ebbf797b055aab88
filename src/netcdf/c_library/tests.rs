//! Both readers over real files, and what only the C library reads. Real files lie at `../shared/data`, or where
//! `REGRAFT_SAMPLE_DATA` points; virtual data sets are written by h5py, in the Python that `REGRAFT_TEST_PYTHON` names.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Kind;
use crate::netcdf::{AttributeValue, Buffer, DataType, Dataset, Group, Variable};
use crate::store::{StorageOptions, Store, block_on};

/// Bytes of the largest file that is compared, and elements of the largest variable; all of them take minutes.
const LARGEST: u64 = 4_000_000;

fn sample_files() -> Vec<PathBuf> {
    fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, files);
            } else if path
                .extension()
                .is_some_and(|extension| ["nc", "nc4", "h5"].iter().any(|known| extension == *known))
            {
                files.push(path);
            }
        }
    }
    let root = std::env::var_os("REGRAFT_SAMPLE_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    files
}

fn variables(group: &Group) -> Vec<&Variable> {
    group.variables.iter().chain(group.groups.iter().flat_map(|group| variables(group))).collect()
}

/// Whether they are equal bit by bit, NaN too.
fn equal(one: &AttributeValue, other: &AttributeValue) -> bool {
    one == other || (one.type_name() == other.type_name() && one.to_little_endian() == other.to_little_endian())
}

#[test]
fn both_readers_read_the_same() {
    let (mut files, mut compared, mut bytes, mut attributes) = (0, 0, 0, 0);
    for path in sample_files() {
        let name = path.display().to_string();
        // Its ids of dimensions contradict each other, and netCDF-C sides with other ones.
        if path.metadata().unwrap().len() > LARGEST || path.ends_with("nc4_groups.nc") {
            continue;
        }
        let content = bytes::Bytes::from(std::fs::read(&path).unwrap());
        // Classic files are never refused for a feature.
        let Ok(first) = Dataset::from_bytes(&name, content.clone()) else { continue };
        if content.starts_with(b"CDF") {
            continue;
        }
        // A libhdf5 that is older than the file.
        let Ok(second) = Dataset::by_library(&name, content) else {
            println!("skipped: the C library does not open `{name}`");
            continue;
        };
        files += 1;
        for variable in variables(first.root()) {
            let large = variable.element_count().is_none_or(|count| count > LARGEST);
            if large || matches!(variable.data_type, DataType::Unsupported(_)) {
                continue;
            }
            let other = second.variable(&variable.path).unwrap();
            let place = format!("{name}: {}", variable.path);
            assert_eq!(
                (&variable.data_type, &variable.shape, &variable.chunk_shape, &variable.dimensions),
                (&other.data_type, &other.shape, &other.chunk_shape, &other.dimensions),
                "{place}"
            );
            assert_eq!(variable.fill_value, other.fill_value, "{place}");
            for attribute in &variable.attributes {
                let found = other.attribute(&attribute.name).unwrap();
                assert!(equal(&attribute.value, found), "{place}: {}: {found:?}", attribute.name);
                attributes += 1;
            }
            match (block_on(first.read(variable)), block_on(second.read(other))) {
                (Ok(one), Ok(two)) => {
                    assert!(one == two, "{place}");
                    compared += 1;
                    bytes += if let Buffer::Fixed(values) = one { values.len() } else { 0 };
                }
                (_, Err(error)) if error.to_string().contains("undefined filter") => {
                    println!("skipped: the C library has no plugin for `{place}`");
                }
                (Err(one), Err(two)) => assert_eq!(one.kind(), two.kind(), "{place}"),
                (one, two) => panic!("{place}: {:?}, {:?}", one.err(), two.err()),
            }
        }
    }
    println!("compared: {files} files, {compared} variables of {bytes} bytes, {attributes} attributes");
}

/// Runs `script` with h5py in a fresh folder; `None`, and a line that says so, where there is no Python with it.
fn written_by_h5py(script: &str) -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let python = std::env::var_os("REGRAFT_TEST_PYTHON");
    let written = python.map(|python| Command::new(python).arg("-c").arg(script).current_dir(&directory).status());
    if !matches!(&written, Some(Ok(status)) if status.success()) {
        println!("skipped: set REGRAFT_TEST_PYTHON to a Python that has h5py");
        return None;
    }
    Some(directory)
}

fn opened(directory: &tempfile::TempDir, key: &str) -> Dataset {
    let store = Store::open(directory.path().to_str().unwrap(), &StorageOptions::default()).unwrap();
    block_on(Dataset::open(&store, key, None)).unwrap()
}

#[test]
fn virtual_data_sets_are_read_through_the_library() {
    let script = r#"
import h5py, numpy as np
layout = h5py.VirtualLayout(shape=(6, 4), dtype=">i2")
for day in range(2):
    with h5py.File(f"day{day}.h5", "w") as file:
        file["sst"] = np.arange(day * 12, day * 12 + 12, dtype=">i2").reshape(3, 4)
    layout[day * 3 : day * 3 + 3] = h5py.VirtualSource(f"day{day}.h5", "sst", shape=(3, 4))
with h5py.File("all.nc", "w") as file:
    file.create_virtual_dataset("sst", layout, fillvalue=-1)
    file["sst"].attrs["units"] = "kelvin"
    file["names"] = ["north", "süd"]
"#;
    let Some(directory) = written_by_h5py(script) else { return };
    let dataset = opened(&directory, "all.nc");
    let variable = dataset.variable("sst").unwrap();
    assert_eq!((&variable.data_type, &variable.shape[..]), (&DataType::I16, &[6, 4][..]));
    let expected: Vec<u8> = (0..24_i16).flat_map(i16::to_le_bytes).collect();
    assert_eq!(block_on(dataset.read(variable)).unwrap(), Buffer::Fixed(expected.clone()));
    let blocks = dataset.blocks(variable).unwrap();
    let encoded = block_on(dataset.fetch(variable, &[0])).unwrap();
    assert_eq!((blocks.len(), encoded[0].len()), (1, 48));
    assert_eq!(dataset.decode(variable, 0, &encoded[0], vec![7; 99]).unwrap(), expected);
    assert_eq!(dataset.encoding(variable), None);
    let names = block_on(dataset.read(dataset.variable("names").unwrap())).unwrap();
    assert_eq!(names, Buffer::Strings(vec!["north".to_owned(), "süd".to_owned()]));
    // In memory nothing leads to the other files.
    let content = std::fs::read(directory.path().join("all.nc")).unwrap();
    let error = Dataset::from_bytes("all.nc", content.into()).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("virtual data sets"), "{error}");
}

#[test]
fn a_missing_plugin_costs_one_variable_and_is_told() {
    let script = r#"
import h5py, numpy as np
with h5py.File("lzf.nc", "w") as file:
    file.create_dataset("packed", data=np.zeros(10000, "i2"), compression="lzf")
    file.create_dataset("plain", data=np.arange(3, dtype="u1"), compression="gzip")
"#;
    let Some(directory) = written_by_h5py(script) else { return };
    let dataset = opened(&directory, "lzf.nc");
    let plain = block_on(dataset.read(dataset.variable("plain").unwrap())).unwrap();
    assert_eq!(plain, Buffer::Fixed(vec![0, 1, 2]));
    match block_on(dataset.read(dataset.variable("packed").unwrap())) {
        // Where the plugin is installed.
        Ok(packed) => assert_eq!(packed, Buffer::Fixed(vec![0; 20000])),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            assert!(error.to_string().contains("HDF5_PLUGIN_PATH"), "{error}");
        }
    }
}
