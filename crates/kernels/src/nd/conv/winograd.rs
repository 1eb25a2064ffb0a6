//! Windows of three by three taps at stride 1 with a quarter of the multiplications: Winograd's F(4 x 4, 3 x 3).
//!
//! Six by six inputs become 36 sums of them, channels are multiplied for each of the 36 alone, and four by four outputs are
//! sums of the products. Error: `4 * (count + 8) * 2e-7 * max(1, |out|)` for inputs and weights up to 1; the transforms weigh
//! inputs by up to 100 and products by up to 64, so that it is some thirty times the direct sum's.

mod outs;

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch_bf16};

use self::outs::Outs;
use super::{Conv, ConvShape, Panel};
use crate::SharedMut;
use crate::nd::act::Act;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::pairs::load;
use crate::nd::shape::cuts;
use crate::nd::tile::{Dense, Fixed, Tile, tallest_for, tiles};

/// Outputs of a tile, along each axis.
const OUT: usize = 4;
/// Inputs of a tile, along each axis.
const IN: usize = 6;
/// Products of a tile, for each channel.
const POINTS: usize = IN * IN;
/// Tiles that are computed together at most.
const GROUP: usize = 28;
/// Floats of transformed inputs that stay in the second-level cache.
const ROOM: usize = 160 << 10;
/// Tiles of an image from which on the weights, four times as many, are read often enough.
const FEWEST: usize = 16;
/// Tiles of an image from which on it also beats products in bfloat16.
const MANY: usize = 32;
/// Channels and outputs from which on the transforms cost less than they save.
const NARROW: usize = 16;
/// Blocks of a panel at most.
const WIDEST: usize = 3;

/// How images are cut into tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd {
    /// Tiles of an image, along each axis.
    tiles: [usize; 2],
    /// Tiles that are computed together at most.
    group: usize,
    /// Blocks of channels.
    rounds: usize,
}

impl Winograd {
    /// Whether a convolution is of this kind, and gains.
    pub(super) fn suits(shape: &ConvShape, input: Layout, output: [usize; 2]) -> bool {
        let window = &shape.window;
        let kind = (window.kernel, window.stride, window.dilation) == ([3, 3], [1, 1], [1, 1]);
        let wide = shape.channels >= NARROW && shape.outputs >= NARROW;
        let tiles = output[0].div_ceil(OUT) * output[1].div_ceil(OUT);
        let fits = ROOM / (POINTS * shape.channels.next_multiple_of(BLOCK)) >= GROUP / 2;
        kind && wide && fits && tiles >= FEWEST && shape.groups == 1 && input == Layout::Blocked
    }

    /// How images of so many outputs are cut.
    pub(super) fn new(shape: &ConvShape, output: [usize; 2]) -> Self {
        let rounds = shape.channels.div_ceil(BLOCK);
        let group = (ROOM / (POINTS * rounds * BLOCK)).min(GROUP);
        Self { tiles: output.map(|n| n.div_ceil(OUT)), group, rounds }
    }

    /// Whether it is faster than twice as many products a second.
    pub(super) fn beats_bf16(&self) -> bool {
        self.tiles[0] * self.tiles[1] >= MANY
    }

    /// Floats of the transformed weights.
    pub(super) fn packed_floats(shape: &ConvShape) -> usize {
        shape.outputs.next_multiple_of(BLOCK) * shape.channels.next_multiple_of(BLOCK) * POINTS
    }

    /// Transforms `weights`, `[outputs][channels][3][3]`, to `[panel][point][channel][output]`.
    pub(super) fn pack(shape: &ConvShape, panels: &[Panel], weights: &[f32], packed: &mut [f32]) {
        let deep = shape.channels.next_multiple_of(BLOCK);
        for panel in panels {
            let (first, width) = (panel.blocks.start * BLOCK, panel.blocks.len() * BLOCK);
            for output in first..shape.outputs.min(first + width) {
                for channel in 0..shape.channels {
                    let taps = &weights[(output * shape.channels + channel) * 9..][..9];
                    for (point, value) in transformed(taps).into_iter().enumerate() {
                        let row = first * deep * POINTS + (point * deep + channel) * width;
                        packed[row + output - first] = value;
                    }
                }
            }
        }
    }

    /// Floats of scratch memory for a worker.
    pub(super) fn floats(&self) -> usize {
        POINTS * self.group * (self.rounds + WIDEST) * BLOCK
    }

