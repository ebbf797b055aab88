//! Reading a region of an array: objects fetched side by side, chunks decoded on the CPU pool, scattered into one buffer.
//!
//! Of a shard only what is needed is fetched: its index and the inner chunks that the region touches, or the whole object
//! where that is all of them. What is not stored reads as the fill value.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::array::Array;
use super::codec::{IndexLocation, Sharding};
use super::geometry::{flat, for_each_cell};
use super::region::Region;
use super::scatter::{Runs, copy_fixed, copy_strings};
use super::values::Elements;
use crate::error::{Context, Error, Result};
use crate::store::{ObjectMeta, Store};

/// Objects of one region that are in hand at once.
const CONCURRENCY: usize = 16;

/// The elements of `region` of `array`, in C order; little-endian where they have a fixed size.
///
/// # Errors
/// `Invalid` where the region is not inside the array, `Corrupt` where a chunk does not decode to its shape, `Conflict`
/// where a shard changes while it is read; otherwise what the store raises.
pub async fn read(store: &Store, array: &Array, region: &Region) -> Result<Elements> {
    let inside = region.dimensionality() == array.shape.len()
        && (0..array.shape.len()).all(|dimension| {
            region.start[dimension]
                .checked_add(region.shape[dimension])
                .is_some_and(|end| end <= array.shape[dimension])
        });
    let count = region.shape.iter().try_fold(1usize, |count, length| count.checked_mul(usize::try_from(*length).ok()?));
    let size = array.data_type.size().unwrap_or(1);
    let Some(count) = count.filter(|count| inside && count.checked_mul(size).is_some()) else {
        let (path, shape) = (&array.path, &array.shape);
        return Err(Error::invalid(format!("region {region:?} is not inside array `{path}` of shape `{shape:?}`")));
    };
    let mut elements = array.fill_value.elements(array.data_type, count, Vec::new());
    let mut objects = Vec::new();
    for_each_cell(region, array.object_shape(), |index| objects.push(index.to_vec()));
    let mut decoded = stream::iter(objects)
        .map(|index| async move {
            let key = array.chunk_key(&index);
            read_object(store, array, region, &key, &index).await.context(|| format!("`{}`", store.url_of(&key)))
        })
        .buffer_unordered(CONCURRENCY);
    while let Some(chunks) = decoded.try_next().await? {
        for (chunk, decoded) in chunks {
            scatter(array, &chunk, &decoded, region, &mut elements)?;
        }
    }
    Ok(elements)
}

/// Chunks of one object that `region` touches, each with the region of the array that it spans, edges not clipped.
type Chunks = Vec<(Region, Elements)>;

async fn read_object(store: &Store, array: &Array, region: &Region, key: &str, index: &[u64]) -> Result<Chunks> {
    let fetched = match &array.sharding {
        None => match store.get(key).await? {
            Some(object) => vec![(chunk_region(index, &array.chunk_shape), object.bytes)],
            None => return Ok(Vec::new()),
        },
        Some(sharding) => read_shard(store, array, sharding, region, key, index).await?,
    };
    let (codecs, shape) = (array.codecs.clone(), array.chunk_shape.clone());
    in_pool(move || {
        fetched
            .into_iter()
            .map(|(chunk, bytes)| Ok((chunk, codecs.decode(bytes, &shape, Vec::new())?)))
            .collect::<Result<Chunks>>()
    })
    .await?
}

