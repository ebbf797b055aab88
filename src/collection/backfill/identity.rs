//! The id of a plan: what it says, not who made it when. Pure.

use std::fmt::Write;

use serde::Serialize;

use crate::collection::document::Plan;
use crate::collection::label::Label;
use crate::collection::ledger::Action;
use crate::error::{Error, Result};

/// All that decides what the workers of a plan write.
///
/// Not among it: whether the store is there, which the first worker changes for the second; messages; the version ids of
/// sources, which one answer of a bucket names and another does not.
#[derive(Serialize)]
struct Content<'a> {
    collection: &'a str,
    base: u64,
    length_before: u64,
    length_after: u64,
    sources: Vec<Told<'a>>,
    set_aside: Vec<(&'a str, Option<&'a str>, Option<&'a str>)>,
}

#[derive(Serialize)]
struct Told<'a> {
    key: &'a str,
    etag: &'a str,
    size: u64,
    /// It ranks rivals.
    modified: Option<&'a str>,
    labels: &'a [Label],
}

/// The plan's id: the same plan has the same wherever it is made and read.
///
/// # Errors
/// `Internal` where it cannot be written as JSON.
pub(super) fn id_of(plan: &Plan) -> Result<String> {
    let mut sources: Vec<_> = plan
        .sources
        .iter()
        .map(|source| Told {
            key: &source.key,
            etag: &source.version.etag,
            size: source.version.size,
            modified: source.version.modified.as_deref(),
            labels: &source.labels,
        })
        .collect();
    sources.sort_by_key(|source| source.key);
    let mut set_aside: Vec<_> = plan
        .changes
        .iter()
        .filter(|change| change.action == Action::Quarantine)
        .map(|change| (change.key.as_str(), change.etag.as_deref(), change.category.as_deref()))
        .collect();
    set_aside.sort_unstable();
    let content = Content {
        collection: &plan.collection,
        base: plan.base,
        length_before: plan.axis.length_before,
        length_after: plan.axis.length_after,
        sources,
        set_aside,
    };
    let body = serde_json::to_vec(&content).map_err(|error| Error::internal(error.to_string()))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &body);
    Ok(digest.as_ref()[..12].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
