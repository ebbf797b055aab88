//! What a place really does, tried on scratch objects: `regraft doctor`.
//!
//! Services that ignore a condition answer as if it held, so that every condition is tried with one that holds and one that
//! does not. Nothing is left behind, but for what a service keeps as versions.

use bytes::Bytes;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::attempts::Outcome;
use super::carried::Carried;
use super::faults::Operation;
use super::pieces::Piece;
use super::s3::{Completed, PartPlace, S3};
use super::{Condition, ETag, PutAnswer, Store, random_id};
use crate::error::{Error, Result};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The place that was tried.
    pub url: String,
    /// What was tried, in order.
    pub checks: Vec<Check>,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The capability: `create-only put`, `put with If-Match`, `read back`, `list`, `rewrite`, `tags`,
    /// `completion with If-Match`, `copy of ranges`, `versions`, `delete`.
    pub what: String,
    /// What came of it.
    pub state: CheckState,
    /// What was seen.
    pub detail: String,
    /// The repair, where one is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It works.
    Ok,
    /// This kind of storage does not have it; regraft does without.
    Missing,
    /// It does not work as it must.
    Failed,
}

const NO_SERVICE: &str = "two writers would overwrite one another: use storage that compares, or one writer only";

impl Store {
    /// Tries on scratch objects below this place what commits and rewrites depend on, and removes them.
    ///
    /// # Errors
    /// `Internal` only: what does not work is in the answer.
    pub async fn probe(&self) -> Result<Probe> {
        let fresh = self.local_path("").is_some_and(|path| !path.exists());
        let key = format!(".regraft-probe-{}", random_id());
        let mut checks = Checks(Vec::new());
        if checks.note("create-only put", self.try_create(&key).await) {
            checks.note("put with If-Match", self.try_update(&key).await);
            checks.note("read back", self.try_read(&key).await);
            checks.note("list", self.try_list(&key).await);
            checks.note("rewrite", self.try_replace(&key).await);
            if let Some(s3) = self.connection.backend.s3() {
                checks.note("tags", self.try_tags(&key).await);
                checks.note("completion with If-Match", self.try_completion(s3, &key).await);
                checks.note("copy of ranges", self.try_copy(&format!("{key}-large")).await);
                checks.note("versions", self.try_versions().await);
            }
            checks.note("delete", self.try_delete(&key).await);
        }
        if fresh && let Some(path) = self.local_path("") {
            // Made by the first put; not empty when somebody else was quicker.
            let _ = std::fs::remove_dir(path);
        }
        Ok(Probe { url: self.url.clone(), checks: checks.0 })
    }

    async fn try_create(&self, key: &str) -> Tried {
        if self.put_if(key, Bytes::from(random_id()), Condition::Absent).await? == PutAnswer::Theirs {
            return failed("a new key was refused", "look at what else writes there");
        }
        match self.put_if(key, Bytes::from(random_id()), Condition::Absent).await? {
            PutAnswer::Theirs => ok("the second of two was refused"),
            PutAnswer::Ours(_) => failed("the second of two overwrote the first", NO_SERVICE),
        }
    }

    async fn try_update(&self, key: &str) -> Tried {
        let etag = self.probed(key).await?;
        let stale = ETag("\"00000000000000000000000000000000\"".into());
        let put = |etag: ETag| self.put_if(key, Bytes::from(random_id()), Condition::Matches(etag));
        if put(stale).await? != PutAnswer::Theirs {
            return failed("a stale `ETag` was accepted", NO_SERVICE);
        }
        match put(etag).await? {
            PutAnswer::Ours(_) => ok("a stale `ETag` was refused, the present one accepted"),
            PutAnswer::Theirs => failed("the present `ETag` was refused", "the service's ETags do not name contents"),
        }
    }

    async fn try_read(&self, key: &str) -> Tried {
        let bytes = Bytes::from(random_id());
        let etag = self.put(key, bytes.clone()).await?;
        let object = self.get(key).await?.ok_or_else(|| self.gone(key))?;
        if object.bytes != bytes || object.meta.etag != etag {
            return failed("what was read is not what was written", "a cache in between answers with old contents");
        }
        ok("what was written was read at once")
    }

    async fn try_list(&self, key: &str) -> Tried {
        let listed: Vec<_> = self.list(key, None).try_collect().await?;
        if listed.iter().any(|meta| meta.key == key) {
            ok("the object was listed at once")
        } else {
            failed("the object is not in the listing", "sync, scan and clean-up need listings")
        }
    }

    async fn try_replace(&self, key: &str) -> Tried {
        let etag = self.put(key, Bytes::from(random_id())).await?;
        let pieces = [Piece::Copy(0..32), Piece::Bytes(Bytes::from(random_id()))];
        let carried = self.inspect(key).await?.ok_or_else(|| self.gone(key))?.carried;
        let run = random_id();
        let replaced = self.replace(key, &pieces, &etag, &carried, &run).await?;
        match self.replace(key, &pieces, &etag, &carried, &run).await {
            Ok(_) => failed("an object that had changed was replaced", NO_SERVICE),
            Err(error) if error.kind() == crate::error::Kind::Conflict => {
                self.get_if_match(key, &replaced.etag).await?;
                ok("replaced by pieces; refused once it had changed")
            }
            Err(error) => Err(error),
        }
    }

