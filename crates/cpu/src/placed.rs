//! A lowered graph: steps over virtual buffers, which each shape bucket places in an arena and binds.

use std::collections::HashMap;

use kinglet_graph::{ExecError, Lifetime, PlanReport, StepReport, ValueId, plan_memory};
use kinglet_kernels::{Access, Elem, Rows, Span, Step, StepError};

use crate::lower::Work;

const TOO_LARGE: &str = "the size overflows";

/// Index of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BufferId(pub(crate) usize);

/// A matrix in the arena that has no place yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) rows: Rows,
    pub(crate) cols: usize,
    pub(crate) elem: Elem,
}

type Bind = dyn Fn(&Spans) -> Result<Box<dyn Step>, StepError> + Send + Sync;

/// A step that waits for its buffers' places.
pub(crate) struct Lowered {
    /// The node, when it runs between programs.
    pub(crate) dynamic: Option<usize>,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) work: Work,
    pub(crate) reads: Vec<BufferId>,
    pub(crate) writes: Vec<BufferId>,
    pub(crate) bind: Box<Bind>,
}

/// Buffers with their places, for one bucket.
pub(crate) struct Spans(Vec<Span>);

impl Spans {
    /// How many buffers there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl std::ops::Index<BufferId> for Spans {
    type Output = Span;

    fn index(&self, id: BufferId) -> &Span {
        &self.0[id.0]
    }
}

/// A lowered graph: what every bucket is bound from.
pub(crate) struct LoweredGraph {
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) steps: Vec<Lowered>,
    pub(crate) values: HashMap<ValueId, BufferId>,
    pub(crate) inputs: Vec<BufferId>,
    pub(crate) outputs: Vec<BufferId>,
}

/// A lowered graph with every buffer in its place.
pub(crate) struct Placed {
    pub(crate) spans: Spans,
    /// Steps, or the nodes that run between programs.
    pub(crate) steps: Vec<Result<Box<dyn Step>, usize>>,
    pub(crate) inputs: Vec<Span>,
    pub(crate) outputs: Vec<Span>,
    /// For each step, the spans it writes.
    pub(crate) written: Vec<Vec<Span>>,
    pub(crate) bytes: usize,
}

impl LoweredGraph {
    /// Places buffers for at most `dims` and binds every step.
    pub(crate) fn place(&self, dims: &[usize]) -> Result<Placed, ExecError> {
        let lifetimes = self.lifetimes(dims)?;
        let layout = plan_memory(&lifetimes)
            .ok_or_else(|| ExecError::Memory { what: "activations".into(), reason: TOO_LARGE.into() })?;
        let place = |(buffer, offset): (&Buffer, &usize)| Span {
            offset: *offset,
            cols: buffer.cols,
            rows: buffer.rows,
            elem: buffer.elem,
        };
        let spans = Spans(self.buffers.iter().zip(&layout.offsets).map(place).collect());
        let node =
            |step: &Lowered, e: StepError| ExecError::Node { node: step.name.clone(), reason: e.to_string() };
        let bind = |s: &Lowered| match s.dynamic {
            Some(index) => Ok(Err(index)),
            None => (s.bind)(&spans).map(Ok).map_err(|e| node(s, e)),
        };
        Ok(Placed {
            steps: self.steps.iter().map(bind).collect::<Result<_, _>>()?,
            inputs: self.inputs.iter().map(|b| spans[*b]).collect(),
            outputs: self.outputs.iter().map(|b| spans[*b]).collect(),
            written: self.steps.iter().map(|s| s.writes.iter().map(|b| spans[*b]).collect()).collect(),
            bytes: layout.bytes,
            spans,
        })
    }

    /// The buffers of values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (ValueId, BufferId)> {
        self.values.iter().map(|(id, buffer)| (*id, *buffer))
    }

    /// Steps and memory in words and figures; weights, threads and instruction set are the caller's to add.
    pub(crate) fn report(&self, placed: &Placed, dims: &[usize]) -> PlanReport {
        let place = |span: &Span| (span.offset, span.end(dims).map_or(0, |end| end - span.offset));
        let rows = |written: &[Span]| written.first().and_then(|s| s.rows.count(dims)).unwrap_or(0);
        let steps =
            self.steps.iter().zip(&placed.steps).zip(&placed.written).map(|((low, step), written)| {
                let step = step.as_ref().ok();
                StepReport {
                    name: low.name.clone(),
                    kernel: step.map_or_else(|| "between programs".into(), |step| step.label()),
                    note: low.note.clone(),
                    weight_bytes: low.work.weight_bytes + low.work.row_bytes * rows(written),
                    activation_bytes: step
                        .map_or(0, |step| moved_bytes(step.as_ref(), low.work.gathers, dims)),
                    multiply_adds: low.work.multiply_adds * rows(written),
                    math: low.work.math,
                    attends: low.work.attends,
                    outputs: written.iter().map(place).collect(),
                }
            });
        PlanReport { steps: steps.collect(), arena_bytes: placed.bytes, ..PlanReport::default() }
    }

    /// When each buffer is first written and last read. Inputs live from the start, outputs to the end; indices are
    /// inputs that the program checks before its first step, so they live to the end as well.
    fn lifetimes(&self, dims: &[usize]) -> Result<Vec<Lifetime>, ExecError> {
        let (mut lives, end) = (Vec::with_capacity(self.buffers.len()), self.steps.len());
        for buffer in &self.buffers {
            let rows = buffer.rows.count(dims).and_then(|rows| rows.checked_mul(buffer.cols));
            let bytes = rows.and_then(|elements| elements.checked_mul(buffer.elem.bytes()));
            let bytes = bytes.ok_or_else(|| ExecError::Memory {
                what: "an activation".into(),
                reason: TOO_LARGE.into(),
            })?;
            lives.push(Lifetime { bytes, first: end, last: 0 });
        }
        for (n, step) in self.steps.iter().enumerate() {
            step.reads.iter().for_each(|b| lives[b.0].last = lives[b.0].last.max(n));
            for b in &step.writes {
                let life = &mut lives[b.0];
                (life.first, life.last) = (life.first.min(n), life.last.max(n));
            }
        }
        self.inputs.iter().for_each(|b| (lives[b.0].first, lives[b.0].last) = (0, end));
        self.outputs.iter().for_each(|b| lives[b.0].last = end);
        Ok(lives)
    }
}

/// Bytes of the spans that a step reads, and of those that it writes; a gathering one reads what it writes.
fn moved_bytes(step: &dyn Step, gathers: bool, dims: &[usize]) -> usize {
    let bytes = |span: &Span| span.end(dims).map_or(0, |end| end - span.offset);
    let moved = |access: &Access| match access {
        Access::Read(_) if gathers => 0,
        Access::Write(span) if !gathers => bytes(span),
        Access::Read(span) => bytes(span),
        Access::Write(span) | Access::Update(span) => 2 * bytes(span),
    };
    step.spans().iter().map(moved).sum()
}
