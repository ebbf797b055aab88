//! Whether a source fits the store, and how its values get there.
//!
//! What may differ from source to source is converted (packing, time units, text length); what may not is an error that
//! names the variable, what was expected and what was found: the grid, the order of dimensions, physical units. xarray's
//! append replaces the store's latitudes by the last file's (xarray issue 11101); here they are written once and compared
//! ever after.

use std::collections::HashMap;
use std::sync::Arc;

use super::config::{Config, Guard, Missing};
use super::convert::{Conversion, Converted, Packing, is_number};
use super::label::{Label, LabelKind, join, texts};
use super::ledger::Quarantine;
use super::source::{Source, SourceVariable, unpacked};
use super::structure::{Role, StoreArray, Structure};
use super::text::{ResizedText, TextAsStrings};
use crate::error::{Context, Error, Result};
use crate::zarr::{DataType, Elements, Values};

/// Values of the store's static arrays, read once a run.
pub type Grids = HashMap<String, Elements>;

/// A reason to set a source aside.
#[derive(Debug, Clone)]
pub struct Misfit {
    /// Category, as in [`Quarantine::category`].
    pub category: &'static str,
    /// What was expected and found.
    pub error: Error,
}

impl Misfit {
    /// With a category.
    #[must_use]
    pub fn new(category: &'static str, error: Error) -> Self {
        Self { category, error }
    }

    /// As the ledger keeps it.
    #[must_use]
    pub fn quarantine(&self, attempts: u32) -> Quarantine {
        Quarantine {
            category: self.category.to_owned(),
            message: self.error.message(),
            hint: self.error.hint_text().map(str::to_owned),
            attempts,
        }
    }
}

/// The values of a source for each array of the store that it has, by array path.
pub type Fitted = HashMap<String, Arc<dyn Values>>;

/// Checks a source against the store's structure and grids.
///
/// # Errors
/// [`Misfit`] of category `structure`, `grid`, `missing_variable` or `unreadable`.
pub async fn fit(source: &Source, structure: &Structure, grids: &Grids, config: &Config) -> Result<Fitted, Misfit> {
    let strict = config.guards.structure == Guard::Error;
    let mut fitted = Fitted::new();
    for array in &structure.arrays {
        let path = &array.array.path;
        let Some(variable) = source.variable(path) else {
            if let Some((_, why)) = source.unsupported.iter().find(|(name, _)| name == path) {
                return Err(Misfit::new(
                    "structure",
                    Error::invalid(format!("variable `{path}` cannot be read: {why}")),
                ));
            }
            let required = match array.role {
                Role::Key => true,
                Role::Data => config.variables.missing == Missing::Error,
                Role::Static | Role::Provenance => false,
            };
            if required {
                let error = Error::invalid(format!("expected variable `{path}`, found none"))
                    .hint("set `variables.missing: fill` to take sources without it");
                return Err(Misfit::new("missing_variable", error));
            }
            continue;
        };
        let named = |error: Error| error.context(format!("variable `{path}`"));
        check_shape(variable, array, structure, config).map_err(|error| Misfit::new("structure", named(error)))?;
        if strict {
            check_units(variable, array).map_err(|error| Misfit::new("structure", named(error)))?;
        }
        if array.role == Role::Static {
            if strict && let Some(grid) = grids.get(path) {
                let found = variable.read().await.map_err(|error| Misfit::new("unreadable", error))?;
                compare_static(variable, &found, array, grid, config)
                    .map_err(|error| Misfit::new("grid", named(error)))?;
            }
            if array.to_create.is_none() {
                continue;
            }
        }
        let max_error = config.variables.packing.get(&variable.name).and_then(|packing| packing.max_error);
        let values = convert(variable, array, max_error).map_err(|error| Misfit::new("structure", named(error)))?;
        fitted.insert(path.clone(), values);
    }
    Ok(fitted)
}

