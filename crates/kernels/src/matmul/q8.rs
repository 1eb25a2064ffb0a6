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

use super::block::{Acc, Tiles, accumulate, accumulate_wide};
use super::formats::{Format, Visit, with_format};
use super::over_panel::{Ahead, OverPanel, Place};
use super::packed::PackedMatrix;
use super::panel::{PANEL_GROUPS, PANEL_TILES, PanelBuffer, Unpack};
use super::rows::{QuantRows, Rows};
use super::stream::{CHUNK, GROUP, Stream};
use super::wide::{Find, WideList};
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

/// Which part of a product to make.
#[derive(Clone, Debug)]
pub struct Part {
    /// Rows of the activations and of the output. Those of a whole number of [`rows_at_a_time`] cost least.
    pub rows: Range<usize>,
    /// Tiles of the weights: columns of the output.
    pub tiles: Range<usize>,
}

/// How many of `rows` rows go over a panel of weights at a time. Workers that share a product take so many, and all tiles
/// in turn, so that their rows stay in a cache.
pub fn rows_at_a_time(rows: usize) -> usize {
    WideList::turn(rows)
}

/// `y[m, n] = sum_k x[m, k] * w[n, k] + bias[n]` for the rows `m` and the weight tiles of rows `n` in `part`.
///
/// Panics when the activations have other columns than the weights, the part is not one of both, or the output or the bias
/// is too small.
///
/// # Safety
/// While this runs, nothing else reads or writes the part's rows and columns of the output (columns
/// `tiles.start * tile_rows..tiles.end * tile_rows`, up to the number of rows of the weights).
pub unsafe fn matmul_q8(
    w: &PackedMatrix,
    Part { rows, tiles }: Part,
    x: QuantRows<'_>,
    bias: Option<&[f32]>,
    y: Output<'_>,
) {
    let plan = w.plan();
    assert_eq!(x.cols(), plan.cols(), "columns of activations and weights");
    assert!(tiles.end <= plan.tiles(), "tiles {tiles:?} of {}", plan.tiles());
    assert!(rows.end <= x.rows(), "rows {rows:?} of {}", x.rows());
    assert!(bias.is_none_or(|bias| bias.len() >= plan.rows()), "bias of {} rows", plan.rows());
    let outputs = if x.rows() == 0 { 0 } else { (x.rows() - 1) * y.stride + plan.rows() };
    assert!(plan.rows() <= y.stride || x.rows() < 2, "rows of {} values {} apart", plan.rows(), y.stride);
    assert!(outputs <= y.data.len(), "{} values for {} rows {} apart", y.data.len(), x.rows(), y.stride);
    let job = Job { w, x: x.pointers().from(rows.start, 0), rows, tiles, bias, y };
    with_format(plan.dtype(), job);
}

/// One call's arguments, checked.
#[derive(Clone)]
pub(super) struct Job<'a> {
    w: &'a PackedMatrix,
    /// From the first of the rows on.
    pub(super) x: Rows,
    rows: Range<usize>,
    tiles: Range<usize>,
    bias: Option<&'a [f32]>,
    y: Output<'a>,
}

