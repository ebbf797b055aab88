//! Text of one form as text of another: fixed bytes of another length, UTF-32, or strings.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Result};
use crate::zarr::{DataType, Elements, Tile, Values};

/// Fixed-length bytes as variable-length strings: NUL padding goes, spaces stay, as netCDF4-python reads them.
pub struct TextAsStrings {
    inner: Arc<dyn Values>,
}

impl TextAsStrings {
    /// `inner`, whose elements are fixed-length bytes.
    #[must_use]
    pub fn new(inner: Arc<dyn Values>) -> Self {
        Self { inner }
    }
}

/// Fixed-length bytes as fixed-length text of another length or width.
pub struct ResizedText {
    inner: Arc<dyn Values>,
    target: DataType,
    what: String,
}

impl ResizedText {
    /// `inner` as elements of `target`; `what` names the variable in errors.
    #[must_use]
    pub fn new(inner: Arc<dyn Values>, target: DataType, what: String) -> Self {
        Self { inner, target, what }
    }

    fn resize(&self, element: &[u8], target: &mut Vec<u8>) -> Result<()> {
        let end = element.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
        let too_long = |limit: usize| {
            Error::invalid(format!("{}: text of `{end}` bytes does not fit the store's `{limit}`", self.what))
                .hint("make the store with a longer text, or with `variables.strings: utf8`")
        };
        match self.target {
            DataType::FixedUtf32 { length } => {
                let text = String::from_utf8_lossy(&element[..end]);
                let units: Vec<u32> = text.chars().map(u32::from).collect();
                if units.len() > length as usize {
                    return Err(too_long(length as usize));
                }
                target.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
                target.resize(target.len() + (length as usize - units.len()) * 4, 0);
            }
            other => {
                let length = other.size().unwrap_or(0);
                if end > length {
                    return Err(too_long(length));
                }
                let kept = element.len().min(length);
                target.extend_from_slice(&element[..kept]);
                target.resize(target.len() + length - kept, 0);
            }
        }
        Ok(())
    }
}

fn element_size(values: &dyn Values) -> usize {
    values.data_type().size().unwrap_or(1).max(1)
}

#[async_trait]
impl Values for TextAsStrings {
    fn data_type(&self) -> DataType {
        DataType::String
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
        let Elements::Fixed(bytes) = self.inner.decode(tile, encoded, recycled)? else {
            return Err(Error::internal("text decoded to strings twice"));
        };
        let text = |element: &[u8]| String::from_utf8_lossy(element).trim_end_matches('\0').to_owned();
        Ok(Elements::Strings(bytes.chunks_exact(element_size(self.inner.as_ref())).map(text).collect()))
    }
}

#[async_trait]
impl Values for ResizedText {
    fn data_type(&self) -> DataType {
        self.target
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
        let Elements::Fixed(bytes) = self.inner.decode(tile, encoded, recycled)? else {
            return Err(Error::internal("text decoded to strings"));
        };
        let mut resized = Vec::new();
        for element in bytes.chunks_exact(element_size(self.inner.as_ref())) {
            self.resize(element, &mut resized)?;
        }
        Ok(Elements::Fixed(resized))
    }
}
