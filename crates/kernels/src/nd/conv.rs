//! Convolutions with packed weights: direct, over blocked or planar images, with everything that follows fused.
//!
//! [`Conv`] is packed once; [`conv`] binds it to spans. Error: that of a sum of `taps * channels / groups` products in
//! f32, added in order: `(count + 2) * 2^-24 * sum(|x * w|)`, then the activation's. Grouped convolutions multiply a
//! panel of outputs by all inputs of the groups it touches, with zero weights between: an infinity in one of them may
//! become NaN in another of the same sixteen outputs. Where each channel has one or two outputs of its own and images
//! are blocked, channels are multiplied lane by lane instead.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, Level, dispatch};
use kinglet_tensor::AlignedBuf;

use super::NdError;
use super::act::Act;
use super::layout::{BLOCK, Layout};
use super::shape::{Spot, Window};
use super::tile::{
    Dynamic, Fixed, Pitch, Tile, Tiles, lane_tiles, panel_blocks, tallest, tallest_pairs, tiles,
};
use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// What a convolution computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvShape {
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub outputs: usize,
    /// Equal parts of both that have nothing to do with each other.
    pub groups: usize,
    /// The window.
    pub window: Window,
    /// What the sum (with bias and residual) goes through.
    pub act: Act,
}

impl ConvShape {
    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> usize {
        let [height, width] = self.window.output().unwrap_or_default();
        let [ky, kx] = self.window.kernel;
        height * width * self.outputs * (self.channels / self.groups.max(1)) * ky * kx
    }

    /// Outputs of each channel, when channels are multiplied lane by lane.
    fn lanes(&self, input: Layout) -> Option<usize> {
        let each = self.outputs / self.channels;
        let alone = self.groups == self.channels && input == Layout::Blocked && self.channels > 1;
        (alone && (1..=2).contains(&each)).then_some(each)
    }

    /// Fails when it is no convolution, or an image would overflow the address space.
    pub(super) fn check(&self, weights: usize, bias: Option<usize>) -> Result<[usize; 2], NdError> {
        let wrong = |what: String| NdError { what: "conv", reason: format!("{what}: {self:?}") };
        let output = self.window.output().ok_or_else(|| wrong("the window does not fit".into()))?;
        let groups = self.groups;
        let whole = |n: usize| n > 0 && n.checked_rem(groups) == Some(0);
        if !whole(self.channels) || !whole(self.outputs) {
            return Err(wrong(format!("channels do not fill {groups} groups")));
        }
        let per_output = [self.channels / groups, self.window.kernel[0], self.window.kernel[1]];
        let expected = per_output.iter().try_fold(self.outputs, |product, &n| product.checked_mul(n));
        if expected != Some(weights) || bias.is_some_and(|n| n != self.outputs) {
            return Err(wrong(format!("{weights} weights, bias {bias:?}")));
        }
        let floats = |channels, [h, w]: [usize; 2]| Layout::Blocked.floats(channels, h * w);
        let fits = |floats: Option<usize>| floats.is_some_and(|n| n < isize::MAX as usize / 4);
        if !fits(floats(self.channels, self.window.input)) || !fits(floats(self.outputs, output)) {
            return Err(wrong("the image is too large".into()));
        }
        Ok(output)
    }
}

/// A convolution's weights in the order in which they are read, and the tiles its outputs are cut into.
#[derive(Debug)]
pub struct Conv {
    level: Level,
    shape: ConvShape,
    input: Layout,
    /// Outputs of each channel, when channels are multiplied lane by lane.
    lanes: Option<usize>,
    output: [usize; 2],
    weights: AlignedBuf<f32>,
    bias: AlignedBuf<f32>,
    panels: Vec<Panel>,
    spots: Vec<Spot>,
}

/// Neighbouring outputs that are computed together.
#[derive(Clone, Debug)]
struct Panel {
    /// Blocks of outputs.
    blocks: Range<usize>,
    /// Rounds of the outermost tap loop: blocks of input channels, or channels of planar images.
    rounds: Range<usize>,
    /// Where its weights start.
    at: usize,
}

/// Floats of weights that stay in the first-level cache while pixels pass over them.
const CHUNK: usize = 32 << 8;
/// Units of work, at least, for each worker.
const UNITS: usize = 6;
/// Floats of input that stay in the second-level cache while panels pass over them.
const BAND: usize = 96 << 10;

