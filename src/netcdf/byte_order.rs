//! Big-endian elements to little-endian, in place.

/// Reverses the bytes of every element of `element_size` bytes; sizes other than 2, 4 and 8 have no byte order.
pub(crate) fn swap(bytes: &mut [u8], element_size: usize) {
    fn each<const N: usize>(bytes: &mut [u8]) {
        for element in bytes.as_chunks_mut::<N>().0 {
            element.reverse();
        }
    }
    match element_size {
        2 => each::<2>(bytes),
        4 => each::<4>(bytes),
        8 => each::<8>(bytes),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_whole_elements() {
        let mut bytes = *b"abcdefgh";
        swap(&mut bytes, 2);
        assert_eq!(&bytes, b"badcfehg");
        swap(&mut bytes, 8);
        assert_eq!(&bytes, b"ghefcdab");
        swap(&mut bytes, 1);
        assert_eq!(&bytes, b"ghefcdab");
    }
}
