//! The order in which the elements of a chunk are stored: v3 `transpose`, v2 order `F`.

use crate::error::{Error, Result};

/// Rearranges C-order elements of `shape` into C-order elements of the transposed shape, whose dimension `i` is
/// dimension `order[i]` of `shape`.
pub(super) fn transpose<T: Clone>(
    input: &[T],
    shape: &[usize],
    order: &[usize],
    width: usize,
    output: &mut Vec<T>,
) -> Result<()> {
    let count = shape.iter().product::<usize>();
    if input.len() != count * width {
        return Err(Error::corrupt(format!(
            "expected `{}` elements before transposing, found `{}`",
            count,
            input.len() / width.max(1)
        )));
    }
    output.clear();
    output.reserve(input.len());
    if count == 0 {
        return Ok(());
    }
    let mut strides = vec![width; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    let steps: Vec<usize> = order.iter().map(|dimension| strides[*dimension]).collect();
    let lengths: Vec<usize> = order.iter().map(|dimension| shape[*dimension]).collect();
    let (Some(inner_step), Some(inner_length)) = (steps.last(), lengths.last()) else {
        output.extend_from_slice(input);
        return Ok(());
    };
    let mut index = vec![0; lengths.len()];
    let mut offset = 0;
    loop {
        for position in 0..*inner_length {
            let start = offset + position * inner_step;
            output.extend_from_slice(&input[start..start + width]);
        }
        // The next row: an odometer over all dimensions but the last.
        let mut dimension = lengths.len() - 1;
        loop {
            if dimension == 0 {
                return Ok(());
            }
            dimension -= 1;
            index[dimension] += 1;
            offset += steps[dimension];
            if index[dimension] < lengths[dimension] {
                break;
            }
            offset -= steps[dimension] * lengths[dimension];
            index[dimension] = 0;
        }
    }
}

/// The order that undoes `order`.
pub(super) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (position, dimension) in order.iter().enumerate() {
        inverse[*dimension] = position;
    }
    inverse
}
