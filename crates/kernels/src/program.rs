//! Programs: steps over one arena, checked once, then run many times without planning, locking or allocating.
//!
//! Safety rests here: construction proves that no step touches memory outside the arena or aliases its own output, and
//! each run proves that its dimensions, sequences and indices keep within what was proven, so running is safe.
//! Deliberately absent: graphs, and deciding where values lie (the planner's).

mod ahead;
mod check;
mod lanes;
mod lent;

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use kinglet_simd::Level;
use kinglet_tensor::{KvSpec, SeqRows};

use self::ahead::Ahead;
use self::check::{Scratch, check_cover, check_inputs, check_needs, check_spans, label, place_scratch};
pub use self::lanes::Part;
use self::lanes::{Needing, Turn, check_lanes, flatten};
pub(crate) use self::lent::Places;
pub use self::lent::{LENT, Lent};
use crate::arena::{Arena, Rows, Span};
use crate::kv::{KvError, KvStore, KvView};
use crate::step::{Bound, Needs, Step, StepCtx};
use crate::{Team, Worker};

/// What a program is built for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the arena that spans may use; steps' scratch is added behind.
    pub arena_bytes: usize,
    /// The largest value of each dimension, indexed by [`crate::DimId`].
    pub dims: Vec<usize>,
    /// Most workers that a run may have.
    pub workers: usize,
    /// Instruction set that kernels run on.
    pub level: Level,
    /// Key/value state that runs bring.
    pub kv: Option<KvSpec>,
}

/// One run's arguments.
pub struct RunArgs<'a> {
    /// The value of each dimension.
    pub dims: &'a [usize],
    /// The sequences whose rows the batch concatenates; empty for programs without ragged steps.
    pub seqs: &'a [SeqRows<'a>],
    /// The key/value state, for programs that have one.
    pub kv: Option<&'a mut KvStore>,
    /// Asked between steps, on the calling thread; `true` ends the run.
    pub cancel: &'a (dyn Fn() -> bool + Sync),
    /// Told of the end of each step, on the calling thread.
    pub profiler: Option<&'a mut dyn Profiler>,
    /// What steps read in place of spans that were [lent](Program::lend), by their numbers.
    pub lent: Lent<'a>,
}

/// Learns when steps begin and end. It brings its own clock.
pub trait Profiler {
    /// The first step begins.
    fn begin(&mut self);
    /// Step `index` has ended on all workers, and the next one begins.
    fn step(&mut self, index: usize);
}

/// Steps that cannot be run safely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ({label}): {reason}")]
pub struct ProgramError {
    /// Index of the step.
    pub step: usize,
    /// Its label.
    pub label: String,
    /// What is wrong.
    pub reason: String,
}

/// Why a run did not happen or did not end. The arena's content is unspecified then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum RunError {
    #[error("dimensions {found:?}: the program was built for at most {max:?}")]
    Dims { found: Vec<usize>, max: Vec<usize> },
    #[error("an arena of {found} bytes: the program takes {needed}")]
    Arena { found: usize, needed: usize },
    #[error("a team of {found}: the program was built for at most {max}")]
    Team { found: usize, max: usize },
    #[error("{found} bytes are lent as input {input}, which has {expected}")]
    Lent { input: usize, found: usize, expected: usize },
    #[error("sequence {seq} starts at row {start}, expected {expected}, of {rows} rows")]
    Seqs { seq: usize, start: usize, expected: usize, rows: usize },
    #[error("row {row}: index {found} is not in 0..{below}")]
    Index { row: usize, found: i32, below: usize },
    #[error("the key/value state is missing or of another shape")]
    KvShape,
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("step {step} ({label}): its weights: {reason}")]
    Weights { step: usize, label: String, reason: String },
    #[error("cancelled")]
    Cancelled,
}

/// Checked steps in running order.
pub struct Program {
    steps: Vec<Needing>,
    /// Which of them all workers take together, and which are in lanes.
    turns: Vec<Turn>,
    limits: Limits,
    ragged: Option<Rows>,
    /// Spans that a run may bring from elsewhere.
    lent: [Option<Span>; LENT],
    scratch: Scratch,
}

impl Program {
    /// Checks every step against the limits.
    pub fn new(steps: Vec<Box<dyn Step>>, limits: Limits) -> Result<Self, ProgramError> {
        Self::of_parts(steps.into_iter().map(Part::Step).collect(), limits)
    }

