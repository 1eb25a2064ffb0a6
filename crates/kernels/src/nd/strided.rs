//! Loops over axes along which several operands move by strides of their own, and copies in another order of axes.

use std::marker::PhantomData;

use crate::arena::{Elem, Element, Rows, Span};
use crate::step::{Access, Check, Step, StepCtx, StepError};
use crate::{SharedMut, Worker};

/// The sizes of some axes, outermost first, and the distances in elements by which `N` operands move along each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axes<const N: usize> {
    axes: Vec<(usize, [usize; N])>,
}

impl<const N: usize> Axes<N> {
    /// Axes of these sizes; each operand has a stride for every axis.
    ///
    /// # Panics
    /// When an operand has more or fewer strides than there are axes.
    pub fn new(sizes: &[usize], strides: [&[usize]; N]) -> Self {
        assert!(strides.iter().all(|s| s.len() == sizes.len()), "a stride for each axis");
        let axis = |(i, &size): (usize, &usize)| (size, strides.map(|s| s[i]));
        Self { axes: sizes.iter().enumerate().map(axis).collect() }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.axes.iter().map(|(size, _)| size).product()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements that operand `i` must have; none when that overflows.
    pub(super) fn reach(&self, i: usize) -> Option<usize> {
        if self.is_empty() {
            return Some(0);
        }
        let last = |(size, strides): &(usize, [usize; N])| (size - 1).checked_mul(strides[i]);
        self.axes.iter().try_fold(1usize, |sum, axis| sum.checked_add(last(axis)?))
    }

    /// Distances along the innermost axis.
    pub(super) fn inner(&self) -> [usize; N] {
        self.axes.last().map_or([1; N], |(_, strides)| *strides)
    }

    /// The same loops with as few axes as possible, and an innermost one along which every operand stands still or
    /// moves by one: an axis of size one where need be.
    pub(super) fn simplified(&self) -> Self {
        let mut axes: Vec<(usize, [usize; N])> = Vec::new();
        for &(size, strides) in self.axes.iter().filter(|(size, _)| *size != 1) {
            match axes.last_mut() {
                Some((outer, before)) if (0..N).all(|i| strides[i].checked_mul(size) == Some(before[i])) => {
                    (*outer, *before) = (*outer * size, strides);
                }
                _ => axes.push((size, strides)),
            }
        }
        if axes.last().is_none_or(|(_, strides)| strides.iter().any(|&s| s > 1)) {
            axes.push((1, [1; N]));
        }
        Self { axes }
    }

    /// Fails unless `span` holds what operand `i` reaches.
    pub(super) fn check(&self, check: Check, what: &str, span: &Span, i: usize) -> Result<(), StepError> {
        check.span::<f32>(what, span, span.cols)?;
        let enough = fixed(span).zip(self.reach(i)).is_some_and(|(have, need)| need <= have);
        check.that(enough, || format!("{what} is {span:?}, and {self:?} reach {:?} elements", self.reach(i)))
    }

    /// Fails unless `span` holds exactly one element for each.
    pub(super) fn check_dense(&self, check: Check, span: &Span) -> Result<(), StepError> {
        check.span::<f32>("out", span, span.cols)?;
        check.that(fixed(span) == self.checked_len(), || format!("out is {span:?} for {self:?}"))
    }

    /// Number of elements; more than any span has when that overflows.
    fn checked_len(&self) -> Option<usize> {
        let len = self.axes.iter().try_fold(1usize, |product, (size, _)| product.checked_mul(*size));
        Some(len.unwrap_or(usize::MAX))
    }

    /// Offsets of the operands at the `row`th run along the innermost axis.
    fn offsets(&self, row: usize) -> [usize; N] {
        place(&self.axes[..self.axes.len() - 1], row)
    }

    /// Offsets of the operands at the `index`th element.
    pub(super) fn offsets_at(&self, index: usize) -> [usize; N] {
        place(&self.axes, index)
    }
}

/// Offsets of the operands at the `index`th place of some axes.
fn place<const N: usize>(axes: &[(usize, [usize; N])], mut index: usize) -> [usize; N] {
    let mut at = [0; N];
    for (size, strides) in axes.iter().rev() {
        (0..N).for_each(|i| at[i] += index % size * strides[i]);
        index /= size;
    }
    at
}

/// Elements of a span whose rows are fixed.
pub(super) fn fixed(span: &Span) -> Option<usize> {
    if let Rows::Fixed(_) = span.rows { span.len(&[]) } else { None }
}

/// A run along the innermost axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<const N: usize> {
    /// Where it starts in each operand, and in a dense result.
    pub(super) at: [usize; N],
    pub(super) out: usize,
    pub(super) count: usize,
}

