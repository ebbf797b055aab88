//! Steps bound to the schemas that they meet, each once.
//!
//! A data set of thousands of files has a handful of schemas, and binding an expression asks a query planner: so the answer
//! is kept by the way through the steps and the fields. A failure is kept too.

use std::sync::{Arc, Mutex, PoisonError};

use super::config::StepConfig;
use super::fuse::{Fused, fuse};
use super::pool::on_pool;
use super::step::{Bound, Compute};
use crate::error::Result;
use crate::parquet::{RecordBatch, Schema, SchemaRef};

/// Binds and computes; cloning shares what is bound.
#[derive(Clone)]
pub struct Binder(Arc<Inner>);

struct Inner {
    compute: Arc<dyn Compute>,
    steps: Vec<StepConfig>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Whole ways by their steps and the file's schema.
    fused: Vec<(Vec<usize>, SchemaRef, Result<Arc<Fused>>)>,
    /// Single steps by the schema before them.
    bound: Vec<(usize, Schema, Result<Bound>)>,
}

impl Binder {
    /// Over the configuration's steps.
    #[must_use]
    pub fn new(compute: Arc<dyn Compute>, steps: Vec<StepConfig>) -> Self {
        Self(Arc::new(Inner { compute, steps, known: Mutex::default() }))
    }

    /// The steps at `chain` as one change of a file of `schema`.
    ///
    /// # Errors
    /// `Invalid` where a step does not fit; what [`Compute::bind`] raises.
    pub async fn fused(&self, chain: &[usize], schema: &SchemaRef) -> Result<Arc<Fused>> {
        if let Some(known) = self.0.lock().find(chain, schema) {
            return known;
        }
        let (inner, chain, schema) = (self.0.clone(), chain.to_vec(), schema.clone());
        on_pool(move || {
            // Held while binding, so that a step is bound once however many objects wait for it.
            let mut known = inner.lock();
            if let Some(fused) = known.find(&chain, &schema) {
                return fused;
            }
            let fused = fuse(&inner.steps, &chain, &schema, &mut |step, before| {
                let found = known.bound.iter().find(|(other, schema, _)| *other == step && schema == before);
                if let Some((_, _, bound)) = found {
                    return bound.clone();
                }
                let bound = inner.compute.bind(step, before);
                known.bound.push((step, before.clone(), bound.clone()));
                bound
            })
            .map(Arc::new);
            known.fused.push((chain, schema, fused.clone()));
            fused
        })
        .await
    }

    /// What a step reads and adds, where it was bound to any schema.
    #[must_use]
    pub fn first_bound(&self, step: usize) -> Option<Bound> {
        let known = self.0.lock();
        known.bound.iter().find_map(|(other, _, bound)| (*other == step).then(|| bound.clone().ok())?)
    }

    /// Computes the new columns of one row group, on the calling thread.
    ///
    /// # Errors
    /// As [`Fused::evaluate`].
    pub fn evaluate(&self, fused: &Fused, input: &RecordBatch) -> Result<RecordBatch> {
        fused.evaluate(&self.0.steps, input, &mut |step, input| self.0.compute.compute(step, input))
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn find(&self, chain: &[usize], schema: &SchemaRef) -> Option<Result<Arc<Fused>>> {
        let same = |other: &SchemaRef| Arc::ptr_eq(other, schema) || other.fields() == schema.fields();
        let found = self.fused.iter().find(|(way, other, _)| way == chain && same(other));
        found.map(|(_, _, fused)| fused.clone())
    }
}
