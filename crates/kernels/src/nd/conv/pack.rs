//! Weights in the order in which tiles read them, panel by panel.

use kinglet_simd::Level;
use kinglet_tensor::AlignedBuf;

use super::winograd::Winograd;
use super::{ConvShape, Panel, Window};
use crate::nd::NdError;
use crate::nd::act::Act;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::pairs::{PAIRS, put};
use crate::nd::tile::panel_blocks;

/// How a convolution's weights are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvPacking {
    level: Level,
    channels: usize,
    outputs: usize,
    groups: usize,
    kernel: [usize; 2],
    input: Layout,
    form: Form,
}

/// What weights are packed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As they are.
    Floats,
    /// Neighbouring channels as pairs of bfloat16.
    Pairs,
    /// Transformed.
    Winograd,
}

impl ConvPacking {
    pub(super) fn new(level: Level, shape: &ConvShape, input: Layout, form: Form) -> Self {
        let ConvShape { channels, outputs, groups, window, .. } = *shape;
        Self { level, channels, outputs, groups, kernel: window.kernel, input, form }
    }

    /// Packings that are made in different ways.
    pub(in crate::nd) fn samples(level: Level) -> [Self; 6] {
        let (kernel, input, form) = ([3, 2], Layout::Blocked, Form::Floats);
        let plain = Self { level, channels: 18, outputs: 50, groups: 1, kernel, input, form };
        [
            plain,
            Self { channels: 19, form: Form::Pairs, ..plain },
            Self { channels: 3, input: Layout::Planar, ..plain },
            Self { channels: 18, outputs: 18, groups: 18, ..plain },
            Self { channels: 18, outputs: 36, groups: 18, ..plain },
            Self { kernel: [3, 3], form: Form::Winograd, ..plain },
        ]
    }

    fn shape(&self) -> ConvShape {
        let Self { channels, outputs, groups, kernel, .. } = *self;
        let window = Window { kernel, ..Window::square([1, 1], 1, 1, 0) };
        ConvShape { channels, outputs, groups, window, act: Act::NONE }
    }

    pub(in crate::nd) fn weights(&self) -> usize {
        self.outputs * (self.channels / self.groups) * self.kernel[0] * self.kernel[1]
    }

    pub(in crate::nd) fn floats(&self) -> usize {
        let shape = self.shape();
        match self.form {
            Form::Winograd => Winograd::packed_floats(&shape),
            form => panels(self.level, &shape, self.input, form).1,
        }
    }

    /// Packs as many weights into as many floats, all of them zero.
    pub(in crate::nd) fn pack(&self, weights: &[f32], packed: &mut [f32]) {
        let Self { level, input, form, .. } = *self;
        let shape = self.shape();
        let (panels, _) = panels(level, &shape, input, form);
        if form == Form::Winograd {
            return Winograd::pack(&shape, &panels, weights, packed);
        }
        for panel in &panels {
            match shape.lanes(input) {
                Some(each) => pack_lanes(level, &shape, each, panel, weights, packed),
                None if form == Form::Pairs => pack_pairs(&shape, panel, weights, packed),
                None => pack_panel(&shape, input, panel, weights, packed),
            }
        }
    }
}

/// Input channels, or pairs of them, of a round of the outermost tap loop that a tap multiplies one after the other.
pub(super) fn unit(shape: &ConvShape, input: Layout, form: Form) -> usize {
    match input {
        Layout::Blocked if form == Form::Pairs => PAIRS,
        Layout::Blocked if shape.lanes(input).is_none() => BLOCK,
        _ => 1,
    }
}

/// Floats that a round of the outermost tap loop has for each output.
pub(super) fn round(shape: &ConvShape, input: Layout, form: Form) -> usize {
    let [ky, kx] = shape.window.kernel;
    ky * kx * unit(shape, input, form)
}

/// The panels, and the floats of all their weights.
pub(super) fn panels(level: Level, shape: &ConvShape, input: Layout, form: Form) -> (Vec<Panel>, usize) {
    let lanes = shape.lanes(input);
    let blocks = shape.outputs.div_ceil(BLOCK);
    let most = lanes.unwrap_or(panel_blocks(level.lanes()));
    // Three blocks take as long as three halves of two, which one of two and one alone do not.
    let odd = most == 2 && lanes.is_none() && shape.groups == 1 && blocks >= 3 && blocks % 2 == 1;
    let (ins, outs) = (shape.channels / shape.groups, shape.outputs / shape.groups);
    let unit = if input == Layout::Blocked { BLOCK } else { 1 };
    let mut at = 0;
    let panel = |first: usize| {
        let start = if odd && first > 0 { first + 1 } else { first };
        let blocks = start..blocks.min(first + most + usize::from(odd));
        let last = (blocks.end * BLOCK).min(shape.outputs) - 1;
        let groups = blocks.start * BLOCK / outs..last / outs + 1;
        let rounds = groups.start * ins / unit..(groups.end * ins).div_ceil(unit);
        let start = at;
        at += rounds.len()
            * round(shape, input, form)
            * if lanes.is_some() { most } else { blocks.len() }
            * BLOCK;
        Panel { blocks, rounds, at: start }
    };
    let starts = (0..blocks - usize::from(odd)).step_by(most);
    (starts.map(panel).collect(), at)
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

/// Writes a panel's weights: `[round][ky][kx][pair of channels in block][output]`.
fn pack_pairs(shape: &ConvShape, panel: &Panel, weights: &[f32], packed: &mut [f32]) {
    let (ins, outs) = (shape.channels / shape.groups, shape.outputs / shape.groups);
    let taps = shape.window.kernel[0] * shape.window.kernel[1];
    let width = panel.blocks.len() * BLOCK;
    let outputs = panel.blocks.start * BLOCK..(panel.blocks.end * BLOCK).min(shape.outputs);
    for output in outputs.clone() {
        for channel in 0..ins {
            let full = output / outs * ins + channel;
            let (round, lane) = (full / BLOCK - panel.rounds.start, full % BLOCK);
            for tap in 0..taps {
                let to = ((round * taps + tap) * PAIRS + lane / 2) * width + output - outputs.start;
                put(&mut packed[panel.at + to], lane, weights[(output * ins + channel) * taps + tap]);
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

/// Biases, and zeros up to the end of the last panel, where each channel has `each` outputs.
pub(super) fn pack_bias(shape: &ConvShape, each: usize, bias: &[f32]) -> Result<AlignedBuf<f32>, NdError> {
    let panel = BLOCK * each.max(2);
    let mut packed = AlignedBuf::try_new(shape.outputs.next_multiple_of(panel))?;
    packed.iter_mut().zip(bias).for_each(|(to, from)| *to = *from);
    Ok(packed)
}