/// This worker's runs of simplified axes; long ones are cut into pieces of `grain`.
#[inline(always)]
pub(super) fn runs_of<const N: usize>(
    axes: &Axes<N>,
    grain: usize,
    worker: Worker<'_>,
) -> impl Iterator<Item = Run<N>> {
    let (inner, strides) = axes.axes.last().copied().filter(|_| !axes.is_empty()).unwrap_or((1, [0; N]));
    let (rows, pieces) = (axes.len() / inner, inner.div_ceil(grain));
    worker.share(rows * pieces, grain.div_ceil(inner)).map(move |unit| {
        let (row, from) = (unit / pieces, unit % pieces * grain);
        let at = axes.offsets(row);
        let at = std::array::from_fn(|i| at[i] + from * strides[i]);
        Run { at, out: row * inner + from, count: grain.min(inner - from) }
    })
}

/// `out`, dense, takes what `x` holds along `axes`: transposition, broadcasting and slicing. Both floats, or
/// both bytes. `skip` elements of `x` are left out before the first.
pub fn copy(axes: &Axes<1>, skip: usize, x: Span, out: Span) -> Result<Box<dyn Step>, StepError> {
    let (check, bytes) = (Check("copy"), x.elem == Elem::U8);
    let axes = axes.simplified();
    check.that(x.elem == out.elem && x.elem != Elem::I32, || format!("{x:?} to {out:?}"))?;
    let reach = axes.reach(0).and_then(|reach| reach.checked_add(skip));
    let enough = fixed(&x).zip(reach).is_some_and(|(have, need)| need <= have);
    check.that(enough, || format!("x is {x:?}, and {axes:?} reach {reach:?} elements"))?;
    check.that(fixed(&out) == axes.checked_len(), || format!("out is {out:?} for {axes:?}"))?;
    Ok(if bytes {
        Box::new(Copy::<u8> { axes, skip, x, out, elements: PhantomData })
    } else {
        Box::new(Copy::<f32> { axes, skip, x, out, elements: PhantomData })
    })
}

struct Copy<T> {
    axes: Axes<1>,
    skip: usize,
    x: Span,
    out: Span,
    elements: PhantomData<T>,
}

/// Elements of a long run that a worker copies at a time.
const GRAIN: usize = 4096;

// SAFETY: touches its two spans; each worker writes its own runs of `out`.
unsafe impl<T: Element> Step for Copy<T> {
    fn label(&self) -> String {
        format!("copy {} axes", self.axes.axes.iter().filter(|(size, _)| *size > 1).count())
    }

    fn spans(&self) -> Vec<Access> {
        vec![Access::Read(self.x), Access::Write(self.out)]
    }

