//! Numbered records, created only if absent.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::store::{Condition, ETag, PutAnswer, Store, random_id};

const FOLDER: &str = "log/";
/// Keys that one listing request brings.
const PAGE: usize = 1000;
/// Records fetched side by side.
const CONCURRENT: usize = 16;

/// The log below a control prefix. Record numbers begin at 1 and have no gaps.
#[derive(Debug)]
pub struct Log {
    control: Store,
    len: u64,
    epoch: u64,
    /// What the last record is, where it was seen: its nonce makes it unlike any other.
    tip: Option<ETag>,
}

impl Log {
    /// Finds the end of the log below `control` (the place `<store>.regraft`); a missing log is empty. The number of
    /// requests grows with the logarithm of the log's length.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn open(control: Store) -> Result<Self> {
        let mut log = Self { control, len: 0, epoch: 0, tip: None };
        log.refresh().await?;
        Ok(log)
    }

    /// As [`Log::open`], for a log that is known to have `number` records at least, of which the first may be gone: one
    /// request, where fewer than a thousand came after them.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn open_after(control: Store, number: u64) -> Result<Self> {
        let mut log = Self { control, len: number, epoch: 0, tip: None };
        log.refresh().await?;
        Ok(log)
    }

    /// The number of the first record that was not cleaned up; the next number where there is none.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn first_number(&self) -> Result<u64> {
        let mut keys = self.control.list(FOLDER, None);
        while let Some(meta) = keys.try_next().await? {
            if let Some(number) = number_of(&meta.key) {
                return Ok(number);
            }
        }
        Ok(self.next_number())
    }

    /// The keys of the first records below `control`, up to number `last`, a thousand at most: to be cleaned up.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn keys_up_to(control: &Store, last: u64) -> Result<Vec<String>> {
        let mut found = Vec::new();
        if last == 0 {
            return Ok(found);
        }
        let mut keys = control.list(FOLDER, None).take(PAGE);
        while let Some(meta) = keys.try_next().await? {
            match number_of(&meta.key) {
                Some(number) if number > last => break,
                Some(_) => found.push(meta.key),
                None => {}
            }
        }
        Ok(found)
    }

    /// From now on records are written to `control`, the same place under a lease, and carry its `epoch`.
    pub fn write_under(&mut self, control: Store, epoch: u64) {
        self.control = control;
        self.epoch = epoch;
    }

    /// Looks again: others may have appended.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn refresh(&mut self) -> Result<()> {
        // "Is there a record after n" is yes up to the end and no from there on: leap forward, then halve.
        let mut leap = PAGE as u64;
        let mut nothing_after: Option<u64> = None;
        // The last record known is looked at again: it says whether this is still the same log.
        let mut after = self.len.saturating_sub(1);
        loop {
            let (count, last) = self.page(after).await?;
            match last {
                Some((last, etag)) => {
                    (self.len, self.tip) = (last, Some(etag));
                    if count < PAGE {
                        return Ok(());
                    }
                }
                None if after <= self.len => return Ok(()),
                None => nothing_after = Some(after),
            }
            after = match nothing_after {
                None => {
                    leap *= 2;
                    self.len + leap
                }
                Some(end) if end - self.len <= PAGE as u64 => self.len,
                Some(end) => self.len + (end - self.len) / 2,
            };
        }
    }

    /// Whether the last record is the one that was seen last, and none came after it: one request.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub async fn is_current(&self) -> Result<bool> {
        let Some(tip) = self.tip.as_ref().filter(|_| self.len > 0) else { return Ok(false) };
        let (_, last) = self.page(self.len - 1).await?;
        Ok(last.is_some_and(|(number, etag)| number == self.len && etag == *tip))
    }

    /// How many of the records after number `after` one request brings, and the last of them.
    async fn page(&self, after: u64) -> Result<(usize, Option<(u64, ETag)>)> {
        let start = key_of(after);
        let mut keys = self.control.list(FOLDER, Some(&start)).take(PAGE);
        let (mut count, mut last) = (0, None);
        while let Some(meta) = keys.try_next().await? {
            count += 1;
            last = number_of(&meta.key).map(|number| (number, meta.etag)).or(last);
        }
        Ok((count, last))
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was ever recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number that the next record gets.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.len + 1
    }

    /// The records numbered `from` and later, in order, up to [`Log::len`]. `T` may leave out the fields `number`,
    /// `epoch` and `nonce`.
    ///
    /// # Errors
    /// `Corrupt` when a record is missing, is no JSON, or holds another number; `Invalid` when a record was written by a
    /// later version and does not fit `T`; otherwise as [`Store::get`].
    pub async fn records<T: DeserializeOwned>(&self, from: u64) -> Result<Vec<(u64, T)>> {
        self.records_in(from..self.next_number()).await
    }

    /// As [`Log::records`], for the numbers in `numbers` that the log has.
    ///
    /// # Errors
    /// As [`Log::records`].
    pub async fn records_in<T: DeserializeOwned>(&self, numbers: Range<u64>) -> Result<Vec<(u64, T)>> {
        stream::iter(numbers.start.max(1)..numbers.end.min(self.next_number()))
            .map(|number| async move { Ok((number, self.record(number).await?)) })
            .buffered(CONCURRENT)
            .try_collect()
            .await
    }

    async fn record<T: DeserializeOwned>(&self, number: u64) -> Result<T> {
        let key = key_of(number);
        let url = self.control.url_of(&key);
        let Some(object) = self.control.get(&key).await? else {
            return Err(Error::corrupt(format!("the log has {} records, but `{url}` is missing", self.len))
                .hint("restore the object from a backup: the records after it build on it"));
        };
        let value: Value = serde_json::from_slice(&object.bytes)
            .map_err(|error| Error::corrupt(format!("`{url}` is no JSON: {error}")))?;
        let found = value.get("number").and_then(Value::as_u64);
        if found != Some(number) {
            let found = found.map_or("none".to_owned(), |found| format!("`{found}`"));
            return Err(Error::corrupt(format!("`{url}`: expected the record number `{number}`, found {found}")));
        }
        serde_json::from_value(value).map_err(|error| {
            Error::invalid(format!("`{url}` does not fit this version of regraft: {error}"))
                .hint("the store was written by a later version: upgrade regraft")
        })
    }

    /// Appends `record`, which must serialise to a JSON object without `number`, `epoch` and `nonce`, and makes it durable;
    /// returns its number. This is the commit.
    ///
    /// # Errors
    /// `Conflict` when somebody else has written this number: [`Log::refresh`] and plan again. `Unavailable` when it
    /// stays unknown. `Internal` when the record is no object.
    pub async fn append<T: Serialize + Sync>(&mut self, record: &T) -> Result<u64> {
        let number = self.next_number();
        let key = key_of(number);
        let body = body_of(number, self.epoch, record)?;
        let etag = match self.control.put_if(&key, body, Condition::Absent).await? {
            PutAnswer::Ours(etag) => etag,
            PutAnswer::Theirs => {
                return Err(Error::conflict(format!(
                    "`{}` was written by somebody else in the meantime",
                    self.control.url_of(&key)
                ))
                .hint("plan again: the store has changed"));
            }
        };
        (self.len, self.tip) = (number, Some(etag));
        self.control.sync(&[key]).await?;
        Ok(number)
    }
}

