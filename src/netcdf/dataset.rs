//! An open file: its structure, its blocks, and their values.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hdf5_reader::storage::DynStorage;
use serde_json::Value;

use super::block::{Block, Layout, Place, Storage, Text, byte_count, too_large};
use super::c_library::{Library, Local};
use super::classic;
use super::elements::{place_block, without_padding};
use super::hdf5::Container;
use super::limits::Limits;
use super::signature::{Format, recognise};
use super::source::{HEAD, Origin, Source};
use super::structure::{DataType, Group, Variable};
use crate::error::{Context, Error, Kind, Result};
use crate::store::{ETag, ObjectMeta, Store};

/// An open NetCDF file. Shared by `Arc`; every method may be called from any thread.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    source: Arc<Source>,
    container: Option<Container>,
    /// The second reader of NetCDF-4, in a build that has one.
    library: Option<Arc<Library>>,
    root: Group,
    limits: Limits,
    version: Option<String>,
}

/// The values of a variable, C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Buffer {
    /// Fixed-size elements, little-endian.
    Fixed(Vec<u8>),
    /// Text.
    Strings(Vec<String>),
}

impl Dataset {
    /// Opens the object `key` of `store`, as it was under `etag` where one is given.
    ///
    /// Asks for its size first; where a listing has told it, [`Dataset::open_listed`] saves that request.
    ///
    /// # Errors
    /// `NotFound` where there is no object, `Conflict` where it is no longer the version `etag`, `Invalid` where it is no
    /// NetCDF file, `Corrupt` where it is damaged or truncated, `Unavailable` where the store does not answer.
    pub async fn open(store: &Store, key: &str, etag: Option<&ETag>) -> Result<Self> {
        let url = store.url_of(key);
        let meta = store.head(key).await?.ok_or_else(|| Error::not_found(format!("`{url}` does not exist")))?;
        if let Some(etag) = etag.filter(|etag| **etag != meta.etag) {
            return Err(Error::conflict(format!(
                "`{url}` has changed: expected version `{}`, found `{}`",
                etag.as_str(),
                meta.etag.as_str()
            ))
            .hint("plan again"));
        }
        Self::open_listed(store, &meta, Limits::default()).await
    }

