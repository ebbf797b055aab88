//! All work of a commit in one list: objects, what they are made of, and the schedule.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::job::ArrayWork;
use super::schedule::{InputCost, ObjectCost, Schedule, TooLarge, UNIT, schedule, units};
use super::{ArrayWrite, EmptyChunks, WriteOptions};
use crate::error::{Error, Result};
use crate::zarr::plan::{Action, Base, ObjectPlan, Plan};
use crate::zarr::{Array, Content, Shift, Values};

/// Bytes that a string is taken to need, since chunks of strings have no size of their own.
const STRING_BYTES: u64 = 64;

/// What an input is.
pub(super) enum Source {
    /// A tile of a source (indices into [`Work::sources`] and its tiles).
    Tile { source: usize, tile: usize },
    /// An old object of an array.
    Object { array: usize, index: Vec<u64> },
}

/// One stored object to be written.
pub(super) struct ObjectWork {
    pub(super) array: usize,
    pub(super) plan: ObjectPlan,
    /// Units of its own buffers.
    pub(super) own: u64,
    /// Whether its own old content is among its inputs.
    pub(super) reads_itself: bool,
}

/// All work of a commit.
pub(super) struct Work {
    pub(super) arrays: Vec<Arc<ArrayWork>>,
    /// Whether an array is shifted.
    pub(super) shifted: Vec<bool>,
    pub(super) sources: Vec<Arc<dyn Values>>,
    pub(super) objects: Vec<ObjectWork>,
    pub(super) schedule: Schedule,
    inputs: Vec<(Source, InputCost)>,
}

/// The parts of [`Work`] while they are gathered.
#[derive(Default)]
struct Gathered {
    arrays: Vec<Arc<ArrayWork>>,
    sources: Vec<Arc<dyn Values>>,
    source_numbers: HashMap<*const (), usize>,
    objects: Vec<ObjectWork>,
    costs: Vec<ObjectCost>,
    inputs: Vec<(Source, InputCost)>,
    tiles: HashMap<(usize, usize), usize>,
    old_objects: HashMap<(usize, Vec<u64>), usize>,
}

impl Work {
    /// Plans all arrays and schedules their objects in `memory` units and groups of `most_objects`.
    pub(super) fn new(writes: &[ArrayWrite], options: &WriteOptions, memory: u64, most_objects: usize) -> Result<Self> {
        let mut gathered = Gathered::default();
        let mut shifted = Vec::with_capacity(writes.len());
        let mut paths = HashSet::new();
        for write in writes {
            if !paths.insert(write.array.path.as_str()) {
                // Two plans of one array would write the same object twice, each without the other's values.
                return Err(Error::internal(format!("array `{}` is in a commit twice", write.array.path)));
            }
        }
        let plans: Vec<Plan> = writes.iter().map(ArrayWrite::plan).collect::<Result<_>>()?;
        let object_count: usize = plans.iter().map(|plan| plan.objects.len()).sum();
        let splits_objects = object_count < 4 * rayon::current_num_threads();
        for (number, (write, mut plan)) in writes.iter().zip(plans).enumerate() {
            let work = ArrayWork { splits_objects, ..gathered.array_work(write, options)? };
            let object_bytes = object_bytes(&work.array);
            let shift = write.shift.as_ref().filter(|shift| shift.first_moved().is_some());
            shifted.push(shift.is_some());
            if let Some(shift) = shift {
                by_lanes(&mut plan, shift, (memory * UNIT / 4 / (2 * object_bytes.max(1))).max(1));
            }
            gathered.arrays.push(Arc::new(work));
            for object in plan.objects {
                gathered.object(number, object, shift.is_some());
            }
        }
        let Gathered { arrays, sources, objects, costs, inputs, .. } = gathered;
        let input_costs: Vec<InputCost> = inputs.iter().map(|(_, cost)| *cost).collect();
        let schedule =
            schedule(&costs, &input_costs, memory, most_objects).map_err(|TooLarge { object, needed }| {
                let ObjectWork { array, plan, .. } = &objects[object];
                let mebibytes = |units: u64| (units * UNIT).div_ceil(1 << 20);
                Error::invalid(format!(
                    "rewriting chunk `{:?}` of array `{}` takes `{} MiB` of memory, more than the limit of `{} MiB`",
                    plan.index,
                    arrays[*array].array.path,
                    mebibytes(needed * 8 / 7),
                    options.memory >> 20
                ))
                .hint("raise `run.memory`, or store the array in smaller chunks or shards")
            })?;
        Ok(Self { arrays, shifted, sources, objects, schedule, inputs })
    }

