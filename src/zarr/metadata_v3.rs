//! Array metadata of Zarr v3: `zarr.json`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::array::{Array, Format, KeyEncoding};
use super::codec::{Codecs, IndexLocation, Sharding, named};
use super::create::{ArraySpec, BloscShuffle, Compressor};
use super::metadata::{attributes, check_chunks, lengths, separator};
use super::{DataType, FillValue, fill_json, type_name};
use crate::error::{Error, Result};

/// The document of every node.
pub(super) const NODE: &str = "zarr.json";

/// The fields of an array that regraft understands.
const FIELDS: [&str; 11] = [
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "attributes",
    "dimension_names",
    "storage_transformers",
];

/// The array that `document` describes.
///
/// # Errors
/// `Invalid` where regraft cannot read it, and why.
pub(super) fn parse(path: &str, document: &Map<String, Value>) -> Result<Array> {
    let field = |name: &str| document.get(name).unwrap_or(&Value::Null);
    if field("zarr_format") != 3 || field("node_type") != "array" {
        return Err(Error::invalid("expected `zarr_format` `3` and `node_type` `array`"));
    }
    // An extension that must be understood, and is not, forbids reading (v3 specification, "Extension points").
    let unknown = document
        .iter()
        .find(|(name, value)| !FIELDS.contains(&name.as_str()) && value.get("must_understand") != Some(&json!(false)));
    if let Some((name, _)) = unknown {
        return Err(Error::invalid(format!("metadata field `{name}` is not supported")));
    }
    if field("storage_transformers").as_array().is_some_and(|transformers| !transformers.is_empty()) {
        return Err(Error::invalid("storage transformers are not supported"));
    }
    let shape = lengths(document, "shape")?;
    let data_type = type_name::from_v3(field("data_type"))?;
    let (grid, grid_config) = named(field("chunk_grid"))?;
    if grid != "regular" {
        return Err(Error::invalid(format!("chunk grid `{grid}` is not supported")));
    }
    let object_shape = lengths(grid_config, "chunk_shape")?;
    let codecs = field("codecs")
        .as_array()
        .ok_or_else(|| Error::invalid(format!("expected codecs, found `{}`", field("codecs"))))?;
    let (chunk_shape, shard_shape, sharding, codecs) = match shard(codecs, &object_shape)? {
        None => (object_shape, None, None, codecs.as_slice()),
        Some(Inner { chunk_shape, sharding, codecs }) => {
            (chunk_shape, Some(object_shape), Some(Arc::new(sharding)), codecs)
        }
    };
    check_chunks(&shape, &chunk_shape, data_type.size())?;
    if let Some(shard_shape) = &shard_shape {
        check_chunks(&shape, shard_shape, Some(1))?;
    }
    let dimension_names = match field("dimension_names") {
        Value::Null => Vec::new(),
        Value::Array(names) if names.len() == shape.len() => {
            names.iter().map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
        }
        other => return Err(Error::invalid(format!("expected `{}` dimension names, found `{other}`", shape.len()))),
    };
    Ok(Array {
        path: path.to_owned(),
        format: Format::V3,
        fill_value: fill_json::from_json(field("fill_value"), data_type, Format::V3)?,
        codecs: Arc::new(Codecs::from_v3(data_type, shape.len(), codecs)?),
        key_encoding: key_encoding(field("chunk_key_encoding"))?,
        attributes: attributes(document.get("attributes"))?,
        shape,
        chunk_shape,
        shard_shape,
        data_type,
        has_dimension_names: !dimension_names.is_empty(),
        dimension_names,
        sharding,
        document: document.clone(),
    })
}

fn key_encoding(value: &Value) -> Result<KeyEncoding> {
    let (name, config) = named(value)?;
    let (prefixed, default) = match name {
        "default" => (true, '/'),
        "v2" => (false, '.'),
        other => return Err(Error::invalid(format!("chunk key encoding `{other}` is not supported"))),
    };
    Ok(KeyEncoding { prefixed, separator: separator(config.get("separator"), default)? })
}

/// What `sharding_indexed` says of its inner chunks.
struct Inner<'a> {
    chunk_shape: Vec<u64>,
    sharding: Sharding,
    codecs: &'a [Value],
}