    /// Opens the object that `meta` describes, in that version: one request where it is below `limits.whole_file`.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub async fn open_listed(store: &Store, meta: &ObjectMeta, limits: Limits) -> Result<Self> {
        let local = store.local_path(&meta.key).map(|path| (store.clone(), meta.clone(), path));
        Self::open_from(store.url_of(&meta.key), Origin::present(store, meta), meta.size, local, limits).await
    }

    /// Opens the version `version` of the object that `meta` describes, whether or not it is the present one: a bucket that
    /// keeps versions has it still.
    ///
    /// # Errors
    /// `NotFound` where the bucket does not have it any more, `Conflict` where it is not what `meta` says, `Invalid` where no
    /// versions are kept; otherwise as [`Dataset::open`].
    pub async fn open_kept(store: &Store, meta: &ObjectMeta, version: &str, limits: Limits) -> Result<Self> {
        store.expect_version(&meta.key, version, &meta.etag).await?;
        Self::open_from(store.url_of(&meta.key), Origin::kept(store, meta, version), meta.size, None, limits).await
    }

    async fn open_from(url: String, origin: Origin, size: u64, local: Option<Local>, limits: Limits) -> Result<Self> {
        let (source, version) = Source::open(origin, size, &limits).await?;
        // Parsing is computation, and over ranges it waits for reads: neither belongs on the runtime's workers.
        let parsed = crate::store::runtime()
            .spawn_blocking(move || Self::parse(&url, source, local, limits))
            .await
            .map_err(|error| Error::internal(format!("opening a NetCDF file failed: {error}")))?;
        Ok(Self { version, ..parsed? })
    }

    /// The id of the version that was opened, in a bucket that keeps versions.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Opens the file that `bytes` are; `name` is what errors call it.
    ///
    /// # Errors
    /// `Invalid` where it is no NetCDF file, `Corrupt` where it is damaged or truncated.
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Self> {
        Self::from_bytes_within(name, bytes, Limits::default())
    }

    /// As [`Dataset::from_bytes`], within other limits than the default ones.
    ///
    /// # Errors
    /// As [`Dataset::from_bytes`].
    pub fn from_bytes_within(name: &str, bytes: Bytes, limits: Limits) -> Result<Self> {
        Self::parse(name, Source::Memory(bytes), None, limits)
    }

    fn parse(name: &str, source: Source, local: Option<Local>, limits: Limits) -> Result<Self> {
        Self::parse_unnamed(name, Arc::new(source), local, limits).context(|| format!("`{name}`"))
    }

    fn parse_unnamed(name: &str, source: Arc<Source>, local: Option<Local>, limits: Limits) -> Result<Self> {
        let size = source.size();
        let mut head = source.read(0..size.min(HEAD))?;
        let format = recognise(&head)?;
        let (container, library, root) = match format {
            Format::Classic(version) => loop {
                if let Some(root) = classic::structure(&head, version, size)? {
                    break (None, None, root);
                }
                if head.len() as u64 >= limits.header {
                    return Err(too_large("a header", head.len() as u64 + 1, limits.header));
                }
                head = source.read(0..(head.len() as u64 * 4).min(size).min(limits.header))?;
            },
            Format::Hdf5 => {
                let storage: DynStorage = Arc::clone(&source).storage();
                let read = || {
                    let container = Container::open(storage, &limits)?;
                    let root = container.structure()?;
                    Ok((container, root))
                };
                let library = Library::of(&source, local).map(Arc::new);
                match (source.explained(read()), &library) {
                    (Err(refusal), Some(second)) if refusal.kind() == Kind::Invalid && second.is_local() => {
                        let root = second.structure().context(|| refusal.message())?;
                        (None, library, root)
                    }
                    (read, _) => read.map(|(container, root)| (Some(container), library, root))?,
                }
            }
        };
        Ok(Self { name: name.to_owned(), source, container, library, root, limits, version: None })
    }

    /// The file that `bytes` are, by the second reader alone.
    #[cfg(all(test, feature = "netcdf-c"))]
    pub(crate) fn by_library(name: &str, bytes: Bytes) -> Result<Self> {
        let source = Arc::new(Source::Memory(bytes));
        let library = Library::of(&source, None).map(Arc::new);
        let root = library.as_ref().map_or_else(|| Ok(Group::default()), |library| library.structure())?;
        Ok(Self {
            name: name.to_owned(),
            source,
            container: None,
            library,
            root,
            limits: Limits::default(),
            version: None,
        })
    }

    /// The second reader, where the first one does not know how to read a variable.
    fn library_of(&self, variable: &Variable) -> Option<&Arc<Library>> {
        let refused = self.container.is_none() || variable.layout.has_unknown_filter();
        self.library.as_ref().filter(|_| refused)
    }

    /// What the second reader gives, waited for away from the runtime's workers.
    async fn read_by_library<T: Send + 'static>(
        &self,
        library: &Arc<Library>,
        variable: &Variable,
        read: impl FnOnce(&Library, &Variable) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (library, waiting) = (Arc::clone(library), variable.clone());
        let read = crate::store::runtime().spawn_blocking(move || read(&library, &waiting)).await;
        let read = read.map_err(|error| Error::internal(format!("reading a NetCDF file failed: {error}")))?;
        self.named(variable, read)
    }

    /// The name or URL that it was opened by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The root group.
    #[must_use]
    pub fn root(&self) -> &Group {
        &self.root
    }

    /// The variable at `path`, `group/name`.
    #[must_use]
    pub fn variable(&self, path: &str) -> Option<&Variable> {
        self.root.variable(path)
    }

    fn named<T>(&self, variable: &Variable, result: Result<T>) -> Result<T> {
        result.context(|| format!("`{}`: variable `{}`", self.name, variable.path))
    }

    /// The blocks of a variable of fixed-size elements: they do not overlap, cover its shape, and come in C order.
    ///
    /// # Errors
    /// `Invalid` for text and for what cannot be read, and beyond the limits; `Corrupt` where the chunk index is damaged.
    pub fn blocks(&self, variable: &Variable) -> Result<Arc<[Block]>> {
        if variable.data_type == DataType::String {
            let error = Error::invalid("text has no blocks").hint("read the variable whole");
            return self.named(variable, Err(error));
        }
        self.stored_blocks(variable)
    }

    fn stored_blocks(&self, variable: &Variable) -> Result<Arc<[Block]>> {
        if let Some(blocks) = variable.blocks.get() {
            return Ok(Arc::clone(blocks));
        }
        let layout = &variable.layout;
        let blocks = match (&layout.storage, variable.chunk_shape.as_deref(), &self.container) {
            (_, chunk_shape, _) if self.library_of(variable).is_some() => {
                layout.library_blocks(&variable.shape, chunk_shape, &self.limits)
            }
            (Storage::Chunks { .. }, Some(chunk_shape), Some(container)) => self
                .source
                .explained(container.chunk_entries(layout))
                .and_then(|entries| layout.chunk_blocks(&variable.shape, chunk_shape, entries, &self.limits)),
            _ => layout.row_blocks(&variable.shape, &self.limits),
        };
        let blocks: Arc<[Block]> = self.named(variable, blocks)?.into();
        Ok(Arc::clone(variable.blocks.get_or_init(|| blocks)))
    }

    /// The encoded bytes of `blocks` (indices into [`Dataset::blocks`]), in that order: slices of a file in memory,
    /// coalesced ranges of an object. A block that is not stored has no bytes.
    ///
    /// # Errors
    /// `Conflict` where the object is no longer the version that was opened; otherwise as reading it raises.
    pub async fn fetch(&self, variable: &Variable, blocks: &[usize]) -> Result<Vec<Bytes>> {
        let all = self.stored_blocks(variable)?;
        if let Some(library) = self.library_of(variable) {
            let blocks = blocks.iter().map(|&block| self.block(&all, block).cloned()).collect::<Result<Vec<_>>>()?;
            return self
                .read_by_library(library, variable, move |library, variable| library.read(variable, &blocks))
                .await;
        }
        let mut ranges = Vec::new();
        for &block in blocks {
            ranges.extend(range_of(self.block(&all, block)?));
        }
        let mut fetched = self.named(variable, self.source.fetch(&ranges).await)?.into_iter();
        let mut encoded = Vec::with_capacity(blocks.len());
        for &block in blocks {
            let block = &all[block];
            encoded.push(match &block.place {
                Place::Missing | Place::Library => Bytes::new(),
                Place::Inline { offset } => self.named(variable, inline(&variable.layout, *offset, block))?,
                Place::Run { .. } | Place::Chunk { .. } => fetched.next().unwrap_or_default(),
                Place::Records { address, stride, count, bytes } => {
                    self.named(variable, self.source.gather(*address, *stride, *count, *bytes).await)?
                }
            });
        }
        Ok(encoded)
    }

    fn block<'a>(&self, blocks: &'a [Block], index: usize) -> Result<&'a Block> {
        blocks.get(index).ok_or_else(|| {
            Error::internal(format!("`{}`: block `{index}` was asked for, there are `{}`", self.name, blocks.len()))
        })
    }

    /// Decodes a fetched block into little-endian elements of its `decoded_shape`, C order. `recycled` is an earlier
    /// result's buffer, to be reused.
    ///
    /// # Errors
    /// `Corrupt` where the bytes do not decode to exactly the block; `Invalid` for a compression that is not known.
    pub fn decode(&self, variable: &Variable, block: usize, encoded: &Bytes, recycled: Vec<u8>) -> Result<Vec<u8>> {
        let blocks = self.stored_blocks(variable)?;
        let decoded = variable.layout.decoded(&variable.shape, self.block(&blocks, block)?, encoded, recycled);
        self.named(variable, decoded)
    }

    /// How chunks are encoded, as numcodecs configurations in order of encoding, where fetched bytes could be stored as
    /// they are: little-endian, exactly shuffle and deflate (a checksum is stripped), no padding. An empty list is
    /// unfiltered chunks.
    #[must_use]
    pub fn encoding(&self, variable: &Variable) -> Option<Vec<Value>> {
        let layout = &variable.layout;
        let Storage::Chunks { pipeline, .. } = &layout.storage else {
            return None;
        };
        let plain = variable.data_type.size().is_some()
            && (!layout.big_endian || layout.element_size == 1)
            && layout.extent == variable.shape;
        if plain { pipeline.encoding(layout.element_size) } else { None }
    }

    /// The bytes of a fetched block as [`Dataset::encoding`] says, its checksum verified and stripped; `None` where this
    /// block deviates (a filter was left out, or nothing is stored). That they inflate to exactly a chunk is not checked.
    ///
    /// # Errors
    /// `Corrupt` where a checksum does not match.
    pub fn pass_through(&self, variable: &Variable, block: usize, encoded: &Bytes) -> Result<Option<Bytes>> {
        let blocks = self.stored_blocks(variable)?;
        let (Storage::Chunks { pipeline, .. }, Place::Chunk { filter_mask, .. }) =
            (&variable.layout.storage, &self.block(&blocks, block)?.place)
        else {
            return Ok(None);
        };
        let payload = self.named(variable, pipeline.without_checksum(encoded, *filter_mask))?;
        Ok(payload.map(|payload| encoded.slice_ref(payload)))
    }

    /// Reads a whole variable into memory.
    ///
    /// # Errors
    /// `Invalid` beyond the limits and for types that are not read; otherwise as [`Dataset::fetch`] and
    /// [`Dataset::decode`].
    pub async fn read(&self, variable: &Variable) -> Result<Buffer> {
        let layout = &variable.layout;
        let bytes = self.named(variable, byte_count(&variable.shape, layout.element_size as u64))?;
        if bytes > self.limits.read {
            return self.named(variable, Err(too_large("a variable", bytes, self.limits.read)));
        }
        if let (DataType::String, Some(library)) = (&variable.data_type, self.library_of(variable)) {
            return self.read_by_library(library, variable, Library::strings).await.map(Buffer::Strings);
        }
        let blocks = self.stored_blocks(variable)?;
        let mut whole = vec![0; bytes as usize];
        let mut decoded = Vec::new();
        // A few blocks at a time: the encoded bytes of a large object are not all held at once.
        let indices: Vec<usize> = (0..blocks.len()).collect();
        for some in indices.chunks(64) {
            for (&index, encoded) in some.iter().zip(self.fetch(variable, some).await?) {
                decoded = self.decode(variable, index, &encoded, decoded)?;
                place_block(&blocks[index], &decoded, &variable.shape, layout.element_size, &mut whole);
            }
        }
        if variable.data_type == DataType::String {
            return self.named(variable, self.strings(layout, &whole)).map(Buffer::Strings);
        }
        Ok(Buffer::Fixed(whole))
    }

    fn strings(&self, layout: &Layout, elements: &[u8]) -> Result<Vec<String>> {
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|error| {
                Error::invalid(format!("text is not UTF-8: `{}`", String::from_utf8_lossy(error.as_bytes())))
            })
        };
        let size = layout.element_size.max(1);
        let elements = elements.chunks_exact(size);
        match (layout.text, &self.container) {
            (Some(Text::Fixed { padding }), _) => elements.map(|bytes| text(without_padding(bytes, padding))).collect(),
            (Some(Text::Heap), Some(container)) => elements
                .map(|reference| {
                    let bytes = self.source.explained(container.heap_bytes(reference))?;
                    text(without_padding(&bytes, None))
                })
                .collect(),
            _ => Err(Error::internal("a variable of text without a way to read it")),
        }
    }
}

/// The one run of a block; records are gathered, the rest is at hand.
fn range_of(block: &Block) -> Option<Range<u64>> {
    match &block.place {
        Place::Run { address } | Place::Chunk { address, .. } => {
            Some(*address..address.saturating_add(block.encoded_size))
        }
        Place::Missing | Place::Inline { .. } | Place::Records { .. } | Place::Library => None,
    }
}

fn inline(layout: &Layout, offset: usize, block: &Block) -> Result<Bytes> {
    let end = offset + block.encoded_size as usize;
    match &layout.storage {
        Storage::Inline(bytes) if end <= bytes.len() => Ok(bytes.slice(offset..end)),
        Storage::Inline(bytes) => {
            Err(Error::corrupt(format!("expected `{end}` bytes in the object header, found `{}`", bytes.len())))
        }
        _ => Err(Error::internal("an inline block of a variable that is not inline")),
    }
}
