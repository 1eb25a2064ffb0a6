//! The operations a kernel may use, over vectors of [`Isa::LANES`] 32-bit lanes.
//!
//! Memory comes in two forms: slices, which are checked, and `_ptr` methods, which are `unsafe` and for inner loops.
//! Results are bit-identical on every instruction set except where a method says otherwise.

use std::fmt::Debug;

/// Lanes of the widest instruction set.
pub const MAX_LANES: usize = 16;

/// Work that is generic over the instruction set.
pub trait Kernel {
    /// What it returns.
    type Out;

    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<I: Isa>(self, isa: I) -> Self::Out;
}

/// An instruction set, as a token that proves its presence.
///
/// `F32` and `I32` hold `LANES` lanes, `Bytes` holds `4 * LANES` bytes, of which bytes `4i..4i + 4` belong to lane `i`.
pub trait Isa: Copy + Debug + Send + Sync + 'static {
    /// The name users select it by.
    const NAME: &'static str;
    /// Number of 32-bit lanes: 4, 8 or 16.
    const LANES: usize;
    /// What is added to signed 8-bit weights before they are stored for [`dot_s8`](Self::dot_s8).
    const W_BIAS: u8;
    /// Whether dot products go through 16-bit pairs, so that summing pairs first is cheaper.
    const PAIRS: bool = false;
    /// Vector registers: a kernel that needs more spills.
    const REGISTERS: usize;
    /// Whether [`dot_bf16`](Self::dot_bf16) is an instruction.
    const BF16: bool = false;

    /// `LANES` floats.
    type F32: Copy;
    /// `LANES` 32-bit integers.
    type I32: Copy;
    /// `LANES` truth values.
    type Mask: Copy;
    /// `4 * LANES` bytes.
    type Bytes: Copy;
    /// Unsigned bytes, as [`dot_codes`](Self::dot_codes) takes them.
    type Codes: Copy;
    /// Signed bytes, as [`dot_codes`](Self::dot_codes) takes them.
    type Taps: Copy;
    /// What [`dot_codes`](Self::dot_codes) takes away from each unsigned byte.
    const CODE_BIAS: i32 = 0;

    /// The token, if this machine has the instructions.
    fn detect() -> Option<Self>;

    /// Runs `kernel` with the instruction set enabled.
    fn dispatch<K: Kernel>(self, kernel: K) -> K::Out;

    /// Whether this machine multiplies pairs of bfloat16 in one instruction, inside [`dispatch_bf16`](Self::dispatch_bf16).
    #[inline(always)]
    fn has_bf16(self) -> bool {
        false
    }

    /// Runs `kernel` with this instruction set enabled and, where the machine has them, products of bfloat16.
    #[inline(always)]
    fn dispatch_bf16<K: Kernel>(self, kernel: K) -> K::Out {
        self.dispatch(kernel)
    }

    // ---- floats ----

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`: rounded once on AVX and NEON, twice on scalar and WASM.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `a < b ? a : b`: `b` when either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a > b ? a : b`: `b` when either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `-a`.
    fn neg(self, a: Self::F32) -> Self::F32;
    /// `|a|`.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// `a < b`.
    fn lt(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`.
    fn le(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a == b`.
    fn eq(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `m ? a : b`.
    fn select(self, m: Self::Mask, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Sum of the lanes; the order of additions depends on the instruction set.
    fn reduce_sum(self, a: Self::F32) -> f32;
    /// Largest lane; lanes must not be NaN.
    fn reduce_max(self, a: Self::F32) -> f32;
    /// The lanes that are set, as bits, that of lane 0 lowest.
    fn mask_bits(self, m: Self::Mask) -> u32;
    /// The lanes of both by turns: `a0 b0 a1 b1 …`, low half first.
    #[inline(always)]
    fn zip(self, a: Self::F32, b: Self::F32) -> (Self::F32, Self::F32) {
        let (mut x, mut y, mut both) = ([0.0; MAX_LANES], [0.0; MAX_LANES], [0.0; 2 * MAX_LANES]);
        self.store(a, &mut x);
        self.store(b, &mut y);
        for i in 0..Self::LANES {
            (both[2 * i], both[2 * i + 1]) = (x[i], y[i]);
        }
        (self.load(&both), self.load(&both[Self::LANES..]))
    }
    /// Lane `i` of `acc` plus the two products of its bfloat16 values of `a` and `w`, that of the high halves first, each as
    /// [`fma`](Self::fma) adds it; numbers below the least normal one may count as zero.
    #[inline(always)]
    fn dot_bf16(self, acc: Self::F32, a: Self::I32, w: Self::I32) -> Self::F32 {
        dot_bf16(self, acc, a, w)
    }
    /// Both as bfloat16 in each lane, `low` in the low half: rounded as [`store_bf16_ptr`](Self::store_bf16_ptr) does.
    #[inline(always)]
    fn pair_bf16(self, low: Self::F32, high: Self::F32) -> Self::I32 {
        self.or_i32(bf16_of(self, low), self.shl_i32(bf16_of(self, high), 16))
    }
    /// Nearest integers, halves to even; lanes must be within the range of `i32`.
    fn to_i32(self, a: Self::F32) -> Self::I32;
    /// Integers as floats, rounded to nearest even.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// The bits of the floats.
    fn bits_of(self, a: Self::F32) -> Self::I32;
    /// Floats of these bits.
    fn float_of_bits(self, a: Self::I32) -> Self::F32;

    // ---- integers ----

    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Low 32 bits of `a * b`.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a & b`.
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a | b`.
    fn or_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a << n`, `n < 32`.
    fn shl_i32(self, a: Self::I32, n: u32) -> Self::I32;
    /// `a >> n`, zeros shifted in, `n < 32`.
    fn shr_i32(self, a: Self::I32, n: u32) -> Self::I32;
    /// `a >> n`, the sign shifted in, `n < 32`.
    fn sar_i32(self, a: Self::I32, n: u32) -> Self::I32;
    /// Signed minimum.
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Signed maximum.
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;

    // ---- bytes ----

    /// All bytes `x`.
    fn splat_bytes(self, x: u8) -> Self::Bytes;
    /// The lanes' bytes, little-endian.
    fn bytes_of(self, a: Self::I32) -> Self::Bytes;
    /// Lanes out of little-endian bytes.
    fn lanes_of(self, a: Self::Bytes) -> Self::I32;
    /// `a & b`.
    fn and_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a | b`.
    fn or_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a + b` in each byte, wrapping.
    fn add_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Each byte replaced by `table[byte]`; bytes must be below 16.
    fn lookup16(self, table: &[i8; 16], a: Self::Bytes) -> Self::Bytes;
    /// Lane `i` of `acc` plus the four products of its bytes; `w` in 0..=127, `a` signed in -127..=127. Exact.
    fn dot_u7(self, acc: Self::I32, w: Self::Bytes, a: Self::Bytes) -> Self::I32;
    /// Like [`dot_u7`](Self::dot_u7) for signed weights stored as `w + W_BIAS`; the result is that of the stored
    /// values: the caller subtracts `W_BIAS * sum(a)`. Exact.
    fn dot_s8(self, acc: Self::I32, w: Self::Bytes, a: Self::Bytes) -> Self::I32;

    /// Unsigned bytes for [`dot_codes`](Self::dot_codes).
    fn codes(self, a: Self::Bytes) -> Self::Codes;
    /// Signed bytes for [`dot_codes`](Self::dot_codes).
    fn taps(self, w: Self::Bytes) -> Self::Taps;
    /// Lane `i` of `acc` plus the four products of its bytes: of unsigned ones, less [`CODE_BIAS`](Self::CODE_BIAS), and
    /// signed ones. Exact for all of them, sums wrapping in 32 bits.
    fn dot_codes(self, acc: Self::I32, a: Self::Codes, w: Self::Taps) -> Self::I32;

    /// Lane `i` of `acc` plus the two products of its signed 16-bit halves, which are above -32,768. Exact where the sum fits
    /// 32 bits.
    fn dot_i16(self, acc: Self::I32, a: Self::I32, w: Self::I32) -> Self::I32;

    /// Sums of neighbouring products of `w` in 0..=127 and signed `a`, each in 16 bits (or, where
    /// [`PAIRS`](Self::PAIRS) is false, already [`dot_u7`](Self::dot_u7) of zero).
    #[inline(always)]
    fn pairs_u7(self, w: Self::Bytes, a: Self::Bytes) -> Self::I32 {
        self.dot_u7(self.splat_i32(0), w, a)
    }
    /// Adds two results of [`pairs_u7`](Self::pairs_u7); sums must fit their 16 bits.
    #[inline(always)]
    fn add_pairs(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        self.add_i32(a, b)
    }
    /// Adds pairs to the lanes they belong to.
    #[inline(always)]
    fn widen_pairs(self, acc: Self::I32, pairs: Self::I32) -> Self::I32 {
        self.add_i32(acc, pairs)
    }

    // ---- memory ----

    /// Loads `LANES` floats.
    /// # Safety
    /// `p` is valid for reading `LANES` floats; any alignment.
    unsafe fn load_ptr(self, p: *const f32) -> Self::F32;
    /// Stores `LANES` floats.
    /// # Safety
    /// `p` is valid for writing `LANES` floats; any alignment.
    unsafe fn store_ptr(self, a: Self::F32, p: *mut f32);
    /// Loads `n <= LANES` floats and zeros.
    /// # Safety
    /// `p` is valid for reading `n` floats; `n <= LANES`.
    unsafe fn load_part_ptr(self, p: *const f32, n: usize) -> Self::F32;
    /// Stores the first `n <= LANES` floats.
    /// # Safety
    /// `p` is valid for writing `n` floats; `n <= LANES`.
    unsafe fn store_part_ptr(self, a: Self::F32, p: *mut f32, n: usize);
    /// Loads `LANES` half floats (IEEE binary16).
    /// # Safety
    /// `p` is valid for reading `LANES` values; any alignment.
    unsafe fn load_f16_ptr(self, p: *const u16) -> Self::F32;
    /// Stores `LANES` half floats, rounded to nearest even.
    /// # Safety
    /// `p` is valid for writing `LANES` values; any alignment.
    unsafe fn store_f16_ptr(self, a: Self::F32, p: *mut u16);
    /// Loads `LANES` integers.
    /// # Safety
    /// `p` is valid for reading `LANES` integers; any alignment.
    unsafe fn load_i32_ptr(self, p: *const i32) -> Self::I32;
    /// Stores `LANES` integers.
    /// # Safety
    /// `p` is valid for writing `LANES` integers; any alignment.
    unsafe fn store_i32_ptr(self, a: Self::I32, p: *mut i32);
    /// Loads `LANES` unsigned bytes into lanes.
    /// # Safety
    /// `p` is valid for reading `LANES` bytes.
    unsafe fn load_u8_ptr(self, p: *const u8) -> Self::I32;
    /// Loads `LANES` signed bytes into lanes.
    /// # Safety
    /// `p` is valid for reading `LANES` bytes.
    unsafe fn load_i8_ptr(self, p: *const i8) -> Self::I32;
    /// Stores the low byte of each lane.
    /// # Safety
    /// `p` is valid for writing `LANES` bytes.
    unsafe fn store_i8_ptr(self, a: Self::I32, p: *mut i8);
    /// Stores each lane as an unsigned byte, the nearest one to lanes that are none.
    /// # Safety
    /// `p` is valid for writing `LANES` bytes.
    #[inline(always)]
    unsafe fn store_u8_ptr(self, a: Self::I32, p: *mut u8) {
        let a = self.max_i32(self.splat_i32(0), self.min_i32(self.splat_i32(255), a));
        // SAFETY: the caller vouches for the pointer.
        unsafe { self.store_i8_ptr(a, p.cast()) }
    }
    /// Stores the lanes of four vectors behind one another, as [`store_u8_ptr`](Self::store_u8_ptr) stores one.
    /// # Safety
    /// `p` is valid for writing `4 * LANES` bytes.
    #[inline(always)]
    unsafe fn store_four_u8_ptr(self, a: [Self::I32; 4], p: *mut u8) {
        for (i, a) in a.iter().enumerate() {
            // SAFETY: the caller vouches for the pointer.
            unsafe { self.store_u8_ptr(*a, p.add(i * Self::LANES)) }
        }
    }
    /// Byte `i` of each of four runs of `LANES` bytes, `pitch` apart, side by side in lane `i`.
    /// # Safety
    /// `p` is valid for reading the four runs, and the bytes between them.
    #[inline(always)]
    unsafe fn load_quads_ptr(self, p: *const u8, pitch: usize) -> Self::Bytes {
        let mut bytes = [0u8; 64];
        for lane in 0..Self::LANES {
            for run in 0..4 {
                // SAFETY: the caller vouches for the runs.
                bytes[4 * lane + run] = unsafe { *p.add(run * pitch + lane) };
            }
        }
        // SAFETY: there are at most sixteen lanes.
        unsafe { self.load_bytes_ptr(bytes.as_ptr()) }
    }
    /// Replaces each of `count` bytes by `table[byte]`.
    /// # Safety
    /// `p` is valid for reading and writing `count` bytes.
    #[inline(always)]
    unsafe fn translate_ptr(self, table: &[u8; 256], p: *mut u8, count: usize) {
        for i in 0..count {
            // SAFETY: the caller vouches for the bytes.
            unsafe { *p.add(i) = table[usize::from(*p.add(i))] };
        }
    }
    /// Loads `LANES` 16-bit integers, zero-extended.
    /// # Safety
    /// `p` is valid for reading `LANES` values; any alignment.
    unsafe fn load_u16_ptr(self, p: *const u16) -> Self::I32;
    /// Stores the low half of each lane.
    /// # Safety
    /// `p` is valid for writing `LANES` values; any alignment.
    unsafe fn store_u16_ptr(self, a: Self::I32, p: *mut u16);
    /// Loads `4 * LANES` bytes.
    /// # Safety
    /// `p` is valid for reading `4 * LANES` bytes.
    unsafe fn load_bytes_ptr(self, p: *const u8) -> Self::Bytes;
    /// Stores `4 * LANES` bytes.
    /// # Safety
    /// `p` is valid for writing `4 * LANES` bytes.
    unsafe fn store_bytes_ptr(self, a: Self::Bytes, p: *mut u8);
    /// The same four bytes in every lane.
    /// # Safety
    /// `p` is valid for reading 4 bytes; any alignment.
    #[inline(always)]
    unsafe fn broadcast4_ptr(self, p: *const i8) -> Self::Bytes {
        // SAFETY: the caller vouches for four bytes.
        self.bytes_of(self.splat_i32(unsafe { p.cast::<i32>().read_unaligned() }))
    }
    /// Asks for the cache line at `p`, which need not be valid.
    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        let _ = p;
    }
    /// The same, as far as the second-level cache: for what is used after the first one has been filled anew.
    #[inline(always)]
    fn prefetch_far<T>(self, p: *const T) {
        let _ = p;
    }

    // ---- made of the above ----

    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }
    /// Each byte shifted right by `n < 8`, zeros shifted in.
    #[inline(always)]
    fn shr_bytes(self, a: Self::Bytes, n: u32) -> Self::Bytes {
        let shifted = self.bytes_of(self.shr_i32(self.lanes_of(a), n));
        self.and_bytes(shifted, self.splat_bytes(0xff >> n))
    }
    /// Loads `LANES` bfloat16 values.
    /// # Safety
    /// `p` is valid for reading `LANES` values; any alignment.
    #[inline(always)]
    unsafe fn load_bf16_ptr(self, p: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for the pointer.
        self.float_of_bits(self.shl_i32(unsafe { self.load_u16_ptr(p) }, 16))
    }
    /// Stores `LANES` bfloat16 values, rounded to nearest even; NaN stays NaN, and numbers below the least normal one may
    /// become zero.
    /// # Safety
    /// `p` is valid for writing `LANES` values; any alignment.
    #[inline(always)]
    unsafe fn store_bf16_ptr(self, a: Self::F32, p: *mut u16) {
        // SAFETY: the caller vouches for the pointer.
        unsafe { self.store_u16_ptr(bf16_of(self, a), p) }
    }
    /// Loads the first `LANES` floats of `x`; panics when there are fewer.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F32 {
        assert!(x.len() >= Self::LANES, "a vector needs LANES floats");
        // SAFETY: the length was checked.
        unsafe { self.load_ptr(x.as_ptr()) }
    }
    /// Stores to the first `LANES` floats of `x`; panics when there are fewer.
    #[inline(always)]
    fn store(self, a: Self::F32, x: &mut [f32]) {
        assert!(x.len() >= Self::LANES, "a vector needs LANES floats");
        // SAFETY: the length was checked.
        unsafe { self.store_ptr(a, x.as_mut_ptr()) }
    }
    /// Loads at most `LANES` floats of `x`, the missing ones as zeros.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::F32 {
        // SAFETY: the count is bounded by the slice and by LANES.
        unsafe { self.load_part_ptr(x.as_ptr(), x.len().min(Self::LANES)) }
    }
    /// Stores the first lanes, at most as many as `x` holds.
    #[inline(always)]
    fn store_part(self, a: Self::F32, x: &mut [f32]) {
        // SAFETY: the count is bounded by the slice and by LANES.
        unsafe { self.store_part_ptr(a, x.as_mut_ptr(), x.len().min(Self::LANES)) }
    }
    /// Loads the first `LANES` half floats of `x`; panics when there are fewer.
    #[inline(always)]
    fn load_f16(self, x: &[u16]) -> Self::F32 {
        assert!(x.len() >= Self::LANES, "a vector needs LANES values");
        // SAFETY: the length was checked.
        unsafe { self.load_f16_ptr(x.as_ptr()) }
    }
    /// Stores half floats to the first `LANES` values of `x`; panics when there are fewer.
    #[inline(always)]
    fn store_f16(self, a: Self::F32, x: &mut [u16]) {
        assert!(x.len() >= Self::LANES, "a vector needs LANES values");
        // SAFETY: the length was checked.
        unsafe { self.store_f16_ptr(a, x.as_mut_ptr()) }
    }
    /// Loads the first `LANES` bfloat16 values of `x`; panics when there are fewer.
    #[inline(always)]
    fn load_bf16(self, x: &[u16]) -> Self::F32 {
        assert!(x.len() >= Self::LANES, "a vector needs LANES values");
        // SAFETY: the length was checked.
        unsafe { self.load_bf16_ptr(x.as_ptr()) }
    }
    /// Stores bfloat16 to the first `LANES` values of `x`; panics when there are fewer.
    #[inline(always)]
    fn store_bf16(self, a: Self::F32, x: &mut [u16]) {
        assert!(x.len() >= Self::LANES, "a vector needs LANES values");
        // SAFETY: the length was checked.
        unsafe { self.store_bf16_ptr(a, x.as_mut_ptr()) }
    }
}

/// The nearest bfloat16 in the low half of each lane, halves to even.
#[inline(always)]
pub(crate) fn bf16_of<I: Isa>(isa: I, a: I::F32) -> I::I32 {
    let bits = isa.bits_of(a);
    let odd = isa.and_i32(isa.shr_i32(bits, 16), isa.splat_i32(1));
    let rounded = isa.add_i32(bits, isa.add_i32(odd, isa.splat_i32(0x7fff)));
    let quiet = isa.or_i32(bits, isa.splat_i32(0x0040_0000));
    let kept = isa.select(isa.eq(a, a), isa.float_of_bits(rounded), isa.float_of_bits(quiet));
    isa.shr_i32(isa.bits_of(kept), 16)
}

/// [`Isa::dot_bf16`] without an instruction of its own.
#[inline(always)]
pub(crate) fn dot_bf16<I: Isa>(isa: I, acc: I::F32, a: I::I32, w: I::I32) -> I::F32 {
    let high = isa.splat_i32(-0x1_0000);
    let (a_high, w_high) = (isa.and_i32(a, high), isa.and_i32(w, high));
    let (a_low, w_low) = (isa.shl_i32(a, 16), isa.shl_i32(w, 16));
    let acc = isa.fma(isa.float_of_bits(a_high), isa.float_of_bits(w_high), acc);
    isa.fma(isa.float_of_bits(a_low), isa.float_of_bits(w_low), acc)
}