impl Conv {
    /// Packs `weights`, `[outputs][channels / groups][height][width]`, for images that arrive as `input` (blocked or
    /// planar) and leave blocked.
    pub fn pack(
        level: Level,
        shape: ConvShape,
        weights: &[f32],
        bias: Option<&[f32]>,
        input: Layout,
    ) -> Result<Self, NdError> {
        let output = shape.check(weights.len(), bias.map(<[f32]>::len))?;
        if input == Layout::Rows {
            return Err(NdError { what: "conv", reason: "images of rows".into() });
        }
        let (panels, floats) = panels(level, &shape, input);
        let mut packed = AlignedBuf::try_new(floats)?;
        let lanes = shape.lanes(input);
        for panel in &panels {
            match lanes {
                Some(each) => pack_lanes(level, &shape, each, panel, weights, &mut packed),
                None => pack_panel(&shape, input, panel, weights, &mut packed),
            }
        }
        let bias = pack_bias(level, &shape, lanes.unwrap_or(1), bias.unwrap_or_default())?;
        let most = dispatch(level, Tallest { pairs: lanes == Some(2) });
        let spots = shape.window.spots(most, most);
        Ok(Self { level, shape, input, lanes, output, weights: packed, bias, panels, spots })
    }

    /// What it computes.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes().len()
    }

    /// Floats of an input and of an output image.
    pub fn floats(&self) -> (usize, usize) {
        let pixels = |[h, w]: [usize; 2]| h * w;
        let floats =
            |layout: Layout, channels, size| layout.floats(channels, pixels(size)).unwrap_or(usize::MAX);
        (
            floats(self.input, self.shape.channels, self.shape.window.input),
            floats(Layout::Blocked, self.shape.outputs, self.output),
        )
    }

    /// Outputs that a panel's weights are laid out for.
    fn width(&self, panel: &Panel) -> usize {
        self.lanes.unwrap_or(panel.blocks.len()) * BLOCK
    }

    /// How many parts the spots and the panels are cut into, for so many images and workers.
    fn split(&self, images: usize, workers: usize) -> (usize, usize) {
        let (input, _) = self.floats();
        let weights = self.weights.len();
        let wanted = if workers == 1 { 1 } else { UNITS * workers }.div_ceil(images.max(1));
        let least = input.div_ceil(BAND).min(self.spots.len()).max(1);
        // Parts of the image read all weights each, parts of the panels all of the image.
        let cost = |&(spots, panels): &(usize, usize)| spots * weights + panels * input;
        let options = (least..=self.spots.len().clamp(1, 64).max(least))
            .map(|spots| (spots, wanted.div_ceil(spots).min(self.panels.len())));
        options.min_by_key(cost).unwrap_or((1, 1))
    }
}

/// Pixels of the tallest tile.
struct Tallest {
    pairs: bool,
}

impl Kernel for Tallest {
    type Out = usize;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> usize {
        let tallest = if self.pairs { tallest_pairs } else { tallest };
        tallest(I::LANES, I::REGISTERS)
    }
}

/// Input channels of a round of the outermost tap loop that a tap multiplies one after the other.
fn unit(shape: &ConvShape, input: Layout) -> usize {
    if input == Layout::Blocked && shape.lanes(input).is_none() { BLOCK } else { 1 }
}

/// Floats that a round of the outermost tap loop has for each output.
fn round(shape: &ConvShape, input: Layout) -> usize {
    let [ky, kx] = shape.window.kernel;
    ky * kx * unit(shape, input)
}

/// The panels, and the floats of all their weights.
fn panels(level: Level, shape: &ConvShape, input: Layout) -> (Vec<Panel>, usize) {
    let lanes = shape.lanes(input);
    let (blocks, most) = (shape.outputs.div_ceil(BLOCK), lanes.unwrap_or(panel_blocks(level.lanes())));
    let (ins, outs) = (shape.channels / shape.groups, shape.outputs / shape.groups);
    let unit = if input == Layout::Blocked { BLOCK } else { 1 };
    let mut at = 0;
    let panel = |first: usize| {
        let blocks = first..blocks.min(first + most);
        let last = (blocks.end * BLOCK).min(shape.outputs) - 1;
        let groups = blocks.start * BLOCK / outs..last / outs + 1;
        let rounds = groups.start * ins / unit..(groups.end * ins).div_ceil(unit);
        let start = at;
        at += rounds.len() * round(shape, input) * if lanes.is_some() { most } else { blocks.len() } * BLOCK;
        Panel { blocks, rounds, at: start }
    };
    (((0..blocks).step_by(most)).map(panel).collect(), at)
}

