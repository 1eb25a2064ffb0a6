//! Products of matrices that steps made: `out[i] = a[i] b[i]` for every `i` of some outer axes.
//!
//! The second matrix is packed a piece at a time, in the worker's scratch, into the order in which the micro-kernel
//! reads it; all rows of the first one pass over the piece while it is in the first-level cache. Rows of the first
//! matrix are read in place. Error: `(k + 2) * 2^-24 * sum(|a * b|)`.

use std::ops::Range;

use kinglet_simd::{Isa, Kernel, dispatch};

use super::act::Act;
use super::elementwise::Side;
use super::layout::BLOCK;
use super::shape::cuts;
use super::strided::Axes;
use super::tile::{Dense, Dynamic, TALLEST, Tile, panel_blocks, tallest, tiles};
use crate::arena::Span;
use crate::step::{Access, Check, Needs, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// Pairs of matrices `[m][k]` and `[k][n]`, and where their elements lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Products {
    /// The outer axes, along which both move by strides of their own; 0 where one is repeated.
    pub outer: Axes<2>,
    /// Rows, inner size and columns.
    pub sizes: [usize; 3],
    /// Elements between rows of the first matrix, whose columns lie side by side.
    pub a_row: usize,
    /// Elements between rows, and between columns, of the second matrix.
    pub b_steps: [usize; 2],
}

impl Products {
    /// Elements that each side must have; none when that overflows.
    fn reach(&self) -> Option<[usize; 2]> {
        let [m, k, n] = self.sizes;
        let a = (m - 1).checked_mul(self.a_row)?.checked_add(k)?;
        let [down, along] = self.b_steps;
        let b = (k - 1).checked_mul(down)?.checked_add((n - 1).checked_mul(along)?)?.checked_add(1)?;
        let [outer_a, outer_b] = [self.outer.reach(0)?, self.outer.reach(1)?];
        Some([(outer_a - 1).checked_add(a)?, (outer_b - 1).checked_add(b)?])
    }
}

/// Floats of a piece of the second matrix: half of the first-level cache.
const PIECE: usize = 32 << 8;
/// Units of work, at least, for each worker.
const UNITS: usize = 4;

/// `out[i] = a[i] b[i]`, all f32; `out` is dense, `[outer..][m][n]`.
pub fn matmul(
    products: &Products,
    a: impl Into<Side>,
    b: impl Into<Side>,
    out: Span,
) -> Result<Box<dyn Step>, StepError> {
    let (check, a, b, products) = (Check("matmul"), a.into(), b.into(), products.clone());
    let [m, k, n] = products.sizes;
    check.that(m > 0 && k > 0 && n > 0 && !products.outer.is_empty(), || format!("{products:?}"))?;
    let reach = products.reach();
    for (what, side, i) in [("a", &a, 0), ("b", &b, 1)] {
        let fits = side.elements(check, what)?.zip(reach).is_some_and(|(have, need)| need[i] <= have);
        check.that(fits, || format!("{what} is too short for {products:?}, which reach {reach:?}"))?;
    }
    let dense = Axes::new(&[products.outer.len(), m, n], [&[0; 3]]);
    dense.check_dense(check, &out)?;
    Ok(Box::new(MatMul { products, a, b, out }))
}

struct MatMul {
    products: Products,
    a: Side,
    b: Side,
    out: Span,
}

// SAFETY: touches its spans and its worker's scratch; each unit, some rows of a panel of columns of one product, is
// taken by one worker.
unsafe impl Step for MatMul {
    fn label(&self) -> String {
        "matmul f32".into()
    }

    fn spans(&self) -> Vec<Access> {
        [self.a.access(), self.b.access(), Some(Access::Write(self.out))].into_iter().flatten().collect()
    }

    fn needs(&self) -> Needs {
        Needs { worker_scratch: PIECE * size_of::<f32>(), ..Needs::default() }
    }

