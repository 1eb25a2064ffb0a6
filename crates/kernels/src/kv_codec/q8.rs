//! Q8_0: signed bytes with one half-float scale for every 32 elements of a token; codes are `round(x * 127 / max|x|)`.

use kinglet_simd::Isa;

use super::Rows;
use crate::kv::{GROUP, Q8_BLOCK};

impl Rows {
    /// # Safety
    /// As for `store_key`; `group` is the start of the token's group.
    #[inline(always)]
    pub(super) unsafe fn store_q8_key(&self, x: &[f32], group: *mut u8, lane: usize) {
        let scales = group.wrapping_add(self.dim * GROUP).cast::<u16>();
        for (b, block) in x.chunks_exact(Q8_BLOCK).enumerate() {
            let (codes, scale) = quantize(block);
            // SAFETY: four codes a lane and one scale a block, within the group.
            unsafe { scales.add(b * GROUP + lane).write_unaligned(scale) };
            for (i, word) in codes.chunks_exact(4).enumerate() {
                let at = ((b * Q8_BLOCK / 4 + i) * GROUP + lane) * 4;
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(word.as_ptr().cast(), group.add(at), 4) };
            }
        }
    }

    /// # Safety
    /// As for `store_value`; `values` is the start of the page's values.
    #[inline(always)]
    pub(super) unsafe fn store_q8_value(&self, x: &[f32], values: *mut u8, at: usize) {
        let scales = self.value_scales(values, at);
        for (b, block) in x.chunks_exact(Q8_BLOCK).enumerate() {
            let (codes, scale) = quantize(block);
            let target = values.wrapping_add(at * self.dim + b * Q8_BLOCK);
            // SAFETY: the row and its scales are in the page.
            unsafe {
                std::ptr::copy_nonoverlapping(codes.as_ptr().cast(), target, Q8_BLOCK);
                scales.add(b).write_unaligned(scale);
            }
        }
    }

    /// The scales of token `at`, behind the codes of all tokens.
    #[inline(always)]
    fn value_scales(&self, values: *mut u8, at: usize) -> *mut u16 {
        values.wrapping_add(self.page_tokens * self.dim + at * self.dim / Q8_BLOCK * 2).cast()
    }

    /// # Safety
    /// `source` is a group of keys; `out` has room for `dim * GROUP` floats.
    #[inline(always)]
    pub(super) unsafe fn load_q8_keys<I: Isa>(&self, isa: I, source: *const u8, out: *mut f32) {
        let scales = source.wrapping_add(self.dim * GROUP).cast::<u16>();
        for lane in (0..GROUP).step_by(I::LANES) {
            for word in 0..self.dim / 4 {
                // SAFETY: within the group.
                unsafe {
                    let scale = isa.load_f16_ptr(scales.add(word * 4 / Q8_BLOCK * GROUP + lane));
                    let codes = isa.load_i32_ptr(source.add((word * GROUP + lane) * 4).cast());
                    for byte in 0..4 {
                        let code = isa.sar_i32(isa.shl_i32(codes, 24 - 8 * byte), 24);
                        let at = (word * 4 + byte as usize) * GROUP + lane;
                        isa.store_ptr(isa.mul(isa.to_f32(code), scale), out.add(at));
                    }
                }
            }
        }
    }

    /// # Safety
    /// The tokens are in the page of which `values` is the start; `out` has room for them.
    #[inline(always)]
    pub(super) unsafe fn load_q8_values<I: Isa>(
        &self,
        isa: I,
        values: *const u8,
        first: usize,
        count: usize,
        out: *mut f32,
    ) {
        for t in 0..count {
            let scales = self.value_scales(values.cast_mut(), first + t);
            for at in (0..self.dim).step_by(I::LANES) {
                // SAFETY: a row of Q8_0 is a multiple of 32 long.
                unsafe {
                    let scale = [scales.add(at / Q8_BLOCK).read_unaligned(); GROUP];
                    let codes = isa.load_i8_ptr(values.add((first + t) * self.dim + at).cast());
                    let x = isa.mul(isa.to_f32(codes), isa.load_f16_ptr(scale.as_ptr()));
                    isa.store_ptr(x, out.add(t * self.dim + at));
                }
            }
        }
    }
}

/// Codes and scale (half-float bits) of a block.
#[inline(always)]
fn quantize(x: &[f32]) -> ([i8; Q8_BLOCK], u16) {
    let max = x.iter().fold(0f32, |max, x| max.max(x.abs()));
    let scale = max / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    (std::array::from_fn(|i| (x[i] * inverse).round_ties_even() as i8), half::f16::from_f32(scale).to_bits())
}
