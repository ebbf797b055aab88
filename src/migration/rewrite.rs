//! One object, from one version to another: read what the steps need, compute, encode, commit.
//!
//! Every read carries the ETag that was planned, and so does the commit; in between nothing is written. The new version
//! lands in footer, tag and data by that one commit.

use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::Migrations;
use super::checksum::{self, Checksums};
use super::document::{PlannedObject, State};
use super::estimate::{Place, new_bytes};
use super::fetch::{Batch, batches, joined};
use super::fuse::Fused;
use super::grants::unwritten;
use super::pool::on_pool;
use super::report::ObjectReport;
use super::scan::Sight;
use super::stamp::{AppliedStep, Previous, STAMP_KEY, Stamp};
use super::throttle::Throttle;
use crate::error::{Context, Error, Kind, Result};
use crate::parquet::encode;
use crate::parquet::encode::{Encoder, Settings};
use crate::parquet::{Change, Decision, EncodedColumns, File, Layout, Ranges, TAIL, decide, read, rewrite};
use crate::progress::Run;
use crate::store::{Carried, Checksum, ETag, Inspected, Piece};

/// Reads of one object side by side.
const CONCURRENT: usize = 8;

/// What the rewrites of a run share.
pub(super) struct Shared<'a> {
    pub(super) run: &'a Run,
    /// The run's id.
    pub(super) id: &'a str,
    pub(super) throttle: &'a Throttle,
    pub(super) place: Place,
    /// Whether the service's `ETag`s are the MD5 of contents, as the run's first record showed.
    pub(super) md5_etags: bool,
}

/// Everything about one object's rewrite that is known before its data are read.
struct Task {
    file: File,
    etag: ETag,
    fused: Arc<Fused>,
    batches: Vec<Batch>,
    decision: Decision,
}

impl Migrations {
    /// Migrates one planned object; what goes wrong with it is in its report.
    pub(super) async fn migrate(&self, object: &PlannedObject, shared: &Shared<'_>) -> ObjectReport {
        let began = tokio::time::Instant::now();
        let mut report = ObjectReport::untouched(&object.key, State::Pending, object.from, object.from);
        let mut outcome = self.rewrite_object(object, shared, &mut report).await;
        if outcome.as_ref().is_err_and(|error| error.kind() == Kind::Conflict) {
            // It was changed in the middle: by another machine with the same plan, or by somebody else.
            outcome = self.meet_other(object, shared.id, &mut report).await;
        }
        if let Err(error) = outcome {
            report.state = match error.kind() {
                // Cancelled: as if it had not been begun.
                _ if shared.run.check().is_err() => State::Pending,
                Kind::Conflict => State::Conflict,
                _ => State::Error,
            };
            report.trouble = (&error).into();
        }
        report.seconds = began.elapsed().as_secs_f64();
        report
    }

