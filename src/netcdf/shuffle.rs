//! The inverse of HDF5's shuffle filter: byte planes back to elements.
//!
//! The plain double loop writes one byte at a stride, which no compiler turns into vectors. Here the usual sizes read one
//! run of every plane and write whole elements: for 2 and 4 bytes the compiler interleaves with vector instructions by
//! itself, for 8 an 8 × 8 byte transposition in registers does the same in three swaps.

/// Writes the elements of `planes` into `output`, which has the same length. Bytes behind the last whole element are not
/// shuffled by HDF5 and are copied.
pub(crate) fn unshuffle(planes: &[u8], element_size: usize, output: &mut [u8]) {
    debug_assert_eq!(planes.len(), output.len());
    let count = planes.len().checked_div(element_size).unwrap_or(0);
    if element_size <= 1 || count <= 1 {
        output.copy_from_slice(planes);
        return;
    }
    let (shuffled, rest) = planes.split_at(count * element_size);
    let (elements, tail) = output.split_at_mut(count * element_size);
    tail.copy_from_slice(rest);
    match element_size {
        2 => two(shuffled, count, elements),
        4 => four(shuffled, count, elements),
        8 => eight(shuffled, count, elements),
        _ => of_any_size(shuffled, count, element_size, elements),
    }
}

fn two(planes: &[u8], count: usize, elements: &mut [u8]) {
    let (first, second) = planes.split_at(count);
    for ((element, first), second) in elements.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
        *element = [*first, *second];
    }
}

fn four(planes: &[u8], count: usize, elements: &mut [u8]) {
    let (first, rest) = planes.split_at(count);
    let (second, rest) = rest.split_at(count);
    let (third, fourth) = rest.split_at(count);
    let sources = first.iter().zip(second).zip(third).zip(fourth);
    for (element, (((first, second), third), fourth)) in elements.as_chunks_mut::<4>().0.iter_mut().zip(sources) {
        *element = [*first, *second, *third, *fourth];
    }
}

fn eight(planes: &[u8], count: usize, elements: &mut [u8]) {
    let plane = |index: usize| planes[index * count..(index + 1) * count].as_chunks::<8>();
    let whole: [&[[u8; 8]]; 8] = std::array::from_fn(|index| plane(index).0);
    let (groups, rest) = elements.as_chunks_mut::<64>();
    for (position, group) in groups.iter_mut().enumerate() {
        let mut rows: [u64; 8] = std::array::from_fn(|index| u64::from_le_bytes(whole[index][position]));
        transpose(&mut rows);
        for (element, row) in group.as_chunks_mut::<8>().0.iter_mut().zip(rows) {
            *element = row.to_le_bytes();
        }
    }
    let done = groups.len() * 8;
    for (offset, element) in rest.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *element = std::array::from_fn(|index| planes[index * count + done + offset]);
    }
}

/// Transposes an 8 × 8 matrix of bytes, one row a word: swaps of 4 × 4, 2 × 2 and single bytes across the diagonal.
fn transpose(rows: &mut [u64; 8]) {
    const STEPS: [(usize, u32, u64); 3] =
        [(4, 32, 0x0000_0000_ffff_ffff), (2, 16, 0x0000_ffff_0000_ffff), (1, 8, 0x00ff_00ff_00ff_00ff)];
    for (distance, shift, mask) in STEPS {
        for row in 0..8 {
            if row & distance == 0 {
                let moved = ((rows[row] >> shift) ^ rows[row + distance]) & mask;
                rows[row + distance] ^= moved;
                rows[row] ^= moved << shift;
            }
        }
    }
}

/// Any size, in blocks that keep the written elements in the nearest cache.
fn of_any_size(planes: &[u8], count: usize, element_size: usize, elements: &mut [u8]) {
    let step = (8192 / element_size).max(1);
    for first in (0..count).step_by(step) {
        let last = (first + step).min(count);
        for byte in 0..element_size {
            let source = &planes[byte * count + first..byte * count + last];
            let target = elements[first * element_size + byte..].iter_mut().step_by(element_size);
            for (target, source) in target.zip(source) {
                *target = *source;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shuffle(bytes: &[u8], element_size: usize) -> Vec<u8> {
        let count = bytes.len() / element_size;
        let mut planes = bytes.to_vec();
        for element in 0..count {
            for byte in 0..element_size {
                planes[byte * count + element] = bytes[element * element_size + byte];
            }
        }
        planes
    }

    proptest! {
        #[test]
        fn undoes_shuffle(bytes in prop::collection::vec(any::<u8>(), 0..2000), element_size in 1_usize..18) {
            let mut output = vec![0; bytes.len()];
            unshuffle(&shuffle(&bytes, element_size), element_size, &mut output);
            prop_assert_eq!(output, bytes);
        }
    }

    /// `cargo test --release unshuffle_speed -- --ignored --nocapture` prints GB/s of the plain loop and of ours.
    #[test]
    #[ignore = "a measurement"]
    fn unshuffle_speed() {
        for element_size in [2, 4, 8, 3] {
            let planes: Vec<u8> = (0..8_u32 << 20).map(|index| ((index * 31) >> 3) as u8).collect();
            let mut output = vec![0; planes.len()];
            let mut measure = |name: &str, run: &mut dyn FnMut(&mut [u8])| {
                let mut best = f64::MAX;
                for _ in 0..9 {
                    let start = std::time::Instant::now();
                    run(&mut output);
                    best = best.min(start.elapsed().as_secs_f64());
                }
                eprintln!("{element_size} bytes, {name}: {:.2} GB/s", planes.len() as f64 / best / 1e9);
            };
            measure("plain", &mut |output| {
                let count = planes.len() / element_size;
                for byte in 0..element_size {
                    for element in 0..count {
                        output[element * element_size + byte] = planes[byte * count + element];
                    }
                }
            });
            measure("ours", &mut |output| unshuffle(&planes, element_size, output));
        }
    }
}