/// The inner chunks, where the chunks of the grid are shards.
fn shard<'a>(codecs: &'a [Value], shard_shape: &[u64]) -> Result<Option<Inner<'a>>> {
    let is_sharding = |codec: &Value| named(codec).is_ok_and(|(name, _)| name == "sharding_indexed");
    let codec = match codecs {
        [codec] if is_sharding(codec) => codec,
        codecs if codecs.iter().any(is_sharding) => {
            return Err(Error::invalid("codec `sharding_indexed` beside other codecs is not supported"));
        }
        _ => return Ok(None),
    };
    let (_, config) = named(codec)?;
    let chunk_shape = lengths(config, "chunk_shape")?;
    if chunk_shape.len() != shard_shape.len()
        || chunk_shape.contains(&0)
        || shard_shape.iter().zip(&chunk_shape).any(|(shard, chunk)| !shard.is_multiple_of(*chunk))
    {
        return Err(Error::invalid(format!("inner chunks `{chunk_shape:?}` do not divide shards `{shard_shape:?}`")));
    }
    let list = |name: &str| {
        config.get(name).and_then(Value::as_array).ok_or_else(|| Error::invalid(format!("shards without `{name}`")))
    };
    let inner = list("codecs")?;
    if inner.iter().any(is_sharding) {
        return Err(Error::invalid("shards within shards are not supported"));
    }
    let location = match config.get("index_location").map(Value::as_str) {
        None | Some(Some("end")) => IndexLocation::End,
        Some(Some("start")) => IndexLocation::Start,
        other => return Err(Error::invalid(format!("shard index location {other:?} is not known"))),
    };
    let index: Vec<(&str, &Map<String, Value>)> = list("index_codecs")?.iter().map(named).collect::<Result<_>>()?;
    let (checksum, bytes) = match index.as_slice() {
        [("bytes", bytes), ("crc32c", _)] => (true, bytes),
        [("bytes", bytes)] => (false, bytes),
        _ => {
            return Err(Error::invalid(format!(
                "index codecs {:?} are not supported",
                index.iter().map(|(name, _)| name).collect::<Vec<_>>()
            ))
            .hint("supported: `bytes`, and `bytes` with `crc32c`"));
        }
    };
    let big_endian = bytes.get("endian").and_then(Value::as_str) == Some("big");
    Ok(Some(Inner { chunk_shape, sharding: Sharding { location, checksum, big_endian }, codecs: inner }))
}

/// The `zarr.json` of `array`, shape and attributes as they are now.
pub(super) fn document(array: &Array) -> Map<String, Value> {
    let mut document = array.document.clone();
    document.insert("shape".to_owned(), array.shape.clone().into());
    if !array.attributes.is_empty() || document.contains_key("attributes") {
        document.insert("attributes".to_owned(), array.attributes.clone().into());
    }
    document
}

/// The `zarr.json` of a new array.
///
/// # Errors
/// `Invalid` where v3 cannot express it.
pub(super) fn create(spec: &ArraySpec) -> Result<Map<String, Value>> {
    let mut codecs = vec![match spec.data_type {
        DataType::String => json!({"name": "vlen-utf8"}),
        data_type if data_type.swap_size() > 1 => json!({"name": "bytes", "configuration": {"endian": "little"}}),
        _ => json!({"name": "bytes"}),
    }];
    compress(spec, &mut codecs)?;
    let object_shape = spec.shard_shape.as_ref().unwrap_or(&spec.chunk_shape);
    if spec.shard_shape.is_some() {
        codecs = vec![json!({
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": spec.chunk_shape,
                "codecs": codecs,
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": "end",
            },
        })];
    }
    let zero = FillValue::zero(spec.data_type);
    let fill_value = if spec.fill_value == FillValue::Null { &zero } else { &spec.fill_value };
    let mut document = json!({
        "shape": spec.shape,
        "data_type": type_name::to_v3(spec.data_type),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": object_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_json::to_json(fill_value, spec.data_type, Format::V3)?,
        "codecs": codecs,
        "attributes": spec.attributes,
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    });
    if !spec.dimension_names.is_empty() {
        document["dimension_names"] = spec.dimension_names.clone().into();
    }
    match document {
        Value::Object(document) => Ok(document),
        _ => Err(Error::internal("array metadata is no object")),
    }
}

