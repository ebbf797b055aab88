//! The lease on object storage: conditional puts, a heartbeat, and a fence that the holder asks before it writes.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Attempt, Body, Held, KEY, Lease, LeaseOptions, LeaseState, Left, lost, store_url};
use crate::error::{Error, Kind, Result};
use crate::store::{Condition, ETag, Fence, PutAnswer, Store, random_id};

/// How often within a time to live the holder gives a sign of life.
const BEATS: u32 = 3;
/// A longer time to live than this in the object is not believed.
const LONGEST: Duration = Duration::from_hours(1);

/// A lease that is held, with its heartbeat.
#[derive(Debug)]
pub(super) struct ObjectLease {
    pulse: Arc<Pulse>,
    beating: JoinHandle<()>,
}

impl Drop for ObjectLease {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// What holder, heartbeat and fences share.
#[derive(Debug)]
struct Pulse {
    control: Store,
    body: Body,
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    etag: ETag,
    /// When the last heartbeat that succeeded began.
    last: Instant,
    is_lost: bool,
}

impl Fence for Pulse {
    fn check(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let store = store_url(&self.control);
        if state.is_lost {
            return Err(lost(store, "somebody else took it over"));
        }
        let silent = state.last.elapsed();
        if silent > self.ttl * 2 / 3 {
            return Err(lost(store, &format!("its last sign of life is {:.1} s old", silent.as_secs_f64())));
        }
        Ok(())
    }
}

impl Pulse {
    /// Writes the lease again; `false` where it is somebody else's.
    async fn write(&self, released: bool, clean: bool) -> Result<bool> {
        // An earlier write whose answer was lost may be what is there: it is adopted, and the next try builds on it.
        for _ in 0..3 {
            let etag = self.state.lock().unwrap_or_else(PoisonError::into_inner).etag.clone();
            let began = Instant::now();
            let body = Body { nonce: random_id(), released, clean, ..self.body.clone() };
            if let PutAnswer::Ours(etag) = self.control.put_if(KEY, json(&body)?, Condition::Matches(etag)).await? {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.etag = etag;
                state.last = began;
                return Ok(true);
            }
            match read(&self.control).await? {
                Some((body, etag)) if body.holder == self.body.holder && !body.released => {
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).etag = etag;
                }
                _ => break,
            }
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_lost = true;
        Ok(false)
    }

    async fn beat(self: Arc<Self>) {
        let interval = self.ttl / BEATS;
        loop {
            tokio::time::sleep(interval).await;
            match self.write(false, false).await {
                Ok(true) => {}
                // Unknown: the next one may succeed; until then the fence closes by itself.
                Err(error) if error.retryable() => {}
                Ok(false) | Err(_) => return,
            }
        }
    }
}

impl ObjectLease {
    fn start(control: &Store, body: Body, etag: ETag, began: Instant) -> Self {
        let ttl = ttl_of(&body);
        // A heartbeat that is repeated for longer than a beat is of no use.
        let control = control.with_patience(4, ttl / BEATS);
        let state = Mutex::new(State { etag, last: began, is_lost: false });
        let pulse = Arc::new(Pulse { control, body, ttl, state });
        Self { beating: tokio::spawn(pulse.clone().beat()), pulse }
    }

    pub(super) fn fence(&self) -> Arc<dyn Fence> {
        self.pulse.clone()
    }

