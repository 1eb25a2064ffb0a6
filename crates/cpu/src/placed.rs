//! A lowered graph: steps over virtual buffers, which each shape bucket places in an arena and binds; stretches of them
//! become lanes.

use std::collections::HashMap;
use std::ops::Range;

use kinglet_graph::{ExecError, Layout, Lifetime, PlanReport, StepReport, ValueId, plan_memory};
use kinglet_kernels::{Access, Elem, Part, Rows, Span, Step, StepError};

use crate::lanes::Stretch;
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

impl Buffer {
    /// Its size under these dimensions; none when it overflows.
    pub(crate) fn bytes(&self, dims: &[usize]) -> Option<usize> {
        self.rows.count(dims)?.checked_mul(self.cols)?.checked_mul(self.elem.bytes())
    }
}

type Bind = dyn Fn(&Spans) -> Result<Box<dyn Step>, StepError> + Send + Sync;

/// A step that waits for its buffers' places.
pub(crate) struct Lowered {
    /// The node, when it runs between programs.
    pub(crate) dynamic: Option<usize>,
    /// How many equal parts there are of which each depends, of what the step writes, on the same part of each buffer that it
    /// reads alone; it binds to parts of its buffers as well. Any divisor of them does, then. 0 when there are none.
    pub(crate) parts: usize,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) work: Work,
    pub(crate) reads: Vec<BufferId>,
    pub(crate) writes: Vec<BufferId>,
    pub(crate) bind: Box<Bind>,
}

/// Buffers with their places, for one bucket, or for a part of a batch.
pub(crate) struct Spans {
    spans: Vec<Span>,
    /// How many parts there are.
    parts: usize,
}

impl Spans {
    /// How many buffers there are.
    pub(crate) fn count(&self) -> usize {
        self.spans.len()
    }

    /// A part's share of so many rows; of one, that one.
    pub(crate) fn share(&self, rows: usize) -> usize {
        if rows == 1 { 1 } else { rows / self.parts }
    }

    /// The sizes of a part of a value of these sizes.
    pub(crate) fn shared(&self, sizes: &[usize]) -> Vec<usize> {
        let first = sizes.first().map(|size| self.share(*size));
        first.into_iter().chain(sizes.iter().skip(1).copied()).collect()
    }
}

impl std::ops::Index<BufferId> for Spans {
    type Output = Span;

    fn index(&self, id: BufferId) -> &Span {
        &self.spans[id.0]
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
    /// Parts of programs, or the nodes that run between them.
    pub(crate) parts: Vec<Result<Part, usize>>,
    pub(crate) inputs: Vec<Span>,
    pub(crate) outputs: Vec<Span>,
    /// The steps that a profiler hears of.
    told: Vec<Told>,
    pub(crate) bytes: usize,
}

/// A step of all workers, or of a lane.
struct Told {
    step: usize,
    written: Vec<Span>,
    /// The parts of the batch that it and those beside it make, and how many there are.
    parts: Option<(Range<usize>, usize)>,
}

/// A stretch with its memory: lanes have places of their own for what nobody else touches.
struct Laid<'a> {
    stretch: &'a Stretch,
    /// The buffers that each lane has for itself.
    inside: Vec<usize>,
    lane: Layout,
}

impl LoweredGraph {
    /// Places buffers for at most `dims` and binds every step; those of `stretches` as lanes.
    pub(crate) fn place(&self, dims: &[usize], stretches: &[Stretch]) -> Result<Placed, ExecError> {
        let mut lives = self.lifetimes(dims)?;
        let laid = stretches.iter().map(|stretch| self.lay(stretch, &mut lives));
        let laid: Vec<Laid<'_>> = laid.collect::<Option<_>>().ok_or_else(overflow)?;
        let layout = plan_memory(&lives).ok_or_else(overflow)?;
        let place = |(i, buffer): (usize, &Buffer)| Span {
            offset: layout.offsets[i],
            cols: buffer.cols,
            rows: buffer.rows,
            elem: buffer.elem,
        };
        let spans = Spans { spans: self.buffers.iter().enumerate().map(place).collect(), parts: 1 };
        let mut placed = Placed {
            parts: Vec::new(),
            inputs: self.inputs.iter().map(|b| spans[*b]).collect(),
            outputs: self.outputs.iter().map(|b| spans[*b]).collect(),
            told: Vec::new(),
            bytes: layout.bytes,
            spans,
        };
        let mut laid = laid.iter().zip(&layout.offsets[self.buffers.len()..]).peekable();
        let mut next = 0;
        while next < self.steps.len() {
            match laid.next_if(|(laid, _)| laid.stretch.steps.start == next) {
                Some((laid, at)) => {
                    self.lanes(laid, *at, &mut placed)?;
                    next = laid.stretch.steps.end;
                }
                None => {
                    self.whole(next, &mut placed)?;
                    next += 1;
                }
            }
        }
        Ok(placed)
    }

