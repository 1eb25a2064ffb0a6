//! Ternary super-blocks of 256 values: TQ1_0 (five digits a byte) and TQ2_0 (four).

use super::{each_block, f16_at};

/// `y = d * (digit - 1)`. A byte is a base-3 fraction of 256: times 3^n, modulo 256, digit n is its leading one.
/// 32 bytes hold five runs of 32, then 16 bytes five runs of 16, then 4 bytes four runs of 4.
pub(super) fn tq1_0(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 54], y: &mut [f32; 256]| {
        let d = f16_at(b, 52);
        digits(&b[..32], d, &mut y[..160]);
        digits(&b[32..48], d, &mut y[160..240]);
        digits(&b[48..52], d, &mut y[240..]);
    });
}

fn digits(bytes: &[u8], d: f32, y: &mut [f32]) {
    let mut power = 1u8;
    for run in y.chunks_exact_mut(bytes.len()) {
        for (y, &byte) in run.iter_mut().zip(bytes) {
            let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
            *y = d * (i32::from(digit) - 1) as f32;
        }
        power = power.wrapping_mul(3);
    }
}

/// `y = d * (q - 1)`, two bits each
pub(super) fn tq2_0(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 66], y: &mut [f32; 256]| {
        let d = f16_at(b, 64);
        for (run, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let bytes = &b[run / 4 * 32..][..32];
            for i in 0..32 {
                y[i] = d * (i32::from(bytes[i] >> (run % 4 * 2) & 3) - 1) as f32;
            }
        }
    });
}
