//! bfloat16 in pairs: two neighbouring values stand in the place of a float, the first one in its low half.
//!
//! Products of such pairs have the error of their inputs: `2^-8 * sum(|x * w|)`, and that of sums in f32.

use kinglet_simd::{Isa, Kernel, Level, dispatch_bf16};

use super::layout::{BLOCK, Layout};

/// Pairs of a block of channels.
pub(super) const PAIRS: usize = BLOCK / 2;

/// Puts value `index` of an even and an odd one into its half of their place.
pub(super) fn put(place: &mut f32, index: usize, value: f32) {
    let (bits, value) = (place.to_bits(), bf16(value));
    let halves = if index.is_multiple_of(2) { [value, bits >> 16] } else { [bits & 0xffff, value] };
    *place = f32::from_bits(halves[0] | halves[1] << 16);
}

/// An even and an odd value in their place.
pub(super) fn pair(even: f32, odd: f32) -> f32 {
    f32::from_bits(bf16(even) | bf16(odd) << 16)
}

/// The bits of the nearest bfloat16, ties to even, without a branch.
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bits >> 16 | 0x40 } else { nearest }
}

/// Neighbouring pixels of an image in channel blocks that are rounded, all blocks of them.
pub(super) struct Round {
    /// The first pixel's first block.
    pub(super) from: *const f32,
    /// Floats from a block to the next.
    pub(super) plane: usize,
    pub(super) pixels: usize,
    pub(super) channels: usize,
    /// Where pairs go, and pairs from a block to the next.
    pub(super) to: *mut f32,
    pub(super) to_plane: usize,
}

impl Round {
    /// Rounds them; lanes that a pair has behind the last channel become zero.
    ///
    /// # Safety
    /// The pixels can be read, and as many pairs written, which nothing else uses meanwhile.
    #[inline(always)]
    pub(super) unsafe fn run<I: Isa>(self, isa: I) {
        isa.dispatch_bf16(Vouched(self));
    }
}

/// [`Round`] with the promise that its pointers are valid.
struct Vouched(Round);

impl Kernel for Vouched {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Round { from, plane, pixels, channels, to, to_plane } = self.0;
        for block in 0..channels.div_ceil(BLOCK) {
            // SAFETY: `Round::run` was promised these pixels.
            unsafe {
                let (from, to) = (from.add(block * plane), to.add(block * to_plane).cast::<u16>());
                for at in (0..pixels * BLOCK).step_by(I::LANES) {
                    isa.store_bf16_ptr(isa.load_ptr(from.add(at)), to.add(at));
                }
                let end = channels - block * BLOCK;
                if end < BLOCK && !end.is_multiple_of(2) {
                    (0..pixels).for_each(|pixel| *to.add(pixel * BLOCK + end) = 0);
                }
            }
        }
    }
}

/// Lanes from `lane` on of a pixel's block, which has `pixel` floats: bfloat16 when they are pairs.
///
/// # Safety
/// The block can be read.
#[inline(always)]
pub(super) unsafe fn load<I: Isa>(isa: I, at: *const f32, pixel: usize, lane: usize) -> I::F32 {
    // SAFETY: by the caller's promise.
    unsafe {
        if pixel == PAIRS {
            isa.load_bf16_ptr(at.cast::<u16>().add(lane))
        } else {
            isa.load_ptr(at.add(lane))
        }
    }
}

/// Writes what [`load`] reads.
///
/// # Safety
/// The block can be written, and nothing else uses it meanwhile.
#[inline(always)]
pub(super) unsafe fn store<I: Isa>(isa: I, value: I::F32, at: *mut f32, pixel: usize, lane: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        if pixel == PAIRS {
            isa.store_bf16_ptr(value, at.cast::<u16>().add(lane));
        } else {
            isa.store_ptr(value, at.add(lane));
        }
    }
}

/// Neighbouring pixels of a block of channels that are copied, as floats or bfloat16 on either side.
pub(super) struct Carry {
    /// The first pixel, blocked or in halves as `lies` says.
    pub(super) from: *const f32,
    pub(super) lies: Layout,
    pub(super) to: *mut f32,
    pub(super) becomes: Layout,
}

impl Carry {
    /// Copies so many pixels.
    ///
    /// # Safety
    /// They can be read and written, and nothing else uses those that are written meanwhile; the level is there.
    pub(super) unsafe fn run(self, level: Level, pixels: usize) {
        if self.lies == self.becomes {
            // SAFETY: by the caller's promise.
            unsafe { self.from.copy_to_nonoverlapping(self.to, pixels * self.lies.pixel()) };
        } else {
            dispatch_bf16(level, Carrying(self, pixels * BLOCK));
        }
    }
}

/// So many values from one form to the other; made by [`Carry::run`] only, which was promised the pointers.
struct Carrying(Carry, usize);

impl Kernel for Carrying {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self(Carry { from, lies, to, .. }, count) = self;
        for at in (0..count).step_by(I::LANES) {
            // SAFETY: by the promise to `Carry::run`; blocks are whole vectors.
            unsafe {
                if lies == Layout::Halves {
                    isa.store_ptr(isa.load_bf16_ptr(from.cast::<u16>().add(at)), to.add(at));
                } else {
                    isa.store_bf16_ptr(isa.load_ptr(from.add(at)), to.cast::<u16>().add(at));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_keep_each_other() {
        let mut place = 0.0;
        put(&mut place, 4, 1.0);
        put(&mut place, 7, -2.0);
        assert_eq!(place.to_bits(), 0xc000_3f80);
        put(&mut place, 0, 3.0);
        assert_eq!(place.to_bits(), 0xc000_4040);
    }

    #[test]
    fn values_are_rounded_as_the_half_crate_rounds_them() {
        let odd =
            [f32::NAN, f32::INFINITY, -0.0, 1.003_906_3, 1.011_718_8, f32::MAX, f32::MIN_POSITIVE / 3.0];
        let all = (0..20_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761)));
        for value in all.chain(odd) {
            let nearest = |value| u32::from(half::bf16::from_f32(value).to_bits());
            let expected = nearest(value) | nearest(-value) << 16;
            assert_eq!(pair(value, -value).to_bits(), expected, "{value}");
        }
    }
}
