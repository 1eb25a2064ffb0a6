//! Convolutions and products of rows over codes, with packed weights and everything that follows fused.
//!
//! Sums are exact; see the module for what becomes of them. Images that need pixels around them, and rows, are copied band
//! by band into the worker's scratch; others are read in place.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::{Level, dispatch};

use super::copy::Band;
use super::ending::{Ending, Padded, Result8};
use super::job::Job;
use super::lanes::SLACK;
use super::pack::{CodePacking, Panel, panels};
use crate::Worker;
use crate::arena::Span;
use crate::nd::NdError;
use crate::nd::gemm::Order;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::packed::{Packed, Packing};
use crate::nd::shape::{Window, cuts};
use crate::nd::strided::fixed;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};

/// What a product of codes computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeShape {
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub outputs: usize,
    /// Equal parts of both that have nothing to do with each other.
    pub groups: usize,
    /// The window.
    pub window: Window,
}

impl CodeShape {
    /// Rows of `k` codes times a matrix with `n` outputs.
    pub fn rows(rows: usize, k: usize, n: usize) -> Self {
        Self { channels: k, outputs: n, groups: 1, window: Window::square([1, rows], 1, 1, 0) }
    }

    /// Whether each channel has one output of its own.
    pub(super) fn alone(&self) -> bool {
        self.groups > 1 && self.groups == self.channels && self.groups == self.outputs
    }

    /// Multiply-adds for one image.
    pub fn multiply_adds(&self) -> usize {
        let [height, width] = self.window.output().unwrap_or_default();
        let [ky, kx] = self.window.kernel;
        height * width * self.outputs * (self.channels / self.groups.max(1)) * ky * kx
    }

    fn check(&self) -> Result<[usize; 2], NdError> {
        let wrong = |what: &str| NdError { what: "conv of codes", reason: format!("{what}: {self:?}") };
        let output = self.window.output().ok_or_else(|| wrong("the window does not fit"))?;
        let whole = |n: usize| n > 0 && n.checked_rem(self.groups) == Some(0);
        if !whole(self.channels) || !whole(self.outputs) {
            return Err(wrong("channels do not fill the groups"));
        }
        let deep = [self.channels, self.window.kernel[0], self.window.kernel[1]];
        // Sums of so many products of bytes fit 32 bits.
        let deep = deep.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if deep.is_none_or(|n| n > 1 << 16) {
            return Err(wrong("too many products for a sum"));
        }
        let padded = |i: usize| self.window.input[i] + self.window.before[i] + self.window.after[i];
        let area = padded(0).checked_mul(padded(1)).and_then(|n| n.checked_mul(8 * (self.channels + BLOCK)));
        let out = output[0].checked_mul(output[1]).and_then(|n| n.checked_mul(8 * (self.outputs + BLOCK)));
        if area.is_none_or(|n| n > isize::MAX as usize) || out.is_none_or(|n| n > isize::MAX as usize) {
            return Err(wrong("the image is too large"));
        }
        Ok(output)
    }
}

/// For what codes have a scale and a zero of their own, where numbers were rounded to codes as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scales {
    /// All of them together.
    One,
    /// Each image.
    Images,
    /// Each pixel, or row.
    Pixels,
}

/// A product of codes: its weights in the order in which they are read, and how its outputs are cut into pieces.
#[derive(Debug)]
pub struct CodeConv {
    pub(super) level: Level,
    pub(super) shape: CodeShape,
    pub(super) order: Order,
    /// How inputs and outputs lie: in blocks, or in rows.
    pub(super) layouts: [Layout; 2],
    pub(super) output: [usize; 2],
    /// The code of zero.
    pub(super) zero: u8,
    pub(super) ending: Padded,
    pub(super) weights: Packed,
    pub(super) panels: Vec<Panel>,
    /// Rows of outputs, or pieces of all of them where rows do not matter: first pixel and length.
    pub(super) lines: Vec<Range<usize>>,
    /// Lines that are copied at a time, at most; none when inputs are read in place.
    pub(super) copied: Option<usize>,
    /// Where numbers were rounded as they came: what has a scale of its own.
    pub(super) scales: Option<Scales>,
    /// Whether weights are numbers that packing rounds.
    pub(super) rounds: bool,
}

/// Units of work, at least, for each worker.
const UNITS: usize = 4;
/// Bytes of input that stay in the second-level cache while panels pass over them.
const BAND: usize = 192 << 10;
/// Pixels of a piece where rows do not matter.
const PIECE: usize = 84;

