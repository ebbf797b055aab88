//! Errors of the crate as the classes of `regraft.errors`, and back.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::error::{Error, Kind, Result};

/// `regraft.errors.error_class`, imported once.
static ERROR_CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The Python exception for an error.
pub(super) fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let raise = || -> PyResult<PyErr> {
        let error_class = ERROR_CLASS
            .get_or_try_init(py, || py.import("regraft.errors")?.getattr("error_class").map(Bound::unbind))?;
        let class = error_class.call1(py, (error.kind().name(),))?;
        let value = class.call1(py, (error.message(), error.hint_text()))?;
        Ok(PyErr::from_value(value.into_bound(py)))
    };
    raise().unwrap_or_else(|failure| failure)
}

/// A result of the crate as one of Python.
pub(super) trait IntoPython<T> {
    /// Raises the class of the error's kind.
    fn into_python(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> IntoPython<T> for Result<T> {
    fn into_python(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| to_python(py, &error))
    }
}

/// What Python code that was called back raised: the source is at fault, or the hook.
pub(super) fn from_python(py: Python<'_>, raised: &PyErr) -> Error {
    let value = raised.value(py);
    let kind = value
        .getattr("kind")
        .and_then(|kind| kind.extract::<String>())
        .ok()
        .and_then(|name| Kind::ALL.into_iter().find(|kind| kind.name() == name));
    if let Some(kind) = kind {
        let text = |name: &str| value.getattr(name).and_then(|text| text.extract::<String>()).ok();
        let error = Error::new(kind, text("message").unwrap_or_else(|| raised.to_string()));
        return match text("hint") {
            Some(hint) => error.hint(hint),
            None => error,
        };
    }
    let name = raised.get_type(py).qualname().map_or_else(|_| "an exception".into(), |name| name.to_string());
    Error::invalid(format!("the hook raised `{name}`: {value}"))
        .hint("mend the hook or the file, then `regraft zarr retry`")
}
