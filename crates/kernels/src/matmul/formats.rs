//! The packed formats: which streams each file format becomes, and how its blocks come apart.
//!
//! Values stay exactly those of the file. Absent types (F32, F16, BF16, Q2_K, Q3_K, IQ1..IQ3, TQ, ...) have no 8-bit
//! kernel and go the way of [`matmul_f32`](super::matmul_f32).

use kinglet_tensor::DType;

use super::codes::{Bits4, Bits5, Bits6, Bits8, E2M1, Lookup, NonLinear};
use super::panel::Panel;
use super::scales::{Exponents, Halves, HalvesMin, SuperMin, SuperSigned};
use super::stream::{STEPS, Stream, Zero};

/// A block of the file, taken apart: codes as bytes, four columns to a word; 16-bit scales; bytes of scales.
#[derive(Clone, Copy, Default)]
pub(super) struct Block {
    pub(super) words: [[u32; STEPS]; 8],
    pub(super) halves: [u16; 2],
    pub(super) bytes: [u8; 16],
}

/// A stream that is made from blocks of a file format.
pub(super) trait Format: Stream {
    /// What it unpacks to.
    type Panel: Stream;
    /// 16-bit values of a block.
    const HALVES: usize;
    /// Bytes of scales of a block.
    const BYTES: usize;

    /// Takes a block apart; `block` is as long as the type says.
    fn unpack(block: &[u8], out: &mut Block);
}

/// Something to do with the format of a type.
pub(super) trait Visit {
    type Out;
    fn visit<F: Format>(self) -> Self::Out;
}

macro_rules! formats {
    ($($name:ident: $codes:ty, $scales:ty, $panel:ty, $halves:literal, $bytes:literal, $unpack:expr;)*) => {
        $(
            #[allow(non_camel_case_types, reason = "the specification's names")]
            struct $name;

            impl Stream for $name {
                type Codes = $codes;
                type Scales = $scales;
                const ZERO: Zero = <$panel as Stream>::ZERO;
                const FROM_MEMORY: bool = true;
            }

            impl Format for $name {
                type Panel = $panel;
                const HALVES: usize = $halves;
                const BYTES: usize = $bytes;

                #[inline]
                fn unpack(block: &[u8], out: &mut Block) {
                    $unpack(block, out);
                }
            }
        )*

        /// Calls `visit` with the format of `dtype`; none when the type has no packed format.
        pub(super) fn with_format<V: Visit>(dtype: DType, visit: V) -> Option<V::Out> {
            match dtype {
                $(DType::$name => Some(visit.visit::<$name>()),)*
                _ => None,
            }
        }
    };
}

formats! {
    Q4_0: Bits4, Halves, Centred<3>, 1, 0, q4::<2>;
    Q4_1: Bits4, HalvesMin, WithMin, 2, 0, q4::<4>;
    Q5_0: Bits5, Halves, Centred<4>, 1, 0, q5::<2>;
    Q5_1: Bits5, HalvesMin, WithMin, 2, 0, q5::<4>;
    Q8_0: Bits8<true, 1>, Halves, Signed, 1, 0, q8_0;
    Q4_K: Bits4, SuperMin, WithMin, 2, 16, q4_k;
    Q5_K: Bits5, SuperMin, WithMin, 2, 16, q5_k;
    Q6_K: Bits6, SuperSigned<2>, InHalves, 1, 16, q6_k;
    IQ4_NL: Lookup<NonLinear>, Halves, Signed, 1, 0, q4::<2>;
    IQ4_XS: Lookup<NonLinear>, SuperSigned<1>, Signed, 1, 8, iq4_xs;
    MXFP4: Lookup<E2M1>, Exponents, Signed, 0, 1, mxfp4;
}

/// Unsigned codes around `1 << SHIFT`.
type Centred<const SHIFT: u32> = Panel<false, 4, 1, false, SHIFT>;
/// Unsigned codes above a minimum.
type WithMin = Panel<false, 4, 1, true, 0>;
/// Unsigned codes around 32, a scale for each half of a group.
type InHalves = Panel<false, 2, 2, false, 5>;
/// Signed codes.
type Signed = Panel<true, 1, 1, false, 0>;

const LOW4: u32 = 0x0f0f_0f0f;
const LOW2: u32 = 0x0303_0303;
const LOW1: u32 = 0x0101_0101;

