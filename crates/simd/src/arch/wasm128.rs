//! WebAssembly SIMD128, chosen when compiling: four lanes.

use std::arch::wasm32::*;

use half::f16;

use super::{forward, forward_ptr};
use crate::{Isa, Kernel};

/// The token of WebAssembly SIMD128.
#[derive(Clone, Copy, Debug)]
pub struct Wasm128(());

/// Four-way dot product by widening multiplies: pairs fit 16 bits up to 2 * 128 * 127.
#[inline(always)]
fn dot(acc: v128, w: v128, a: v128) -> v128 {
    let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(w, a));
    let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(w, a));
    let even = i32x4_shuffle::<0, 2, 4, 6>(low, high);
    let odd = i32x4_shuffle::<1, 3, 5, 7>(low, high);
    i32x4_add(acc, i32x4_add(even, odd))
}

#[inline(always)]
fn lanes(a: v128) -> [f32; 4] {
    [
        f32x4_extract_lane::<0>(a),
        f32x4_extract_lane::<1>(a),
        f32x4_extract_lane::<2>(a),
        f32x4_extract_lane::<3>(a),
    ]
}

/// Halves in the low 16 bits of each lane to floats: rebias by a multiplication, then restore infinity and NaN.
#[inline(always)]
fn widen_f16(halves: v128) -> v128 {
    let magnitude = v128_and(halves, i32x4_splat(0x7fff));
    let scaled = f32x4_mul(i32x4_shl(magnitude, 13), f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let special = v128_and(i32x4_ge(magnitude, i32x4_splat(0x7c00)), i32x4_splat(0x7f80_0000));
    let sign = i32x4_shl(v128_and(halves, i32x4_splat(0x8000)), 16);
    v128_or(v128_or(scaled, special), sign)
}

impl Isa for Wasm128 {
    const NAME: &'static str = "wasm128";
    const LANES: usize = 4;
    const W_BIAS: u8 = 0;
    const REGISTERS: usize = 16;

    type F32 = v128;
    type I32 = v128;
    type Mask = v128;
    type Bytes = v128;
    type Codes = v128;
    type Taps = v128;
    // Dot products are of signed bytes.
    const CODE_BIAS: i32 = 128;

    fn detect() -> Option<Self> {
        Some(Self(()))
    }

    #[inline]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }

    forward! {
        splat(x: f32) -> v128 = f32x4_splat(x);
        add(a: v128, b: v128) -> v128 = f32x4_add(a, b);
        sub(a: v128, b: v128) -> v128 = f32x4_sub(a, b);
        mul(a: v128, b: v128) -> v128 = f32x4_mul(a, b);
        div(a: v128, b: v128) -> v128 = f32x4_div(a, b);
        fma(a: v128, b: v128, c: v128) -> v128 = f32x4_add(f32x4_mul(a, b), c);
        min(a: v128, b: v128) -> v128 = f32x4_pmin(b, a);
        max(a: v128, b: v128) -> v128 = f32x4_pmax(b, a);
        neg(a: v128) -> v128 = f32x4_neg(a);
        abs(a: v128) -> v128 = f32x4_abs(a);
        sqrt(a: v128) -> v128 = f32x4_sqrt(a);
        lt(a: v128, b: v128) -> v128 = f32x4_lt(a, b);
        le(a: v128, b: v128) -> v128 = f32x4_le(a, b);
        eq(a: v128, b: v128) -> v128 = f32x4_eq(a, b);
        select(m: v128, a: v128, b: v128) -> v128 = v128_bitselect(a, b, m);
        mask_bits(m: v128) -> u32 = i32x4_bitmask(m).into();
        reduce_sum(a: v128) -> f32 = { let [x, y, z, w] = lanes(a); (x + z) + (y + w) };
        reduce_max(a: v128) -> f32 = { let [x, y, z, w] = lanes(a); x.max(z).max(y.max(w)) };
        zip(a: v128, b: v128) -> (v128, v128) = {
            (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b))
        };
        to_i32(a: v128) -> v128 = i32x4_trunc_sat_f32x4(f32x4_nearest(a));
        to_f32(a: v128) -> v128 = f32x4_convert_i32x4(a);
        bits_of(a: v128) -> v128 = a;
        float_of_bits(a: v128) -> v128 = a;
        splat_i32(x: i32) -> v128 = i32x4_splat(x);
        add_i32(a: v128, b: v128) -> v128 = i32x4_add(a, b);
        sub_i32(a: v128, b: v128) -> v128 = i32x4_sub(a, b);
        mul_i32(a: v128, b: v128) -> v128 = i32x4_mul(a, b);
        and_i32(a: v128, b: v128) -> v128 = v128_and(a, b);
        or_i32(a: v128, b: v128) -> v128 = v128_or(a, b);
        shl_i32(a: v128, n: u32) -> v128 = i32x4_shl(a, n);
        shr_i32(a: v128, n: u32) -> v128 = u32x4_shr(a, n);
        sar_i32(a: v128, n: u32) -> v128 = i32x4_shr(a, n);
        min_i32(a: v128, b: v128) -> v128 = i32x4_min(a, b);
        max_i32(a: v128, b: v128) -> v128 = i32x4_max(a, b);
        splat_bytes(x: u8) -> v128 = u8x16_splat(x);
        bytes_of(a: v128) -> v128 = a;
        lanes_of(a: v128) -> v128 = a;
        and_bytes(a: v128, b: v128) -> v128 = v128_and(a, b);
        or_bytes(a: v128, b: v128) -> v128 = v128_or(a, b);
        add_bytes(a: v128, b: v128) -> v128 = i8x16_add(a, b);
        shr_bytes(a: v128, n: u32) -> v128 = u8x16_shr(a, n);
        lookup16(table: &[i8; 16], a: v128) -> v128 = u8x16_swizzle(v128_load(table.as_ptr().cast()), a);
        dot_u7(acc: v128, w: v128, a: v128) -> v128 = dot(acc, w, a);
        dot_s8(acc: v128, w: v128, a: v128) -> v128 = dot(acc, w, a);
        codes(a: v128) -> v128 = v128_xor(a, u8x16_splat(0x80));
        taps(w: v128) -> v128 = w;
        dot_codes(acc: v128, a: v128, w: v128) -> v128 = dot(acc, w, a);
        dot_i16(acc: v128, a: v128, w: v128) -> v128 = i32x4_add(acc, i32x4_dot_i16x8(a, w));
    }

    forward_ptr! {
        load_ptr(p: *const f32) -> v128 = v128_load(p.cast());
        store_ptr(a: v128, p: *mut f32) = v128_store(p.cast(), a);
        load_part_ptr(p: *const f32, n: usize) -> v128 = {
            let mut lanes = [0.0f32; 4];
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            v128_load(lanes.as_ptr().cast())
        };
        store_part_ptr(a: v128, p: *mut f32, n: usize) = {
            std::ptr::copy_nonoverlapping(lanes(a).as_ptr(), p, n)
        };
        load_f16_ptr(p: *const u16) -> v128 = widen_f16(u32x4_load_extend_u16x4(p));
        store_f16_ptr(a: v128, p: *mut u16) = {
            p.cast::<[u16; 4]>().write_unaligned(lanes(a).map(|x| f16::from_f32_const(x).to_bits()))
        };
        load_i32_ptr(p: *const i32) -> v128 = v128_load(p.cast());
        store_i32_ptr(a: v128, p: *mut i32) = v128_store(p.cast(), a);
        load_u8_ptr(p: *const u8) -> v128 = {
            u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(v128_load32_zero(p.cast())))
        };
        load_i8_ptr(p: *const i8) -> v128 = {
            i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(v128_load32_zero(p.cast())))
        };
        store_i8_ptr(a: v128, p: *mut i8) = {
            let bytes = i8x16_shuffle::<0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12>(a, a);
            v128_store32_lane::<0>(bytes, p.cast())
        };
        load_u16_ptr(p: *const u16) -> v128 = u32x4_load_extend_u16x4(p);
        store_u16_ptr(a: v128, p: *mut u16) = {
            v128_store64_lane::<0>(i16x8_shuffle::<0, 2, 4, 6, 0, 2, 4, 6>(a, a), p.cast())
        };
        load_bytes_ptr(p: *const u8) -> v128 = v128_load(p.cast());
        store_bytes_ptr(a: v128, p: *mut u8) = v128_store(p.cast(), a);
    }
}
