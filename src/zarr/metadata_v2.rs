//! Array metadata of Zarr v2: `.zarray`, and `.zattrs` with xarray's `_ARRAY_DIMENSIONS`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::array::{Array, Format, KeyEncoding};
use super::codec::{Codecs, V2Encoding};
use super::create::{ArraySpec, BloscShuffle, Compressor};
use super::metadata::{check_chunks, lengths, separator};
use super::{fill_json, type_name};
use crate::error::{Error, Result};

/// The array's own document.
pub(super) const ARRAY: &str = ".zarray";
/// The group's document.
pub(super) const GROUP: &str = ".zgroup";
/// Attributes of either.
pub(super) const ATTRIBUTES: &str = ".zattrs";
/// Where xarray keeps the names of dimensions.
pub(super) const DIMENSIONS: &str = "_ARRAY_DIMENSIONS";

/// The array that `document` and `attributes` describe.
///
/// # Errors
/// `Invalid` where regraft cannot read it, and why.
pub(super) fn parse(path: &str, document: &Map<String, Value>, attributes: &Map<String, Value>) -> Result<Array> {
    let field = |name: &str| document.get(name).unwrap_or(&Value::Null);
    if field("zarr_format") != 2 {
        return Err(Error::invalid(format!("expected `zarr_format` `2`, found `{}`", field("zarr_format"))));
    }
    let shape = lengths(document, "shape")?;
    let chunk_shape = lengths(document, "chunks")?;
    let (data_type, big_endian) = type_name::from_v2(field("dtype"))?;
    check_chunks(&shape, &chunk_shape, data_type.size())?;
    let column_major = match field("order").as_str() {
        Some("C") => false,
        Some("F") => true,
        _ => return Err(Error::invalid(format!("expected order `C` or `F`, found `{}`", field("order")))),
    };
    let filters = match field("filters") {
        Value::Null => &[],
        Value::Array(filters) => filters.as_slice(),
        other => return Err(Error::invalid(format!("expected a list of filters, found `{other}`"))),
    };
    let compressor = Some(field("compressor")).filter(|compressor| !compressor.is_null());
    let encoding = V2Encoding { dimensionality: shape.len(), big_endian, column_major, filters, compressor };
    let mut attributes = attributes.clone();
    let dimension_names = match attributes.get(DIMENSIONS).and_then(Value::as_array) {
        Some(names) if names.len() == shape.len() && names.iter().all(Value::is_string) => {
            let names = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            attributes.shift_remove(DIMENSIONS);
            Some(names)
        }
        _ => None,
    };
    Ok(Array {
        path: path.to_owned(),
        format: Format::V2,
        fill_value: fill_json::from_json(field("fill_value"), data_type, Format::V2)?,
        codecs: Arc::new(Codecs::from_v2(data_type, encoding)?),
        key_encoding: KeyEncoding { prefixed: false, separator: separator(document.get("dimension_separator"), '.')? },
        shape,
        chunk_shape,
        shard_shape: None,
        data_type,
        has_dimension_names: dimension_names.is_some(),
        dimension_names: dimension_names.unwrap_or_default(),
        attributes,
        sharding: None,
        document: document.clone(),
    })
}

/// The `.zarray` of `array`, its shape as it is now.
pub(super) fn document(array: &Array) -> Map<String, Value> {
    let mut document = array.document.clone();
    document.insert("shape".to_owned(), array.shape.clone().into());
    document
}

/// The `.zattrs` of `array`.
pub(super) fn attributes(array: &Array) -> Map<String, Value> {
    let mut attributes = array.attributes.clone();
    if array.has_dimension_names {
        attributes.insert(DIMENSIONS.to_owned(), array.dimension_names.clone().into());
    }
    attributes
}

