//! AVX-512 (F, BW, VL, DQ) with VNNI: sixteen lanes; and the same with BF16, which kernels enter on their own.

use std::arch::x86_64::*;

use super::{forward, forward_ptr};
use crate::isa::{bf16_of, dot_bf16};
use crate::{Isa, Kernel};

/// The token of AVX-512 with VNNI.
pub type Avx512 = Avx512With<false>;

/// A token of AVX-512 with VNNI and, when `BF16`, with products of bfloat16 enabled.
#[derive(Clone, Copy, Debug)]
pub struct Avx512With<const BF16: bool> {
    /// Whether the machine has these products, enabled or not.
    bf16: bool,
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn enter<K: Kernel>(isa: Avx512, kernel: K) -> K::Out {
    kernel.run(isa)
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")]
fn enter_bf16<K: Kernel>(isa: Avx512With<true>, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// A mask of the first `n <= 16` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// Replaces each of `count` bytes by `table[byte]`, sixty-four at a time.
/// # Safety
/// The processor has the instructions, and `p` is valid for reading and writing `count` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
unsafe fn enter_translate(table: &[u8; 256], p: *mut u8, count: usize) {
    // SAFETY: the table has four vectors; masks leave out what is not there.
    unsafe {
        let quarter = |i: usize| _mm512_loadu_si512(table.as_ptr().add(64 * i).cast());
        let [a, b, c, d] = [quarter(0), quarter(1), quarter(2), quarter(3)];
        for at in (0..count).step_by(64) {
            let there = u64::MAX >> (64 - (count - at).min(64));
            let x = _mm512_maskz_loadu_epi8(there, p.add(at).cast());
            let low = _mm512_permutex2var_epi8(a, x, b);
            let high = _mm512_permutex2var_epi8(c, x, d);
            let y = _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high);
            _mm512_mask_storeu_epi8(p.add(at).cast(), there, y);
        }
    }
}

impl<const BF16: bool> Isa for Avx512With<BF16> {
    const NAME: &'static str = "avx512";
    const LANES: usize = 16;
    const W_BIAS: u8 = 128;
    const REGISTERS: usize = 32;
    const BF16: bool = BF16;

    type F32 = __m512;
    type I32 = __m512i;
    type Mask = __mmask16;
    type Bytes = __m512i;
    type Codes = __m512i;
    type Taps = __m512i;

    fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni");
        let bf16 = is_x86_feature_detected!("avx512bf16");
        (all && (bf16 || !BF16)).then_some(Self { bf16 })
    }

    #[inline]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        if BF16 {
            return self.dispatch_bf16(kernel);
        }
        // SAFETY: the token proves that the instruction sets are there.
        unsafe { enter(Avx512With { bf16: self.bf16 }, kernel) }
    }

    #[inline]
    fn has_bf16(self) -> bool {
        self.bf16
    }

    #[inline(always)]
    fn dispatch_bf16<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: the token proves that the instruction sets are there, and says so of bfloat16.
        unsafe {
            if self.bf16 {
                enter_bf16(Avx512With { bf16: true }, kernel)
            } else {
                enter(Avx512With { bf16: false }, kernel)
            }
        }
    }

    #[inline(always)]
    fn dot_bf16(self, acc: __m512, a: __m512i, w: __m512i) -> __m512 {
        if !BF16 {
            return dot_bf16(self, acc, a, w);
        }
        // SAFETY: the token proves that the instruction is there; vectors of bits are any vectors.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(w),
            )
        }
    }

    #[inline(always)]
    fn pair_bf16(self, low: __m512, high: __m512) -> __m512i {
        if !BF16 {
            return self.or_i32(bf16_of(self, low), self.shl_i32(bf16_of(self, high), 16));
        }
        // SAFETY: the token proves that the instructions are there; vectors of bits are any vectors.
        unsafe {
            let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            // The low half's values are 16-bit lanes 0..16, the high half's 16..32: word `i` is lanes `i` and `16 + i`.
            let first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let turns = _mm512_or_si512(
                first,
                _mm512_slli_epi32::<16>(_mm512_add_epi32(first, _mm512_set1_epi32(16))),
            );
            _mm512_permutexvar_epi16(turns, halves)
        }
    }

    #[inline(always)]
    unsafe fn store_bf16_ptr(self, a: __m512, p: *mut u16) {
        // SAFETY: the token proves that the instruction is there; the caller vouches for the pointer.
        unsafe {
            if BF16 {
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(a));
                _mm256_storeu_si256(p.cast(), rounded);
            } else {
                self.store_u16_ptr(bf16_of(self, a), p);
            }
        }
    }

    forward! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        neg(a: __m512) -> __m512 = _mm512_xor_ps(a, _mm512_set1_ps(-0.0));
        abs(a: __m512) -> __m512 = _mm512_abs_ps(a);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        lt(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b);
        le(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b);
        eq(a: __m512, b: __m512) -> __mmask16 = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b);
        select(m: __mmask16, a: __m512, b: __m512) -> __m512 = _mm512_mask_blend_ps(m, b, a);
        mask_bits(m: __mmask16) -> u32 = u32::from(m);
        reduce_sum(a: __m512) -> f32 = _mm512_reduce_add_ps(a);
        reduce_max(a: __m512) -> f32 = _mm512_reduce_max_ps(a);
        zip(a: __m512, b: __m512) -> (__m512, __m512) = {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b))
        };
        to_i32(a: __m512) -> __m512i = _mm512_cvtps_epi32(a);
        to_f32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        bits_of(a: __m512) -> __m512i = _mm512_castps_si512(a);
        float_of_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        splat_i32(x: i32) -> __m512i = _mm512_set1_epi32(x);
        add_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        sub_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        mul_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_mullo_epi32(a, b);
        and_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        or_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        shl_i32(a: __m512i, n: u32) -> __m512i = _mm512_sllv_epi32(a, _mm512_set1_epi32(n as i32));
        shr_i32(a: __m512i, n: u32) -> __m512i = _mm512_srlv_epi32(a, _mm512_set1_epi32(n as i32));
        sar_i32(a: __m512i, n: u32) -> __m512i = _mm512_srav_epi32(a, _mm512_set1_epi32(n as i32));
        min_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_min_epi32(a, b);
        max_i32(a: __m512i, b: __m512i) -> __m512i = _mm512_max_epi32(a, b);
        splat_bytes(x: u8) -> __m512i = _mm512_set1_epi8(x as i8);
        bytes_of(a: __m512i) -> __m512i = a;
        lanes_of(a: __m512i) -> __m512i = a;
        and_bytes(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        or_bytes(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        add_bytes(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi8(a, b);
        lookup16(table: &[i8; 16], a: __m512i) -> __m512i = {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, a)
        };
        dot_u7(acc: __m512i, w: __m512i, a: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, w, a);
        dot_s8(acc: __m512i, w: __m512i, a: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, w, a);
        codes(a: __m512i) -> __m512i = a;
        taps(w: __m512i) -> __m512i = w;
        dot_codes(acc: __m512i, a: __m512i, w: __m512i) -> __m512i = _mm512_dpbusd_epi32(acc, a, w);
        // The one that saturates, which sums that fit never do: LLVM makes two instructions of the other one.
        dot_i16(acc: __m512i, a: __m512i, w: __m512i) -> __m512i = _mm512_dpwssds_epi32(acc, a, w);
    }

    forward_ptr! {
        load_ptr(p: *const f32) -> __m512 = _mm512_loadu_ps(p);
        store_ptr(a: __m512, p: *mut f32) = _mm512_storeu_ps(p, a);
        load_part_ptr(p: *const f32, n: usize) -> __m512 = _mm512_maskz_loadu_ps(first(n), p);
        store_part_ptr(a: __m512, p: *mut f32, n: usize) = _mm512_mask_storeu_ps(p, first(n), a);
        load_f16_ptr(p: *const u16) -> __m512 = _mm512_cvtph_ps(_mm256_loadu_si256(p.cast()));
        store_f16_ptr(a: __m512, p: *mut u16) = {
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a))
        };
        load_i32_ptr(p: *const i32) -> __m512i = _mm512_loadu_si512(p.cast());
        store_i32_ptr(a: __m512i, p: *mut i32) = _mm512_storeu_si512(p.cast(), a);
        load_u8_ptr(p: *const u8) -> __m512i = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
        load_i8_ptr(p: *const i8) -> __m512i = _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()));
        store_i8_ptr(a: __m512i, p: *mut i8) = _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(a));
        store_u8_ptr(a: __m512i, p: *mut u8) = {
            let a = _mm512_max_epi32(a, _mm512_setzero_si512());
            _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(a))
        };
        store_four_u8_ptr(a: [__m512i; 4], p: *mut u8) = {
            // To signed words, to unsigned bytes; then each vector's four quarters together.
            let (low, high) = (_mm512_packs_epi32(a[0], a[1]), _mm512_packs_epi32(a[2], a[3]));
            let quarters = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let bytes = _mm512_permutexvar_epi32(quarters, _mm512_packus_epi16(low, high));
            _mm512_storeu_si512(p.cast(), bytes)
        };
        load_quads_ptr(p: *const u8, pitch: usize) -> __m512i = {
            let runs = if pitch == 16 {
                _mm512_loadu_si512(p.cast())
            } else {
                let run = |i: usize| _mm_loadu_si128(p.add(i * pitch).cast());
                let low = _mm256_set_m128i(run(1), run(0));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), _mm256_set_m128i(run(3), run(2)))
            };
            // Four bytes of each run into each quarter, then byte by byte.
            let quarters = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarters, runs), _mm512_broadcast_i32x4(turn))
        };
        load_u16_ptr(p: *const u16) -> __m512i = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        store_u16_ptr(a: __m512i, p: *mut u16) = _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(a));
        load_bytes_ptr(p: *const u8) -> __m512i = _mm512_loadu_si512(p.cast());
        store_bytes_ptr(a: __m512i, p: *mut u8) = _mm512_storeu_si512(p.cast(), a);
    }

    #[inline(always)]
    unsafe fn translate_ptr(self, table: &[u8; 256], p: *mut u8, count: usize) {
        if is_x86_feature_detected!("avx512vbmi") {
            // SAFETY: the instructions are there; the caller vouches for the bytes.
            return unsafe { enter_translate(table, p, count) };
        }
        for i in 0..count {
            // SAFETY: the caller vouches for the bytes.
            unsafe { *p.add(i) = table[usize::from(*p.add(i))] };
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}
