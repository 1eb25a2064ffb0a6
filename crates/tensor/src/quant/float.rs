//! Plain floating-point types: F64, F32, F16, BF16.

use super::each_block;

/// Exact value of IEEE half-precision `bits`; branch-free, so that loops over it vectorise.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    // Exponent and mantissa in place, the exponent's bias raised by 224 and scaled back: infinity stays infinite.
    let normal = f32::from_bits((magnitude << 13) + (224 << 23)) * f32::from_bits(15 << 23);
    // The mantissa in the low bits of 0.5, which is then taken away: 2^-24 a step.
    let subnormal = f32::from_bits(magnitude | (126 << 23)) - 0.5;
    let value = if magnitude < 0x0400 { subnormal } else { normal };
    f32::from_bits(value.to_bits() | sign)
}

/// The nearest half-precision value's bits, ties to even; too large becomes infinite.
pub fn f32_to_f16(value: f32) -> u16 {
    half::f16::from_f32(value).to_bits()
}

pub(super) fn f64(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 8], y: &mut [f32; 1]| y[0] = f64::from_le_bytes(*b) as f32);
}

pub(super) fn f32(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 4], y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b));
}

pub(super) fn f16(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = f16_to_f32(u16::from_le_bytes(*b)));
}

pub(super) fn bf16(src: &[u8], dst: &mut [f32]) {
    each_block(src, dst, |b: &[u8; 2], y: &mut [f32; 1]| {
        y[0] = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_float_has_its_value() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = f16_to_f32(bits);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#x}"
            );
        }
    }
}
