//! Super-blocks of 256 values with quantised scales: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K.
//!
//! Low bits lie in groups of 32 bytes: the same byte holds values 32 (or 64) apart, the first in its low bits.

use super::{each_block, f16_at};

/// `y = (d * scale) * q - (dmin * min)`; 16 sub-blocks of 16; scale and min are four bits
pub(super) fn q2_k(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 84], y: &mut [f32; 256]| {
        let (d, dmin) = (f16_at(b, 80), f16_at(b, 82));
        for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (scale, min) = (d * f32::from(b[sub] & 15), dmin * f32::from(b[sub] >> 4));
            let shift = sub % 8 / 2 * 2;
            let low = &b[16 + sub / 8 * 32 + sub % 2 * 16..][..16];
            for i in 0..16 {
                y[i] = scale * (i32::from(low[i]) >> shift & 3) as f32 - min;
            }
        }
    });
}

/// `y = (d * (scale - 32)) * (q - 4)`; 16 sub-blocks of 16; six-bit scales; third bits apart
pub(super) fn q3_k(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 110], y: &mut [f32; 256]| {
        let d = f16_at(b, 108);
        let scales = scales_q3(&b[96..108]);
        for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(scales[sub]);
            let shift = sub % 8 / 2 * 2;
            let low = &b[32 + sub / 8 * 32 + sub % 2 * 16..][..16];
            let high = &b[sub % 2 * 16..][..16];
            for i in 0..16 {
                let q = i32::from(low[i]) >> shift & 3 | (i32::from(high[i]) >> (sub / 2) & 1) << 2;
                y[i] = scale * (q - 4) as f32;
            }
        }
    });
}

/// The 16 signed scales of a Q3_K block: four low bits in the first eight bytes, two high bits in the last four.
fn scales_q3(packed: &[u8]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = packed[i % 8] >> (i / 8 * 4) & 15;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// `y = (d * scale) * q - (dmin * min)`; 8 sub-blocks of 32; scale and min are six bits
pub(super) fn q4_k(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 144], y: &mut [f32; 256]| {
        let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
        for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&b[4..16], sub);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            let shift = sub % 2 * 4;
            let low = &b[16 + sub / 2 * 32..][..32];
            for i in 0..32 {
                y[i] = scale * f32::from(low[i] >> shift & 15) - min;
            }
        }
    });
}

/// As Q4_K, the fifth bits apart
pub(super) fn q5_k(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 176], y: &mut [f32; 256]| {
        let (d, dmin) = (f16_at(b, 0), f16_at(b, 2));
        for (sub, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_min(&b[4..16], sub);
            let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
            let shift = sub % 2 * 4;
            let (high, low) = (&b[16..48], &b[48 + sub / 2 * 32..][..32]);
            for i in 0..32 {
                y[i] = scale * f32::from(low[i] >> shift & 15 | (high[i] >> sub & 1) << 4) - min;
            }
        }
    });
}

/// Six-bit scale and minimum of sub-block `sub`. The first four lie plain; of the last four, the low nibbles share
/// bytes 8 to 12 and the high bits sit atop the first eight bytes.
fn scale_min(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        (packed[sub] & 63, packed[4 + sub] & 63)
    } else {
        let low = packed[4 + sub];
        (low & 15 | packed[sub - 4] >> 2 & 48, low >> 4 | packed[sub] >> 2 & 48)
    }
}

/// `y = (d * scale) * (q - 32)`; 16 sub-blocks of 16; scales are signed bytes
pub(super) fn q6_k(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 210], y: &mut [f32; 256]| {
        let d = f16_at(b, 208);
        for (sub, y) in y.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(b[192 + sub] as i8);
            let (half, quarter, at) = (sub / 8, sub % 8 / 2, sub % 2 * 16);
            let low = &b[half * 64 + quarter % 2 * 32 + at..][..16];
            let high = &b[128 + half * 32 + at..][..16];
            for i in 0..16 {
                let q = low[i] >> (quarter / 2 * 4) & 15 | (high[i] >> (quarter * 2) & 3) << 4;
                y[i] = scale * (i32::from(q) - 32) as f32;
            }
        }
    });
}

/// `y = d * q` with a full-precision `d`; the sums behind the values only serve dot products
pub(super) fn q8_k(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 292], y: &mut [f32; 256]| {
        let d = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        for i in 0..256 {
            y[i] = d * f32::from(b[4 + i] as i8);
        }
    });
}
