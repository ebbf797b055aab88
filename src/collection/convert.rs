//! Packing: values move raw where source and store agree, and are repacked under an error bound where they do not.
//!
//! CF section 8.1: unpacked = packed · `scale_factor` + `add_offset`. Files of one data set often choose these anew each day;
//! copying their packed integers into one store is silently wrong by up to several kelvin (VirtualiZarr issue 1059). Here a
//! conversion is exact, or within the bound, or an error: never a silent change. Missing values map onto missing values, and
//! a NaN is never cast into an integer that has no fill value.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::zarr::{DataType, Elements, Tile, Values};

/// How numbers are held: data type, linear packing, missing value.
#[derive(Debug, Clone, PartialEq)]
pub struct Packing {
    /// The type of a packed element.
    pub data_type: DataType,
    /// `scale_factor`, 1 where there is none.
    pub scale: f64,
    /// `add_offset`, 0 where there is none.
    pub offset: f64,
    /// The packed missing value, one little-endian element.
    pub fill: Option<Vec<u8>>,
}

impl Packing {
    /// Whether scale and offset are the same, bit for bit.
    fn is_packed_like(&self, other: &Self) -> bool {
        self.scale.to_bits() == other.scale.to_bits() && self.offset.to_bits() == other.offset.to_bits()
    }
}

/// A change from one packing to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversion {
    from: Packing,
    to: Packing,
    max_error: f64,
}

impl Conversion {
    /// The conversion between two packings; `None` where the packed values agree as they are. Without `max_error` the bound
    /// is half a step of the target: half its scale for integers, its rounding for floats.
    ///
    /// # Errors
    /// `Invalid` where either type is not a number and the types differ, or the target's scale is zero.
    pub fn between(from: &Packing, to: &Packing, max_error: Option<f64>) -> Result<Option<Self>> {
        let same_fill = from.fill.is_none() || from.fill == to.fill;
        if from.data_type == to.data_type && from.is_packed_like(to) && same_fill {
            return Ok(None);
        }
        if !is_number(from.data_type) || !is_number(to.data_type) {
            return Err(Error::invalid(format!(
                "expected elements of type `{:?}`, found `{:?}`: no conversion between them",
                to.data_type, from.data_type
            )));
        }
        if to.scale == 0.0 || !to.scale.is_finite() || !from.scale.is_finite() {
            return Err(Error::invalid(format!(
                "`scale_factor` is `{}`, expected a finite number other than 0",
                to.scale
            )));
        }
        let half_step = if is_float(to.data_type) { f64::INFINITY } else { to.scale.abs() * (0.5 + 1e-9) };
        Ok(Some(Self { from: from.clone(), to: to.clone(), max_error: max_error.unwrap_or(half_step) }))
    }

    /// Converts packed little-endian elements.
    ///
    /// # Errors
    /// `Invalid` with the first value that cannot be represented, and why.
    pub fn apply(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        macro_rules! from_type {
            ($($variant:ident => $kind:ty),*) => {
                match self.from.data_type {
                    $(DataType::$variant => self.apply_from::<$kind>(bytes),)*
                    other => Err(Error::internal(format!("no numbers of type {other:?}"))),
                }
            };
        }
        from_type!(Bool => u8, Int8 => i8, UInt8 => u8, Int16 => i16, UInt16 => u16, Int32 => i32, UInt32 => u32,
            Int64 => i64, UInt64 => u64, Float32 => f32, Float64 => f64)
    }

    fn apply_from<From: Element>(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        macro_rules! to_type {
            ($($variant:ident => $kind:ty),*) => {
                match self.to.data_type {
                    $(DataType::$variant => self.apply_between::<From, $kind>(bytes),)*
                    other => Err(Error::internal(format!("no numbers of type {other:?}"))),
                }
            };
        }
        to_type!(Bool => u8, Int8 => i8, UInt8 => u8, Int16 => i16, UInt16 => u16, Int32 => i32, UInt32 => u32,
            Int64 => i64, UInt64 => u64, Float32 => f32, Float64 => f64)
    }

