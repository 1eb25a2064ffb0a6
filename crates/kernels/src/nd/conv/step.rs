//! The step of a convolution: how its work is cut into units, and what each worker needs for them.

use std::sync::Arc;

use kinglet_simd::dispatch;

use super::pass::{Job, Pixels, Place, copied};
use super::strips::{Strip, Strips};
use super::winograd::{Group, Winograd};
use super::{Conv, Spot};
use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

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
        self.conv.name(self.residual.is_some())
    }

    fn spans(&self) -> Vec<Access> {
        let residual = self.residual.map(Access::Read);
        [Access::Read(self.x), Access::Write(self.out)].into_iter().chain(residual).collect()
    }

    fn serial(&self, dims: &[usize]) -> bool {
        let images = self.x.rows.count(dims).unwrap_or(0);
        self.conv.shape.multiply_adds().saturating_mul(images) <= 1 << 15
    }

    fn needs(&self) -> Needs {
        let strips = self.conv.strips.map_or(0, |strips| strips.floats);
        let floats = self.conv.winograd.as_ref().map_or(strips, Winograd::floats).max(self.conv.copied());
        Needs { worker_scratch: floats * size_of::<f32>(), ..Needs::default() }
    }

    fn ready(&self) -> Result<(), String> {
        self.conv.ready()
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let images = ctx.rows(self.x.rows);
        if let Some(strips) = self.conv.strips {
            // SAFETY: the same promise.
            return unsafe { self.run_strips(strips, images, ctx, worker) };
        }
        if let Some(winograd) = &self.conv.winograd {
            // SAFETY: the same promise.
            return unsafe { self.run_winograd(winograd, images, ctx, worker) };
        }
        // SAFETY: the same promise.
        unsafe { self.run_spots(images, ctx, worker) };
    }
}

impl ConvStep {
    /// # Safety
    /// As for [`Step::run`].
    unsafe fn run_spots(&self, images: usize, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let conv = &*self.conv;
        let (parts, panel_parts) = conv.split(images, worker.count());
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        let residual = self.residual.map(|span| ctx.view(&span));
        let mut rounded = conv.rounds().then(|| Rounded { copy: ctx.worker_scratch(worker), held: None });
        while let Some(unit) = ctx.take_near(worker, images * parts * panel_parts) {
            let (image, rest) = (unit / (parts * panel_parts), unit % (parts * panel_parts));
            // Neighbouring units share what costs more to bring.
            let (part, some) = match rounded {
                Some(_) => (rest / panel_parts, rest % panel_parts),
                None => (rest % parts, rest / parts),
            };
            let panels = conv.panels.len() * some / panel_parts..conv.panels.len() * (some + 1) / panel_parts;
            let spots = conv.part(parts, part);
            let place = conv.place(image, x, residual, out);
            // SAFETY: the spans hold whole images (checked when the step was made), the window's taps of these spots lie
            // within the input, and this unit's outputs and the copy are this worker's.
            let job = unsafe {
                let place = match &mut rounded {
                    Some(rounded) => rounded.place(conv, place, spots, (image, part)),
                    None => place,
                };
                Job { conv, place, pixels: Pixels::Spots(spots[0], spots[1]), panels }.vouched()
            };
            dispatch(conv.level, job);
        }
    }
}

/// A worker's copy of inputs in bfloat16.
struct Rounded<'a> {
    copy: SharedMut<'a, f32>,
    /// Which part of which image it holds, and the place that it gives.
    held: Option<((usize, usize), Place)>,
}

impl Rounded<'_> {
    /// The place with its inputs rounded, those of `spots`, unless the copy holds them.
    ///
    /// # Safety
    /// The place holds the inputs of these spots, and the copy is the caller's.
    unsafe fn place(&mut self, conv: &Conv, place: Place, spots: [&[Spot]; 2], key: (usize, usize)) -> Place {
        if let Some((held, last)) = &self.held
            && *held == key
        {
            return Place { x: last.x, x_plane: last.x_plane, x_pixel: last.x_pixel, ..place };
        }
        let pixels = conv.pixels(spots);
        assert!(copied(&conv.shape, pixels.len()) <= self.copy.len(), "room for rounded inputs");
        // SAFETY: by the caller's promise; there is room, and the conv's level is there.
        let place = unsafe { place.rounded(conv, pixels, self.copy.as_mut_ptr()) };
        self.held = Some((key, place));
        place
    }
}

impl ConvStep {
    /// # Safety
    /// As for [`Step::run`].
    unsafe fn run_strips(&self, strips: Strips, images: usize, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let conv = &*self.conv;
        let (blocks, count) = (conv.panels.len(), strips.count(conv.output));
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        let residual = self.residual.map(|span| ctx.view(&span));
        let copy = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, images * blocks * count) {
            let (image, block) = (unit / count / blocks, unit % blocks);
            let rows = strips.rows(conv.output, unit / blocks % count);
            // SAFETY: the spans hold whole images (checked when the step was made), and each strip is one worker's.
            unsafe { Strip { conv, strips, image, block, rows, x, residual, out, copy }.run() };
        }
    }

    /// # Safety
    /// As for [`Step::run`].
    unsafe fn run_winograd(&self, winograd: &Winograd, images: usize, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let conv = &*self.conv;
        let [parts, panel_parts] = winograd.split(conv.panels.len(), images, worker.count());
        let (x, out) = (ctx.view(&self.x), ctx.view(&self.out));
        let residual = self.residual.map(|span| ctx.view(&span));
        let scratch = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, images * parts * panel_parts) {
            let (image, rest) = (unit / panel_parts / parts, unit % panel_parts);
            let tiles = winograd.tiles(parts, unit / panel_parts % parts);
            let panels = conv.panels.len() * rest / panel_parts..conv.panels.len() * (rest + 1) / panel_parts;
            // SAFETY: the spans hold whole images (checked when the step was made), and each tile of a panel is one
            // worker's.
            unsafe { Group { conv, winograd, image, tiles, panels, x, residual, out, scratch }.run() };
        }
    }
}
