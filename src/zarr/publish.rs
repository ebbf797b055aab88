//! Storing metadata: a new hierarchy, and changes of one that was opened. See `group` for the design.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};

use super::array::{Array, Format};
use super::consolidated;
use super::create::GroupSpec;
use super::document::render;
use super::group::{Group, Stored, read};
use super::metadata::key_of;
use super::{metadata_v2, metadata_v3};
use crate::error::{Context, Error, Result};
use crate::store::{Condition, ETag, PutAnswer, Store};

/// Documents written side by side.
const CONCURRENCY: usize = 16;

impl Group {
    /// Creates the store: documents of arrays first, what makes it a store last, so that a reader never opens a half one.
    ///
    /// # Errors
    /// `Conflict` where there is a store already, or another writer was first; `Invalid` where the specification
    /// contradicts itself.
    pub async fn create(store: &Store, spec: &GroupSpec) -> Result<Self> {
        let what = || format!("while creating `{}`", store.url());
        let mut arrays = BTreeMap::new();
        for array in &spec.arrays {
            if arrays.insert(array.path.clone(), array.array(spec.format).context(what)?).is_some() {
                return Err(Error::invalid(format!("array `{}` is there twice", array.path)).context(what()));
            }
        }
        if let Some(path) = arrays.keys().find(|path| !is_path(path)) {
            return Err(Error::invalid(format!("`{path}` is no path of an array")).context(what()));
        }
        for existing in [metadata_v3::NODE, metadata_v2::GROUP, consolidated::OBJECT] {
            if store.head(existing).await?.is_some() {
                return Err(exists(store));
            }
        }
        let mut documents: Vec<(String, Map<String, Value>)> = Vec::new();
        for group in ancestors(arrays.keys()) {
            let key = key_of(&group, consolidated::group_name(spec.format));
            documents.push((key, consolidated::group_document(spec.format, &Map::new())));
        }
        for array in arrays.values() {
            documents.extend(array.documents().into_iter().filter(|(_, document)| !document.is_empty()));
        }
        let mut stored: BTreeMap<String, Stored> = stream::iter(documents)
            .map(|(key, content)| async move {
                let etag = Some(leave(store, &key, &content).await?);
                Ok::<_, Error>((key, Stored { content, etag }))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
            .context(what)?;
        let root = consolidated::group_document(spec.format, &spec.attributes);
        let mut holder = match spec.format {
            Format::V2 => {
                let attributes = (metadata_v2::ATTRIBUTES, spec.attributes.clone());
                for (key, content) in [attributes, (metadata_v2::GROUP, root)] {
                    if !content.is_empty() {
                        let etag = Some(leave(store, key, &content).await.context(what)?);
                        stored.insert(key.to_owned(), Stored { content, etag });
                    }
                }
                Map::new()
            }
            Format::V3 => root,
        };
        consolidated::update(spec.format, &mut holder, stored.iter().map(|(key, stored)| (key, &stored.content)));
        let keys: Vec<String> = stored.keys().cloned().collect();
        store.sync(&keys).await?;
        let key = consolidated::key(spec.format);
        match store.put_if(key, render(&holder), Condition::Absent).await.context(what)? {
            PutAnswer::Ours(etag) => {
                stored.insert(key.to_owned(), Stored { content: holder, etag: Some(etag) });
            }
            PutAnswer::Theirs => return Err(exists(store)),
        }
        store.sync(&[key.to_owned()]).await?;
        Self::from_documents(store, spec.format, stored, true)
    }

    /// Adds an array that the store does not have yet; stored by [`Group::publish`].
    ///
    /// # Errors
    /// `Invalid` where there is an array of its path, or it is of the other format.
    pub fn insert(&mut self, array: Array) -> Result<()> {
        let taken = self.arrays.contains_key(&array.path) || self.refused.contains_key(&array.path);
        if taken || array.format != self.format || !is_path(&array.path) {
            let (path, format) = (&array.path, self.format);
            return Err(Error::invalid(format!("array `{path}` cannot be added to this store of {format:?}")));
        }
        self.arrays.insert(array.path.clone(), array);
        Ok(())
    }

    /// Reads the arrays' own documents, which may be ahead of what consolidates them where a change was cut off: then
    /// [`Group::publish`] brings them back.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub async fn reread(&mut self) -> Result<()> {
        let known: Vec<String> =
            self.documents.iter().filter(|(_, stored)| stored.etag.is_none()).map(|(key, _)| key.clone()).collect();
        let tasks: Vec<_> = known.iter().map(|key| read(&self.store, key).boxed()).collect();
        let found: Vec<Option<Stored>> = stream::iter(tasks).buffered(CONCURRENCY).try_collect().await?;
        for (key, stored) in known.into_iter().zip(found) {
            match stored {
                Some(stored) => drop(self.documents.insert(key, stored)),
                None => drop(self.documents.remove(&key)),
            }
        }
        Ok(())
    }

    /// Stores what changed since it was opened, or last published: documents of arrays, then consolidated metadata, each
    /// only where it is still what was read. Returns the keys that were written, in order; nothing changed, nothing written.
    ///
    /// # Errors
    /// `Conflict` where another writer changed a document meanwhile. Then some of the documents of arrays may be
    /// stored, but the consolidated metadata is not: readers see the store as it was.
    pub async fn publish(&mut self) -> Result<Vec<String>> {
        let what = format!("while publishing `{}`", self.store.url());
        self.publish_changes().await.map_err(|error| error.context(what))
    }

    async fn publish_changes(&mut self) -> Result<Vec<String>> {
        let holder_key = consolidated::key(self.format);
        let changes = self.changes();
        let store = &self.store;
        let known = &self.documents;
        let written: Vec<(String, Stored, bool)> = stream::iter(changes.clone())
            .map(|(key, content)| async move {
                let (etag, is_written) = replace(store, &key, &content, known.get(&key)).await?;
                Ok::<_, Error>((key, Stored { content, etag: Some(etag) }, is_written))
            })
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        let mut keys: Vec<String> =
            written.iter().filter(|(_, _, is_written)| *is_written).map(|(key, _, _)| key.clone()).collect();
        self.store.sync(&keys).await?;
        let mut holder = self.documents.get(holder_key).cloned().unwrap_or(Stored { content: Map::new(), etag: None });
        let before = holder.content.clone();
        if self.format == Format::V3 && (!self.attributes.is_empty() || before.contains_key("attributes")) {
            holder.content.insert("attributes".to_owned(), self.attributes.clone().into());
        }
        if let Some(array) = self.arrays.get("").filter(|array| array.format == Format::V3) {
            holder.content = metadata_v3::document(array);
        }
        if self.is_consolidated {
            // Those that are what they should be as well: consolidated metadata may be behind them (`reread`).
            let known = self.documents.iter().filter(|(key, _)| *key != holder_key);
            let known = known.map(|(key, stored)| (key, &stored.content));
            consolidated::update(self.format, &mut holder.content, known.chain(changes.iter()));
        }
        if holder.content != before {
            let etag = holder.etag.take();
            holder.etag = Some(put(&self.store, holder_key, &holder.content, etag).await?);
            self.store.sync(&[holder_key.to_owned()]).await?;
            self.documents.insert(holder_key.to_owned(), holder);
            keys.push(holder_key.to_owned());
        }
        self.documents.extend(written.into_iter().map(|(key, stored, _)| (key, stored)));
        Ok(keys)
    }

    /// The documents that are not what is stored, but for the holder of consolidated metadata.
    fn changes(&self) -> BTreeMap<String, Map<String, Value>> {
        let mut documents: Vec<(String, Map<String, Value>)> = Vec::new();
        for group in ancestors(self.arrays.keys()) {
            let key = key_of(&group, consolidated::group_name(self.format));
            if !self.documents.contains_key(&key) {
                documents.push((key, consolidated::group_document(self.format, &Map::new())));
            }
        }
        for array in self.arrays.values().filter(|array| !array.path.is_empty() || self.format == Format::V2) {
            documents.extend(array.documents());
        }
        if self.format == Format::V2 && !self.arrays.contains_key("") {
            documents.push((metadata_v2::ATTRIBUTES.to_owned(), self.attributes.clone()));
        }
        let is_changed = |(key, document): &(String, Map<String, Value>)| match self.documents.get(key) {
            Some(stored) => stored.content != *document,
            None => !document.is_empty(),
        };
        documents.into_iter().filter(is_changed).collect()
    }
}

/// Whether `path` names a node below the root.
fn is_path(path: &str) -> bool {
    path.split('/').all(|name| !name.is_empty() && !name.starts_with('.') && !name.starts_with("__"))
}

/// The groups between the root and the arrays at `paths`.
fn ancestors<'a>(paths: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut groups: Vec<String> =
        paths.flat_map(|path| path.match_indices('/').map(|(position, _)| path[..position].to_owned())).collect();
    groups.sort();
    groups.dedup();
    groups
}

