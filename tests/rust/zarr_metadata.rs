//! Groups: opening what zarr-python and xarray wrote, creating, publishing, and what happens when somebody else was faster.

use std::collections::BTreeMap;

use bytes::Bytes;
use regraft::error::Kind;
use regraft::store::{Store, block_on, random_id};
use regraft::zarr::data_type::TimeUnit;
use regraft::zarr::document::as_float;
use regraft::zarr::{ArraySpec, Compressor, DataType, FillValue, Format, Group, GroupSpec};
use serde_json::{Map, Value, json};

fn memory() -> Store {
    Store::open(&format!("memory://{}", random_id()), &BTreeMap::new()).expect("memory opens")
}

fn with(objects: &[(&str, &str)]) -> Store {
    let store = memory();
    for (key, text) in objects {
        block_on(store.put(key, Bytes::copy_from_slice(text.as_bytes()))).expect("memory takes it");
    }
    store
}

fn stored(store: &Store, key: &str) -> Option<String> {
    let object = block_on(store.get(key)).expect("memory answers")?;
    Some(String::from_utf8(object.bytes.to_vec()).expect("documents are text"))
}

fn gets(store: &Store) -> u64 {
    store.counters().usage().get
}

/// As xarray 2026.9 with zarr-python 3.1 writes them.
const V2: &str = r#"{"metadata": {".zgroup": {"zarr_format": 2}, ".zattrs": {"v": Infinity, "t": "x"},
    "a/.zattrs": {"w": NaN, "units": "K", "_ARRAY_DIMENSIONS": ["time", "x"]},
    "a/.zarray": {"shape": [3, 4], "chunks": [3, 4], "dtype": "<f4", "fill_value": -999.0, "order": "C", "filters": null,
        "dimension_separator": ".", "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
        "zarr_format": 2},
    "s/.zattrs": {"_ARRAY_DIMENSIONS": ["time"]},
    "s/.zarray": {"shape": [3], "chunks": [3], "dtype": "|O", "fill_value": null, "order": "C",
        "filters": [{"id": "vlen-utf8"}], "dimension_separator": ".", "compressor": null, "zarr_format": 2},
    "e/.zattrs": {},
    "e/.zarray": {"shape": [3], "chunks": [3], "dtype": [["a", "<i4"]], "fill_value": null, "order": "C", "filters": null,
        "compressor": null, "zarr_format": 2}}, "zarr_consolidated_format": 1}"#;

const V3: &str = r#"{"attributes": {"v": Infinity}, "zarr_format": 3, "consolidated_metadata": {"kind": "inline",
    "must_understand": false, "metadata": {
    "a": {"shape": [3, 4], "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "fill_value": "NaN",
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 0, "checksum": false}}],
        "attributes": {"w": NaN, "units": "K", "_FillValue": "AAAAAAA4j8A="}, "dimension_names": ["time", "x"],
        "zarr_format": 3, "node_type": "array", "storage_transformers": [],
        "later": {"name": "unheard of", "must_understand": false}},
    "g": {"zarr_format": 3, "node_type": "group", "attributes": {}},
    "g/i": {"shape": [3], "data_type": {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
        "chunk_key_encoding": {"name": "v2"}, "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": {"chunk_shape": [2],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "start"}}],
        "attributes": {}, "dimension_names": ["time"], "zarr_format": 3, "node_type": "array"},
    "e": {"shape": [3], "data_type": "complex64", "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3]}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": [0, 0], "codecs": [{"name": "bytes"}], "attributes": {},
        "zarr_format": 3, "node_type": "array"}}}, "node_type": "group"}"#;

