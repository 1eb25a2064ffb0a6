//! Convolutions one after the other, a band of rows at a time: what lies between them never leaves the cache.
//!
//! Each convolution reads a buffer of rows with zeros around them, so that all its outputs have all taps; the first one
//! may read its image in place. Buffers hold bfloat16 for those that multiply it. The next band keeps those rows of each
//! buffer that it needs as well. A value is the sum that the convolutions one by one would make, in the same order, and zeros times weights.

use std::ops::Range;
use std::sync::Arc;

use kinglet_simd::dispatch;

use super::pass::{Job, Pixels, Place, copied};
use super::taps::SLACK;
use super::{Conv, Scatter};
use crate::arena::Span;
use crate::nd::NdError;
use crate::nd::layout::{BLOCK, Layout};
use crate::nd::pairs::{Carry, PAIRS};
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Convolutions of a chain at most.
const LONGEST: usize = 8;
/// Floats of all buffers that stay in the second-level cache, with the weights.
const ROOM: usize = 96 << 10;
/// Bands that a worker takes at least before it takes a part of the image of its own, whose first rows cost more.
const BANDS: usize = 2;

/// Two to eight convolutions, each of which reads what the one before it made.
#[derive(Debug)]
pub struct ConvChain {
    stages: Vec<Stage>,
    /// Rows of the last output that are made at a time.
    band: usize,
    /// Floats of all buffers; behind them are rounded inputs.
    buffers: usize,
    floats: usize,
}

/// A convolution and the buffer that it reads.
#[derive(Debug)]
struct Stage {
    conv: Arc<Conv>,
    /// None for a first convolution that reads its image in place.
    buffer: Option<Buffer>,
}

/// Rows of an image with zeros around them: `[channel or block][rows][width]`.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    /// Where it begins in the scratch memory, in floats.
    at: usize,
    /// Channels, or blocks of them.
    planes: usize,
    rows: usize,
    /// Pixels of a row, zeros included, and how many zeros come first.
    width: usize,
    before: usize,
    /// Floats, blocked or planar, or bfloat16.
    layout: Layout,
}

impl Buffer {
    fn row(&self) -> usize {
        self.width * self.layout.pixel()
    }

    fn plane(&self) -> usize {
        self.rows * self.row()
    }
}

impl ConvChain {
    /// Joins convolutions that fit one another. Only the first may take planar images.
    pub fn new(convs: Vec<Arc<Conv>>) -> Result<Self, NdError> {
        let wrong = |reason: &str| NdError { what: "conv chain", reason: reason.into() };
        if !(2..=LONGEST).contains(&convs.len()) {
            return Err(wrong("two to eight convolutions are a chain"));
        }
        let fits = |pair: &[Arc<Conv>]| {
            let (a, b) = (&pair[0].shape, &pair[1].shape);
            a.outputs == b.channels && pair[0].output == b.window.input && pair[1].input == Layout::Blocked
        };
        if !convs.windows(2).all(fits) {
            return Err(wrong("a convolution does not take what the one before it makes"));
        }
        if convs.iter().any(|conv| conv.level != convs[0].level || conv.scatter != Scatter::none(conv.output))
        {
            return Err(wrong("instruction sets differ, or outputs are scattered"));
        }
        if convs.iter().any(|conv| conv.winograd.is_some()) {
            return Err(wrong("a convolution is computed by tiles of its own"));
        }
        let height = convs.last().map_or(1, |conv| conv.output[0]);
        let fitting = |band: &usize| floats(&convs, *band).is_some_and(|floats| floats <= ROOM);
        let band = (1..=height).rev().find(fitting).unwrap_or(1);
        let (stages, buffers, rounded) =
            stages(convs, band).ok_or_else(|| wrong("the buffers are too large"))?;
        let floats = buffers.checked_add(rounded).ok_or_else(|| wrong("the buffers are too large"))?;
        Ok(Self { stages, band, buffers, floats })
    }

    /// Whether its buffers stay in the cache, so that it is worth its while.
    pub fn fits(&self) -> bool {
        self.floats <= ROOM
    }

    /// Its convolutions.
    pub fn convs(&self) -> impl Iterator<Item = &Conv> {
        self.stages.iter().map(|stage| &*stage.conv)
    }

    fn first(&self) -> &Conv {
        &self.stages[0].conv
    }

    fn last(&self) -> &Conv {
        &self.stages[self.stages.len() - 1].conv
    }
}

