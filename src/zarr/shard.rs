//! Rewriting a shard: encoded bytes of the chunks that stay are copied, those that change are replaced.
//!
//! A shard (Zarr v3 `sharding_indexed`) is one object that holds the encoded bytes of its inner chunks and an index of
//! where they are. Changing a few inner chunks therefore needs the object's bytes but no decoding of the others. The new
//! object is always laid out in the same way, so equal content gives equal bytes: chunks in C order without gaps, those
//! that are all fill left out, the index at the end that the array's metadata says. Bytes that the old object held
//! between its chunks are not carried over.

use bytes::Bytes;

use super::codec::{IndexLocation, Sharding};
use crate::error::{Error, Result};

/// The encoded inner chunks of a stored shard of `count` chunks, `None` where one is not stored.
///
/// # Errors
/// `Corrupt` where the index cannot be decoded or points outside the object.
pub(crate) fn inner_chunks(sharding: &Sharding, object: &Bytes, count: usize) -> Result<Vec<Option<Bytes>>> {
    let range = sharding.index_range(object.len() as u64, count)?;
    let entries = sharding.decode_index(&object[range.start as usize..range.end as usize])?;
    if entries.len() != count {
        return Err(Error::corrupt(format!(
            "expected `{count}` entries in a shard's index, found `{}`",
            entries.len()
        )));
    }
    entries
        .into_iter()
        .map(|entry| {
            let Some((offset, size)) = entry else { return Ok(None) };
            match offset.checked_add(size) {
                Some(end) if end <= object.len() as u64 => Ok(Some(object.slice(offset as usize..end as usize))),
                _ => Err(Error::corrupt(format!(
                    "index of a shard of `{}` bytes points to `{size}` bytes at `{offset}`",
                    object.len()
                ))),
            }
        })
        .collect()
}

/// The object of a shard with these encoded inner chunks; `None` where no chunk is stored.
pub(crate) fn assemble(sharding: &Sharding, chunks: &[Option<Bytes>]) -> Option<Bytes> {
    if chunks.iter().all(Option::is_none) {
        return None;
    }
    let index_size = sharding.index_size(chunks.len());
    let total = index_size + chunks.iter().flatten().map(Bytes::len).sum::<usize>();
    let mut next = match sharding.location {
        IndexLocation::Start => index_size as u64,
        IndexLocation::End => 0,
    };
    let mut entries = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        entries.push(chunk.as_ref().map(|bytes| {
            let entry = (next, bytes.len() as u64);
            next += bytes.len() as u64;
            entry
        }));
    }
    let index = sharding.encode_index(&entries);
    let mut object = Vec::with_capacity(total);
    if sharding.location == IndexLocation::Start {
        object.extend_from_slice(&index);
    }
    for chunk in chunks.iter().flatten() {
        object.extend_from_slice(chunk);
    }
    if sharding.location == IndexLocation::End {
        object.extend_from_slice(&index);
    }
    Some(object.into())
}