/// Appends the codecs of a compressor.
fn compress(spec: &ArraySpec, codecs: &mut Vec<Value>) -> Result<()> {
    let size = spec.data_type.size();
    let plain = |name: &str, configuration: Value| json!({"name": name, "configuration": configuration});
    match &spec.compressor {
        Compressor::None => {}
        Compressor::Zstd { level } => codecs.push(plain("zstd", json!({"level": level, "checksum": false}))),
        Compressor::Gzip { level } => codecs.push(plain("gzip", json!({"level": level}))),
        Compressor::Zlib { level, shuffle } => {
            if let Some(size) = size.filter(|size| *shuffle && *size > 1) {
                codecs.push(plain("numcodecs.shuffle", json!({"elementsize": size})));
            }
            codecs.push(plain("numcodecs.zlib", json!({"level": level})));
        }
        Compressor::Blosc { name, level, shuffle } => {
            let shuffle = match shuffle {
                BloscShuffle::None => "noshuffle",
                BloscShuffle::Byte => "shuffle",
                BloscShuffle::Bit => "bitshuffle",
            };
            let type_size = size.unwrap_or(1).min(255);
            let config =
                json!({"typesize": type_size, "cname": name, "clevel": level, "shuffle": shuffle, "blocksize": 0});
            codecs.push(plain("blosc", config));
        }
        Compressor::Source(source) => {
            for codec in source {
                let mut config = codec.as_object().cloned().unwrap_or_default();
                let id = config.shift_remove("id");
                let Some(id) = id.as_ref().and_then(Value::as_str) else {
                    return Err(Error::invalid(format!("expected a codec configuration, found `{codec}`")));
                };
                codecs.push(match id {
                    "zstd" => {
                        let level = config.get("level").cloned().unwrap_or(json!(0));
                        plain("zstd", json!({"level": level, "checksum": config.get("checksum") == Some(&json!(true))}))
                    }
                    "gzip" => plain("gzip", json!({"level": config.get("level").cloned().unwrap_or(json!(1))})),
                    "crc32c" => json!({"name": "crc32c"}),
                    id => plain(&format!("numcodecs.{id}"), config.into()),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn document(change: impl FnOnce(&mut Value)) -> Map<String, Value> {
        let mut document = json!({
            "zarr_format": 3, "node_type": "array", "shape": [9], "data_type": "int16", "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "sharding_indexed", "configuration": {
                "chunk_shape": [2], "codecs": ["bytes"], "index_codecs": ["bytes", "crc32c"]}}],
            "attributes": {}, "dimension_names": [null], "storage_transformers": [],
        });
        change(&mut document);
        document.as_object().unwrap().clone()
    }

    #[test]
    fn names_may_be_missing() {
        assert_eq!(parse("a", &document(|_| {})).unwrap().dimension_names, [""]);
    }

    #[test]
    fn extensions_that_need_not_be_understood_are_kept() {
        let original =
            document(|document| document["later"] = json!({"must_understand": false, "x": [1, {"y": null}]}));
        let mut array = parse("a", &original).unwrap();
        assert_eq!(super::document(&array), original);
        array.set_shape(vec![10]);
        let written = super::document(&array);
        assert_eq!((&written["shape"], &written["later"]), (&json!([10]), &original["later"]));
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_name() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 12] = [
            ("`later`", |document| document["later"] = json!({"x": 1})),
            ("storage transformers", |document| document["storage_transformers"] = json!(["any"])),
            ("`rectilinear`", |document| document["chunk_grid"]["name"] = json!("rectilinear")),
            ("`hashed`", |document| document["chunk_key_encoding"]["name"] = json!("hashed")),
            ("do not divide", |document| document["codecs"][0]["configuration"]["chunk_shape"] = json!([3])),
            ("beside other codecs", |document| document["codecs"] = json!([document["codecs"][0], "crc32c"])),
            ("within shards", |document| {
                document["codecs"][0]["configuration"]["codecs"] = json!([document["codecs"][0]]);
            }),
            ("index codecs", |document| {
                document["codecs"][0]["configuration"]["index_codecs"] = json!(["bytes", "zstd"]);
            }),
            ("index location", |document| document["codecs"][0]["configuration"]["index_location"] = json!("middle")),
            ("dimension names", |document| document["dimension_names"] = json!(["x", "y"])),
            ("`shape`", |document| document["shape"] = json!([-1])),
            ("fill value", |document| document["fill_value"] = json!("NaN")),
        ];
        for (what, change) in changes {
            let error = parse("a", &document(change)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{what}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}