/// Rows that the buffer before a convolution holds for so many rows of output.
fn needed(conv: &Conv, rows: &Range<usize>) -> Range<usize> {
    let window = &conv.shape.window;
    let taps = (window.kernel[0] - 1) * window.dilation[0] + 1;
    rows.start * window.stride[0]..(rows.end - 1) * window.stride[0] + taps
}

/// Those rows of the image that lie in rows `held` of the buffer.
fn inside(conv: &Conv, held: &Range<usize>) -> Range<usize> {
    let window = &conv.shape.window;
    let row = |at: usize| at.saturating_sub(window.before[0]).min(window.input[0]);
    row(held.start)..row(held.end)
}

/// Whether a convolution reads each pixel once, where it lies.
fn in_place(conv: &Conv) -> bool {
    conv.shape.window.pointwise()
}

fn floats(convs: &[Arc<Conv>], band: usize) -> Option<usize> {
    stages(convs.to_vec(), band).and_then(|(_, buffers, rounded)| buffers.checked_add(rounded))
}

/// The buffers for bands of so many rows, their floats with what may be read behind them, and the floats of rounded inputs.
fn stages(convs: Vec<Arc<Conv>>, band: usize) -> Option<(Vec<Stage>, usize, usize)> {
    let (mut rows, mut at, mut rounded, mut stages) = (band, 0usize, 0, Vec::new());
    for (index, conv) in convs.into_iter().enumerate().rev() {
        let (shape, blocked) = (conv.shape, conv.input == Layout::Blocked);
        let window = shape.window;
        let lines = needed(&conv, &(0..rows)).end;
        let buffer = (index > 0 || !in_place(&conv)).then_some(Buffer {
            at,
            planes: if blocked { shape.channels.div_ceil(BLOCK) } else { shape.channels },
            rows: lines,
            width: window.before[1] + window.input[1] + window.after[1],
            before: window.before[1],
            layout: if conv.is_bf16() && shape.channels.is_multiple_of(2) {
                Layout::Halves
            } else {
                conv.input
            },
        });
        if let Some(buffer) = &buffer {
            let plane = buffer.rows.checked_mul(buffer.width)?.checked_mul(buffer.layout.pixel())?;
            at = at.checked_add(plane.checked_mul(buffer.planes)?.checked_next_multiple_of(BLOCK)?)?;
        }
        // A last channel without a neighbour is rounded beside a zero.
        let floats = buffer.is_none_or(|buffer| buffer.layout != Layout::Halves);
        if conv.rounds() && floats {
            let width = buffer.map_or(window.input[1], |buffer| buffer.width);
            rounded = rounded.max(copied(&shape, lines.checked_mul(width)?));
        }
        rows = lines.min(window.input[0]);
        stages.push(Stage { conv, buffer });
    }
    stages.reverse();
    Some((stages, at.checked_add(SLACK)?.checked_next_multiple_of(BLOCK)?, rounded))
}

/// `out = convs(x)`, the last one with `residual` added before its activation. Rows of the spans are images, blocked but
/// for a planar `x`.
pub fn conv_chain(
    chain: Arc<ConvChain>,
    x: Span,
    residual: Option<Span>,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("conv chain");
    check.span::<f32>("x", &x, chain.first().floats().0)?;
    for (what, span) in [("out", Some(&out)), ("residual", residual.as_ref())] {
        let Some(span) = span else { continue };
        check.span::<f32>(what, span, chain.last().floats().1)?;
        check.same_rows(what, span, &x)?;
    }
    Ok(Box::new(ChainStep { chain, x, residual, out }))
}

struct ChainStep {
    chain: Arc<ConvChain>,
    x: Span,
    residual: Option<Span>,
    out: Span,
}

// SAFETY: touches its spans and scratch; each unit, some rows of an image, is made by one worker.
unsafe impl Step for ChainStep {
    fn label(&self) -> String {
        let names: Vec<String> = self.chain.convs().map(|conv| conv.name(false)).collect();
        let residual = if self.residual.is_some() { " + residual" } else { "" };
        format!("{}{residual}", names.join(", "))
    }

    fn spans(&self) -> Vec<Access> {
        let residual = self.residual.map(Access::Read);
        [Access::Read(self.x), Access::Write(self.out)].into_iter().chain(residual).collect()
    }

    fn needs(&self) -> Needs {
        Needs { worker_scratch: self.chain.floats * size_of::<f32>(), ..Needs::default() }
    }

