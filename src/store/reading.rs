//! Reading: objects, ranges, metadata, listings.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::attempts::Outcome;
use super::backend::{Cursor, Page, Part};
use super::faults::Operation;
use super::{ETag, Object, ObjectMeta, Store, ranges};
use crate::error::{Error, Result};

/// Reads of one call that run side by side.
const CONCURRENT: usize = 16;

impl Store {
    /// Reads an object; `None` when there is none. The key `""` is the object at the prefix itself.
    ///
    /// # Errors
    /// `Unavailable` when the service does not answer, `Invalid` for a key that cannot be and for missing rights,
    /// `NotFound` when the bucket is not there.
    pub async fn get(&self, key: &str) -> Result<Option<Object>> {
        present(self.fetch(key, Part::Whole, None).await?)
    }

    /// Reads an object as it was under `etag`.
    ///
    /// # Errors
    /// `Conflict` when it has changed, `NotFound` when it is gone; otherwise as [`Store::get`].
    pub async fn get_if_match(&self, key: &str, etag: &ETag) -> Result<Bytes> {
        Ok(self.get_object_if_match(key, etag).await?.bytes)
    }

    /// As [`Store::get_if_match`], with what the answer says of the object: its version among it.
    ///
    /// # Errors
    /// As [`Store::get_if_match`].
    pub async fn get_object_if_match(&self, key: &str, etag: &ETag) -> Result<Object> {
        self.unchanged(key, etag, self.fetch(key, Part::Whole, Some(etag)).await?)
    }