    /// Units of work of each image for so many workers: parts of its tiles, and parts of the panels, each of which
    /// transforms the inputs anew.
    pub(super) fn split(&self, panels: usize, images: usize, workers: usize) -> [usize; 2] {
        let all = self.tiles[0] * self.tiles[1];
        let parts = all.div_ceil(self.group);
        if images * parts >= 2 * workers || workers == 1 {
            return [parts.next_multiple_of(workers).min(all), 1];
        }
        [parts, workers.div_ceil(images * parts).min(panels)]
    }

    /// Part `at` of so many of the tiles.
    pub(super) fn tiles(&self, parts: usize, at: usize) -> Range<usize> {
        let all = self.tiles[0] * self.tiles[1];
        all * at / parts..all * (at + 1) / parts
    }
}

/// `G g G^T`.
fn transformed(taps: &[f32]) -> [f32; POINTS] {
    const G: [[f64; 3]; IN] = [
        [0.25, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];
    std::array::from_fn(|point| {
        let (row, column) = (G[point / IN], G[point % IN]);
        let sum = |y: usize| (0..3).map(|x| f64::from(taps[y * 3 + x]) * column[x]).sum::<f64>();
        (0..3).map(|y| row[y] * sum(y)).sum::<f64>() as f32
    })
}

/// Some tiles of an image, and some panels of outputs.
pub(super) struct Group<'a> {
    pub(super) conv: &'a Conv,
    pub(super) winograd: &'a Winograd,
    pub(super) image: usize,
    pub(super) tiles: Range<usize>,
    pub(super) panels: Range<usize>,
    pub(super) x: SharedMut<'a, f32>,
    pub(super) residual: Option<SharedMut<'a, f32>>,
    pub(super) out: SharedMut<'a, f32>,
    pub(super) scratch: SharedMut<'a, f32>,
}

impl Group<'_> {
    /// Computes the tiles.
    ///
    /// # Safety
    /// The views hold whole images; the outputs of these tiles and the scratch memory are this worker's.
    pub(super) unsafe fn run(self) {
        assert!(self.winograd.floats() <= self.scratch.len(), "room for the products");
        assert!(self.tiles.len() <= self.winograd.group, "no more tiles than there is room for");
        dispatch_bf16(self.conv.level, self);
    }
}

impl Kernel for Group<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (at, tile) in self.tiles.clone().enumerate() {
            for round in 0..self.winograd.rounds {
                for lane in (0..BLOCK).step_by(I::LANES) {
                    self.gather(isa, tile, at, round, lane);
                }
            }
        }
        for panel in &self.conv.panels[self.panels.clone()] {
            for point in 0..POINTS {
                self.multiply(isa, panel, point);
            }
            for (at, tile) in self.tiles.clone().enumerate() {
                for block in panel.blocks.clone() {
                    self.spread(isa, tile, at, block, block - panel.blocks.start, panel.blocks.len());
                }
            }
        }
    }
}

