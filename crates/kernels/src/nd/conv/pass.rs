//! One convolution over some pixels: of an image, or of some rows of it that lie in a buffer of their own.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::pack::{Form, round, unit};
use super::{Conv, ConvShape, Panel};
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::pairs::{PAIRS, Round};
use crate::nd::shape::{Spot, cuts};
use crate::nd::tile::{
    Dense, Dynamic, Fixed, Pairs, Pitch, Tile, Tiles, lane_tiles, tallest, tallest_for, tallest_pairs, tiles,
};

/// Floats of weights that stay in the first-level cache while pixels pass over them.
const CHUNK: usize = 32 << 8;

/// Floats of a cache line.
const LINE: usize = 16;

/// Where a pass reads and writes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The first pixel that spots count from.
    pub(super) x: *const f32,
    /// Pixels of a row.
    pub(super) x_width: usize,
    /// Floats from a channel, or a block of them, to the next.
    pub(super) x_plane: usize,
    /// Floats from a pixel to the next.
    pub(super) x_pixel: usize,
    pub(super) out: *mut f32,
    pub(super) out_plane: usize,
    /// Floats of an output pixel's block: as many pairs are bfloat16.
    pub(super) out_pixel: usize,
    /// Floats between the pixels of a spot: one that stands upright, and one that lies.
    pub(super) out_pitch: [usize; 2],
    /// Lies like `out`; null when there is none.
    pub(super) residual: *const f32,
}

impl Place {
    /// The same with inputs rounded to pairs in `copy`, which lie there as they do here: pixels `pixels` of each block, as
    /// spots count them. The copy needs [`copied`] floats.
    ///
    /// # Safety
    /// These pixels can be read, the copy is the caller's, and the level is there.
    pub(super) unsafe fn rounded(self, conv: &Conv, pixels: Range<usize>, copy: *mut f32) -> Self {
        let to_plane = copied_plane(pixels.len());
        let (from, count) = (self.x.wrapping_add(pixels.start * BLOCK), pixels.len());
        let channels = conv.shape.channels;
        let round = Round { from, plane: self.x_plane, pixels: count, channels, to: copy, to_plane };
        dispatch(conv.level, Rounding(round));
        let x = copy.cast_const().wrapping_sub(pixels.start * PAIRS);
        Self { x, x_plane: to_plane, x_pixel: PAIRS, ..self }
    }
}

/// Enters the instruction set; made by [`Place::rounded`] only, which was promised the pointers.
struct Rounding(Round);

impl Kernel for Rounding {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        // SAFETY: by the promise to `Place::rounded`.
        unsafe { self.0.run(isa) };
    }
}

/// Floats between blocks of so many copied pixels: an odd number of cache lines, so that they fall into different sets.
fn copied_plane(pixels: usize) -> usize {
    ((pixels * PAIRS).div_ceil(LINE) * LINE) | LINE
}

/// Floats that a copy of so many pixels of a convolution's input takes.
pub(super) fn copied(shape: &ConvShape, pixels: usize) -> usize {
    copied_plane(pixels).saturating_mul(shape.channels.div_ceil(BLOCK))
}

/// Which pixels a pass computes.
#[derive(Clone, Copy)]
pub(super) enum Pixels<'a> {
    /// For panels of one or two blocks, and for those of three.
    Spots(&'a [Spot], &'a [Spot]),
    /// All outputs of rows that have all taps, and the slack of [`Taps`](super::taps::Taps) behind them; `out_width`
    /// pixels from a row of outputs to the next.
    Rows { rows: usize, out_width: usize },
}

/// Some pixels of some panels.
pub(super) struct Job<'a> {
    pub(super) conv: &'a Conv,
    pub(super) place: Place,
    pub(super) pixels: Pixels<'a>,
    pub(super) panels: Range<usize>,
}

