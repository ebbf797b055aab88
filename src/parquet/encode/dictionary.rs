//! Whether a dictionary makes a column of numbers smaller, judged by a sample of its values.
//!
//! # Problem
//! Computed columns are mostly numbers of which hardly two are equal. A writer that tries a dictionary first hashes every value,
//! writes each one into the dictionary, and its index besides: it takes several times as long, for more bytes.
//!
//! # Design
//! A few runs of neighbours, spread evenly, are compared. How many of `sample` values were seen before says how many distinct
//! ones there are in all, if they are drawn evenly: about `sample² / 2·repeats` (the birthday problem). With as many the
//! dictionary and its indices are weighed against the plain values. Which values are looked at depends on the number of rows alone,
//! so that the same column is always written as the same bytes.
//!
//! # Caveats
//! Where few values are frequent and the others rare, the estimate is too low, and the dictionary is tried, as it would be
//! without a sample. Texts and nested columns always try it.

use std::collections::HashSet;

use arrow_array::{Array, ArrayRef};

const RUNS: usize = 16;
const RUN: usize = 256;

/// Whether to try a dictionary for `array`.
pub(super) fn pays(array: &ArrayRef) -> bool {
    let data = array.to_data();
    let Some(width) = array.data_type().primitive_width().filter(|&width| width >= 4) else { return true };
    let Some(values) = data.buffers().first() else { return true };
    let rows = array.len();
    // A small dictionary costs nothing to speak of.
    if rows < RUNS * RUN {
        return true;
    }
    let mut seen = HashSet::with_capacity(RUNS * RUN);
    let mut sample = 0_u64;
    for run in 0..RUNS {
        let start = (rows - RUN) / (RUNS - 1) * run;
        for row in (start..start + RUN).filter(|&row| array.is_valid(row)) {
            let at = (array.offset() + row) * width;
            let Some(value) = values.get(at..at + width) else { return true };
            seen.insert(value);
            sample += 1;
        }
    }
    let repeats = sample - seen.len() as u64;
    let rows = (rows - array.null_count()) as u64;
    let distinct = if repeats == 0 { rows } else { rows.min(sample * sample / (2 * repeats)) };
    let index_bits = u64::from(u64::BITS - distinct.leading_zeros());
    let width = width as u64;
    distinct * width + rows * index_bits / 8 < rows * width
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, Int64Array, StringArray};

    use super::*;

    const ROWS: i64 = 139_000;

    fn integers(value: impl Fn(i64) -> Option<i64>) -> ArrayRef {
        Arc::new((0..ROWS).map(value).collect::<Int64Array>())
    }

    /// Even, and nothing like the order of the rows.
    fn mixed(row: i64) -> i64 {
        row.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64.cast_signed()) >> 16
    }

    #[test]
    fn a_dictionary_is_tried_where_values_come_again() {
        assert!(pays(&integers(|row| Some(row % 50))));
        assert!(pays(&integers(|row| Some(row / 100))), "runs of equal values");
        assert!(pays(&integers(|row| Some(mixed(row).rem_euclid(10_000)))));
        assert!(pays(&integers(|row| Some(if row % 3 == 0 { mixed(row) } else { 0 }))), "mostly nothing");
        assert!(pays(&(Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| row.to_string()))) as ArrayRef)));
        let few: ArrayRef = Arc::new((0..4_000).map(mixed).map(Some).collect::<Int64Array>());
        assert!(pays(&few));
    }

    #[test]
    fn a_dictionary_is_not_tried_where_all_differ() {
        assert!(!pays(&integers(|row| Some(mixed(row)))));
        assert!(!pays(&integers(|row| (row % 7 != 0).then(|| mixed(row)))), "with nulls");
        let floats: ArrayRef = Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| (row as f64).sqrt())));
        assert!(!pays(&floats));
        assert!(!pays(&floats.slice(1_000, 100_000)), "a slice");
    }
}
