//! The class `Migrations`.
//!
//! Steps are one Python object with `bind` and `compute`; schemas and batches cross as Arrow `PyCapsule`s, without copies.
//! The GIL is held inside those two calls and nowhere else.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3_arrow::{PyRecordBatch, PySchema};

use super::collection::{from_json, to_json};
use super::errors::{IntoPython, from_python};
use super::waiting::{CancelToken, wait};
use crate::error::{Error, Kind, Result};
use crate::migration::apply::ApplyOptions;
use crate::migration::config::Config;
use crate::migration::document::Plan;
use crate::migration::planning::PlanRequest;
use crate::migration::rollback::RollBackRequest;
use crate::migration::step::{Bound, Compute};
use crate::migration::verify::VerifyRequest;
use crate::parquet::{RecordBatch, Schema};

/// A migration set, opened.
#[pyclass(frozen, module = "regraft._core")]
pub(super) struct Migrations {
    inner: Arc<crate::migration::Migrations>,
}

/// The Python object that binds and computes.
struct PythonSteps(Py<PyAny>);

impl Compute for PythonSteps {
    fn bind(&self, step: usize, schema: &Schema) -> Result<Bound> {
        Python::attach(|py| {
            let schema = PySchema::new(Arc::new(schema.clone())).into_pyobject(py)?;
            let answer = self.0.bind(py).call_method1("bind", (step, schema))?;
            let (reads, adds): (Vec<String>, PySchema) = answer.extract()?;
            let adds = adds.into_inner();
            Ok(Bound { reads, adds: adds.fields().iter().map(|field| field.as_ref().clone()).collect() })
        })
        .map_err(|raised: PyErr| raised_by_step(&raised))
    }

    fn compute(&self, step: usize, input: &RecordBatch) -> Result<RecordBatch> {
        Python::attach(|py| {
            let input = PyRecordBatch::new(input.clone()).into_pyobject(py)?;
            let output: PyRecordBatch = self.0.bind(py).call_method1("compute", (step, input))?.extract()?;
            Ok(output.into_inner())
        })
        .map_err(|raised: PyErr| raised_by_step(&raised))
    }
}

/// What a step raised: an error of ours keeps its kind, anything else is the step's fault.
fn raised_by_step(raised: &PyErr) -> Error {
    Python::attach(|py| {
        let named = raised.value(py).hasattr("kind").unwrap_or(false);
        if named {
            return from_python(py, raised);
        }
        let name = raised.get_type(py).qualname().map_or_else(|_| "an exception".into(), |name| name.to_string());
        Error::new(Kind::Invalid, format!("the step raised `{name}`: {}", raised.value(py)))
            .hint("mend the step or the file; other objects are not touched by it")
    })
}

#[pymethods]
impl Migrations {
    #[new]
    fn new(py: Python<'_>, config: &str, steps: Py<PyAny>) -> PyResult<Self> {
        let inner = Config::from_json(config)
            .and_then(|config| crate::migration::Migrations::new(config, Arc::new(PythonSteps(steps))))
            .into_python(py)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[pyo3(signature = (request, progress=None, token=None))]
    fn plan(
        &self,
        py: Python<'_>,
        request: &str,
        progress: Option<&pyo3::Bound<'_, PyAny>>,
        token: Option<&pyo3::Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let request: PlanRequest = from_json("plan request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.plan(&request, &run).await?) })
    }

    #[pyo3(signature = (plan, options, progress=None, token=None))]
    fn apply(
        &self,
        py: Python<'_>,
        plan: &str,
        options: &str,
        progress: Option<&pyo3::Bound<'_, PyAny>>,
        token: Option<&pyo3::Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let plan = Plan::from_json(plan).into_python(py)?;
        let options: ApplyOptions = from_json("apply options", options).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.apply(&plan, &options, &run).await?) })
    }

    #[pyo3(signature = (request, progress=None))]
    fn status(&self, py: Python<'_>, request: &str, progress: Option<&pyo3::Bound<'_, PyAny>>) -> PyResult<String> {
        let request: PlanRequest = from_json("status request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, None, move |run| async move { to_json(&inner.status(&request, &run).await?) })
    }

    fn history(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<String> {
        let inner = self.inner.clone();
        wait(py, None, None, move |_| async move { to_json(&inner.history(limit).await?) })
    }

    #[pyo3(signature = (request, progress=None, token=None))]
    fn verify(
        &self,
        py: Python<'_>,
        request: &str,
        progress: Option<&pyo3::Bound<'_, PyAny>>,
        token: Option<&pyo3::Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let request: VerifyRequest = from_json("verify request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.verify(&request, &run).await?) })
    }

    #[pyo3(signature = (request, progress=None, token=None))]
    fn roll_back(
        &self,
        py: Python<'_>,
        request: &str,
        progress: Option<&pyo3::Bound<'_, PyAny>>,
        token: Option<&pyo3::Bound<'_, CancelToken>>,
    ) -> PyResult<String> {
        let request: RollBackRequest = from_json("roll back request", request).into_python(py)?;
        let inner = self.inner.clone();
        wait(py, progress, token, move |run| async move { to_json(&inner.roll_back(&request, &run).await?) })
    }
}