/// Writes a panel's weights: `[round][ky][kx][channel in block][output]`.
fn pack_panel(shape: &ConvShape, input: Layout, panel: &Panel, weights: &[f32], packed: &mut [f32]) {
    let (ins, outs) = (shape.channels / shape.groups, shape.outputs / shape.groups);
    let taps = shape.window.kernel[0] * shape.window.kernel[1];
    let unit = if input == Layout::Blocked { BLOCK } else { 1 };
    let width = panel.blocks.len() * BLOCK;
    let outputs = panel.blocks.start * BLOCK..(panel.blocks.end * BLOCK).min(shape.outputs);
    for output in outputs.clone() {
        let group = output / outs;
        for channel in 0..ins {
            let full = group * ins + channel;
            let (round, lane) = (full / unit - panel.rounds.start, full % unit);
            for tap in 0..taps {
                let to = ((round * taps + tap) * unit + lane) * width + output - outputs.start;
                packed[panel.at + to] = weights[(output * ins + channel) * taps + tap];
            }
        }
    }
}

/// Where an output of a block of channels with `each` outputs a channel stands in the sums: vectors of channels, each
/// with the first outputs and then the second ones.
fn lane(level: Level, output: usize, each: usize) -> usize {
    let (channel, which, lanes) = (output / each, output % each, level.lanes());
    (channel / lanes * each + which) * lanes + channel % lanes
}

/// Writes a panel's weights, channel by channel: `[ky][kx][lane]`.
fn pack_lanes(
    level: Level,
    shape: &ConvShape,
    each: usize,
    panel: &Panel,
    weights: &[f32],
    packed: &mut [f32],
) {
    let taps = shape.window.kernel[0] * shape.window.kernel[1];
    let first = panel.blocks.start * BLOCK;
    for output in first..shape.outputs.min(first + each * BLOCK) {
        for tap in 0..taps {
            packed[panel.at + tap * each * BLOCK + lane(level, output - first, each)] =
                weights[output * taps + tap];
        }
    }
}

fn pack_bias(level: Level, shape: &ConvShape, each: usize, bias: &[f32]) -> Result<AlignedBuf<f32>, NdError> {
    let width = each * BLOCK;
    let mut packed = AlignedBuf::try_new(shape.outputs.next_multiple_of(width.max(2 * BLOCK)))?;
    for (output, &bias) in bias.iter().enumerate() {
        packed[output / width * width + lane(level, output % width, each)] = bias;
    }
    Ok(packed)
}

/// `out = act(conv(x) + bias + residual)`. Rows of the spans are images, blocked but for a planar `x`.
pub fn conv(conv: Arc<Conv>, x: Span, residual: Option<Span>, out: Span) -> Result<Box<dyn Step>, StepError> {
    let check = Check("conv");
    let (input, output) = conv.floats();
    check.span::<f32>("x", &x, input)?;
    for (what, span) in [("out", Some(&out)), ("residual", residual.as_ref())] {
        let Some(span) = span else { continue };
        check.span::<f32>(what, span, output)?;
        check.same_rows(what, span, &x)?;
    }
    Ok(Box::new(ConvStep { conv, x, residual, out }))
}

struct ConvStep {
    conv: Arc<Conv>,
    x: Span,
    residual: Option<Span>,
    out: Span,
}

// SAFETY: touches its spans; each unit, some pixels of some panels of an image, is taken by one worker.
unsafe impl Step for ConvStep {
    fn label(&self) -> String {
        let ConvShape { window, groups, act, .. } = &self.conv.shape;
        let [ky, kx] = window.kernel;
        let groups = if *groups > 1 { " grouped" } else { "" };
        let residual = if self.residual.is_some() { " + residual" } else { "" };
        format!("conv {ky}x{kx}{groups}{residual} {}", act.name()).trim_end().into()
    }

    fn spans(&self) -> Vec<Access> {
        let residual = self.residual.map(Access::Read);
        [Access::Read(self.x), Access::Write(self.out)].into_iter().chain(residual).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let images = self.x.rows.count(dims).unwrap_or(0);
        self.conv.shape.multiply_adds().saturating_mul(images) <= 1 << 15
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let images = ctx.rows(self.x.rows);
        let (spot_parts, panel_parts) = self.conv.split(images, worker.count());
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        let residual = self.residual.map(|span| ctx.view(&span));
        let part = |count: usize, parts: usize, at: usize| count * at / parts..count * (at + 1) / parts;
        loop {
            let unit = ctx.take();
            if unit >= images * spot_parts * panel_parts {
                return;
            }
            let (image, rest) = (unit / (spot_parts * panel_parts), unit % (spot_parts * panel_parts));
            let job = Job {
                conv: &self.conv,
                image,
                spots: part(self.conv.spots.len(), spot_parts, rest % spot_parts),
                panels: part(self.conv.panels.len(), panel_parts, rest / spot_parts),
                x,
                residual,
                out,
            };
            dispatch(self.conv.level, job);
        }
    }
}

