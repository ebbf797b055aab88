//! The fill value of an array: what a chunk that is not stored reads as.

use super::DataType;
use super::values::Elements;

/// One element of an array, the value of everything that was never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FillValue {
    /// One fixed-size element, little-endian.
    Bytes(Vec<u8>),
    /// One string.
    String(String),
    /// Zarr v2 `null`: undefined; it reads as zero bytes or empty strings, as in zarr-python.
    Null,
}

impl FillValue {
    /// Zero, `false`, the epoch, the empty string.
    #[must_use]
    pub fn zero(data_type: DataType) -> Self {
        match data_type.size() {
            Some(size) => Self::Bytes(vec![0; size]),
            None => Self::String(String::new()),
        }
    }

    /// The bytes of one element, `size` of them; zeros where it is [`FillValue::Null`].
    #[must_use]
    pub fn element(&self, size: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) if bytes.len() == size => bytes.clone(),
            _ => vec![0; size],
        }
    }

    /// The one string; empty where it is not a string.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::String(text) => text,
            _ => "",
        }
    }

    /// `count` elements of it; `recycled` is an earlier buffer to be reused.
    #[must_use]
    pub fn elements(&self, data_type: DataType, count: usize, mut recycled: Vec<u8>) -> Elements {
        let Some(size) = data_type.size() else {
            return Elements::Strings(vec![self.text().to_owned(); count]);
        };
        let element = self.element(size);
        recycled.clear();
        let length = size.saturating_mul(count);
        match element.first() {
            Some(&first) if element.iter().all(|byte| *byte == first) => recycled.resize(length, first),
            Some(_) => {
                recycled.reserve_exact(length);
                recycled.extend_from_slice(&element);
                while recycled.len() < length {
                    let copied = recycled.len().min(length - recycled.len());
                    recycled.extend_from_within(..copied);
                }
                recycled.truncate(length);
            }
            None => {}
        }
        Elements::Fixed(recycled)
    }

    /// Whether every element equals it, byte for byte (a `NaN` of another payload does not).
    #[must_use]
    pub fn fills(&self, elements: &Elements) -> bool {
        match (self, elements) {
            (Self::Bytes(element), Elements::Fixed(bytes)) => is_repetition(bytes, element),
            (Self::Null, Elements::Fixed(bytes)) => is_repetition(bytes, &[0]),
            (_, Elements::Strings(strings)) => strings.iter().all(|string| string == self.text()),
            (Self::String(_), Elements::Fixed(_)) => false,
        }
    }
}

/// Whether `bytes` is `element` over and over.
fn is_repetition(bytes: &[u8], element: &[u8]) -> bool {
    let size = element.len();
    if size == 0 || bytes.len() < size {
        return bytes.is_empty();
    }
    // Equal to itself shifted by one element: one memcmp, which leaves at the first difference.
    bytes[..size] == *element && bytes[size..] == bytes[..bytes.len() - size]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_and_is_recognised() {
        let data_type = DataType::Int16;
        let fill = FillValue::Bytes(vec![0x01, 0x80]);
        let mut elements = fill.elements(data_type, 7, vec![9; 3]);
        assert_eq!(elements, Elements::Fixed([1u8, 0x80].repeat(7)));
        assert!(fill.fills(&elements));
        if let Elements::Fixed(bytes) = &mut elements {
            bytes[13] = 0;
        }
        assert!(!fill.fills(&elements));
        assert_eq!(fill.elements(data_type, 0, Vec::new()), Elements::Fixed(Vec::new()));
    }

    #[test]
    fn null_is_zeros_and_empty_strings() {
        assert_eq!(FillValue::Null.elements(DataType::Float32, 2, Vec::new()), Elements::Fixed(vec![0; 8]));
        let strings = FillValue::Null.elements(DataType::String, 2, Vec::new());
        assert_eq!(strings, Elements::Strings(vec![String::new(); 2]));
        assert!(FillValue::Null.fills(&strings));
        assert!(FillValue::zero(DataType::String).fills(&strings));
    }
}