fn exists(store: &Store) -> Error {
    Error::conflict(format!("there is a Zarr store at `{}` already", store.url())).hint("plan again: it will be opened")
}

fn changed(store: &Store, key: &str) -> Error {
    Error::conflict(format!("`{}` is not what it was: another writer changed it", store.url_of(key)))
        .hint("plan again; no other program may write to the store meanwhile")
}

/// Writes a document of a store that is not one yet; the same document may be there from an earlier attempt.
async fn leave(store: &Store, key: &str, content: &Map<String, Value>) -> Result<ETag> {
    if let PutAnswer::Ours(etag) = store.put_if(key, render(content), Condition::Absent).await? {
        return Ok(etag);
    }
    match read(store, key).await? {
        Some(Stored { content: found, etag: Some(etag) }) if found == *content => Ok(etag),
        _ => {
            let url = store.url_of(key);
            Err(Error::conflict(format!("`{url}` is there already, and is not what would be written"))
                .hint(format!("if no other writer is at work, remove what is left at `{}`", store.url())))
        }
    }
}

/// Writes a document where it is as it was read.
async fn put(store: &Store, key: &str, content: &Map<String, Value>, etag: Option<ETag>) -> Result<ETag> {
    let condition = etag.map_or(Condition::Absent, Condition::Matches);
    match store.put_if(key, render(content), condition).await? {
        PutAnswer::Ours(etag) => Ok(etag),
        PutAnswer::Theirs => Err(changed(store, key)),
    }
}