    fn serial(&self, _: &[usize]) -> bool {
        let work = self.products.sizes.iter().fold(self.products.outer.len(), |n, &s| n.saturating_mul(s));
        work <= 1 << 15
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let Products { ref outer, sizes: [m, _, n], .. } = self.products;
        let width = panel_blocks(ctx.level().lanes()) * BLOCK;
        let panels = n.div_ceil(width);
        let units = outer.len() * panels;
        // Few panels of many rows are cut, each part packing its panel again.
        let cut = (UNITS * worker.count()).div_ceil(units).min(m.div_ceil(4 * TALLEST)).max(1);
        let (a, b, out) = (self.a.start(ctx), self.b.start(ctx), ctx.view(&self.out));
        let scratch = ctx.worker_scratch(worker);
        while let Some(unit) = ctx.take_near(worker, units * cut) {
            let (place, part) = (unit / cut, unit % cut);
            let rows = m * part / cut..m * (part + 1) / cut;
            let job = Panel {
                products: &self.products,
                place: [place / panels, place % panels],
                rows,
                a,
                b,
                out,
                scratch,
            };
            dispatch(ctx.level(), job);
        }
    }
}

/// Some rows of a panel of columns.
struct Panel<'a> {
    products: &'a Products,
    /// Which product, and which of its panels.
    place: [usize; 2],
    rows: Range<usize>,
    a: *const f32,
    b: *const f32,
    out: SharedMut<'a, f32>,
    scratch: SharedMut<'a, f32>,
}

impl Kernel for Panel<'_> {
    type Out = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [_, k, n] = self.products.sizes;
        let width = panel_blocks(I::LANES) * BLOCK;
        let columns = self.place[1] * width..n.min((self.place[1] + 1) * width);
        let [a, b] = self.products.outer.offsets_at(self.place[0]);
        let (a, b) = (self.a.wrapping_add(a), self.b.wrapping_add(b));
        // SAFETY: the scratch is this worker's and holds a piece.
        let piece = unsafe { self.scratch.part_mut(0..PIECE) };
        let each = PIECE / width;
        for from in (0..k).step_by(each) {
            let inner = from..k.min(from + each);
            // SAFETY: the products were checked against both sides, and rows of the panel are this worker's.
            unsafe {
                self.pack(isa, b, inner.clone(), columns.clone(), width, piece);
                self.multiply(isa, a, inner, &columns, width, piece);
            }
        }
    }
}

