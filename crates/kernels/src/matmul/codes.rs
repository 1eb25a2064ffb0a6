//! Streams of codes: 4, 5, 6 and 8 bits, and 4 bits into a table.
//!
//! With `V = 4 * LANES` bytes to a vector, a group holds
//!
//! ```text
//! Bits8     8 vectors, one per step
//! Bits4     4 vectors: step s in the low, step s + 4 in the high halves of the bytes of vector s
//! Bits5     Bits4, then 1 vector: bit s of a byte is the fifth bit of step s
//! Bits6     Bits4, then 2 vectors: bits 2f and 2f + 1 of vector v are the upper bits of step 4v + f
//! ```

use std::marker::PhantomData;

use kinglet_simd::Isa;

use super::stream::{Codes, Lane, STEPS};

/// Bytes of a vector.
#[inline(always)]
const fn vector<I: Isa>() -> usize {
    4 * I::LANES
}

/// Low four bits of step `step`.
#[inline(always)]
unsafe fn nibbles<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes {
    // SAFETY: the four vectors of low bits open the group.
    let pairs = unsafe { isa.load_bytes_ptr(group.add(step % 4 * vector::<I>())) };
    if step < 4 { isa.and_bytes(pairs, isa.splat_bytes(15)) } else { isa.shr_bytes(pairs, 4) }
}

/// Adds bits to the word of a row in vector `vector` of a group.
fn add(group: &mut [u8], vector: usize, at: Lane, bits: u32) {
    let at = 4 * (vector * at.lanes + at.lane);
    for (byte, bits) in group[at..at + 4].iter_mut().zip(bits.to_le_bytes()) {
        *byte |= bits;
    }
}

fn put_nibbles(group: &mut [u8], at: Lane, words: &[u32; STEPS]) {
    for step in 0..4 {
        let (low, high) = (words[step] & 0x0f0f_0f0f, words[step + 4] & 0x0f0f_0f0f);
        add(group, step, at, low | high << 4);
    }
}

/// Codes of four bits.
pub(super) struct Bits4;

impl Codes for Bits4 {
    const BYTES: usize = 16;
    const SIGNED: bool = false;
    const RUN: usize = 4;

    #[inline(always)]
    unsafe fn step<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes {
        // SAFETY: the caller vouches for the group.
        unsafe { nibbles(isa, group, step) }
    }

    fn put(group: &mut [u8], at: Lane, words: &[u32; STEPS]) {
        put_nibbles(group, at, words);
    }
}

/// Codes of five bits.
pub(super) struct Bits5;

impl Codes for Bits5 {
    const BYTES: usize = 20;
    const SIGNED: bool = false;
    const RUN: usize = 4;

    #[inline(always)]
    unsafe fn step<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes {
        // SAFETY: the caller vouches for the group.
        let (low, high) =
            unsafe { (nibbles(isa, group, step), isa.load_bytes_ptr(group.add(4 * vector::<I>()))) };
        let high = isa.lanes_of(high);
        // Bit `step` of each byte comes to bit 4 of the same byte; the mask drops what crossed over.
        let high =
            if step < 4 { isa.shl_i32(high, 4 - step as u32) } else { isa.shr_i32(high, step as u32 - 4) };
        isa.or_bytes(low, isa.and_bytes(isa.bytes_of(high), isa.splat_bytes(0x10)))
    }

    fn put(group: &mut [u8], at: Lane, words: &[u32; STEPS]) {
        put_nibbles(group, at, words);
        for (step, word) in words.iter().enumerate() {
            add(group, 4, at, (word >> 4 & 0x0101_0101) << step);
        }
    }
}

/// Codes of six bits.
pub(super) struct Bits6;

impl Codes for Bits6 {
    const BYTES: usize = 24;
    const SIGNED: bool = false;
    const RUN: usize = 2;

    #[inline(always)]
    unsafe fn step<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes {
        // SAFETY: the caller vouches for the group.
        let (low, high) = unsafe {
            (nibbles(isa, group, step), isa.load_bytes_ptr(group.add((4 + step / 4) * vector::<I>())))
        };
        let high = isa.lanes_of(high);
        // Bits 2f and 2f + 1 come to bits 4 and 5 of the same byte; the mask drops what crossed over.
        let field = step as u32 % 4;
        let high =
            if field < 2 { isa.shl_i32(high, 4 - 2 * field) } else { isa.shr_i32(high, 2 * field - 4) };
        isa.or_bytes(low, isa.and_bytes(isa.bytes_of(high), isa.splat_bytes(0x30)))
    }

    fn put(group: &mut [u8], at: Lane, words: &[u32; STEPS]) {
        put_nibbles(group, at, words);
        for (step, word) in words.iter().enumerate() {
            add(group, 4 + step / 4, at, (word >> 4 & 0x0303_0303) << (step % 4 * 2));
        }
    }
}

/// Codes of a byte each, already as the dot product takes them, in runs of `RUN` steps.
pub(super) struct Bits8<const SIGNED: bool, const RUN: usize>;

impl<const S: bool, const R: usize> Codes for Bits8<S, R> {
    const BYTES: usize = 32;
    const SIGNED: bool = S;
    const RUN: usize = R;

    #[inline(always)]
    unsafe fn step<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes {
        // SAFETY: the caller vouches for the group.
        unsafe { isa.load_bytes_ptr(group.add(step * vector::<I>())) }
    }

    fn put(group: &mut [u8], at: Lane, words: &[u32; STEPS]) {
        // Adding 128 to a byte is flipping its top bit.
        let bias = if S { u32::from_le_bytes([at.bias; 4]) } else { 0 };
        for (step, word) in words.iter().enumerate() {
            add(group, step, at, word ^ bias);
        }
    }
}

/// A table of sixteen signed values.
pub(super) trait Table: 'static {
    /// The values.
    const VALUES: [i8; 16];
}

/// The values of IQ4_NL and IQ4_XS.
pub(super) struct NonLinear;

impl Table for NonLinear {
    const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
}

/// Twice the values of E2M1 (OCP microscaling formats 1.0); the halving is in the scales.
pub(super) struct E2M1;

impl Table for E2M1 {
    const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
}

/// Codes of four bits that stand for signed values in a table.
pub(super) struct Lookup<T>(PhantomData<T>);

impl<T: Table> Codes for Lookup<T> {
    const BYTES: usize = 16;
    const SIGNED: bool = true;
    const RUN: usize = 1;

    #[inline(always)]
    unsafe fn step<I: Isa>(isa: I, group: *const u8, step: usize) -> I::Bytes {
        // SAFETY: the caller vouches for the group.
        let index = unsafe { nibbles(isa, group, step) };
        isa.lookup16(&const { biased(T::VALUES, I::W_BIAS) }, index)
    }

    fn put(group: &mut [u8], at: Lane, words: &[u32; STEPS]) {
        put_nibbles(group, at, words);
    }
}

/// The table with the bias of the instruction set added.
const fn biased(mut table: [i8; 16], bias: u8) -> [i8; 16] {
    let mut i = 0;
    while i < 16 {
        table[i] = (table[i] as u8).wrapping_add(bias) as i8;
        i += 1;
    }
    table
}
