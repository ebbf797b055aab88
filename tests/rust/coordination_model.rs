//! A collection whose sources are small texts, with a dictionary that says what its store must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use regraft::collection::Collection;
use regraft::collection::config::Config;
use regraft::collection::document::Report;
use regraft::collection::drain::DrainRequest;
use regraft::collection::memory::{MemoryData, MemoryDataset, MemoryVariable};
use regraft::collection::opening::{Hook, HookInput};
use regraft::collection::planning::Request;
use regraft::error::{Error, Kind, Result};
use regraft::progress::Run;
use regraft::store::{StorageOptions, Store, block_on, random_id};
use regraft::zarr::{
    ArraySpec, Compressor, DataType, Elements, FillValue, Format, Group, GroupSpec, Region, encode_fill_attribute, read,
};
use serde_json::{Map, Value, json};

pub(crate) const WIDTH: u64 = 4;
pub(crate) const FILL: i16 = -9;
const WAIT: Duration = Duration::from_mins(1);

/// Sources are `{"days": [..], "value": n}`.
struct Texts;

impl Hook for Texts {
    fn preprocess(&self, key: &str, input: HookInput) -> Result<MemoryDataset> {
        let bytes = match input {
            HookInput::Path(path) => std::fs::read(path).map_err(|error| Error::unavailable(error.to_string()))?.into(),
            HookInput::Bytes(bytes) => bytes,
        };
        let text: Value =
            serde_json::from_slice(&bytes).map_err(|error| Error::invalid(format!("{key} is no source: {error}")))?;
        let days: Vec<i64> = serde_json::from_value(text["days"].clone()).expect("days");
        let value = text["value"].as_i64().expect("a value");
        let length = days.len() as u64;
        let variable =
            |name: &str, dimensions: &[&str], shape: Vec<u64>, data_type, fill, bytes: Vec<u8>| MemoryVariable {
                name: name.to_owned(),
                dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
                shape,
                data_type,
                attributes: Map::new(),
                fill,
                data: MemoryData::Fixed(bytes.into()),
            };
        let times: Vec<u8> = days.iter().flat_map(|day| day.to_le_bytes()).collect();
        let values: Vec<u8> = days
            .iter()
            .flat_map(|day| std::iter::repeat_n(value_of(*day, value), WIDTH as usize))
            .flat_map(i16::to_le_bytes)
            .collect();
        Ok(MemoryDataset {
            dimensions: [("time".to_owned(), length), ("x".to_owned(), WIDTH)].into(),
            attributes: Map::new(),
            variables: vec![
                variable("time", &["time"], vec![length], DataType::Int64, None, times),
                variable(
                    "sst",
                    &["time", "x"],
                    vec![length, WIDTH],
                    DataType::Int16,
                    Some(FILL.to_le_bytes().to_vec()),
                    values,
                ),
            ],
        })
    }
}

fn value_of(day: i64, value: i64) -> i16 {
    (value * 100 + day) as i16
}

/// How the collection is laid out.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) chunk: u64,
    pub(crate) shard: Option<u64>,
    pub(crate) format: &'static str,
    pub(crate) axis: &'static str,
    pub(crate) batch: usize,
    /// Labels of a chunk of the coordinate, in a store that others made before.
    pub(crate) coordinate: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        Self { chunk: 2, shard: None, format: "zarr3", axis: "sorted", batch: 100, coordinate: None }
    }
}

/// A bucket, a store, and what the store must hold.
pub(crate) struct World {
    root: String,
    pub(crate) shape: Shape,
    _directory: Option<tempfile::TempDir>,
    options: StorageOptions,
    /// Sources by key: their days and their value. Of two with one day the first key wins.
    pub(crate) bucket: BTreeMap<String, (Vec<i64>, i64)>,
    /// Every day that ever was in the store.
    pub(crate) seen: BTreeSet<i64>,
    /// Time to live of the lease, in seconds.
    pub(crate) ttl: f64,
    /// Commits between two checkpoints.
    pub(crate) checkpoint: u64,
    /// How often workers may die on a source before it is set aside.
    pub(crate) crashes: u32,
}

impl World {
    pub(crate) fn memory(shape: Shape) -> Self {
        Self::at(format!("memory://{}", random_id()), StorageOptions::new(), None, shape)
    }

