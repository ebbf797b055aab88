//! `apply`: does what a plan says, as far as it is still to be done.
//!
//! Objects run side by side within the limits of the configuration; the failure of one does not stop the others, until
//! there are more failures than allowed. Whatever stops a run, running again goes on: each object says itself what it is.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::time::Instant;

use super::Migrations;
use super::document::{Plan, PlannedObject, SCHEMA_VERSION, State};
use super::report::{Estimate, ObjectReport, Report, ReportTotals, Seconds};
use super::rewrite::Shared;
use super::runs::{Recorder, RunRecord, check_run, new_run};
use super::throttle::Throttle;
use crate::error::{Error, Result};
use crate::progress::{Run, Usage};

/// What an apply is told besides the plan.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyOptions {
    /// Only shard `i` of `n`, counted from 1.
    #[serde(default)]
    pub shard: Option<(u64, u64)>,
    /// The run's id, where several shards share one.
    #[serde(default)]
    pub run: Option<String>,
}

impl Migrations {
    /// Does what a plan says.
    ///
    /// # Errors
    /// `Invalid` where the plan is not of this set, or its steps are not those of the configuration any more; `Unavailable`
    /// where runs cannot be recorded. What goes wrong with one object is in its report.
    pub async fn apply(&self, plan: &Plan, options: &ApplyOptions, run: &Run) -> Result<Report> {
        let (began, usage_before) = (Instant::now(), self.data.counters().usage());
        self.check_plan(plan)?;
        self.refuse_sidecars(plan).await?;
        let (number, count) = options.shard.unwrap_or((1, 1));
        let objects = plan.shard(number, count)?;
        let estimate = self.estimate(plan, &objects).await?;
        let mut reports = self.repair_tags(plan, run).await?;
        if objects.is_empty() {
            return Ok(self.report("apply", String::new(), reports, false, false, usage_before, began, estimate));
        }
        let id = options.run.clone().unwrap_or_else(new_run);
        check_run(&id)?;
        let record = RunRecord {
            shard: options.shard,
            target: Some(plan.target),
            ..RunRecord::begun("apply", &id, objects.len())
        };
        self.sweep(objects.iter().map(|object| object.key.as_str())).await?;
        self.record(&record).await?;
        let mut recorder = Recorder::new(self.run_store(&id));
        let shard = Plan { objects: objects.iter().map(|object| (*object).clone()).collect(), ..plan.clone() };
        let md5_etags = recorder.keep("plan", &shard).await?;

        let throttle = Throttle::new(&self.config.run);
        let common = Shared { run, id: &id, throttle: &throttle, place: self.place().await?, md5_etags };
        let stopped = self.migrate_all(&objects, &common, &mut recorder, &mut reports).await;
        recorder.flush().await?;
        let stopped = stopped?;
        let cancelled = run.check().is_err();
        let report = self.report("apply", id, reports, cancelled, stopped, usage_before, began, estimate);
        self.record(&record.ended(&report)).await?;
        Ok(report)
    }

    /// A plan is carried out only by the set it was made for, with the steps it was made with.
    fn check_plan(&self, plan: &Plan) -> Result<()> {
        if plan.set != self.config.name || plan.data != self.data.url() {
            return Err(Error::invalid(format!(
                "expected a plan of `{}` at `{}`, found one of `{}` at `{}`",
                self.config.name,
                self.data.url(),
                plan.set,
                plan.data
            )));
        }
        for (index, planned) in plan.steps.iter().enumerate() {
            let same = self.config.steps.get(index).is_some_and(|step| {
                (step.from, step.to, &step.fingerprint) == (planned.from, planned.to, &planned.fingerprint)
            });
            if !same {
                return Err(Error::invalid(format!(
                    "the step `{}→{}` is not the one that was planned",
                    planned.from, planned.to
                ))
                .hint("the configuration changed since: make the plan again"));
            }
        }
        if let Some(edited) = plan.edited.first() {
            return Err(Error::invalid(format!(
                "the step `{}→{}` was edited after `{}` objects were migrated by it, `{}` among them",
                edited.from, edited.to, edited.objects, edited.key
            ))
            .hint(format!(
                "restore the step as it was and add a new one from `{}`; or roll those objects back, and apply the edited step",
                edited.to
            )));
        }
        let wrong = plan.objects.iter().find(|object| object.steps.iter().any(|step| *step >= plan.steps.len()));
        match wrong {
            Some(object) => {
                Err(Error::invalid(format!("the plan names a step for `{}` that it does not have", object.key)))
            }
            None => Ok(()),
        }
    }

