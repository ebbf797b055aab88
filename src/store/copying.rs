//! Copies from one place to another on the same connection; copies and deletions that leave alone what somebody else
//! wrote.

use super::attempts::Outcome;
use super::faults::Operation;
use super::reading::present;
use super::{Condition, ETag, PutAnswer, Store};
use crate::error::Result;

impl Store {
    /// Copies `from` to the key `to`, which nobody else uses, of `target`, a place on the same connection; `false` where
    /// there is no `from`. On files the two share their bytes until one of them is replaced; services copy by themselves.
    ///
    /// # Errors
    /// As [`Store::copy`].
    pub async fn copy_to(&self, from: &str, target: &Self, to: &str) -> Result<bool> {
        if self.local_path("").is_some() {
            return Ok(self.copy_if(from, target, to, Condition::Absent).await?.is_some());
        }
        let (from, to) = (self.full(from)?, target.full(to)?);
        let outcome = target.attempts(Operation::Copy, &from, || self.connection.backend.copy(&from, &to)).await?;
        Ok(present(outcome)?.is_some())
    }

    /// Makes the key `to` of `target`, a place on the same connection, what `from` is, if `condition` holds for `to`;
    /// `None` where there is no `from`. On files the two share their bytes until one of them is replaced; elsewhere they
    /// are read and written, since services copy without conditions.
    ///
    /// # Errors
    /// As [`Store::put_if`].
    pub async fn copy_if(
        &self,
        from: &str,
        target: &Self,
        to: &str,
        condition: Condition,
    ) -> Result<Option<PutAnswer>> {
        if self.local_path("").is_none() {
            let Some(object) = self.get(from).await? else { return Ok(None) };
            return target.put_if(to, object.bytes, condition).await.map(Some);
        }
        let (source, full) = (self.full(from)?, target.full(to)?);
        let outcome = target
            .attempts(Operation::Copy, &source, || self.connection.backend.link(&source, &full, &condition))
            .await?;
        Ok(match outcome {
            Outcome::Done(etag) => Some(PutAnswer::Ours(etag)),
            Outcome::Absent => None,
            Outcome::Refused { doubtful: false } => Some(PutAnswer::Theirs),
            // The answer of an earlier try was lost: where both have one name, it was done.
            Outcome::Refused { doubtful: true } => match (self.head(from).await?, target.head(to).await?) {
                (None, _) => None,
                (Some(source), Some(there)) if source.etag == there.etag => Some(PutAnswer::Ours(there.etag)),
                _ => Some(PutAnswer::Theirs),
            },
        })
    }

    /// Deletes an object if it is still `etag`; `false` where it is not, and none is as good. On files this is one step;
    /// elsewhere the object is looked at right before.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub async fn delete_if(&self, key: &str, etag: &ETag) -> Result<bool> {
        if self.local_path("").is_none() {
            return match self.head(key).await? {
                Some(there) if there.etag != *etag => Ok(false),
                Some(_) => self.delete(key).await.map(|()| true),
                None => Ok(true),
            };
        }
        let full = self.full(key)?;
        let outcome =
            self.attempts(Operation::Delete, &full, || self.connection.backend.delete_if(&full, etag)).await?;
        Ok(!matches!(outcome, Outcome::Refused { .. }))
    }
}
