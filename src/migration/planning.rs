//! `plan`: what would be done, without writing anything.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Migrations;
use super::cost::Requests;
use super::document::{EditedStep, Plan, PlannedObject, PlannedStep, SCHEMA_VERSION, State, Trouble};
use super::estimate::{Place, new_bytes, note, work};
use super::fetch::batches;
use super::graph::Way;
use super::scan::{Looked, Sight, VersionPlace};
use super::sidecars;
use crate::error::{Error, Kind, Result};
use crate::parquet::{Layout, decide};
use crate::progress::Run;
use crate::store::{ETag, ObjectMeta, clock};

/// What a plan is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The version to reach; the configuration's where it is not said.
    #[serde(default)]
    pub to: Option<u64>,
    /// Keys or URLs to look at; the whole data set where it is not said.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
    /// Only so many of the objects that are to be migrated, chosen by their keys' checksums.
    #[serde(default)]
    pub sample: Option<u64>,
    /// Reads the tags of objects at the target too, and plans to mend what differs between footer and tag.
    #[serde(default)]
    pub repair: bool,
}

impl Migrations {
    /// Looks at the data set and says what would be done.
    ///
    /// # Errors
    /// `Invalid` where two ways through the steps are equally short; `Unavailable` where storage does not answer.
    pub async fn plan(&self, request: &PlanRequest, run: &Run) -> Result<Plan> {
        let target = self.target(request.to)?;
        let place = self.place().await?;
        self.check_carry().await?;
        let found = self.find(request.keys.as_deref(), run).await?;
        let sights = self.look_at(found.keys, request.repair, run).await?;
        let mut objects = Vec::with_capacity(sights.len());
        let mut edited: BTreeMap<(u64, u64, String), EditedStep> = BTreeMap::new();
        for (key, sight) in sights {
            objects.push(match sight {
                Sight::Gone => {
                    if request.keys.is_none() {
                        continue;
                    }
                    let error = Error::not_found(format!("`{}` does not exist", self.data.url_of(&key)));
                    let meta = ObjectMeta { key, size: 0, etag: ETag(String::new()), version: None, modified: None };
                    refused(&meta, target, State::Error, &error)
                }
                Sight::NotParquet(meta, error) => refused(&meta, target, State::NotParquet, &error),
                Sight::Failed(meta, error) => refused(&meta, target, State::Error, &error),
                Sight::File(looked) => {
                    self.compare_steps(&looked, &mut edited);
                    self.plan_object(&looked, target, place, request.repair).await?
                }
            });
        }
        if let Some(sample) = request.sample {
            keep_sample(&mut objects, sample);
        }
        let totals = self.totals(&objects, place).await?;
        let mut warnings = warnings(&objects);
        warnings.extend(self.grants_warning(&objects).await?);
        let sidecars = self.sidecars(found.sidecars, request.keys.as_deref(), &objects).await?;
        warnings.extend(sidecars::warnings(&sidecars));
        Ok(Plan {
            schema_version: SCHEMA_VERSION,
            kind: "parquet-plan".into(),
            set: self.config.name.clone(),
            data: self.data.url().to_owned(),
            target,
            created: clock::now_rfc3339(),
            warnings,
            sidecars,
            objects,
            steps: self.planned_steps(),
            edited: edited.into_values().collect(),
            totals,
        })
    }

    /// Where the objects lie.
    pub(super) async fn place(&self) -> Result<Place> {
        if self.data.local_path("x").is_some() {
            return Ok(Place::Files);
        }
        let parts = self.capabilities().await?.copies_ranges;
        Ok(if parts { Place::CopiesParts } else { Place::WholeObjects })
    }