impl Panel<'_> {
    /// Packs some rows of the panel, `[row][width]`. Columns that do not exist hold anything.
    ///
    /// # Safety
    /// `b` is the second matrix.
    #[inline(always)]
    unsafe fn pack<I: Isa>(
        &self,
        isa: I,
        b: *const f32,
        inner: Range<usize>,
        columns: Range<usize>,
        width: usize,
        piece: &mut [f32],
    ) {
        let [down, along] = self.products.b_steps;
        if along == 1 {
            for (row, to) in inner.zip(piece.chunks_exact_mut(width)) {
                // SAFETY: the row's columns exist, and a row of the piece is a panel wide.
                unsafe {
                    let from = b.add(row * down + columns.start);
                    for i in (0..columns.len()).step_by(I::LANES) {
                        let count = I::LANES.min(columns.len() - i);
                        isa.store_ptr(isa.load_part_ptr(from.add(i), count), to[i..].as_mut_ptr());
                    }
                }
            }
            return;
        }
        for (lane, column) in columns.enumerate() {
            for (row, to) in inner.clone().zip(piece[lane..].iter_mut().step_by(width)) {
                // SAFETY: the element exists.
                *to = unsafe { *b.add(row * down + column * along) };
            }
        }
    }

    /// Multiplies the rows with a packed piece, and adds that to what earlier pieces made.
    ///
    /// # Safety
    /// `a` is the first matrix, and the unit's part of `out` is this worker's.
    #[inline(always)]
    unsafe fn multiply<I: Isa>(
        &self,
        isa: I,
        a: *const f32,
        inner: Range<usize>,
        columns: &Range<usize>,
        width: usize,
        piece: &[f32],
    ) {
        let [m, _, n] = self.products.sizes;
        let zeros = [0.0f32; 2 * BLOCK];
        let kernels = tiles::<I, Dynamic, Dense>(width / BLOCK);
        for rows in cuts(self.rows.len(), tallest(I::LANES, I::REGISTERS)) {
            let first = self.rows.start + rows.start;
            let out = (self.place[0] * m + first) * n + columns.start;
            let tile = Tile {
                a: a.wrapping_add(first * self.products.a_row + inner.start),
                pitch: self.products.a_row,
                taps: [1, 1, 1],
                a_step: [0; 3],
                w: piece.as_ptr(),
                w_step: [0; 3],
                ahead: std::ptr::null(),
                lines: 0,
                k: inner.len(),
                k_last: inner.len(),
                start: if inner.start == 0 { zeros.as_ptr() } else { std::ptr::null() },
                out: self.out.as_mut_ptr().wrapping_add(out),
                out_pitch: n,
                out_block: BLOCK,
                valid: columns.len(),
                last: true,
                residual: std::ptr::null(),
                act: Act::NONE,
                halves: false,
            };
            // SAFETY: by the caller's promise.
            unsafe { kernels.get(rows.len())(isa, &tile) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, random};
    use kinglet_simd::Level;

    /// Products over outer sizes; `spread` says which of them each side has, `turned` whether `b` lies as `[n][k]`.
    fn check(outer: &[usize], spread: [&[bool]; 2], [m, k, n]: [usize; 3], turned: bool) {
        let strides = |spread: &[bool], matrix: usize| {
            let mut strides = vec![0; outer.len()];
            let mut next = matrix;
            for (i, &size) in outer.iter().enumerate().rev().filter(|(i, _)| spread[*i]) {
                strides[i] = next;
                next *= size;
            }
            (strides, next)
        };
        let ((a_outer, a_len), (b_outer, b_len)) = (strides(spread[0], m * k), strides(spread[1], k * n));
        let (a, b) = (random(1, a_len), random(2, b_len));
        let b_steps = if turned { [1, k] } else { [n, 1] };
        let axes = Axes::new(outer, [&a_outer, &b_outer]);
        let mut expected = Vec::new();
        for i in 0..axes.len() {
            let [at_a, at_b] = axes.offsets_at(i);
            for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
                let term = |p: usize| {
                    let b = b[at_b + p * b_steps[0] + column * b_steps[1]];
                    f64::from(a[at_a + row * k + p]) * f64::from(b)
                };
                expected.push((0..k).map(term).sum());
            }
        }
        let products = Products { outer: axes, sizes: [m, k, n], a_row: k, b_steps };
        for level in Level::available() {
            let mut case = Case::new(level);
            let (from_a, from_b) = (case.matrix(a.len(), &a), case.matrix(b.len(), &b));
            let out = case.span(1, expected.len());
            let bound = 2e-7 * (k as f64 + 4.0);
            let step = || matmul(&products, from_a, from_b, out).expect("binds");
            case.check_matrix(step, out, &expected, bound);
            let constant = Side::Values(a.clone().into());
            let step = || matmul(&products, constant.clone(), from_b, out).expect("binds");
            case.check_matrix(step, out, &expected, bound);
        }
    }

    #[test]
    fn products_follow_the_definition() {
        for turned in [false, true] {
            check(&[], [&[], &[]], [1, 1, 1], turned);
            check(&[3], [&[true], &[true]], [20, 33, 40], turned);
            check(&[2, 3], [&[true, true], &[true, false]], [5, 17, 100], turned);
            check(&[2, 3], [&[false, true], &[true, false]], [15, 600, 7], turned);
            check(&[1], [&[true], &[true]], [200, 64, 16], turned);
        }
    }

    #[test]
    fn sides_that_are_too_short_are_refused() {
        let span = |at, cols| Span::f32(at, crate::Rows::Fixed(1), cols);
        let outer = Axes::new(&[2], [&[12], &[0]]);
        let products = Products { outer, sizes: [3, 4, 5], a_row: 4, b_steps: [5, 1] };
        let make = |a, b, out| matmul(&products, span(0, a), span(256, b), span(512, out));
        assert!(make(24, 20, 30).is_ok());
        assert!(make(23, 20, 30).is_err() && make(24, 19, 30).is_err() && make(24, 20, 31).is_err());
        let empty = Products { sizes: [3, 0, 5], ..products.clone() };
        assert!(matmul(&empty, span(0, 24), span(256, 20), span(512, 30)).is_err());
    }
}
