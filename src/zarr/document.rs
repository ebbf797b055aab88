//! The JSON documents of a store, with the numbers that JSON does not have.
//!
//! zarr-python writes its documents with Python's `json`, which puts bare `NaN`, `Infinity` and `-Infinity` where an attribute
//! holds such a float (`serde_json` refuses them; browsers do too). They are read into strings that nothing else
//! contains, [`number`] and [`as_float`] convert, and written back as they came.
//!
//! Caveat: an attribute whose text is U+0000 followed by exactly `NaN`, `Infinity` or `-Infinity` would be written as a number.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

const NAN: &str = "\0NaN";
const INFINITY: &str = "\0Infinity";
const NEGATIVE_INFINITY: &str = "\0-Infinity";

/// Each token as it stands in a document, and the string that takes its place.
const TOKENS: [(&str, &str); 3] =
    [("NaN", "\"\\u0000NaN\""), ("-Infinity", "\"\\u0000-Infinity\""), ("Infinity", "\"\\u0000Infinity\"")];

/// More bytes of metadata than this in one document are refused.
const MAXIMUM_BYTES: usize = 256 << 20;

/// A number in a document, finite or not.
#[must_use]
pub fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or_else(
        || {
            let text = match value {
                value if value.is_nan() => NAN,
                value if value > 0.0 => INFINITY,
                _ => NEGATIVE_INFINITY,
            };
            Value::from(text)
        },
        Value::Number,
    )
}

/// The float that a value of a document stands for, `None` where it is no number.
#[must_use]
pub fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            NAN => Some(f64::NAN),
            INFINITY => Some(f64::INFINITY),
            NEGATIVE_INFINITY => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a document, which must be an object.
///
/// # Errors
/// `Corrupt` where it is no JSON object.
pub fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    if bytes.len() > MAXIMUM_BYTES {
        return Err(Error::corrupt(format!("a metadata document of `{}` bytes is too large", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Error::corrupt(format!("metadata is not UTF-8: {error}")))?;
    let tamed = tame(text);
    serde_json::from_str(tamed.as_deref().unwrap_or(text))
        .map_err(|error| Error::corrupt(format!("metadata is no JSON object: {error}")))
}

/// Writes a document, indented as zarr-python does.
#[must_use]
pub fn render(document: &Map<String, Value>) -> Bytes {
    // A map with string keys cannot fail to serialise.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    for (token, tamed) in TOKENS {
        if text.contains(tamed) {
            text = text.replace(tamed, token);
        }
    }
    text.into()
}

/// The text with its bare tokens as strings, `None` where there is none.
fn tame(text: &str) -> Option<String> {
    if !TOKENS.iter().any(|(token, _)| text.contains(token)) {
        return None;
    }
    let mut tamed = String::with_capacity(text.len() + 64);
    let mut rest = text;
    // All that matters is ASCII, which never is a part of another character in UTF-8.
    while let Some(position) = rest.find(['"', 'N', 'I', '-']) {
        tamed.push_str(&rest[..position]);
        rest = &rest[position..];
        let length = if rest.starts_with('"') {
            string_length(rest)
        } else if let Some((token, replacement)) = TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
            tamed.push_str(replacement);
            rest = &rest[token.len()..];
            continue;
        } else {
            1
        };
        tamed.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    tamed.push_str(rest);
    Some(tamed)
}

/// Bytes of the JSON string at the start of `text`, both quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (position, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_tokens_survive_and_strings_are_left_alone() {
        let text = r#"{"a": NaN, "b": [Infinity, -Infinity, -1.5], "c": "NaN \" -Infinity", "NaN": "é\\", "d": null}"#;
        let document = parse(text.as_bytes()).unwrap();
        assert!(as_float(&document["a"]).unwrap().is_nan());
        assert_eq!(as_float(&document["b"][0]), Some(f64::INFINITY));
        assert_eq!(as_float(&document["b"][1]), Some(f64::NEG_INFINITY));
        assert_eq!(as_float(&document["b"][2]), Some(-1.5));
        assert_eq!(as_float(&document["c"]), None);
        let written = String::from_utf8(render(&document).to_vec()).unwrap();
        let compact: String = written.lines().map(str::trim_start).collect();
        assert_eq!(
            compact,
            r#"{"a": NaN,"b": [Infinity,-Infinity,-1.5],"c": "NaN \" -Infinity","NaN": "é\\","d": null}"#
        );
        assert_eq!(parse(written.as_bytes()).unwrap(), document);
    }

    #[test]
    fn numbers_are_told_from_text() {
        for value in [0.1, f64::MAX, f64::NEG_INFINITY, f64::INFINITY] {
            assert_eq!(as_float(&number(value)), Some(value));
        }
        assert!(as_float(&number(f64::NAN)).unwrap().is_nan());
        assert_eq!(as_float(&Value::from("NaN")), None);
    }

    #[test]
    fn what_is_no_object_is_corrupt() {
        for text in ["", "[]", "{", "NaN", "{\"a\": \"", "\u{0}", "{\"a\": N}"] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().kind(), crate::error::Kind::Corrupt, "{text}");
        }
        assert!(parse(&[0xff, b'{', b'}']).is_err());
    }
}
