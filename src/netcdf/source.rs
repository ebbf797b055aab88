//! Where a file's bytes come from: memory, or ranges of an object.
//!
//! Below `Limits::whole_file` an object is read whole, and every range is a slice. Above it, one request brings the head
//! and the tail, where writers put metadata; what else the readers of metadata ask for comes through a cache of blocks.
//! Those readers are synchronous, so a miss waits for the runtime on the calling thread: never on one of its workers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use bytes::{Bytes, BytesMut};
use hdf5_reader::storage::{DynStorage, Storage, StorageBuffer};

use super::limits::Limits;
use crate::error::{Error, Result};
use crate::store::{ETag, ObjectMeta, Store, runtime};

/// Bytes of the head that are looked at first.
pub(crate) const HEAD: u64 = 1 << 20;
/// Bytes of the tail that are prefetched.
const TAIL: u64 = 256 << 10;
/// Bytes of one cached block.
const BLOCK: u64 = 256 << 10;
/// Blocks that are cached at most.
const BLOCKS: usize = 256;

/// The bytes of one file.
#[derive(Debug)]
pub(crate) enum Source {
    /// The whole file; every range is a slice of it.
    Memory(Bytes),
    /// An object, read by ranges.
    Ranges(Box<Ranges>),
}

#[derive(Debug)]
pub(crate) struct Ranges {
    origin: Origin,
    size: u64,
    head: Bytes,
    tail: Bytes,
    blocks: Mutex<HashMap<u64, Bytes>>,
    /// The first failure of a read that a synchronous reader saw only as "input/output error".
    failure: Mutex<Option<Error>>,
}

/// Which object, in which version.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    store: Store,
    key: String,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    /// What lies there now, which must be the version that was opened; `None` where the service names none.
    Present(Option<ETag>),
    /// One version that the bucket keeps, the present one or not.
    Kept(String),
}

impl Origin {
    /// The present object, as long as it is what `meta` says.
    pub(crate) fn present(store: &Store, meta: &ObjectMeta) -> Self {
        let etag = Some(meta.etag.clone()).filter(|etag| !etag.as_str().is_empty());
        Self { store: store.clone(), key: meta.key.clone(), content: Content::Present(etag) }
    }

    /// A version that the bucket keeps.
    pub(crate) fn kept(store: &Store, meta: &ObjectMeta, version: &str) -> Self {
        Self { store: store.clone(), key: meta.key.clone(), content: Content::Kept(version.to_owned()) }
    }

    async fn get_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Ok(self.get_ranges_and_version(ranges).await?.0)
    }

    /// The bytes, and the id of the version that they are of, where the bucket keeps versions.
    async fn get_ranges_and_version(&self, ranges: &[Range<u64>]) -> Result<(Vec<Bytes>, Option<String>)> {
        match &self.content {
            Content::Present(etag) => {
                let (bytes, meta) = self.store.get_object_ranges(&self.key, ranges, etag.as_ref()).await?;
                Ok((bytes, meta.and_then(|meta| meta.version)))
            }
            Content::Kept(version) => {
                Ok((self.store.get_version_ranges(&self.key, version, ranges).await?, Some(version.clone())))
            }
        }
    }

    /// All of it, and the id of its version.
    async fn get(&self, size: u64) -> Result<(Bytes, Option<String>)> {
        let absent = || Error::not_found(format!("`{}` does not exist", self.store.url_of(&self.key)));
        let object = match &self.content {
            Content::Present(Some(etag)) => self.store.get_object_if_match(&self.key, etag).await?,
            Content::Present(None) => self.store.get(&self.key).await?.ok_or_else(absent)?,
            Content::Kept(version) => {
                let bytes = self.store.get_version_range(&self.key, version, 0..size).await?;
                return Ok((bytes, Some(version.clone())));
            }
        };
        Ok((object.bytes, object.meta.version))
    }
}

