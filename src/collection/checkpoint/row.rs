//! The rows of a checkpoint, as the ledger knows them and as Parquet holds them.

use std::collections::BTreeSet;

use crate::collection::label::{Label, LabelKey};
use crate::collection::ledger::{Quarantine, Slot, SourceState, SourceVersion};
use crate::error::{Error, Result};
use crate::parquet::table::{Column, Table};

/// A row that stands in a sorted run: a later run's row of the same key replaces it.
pub(super) trait Row: Sized + Clone + Send + Sync {
    /// What files of such rows are called.
    const NAME: &'static str;
    /// The column that sorts them.
    const SORTED_BY: &'static str;

    /// What the row is about.
    fn key(&self) -> &str;
    /// Whether it says that there is nothing any more.
    fn is_gone(&self) -> bool;
    /// As a table.
    fn table(rows: &[Self]) -> Table;
    /// Out of a table.
    ///
    /// # Errors
    /// `Corrupt` when a column is missing, or a value that must be there.
    fn rows(table: Table) -> Result<Vec<Self>>;
}

/// What is known of one source.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceRow {
    pub(super) key: String,
    /// `None` where it is forgotten.
    pub(super) state: Option<SourceState>,
    /// Whether none of its labels is its own.
    pub(super) runner_up: bool,
}

/// What is known of one label.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LabelRow {
    pub(super) key: String,
    pub(super) label: Label,
    /// Without owner and claimants where nobody holds it.
    pub(super) slot: Slot,
}

impl Row for SourceRow {
    const NAME: &'static str = "sources";
    const SORTED_BY: &'static str = "key";

    fn key(&self) -> &str {
        &self.key
    }

    fn is_gone(&self) -> bool {
        self.state.is_none()
    }

    fn table(rows: &[Self]) -> Table {
        let version = |row: &Self| row.state.as_ref().map(|state| state.version.clone());
        let quarantine = |row: &Self| row.state.as_ref().and_then(|state| state.quarantine.clone());
        let state = |row: &Self| {
            let state = row.state.as_ref()?;
            Some(match (&state.quarantine, row.runner_up) {
                (Some(_), _) => "quarantined".to_owned(),
                (None, true) => "runner_up".to_owned(),
                (None, false) => "in_store".to_owned(),
            })
        };
        let earlier = |row: &Self| row.state.as_ref().and_then(|state| state.earlier.clone());
        let labels = |row: &Self| row.state.as_ref().map(|state| state.labels.iter().map(exact).collect());
        let keys =
            |row: &Self| row.state.as_ref().map(|state| state.labels.iter().map(readable).collect::<Vec<String>>());
        Table {
            columns: vec![
                text("key", rows, |row| Some(row.key.clone())),
                text("etag", rows, |row| version(row).map(|version| version.etag)),
                text("version", rows, |row| version(row)?.version),
                integer("size", rows, |row| i64::try_from(version(row)?.size).ok()),
                text("modified", rows, |row| version(row)?.modified),
                texts("labels", rows, keys),
                texts("label_keys", rows, labels),
                text("state", rows, state),
                boolean("runner_up", rows, |row| row.state.is_some().then_some(row.runner_up)),
                text("category", rows, |row| Some(quarantine(row)?.category)),
                text("message", rows, |row| Some(quarantine(row)?.message)),
                text("hint", rows, |row| quarantine(row)?.hint),
                integer("attempts", rows, |row| Some(i64::from(quarantine(row)?.attempts))),
                integer("commit", rows, |row| row.state.as_ref().map(|state| state.commit as i64)),
                text("time", rows, |row| row.state.as_ref().map(|state| state.time.clone())),
                text("earlier_etag", rows, |row| Some(earlier(row)?.etag)),
                text("earlier_version", rows, |row| earlier(row)?.version),
                integer("earlier_size", rows, |row| i64::try_from(earlier(row)?.size).ok()),
                text("earlier_modified", rows, |row| earlier(row)?.modified),
                boolean("gone", rows, |row| Some(row.is_gone())),
            ],
        }
    }