    /// The same for steps of which some are in lanes. Lanes are as long as each other, and none writes what another one
    /// touches.
    pub fn of_parts(parts: Vec<Part>, limits: Limits) -> Result<Self, ProgramError> {
        let (steps, turns) = flatten(parts);
        let fail =
            |index: usize, reason: String| ProgramError { step: index, label: label(&steps, index), reason };
        let mut ragged = None;
        for (index, (step, needs)) in steps.iter().enumerate() {
            check_spans(step.as_ref(), &limits).map_err(|reason| fail(index, reason))?;
            check_needs(needs, &limits, &mut ragged).map_err(|reason| fail(index, reason))?;
        }
        check_inputs(&steps, &limits).map_err(|(index, reason)| fail(index, reason))?;
        check_lanes(&steps, &turns, &limits).map_err(|(index, reason)| fail(index, reason))?;
        let scratch = place_scratch(&steps, &turns, &limits)
            .ok_or_else(|| fail(0, "the arena and the steps' scratch overflow the address space".into()))?;
        Ok(Self { steps, turns, limits, ragged, lent: [None; LENT], scratch })
    }

    /// Bytes an arena must have.
    pub fn arena_bytes(&self) -> usize {
        self.scratch.end
    }

    /// How many steps a run's profiler hears of: of lanes, those of the first.
    pub fn steps(&self) -> usize {
        self.turns.iter().map(Turn::told).sum()
    }

    /// Labels of the steps, in running order.
    pub fn labels(&self) -> impl Iterator<Item = String> {
        self.steps.iter().map(|(step, _)| step.label())
    }

    /// Runs all steps on the team. The result does not depend on the team's size.
    pub fn run(&self, arena: &mut Arena, team: &Team, args: RunArgs<'_>) -> Result<(), RunError> {
        self.check_run(arena, team, &args)?;
        let RunArgs { dims, seqs, kv, cancel, profiler, lent } = args;
        let kv = self.admit(kv, seqs)?;
        let state = RunState {
            base: arena.base(),
            lent: self.lent_places(&lent),
            dims,
            seqs,
            kv,
            cancel,
            profiler: Local(profiler.map(std::ptr::from_mut)),
            stop: AtomicUsize::new(usize::MAX),
            failed: OnceLock::new(),
            next: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        team.run(|worker| self.work(&state, worker));
        if let Some((step, reason)) = state.failed.into_inner() {
            return Err(RunError::Weights { step, label: label(&self.steps, step), reason });
        }
        if state.stop.into_inner() == usize::MAX { Ok(()) } else { Err(RunError::Cancelled) }
    }

    fn admit<'k>(
        &self,
        kv: Option<&'k mut KvStore>,
        seqs: &[SeqRows<'_>],
    ) -> Result<Option<KvView<'k>>, RunError> {
        let Some(spec) = &self.limits.kv else { return Ok(None) };
        let store = kv.filter(|store| store.spec() == spec).ok_or(RunError::KvShape)?;
        store.admit(seqs)?;
        Ok(Some(store.view()))
    }

    fn check_run(&self, arena: &Arena, team: &Team, args: &RunArgs<'_>) -> Result<(), RunError> {
        let max = &self.limits.dims;
        if args.dims.len() != max.len() || args.dims.iter().zip(max).any(|(dim, max)| dim > max) {
            return Err(RunError::Dims { found: args.dims.to_vec(), max: max.clone() });
        }
        if arena.bytes() < self.arena_bytes() {
            return Err(RunError::Arena { found: arena.bytes(), needed: self.arena_bytes() });
        }
        if team.size() > self.limits.workers {
            return Err(RunError::Team { found: team.size(), max: self.limits.workers });
        }
        self.check_lent(args)?;
        if let Some(rows) = self.ragged.and_then(|rows| rows.count(args.dims)) {
            check_cover(args.seqs, rows)?;
        }
        self.steps.iter().filter_map(|(_, needs)| needs.indices).try_for_each(|(span, bound)| {
            let below = match bound {
                Bound::Below(n) => n,
                Bound::Rows(rows) => rows.count(args.dims).unwrap_or(0),
            };
            let indices = arena.read::<i32>(&span, args.dims).unwrap_or(&[]);
            let bad = |&(_, &found): &(usize, &i32)| usize::try_from(found).map_or(true, |i| i >= below);
            match indices.iter().enumerate().find(bad) {
                Some((row, &found)) => Err(RunError::Index { row, found, below }),
                None => Ok(()),
            }
        })
    }

