//! The class `Collection`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;

use super::arrays;
use super::errors::{IntoPython, from_python};
use super::waiting::{self, CancelToken, wait};
use crate::collection::apply::LEASE_WAIT;
use crate::collection::config::Config;
use crate::collection::document::Plan;
use crate::collection::drain::{DrainRequest, duration};
use crate::collection::inspect::ProvenanceRequest;
use crate::collection::memory::MemoryDataset;
use crate::collection::opening::{Hook, HookInput};
use crate::collection::planning::Request;
use crate::collection::verify::VerifyRequest;
use crate::error::{Error, Result};
use crate::ledger::Intent;

/// A collection, opened.
#[pyclass(frozen, module = "regraft._core")]
pub(super) struct Collection {
    inner: Arc<crate::collection::Collection>,
}

/// A Python callable as a hook.
struct PythonHook(Py<PyAny>);

impl Hook for PythonHook {
    fn preprocess(&self, key: &str, input: HookInput) -> Result<MemoryDataset> {
        Python::attach(|py| {
            let (path, bytes) = match input {
                HookInput::Path(path) => (Some(path), None),
                HookInput::Bytes(bytes) => (None, Some(PyBytes::new(py, &bytes).unbind())),
            };
            self.0
                .bind(py)
                .call1((key, path.map(|path| path.to_string_lossy().into_owned()), bytes))
                .and_then(|encoded| arrays::dataset(&encoded))
                .map_err(|raised| from_python(py, &raised))
        })
    }
}

/// JSON text of a value.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::internal(format!("a result cannot be written as JSON: {error}")))
}

/// A value from the JSON text of an argument.
pub(super) fn from_json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("{what}: {error}")))
}

#[pymethods]
impl Collection {
    #[new]
    #[pyo3(signature = (config, hook=None))]
    fn new(py: Python<'_>, config: &str, hook: Option<Py<PyAny>>) -> PyResult<Self> {
        let hook = hook.map(|hook| Arc::new(PythonHook(hook)) as Arc<dyn Hook>);
        let inner = Config::from_json(config)
            .and_then(|config| crate::collection::Collection::new(config, hook))
            .into_python(py)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[pyo3(signature = (request, progress=None, token=None))]
    fn plan(
        &self,
        py: Python<'_>,
        request: &str,
        progress: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let request: Request = from_json("plan request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.plan(&request, &run).await?) })
    }

    #[pyo3(signature = (plan, progress=None, token=None, wait=None))]
    fn apply(
        &self,
        py: Python<'_>,
        plan: &str,
        progress: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, CancelToken>>,
        wait: Option<f64>,
    ) -> PyResult<String> {
        let plan = Plan::from_json(plan).into_python(py)?;
        let longest = duration("wait", wait).into_python(py)?.unwrap_or(LEASE_WAIT);
        let inner = self.inner.clone();
        waiting::wait(py, progress, token, move |run| async move { to_json(&inner.apply(&plan, longest, &run).await?) })
    }

    #[pyo3(signature = (request, progress=None, token=None, wait=None))]
    fn sync(
        &self,
        py: Python<'_>,
        request: &str,
        progress: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, CancelToken>>,
        wait: Option<f64>,
    ) -> PyResult<String> {
        let request: Request = from_json("sync request", request).into_python(py)?;
        let longest = duration("wait", wait).into_python(py)?.unwrap_or(LEASE_WAIT);
        let inner = self.inner.clone();
        waiting::wait(
            py,
            progress,
            token,
            move |run| async move { to_json(&inner.sync(&request, longest, &run).await?) },
        )
    }

    #[pyo3(signature = (plan, number, count, progress=None, token=None))]
    fn apply_shard(
        &self,
        py: Python<'_>,
        plan: &str,
        number: u64,
        count: u64,
        progress: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let plan = Plan::from_json(plan).into_python(py)?;
        let inner = self.inner.clone();
        wait(
            py,
            progress,
            token,
            move |run| async move { to_json(&inner.apply_shard(&plan, number, count, &run).await?) },
        )
    }

    fn plan_shard(&self, py: Python<'_>, plan: &str, number: u64, count: u64) -> PyResult<String> {
        let plan = Plan::from_json(plan).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.plan_shard(&plan, number, count).await?) })
    }

    fn submit(&self, py: Python<'_>, intents: &str) -> PyResult<String> {
        let intents: Vec<Intent> = from_json("intents", intents).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.submit(&intents).await?) })
    }

    #[pyo3(signature = (options, progress=None, token=None))]
    fn drain(
        &self,
        py: Python<'_>,
        options: &str,
        progress: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let request: DrainRequest = from_json("drain options", options).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.drain(&request, &run).await?) })
    }

    #[pyo3(signature = (ids, timeout, token=None))]
    fn wait_for(
        &self,
        py: Python<'_>,
        ids: &str,
        timeout: f64,
        token: Option<&Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let ids: Vec<String> = from_json("ids", ids).into_python(py)?;
        let timeout = duration("timeout", Some(timeout)).into_python(py)?.unwrap_or_default();
        let inner = self.inner.clone();
        wait(py, None, token, move |run| async move { to_json(&inner.wait_for(&ids, timeout, &run).await?) })
    }

    fn unlock(&self, py: Python<'_>) -> PyResult<String> {
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.unlock().await?) })
    }

    fn status(&self, py: Python<'_>) -> PyResult<String> {
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.status().await?) })
    }

    fn history(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<String> {
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.history(limit).await?) })
    }

    fn provenance(&self, py: Python<'_>, request: &str) -> PyResult<String> {
        let request: ProvenanceRequest = from_json("provenance request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.provenance(&request).await?) })
    }

    fn gaps(&self, py: Python<'_>) -> PyResult<String> {
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.gaps().await?) })
    }

    #[pyo3(signature = (request, progress=None, token=None))]
    fn verify(
        &self,
        py: Python<'_>,
        request: &str,
        progress: Option<&Bound<'_, PyAny>>,
        token: Option<&Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let request: VerifyRequest = from_json("verify request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.verify(&request, &run).await?) })
    }

    fn retry(&self, py: Python<'_>, keys: Vec<String>) -> PyResult<String> {
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move {
            let released = inner.retry(&keys).await?;
            to_json(&serde_json::json!({ "released": released }))
        })
    }
}