impl Job<'_> {
    /// Vouches for what is read and written, so that the job can be dispatched.
    ///
    /// # Safety
    /// The place holds the inputs of all taps of the pixels, and their outputs, which nothing else uses meanwhile.
    pub(super) unsafe fn vouched(self) -> Self {
        self
    }
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let conv = self.conv;
        if let (Some(taps), Pixels::Rows { rows, out_width }) = (conv.taps, self.pixels) {
            // SAFETY: `vouched` was promised all inputs and outputs of these rows, and the slack.
            return unsafe { taps.rows(isa, &self, rows, out_width) };
        }
        for panel in &conv.panels[self.panels.clone()] {
            let width = conv.width(panel);
            let each = match self.place.out_pixel {
                // Sums that are not complete are floats.
                PAIRS => panel.rounds.len(),
                _ => (CHUNK / (round(&conv.shape, conv.input, conv.form) * width)).max(1),
            };
            for rounds in cuts(panel.rounds.len(), each) {
                let (first, last) = (rounds.start == 0, rounds.end == panel.rounds.len());
                let rounds = panel.rounds.start + rounds.start..panel.rounds.start + rounds.end;
                self.pass(isa, &Cut { panel, rounds, first, last });
            }
        }
    }
}

/// Some rounds of a panel.
struct Cut<'a> {
    panel: &'a Panel,
    rounds: Range<usize>,
    first: bool,
    last: bool,
}

