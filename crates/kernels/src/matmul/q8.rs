//! Packed weights times 8-bit activations.
//!
//! One row of activations reads the packed weights directly: such a product is held to memory bandwidth. More rows go
//! over unpacked panels: held to the integer peak. Both give the same bits per row.
//!
//! Error: given the activations' codes and scales, integer sums are exact; what remains is f32 rounding, below
//! `(groups + 3) * 2^-23 * sum(|scale * dot * a_scale| + |min * a_sum|)` of the value in real numbers.
#![allow(clippy::needless_range_loop, reason = "register blocks are indexed alike")]

use std::marker::PhantomData;
use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::block::{Acc, accumulate};
use super::formats::{Format, Visit, with_format};
use super::packed::PackedMatrix;
use super::panel::{PANEL_GROUPS, PANEL_TILES, PanelBuffer, Unpack};
use super::quantize::{QuantRows, Rows};
use super::stream::{CHUNK, GROUP, Scales, Stream};
use crate::SharedMut;

/// Where results go: value (row, column) at `row * stride + column`.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// The buffer.
    pub data: SharedMut<'a, f32>,
    /// Floats from one row to the next.
    pub stride: usize,
}

impl<'a> Output<'a> {
    /// A whole buffer whose rows are `stride` floats apart.
    pub fn new(data: &'a mut [f32], stride: usize) -> Self {
        Self { data: SharedMut::new(data), stride }
    }
}

/// `y[m, n] = sum_k x[m, k] * w[n, k] + bias[n]` for the rows `n` of the weight tiles in `tiles`.
///
/// Panics when the activations have other columns than the weights, or the output or the bias is too small.
///
/// # Safety
/// While this runs, nothing else reads or writes the output's columns that belong to `tiles` (columns
/// `tiles.start * tile_rows..tiles.end * tile_rows`, up to the number of rows of the weights).
pub unsafe fn matmul_q8(
    w: &PackedMatrix,
    tiles: Range<usize>,
    x: QuantRows<'_>,
    bias: Option<&[f32]>,
    y: Output<'_>,
) {
    let plan = w.plan();
    assert_eq!(x.cols(), plan.cols(), "columns of activations and weights");
    assert!(tiles.end <= plan.tiles(), "tiles {tiles:?} of {}", plan.tiles());
    assert!(bias.is_none_or(|bias| bias.len() >= plan.rows()), "bias of {} rows", plan.rows());
    let job = Job { w, x: x.pointers(), rows: x.rows(), tiles, bias, y };
    with_format(plan.dtype(), job);
}

/// One call's arguments, checked.
#[derive(Clone)]
struct Job<'a> {
    w: &'a PackedMatrix,
    x: Rows,
    rows: usize,
    tiles: Range<usize>,
    bias: Option<&'a [f32]>,
    y: Output<'a>,
}

impl Visit for Job<'_> {
    type Out = ();

    fn visit<F: Format>(self) {
        match self.rows {
            0 => {}
            1 => dispatch(self.w.plan().level(), Direct::<F>(self, PhantomData)),
            _ => self.paneled::<F>(),
        }
    }
}

/// One row over packed weights.
struct Direct<'a, F>(Job<'a>, PhantomData<F>);

impl<F: Format> Kernel for Direct<'_, F> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        self.0.direct::<I, F>(isa);
    }
}

