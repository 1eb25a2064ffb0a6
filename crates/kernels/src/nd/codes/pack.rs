//! Weights of products of codes in the order in which tiles read them, panel by panel, and the sums of each output's.

use std::ops::Range;

use kinglet_simd::Level;

use super::conv::CodeShape;
use super::lanes::places;
use super::tile::{QUAD, ROUNDS};
use crate::nd::gemm::Order;
use crate::nd::layout::BLOCK;
use crate::nd::shape::Window;

/// How a product's weights, signed bytes, are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodePacking {
    level: Level,
    channels: usize,
    outputs: usize,
    groups: usize,
    kernel: [usize; 2],
    order: Order,
    /// Whether weights are numbers that are rounded, with a scale for each output.
    rounds: bool,
}

/// Bytes of the sums of all outputs' weights, behind which the scales stand, as many.
pub(super) fn sums_bytes(outputs: usize) -> usize {
    (outputs.next_multiple_of(BLOCK) + 2 * BLOCK) * size_of::<i32>()
}

/// Neighbouring outputs that are computed together.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// Blocks of outputs.
    pub(super) blocks: Range<usize>,
    /// Blocks of input channels.
    pub(super) inputs: Range<usize>,
    /// Steps through the last of them.
    pub(super) rounds_last: usize,
    /// Where its weights start, in bytes.
    pub(super) at: usize,
}

impl CodePacking {
    pub(super) fn new(level: Level, shape: &CodeShape, order: Order, rounds: bool) -> Self {
        let CodeShape { channels, outputs, groups, window } = *shape;
        Self { level, channels, outputs, groups, kernel: window.kernel, order, rounds }
    }

    /// Packings that are made in different ways.
    pub(in crate::nd) fn samples(level: Level) -> [Self; 4] {
        let (kernel, order) = ([3, 2], Order::Outputs);
        let plain = Self { level, channels: 18, outputs: 50, groups: 1, kernel, order, rounds: false };
        let alone = Self { channels: 18, outputs: 18, groups: 18, kernel: [3, 5], ..plain };
        let turned = Self { kernel: [1, 1], order: Order::Inputs, ..plain };
        [plain, alone, turned, Self { rounds: true, ..turned }]
    }

    pub(super) fn shape(&self) -> CodeShape {
        let Self { channels, outputs, groups, kernel, .. } = *self;
        let window = Window { kernel, ..Window::square([1, 1], 1, 1, 0) };
        CodeShape { channels, outputs, groups, window }
    }

    pub(in crate::nd) fn weights(&self) -> usize {
        self.outputs * (self.channels / self.groups) * self.kernel[0] * self.kernel[1]
    }

    /// Bytes of the weights, behind which the sums stand.
    pub(super) fn bytes(&self) -> usize {
        panels(self.level, &self.shape()).1
    }

    pub(in crate::nd) fn floats(&self) -> usize {
        let behind = sums_bytes(self.outputs) * if self.rounds { 2 } else { 1 };
        (self.bytes() + behind) / size_of::<f32>()
    }

