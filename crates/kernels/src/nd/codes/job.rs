//! What a worker does of a product of codes: some lines of some panels of an image.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel};

use super::conv::{CodeConv, CodeShape, Scales};
use super::copy::{Band, Image};
use super::lanes::{LONGEST, Lanes};
use super::pack::{Panel, sums_bytes};
use super::tile::{Given, LINE, Tile, tallest, tiles};
use crate::SharedMut;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::shape::Window;

/// Some lines of some panels of an image.
pub(super) struct Job<'a> {
    pub(super) conv: &'a CodeConv,
    pub(super) image: usize,
    pub(super) lines: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) x: SharedMut<'a, u8>,
    /// Scales and zeros in turn, where steps find them out.
    pub(super) given: Option<SharedMut<'a, f32>>,
    /// Codes or floats, as bytes.
    pub(super) residual: Option<SharedMut<'a, u8>>,
    pub(super) out: SharedMut<'a, u8>,
    pub(super) scratch: SharedMut<'a, u8>,
}

/// Where inputs lie, and how.
#[derive(Clone, Copy)]
struct Source {
    /// The first pixel of the first line's first tap, in the first block.
    at: *const u8,
    /// Bytes from a row, and from a block, to the next.
    row: usize,
    plane: usize,
    /// The block that `at` is of.
    block: usize,
    /// The output pixel that `at` belongs to.
    first: usize,
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let conv = self.conv;
        let panels = &conv.panels[self.panels.clone()];
        let blocks = |panels: &[Panel]| {
            let starts = panels.iter().map(|panel| panel.inputs.start).min().unwrap_or(0);
            starts..panels.iter().map(|panel| panel.inputs.end).max().unwrap_or(0)
        };
        let zero = self.zero();
        let shared = (!conv.shape.alone()).then(|| self.source(blocks(panels), Some(zero)));
        for (i, panel) in panels.iter().enumerate() {
            // What lies around the image is there from the first panel on.
            let around = (i == 0).then_some(zero);
            let source = shared.unwrap_or_else(|| self.source(panel.inputs.clone(), around));
            self.panel(isa, panel, source);
        }
    }
}

