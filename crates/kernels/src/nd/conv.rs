//! Convolutions with packed weights: direct, over blocked or planar images, with everything that follows fused.
//!
//! [`Conv`] is packed once; [`conv`] binds it to spans. Error: that of a sum of `taps * channels / groups` products in
//! f32, added in order: `(count + 2) * 2^-24 * sum(|x * w|)`, then the activation's. Grouped convolutions multiply a
//! panel of outputs by all inputs of the groups it touches, with zero weights between: an infinity in one of them may
//! become NaN in another of the same sixteen outputs. Where each channel has one or two outputs of its own and images
//! are blocked, channels are multiplied lane by lane instead; windows of three by three taps over large images go through
//! Winograd's transform, whose error `winograd.rs` states.

mod chain;
mod pack;
mod pass;
mod shape;
mod step;
mod strips;
mod taps;
mod winograd;

use std::ops::{Range, RangeInclusive};

use kinglet_simd::{Isa, Kernel, Level, dispatch};
use kinglet_tensor::AlignedBuf;

pub use self::chain::{ConvChain, conv_chain};
pub use self::pack::ConvPacking;
use self::pack::{Form, pack_bias, panels};
use self::pass::{Place, copied};
pub use self::shape::{ConvShape, Scatter};
pub use self::step::conv;
use self::strips::Strips;
use self::taps::Taps;
use self::winograd::Winograd;
use super::NdError;
use super::layout::{BLOCK, Layout};
use super::packed::{Packed, Packing};
use super::shape::{Spot, Window};
use super::tile::{TALLEST_WIDEST, tallest, tallest_pairs};
use crate::SharedMut;

/// A convolution's weights in the order in which they are read, and the tiles its outputs are cut into.
#[derive(Debug)]
pub struct Conv {
    level: Level,
    shape: ConvShape,
    input: Layout,
    /// How images lie that are read, and those that are made: like `input` and blocked, or in bfloat16.
    lies: [Layout; 2],
    /// Outputs of each channel, when channels are multiplied lane by lane.
    lanes: Option<usize>,
    output: [usize; 2],
    scatter: Scatter,
    form: Form,
    weights: Packed,
    bias: AlignedBuf<f32>,
    panels: Vec<Panel>,
    spots: Vec<Spot>,
    /// The same for panels of three blocks; empty when there is none.
    low_spots: Vec<Spot>,
    /// The kernel for the window of channels that have one output each.
    taps: Option<Taps>,
    /// How images are cut, where that gains, when there is such a kernel.
    strips: Option<Strips>,
    /// How tiles are cut when the weights are transformed ones.
    winograd: Option<Winograd>,
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

/// By how much packed weights may be more than the weights.
const PADDING: usize = 1 << 16;
/// Units of work, at least, for each worker.
const UNITS: usize = 6;
/// Floats of input that stay in the second-level cache while panels pass over them.
const BAND: usize = 96 << 10;

impl Conv {
    /// For images that arrive as `input` (blocked or planar) and leave blocked. With `scatter`, outputs are some pixels of a
    /// larger image, whose others are left alone. Its weights are still to come, packed as [`packing`](Self::packing) says.
    pub fn new(
        level: Level,
        shape: ConvShape,
        bias: Option<&[f32]>,
        input: Layout,
        scatter: Option<Scatter>,
    ) -> Result<Self, NdError> {
        let output = shape.check(bias.map(<[f32]>::len))?;
        let wrong = |reason: String| NdError { what: "conv", reason };
        if !matches!(input, Layout::Planar | Layout::Blocked) {
            return Err(wrong(format!("images that lie {input:?}")));
        }
        let whole = scatter.is_none();
        let scatter = scatter.unwrap_or(Scatter::none(output));
        let area = scatter.size[0].checked_mul(scatter.size[1]);
        let floats = area.and_then(|pixels| Layout::Blocked.floats(shape.outputs, pixels));
        if !scatter.holds(output) || floats.is_none_or(|n| n >= isize::MAX as usize / 4) {
            return Err(wrong(format!("{output:?} outputs in {scatter:?}")));
        }
        let winograd = whole && Winograd::suits(&shape, input, output);
        let winograd = winograd.then(|| Winograd::new(&shape, output));
        let form = if winograd.is_some() { Form::Winograd } else { Form::Floats };
        let (panels, _) = panels(level, &shape, input, form);
        let lanes = shape.lanes(input);
        let bias = pack_bias(&shape, lanes.unwrap_or(1), bias.unwrap_or_default())?;
        let most = dispatch(level, Tallest { pairs: lanes == Some(2) });
        let placed = |most| {
            let mut spots = shape.window.spots(most, most, whole);
            spots.iter_mut().for_each(|spot| spot.output = scatter.pixel(output[1], spot.output));
            spots
        };
        let widest = panels.iter().any(|panel| panel.blocks.len() > 2);
        let (spots, low_spots) = (placed(most), if widest { placed(TALLEST_WIDEST) } else { Vec::new() });
        let taps = Taps::of(&shape).filter(|_| lanes == Some(1));
        let strips = taps.filter(|_| whole).and_then(|taps| Strips::of(&shape, taps, output));
        let weights = Packed::pending(ConvPacking::new(level, &shape, input, form).floats());
        Ok(Self {
            level,
            shape,
            input,
            lies: [input, Layout::Blocked],
            lanes,
            output,
            scatter,
            form,
            weights,
            bias,
            panels,
            spots,
            low_spots,
            taps,
            strips,
            winograd,
        })
    }

