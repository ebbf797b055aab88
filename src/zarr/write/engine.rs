//! The run: admits groups of objects as memory allows, loads their inputs, computes and puts them.
//!
//! Everything here is one future that polls many; computation is on the rayon pool, and nothing is spawned, so nothing
//! outlives the call. On the first error, and when the run is cancelled, nothing new is admitted, objects that are not being
//! put yet are given up, and puts in flight are finished: one that is given up half-way may still land, after the
//! caller's lock is gone.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::buffers::Buffers;
use super::chunk_writer::{ChunkWriter, Copied, Guard};
use super::inputs::{Input, Share, StoredInput, TileInput};
use super::job::{Counts, ObjectJob};
use super::lookup::{Lookup, lookups};
use super::schedule::{Group, UNIT, units};
use super::storing::{Freed, Outcome, Released, instead_of_nothing, put, refused, wait_until_free};
use super::work::{ObjectWork, Source, Work};
use super::{ArrayWrite, WriteOptions, WriteSummary};
use crate::error::{Error, Result};
use crate::progress::{Progress, Run};
use crate::store::ETag;
use crate::zarr::plan::Action;

/// An input on its way, to be awaited by all who need it.
type Arriving<'a> = Shared<BoxFuture<'a, Result<Input>>>;
/// The fetched tiles of one call, each to be taken once.
type Fetching<'a> = Shared<BoxFuture<'a, Result<Arc<Vec<Mutex<Option<Bytes>>>>>>>;
/// How often it is asked whether the run was cancelled while nothing else happens.
const CANCELLATION_LATENCY: Duration = Duration::from_millis(200);

/// Runs one job on the rayon pool.
pub(crate) async fn compute<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // A panic in a rayon job would abort the process; a codec that panics is a failed write.
        let result = catch_unwind(AssertUnwindSafe(job))
            .unwrap_or_else(|_| Err(Error::internal("a chunk could not be computed: its codec or source panicked")));
        drop(sender.send(result));
    });
    receiver.await.unwrap_or_else(|_| Err(Error::internal("a computation was dropped")))
}

/// Applies `writes`.
pub(super) async fn run(
    place: &dyn ChunkWriter,
    writes: &[ArrayWrite],
    options: &WriteOptions,
    run: &Run,
) -> Result<WriteSummary> {
    run.check()?;
    // Buffers that wait for their next use are memory too.
    let recycled = (options.memory / 8).min(256 << 20);
    let memory = ((options.memory - recycled) / UNIT).min(u64::from(u32::MAX));
    let most_admitted = place.concurrency().max(1);
    // Several groups at once, so that the next is being loaded while one is computed and another is put.
    let work = Work::new(writes, options, memory, most_admitted.div_ceil(3))?;
    // Named before the first put: what is put later without having been read is refused if somebody else was there.
    let questions: Vec<Lookup> =
        work.unread().iter().flat_map(|(array, indices)| lookups(array, indices, place.is_at_hand())).collect();
    let found = if questions.is_empty() { HashMap::new() } else { place.find(&questions).await? };
    let mut engine = Engine {
        place,
        found,
        memory: Arc::new(Semaphore::new(memory as usize)),
        buffers: Arc::new(Buffers::new(recycled)),
        counts: Arc::default(),
        arriving: (0..work.schedule.loads.len()).map(|_| None).collect(),
        left: work.schedule.loads.iter().map(|load| load.users).collect(),
        released: HashMap::new(),
        stop: watch::Sender::new(false),
        work: &work,
    };
    let outcome = engine.run(run, memory, most_admitted).await;
    let mut done = outcome.0;
    let written = std::mem::take(&mut done.written);
    let finished = place.finish(&written).await;
    outcome.1?;
    finished?;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    done.summary.chunks_read = count(&engine.counts.read);
    done.summary.chunks_passed_through = count(&engine.counts.passed_through);
    done.summary.chunks_encoded = count(&engine.counts.encoded);
    done.summary.chunks_kept = count(&engine.counts.kept);
    done.summary.tiles_decoded = count(&engine.counts.tiles_decoded);
    Ok(done.summary)
}

