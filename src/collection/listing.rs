//! Which keys of the source prefix belong to the collection.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use super::config::SourceConfig;
use crate::error::{Error, Result};

/// A list of patterns on keys: globs (`**/*.nc`, `*` stays within a folder) or regular expressions written `re:…`.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
enum Pattern {
    Glob(GlobMatcher),
    Expression(Regex),
}

impl Patterns {
    /// Parses patterns.
    ///
    /// # Errors
    /// `Invalid` where one cannot be parsed.
    pub fn new(patterns: &[String]) -> Result<Self> {
        patterns.iter().map(|text| Pattern::new(text)).collect::<Result<_>>().map(Self)
    }

    /// Whether any pattern matches the key.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        self.0.iter().any(|pattern| match pattern {
            Pattern::Glob(glob) => glob.is_match(key),
            Pattern::Expression(expression) => expression.is_match(key),
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("pattern `{text}` cannot be parsed: {error}"))
                .hint("write a glob such as `**/*.nc`, or a regular expression as `re:.*\\.nc$`")
        };
        match text.strip_prefix("re:") {
            Some(expression) => Regex::new(expression).map(Self::Expression).map_err(|error| wrong(&error)),
            None => GlobBuilder::new(text)
                .literal_separator(true)
                .build()
                .map(|glob| Self::Glob(glob.compile_matcher()))
                .map_err(|error| wrong(&error)),
        }
    }
}

/// Decides whether a key is a source.
#[derive(Debug, Clone)]
pub struct Selection {
    include: Patterns,
    exclude: Patterns,
}

impl Selection {
    /// From the configuration; without `include` every `.nc`, `.nc4`, `.cdf` and `.h5` is taken.
    ///
    /// # Errors
    /// `Invalid` where a pattern cannot be parsed.
    pub fn new(source: &SourceConfig) -> Result<Self> {
        let include = if source.include.is_empty() {
            Patterns::new(&["**/*.{nc,nc4,cdf,h5}".to_owned()])?
        } else {
            Patterns::new(&source.include)?
        };
        Ok(Self { include, exclude: Patterns::new(&source.exclude)? })
    }

    /// Whether `key` is a source.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        self.include.matches(key) && !self.exclude.matches(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stay_within_a_folder_and_expressions_do_not() {
        let patterns = Patterns::new(&["2022/*.nc".to_owned(), "re:_V0[12]\\.nc$".to_owned()]).unwrap();
        assert!(patterns.matches("2022/a.nc"));
        assert!(!patterns.matches("2022/01/a.nc"));
        assert!(patterns.matches("deep/er/x_V02.nc"));
        let all = Patterns::new(&["**/*.nc".to_owned()]).unwrap();
        assert!(all.matches("a.nc") && all.matches("x/y/a.nc") && !all.matches("a.txt"));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        assert!(Patterns::new(&["re:(".to_owned()]).unwrap_err().to_string().contains("re:("));
    }
}