fn key_of(number: u64) -> String {
    format!("{FOLDER}{number:020}.json")
}

/// The number in a key; other objects below the prefix are not ours.
fn number_of(key: &str) -> Option<u64> {
    let digits = key.strip_prefix(FOLDER)?.strip_suffix(".json")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Number, epoch and nonce first, then the record's own fields. The nonce makes every try's bytes its own, so that reading back
/// tells whose they are.
fn body_of<T: Serialize>(number: u64, epoch: u64, record: &T) -> Result<Bytes> {
    let fields = serde_json::to_value(record)
        .map_err(|error| Error::internal(format!("a log record cannot be written as JSON: {error}")))?;
    let Value::Object(fields) = fields else {
        return Err(Error::internal("a log record is no JSON object"));
    };
    if ["number", "epoch", "nonce"].iter().any(|name| fields.contains_key(*name)) {
        return Err(Error::internal("a log record has a field `number`, `epoch` or `nonce` of its own"));
    }
    let mut body = Map::new();
    body.insert("number".into(), number.into());
    body.insert("epoch".into(), epoch.into());
    body.insert("nonce".into(), random_id().into());
    body.extend(fields);
    let bytes = serde_json::to_vec(&body)
        .map_err(|error| Error::internal(format!("a log record cannot be written as JSON: {error}")))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{StorageOptions, block_on};

    fn control() -> Store {
        Store::open(&format!("memory://{}/a.zarr.regraft", random_id()), &StorageOptions::new()).unwrap()
    }

    #[test]
    fn records_come_back_in_order_and_numbered_from_one() {
        block_on(async {
            let control = control();
            let mut log = Log::open(control.clone()).await.unwrap();
            assert!(log.is_empty());
            for value in 0..40 {
                assert_eq!(log.append(&json!({"kind": "test", "value": value})).await.unwrap(), value + 1);
            }
            let again = Log::open(control).await.unwrap();
            assert_eq!((again.len(), again.next_number()), (40, 41));
            let records: Vec<(u64, Value)> = again.records(39).await.unwrap();
            assert_eq!(records.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [39, 40]);
            assert_eq!(records[0].1["value"], 38);
            assert_eq!(again.records::<Value>(0).await.unwrap().len(), 40);
            let some: Vec<(u64, Value)> = again.records_in(0..3).await.unwrap();
            assert_eq!(some.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
            assert_eq!(again.records_in::<Value>(40..99).await.unwrap().len(), 1);
        });
    }

    #[test]
    fn the_end_of_a_long_log_is_found_in_few_requests() {
        block_on(async {
            for len in [999, 1000, 1001, 2500, 12_345] {
                let control = control();
                for number in 1..=len {
                    control.put(&key_of(number), Bytes::from_static(b"{}")).await.unwrap();
                }
                control.put("log/notes.txt", Bytes::new()).await.unwrap();
                let before = control.counters().usage();
                let log = Log::open(control.clone()).await.unwrap();
                assert_eq!(log.len(), len);
                assert!((control.counters().usage() - before).list < 16);
            }
        });
    }

    #[test]
    fn a_taken_number_is_a_conflict_until_the_log_is_refreshed() {
        block_on(async {
            let control = control();
            let mut first = Log::open(control.clone()).await.unwrap();
            let mut second = Log::open(control).await.unwrap();
            first.append(&json!({})).await.unwrap();
            let error = second.append(&json!({})).await.unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Conflict);
            second.refresh().await.unwrap();
            assert_eq!(second.append(&json!({})).await.unwrap(), 2);
        });
    }

    #[test]
    fn damaged_records_are_named() {
        block_on(async {
            let control = control();
            let mut log = Log::open(control.clone()).await.unwrap();
            for _ in 0..3 {
                log.append(&json!({})).await.unwrap();
            }
            control.put(&key_of(1), Bytes::from_static(b"{")).await.unwrap();
            control.put(&key_of(2), Bytes::from_static(b"{\"number\":7}")).await.unwrap();
            control.delete(&key_of(3)).await.unwrap();
            for number in 1..=3 {
                let error = log.record::<Value>(number).await.unwrap_err();
                assert_eq!(error.kind(), crate::error::Kind::Corrupt);
                assert!(error.message().contains(&key_of(number)), "{error}");
            }
            let error = log.append(&json!([])).await.unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Internal);
        });
    }
}