    /// Adds a step over whole buffers.
    fn whole(&self, index: usize, placed: &mut Placed) -> Result<(), ExecError> {
        let step = &self.steps[index];
        placed.parts.push(match step.dynamic {
            Some(node) => Err(node),
            None => Ok(Part::Step(bind(step, &placed.spans)?)),
        });
        placed.told.push(told(index, step, &placed.spans, None));
        Ok(())
    }

    /// Adds a stretch: the parts of the batch round by round, one in each lane; those that are left one after the other.
    fn lanes(&self, laid: &Laid<'_>, at: usize, placed: &mut Placed) -> Result<(), ExecError> {
        let Stretch { steps, parts, lanes } = laid.stretch;
        let part = |part: usize, lane: usize| self.part(laid, at, &placed.spans, part, lane);
        let mut bound: Vec<Vec<Box<dyn Step>>> = (0..*lanes).map(|_| Vec::new()).collect();
        let rounds = parts / lanes;
        for round in 0..rounds {
            for (lane, list) in bound.iter_mut().enumerate() {
                let spans = part(round * lanes + lane, lane);
                for step in &self.steps[steps.clone()] {
                    list.push(bind(step, &spans)?);
                }
            }
            let (spans, made) = (part(round * lanes, 0), round * lanes..(round + 1) * lanes);
            for index in steps.clone() {
                placed.told.push(told(index, &self.steps[index], &spans, Some((made.clone(), *parts))));
            }
        }
        let left: Vec<(usize, Spans)> = (rounds * lanes..*parts).map(|k| (k, part(k, 0))).collect();
        placed.parts.push(Ok(Part::Lanes(bound)));
        for (k, spans) in left {
            for index in steps.clone() {
                let step = &self.steps[index];
                placed.parts.push(Ok(Part::Step(bind(step, &spans)?)));
                placed.told.push(told(index, step, &spans, Some((k..k + 1, *parts))));
            }
        }
        Ok(())
    }