    /// What would become of one file.
    async fn plan_object(&self, looked: &Looked, target: u64, place: Place, repair: bool) -> Result<PlannedObject> {
        let (meta, file) = (&looked.meta, &looked.file);
        let mut object = PlannedObject {
            rows: file.rows(),
            row_groups: file.row_groups() as u64,
            footer: file.footer_length() + crate::parquet::TAIL,
            from: Some(looked.version),
            version_from: Some(looked.place.name().to_owned()),
            ..blank(meta, target, State::Pending)
        };
        let chain = match self.graph.way(looked.version, target)? {
            Way::Newer => {
                object.state = State::Newer;
                object.reason = Some(format!("its version `{}` is past `{target}`", looked.version));
                return Ok(object);
            }
            Way::Missing(message) => {
                object.state = State::MissingStep;
                object.trouble = Trouble {
                    message: Some(message),
                    hint: Some("add the step, or choose another target".into()),
                    retryable: false,
                };
                return Ok(object);
            }
            Way::There => {
                let footer_lacks = looked.place != VersionPlace::Footer;
                object.repair = self.difference(looked);
                if !(repair && footer_lacks) {
                    object.state = State::Done;
                    return Ok(object);
                }
                Vec::new()
            }
            Way::Steps(chain) => chain,
        };
        object.steps.clone_from(&chain);
        match self.decide_object(looked, &chain, place, &mut object).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Unavailable => return Err(error),
            Err(error) => {
                object.state = State::Error;
                object.trouble = Trouble::from(&error.context(format!("`{}`", meta.key)));
            }
        }
        Ok(object)
    }

    /// Layout and cost of a file's rewrite.
    async fn decide_object(
        &self,
        looked: &Looked,
        chain: &[usize],
        place: Place,
        object: &mut PlannedObject,
    ) -> Result<()> {
        let file = &looked.file;
        let fused = self.binder.fused(chain, file.schema()).await?;
        let decision = decide(file, &fused.change, new_bytes(file, &fused), self.config.layout)?;
        let batches = batches(file, &fused)?;
        note(object, &work(file, &fused, &batches, &decision, place)?);
        object.requests.head += u64::from(self.carries_grants().await?);
        object.layout = Some(decision.layout);
        let said = std::iter::once(decision.reason.as_str()).chain(decision.notes.iter().map(String::as_str));
        object.reason = Some(said.collect::<Vec<_>>().join("; "));
        let versioned = self.keeps(looked.meta.version.as_deref()).await?;
        object.roll_back = match decision.layout {
            _ if versioned => Some("version".into()),
            Layout::Widened => Some("prefix".into()),
            _ => None,
        };
        Ok(())
    }

    /// What footer and tag say differently, where both are known.
    fn difference(&self, looked: &Looked) -> Option<String> {
        let key = &self.config.version.key;
        match (looked.place, &looked.tag) {
            (VersionPlace::Tag, _) => Some(format!("the tag `{key}` says `{}`, the footer nothing", looked.version)),
            (VersionPlace::Footer, Some(tag)) if tag.as_deref() != Some(looked.version.to_string().as_str()) => {
                let tag = tag.as_ref().map_or("nothing".to_owned(), |tag| format!("`{tag}`"));
                Some(format!("the footer's `{key}` says `{}`, the tag {tag}", looked.version))
            }
            _ => None,
        }
    }

    /// Finds steps that were applied to a file and are defined otherwise now.
    fn compare_steps(&self, looked: &Looked, edited: &mut BTreeMap<(u64, u64, String), EditedStep>) {
        let Some(stamp) = looked.stamp.as_ref().filter(|stamp| stamp.set == self.config.name) else { return };
        for applied in stamp.applied() {
            let present = self.config.steps.iter().find(|step| (step.from, step.to) == (applied.from, applied.to));
            if let Some(present) = present
                && present.fingerprint != applied.fingerprint
            {
                edited
                    .entry((applied.from, applied.to, applied.fingerprint.clone()))
                    .or_insert_with(|| EditedStep {
                        from: applied.from,
                        to: applied.to,
                        applied: applied.fingerprint.clone(),
                        present: present.fingerprint.clone(),
                        objects: 0,
                        key: looked.meta.key.clone(),
                    })
                    .objects += 1;
            }
        }
    }

    pub(super) fn planned_steps(&self) -> Vec<PlannedStep> {
        let steps = self.config.steps.iter().enumerate();
        steps
            .map(|(index, step)| {
                let bound = self.binder.first_bound(index).unwrap_or_default();
                PlannedStep {
                    from: step.from,
                    to: step.to,
                    name: step.name.clone(),
                    fingerprint: step.fingerprint.clone(),
                    reads: bound.reads,
                    adds: bound
                        .adds
                        .iter()
                        .map(|field| (field.name().clone(), field.data_type().to_string()))
                        .collect(),
                    drops: step.drop.clone(),
                    renames: step.rename.clone(),
                }
            })
            .collect()
    }
}

fn blank(meta: &ObjectMeta, target: u64, state: State) -> PlannedObject {
    PlannedObject {
        key: meta.key.clone(),
        etag: meta.etag.0.clone(),
        size: meta.size,
        version_id: meta.version.clone(),
        rows: 0,
        row_groups: 0,
        footer: 0,
        from: None,
        to: target,
        version_from: None,
        steps: Vec::new(),
        state,
        layout: None,
        reason: None,
        roll_back: None,
        bytes_read: 0,
        bytes_copied: 0,
        bytes_written_estimate: 0,
        whole: false,
        memory: 0,
        requests: Requests::default(),
        repair: None,
        trouble: Trouble::default(),
    }
}