    /// Packs as many weights, integers that fit signed bytes or numbers that are to be rounded, into as many floats, all of
    /// them zero.
    pub(in crate::nd) fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let shape = self.shape();
        let (panels, bytes) = panels(self.level, &shape);
        let (codes, behind) = bytemuck::cast_slice_mut::<f32, i8>(packed).split_at_mut(bytes);
        let (sums, scales) = behind.split_at_mut(sums_bytes(self.outputs));
        let (sums, scales) = (bytemuck::cast_slice_mut::<i8, i32>(sums), bytemuck::cast_slice_mut(scales));
        for panel in &panels {
            let outputs = panel.blocks.start * BLOCK..(panel.blocks.end * BLOCK).min(self.outputs);
            for output in outputs {
                let mut sum = 0;
                let mut scale = 1.0;
                if self.rounds {
                    scale = self.scale(output, weights);
                    scales[output] = scale;
                }
                self.each(output, weights, |channel, tap, weight| {
                    let code = (weight / scale).round_ties_even() as i8;
                    sum += i32::from(code);
                    for at in self.places(&shape, panel, output, channel, tap) {
                        codes[panel.at + at] = code;
                    }
                });
                sums[output] = sum;
            }
        }
    }

    /// What stands for a code of 1 among an output's weights: the largest magnitude becomes 127.
    fn scale(&self, output: usize, weights: &[f32]) -> f32 {
        let mut most = 0.0f32;
        self.each(output, weights, |_, _, weight| most = most.max(weight.abs()));
        if most > 0.0 { most / 127.0 } else { 1.0 }
    }

    /// Calls `f` with channel, tap and weight for each weight of an output.
    fn each(&self, output: usize, weights: &[f32], mut f: impl FnMut(usize, usize, f32)) {
        let (ins, taps) = (self.channels / self.groups, self.kernel[0] * self.kernel[1]);
        let first = output / (self.outputs / self.groups) * ins;
        for (channel, tap) in (0..ins).flat_map(|channel| (0..taps).map(move |tap| (channel, tap))) {
            let at = match self.order {
                Order::Outputs => (output * ins + channel) * taps + tap,
                Order::Inputs => channel * self.outputs + output,
            };
            f(first + channel, tap, weights[at]);
        }
    }

    /// Where a weight lies in its panel: beside each of four pixels, where channels have an output of their own.
    fn places(
        &self,
        shape: &CodeShape,
        panel: &Panel,
        output: usize,
        channel: usize,
        tap: usize,
    ) -> impl Iterator<Item = usize> {
        let ([ky, kx], lane) = (self.kernel, output - panel.blocks.start * BLOCK);
        let alone = shape.alone();
        let (first, step) = if alone {
            // A window that begins so far before a pixel has this tap there.
            let place = tap / kx * places(kx) + kx - 1 - tap % kx;
            ((place * BLOCK + lane) * QUAD, BLOCK * QUAD + 1)
        } else {
            let block = channel / BLOCK - panel.inputs.start;
            let rounds = if block + 1 == panel.inputs.len() { panel.rounds_last } else { ROUNDS };
            let before = block * ky * kx * ROUNDS + tap * rounds + channel % BLOCK / QUAD;
            ((before * panel.blocks.len() * BLOCK + lane) * QUAD + channel % QUAD, 0)
        };
        (0..if alone { QUAD } else { 1 }).map(move |pixel| first + pixel * step)
    }
}

/// The panels, and the bytes of all their weights.
pub(super) fn panels(level: Level, shape: &CodeShape) -> (Vec<Panel>, usize) {
    let CodeShape { channels, outputs, groups, .. } = *shape;
    let ([ky, kx], blocks, wide) = (shape.window.kernel, outputs.div_ceil(BLOCK), level.lanes() >= 16);
    let most = if wide && !shape.alone() { 2 } else { 1 };
    // Three blocks take as long as three halves of two, which one of two and one alone do not.
    let odd = most == 2 && groups == 1 && blocks >= 3 && blocks % 2 == 1;
    let (ins, outs) = (channels / groups, outputs / groups);
    let mut at = 0;
    let panel = |first: usize| {
        let start = if odd && first > 0 { first + 1 } else { first };
        let blocks = start..blocks.min(first + most + usize::from(odd));
        let last = (blocks.end * BLOCK).min(outputs) - 1;
        let groups = blocks.start * BLOCK / outs..last / outs + 1;
        let inputs = groups.start * ins / BLOCK..(groups.end * ins).div_ceil(BLOCK);
        let rounds_last = (channels - (inputs.end - 1) * BLOCK).min(BLOCK).div_ceil(QUAD);
        let rounds = match shape.alone() {
            true => ky * places(kx),
            false => ky * kx * ((inputs.len() - 1) * ROUNDS + rounds_last),
        };
        let start = at;
        at += rounds * blocks.len() * BLOCK * QUAD;
        Panel { blocks, inputs, rounds_last, at: start }
    };
    let starts = (0..blocks - usize::from(odd)).step_by(most);
    (starts.map(panel).collect(), at)
}
