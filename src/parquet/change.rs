//! What a migration does to the columns of a file, and what the file's columns become.

use std::collections::HashSet;

use arrow_schema::{Field, Schema};
use parquet::arrow::ArrowSchemaConverter;
use parquet::schema::types::SchemaDescriptor;

use super::File;
use super::agreement::guarded;
use crate::error::{Error, Result};

/// What one (fused) migration does to a file, in the names of top-level columns.
///
/// Names that are dropped, renamed or replaced are those of the file as it is; the others are those of the result. Kept
/// and replaced columns keep their order, new ones follow in the order of `adds`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Columns that go.
    pub drops: Vec<String>,
    /// Columns that get another name, and the name.
    pub renames: Vec<(String, String)>,
    /// Columns that come.
    pub adds: Vec<Add>,
    /// Key-values of the footer: set, or removed where there is no value.
    pub key_values: Vec<(String, Option<String>)>,
}

/// A new column.
#[derive(Debug, Clone, PartialEq)]
pub struct Add {
    /// Its name, type and nullability in the result.
    pub field: Field,
    /// The column (its name in the file as it is) that it takes the place of: a recast column.
    pub replaces: Option<String>,
}

/// A column of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) origin: Origin,
}

/// Where a column of the result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The top-level column of the file with this number.
    Kept(usize),
    /// An added column takes the place of one of the file.
    Recast { root: usize, add: usize },
    /// The added column with this number.
    Added(usize),
}

impl Change {
    /// Whether any column comes, goes or changes.
    #[must_use]
    pub fn changes_columns(&self) -> bool {
        !(self.drops.is_empty() && self.renames.is_empty() && self.adds.is_empty())
    }

    /// The columns of the result in their order.
    pub(super) fn targets(&self, file: &File) -> Result<Vec<Target>> {
        let roots = file.roots();
        let find = |name: &str| {
            let mut found = (0..roots.len()).filter(|&root| roots[root].name == name);
            match (found.next(), found.next()) {
                (Some(root), None) => Ok(root),
                (None, _) => Err(missing(file, name)),
                (Some(_), Some(_)) => {
                    Err(Error::invalid(format!("`{}`: expected one column `{name}`, found several", file.name())))
                }
            }
        };
        let mut targets: Vec<Option<Target>> = roots
            .iter()
            .enumerate()
            .map(|(root, column)| Some(Target { name: column.name.clone(), origin: Origin::Kept(root) }))
            .collect();
        let mut touched = HashSet::new();
        let mut touch = |root: usize| {
            if touched.insert(root) {
                return Ok(());
            }
            let name = &roots[root].name;
            Err(Error::invalid(format!("column `{name}` is dropped, renamed or replaced twice"))
                .hint("a fused change names each column of the file once"))
        };
        for name in &self.drops {
            let root = find(name)?;
            touch(root)?;
            targets[root] = None;
        }
        for (from, to) in &self.renames {
            let root = find(from)?;
            touch(root)?;
            targets[root] = Some(Target { name: to.clone(), origin: Origin::Kept(root) });
        }
        for (add, column) in self.adds.iter().enumerate() {
            let name = column.field.name().clone();
            if let Some(replaced) = &column.replaces {
                let root = find(replaced)?;
                touch(root)?;
                targets[root] = Some(Target { name, origin: Origin::Recast { root, add } });
            } else {
                targets.push(Some(Target { name, origin: Origin::Added(add) }));
            }
        }
        let targets: Vec<Target> = targets.into_iter().flatten().collect();
        // Names that occur twice in the file and are not touched are its own affair.
        let mut seen: HashSet<&str> = HashSet::new();
        for target in &targets {
            if !seen.insert(&target.name) {
                let named = |name: &String| *name == target.name;
                if self.adds.iter().any(|add| named(add.field.name())) || self.renames.iter().any(|(_, to)| named(to)) {
                    return Err(Error::invalid(format!(
                        "`{}`: expected a new name, found that there is a column `{}` already",
                        file.name(),
                        target.name
                    ))
                    .hint("rename or drop the old column in the same step, or cast it"));
                }
            }
        }
        if targets.is_empty() {
            return Err(Error::invalid(format!("`{}`: expected a column to stay, found that all go", file.name())));
        }
        Ok(targets)
    }

    /// The Parquet schema of the new columns alone, in the order of `adds`.
    pub(super) fn added_schema(&self) -> Result<SchemaDescriptor> {
        for add in &self.adds {
            converted(std::slice::from_ref(&add.field)).map_err(|message| {
                Error::invalid(format!(
                    "column `{}` of type `{}` cannot be stored in Parquet: {message}",
                    add.field.name(),
                    add.field.data_type()
                ))
                .hint("cast it to another type")
            })?;
        }
        let fields: Vec<Field> = self.adds.iter().map(|add| add.field.clone()).collect();
        converted(&fields).map_err(Error::internal)
    }
}

fn converted(fields: &[Field]) -> Result<SchemaDescriptor, String> {
    let schema = Schema::new(fields.to_vec());
    guarded(|| ArrowSchemaConverter::new().convert(&schema))
}

fn missing(file: &File, name: &str) -> Error {
    let names: Vec<String> = file.roots().iter().map(|root| format!("`{}`", root.name)).collect();
    Error::invalid(format!("`{}`: expected a column `{name}`, found none of this name", file.name()))
        .hint(format!("the columns are {}", names.join(", ")))
}