    pub(crate) fn files(shape: Shape) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().to_str().expect("UTF-8").to_owned();
        Self::at(root, StorageOptions::new(), Some(directory), shape)
    }

    pub(crate) fn at(
        root: String,
        options: StorageOptions,
        directory: Option<tempfile::TempDir>,
        shape: Shape,
    ) -> Self {
        let world = Self {
            root,
            shape,
            _directory: directory,
            options,
            bucket: BTreeMap::new(),
            seen: BTreeSet::new(),
            ttl: 60.0,
            checkpoint: 100,
            crashes: 3,
        };
        if let Some(coordinate) = world.shape.coordinate {
            world.make_store(coordinate);
        }
        world
    }

    /// An empty store as another program may have made it.
    fn make_store(&self, coordinate: u64) {
        let format = if self.shape.format == "zarr2" { Format::V2 } else { Format::V3 };
        let fill_value = FillValue::Bytes(FILL.to_le_bytes().to_vec());
        let attribute = encode_fill_attribute(format, DataType::Int16, &fill_value).expect("encoded");
        let spec = |path: &str, dimensions: &[&str], shape: Vec<u64>, chunk_shape: Vec<u64>, data_type, fill_value| {
            ArraySpec {
                path: path.to_owned(),
                shape,
                chunk_shape,
                shard_shape: None,
                data_type,
                fill_value,
                dimension_names: dimensions.iter().map(|name| (*name).to_owned()).collect(),
                attributes: Map::new(),
                compressor: Compressor::Zstd { level: 1 },
            }
        };
        // Day 0 is not to be taken for a missing one.
        let none = if format == Format::V2 { FillValue::Null } else { FillValue::zero(DataType::Int64) };
        let time = spec("time", &["time"], vec![0], vec![coordinate], DataType::Int64, none);
        let chunk = vec![self.shape.chunk, 2];
        let mut sst = spec("sst", &["time", "x"], vec![0, WIDTH], chunk, DataType::Int16, fill_value);
        sst.attributes.extend(attribute.map(|value| ("_FillValue".to_owned(), value)));
        let spec = GroupSpec { format, attributes: Map::new(), arrays: vec![time, sst] };
        block_on(Group::create(&self.place("out.zarr"), &spec)).expect("created");
    }

    pub(crate) fn collection(&self) -> Collection {
        let mut store = json!({
            "url": format!("{}/out.zarr", self.root),
            "format": self.shape.format,
            "chunks": {"time": self.shape.chunk, "x": 2},
            "storage_options": self.options,
        });
        if let Some(shard) = self.shape.shard {
            store["shards"] = json!({"time": shard * self.shape.chunk, "x": 2});
        }
        let config = json!({
            "kind": "zarr-collection",
            "name": "world",
            "source": {
                "url": format!("{}/in", self.root),
                "include": ["**/*.txt"],
                "preprocess": "texts",
                "storage_options": self.options,
            },
            "store": store,
            "region": {
                "key": "time",
                "axis": {"policy": self.shape.axis},
                "winner": {"priority": ["a*", "b*", "c*", "d*", "e*"]},
            },
            "guards": {"shrink": "allow"},
            "run": {
                "lease": self.ttl,
                "batch": {"files": self.shape.batch},
                "checkpoint": self.checkpoint,
                "quarantine": {"after": self.crashes},
            },
        });
        let config = Config::from_json(&config.to_string()).expect("a configuration");
        Collection::new(config, Some(Arc::new(Texts))).expect("a collection")
    }

    /// A worker has died: an operator says so, so that nobody waits for its lease.
    pub(crate) fn take_over(&self) {
        block_on(self.collection().unlock()).expect("unlocked");
    }

    pub(crate) fn place(&self, name: &str) -> Store {
        Store::open(&format!("{}/{name}", self.root), &self.options).expect("opens")
    }

    pub(crate) fn put(&mut self, key: &str, days: &[i64], value: i64) {
        let text = json!({"days": days, "value": value}).to_string();
        block_on(self.place("in").put(&format!("{key}.txt"), text.into())).expect("put");
        self.bucket.insert(key.to_owned(), (days.to_vec(), value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        block_on(self.place("in").delete(&format!("{key}.txt"))).expect("deleted");
        self.bucket.remove(key);
    }

    /// What a store must hold that was just synchronised.
    pub(crate) fn expected(&self) -> BTreeMap<i64, i16> {
        let owned = |day: i64| {
            self.bucket.iter().find(|(_, (days, _))| days.contains(&day)).map(|(_, (_, value))| value_of(day, *value))
        };
        let days = self.bucket.values().flat_map(|(days, _)| days.iter().copied());
        days.chain(self.seen.iter().copied()).map(|day| (day, owned(day).unwrap_or(FILL))).collect()
    }

    /// What the store holds; every day once.
    pub(crate) fn found(&self) -> BTreeMap<i64, i16> {
        block_on(async {
            let store = self.place("out.zarr");
            let group = match Group::open(&store).await {
                Err(error) if error.kind() == Kind::NotFound => return BTreeMap::new(),
                group => group.expect("a group"),
            };
            let whole = |name: &str| Region::whole(&group.arrays[name].shape);
            let fixed = async |name: &str| match read(&store, &group.arrays[name], &whole(name)).await.expect("read") {
                Elements::Fixed(bytes) => bytes,
                Elements::Strings(_) => panic!("numbers"),
            };
            let days: Vec<i64> =
                fixed("time").await.chunks(8).map(|day| i64::from_le_bytes(day.try_into().expect("8"))).collect();
            let values: Vec<i16> =
                fixed("sst").await.chunks(2).map(|value| i16::from_le_bytes(value.try_into().expect("2"))).collect();
            assert_eq!(values.len() as u64, days.len() as u64 * WIDTH);
            if self.shape.axis == "sorted" {
                assert!(days.is_sorted(), "{days:?}");
            }
            let steps = days.iter().zip(values.chunks(WIDTH as usize));
            let found: BTreeMap<i64, i16> = steps
                .map(|(day, step)| {
                    assert!(step.iter().all(|value| *value == step[0]), "day {day} is torn: {step:?}");
                    (*day, step[0])
                })
                .collect();
            assert_eq!(found.len(), days.len(), "a day twice: {days:?}");
            found
        })
    }

    /// Nothing lies anywhere that nobody needs.
    pub(crate) fn assert_clean(&self) {
        let keys = |name: &str| -> Vec<String> {
            block_on(self.place(name).list("", None).map_ok(|meta| meta.key).try_collect()).expect("listed")
        };
        let control = keys("out.zarr.regraft");
        let kept = ["checkpoint/", "lease.json", "log/"];
        let surplus: Vec<&String> =
            control.iter().filter(|key| !kept.iter().any(|known| key.starts_with(known))).collect();
        assert!(surplus.is_empty(), "left in the control prefix: {surplus:?}");
        let store = self.place("out.zarr");
        let group = match block_on(Group::open(&store)) {
            Err(error) if error.kind() == Kind::NotFound => {
                assert_eq!(keys("out.zarr"), Vec::<String>::new(), "left though there is no store");
                return;
            }
            group => group.expect("a group"),
        };
        assert!(group.is_consolidated());
        let mut expected: BTreeSet<String> = BTreeSet::new();
        for array in group.arrays.values() {
            let grid = array.object_grid();
            let mut indices = vec![Vec::new()];
            for count in grid {
                indices = indices
                    .into_iter()
                    .flat_map(|index: Vec<u64>| (0..count).map(move |next| [index.clone(), vec![next]].concat()))
                    .collect();
            }
            expected.extend(indices.iter().map(|index| array.chunk_key(index)));
        }
        let name = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
        let documents = ["zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"];
        let surplus: Vec<String> = keys("out.zarr")
            .into_iter()
            .filter(|key| !expected.contains(key) && !documents.contains(&name(key).as_str()))
            .collect();
        assert!(surplus.is_empty(), "left in the store: {surplus:?}");
        // The arrays' own documents say what the consolidated ones say.
        for array in group.arrays.values() {
            for (key, document) in array.metadata_documents() {
                if let Some(found) = block_on(store.get(&key)).expect("get") {
                    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
                    assert_eq!(parsed(&found.bytes), parsed(&document), "{key}");
                }
            }
        }
    }

    /// The store holds what it must, twice in a row, and nothing else lies around.
    pub(crate) fn assert_settled(&mut self) {
        let report = sync(&self.collection()).expect("synchronised");
        assert!(report.quarantined.is_empty(), "{:?}", report.quarantined);
        self.seen = self.expected().into_keys().collect();
        assert_eq!(self.found(), self.expected());
        self.assert_clean();
        let again = sync(&self.collection()).expect("synchronised again");
        assert_eq!((again.outcome.as_str(), again.commits.len()), ("nothing", 0), "{:?}", again.changes);
    }
}

/// What `regraft zarr sync` does.
pub(crate) fn sync(collection: &Collection) -> Result<Report> {
    block_on(collection.sync(&Request::default(), WAIT, &Run::default()))
}

/// Settles what waits, waiting for the lease.
pub(crate) fn drain(collection: &Collection) -> Result<Report> {
    let request = DrainRequest { wait: Some(WAIT.as_secs_f64()), ..DrainRequest::default() };
    block_on(collection.drain(&request, &Run::default()))
}
