//! Four-bit codes into a table of 16 values: IQ4_NL, IQ4_XS, MXFP4, NVFP4.

use super::{each_block, f16_at, u16_at};

/// The values of IQ4_NL and IQ4_XS: denser around zero, as weights are.
pub(super) const NONLINEAR: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of E2M1 (OCP microscaling formats 1.0); the halving is in the scales.
pub(super) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// `y = scale * table[q]`; byte `i` holds value `i` low, value `i + N` high.
#[inline(always)]
fn look_up<const N: usize>(table: &[i8; 16], scale: f32, codes: &[u8], y: &mut [f32]) {
    let (low, high) = y.split_at_mut(N);
    for i in 0..N {
        low[i] = scale * f32::from(table[usize::from(codes[i] & 15)]);
        high[i] = scale * f32::from(table[usize::from(codes[i] >> 4)]);
    }
}

/// One scale over 32 values
pub(super) fn iq4_nl(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 18], y: &mut [f32; 32]| {
        look_up::<16>(&NONLINEAR, f16_at(b, 0), &b[2..], y);
    });
}

/// Eight sub-blocks of 32; the scale is `d * (six bits - 32)`, four of them low in one place, two high in another
pub(super) fn iq4_xs(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 136], y: &mut [f32; 256]| {
        let (d, high) = (f16_at(b, 0), u16_at(b, 2));
        for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = b[4 + sub / 2] >> (sub % 2 * 4) & 15;
            let scale = i32::from(low) | i32::from(high >> (2 * sub) & 3) << 4;
            look_up::<16>(&NONLINEAR, d * (scale - 32) as f32, &b[8 + sub * 16..][..16], y);
        }
    });
}

/// One power-of-two scale over 32 values
pub(super) fn mxfp4(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 17], y: &mut [f32; 32]| {
        look_up::<16>(&E2M1, half_power(b[0]), &b[1..], y);
    });
}

/// Half of the E8M0 value `2^(exponent - 127)`, exact down to its subnormals.
pub(super) fn half_power(exponent: u8) -> f32 {
    match exponent {
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        _ => f32::from_bits(u32::from(exponent - 1) << 23),
    }
}

/// Four scales in E4M3 without sign, each over 16 values
pub(super) fn nvfp4(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 36], y: &mut [f32; 64]| {
        for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            look_up::<8>(&E2M1, half_e4m3(b[sub]), &b[4 + sub * 8..][..8], y);
        }
    });
}

/// Half of an E4M3 value; the sign bit is ignored, 0x7f (NaN) counts as zero.
fn half_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa * (1.0 / 1024.0),
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((exponent + 119) << 23),
    }
}