    /// Reads the bytes `range`; `None` when there is no object.
    ///
    /// # Errors
    /// `Invalid` when the range is not inside the object; otherwise as [`Store::get`].
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        if range.is_empty() {
            return Ok(self.head(key).await?.map(|_| Bytes::new()));
        }
        Ok(present(self.fetch(key, Part::Range(range), None).await?)?.map(|object| object.bytes))
    }

    /// Reads the last `length` bytes, or all where there are fewer; `None` when there is no object.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn get_suffix(&self, key: &str, length: u64) -> Result<Option<Object>> {
        present(self.fetch(key, Part::Suffix(length), None).await?)
    }

    /// Reads many ranges of one object, near ones together, several reads side by side; answers in the order asked.
    ///
    /// # Errors
    /// `Conflict` when `if_match` is given and the object has changed, `NotFound` when there is none, `Invalid` when a
    /// range is not inside the object; otherwise as [`Store::get`].
    pub async fn get_ranges(&self, key: &str, ranges: &[Range<u64>], if_match: Option<&ETag>) -> Result<Vec<Bytes>> {
        Ok(self.get_object_ranges(key, ranges, if_match).await?.0)
    }

    /// As [`Store::get_ranges`], with what one of the answers says of the object; `None` where no range was asked for.
    ///
    /// # Errors
    /// As [`Store::get_ranges`].
    pub async fn get_object_ranges(
        &self,
        key: &str,
        ranges: &[Range<u64>],
        if_match: Option<&ETag>,
    ) -> Result<(Vec<Bytes>, Option<ObjectMeta>)> {
        let read = |range| async move {
            let outcome = self.fetch(key, Part::Range(range), if_match).await?;
            let object = match if_match {
                Some(etag) => self.unchanged(key, etag, outcome)?,
                None => present(outcome)?.ok_or_else(|| self.gone(key))?,
            };
            Ok((object.bytes, object.meta))
        };
        together(ranges, read).await
    }

    /// An object's metadata; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        Ok(present(self.fetch(key, Part::Head, None).await?)?.map(|object| object.meta))
    }

    /// Objects whose key begins with `prefix` (any text, not only whole segments) and comes after `start_after`, in the
    /// order of their keys' bytes. Nothing at the prefix is an empty listing. Services that keep directories (SeaweedFS) list
    /// directory by directory, so that `d/x` comes before `d-`.
    ///
    /// The stream yields `Unavailable`, `Invalid` and `NotFound` as [`Store::get`] does, and ends there.
    #[must_use]
    pub fn list(&self, prefix: &str, start_after: Option<&str>) -> BoxStream<'_, Result<ObjectMeta>> {
        let root = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let cursor = Cursor {
            prefix: format!("{root}{prefix}"),
            start_after: start_after.map(|key| format!("{root}{key}")),
            ..Cursor::default()
        };
        let cut = root.len();
        stream::try_unfold(Some(cursor), move |cursor| async move {
            let Some(cursor) = cursor else { return Ok(None) };
            let page = self.page(cursor).await?;
            let objects = page.objects.into_iter().map(move |mut meta| {
                meta.key.drain(..cut);
                Ok(meta)
            });
            Ok::<_, Error>(Some((stream::iter(objects), page.next)))
        })
        .try_flatten()
        .boxed()
    }

    async fn page(&self, cursor: Cursor) -> Result<Page> {
        let key = cursor.prefix.clone();
        // A walk through directories cannot be repeated and is never retried; a token can.
        let Cursor { prefix, start_after, token, mut walk } = cursor;
        let outcome = self
            .attempts(Operation::List, &key, || {
                let cursor = Cursor {
                    prefix: prefix.clone(),
                    start_after: start_after.clone(),
                    token: token.clone(),
                    walk: walk.take(),
                };
                self.connection.backend.list_page(cursor)
            })
            .await?;
        match outcome {
            Outcome::Done(page) => Ok(page),
            Outcome::Absent | Outcome::Refused { .. } => Ok(Page { objects: Vec::new(), next: None }),
        }
    }

    async fn fetch(&self, key: &str, part: Part, if_match: Option<&ETag>) -> Result<Outcome<Object>> {
        let full = self.full(key)?;
        let operation = if part == Part::Head { Operation::Head } else { Operation::Get };
        let mut outcome =
            self.attempts(operation, &full, || self.connection.backend.get(&full, part.clone(), if_match)).await?;
        if let Outcome::Done(object) = &mut outcome {
            self.counters.read(object.bytes.len() as u64);
            key.clone_into(&mut object.meta.key);
        }
        Ok(outcome)
    }

    fn unchanged(&self, key: &str, etag: &ETag, outcome: Outcome<Object>) -> Result<Object> {
        match outcome {
            // Some servers ignore `If-Match` on reads.
            Outcome::Done(object) if object.meta.etag == *etag => Ok(object),
            Outcome::Done(_) | Outcome::Refused { .. } => Err(self.changed(key)),
            Outcome::Absent => Err(self.gone(key)),
        }
    }
}

/// Reads ranges, near ones together, several side by side; the parts in the order asked, and what one answer said besides.
pub(super) async fn together<T, F: Future<Output = Result<(Bytes, T)>>>(
    wanted: &[Range<u64>],
    read: impl Fn(Range<u64>) -> F,
) -> Result<(Vec<Bytes>, Option<T>)> {
    let mut answers = vec![Bytes::new(); wanted.len()];
    let mut told = None;
    let mut reads = stream::iter(ranges::coalesce(wanted))
        .map(|part| {
            let answer = read(part.range.clone());
            async move { answer.await.map(|answer| (part, answer)) }
        })
        .buffer_unordered(CONCURRENT);
    while let Some((part, (bytes, said))) = reads.try_next().await? {
        for index in part.serves {
            let start = (wanted[index].start - part.range.start) as usize;
            let length = (wanted[index].end - wanted[index].start) as usize;
            answers[index] = bytes.slice(start..start + length);
        }
        told.get_or_insert(said);
    }
    Ok((answers, told))
}

pub(super) fn present<T>(outcome: Outcome<T>) -> Result<Option<T>> {
    match outcome {
        Outcome::Done(value) => Ok(Some(value)),
        Outcome::Absent => Ok(None),
        Outcome::Refused { .. } => Err(Error::internal("an unconditional request was refused")),
    }
}
