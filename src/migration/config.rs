//! The configuration of a migration set as the core sees it: the Python models' JSON with every default filled in.
//!
//! The models in `regraft.migrations` own validation, defaults and the JSON Schema; this is their mirror, and it refuses
//! unknown fields so that the two cannot drift apart unseen.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::cost::Prices;
use crate::error::{Error, Result};
use crate::parquet::Layout;
use crate::store::StorageOptions;

/// A data set with its ordered steps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `migration-set`.
    pub kind: String,
    /// Name of the set; run records are kept under it.
    pub name: String,
    /// The data set.
    pub data: DataConfig,
    /// Where an object says which version it has.
    pub version: VersionConfig,
    /// The version to reach; the highest that a step leads to where it is not said.
    #[serde(default)]
    pub target: Option<u64>,
    /// How rewritten files are laid out.
    #[serde(default = "automatic")]
    pub layout: Layout,
    /// The steps, in any order.
    pub steps: Vec<StepConfig>,
    /// How new columns are encoded.
    #[serde(default)]
    pub encode: EncodeConfig,
    /// What is carried over besides bytes, metadata and tags.
    #[serde(default)]
    pub carry: CarryConfig,
    /// How the work is done.
    #[serde(default)]
    pub run: RunConfig,
    /// Prices in place of the dated table in [`super::cost`].
    #[serde(default)]
    pub prices: Option<Prices>,
}

fn automatic() -> Layout {
    Layout::Auto
}

/// Which objects belong to the data set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// URL of the folder or prefix.
    pub url: String,
    /// Options of the object store.
    #[serde(default)]
    pub storage_options: StorageOptions,
    /// Beginnings of keys below `url`; empty takes all.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// End of the keys, such as `.parquet`.
    #[serde(default)]
    pub suffix: Option<String>,
    /// Text that the last segment of the key contains.
    #[serde(default)]
    pub contains: Option<String>,
    /// What becomes of a `_metadata` file that the migration would make lie.
    #[serde(default)]
    pub sidecars: Sidecars,
}

/// What becomes of a `_metadata` file that the migration would make lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sidecars {
    /// Nothing is migrated while it is there.
    #[default]
    Refuse,
    /// It stays as it is; the user writes it again.
    Keep,
}

/// Where an object says which version it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionConfig {
    /// Name of the footer's key-value and of the object's tag.
    pub key: String,
    /// The version of an object that says none.
    #[serde(default = "first")]
    pub default: u64,
}

fn first() -> u64 {
    1
}

/// One step from a version to a later one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// The version that it starts from.
    pub from: u64,
    /// The version that it leads to.
    pub to: u64,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// Names the step's definition: expressions, code, declarations.
    #[serde(default)]
    pub fingerprint: String,
    /// `sql` or `python`; for display.
    #[serde(default)]
    pub kind: String,
    /// Declared inputs; for display, binding says what is read.
    #[serde(default)]
    pub reads: Option<Vec<String>>,
    /// Declared results: name and type text; for display.
    #[serde(default)]
    pub adds: Option<BTreeMap<String, Option<String>>>,
    /// Old names and new ones.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Columns taken out.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Columns that get another type: name before the step, and type text.
    #[serde(default)]
    pub cast: BTreeMap<String, String>,
}

/// How new columns are encoded.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeConfig {
    /// Compression; the file's own where it is not said.
    #[serde(default)]
    pub compression: Option<String>,
    /// New columns that get a bloom filter.
    #[serde(default)]
    pub bloom: Vec<String>,
}

/// What is carried over besides bytes, metadata and tags.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarryConfig {
    /// Access that was granted to others, object by object.
    #[serde(default)]
    pub grants: Grants,
}

/// Whether the grants of each object are asked for and said again: a request an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "GrantsText", into = "GrantsText")]
pub enum Grants {
    /// Where the bucket has them.
    #[default]
    Auto,
    /// Always.
    Carried,
    /// Never: what others were granted is lost.
    Left,
}

/// `"auto"`, `true` or `false`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum GrantsText {
    Said(bool),
    Word(Auto),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Auto {
    Auto,
}

impl From<GrantsText> for Grants {
    fn from(text: GrantsText) -> Self {
        match text {
            GrantsText::Word(Auto::Auto) => Self::Auto,
            GrantsText::Said(true) => Self::Carried,
            GrantsText::Said(false) => Self::Left,
        }
    }
}

