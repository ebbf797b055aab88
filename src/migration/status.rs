//! `status`: which versions a data set has, and what the last runs did.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Migrations;
use super::document::{SCHEMA_VERSION, State, Trouble};
use super::planning::PlanRequest;
use super::runs::RunSummary;
use crate::error::Result;
use crate::progress::Run;

/// The state of a data set, as JSON for people.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `parquet-status`.
    pub kind: String,
    /// Name of the migration set.
    pub set: String,
    /// URL of the data set.
    pub data: String,
    /// The version to reach.
    pub target: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Objects by version.
    pub versions: BTreeMap<u64, u64>,
    /// Objects by state.
    pub states: BTreeMap<State, u64>,
    /// Objects that cannot be migrated: key, state and why; the first hundred.
    pub troubles: Vec<(String, State, Trouble)>,
    /// The last runs, the latest first.
    pub runs: Vec<RunSummary>,
}

/// Runs that a status shows.
const SHOWN_RUNS: usize = 5;
/// Troubles that a status shows.
const SHOWN_TROUBLES: usize = 100;

impl Migrations {
    /// Looks at the data set and counts versions and states.
    ///
    /// # Errors
    /// As [`Migrations::plan`].
    pub async fn status(&self, request: &PlanRequest, run: &Run) -> Result<Status> {
        let plan = self.plan(request, run).await?;
        let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
        for version in plan.objects.iter().filter_map(|object| object.from) {
            *versions.entry(version).or_default() += 1;
        }
        let troubled = plan.objects.iter().filter(|object| object.trouble.message.is_some());
        Ok(Status {
            schema_version: SCHEMA_VERSION,
            kind: "parquet-status".into(),
            set: plan.set,
            data: plan.data,
            target: plan.target,
            objects: plan.objects.len() as u64,
            bytes: plan.objects.iter().map(|object| object.size).sum(),
            versions,
            states: plan.totals.states,
            troubles: troubled
                .take(SHOWN_TROUBLES)
                .map(|object| (object.key.clone(), object.state, object.trouble.clone()))
                .collect(),
            runs: self.runs(Some(SHOWN_RUNS)).await?,
        })
    }
}
