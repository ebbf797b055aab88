//! The byte shuffle of numcodecs and HDF5: first all first bytes of the elements, then all second bytes, and so on.

/// Shuffles `input`, whose length is a multiple of `element_size`.
pub(super) fn encode(input: &[u8], element_size: usize, output: &mut Vec<u8>) {
    output.clear();
    output.reserve(input.len());
    match element_size {
        2 => split::<2>(input, output),
        4 => split::<4>(input, output),
        8 => split::<8>(input, output),
        _ => {
            for byte in 0..element_size {
                output.extend(input.iter().skip(byte).step_by(element_size));
            }
        }
    }
}

/// Undoes [`encode`].
pub(super) fn decode(input: &[u8], element_size: usize, output: &mut Vec<u8>) {
    output.clear();
    output.resize(input.len(), 0);
    match element_size {
        2 => join::<2>(input, output),
        4 => join::<4>(input, output),
        8 => join::<8>(input, output),
        _ => {
            let count = input.len() / element_size;
            for (byte, plane) in input.chunks_exact(count.max(1)).enumerate() {
                for (target, value) in output.iter_mut().skip(byte).step_by(element_size).zip(plane) {
                    *target = *value;
                }
            }
        }
    }
}

fn split<const SIZE: usize>(input: &[u8], output: &mut Vec<u8>) {
    let (elements, _) = input.as_chunks::<SIZE>();
    for byte in 0..SIZE {
        output.extend(elements.iter().map(|element| element[byte]));
    }
}

fn join<const SIZE: usize>(input: &[u8], output: &mut [u8]) {
    let count = input.len() / SIZE;
    let (elements, _) = output.as_chunks_mut::<SIZE>();
    // Slices of one length, so that the loop needs no bounds checks and becomes vector code.
    let planes: [&[u8]; SIZE] = std::array::from_fn(|byte| &input[byte * count..(byte + 1) * count]);
    for (position, element) in elements.iter_mut().enumerate() {
        for byte in 0..SIZE {
            element[byte] = planes[byte][position];
        }
    }
}