    async fn try_tags(&self, key: &str) -> Tried {
        let tags = [("regraft".to_owned(), "probe".to_owned())].into();
        match self.set_tags(key, &tags).await {
            Ok(()) if self.tags(key).await? == tags => ok("set and read"),
            Ok(()) => failed("tags are not what was set", "versions will be kept in the files only"),
            Err(error) if error.kind() == crate::error::Kind::Invalid => missing(&error.message()),
            Err(error) => Err(error),
        }
    }

    async fn try_completion(&self, s3: &S3, key: &str) -> Tried {
        let full = self.full(key)?;
        let (carried, run, stale) = (Carried::default(), random_id(), ETag("\"0\"".into()));
        let begun = self.attempts(Operation::Put, &full, || s3.begin(&full, &carried, &run)).await?;
        let Outcome::Done(upload) = begun else { return Err(self.gone(key)) };
        let place = PartPlace { key: &full, upload: &upload, number: 1, checksum: None };
        let outcome = async {
            let sent =
                self.attempts(Operation::Put, &full, || s3.send_part(place, Bytes::from_static(b"probe"))).await?;
            let Outcome::Done(part) = sent else { return Err(self.gone(key)) };
            self.attempts(Operation::Put, &full, || {
                s3.complete(&full, &upload, std::slice::from_ref(&part), &stale, None)
            })
            .await
        }
        .await;
        let aborted = self.attempts(Operation::Delete, &full, || s3.abort(&full, &upload)).await;
        let outcome = outcome?;
        aborted?;
        if matches!(outcome, Outcome::Refused { .. } | Outcome::Done(Completed::Again)) {
            return ok("a stale `ETag` was refused");
        }
        failed("a stale `ETag` was not refused", "files above 5 MiB cannot be migrated safely there while others write")
    }

    async fn try_copy(&self, key: &str) -> Tried {
        // The least that a service copies by range.
        let least = vec![0; 5 << 20];
        let outcome = async {
            let etag = self.put(key, Bytes::from(least)).await?;
            let pieces = [Piece::Copy(0..5 << 20), Piece::Bytes(Bytes::from_static(b"probe"))];
            let replaced = self.replace(key, &pieces, &etag, &Carried::default(), &random_id()).await?;
            let tail = self.get_suffix(key, 6).await?.ok_or_else(|| self.gone(key))?;
            Ok::<_, Error>(
                replaced.bytes_written == 5 && &tail.bytes[..] == b"\0probe" && tail.meta.size == replaced.size,
            )
        }
        .await;
        self.delete(key).await?;
        if outcome? {
            ok("5 MiB were copied without travelling")
        } else {
            failed("the copied object has other bytes", "report this service")
        }
    }

    async fn try_versions(&self) -> Tried {
        match self.capabilities().await?.versions {
            Some(true) => ok("the bucket keeps versions: roll back restores them"),
            Some(false) => missing("the bucket keeps no versions: roll back cuts widened files to their kept prefix"),
            None => missing("it may not be asked whether the bucket keeps versions"),
        }
    }

    async fn try_delete(&self, key: &str) -> Tried {
        self.delete(key).await?;
        match self.head(key).await? {
            None => ok("gone at once"),
            Some(_) => failed("the object is still there", "look at the rights to delete"),
        }
    }

    async fn probed(&self, key: &str) -> Result<ETag> {
        Ok(self.head(key).await?.ok_or_else(|| self.gone(key))?.etag)
    }
}

type Tried = Result<(CheckState, String, Option<String>)>;

#[expect(clippy::unnecessary_wraps, reason = "the three outcomes read alike")]
fn ok(detail: &str) -> Tried {
    Ok((CheckState::Ok, detail.to_owned(), None))
}

#[expect(clippy::unnecessary_wraps, reason = "the three outcomes read alike")]
fn missing(detail: &str) -> Tried {
    Ok((CheckState::Missing, detail.to_owned(), None))
}

#[expect(clippy::unnecessary_wraps, reason = "the three outcomes read alike")]
fn failed(detail: &str, hint: &str) -> Tried {
    Ok((CheckState::Failed, detail.to_owned(), Some(hint.to_owned())))
}

struct Checks(Vec<Check>);

impl Checks {
    /// Writes down what came of a check; whether it is good.
    fn note(&mut self, what: &str, tried: Tried) -> bool {
        let (state, detail, hint) =
            tried.unwrap_or_else(|error| (CheckState::Failed, error.message(), error.hint_text().map(str::to_owned)));
        self.0.push(Check { what: what.to_owned(), state, detail, hint });
        state == CheckState::Ok
    }
}