fn check_shape(variable: &SourceVariable, array: &StoreArray, structure: &Structure, config: &Config) -> Result<()> {
    let names = &array.array.dimension_names;
    if variable.dimensions != *names {
        return Err(Error::invalid(format!("expected dimensions {names:?}, found {:?}", variable.dimensions))
            .hint("transpose or rename in a `preprocess` hook; dimensions are matched by name and order"));
    }
    for (position, name) in names.iter().enumerate() {
        let (found, expected) = (variable.shape[position], array.array.shape[position]);
        if *name == structure.axis {
            continue;
        }
        if config.variables.pad.contains_key(name) {
            if found > expected {
                return Err(Error::invalid(format!(
                    "expected at most `{expected}` along padded dimension `{name}`, found `{found}`"
                ))
                .hint("make a store with a larger `variables.pad`"));
            }
        } else if found != expected {
            return Err(Error::invalid(format!("expected `{expected}` along dimension `{name}`, found `{found}`"))
                .hint("a different grid needs a store of its own, or `variables.pad` where lengths vary"));
        }
    }
    Ok(())
}

fn check_units(variable: &SourceVariable, array: &StoreArray) -> Result<()> {
    if array.role != Role::Data || array.time.is_some() {
        return Ok(());
    }
    let expected = array.array.attributes.get("units");
    let found = variable.attributes.get("units");
    match (expected, found) {
        (Some(expected), Some(found)) if expected != found => {
            Err(Error::invalid(format!("expected units {expected}, found {found}"))
                .hint("convert in a `preprocess` hook, or set `guards.structure: allow` where both mean the same"))
        }
        _ => Ok(()),
    }
}

/// Compares a variable that does not depend on the axis with what the store holds.
fn compare_static(
    variable: &SourceVariable,
    found: &Elements,
    array: &StoreArray,
    expected: &Elements,
    config: &Config,
) -> Result<()> {
    if found == expected && variable.data_type == array.array.data_type {
        return Ok(());
    }
    let different = |index: usize, expected: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        Error::invalid(format!("expected `{expected}` at index `{index}`, as in the store, found `{found}`")).hint(
            "a different grid needs a store of its own; leave the variable out by `variables.exclude` if it may vary",
        )
    };
    if !is_number(variable.data_type) {
        let (found, expected) = (texts(found, variable.data_type), texts(expected, array.array.data_type));
        return match found.iter().zip(&expected).position(|(found, expected)| found != expected) {
            Some(index) => Err(different(index, &expected[index], &found[index])),
            None => Ok(()),
        };
    }
    let found = unpacked(found, &variable.packing());
    let expected = unpacked(expected, &array.packing);
    let tolerance = config.region.tolerance.unwrap_or_else(|| grid_tolerance(&expected, &array.array.shape));
    let mismatch = found.iter().zip(&expected).position(|(found, expected)| {
        !((found - expected).abs() <= tolerance || (found.is_nan() && expected.is_nan()))
    });
    match mismatch {
        Some(index) => Err(different(index, &expected[index], &found[index])),
        None => Ok(()),
    }
}

/// A thousandth of a mean grid step: float32 and float64 of one grid agree, neighbouring grids do not.
fn grid_tolerance(values: &[f64], shape: &[u64]) -> f64 {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let steps = shape.iter().copied().max().unwrap_or(1).saturating_sub(1).max(1) as f64;
    if low < high { (high - low) / steps * 1e-3 } else { low.abs() * 1e-6 }
}

