//! One-and-a-half-bit super-blocks of 256 values: IQ1_S, IQ1_M. Every eight values are a ternary lattice point,
//! moved by an eighth up or down: `y = d * (2 s + 1) * (point + delta)`.

use super::grids;
use super::{each_block, f16_at, u16_at};

/// 32 low bytes of points; per group of 32 values a word of four times three high bits, a scale and delta's sign
pub(super) fn iq1_s(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 50], y: &mut [f32; 256]| {
        let d = f16_at(b, 0);
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let word = u16_at(b, 34 + i / 4 * 2);
            let point = usize::from(b[2 + i]) | usize::from(word >> (i % 4 * 3) & 7) << 8;
            moved(point, d * f32::from(2 * (word >> 12 & 7) + 1), word >> 15 == 1, y);
        }
    });
}

/// 32 low bytes of points; 32 nibbles of three high bits and delta's sign; four words whose low twelve bits are four
/// scales (each of 16 values) and whose high nibbles together are `d`
pub(super) fn iq1_m(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 56], y: &mut [f32; 256]| {
        let words: [u16; 4] = std::array::from_fn(|i| u16_at(b, 48 + 2 * i));
        let d = super::f16_to_f32(
            words[0] >> 12 | words[1] >> 8 & 0x00f0 | words[2] >> 4 & 0x0f00 | words[3] & 0xf000,
        );
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = b[32 + i / 2] >> (i % 2 * 4);
            let point = usize::from(b[i]) | usize::from(high & 7) << 8;
            let scale = words[i / 8] >> (i / 2 % 4 * 3) & 7;
            moved(point, d * f32::from(2 * scale + 1), high & 8 != 0, y);
        }
    });
}

#[inline(always)]
fn moved(point: usize, scale: f32, down: bool, y: &mut [f32; 8]) {
    let delta = if down { -0.125 } else { 0.125 };
    for (y, &q) in y.iter_mut().zip(&grids::IQ1[point]) {
        *y = scale * (f32::from(q) + delta);
    }
}