fn refused(meta: &ObjectMeta, target: u64, state: State, error: &Error) -> PlannedObject {
    PlannedObject { trouble: Trouble::from(error), ..blank(meta, target, state) }
}

/// Leaves `sample` pending objects, the ones whose keys have the smallest checksums: the same ones each time, and spread.
fn keep_sample(objects: &mut [PlannedObject], sample: u64) {
    let mut pending: Vec<(u32, usize)> = objects
        .iter()
        .enumerate()
        .filter(|(_, object)| object.state == State::Pending)
        .map(|(index, object)| (crc32c::crc32c(object.key.as_bytes()), index))
        .collect();
    pending.sort_unstable();
    for (_, index) in pending.into_iter().skip(usize::try_from(sample).unwrap_or(usize::MAX)) {
        objects[index].state = State::Skipped;
        objects[index].reason = Some("not in the sample".into());
    }
}

fn warnings(objects: &[PlannedObject]) -> Vec<String> {
    let mut warnings = Vec::new();
    let pending = || objects.iter().filter(|object| object.state == State::Pending);
    let stuck = pending().filter(|object| object.roll_back.is_none()).count();
    if stuck > 0 {
        warnings.push(format!(
            "{stuck} objects cannot be rolled back: they are laid out anew, and the storage keeps no versions"
        ));
    }
    let kept: u64 =
        pending().filter(|object| object.roll_back.as_deref() == Some("version")).map(|object| object.size).sum();
    if kept > 0 {
        warnings.push(format!("the bucket keeps the old versions: {kept} bytes until they expire"));
    }
    let differing = objects.iter().filter(|object| object.repair.is_some()).count();
    if differing > 0 {
        warnings
            .push(format!("footer and tag differ in {differing} objects that are at the target; `repair` mends them"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::super::document::Totals;
    use super::*;

    fn object(key: &str, state: State) -> PlannedObject {
        let meta = ObjectMeta { key: key.into(), size: 1, etag: ETag("e".into()), version: None, modified: None };
        blank(&meta, 2, state)
    }

    fn plan(objects: Vec<PlannedObject>) -> Plan {
        Plan {
            schema_version: SCHEMA_VERSION,
            kind: "parquet-plan".into(),
            set: "s".into(),
            data: "d".into(),
            target: 2,
            created: String::new(),
            objects,
            steps: Vec::new(),
            edited: Vec::new(),
            warnings: Vec::new(),
            sidecars: Vec::new(),
            totals: Totals { states: [(State::Pending, 3), (State::MissingStep, 1)].into(), ..Totals::default() },
        }
    }

    #[test]
    fn a_plan_comes_back_from_json_and_its_shards_share_the_work() {
        let mut objects: Vec<_> = (0..23).map(|index| object(&format!("k{index:02}"), State::Pending)).collect();
        objects.push(object("z", State::Done));
        objects[3].trouble.message = Some("m".into());
        objects.reverse();
        let plan = plan(objects);
        let text = serde_json::to_string(&plan).unwrap();
        let again = Plan::from_json(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
        assert!(text.contains(r#""missing_step":1"#), "{text}");
        let mut keys: Vec<String> = Vec::new();
        for number in 1..=5 {
            let shard = again.shard(number, 5).unwrap();
            assert!((4..=5).contains(&shard.len()));
            keys.extend(shard.iter().map(|object| object.key.clone()));
        }
        keys.sort();
        assert_eq!(keys, (0..23).map(|index| format!("k{index:02}")).collect::<Vec<_>>());
        assert!(again.shard(0, 5).is_err() && again.shard(6, 5).is_err());
        assert!(Plan::from_json(&text.replace("parquet-plan", "zarr-plan")).is_err());
    }

    #[test]
    fn a_sample_is_the_same_each_time() {
        let objects: Vec<_> = (0..50).map(|index| object(&format!("k{index:02}"), State::Pending)).collect();
        let chosen = |mut objects: Vec<PlannedObject>| {
            keep_sample(&mut objects, 7);
            let mut keys: Vec<_> =
                objects.into_iter().filter(|object| object.state == State::Pending).map(|object| object.key).collect();
            keys.sort();
            keys
        };
        let keys = chosen(objects.clone());
        assert_eq!(keys.len(), 7);
        assert_eq!(chosen(objects.into_iter().rev().collect()), keys);
    }
}