    fn rows(table: Table) -> Result<Vec<Self>> {
        let mut columns = Columns { table };
        let mut earlier = columns.earlier()?.into_iter();
        let (keys, etags, versions) = (columns.text("key")?, columns.text("etag")?, columns.text("version")?);
        let (sizes, modified, labels) =
            (columns.integer("size")?, columns.text("modified")?, columns.texts("label_keys")?);
        let (categories, messages) = (columns.text("category")?, columns.text("message")?);
        let (hints, attempts) = (columns.text("hint")?, columns.integer("attempts")?);
        let (beaten, commits) = (columns.boolean("runner_up")?, columns.integer("commit")?);
        let (times, gone) = (columns.text("time")?, columns.boolean("gone")?);
        let mut rest = etags.into_iter().zip(versions).zip(sizes).zip(modified).zip(labels).zip(categories);
        let mut more = messages.into_iter().zip(hints).zip(attempts).zip(beaten).zip(commits).zip(times).zip(gone);
        keys.into_iter()
            .map(|key| {
                let (Some((((((etag, version), size), modified), labels), category)), Some(more)) =
                    (rest.next(), more.next())
                else {
                    return Err(short());
                };
                let earlier = earlier.next().ok_or_else(short)?;
                let ((((((message, hint), attempts), runner_up), commit), time), gone) = more;
                let key = key.ok_or_else(short)?;
                if gone == Some(true) {
                    return Ok(Self { key, state: None, runner_up: false });
                }
                let quarantine = category.map(|category| Quarantine {
                    category,
                    message: message.unwrap_or_default(),
                    hint,
                    attempts: attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(1),
                });
                let labels = labels.unwrap_or_default();
                let state = SourceState {
                    version: SourceVersion {
                        etag: etag.ok_or_else(short)?,
                        version,
                        size: size.and_then(|size| u64::try_from(size).ok()).ok_or_else(short)?,
                        modified,
                    },
                    labels: labels.iter().map(|label| parsed(label)).collect::<Result<_>>()?,
                    quarantine,
                    earlier,
                    commit: commit.and_then(|commit| u64::try_from(commit).ok()).ok_or_else(short)?,
                    time: time.unwrap_or_default(),
                };
                Ok(Self { key, state: Some(state), runner_up: runner_up.unwrap_or(false) })
            })
            .collect()
    }
}

impl Row for LabelRow {
    const NAME: &'static str = "labels";
    const SORTED_BY: &'static str = "key";

    fn key(&self) -> &str {
        &self.key
    }

    fn is_gone(&self) -> bool {
        self.slot.owner.is_none() && self.slot.claimants.is_empty()
    }

    fn table(rows: &[Self]) -> Table {
        let number = |row: &Self| match &row.label {
            Label::Time(value) | Label::Integer(value) => Some(*value),
            _ => None,
        };
        Table {
            columns: vec![
                text("key", rows, |row| Some(row.key.clone())),
                text("label", rows, |row| Some(readable(&row.label))),
                integer("number", rows, number),
                text("owner", rows, |row| row.slot.owner.clone()),
                texts("claimants", rows, |row| Some(row.slot.claimants.iter().cloned().collect())),
                text("label_key", rows, |row| Some(exact(&row.label))),
                boolean("gone", rows, |row| Some(row.is_gone())),
            ],
        }
    }

    fn rows(table: Table) -> Result<Vec<Self>> {
        let mut columns = Columns { table };
        let (keys, labels) = (columns.text("key")?, columns.text("label_key")?);
        let (owners, claimants) = (columns.text("owner")?, columns.texts("claimants")?);
        keys.into_iter()
            .zip(labels)
            .zip(owners.into_iter().zip(claimants))
            .map(|((key, label), (owner, claimants))| {
                let claimants: BTreeSet<String> = claimants.unwrap_or_default().into_iter().collect();
                let label = parsed(&label.ok_or_else(short)?)?;
                Ok(Self { key: key.ok_or_else(short)?, label, slot: Slot { owner, claimants } })
            })
            .collect()
    }
}