/// What has been done so far.
#[derive(Default)]
struct Done {
    summary: WriteSummary,
    written: Vec<String>,
    objects: u64,
}

struct Engine<'a> {
    place: &'a dyn ChunkWriter,
    /// What is there of the objects that are not read before they are written.
    found: HashMap<String, ETag>,
    work: &'a Work,
    memory: Arc<Semaphore>,
    buffers: Arc<Buffers>,
    counts: Arc<Counts>,
    /// Inputs of admitted groups, until their last user is admitted.
    arriving: Vec<Option<Arriving<'a>>>,
    /// For each load the users that are not admitted yet.
    left: Vec<usize>,
    /// For old objects that others read and this commit overwrites.
    released: HashMap<(usize, Vec<u64>), Vec<Released>>,
    /// Turns true when everything that is not being put yet is to be given up.
    stop: watch::Sender<bool>,
}

impl<'a> Engine<'a> {
    async fn run(&mut self, run: &Run, memory: u64, most_admitted: usize) -> (Done, Result<()>) {
        let mut done = Done::default();
        let mut result = Ok(());
        let mut running: FuturesUnordered<BoxFuture<'a, Result<(usize, Outcome)>>> = FuturesUnordered::new();
        let mut groups = self.work.schedule.groups.iter().peekable();
        let mut told = Instant::now();
        loop {
            if result.is_ok() {
                result = run.check();
            }
            if result.is_err() {
                self.stop.send_replace(true);
                // Nobody will be admitted who would drive these on, and somebody may wait for them to end.
                self.arriving.fill(None);
            }
            let next = groups.peek().filter(|group| {
                result.is_ok() && (running.is_empty() || running.len() + group.objects.len() <= most_admitted)
            });
            let needed = next.map_or(0, |group| group.memory as u32);
            tokio::select! {
                biased;
                permit = Arc::clone(&self.memory).acquire_many_owned(needed), if next.is_some() => {
                    if let (Ok(permit), Some(group)) = (permit, groups.next()) {
                        let reserved = (memory - self.memory.available_permits() as u64) * UNIT;
                        done.summary.peak_memory = done.summary.peak_memory.max(reserved);
                        self.admit(group, permit, &running);
                    }
                }
                Some(finished) = running.next(), if !running.is_empty() => {
                    match finished {
                        Ok((array, outcome)) => self.count(&mut done, outcome, (array, run, &mut told)),
                        Err(error) if result.is_ok() => result = Err(error),
                        Err(_) => {}
                    }
                }
                () = tokio::time::sleep(CANCELLATION_LATENCY), if result.is_ok() && !running.is_empty() => {}
                else => break,
            }
        }
        (done, result)
    }

    /// Counts one object and tells it, ten times a second at most and at the end.
    fn count(&self, done: &mut Done, outcome: Outcome, (array, run, told): (usize, &Run, &mut Instant)) {
        done.objects += 1;
        match outcome {
            Outcome::Written(key) => {
                done.summary.chunks_written += 1;
                done.written.push(key);
            }
            Outcome::Dropped => done.summary.chunks_dropped += 1,
            Outcome::Copied => done.summary.chunks_copied += 1,
        }
        let total = self.work.objects.len() as u64;
        if done.objects == total || told.elapsed() >= Duration::from_millis(100) {
            *told = Instant::now();
            run.tell(&Progress {
                stage: "write".to_owned(),
                done: done.objects,
                total,
                item: self.work.arrays[array].array.path.clone(),
                errors: 0,
                usage: self.place.usage(),
            });
        }
    }