    fn apply_between<From: Element, To: Element>(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let from_fill = self.from.fill.as_deref().map(From::read);
        let to_fill = self.to.fill.as_deref().map(To::read);
        let identity = self.from.is_packed_like(&self.to);
        let mut converted = Vec::with_capacity(bytes.len() / From::SIZE * To::SIZE);
        for element in bytes.chunks_exact(From::SIZE) {
            let raw = From::read(element);
            let missing = from_fill.is_some_and(|fill| raw.same(fill)) || (raw.is_nan() && !To::FLOAT);
            let packed = if missing {
                to_fill.ok_or_else(|| {
                    self.not_representable("a missing value", "the store's variable has no `_FillValue`")
                })?
            } else if identity && !From::FLOAT && !To::FLOAT {
                // Integers of one packing: exact or not at all, without a detour through floats.
                To::from_integer(raw.to_integer())
                    .ok_or_else(|| self.not_representable(&raw.to_integer().to_string(), "it is out of range"))?
            } else {
                let value = if identity { raw.to_float() } else { raw.to_float() * self.from.scale + self.from.offset };
                let scaled = if identity { value } else { (value - self.to.offset) / self.to.scale };
                let packed = To::from_float(scaled)
                    .ok_or_else(|| self.not_representable(&value.to_string(), "it is out of range"))?;
                let back =
                    if identity { packed.to_float() } else { packed.to_float() * self.to.scale + self.to.offset };
                let error = (back - value).abs();
                if error > self.max_error {
                    let reason = format!("the error `{error:e}` exceeds `{:e}`", self.max_error);
                    return Err(self.not_representable(&value.to_string(), &reason));
                }
                if to_fill.is_some_and(|fill| packed.same(fill)) && !packed.is_nan() {
                    return Err(self.not_representable(&value.to_string(), "it packs to the store's `_FillValue`"));
                }
                packed
            };
            packed.write(&mut converted);
        }
        Ok(converted)
    }

    fn not_representable(&self, value: &str, why: &str) -> Error {
        Error::invalid(format!(
            "value `{value}` cannot be stored as `{:?}` with scale `{}` and offset `{}`: {why}",
            self.to.data_type, self.to.scale, self.to.offset
        ))
        .hint("widen `variables.packing` for this variable, or raise its `max_error`")
    }
}

/// Whether elements are numbers that can be packed.
#[must_use]
pub fn is_number(data_type: DataType) -> bool {
    !matches!(
        data_type,
        DataType::String
            | DataType::FixedBytes { .. }
            | DataType::FixedUtf32 { .. }
            | DataType::DateTime(_)
            | DataType::TimeDelta(_)
            | DataType::Float16
    )
}

/// Whether elements are floats.
#[must_use]
pub fn is_float(data_type: DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

/// A machine number.
trait Element: Copy {
    const SIZE: usize;
    const FLOAT: bool;
    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut Vec<u8>);
    fn to_float(self) -> f64;
    fn to_integer(self) -> i128;
    fn from_float(value: f64) -> Option<Self>;
    fn from_integer(value: i128) -> Option<Self>;
    fn is_nan(self) -> bool;
    /// Equal as missing values are: every NaN is one.
    fn same(self, other: Self) -> bool;
}

macro_rules! integer_element {
    ($($kind:ty),*) => {$(
        impl Element for $kind {
            const SIZE: usize = size_of::<$kind>();
            const FLOAT: bool = false;
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$kind>()];
                array.copy_from_slice(&bytes[..size_of::<$kind>()]);
                <$kind>::from_le_bytes(array)
            }
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn to_float(self) -> f64 {
                self as f64
            }
            fn to_integer(self) -> i128 {
                i128::from(self)
            }
            fn from_float(value: f64) -> Option<Self> {
                // One above the largest value is a power of two and so an exact float, which the largest of 64 bits is not.
                const ABOVE: f64 = (<$kind>::MAX / 2 + 1) as f64 * 2.0;
                let rounded = value.round_ties_even();
                (rounded >= <$kind>::MIN as f64 && rounded < ABOVE).then_some(rounded as $kind)
            }
            fn from_integer(value: i128) -> Option<Self> {
                <$kind>::try_from(value).ok()
            }
            fn is_nan(self) -> bool {
                false
            }
            fn same(self, other: Self) -> bool {
                self == other
            }
        }
    )*};
}

macro_rules! float_element {
    ($($kind:ty),*) => {$(
        impl Element for $kind {
            const SIZE: usize = size_of::<$kind>();
            const FLOAT: bool = true;
            fn read(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$kind>()];
                array.copy_from_slice(&bytes[..size_of::<$kind>()]);
                <$kind>::from_le_bytes(array)
            }
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
            fn to_float(self) -> f64 {
                f64::from(self)
            }
            fn to_integer(self) -> i128 {
                self as i128
            }
            fn from_float(value: f64) -> Option<Self> {
                let narrowed = value as $kind;
                (narrowed.is_finite() || !value.is_finite()).then_some(narrowed)
            }
            fn from_integer(value: i128) -> Option<Self> {
                Some(value as $kind)
            }
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[expect(clippy::float_cmp, reason = "a missing value is one value exactly")]
            fn same(self, other: Self) -> bool {
                self == other || (self.is_nan() && other.is_nan())
            }
        }
    )*};
}

integer_element!(i8, u8, i16, u16, i32, u32, i64, u64);
float_element!(f32, f64);