impl CodeConv {
    /// For codes whose zero is `zero`. `layouts` are those of inputs and outputs, blocked or rows. The weights, signed bytes
    /// in `order`, are still to come, packed as [`packing`](Self::packing) says.
    pub fn new(
        level: Level,
        shape: CodeShape,
        order: Order,
        layouts: [Layout; 2],
        zero: u8,
        ending: Ending,
    ) -> Result<Self, NdError> {
        let output = shape.check()?;
        let wrong = |reason: String| NdError { what: "conv of codes", reason };
        let pixel = shape.window.kernel == [1, 1];
        if layouts.contains(&Layout::Planar)
            || (order == Order::Inputs && !(pixel && shape.groups == 1))
            || (shape.alone() && layouts[1] == Layout::Rows)
        {
            return Err(wrong(format!("{shape:?} {order:?} {layouts:?}")));
        }
        let ending = Padded::new(ending, shape.outputs)?;
        let packing = CodePacking::new(level, &shape, order, false);
        let [height, width] = output;
        let lines: Vec<Range<usize>> = if shape.window.pointwise() {
            cuts(height * width, PIECE).collect()
        } else {
            (0..height).map(|y| y * width..(y + 1) * width).collect()
        };
        let around = shape.window.before != [0, 0] || shape.window.after != [0, 0];
        let copies = around || shape.alone() || layouts[0] == Layout::Rows;
        let weights = Packed::pending(packing.floats());
        let (panels, _) = panels(level, &shape);
        let mut conv = Self {
            level,
            shape,
            order,
            layouts,
            output,
            zero,
            ending,
            weights,
            panels,
            lines,
            copied: None,
            scales: None,
            rounds: false,
        };
        if copies {
            let least = conv.bytes_of_input().div_ceil(BAND).clamp(1, conv.lines.len());
            conv.copied = Some(conv.lines.len().div_ceil(least));
        }
        Ok(conv)
    }

    /// The same for codes whose scales, and zeros, steps find out. With `rounds`, weights are numbers that are rounded to
    /// signed bytes when they are packed, with a scale for each output. Fails for products that make codes, and for scales of
    /// pixels under windows that see several.
    pub fn rounded(self, scales: Scales, rounds: bool) -> Result<Self, NdError> {
        let several = scales == Scales::Pixels && !self.shape.window.pointwise();
        if self.ending.codes() || several {
            let reason = format!("{scales:?} for {:?}", self.shape);
            return Err(NdError { what: "conv of codes", reason });
        }
        let mut conv = Self { scales: Some(scales), rounds, ..self };
        conv.weights = Packed::pending(conv.code_packing().floats());
        Ok(conv)
    }

    pub(super) fn code_packing(&self) -> CodePacking {
        CodePacking::new(self.level, &self.shape, self.order, self.rounds)
    }

    /// How its weights are packed.
    pub fn packing(&self) -> Packing {
        Packing::Codes(self.code_packing())
    }

    /// The same with these weights, which may be shared. Fails when they are of another size.
    pub fn with(self, weights: Packed) -> Result<Self, NdError> {
        if weights.floats() != self.weights.floats() {
            let reason = format!("{weights:?}, expected {:?}", self.weights);
            return Err(NdError { what: "conv of codes", reason });
        }
        Ok(Self { weights, ..self })
    }

    /// What it computes.
    pub fn shape(&self) -> &CodeShape {
        &self.shape
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.floats() * size_of::<f32>()
    }

    /// Whether it stores codes, not floats.
    pub fn makes_codes(&self) -> bool {
        self.ending.codes()
    }

    /// Codes of an input image, and elements of an output image.
    pub fn elements(&self) -> (usize, usize) {
        let CodeShape { channels, outputs, window, .. } = &self.shape;
        let elements =
            |i: usize, n, [h, w]: [usize; 2]| self.layouts[i].floats(n, h * w).unwrap_or(usize::MAX);
        (elements(0, *channels, window.input), elements(1, *outputs, self.output))
    }

    fn bytes_of_input(&self) -> usize {
        let [height, width] = self.shape.window.input;
        let blocks = if self.shape.alone() { 1 } else { self.shape.channels.div_ceil(BLOCK) };
        height * width * blocks * BLOCK
    }

    /// Bytes that a worker copies inputs to.
    fn scratch(&self) -> usize {
        let Some(lines) = self.copied else { return 0 };
        let most = self.panels.iter().map(|panel| panel.inputs.len()).max().unwrap_or(0);
        let blocks = if self.shape.alone() { most } else { self.shape.channels.div_ceil(BLOCK) };
        let pixels = if self.shape.window.pointwise() {
            lines * PIECE
        } else {
            Band::of(&self.shape, 0..lines, self.output[1]).pixels()
        };
        pixels * blocks * BLOCK + SLACK
    }

    /// How many parts the lines and the panels are cut into, for so many images and workers.
    fn split(&self, images: usize, workers: usize) -> (usize, usize) {
        let wanted = if workers == 1 { 1 } else { UNITS * workers }.div_ceil(images.max(1));
        let least = self.copied.map_or(1, |lines| self.lines.len().div_ceil(lines));
        let (weights, input) = (self.bytes(), self.elements().0);
        if self.shape.alone() {
            let panels = self.panels.len();
            return (least.max(wanted.div_ceil(panels).min(self.lines.len())), panels);
        }
        // Parts of the image read all weights each, parts of the panels all of the image. Units for everyone come first.
        let cost = |&(lines, panels): &(usize, usize)| {
            (wanted.saturating_sub(lines * panels), lines * weights + panels * input)
        };
        let options = (least..=self.lines.len().clamp(1, 64).max(least))
            .map(|lines| (lines, wanted.div_ceil(lines).min(self.panels.len())));
        options.min_by_key(cost).unwrap_or((1, 1))
    }