    pub(super) async fn release(self, clean: bool) -> Option<Left> {
        self.beating.abort();
        // What was begun may still arrive: then it is adopted. An error leaves the lease to its time to live.
        let released = self.pulse.write(true, clean).await;
        let mut state = self.pulse.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_lost = true;
        let body = &self.pulse.body;
        let left = Left { epoch: body.epoch, holder: body.holder.id.clone(), etag: Some(state.etag.clone()) };
        matches!(released, Ok(true)).then_some(left)
    }
}

/// Takes a lease that is still as this process left it; `None` where it is not.
async fn again(control: &Store, options: &LeaseOptions) -> Result<Option<Lease>> {
    let Some((left, etag)) = options.left.as_ref().and_then(|left| Some((left, left.etag.clone()?))) else {
        return Ok(None);
    };
    let began = Instant::now();
    let body = Body::new(left.epoch + 1, options.ttl);
    let epoch = body.epoch;
    match control.put_if(KEY, json(&body)?, Condition::Matches(etag)).await? {
        PutAnswer::Ours(etag) => {
            let held = Held::Object(ObjectLease::start(control, body, etag, began));
            let before = Some(left.holder.clone());
            Ok(Some(Lease { held, epoch, inherited: false, died: false, before }))
        }
        PutAnswer::Theirs => Ok(None),
    }
}

pub(super) async fn attempt(control: &Store, options: &LeaseOptions) -> Result<Attempt> {
    if let Some(lease) = again(control, options).await? {
        return Ok(Attempt::Taken(lease));
    }
    let looked = Instant::now();
    let found = read(control).await?;
    let began = Instant::now();
    let (body, condition, inherited, died) = match &found {
        None => (Body::new(1, options.ttl), Condition::Absent, false, false),
        Some((before, etag)) => {
            let stale = || unchanged_for(control.url(), etag, looked) > ttl_of(before);
            if !before.released && !stale() {
                return Ok(Attempt::Busy(Some(LeaseState::of(before.clone(), false))));
            }
            (
                Body::new(before.epoch + 1, options.ttl),
                Condition::Matches(etag.clone()),
                !before.clean,
                !before.released,
            )
        }
    };
    let epoch = body.epoch;
    let etag = match control.put_if(KEY, json(&body)?, condition).await {
        Ok(PutAnswer::Ours(etag)) => etag,
        Ok(PutAnswer::Theirs) => {
            return Ok(Attempt::Busy(read(control).await?.map(|(body, _)| LeaseState::of(body, false))));
        }
        Err(error) if error.kind() == Kind::Invalid => return Err(error.context("while taking the right to write")),
        Err(error) => return Err(error),
    };
    let etag =
        if found.is_none() && !options.single_writer { prove_conditions(control, &body, etag).await? } else { etag };
    let held = Held::Object(ObjectLease::start(control, body, etag, began));
    let before = found.filter(|(before, _)| before.clean && before.released).map(|(before, _)| before.holder.id);
    Ok(Attempt::Taken(Lease { held, epoch, inherited, died, before }))
}

/// Tries, once in the life of a control prefix, whether the storage refuses what it must refuse: a create of what is there,
/// and a replacement of what is not.
async fn prove_conditions(control: &Store, body: &Body, etag: ETag) -> Result<ETag> {
    let refused = |answer: Result<PutAnswer>| match answer {
        Ok(PutAnswer::Theirs) => Ok(true),
        Ok(PutAnswer::Ours(_)) => Ok(false),
        Err(error) => Err(error),
    };
    let again = || json(&Body { nonce: random_id(), ..body.clone() });
    let wrong = ETag("\"00000000000000000000000000000000\"".into());
    let created = refused(control.put_if(KEY, again()?, Condition::Absent).await)?;
    let replaced = created && refused(control.put_if(KEY, again()?, Condition::Matches(wrong)).await)?;
    if created && replaced {
        return Ok(etag);
    }
    control.delete(KEY).await?;
    Err(Error::invalid(format!("the storage of `{}` ignores the conditions of puts", store_url(control)))
        .hint("two writers would overwrite each other; set `run.single_writer: true` where there is only one"))
}

/// Who holds it, or held it last.
pub(super) async fn state(control: &Store) -> Result<Option<LeaseState>> {
    let looked = Instant::now();
    Ok(read(control).await?.map(|(body, etag)| {
        let free = body.released || unchanged_for(control.url(), &etag, looked) > ttl_of(&body);
        LeaseState::of(body, free)
    }))
}

/// Takes the lease from whoever holds it, and lets it go in his name; `false` where it changed meanwhile.
pub(super) async fn replace(control: &Store) -> Result<bool> {
    let Some((before, etag)) = read(control).await? else { return Ok(true) };
    if before.released {
        return Ok(true);
    }
    let body = Body { nonce: random_id(), released: true, clean: false, ..before };
    Ok(matches!(control.put_if(KEY, json(&body)?, Condition::Matches(etag)).await?, PutAnswer::Ours(_)))
}

async fn read(control: &Store) -> Result<Option<(Body, ETag)>> {
    let Some(object) = control.get(KEY).await? else { return Ok(None) };
    let body = serde_json::from_slice(&object.bytes).map_err(|error| {
        Error::corrupt(format!("`{}` is no lease: {error}", control.url_of(KEY)))
            .hint("remove it while nobody writes: it holds nothing but who writes")
    })?;
    Ok(Some((body, object.meta.etag)))
}

fn json(body: &Body) -> Result<Bytes> {
    serde_json::to_vec(body)
        .map(Bytes::from)
        .map_err(|error| Error::internal(format!("a lease cannot be written as JSON: {error}")))
}

fn ttl_of(body: &Body) -> Duration {
    Duration::try_from_secs_f64(body.ttl).unwrap_or(LONGEST).min(LONGEST)
}

/// For how long before `looked` this process has seen the same content, by its own monotonic clock. Looks of different
/// calls add up.
fn unchanged_for(url: &str, etag: &ETag, looked: Instant) -> Duration {
    static SEEN: LazyLock<Mutex<HashMap<String, (ETag, Instant)>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    match seen.get(url) {
        Some((known, since)) if known == etag => looked.saturating_duration_since(*since),
        _ => {
            seen.insert(url.to_owned(), (etag.clone(), Instant::now()));
            Duration::ZERO
        }
    }
}