impl Job<'_> {
    /// The inputs of the lines, copied where that is needed; with `zero` around the image, unless that is there.
    fn source(&self, blocks: Range<usize>, zero: Option<u8>) -> Source {
        let (conv, lines) = (self.conv, &self.conv.lines[self.lines.clone()]);
        let Window { input, stride, .. } = conv.shape.window;
        let (elements, _) = conv.elements();
        let first = lines[0].start;
        let flat = conv.shape.window.pointwise();
        let [y, x] = if flat { [0, first] } else { [self.lines.start, 0] };
        if conv.copied.is_none() {
            let plane = input[0] * input[1] * BLOCK;
            let pixel = y * stride[0] * input[1] + x;
            let at = self.image * elements + blocks.start * plane + pixel * BLOCK;
            let at = self.x.as_ptr().wrapping_add(at);
            return Source { at, row: input[1] * BLOCK, plane, block: blocks.start, first };
        }
        let (size, band) = if flat {
            let count = lines.iter().map(Range::len).sum();
            let pixels = input[0] * input[1];
            ([1, pixels], Band { from: [0, first as isize], size: [1, count] })
        } else {
            (input, Band::of(&conv.shape, self.lines.clone(), conv.output[1]))
        };
        let (from, to) = (self.image * elements, blocks.len() * band.pixels() * BLOCK);
        // SAFETY: nobody writes the input meanwhile, and the scratch is this worker's.
        let (codes, scratch) = unsafe { (self.x.part(from..from + elements), self.scratch.part_mut(0..to)) };
        let image = Image { codes, channels: conv.shape.channels, size, layout: conv.layouts[0] };
        image.copy(band, blocks.clone(), zero, scratch);
        let (row, plane) = (band.size[1] * BLOCK, band.pixels() * BLOCK);
        Source { at: self.scratch.as_ptr(), row, plane, block: blocks.start, first }
    }

    /// The code of zero, which stands around the image.
    fn zero(&self) -> u8 {
        let given = self.given();
        // SAFETY: they are given.
        if given.is_given() { unsafe { given.pixel(0)[1] as u8 } } else { self.conv.zero }
    }

    /// Scale and zero of the image's first pixel.
    fn given(&self) -> Given {
        let (Some(pairs), Some(scales)) = (self.given, self.conv.scales) else { return Given::NOTHING };
        let pixels = self.conv.output[0] * self.conv.output[1];
        let (first, step) = match scales {
            Scales::One => (0, 0),
            Scales::Images => (self.image, 0),
            Scales::Pixels => (self.image * pixels, 1),
        };
        let at = pairs.as_ptr().wrapping_add(2 * first).cast();
        Given { at, step, weights: std::ptr::null() }
    }

    /// All lines of a panel.
    #[inline(always)]
    fn panel<I: Isa>(&self, isa: I, panel: &Panel, source: Source) {
        let conv = self.conv;
        let (alone, flat) = (conv.shape.alone(), conv.shape.window.pointwise());
        let mut first = self.first(panel, source);
        let most = if alone { LONGEST } else { tallest(panel.blocks.len(), I::LANES, I::REGISTERS) };
        let kernels = tiles::<I>(panel.blocks.len(), first.pitch);
        let count: usize = self.lines.clone().map(|line| conv.lines[line].len().div_ceil(most)).sum();
        let (ahead, rows) = (self.ahead(panel), first.taps[0] * first.taps[1]);
        first.lines = (ahead.len() / LINE).div_ceil(count * rows).max(1);
        let mut pieces = ahead.chunks(rows * first.lines * LINE).map(<[i8]>::as_ptr);
        for line in self.lines.clone() {
            let pixels = conv.lines[line].clone();
            let row =
                if flat { 0 } else { (line - self.lines.start) * conv.shape.window.stride[0] * source.row };
            // Pieces of almost equal length.
            let count = pixels.len().div_ceil(most).max(1);
            let (each, longer) = (pixels.len() / count, pixels.len() % count);
            let mut start = 0;
            for piece in 0..count {
                let (at, len) = (pixels.start + start, each + usize::from(piece < longer));
                let along = if flat { at - source.first } else { start };
                start += len;
                let mut tile = first;
                tile.a = first.a.wrapping_add(row + along * first.pitch);
                tile.out = first.out.wrapping_add(at * first.out_pitch);
                tile.given.at = first.given.at.wrapping_add(at * first.given.step);
                tile.ahead = pieces.next().unwrap_or(std::ptr::null());
                if !first.residual.is_null() {
                    tile.residual = first.residual.wrapping_add(at * first.out_pitch);
                }
                if alone {
                    isa.dispatch(Lanes { tile: &tile, pixels: len });
                } else {
                    // SAFETY: the spans hold whole images (checked when the step was made), all taps of these pixels lie
                    // in what `source` says, and the outputs are this worker's.
                    unsafe { kernels.get(len)(isa, &tile) };
                }
            }
        }
    }

    /// The weights behind a panel's, as many: those that are read next.
    fn ahead(&self, panel: &Panel) -> &[i8] {
        let weights: &[i8] = bytemuck::cast_slice(&self.conv.weights);
        let all = self.conv.panels.last().map_or(0, |last| last.at);
        let next = self.conv.panels.iter().find(|next| next.at > panel.at).map_or(all, |next| next.at);
        if self.conv.shape.alone() || next <= panel.at {
            return &[];
        }
        &weights[next..weights.len().min(2 * next - panel.at)]
    }

    /// The tile at the first output.
    #[inline(always)]
    fn first(&self, panel: &Panel, source: Source) -> Tile<'_> {
        let conv = self.conv;
        let CodeShape { outputs, window, .. } = conv.shape;
        let width = if conv.ending.codes() { 1 } else { size_of::<f32>() };
        let (_, elements) = conv.elements();
        let pixels = conv.output[0] * conv.output[1];
        let first = panel.blocks.start * BLOCK;
        let blocked = conv.layouts[1] == Layout::Blocked;
        let (pitch, block) =
            if blocked { (BLOCK * width, pixels * BLOCK * width) } else { (outputs * width, BLOCK * width) };
        let out = self.image * elements * width + panel.blocks.start * block;
        let every = panel.blocks.len() * BLOCK;
        let weights: &[i8] = bytemuck::cast_slice(&conv.weights);
        let (sums, scales) = weights[conv.code_packing().bytes()..].split_at(sums_bytes(outputs));
        let (sums, scales): (&[i32], &[f32]) = (bytemuck::cast_slice(sums), bytemuck::cast_slice(scales));
        let mut given = self.given();
        if conv.rounds {
            given.weights = scales[first..].as_ptr();
        }
        Tile {
            a: source.at.wrapping_add((panel.inputs.start - source.block) * source.plane),
            pitch: window.stride[1] * BLOCK,
            taps: [panel.inputs.len(), window.kernel[0], window.kernel[1]],
            a_step: [source.plane, window.dilation[0] * source.row, window.dilation[1] * BLOCK],
            rounds_last: panel.rounds_last,
            w: weights[panel.at..].as_ptr(),
            ahead: std::ptr::null(),
            lines: 0,
            sums: sums[first..].as_ptr(),
            zero: i32::from(conv.zero),
            ending: &conv.ending,
            first,
            out: self.out.as_mut_ptr().wrapping_add(out),
            out_pitch: pitch,
            out_block: block,
            valid: if blocked { every } else { every.min(outputs - first) },
            residual: self.residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(out)),
            given,
        }
    }
}
