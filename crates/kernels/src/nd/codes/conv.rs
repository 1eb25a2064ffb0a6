//! Convolutions and products of rows over codes, with packed weights and everything that follows fused.
//!
//! Sums are exact; see the module for what becomes of them. Images that need pixels around them, and rows, are copied band
//! by band into the worker's scratch; others are read in place.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, Level, dispatch};

use super::copy::{Band, Image};
use super::ending::{Ending, Padded, Result8};
use super::lanes::{LONGEST, Lanes, SLACK};
use super::pack::{CodePacking, Panel, panels};
use super::tile::{LINE, Tile, tallest, tiles};
use crate::arena::Span;
use crate::nd::NdError;
use crate::nd::gemm::Order;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::packed::{Packed, Packing};
use crate::nd::shape::{Window, cuts};
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

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

/// A product of codes: its weights in the order in which they are read, and how its outputs are cut into pieces.
#[derive(Debug)]
pub struct CodeConv {
    level: Level,
    shape: CodeShape,
    order: Order,
    /// How inputs and outputs lie: in blocks, or in rows.
    layouts: [Layout; 2],
    output: [usize; 2],
    /// The code of zero.
    zero: u8,
    ending: Padded,
    weights: Packed,
    panels: Vec<Panel>,
    /// Rows of outputs, or pieces of all of them where rows do not matter: first pixel and length.
    lines: Vec<Range<usize>>,
    /// Lines that are copied at a time, at most; none when inputs are read in place.
    copied: Option<usize>,
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
        let packing = CodePacking::new(level, &shape, order);
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
        let mut conv =
            Self { level, shape, order, layouts, output, zero, ending, weights, panels, lines, copied: None };
        if copies {
            let least = conv.bytes_of_input().div_ceil(BAND).clamp(1, conv.lines.len());
            conv.copied = Some(conv.lines.len().div_ceil(least));
        }
        Ok(conv)
    }

    /// How its weights are packed.
    pub fn packing(&self) -> Packing {
        Packing::Codes(CodePacking::new(self.level, &self.shape, self.order))
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
        // Parts of the image read all weights each, parts of the panels all of the image.
        let cost = |&(lines, panels): &(usize, usize)| lines * weights + panels * input;
        let options = (least..=self.lines.len().clamp(1, 64).max(least))
            .map(|lines| (lines, wanted.div_ceil(lines).min(self.panels.len())));
        options.min_by_key(cost).unwrap_or((1, 1))
    }

    fn name(&self) -> String {
        let CodeShape { window, groups, .. } = &self.shape;
        let [ky, kx] = window.kernel;
        let groups = if *groups > 1 { " grouped" } else { "" };
        let what =
            if self.layouts[0] == Layout::Rows { "gemm".into() } else { format!("conv {ky}x{kx}{groups}") };
        format!("{what} u8xs8{}", self.ending.name())
    }
}

/// What a product makes of images, or rows: `x` are codes, `out` codes or floats, as the product's ending says. `residual`
/// are the codes that it joins with.
pub fn code_conv(
    conv: Arc<CodeConv>,
    x: Span,
    residual: Option<Span>,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("conv of codes");
    let (input, output) = conv.elements();
    check.span::<u8>("x", &x, input)?;
    if conv.ending.codes() {
        check.span::<u8>("out", &out, output)?;
    } else {
        check.span::<f32>("out", &out, output)?;
    }
    check.same_rows("out", &out, &x)?;
    let joins = matches!(&conv.ending.result, Result8::Codes { join: Some(_), .. });
    check.that(joins == residual.is_some(), || "codes to join with are missing, or not wanted".into())?;
    if let Some(residual) = &residual {
        check.span::<u8>("residual", residual, output)?;
        check.same_rows("residual", residual, &x)?;
    }
    Ok(Box::new(ConvStep { conv, x, residual, out }))
}

struct ConvStep {
    conv: Arc<CodeConv>,
    x: Span,
    residual: Option<Span>,
    out: Span,
}

// SAFETY: touches its spans and its worker's scratch; each unit, some lines of some panels of an image, is one worker's.
unsafe impl Step for ConvStep {
    fn label(&self) -> String {
        self.conv.name()
    }

    fn spans(&self) -> Vec<Access> {
        let residual = self.residual.map(Access::Read);
        [Access::Read(self.x), Access::Write(self.out)].into_iter().chain(residual).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let images = self.x.rows.count(dims).unwrap_or(0);
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
        let images = ctx.rows(self.x.rows);
        let (line_parts, panel_parts) = conv.split(images, worker.count());
        let part = |count: usize, parts: usize, at: usize| count * at / parts..count * (at + 1) / parts;
        let (x, out) = (ctx.view(&self.x), ctx.bytes(&self.out));
        let residual = self.residual.map(|span| ctx.view(&span));
        let scratch = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, images * line_parts * panel_parts) {
            let (image, rest) = (unit / (line_parts * panel_parts), unit % (line_parts * panel_parts));
            let lines = part(conv.lines.len(), line_parts, rest % line_parts);
            let panels = part(conv.panels.len(), panel_parts, rest / line_parts);
            dispatch(conv.level, Job { conv, image, lines, panels, x, residual, out, scratch });
        }
    }
}

/// Some lines of some panels of an image.
struct Job<'a> {
    conv: &'a CodeConv,
    image: usize,
    lines: Range<usize>,
    panels: Range<usize>,
    x: SharedMut<'a, u8>,
    residual: Option<SharedMut<'a, u8>>,
    out: SharedMut<'a, u8>,
    scratch: SharedMut<'a, u8>,
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
        let shared = (!conv.shape.alone()).then(|| self.source(blocks(panels)));
        for panel in panels {
            let source = shared.unwrap_or_else(|| self.source(panel.inputs.clone()));
            self.panel(isa, panel, source);
        }
    }
}

impl Job<'_> {
    /// The inputs of the lines, copied where that is needed.
    fn source(&self, blocks: Range<usize>) -> Source {
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
        image.copy(band, blocks.clone(), conv.zero, scratch);
        let (row, plane) = (band.size[1] * BLOCK, band.pixels() * BLOCK);
        Source { at: self.scratch.as_ptr(), row, plane, block: blocks.start, first }
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
            for cut in cuts(pixels.len(), most) {
                let at = pixels.start + cut.start;
                let along = if flat { at - source.first } else { cut.start };
                let mut tile = first;
                tile.a = first.a.wrapping_add(row + along * first.pitch);
                tile.out = first.out.wrapping_add(at * first.out_pitch);
                tile.ahead = pieces.next().unwrap_or(std::ptr::null());
                if !first.residual.is_null() {
                    tile.residual = first.residual.wrapping_add(at * first.out_pitch);
                }
                if alone {
                    isa.dispatch(Lanes { tile, pixels: cut.len() });
                } else {
                    // SAFETY: the spans hold whole images (checked when the step was made), all taps of these pixels lie
                    // in what `source` says, and the outputs are this worker's.
                    unsafe { kernels.get(cut.len())(isa, &tile) };
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
        let sums = CodePacking::new(conv.level, &conv.shape, conv.order).bytes();
        let sums: &[i32] = bytemuck::cast_slice(&weights[sums..]);
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
        }
    }
}
