//! From codec metadata, v2 and v3, to stages.

use serde_json::{Map, Value};

use super::blosc::{self, Settings};
use super::deflate::Container;
use super::delta::{Delta, Kind};
use super::stage::Stage;
use super::{Codecs, DataType};
use crate::error::{Error, Result};

/// What a v2 array says about the encoding of its chunks.
#[derive(Debug, Clone, Copy)]
pub(in crate::zarr) struct V2Encoding<'a> {
    /// Number of dimensions.
    pub(in crate::zarr) dimensionality: usize,
    /// `>` in the type string.
    pub(in crate::zarr) big_endian: bool,
    /// Order `F`.
    pub(in crate::zarr) column_major: bool,
    /// numcodecs configurations in order of encoding.
    pub(in crate::zarr) filters: &'a [Value],
    /// One more configuration, the last.
    pub(in crate::zarr) compressor: Option<&'a Value>,
}

/// The stages so far, and what the next one is given.
struct Chain {
    stages: Vec<Stage>,
    /// Bytes of one element of the buffer that the next stage sees.
    item_size: usize,
}

impl Codecs {
    /// The codecs of a v2 array.
    ///
    /// # Errors
    /// `Invalid` where a codec is not supported or its configuration is wrong.
    pub(in crate::zarr) fn from_v2(data_type: DataType, encoding: V2Encoding<'_>) -> Result<Self> {
        let mut chain = Chain { stages: Vec::new(), item_size: data_type.size().unwrap_or(1) };
        if encoding.column_major && encoding.dimensionality > 1 {
            chain.stages.push(Stage::Transpose { order: (0..encoding.dimensionality).rev().collect() });
        }
        if encoding.big_endian && data_type.swap_size() > 1 {
            chain.stages.push(Stage::Swap { size: data_type.swap_size() });
        }
        let mut filters = encoding.filters;
        if data_type == DataType::String {
            match filters.split_first() {
                Some((first, rest)) if id_of(first) == Some("vlen-utf8") => filters = rest,
                first => {
                    let found = first.and_then(|(first, _)| id_of(first)).unwrap_or("none");
                    return Err(Error::invalid(format!(
                        "type `|O` needs the object codec `vlen-utf8`, found `{found}`: not supported"
                    )));
                }
            }
        }
        for config in filters.iter().chain(encoding.compressor) {
            let config = config
                .as_object()
                .ok_or_else(|| Error::invalid(format!("expected a codec configuration, found `{config}`")))?;
            let id = config.get("id").and_then(Value::as_str).unwrap_or_default();
            chain.push_numcodecs(id, config)?;
        }
        Ok(Self { data_type, stages: chain.stages })
    }

    /// The codecs of a v3 array, or of the inner chunks of its shards.
    ///
    /// # Errors
    /// `Invalid` where a codec is not supported or its configuration is wrong.
    pub(in crate::zarr) fn from_v3(data_type: DataType, dimensionality: usize, codecs: &[Value]) -> Result<Self> {
        let mut chain = Chain { stages: Vec::new(), item_size: data_type.size().unwrap_or(1) };
        let mut is_bytes = false;
        for codec in codecs {
            let (name, config) = named(codec)?;
            let before = |what: &str| {
                if is_bytes {
                    Err(Error::invalid(format!("codec `{name}` cannot follow the codec that makes bytes: {what}")))
                } else {
                    Ok(())
                }
            };
            match name {
                "transpose" => {
                    before("it rearranges elements")?;
                    chain.stages.push(transposition(config, dimensionality)?);
                }
                "numcodecs.delta" => {
                    before("it takes elements")?;
                    chain.push_numcodecs("delta", config)?;
                }
                "bytes" if data_type != DataType::String => {
                    before("there is another one")?;
                    is_bytes = true;
                    if config.get("endian").and_then(Value::as_str) == Some("big") && data_type.swap_size() > 1 {
                        chain.stages.push(Stage::Swap { size: data_type.swap_size() });
                    }
                }
                "vlen-utf8" if data_type == DataType::String => {
                    before("there is another one")?;
                    if !chain.stages.iter().all(|stage| matches!(stage, Stage::Transpose { .. })) {
                        return Err(Error::invalid("only `transpose` may precede `vlen-utf8`"));
                    }
                    is_bytes = true;
                }
                _ if !is_bytes => return Err(unsupported(name)),
                "zstd" | "gzip" | "crc32c" => chain.push_numcodecs(name, config)?,
                "blosc" => chain.push_blosc_v3(config)?,
                _ => match name.strip_prefix("numcodecs.") {
                    Some(id) => chain.push_numcodecs(id, config)?,
                    None => return Err(unsupported(name)),
                },
            }
        }
        if is_bytes {
            Ok(Self { data_type, stages: chain.stages })
        } else {
            Err(Error::invalid("no codec makes bytes of elements: expected `bytes` or `vlen-utf8`"))
        }
    }
}