    /// Lays out what is made and read within a stretch alone, for one lane; in `lives` the lanes together are one more
    /// buffer, and what comes from before or is wanted later lives throughout.
    fn lay<'a>(&self, stretch: &'a Stretch, lives: &mut Vec<Lifetime>) -> Option<Laid<'a>> {
        let Range { start, end } = stretch.steps;
        let mut touched = vec![false; self.buffers.len()];
        for step in &self.steps[start..end] {
            step.reads.iter().chain(&step.writes).for_each(|b| touched[b.0] = true);
        }
        let within = |life: &Lifetime| life.first >= start && life.last < end;
        let inside: Vec<usize> = (0..touched.len()).filter(|&i| touched[i] && within(&lives[i])).collect();
        let mut own = Vec::new();
        for &i in &inside {
            own.push(Lifetime { bytes: lives[i].bytes / stretch.parts, ..lives[i] });
            lives[i].bytes = 0;
        }
        for (life, _) in lives.iter_mut().zip(&touched).filter(|(life, touched)| **touched && !within(life)) {
            life.first = if life.first >= start { start } else { life.first };
            life.last = if life.last < end { end - 1 } else { life.last };
        }
        let lane = plan_memory(&own)?;
        let bytes = lane.bytes.checked_mul(stretch.lanes)?;
        lives.push(Lifetime { bytes, first: start, last: end - 1 });
        Some(Laid { stretch, inside, lane })
    }

    /// The places of a part of the batch in a lane; lanes begin at `at`.
    fn part(&self, laid: &Laid<'_>, at: usize, whole: &Spans, part: usize, lane: usize) -> Spans {
        let parts = laid.stretch.parts;
        let share = |span: &Span| {
            let (rows, len) = (span.rows.count(&[]).unwrap_or(0), span.len(&[]).unwrap_or(0));
            let rows = if rows.is_multiple_of(parts) { rows / parts } else { 1 };
            let cols = (len / parts).checked_div(rows).unwrap_or(0);
            let offset = span.offset + part * (len / parts) * span.elem.bytes();
            Span { offset, rows: Rows::Fixed(rows), cols, ..*span }
        };
        let mut spans: Vec<Span> = whole.spans.iter().map(share).collect();
        for (&i, offset) in laid.inside.iter().zip(&laid.lane.offsets) {
            spans[i].offset = at + lane * laid.lane.bytes + offset;
        }
        Spans { spans, parts }
    }

    /// The buffers of values.
    pub(crate) fn values(&self) -> impl Iterator<Item = (ValueId, BufferId)> {
        self.values.iter().map(|(id, buffer)| (*id, *buffer))
    }

    /// Steps and memory in words and figures; weights, threads and instruction set are the caller's to add.
    pub(crate) fn report(&self, placed: &Placed, dims: &[usize]) -> PlanReport {
        let steps = placed.parts.iter().flat_map(|part| -> Vec<Option<&dyn Step>> {
            match part {
                Ok(Part::Step(step)) => vec![Some(&**step)],
                Ok(Part::Lanes(lanes)) => lanes[0].iter().map(|step| Some(&**step)).collect(),
                Err(_) => vec![None],
            }
        });
        let steps = placed.told.iter().zip(steps).map(|(told, step)| self.step_report(told, step, dims));
        PlanReport { steps: steps.collect(), arena_bytes: placed.bytes, ..PlanReport::default() }
    }

    fn step_report(&self, told: &Told, step: Option<&dyn Step>, dims: &[usize]) -> StepReport {
        let low = &self.steps[told.step];
        let place = |span: &Span| (span.offset, span.end(dims).map_or(0, |end| end - span.offset));
        let rows = low.writes.first().and_then(|b| self.buffers[b.0].rows.count(dims)).unwrap_or(0);
        let (made, parts) = told.parts.as_ref().map_or((1, 1), |(made, parts)| (made.len(), *parts));
        let note = match &told.parts {
            Some((made, _)) if made.len() == 1 => format!("part {} alone", made.start),
            Some((made, _)) => format!("parts {} to {} side by side", made.start, made.end - 1),
            None => String::new(),
        };
        let notes = [low.note.as_str(), note.as_str()];
        let moved = step.map_or(0, |step| moved_bytes(step, low.work.gathers, dims));
        StepReport {
            name: low.name.clone(),
            kernel: step.map_or_else(|| "between programs".into(), |step| step.label()),
            note: notes.into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>().join("; "),
            weight_bytes: low.work.weight_bytes + low.work.row_bytes * rows * made / parts,
            activation_bytes: moved * made,
            multiply_adds: low.work.multiply_adds * rows * made / parts,
            math: low.work.math,
            attends: low.work.attends,
            outputs: told.written.iter().map(place).collect(),
        }
    }

    /// When each buffer is first written and last read. Inputs live from the start, outputs to the end; indices are
    /// inputs that the program checks before its first step, so they live to the end as well.
    fn lifetimes(&self, dims: &[usize]) -> Result<Vec<Lifetime>, ExecError> {
        let (mut lives, end) = (Vec::with_capacity(self.buffers.len()), self.steps.len());
        for buffer in &self.buffers {
            let bytes = buffer.bytes(dims).ok_or_else(|| ExecError::Memory {
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

fn overflow() -> ExecError {
    ExecError::Memory { what: "activations".into(), reason: TOO_LARGE.into() }
}

fn bind(step: &Lowered, spans: &Spans) -> Result<Box<dyn Step>, ExecError> {
    (step.bind)(spans)
        .map_err(|e: StepError| ExecError::Node { node: step.name.clone(), reason: e.to_string() })
}

fn told(index: usize, step: &Lowered, spans: &Spans, parts: Option<(Range<usize>, usize)>) -> Told {
    Told { step: index, written: step.writes.iter().map(|b| spans[*b]).collect(), parts }
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