    /// Migrates all objects; says whether failures stopped it.
    async fn migrate_all(
        &self,
        objects: &[&PlannedObject],
        shared: &Shared<'_>,
        recorder: &mut Recorder,
        reports: &mut Vec<ObjectReport>,
    ) -> Result<bool> {
        let run = shared.run;
        let total = objects.len() as u64;
        let allowed = self.config.run.max_failures.map_or(u64::MAX, |failures| failures.of(total));
        let failures = AtomicU64::new(0);
        let under_way = stream::iter(0..objects.len())
            .map(|index| {
                let (object, failures) = (objects[index], &failures);
                async move {
                    // No new one after too many failures; those under way go on to their end.
                    if failures.load(Ordering::Relaxed) > allowed || run.check().is_err() {
                        return ObjectReport::untouched(&object.key, State::Pending, object.from, object.from);
                    }
                    let report = self.migrate(object, shared).await;
                    if report.state == State::Error {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                    report
                }
            })
            .buffer_unordered(self.config.run.concurrency);
        let mut done = 0;
        let tell = |report: &ObjectReport| {
            done += 1;
            self.tell(run, "migrate", (done, total), &report.key, failures.load(Ordering::Relaxed));
        };
        reports.extend(recorder.take_all(under_way, tell).await?);
        Ok(failures.load(Ordering::Relaxed) > allowed)
    }

    /// Writes the tags of objects at the target whose footer says another version than the tag.
    async fn repair_tags(&self, plan: &Plan, run: &Run) -> Result<Vec<ObjectReport>> {
        let key = &self.config.version.key;
        let mut reports = Vec::new();
        let wanted = |object: &&PlannedObject| object.state == State::Done && object.repair.is_some();
        for object in plan.objects.iter().filter(wanted) {
            run.check()?;
            let (Some(version), "footer") = (object.from, object.version_from.as_deref().unwrap_or_default()) else {
                continue;
            };
            let mut tags = self.data.tags(&object.key).await?;
            tags.insert(key.clone(), version.to_string());
            self.data.set_tags(&object.key, &tags).await?;
            reports.push(ObjectReport::untouched(&object.key, State::Done, object.from, object.from));
        }
        Ok(reports)
    }

    async fn estimate(&self, plan: &Plan, objects: &[&PlannedObject]) -> Result<Estimate> {
        let all = objects.len() == plan.objects.iter().filter(|object| object.state == State::Pending).count();
        let totals = if all {
            plan.totals.clone()
        } else {
            let objects: Vec<PlannedObject> = objects.iter().map(|object| (*object).clone()).collect();
            self.totals(&objects, self.place().await?).await?
        };
        Ok(Estimate {
            objects: objects.len() as u64,
            bytes_read: totals.bytes_read,
            bytes_copied: totals.bytes_copied,
            bytes_written: totals.bytes_written,
            requests: totals.requests,
            seconds: totals.seconds,
            dollars: totals.dollars,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one document, made in one place")]
    pub(super) fn report(
        &self,
        verb: &str,
        run: String,
        mut objects: Vec<ObjectReport>,
        cancelled: bool,
        stopped: bool,
        usage_before: Usage,
        began: Instant,
        estimate: Estimate,
    ) -> Report {
        objects.sort_by(|left, right| left.key.cmp(&right.key));
        let totals = ReportTotals::of(&objects);
        let good = totals.count(State::Done) + totals.count(State::RolledBack) + totals.count(State::Skipped);
        let outcome = match (objects.is_empty(), cancelled, stopped) {
            (true, _, _) => "nothing",
            (_, true, _) => "cancelled",
            (_, _, true) => "failed",
            _ if good == totals.objects => "done",
            _ => "partial",
        };
        let usage = self.data.counters().usage() - usage_before;
        let wall = began.elapsed().as_secs_f64();
        Report {
            schema_version: SCHEMA_VERSION,
            kind: "parquet-report".into(),
            set: self.config.name.clone(),
            run,
            verb: verb.into(),
            outcome: outcome.into(),
            objects,
            totals,
            usage,
            estimate,
            seconds: Seconds { wall },
            dollars: self.dollars(usage.into(), wall, usage.bytes_read),
        }
    }
}
