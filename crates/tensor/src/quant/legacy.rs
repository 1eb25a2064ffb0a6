//! Blocks of one scale (and minimum) over 32 values: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, and one-bit Q1_0.
//!
//! Byte `i` of four-bit data holds value `i` low and value `i + 16` high.

use super::{each_block, f16_at, u32_at};

/// `y = d * (q - 8)`
pub(super) fn q4_0(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 18], y: &mut [f32; 32]| {
        let d = f16_at(b, 0);
        for i in 0..16 {
            y[i] = d * (i32::from(b[2 + i] & 15) - 8) as f32;
            y[16 + i] = d * (i32::from(b[2 + i] >> 4) - 8) as f32;
        }
    });
}

/// `y = d * q + m`
pub(super) fn q4_1(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 20], y: &mut [f32; 32]| {
        let (d, m) = (f16_at(b, 0), f16_at(b, 2));
        for i in 0..16 {
            y[i] = d * f32::from(b[4 + i] & 15) + m;
            y[16 + i] = d * f32::from(b[4 + i] >> 4) + m;
        }
    });
}

/// `y = d * (q - 16)`, the fifth bits apart
pub(super) fn q5_0(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 22], y: &mut [f32; 32]| {
        let (d, high) = (f16_at(b, 0), u32_at(b, 2));
        for i in 0..16 {
            let (low, top) = fives(b[6 + i], high, i);
            y[i] = d * (i32::from(low) - 16) as f32;
            y[16 + i] = d * (i32::from(top) - 16) as f32;
        }
    });
}

/// `y = d * q + m`, the fifth bits apart
pub(super) fn q5_1(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 24], y: &mut [f32; 32]| {
        let (d, m, high) = (f16_at(b, 0), f16_at(b, 2), u32_at(b, 4));
        for i in 0..16 {
            let (low, top) = fives(b[8 + i], high, i);
            y[i] = d * f32::from(low) + m;
            y[16 + i] = d * f32::from(top) + m;
        }
    });
}

/// Values `i` and `i + 16` of a five-bit block.
#[inline(always)]
fn fives(nibbles: u8, high: u32, i: usize) -> (u8, u8) {
    let bit = |n: usize| ((high >> n & 1) as u8) << 4;
    (nibbles & 15 | bit(i), nibbles >> 4 | bit(i + 16))
}

/// `y = q * d`
pub(super) fn q8_0(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 34], y: &mut [f32; 32]| {
        let d = f16_at(b, 0);
        for i in 0..32 {
            y[i] = f32::from(b[2 + i] as i8) * d;
        }
    });
}

/// As Q8_0; bytes 2 and 3 hold `d * sum(q)`, which only dot products use.
pub(super) fn q8_1(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 36], y: &mut [f32; 32]| {
        let d = f16_at(b, 0);
        for i in 0..32 {
            y[i] = f32::from(b[4 + i] as i8) * d;
        }
    });
}

/// `y = d` where the bit is set, `-d` elsewhere
pub(super) fn q1_0(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 18], y: &mut [f32; 128]| {
        let d = f16_at(b, 0);
        for (i, y) in y.iter_mut().enumerate() {
            *y = if b[2 + i / 8] >> (i % 8) & 1 == 1 { d } else { -d };
        }
    });
}