    fn name(&self) -> String {
        let CodeShape { window, groups, .. } = &self.shape;
        let [ky, kx] = window.kernel;
        let groups = if *groups > 1 { " grouped" } else { "" };
        let what =
            if self.layouts[1] == Layout::Rows { "gemm".into() } else { format!("conv {ky}x{kx}{groups}") };
        format!("{what} u8xs8{}", self.ending.name())
    }
}

/// What a product reads and makes. Rows of the spans are images, or there is one for all rows of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct CodeSpans {
    /// Codes.
    pub x: Span,
    /// Scale and zero of each image, pixel or of all, as [`dynamic`](super::dynamic) leaves them; only for products that want
    /// them.
    pub given: Option<Span>,
    /// Codes that the product's ending joins with, or floats that are added before the activation.
    pub residual: Option<Span>,
    /// Codes or floats, as the ending says.
    pub out: Span,
}

/// What a product makes of images, or rows.
pub fn code_conv(conv: Arc<CodeConv>, spans: CodeSpans) -> Result<Box<dyn Step>, StepError> {
    let CodeSpans { x, given, residual, out } = spans;
    let check = Check("conv of codes");
    let (input, output) = conv.elements();
    check.span::<u8>("x", &x, input)?;
    let made = |what: &'static str, span: &Span| {
        let typed = match conv.ending.codes() {
            true => check.span::<u8>(what, span, output),
            false => check.span::<f32>(what, span, output),
        };
        typed.and_then(|()| check.same_rows(what, span, &x))
    };
    made("out", &out)?;
    if let Some(residual) = &residual {
        made("residual", residual)?;
    }
    if let Result8::Codes { join, .. } = &conv.ending.result {
        let fits = join.is_some() == residual.is_some();
        check.that(fits, || "codes to join with are missing, or not wanted".into())?;
    }
    check.that(given.is_some() == conv.scales.is_some(), || "scales are missing, or not wanted".into())?;
    if let (Some(given), Some(scales)) = (&given, conv.scales) {
        check.span::<f32>("given", given, given.cols)?;
        let images = x.rows.count(&[]);
        let pairs = match scales {
            Scales::One => Some(1),
            Scales::Images => images,
            Scales::Pixels => images.and_then(|n| n.checked_mul(conv.output[0] * conv.output[1])),
        };
        let enough = pairs.zip(fixed(given)).is_some_and(|(pairs, floats)| pairs <= floats / 2);
        check.that(enough, || format!("{given:?} are not the scales of {scales:?}"))?;
    }
    Ok(Box::new(ConvStep { conv, spans }))
}

struct ConvStep {
    conv: Arc<CodeConv>,
    spans: CodeSpans,
}

// SAFETY: touches its spans and its worker's scratch; each unit, some lines of some panels of an image, is one worker's.
unsafe impl Step for ConvStep {
    fn label(&self) -> String {
        self.conv.name()
    }

    fn spans(&self) -> Vec<Access> {
        let CodeSpans { x, given, residual, out } = self.spans;
        let more = [given, residual].into_iter().flatten().map(Access::Read);
        [Access::Read(x), Access::Write(out)].into_iter().chain(more).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let images = self.spans.x.rows.count(dims).unwrap_or(0);
        self.conv.shape.multiply_adds().saturating_mul(images) <= 1 << 16
    }

    fn needs(&self) -> Needs {
        Needs { worker_scratch: self.conv.scratch(), ..Needs::default() }
    }

    fn ready(&self) -> Result<(), String> {
        self.conv.weights.wait().map_err(ToString::to_string)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let conv = &*self.conv;
        let spans = &self.spans;
        let images = ctx.rows(spans.x.rows);
        let (line_parts, panel_parts) = conv.split(images, worker.count());
        let part = |count: usize, parts: usize, at: usize| count * at / parts..count * (at + 1) / parts;
        let (x, out) = (ctx.view(&spans.x), ctx.bytes(&spans.out));
        let residual = spans.residual.map(|span| ctx.bytes(&span));
        let given = spans.given.map(|span| ctx.view(&span));
        let scratch = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, images * line_parts * panel_parts) {
            let (image, rest) = (unit / (line_parts * panel_parts), unit % (line_parts * panel_parts));
            let lines = part(conv.lines.len(), line_parts, rest % line_parts);
            let panels = part(conv.panels.len(), panel_parts, rest / line_parts);
            dispatch(conv.level, Job { conv, image, lines, panels, x, given, residual, out, scratch });
        }
    }
}