impl Group<'_> {
    /// First output row and column of a tile.
    fn corner(&self, tile: usize) -> [usize; 2] {
        let across = self.winograd.tiles[1];
        [tile / across * OUT, tile % across * OUT]
    }

    /// Transforms the inputs of a tile: `B^T d B`.
    #[inline(always)]
    fn gather<I: Isa>(&self, isa: I, tile: usize, at: usize, round: usize, lane: usize) {
        let window = &self.conv.shape.window;
        let [height, width] = window.input;
        let (image, [y, x]) = (self.image * self.conv.floats().0, self.corner(tile));
        let pixel = self.conv.lies[0].pixel();
        let plane = self.x.as_ptr().wrapping_add(image + round * height * width * pixel);
        let inside = |start: usize, i: usize, before: usize, size: usize| {
            (start + i).checked_sub(before).filter(|at| *at < size)
        };
        let mut half = [[isa.zero(); IN]; IN];
        for j in 0..IN {
            let column = inside(x, j, window.before[1], width);
            let mut d = [isa.zero(); IN];
            for (i, d) in d.iter_mut().enumerate() {
                if let (Some(row), Some(column)) = (inside(y, i, window.before[0], height), column) {
                    // SAFETY: the pixel lies within the image, which the view holds.
                    *d = unsafe { load(isa, plane.add((row * width + column) * pixel), pixel, lane) };
                }
            }
            let sums = forward(isa, d);
            for (half, sum) in half.iter_mut().zip(sums) {
                half[j] = sum;
            }
        }
        let count = self.tiles.len();
        for (i, half) in half.into_iter().enumerate() {
            for (j, sum) in forward(isa, half).into_iter().enumerate() {
                let to = (((i * IN + j) * self.winograd.rounds + round) * count + at) * BLOCK + lane;
                // SAFETY: `run` saw that the scratch memory has room for these tiles.
                unsafe { isa.store_ptr(sum, self.scratch.as_mut_ptr().add(to)) };
            }
        }
    }

    /// Where products begin in the scratch memory.
    fn products(&self) -> usize {
        POINTS * self.winograd.rounds * self.tiles.len() * BLOCK
    }

    /// The products of a panel at a point, of all tiles.
    #[inline(always)]
    fn multiply<I: Isa>(&self, isa: I, panel: &Panel, point: usize) {
        const ZEROS: [f32; WIDEST * BLOCK] = [0.0; WIDEST * BLOCK];
        let (count, rounds, blocks) = (self.tiles.len(), self.winograd.rounds, panel.blocks.len());
        let (deep, width) = (rounds * BLOCK, blocks * BLOCK);
        let w = (panel.blocks.start * BLOCK * POINTS + point * width) * deep;
        let kernels = tiles::<I, Fixed<BLOCK>, Dense>(blocks);
        // The next point's weights come while this one's are used.
        let ahead = (w + deep * width).min(self.conv.weights.len());
        let ahead = &self.conv.weights[ahead..(ahead + deep * width).min(self.conv.weights.len())];
        for some in cuts(count, tallest_for(blocks, I::LANES, I::REGISTERS)) {
            let part = ahead.len() * some.start / count..ahead.len() * some.end / count;
            ahead[part].iter().step_by(BLOCK).for_each(|line| isa.prefetch(line));
            let a = (point * rounds * count + some.start) * BLOCK;
            let out = self.products() + (point * blocks * count + some.start) * BLOCK;
            let tile = Tile {
                a: self.scratch.as_ptr().wrapping_add(a),
                pitch: BLOCK,
                taps: [rounds, 1, 1],
                a_step: [count * BLOCK, 0, 0],
                w: self.conv.weights.as_ptr().wrapping_add(w),
                w_step: [BLOCK * width, 0, 0],
                ahead: std::ptr::null(),
                lines: 0,
                k: BLOCK,
                k_last: self.conv.shape.channels - (rounds - 1) * BLOCK,
                start: ZEROS.as_ptr(),
                out: self.scratch.as_mut_ptr().wrapping_add(out),
                out_pitch: BLOCK,
                out_block: count * BLOCK,
                valid: width,
                last: true,
                residual: std::ptr::null(),
                act: Act::NONE,
                halves: false,
            };
            // SAFETY: `run` saw that the scratch memory has room for the sums and the products of these tiles; the weights
            // are whole panels.
            unsafe { kernels.get(some.len())(isa, &tile) };
        }
    }

    /// Transforms the products of a tile to outputs: `A^T m A`, bias, residual, activation. `inner` is the block's place
    /// among the `blocks` of its panel.
    #[inline(always)]
    fn spread<I: Isa>(&self, isa: I, tile: usize, at: usize, block: usize, inner: usize, blocks: usize) {
        let (conv, [y, x]) = (self.conv, self.corner(tile));
        let ([height, width], pixel) = (conv.output, conv.lies[1].pixel());
        let size = [OUT.min(height - y), OUT.min(width - x)];
        let first = self.image * conv.floats().1 + ((block * height + y) * width + x) * pixel;
        let from = self.products() + (inner * self.tiles.len() + at) * BLOCK;
        let outs = Outs {
            m: self.scratch.as_ptr().wrapping_add(from),
            step: blocks * self.tiles.len() * BLOCK,
            bias: conv.bias[block * BLOCK..].as_ptr(),
            residual: self.residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(first)),
            residual_pitch: width * pixel,
            residual_pixel: pixel,
            to: self.out.as_mut_ptr().wrapping_add(first),
            pitch: width * pixel,
            pixel,
            size,
            act: conv.shape.act,
        };
        // SAFETY: the products of this tile were just made; its outputs lie within the image, which the views hold, and
        // are this worker's.
        unsafe { outs.finish(isa) };
    }
}

/// `B^T d`.
#[inline(always)]
fn forward<I: Isa>(isa: I, d: [I::F32; IN]) -> [I::F32; IN] {
    let (two, four, five) = (isa.splat(2.0), isa.splat(4.0), isa.splat(-5.0));
    let (outer, inner) = (isa.fma(isa.neg(four), d[2], d[4]), isa.fma(isa.neg(four), d[1], d[3]));
    let (even, odd) = (isa.sub(d[4], d[2]), isa.sub(d[3], d[1]));
    [
        isa.fma(four, d[0], isa.fma(five, d[2], d[4])),
        isa.add(outer, inner),
        isa.sub(outer, inner),
        isa.fma(two, odd, even),
        isa.sub(even, isa.mul(two, odd)),
        isa.fma(four, d[1], isa.fma(five, d[3], d[5])),
    ]
}
