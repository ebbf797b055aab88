//! Sums of a plan: bytes, requests, seconds at the rate of the last run, dollars.

use std::num::NonZero;

use super::Migrations;
use super::cost::{Dollars, Requests};
use super::document::{PlannedObject, State, Totals};
use super::estimate::{Place, Rate};
use super::runs::RunRecord;
use crate::error::Result;

impl Migrations {
    /// Sums over the objects that are to be migrated.
    pub(super) async fn totals(&self, objects: &[PlannedObject], place: Place) -> Result<Totals> {
        let mut totals = Totals { objects: objects.len() as u64, ..Totals::default() };
        for object in objects {
            *totals.states.entry(object.state).or_default() += 1;
        }
        let mut pending = 0;
        for object in objects.iter().filter(|object| object.state == State::Pending) {
            pending += 1;
            totals.bytes = totals.bytes.saturating_add(object.size);
            totals.bytes_read = totals.bytes_read.saturating_add(object.bytes_read);
            totals.bytes_copied = totals.bytes_copied.saturating_add(object.bytes_copied);
            totals.bytes_written = totals.bytes_written.saturating_add(object.bytes_written_estimate);
            totals.requests = totals.requests.and(object.requests);
        }
        let rate = self.rate(place).await?;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (run, moved) = (&self.config.run, totals.bytes_read.saturating_add(totals.bytes_written));
        totals.seconds = rate.seconds(pending, moved, run.concurrency, cores, run.rate);
        rate.source().clone_into(&mut totals.rate_from);
        totals.dollars = self.dollars(totals.requests, totals.seconds, totals.bytes_read);
        Ok(totals)
    }

    /// What requests and seconds of this machine cost.
    pub(super) fn dollars(&self, requests: Requests, seconds: f64, bytes_read: u64) -> Dollars {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let prices = self.config.prices.clone().unwrap_or_default();
        prices.dollars(requests, seconds * cores as f64, bytes_read)
    }

    /// The rate of the last run that migrated enough to tell, or what is assumed.
    async fn rate(&self, place: Place) -> Result<Rate> {
        const ENOUGH: u64 = 10;
        let done = |run: &RunRecord| run.totals.as_ref().map_or(0, |totals| totals.count(State::Done));
        let seconds = |run: &RunRecord| run.seconds.filter(|seconds| *seconds > 0.0);
        let tells = |run: &RunRecord| run.verb == "apply" && done(run) >= ENOUGH && seconds(run).is_some();
        let run = self.last_ended(tells).await?;
        let measured = run.and_then(|run| {
            let per_object = seconds(&run)? / done(&run) as f64;
            Some(Rate::Measured { run: run.run, per_object })
        });
        Ok(measured.unwrap_or_else(|| Rate::assumed(place)))
    }
}