/// The `.zarray` of a new array.
///
/// # Errors
/// `Invalid` where v2 cannot express it.
pub(super) fn create(spec: &ArraySpec) -> Result<Map<String, Value>> {
    if let Some(shard_shape) = &spec.shard_shape {
        return Err(Error::invalid(format!("shards `{shard_shape:?}` need Zarr v3"))
            .hint("set `store.format` to `zarr3`, or leave `shards` out"));
    }
    let size = spec.data_type.size();
    let mut filters = Vec::new();
    if size.is_none() {
        filters.push(json!({"id": "vlen-utf8"}));
    }
    let compressor = match &spec.compressor {
        Compressor::None => Value::Null,
        Compressor::Zstd { level } => json!({"id": "zstd", "level": level}),
        Compressor::Gzip { level } => json!({"id": "gzip", "level": level}),
        Compressor::Zlib { level, shuffle } => {
            if let Some(size) = size.filter(|size| *shuffle && *size > 1) {
                filters.push(json!({"id": "shuffle", "elementsize": size}));
            }
            json!({"id": "zlib", "level": level})
        }
        Compressor::Blosc { name, level, shuffle } => {
            let shuffle = match shuffle {
                BloscShuffle::None => 0,
                BloscShuffle::Byte => 1,
                BloscShuffle::Bit => 2,
            };
            json!({"id": "blosc", "cname": name, "clevel": level, "shuffle": shuffle, "blocksize": 0})
        }
        Compressor::Source(codecs) => match codecs.split_last() {
            None => Value::Null,
            Some((last, before)) => {
                filters.extend_from_slice(before);
                last.clone()
            }
        },
    };
    let filters = if filters.is_empty() { Value::Null } else { filters.into() };
    let document = json!({
        "shape": spec.shape,
        "chunks": spec.chunk_shape,
        "dtype": type_name::to_v2(spec.data_type),
        "fill_value": fill_json::to_json(&spec.fill_value, spec.data_type, Format::V2)?,
        "order": "C",
        "filters": filters,
        "dimension_separator": ".",
        "compressor": compressor,
        "zarr_format": 2,
    });
    match document {
        Value::Object(document) => Ok(document),
        _ => Err(Error::internal("array metadata is no object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn document(field: &str, value: Value) -> Map<String, Value> {
        let mut document = json!({
            "shape": [9, 3], "chunks": [4, 3], "dtype": ">i2", "fill_value": null, "order": "F", "filters": [],
            "compressor": {"id": "zlib", "level": 1}, "zarr_format": 2, "unheard_of": {"x": 1},
        });
        document[field] = value;
        document.as_object().unwrap().clone()
    }

    #[test]
    fn a_document_is_edited_and_not_made_again() {
        let original = document("dimension_separator", json!("/"));
        let attributes = Map::from_iter([("_ARRAY_DIMENSIONS".to_owned(), json!(["y", "x"]))]);
        let mut array = parse("a", &original, &attributes).unwrap();
        assert_eq!(super::document(&array), original);
        assert_eq!(super::attributes(&array), attributes);
        array.set_shape(vec![10, 3]);
        assert_eq!(super::document(&array)["unheard_of"], json!({"x": 1}));
        assert_eq!(array.chunk_key(&[2, 0]), "a/2/0");
    }

    #[test]
    fn names_that_do_not_fit_stay_an_attribute() {
        for names in [json!(["x"]), json!("yx"), json!([1, 2])] {
            let attributes = Map::from_iter([("_ARRAY_DIMENSIONS".to_owned(), names)]);
            let array = parse("a", &document("order", json!("C")), &attributes).unwrap();
            assert!(array.dimension_names.is_empty());
            assert_eq!(super::attributes(&array), attributes);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        for (field, value, what) in [
            ("zarr_format", json!(3), "`zarr_format`"),
            ("shape", json!("9"), "`shape`"),
            ("chunks", json!([0, 3]), "chunks"),
            ("chunks", json!([1_u64 << 33, 3]), "bytes"),
            ("chunks", json!([u64::MAX, u64::MAX]), "bytes"),
            ("shape", json!([u64::MAX, 3]), "counted"),
            ("dtype", json!("<c16"), "`\"<c16\"`"),
            ("order", json!("K"), "order"),
            ("filters", json!({}), "filters"),
            ("filters", json!([{"id": "quantize"}]), "`quantize`"),
            ("compressor", json!("zlib"), "codec configuration"),
            ("dimension_separator", json!("-"), "separator"),
            ("fill_value", json!("x"), "fill value"),
        ] {
            let error = parse("a", &document(field, value), &Map::new()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{what}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
