//! Inputs that a run reads where the caller has them, instead of a copy in the arena.
//!
//! A program proves that no step writes a span before it may be lent, and that whoever reads it begins where it begins. Deliberately absent: outputs, which steps write.

use super::check::overlap;
use super::{Program, RunArgs, RunError};
use crate::arena::Span;
use crate::step::{Needs, Step};

/// So many spans of a program may be lent.
pub const LENT: usize = 4;

/// The bytes that a run lends for each span; the arena's for those that it does not.
pub type Lent<'a> = [Option<&'a [u8]>; LENT];

/// Offsets of lent spans in the arena, and where they lie in this run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places([Option<(usize, *const u8)>; LENT]);

impl Places {
    /// Where the span at this offset starts, when it is lent.
    pub(crate) fn start(&self, offset: usize) -> Option<*mut u8> {
        let found = self.0.iter().flatten().find(|(at, _)| *at == offset);
        found.map(|(_, start)| start.cast_mut())
    }
}

impl Program {
    /// Bytes are lent only where they start at a multiple of this.
    pub const LENT_ALIGN: usize = 16;

    /// Lets runs bring this span from elsewhere, as the input with the number that is handed back. None when a step writes
    /// to it, reads it from its middle or takes indices from it, and when [`LENT`] spans are lent already.
    pub fn lend(&mut self, span: &Span) -> Option<usize> {
        let free = self.lent.iter().position(Option::is_none)?;
        let taken = self.lent.iter().flatten().any(|other| overlap(other, span, &self.limits));
        if taken || self.steps.iter().any(|(step, needs)| self.hinders(step.as_ref(), needs, span)) {
            return None;
        }
        self.lent[free] = Some(*span);
        Some(free)
    }

    /// Whether a step does more with the span than reading it from its start on.
    fn hinders(&self, step: &dyn Step, needs: &Needs, span: &Span) -> bool {
        let dims = &self.limits.dims;
        let within = |other: &Span| other.offset == span.offset && other.end(dims) <= span.end(dims);
        let touches = |other: &Span| overlap(other, span, &self.limits);
        needs.indices.is_some_and(|(indices, _)| touches(&indices))
            || step.spans().iter().any(|a| touches(a.span()) && (a.writes() || !within(a.span())))
    }

    pub(super) fn check_lent(&self, args: &RunArgs<'_>) -> Result<(), RunError> {
        for (input, (span, bytes)) in self.lent.iter().zip(&args.lent).enumerate() {
            let Some(bytes) = bytes else { continue };
            let expected =
                span.as_ref().and_then(|span| Some(span.end(args.dims)? - span.offset)).unwrap_or(0);
            let aligned = bytes.as_ptr().addr().is_multiple_of(Self::LENT_ALIGN);
            if bytes.len() != expected || !aligned {
                return Err(RunError::Lent { input, found: bytes.len(), expected });
            }
        }
        Ok(())
    }

    pub(super) fn lent_places(&self, lent: &Lent<'_>) -> Places {
        let mut places = [None; LENT];
        for (place, (span, bytes)) in places.iter_mut().zip(self.lent.iter().zip(lent)) {
            let bytes = bytes.filter(|bytes| !bytes.is_empty());
            *place = span.zip(bytes).map(|(span, bytes)| (span.offset, bytes.as_ptr()));
        }
        Places(places)
    }
}
