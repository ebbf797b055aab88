//! What a run costs: a dated price table, and sums over requests and seconds.
//!
//! The dollars are an estimate for one region of one vendor; the requests and bytes that they are made from are counted.

use serde::{Deserialize, Serialize};

use crate::progress::Usage;

/// Prices in US dollars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// When they were looked up, and where.
    pub date: String,
    /// A thousand writes, copies, parts, completions and listings.
    pub write_per_1000: f64,
    /// A thousand reads of objects, ranges, metadata and tags.
    pub read_per_1000: f64,
    /// One second of one core with its memory.
    pub compute_per_second: f64,
    /// A gigabyte (10⁹ bytes) that leaves the region; nothing inside of it.
    pub egress_per_gb: f64,
}

impl Default for Prices {
    /// S3 Standard and Lambda (x86, 1,769 MB: one virtual core) in us-east-1.
    fn default() -> Self {
        Self {
            date: "2026-11-21".into(),
            write_per_1000: 0.005,
            read_per_1000: 0.0004,
            compute_per_second: 0.000_016_666_7 * 1769.0 / 1024.0,
            egress_per_gb: 0.0,
        }
    }
}

/// Dollars, by what they are paid for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dollars {
    /// Requests.
    pub requests: f64,
    /// Seconds of a core.
    pub compute: f64,
    /// Bytes that leave the region.
    pub transfer: f64,
    /// The sum.
    pub total: f64,
    /// Date of the prices.
    pub price_table: String,
}

/// Requests by the classes that are paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// Object and range reads.
    pub get: u64,
    /// Metadata and tags read.
    pub head: u64,
    /// Writes; each part and completion of a multipart write counts.
    pub put: u64,
    /// Copies inside the store; each copied part counts.
    pub copy: u64,
    /// Pages listed.
    pub list: u64,
}

impl Requests {
    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            get: self.get + other.get,
            head: self.head + other.head,
            put: self.put + other.put,
            copy: self.copy + other.copy,
            list: self.list + other.list,
        }
    }
}

impl From<Usage> for Requests {
    fn from(usage: Usage) -> Self {
        Self { get: usage.get, head: usage.head, put: usage.put, copy: usage.copy, list: usage.list }
    }
}

impl Prices {
    /// What so many requests, seconds of a core and bytes out of the store cost.
    #[must_use]
    pub fn dollars(&self, requests: Requests, core_seconds: f64, bytes_read: u64) -> Dollars {
        let writes = requests.put + requests.copy + requests.list;
        let reads = requests.get + requests.head;
        let paid_requests = (writes as f64 * self.write_per_1000 + reads as f64 * self.read_per_1000) / 1000.0;
        let compute = core_seconds * self.compute_per_second;
        let transfer = bytes_read as f64 / 1e9 * self.egress_per_gb;
        Dollars {
            requests: paid_requests,
            compute,
            transfer,
            total: paid_requests + compute + transfer,
            price_table: self.date.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_priced_as_its_article_says() {
        // 7,200 files of 40 s on a Lambda of one virtual core: $8.28 in the article.
        let compute = Prices::default().dollars(Requests::default(), 7200.0 * 40.0, 0);
        assert!((compute.total - 8.29).abs() < 0.02, "{compute:?}");
        // Four writes and seven reads a file: $0.144 + $0.020.
        let requests = Requests { put: 3 * 7200, copy: 7200, get: 6 * 7200, head: 7200, list: 0 };
        let paid = Prices::default().dollars(requests, 0.0, 0);
        assert!((paid.requests - 0.164).abs() < 0.001, "{paid:?}");
    }
}
