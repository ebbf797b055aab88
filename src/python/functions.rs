//! The functions of the module.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use serde::Deserialize;

use super::arrays;
use super::collection::{from_json, to_json};
use super::errors::IntoPython;
use super::waiting::{CancelToken, wait};
use crate::collection::region::RegionRequest;
use crate::error::{Error, Kind, Result};
use crate::netcdf::{self, Dataset};
use crate::store::{StorageOptions, Store};
use crate::zarr::{Group, Region};

/// See the stub.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts dictionaries by value")]
#[pyo3(signature = (dataset, url, storage_options, region, progress=None, token=None))]
pub(super) fn write_region(
    py: Python<'_>,
    dataset: &Bound<'_, PyAny>,
    url: &str,
    storage_options: BTreeMap<String, String>,
    region: &str,
    progress: Option<&Bound<'_, PyAny>>,
    token: Option<&Bound<'_, CancelToken>>,
) -> PyResult<String> {
    let dataset = arrays::dataset(dataset)?;
    let region: RegionRequest = from_json("region", region).into_python(py)?;
    let store = Store::open(url, &storage_options).into_python(py)?;
    wait(py, progress, token, move |run| async move {
        to_json(&crate::collection::region::write_region(&store, dataset, &region, &run).await?)
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct InitOptions {
    #[serde(default)]
    storage_options: StorageOptions,
}

/// Splits a path or URL into its folder and its name.
fn split(path_or_url: &str) -> (String, String) {
    match path_or_url.rsplit_once('/') {
        Some(("", name)) => ("/".into(), name.into()),
        Some((folder, name)) => (folder.into(), name.into()),
        None => (".".into(), path_or_url.into()),
    }
}

async fn open(path_or_url: &str, options: &StorageOptions) -> Result<Dataset> {
    let (folder, name) = split(path_or_url);
    Dataset::open(&Store::open(&folder, options)?, &name, None).await
}

/// See the stub.
#[pyfunction]
pub(super) fn init_config(py: Python<'_>, path_or_url: String, options: &str) -> PyResult<String> {
    let options: InitOptions = from_json("options", options).into_python(py)?;
    wait(py, None, None, move |_| async move {
        let dataset = open(&path_or_url, &options.storage_options).await?;
        to_json(&crate::collection::netcdf_source::outline(&dataset))
    })
}

/// See the stub.
#[pyfunction]
pub(super) fn describe_netcdf(py: Python<'_>, path: String) -> PyResult<String> {
    wait(py, None, None, move |_| async move {
        let dataset = open(&path, &StorageOptions::new()).await?;
        tokio::task::spawn_blocking(move || to_json(&netcdf::describe::describe(&dataset)))
            .await
            .map_err(|error| Error::internal(error.to_string()))?
    })
}

/// See the stub.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts dictionaries and lists by value")]
pub(super) fn read_zarr(
    py: Python<'_>,
    url: &str,
    options: BTreeMap<String, String>,
    array: String,
    start: Vec<u64>,
    shape: Vec<u64>,
) -> PyResult<Py<PyAny>> {
    let store = Store::open(url, &options).into_python(py)?;
    let region = Region::new(start, shape.clone());
    let (elements, data_type) = wait(py, None, None, move |_| async move {
        let group = Group::open(&store).await?;
        let array = group.array(&array)?;
        let elements = crate::zarr::read(&store, array, &region).await?;
        Ok((elements, array.data_type))
    })?;
    arrays::to_numpy(py, elements, data_type, &shape)
}

/// See the stub.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 extracts dictionaries by value")]
pub(super) fn probe_store(py: Python<'_>, url: &str, storage_options: BTreeMap<String, String>) -> PyResult<String> {
    let store = Store::open(url, &storage_options).into_python(py)?;
    wait(py, None, None, move |_| async move { to_json(&store.probe().await?) })
}

/// See the stub.
#[pyfunction]
pub(super) fn error_kinds() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.name()).collect()
}