impl Visit for Job<'_> {
    type Out = ();

    fn visit<F: Format>(self) {
        match self.rows.len() {
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
            self.direct_block::<I, F, 2>(isa, [tile, tile + half], groups);
        }
        for tile in start + 2 * half..end {
            self.direct_block::<I, F, 1>(isa, [tile], groups);
        }
    }

    /// All columns of whole tiles, as many at a time as a panel has.
    #[inline(always)]
    fn direct_block<I: Isa, S: Stream, const NT: usize>(&self, isa: I, to: [usize; NT], groups: usize) {
        // SAFETY: a tile has as many groups as the matrix.
        let tiles = unsafe { Tiles::<S, NT>::new(to.map(|tile| self.tile(tile)), groups) };
        let mut acc = self.load::<I, 1, NT>(isa, true, 0, to);
        for from in (0..groups).step_by(PANEL_GROUPS) {
            let range = from..groups.min(from + PANEL_GROUPS);
            // SAFETY: there is one row, and it has the groups.
            unsafe {
                accumulate(isa, tiles, range.clone(), self.x, &mut acc);
                accumulate_wide(isa, tiles, range, self.x, &mut acc);
            }
        }
        self.store(isa, acc, 0, to);
    }

    /// Some rows at a time, panel after panel, over each pair of tiles.
    fn paneled<F: Format>(&self) {
        let (mut buffer, mut wide) = (PanelBuffer::new(), WideList::new());
        let groups = self.w.plan().cols() / GROUP;
        let (count, turn) = (self.rows.len(), WideList::turn(self.rows.len()));
        for first in (0..count).step_by(turn) {
            for from in (0..groups).step_by(PANEL_GROUPS) {
                let range = from..groups.min(from + PANEL_GROUPS);
                let mut rows = first..count.min(first + turn);
                while !rows.is_empty() {
                    let x = self.x.from(rows.start, from);
                    // SAFETY: the rows have these groups, and both are few enough.
                    let find = unsafe { Find::<F::Panel>::new(&mut wide, x, rows.len(), range.len()) };
                    let taken = dispatch(self.w.plan().level(), find);
                    let own = rows.start..rows.start + taken;
                    self.over_panels::<F>(own, range.clone(), &wide, &mut buffer);
                    rows.start += taken;
                }
            }
        }
    }

    /// Some rows, whose wide values are listed, over the groups `range` of each pair of tiles.
    fn over_panels<F: Format>(
        &self,
        rows: Range<usize>,
        range: Range<usize>,
        wide: &WideList,
        buffer: &mut PanelBuffer,
    ) {
        for tile in self.tiles.clone().step_by(PANEL_TILES) {
            let tiles = tile..self.tiles.end.min(tile + PANEL_TILES);
            let panel = self.unpack::<F>(tiles.clone(), range.clone(), buffer);
            let over = OverPanel::<F::Panel> {
                job: self,
                ahead: self.ahead::<F>(tiles.end, range.clone()),
                at: Place { tiles, rows: rows.clone(), from: range.start },
                panel,
                groups: range.len(),
                wide,
                stream: PhantomData,
            };
            dispatch(self.w.plan().level(), over);
        }
    }

    /// Unpacks the groups `groups` of some tiles, one tile behind the other.
    fn unpack<F: Format>(
        &self,
        tiles: Range<usize>,
        groups: Range<usize>,
        buffer: &mut PanelBuffer,
    ) -> *const u8 {
        let (level, panel) = (self.w.plan().level(), buffer.as_mut_ptr());
        let at = F::bytes(level.lanes(), CHUNK) * (groups.start / CHUNK);
        for (i, tile) in tiles.enumerate() {
            let to = i * F::Panel::bytes(level.lanes(), groups.len());
            // SAFETY: the range of the tile is whole chunks of it; the buffer holds two tiles of a panel.
            let unpack =
                unsafe { Unpack::<F, F::Panel>::new(self.tile(tile).add(at), groups.len(), panel.add(to)) };
            dispatch(level, unpack);
        }
        panel
    }

    /// The groups `groups` of the tiles from `tile` on, if there are any.
    fn ahead<F: Format>(&self, tile: usize, groups: Range<usize>) -> Ahead {
        let (plan, data) = (self.w.plan(), self.w.data().as_ptr());
        let lanes = plan.level().lanes();
        let first = tile * plan.tile_bytes() + F::bytes(lanes, CHUNK) * (groups.start / CHUNK);
        let tiles = [data.wrapping_add(first), data.wrapping_add(first + plan.tile_bytes())];
        Ahead { tiles, bytes: F::bytes(lanes, groups.len()) }
    }

    fn tile(&self, tile: usize) -> *const u8 {
        self.w.data()[tile * self.w.plan().tile_bytes()..].as_ptr()
    }

    /// What the sums of rows `row..row + MR`, which exist, start from: the bias, or what earlier columns left in the output.
    #[inline(always)]
    pub(super) fn load<I: Isa, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        start: bool,
        row: usize,
        tiles: [usize; NT],
    ) -> Acc<I, MR, NT> {
        let mut acc: Acc<I, MR, NT> = [[isa.zero(); NT]; MR];
        for t in 0..NT {
            let (column, count) = self.columns::<I>(tiles[t]);
            for r in 0..MR {
                acc[r][t] = match (start, self.bias) {
                    (true, None) => isa.zero(),
                    (true, Some(bias)) => isa.load_part(&bias[column..column + count]),
                    // SAFETY: the output has these columns of the row, which are this call's own.
                    (false, _) => unsafe {
                        let out = self.out(row + r, column);
                        if count == I::LANES { isa.load_ptr(out) } else { isa.load_part_ptr(out, count) }
                    },
                };
            }
        }
        acc
    }

    /// Asks for where the sums of a row, which exists, go.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa, const NT: usize>(&self, isa: I, row: usize, tiles: [usize; NT]) {
        for t in 0..NT {
            isa.prefetch_far(self.out(row, tiles[t] * I::LANES));
        }
    }

    /// Writes the sums of rows `row..row + MR`, which exist.
    #[inline(always)]
    pub(super) fn store<I: Isa, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        acc: Acc<I, MR, NT>,
        row: usize,
        tiles: [usize; NT],
    ) {
        for t in 0..NT {
            let (column, count) = self.columns::<I>(tiles[t]);
            for r in 0..MR {
                let out = self.out(row + r, column);
                // SAFETY: the output has these columns of the row, which are this call's own.
                unsafe {
                    if count == I::LANES {
                        isa.store_ptr(acc[r][t], out);
                    } else {
                        isa.store_part_ptr(acc[r][t], out, count);
                    }
                }
            }
        }
    }

    /// The first output column of a tile, and how many it has.
    #[inline(always)]
    fn columns<I: Isa>(&self, tile: usize) -> (usize, usize) {
        let column = tile * I::LANES;
        (column, (self.w.plan().rows() - column).min(I::LANES))
    }

    /// Where a value of the output lies; [`matmul_q8`] has checked that it exists.
    #[inline(always)]
    fn out(&self, row: usize, column: usize) -> *mut f32 {
        self.y.data.as_mut_ptr().wrapping_add((self.rows.start + row) * self.y.stride + column)
    }
}