    fn ready(&self) -> Result<(), String> {
        self.chain.convs().try_for_each(Conv::ready)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (chain, images) = (&*self.chain, ctx.rows(self.x.rows));
        let height = chain.last().output[0];
        let bands = height.div_ceil(chain.band);
        let parts = if worker.count() == 1 { 1 } else { (bands / BANDS).clamp(1, 2 * worker.count()) };
        // As many parts as workers at least, where there are rows enough.
        let parts = parts.max(worker.count().min(height));
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        let residual = self.residual.map(|span| ctx.view(&span));
        let scratch = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, images * parts) {
            let (image, part) = (unit / parts, unit % parts);
            let rows = height * part / parts..height * (part + 1) / parts;
            let part = Part { chain, image, x, residual, out, scratch };
            // SAFETY: the spans hold whole images (checked when the step was made), the scratch is this worker's, and so
            // are these rows of the output.
            unsafe { part.run(rows) };
        }
    }
}

/// Some rows of the last output of an image.
struct Part<'a> {
    chain: &'a ConvChain,
    image: usize,
    x: SharedMut<'a, f32>,
    residual: Option<SharedMut<'a, f32>>,
    out: SharedMut<'a, f32>,
    scratch: SharedMut<'a, f32>,
}

/// Rows that each buffer holds.
type Held = [Range<usize>; LONGEST];

