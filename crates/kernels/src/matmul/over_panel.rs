//! Many rows over one panel: blocks of rows keep their sums in registers over all groups of the panel, then the fine parts
//! of the same rows are added, group after group, each to a block of those rows that have one.
#![allow(clippy::needless_range_loop, reason = "register blocks are indexed alike")]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use kinglet_simd::{Isa, Kernel};

use super::block::{Acc, Tiles, accumulate, add_group, in_turn};
use super::fine::FineRows;
use super::panel::{MAX_LANES, PANEL_TILES};
use super::q8::Job;
use super::quantize::Rows;
use super::stream::{Scales, Stream};

/// What a panel is multiplied with, and where results belong.
pub(super) struct Place {
    /// One or two tiles.
    pub(super) tiles: Range<usize>,
    /// At most [`FineRows::MOST`] rows.
    pub(super) rows: Range<usize>,
    /// The panel's first group.
    pub(super) from: usize,
}

/// Some rows over one panel. Formats share these kernels.
pub(super) struct OverPanel<'a, P> {
    job: &'a Job<'a>,
    at: Place,
    panel: *const u8,
    /// Groups of the panel.
    groups: usize,
    fine: &'a FineRows,
    sums: Sums,
    stream: PhantomData<P>,
}

impl<'a, P: Stream> OverPanel<'a, P> {
    /// `panel` holds the tiles' groups, as many as it says; `fine` are the rows with fine parts in them.
    pub(super) fn new(
        job: &'a Job<'a>,
        at: Place,
        (panel, groups): (*const u8, usize),
        fine: &'a FineRows,
        sums: &'a mut SumsBuffer,
    ) -> Self {
        Self { job, at, panel, groups, fine, sums: Sums(sums.as_mut_ptr()), stream: PhantomData }
    }
}

impl<P: Stream> Kernel for OverPanel<'_, P> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let second = self.panel.wrapping_add(P::bytes(I::LANES, self.groups));
        let (panels, tile) = ([self.panel, second], self.at.tiles.start);
        match (I::REGISTERS, self.at.tiles.len()) {
            (32.., 2) if P::Scales::PARTS == 2 => self.rows::<I, 4, 2>(isa, panels, [tile, tile + 1]),
            (32.., 2) => self.rows::<I, 6, 2>(isa, panels, [tile, tile + 1]),
            (16.., _) => self.each::<I, 4>(isa, panels),
            _ => self.each::<I, 1>(isa, panels),
        }
    }
}

