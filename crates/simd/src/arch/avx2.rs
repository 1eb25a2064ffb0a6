//! AVX2 with FMA and F16C: eight lanes.

use std::arch::x86_64::*;

use super::{forward, forward_ptr};
use crate::{Isa, Kernel};

/// The token of AVX2 with FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

#[target_feature(enable = "avx2,fma,f16c")]
fn enter<K: Kernel>(isa: Avx2, kernel: K) -> K::Out {
    kernel.run(isa)
}

/// A lane mask of the first `n <= 8` lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    const WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: eight values from index 8 - n lie in the table; the caller holds the token.
    unsafe { _mm256_loadu_si256(WINDOW.as_ptr().add(8 - n).cast()) }
}

/// Folds the two halves and then the four lanes with an operation on 128 bits.
macro_rules! reduce {
    ($a:expr, $op:ident) => {{
        let half = $op(_mm256_castps256_ps128($a), _mm256_extractf128_ps::<1>($a));
        let pair = $op(half, _mm_movehl_ps(half, half));
        _mm_cvtss_f32($op(pair, _mm_movehdup_ps(pair)))
    }};
}

/// The low halves of each 32-bit lane, in order, in 128 bits.
#[inline(always)]
unsafe fn narrow16(a: __m256i) -> __m128i {
    // SAFETY: register-only; the caller holds the token.
    unsafe {
        let low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
        let packed = _mm256_packus_epi32(low, low);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}

/// The low bytes of each 32-bit lane, in order, in the low 64 bits.
#[inline(always)]
unsafe fn narrow8(a: __m256i) -> __m128i {
    // SAFETY: register-only; the caller holds the token.
    unsafe {
        let words = narrow16(_mm256_and_si256(a, _mm256_set1_epi32(0xff)));
        _mm_packus_epi16(words, words)
    }
}

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";
    const LANES: usize = 8;
    const W_BIAS: u8 = 0;
    const PAIRS: bool = true;
    const REGISTERS: usize = 16;

    type F32 = __m256;
    type I32 = __m256i;
    type Mask = __m256;
    type Bytes = __m256i;
    // Bytes of even and of odd places, as 16 bits: a multiply-add of unsigned bytes would saturate.
    type Codes = [__m256i; 2];
    type Taps = [__m256i; 2];

    fn detect() -> Option<Self> {
        let all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        all.then_some(Self(()))
    }

    #[inline]
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Out {
        // SAFETY: the token proves that the instruction sets are there.
        unsafe { enter(self, kernel) }
    }

    forward! {
        splat(x: f32) -> __m256 = _mm256_set1_ps(x);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        neg(a: __m256) -> __m256 = _mm256_xor_ps(a, _mm256_set1_ps(-0.0));
        abs(a: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        lt(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LT_OQ>(a, b);
        le(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_LE_OQ>(a, b);
        eq(a: __m256, b: __m256) -> __m256 = _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b);
        select(m: __m256, a: __m256, b: __m256) -> __m256 = _mm256_blendv_ps(b, a, m);
        mask_bits(m: __m256) -> u32 = _mm256_movemask_ps(m) as u32;
        reduce_sum(a: __m256) -> f32 = reduce!(a, _mm_add_ps);
        reduce_max(a: __m256) -> f32 = reduce!(a, _mm_max_ps);
        zip(a: __m256, b: __m256) -> (__m256, __m256) = {
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        };
        to_i32(a: __m256) -> __m256i = _mm256_cvtps_epi32(a);
        to_f32(a: __m256i) -> __m256 = _mm256_cvtepi32_ps(a);
        bits_of(a: __m256) -> __m256i = _mm256_castps_si256(a);
        float_of_bits(a: __m256i) -> __m256 = _mm256_castsi256_ps(a);
        splat_i32(x: i32) -> __m256i = _mm256_set1_epi32(x);
        add_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32(a, b);
        sub_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_sub_epi32(a, b);
        mul_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_mullo_epi32(a, b);
        and_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        or_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        shl_i32(a: __m256i, n: u32) -> __m256i = _mm256_sllv_epi32(a, _mm256_set1_epi32(n as i32));
        shr_i32(a: __m256i, n: u32) -> __m256i = _mm256_srlv_epi32(a, _mm256_set1_epi32(n as i32));
        sar_i32(a: __m256i, n: u32) -> __m256i = _mm256_srav_epi32(a, _mm256_set1_epi32(n as i32));
        min_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_min_epi32(a, b);
        max_i32(a: __m256i, b: __m256i) -> __m256i = _mm256_max_epi32(a, b);
        splat_bytes(x: u8) -> __m256i = _mm256_set1_epi8(x as i8);
        bytes_of(a: __m256i) -> __m256i = a;
        lanes_of(a: __m256i) -> __m256i = a;
        and_bytes(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256(a, b);
        or_bytes(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256(a, b);
        add_bytes(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi8(a, b);
        lookup16(table: &[i8; 16], a: __m256i) -> __m256i = {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, a)
        };
        // 2 * 127 * 127 fits 16 bits, so that the saturating multiply-add is exact.
        dot_u7(acc: __m256i, w: __m256i, a: __m256i) -> __m256i = {
            let pairs = _mm256_maddubs_epi16(w, a);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
        pairs_u7(w: __m256i, a: __m256i) -> __m256i = _mm256_maddubs_epi16(w, a);
        add_pairs(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi16(a, b);
        widen_pairs(acc: __m256i, pairs: __m256i) -> __m256i = {
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
        // |w| * (a with the sign of w): |w| <= 128 as unsigned, 2 * 128 * 127 fits 16 bits.
        dot_s8(acc: __m256i, w: __m256i, a: __m256i) -> __m256i = {
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
    }

    forward! {
        codes(a: __m256i) -> [__m256i; 2] = {
            [_mm256_and_si256(a, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(a)]
        };
        taps(w: __m256i) -> [__m256i; 2] = {
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w)]
        };
        dot_codes(acc: __m256i, a: [__m256i; 2], w: [__m256i; 2]) -> __m256i = {
            let even = _mm256_madd_epi16(a[0], w[0]);
            _mm256_add_epi32(_mm256_add_epi32(acc, even), _mm256_madd_epi16(a[1], w[1]))
        };
        dot_i16(acc: __m256i, a: __m256i, w: __m256i) -> __m256i = {
            _mm256_add_epi32(acc, _mm256_madd_epi16(a, w))
        };
    }

    forward_ptr! {
        load_ptr(p: *const f32) -> __m256 = _mm256_loadu_ps(p);
        store_ptr(a: __m256, p: *mut f32) = _mm256_storeu_ps(p, a);
        load_part_ptr(p: *const f32, n: usize) -> __m256 = _mm256_maskload_ps(p, first(n));
        store_part_ptr(a: __m256, p: *mut f32, n: usize) = _mm256_maskstore_ps(p, first(n), a);
        load_f16_ptr(p: *const u16) -> __m256 = _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
        store_f16_ptr(a: __m256, p: *mut u16) = {
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a))
        };
        load_i32_ptr(p: *const i32) -> __m256i = _mm256_loadu_si256(p.cast());
        store_i32_ptr(a: __m256i, p: *mut i32) = _mm256_storeu_si256(p.cast(), a);
        load_u8_ptr(p: *const u8) -> __m256i = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
        load_i8_ptr(p: *const i8) -> __m256i = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
        store_i8_ptr(a: __m256i, p: *mut i8) = _mm_storel_epi64(p.cast(), narrow8(a));
        load_quads_ptr(p: *const u8, pitch: usize) -> __m256i = {
            let run = |i: usize| _mm_loadl_epi64(p.add(i * pitch).cast());
            let (a, b) = (_mm_unpacklo_epi8(run(0), run(1)), _mm_unpacklo_epi8(run(2), run(3)));
            _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b))
        };
        load_u16_ptr(p: *const u16) -> __m256i = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
        store_u16_ptr(a: __m256i, p: *mut u16) = _mm_storeu_si128(p.cast(), narrow16(a));
        load_bytes_ptr(p: *const u8) -> __m256i = _mm256_loadu_si256(p.cast());
        store_bytes_ptr(a: __m256i, p: *mut u8) = _mm256_storeu_si256(p.cast(), a);
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