/// The values of a variable as the store's array holds them.
///
/// # Errors
/// `Invalid` where there is no conversion between the two.
pub fn convert(variable: &SourceVariable, array: &StoreArray, max_error: Option<f64>) -> Result<Arc<dyn Values>> {
    let mut max_error = max_error;
    let target = array.array.data_type;
    let what = format!("variable `{}`", variable.name);
    match (variable.data_type, target) {
        (DataType::FixedBytes { length: found }, DataType::FixedBytes { length: expected }) if found == expected => {
            return Ok(variable.values.clone());
        }
        (DataType::FixedBytes { .. }, DataType::FixedBytes { .. } | DataType::FixedUtf32 { .. }) => {
            return Ok(Arc::new(ResizedText::new(variable.values.clone(), target, what)));
        }
        (DataType::FixedBytes { .. }, DataType::String) => {
            return Ok(Arc::new(TextAsStrings::new(variable.values.clone())));
        }
        (found, expected) if found == expected && !is_number(found) => return Ok(variable.values.clone()),
        _ => {}
    }
    let mut from = variable.packing();
    if let (Some(found), Some(expected)) = (variable.time_units()?, array.time) {
        let (factor, shift) = found.affine_to(&expected).ok_or_else(|| {
            Error::invalid(format!("expected calendar {:?}, found {:?}", expected.calendar(), found.calendar()))
        })?;
        from.scale *= factor;
        from.offset = from.offset * factor + shift;
        // Half a millisecond in the store's units: what labels are matched by.
        max_error = max_error.or(Some((expected.value_of(1) - expected.value_of(0)).abs() * 0.5));
    } else if array.time.is_some() != variable.time_units()?.is_some() && array.role == Role::Key {
        return Err(Error::invalid("expected CF time units as in the store, found none"));
    }
    let to = Packing { data_type: target, ..array.packing.clone() };
    Ok(match Conversion::between(&from, &to, max_error)? {
        None => variable.values.clone(),
        Some(conversion) => Arc::new(Converted::new(variable.values.clone(), conversion, what)),
    })
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        misfit.error
    }
}

/// Adds the category to an error.
pub trait Category<T> {
    /// As a misfit of `category`.
    ///
    /// # Errors
    /// The error that was there.
    fn category(self, category: &'static str) -> Result<T, Misfit>;
}

impl<T> Category<T> for Result<T> {
    fn category(self, category: &'static str) -> Result<T, Misfit> {
        self.map_err(|error| Misfit::new(category, error))
    }
}

/// The labels of a source along the axis.
///
/// # Errors
/// [`Misfit`] of category `label` where one is missing, of `structure` where the key is.
pub async fn labels(source: &Source, config: &Config) -> Result<Vec<Label>, Misfit> {
    let axis = super::structure::axis_of(source, &config.region.key, config.region.dimension.as_deref())
        .category("structure")?;
    let mut columns = Vec::new();
    for name in config.region.key.names() {
        let variable = source
            .variable(name)
            .ok_or_else(|| Error::invalid(format!("expected variable `{name}`, which `region.key` names, found none")))
            .category("structure")?;
        if variable.dimensions != [axis.clone()] {
            return Err(Misfit::new(
                "structure",
                Error::invalid(format!(
                    "variable `{name}`: expected dimensions [\"{axis}\"], found {:?}",
                    variable.dimensions
                ))
                .hint("a key has one value for each step of the axis"),
            ));
        }
        let text = |attribute: &str| variable.attributes.get(attribute).and_then(serde_json::Value::as_str);
        let kind = LabelKind::of(variable.data_type, text("units"), text("calendar")).category("label")?;
        let elements = variable.read().await.category("unreadable")?;
        let labels = kind
            .labels(&elements, variable.data_type, variable.fill.as_deref())
            .context(|| format!("variable `{name}`"))
            .category("label")?;
        columns.push((kind, labels));
    }
    let labels = join(columns);
    let blank = |label: &Label| matches!(label, Label::Text(text, _) if text.trim_matches(['|', ' ']).is_empty());
    if let Some(step) = labels.iter().position(blank) {
        let error = Error::invalid(format!("the label at index `{step}` is blank, so it cannot be told from others"))
            .hint("join what is unique: `region.key: [PLATFORM_NUMBER, CYCLE_NUMBER, DIRECTION]`, for instance");
        return Err(Misfit::new("label", error));
    }
    Ok(labels)
}