    /// Starts the loads and the objects of a group.
    fn admit(
        &mut self,
        group: &'a Group,
        mut permit: OwnedSemaphorePermit,
        running: &FuturesUnordered<BoxFuture<'a, Result<(usize, Outcome)>>>,
    ) {
        let mut share = |units: u64| Share::new(permit.split(units as usize));
        let mut asked: HashMap<usize, Vec<usize>> = HashMap::new();
        for &load in &group.loads {
            if let Source::Tile { source, tile } = self.work.input(load) {
                asked.entry(*source).or_default().push(*tile);
            }
        }
        let fetching: HashMap<usize, (Fetching<'a>, HashMap<usize, usize>)> = asked
            .into_iter()
            .map(|(source, tiles)| {
                let values = Arc::clone(&self.work.sources[source]);
                let positions = tiles.iter().enumerate().map(|(position, tile)| (*tile, position)).collect();
                let fetch = async move {
                    let fetched = values.fetch(&tiles).await?;
                    if fetched.len() != tiles.len() {
                        let (expected, found) = (tiles.len(), fetched.len());
                        return Err(Error::internal(format!(
                            "expected `{expected}` tiles of a source, found `{found}`"
                        )));
                    }
                    Ok(Arc::new(fetched.into_iter().map(|bytes| Mutex::new(Some(bytes))).collect()))
                };
                (source, (fetch.boxed().shared(), positions))
            })
            .collect();
        for &load in &group.loads {
            let cost = self.work.load_cost(load);
            let share = share(cost.fetched + cost.held);
            let arriving = match self.work.input(load) {
                Source::Tile { source, tile } => {
                    let (fetching, positions) = &fetching[source];
                    self.load_tile((*source, *tile), (fetching.clone(), positions[tile]), load, share)
                }
                Source::Object { array, index } => self.load_object(*array, index, share),
            };
            self.arriving[load] = Some(arriving.shared());
        }
        for position in group.objects.clone() {
            let object = &self.work.objects[position];
            let share = share(object.own);
            running.push(self.write_object(position, object, share));
        }
    }

    /// Loads one tile; one that several objects need is decoded here, for all of them.
    fn load_tile(
        &self,
        (source, tile): (usize, usize),
        (fetching, position): (Fetching<'a>, usize),
        load: usize,
        share: Share,
    ) -> BoxFuture<'a, Result<Input>> {
        let values = Arc::clone(&self.work.sources[source]);
        let (buffers, counts) = (Arc::clone(&self.buffers), Arc::clone(&self.counts));
        let is_shared = self.work.schedule.loads[load].users > 1;
        let held = self.work.load_cost(load).held;
        async move {
            let fetched = fetching.await?;
            let encoded = fetched[position].lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(fetched);
            let encoded = encoded.ok_or_else(|| Error::internal("a fetched tile was taken twice"))?;
            let input = Arc::new(TileInput::new((source, tile), values, encoded, share, buffers));
            if is_shared {
                let decoded = Arc::clone(&input);
                counts.tiles_decoded.fetch_add(1, Ordering::Relaxed);
                compute(move || decoded.decode(held)).await?;
            }
            Ok(Input::Tile(input))
        }
        .boxed()
    }

    /// Gets one old object.
    fn load_object(&mut self, array: usize, index: &[u64], share: Share) -> BoxFuture<'a, Result<Input>> {
        let place = self.place;
        let key = self.work.arrays[array].array.chunk_key(index);
        let index = index.to_vec();
        let release = self.release_on_overwrite(array, &index);
        let counts = Arc::clone(&self.counts);
        async move {
            let content = place.get(&key).await?;
            counts.read.fetch_add(1, Ordering::Relaxed);
            let input = StoredInput::new(index, content, share);
            if let Some(release) = release {
                release.send_replace(Freed::Read(input.guard()));
            }
            Ok(Input::Stored(Arc::new(input)))
        }
        .boxed()
    }