    /// What a load brings.
    pub(super) fn input(&self, load: usize) -> &Source {
        &self.inputs[self.schedule.loads[load].input].0
    }

    pub(super) fn load_cost(&self, load: usize) -> InputCost {
        self.inputs[self.schedule.loads[load].input].1
    }

    /// What guards each object until it has been read: what is beyond the array that readers see, and what is not. The
    /// latter are named here, for each array, as far as nobody reads them.
    pub(super) fn unread(&self) -> Vec<(&Array, BTreeSet<Vec<u64>>)> {
        let mut unread: Vec<BTreeSet<Vec<u64>>> = vec![BTreeSet::new(); self.arrays.len()];
        for object in self.objects.iter().filter(|object| !object.reads_itself && !self.is_beyond(object)) {
            unread[object.array].insert(object.plan.index.clone());
        }
        self.arrays.iter().map(|work| &work.array).zip(unread).filter(|(_, indices)| !indices.is_empty()).collect()
    }

    /// Whether an object lies beyond the array that readers see.
    pub(super) fn is_beyond(&self, object: &ObjectWork) -> bool {
        let geometry = &self.arrays[object.array].geometry;
        let Some(previous) = &geometry.previous_shape else { return false };
        let sides = geometry.shard_shape.as_ref().unwrap_or(&geometry.chunk_shape);
        object.plan.index.iter().zip(sides).zip(previous).any(|((index, side), length)| index * side >= *length)
    }
}

/// Bytes of a decoded chunk; an estimate for strings.
fn chunk_bytes(array: &Array) -> u64 {
    array.chunk_bytes().unwrap_or_else(|| array.chunk_elements().saturating_mul(STRING_BYTES))
}

/// Bytes of a stored object if its chunks did not compress at all.
fn object_bytes(array: &Array) -> u64 {
    let count: u64 = array.chunks_per_object().iter().product();
    chunk_bytes(array).saturating_mul(count).saturating_add(count * 16)
}

impl Gathered {
    /// Checks the values of an array and numbers their sources.
    fn array_work(&mut self, write: &ArrayWrite, options: &WriteOptions) -> Result<ArrayWork> {
        let array = &write.array;
        let mut patch_sources = Vec::with_capacity(write.patches.len());
        let mut passes = Vec::with_capacity(write.patches.len());
        for patch in &write.patches {
            let Content::Values { values, .. } = &patch.content else {
                patch_sources.push(None);
                passes.push(false);
                continue;
            };
            if values.data_type() != array.data_type {
                return Err(Error::invalid(format!(
                    "array `{}`: expected values of `{:?}`, found `{:?}`",
                    array.path,
                    array.data_type,
                    values.data_type()
                )));
            }
            let fresh = self.sources.len();
            let number = *self.source_numbers.entry(Arc::as_ptr(values).cast()).or_insert(fresh);
            if number == fresh {
                self.sources.push(Arc::clone(values));
            }
            patch_sources.push(Some(number));
            passes.push(values.encoding().is_some_and(|encoding| array.codecs.accept(encoding)));
        }
        Ok(ArrayWork {
            array: array.clone(),
            geometry: write.geometry(),
            patches: write.patches.clone(),
            patch_sources,
            passes,
            drops_empty: options.empty_chunks == EmptyChunks::Drop,
            splits_objects: false,
        })
    }