/// The columns of a table, taken by name.
struct Columns {
    table: Table,
}

impl Columns {
    fn take(&mut self, name: &str) -> Option<Column> {
        let at = self.table.columns.iter().position(|(given, _)| given == name)?;
        Some(self.table.columns.swap_remove(at).1)
    }

    /// The versions of before, where later ones were set aside.
    fn earlier(&mut self) -> Result<Vec<Option<SourceVersion>>> {
        let (etags, versions) = (self.text("earlier_etag")?, self.text("earlier_version")?);
        let (sizes, modified) = (self.integer("earlier_size")?, self.text("earlier_modified")?);
        etags
            .into_iter()
            .zip(versions)
            .zip(sizes.into_iter().zip(modified))
            .map(|((etag, version), (size, modified))| {
                let Some(etag) = etag else { return Ok(None) };
                let size = size.and_then(|size| u64::try_from(size).ok()).ok_or_else(short)?;
                Ok(Some(SourceVersion { etag, version, size, modified }))
            })
            .collect()
    }

    fn text(&mut self, name: &str) -> Result<Vec<Option<String>>> {
        match self.take(name) {
            Some(Column::Text(values)) => Ok(values),
            other => Err(unlike(name, other.as_ref())),
        }
    }

    fn integer(&mut self, name: &str) -> Result<Vec<Option<i64>>> {
        match self.take(name) {
            Some(Column::Integer(values)) => Ok(values),
            other => Err(unlike(name, other.as_ref())),
        }
    }

    fn boolean(&mut self, name: &str) -> Result<Vec<Option<bool>>> {
        match self.take(name) {
            Some(Column::Boolean(values)) => Ok(values),
            other => Err(unlike(name, other.as_ref())),
        }
    }

    fn texts(&mut self, name: &str) -> Result<Vec<Option<Vec<String>>>> {
        match self.take(name) {
            Some(Column::Texts(values)) => Ok(values),
            other => Err(unlike(name, other.as_ref())),
        }
    }
}

fn unlike(name: &str, found: Option<&Column>) -> Error {
    let found = if found.is_some() { "one of another type" } else { "none" };
    Error::corrupt(format!("expected a column `{name}` in the checkpoint, found {found}"))
}

fn short() -> Error {
    Error::corrupt("a row of the checkpoint lacks a value")
}

fn text<R>(name: &str, rows: &[R], value: impl Fn(&R) -> Option<String>) -> (String, Column) {
    (name.to_owned(), Column::Text(rows.iter().map(value).collect()))
}

fn integer<R>(name: &str, rows: &[R], value: impl Fn(&R) -> Option<i64>) -> (String, Column) {
    (name.to_owned(), Column::Integer(rows.iter().map(value).collect()))
}

fn boolean<R>(name: &str, rows: &[R], value: impl Fn(&R) -> Option<bool>) -> (String, Column) {
    (name.to_owned(), Column::Boolean(rows.iter().map(value).collect()))
}

fn texts<R>(name: &str, rows: &[R], value: impl Fn(&R) -> Option<Vec<String>>) -> (String, Column) {
    (name.to_owned(), Column::Texts(rows.iter().map(value).collect()))
}

/// A label key as text that sorts as the keys do.
pub(super) fn sort_key(key: &LabelKey) -> String {
    match key {
        // Shifted, so that negative numbers come first.
        LabelKey::Number(value) => format!("n{:020}", i128::from(*value) - i128::from(i64::MIN)),
        LabelKey::Text(text, occurrence) => format!("t{text}#{occurrence}"),
    }
}