    /// The same with inputs and weights rounded to bfloat16, where that gains: not where channels have outputs of their
    /// own, images are planar, or many tiles are transformed. Weights are still to come.
    pub fn in_bf16(self) -> Self {
        let transformed = self.winograd.as_ref().is_some_and(Winograd::beats_bf16);
        if self.lanes.is_some() || self.input != Layout::Blocked || transformed {
            return self;
        }
        let (level, shape, input, form) = (self.level, self.shape, self.input, Form::Pairs);
        let (panels, floats) = panels(level, &shape, input, form);
        Self { form, panels, winograd: None, weights: Packed::pending(floats), ..self }
    }

    /// The same for images that are read as `x` and made as `out`: as [`new`](Self::new) said, or in bfloat16
    /// ([`Layout::Halves`]), rounded once, after the activation. Fails where there is no such kernel.
    pub fn between(self, x: Layout, out: Layout) -> Result<Self, NdError> {
        let reads = x == self.input || x == Layout::Halves && self.takes_halves();
        let makes =
            out == Layout::Blocked || out == Layout::Halves && self.scatter == Scatter::none(self.output);
        if !reads || !makes {
            return Err(NdError { what: "conv", reason: format!("from {x:?} to {out:?}: {:?}", self.shape) });
        }
        Ok(Self { lies: [x, out], ..self })
    }

    /// How images lie that it reads, and those that it makes.
    pub fn lies(&self) -> [Layout; 2] {
        self.lies
    }

    /// Whether it reads images in bfloat16, at no more cost than floats.
    pub fn takes_halves(&self) -> bool {
        let form = match self.form {
            Form::Pairs => self.shape.channels.is_multiple_of(2),
            Form::Floats => self.strips.is_some(),
            Form::Winograd => true,
        };
        self.input == Layout::Blocked && form
    }

    /// Whether its inputs are floats that it rounds.
    fn rounds(&self) -> bool {
        self.is_bf16() && self.lies[0] != Layout::Halves
    }

    /// Whether inputs and weights are rounded to bfloat16.
    pub fn is_bf16(&self) -> bool {
        self.form == Form::Pairs
    }

    /// How its weights are packed.
    pub fn packing(&self) -> Packing {
        Packing::Conv(ConvPacking::new(self.level, &self.shape, self.input, self.form))
    }

    /// The same with these weights, which may be shared. Fails when they are of another size.
    pub fn with(self, weights: Packed) -> Result<Self, NdError> {
        if weights.floats() != self.weights.floats() {
            let reason = format!("{weights:?}, expected {:?}", self.weights);
            return Err(NdError { what: "conv", reason });
        }
        Ok(Self { weights, ..self })
    }

    /// The same with these weights, packed now. Fails when they are more or fewer than it takes.
    pub fn filled(self, weights: &[f32]) -> Result<Self, NdError> {
        self.weights.fill(Ok(self.packing().pack(weights)?));
        Ok(self)
    }

    /// Waits for the weights.
    fn ready(&self) -> Result<(), String> {
        self.weights.wait().map_err(ToString::to_string)
    }

    /// What it computes.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Window, groups, activation and what is added, in words.
    fn name(&self, residual: bool) -> String {
        let ConvShape { window, groups, act, .. } = &self.shape;
        let [ky, kx] = window.kernel;
        let groups = if *groups > 1 { " grouped" } else { "" };
        let residual = if residual { " + residual" } else { "" };
        let form = match self.form {
            Form::Floats => "",
            Form::Pairs => " bf16",
            Form::Winograd => " winograd",
        };
        format!("conv {ky}x{kx}{groups}{form}{residual} {}", act.name()).trim_end().into()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.floats() * size_of::<f32>()
    }

