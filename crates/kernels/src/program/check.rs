//! What is proven when a program is made, and of the sequences of a run.

use kinglet_tensor::SeqRows;

use super::lanes::{Needing, Turn};
use super::{Limits, RunError};
use crate::arena::{ALIGN, Elem, Rows, Span};
use crate::step::{Access, Needs, Step};

pub(super) fn label(steps: &[Needing], index: usize) -> String {
    steps.get(index).map_or_else(String::new, |(step, _)| step.label())
}

/// Every span lies aligned in the arena, and what the step writes overlaps nothing else of it.
pub(super) fn check_spans(step: &dyn Step, limits: &Limits) -> Result<(), String> {
    let spans = step.spans();
    for access in &spans {
        let span = access.span();
        let fits = span.end(&limits.dims).is_some_and(|end| end <= limits.arena_bytes);
        if !fits || !span.offset.is_multiple_of(ALIGN) {
            return Err(format!("{span:?} is not within the arena of {} bytes", limits.arena_bytes));
        }
    }
    for (i, a) in spans.iter().enumerate() {
        let clash = |b: &&Access| (a.writes() || b.writes()) && overlap(a.span(), b.span(), limits);
        if let Some(b) = spans[i + 1..].iter().find(clash) {
            return Err(format!("{a:?} overlaps {b:?}"));
        }
    }
    Ok(())
}

pub(super) fn overlap(a: &Span, b: &Span, limits: &Limits) -> bool {
    let range = |span: &Span| (span.offset, span.end(&limits.dims).unwrap_or(usize::MAX));
    let ((a0, a1), (b0, b1)) = (range(a), range(b));
    a0 < b1 && b0 < a1
}

/// The step's needs can be met, and all steps agree on the rows that sequences cover.
pub(super) fn check_needs(needs: &Needs, limits: &Limits, ragged: &mut Option<Rows>) -> Result<(), String> {
    if let Some(rows) = needs.ragged {
        let agreed = *ragged.get_or_insert(rows);
        if agreed != rows {
            return Err(format!("sequences cover {agreed:?} rows in one step and {rows:?} in another"));
        }
    }
    if let Some((index, shape)) = needs.layer {
        let found = limits.kv.as_ref().and_then(|spec| spec.layers.get(index));
        if found != Some(&shape) {
            return Err(format!("expects {shape:?} as layer {index} of the state, found {found:?}"));
        }
    }
    Ok(())
}

/// Index spans hold integers and are inputs: no step writes to them.
pub(super) fn check_inputs(steps: &[Needing], limits: &Limits) -> Result<(), (usize, String)> {
    let inputs: Vec<Span> =
        steps.iter().filter_map(|(_, needs)| needs.indices.map(|(span, _)| span)).collect();
    for (index, (step, needs)) in steps.iter().enumerate() {
        if needs.indices.is_some_and(|(span, _)| span.elem != Elem::I32) {
            return Err((index, "indices must be integers".into()));
        }
        for access in step.spans().iter().filter(|access| access.writes()) {
            if let Some(input) = inputs.iter().find(|input| overlap(input, access.span(), limits)) {
                return Err((index, format!("{access:?} overwrites the indices {input:?}")));
            }
        }
    }
    Ok(())
}

/// Where scratch lies, behind the spans.
pub(super) struct Scratch {
    /// What all workers share.
    shared: usize,
    /// The first worker's own, and how much each has.
    own: (usize, usize),
    /// What the first worker's lanes share, and how much each worker's do.
    lanes: (usize, usize),
    /// The end of the arena.
    pub(super) end: usize,
}

impl Scratch {
    /// Offsets of the shared scratch and of the first worker's, for a step of all workers.
    pub(super) fn together(&self) -> (usize, usize) {
        (self.shared, self.own.0)
    }

    /// The same for a step that a worker runs alone.
    pub(super) fn alone(&self, worker: usize) -> (usize, usize) {
        (self.lanes.0 + worker * self.lanes.1, self.own.0 + worker * self.own.1)
    }
}

/// Places scratch for everyone; none when the sizes overflow.
pub(super) fn place_scratch(steps: &[Needing], turns: &[Turn], limits: &Limits) -> Option<Scratch> {
    let largest = |bytes: fn(&Needs) -> usize| steps.iter().map(|(_, needs)| bytes(needs)).max().unwrap_or(0);
    let shared = limits.arena_bytes.checked_next_multiple_of(ALIGN)?;
    let own = shared.checked_add(largest(|needs| needs.scratch))?.checked_next_multiple_of(ALIGN)?;
    let each = largest(|needs| needs.worker_scratch).checked_next_multiple_of(ALIGN)?;
    let lanes = own.checked_add(each.checked_mul(limits.workers)?)?;
    let alone = turns.iter().flat_map(Turn::lanes).flat_map(Clone::clone).map(|index| steps[index].1.scratch);
    let alone = alone.max().unwrap_or(0).checked_next_multiple_of(ALIGN)?;
    let end = lanes.checked_add(alone.checked_mul(limits.workers)?)?;
    Some(Scratch { shared, own: (own, each), lanes: (lanes, alone), end })
}

/// The sequences cover `0..rows` in order, without gaps.
pub(super) fn check_cover(seqs: &[SeqRows<'_>], rows: usize) -> Result<(), RunError> {
    let mut expected = 0usize;
    for (seq, part) in seqs.iter().enumerate() {
        let end = expected.checked_add(part.len).filter(|&end| end <= rows && part.start == expected);
        expected = end.ok_or(RunError::Seqs { seq, start: part.start, expected, rows })?;
    }
    let complete = expected == rows;
    if complete { Ok(()) } else { Err(RunError::Seqs { seq: seqs.len(), start: rows, expected, rows }) }
}