    fn serial(&self, _: &[usize]) -> bool {
        self.axes.len() <= 4096
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        let (x, out) = (ctx.view::<T>(&self.x), ctx.view::<T>(&self.out));
        let [stride] = self.axes.inner();
        if self.axes.axes.len() > 1 && self.axes.axes.last().is_some_and(|(size, _)| *size == 1) {
            // SAFETY: the axes were checked against both spans.
            unsafe { self.scattered(x, out, worker) };
            return;
        }
        for Run { at: [at], out: to, count } in runs_of(&self.axes, GRAIN, worker) {
            // SAFETY: the axes were checked against both spans; runs of `out` are this worker's.
            unsafe {
                let (x, out) = (x.as_ptr().add(self.skip + at), out.as_mut_ptr().add(to));
                match stride {
                    0 => std::slice::from_raw_parts_mut(out, count).fill(*x),
                    _ => std::ptr::copy_nonoverlapping(x, out, count),
                }
            }
        }
    }
}

impl<T: Element> Copy<T> {
    /// Runs along the last axis proper, whose elements do not lie side by side in `x`: strips of neighbouring runs are
    /// taken together, so that a cache line of `x` serves several of them.
    ///
    /// # Safety
    /// The axes were checked against both views.
    unsafe fn scattered(&self, x: SharedMut<'_, T>, out: SharedMut<'_, T>, worker: Worker<'_>) {
        const STRIP: usize = 16;
        let proper = self.axes.axes.split_last().and_then(|(_, axes)| axes.split_last());
        let Some((&(inner, [stride]), outer)) = proper.filter(|_| !self.axes.is_empty()) else { return };
        let rows = self.axes.len() / inner;
        for strip in worker.share(rows.div_ceil(STRIP), 1) {
            let strip = strip * STRIP..rows.min((strip + 1) * STRIP);
            for piece in (0..inner).step_by(STRIP) {
                for row in strip.clone() {
                    let [at] = place(outer, row);
                    for i in piece..inner.min(piece + STRIP) {
                        // SAFETY: by the caller's promise; these runs of `out` are this worker's.
                        unsafe {
                            *out.as_mut_ptr().add(row * inner + i) =
                                *x.as_ptr().add(self.skip + at + i * stride);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nd::testing::{Case, random};
    use kinglet_simd::Level;

    fn check(sizes: &[usize], strides: &[usize], skip: usize) {
        let axes = Axes::new(sizes, [strides]);
        let x = random(1, axes.reach(0).expect("small") + skip);
        let mut expected = vec![0.0; axes.len()];
        for (at, e) in expected.iter_mut().enumerate() {
            let (mut rest, mut index) = (at, skip);
            for axis in (0..sizes.len()).rev() {
                index += rest % sizes[axis] * strides[axis];
                rest /= sizes[axis];
            }
            *e = f64::from(x[index]);
        }
        let mut case = Case::new(Level::detect());
        let (x, out) = (case.matrix(x.len(), &x), case.span(1, axes.len()));
        case.check_matrix(|| copy(&axes, skip, x, out).expect("binds"), out, &expected, 0.0);
    }

    #[test]
    fn copies_follow_their_strides() {
        check(&[5, 7], &[1, 5], 0);
        check(&[100, 130], &[1, 100], 0);
        check(&[2, 3, 50, 16], &[2400, 16, 48, 1], 0);
        check(&[4, 9], &[0, 1], 3);
        check(&[4, 9], &[1, 0], 0);
        check(&[3, 8, 5], &[80, 10, 2], 1);
        check(&[1, 1], &[9, 9], 2);
        check(&[10_000], &[1], 7);
    }

    #[test]
    fn axes_are_joined_where_they_can_be() {
        let check = |sizes: &[usize], strides: &[usize], expected: &[(usize, [usize; 1])]| {
            assert_eq!(Axes::new(sizes, [strides]).simplified().axes, expected);
        };
        check(&[2, 3, 4], &[12, 4, 1], &[(24, [1])]);
        check(&[2, 1, 4], &[4, 9, 1], &[(8, [1])]);
        check(&[3, 4], &[1, 3], &[(3, [1]), (4, [3]), (1, [1])]);
        check(&[], &[], &[(1, [1])]);
    }
}