/// Name and configuration of a v3 extension: `"name"` or `{"name": .., "configuration": {..}}`.
pub(in crate::zarr) fn named(value: &Value) -> Result<(&str, &Map<String, Value>)> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let name = match value {
        Value::String(name) => Some(name.as_str()),
        other => other.get("name").and_then(Value::as_str),
    };
    let config = value.get("configuration").and_then(Value::as_object).unwrap_or(&EMPTY);
    name.map(|name| (name, config)).ok_or_else(|| Error::invalid(format!("expected a name, found `{value}`")))
}

fn id_of(config: &Value) -> Option<&str> {
    config.get("id").and_then(Value::as_str)
}

fn unsupported(name: &str) -> Error {
    Error::invalid(format!("codec `{name}` is not supported")).hint(
        "supported: zstd, gzip, zlib, blosc, shuffle, delta, crc32c, transpose, bytes, vlen-utf8, sharding_indexed",
    )
}

fn transposition(config: &Map<String, Value>, dimensionality: usize) -> Result<Stage> {
    let order: Option<Vec<usize>> = match config.get("order") {
        Some(Value::Array(order)) => order.iter().map(|entry| entry.as_u64().map(|entry| entry as usize)).collect(),
        Some(Value::String(order)) if order == "C" => Some((0..dimensionality).collect()),
        Some(Value::String(order)) if order == "F" => Some((0..dimensionality).rev().collect()),
        _ => None,
    };
    order
        .filter(|order| order.len() == dimensionality && (0..dimensionality).all(|entry| order.contains(&entry)))
        .map(|order| Stage::Transpose { order })
        .ok_or_else(|| {
            Error::invalid(format!("codec `transpose`: `order` is no permutation of `{dimensionality}` dimensions"))
        })
}