impl Job<'_> {
    /// All pixels over some rounds.
    #[inline(always)]
    fn pass<I: Isa>(&self, isa: I, cut: &Cut<'_>) {
        let lying = match (self.conv.input, self.conv.form, self.conv.shape.window.stride[1]) {
            (_, Form::Pairs, 1) => tiles::<I, Fixed<PAIRS>, Pairs>(cut.panel.blocks.len()),
            (Layout::Blocked, Form::Floats, 1) => self.kernels::<I, Fixed<16>>(cut.panel),
            (Layout::Blocked, Form::Floats, 2) => self.kernels::<I, Fixed<32>>(cut.panel),
            _ => self.kernels::<I, Dynamic>(cut.panel),
        };
        match self.pixels {
            Pixels::Spots(spots, low) => {
                let spots = if cut.panel.blocks.len() > 2 { low } else { spots };
                self.spots(isa, cut, spots, &lying);
            }
            Pixels::Rows { rows, out_width } => self.rows(isa, cut, [rows, out_width], &lying),
        }
    }

    /// Tiles of their own taps.
    #[inline(always)]
    fn spots<I: Isa>(&self, isa: I, cut: &Cut<'_>, spots: &[Spot], lying: &Tiles<I>) {
        let free = self.kernels::<I, Dynamic>(cut.panel);
        let ahead = self.ahead(cut);
        let rows = cut.rounds.len() * self.conv.shape.window.kernel[0];
        let lines = (ahead.len() / LINE).div_ceil(spots.len().max(1) * rows);
        // Each spot asks for another piece, until all of it was asked for.
        let mut pieces = ahead.chunks(rows * lines.max(1) * LINE).map(<[f32]>::as_ptr);
        let first = self.first(cut);
        let mut tile = Tile { lines, ..first };
        for spot in spots {
            tile.ahead = pieces.next().unwrap_or(std::ptr::null());
            self.aim(&mut tile, &first, spot);
            let kernel = if spot.upright { &free } else { lying };
            // SAFETY: `vouched` was promised all inputs and outputs of these pixels.
            unsafe { kernel.get(spot.pixels)(isa, &tile) };
        }
    }

    /// Tiles of whole rows with all taps.
    #[inline(always)]
    fn rows<I: Isa>(&self, isa: I, cut: &Cut<'_>, [rows, out_width]: [usize; 2], lying: &Tiles<I>) {
        let (window, place) = (&self.conv.shape.window, &self.place);
        let (down, along) =
            (window.stride[0] * place.x_width * place.x_pixel, window.stride[1] * place.x_pixel);
        let first = self.first(cut);
        let mut tile = first;
        for row in 0..rows {
            for pixels in cuts(self.conv.output[1], self.tallest::<I>(cut.panel)) {
                let out = (row * out_width + pixels.start) * place.out_pixel;
                tile.a = first.a.wrapping_add(row * down + pixels.start * along);
                tile.out = first.out.wrapping_add(out);
                if !first.residual.is_null() {
                    tile.residual = first.residual.wrapping_add(out);
                }
                // SAFETY: `vouched` was promised all inputs and outputs of these pixels.
                unsafe { lying.get(pixels.len())(isa, &tile) };
            }
        }
    }

    /// The weights behind those of a cut, as many: those that are read next.
    fn ahead(&self, cut: &Cut<'_>) -> &[f32] {
        let panel = cut.panel;
        let each = round(&self.conv.shape, self.conv.input, self.conv.form) * self.conv.width(panel);
        let end = panel.at + (cut.rounds.end - panel.rounds.start) * each;
        let weights = &self.conv.weights;
        &weights[end.min(weights.len())..weights.len().min(end + cut.rounds.len() * each)]
    }

    #[inline(always)]
    fn tallest<I: Isa>(&self, panel: &Panel) -> usize {
        match self.conv.lanes {
            Some(2) => tallest_pairs(I::LANES, I::REGISTERS),
            Some(_) => tallest(I::LANES, I::REGISTERS),
            None => tallest_for(panel.blocks.len(), I::LANES, I::REGISTERS),
        }
    }

    #[inline(always)]
    fn kernels<I: Isa, P: Pitch>(&self, panel: &Panel) -> Tiles<I> {
        match self.conv.lanes {
            Some(each) => lane_tiles::<I, P>(each),
            None if self.conv.form == Form::Pairs => tiles::<I, Dynamic, Pairs>(panel.blocks.len()),
            None => tiles::<I, P, Dense>(panel.blocks.len()),
        }
    }

    /// The tile at the first pixel, lying, with all taps.
    fn first(&self, cut: &Cut<'_>) -> Tile {
        let (conv, place) = (self.conv, &self.place);
        let ConvShape { channels, outputs, window, act, .. } = conv.shape;
        let (width, [ky, kx], [dy, dx]) = (place.x_width, window.kernel, window.dilation);
        let (panel, lanes, pixel) = (cut.panel, conv.width(cut.panel), place.x_pixel);
        // What a tap sums of a pixel.
        let deep = unit(&conv.shape, conv.input, conv.form);
        let each = if conv.form == Form::Pairs { 2 } else { 1 };
        let w = (cut.rounds.start - panel.rounds.start) * ky * kx;
        let (first, out) = (panel.blocks.start * BLOCK, panel.blocks.start * place.out_plane);
        // Taps of a row of a planar image lie side by side, so that they can be the innermost loop.
        let (across, k, k_last) = match (conv.input, dx) {
            (Layout::Planar, 1) => (1, kx, kx),
            (Layout::Planar, _) => (kx, 1, 1),
            _ => (kx, deep, deep.min((channels - (cut.rounds.end - 1) * BLOCK).div_ceil(each))),
        };
        Tile {
            a: place.x.wrapping_add(cut.rounds.start * place.x_plane),
            pitch: window.stride[1] * pixel,
            taps: [cut.rounds.len(), ky, across],
            a_step: [place.x_plane, dy * width * pixel, dx * pixel],
            w: conv.weights.as_ptr().wrapping_add(panel.at + w * deep * lanes),
            w_step: [ky * kx * deep * lanes, kx * deep * lanes, deep * lanes],
            ahead: std::ptr::null(),
            lines: 0,
            k,
            k_last,
            start: if cut.first { conv.bias[first..].as_ptr() } else { std::ptr::null() },
            out: place.out.wrapping_add(out),
            out_pitch: place.out_pitch[1],
            out_block: place.out_plane,
            valid: (outputs - first).next_multiple_of(BLOCK).min(panel.blocks.len() * BLOCK),
            last: cut.last,
            residual: if place.residual.is_null() {
                place.residual
            } else {
                place.residual.wrapping_add(out)
            },
            act,
            halves: place.out_pixel == PAIRS,
        }
    }

    /// Makes `tile`, which began as `first`, that of a spot.
    #[inline(always)]
    fn aim(&self, tile: &mut Tile, first: &Tile, spot: &Spot) {
        let (stride, pixel) = (self.conv.shape.window.stride, self.place.x_pixel);
        let (across, out) = (spot.taps[1].len(), spot.output * self.place.out_pixel);
        tile.a = first.a.wrapping_add(spot.input * pixel);
        tile.pitch = if spot.upright { stride[0] * self.place.x_width } else { stride[1] } * pixel;
        tile.taps[1] = spot.taps[0].len();
        if self.conv.input == Layout::Planar && self.conv.shape.window.dilation[1] == 1 {
            (tile.k, tile.k_last) = (across, across);
        } else {
            tile.taps[2] = across;
        }
        let (down, along) = (spot.taps[0].start * first.w_step[1], spot.taps[1].start * first.w_step[2]);
        tile.w = first.w.wrapping_add(down + along);
        tile.out = first.out.wrapping_add(out);
        tile.out_pitch = self.place.out_pitch[usize::from(!spot.upright)];
        if !first.residual.is_null() {
            tile.residual = first.residual.wrapping_add(out);
        }
    }
}
