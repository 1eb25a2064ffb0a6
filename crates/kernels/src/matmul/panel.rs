//! Panels: a range of columns of a few tiles, unpacked to one byte a code and float scales.
//!
//! A matrix product over many rows unpacks each panel once, into memory that stays in the first-level cache, and then
//! runs all rows over it. A panel is a [`Stream`] like any packed format, and gives the same bits.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use kinglet_simd::{Isa, Kernel, MAX_LANES};

use super::block::prefetch;
use super::codes::Bits8;
use super::scales::Floats;
use super::stream::{CHUNK, Codes, GROUP, STEPS, Scales, Stream, Zero, chunk_of};

/// A panel whose codes are signed (or not) and come in runs of `RUN`, with `PARTS` scales to a group, minima (or not), and a zero point of
/// `1 << SHIFT` (for unsigned codes without minima).
pub(super) struct Panel<
    const SIGNED: bool,
    const RUN: usize,
    const PARTS: usize,
    const MIN: bool,
    const SHIFT: u32,
>;

impl<const SIGNED: bool, const RUN: usize, const PARTS: usize, const MIN: bool, const SHIFT: u32> Stream
    for Panel<SIGNED, RUN, PARTS, MIN, SHIFT>
{
    type Codes = Bits8<SIGNED, RUN>;
    type Scales = Floats<PARTS, MIN>;
    const ZERO: Zero = match (SIGNED, MIN) {
        (true, _) => Zero::Bias,
        (_, true) => Zero::None,
        _ => Zero::Shift(SHIFT),
    };
    const FROM_MEMORY: bool = false;
}

/// Groups of a panel: whole chunks, so that it starts and ends where chunks do.
pub(super) const PANEL_GROUPS: usize = 3 * CHUNK;
/// Tiles of a panel at most.
pub(super) const PANEL_TILES: usize = 2;
/// Bytes of a panel: a byte a code and at most two floats a group, for each row.
const PANEL_BYTES: usize = PANEL_TILES * PANEL_GROUPS * MAX_LANES * (GROUP + 8);

/// Memory for a panel.
#[repr(align(64))]
pub(super) struct PanelBuffer(MaybeUninit<[u8; PANEL_BYTES]>);

impl PanelBuffer {
    pub(super) const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr().cast()
    }
}

/// Unpacks `groups` groups of a tile, chunk after chunk, from stream `S` to its panel `P`.
pub(super) struct Unpack<S, P> {
    tile: *const u8,
    groups: usize,
    panel: *mut u8,
    streams: PhantomData<(S, P)>,
}

impl<S: Stream, P: Stream> Unpack<S, P> {
    /// # Safety
    /// When it runs, `tile` is `S::bytes(groups)` to read, `panel` is `P::bytes(groups)` to write.
    pub(super) unsafe fn new(tile: *const u8, groups: usize, panel: *mut u8) -> Self {
        Self { tile, groups, panel, streams: PhantomData }
    }
}

impl<S: Stream, P: Stream> Kernel for Unpack<S, P> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for chunk in 0..self.groups.div_ceil(CHUNK) {
            // SAFETY: the chunk is one of the tile's and the panel's, and the loops stay within it.
            unsafe {
                let (header, codes, count) = chunk_of::<S>(I::LANES, self.tile, self.groups, chunk);
                let (out_header, out_codes, _) = chunk_of::<P>(I::LANES, self.panel, self.groups, chunk);
                for g in 0..count {
                    prefetch::<I, S, 1>(isa, [self.tile], chunk * CHUNK + g);
                    let from = codes.add(g * I::LANES * S::Codes::BYTES);
                    let to = out_codes.cast_mut().add(g * I::LANES * GROUP);
                    for step in 0..STEPS {
                        isa.store_bytes_ptr(S::Codes::step(isa, from, step), to.add(step * 4 * I::LANES));
                    }
                    unpack_scales::<I, S, P>(isa, header, out_header.cast_mut().cast(), g);
                }
            }
        }
    }
}

/// # Safety
/// `header` is that of a chunk of `S` with group `g`, `out` that of the panel's chunk.
#[inline(always)]
unsafe fn unpack_scales<I: Isa, S: Stream, P: Stream>(isa: I, header: *const u8, out: *mut f32, g: usize) {
    let per_group = P::Scales::BYTES / (4 * CHUNK);
    for part in 0..S::Scales::PARTS {
        // SAFETY: by the caller's promise.
        unsafe {
            let (scale, min) = S::Scales::at(isa, header, g, part);
            let out = out.add((g * per_group + part) * I::LANES);
            isa.store_ptr(scale, out);
            if S::Scales::MIN {
                isa.store_ptr(min, out.add(I::LANES));
            }
        }
    }
}
