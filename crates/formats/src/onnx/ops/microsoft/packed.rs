//! Matrices of 2-, 4- or 8-bit codes in blocks along the rows, as `MatMulNBits` and `GatherBlockQuantized` hold them.
//!
//! ```text
//! codes  [rows, blocks, block * bits / 8]   the first code in the lowest bits of a byte
//! scales [rows, blocks]
//! zeros  [rows, ceil(blocks * bits / 8)]    codes packed alike; or numbers [rows, blocks]; or 2^(bits - 1) everywhere
//! ```

use kinglet_graph::ValueId;
use kinglet_tensor::DType;

use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

/// How a matrix is packed.
pub(super) struct Packed {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bits: i64,
    pub(super) block: usize,
}

/// Code `i` of a row of codes.
fn code(bytes: &[u8], i: usize, bits: usize) -> u8 {
    let (per, mask) = (8 / bits, (0xFFu16 >> (8 - bits)) as u8);
    bytes[i / per] >> (i % per * bits) & mask
}

/// The matrix `[rows, cols]`, or transposed `[cols, rows]`, as a constant of `dtype`; `at` are the inputs of codes, scales and
/// zero points.
pub(super) fn unpacked(
    cx: &mut Cx<'_, '_>,
    how: &Packed,
    at: [usize; 3],
    dtype: DType,
    transposed: bool,
) -> Result<ValueId, OnnxError> {
    let bits = match how.bits {
        2 | 4 | 8 => how.bits as usize,
        other => return Err(cx.fail(format!("weights of {other} bits are not supported (2, 4 and 8 are)"))),
    };
    if how.block < 16 || !how.block.is_power_of_two() {
        return Err(cx.fail(format!("a block of {} weights: a power of two from 16 on is wanted", how.block)));
    }
    let blocks = how.cols.div_ceil(how.block);
    let line = blocks * how.block * bits / 8;
    let codes = cx.weight(at[0])?;
    let scales = cx.weight_floats(at[1])?;
    let bytes = codes.data();
    if Some(bytes.len()) != how.rows.checked_mul(line) || scales.len() != how.rows * blocks {
        let (codes, scales) = (codes.shape(), scales.len());
        return Err(cx.fail(format!("codes {codes:?} and {scales} scales for {} x {}", how.rows, how.cols)));
    }
    let zeros = zeros(cx, how, at[2], bits, blocks)?;
    let (shape, [down, across]) = if transposed {
        (vec![how.cols, how.rows], [1, how.rows])
    } else {
        (vec![how.rows, how.cols], [how.cols, 1])
    };
    let mut made = vec![0.0f32; how.cols * how.rows];
    for (row, codes) in bytes.chunks_exact(line).enumerate() {
        for col in 0..how.cols {
            let block = row * blocks + col / how.block;
            made[row * down + col * across] =
                (f32::from(code(codes, col, bits)) - zeros[block]) * scales[block];
        }
    }
    cx.floats(dtype, shape, &made)
}

/// The zero point of each block.
fn zeros(
    cx: &mut Cx<'_, '_>,
    how: &Packed,
    at: usize,
    bits: usize,
    blocks: usize,
) -> Result<Vec<f32>, OnnxError> {
    if !cx.has(at) {
        return Ok(vec![f32::from(1u8 << (bits - 1)); how.rows * blocks]);
    }
    let given = cx.weight(at)?;
    let line = (blocks * bits).div_ceil(8);
    let wrong = |cx: &Cx<'_, '_>| cx.fail(format!("zero points {:?} for {} rows", given.shape(), how.rows));
    if given.dtype() != DType::U8 {
        let list = cx.weight_floats(at)?;
        return if list.len() == how.rows * blocks { Ok(list) } else { Err(wrong(cx)) };
    }
    if given.data().len() != how.rows * line {
        return Err(wrong(cx));
    }
    let row = |codes: &[u8]| (0..blocks).map(|i| f32::from(code(codes, i, bits))).collect::<Vec<_>>();
    Ok(given.data().chunks_exact(line).flat_map(row).collect())
}