impl Source {
    /// Reads an object of `size` bytes, or its head and tail; with the id of its version, where the bucket keeps versions.
    pub(crate) async fn open(origin: Origin, size: u64, limits: &Limits) -> Result<(Self, Option<String>)> {
        if size <= limits.whole_file {
            let (bytes, version) = origin.get(size).await?;
            return Ok((Self::Memory(bytes), version));
        }
        let tail = size.saturating_sub(TAIL);
        let (ends, version) = origin.get_ranges_and_version(&[0..HEAD.min(size), tail..size]).await?;
        let mut ends = ends.into_iter();
        let ranges = Ranges {
            origin,
            size,
            head: ends.next().unwrap_or_default(),
            tail: ends.next().unwrap_or_default(),
            blocks: Mutex::default(),
            failure: Mutex::default(),
        };
        Ok((Self::Ranges(Box::new(ranges)), version))
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Ranges(ranges) => ranges.size,
        }
    }

    /// The bytes of `ranges`, in that order.
    pub(crate) async fn fetch(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(ranges)?;
        match self {
            Self::Memory(bytes) => Ok(ranges.iter().map(|range| slice(bytes, range)).collect()),
            Self::Ranges(object) => object.origin.get_ranges(ranges).await,
        }
    }

    /// `count` runs of `length` bytes, the first at `start` and each `stride` after the one before, end to end.
    pub(crate) async fn gather(&self, start: u64, stride: u64, count: u64, length: u64) -> Result<Bytes> {
        let run = |index: u64| {
            let start = start + index * stride;
            start..start + length
        };
        let mut gathered = BytesMut::with_capacity((count * length) as usize);
        match self {
            Self::Memory(bytes) => {
                self.check(&[run(count - 1)])?;
                (0..count).for_each(|index| {
                    let run = run(index);
                    gathered.extend_from_slice(&bytes[run.start as usize..run.end as usize]);
                });
            }
            Self::Ranges(_) => {
                let runs: Vec<Range<u64>> = (0..count).map(run).collect();
                self.fetch(&runs).await?.iter().for_each(|run| gathered.extend_from_slice(run));
            }
        }
        Ok(gathered.freeze())
    }

    /// The bytes of `range`, waiting for them.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.check(std::slice::from_ref(&range))?;
        match self {
            Self::Memory(bytes) => Ok(slice(bytes, &range)),
            Self::Ranges(object) => object.read(range),
        }
    }

    fn check(&self, ranges: &[Range<u64>]) -> Result<()> {
        let size = self.size();
        match ranges.iter().find(|range| range.end > size || range.start > range.end) {
            None => Ok(()),
            Some(outside) => Err(Error::corrupt(format!(
                "expected data up to offset `{}`, but the file ends at `{size}`",
                outside.end
            ))
            .hint("the file is truncated or damaged: fetch it again")),
        }
    }

    /// The source as `hdf5-reader` wants it.
    pub(crate) fn storage(self: Arc<Self>) -> DynStorage {
        Arc::new(Adapter(self))
    }

    /// Replaces an error that came of a failed read by what the read said.
    pub(crate) fn explained<T>(&self, result: Result<T>) -> Result<T> {
        match (self, result) {
            (Self::Ranges(object), Err(error)) => {
                Err(object.failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(error))
            }
            (_, result) => result,
        }
    }
}

fn slice(bytes: &Bytes, range: &Range<u64>) -> Bytes {
    bytes.slice(range.start as usize..range.end as usize)
}

impl Ranges {
    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.end <= self.head.len() as u64 {
            return Ok(slice(&self.head, &range));
        }
        let tail = self.size - self.tail.len() as u64;
        if range.start >= tail {
            return Ok(slice(&self.tail, &(range.start - tail..range.end - tail)));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (first, last) = (range.start / BLOCK, (range.end - 1) / BLOCK);
        if last - first >= 4 {
            return self.wait(range);
        }
        let mut joined = Vec::with_capacity((range.end - range.start) as usize);
        for number in first..=last {
            let block = self.block(number)?;
            let origin = number * BLOCK;
            let part = range.start.max(origin) - origin..range.end.min(origin + BLOCK) - origin;
            if first == last {
                return Ok(slice(&block, &part));
            }
            joined.extend_from_slice(&slice(&block, &part));
        }
        Ok(joined.into())
    }

    fn block(&self, number: u64) -> Result<Bytes> {
        let blocks = || self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = blocks().get(&number) {
            return Ok(block.clone());
        }
        let start = number * BLOCK;
        let block = self.wait(start..(start + BLOCK).min(self.size))?;
        let mut blocks = blocks();
        // Metadata is read in few places: forgetting everything now and then is as good as an order of use.
        if blocks.len() >= BLOCKS {
            blocks.clear();
        }
        blocks.insert(number, block.clone());
        Ok(block)
    }

    /// Fetches a range on the runtime while this thread waits.
    fn wait(&self, range: Range<u64>) -> Result<Bytes> {
        let (answer, answered) = mpsc::sync_channel(1);
        let origin = self.origin.clone();
        runtime().spawn(async move {
            let bytes = origin.get_ranges(&[range]).await.map(|mut bytes| bytes.pop());
            // The receiver is gone only when the waiting thread is.
            let _ = answer.send(bytes);
        });
        let waited = || answered.recv();
        // On a worker of the runtime its other tasks move elsewhere while this one waits.
        let inside = tokio::runtime::Handle::try_current()
            .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
        let answer = if inside { tokio::task::block_in_place(waited) } else { waited() };
        let bytes = answer.map_err(|_| Error::internal("the runtime dropped a read"))??;
        Ok(bytes.unwrap_or_default())
    }
}

struct Adapter(Arc<Source>);

impl Storage for Adapter {
    fn len(&self) -> u64 {
        self.0.size()
    }

    fn read_range(&self, offset: u64, len: usize) -> hdf5_reader::error::Result<StorageBuffer> {
        use hdf5_reader::error::Error as Reader;
        let size = self.0.size();
        let end = offset.checked_add(len as u64).filter(|end| *end <= size).ok_or(Reader::UnexpectedEof {
            offset,
            needed: len as u64,
            available: size.saturating_sub(offset),
        })?;
        match self.0.read(offset..end) {
            Ok(bytes) => StorageBuffer::from_shared_owner(Arc::new(bytes), 0, len),
            Err(error) => {
                let text = error.to_string();
                if let Source::Ranges(object) = &*self.0 {
                    object.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                Err(Reader::Io(std::io::Error::other(text)))
            }
        }
    }
}
