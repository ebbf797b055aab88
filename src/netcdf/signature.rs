//! Which format a file's first bytes announce, and what to say when it is none.

use crate::error::{Error, Result};

/// The container of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// CDF-1, CDF-2 (64-bit offsets) or CDF-5 (64-bit data), by version byte.
    Classic(u8),
    /// NetCDF-4, or plain HDF5.
    Hdf5,
}

const HDF5: [u8; 8] = [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n'];

/// Recognises `head`, the first bytes of a file (as many as are at hand; an HDF5 user block may be in front).
///
/// # Errors
/// `Invalid` where it is no NetCDF file, with what it seems to be.
pub(crate) fn recognise(head: &[u8]) -> Result<Format> {
    match head {
        [b'C', b'D', b'F', version @ (1 | 2 | 5), ..] => return Ok(Format::Classic(*version)),
        [b'C', b'D', b'F', version, ..] => {
            return Err(Error::invalid(format!("expected CDF version `1`, `2` or `5`, found `{version}`"))
                .hint("the first four bytes are damaged, or the file was written by something newer than NetCDF 4.9"));
        }
        _ => {}
    }
    // HDF5 looks for its signature at 0, 512, 1024, 2048 …: a user block may precede it.
    let mut offset = 0_usize;
    while let Some(window) = head.get(offset..).filter(|window| window.len() >= HDF5.len()) {
        if window.starts_with(&HDF5) {
            return Ok(Format::Hdf5);
        }
        offset = if offset == 0 { 512 } else { offset * 2 };
    }
    Err(unrecognised(head))
}

fn unrecognised(head: &[u8]) -> Error {
    let expected = "expected a NetCDF file (`CDF` or HDF5 signature)";
    if head.is_empty() {
        return Error::invalid(format!("{expected}, found an empty file"))
            .hint("the upload or download did not finish: fetch the file again");
    }
    if head.iter().all(|&byte| byte == 0) {
        return Error::invalid(format!("{expected}, found only zero bytes"))
            .hint("the upload or download did not finish: fetch the file again");
    }
    if HDF5.starts_with(&head[..head.len().min(HDF5.len())]) || b"CDF".starts_with(&head[..head.len().min(3)]) {
        return Error::corrupt(format!("the file ends after {} bytes, inside its signature", head.len()))
            .hint("the upload or download did not finish: fetch the file again");
    }
    let known = [
        (&[0x1f, 0x8b][..], "a gzip file", "decompress it first"),
        (b"PK\x03\x04", "a zip archive", "unpack it first"),
        (b"BZh", "a bzip2 file", "decompress it first"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "an xz file", "decompress it first"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "a zstd file", "decompress it first"),
        (b"GRIB", "a GRIB file", "convert it to NetCDF, for example with `cdo -f nc4 copy`"),
        (&[0x0e, 0x03, 0x13, 0x01], "an HDF4 file", "convert it with `h4toh5` or `ncks`"),
        (b"%PDF", "a PDF document", "point at the data file"),
        (b"PAR1", "a Parquet file", "point at the NetCDF file"),
    ];
    for (magic, what, repair) in known {
        if head.starts_with(magic) {
            return Error::invalid(format!("{expected}, found {what}")).hint(repair);
        }
    }
    let start: String = String::from_utf8_lossy(&head[..head.len().min(64)]).chars().take(32).collect();
    let is_text = std::str::from_utf8(&head[..head.len().min(64)])
        .map_or_else(|error| error.error_len().is_none(), |_| true)
        && !start.chars().any(|character| character.is_control() && !character.is_whitespace());
    if is_text {
        let start = start.trim_end_matches('\u{fffd}').escape_debug().to_string();
        let lower = start.to_ascii_lowercase();
        let repair = if lower.starts_with("<!doctype") || lower.starts_with("<html") || lower.starts_with("<?xml") {
            "a server answered with a page instead of the file: check the URL and the credentials"
        } else {
            "check that the key names a data file; a filter on the source (`include`) can leave it out"
        };
        return Error::invalid(format!("{expected}, found text `{start}…`")).hint(repair);
    }
    let bytes: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Error::invalid(format!("{expected}, found bytes `{}`", bytes.join(" ")))
        .hint("the start of the file is damaged, or it is another format")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn says_what_a_file_is_when_it_is_not_netcdf() {
        let message = |head: &[u8]| recognise(head).unwrap_err().to_string();
        assert_eq!(
            message(b"Dear colleagues, please find attached"),
            "expected a NetCDF file (`CDF` or HDF5 signature), found text `Dear colleagues, please find att…`\n\n\
             hint: check that the key names a data file; a filter on the source (`include`) can leave it out"
        );
        assert!(message(b"").contains("found an empty file"));
        assert!(message(&[0; 100]).contains("only zero bytes"));
        assert!(message(b"<html><body>403").contains("credentials"));
        assert!(message(&[0x1f, 0x8b, 8, 0]).contains("a gzip file"));
        assert!(message(&[7, 1, 2, 3]).contains("found bytes `07 01 02 03`"));
        assert!(message(b"CDF\x09").contains("CDF version"));
        assert_eq!(recognise(b"CD").unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn finds_hdf5_behind_a_user_block() {
        let mut head = vec![0; 1024];
        head.extend_from_slice(&HDF5);
        assert_eq!(recognise(&head).unwrap(), Format::Hdf5);
        assert_eq!(recognise(b"CDF\x05....").unwrap(), Format::Classic(5));
    }
}
