//! Streams of scales, as lossless as the file has them.
//!
//! A header lists its values one after the other, each as `LANES` rows side by side: first the 16-bit ones, then the
//! bytes. All give exact floats: a half float times a small integer has at most 24 bits.

use kinglet_simd::Isa;

use super::stream::{CHUNK, Scales};

/// 16-bit value number `n` of every row.
#[inline(always)]
unsafe fn half<I: Isa>(isa: I, header: *const u8, n: usize) -> I::F32 {
    // SAFETY: the caller vouches for the header; any alignment will do.
    unsafe { isa.load_f16_ptr(header.add(n * 2 * I::LANES).cast()) }
}

/// `d`: one half float per group.
pub(super) struct Halves;

impl Scales for Halves {
    const BYTES: usize = 2 * CHUNK;
    const PARTS: usize = 1;
    const MIN: bool = false;

    #[inline(always)]
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, _: usize) -> (I::F32, I::F32) {
        // SAFETY: the caller vouches for the header.
        (unsafe { half(isa, header, group) }, isa.zero())
    }
}

/// `d, m`: two half floats per group.
pub(super) struct HalvesMin;

impl Scales for HalvesMin {
    const BYTES: usize = 4 * CHUNK;
    const PARTS: usize = 1;
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, _: usize) -> (I::F32, I::F32) {
        // SAFETY: the caller vouches for the header.
        unsafe { (half(isa, header, 2 * group), half(isa, header, 2 * group + 1)) }
    }
}

/// `d, dmin` and eight scales and eight minima of one byte: `(d * scale, -(dmin * min))`.
pub(super) struct SuperMin;

impl Scales for SuperMin {
    const BYTES: usize = 4 + 2 * CHUNK;
    const PARTS: usize = 1;
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, _: usize) -> (I::F32, I::F32) {
        // SAFETY: the caller vouches for the header.
        unsafe {
            let bytes = header.add(4 * I::LANES);
            let scale = isa.to_f32(isa.load_u8_ptr(bytes.add(group * I::LANES)));
            let min = isa.to_f32(isa.load_u8_ptr(bytes.add((CHUNK + group) * I::LANES)));
            (isa.mul(half(isa, header, 0), scale), isa.neg(isa.mul(half(isa, header, 1), min)))
        }
    }
}

/// `d` and signed scales of one byte, `PARTS` to a group: `d * scale`.
pub(super) struct SuperSigned<const PARTS: usize>;

impl<const P: usize> Scales for SuperSigned<P> {
    const BYTES: usize = 2 + P * CHUNK;
    const PARTS: usize = P;
    const MIN: bool = false;

    #[inline(always)]
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, part: usize) -> (I::F32, I::F32) {
        // SAFETY: the caller vouches for the header.
        unsafe {
            let bytes = header.add((2 + group * P + part) * I::LANES);
            (isa.mul(half(isa, header, 0), isa.to_f32(isa.load_i8_ptr(bytes.cast()))), isa.zero())
        }
    }
}

/// Half of a power of two: one exponent byte (E8M0) per group.
pub(super) struct Exponents;

impl Scales for Exponents {
    const BYTES: usize = CHUNK;
    const PARTS: usize = 1;
    const MIN: bool = false;

    #[inline(always)]
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, _: usize) -> (I::F32, I::F32) {
        // SAFETY: the caller vouches for the header.
        let exponent = unsafe { isa.load_u8_ptr(header.add(group * I::LANES)) };
        let one = isa.splat_i32(1);
        let normal = isa.shl_i32(isa.sub_i32(exponent, one), 23);
        // Exponents 0 and 1 halve to subnormals, 2^-128 and 2^-127.
        let subnormal = isa.shl_i32(isa.add_i32(isa.min_i32(exponent, one), one), 21);
        (isa.float_of_bits(isa.max_i32(normal, subnormal)), isa.zero())
    }
}

/// Floats: the scales of a panel, then its minima where there are some.
pub(super) struct Floats<const PARTS: usize, const MIN: bool>;

impl<const P: usize, const M: bool> Scales for Floats<P, M> {
    const BYTES: usize = 4 * CHUNK * Self::PER_GROUP;
    const PARTS: usize = P;
    const MIN: bool = M;

    #[inline(always)]
    unsafe fn at<I: Isa>(isa: I, header: *const u8, group: usize, part: usize) -> (I::F32, I::F32) {
        // SAFETY: the caller vouches for the header; vectors may be unaligned.
        unsafe {
            let scale = header.cast::<f32>().add((group * Self::PER_GROUP + part) * I::LANES);
            let min = if M { isa.load_ptr(scale.add(I::LANES)) } else { isa.zero() };
            (isa.load_ptr(scale), min)
        }
    }
}

impl<const P: usize, const M: bool> Floats<P, M> {
    /// Floats per row and group.
    pub(super) const PER_GROUP: usize = if M { 2 } else { P };
}