impl Chain {
    fn push_numcodecs(&mut self, id: &str, config: &Map<String, Value>) -> Result<()> {
        let integer = |key: &str, default: i64| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| Error::invalid(format!("codec `{id}`: expected an integer `{key}`, found `{value}`"))),
        };
        let deflate_level = |default| {
            let level = integer("level", default)?;
            if level > 9 {
                return Err(Error::invalid(format!("codec `{id}`: level `{level}` is more than `9`")));
            }
            Ok(if level < 0 { 6 } else { level as i32 })
        };
        let stage = match id {
            "zstd" => {
                let level = i32::try_from(integer("level", 0)?).unwrap_or(i32::MAX);
                let checksum = config.get("checksum").and_then(Value::as_bool).unwrap_or(false);
                Stage::Zstd { level, checksum }
            }
            "gzip" => Stage::Deflate { container: Container::Gzip, level: deflate_level(1)? },
            "zlib" => Stage::Deflate { container: Container::Zlib, level: deflate_level(1)? },
            "crc32c" if config.get("location").is_none_or(|location| location == "end") => Stage::Crc32c,
            "blosc" => {
                let shuffle = match integer("shuffle", 1)? {
                    -1 if self.item_size == 1 => 2,
                    -1 => 1,
                    shuffle => shuffle,
                };
                let name = config.get("cname").and_then(Value::as_str).unwrap_or("lz4");
                blosc_stage(name, integer("clevel", 5)?, shuffle, self.item_size, integer("blocksize", 0)?)?
            }
            "shuffle" => {
                let element_size = usize::try_from(integer("elementsize", 4)?).unwrap_or(0).max(1);
                if element_size > 1 << 16 {
                    return Err(Error::invalid(format!("codec `shuffle`: elements of `{element_size}` bytes")));
                }
                self.item_size = 1;
                Stage::Shuffle { element_size }
            }
            "delta" => {
                let kind = |key: &str| config.get(key).and_then(Value::as_str).and_then(numeric_kind);
                let decoded = kind("dtype");
                let encoded = if config.contains_key("astype") { kind("astype") } else { decoded };
                match (decoded, encoded) {
                    (Some(decoded), Some(encoded))
                        if decoded.size == self.item_size
                            && (decoded == encoded || (decoded.letter != 'f' && encoded.letter != 'f')) =>
                    {
                        self.item_size = encoded.size;
                        Stage::Delta(Delta { decoded, encoded })
                    }
                    _ => {
                        let config = Value::Object(config.clone());
                        return Err(Error::invalid(format!(
                            "codec `delta` of these types is not supported: `{config}`"
                        )));
                    }
                }
            }
            _ => return Err(unsupported(id)),
        };
        self.stages.push(stage);
        Ok(())
    }

    fn push_blosc_v3(&mut self, config: &Map<String, Value>) -> Result<()> {
        let shuffle = match config.get("shuffle").and_then(Value::as_str) {
            Some("noshuffle") | None => 0,
            Some("shuffle") => 1,
            Some("bitshuffle") => 2,
            Some(other) => return Err(Error::invalid(format!("codec `blosc`: shuffle `{other}` is not known"))),
        };
        let integer = |key: &str, default: i64| config.get(key).and_then(Value::as_i64).unwrap_or(default);
        let name = config.get("cname").and_then(Value::as_str).unwrap_or("zstd");
        let type_size = usize::try_from(integer("typesize", 1)).unwrap_or(1);
        let stage = blosc_stage(name, integer("clevel", 5), shuffle, type_size, integer("blocksize", 0))?;
        self.stages.push(stage);
        Ok(())
    }
}

fn blosc_stage(name: &str, level: i64, shuffle: i64, element_size: usize, block_size: i64) -> Result<Stage> {
    let known = blosc::compressor(name)
        .ok_or_else(|| Error::invalid(format!("codec `blosc`: compressor `{name}` is not known")))?;
    if !(0..=9).contains(&level) || !(0..=2).contains(&shuffle) || !(0..=1 << 30).contains(&block_size) {
        return Err(Error::invalid(format!(
            "codec `blosc`: level `{level}`, shuffle `{shuffle}` or block size `{block_size}` is out of range"
        )));
    }
    Ok(Stage::Blosc(Settings {
        name: known,
        level: level as i32,
        shuffle: shuffle as i32,
        element_size,
        block_size: block_size as usize,
    }))
}

/// A NumPy type string of integers or floats, in the sense of `delta`.
fn numeric_kind(text: &str) -> Option<Kind> {
    let mut letters = text.chars();
    let order = letters.next()?;
    let (big_endian, letter) = match order {
        '<' | '|' => (false, letters.next()?),
        '>' => (true, letters.next()?),
        'i' | 'u' | 'f' => (false, order),
        _ => return None,
    };
    let size = letters.as_str().parse().ok()?;
    match (letter, size) {
        ('i' | 'u', 1 | 2 | 4 | 8) | ('f', 4 | 8) => Some(Kind { letter, size, big_endian }),
        _ => None,
    }
}
