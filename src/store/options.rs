//! Settings of a connection: refused when unknown, given twice, or malformed, because a setting that is silently ignored
//! reads the wrong bucket.

use std::fmt::Debug;
use std::str::FromStr;

use super::StorageOptions;
use crate::error::{Error, Result};

/// Settings that every service has.
pub(super) const CLIENT: &[&str] = &[
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "disable_system_certificates",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
];

/// Settings with the keys of one service.
#[derive(Debug)]
pub(super) struct Settings<K>(Vec<(K, String)>);

impl<K: FromStr + PartialEq + Copy + Debug> Settings<K> {
    /// The `options` as keys of `service`; `known` is for suggestions only.
    pub(super) fn given(options: &StorageOptions, service: &str, known: &[&str]) -> Result<Self> {
        let mut settings: Vec<(K, String)> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in options {
            let Ok(key) = name.to_ascii_lowercase().parse::<K>() else {
                return Err(unknown(name, service, &[known, CLIENT].concat()));
            };
            if let Some(position) = settings.iter().position(|(other, _)| *other == key) {
                return Err(Error::invalid(format!(
                    "the storage options `{}` and `{name}` are one setting, given twice",
                    names[position]
                )));
            }
            settings.push((key, value.clone()));
            names.push(name);
        }
        Ok(Self(settings))
    }

    /// What the environment's variables that begin with `prefix` say; unknown ones belong to other programs.
    pub(super) fn environment(prefix: &str) -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.to_str().filter(|name| name.starts_with(prefix))?.to_ascii_lowercase();
            Some((name.parse::<K>().ok()?, value.into_string().ok()?))
        });
        Self(variables.collect())
    }

    pub(super) fn get(&self, key: K) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, keys: &[K]) -> bool {
        keys.iter().any(|key| self.get(*key).is_some())
    }

    pub(super) fn remove(&mut self, keys: &[K]) {
        self.0.retain(|(key, _)| !keys.contains(key));
    }

    /// Sets what is not set.
    pub(super) fn or(&mut self, key: K, value: impl Into<String>) {
        if self.get(key).is_none() {
            self.0.push((key, value.into()));
        }
    }

    /// Sets from `others` what is not set here.
    pub(super) fn or_all(&mut self, others: Self) {
        for (key, value) in others.0 {
            self.or(key, value);
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (K, String)> {
        self.0.into_iter()
    }
}

/// Refuses all options, where there are none.
pub(super) fn none(options: &StorageOptions, place: &str) -> Result<()> {
    match options.keys().next() {
        None => Ok(()),
        Some(name) => Err(Error::invalid(format!("unknown storage option `{name}`: {place} takes none"))),
    }
}

fn unknown(name: &str, service: &str, known: &[&str]) -> Error {
    let error = Error::invalid(format!("unknown storage option `{name}` for {service}"));
    let wanted = name.to_ascii_lowercase();
    let nearest = known
        .iter()
        .map(|candidate| (distance(&wanted, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min();
    match nearest {
        Some((_, nearest)) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint(format!("known are {}", known.join(", "))),
    }
}

/// How many insertions, deletions, replacements and swaps of neighbours lie between two words.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i];
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey;

    use super::*;

    fn given(options: &[(&str, &str)]) -> Result<Settings<AmazonS3ConfigKey>> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::given(&options, "S3", &["region", "skip_signature", "endpoint"])
    }

    #[test]
    fn names_are_read_in_any_case_and_with_the_vendor_prefix() {
        let settings = given(&[("AWS_REGION", "a"), ("endpoint", "b")]).unwrap();
        assert_eq!(settings.get(AmazonS3ConfigKey::Region), Some("a"));
        assert_eq!(settings.get(AmazonS3ConfigKey::Endpoint), Some("b"));
    }

    #[test]
    fn unknown_and_duplicate_names_are_refused_with_the_repair() {
        assert_eq!(
            given(&[("skip_singature", "true")]).unwrap_err().to_string(),
            "unknown storage option `skip_singature` for S3\n\nhint: did you mean `skip_signature`?"
        );
        assert_eq!(
            given(&[("AWS_REGION", "a"), ("region", "b")]).unwrap_err().to_string(),
            "the storage options `AWS_REGION` and `region` are one setting, given twice"
        );
        assert!(given(&[("colour", "x")]).unwrap_err().to_string().contains("known are region, skip_signature"));
    }

    #[test]
    fn distances_count_single_mistakes() {
        assert_eq!(distance("region", "regoin"), 1);
        assert_eq!(distance("region", "regio"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