#[test]
fn v2_is_opened_by_its_consolidated_metadata_alone() {
    let store = with(&[(".zmetadata", V2), (".zgroup", "{\"zarr_format\": 2}")]);
    let group = block_on(Group::open_expecting(&store, Format::V2)).unwrap();
    assert_eq!(gets(&store), 1);
    assert_eq!(group.format, Format::V2);
    assert_eq!(as_float(&group.attributes["v"]), Some(f64::INFINITY));
    let array = group.array("a").unwrap();
    assert_eq!((&array.shape, &array.chunk_shape), (&vec![3, 4], &vec![3, 4]));
    assert_eq!(array.dimension_names, ["time", "x"]);
    assert_eq!(array.data_type, DataType::Float32);
    assert!(as_float(&array.attributes["w"]).unwrap().is_nan());
    assert!(!array.attributes.contains_key("_ARRAY_DIMENSIONS"));
    let missing = FillValue::Bytes((-999f32).to_le_bytes().to_vec());
    assert_eq!(array.missing_value().unwrap(), Some(missing));
    assert_eq!(array.chunk_key(&[1, 0]), "a/1.0");
    assert_eq!(group.array("s").unwrap().data_type, DataType::String);
    let refused = group.array("e").unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(
        refused.to_string().contains("array `e`") && refused.to_string().contains("[[\"a\",\"<i4\"]]"),
        "{refused}"
    );
    assert_eq!(group.array("nothing").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn v3_is_opened_by_one_request() {
    let store = with(&[("zarr.json", V3)]);
    let group = block_on(Group::open(&store)).unwrap();
    assert_eq!(gets(&store), 1);
    let array = group.array("a").unwrap();
    assert_eq!(array.chunk_key(&[1, 0]), "a/c/1/0");
    assert_eq!(array.missing_value().unwrap(), Some(FillValue::Bytes((-999f32).to_le_bytes().to_vec())));
    let nested = group.array("g/i").unwrap();
    assert_eq!(nested.data_type, DataType::DateTime(TimeUnit::Second));
    assert_eq!((&nested.chunk_shape, nested.object_shape()), (&vec![2], &[4][..]));
    assert_eq!(nested.chunk_key(&[3]), "g/i/3");
    assert!(group.refused.contains_key("e"));
}

#[test]
fn what_was_never_consolidated_is_found_by_listing_a_page_a_directory() {
    let array = r#"{"shape": [4000], "chunks": [1], "dtype": "<i2", "fill_value": 0, "order": "C", "filters": null,
        "compressor": null, "zarr_format": 2}"#;
    let group = "{\"zarr_format\": 2}";
    let store = with(&[
        (".zgroup", group),
        (".zattrs", "{\"title\": \"t\"}"),
        ("b/.zarray", array),
        ("b/.zattrs", "{\"_ARRAY_DIMENSIONS\": [\"time\"]}"),
        ("b-2/.zarray", array),
        ("deep/.zgroup", group),
        ("deep/er/.zarray", array),
        ("odd/file.txt", "no node"),
    ]);
    for index in 0..3000 {
        block_on(store.put(&format!("b/{index}"), Bytes::from_static(b"ab"))).unwrap();
    }
    let before = store.counters().usage().list;
    let opened = block_on(Group::open(&store)).unwrap();
    assert!(store.counters().usage().list - before <= 12);
    assert_eq!(opened.arrays.keys().collect::<Vec<_>>(), ["b", "b-2", "deep/er"]);
    assert_eq!(opened.array("b").unwrap().dimension_names, ["time"]);
    assert_eq!(opened.attributes["title"], "t");
    assert!(!opened.is_consolidated());
    let mut grown = opened;
    grown.array_mut("b").unwrap().set_shape(vec![4001]);
    assert_eq!(block_on(grown.publish()).unwrap(), ["b/.zarray"]);
    assert_eq!(stored(&store, ".zmetadata"), None, "consolidated metadata is not invented");
}

#[test]
fn what_is_no_store_says_so() {
    let error = block_on(Group::open(&memory())).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    for (key, text) in
        [("zarr.json", "{"), ("zarr.json", "{\"zarr_format\": 4}"), (".zmetadata", "{}"), (".zgroup", "[]")]
    {
        let error = block_on(Group::open(&with(&[(key, text)]))).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    }
    let damaged = V3.replace("\"regular\"", "7").replace("\"float32\"", "null");
    assert_eq!(block_on(Group::open(&with(&[("zarr.json", &damaged)]))).unwrap().refused.len(), 3);
}

#[test]
fn publishing_keeps_what_it_does_not_know() {
    let node = serde_json::from_str::<Value>(&V3.replace("NaN,", "1,").replace("Infinity", "2")).unwrap();
    let array = node["consolidated_metadata"]["metadata"]["a"].clone();
    let root = V3.replace("NaN,", "1,");
    let store = with(&[("zarr.json", &root), ("a/zarr.json", &array.to_string())]);
    let mut group = block_on(Group::open(&store)).unwrap();
    assert_eq!(block_on(group.publish()).unwrap(), Vec::<String>::new());
    assert_eq!(store.counters().usage().put, 2, "nothing changed, nothing written");
    group.array_mut("a").unwrap().set_shape(vec![5, 4]);
    assert_eq!(block_on(group.publish()).unwrap(), ["a/zarr.json", "zarr.json"]);
    let written = stored(&store, "zarr.json").unwrap();
    assert!(written.contains("\"v\": Infinity") && written.contains("unheard of") && written.contains("complex64"));
    let own: Value = serde_json::from_str(&stored(&store, "a/zarr.json").unwrap()).unwrap();
    let mut expected = array;
    expected["shape"] = json!([5, 4]);
    assert_eq!(own, expected);
    // A second change needs no reading: what was written is known.
    let before = gets(&store);
    group.array_mut("a").unwrap().set_shape(vec![6, 4]);
    block_on(group.publish()).unwrap();
    assert_eq!(gets(&store), before);
    assert_eq!(block_on(Group::open(&store)).unwrap().array("a").unwrap().shape, [6, 4]);
}

fn spec(format: Format) -> GroupSpec {
    let array = |path: &str, data_type| ArraySpec {
        path: path.to_owned(),
        shape: vec![2],
        chunk_shape: vec![2],
        shard_shape: None,
        data_type,
        fill_value: FillValue::zero(data_type),
        dimension_names: vec!["time".to_owned()],
        attributes: Map::new(),
        compressor: Compressor::Zlib { level: 4, shuffle: true },
    };
    let attributes = Map::from_iter([("title".to_owned(), json!("made here"))]);
    GroupSpec { format, attributes, arrays: vec![array("time", DataType::Int64), array("g/name", DataType::String)] }
}

#[test]
fn a_store_is_created_once() {
    for format in [Format::V2, Format::V3] {
        let store = memory();
        let created = block_on(Group::create(&store, &spec(format))).unwrap();
        let opened = block_on(Group::open(&store)).unwrap();
        assert_eq!(opened.format, format);
        assert!(opened.is_consolidated());
        assert_eq!(opened.attributes, created.attributes);
        assert_eq!(opened.arrays.keys().collect::<Vec<_>>(), ["g/name", "time"]);
        assert_eq!(opened.array("time").unwrap().codecs, created.array("time").unwrap().codecs);
        assert_eq!(block_on(Group::create(&store, &spec(format))).unwrap_err().kind(), Kind::Conflict);
    }
}

#[test]
fn a_creation_that_died_is_finished_by_the_next() {
    for (format, root) in [(Format::V2, ".zmetadata"), (Format::V3, "zarr.json")] {
        let store = memory();
        block_on(Group::create(&store, &spec(format))).unwrap();
        // As if the process had ended before its last puts.
        for key in [root, ".zgroup"] {
            block_on(store.delete(key)).unwrap();
        }
        assert_eq!(block_on(Group::open(&store)).unwrap_err().kind(), Kind::NotFound);
        block_on(Group::create(&store, &spec(format))).unwrap();
        assert_eq!(block_on(Group::open(&store)).unwrap().arrays.len(), 2);
        // Something else left behind is not overwritten.
        for key in [root, ".zgroup"] {
            block_on(store.delete(key)).unwrap();
        }
        let mut other = spec(format);
        other.arrays[0].shape = vec![7];
        let error = block_on(Group::create(&store, &other)).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.hint_text().unwrap().contains("remove"));
    }
}