impl Part<'_> {
    /// # Safety
    /// The views hold whole images; the scratch and these rows of the output are this worker's.
    unsafe fn run(&self, rows: Range<usize>) {
        assert!(self.chain.floats <= self.scratch.len(), "room for the buffers");
        let mut held: Held = Default::default();
        // SAFETY: by the caller's promise, here and below.
        self.buffers().for_each(|buffer| unsafe { self.clear_edges(buffer) });
        let mut start = rows.start;
        while start < rows.end {
            let band = start..rows.end.min(start + self.chain.band);
            // SAFETY: as above.
            unsafe { self.band(&band, &mut held) };
            start = band.end;
        }
    }

    fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.chain.stages.iter().filter_map(|stage| stage.buffer.as_ref())
    }

    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn band(&self, band: &Range<usize>, held: &mut Held) {
        let stages = &self.chain.stages;
        // For each convolution, from the last one: the rows that it makes now, and those that its buffer will hold.
        let mut made: Held = Default::default();
        let mut wanted: Held = Default::default();
        let mut rows = band.clone();
        for (i, stage) in stages.iter().enumerate().rev() {
            made[i] = rows.clone();
            if rows.is_empty() {
                continue;
            }
            wanted[i] = needed(&stage.conv, &rows);
            wanted[i].start = wanted[i].start.max(held[i].start);
            let new = wanted[i].start.max(held[i].end)..wanted[i].end;
            rows = inside(&stage.conv, &new);
        }
        for (i, stage) in stages.iter().enumerate() {
            if made[i].is_empty() {
                continue;
            }
            // SAFETY: by the caller's promise.
            unsafe {
                if let Some(buffer) = &stage.buffer {
                    self.keep(buffer, &held[i], &wanted[i]);
                    self.clear_rows(buffer, &stage.conv, &held[i], &wanted[i]);
                    if i == 0 {
                        self.copy_rows(buffer, &stage.conv, &held[i], &wanted[i]);
                    }
                }
            }
            held[i] = wanted[i].clone();
        }
        for (i, made) in made.iter().enumerate().filter(|(_, made)| !made.is_empty()) {
            // SAFETY: the buffer before holds what these rows need, as the buffers' sizes were chosen for it.
            unsafe { self.stage(i, made, held) };
        }
    }

    /// Computes rows `made` of convolution `i`.
    ///
    /// # Safety
    /// As for [`run`](Self::run); the buffers hold the rows `held`, of which those that `i` writes are free.
    unsafe fn stage(&self, i: usize, made: &Range<usize>, held: &Held) {
        let stages = &self.chain.stages;
        let conv = &*stages[i].conv;
        let images = conv.place(0, self.x, None, self.out);
        let stride = conv.shape.window.stride[0];
        let (x, x_width, x_plane, x_pixel) = match &stages[i].buffer {
            Some(buffer) => {
                let row = made.start * stride - held[i].start;
                let x = self.scratch.as_ptr().wrapping_add(buffer.at + row * buffer.row());
                (x, buffer.width, buffer.plane(), buffer.layout.pixel())
            }
            None => {
                let from = self.image * conv.floats().0 + made.start * images.x_width * images.x_pixel;
                (images.x.wrapping_add(from), images.x_width, images.x_plane, images.x_pixel)
            }
        };
        let (out, out_width, out_plane, out_pixel, residual) = match stages.get(i + 1) {
            Some(Stage { conv: next, buffer: Some(buffer) }) => {
                let row = made.start + next.shape.window.before[0] - held[i + 1].start;
                let pixel = buffer.layout.pixel();
                let at = buffer.at + (row * buffer.width + buffer.before) * pixel;
                let out = self.scratch.as_mut_ptr().wrapping_add(at);
                (out, buffer.width, buffer.plane(), pixel, std::ptr::null())
            }
            _ => {
                let width = conv.output[1];
                let at = self.image * conv.floats().1 + made.start * width * images.out_pixel;
                let residual = self.residual.map_or(std::ptr::null(), |r| r.as_ptr().wrapping_add(at));
                let out = self.out.as_mut_ptr().wrapping_add(at);
                (out, width, images.out_plane, images.out_pixel, residual)
            }
        };
        let out_pitch = [out_width * out_pixel, out_pixel];
        let mut place =
            Place { x, x_width, x_plane, x_pixel, out, out_plane, out_pixel, out_pitch, residual };
        if conv.is_bf16() && x_pixel != PAIRS {
            let pixels = 0..needed(conv, &(0..made.len())).end * x_width;
            let copy = self.scratch.as_mut_ptr().wrapping_add(self.chain.buffers);
            // SAFETY: the buffer, or the image, holds the rows that these read; the scratch has room for a band of them.
            place = unsafe { place.rounded(conv, pixels, copy) };
        }
        let pixels = Pixels::Rows { rows: made.len(), out_width };
        // SAFETY: by the caller's promise.
        let job = unsafe { Job { conv, place, pixels, panels: 0..conv.panels.len() }.vouched() };
        dispatch(conv.level, job);
    }

    /// Zeroes the pixels before and behind each row.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn clear_edges(&self, buffer: &Buffer) {
        let inside = self.chain.stages.iter().find(|stage| stage.buffer.is_some_and(|b| b.at == buffer.at));
        let Some(width) = inside.map(|stage| stage.conv.shape.window.input[1]) else { return };
        let (pixel, before) = (buffer.layout.pixel(), buffer.before);
        let behind = (before + width) * pixel;
        for row in 0..buffer.planes * buffer.rows {
            // SAFETY: the row lies within the scratch.
            unsafe {
                let row = self.scratch.as_mut_ptr().add(buffer.at + row * buffer.row());
                row.write_bytes(0, before * pixel);
                row.add(behind).write_bytes(0, buffer.row() - behind);
            }
        }
    }

    /// Moves the rows that the buffer holds and goes on to hold to its beginning.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn keep(&self, buffer: &Buffer, held: &Range<usize>, wanted: &Range<usize>) {
        let kept = held.end.saturating_sub(wanted.start);
        if kept == 0 || held.start == wanted.start {
            return;
        }
        for plane in 0..buffer.planes {
            // SAFETY: the rows lie within the scratch.
            unsafe {
                let to = self.scratch.as_mut_ptr().add(buffer.at + plane * buffer.plane());
                let from = to.add((wanted.start - held.start) * buffer.row());
                from.copy_to(to, kept * buffer.row());
            }
        }
    }

    /// Zeroes those new rows that lie outside of the image.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn clear_rows(&self, buffer: &Buffer, conv: &Conv, held: &Range<usize>, wanted: &Range<usize>) {
        let (before, height) = (conv.shape.window.before[0], conv.shape.window.input[0]);
        for row in wanted.start.max(held.end)..wanted.end {
            if (before..before + height).contains(&row) {
                continue;
            }
            for plane in 0..buffer.planes {
                let at = buffer.at + plane * buffer.plane() + (row - wanted.start) * buffer.row();
                // SAFETY: the row lies within the scratch.
                unsafe { self.scratch.as_mut_ptr().add(at).write_bytes(0, buffer.row()) };
            }
        }
    }

    /// Copies the new rows of the first buffer from the image.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn copy_rows(&self, buffer: &Buffer, conv: &Conv, held: &Range<usize>, wanted: &Range<usize>) {
        let window = &conv.shape.window;
        let [height, width] = window.input;
        let (lies, becomes) = (conv.lies[0], buffer.layout);
        let row = width * lies.pixel();
        let image = self.image * conv.floats().0;
        for y in inside(conv, &(wanted.start.max(held.end)..wanted.end)) {
            let to = buffer.at + (y + window.before[0] - wanted.start) * buffer.row();
            for plane in 0..buffer.planes {
                // SAFETY: the row lies within the image, and its place within the scratch.
                unsafe {
                    let from = self.x.as_ptr().add(image + (plane * height + y) * row);
                    let to = to + plane * buffer.plane() + buffer.before * becomes.pixel();
                    Carry { from, lies, to: self.scratch.as_mut_ptr().add(to), becomes }
                        .run(conv.level, width);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