/// Some pixels of some panels of an image.
struct Job<'a> {
    conv: &'a Conv,
    image: usize,
    spots: Range<usize>,
    panels: Range<usize>,
    x: SharedMut<'a, f32>,
    residual: Option<SharedMut<'a, f32>>,
    out: SharedMut<'a, f32>,
}

impl Kernel for Job<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let conv = self.conv;
        for panel in &conv.panels[self.panels.clone()] {
            let width = conv.width(panel);
            let each = (CHUNK / (round(&conv.shape, conv.input) * width)).max(1);
            let chunks = panel.rounds.len().div_ceil(each);
            for chunk in 0..chunks {
                let from = panel.rounds.start + chunk * each;
                let rounds = from..panel.rounds.end.min(from + each);
                let cut = Cut { panel, rounds, first: chunk == 0, last: chunk + 1 == chunks };
                self.pass(isa, &cut);
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
    /// All spots over some rounds.
    #[inline(always)]
    fn pass<I: Isa>(&self, isa: I, cut: &Cut<'_>) {
        let free = self.kernels::<I, Dynamic>(cut.panel);
        let lying = match (self.conv.input, self.conv.shape.window.stride[1]) {
            (Layout::Blocked, 1) => self.kernels::<I, Fixed<16>>(cut.panel),
            (Layout::Blocked, 2) => self.kernels::<I, Fixed<32>>(cut.panel),
            _ => self.kernels::<I, Dynamic>(cut.panel),
        };
        for spot in &self.conv.spots[self.spots.clone()] {
            let tile = self.tile(cut, spot);
            let kernel = if spot.upright { &free } else { &lying };
            // SAFETY: the spans hold whole images (checked when the step was made), the window's taps of these spots
            // lie within the input, and this unit's outputs are this worker's.
            unsafe { kernel.get(spot.pixels)(isa, &tile) };
        }
    }

    #[inline(always)]
    fn kernels<I: Isa, P: Pitch>(&self, panel: &Panel) -> Tiles<I> {
        match self.conv.lanes {
            Some(each) => lane_tiles::<I, P>(each),
            None => tiles::<I, P>(panel.blocks.len()),
        }
    }

    fn tile(&self, cut: &Cut<'_>, spot: &Spot) -> Tile {
        let conv = self.conv;
        let ConvShape { channels, outputs, window, act, .. } = conv.shape;
        let ([height, width], [ky, kx], [dy, dx]) = (window.input, window.kernel, window.dilation);
        let pixels = conv.output[0] * conv.output[1];
        let (images_in, images_out) = conv.floats();
        let (panel, lanes) = (cut.panel, conv.width(cut.panel));
        // Floats between input pixels, and what a tap sums of one.
        let blocked = conv.input == Layout::Blocked;
        let (unit, deep) = (if blocked { BLOCK } else { 1 }, unit(&conv.shape, conv.input));
        let a = self.image * images_in + (cut.rounds.start * height * width + spot.input) * unit;
        let w =
            (cut.rounds.start - panel.rounds.start) * ky * kx + spot.taps[0].start * kx + spot.taps[1].start;
        let out = self.image * images_out + (panel.blocks.start * pixels + spot.output) * BLOCK;
        let first = panel.blocks.start * BLOCK;
        // Taps of a row of a planar image lie side by side, so that they can be the innermost loop.
        let across = spot.taps[1].len();
        let (across, k, k_last) = match (blocked, dx) {
            (true, _) => (across, deep, deep.min(channels - (cut.rounds.end - 1) * BLOCK)),
            (false, 1) => (1, across, across),
            (false, _) => (across, 1, 1),
        };
        Tile {
            a: self.x.as_ptr().wrapping_add(a),
            pitch: if spot.upright { window.stride[0] * width } else { window.stride[1] } * unit,
            taps: [cut.rounds.len(), spot.taps[0].len(), across],
            a_step: [height * width * unit, dy * width * unit, dx * unit],
            w: conv.weights.as_ptr().wrapping_add(panel.at + w * deep * lanes),
            w_step: [ky * kx * deep * lanes, kx * deep * lanes, deep * lanes],
            k,
            k_last,
            start: if cut.first { conv.bias[first..].as_ptr() } else { std::ptr::null() },
            out: self.out.as_mut_ptr().wrapping_add(out),
            out_pitch: BLOCK * if spot.upright { conv.output[1] } else { 1 },
            out_block: pixels * BLOCK,
            valid: (outputs - first).next_multiple_of(BLOCK).min(panel.blocks.len() * BLOCK),
            last: cut.last,
            residual: self.residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(out)),
            act,
        }
    }
}

#[cfg(test)]
mod tests;