fn word(bytes: &[u8], n: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * n], bytes[4 * n + 1], bytes[4 * n + 2], bytes[4 * n + 3]])
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Sixteen bytes of which byte `i` holds code `i` low and code `i + 16` high.
fn nibbles(bytes: &[u8], words: &mut [u32; STEPS]) {
    for n in 0..4 {
        let pair = word(bytes, n);
        words[n] = pair & LOW4;
        words[n + 4] = pair >> 4 & LOW4;
    }
}

/// `HEAD` bytes of half floats, then nibbles.
fn q4<const HEAD: usize>(block: &[u8], out: &mut Block) {
    halves::<HEAD>(block, out);
    nibbles(&block[HEAD..], &mut out.words[0]);
}

/// `HEAD` bytes of half floats, 32 fifth bits, then nibbles.
fn q5<const HEAD: usize>(block: &[u8], out: &mut Block) {
    halves::<HEAD>(block, out);
    nibbles(&block[HEAD + 4..], &mut out.words[0]);
    let fifths = word(&block[HEAD..], 0);
    for (n, codes) in out.words[0].iter_mut().enumerate() {
        // Bits 4n..4n + 4, each to bit 4 of its byte.
        let bits = fifths >> (4 * n) & 15;
        *codes |= (bits & 1 | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21) << 4;
    }
}

fn halves<const HEAD: usize>(block: &[u8], out: &mut Block) {
    for n in 0..HEAD / 2 {
        out.halves[n] = half(block, 2 * n);
    }
}

fn q8_0(block: &[u8], out: &mut Block) {
    halves::<2>(block, out);
    out.words[0] = std::array::from_fn(|n| word(&block[2..], n));
}

fn mxfp4(block: &[u8], out: &mut Block) {
    out.bytes[0] = block[0];
    nibbles(&block[1..], &mut out.words[0]);
}

/// `d, dmin`, then twelve bytes of six-bit scales and minima: the first four of each lie plain; of the last four, the
/// low nibbles share bytes 8 to 12 and the high bits sit atop the first eight bytes.
fn super_min(block: &[u8], out: &mut Block) {
    halves::<4>(block, out);
    let packed = &block[4..16];
    for n in 0..4 {
        let (scale, min, low) = (packed[n], packed[4 + n], packed[8 + n]);
        out.bytes[n] = scale & 63;
        out.bytes[8 + n] = min & 63;
        out.bytes[4 + n] = low & 15 | scale >> 2 & 48;
        out.bytes[12 + n] = low >> 4 | min >> 2 & 48;
    }
}

fn q4_k(block: &[u8], out: &mut Block) {
    super_min(block, out);
    for (group, words) in out.words.iter_mut().enumerate() {
        let bytes = &block[16 + group / 2 * 32..][..32];
        *words = std::array::from_fn(|n| word(bytes, n) >> (group % 2 * 4) & LOW4);
    }
}

fn q5_k(block: &[u8], out: &mut Block) {
    super_min(block, out);
    for (group, words) in out.words.iter_mut().enumerate() {
        let bytes = &block[48 + group / 2 * 32..][..32];
        *words = std::array::from_fn(|n| {
            let fifth = word(&block[16..48], n) >> group & LOW1;
            word(bytes, n) >> (group % 2 * 4) & LOW4 | fifth << 4
        });
    }
}

fn q6_k(block: &[u8], out: &mut Block) {
    out.halves[0] = half(block, 208);
    out.bytes.copy_from_slice(&block[192..208]);
    for (group, words) in out.words.iter_mut().enumerate() {
        let (side, quarter) = (group / 4, group % 4);
        let low = &block[side * 64 + quarter % 2 * 32..][..32];
        let high = &block[128 + side * 32..][..32];
        *words = std::array::from_fn(|n| {
            word(low, n) >> (quarter / 2 * 4) & LOW4 | (word(high, n) >> (quarter * 2) & LOW2) << 4
        });
    }
}

/// `d`, then six-bit scales less 32: four low bits in one place, two high ones in another.
fn iq4_xs(block: &[u8], out: &mut Block) {
    out.halves[0] = half(block, 0);
    let high = half(block, 2);
    for (group, words) in out.words.iter_mut().enumerate() {
        let low = block[4 + group / 2] >> (group % 2 * 4) & 15;
        let scale = low | ((high >> (2 * group) & 3) as u8) << 4;
        out.bytes[group] = scale.wrapping_sub(32);
        nibbles(&block[8 + group * 16..], words);
    }
}
