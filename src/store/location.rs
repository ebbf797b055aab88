//! From a URL to a place.
//!
//! `s3://`, `gs://` and `az://` URLs are taken literally, as the vendors' command lines do: `%20` in them is three
//! characters of the key. `file://` and `http(s)://` URLs are percent-decoded (RFC 8089); a plain path is taken as it is.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// The parts of a URL: what to connect to, and the prefix inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A path without the leading `/`.
    Local { prefix: String },
    /// A process-wide store by name.
    Memory { name: String, prefix: String },
    /// `scheme://bucket/prefix`.
    Bucket { scheme: String, bucket: String, prefix: String },
    /// `http(s)://host`, read only.
    Http { origin: String, prefix: String },
}

impl Location {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else { return local(Path::new(url), url) };
        let scheme = scheme.to_ascii_lowercase();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = path.trim_end_matches('/').to_owned();
        match scheme.as_str() {
            "file" => {
                let parsed = url::Url::parse(url).map_err(|error| Error::invalid(format!("`{url}`: {error}")))?;
                let path = parsed
                    .to_file_path()
                    .map_err(|()| Error::invalid(format!("`{url}` names no file of this machine")))?;
                local(&path, url)
            }
            "memory" => Ok(Self::Memory { name: authority.to_owned(), prefix: check(prefix, url)? }),
            "s3" | "s3a" | "gs" | "az" => {
                if authority.is_empty() {
                    return Err(Error::invalid(format!("`{url}` names no bucket"))
                        .hint(format!("write `{scheme}://bucket/prefix`")));
                }
                Ok(Self::Bucket { scheme, bucket: authority.to_owned(), prefix: check(prefix, url)? })
            }
            "http" | "https" => {
                if authority.is_empty() {
                    return Err(Error::invalid(format!("`{url}` names no host")));
                }
                if path.contains(['?', '#']) {
                    return Err(Error::invalid(format!(
                        "`{url}` has a query or a fragment, which cannot name objects"
                    )));
                }
                let prefix = decode(&prefix).ok_or_else(|| Error::invalid(format!("`{url}` is not UTF-8")))?;
                Ok(Self::Http { origin: format!("{scheme}://{authority}"), prefix: check(prefix, url)? })
            }
            _ => Err(Error::invalid(format!("`{url}` has the unknown scheme `{scheme}`"))
                .hint("known are a plain path, `file`, `memory`, `s3`, `gs`, `az`, `http` and `https`")),
        }
    }
}

/// Without percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if let Some(byte) = code.filter(|_| first == b'%') {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Absolute, without `.` and `..`: links in the path are left as they are.
fn local(path: &Path, url: &str) -> Result<Location> {
    if url.is_empty() {
        return Err(Error::invalid("the URL of a store is empty"));
    }
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::invalid(format!("`{url}` cannot be made absolute: {error}")))?;
    let mut clean = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    let prefix = clean.to_str().ok_or_else(|| Error::invalid(format!("`{url}` is not UTF-8")))?;
    Ok(Location::Local { prefix: check(prefix.to_owned(), url)? })
}

fn check(prefix: String, url: &str) -> Result<String> {
    if prefix.is_empty() || key_is_clean(&prefix) {
        Ok(prefix)
    } else {
        Err(Error::invalid(format!("`{url}` has an empty, `.` or `..` segment, or a control character")))
    }
}

/// Whether every segment of `key` is a name: not empty, not `.` or `..`, no control characters.
///
/// `object_store` cannot name other keys (`a//b`), and on local files they would mean another file.
pub(super) fn key_is_clean(key: &str) -> bool {
    key.split('/').all(|segment| !matches!(segment, "" | "." | "..")) && !key.chars().any(|c| c.is_ascii_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_places() {
        let bucket = |scheme: &str, bucket: &str, prefix: &str| Location::Bucket {
            scheme: scheme.into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        assert_eq!(Location::parse("s3://b/a%20b/c+d/").unwrap(), bucket("s3", "b", "a%20b/c+d"));
        assert_eq!(Location::parse("S3://b").unwrap(), bucket("s3", "b", ""));
        assert_eq!(Location::parse("file:///a%20b/../c").unwrap(), Location::Local { prefix: "c".into() });
        assert_eq!(Location::parse("/a b/%20/").unwrap(), Location::Local { prefix: "a b/%20".into() });
        assert_eq!(Location::parse("memory://x/y").unwrap(), Location::Memory { name: "x".into(), prefix: "y".into() });
        assert_eq!(
            Location::parse("https://h:8080/p%20/q%C3%BC%").unwrap(),
            Location::Http { origin: "https://h:8080".into(), prefix: "p /qü%".into() }
        );
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        for (url, message) in [
            ("s4://b", "`s4://b` has the unknown scheme `s4`"),
            ("s3:///x", "`s3:///x` names no bucket"),
            ("s3://b/../c", "`s3://b/../c` has an empty, `.` or `..` segment, or a control character"),
            ("", "the URL of a store is empty"),
            ("file://host/x", "`file://host/x` names no file of this machine"),
        ] {
            assert_eq!(Location::parse(url).unwrap_err().message(), message);
        }
    }
}