/// A label for people and for SQL: milliseconds since 1970, numbers and text as they are.
fn readable(label: &Label) -> String {
    match label {
        Label::Time(value) | Label::Integer(value) => value.to_string(),
        Label::Float(value) => value.to_string(),
        Label::Text(text, _) => text.clone(),
    }
}

/// A label without loss.
fn exact(label: &Label) -> String {
    match label {
        Label::Time(value) => format!("time {value}"),
        Label::Integer(value) => format!("integer {value}"),
        // The shortest text that is read back as the same number.
        Label::Float(value) => format!("float {value:?}"),
        Label::Text(text, occurrence) => format!("text {occurrence} {text}"),
    }
}

fn parsed(text: &str) -> Result<Label> {
    let label = || {
        let (kind, value) = text.split_once(' ')?;
        Some(match kind {
            "time" => Label::Time(value.parse().ok()?),
            "integer" => Label::Integer(value.parse().ok()?),
            "float" => Label::Float(value.parse().ok()?),
            "text" => {
                let (occurrence, text) = value.split_once(' ')?;
                Label::Text(text.to_owned(), occurrence.parse().ok()?)
            }
            _ => return None,
        })
    };
    label().ok_or_else(|| Error::corrupt(format!("`{text}` in the checkpoint is no label")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels() -> impl Strategy<Value = Label> {
        prop_oneof![
            any::<i64>().prop_map(Label::Time),
            any::<i64>().prop_map(Label::Integer),
            prop::num::f64::NORMAL.prop_map(Label::Float),
            ("[ a#é0-9]{0,5}", any::<u32>()).prop_map(|(text, occurrence)| Label::Text(text, occurrence)),
        ]
    }

    proptest! {
        #[test]
        fn labels_come_back_and_sort_as_their_keys_do(left in labels(), right in labels()) {
            prop_assert_eq!(parsed(&exact(&left)).unwrap(), left.clone());
            let (left, right) = (left.key(0.5), right.key(0.5));
            prop_assert_eq!(left == right, sort_key(&left) == sort_key(&right));
            if let (LabelKey::Number(left), LabelKey::Number(right)) = (&left, &right) {
                let keys = [LabelKey::Number(*left), LabelKey::Number(*right)].map(|key| sort_key(&key));
                prop_assert_eq!(left.cmp(right), keys[0].cmp(&keys[1]));
            }
        }

        #[test]
        fn rows_come_back(
            key in "[a-z/]{1,8}",
            held in prop::collection::vec(labels(), 0..3),
            kind in 0..4,
            attempts: u32,
            runner_up: bool,
        ) {
            let quarantine = (kind == 1).then(|| Quarantine {
                category: "grid".into(), message: "other".into(), hint: (attempts % 2 == 0).then(|| "mend".into()), attempts,
            });
            let version = SourceVersion { etag: "\"e\"".into(), version: (kind == 2).then(|| "v".into()), size: 7, modified: None };
            let earlier = quarantine.as_ref().map(|_| SourceVersion { etag: "before".into(), ..version.clone() });
            let state = SourceState { version, labels: held.clone(), quarantine, earlier, commit: 3, time: "2020".into() };
            let row = SourceRow { key: key.clone(), runner_up: runner_up && kind != 3, state: (kind != 3).then_some(state) };
            let rows = vec![row.clone(), row];
            prop_assert_eq!(SourceRow::rows(SourceRow::table(&rows)).unwrap(), rows);
            let slot = Slot { owner: (kind == 0).then(|| key.clone()), claimants: [key].into() };
            let row = |label: &Label| LabelRow { key: sort_key(&label.key(0.5)), label: label.clone(), slot: slot.clone() };
            let rows: Vec<LabelRow> = held.iter().map(row).collect();
            prop_assert_eq!(LabelRow::rows(LabelRow::table(&rows)).unwrap(), rows);
        }
    }
}
