//! A store's root group and all arrays below it: opened with as few requests as can be.
//!
//! # Problem
//! Metadata is many small objects. A reader must never see some of them from before a change and some from after it, and
//! two writers must never both believe that they made it.
//!
//! # Design
//! - Opening reads consolidated metadata where there is some (one request in v3, one more to find out that it is v2). Else
//!   directories are found by listing, one page each, without walking through their chunks.
//! - Every document is kept with the `ETag` under which it was read. Publishing (see `publish`) writes only documents
//!   that changed, arrays first, what consolidates them last, each on the condition that it is what was read.
//! - A hierarchy without consolidated metadata gets none: whoever made it reads it without. What regraft creates has it.
//! - An array that regraft cannot read stands in [`Group::refused`] with the reason, and is in nobody's way.
//!
//! # Caveats
//! Where consolidated metadata is stale, it is what counts, as for xarray; publishing then notices that an array's own
//! document is ahead of it and answers `Conflict`.
//!
//! # Testing
//! Documents as zarr-python writes them, here; whole stores in `tests/python`; faults in `tests/rust`.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Map, Value};

use super::array::{Array, Format};
use super::consolidated::{self, Documents};
use super::metadata::{attributes, key_of};
use super::{document, metadata_v2, metadata_v3};
use crate::error::{Context, Error, Result};
use crate::store::{ETag, Store};

/// Documents read side by side.
const CONCURRENCY: usize = 16;
/// More directories than this are taken for something else than a hierarchy of arrays.
const MAXIMUM_NODES: usize = 10_000;

/// A document as it was read.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) content: Map<String, Value>,
    /// `None` where it is known from consolidated metadata only.
    pub(super) etag: Option<ETag>,
}

/// The root group of a store, and every array below it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The format of all its metadata.
    pub format: Format,
    /// The attributes of the root.
    pub attributes: Map<String, Value>,
    /// Arrays by path in the store, `name` or `group/name`; the path is empty where the store itself is an array.
    pub arrays: BTreeMap<String, Array>,
    /// Arrays that regraft cannot read, by path, each with the reason.
    pub refused: BTreeMap<String, Error>,
    pub(super) store: Store,
    /// Every document known, by key; the holder of consolidated metadata as it is stored.
    pub(super) documents: BTreeMap<String, Stored>,
    /// Whether consolidated metadata is kept.
    pub(super) is_consolidated: bool,
}

impl Group {
    /// Opens the group at the root of `store`, v3 or v2.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Corrupt` where its metadata is no JSON; otherwise what the store raises.
    pub async fn open(store: &Store) -> Result<Self> {
        Self::open_expecting(store, Format::V3).await
    }

    /// [`Group::open`], which looks for `format` first: no request is lost where the guess is right.
    ///
    /// # Errors
    /// As [`Group::open`].
    pub async fn open_expecting(store: &Store, format: Format) -> Result<Self> {
        let other = match format {
            Format::V2 => Format::V3,
            Format::V3 => Format::V2,
        };
        for format in [format, other] {
            let found = match format {
                Format::V2 => open_v2(store).await,
                Format::V3 => open_v3(store).await,
            };
            if let Some(group) = found.context(|| format!("while opening `{}`", store.url()))? {
                return Ok(group);
            }
        }
        Err(Error::not_found(format!("there is no Zarr store at `{}`", store.url())))
    }

    /// The array at `path`.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Invalid` where regraft cannot read it.
    pub fn array(&self, path: &str) -> Result<&Array> {
        if let Some(array) = self.arrays.get(path) {
            return Ok(array);
        }
        if let Some(reason) = self.refused.get(path) {
            return Err(reason.clone());
        }
        let known: Vec<&str> = self.arrays.keys().map(String::as_str).collect();
        Err(Error::not_found(format!("there is no array `{path}` in `{}`", self.store.url()))
            .hint(format!("there are: {}", known.join(", "))))
    }

