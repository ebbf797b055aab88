//! Durable requests "make the store right for this source key".
//!
//! # Problem
//! Events come twice, late, out of order, and while another worker writes. What was told once must not be lost, and what
//! was told twice must not cost twice.
//!
//! # Design
//! One object for each request, `inbox/<id>.json`, created only if absent and deleted when a commit has settled it. The id is
//! the hash of bucket, key, sequencer and operation, so that the storage itself refuses a duplicate of an event that still
//! waits; a producer without a sequencer gets an id of its own, since its removal must never be taken for an older one.
//! The order of requests decides nothing: whoever settles them looks at the sources as they are then.
//!
//! An object that cannot be read as a request is moved to `inbox-unreadable/` and is in nobody's way.
//!
//! # Caveats
//! A request is settled when its object is deleted; a worker that dies between the commit and the deletion leaves it to be
//! settled again, which finds nothing to do.

use std::fmt::Write;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::{Condition, PutAnswer, Store, clock, random_id};

const FOLDER: &str = "inbox/";
const UNREADABLE: &str = "inbox-unreadable/";
/// Requests that are written, read or deleted side by side.
const CONCURRENT: usize = 32;

/// What happened to a source, as far as the producer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// It arrived or changed.
    Put,
    /// It went away.
    Remove,
    /// It is to be taken out though it may still be there.
    ForcedRemove,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Remove => "remove",
            Self::ForcedRemove => "forced_remove",
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The source's key, as the caller counts keys.
    pub key: String,
    /// What happened to it.
    pub operation: Operation,
    /// The event's `sequencer`, where it has one: it orders the events of one key.
    #[serde(default)]
    pub sequencer: Option<String>,
    /// The bucket that the event named.
    #[serde(default)]
    pub bucket: Option<String>,
}