    /// Where the old object at `index` is overwritten by an object that may not know of this reading: what tells it.
    fn release_on_overwrite(&mut self, array: usize, index: &[u64]) -> Option<watch::Sender<Freed>> {
        if !self.work.shifted[array] {
            return None;
        }
        let (sender, receiver) = watch::channel(Freed::NotYet);
        self.released.entry((array, index.to_vec())).or_default().push(receiver);
        Some(sender)
    }

    /// What guards an object that nobody reads before it is written.
    fn guard_of(&self, object: &ObjectWork, key: &str) -> Guard {
        if self.work.is_beyond(object) {
            return Guard::Beyond;
        }
        self.found.get(key).map_or(Guard::Absent, |etag| Guard::Unchanged(etag.clone()))
    }

    /// Waits for the inputs of one object, computes it and puts it.
    fn write_object(
        &mut self,
        position: usize,
        object: &'a ObjectWork,
        share: Share,
    ) -> BoxFuture<'a, Result<(usize, Outcome)>> {
        let place = self.place;
        let array = object.array;
        let work = &self.work.arrays[array];
        let key = work.array.chunk_key(&object.plan.index);
        let stop = self.stop.subscribe();
        let unread = self.guard_of(object, &key);
        // Those who still need what this object overwrites were admitted before it: the plan goes from the end to the
        // beginning.
        let released = self.released.remove(&(array, object.plan.index.clone())).unwrap_or_default();
        match &object.plan.action {
            Action::Copy { from } => {
                let from_key = work.array.chunk_key(from);
                let release = self.release_on_overwrite(array, from);
                let array_work = Arc::clone(work);
                async move {
                    let guard = unless(stop, wait_until_free(released, None)).await?.unwrap_or(unread);
                    let outcome = match place.copy(&from_key, &key, &guard).await? {
                        Copied::Done => Outcome::Copied,
                        Copied::NoSource => {
                            let encoded = instead_of_nothing(place, &array_work, None, &guard)?;
                            put(place, key, encoded, &guard).await?
                        }
                        Copied::Refused => return Err(refused(place, &key, &guard)),
                    };
                    if let Some(release) = release {
                        release.send_replace(Freed::Moved);
                    }
                    drop(share);
                    Ok((array, outcome))
                }
                .boxed()
            }
            Action::Write { chunks, keeps } => {
                let parts = (object.plan.index.clone(), chunks.clone(), *keeps);
                let inputs: Vec<Arriving<'a>> = self.work.schedule.object_loads[position]
                    .iter()
                    .filter_map(|&load| {
                        self.left[load] -= 1;
                        if self.left[load] == 0 { self.arriving[load].take() } else { self.arriving[load].clone() }
                    })
                    .collect();
                let array_work = Arc::clone(work);
                let (buffers, counts) = (Arc::clone(&self.buffers), Arc::clone(&self.counts));
                let mut share = share;
                async move {
                    let prepare = async {
                        let inputs = try_join_all(inputs).await?;
                        let own = inputs.iter().find_map(|input| match input {
                            Input::Stored(stored) if stored.index == parts.0 => Some(stored.guard()),
                            _ => None,
                        });
                        let job = ObjectJob::new(Arc::clone(&array_work), parts, inputs, buffers, counts);
                        let encoded = compute(move || job.run()).await?;
                        share.shrink(encoded.as_ref().map_or(0, |bytes| units(bytes.len() as u64)));
                        let guard = wait_until_free(released, own).await?.unwrap_or(unread);
                        Ok((instead_of_nothing(place, &array_work, encoded, &guard)?, guard))
                    };
                    let (encoded, guard) = unless(stop, prepare).await?;
                    put(place, key, encoded, &guard).await.map(|outcome| (array, outcome))
                }
                .boxed()
            }
        }
    }
}

/// Awaits `work`, unless `stop` turns true first.
async fn unless<T>(mut stop: watch::Receiver<bool>, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stopped| *stopped) => Err(Error::unavailable("given up")),
        result = work => result,
    }
}
