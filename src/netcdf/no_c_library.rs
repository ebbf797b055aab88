//! What stands for the C library in a build without the feature `netcdf-c`: a hint.

use std::path::PathBuf;
use std::sync::Arc;

use super::block::Block;
use super::source::Source;
use super::structure::{Group, Variable};
use crate::error::{Error, Result};
use crate::store::{ObjectMeta, Store};

/// There is none.
#[derive(Debug)]
pub(crate) enum Library {}

/// Where a file lies on this machine; of no use without the library.
pub(crate) type Local = (Store, ObjectMeta, PathBuf);

impl Library {
    /// None.
    pub(crate) fn of(_: &Arc<Source>, _: Option<Local>) -> Option<Self> {
        None
    }

    pub(crate) fn is_local(&self) -> bool {
        match *self {}
    }

    pub(crate) fn structure(&self) -> Result<Group> {
        match *self {}
    }

    pub(crate) fn read(&self, _: &Variable, _: &[Block]) -> Result<Vec<bytes::Bytes>> {
        match *self {}
    }

    pub(crate) fn strings(&self, _: &Variable) -> Result<Vec<String>> {
        match *self {}
    }
}

/// The refusal, and that the C library might do better.
pub(crate) fn advised(refusal: Error) -> Error {
    const ADVICE: &str = "build with the feature `netcdf-c` to read it through the C library";
    let hint = refusal.hint_text().map_or_else(|| ADVICE.to_owned(), |hint| format!("{hint}; or {ADVICE}"));
    refusal.hint(hint)
}