impl Intent {
    /// The name under which it waits.
    #[must_use]
    pub fn id(&self) -> String {
        let Some(sequencer) = &self.sequencer else { return random_id() };
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in [self.bucket.as_deref().unwrap_or(""), &self.key, sequencer, self.operation.name()] {
            // Lengths first, so that no two requests run together to the same text.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        context.finish().as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub id: String,
    /// What it asks for.
    pub intent: Intent,
    /// When it was submitted, as the storage says; orders requests of one key that contradict each other.
    pub submitted: Option<String>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    intent: Intent,
    /// For people to read.
    #[serde(default)]
    time: String,
    /// Makes every try's bytes its own, so that a duplicate is told from a lost answer.
    #[serde(default)]
    nonce: String,
}

/// The requests below a control prefix.
#[derive(Debug, Clone)]
pub struct Inbox {
    control: Store,
}

impl Inbox {
    /// The inbox below `control`, the place `<store>.regraft`; no request is made.
    #[must_use]
    pub fn new(control: Store) -> Self {
        Self { control }
    }

    /// Stores requests; returns the id of each, and whether it waited already.
    ///
    /// # Errors
    /// `Unavailable` where it is unknown whether one was stored: submit all of them again.
    pub async fn submit(&self, intents: &[Intent]) -> Result<Vec<(String, bool)>> {
        let tasks: Vec<_> = intents.iter().map(|intent| self.store(intent).boxed()).collect();
        let stored: Vec<(String, bool)> = stream::iter(tasks).buffered(CONCURRENT).try_collect().await?;
        let keys: Vec<String> = stored.iter().map(|(id, _)| key_of(id)).take(1).collect();
        self.control.sync(&keys).await?;
        Ok(stored)
    }

    async fn store(&self, intent: &Intent) -> Result<(String, bool)> {
        let id = intent.id();
        let body = Stored { intent: intent.clone(), time: clock::now_rfc3339(), nonce: random_id() };
        let bytes = serde_json::to_vec(&body)
            .map_err(|error| Error::internal(format!("a request cannot be written as JSON: {error}")))?;
        let answer = self.control.put_if(&key_of(&id), bytes.into(), Condition::Absent).await?;
        Ok((id, answer == PutAnswer::Theirs))
    }

    /// How many wait, counting no further than `most`.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn count(&self, most: usize) -> Result<usize> {
        let mut keys = self.control.list(FOLDER, None).take(most);
        let mut count = 0;
        while let Some(meta) = keys.try_next().await? {
            count += usize::from(id_of(&meta.key).is_some());
        }
        Ok(count)
    }

    /// Everything that waits, by id.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn pending(&self) -> Result<Vec<Pending>> {
        let listed: Vec<_> = self.control.list(FOLDER, None).try_collect().await?;
        let tasks: Vec<_> = listed.iter().map(|meta| self.read(&meta.key).boxed()).collect();
        let found: Vec<Option<Pending>> = stream::iter(tasks).buffered(CONCURRENT).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn read(&self, key: &str) -> Result<Option<Pending>> {
        let Some(id) = id_of(key) else { return Ok(None) };
        // Gone meanwhile: somebody has settled it.
        let Some(object) = self.control.get(key).await? else { return Ok(None) };
        match serde_json::from_slice::<Stored>(&object.bytes) {
            Ok(stored) => {
                Ok(Some(Pending { id: id.to_owned(), intent: stored.intent, submitted: object.meta.modified }))
            }
            Err(_) => self.set_aside(key, object.bytes).await.map(|()| None),
        }
    }

    async fn set_aside(&self, key: &str, bytes: Bytes) -> Result<()> {
        let name = key.strip_prefix(FOLDER).unwrap_or(key);
        self.control.put(&format!("{UNREADABLE}{name}"), bytes).await?;
        self.control.delete(key).await
    }

    /// Which of `ids` still wait.
    ///
    /// # Errors
    /// As [`Store::head`].
    pub async fn waiting(&self, ids: &[String]) -> Result<Vec<String>> {
        let keys: Vec<String> = ids.iter().map(|id| key_of(id)).collect();
        let tasks: Vec<_> = keys.iter().map(|key| self.control.head(key).boxed()).collect();
        let found: Vec<_> = stream::iter(tasks).buffered(CONCURRENT).try_collect().await?;
        Ok(ids.iter().zip(found).filter(|(_, found)| found.is_some()).map(|(id, _)| id.clone()).collect())
    }

    /// Deletes requests that are settled.
    ///
    /// # Errors
    /// As [`Store::delete`]; what stays is settled again.
    pub async fn acknowledge(&self, ids: &[String]) -> Result<()> {
        let keys: Vec<String> = ids.iter().map(|id| key_of(id)).collect();
        let tasks: Vec<_> = keys.iter().map(|key| self.control.delete(key).boxed()).collect();
        stream::iter(tasks).buffer_unordered(CONCURRENT).try_collect().await
    }

    /// Removes what producers left on a disk that died while they submitted: they held no lease that somebody inherits.
    ///
    /// # Errors
    /// As [`Store::sweep_dead`].
    pub async fn sweep(&self) -> Result<()> {
        self.control.child(FOLDER).sweep_dead().await.map(drop)
    }
}

fn key_of(id: &str) -> String {
    format!("{FOLDER}{id}.json")
}

fn id_of(key: &str) -> Option<&str> {
    key.strip_prefix(FOLDER)?.strip_suffix(".json").filter(|id| !id.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StorageOptions, block_on};

    fn intent(key: &str, operation: Operation, sequencer: Option<&str>) -> Intent {
        Intent { key: key.into(), operation, sequencer: sequencer.map(str::to_owned), bucket: Some("b".into()) }
    }

    fn inboxes(directory: &tempfile::TempDir) -> [Inbox; 2] {
        let memory = format!("memory://{}/a.zarr.regraft", random_id());
        let files = directory.path().join("a.zarr.regraft");
        [memory.as_str(), files.to_str().unwrap()]
            .map(|url| Inbox::new(Store::open(url, &StorageOptions::new()).unwrap()))
    }

    #[test]
    fn a_duplicate_waits_once_and_what_has_no_sequencer_is_never_one() {
        let directory = tempfile::tempdir().unwrap();
        for inbox in inboxes(&directory) {
            block_on(async {
                let event = intent("a.nc", Operation::Put, Some("0055"));
                let first = inbox.submit(std::slice::from_ref(&event)).await.unwrap();
                let second =
                    inbox.submit(&[event.clone(), intent("a.nc", Operation::Remove, Some("0055"))]).await.unwrap();
                assert_eq!((first[0].1, second[0].1, second[1].1), (false, true, false));
                assert_eq!(first[0].0, second[0].0);
                for _ in 0..2 {
                    inbox.submit(&[intent("a.nc", Operation::Remove, None)]).await.unwrap();
                }
                let pending = inbox.pending().await.unwrap();
                assert_eq!(pending.len(), 4);
                assert!(pending.iter().any(|waiting| waiting.intent == event));
                assert_eq!((inbox.count(3).await.unwrap(), inbox.count(9).await.unwrap()), (3, 4));

                let ids: Vec<String> = pending.iter().map(|waiting| waiting.id.clone()).collect();
                inbox.acknowledge(&ids[1..]).await.unwrap();
                assert_eq!(inbox.waiting(&ids).await.unwrap(), &ids[..1]);
            });
        }
    }

    #[test]
    fn what_cannot_be_read_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        for inbox in inboxes(&directory) {
            block_on(async {
                inbox.control.put("inbox/zz.json", Bytes::from_static(b"{\"key\": 3}")).await.unwrap();
                inbox.submit(&[intent("a.nc", Operation::Put, None)]).await.unwrap();
                assert_eq!(inbox.pending().await.unwrap().len(), 1);
                assert!(inbox.control.head("inbox/zz.json").await.unwrap().is_none());
                assert!(inbox.control.head("inbox-unreadable/zz.json").await.unwrap().is_some());
            });
        }
    }

    #[test]
    fn ids_do_not_run_together() {
        let id = |key: &str, sequencer: &str| intent(key, Operation::Put, Some(sequencer)).id();
        assert_eq!(id("a", "1"), id("a", "1"));
        assert_ne!(id("a", "11"), id("a1", "1"));
        assert_eq!(id("a", "1").len(), 64);
    }
}
