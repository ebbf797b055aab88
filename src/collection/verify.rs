//! `verify`: the store against its sources, value by value.
//!
//! A sample is drawn by a hash of seed and label, so the same seed checks the same steps wherever it runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Collection;
use super::label::Label;
use super::layout::show;
use super::opening::Outcome;
use super::session::Session;
use super::source::read_values;
use super::structure::{Role, StoreArray};
use crate::error::{Error, Result};
use crate::progress::{Progress, Run};
use crate::zarr::{Elements, Region, Values, read};

/// What is to be verified.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// The share of steps checked, `0 < sample <= 1`; `None` checks all.
    #[serde(default)]
    pub sample: Option<f64>,
    /// Which sample.
    #[serde(default)]
    pub seed: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// Steps checked.
    pub checked: u64,
    /// Arrays of steps that differ.
    pub failed: Vec<Failure>,
    /// Steps that could not be checked: the source changed or is gone since.
    pub skipped: Vec<Skipped>,
    /// `done` or `failed`.
    pub outcome: String,
}

/// One array of one step that differs.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "as in provenance")]
pub struct Failure {
    pub key: String,
    pub array: String,
    pub label: String,
    pub message: String,
}

/// A source that could not be checked.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "as in provenance")]
pub struct Skipped {
    pub key: String,
    pub message: String,
}

impl Collection {
    /// Reads owners' sources again and compares them with the store.
    ///
    /// # Errors
    /// `NotFound` where there is no store; `Unavailable` where storage does not answer.
    pub async fn verify(&self, request: &VerifyRequest, run: &Run) -> Result<Verification> {
        let share = request.sample.unwrap_or(1.0);
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::invalid(format!("expected a sample above 0 and up to 1, found `{share}`")));
        }
        let mut session = Session::open(&self.store, &self.control, &self.config).await?;
        session.load_all().await?;
        session.read_all_labels(&self.config).await?;
        if session.group.is_none() {
            return Err(Error::not_found(format!("{}: there is no store yet", self.store.url())));
        }
        let mut by_owner: BTreeMap<String, Vec<(u64, Label)>> = BTreeMap::new();
        for (index, label) in session.labels.iter().enumerate() {
            if let Some(owner) = session.ledger.owner(label)
                && chosen(request.seed, &show(session.kind, label), share)
            {
                by_owner.entry(owner.to_owned()).or_default().push((index as u64, label.clone()));
            }
        }
        let mut found = Verification::default();
        let total = by_owner.len() as u64;
        for (done, (key, steps)) in by_owner.into_iter().enumerate() {
            run.check()?;
            run.tell(&Progress {
                stage: "verify".into(),
                done: done as u64,
                total,
                item: key.clone(),
                errors: 0,
                usage: self.store.counters().usage(),
            });
            self.verify_source(&mut session, &key, &steps, &mut found).await?;
        }
        found.outcome = if found.failed.is_empty() { "done" } else { "failed" }.into();
        Ok(found)
    }

    async fn verify_source(
        &self,
        session: &mut Session,
        key: &str,
        steps: &[(u64, Label)],
        found: &mut Verification,
    ) -> Result<()> {
        let mut skip = |message: String| found.skipped.push(Skipped { key: key.to_owned(), message });
        let Some(version) = session.ledger.sources.get(key).map(|state| state.version.clone()) else {
            skip("it is not in the ledger".into());
            return Ok(());
        };
        let opened = match self.opener().open(key, Some(&version)).await? {
            Outcome::Opened(opened) if opened.version.etag == version.etag => opened,
            Outcome::Opened(_) => {
                skip("it has changed since it was taken: run `sync`".into());
                return Ok(());
            }
            Outcome::Gone => {
                skip("it is gone: run `sync`".into());
                return Ok(());
            }
            Outcome::Misfit(_, misfit) => {
                skip(misfit.error.message());
                return Ok(());
            }
        };
        let fitted = match session.fit(key, &opened, &self.config).await {
            Ok(fitted) => fitted,
            Err(misfit) => {
                found.failed.push(Failure {
                    key: key.to_owned(),
                    array: String::new(),
                    label: String::new(),
                    message: misfit.error.message(),
                });
                return Ok(());
            }
        };
        let tolerance = session.ledger.tolerance();
        let Some(structure) = &session.structure else { return Ok(()) };
        for array in structure.arrays.iter().filter(|array| array.axis.is_some() && array.role != Role::Provenance) {
            if array.to_create.is_some() {
                continue;
            }
            let values = fitted.get(&array.array.path);
            let whole = match values {
                Some(values) => Some(read_values(values.as_ref()).await?),
                None => None,
            };
            for (index, label) in steps {
                let step = opened.labels.iter().position(|own| own.key(tolerance) == label.key(tolerance));
                let Some(step) = step else { continue };
                let expected = expected_step(array, values.map(AsRef::as_ref), whole.as_ref(), step as u64);
                let mut region = Region::whole(&array.array.shape);
                if let Some(axis) = array.axis {
                    region.start[axis] = *index;
                    region.shape[axis] = 1;
                }
                let stored = read(&self.store, &array.array, &region).await?;
                if stored != expected {
                    found.failed.push(Failure {
                        key: key.to_owned(),
                        array: array.array.path.clone(),
                        label: show(session.kind, label),
                        message: format!(
                            "{} of the step's values differ from the source",
                            differences(&stored, &expected, array)
                        ),
                    });
                }
            }
        }
        found.checked += steps.len() as u64;
        Ok(())
    }
}

/// What the store should hold for one step: the source's values, fill where it has none.
fn expected_step(array: &StoreArray, values: Option<&dyn Values>, whole: Option<&Elements>, step: u64) -> Elements {
    use crate::zarr::scatter::{Runs, copy_fixed, copy_strings};
    let mut shape = array.array.shape.clone();
    let axis = array.axis.unwrap_or(0);
    shape[axis] = 1;
    let count = shape.iter().product::<u64>() as usize;
    let mut expected = array.array.fill_value.elements(array.array.data_type, count, Vec::new());
    if let (Some(values), Some(whole)) = (values, whole) {
        let mut inner = values.shape().to_vec();
        let mut origin = vec![0; inner.len()];
        inner[axis] = 1;
        origin[axis] = step;
        let runs = Runs::new(&inner, (&origin, values.shape()), (&vec![0; shape.len()], &shape));
        match (whole, &mut expected) {
            (Elements::Fixed(source), Elements::Fixed(target)) => {
                copy_fixed(&runs, array.array.data_type.size().unwrap_or(1), source, target);
            }
            (Elements::Strings(source), Elements::Strings(target)) => copy_strings(&runs, source, target),
            _ => {}
        }
    }
    expected
}

fn differences(stored: &Elements, expected: &Elements, array: &StoreArray) -> usize {
    match (stored, expected) {
        (Elements::Fixed(stored), Elements::Fixed(expected)) => {
            let size = array.array.data_type.size().unwrap_or(1).max(1);
            stored.chunks(size).zip(expected.chunks(size)).filter(|(stored, expected)| stored != expected).count()
        }
        (Elements::Strings(stored), Elements::Strings(expected)) => {
            stored.iter().zip(expected).filter(|(stored, expected)| stored != expected).count()
        }
        _ => 0,
    }
}

/// Whether a label is in the sample: FNV-1a of seed and label against the share.
fn chosen(seed: u64, label: &str, share: f64) -> bool {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    for byte in label.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The high bits mix best.
    (hash >> 11) as f64 / (1_u64 << 53) as f64 <= share
}
