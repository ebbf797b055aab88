//! What a migrated file says about itself: enough to resume, to verify and to roll back with nothing but the object.
//!
//! Two key-values of the footer: the version, an integer as text, which any reader of Parquet can show; and
//! `regraft:migration`, the last migration as JSON. They are written with the data in one commit, so that a file cannot be
//! migrated without saying so. The object's tag with the version is an index for other tools; the footer is the truth.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::parquet::{Change, Layout};
use crate::store::Checksum;

/// Key of the last migration in the footer's key-values.
pub const STAMP_KEY: &str = "regraft:migration";

/// The last migration of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Name of the migration set.
    pub set: String,
    /// The run that wrote it.
    pub run: String,
    /// The version before.
    pub from: u64,
    /// The version after.
    pub to: u64,
    /// The steps of this migration, in order.
    pub steps: Vec<AppliedStep>,
    /// What became of columns.
    #[serde(default)]
    pub columns: ColumnChanges,
    /// How the file is laid out.
    pub layout: Layout,
    /// The object before.
    pub previous: Previous,
    /// Steps of earlier migrations, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<AppliedStep>,
}

/// What a migration did to top-level columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ColumnChanges {
    /// New ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Those that got another type, by the name that they have now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recast: Vec<String>,
    /// Old names and new ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renamed: Vec<(String, String)>,
    /// Those that went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
}

impl From<&Change> for ColumnChanges {
    fn from(change: &Change) -> Self {
        let named = |recast: bool| {
            let adds = change.adds.iter().filter(move |add| add.replaces.is_some() == recast);
            adds.map(|add| add.field.name().clone()).collect()
        };
        Self {
            added: named(false),
            recast: named(true),
            renamed: change.renames.clone(),
            dropped: change.drops.clone(),
        }
    }
}

/// A step that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedStep {
    /// The version before.
    pub from: u64,
    /// The version after.
    pub to: u64,
    /// The step's definition, as it was then.
    pub fingerprint: String,
}

/// An object before its migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its ETag.
    pub etag: String,
    /// Its version in the bucket, where it keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its length in bytes: so many bytes of a widened file are the file before.
    pub length: u64,
    /// The value of its version tag, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The checksum of its content, where it was known for nothing: of what was read whole, else as the service keeps
    /// it. A widened file is proved by it without the file before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

impl Stamp {
    /// Reads the key-value of `name`.
    ///
    /// # Errors
    /// `Corrupt` where it is no stamp.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::corrupt(format!("`{STAMP_KEY}` of `{name}` cannot be read: {error}")))
    }

    /// As the value of the key-value.
    ///
    /// # Errors
    /// `Internal` where it cannot be written as JSON.
    pub fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("`{STAMP_KEY}`: {error}")))
    }

    /// All steps that were ever applied, in order.
    pub fn applied(&self) -> impl Iterator<Item = &AppliedStep> {
        self.earlier.iter().chain(&self.steps)
    }
}

/// A version from the text of a key-value or a tag.
///
/// # Errors
/// `Invalid`, naming where it stands and the object, where it is no integer.
pub fn version(text: &str, place: &str, name: &str) -> Result<u64> {
    let digits = text.trim();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().ok_or_else(|| {
        Error::invalid(format!("expected an integer as the version in the {place} of `{name}`, found `{text}`"))
            .hint("versions are compared as integers; set the tag or the key-value to one")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_integers_and_nothing_else() {
        assert_eq!(version(" 10 ", "tag", "a").unwrap(), 10);
        for wrong in ["", "1.0", "-1", "+1", "v2", "99999999999999999999999"] {
            let error = version(wrong, "tag", "a.parquet").unwrap_err().to_string();
            assert!(error.contains("`a.parquet`") && error.contains(&format!("`{wrong}`")), "{error}");
        }
    }

    #[test]
    fn a_stamp_comes_back() {
        let step = |from| AppliedStep { from, to: from + 1, fingerprint: format!("f{from}") };
        let stamp = Stamp {
            set: "s".into(),
            run: "r".into(),
            from: 2,
            to: 3,
            steps: vec![step(2)],
            columns: ColumnChanges { added: vec!["c".into()], ..ColumnChanges::default() },
            layout: Layout::Widened,
            previous: Previous {
                etag: "\"e\"".into(),
                version: None,
                length: 10,
                tag: Some("2".into()),
                checksum: Checksum::of("MD5", b"x"),
            },
            earlier: vec![step(1)],
        };
        let again = Stamp::parse(&stamp.text().unwrap(), "a").unwrap();
        assert_eq!(again, stamp);
        assert_eq!(again.applied().map(|step| step.from).collect::<Vec<_>>(), [1, 2]);
        assert!(Stamp::parse("{", "a").is_err());
    }
}