#[test]
fn of_two_writers_one_is_told() {
    for format in [Format::V2, Format::V3] {
        let store = memory();
        let mut first = block_on(Group::create(&store, &spec(format))).unwrap();
        let mut second = block_on(Group::open(&store)).unwrap();
        let mut third = block_on(Group::open(&store)).unwrap();
        first.array_mut("time").unwrap().set_shape(vec![3]);
        block_on(first.publish()).unwrap();
        // Another array, but the same consolidated metadata.
        second.array_mut("g/name").unwrap().set_shape(vec![4]);
        assert_eq!(block_on(second.publish()).unwrap_err().kind(), Kind::Conflict);
        // The same array, behind what is stored.
        third.array_mut("time").unwrap().attributes.insert("units".to_owned(), json!("days"));
        assert_eq!(block_on(third.publish()).unwrap_err().kind(), Kind::Conflict);
        let opened = block_on(Group::open(&store)).unwrap();
        assert_eq!(opened.array("time").unwrap().shape, [3]);
        assert_eq!(opened.array("g/name").unwrap().shape, [2], "readers see the store as the winner left it");
    }
}

#[test]
fn a_commit_that_died_before_its_consolidated_metadata_is_completed() {
    for format in [Format::V2, Format::V3] {
        let store = memory();
        let mut first = block_on(Group::create(&store, &spec(format))).unwrap();
        let holder = if format == Format::V2 { ".zmetadata" } else { "zarr.json" };
        let consolidated = stored(&store, holder).unwrap();
        first.array_mut("time").unwrap().set_shape(vec![5]);
        block_on(first.publish()).unwrap();
        block_on(store.put(holder, consolidated.into())).unwrap();
        let mut next = block_on(Group::open(&store)).unwrap();
        assert_eq!(next.array("time").unwrap().shape, [2]);
        next.array_mut("time").unwrap().set_shape(vec![6]);
        assert_eq!(block_on(next.publish()).unwrap().len(), 2);
        // What is ahead of us is never taken back.
        let store_of_other = block_on(Group::open(&store)).unwrap();
        assert_eq!(store_of_other.array("time").unwrap().shape, [6]);
    }
}