    /// The array at `path`, to be changed; the change is stored by [`Group::publish`].
    ///
    /// # Errors
    /// As [`Group::array`].
    pub fn array_mut(&mut self, path: &str) -> Result<&mut Array> {
        self.array(path)?;
        self.arrays.get_mut(path).ok_or_else(|| Error::internal(format!("array `{path}` vanished")))
    }

    /// Where it is.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// From now on it is published to `store`, the same place behind another door.
    pub fn write_under(&mut self, store: Store) {
        self.store = store;
    }

    /// Whether consolidated metadata is what was read, or published last: one request; `false` where there is none.
    ///
    /// # Errors
    /// As [`Store::head`].
    pub async fn is_current(&self) -> Result<bool> {
        let key = consolidated::key(self.format);
        let Some(etag) = self.documents.get(key).and_then(|stored| stored.etag.as_ref()) else { return Ok(false) };
        Ok(self.store.head(key).await?.is_some_and(|meta| meta.etag == *etag))
    }

    /// Whether the store has consolidated metadata, or will have when it is published.
    #[must_use]
    pub fn is_consolidated(&self) -> bool {
        self.is_consolidated
    }

    /// The group that `documents` describe; `holder` is the object with consolidated metadata, where there is one.
    pub(super) fn from_documents(
        store: &Store,
        format: Format,
        documents: BTreeMap<String, Stored>,
        is_consolidated: bool,
    ) -> Result<Self> {
        let root = documents.get(consolidated::group_name(format)).map(|stored| &stored.content);
        let attributes = match format {
            Format::V2 => {
                documents.get(metadata_v2::ATTRIBUTES).map(|stored| stored.content.clone()).unwrap_or_default()
            }
            Format::V3 => attributes(root.and_then(|root| root.get("attributes")))?,
        };
        let (mut arrays, mut refused) = (BTreeMap::new(), BTreeMap::new());
        for (key, stored) in &documents {
            let (path, name) = key.rsplit_once('/').unwrap_or(("", key));
            let parsed = match (format, name) {
                (Format::V2, metadata_v2::ARRAY) => {
                    let attributes = documents.get(&key_of(path, metadata_v2::ATTRIBUTES));
                    let none = Map::new();
                    metadata_v2::parse(path, &stored.content, attributes.map_or(&none, |stored| &stored.content))
                }
                (Format::V3, metadata_v3::NODE) if stored.content.get("node_type") == Some(&Value::from("array")) => {
                    metadata_v3::parse(path, &stored.content)
                }
                _ => continue,
            };
            match parsed {
                Ok(array) => drop(arrays.insert(path.to_owned(), array)),
                Err(error) => drop(refused.insert(path.to_owned(), error.context(format!("array `{path}`")))),
            }
        }
        Ok(Self { format, attributes, arrays, refused, store: store.clone(), documents, is_consolidated })
    }
}

/// One document with its `ETag`, `None` where there is none.
pub(super) async fn read(store: &Store, key: &str) -> Result<Option<Stored>> {
    let Some(object) = store.get(key).await? else { return Ok(None) };
    let content = document::parse(&object.bytes).context(|| format!("`{}`", store.url_of(key)))?;
    Ok(Some(Stored { content, etag: Some(object.meta.etag) }))
}

fn known(documents: Documents) -> BTreeMap<String, Stored> {
    documents.into_iter().map(|(key, content)| (key, Stored { content, etag: None })).collect()
}

async fn open_v3(store: &Store) -> Result<Option<Group>> {
    let Some(root) = read(store, metadata_v3::NODE).await? else { return Ok(None) };
    if root.content.get("zarr_format") != Some(&Value::from(3)) {
        return Err(Error::corrupt("`zarr.json` is not of Zarr v3"));
    }
    let consolidated = consolidated::documents(Format::V3, &root.content);
    let is_consolidated = consolidated.is_some();
    let is_group = root.content.get("node_type") == Some(&Value::from("group"));
    let mut documents = match consolidated {
        Some(consolidated) if !consolidated.is_empty() => known(consolidated),
        _ if is_group => walk(store, Format::V3).await?,
        _ => BTreeMap::new(),
    };
    documents.insert(metadata_v3::NODE.to_owned(), root);
    Group::from_documents(store, Format::V3, documents, is_consolidated).map(Some)
}