    /// Floats of an input and of an output image.
    pub fn floats(&self) -> (usize, usize) {
        let pixels = |[h, w]: [usize; 2]| h * w;
        let floats =
            |layout: Layout, channels, size| layout.floats(channels, pixels(size)).unwrap_or(usize::MAX);
        (
            floats(self.lies[0], self.shape.channels, self.shape.window.input),
            floats(self.lies[1], self.shape.outputs, self.scatter.size),
        )
    }

    /// Outputs that a panel's weights are laid out for.
    fn width(&self, panel: &Panel) -> usize {
        self.lanes.unwrap_or(panel.blocks.len()) * BLOCK
    }

    /// An image in the views.
    fn place(
        &self,
        image: usize,
        x: SharedMut<'_, f32>,
        residual: Option<SharedMut<'_, f32>>,
        out: SharedMut<'_, f32>,
    ) -> Place {
        let (input, output) = self.floats();
        let ([height, width], Scatter { size, stride, .. }) = (self.shape.window.input, self.scatter);
        let [x_pixel, out_pixel] = self.lies.map(Layout::pixel);
        Place {
            x: x.as_ptr().wrapping_add(image * input),
            x_width: width,
            x_plane: height * width * x_pixel,
            x_pixel,
            out: out.as_mut_ptr().wrapping_add(image * output),
            out_plane: size[0] * size[1] * out_pixel,
            out_pixel,
            out_pitch: [stride[0] * size[1] * out_pixel, stride[1] * out_pixel],
            residual: residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(image * output)),
        }
    }

    /// How many parts the spots and the panels are cut into, for so many images and workers.
    fn split(&self, images: usize, workers: usize) -> (usize, usize) {
        let (input, _) = self.floats();
        let weights = self.weights.floats();
        let wanted = if workers == 1 { 1 } else { UNITS * workers }.div_ceil(images.max(1));
        // Parts of the image read all weights each, parts of the panels all of the image.
        let cost = |&(spots, panels): &(usize, usize)| spots * weights + panels * input;
        let options = self.parts().map(|spots| (spots, wanted.div_ceil(spots).min(self.panels.len())));
        options.min_by_key(cost).unwrap_or((1, 1))
    }

    /// Into how many parts the spots may be cut.
    fn parts(&self) -> RangeInclusive<usize> {
        let least = self.floats().0.div_ceil(BAND).min(self.spots.len()).max(1);
        least..=self.spots.len().clamp(1, 64).max(least)
    }

    /// The spots of a part, for panels of one or two blocks and for those of three.
    fn part(&self, parts: usize, at: usize) -> [&[Spot]; 2] {
        let part = |spots: &'_ [Spot]| spots.len() * at / parts..spots.len() * (at + 1) / parts;
        [&self.spots[part(&self.spots)], &self.low_spots[part(&self.low_spots)]]
    }

    /// The first pixel that spots read, and the one behind the last; outputs without a tap in the image read none.
    fn pixels(&self, spots: [&[Spot]; 2]) -> Range<usize> {
        let Window { input: [_, width], stride, dilation, .. } = self.shape.window;
        let last = |spot: &Spot| {
            let step = if spot.upright { stride[0] * width } else { stride[1] };
            let taps = [0, 1].map(|i| spot.taps[i].len().saturating_sub(1) * dilation[i]);
            spot.input + (spot.pixels - 1) * step + taps[0] * width + taps[1]
        };
        let seeing = |spot: &&Spot| spot.taps.iter().all(|taps| !taps.is_empty());
        let all = || spots.into_iter().flatten().filter(seeing);
        let first = all().map(|spot| spot.input).min().unwrap_or(0);
        first..all().map(last).max().map_or(first, |last| last + 1)
    }

    /// Floats of the largest copy of rounded inputs.
    fn copied(&self) -> usize {
        if !self.rounds() {
            return 0;
        }
        let pixels = |parts: usize, at: usize| self.pixels(self.part(parts, at)).len();
        let most = self.parts().flat_map(|parts| (0..parts).map(move |at| pixels(parts, at))).max();
        copied(&self.shape, most.unwrap_or(0))
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

#[cfg(test)]
mod tests;