impl From<Grants> for GrantsText {
    fn from(grants: Grants) -> Self {
        match grants {
            Grants::Auto => Self::Word(Auto::Auto),
            Grants::Carried => Self::Said(true),
            Grants::Left => Self::Said(false),
        }
    }
}

/// How the work is done; nothing here changes what is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Objects under way at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Objects started per second at most.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Bytes read and written per second at most.
    #[serde(default)]
    pub bytes_per_second: Option<f64>,
    /// Times that one request is sent in all; an object takes several.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// Failed objects after which no other is started; none goes through to the end.
    #[serde(default)]
    pub max_failures: Option<Failures>,
    /// Bytes of decoded and encoded data held at once.
    #[serde(default = "default_memory")]
    pub memory: u64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            concurrency: default_concurrency(),
            rate: None,
            bytes_per_second: None,
            tries: default_tries(),
            max_failures: None,
            memory: default_memory(),
        }
    }
}

fn default_concurrency() -> usize {
    100
}

fn default_tries() -> u32 {
    10
}

fn default_memory() -> u64 {
    2 << 30
}

/// How many objects may fail: a count (`20`), or a share of those to be migrated (`"1%"`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(into = "String")]
pub enum Failures {
    /// So many.
    Count(u64),
    /// So many of a hundred.
    Percent(f64),
}

impl Failures {
    /// How many of `objects` may fail.
    #[must_use]
    pub fn of(self, objects: u64) -> u64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (objects as f64 * percent / 100.0) as u64,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().ok()?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent))
            }
            None => text.trim().parse().ok().map(Self::Count),
        }
    }
}

impl From<Failures> for String {
    fn from(failures: Failures) -> Self {
        match failures {
            Failures::Count(count) => count.to_string(),
            Failures::Percent(percent) => format!("{percent}%"),
        }
    }
}

impl<'de> Deserialize<'de> for Failures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(count) => return Ok(Self::Count(count)),
            Written::Text(text) => text,
        };
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("expected a count or a share such as `1%`, found `{text}`"))
        })
    }
}

impl Config {
    /// Reads the JSON that the Python models dump.
    ///
    /// # Errors
    /// `Invalid` where it is not such a document, or a limit is zero.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: Self = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("migration set configuration: {error}")))?;
        if config.version.key.is_empty() {
            return Err(Error::invalid("`version.key` is empty"));
        }
        if config.name.is_empty() || config.name.contains(['/', '\\']) || config.name.starts_with('.') {
            return Err(Error::invalid(format!("`{}` cannot be the name of a migration set", config.name))
                .hint("use letters, digits, `-` and `_`"));
        }
        let run = &config.run;
        let positive = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value > 0.0);
        if run.concurrency == 0 || run.tries == 0 || !positive(run.rate) || !positive(run.bytes_per_second) {
            return Err(Error::invalid("`run`: `concurrency`, `tries`, `rate` and `bytes_per_second` are above zero"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_configuration_has_every_default() {
        let config = Config::from_json(
            r#"{"kind":"migration-set","name":"s","data":{"url":"d"},"version":{"key":"v"},
                "steps":[{"from":1,"to":2}],"run":{"max_failures":"1%"}}"#,
        )
        .unwrap();
        assert_eq!((config.version.default, config.run.concurrency, config.run.tries), (1, 100, 10));
        assert_eq!(config.run.max_failures.map(|failures| failures.of(7200)), Some(72));
        assert_eq!(config.carry.grants, Grants::Auto);
    }

    #[test]
    fn grants_are_carried_always_never_or_where_there_are_any() {
        for (text, grants) in [("\"auto\"", Grants::Auto), ("true", Grants::Carried), ("false", Grants::Left)] {
            assert_eq!(serde_json::from_str::<Grants>(text).unwrap(), grants);
            assert_eq!(serde_json::to_string(&grants).unwrap(), text);
        }
        assert!(serde_json::from_str::<Grants>("\"yes\"").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |part: &str| {
            Config::from_json(&format!(
                r#"{{"kind":"migration-set","name":"s","data":{{"url":"d"}},"version":{{"key":"v"}},"steps":[],{part}}}"#
            ))
            .unwrap_err()
            .to_string()
        };
        assert!(with(r#""targt":3"#).contains("targt"));
        assert!(with(r#""run":{"max_failures":"101%"}"#).contains("101%"));
        assert!(with(r#""run":{"concurrency":0}"#).contains("above zero"));
        assert!(with(r#""target":"3""#).contains("u64"));
    }
}
