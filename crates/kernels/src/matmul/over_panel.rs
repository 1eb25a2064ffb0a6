//! Many rows over one panel: a block of rows keeps its sums in registers over all groups of the panel, then their wide
//! values are added, one by one.
#![allow(clippy::needless_range_loop, reason = "register blocks are indexed alike")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use kinglet_simd::{Isa, Kernel, MAX_LANES};

use super::block::{Acc, Tiles, accumulate, add_wide};
use super::panel::PANEL_TILES;
use super::q8::Job;
use super::stream::Stream;
use super::wide::{WideList, block_rows, next_block};

/// What a panel is multiplied with, and where results belong.
pub(super) struct Place {
    /// One or two tiles.
    pub(super) tiles: Range<usize>,
    /// At most [`WideList::ROWS`] rows.
    pub(super) rows: Range<usize>,
    /// The panel's first group.
    pub(super) from: usize,
}

/// Packed weights that the next panel is made of, a range of bytes in each tile.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// Where they start. They need not be there.
    pub(super) tiles: [*const u8; PANEL_TILES],
    /// How many there are in each tile.
    pub(super) bytes: usize,
}

impl Ahead {
    /// Asks for part `part` of `parts` of them.
    #[inline(always)]
    fn prefetch<I: Isa>(self, isa: I, part: usize, parts: usize) {
        let lines = self.bytes.div_ceil(64);
        for line in lines * part / parts..lines * (part + 1) / parts {
            for t in 0..PANEL_TILES {
                isa.prefetch_far(self.tiles[t].wrapping_add(64 * line));
            }
        }
    }
}

/// Some rows over one panel. Formats share these kernels.
pub(super) struct OverPanel<'a, P> {
    pub(super) job: &'a Job<'a>,
    pub(super) at: Place,
    /// The tiles' groups, one tile behind the other.
    pub(super) panel: *const u8,
    /// Groups of the panel.
    pub(super) groups: usize,
    pub(super) ahead: Ahead,
    /// The wide values in these rows and groups.
    pub(super) wide: &'a WideList,
    pub(super) stream: PhantomData<P>,
}

impl<P: Stream> Kernel for OverPanel<'_, P> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let second = self.panel.wrapping_add(P::bytes(I::LANES, self.groups));
        let (panels, tile) = ([self.panel, second], self.at.tiles.start);
        match block_rows::<I, P>() {
            6 => self.blocks::<I, 6>(isa, panels, tile),
            4 => self.blocks::<I, 4>(isa, panels, tile),
            _ => self.blocks::<I, 1>(isa, panels, tile),
        }
    }
}

impl<P: Stream> OverPanel<'_, P> {
    /// All rows over both tiles at once where there are registers for them, else tile by tile.
    #[inline(always)]
    fn blocks<I: Isa, const MR: usize>(&self, isa: I, panels: [*const u8; PANEL_TILES], tile: usize) {
        if I::REGISTERS >= 32 && self.at.tiles.len() == PANEL_TILES {
            return self.rows::<I, MR, PANEL_TILES>(isa, panels, [tile, tile + 1]);
        }
        for (tile, panel) in self.at.tiles.clone().zip(panels) {
            self.rows::<I, MR, 1>(isa, [panel], [tile]);
        }
    }

    /// All rows, in blocks of `MR`, the last ones smaller.
    #[inline(always)]
    fn rows<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, w: [*const u8; NT], to: [usize; NT]) {
        // SAFETY: the panel's tiles have as many groups.
        let tiles = unsafe { Tiles::<P, NT>::new(w, self.groups) };
        let (mut row, rows) = (0, self.at.rows.len());
        while row < rows {
            let block = next_block(rows - row, MR);
            match block {
                _ if block == MR => self.block::<I, MR, NT>(isa, tiles, to, row),
                2 => self.block::<I, 2, NT>(isa, tiles, to, row),
                _ => self.block::<I, 1, NT>(isa, tiles, to, row),
            }
            row += block;
        }
    }

    /// Rows `row..row + MR`, counted from the first.
    #[inline(always)]
    fn block<I: Isa, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        tiles: Tiles<P, NT>,
        to: [usize; NT],
        row: usize,
    ) {
        let first = self.at.rows.start + row;
        self.prefetch::<I, MR, NT>(isa, row, to);
        let x = self.job.x.from(first, self.at.from);
        let mut acc = self.job.load::<I, MR, NT>(isa, self.at.from == 0, first, to);
        let mut sums = Sums::new();
        // SAFETY: tiles and rows have the groups, the list was made for these blocks, and sums are stored for all rows before
        // they are loaded.
        unsafe {
            accumulate(isa, tiles, 0..self.groups, x, &mut acc);
            sums.store(isa, 0, acc);
            for wide in self.wide.of(row, MR) {
                let r = wide.row() - row;
                let mut acc: Acc<I, 1, NT> = sums.load(isa, r);
                add_wide(isa, tiles, wide, &mut acc);
                sums.store(isa, r, acc);
            }
            self.job.store::<I, MR, NT>(isa, sums.load(isa, 0), first, to);
        }
    }

    /// Asks for what is needed soon: where the block's sums go, and its share of the next panel.
    #[inline(always)]
    fn prefetch<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, row: usize, to: [usize; NT]) {
        for r in 0..MR {
            self.job.prefetch(isa, self.at.rows.start + row + r, to);
        }
        self.ahead.prefetch(isa, row / MR, self.at.rows.len().div_ceil(MR));
    }
}

/// Floats that the sums of a block take: rows, tiles, lanes.
const SUMS: usize = 6 * PANEL_TILES * MAX_LANES;

/// Sums `[rows][tiles][lanes]` of a block in memory, where any row can be reached.
#[repr(align(64))]
struct Sums(MaybeUninit<[f32; SUMS]>);

impl Sums {
    #[inline(always)]
    fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// # Safety
    /// The rows from `row` on were stored.
    #[inline(always)]
    unsafe fn load<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, row: usize) -> Acc<I, MR, NT> {
        let mut acc: Acc<I, MR, NT> = [[isa.zero(); NT]; MR];
        for r in 0..MR {
            for t in 0..NT {
                // SAFETY: by the caller's promise.
                acc[r][t] = unsafe {
                    isa.load_ptr(self.0.as_ptr().cast::<f32>().add(((row + r) * NT + t) * I::LANES))
                };
            }
        }
        acc
    }

    /// # Safety
    /// There is room for the rows from `row` on.
    #[inline(always)]
    unsafe fn store<I: Isa, const MR: usize, const NT: usize>(
        &mut self,
        isa: I,
        row: usize,
        acc: Acc<I, MR, NT>,
    ) {
        for r in 0..MR {
            for t in 0..NT {
                // SAFETY: by the caller's promise.
                unsafe {
                    isa.store_ptr(
                        acc[r][t],
                        self.0.as_mut_ptr().cast::<f32>().add(((row + r) * NT + t) * I::LANES),
                    );
                }
            }
        }
    }
}
