//! Numbers to codes, codes to numbers, codes to other codes: element by element, in whatever layout.

use std::sync::Arc;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::ending::Recode;
use crate::Worker;
use crate::arena::Span;
use crate::step::{Access, Check, Step, StepCtx, StepError};

/// Elements of a worker's share that are taken at a time, at least.
const GRAIN: usize = 2048;

/// `out = round(x / scale) + zero`, the nearest code: f32 to codes, as many.
pub fn quantize(x: Span, out: Span, scale: f32, to: Recode) -> Result<Box<dyn Step>, StepError> {
    let check = Check("quantize");
    check.span::<f32>("x", &x, x.cols)?;
    check.span::<u8>("out", &out, x.cols)?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Map { what: What::Quantize { scale, to }, x, out }))
}

/// `out = (x - zero) * scale`: codes to f32, as many.
pub fn dequantize(x: Span, out: Span, scale: f32, zero: u8) -> Result<Box<dyn Step>, StepError> {
    let check = Check("dequantize");
    check.span::<u8>("x", &x, x.cols)?;
    check.span::<f32>("out", &out, x.cols)?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Map { what: What::Dequantize { scale, zero }, x, out }))
}

/// `out = table[x]`, as many.
pub fn translate(x: Span, out: Span, table: Arc<[u8; 256]>) -> Result<Box<dyn Step>, StepError> {
    let check = Check("translate");
    check.span::<u8>("x", &x, x.cols)?;
    check.span::<u8>("out", &out, x.cols)?;
    check.same_rows("x and out", &x, &out)?;
    Ok(Box::new(Map { what: What::Translate(table), x, out }))
}

#[derive(Clone)]
enum What {
    Quantize { scale: f32, to: Recode },
    Dequantize { scale: f32, zero: u8 },
    Translate(Arc<[u8; 256]>),
}

struct Map {
    what: What,
    x: Span,
    out: Span,
}

// SAFETY: touches its two spans; each worker writes its own share of `out`.
unsafe impl Step for Map {
    fn label(&self) -> String {
        match self.what {
            What::Quantize { .. } => "quantize f32 to u8",
            What::Dequantize { .. } => "dequantize u8 to f32",
            What::Translate(_) => "translate u8",
        }
        .into()
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, dims: &[usize]) -> bool {
        self.x.len(dims).is_none_or(|len| len <= 2 * GRAIN)
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let total = ctx.rows(self.x.rows) * self.x.cols;
        let share = worker.share(total, GRAIN);
        // SAFETY: shares are disjoint, and `x` is only read.
        unsafe {
            match &self.what {
                What::Quantize { scale, to } => {
                    let (x, out) = (ctx.view::<f32>(&self.x), ctx.view::<u8>(&self.out));
                    let (x, out) = (x.part(share.clone()), out.part_mut(share));
                    dispatch(ctx.level(), Quantize { x, out, scale: *scale, to: *to });
                }
                What::Dequantize { scale, zero } => {
                    let (x, out) = (ctx.view::<u8>(&self.x), ctx.view::<f32>(&self.out));
                    let (x, out) = (x.part(share.clone()), out.part_mut(share));
                    dispatch(ctx.level(), Dequantize { x, out, scale: *scale, zero: *zero });
                }
                What::Translate(table) => {
                    let (x, out) = (ctx.view::<u8>(&self.x), ctx.view::<u8>(&self.out));
                    let (x, out) = (x.part(share.clone()), out.part_mut(share));
                    dispatch(ctx.level(), Translate { x, out, table });
                }
            }
        }
    }
}

struct Quantize<'a> {
    x: &'a [f32],
    out: &'a mut [u8],
    scale: f32,
    to: Recode,
}

impl Kernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let scale = isa.splat(self.scale);
        for (x, out) in self.x.chunks(I::LANES).zip(self.out.chunks_mut(I::LANES)) {
            let code = self.to.code(isa, isa.div(isa.load_part(x), scale));
            store_codes(isa, code, out);
        }
    }
}

/// Stores as many codes as `out` holds, at most a vector.
#[inline(always)]
pub(super) fn store_codes<I: Isa>(isa: I, codes: I::I32, out: &mut [u8]) {
    if out.len() >= I::LANES {
        // SAFETY: the length was checked.
        unsafe { isa.store_u8_ptr(codes, out.as_mut_ptr()) };
        return;
    }
    let mut part = [0u8; 16];
    // SAFETY: there are at most sixteen lanes.
    unsafe { isa.store_u8_ptr(codes, part.as_mut_ptr()) };
    out.copy_from_slice(&part[..out.len()]);
}

/// Loads at most a vector of codes, the missing ones as zeros.
#[inline(always)]
pub(super) fn load_codes<I: Isa>(isa: I, x: &[u8]) -> I::I32 {
    if x.len() >= I::LANES {
        // SAFETY: the length was checked.
        return unsafe { isa.load_u8_ptr(x.as_ptr()) };
    }
    let mut part = [0u8; 16];
    part[..x.len()].copy_from_slice(x);
    // SAFETY: there are at most sixteen lanes.
    unsafe { isa.load_u8_ptr(part.as_ptr()) }
}

struct Dequantize<'a> {
    x: &'a [u8],
    out: &'a mut [f32],
    scale: f32,
    zero: u8,
}

impl Kernel for Dequantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (scale, zero) = (isa.splat(self.scale), isa.splat_i32(self.zero.into()));
        for (x, out) in self.x.chunks(I::LANES).zip(self.out.chunks_mut(I::LANES)) {
            let number = isa.to_f32(isa.sub_i32(load_codes(isa, x), zero));
            isa.store_part(isa.mul(number, scale), out);
        }
    }
}

struct Translate<'a> {
    x: &'a [u8],
    out: &'a mut [u8],
    table: &'a [u8; 256],
}

impl Kernel for Translate<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (x, out) in self.x.chunks(GRAIN).zip(self.out.chunks_mut(GRAIN)) {
            out.copy_from_slice(x);
            // SAFETY: the slice is as long.
            unsafe { isa.translate_ptr(self.table, out.as_mut_ptr(), out.len()) };
        }
    }
}