#[test]
fn arrays_can_be_added() {
    for format in [Format::V2, Format::V3] {
        let store = memory();
        let mut group = block_on(Group::create(&store, &spec(format))).unwrap();
        let mut array = spec(format).arrays.remove(0);
        array.path = "new/er/source".to_owned();
        group.insert(array.array(format).unwrap()).unwrap();
        assert!(group.insert(array.array(format).unwrap()).is_err());
        group.attributes.insert("history".to_owned(), json!("grown"));
        block_on(group.publish()).unwrap();
        let opened = block_on(Group::open(&store)).unwrap();
        assert_eq!(opened.arrays.len(), 3);
        assert_eq!(opened.attributes["history"], "grown");
        assert!(stored(&store, if format == Format::V2 { "new/er/.zgroup" } else { "new/er/zarr.json" }).is_some());
    }
}

#[test]
fn a_scalar_keeps_its_empty_list_of_dimensions() {
    for format in [Format::V2, Format::V3] {
        let store = memory();
        let mut with_scalar = spec(format);
        let scalar = &mut with_scalar.arrays[0];
        (scalar.shape, scalar.chunk_shape, scalar.dimension_names) = (vec![], vec![], vec![]);
        block_on(Group::create(&store, &with_scalar)).unwrap();
        let mut opened = block_on(Group::open(&store)).unwrap();
        assert_eq!(block_on(opened.publish()).unwrap(), Vec::<String>::new());
        let scalar = opened.array("time").unwrap();
        assert!(scalar.dimension_names.is_empty() && scalar.attributes.is_empty());
        assert_eq!(scalar.chunk_key(&[]), if format == Format::V2 { "time/0" } else { "time/c" });
        if format == Format::V2 {
            let attributes: Value = serde_json::from_str(&stored(&store, "time/.zattrs").unwrap()).unwrap();
            assert_eq!(attributes, json!({"_ARRAY_DIMENSIONS": []}));
        }
    }
}

#[test]
fn what_cannot_be_expressed_is_not_created() {
    let refused = |change: &dyn Fn(&mut GroupSpec)| {
        let mut changed = spec(Format::V2);
        change(&mut changed);
        let store = memory();
        let error = block_on(Group::create(&store, &changed)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert_eq!(store.counters().usage().put, 0);
    };
    refused(&|spec| spec.arrays[0].shard_shape = Some(vec![4]));
    refused(&|spec| spec.arrays[0].chunk_shape = vec![0]);
    refused(&|spec| spec.arrays[0].chunk_shape = vec![1, 1]);
    refused(&|spec| spec.arrays[0].chunk_shape = vec![1 << 40]);
    refused(&|spec| spec.arrays[0].dimension_names = vec![]);
    refused(&|spec| spec.arrays[0].fill_value = FillValue::Bytes(vec![0]));
    refused(&|spec| spec.arrays[0].path = "../time".to_owned());
    refused(&|spec| spec.arrays[0].path = "g/name".to_owned());
    refused(&|spec| spec.arrays[0].compressor = Compressor::Source(vec![json!({"id": "lzma"})]));
    refused(&|spec| {
        spec.format = Format::V3;
        spec.arrays[0].shard_shape = Some(vec![3]);
    });
    refused(&|spec| {
        spec.format = Format::V3;
        spec.arrays[0].compressor =
            Compressor::Blosc { name: "zip".to_owned(), level: 1, shuffle: regraft::zarr::BloscShuffle::Bit };
    });
}
