//! Planar images of few channels, as files and cameras give them, become blocked images of codes in one pass.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::ending::Recode;
use crate::arena::Span;
use crate::nd::layout::{BLOCK, Layout};
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Channels at most.
pub const FEW: usize = 4;
/// Pixels that a worker takes at a time.
const STRIP: usize = 1024;

/// `out = round(x / scale) + zero`, the nearest code: planar images of at most [`FEW`] channels, f32, to blocked codes. Rows of
/// the spans are images.
pub fn quantize_image(
    channels: usize,
    pixels: usize,
    scale: f32,
    to: Recode,
    [x, out]: [Span; 2],
) -> Result<Box<dyn Step>, StepError> {
    let check = Check("quantize image");
    check.that((1..=FEW).contains(&channels), || format!("{channels} channels"))?;
    let elements = |layout: Layout| layout.floats(channels, pixels).unwrap_or(usize::MAX);
    check.span::<f32>("x", &x, elements(Layout::Planar))?;
    check.span::<u8>("out", &out, elements(Layout::Blocked))?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(QuantizeImage { channels, pixels, scale, to, x, out }))
}

struct QuantizeImage {
    channels: usize,
    pixels: usize,
    scale: f32,
    to: Recode,
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each unit, a strip of an image, is made by one worker.
unsafe impl Step for QuantizeImage {
    fn label(&self) -> String {
        "quantize f32 to u8 blocks".into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 4096)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let strips = self.pixels.div_ceil(STRIP);
        let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<u8>(&self.out));
        for unit in worker.share(ctx.rows(self.x.rows) * strips, 1) {
            let (image, strip) = (unit / strips, unit % strips);
            let pixels = strip * STRIP..self.pixels.min((strip + 1) * STRIP);
            dispatch(ctx.level(), Strip { step: self, image, pixels, x, out });
        }
    }
}

struct Strip<'a> {
    step: &'a QuantizeImage,
    image: usize,
    pixels: Range<usize>,
    x: SharedMut<'a, f32>,
    out: SharedMut<'a, u8>,
}

impl Kernel for Strip<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let QuantizeImage { channels, pixels, scale, to, .. } = *self.step;
        let first = self.image * channels * pixels;
        // SAFETY: nobody writes the input meanwhile, and the strip is this worker's.
        let (x, out) = unsafe {
            let to = (self.image * pixels + self.pixels.start) * BLOCK;
            let x = self.x.part(first..first + channels * pixels);
            (x, self.out.part_mut(to..to + self.pixels.len() * BLOCK))
        };
        let scale = isa.splat(scale);
        for (i, out) in out.chunks_mut(I::LANES * BLOCK).enumerate() {
            let (at, count) = (self.pixels.start + i * I::LANES, out.len() / BLOCK);
            let mut words = isa.splat_i32(0);
            for channel in 0..channels {
                let from = channel * pixels + at;
                let number = isa.div(isa.load_part(&x[from..from + count]), scale);
                words = isa.or_i32(words, isa.shl_i32(to.code(isa, number), 8 * channel as u32));
            }
            let mut four = [0i32; BLOCK];
            // SAFETY: there are at most sixteen lanes.
            unsafe { isa.store_i32_ptr(words, four.as_mut_ptr()) };
            for (out, word) in out.chunks_exact_mut(BLOCK).zip(four) {
                out[..FEW].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}