impl Job<'_> {
    /// All columns of two tiles at once, straight from the packed bytes: one from each half of the range, so that
    /// memory is read in two long streams.
    #[inline(always)]
    fn direct<I: Isa, F: Stream>(&self, isa: I) {
        let groups = self.w.plan().cols() / GROUP;
        let Range { start, end } = self.tiles;
        let half = (end - start) / 2;
        for tile in start..start + half {
            let at = At { tiles: [tile, tile + half], row: 0, start: true };
            // SAFETY: both tiles are whole, and there is one row.
            unsafe {
                self.block::<I, F, 1, 2>(isa, at.tiles.map(|tile| self.tile(tile)), groups, at, self.x)
            };
        }
        for tile in start + 2 * half..end {
            let at = At { tiles: [tile], row: 0, start: true };
            // SAFETY: the tile is whole, and there is one row.
            unsafe { self.block::<I, F, 1, 1>(isa, [self.tile(tile)], groups, at, self.x) };
        }
    }

    /// Panel after panel, all rows over each.
    fn paneled<F: Format>(&self) {
        let mut buffer = PanelBuffer::new();
        let panel = buffer.as_mut_ptr();
        let (level, groups) = (self.w.plan().level(), self.w.plan().cols() / GROUP);
        for first in self.tiles.clone().step_by(PANEL_TILES) {
            let tiles = first..self.tiles.end.min(first + PANEL_TILES);
            for from in (0..groups).step_by(PANEL_GROUPS) {
                let count = (groups - from).min(PANEL_GROUPS);
                let at = F::bytes(level.lanes(), CHUNK) * (from / CHUNK);
                for tile in tiles.clone() {
                    let to = (tile - first) * F::Panel::bytes(level.lanes(), count);
                    // SAFETY: the range of the tile is whole chunks of it; the buffer holds two tiles of a panel.
                    let unpack =
                        unsafe { Unpack::<F, F::Panel>::new(self.tile(tile).add(at), count, panel.add(to)) };
                    dispatch(level, unpack);
                }
                let tiles = tiles.clone();
                dispatch(
                    level,
                    OverPanel::<F::Panel> { job: self, panel, tiles, count, from, stream: PhantomData },
                );
            }
        }
    }

    fn tile(&self, tile: usize) -> *const u8 {
        self.w.data()[tile * self.w.plan().tile_bytes()..].as_ptr()
    }

    /// `groups` groups of columns of `MR` rows and `NT` tiles.
    ///
    /// # Safety
    /// `w` are tiles of `groups` groups; `x` has `MR` rows with these groups.
    #[inline(always)]
    unsafe fn block<I: Isa, S: Stream, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        w: [*const u8; NT],
        groups: usize,
        at: At<NT>,
        x: Rows,
    ) {
        let mut acc: Acc<I, MR, NT> = [[isa.zero(); NT]; MR];
        for t in 0..NT {
            let columns = self.columns::<I>(at.tiles[t]);
            for r in 0..MR {
                acc[r][t] = match (at.start, self.bias) {
                    (true, None) => isa.zero(),
                    (true, Some(bias)) => isa.load_part(&bias[columns.clone()]),
                    (false, _) => isa.load_part(self.out(at.row + r, columns.clone())),
                };
            }
        }
        // SAFETY: by the caller's promise.
        unsafe { accumulate::<I, S, MR, NT>(isa, w, groups, x, &mut acc) };
        for t in 0..NT {
            let columns = self.columns::<I>(at.tiles[t]);
            for r in 0..MR {
                isa.store_part(acc[r][t], self.out(at.row + r, columns.clone()));
            }
        }
    }

    /// The output columns of a tile.
    #[inline(always)]
    fn columns<I: Isa>(&self, tile: usize) -> Range<usize> {
        tile * I::LANES..((tile + 1) * I::LANES).min(self.w.plan().rows())
    }

    /// The output of one row and a tile's columns.
    #[allow(clippy::mut_from_ref, reason = "the columns of this call's tiles are its own")]
    #[inline(always)]
    fn out(&self, row: usize, columns: Range<usize>) -> &mut [f32] {
        let at = row * self.y.stride;
        // SAFETY: the caller of `matmul_q8` leaves these columns to this call, which uses one slice at a time.
        unsafe { self.y.data.part_mut(at + columns.start..at + columns.end) }
    }
}

/// Where a block's results belong.
#[derive(Clone, Copy)]
struct At<const NT: usize> {
    tiles: [usize; NT],
    /// The first row.
    row: usize,
    /// Whether results start from the bias, or else from what earlier columns left in the output.
    start: bool,
}

/// All rows over one panel: `tiles` (one or two) of `count` groups from group `from` on. Formats share these kernels.
struct OverPanel<'a, P> {
    job: &'a Job<'a>,
    panel: *const u8,
    tiles: Range<usize>,
    count: usize,
    from: usize,
    stream: PhantomData<P>,
}

impl<P: Stream> Kernel for OverPanel<'_, P> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let second = self.panel.wrapping_add(P::bytes(I::LANES, self.count));
        match (I::REGISTERS, self.tiles.len()) {
            (32.., 2) if P::Scales::PARTS == 2 => {
                self.rows::<I, 4, 2>(isa, [self.panel, second], [self.tiles.start, self.tiles.start + 1])
            }
            (32.., 2) => {
                self.rows::<I, 6, 2>(isa, [self.panel, second], [self.tiles.start, self.tiles.start + 1])
            }
            (16.., _) => self.each::<I, 4>(isa, [self.panel, second]),
            _ => self.each::<I, 1>(isa, [self.panel, second]),
        }
    }
}

impl<P: Stream> OverPanel<'_, P> {
    /// Tile by tile.
    #[inline(always)]
    fn each<I: Isa, const MR: usize>(&self, isa: I, panels: [*const u8; PANEL_TILES]) {
        for (tile, panel) in self.tiles.clone().zip(panels) {
            self.rows::<I, MR, 1>(isa, [panel], [tile]);
        }
    }

    /// Blocks of `MR` rows, the last ones smaller.
    #[inline(always)]
    fn rows<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, w: [*const u8; NT], tiles: [usize; NT]) {
        let mut row = 0;
        while row + MR <= self.job.rows {
            self.block::<I, MR, NT>(isa, w, tiles, row);
            row += MR;
        }
        while MR > 2 && row + 2 <= self.job.rows {
            self.block::<I, 2, NT>(isa, w, tiles, row);
            row += 2;
        }
        while row < self.job.rows {
            self.block::<I, 1, NT>(isa, w, tiles, row);
            row += 1;
        }
    }

    /// Rows `row..row + MR`, which exist.
    #[inline(always)]
    fn block<I: Isa, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        w: [*const u8; NT],
        tiles: [usize; NT],
        row: usize,
    ) {
        let at = At { tiles, row, start: self.from == 0 };
        let x = self.job.x.from(row, self.from);
        // SAFETY: the panel's tiles have `count` groups, and the rows exist.
        unsafe { self.job.block::<I, P, MR, NT>(isa, w, self.count, at, x) };
    }
}