    /// One worker's way through the program. All workers decide alike where to wait and where to stop.
    fn work(&self, state: &RunState<'_>, worker: Worker<'_>) {
        let lead = worker.index() == 0;
        if lead {
            state.profile(|profiler| profiler.begin());
        }
        let mut ahead = Ahead::default();
        let mut told = 0;
        for (turn, what) in self.turns.iter().enumerate() {
            match what {
                Turn::Step(index) => self.together(state, turn, *index, worker),
                Turn::Lanes(lanes) => self.apart(state, lanes, told, worker),
            }
            if lead {
                state.next[(turn + 2) % 3].store(0, Ordering::Relaxed);
            }
            if self.waits_after(turn, state.dims) {
                if lead && ((state.cancel)() || state.failed.get().is_some()) {
                    state.stop.store(turn, Ordering::Relaxed);
                }
                if let Turn::Step(index) = what {
                    ahead.turn(*index, &self.steps, state.dims, worker);
                }
                worker.barrier_meanwhile(|| ahead.ask(self.limits.level));
                if state.stop.load(Ordering::Relaxed) == turn {
                    return;
                }
            }
            told += what.told();
            if lead {
                state.profile(|profiler| profiler.step(told - 1));
            }
        }
    }

    /// This worker's part of a step.
    fn together(&self, state: &RunState<'_>, turn: usize, index: usize, worker: Worker<'_>) {
        let (step, needs) = &self.steps[index];
        let serial = step.serial(state.dims);
        let place = if serial { Worker::ALONE } else { worker };
        if worker.index() == 0 || !serial {
            let ctx = self.ctx(state, needs, &state.next[turn % 3], self.scratch.together());
            match step.ready() {
                // SAFETY: construction and `check_run` proved what the step relies on.
                Ok(()) => unsafe { step.run(&ctx, place) },
                Err(reason) => drop(state.failed.set((index, reason))),
            }
        }
    }

    /// This worker's lanes: every so many. `told` steps came before.
    fn apart(&self, state: &RunState<'_>, lanes: &[Range<usize>], told: usize, worker: Worker<'_>) {
        let next = AtomicU64::new(0);
        for lane in lanes.iter().skip(worker.index()).step_by(worker.count()) {
            for index in lane.clone() {
                let (step, needs) = &self.steps[index];
                next.store(0, Ordering::Relaxed);
                let ctx = self.ctx(state, needs, &next, self.scratch.alone(worker.index()));
                match step.ready() {
                    // SAFETY: construction and `check_run` proved what the step relies on: alone here, and beside the
                    // steps of other lanes.
                    Ok(()) => unsafe { step.run(&ctx, Worker::ALONE) },
                    Err(reason) => return drop(state.failed.set((index, reason))),
                }
                if lane.start == lanes[0].start && worker.index() == 0 && index + 1 < lane.end {
                    state.profile(|profiler| profiler.step(told + index - lane.start));
                }
            }
        }
    }

    /// Between two steps that worker 0 does alone nobody needs to wait.
    fn waits_after(&self, turn: usize, dims: &[usize]) -> bool {
        let serial = |turn: usize| match self.turns.get(turn) {
            Some(Turn::Step(index)) => self.steps[*index].0.serial(dims),
            _ => false,
        };
        !(serial(turn) && serial(turn + 1))
    }

    fn ctx<'a>(
        &'a self,
        state: &'a RunState<'_>,
        needs: &'a Needs,
        next: &'a AtomicU64,
        scratch: (usize, usize),
    ) -> StepCtx<'a> {
        StepCtx {
            base: state.base,
            lent: &state.lent,
            bytes: self.arena_bytes(),
            dims: state.dims,
            level: self.limits.level,
            seqs: state.seqs,
            kv: state.kv,
            scratch,
            needs,
            next,
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.labels()).finish()
    }
}

/// What the workers of a run share.
struct RunState<'a> {
    base: *mut u8,
    lent: Places,
    dims: &'a [usize],
    seqs: &'a [SeqRows<'a>],
    kv: Option<KvView<'a>>,
    cancel: &'a (dyn Fn() -> bool + Sync),
    profiler: Local<Option<*mut (dyn Profiler + 'a)>>,
    /// The turn after which to stop. Only ever compared with the barrier just passed: the lead may already have asked
    /// to stop at a later one.
    stop: AtomicUsize,
    /// The first step whose weights never came, and why.
    failed: OnceLock<(usize, String)>,
    /// Counters for [`StepCtx::take`], used in turn: while one step uses its own and a late worker the previous one's,
    /// the third is set back.
    next: [AtomicU64; 3],
}

// SAFETY: `base` and `kv` stand for exclusive borrows that the run holds, `lent` for shared ones of what no step writes;
// steps keep their accesses apart. The
// profiler is only touched by worker 0, on the thread that lent it.
unsafe impl Sync for RunState<'_> {}

impl RunState<'_> {
    /// Calls the profiler, if there is one. For worker 0 only.
    fn profile(&self, call: impl FnOnce(&mut dyn Profiler)) {
        if let Local(Some(profiler)) = self.profiler {
            // SAFETY: borrowed exclusively for the run and used by worker 0 only.
            call(unsafe { &mut *profiler });
        }
    }
}

/// A value for the calling thread only.
struct Local<T>(T);

#[cfg(test)]
mod tests;
