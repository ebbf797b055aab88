//! Checksums of contents, as services keep them and as they are computed here.
//!
//! A service that keeps a checksum of a whole content tells it with the metadata, for nothing; an `ETag` may be the MD5 of
//! the content, which is so for objects that were put at once and are not encrypted by KMS, on services that make their
//! `ETag`s so.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use ring::digest;
use serde::{Deserialize, Serialize};

use super::object::ETag;

/// A checksum and what it was made by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// `MD5`, `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1` or `SHA256`; others are kept and cannot be computed.
    pub algorithm: String,
    /// Hexadecimal for MD5, else base64, as services write them.
    pub value: String,
}

impl Checksum {
    /// Of `bytes`; `None` where the algorithm is not known.
    #[must_use]
    pub fn of(algorithm: &str, bytes: &[u8]) -> Option<Self> {
        let mut summing = Summing::new(algorithm)?;
        summing.update(bytes);
        Some(summing.finish())
    }

    /// The MD5 that an `ETag` would be: one of 32 hexadecimal digits, not that of an upload in parts.
    #[must_use]
    pub fn of_etag(etag: &ETag) -> Option<Self> {
        let text = etag.as_str().trim_matches('"');
        let hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then(|| Self { algorithm: "MD5".into(), value: text.to_ascii_lowercase() })
    }
}

/// A checksum that is being made.
#[derive(Debug)]
pub struct Summing {
    algorithm: String,
    state: State,
}

enum State {
    Md5(Md5),
    Crc32(libdeflater::Crc),
    Crc32c(u32),
    Crc64(crc_fast::Digest),
    Sha(digest::Context),
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("State")
    }
}

impl Summing {
    /// Of nothing yet; `None` where the algorithm is not known.
    #[must_use]
    pub fn new(algorithm: &str) -> Option<Self> {
        let state = match algorithm {
            "MD5" => State::Md5(Md5::new()),
            "CRC32" => State::Crc32(libdeflater::Crc::new()),
            "CRC32C" => State::Crc32c(0),
            "CRC64NVME" => State::Crc64(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)),
            "SHA1" => State::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            "SHA256" => State::Sha(digest::Context::new(&digest::SHA256)),
            _ => return None,
        };
        Some(Self { algorithm: algorithm.to_owned(), state })
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Md5(md5) => md5.update(bytes),
            State::Crc32(crc) => crc.update(bytes),
            State::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            State::Crc64(crc) => crc.update(bytes),
            State::Sha(context) => context.update(bytes),
        }
    }

    /// The checksum.
    #[must_use]
    pub fn finish(self) -> Checksum {
        let value = match self.state {
            State::Md5(md5) => md5.finalize().iter().fold(String::with_capacity(32), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
            State::Crc32(crc) => STANDARD.encode(crc.sum().to_be_bytes()),
            State::Crc32c(crc) => STANDARD.encode(crc.to_be_bytes()),
            State::Crc64(crc) => STANDARD.encode(crc.finalize().to_be_bytes()),
            State::Sha(context) => STANDARD.encode(context.finish()),
        };
        Checksum { algorithm: self.algorithm, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_check_strings() {
        // The catalogue of CRCs (Cook, RevEng), FIPS 180 and RFC 1321: of "123456789" and "abc".
        for (algorithm, text, value) in [
            ("CRC32", "123456789", "y/Q5Jg=="),
            ("CRC32C", "123456789", "4waSgw=="),
            // 0xae8b14860a799888.
            ("CRC64NVME", "123456789", "rosUhgp5mIg="),
            ("SHA1", "abc", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="),
            ("SHA256", "abc", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
            ("MD5", "abc", "900150983cd24fb0d6963f7d28e17f72"),
        ] {
            assert_eq!(Checksum::of(algorithm, text.as_bytes()).unwrap().value, value, "{algorithm}");
            let mut summing = Summing::new(algorithm).unwrap();
            for byte in text.bytes() {
                summing.update(&[byte]);
            }
            assert_eq!(summing.finish().value, value, "{algorithm} in pieces");
        }
        assert_eq!(Checksum::of("CRC128", b""), None);
    }

    #[test]
    fn an_etag_may_be_an_md5() {
        let of = |text: &str| Checksum::of_etag(&ETag(text.into())).map(|checksum| checksum.value);
        assert_eq!(of("\"900150983CD24FB0D6963F7D28E17F72\"").as_deref(), Some("900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(of("\"900150983cd24fb0d6963f7d28e17f72-3\""), None);
        assert_eq!(of("W/\"900150983cd24fb0d6963f7d28e17f72\""), None);
    }
}
