//! What a step of a program is, and what it sees while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

use kinglet_simd::Level;
use kinglet_tensor::{KvLayer, SeqRows};

use crate::arena::{ALIGN, Element, Rows, Span};
use crate::kv::KvView;
use crate::program::Places;
use crate::{SharedMut, Worker};

/// One operation of a program, bound to its spans and weights.
///
/// # Safety
/// `run`, on all workers together, touches no part of the arena but the spans it declares (under the run's dimensions,
/// writing only to those declared so) and its scratch, and no key/value state but its layer's. Its workers never access
/// a byte that another one writes without a barrier between.
pub unsafe trait Step: Send + Sync {
    /// Kernel and formats in words, e.g. `rms_norm f32`.
    fn label(&self) -> String;

    /// Every span it touches.
    fn spans(&self) -> Vec<Access>;

    /// What it needs besides its spans.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Whether, under these dimensions, it is so little work that worker 0 does it alone.
    fn serial(&self, dims: &[usize]) -> bool {
        let _ = dims;
        false
    }

    /// Waits until the weights that it reads are there. It is not run when they never will be.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// The weights that this worker will read first, if the step is held to the memory they come from and they are there.
    fn first_weights(&self, dims: &[usize], worker: Worker<'_>) -> &[u8] {
        let _ = (dims, worker);
        &[]
    }

    /// Does this worker's part.
    ///
    /// # Safety
    /// Called by a program that was built with this step, on as many workers as `worker.count()` says, at the same
    /// time and with equal contexts.
    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>);
}

/// How a step uses a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads it; may overlap other reads.
    Read(Span),
    /// Overwrites it; overlaps nothing else of the step.
    Write(Span),
    /// Reads and overwrites it; overlaps nothing else of the step.
    Update(Span),
}

impl Access {
    /// The span.
    pub fn span(&self) -> &Span {
        match self {
            Self::Read(span) | Self::Write(span) | Self::Update(span) => span,
        }
    }

    /// Whether the span's content changes.
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Read(_))
    }
}

/// What a step needs besides its spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of working memory that all workers share.
    pub scratch: usize,
    /// Bytes of working memory for each worker.
    pub worker_scratch: usize,
    /// A span of indices and what bounds them. It must be an input: no step writes it.
    pub indices: Option<(Span, Bound)>,
    /// The rows that the batch's sequences must cover.
    pub ragged: Option<Rows>,
    /// The layer of the key/value state that it uses, and the shape it expects.
    pub layer: Option<(usize, KvLayer)>,
}

/// What indices must be below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A number.
    Below(usize),
    /// The row count of another span.
    Rows(Rows),
}

/// What a step sees while it runs.
#[derive(Clone, Copy)]
pub struct StepCtx<'a> {
    pub(crate) base: *mut u8,
    /// Where spans lie that are not in the arena in this run.
    pub(crate) lent: &'a Places,
    pub(crate) bytes: usize,
    pub(crate) dims: &'a [usize],
    pub(crate) level: Level,
    pub(crate) seqs: &'a [SeqRows<'a>],
    pub(crate) kv: Option<KvView<'a>>,
    /// Offsets of the shared and of the first worker's scratch.
    pub(crate) scratch: (usize, usize),
    pub(crate) needs: &'a Needs,
    pub(crate) next: &'a AtomicU64,
}

