//! What objects are made of, in memory: tiles of sources and old stored objects, each with its share of the memory.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::buffers::Buffers;
use super::chunk_writer::Guard;
use super::schedule::units;
use crate::error::{Error, Result};
use crate::store::ETag;
use crate::zarr::codec::Sharding;
use crate::zarr::{Elements, Values, shard};

/// A share of the memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share(Option<OwnedSemaphorePermit>);

impl Share {
    pub(super) fn new(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self(permit)
    }

    /// Keeps `keep` units and gives the rest back.
    pub(super) fn shrink(&mut self, keep: u64) {
        if let Some(permit) = &mut self.0 {
            let surplus = permit.num_permits().saturating_sub(keep as usize);
            drop(permit.split(surplus));
        }
    }
}

/// An input that has arrived.
#[derive(Clone)]
pub(super) enum Input {
    Tile(Arc<TileInput>),
    Stored(Arc<StoredInput>),
}

/// A fetched tile.
pub(super) struct TileInput {
    pub(super) source: usize,
    pub(super) tile: usize,
    values: Arc<dyn Values>,
    buffers: Arc<Buffers>,
    /// The encoded bytes until they are decoded.
    encoded: Mutex<Option<Bytes>>,
    elements: OnceLock<Elements>,
    share: Mutex<Share>,
}

impl TileInput {
    pub(super) fn new(
        (source, tile): (usize, usize),
        values: Arc<dyn Values>,
        encoded: Bytes,
        share: Share,
        buffers: Arc<Buffers>,
    ) -> Self {
        let (encoded, share) = (Mutex::new(Some(encoded)), Mutex::new(share));
        Self { source, tile, values, buffers, encoded, elements: OnceLock::new(), share }
    }

    /// Bytes of the decoded tile, 0 for strings.
    fn decoded_size(&self) -> usize {
        let elements: u64 = self.values.tiles()[self.tile].decoded_shape.iter().product();
        elements as usize * self.values.data_type().size().unwrap_or(0)
    }

    /// The encoded bytes as they could be stored: see [`Values::pass_through`].
    pub(super) fn pass_through(&self) -> Result<Option<Bytes>> {
        let encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        match encoded.as_ref() {
            Some(encoded) if !encoded.is_empty() => self.values.pass_through(self.tile, encoded),
            _ => Ok(None),
        }
    }

    /// Decodes it for one use; only the first call of this or of [`TileInput::decode`] finds the bytes.
    pub(super) fn take(&self) -> Result<Elements> {
        let Some(encoded) = self.encoded.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(Error::internal("a tile is decoded a second time"));
        };
        let size = self.decoded_size();
        let elements = self.values.decode(self.tile, &encoded, self.buffers.take(size))?;
        drop(encoded);
        let shape = &self.values.tiles()[self.tile].decoded_shape;
        let count = shape.iter().product::<u64>() as usize;
        let fits = match (&elements, self.values.data_type().size()) {
            (Elements::Fixed(bytes), Some(element)) => bytes.len() == count * element,
            (Elements::Strings(strings), None) => strings.len() == count,
            _ => false,
        };
        if !fits {
            return Err(Error::internal(format!("a tile of shape `{shape:?}` decoded to another size")));
        }
        Ok(elements)
    }

    /// Decodes it for several uses and gives the memory of its encoded bytes back.
    pub(super) fn decode(&self, held: u64) -> Result<()> {
        let elements = self.take()?;
        self.share.lock().unwrap_or_else(PoisonError::into_inner).shrink(held);
        self.elements.set(elements).map_err(|_| Error::internal("a tile is decoded a second time"))
    }

    /// The decoded elements, once [`TileInput::decode`] has run.
    pub(super) fn elements(&self) -> Option<&Elements> {
        self.elements.get()
    }
}

impl Drop for TileInput {
    fn drop(&mut self) {
        if let Some(Elements::Fixed(buffer)) = self.elements.take() {
            self.buffers.give(buffer);
        }
    }
}

/// A stored object as it was before this commit.
pub(super) struct StoredInput {
    /// Its index in the grid of stored objects.
    pub(super) index: Vec<u64>,
    content: Option<(Bytes, ETag)>,
    /// The encoded inner chunks of a shard.
    inner: OnceLock<Result<Vec<Option<Bytes>>>>,
    _share: Share,
}

impl StoredInput {
    pub(super) fn new(index: Vec<u64>, content: Option<(Bytes, ETag)>, mut share: Share) -> Self {
        share.shrink(content.as_ref().map_or(0, |(bytes, _)| units(bytes.len() as u64)));
        Self { index, content, inner: OnceLock::new(), _share: share }
    }

    /// What must still be true when it is written.
    pub(super) fn guard(&self) -> Guard {
        match &self.content {
            Some((_, etag)) => Guard::Unchanged(etag.clone()),
            None => Guard::Absent,
        }
    }

    /// The bytes of the whole object.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.content.as_ref().map(|(bytes, _)| bytes)
    }

    /// The encoded bytes of one of the `count` inner chunks of a shard.
    pub(super) fn inner_chunk(&self, sharding: &Sharding, count: usize, position: usize) -> Result<Option<Bytes>> {
        let Some((object, _)) = &self.content else { return Ok(None) };
        match self.inner.get_or_init(|| shard::inner_chunks(sharding, object, count)) {
            Ok(chunks) => Ok(chunks.get(position).cloned().flatten()),
            Err(error) => Err(error.clone()),
        }
    }
}
