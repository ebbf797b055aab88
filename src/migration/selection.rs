//! Which objects below a URL belong to the data set.

use super::config::DataConfig;

/// Decides whether a key is of the data set.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    prefixes: Vec<String>,
    suffix: String,
    contains: String,
}

impl Selection {
    /// From the configuration. Prefixes that begin with another are left out: what they name is listed with it.
    #[must_use]
    pub fn new(data: &DataConfig) -> Self {
        let mut prefixes: Vec<String> =
            data.prefixes.iter().map(|prefix| prefix.trim_start_matches('/').to_owned()).collect();
        prefixes.sort_unstable();
        prefixes.dedup_by(|next, kept| next.starts_with(kept.as_str()));
        if prefixes.is_empty() {
            prefixes.push(String::new());
        }
        Self {
            prefixes,
            suffix: data.suffix.clone().unwrap_or_default(),
            contains: data.contains.clone().unwrap_or_default(),
        }
    }

    /// The beginnings of keys to list, none of them the beginning of another.
    #[must_use]
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether `key` is of the data set. Segments that begin with `_` or `.` are other programs' (`_SUCCESS`,
    /// `_temporary`, `.part.crc`), as every reader of Hive's partitions has it; `_x=1` is a partition.
    #[must_use]
    pub fn takes(&self, key: &str) -> bool {
        let hidden = |segment: &str| segment.starts_with('.') || (segment.starts_with('_') && !segment.contains('='));
        let name = key.rsplit('/').next().unwrap_or_default();
        !key.split('/').any(hidden)
            && name.ends_with(&self.suffix)
            && name.contains(&self.contains)
            && self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(prefixes: &[&str], suffix: &str, contains: &str) -> Selection {
        Selection::new(&DataConfig {
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            suffix: Some(suffix.into()),
            contains: Some(contains.into()),
            ..DataConfig::default()
        })
    }

    #[test]
    fn partitions_are_taken_and_other_programs_files_are_not() {
        let all = selection(&[], "", "");
        for key in ["a.parquet", "year=2019/month=3/a", "_day=1/a.parquet", "a_b/c.d"] {
            assert!(all.takes(key), "{key}");
        }
        for key in ["_SUCCESS", "year=2019/_temporary/0/a.parquet", "year=2019/.a.parquet.crc", ".tmp/a.parquet"] {
            assert!(!all.takes(key), "{key}");
        }
    }

    #[test]
    fn prefix_suffix_and_name_all_hold() {
        let some = selection(&["/year=2019/", "year=2019/month=3/", "year=2021"], ".parq.snappy", "sensorData_");
        assert_eq!(some.prefixes(), ["year=2019/", "year=2021"]);
        assert!(some.takes("year=2019/month=3/sensorData_1.parq.snappy"));
        assert!(!some.takes("year=2019/month=3/other_1.parq.snappy"));
        assert!(!some.takes("year=2019/sensorData_/x.parq.snappy"), "the name counts, not the folder");
        assert!(!some.takes("year=2020/month=3/sensorData_1.parq.snappy"));
        assert!(!some.takes("year=2019/month=3/sensorData_1.parquet"));
    }
}