impl<P: Stream> OverPanel<'_, P> {
    /// Tile by tile.
    #[inline(always)]
    fn each<I: Isa, const MR: usize>(&self, isa: I, panels: [*const u8; PANEL_TILES]) {
        for (tile, panel) in self.at.tiles.clone().zip(panels) {
            self.rows::<I, MR, 1>(isa, [panel], [tile]);
        }
    }

    #[inline(always)]
    fn rows<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, w: [*const u8; NT], to: [usize; NT]) {
        // SAFETY: the panel's tiles have as many groups.
        let tiles = unsafe { Tiles::<P, NT>::new(w, self.groups) };
        self.coarse::<I, MR, NT>(isa, tiles, to);
        self.fine::<I, MR, NT>(isa, tiles);
        for (at, row) in self.at.rows.clone().enumerate() {
            // SAFETY: the sums of the row are there.
            self.job.store(isa, unsafe { self.sums.load::<I, 1, NT>(isa, [at]) }, row, to);
        }
    }

    /// The coarse parts, in blocks of `MR` rows, the last ones smaller.
    #[inline(always)]
    fn coarse<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, tiles: Tiles<P, NT>, to: [usize; NT]) {
        let (mut row, rows) = (0, self.at.rows.len());
        while row + MR <= rows {
            self.coarse_block::<I, MR, NT>(isa, tiles, to, row);
            row += MR;
        }
        while MR > 2 && row + 2 <= rows {
            self.coarse_block::<I, 2, NT>(isa, tiles, to, row);
            row += 2;
        }
        while row < rows {
            self.coarse_block::<I, 1, NT>(isa, tiles, to, row);
            row += 1;
        }
    }

    /// Rows `row..row + MR`, counted from the first.
    #[inline(always)]
    fn coarse_block<I: Isa, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        tiles: Tiles<P, NT>,
        to: [usize; NT],
        row: usize,
    ) {
        let (first, from) = (self.at.rows.start + row, self.at.from);
        let mut acc = self.job.load::<I, MR, NT>(isa, from == 0, first, to);
        // SAFETY: tiles and rows have the groups, and the rows have sums.
        unsafe {
            accumulate(isa, tiles, 0..self.groups, self.job.x.from(first, from), &mut acc);
            self.sums.store(isa, in_turn(row), acc);
        }
    }

    /// The fine parts: group after group, in blocks of `MR` rows.
    #[inline(always)]
    fn fine<I: Isa, const MR: usize, const NT: usize>(&self, isa: I, tiles: Tiles<P, NT>) {
        for group in 0..self.groups {
            let (blocks, rest) = self.fine.of(group).as_chunks::<MR>();
            for rows in blocks {
                self.fine_block::<I, MR, NT>(isa, tiles, group, rows);
            }
            let (pairs, rest) = rest.as_chunks::<2>();
            for rows in pairs {
                self.fine_block::<I, 2, NT>(isa, tiles, group, rows);
            }
            for row in rest.as_chunks::<1>().0 {
                self.fine_block::<I, 1, NT>(isa, tiles, group, row);
            }
        }
    }

    /// Adds the fine parts of some rows, which have one, in a group of the panel.
    #[inline(always)]
    fn fine_block<I: Isa, const MR: usize, const NT: usize>(
        &self,
        isa: I,
        tiles: Tiles<P, NT>,
        group: usize,
        picked: &[u8; MR],
    ) {
        let mut rows = [0; MR];
        for r in 0..MR {
            rows[r] = usize::from(picked[r]);
        }
        let x: Rows = self.job.x.from(self.at.rows.start, self.at.from).fine();
        // SAFETY: tiles and rows have the group, and the rows' sums were stored.
        unsafe {
            let mut acc = self.sums.load(isa, rows);
            add_group::<I, P, MR, NT>(isa, tiles.group::<I>(group), (x, rows), group, &mut acc);
            self.sums.store(isa, rows, acc);
        }
    }
}

/// Memory for the sums of some rows and a panel's tiles.
#[repr(align(64))]
pub(super) struct SumsBuffer(MaybeUninit<[f32; FineRows::MOST * PANEL_TILES * MAX_LANES]>);

impl SumsBuffer {
    pub(super) const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

/// Sums `[rows][tiles][lanes]` of up to [`FineRows::MOST`] rows in a [`SumsBuffer`].
#[derive(Clone, Copy)]
struct Sums(*mut f32);

impl Sums {
    /// # Safety
    /// The rows were stored.
    #[inline(always)]
    unsafe fn load<I: Isa, const MR: usize, const NT: usize>(
        self,
        isa: I,
        rows: [usize; MR],
    ) -> Acc<I, MR, NT> {
        let mut acc: Acc<I, MR, NT> = [[isa.zero(); NT]; MR];
        for r in 0..MR {
            for t in 0..NT {
                // SAFETY: by the caller's promise.
                acc[r][t] = unsafe { isa.load_ptr(self.0.add((rows[r] * NT + t) * I::LANES)) };
            }
        }
        acc
    }

    /// # Safety
    /// The rows are below [`FineRows::MOST`], and nothing else uses the buffer.
    #[inline(always)]
    unsafe fn store<I: Isa, const MR: usize, const NT: usize>(
        self,
        isa: I,
        rows: [usize; MR],
        acc: Acc<I, MR, NT>,
    ) {
        for r in 0..MR {
            for t in 0..NT {
                // SAFETY: by the caller's promise.
                unsafe { isa.store_ptr(acc[r][t], self.0.add((rows[r] * NT + t) * I::LANES)) };
            }
        }
    }
}
