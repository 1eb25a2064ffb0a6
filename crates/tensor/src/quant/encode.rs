//! Encoders that must give the bytes of the `gguf` Python package: F16, BF16, Q4_0 to Q8_0, ternary, MXFP4.
//!
//! Scales are the extremes over the levels, rounded to half precision only when stored; each value goes to the
//! level nearest to it under the unrounded scale.

use super::codebook::{E2M1, half_power};
use super::f32_to_f16;

/// Appends `encode` of each block of `N` values.
pub(super) fn each_block<const N: usize, const B: usize>(
    src: &[f32],
    out: &mut Vec<u8>,
    encode: impl Fn(&[f32; N]) -> [u8; B],
) {
    let blocks = src.as_chunks().0;
    out.reserve(blocks.len() * B);
    for block in blocks {
        out.extend_from_slice(&encode(block));
    }
}

pub(super) fn f32(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 1]| x[0].to_le_bytes());
}

pub(super) fn f16(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 1]| f32_to_f16(x[0]).to_le_bytes());
}

pub(super) fn bf16(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 1]| half::bf16::from_f32(x[0]).to_le_bytes());
}

pub(super) fn q4_0(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        let (d, q) = around_zero(x, 16);
        pack::<18>([d, 0.0], 2, &q)
    });
}

pub(super) fn q4_1(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        let (d, min, q) = above_min(x, 16);
        pack::<20>([d, min], 4, &q)
    });
}

pub(super) fn q5_0(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        let (d, q) = around_zero(x, 32);
        let mut block: [u8; 22] = pack([d, 0.0], 6, &q);
        block[2..6].copy_from_slice(&fifth_bits(&q));
        block
    });
}

pub(super) fn q5_1(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        let (d, min, q) = above_min(x, 32);
        let mut block: [u8; 24] = pack([d, min], 8, &q);
        block[4..8].copy_from_slice(&fifth_bits(&q));
        block
    });
}

/// `x = d * (q - levels / 2)`: the value farthest from zero gets level 0.
fn around_zero(x: &[f32; 32], levels: u8) -> (f32, [u8; 32]) {
    let half = f32::from(levels / 2);
    let d = peak(x) / -half;
    let inverse = inverse(d);
    (d, x.map(|x| ((x * inverse + (half + 0.5)) as u8).min(levels - 1)))
}

/// `x = d * q + min`
fn above_min(x: &[f32; 32], levels: u8) -> (f32, f32, [u8; 32]) {
    let (min, max) = x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
    let d = (max - min) / f32::from(levels - 1);
    let inverse = inverse(d);
    (d, min, x.map(|x| (((x - min) * inverse + 0.5) as u8).min(levels - 1)))
}

/// Half-precision header, then at byte `at` the low nibbles of `q`: value `i` low, value `i + 16` high.
fn pack<const B: usize>(header: [f32; 2], at: usize, q: &[u8; 32]) -> [u8; B] {
    let mut block = [0; B];
    block[..2].copy_from_slice(&f32_to_f16(header[0]).to_le_bytes());
    block[2..4].copy_from_slice(&f32_to_f16(header[1]).to_le_bytes());
    for i in 0..16 {
        block[at + i] = q[i] & 15 | q[i + 16] << 4;
    }
    block
}

fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    q.iter().enumerate().fold(0u32, |bits, (i, q)| bits | u32::from(q >> 4 & 1) << i).to_le_bytes()
}

/// The first of the values farthest from zero.
pub(super) fn peak(x: &[f32]) -> f32 {
    x.iter().fold(0.0f32, |peak, &x| if x.abs() > peak.abs() { x } else { peak })
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

pub(super) fn q8_0(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        let d = peak(x).abs() / 127.0;
        let inverse = inverse(d);
        let mut block = [0; 34];
        block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
        for i in 0..32 {
            block[2 + i] = (x[i] * inverse).round() as i8 as u8;
        }
        block
    });
}

/// Digits 0, 1, 2 for minus, zero, plus.
fn ternary(x: &[f32; 256]) -> ([u8; 2], [u8; 256]) {
    let d = peak(x).abs();
    let inverse = inverse(d);
    (f32_to_f16(d).to_le_bytes(), x.map(|x| ((x * inverse).round() as i8 + 1) as u8))
}

pub(super) fn tq1_0(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 256]| {
        let (d, q) = ternary(x);
        let mut block = [0; 54];
        pack_digits(&q[..160], &mut block[..32]);
        pack_digits(&q[160..240], &mut block[32..48]);
        pack_digits(&q[240..], &mut block[48..52]);
        block[52..].copy_from_slice(&d);
        block
    });
}

/// Runs of digits to base-3 fractions of 243, then rounded up to fractions of 256.
fn pack_digits(q: &[u8], bytes: &mut [u8]) {
    let stride = bytes.len();
    for (i, byte) in bytes.iter_mut().enumerate() {
        let powers = [81u16, 27, 9, 3, 1];
        let digits = q[i..].iter().step_by(stride).zip(powers);
        let fraction: u16 = digits.map(|(&digit, power)| u16::from(digit) * power).sum();
        *byte = (fraction * 256).div_ceil(243) as u8;
    }
}

pub(super) fn tq2_0(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 256]| {
        let (d, q) = ternary(x);
        let mut block = [0; 66];
        for (i, &digit) in q.iter().enumerate() {
            block[i / 128 * 32 + i % 32] |= digit << (i % 128 / 32 * 2);
        }
        block[64..].copy_from_slice(&d);
        block
    });
}

pub(super) fn mxfp4(src: &[f32], out: &mut Vec<u8>) {
    each_block(src, out, |x: &[f32; 32]| {
        // In single precision as the reference: just below a power of two the logarithm rounds up to it.
        let log = f64::from(peak(x).abs()).log2() as f32;
        let exponent = (log.floor() + 125.0) as u8;
        let d = half_power(exponent);
        let q = x.map(|x| nearest_e2m1(x, d));
        let mut block = [0; 17];
        block[0] = exponent;
        for i in 0..16 {
            block[1 + i] = q[i] | q[i + 16] << 4;
        }
        block
    });
}

/// The first of the codes nearest to `x`.
fn nearest_e2m1(x: f32, d: f32) -> u8 {
    let mut best = (f32::INFINITY, 0);
    for (code, &value) in E2M1.iter().enumerate() {
        let error = (d * f32::from(value) - x).abs();
        best = if error < best.0 { (error, code as u8) } else { best };
    }
    best.1
}