/// Encoded inner chunks of one shard that `region` touches.
async fn read_shard(
    store: &Store,
    array: &Array,
    sharding: &Sharding,
    region: &Region,
    key: &str,
    index: &[u64],
) -> Result<Vec<(Region, Bytes)>> {
    let shard = chunk_region(index, array.object_shape());
    let grid = array.chunks_per_object();
    let count = grid.iter().product::<u64>() as usize;
    let mut wanted = Vec::new();
    let Some(touched) = region.intersection(&shard) else { return Ok(Vec::new()) };
    for_each_cell(&touched.relative_to(&shard.start), &array.chunk_shape, |inner| {
        let mut chunk = chunk_region(inner, &array.chunk_shape);
        for (start, origin) in chunk.start.iter_mut().zip(&shard.start) {
            *start += origin;
        }
        wanted.push((flat(inner, &grid) as usize, chunk));
    });
    let of = |places: &[Option<(u64, u64)>], size: u64| -> Result<Vec<(Region, Range<u64>)>> {
        wanted
            .iter()
            .filter_map(|(position, chunk)| places.get(*position).copied().flatten().map(|place| (chunk, place)))
            .map(|(chunk, (offset, length))| {
                let range = offset..offset.saturating_add(length);
                if range.end <= size {
                    return Ok((chunk.clone(), range));
                }
                Err(Error::corrupt(format!("inner chunk at `{range:?}` lies beyond the `{size}` bytes of its shard")))
            })
            .collect()
    };
    if wanted.len() == count {
        let Some(object) = store.get(key).await? else { return Ok(Vec::new()) };
        let size = object.bytes.len() as u64;
        let place = sharding.index_range(size, count)?;
        let places = sharding.decode_index(&object.bytes[place.start as usize..place.end as usize])?;
        let slice = |(chunk, range): (Region, Range<u64>)| {
            (chunk, object.bytes.slice(range.start as usize..range.end as usize))
        };
        return Ok(of(&places, size)?.into_iter().map(slice).collect());
    }
    let Some((index, meta)) = read_index(store, sharding, key, count).await? else { return Ok(Vec::new()) };
    let chunks = of(&sharding.decode_index(&index)?, meta.size)?;
    let ranges: Vec<Range<u64>> = chunks.iter().map(|(_, range)| range.clone()).collect();
    let bytes = store.get_ranges(key, &ranges, Some(&meta.etag)).await?;
    Ok(chunks.into_iter().map(|(chunk, _)| chunk).zip(bytes).collect())
}

/// The encoded index of a shard, `None` where there is no shard.
async fn read_index(
    store: &Store,
    sharding: &Sharding,
    key: &str,
    count: usize,
) -> Result<Option<(Bytes, ObjectMeta)>> {
    let size = sharding.index_size(count) as u64;
    match sharding.location {
        IndexLocation::End => {
            let object = store.get_suffix(key, size).await?;
            Ok(object.map(|object| (object.bytes, object.meta)))
        }
        IndexLocation::Start => {
            let Some(meta) = store.head(key).await? else { return Ok(None) };
            if meta.size < size {
                return sharding.index_range(meta.size, count).map(|_| None);
            }
            let mut bytes = store.get_ranges(key, std::slice::from_ref(&(0..size)), Some(&meta.etag)).await?;
            Ok(bytes.pop().map(|bytes| (bytes, meta)))
        }
    }
}

/// The region that the chunk at `index` of a grid of `shape` spans, edges not clipped.
fn chunk_region(index: &[u64], shape: &[u64]) -> Region {
    Region::new(index.iter().zip(shape).map(|(number, length)| number * length).collect(), shape.to_vec())
}

/// Copies what `chunk` and `region` have in common.
fn scatter(array: &Array, chunk: &Region, decoded: &Elements, region: &Region, target: &mut Elements) -> Result<()> {
    let Some(common) = chunk.intersection(region) else { return Ok(()) };
    let (source, destination) = (common.relative_to(&chunk.start), common.relative_to(&region.start));
    let runs = Runs::new(&common.shape, (&source.start, &chunk.shape), (&destination.start, &region.shape));
    match (decoded, target) {
        (Elements::Fixed(decoded), Elements::Fixed(target)) => {
            copy_fixed(&runs, array.data_type.size().unwrap_or(1), decoded, target);
        }
        (Elements::Strings(decoded), Elements::Strings(target)) => copy_strings(&runs, decoded, target),
        _ => return Err(Error::internal(format!("array `{}` decoded to another kind of elements", array.path))),
    }
    Ok(())
}

/// Runs `work` on the CPU pool, so that it does not keep the runtime's workers from their I/O.
async fn in_pool<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    rayon::spawn(move || {
        // A panic in the pool would end the process; a dropped sender says the same to the one who asked.
        if let Ok(answer) = catch_unwind(AssertUnwindSafe(work)) {
            drop(sender.send(answer));
        }
    });
    receiver.await.map_err(|_| Error::internal("decoding a chunk panicked"))
}