async fn open_v2(store: &Store) -> Result<Option<Group>> {
    if let Some(holder) = read(store, consolidated::OBJECT).await? {
        let consolidated = consolidated::documents(Format::V2, &holder.content)
            .ok_or_else(|| Error::corrupt("`.zmetadata` has no `metadata`"))?;
        let mut documents = known(consolidated);
        documents.insert(consolidated::OBJECT.to_owned(), holder);
        return Group::from_documents(store, Format::V2, documents, true).map(Some);
    }
    let mut documents = BTreeMap::new();
    for name in [metadata_v2::GROUP, metadata_v2::ARRAY] {
        let Some(root) = read(store, name).await? else { continue };
        if name == metadata_v2::GROUP {
            documents = walk(store, Format::V2).await?;
        }
        documents.insert(name.to_owned(), root);
        if let Some(attributes) = read(store, metadata_v2::ATTRIBUTES).await? {
            documents.insert(metadata_v2::ATTRIBUTES.to_owned(), attributes);
        }
        return Group::from_documents(store, Format::V2, documents, false).map(Some);
    }
    Ok(None)
}

/// Every document below the root, found by listing directories.
async fn walk(store: &Store, format: Format) -> Result<BTreeMap<String, Stored>> {
    let mut documents = BTreeMap::new();
    let mut groups = vec![String::new()];
    let mut nodes = 0;
    while let Some(group) = groups.pop() {
        let children = directories(store, &group).await?;
        nodes += children.len();
        if nodes > MAXIMUM_NODES {
            return Err(Error::invalid(format!("more than `{MAXIMUM_NODES}` directories are no hierarchy of arrays"))
                .hint("consolidate its metadata, or name the group inside it"));
        }
        let found: Vec<_> = stream::iter(children)
            .map(|path| async move { Ok::<_, Error>((node(store, format, &path).await?, path)) })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        for ((node, is_group), path) in found {
            documents.extend(node);
            if is_group {
                groups.push(path);
            }
        }
    }
    Ok(documents)
}

/// The documents of the node at `path`, and whether it is a group.
async fn node(store: &Store, format: Format, path: &str) -> Result<(Vec<(String, Stored)>, bool)> {
    let mut documents = Vec::new();
    let mut is_group = false;
    let names: &[&str] = match format {
        Format::V2 => &[metadata_v2::ARRAY, metadata_v2::GROUP],
        Format::V3 => &[metadata_v3::NODE],
    };
    for name in names {
        let key = key_of(path, name);
        if let Some(stored) = read(store, &key).await? {
            is_group = *name == metadata_v2::GROUP || stored.content.get("node_type") == Some(&Value::from("group"));
            documents.push((key, stored));
            break;
        }
    }
    if format == Format::V2 && !documents.is_empty() {
        let key = key_of(path, metadata_v2::ATTRIBUTES);
        if let Some(stored) = read(store, &key).await? {
            documents.push((key, stored));
        }
    }
    Ok((documents, is_group))
}

/// The directories in `group`, by asking for the first key after each: a page a directory, however many chunks it holds.
async fn directories(store: &Store, group: &str) -> Result<Vec<String>> {
    let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
    let mut directories: Vec<String> = Vec::new();
    let mut after: Option<String> = None;
    while directories.len() <= MAXIMUM_NODES {
        let next = store.list(&prefix, after.as_deref()).try_next().await?;
        let Some(key) = next.map(|meta| meta.key) else { break };
        let Some(rest) = key.strip_prefix(&prefix) else { break };
        after = Some(match rest.split_once('/') {
            Some((name, _)) => {
                let directory = format!("{prefix}{name}");
                // `0` is the character after `/`: all keys of the directory come before it.
                let end = format!("{directory}0");
                directories.push(directory);
                end
            }
            None => key,
        });
    }
    Ok(directories)
}