    async fn rewrite_object(
        &self,
        object: &PlannedObject,
        shared: &Shared<'_>,
        report: &mut ObjectReport,
    ) -> Result<()> {
        shared.run.check()?;
        let moved = object.bytes_read.saturating_add(object.bytes_written_estimate);
        let _admitted = shared.throttle.admit(moved, object.memory).await?;
        shared.run.check()?;
        let Some(inspected) = self.inspect(&object.key).await? else {
            return Err(Error::conflict("it was removed"));
        };
        if inspected.meta.etag.0 != object.etag {
            return Err(Error::conflict("it is not as it was planned"));
        }
        refuse_what_would_be_lost(&inspected).context(|| self.data.url_of(&object.key))?;
        let etag = inspected.meta.etag.clone();
        let whole = self.fetch_whole(object, &etag, report).await?;
        let file = self.footer(object, &etag, whole.as_ref(), report).await?;
        let fused = self.binder.fused(&object.steps, file.schema()).await?;
        let wanted = object.layout.unwrap_or(self.config.layout);
        let decision = decide(&file, &fused.change, new_bytes(&file, &fused), wanted)?;
        let batches = batches(&file, &fused)?;
        let task = Arc::new(Task { file, etag, fused, batches, decision });
        shared.run.check()?;

        let indexes = self.indexes(object, &task, whole.as_ref(), report).await?;
        let (columns, mut checksums) = self.new_columns(object, &task, whole.as_ref(), shared, report).await?;
        let kept = self.keeps(inspected.meta.version.as_deref()).await?;
        if task.decision.layout == Layout::Contiguous && !kept {
            // Nothing of the file before is left to compare with; where its bytes are near, their checksums are.
            if let Some(whole) = &whole {
                checksum::note_all(&task.file, &task.fused, whole, &mut checksums)?;
            } else if shared.place == Place::Files {
                report.bytes_read += self.note_kept(&task.file, &task.fused, &task.etag, &mut checksums).await?;
            }
        }
        shared.run.check()?;

        let key = &self.config.version.key;
        let known = known_checksum(&inspected, whole.as_ref(), shared.md5_etags)?;
        let stamp = self.stamp(object, &task, (&inspected, known), kept, shared.id);
        let mut change = task.fused.change.clone();
        change.key_values.push((key.clone(), Some(object.to.to_string())));
        change.key_values.push((STAMP_KEY.to_owned(), Some(stamp.text()?)));
        let pieces = self.lay_out(&task, &indexes, change, columns).await?;
        let pieces = match &whole {
            Some(whole) => in_hand(pieces, whole)?,
            None => pieces,
        };
        let mut carried = inspected.carried;
        if self.capabilities().await?.tags {
            carried.tags.insert(key.clone(), object.to.to_string());
        }
        check_tags(&carried, &object.key)?;
        shared.run.check()?;
        let replaced = self.data.replace(&object.key, &pieces, &task.etag, &carried, shared.id).await;
        let replaced = replaced.map_err(|error| unwritten(error, !carried.grants.is_empty()))?;
        self.footers.forget(&object.key);

        report.state = State::Done;
        report.to = Some(object.to);
        report.layout = Some(task.decision.layout);
        report.rows = task.file.rows();
        report.bytes_read += replaced.bytes_read;
        report.bytes_copied += replaced.bytes_copied;
        report.bytes_written += replaced.bytes_written;
        report.etag = Some(replaced.etag.0);
        report.version_id = replaced.version;
        report.previous = Some(stamp.previous);
        report.checksums = checksums;
        Ok(())
    }

    /// The object is not what was planned: done by an earlier try of this plan, or changed by somebody else.
    async fn meet_other(&self, object: &PlannedObject, run: &str, report: &mut ObjectReport) -> Result<()> {
        let url = self.data.url_of(&object.key);
        self.footers.forget(&object.key);
        let sight = self.look(&object.key, false).await?;
        if matches!(sight, Sight::Gone) {
            return Err(Error::conflict(format!("`{url}` was removed by somebody else since it was planned")));
        }
        if let Sight::File(looked) = sight
            && let Some(stamp) = &looked.stamp
            && stamp.previous.etag == object.etag
            && stamp.to == looked.version
            && looked.version >= object.to
        {
            report.state = State::Done;
            report.to = Some(looked.version);
            report.layout = Some(stamp.layout);
            report.etag = Some(looked.meta.etag.0.clone());
            report.version_id.clone_from(&looked.meta.version);
            if stamp.run == run {
                report.previous = Some(stamp.previous.clone());
            }
            return Ok(());
        }
        Err(Error::conflict(format!("`{url}` was changed by somebody else since it was planned"))
            .hint("their data are kept; plan again to migrate them too"))
    }

    /// A small object on a service, whole: it is put whole, so one read serves everything.
    async fn fetch_whole(
        &self,
        object: &PlannedObject,
        etag: &ETag,
        report: &mut ObjectReport,
    ) -> Result<Option<Ranges>> {
        if !object.whole {
            return Ok(None);
        }
        let bytes = self.data.get_if_match(&object.key, etag).await?;
        report.bytes_read += bytes.len() as u64;
        Ranges::new([(0..bytes.len() as u64, bytes)]).map(Some)
    }

