//! Three-bit lattice super-blocks of 256 values: IQ3_XXS, IQ3_S. Every four values are a lattice point.

use super::grids::{self, even_signs, signed};
use super::{each_block, f16_at, u32_at};

/// 64 bytes of points, then per group of 32 values four times seven sign bits below a four-bit scale:
/// `d * (0.5 + s) * 0.5`
pub(super) fn iq3_xxs(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 98], y: &mut [f32; 256]| {
        let d = f16_at(b, 0);
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (points, rest) = (&b[2 + group * 8..][..8], u32_at(b, 66 + group * 4));
            let scale = d * (0.5 + (rest >> 28) as f32) * 0.5;
            for (i, y) in y.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let signs = even_signs(rest >> (7 * (i / 2))) >> (i % 2 * 4);
                signed(&grids::IQ3_XXS[usize::from(points[i])], scale, signs, y);
            }
        }
    });
}

/// 64 low bytes of points, eight bytes of high point bits, 32 bytes of signs, eight four-bit scales: `d * (1 + 2 s)`
pub(super) fn iq3_s(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 110], y: &mut [f32; 256]| {
        let d = f16_at(b, 0);
        for (group, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scale = d * f32::from(1 + 2 * (b[106 + group / 2] >> (group % 2 * 4) & 15));
            let (points, high) = (&b[2 + group * 8..][..8], b[66 + group]);
            for (i, y) in y.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let point = usize::from(points[i]) | usize::from(high >> i & 1) << 8;
                let signs = b[74 + group * 4 + i / 2] >> (i % 2 * 4);
                signed(&grids::IQ3_S[point], scale, signs, y);
            }
        }
    });
}