/// Values seen through a conversion.
pub struct Converted {
    inner: Arc<dyn Values>,
    conversion: Conversion,
    what: String,
}

impl Converted {
    /// `inner`, converted; `what` names the variable in errors.
    #[must_use]
    pub fn new(inner: Arc<dyn Values>, conversion: Conversion, what: String) -> Self {
        Self { inner, conversion, what }
    }
}

#[async_trait]
impl Values for Converted {
    fn data_type(&self) -> DataType {
        self.conversion.to.data_type
    }

    fn shape(&self) -> &[u64] {
        self.inner.shape()
    }

    fn tiles(&self) -> &[Tile] {
        self.inner.tiles()
    }

    async fn fetch(&self, tiles: &[usize]) -> Result<Vec<Bytes>> {
        self.inner.fetch(tiles).await
    }

    fn decode(&self, tile: usize, encoded: &Bytes, recycled: Vec<u8>) -> Result<Elements> {
        match self.inner.decode(tile, encoded, recycled)? {
            Elements::Fixed(bytes) => {
                self.conversion.apply(&bytes).map(Elements::Fixed).map_err(|error| error.context(self.what.clone()))
            }
            strings @ Elements::Strings(_) => Ok(strings),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packing(data_type: DataType, scale: f64, offset: f64, fill: Option<Vec<u8>>) -> Packing {
        Packing { data_type, scale, offset, fill }
    }

    fn shorts(values: &[i16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn equal_packings_move_raw() {
        let one = packing(DataType::Int16, 0.01, 273.15, Some(shorts(&[-32768])));
        assert_eq!(Conversion::between(&one, &one, None).unwrap(), None);
    }

    #[test]
    fn missing_maps_onto_missing_and_values_within_half_a_step() {
        let from = packing(DataType::Int16, 0.005, 273.0, Some(shorts(&[-1])));
        let to = packing(DataType::Int16, 0.01, 273.15, Some(shorts(&[-32768])));
        let conversion = Conversion::between(&from, &to, None).unwrap().unwrap();
        assert_eq!(conversion.apply(&shorts(&[-1, 30, 31])).unwrap(), shorts(&[-32768, 0, 0]));
        let strict = Conversion::between(&from, &to, Some(0.001)).unwrap().unwrap();
        let error = strict.apply(&shorts(&[31])).unwrap_err();
        assert!(error.to_string().contains("exceeds"), "{error}");
    }

    #[test]
    fn nan_needs_a_fill_value_and_range_is_checked() {
        let from = packing(DataType::Float32, 1.0, 0.0, None);
        let bare = packing(DataType::Int8, 1.0, 0.0, None);
        let conversion = Conversion::between(&from, &bare, None).unwrap().unwrap();
        assert!(conversion.apply(&f32::NAN.to_le_bytes()).unwrap_err().to_string().contains("_FillValue"));
        assert!(conversion.apply(&200f32.to_le_bytes()).unwrap_err().to_string().contains("out of range"));
        assert_eq!(conversion.apply(&(-128f32).to_le_bytes()).unwrap(), [0x80]);
        let filled = packing(DataType::Int8, 1.0, 0.0, Some(vec![0x80]));
        let conversion = Conversion::between(&from, &filled, None).unwrap().unwrap();
        assert_eq!(conversion.apply(&f32::NAN.to_le_bytes()).unwrap(), [0x80]);
        assert!(conversion.apply(&(-128f32).to_le_bytes()).unwrap_err().to_string().contains("packs to"));
    }

    #[test]
    fn large_integers_do_not_pass_through_floats() {
        let from = packing(DataType::Int64, 1.0, 0.0, None);
        let to = packing(DataType::UInt64, 1.0, 0.0, None);
        let conversion = Conversion::between(&from, &to, None).unwrap().unwrap();
        let value = (1i64 << 60) + 1;
        assert_eq!(conversion.apply(&value.to_le_bytes()).unwrap(), value.to_le_bytes());
        assert!(conversion.apply(&(-1i64).to_le_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn a_converted_value_is_within_the_bound_or_refused(raw in any::<i16>(), scale in 1e-4f64..1.0, offset in -300f64..300.0) {
            let from = packing(DataType::Int16, 0.002, 10.0, None);
            let to = packing(DataType::Int32, scale, offset, None);
            let conversion = Conversion::between(&from, &to, None).unwrap().unwrap();
            let converted = conversion.apply(&raw.to_le_bytes()).unwrap();
            let value = f64::from(raw) * 0.002 + 10.0;
            let back = f64::from(i32::from_le_bytes([converted[0], converted[1], converted[2], converted[3]])) * scale + offset;
            prop_assert!((back - value).abs() <= scale * 0.5001);
        }
    }
}
