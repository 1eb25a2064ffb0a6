//! ARM64 NEON, with and without the dot-product extension: four lanes.
//!
//! The two tokens share everything but the 8-bit dot product. `sdot` is written as assembly because its intrinsic is
//! not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{forward, forward_ptr};
use crate::{Isa, Kernel};

/// The token of base NEON, which every ARM64 processor has.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

/// The token of NEON with dot products (ARMv8.2 `dotprod`).
#[derive(Clone, Copy, Debug)]
pub struct NeonDot(());

#[target_feature(enable = "neon")]
fn enter_neon<K: Kernel>(isa: Neon, kernel: K) -> K::Out {
    kernel.run(isa)
}

#[target_feature(enable = "neon,dotprod")]
fn enter_dot<K: Kernel>(isa: NeonDot, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// Four-way dot product by widening multiplies: pairs fit 16 bits up to 2 * 128 * 127.
#[inline(always)]
unsafe fn dot_widening(acc: int32x4_t, w: uint8x16_t, a: uint8x16_t) -> int32x4_t {
    // SAFETY: register-only; NEON is always there on ARM64.
    unsafe {
        let (w, a) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(a));
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
        let high = vpaddlq_s16(vmull_high_s8(w, a));
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
}

/// Four-way dot product by `sdot`.
/// # Safety
/// The processor has `dotprod`.
#[inline(always)]
unsafe fn dot_sdot(acc: int32x4_t, w: uint8x16_t, a: uint8x16_t) -> int32x4_t {
    let mut sum = acc;
    // SAFETY: the caller holds the token; registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum, w = in(vreg) w, a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Halves to floats (`fcvtl`, base NEON; the half-float vector types are not stable).
#[inline(always)]
unsafe fn widen_f16(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: registers only; NEON is always there on ARM64.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {halves:v}.4h", wide = out(vreg) wide, halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Floats to halves, nearest even (`fcvtn`).
#[inline(always)]
unsafe fn narrow_f16(wide: float32x4_t) -> uint16x4_t {
    let halves: uint16x4_t;
    // SAFETY: registers only; NEON is always there on ARM64.
    unsafe {
        asm!("fcvtn {halves:v}.4h, {wide:v}.4s", halves = out(vreg) halves, wide = in(vreg) wide,
            options(pure, nomem, nostack, preserves_flags));
    }
    halves
}

/// Widens the four bytes at `p`.
#[inline(always)]
unsafe fn load_u8x4(p: *const u8) -> uint16x4_t {
    // SAFETY: the caller vouches for four bytes.
    unsafe { vget_low_u16(vmovl_u8(vcreate_u8(u64::from(p.cast::<u32>().read_unaligned())))) }
}

macro_rules! neon_isa {
    ($token:ident, $name:literal, $enter:ident, $dot:ident, $detect:expr) => {
        impl Isa for $token {
            const NAME: &'static str = $name;
            const LANES: usize = 4;
            const W_BIAS: u8 = 0;
            const REGISTERS: usize = 32;

            type F32 = float32x4_t;
            type I32 = int32x4_t;
            type Mask = uint32x4_t;
            type Bytes = uint8x16_t;
            type Codes = uint8x16_t;
            type Taps = uint8x16_t;
            // Dot products are of signed bytes.
            const CODE_BIAS: i32 = 128;

            fn detect() -> Option<Self> {
                $detect.then_some(Self(()))
            }

            #[inline]
            fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
                // SAFETY: the token proves that the instruction sets are there.
                unsafe { $enter(self, kernel) }
            }

            forward! {
                splat(x: f32) -> float32x4_t = vdupq_n_f32(x);
                add(a: float32x4_t, b: float32x4_t) -> float32x4_t = vaddq_f32(a, b);
                sub(a: float32x4_t, b: float32x4_t) -> float32x4_t = vsubq_f32(a, b);
                mul(a: float32x4_t, b: float32x4_t) -> float32x4_t = vmulq_f32(a, b);
                div(a: float32x4_t, b: float32x4_t) -> float32x4_t = vdivq_f32(a, b);
                fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t = vfmaq_f32(c, a, b);
                min(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcltq_f32(a, b), a, b);
                max(a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(vcgtq_f32(a, b), a, b);
                neg(a: float32x4_t) -> float32x4_t = vnegq_f32(a);
                abs(a: float32x4_t) -> float32x4_t = vabsq_f32(a);
                sqrt(a: float32x4_t) -> float32x4_t = vsqrtq_f32(a);
                lt(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcltq_f32(a, b);
                le(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vcleq_f32(a, b);
                eq(a: float32x4_t, b: float32x4_t) -> uint32x4_t = vceqq_f32(a, b);
                select(m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t = vbslq_f32(m, a, b);
                mask_bits(m: uint32x4_t) -> u32 = vaddvq_u32(vandq_u32(m, vld1q_u32([1, 2, 4, 8].as_ptr())));
                reduce_sum(a: float32x4_t) -> f32 = vaddvq_f32(a);
                reduce_max(a: float32x4_t) -> f32 = vmaxvq_f32(a);
                zip(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) = {
                    (vzip1q_f32(a, b), vzip2q_f32(a, b))
                };
                to_i32(a: float32x4_t) -> int32x4_t = vcvtnq_s32_f32(a);
                to_f32(a: int32x4_t) -> float32x4_t = vcvtq_f32_s32(a);
                bits_of(a: float32x4_t) -> int32x4_t = vreinterpretq_s32_f32(a);
                float_of_bits(a: int32x4_t) -> float32x4_t = vreinterpretq_f32_s32(a);
                splat_i32(x: i32) -> int32x4_t = vdupq_n_s32(x);
                add_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vaddq_s32(a, b);
                sub_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vsubq_s32(a, b);
                mul_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vmulq_s32(a, b);
                and_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vandq_s32(a, b);
                or_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vorrq_s32(a, b);
                shl_i32(a: int32x4_t, n: u32) -> int32x4_t = vshlq_s32(a, vdupq_n_s32(n as i32));
                shr_i32(a: int32x4_t, n: u32) -> int32x4_t = {
                    vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-(n as i32))))
                };
                sar_i32(a: int32x4_t, n: u32) -> int32x4_t = vshlq_s32(a, vdupq_n_s32(-(n as i32)));
                min_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vminq_s32(a, b);
                max_i32(a: int32x4_t, b: int32x4_t) -> int32x4_t = vmaxq_s32(a, b);
                splat_bytes(x: u8) -> uint8x16_t = vdupq_n_u8(x);
                bytes_of(a: int32x4_t) -> uint8x16_t = vreinterpretq_u8_s32(a);
                lanes_of(a: uint8x16_t) -> int32x4_t = vreinterpretq_s32_u8(a);
                and_bytes(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = vandq_u8(a, b);
                or_bytes(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = vorrq_u8(a, b);
                add_bytes(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t = vaddq_u8(a, b);
                shr_bytes(a: uint8x16_t, n: u32) -> uint8x16_t = vshlq_u8(a, vdupq_n_s8(-(n as i8)));
                lookup16(table: &[i8; 16], a: uint8x16_t) -> uint8x16_t = {
                    vreinterpretq_u8_s8(vqtbl1q_s8(vld1q_s8(table.as_ptr()), a))
                };
                dot_u7(acc: int32x4_t, w: uint8x16_t, a: uint8x16_t) -> int32x4_t = $dot(acc, w, a);
                dot_s8(acc: int32x4_t, w: uint8x16_t, a: uint8x16_t) -> int32x4_t = $dot(acc, w, a);
                codes(a: uint8x16_t) -> uint8x16_t = veorq_u8(a, vdupq_n_u8(0x80));
                taps(w: uint8x16_t) -> uint8x16_t = w;
                dot_codes(acc: int32x4_t, a: uint8x16_t, w: uint8x16_t) -> int32x4_t = $dot(acc, w, a);
                dot_i16(acc: int32x4_t, a: int32x4_t, w: int32x4_t) -> int32x4_t = {
                    let (a, w) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(w));
                    let low = vmull_s16(vget_low_s16(a), vget_low_s16(w));
                    vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, w)))
                };
            }

            forward_ptr! {
                load_ptr(p: *const f32) -> float32x4_t = vld1q_f32(p);
                store_ptr(a: float32x4_t, p: *mut f32) = vst1q_f32(p, a);
                load_part_ptr(p: *const f32, n: usize) -> float32x4_t = {
                    let mut lanes = [0.0; 4];
                    std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
                    vld1q_f32(lanes.as_ptr())
                };
                store_part_ptr(a: float32x4_t, p: *mut f32, n: usize) = {
                    let mut lanes = [0.0; 4];
                    vst1q_f32(lanes.as_mut_ptr(), a);
                    std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n)
                };
                load_f16_ptr(p: *const u16) -> float32x4_t = widen_f16(vld1_u16(p));
                store_f16_ptr(a: float32x4_t, p: *mut u16) = vst1_u16(p, narrow_f16(a));
                load_i32_ptr(p: *const i32) -> int32x4_t = vld1q_s32(p);
                store_i32_ptr(a: int32x4_t, p: *mut i32) = vst1q_s32(p, a);
                load_u8_ptr(p: *const u8) -> int32x4_t = vreinterpretq_s32_u32(vmovl_u16(load_u8x4(p)));
                load_i8_ptr(p: *const i8) -> int32x4_t = {
                    let words = vreinterpretq_s32_u32(vmovl_u16(load_u8x4(p.cast())));
                    vshrq_n_s32::<24>(vshlq_n_s32::<24>(words))
                };
                store_i8_ptr(a: int32x4_t, p: *mut i8) = {
                    let words = vmovn_u32(vreinterpretq_u32_s32(a));
                    let bytes = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(words, words)));
                    p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(bytes))
                };
                load_u16_ptr(p: *const u16) -> int32x4_t = vreinterpretq_s32_u32(vmovl_u16(vld1_u16(p)));
                store_u16_ptr(a: int32x4_t, p: *mut u16) = vst1_u16(p, vmovn_u32(vreinterpretq_u32_s32(a)));
                load_bytes_ptr(p: *const u8) -> uint8x16_t = vld1q_u8(p);
                store_bytes_ptr(a: uint8x16_t, p: *mut u8) = vst1q_u8(p, a);
            }
        }
    };
}

neon_isa!(Neon, "neon", enter_neon, dot_widening, true);
neon_isa!(NeonDot, "neon-dot", enter_dot, dot_sdot, std::arch::is_aarch64_feature_detected!("dotprod"));
