//! Two-bit lattice super-blocks of 256 values: IQ2_XXS, IQ2_XS, IQ2_S.
//!
//! Every eight values are a lattice point, eight signs, and a scale `d * (0.5 + s) * 0.25` shared by 16 or 32.

use super::grids::{self, even_signs, signed};
use super::{each_block, f16_at, u16_at, u32_at};

/// Eight groups of 32: four bytes of points, then four times seven sign bits below a four-bit scale
pub(super) fn iq2_xxs(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 66], y: &mut [f32; 256]| {
        let d = f16_at(b, 0);
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (points, rest) = (&b[2 + group * 8..][..4], u32_at(b, 6 + group * 8));
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.25;
            for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                signed(&grids::IQ2_XXS[usize::from(points[i])], scale, even_signs(rest >> (7 * i)), y);
            }
        }
    });
}

/// 32 words of nine point bits and seven sign bits; 16 four-bit scales
pub(super) fn iq2_xs(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 74], y: &mut [f32; 256]| {
        let d = f16_at(b, 0);
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let word = u16_at(b, 2 + 2 * i);
            let scale = quarter_scale(d, b[66 + i / 4], i);
            signed(&grids::IQ2_XS[usize::from(word & 511)], scale, even_signs(u32::from(word >> 9)), y);
        }
    });
}

/// 32 low bytes of points, 32 bytes of signs, eight bytes of two high point bits each, 16 four-bit scales
pub(super) fn iq2_s(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 82], y: &mut [f32; 256]| {
        let d = f16_at(b, 0);
        for (i, y) in y.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = usize::from(b[66 + i / 4] >> (i % 4 * 2) & 3);
            let point = usize::from(b[2 + i]) | high << 8;
            signed(&grids::IQ2_S[point], quarter_scale(d, b[74 + i / 4], i), b[34 + i], y);
        }
    });
}

/// The scale of the `i`-th eight values; a byte holds those of 32, low nibble first.
#[inline(always)]
fn quarter_scale(d: f32, scales: u8, i: usize) -> f32 {
    d * (0.5 + f32::from(scales >> (i / 2 % 2 * 4) & 15)) * 0.25
}