    /// Adds an object with its inputs and their costs.
    fn object(&mut self, number: usize, plan: ObjectPlan, shifted: bool) {
        let work = Arc::clone(&self.arrays[number]);
        let (geometry, array) = (&work.geometry, &work.array);
        let mut cost = ObjectCost { inputs: Vec::new(), own: 0 };
        let mut reads_itself = false;
        if let Action::Write { chunks, keeps } = &plan.action {
            let mut old_objects: Vec<Vec<u64>> = if *keeps { vec![plan.index.clone()] } else { Vec::new() };
            let mut decodes_old = false;
            for chunk in chunks {
                match &chunk.base {
                    Base::Blank => {}
                    Base::Stored => old_objects.push(geometry.object_of(&chunk.index)),
                    Base::Moved { from } => old_objects.push(geometry.object_of(from)),
                    Base::Assembled { moves } => {
                        decodes_old = true;
                        old_objects.extend(moves.iter().map(|one| geometry.object_of(&one.chunk)));
                    }
                }
                for piece in &chunk.pieces {
                    if let Some((source, tile)) = work.patch_sources[piece.patch].zip(piece.tile) {
                        cost.inputs.push(self.tile(source, tile));
                    }
                }
            }
            reads_itself = old_objects.contains(&plan.index);
            for index in old_objects {
                cost.inputs.push(self.old_object(number, index, object_bytes(array), !shifted));
            }
            cost.inputs.sort_unstable();
            cost.inputs.dedup();
            // Buffers of the chunks at work, the encoded chunks, and the assembled shard.
            let encoded = chunk_bytes(array).saturating_mul(chunks.len() as u64);
            let at_work = chunk_bytes(array)
                .saturating_mul((chunks.len() as u64).min(rayon::current_num_threads() as u64))
                .saturating_mul(1 + u64::from(decodes_old));
            let assembled = match (&array.sharding, keeps) {
                (None, _) => 0,
                (Some(_), false) => encoded,
                (Some(_), true) => object_bytes(array),
            };
            cost.own = units(encoded.saturating_add(at_work).saturating_add(assembled));
        }
        self.objects.push(ObjectWork { array: number, plan, own: cost.own, reads_itself });
        self.costs.push(cost);
    }

    fn tile(&mut self, source: usize, tile: usize) -> usize {
        let inputs = &mut self.inputs;
        let values = &self.sources[source];
        *self.tiles.entry((source, tile)).or_insert_with(|| {
            let outline = &values.tiles()[tile];
            let count = outline.decoded_shape.iter().fold(1_u64, |count, side| count.saturating_mul(*side));
            let element = values.data_type().size().map_or(STRING_BYTES, |size| size as u64);
            let cost = InputCost {
                fetched: units(outline.encoded_size),
                held: units(count.saturating_mul(element)),
                reloadable: true,
            };
            inputs.push((Source::Tile { source, tile }, cost));
            inputs.len() - 1
        })
    }

    fn old_object(&mut self, array: usize, index: Vec<u64>, bytes: u64, reloadable: bool) -> usize {
        let inputs = &mut self.inputs;
        *self.old_objects.entry((array, index)).or_insert_with_key(|(array, index)| {
            let cost = InputCost { fetched: 0, held: units(bytes), reloadable };
            inputs.push((Source::Object { array: *array, index: index.clone() }, cost));
            inputs.len() - 1
        })
    }
}

/// Puts the moved objects of a plan in an order in which at most `most` lanes (columns of chunks along the shifted
/// dimension) are under way at once: what one row keeps for the next is one old object a lane.
fn by_lanes(plan: &mut Plan, shift: &Shift, most: u64) {
    let lane = |object: &ObjectPlan| {
        let mut lane = object.index.clone();
        lane[shift.dimension] = 0;
        lane
    };
    let mut numbers: HashMap<Vec<u64>, u64> = HashMap::new();
    let mut lanes: Vec<Vec<u64>> = plan.objects.iter().map(&lane).collect();
    lanes.sort();
    for one in lanes {
        let next = numbers.len() as u64;
        numbers.entry(one).or_insert(next);
    }
    if numbers.len() as u64 <= most {
        return;
    }
    // Stable: within a block of lanes the order of the plan stays.
    plan.objects.sort_by_key(|object| numbers.get(&lane(object)).map(|number| number / most));
}
