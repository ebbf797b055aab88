//! `regraft._core`: the one place that knows Python.
//!
//! Everything but arrays crosses as JSON text, so that a plan or a report is the same in Rust, in Python and in a file.
//! Arrays cross as NumPy buffers that are not copied. Every verb runs on the crate's own runtime with the GIL released; the
//! calling thread wakes ten times a second to pass progress on and to notice Ctrl-C ([`waiting`]).
//!
//! The stub `python/regraft/_core.pyi` holds the docstrings; `mypy.stubtest` compares the two.

mod arrays;
mod collection;
mod errors;
mod functions;
mod migration;
mod waiting;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use super::PyResult;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::collection::Collection;
    #[pymodule_export]
    use super::functions::{describe_netcdf, error_kinds, init_config, probe_store, read_zarr, write_region};
    #[pymodule_export]
    use super::migration::Migrations;
    #[pymodule_export]
    use super::waiting::CancelToken;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