/// Brings a document from what is known of it to `content`; the second answer is whether it had to be written.
async fn replace(
    store: &Store,
    key: &str,
    content: &Map<String, Value>,
    known: Option<&Stored>,
) -> Result<(ETag, bool)> {
    let etag = match known {
        None => None,
        Some(Stored { etag: Some(etag), .. }) => Some(etag.clone()),
        // Known from consolidated metadata only: look at the document itself.
        Some(Stored { content: expected, etag: None }) => match read(store, key).await? {
            Some(Stored { content: found, etag: Some(etag) }) => {
                if found == *content {
                    return Ok((etag, false));
                }
                if found != *expected && !is_between(&found, expected, content) {
                    return Err(changed(store, key));
                }
                Some(etag)
            }
            _ => None,
        },
    };
    put(store, key, content, etag).await.map(|etag| (etag, true))
}

/// Whether `found` is the trace of a commit that died before its consolidated metadata was written: nothing but the
/// shape differs from what was `expected`, and it lies on the way to what is `wanted`.
fn is_between(found: &Map<String, Value>, expected: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    let without_shape = |document: &Map<String, Value>| {
        let mut document = document.clone();
        document.shift_remove("shape");
        document
    };
    let shape = |document: &Map<String, Value>| -> Option<Vec<u64>> {
        document.get("shape").unwrap_or(&json!([])).as_array()?.iter().map(Value::as_u64).collect()
    };
    let rest = without_shape(found);
    if rest != without_shape(expected) && rest != without_shape(wanted) {
        return false;
    }
    match (shape(found), shape(expected), shape(wanted)) {
        (Some(found), Some(expected), Some(wanted)) => {
            found.len() == wanted.len()
                && found.len() == expected.len()
                && (0..found.len()).all(|at| expected[at] <= found[at] && found[at] <= wanted[at])
        }
        _ => false,
    }
}
