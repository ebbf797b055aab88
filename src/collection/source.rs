//! A source, opened: its dimensions, attributes and variables, and where their values come from.
//!
//! Two things can be a source: a NetCDF object, read lazily chunk by chunk, and a data set in memory, which is what a
//! `preprocess` hook returns and what `write_region` is given. Both become the same [`Source`], so nothing after this
//! module knows the difference.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::convert::Packing;
use super::label::number;
use super::time::TimeUnits;
use crate::error::{Context, Error, Result};
use crate::zarr::scatter::{Runs, copy_fixed, copy_strings};
use crate::zarr::{DataType, Elements, Region, Tile, Values};

/// An opened source.
#[derive(Clone)]
pub struct Source {
    /// Its key, for messages.
    pub key: String,
    /// Length of each dimension.
    pub dimensions: BTreeMap<String, u64>,
    /// Global attributes.
    pub attributes: Map<String, Value>,
    /// Variables that can be stored, in the file's order.
    pub variables: Vec<SourceVariable>,
    /// Variables that cannot, with the reason.
    pub unsupported: Vec<(String, String)>,
}

/// One variable of an opened source.
#[derive(Clone)]
pub struct SourceVariable {
    /// Its path, `name` or `group/name`.
    pub name: String,
    /// Names of its dimensions.
    pub dimensions: Vec<String>,
    /// Their lengths.
    pub shape: Vec<u64>,
    /// How the file chunks it, where it does.
    pub chunk_shape: Option<Vec<u64>>,
    /// The type of its packed elements.
    pub data_type: DataType,
    /// Attributes, `_FillValue` left out.
    pub attributes: Map<String, Value>,
    /// The packed missing value, one little-endian element.
    pub fill: Option<Vec<u8>>,
    /// Where its packed values come from.
    pub values: Arc<dyn Values>,
}

impl Source {
    /// The variable of that name.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&SourceVariable> {
        self.variables.iter().find(|variable| variable.name == name)
    }
}

impl SourceVariable {
    /// Its packing; time units are not part of it.
    #[must_use]
    pub fn packing(&self) -> Packing {
        packing(self.data_type, &self.attributes, self.fill.clone())
    }

    /// Its CF time units, where it has some.
    ///
    /// # Errors
    /// `Invalid` where they look like time but cannot be understood.
    pub fn time_units(&self) -> Result<Option<TimeUnits>> {
        time_units(&self.attributes).context(|| format!("variable `{}`", self.name))
    }

    /// All its values, C order.
    ///
    /// # Errors
    /// What reading and decoding raise.
    pub async fn read(&self) -> Result<Elements> {
        read_values(self.values.as_ref()).await.context(|| format!("variable `{}`", self.name))
    }
}

/// Packing as attributes say it.
#[must_use]
pub fn packing(data_type: DataType, attributes: &Map<String, Value>, fill: Option<Vec<u8>>) -> Packing {
    let attribute = |name: &str| attributes.get(name).and_then(Value::as_f64);
    Packing {
        data_type,
        scale: attribute("scale_factor").unwrap_or(1.0),
        offset: attribute("add_offset").unwrap_or(0.0),
        fill,
    }
}

/// CF time units as attributes say them.
///
/// # Errors
/// `Invalid` where they look like time but cannot be understood.
pub fn time_units(attributes: &Map<String, Value>) -> Result<Option<TimeUnits>> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str);
    match text("units") {
        Some(units) => TimeUnits::parse(units, text("calendar")),
        None => Ok(None),
    }
}

/// Unpacked numbers of packed elements; missing values become NaN.
#[must_use]
pub fn unpacked(elements: &Elements, packing: &Packing) -> Vec<f64> {
    let (Elements::Fixed(bytes), Some(size)) = (elements, packing.data_type.size()) else {
        return Vec::new();
    };
    bytes
        .chunks_exact(size)
        .map(|element| {
            if packing.fill.as_deref() == Some(element) {
                f64::NAN
            } else {
                number(packing.data_type, element).to_f64() * packing.scale + packing.offset
            }
        })
        .collect()
}

/// Every value of `values`, C order.
///
/// # Errors
/// What fetching and decoding raise.
pub async fn read_values(values: &dyn Values) -> Result<Elements> {
    let tiles: Vec<usize> = (0..values.tiles().len()).collect();
    let encoded = values.fetch(&tiles).await?;
    let whole = Region::whole(values.shape());
    let count = usize::try_from(whole.element_count()).map_err(|_| Error::invalid("too many elements to hold"))?;
    let mut target = match values.data_type().size() {
        Some(size) => Elements::Fixed(vec![0; count * size]),
        None => Elements::Strings(vec![String::new(); count]),
    };
    for (tile, encoded) in tiles.into_iter().zip(&encoded) {
        let decoded = values.decode(tile, encoded, Vec::new())?;
        let Tile { region, decoded_shape, .. } = &values.tiles()[tile];
        let origin = vec![0; region.dimensionality()];
        let runs = Runs::new(&region.shape, (&origin, decoded_shape), (&region.start, values.shape()));
        match (&decoded, &mut target) {
            (Elements::Fixed(source), Elements::Fixed(target)) => {
                copy_fixed(&runs, values.data_type().size().unwrap_or(1), source, target);
            }
            (Elements::Strings(source), Elements::Strings(target)) => copy_strings(&runs, source, target),
            _ => return Err(Error::internal("numbers decoded to strings, or strings to numbers")),
        }
    }
    Ok(target)
}
