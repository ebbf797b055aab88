//! What one worker of a backfill would do, without doing it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::blocks::{clip, joined, steps_of};
use super::identity::id_of;
use super::shard::Share;
use super::{Standing, marker_key, shardable};
use crate::collection::Collection;
use crate::collection::document::{ArrayChange, AxisChange, Change, Plan, SCHEMA_VERSION, Totals};
use crate::collection::layout::{Layout, show};
use crate::collection::session::Session;
use crate::collection::structure::Role;
use crate::error::{Error, Result};

/// The share of one worker.
#[derive(Debug, Clone, Serialize)]
pub struct ShardPlan {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `zarr-shard-plan`.
    pub kind: String,
    /// The collection's name.
    pub collection: String,
    /// URL of the store.
    pub store: String,
    /// Id of the plan.
    pub plan: String,
    /// Which shard of how many, counted from 1.
    pub shard: (u64, u64),
    /// `pending`, `written` (its worker is done, others may not be) or `published` (the whole is done; nothing else is said).
    pub state: String,
    /// The axis before and after the whole plan.
    pub axis: AxisChange,
    /// Steps of a block: the shortest that shares no chunk, and no shard, with the next.
    pub block_length: u64,
    /// How many blocks are this worker's.
    pub block_count: u64,
    /// Index ranges of the axis that are this worker's alone, `[start, stop)`; neighbours are joined.
    pub blocks: Vec<(u64, u64)>,
    /// What becomes of each source inside of them; one that reaches over a border is another worker's as well.
    pub changes: Vec<Change>,
    /// Chunks of data that this worker writes, by array.
    pub arrays: Vec<ArrayChange>,
    /// Sums.
    pub totals: Totals,
}

impl Collection {
    /// Says what [`Collection::apply_shard`] would do; writes nothing.
    ///
    /// # Errors
    /// As [`Collection::apply_shard`].
    pub async fn plan_shard(&self, plan: &Plan, number: u64, count: u64) -> Result<ShardPlan> {
        let sources = shardable(plan, number, count)?;
        let id = id_of(plan)?;
        let mut session = Session::open(&self.store, &self.control, &self.config).await?;
        let is_published = matches!(self.standing(&session.ledger, plan, &id)?, Standing::Published);
        let is_written = self.control.head(&marker_key(&id, (number, count))).await?.is_some();
        let mut planned = ShardPlan {
            schema_version: SCHEMA_VERSION,
            kind: "zarr-shard-plan".into(),
            collection: plan.collection.clone(),
            store: plan.store.clone(),
            plan: id,
            shard: (number, count),
            state: if is_published {
                "published"
            } else if is_written {
                "written"
            } else {
                "pending"
            }
            .into(),
            axis: plan.axis.clone(),
            block_length: 0,
            block_count: 0,
            blocks: Vec::new(),
            changes: Vec::new(),
            arrays: Vec::new(),
            totals: Totals::default(),
        };
        if is_published {
            return Ok(planned);
        }
        if session.structure.is_none() {
            self.adopt_first(&mut session, sources).await?;
        }
        let share = Share::of(&mut session, sources, &self.config, (number, count)).await?;
        let layout = clip(&share.settled.layout, &share.blocks, share.block);
        let structure = session.structure.as_ref().ok_or_else(|| Error::internal("a share without a structure"))?;
        let mut data = structure.clone();
        data.arrays.retain(|array| array.role == Role::Data);
        planned.block_length = share.block;
        planned.block_count = share.blocks.len() as u64;
        planned.blocks = joined(&share.blocks, share.block, layout.length_after);
        planned.arrays = layout.touched(&data);
        // A store that is there has them in another order than a source.
        planned.arrays.sort_by(|left, right| left.name.cmp(&right.name));
        planned.changes = changes(plan, &session, &layout);
        planned.totals = Totals {
            sources: planned.changes.len() as u64,
            regions: layout.runs.len() as u64,
            chunks: planned.arrays.iter().map(|array| array.touched_count).sum(),
            bytes_source: planned.changes.iter().filter_map(|change| change.size).sum(),
            unchanged: 0,
        };
        Ok(planned)
    }
}

/// The plan's changes, with what of them lies inside of a share.
fn changes(plan: &Plan, session: &Session, layout: &Layout) -> Vec<Change> {
    let sources: BTreeMap<&str, _> = plan.sources.iter().map(|source| (source.key.as_str(), source)).collect();
    let mut steps = steps_of(layout);
    let inside = |change: &Change| {
        let steps = steps.remove(change.key.as_str())?;
        let labels = sources.get(change.key.as_str()).map(|source| source.labels.as_slice()).unwrap_or_default();
        let mine = steps.iter().flat_map(|(_, count, step)| labels.iter().skip(*step as usize).take(*count as usize));
        Some(Change {
            labels: mine.take(5).map(|label| show(session.kind, label)).collect(),
            label_count: steps.iter().map(|(_, count, _)| count).sum(),
            indices: steps.iter().map(|(start, count, _)| (*start, start + count)).collect(),
            ..change.clone()
        })
    };
    plan.changes.iter().filter_map(inside).collect()
}