impl<'a> StepCtx<'a> {
    /// The instruction set that kernels run on.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The sequences of the batch.
    pub fn seqs(&self) -> &'a [SeqRows<'a>] {
        self.seqs
    }

    /// The key/value state. Steps that declare a layer always have one.
    pub fn kv(&self) -> Option<KvView<'a>> {
        self.kv
    }

    /// How many rows that is in this run.
    pub fn rows(&self, rows: Rows) -> usize {
        rows.count(self.dims).expect("the program checked the dimensions")
    }

    /// The current content of `span`, shared by all workers.
    ///
    /// # Panics
    /// When the span is not within the arena, which a program excludes for the spans that its steps declare.
    pub fn view<T: Element>(&self, span: &Span) -> SharedMut<'a, T> {
        let len = span.len(self.dims).expect("the program checked the span");
        assert_eq!(span.elem, T::ELEM, "{span:?}");
        self.part(span.offset, len)
    }

    /// The current content of `span` as bytes, whatever it holds.
    ///
    /// # Panics
    /// As [`view`](Self::view).
    pub fn bytes(&self, span: &Span) -> SharedMut<'a, u8> {
        let end = span.end(self.dims).expect("the program checked the span");
        self.part(span.offset, end - span.offset)
    }

    /// The step's shared scratch; its content is what earlier steps left there.
    pub fn scratch<T: Element>(&self) -> SharedMut<'a, T> {
        self.part(self.scratch.0, self.needs.scratch / size_of::<T>())
    }

    /// This worker's own scratch; its content is what earlier steps left there.
    pub fn worker_scratch<T: Element>(&self, worker: Worker<'_>) -> SharedMut<'a, T> {
        let bytes = self.needs.worker_scratch;
        let offset = self.scratch.1 + worker.index() * bytes.next_multiple_of(ALIGN);
        self.part(offset, bytes / size_of::<T>())
    }

    /// Numbers of `0..count`, each handed to one worker only; none when all are: for work that cannot be split evenly
    /// beforehand. The first half of the workers gets them
    /// from the front, the others from the back, until they meet: in steps that cut their data alike, a worker finds much
    /// of what it reads in its own cache.
    pub fn take_near(&self, worker: Worker<'_>, count: usize) -> Option<usize> {
        if count >= 1 << 31 {
            let taken = self.next.fetch_add(1, Ordering::Relaxed) as usize;
            return (taken < count).then_some(taken);
        }
        let front = worker.is_front();
        let taken = self.next.fetch_add(if front { 1 } else { 1 << 32 }, Ordering::Relaxed);
        let (before, behind) = (taken as u32 as usize, (taken >> 32) as usize);
        (before + behind < count).then(|| if front { before } else { count - 1 - behind })
    }

    /// Hands out all numbers again. One worker calls it between two barriers, the first of which all reach when there is
    /// nothing left to take.
    pub(crate) fn again(&self) {
        self.next.store(0, Ordering::Relaxed);
    }

    fn part<T: Element>(&self, offset: usize, len: usize) -> SharedMut<'a, T> {
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(
            end.is_some_and(|end| end <= self.bytes) && offset.is_multiple_of(ALIGN),
            "{len} at {offset}"
        );
        // SAFETY: within the arena, which the run borrows exclusively and only accesses through such views; it is
        // always initialised and its base is aligned at least as the offset. Or within bytes that the run borrows, which
        // are aligned for every element, as long as the span, and by the program's checks only read.
        let start = unsafe { self.lent.start(offset).unwrap_or_else(|| self.base.add(offset)) };
        // SAFETY: as above.
        unsafe { SharedMut::from_raw(start.cast(), len) }
    }
}

// SAFETY: the base pointer stands for the exclusive borrow of the arena that all workers of a run share; access to its
// parts is through views, whose use is the contract of `Step`.
unsafe impl Sync for StepCtx<'_> {}
// SAFETY: as above.
unsafe impl Send for StepCtx<'_> {}

/// Arguments that no such step can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct StepError {
    /// Which step.
    pub step: &'static str,
    /// What does not fit.
    pub reason: String,
}

/// Checks arguments on behalf of a step's constructor.
#[derive(Clone, Copy)]
pub(crate) struct Check(pub(crate) &'static str);

impl Check {
    /// `Ok` when `condition` holds.
    pub(crate) fn that(self, condition: bool, reason: impl FnOnce() -> String) -> Result<(), StepError> {
        if condition { Ok(()) } else { Err(StepError { step: self.0, reason: reason() }) }
    }

    /// `Ok` when `span` is a matrix of `T` with `cols` columns.
    pub(crate) fn span<T: Element>(self, what: &str, span: &Span, cols: usize) -> Result<(), StepError> {
        let expected = T::ELEM;
        self.that(span.elem == expected && span.cols == cols, || {
            format!("{what} is {:?}[_, {}], expected {expected:?}[_, {cols}]", span.elem, span.cols)
        })
    }

    /// `Ok` when both have as many rows.
    pub(crate) fn same_rows(self, what: &str, a: &Span, b: &Span) -> Result<(), StepError> {
        self.that(a.rows == b.rows, || format!("rows of {what} differ: {:?} and {:?}", a.rows, b.rows))
    }
}