    /// The footer: from the scan, from the whole object, or read.
    async fn footer(
        &self,
        object: &PlannedObject,
        etag: &ETag,
        whole: Option<&Ranges>,
        report: &mut ObjectReport,
    ) -> Result<File> {
        if let Some(file) = self.footers.get(&object.key, etag) {
            return Ok(file);
        }
        let start = object.size.saturating_sub(object.footer.max(TAIL));
        let tail = if let Some(whole) = whole {
            whole.get(start..object.size)?
        } else {
            let range = start..object.size;
            let mut read = self.data.get_ranges(&object.key, std::slice::from_ref(&range), Some(etag)).await?;
            report.bytes_read += range.end - range.start;
            read.pop().unwrap_or_default()
        };
        let meta = crate::store::ObjectMeta {
            key: object.key.clone(),
            size: object.size,
            etag: etag.clone(),
            version: None,
            modified: None,
        };
        self.parse(&object.key, crate::store::Object { bytes: tail, meta }).await
    }

    /// Reads ranges side by side, each by itself: near ones were joined already.
    async fn fetch(
        &self,
        key: &str,
        etag: &ETag,
        ranges: &[std::ops::Range<u64>],
        report: &mut ObjectReport,
    ) -> Result<Ranges> {
        let parts: Vec<_> = stream::iter(ranges.to_vec())
            .map(|range| async move {
                let mut read = self.data.get_ranges(key, std::slice::from_ref(&range), Some(etag)).await?;
                Ok::<_, Error>((range, read.pop().unwrap_or_default()))
            })
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        let fetched = Ranges::new(parts)?;
        report.bytes_read += fetched.bytes();
        Ok(fetched)
    }

    /// The page indexes that the new file must repeat.
    async fn indexes(
        &self,
        object: &PlannedObject,
        task: &Task,
        whole: Option<&Ranges>,
        report: &mut ObjectReport,
    ) -> Result<Ranges> {
        if let Some(whole) = whole {
            return Ok(whole.clone());
        }
        let reads = joined(&task.file.index_ranges());
        self.fetch(&object.key, &task.etag, &reads, report).await
    }

    /// Reads, computes and encodes the new columns, batch by batch; checksums of what was read and is kept.
    async fn new_columns(
        &self,
        object: &PlannedObject,
        task: &Arc<Task>,
        whole: Option<&Ranges>,
        shared: &Shared<'_>,
        report: &mut ObjectReport,
    ) -> Result<(EncodedColumns, Checksums)> {
        let mut encoder = self.encoder(task)?;
        let mut checksums = Checksums::new();
        let mut done = 0;
        for batch in &task.batches {
            shared.run.check()?;
            let fetched = match whole {
                Some(whole) => whole.clone(),
                None => self.fetch(&object.key, &task.etag, &batch.reads, report).await?,
            };
            let (row_groups, task, binder) = (batch.row_groups.clone(), task.clone(), self.binder.clone());
            done = row_groups.end;
            let name = object.key.clone();
            (encoder, checksums) = on_pool(move || {
                for row_group in row_groups {
                    let place = || format!("`{name}`, row group `{row_group}`");
                    let input = read::batch(&task.file, row_group, &task.fused.reads, &fetched).context(place)?;
                    let output = binder.evaluate(&task.fused, &input).context(place)?;
                    encoder.row_group(&output).context(place)?;
                    checksum::note(&task.file, &task.fused, row_group, &fetched, &mut checksums)?;
                }
                Ok((encoder, checksums))
            })
            .await?;
        }
        // Without inputs there is nothing to read; the row groups are there all the same.
        let (row_groups, task, binder, name) =
            (done..task.file.row_groups(), task.clone(), self.binder.clone(), object.key.clone());
        on_pool(move || {
            for row_group in row_groups {
                let place = || format!("`{name}`, row group `{row_group}`");
                let input = read::batch(&task.file, row_group, &[], &Ranges::default()).context(place)?;
                let output = binder.evaluate(&task.fused, &input).context(place)?;
                encoder.row_group(&output).context(place)?;
            }
            Ok((encoder.finish()?, checksums))
        })
        .await
    }

    fn encoder(&self, task: &Task) -> Result<Encoder> {
        let fields: Vec<_> = task.fused.change.adds.iter().map(|add| add.field.clone()).collect();
        let named = |name: &String| fields.iter().any(|field| field.name() == name);
        let compression = self.config.encode.compression.clone();
        let settings = Settings {
            compression: compression.map(|name| encode::Compression { name, level: None }),
            bloom: self.config.encode.bloom.iter().filter(|name| named(name)).cloned().collect(),
        };
        Encoder::new(&task.file, &fields, &settings)
    }

    /// The new file as pieces.
    async fn lay_out(
        &self,
        task: &Arc<Task>,
        indexes: &Ranges,
        change: Change,
        columns: EncodedColumns,
    ) -> Result<Vec<Piece>> {
        let (task, indexes) = (task.clone(), indexes.clone());
        on_pool(move || rewrite(&task.file, &indexes, &change, columns, &task.decision)).await
    }

    /// What the new file says about this migration.
    fn stamp(
        &self,
        object: &PlannedObject,
        task: &Task,
        (inspected, checksum): (&Inspected, Option<Checksum>),
        kept: bool,
        run: &str,
    ) -> Stamp {
        let before = task.file.key_value(STAMP_KEY).and_then(|text| Stamp::parse(text, &object.key).ok());
        let earlier = before.filter(|stamp| stamp.set == self.config.name);
        let steps = object.steps.iter().map(|&index| {
            let step = &self.config.steps[index];
            AppliedStep { from: step.from, to: step.to, fingerprint: step.fingerprint.clone() }
        });
        Stamp {
            set: self.config.name.clone(),
            run: run.to_owned(),
            from: object.from.unwrap_or(object.to),
            to: object.to,
            steps: steps.collect(),
            columns: (&task.fused.change).into(),
            layout: task.decision.layout,
            previous: Previous {
                etag: object.etag.clone(),
                version: inspected.meta.version.clone().filter(|_| kept),
                length: task.file.length(),
                tag: inspected.carried.tags.get(&self.config.version.key).cloned(),
                checksum: checksum.filter(|_| keeps_prefix(task.decision.layout)),
            },
            earlier: earlier.map(|stamp| stamp.applied().cloned().collect()).unwrap_or_default(),
        }
    }
}

/// What a rewrite cannot carry over, or must not touch.
pub(super) fn refuse_what_would_be_lost(inspected: &Inspected) -> Result<()> {
    if inspected.archived {
        return Err(Error::invalid("the object is in an archive").hint("restore it first, then run again"));
    }
    if inspected.locked {
        return Err(Error::invalid("the object is under a retention period or a legal hold")
            .hint("a rewrite would make a version without it; migrate it when the lock has ended"));
    }
    if inspected.customer_key {
        return Err(Error::invalid("the object is encrypted with a key that only you have (SSE-C)")
            .hint("write it again with a key of the service, or leave it out"));
    }
    if inspected.tags_unread {
        return Err(Error::invalid("the object has tags, which cannot be carried over on this kind of storage")
            .hint("take them away, and set them again afterwards; metadata are carried over"));
    }
    Ok(())
}

/// The checksum of the content before, where it is known for nothing.
fn known_checksum(inspected: &Inspected, whole: Option<&Ranges>, md5_etags: bool) -> Result<Option<Checksum>> {
    if let Some(whole) = whole {
        return Ok(Checksum::of("CRC32C", &whole.get(0..inspected.meta.size)?));
    }
    // Where KMS encrypts, an ETag is no MD5.
    let plain = inspected.carried.encryption.as_ref().is_none_or(|encryption| encryption.algorithm == "AES256");
    let etag = || Checksum::of_etag(&inspected.meta.etag).filter(|_| plain && md5_etags);
    Ok(inspected.whole.clone().or_else(etag))
}

/// S3 takes ten tags.
fn check_tags(carried: &Carried, key: &str) -> Result<()> {
    const MOST: usize = 10;
    if carried.tags.len() > MOST {
        return Err(Error::invalid(format!("`{key}` has `{MOST}` tags already, none is left for its version"))
            .hint("take a tag away"));
    }
    Ok(())
}

/// Pieces of an object that is here already, without copies.
fn in_hand(pieces: Vec<Piece>, whole: &Ranges) -> Result<Vec<Piece>> {
    let in_hand = pieces.into_iter().map(|piece| match piece {
        Piece::Copy(range) => whole.get(range).map(Piece::Bytes),
        bytes @ Piece::Bytes(_) => Ok(bytes),
    });
    in_hand.collect()
}

/// The layouts that keep the whole old file at the start of the new one.
pub(super) fn keeps_prefix(layout: Layout) -> bool {
    layout == Layout::Widened
}
