//! What a backend promises: compile a graph once, then run it many times without planning or allocating.
//!
//! Deliberately absent: any backend, threads, clocks. The engine knows hardware only through these traits.

use std::sync::atomic::{AtomicBool, Ordering};

use kinglet_tensor::{KvSpec, PageId, SeqRows};

use crate::cost::{Attends, Cost, Math};
use crate::{Graph, cost};

/// Compiles graphs for one kind of hardware.
pub trait Backend: Send + Sync {
    /// Short name, e.g. `cpu`.
    fn name(&self) -> &str;

    /// Binds every op to a kernel, packs weights and plans memory.
    fn compile(&self, graph: Graph) -> Result<Box<dyn Executable>, ExecError>;
}

/// A compiled graph with its weights, its state pages and its arena.
pub trait Executable: Send {
    /// Shape of the key/value pages, when the graph has any.
    fn kv(&self) -> Option<&KvSpec>;

    /// Most rows (dimension `T`) that one call may bring.
    fn max_rows(&self) -> usize;

    /// Most output rows (dimension `R`) that one call may ask for.
    fn max_outputs(&self) -> usize;

    /// Makes pages `0..pages` usable; existing ones keep their content. Fails, changing nothing, when memory is short.
    fn reserve_pages(&mut self, pages: usize) -> Result<(), ExecError>;

    /// Copies the content of one page to another, over all layers (copy-on-write of a shared prefix).
    fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), ExecError>;

    /// Runs the graph; outputs stay readable until the next call.
    fn run(&mut self, call: &Call<'_>) -> Result<(), ExecError>;

    /// As [`run`](Self::run), telling `profiler` when each step of [`report`](Self::report) ends. A run that is not
    /// profiled pays nothing for this.
    fn profile(&mut self, call: &Call<'_>, profiler: &mut dyn Profiler) -> Result<(), ExecError>;

    /// Output `index` of the last run, row-major.
    fn output(&self, index: usize) -> Result<&[f32], ExecError>;

    /// The plan for these dimensions, for `explain` and `profile`.
    fn report(&self, dims: &[usize]) -> Result<PlanReport, ExecError>;
}

/// Learns when the steps of a run begin and end, on the thread that runs. It brings its own clock.
pub trait Profiler {
    /// The first step begins.
    fn begin(&mut self);

    /// Step `index` has ended on all workers, and the next one begins.
    fn step(&mut self, index: usize);
}

/// One run's arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// One entry a graph input, in graph order; the first dimension is the slice's length over the inner shape.
    pub inputs: &'a [Input<'a>],
    /// The sequences of the batch, covering dimension `T` in order without gaps. Empty for graphs without state.
    pub seqs: &'a [SeqRows<'a>],
    /// Checked between steps.
    pub cancel: &'a CancelToken,
}

/// Borrowed input values.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// 32-bit integers: token ids, row indices.
    I32(&'a [i32]),
    /// 32-bit floats.
    F32(&'a [f32]),
}

impl Input<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::I32(values) => values.len(),
            Self::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tells a running call to stop at the next step. Cheap to share by `Arc`.
#[derive(Debug, Default)]
pub struct CancelToken(AtomicBool);

impl CancelToken {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A compiled plan in words and figures.
#[derive(Clone, Debug, Default)]
pub struct PlanReport {
    /// Steps in running order.
    pub steps: Vec<StepReport>,
    /// Bytes of the activation arena.
    pub arena_bytes: usize,
    /// Bytes of weights copied into packed form.
    pub packed_bytes: usize,
    /// Bytes of weights used where they lie (mapped).
    pub mapped_bytes: usize,
    /// Instruction set that the kernels were bound to.
    pub isa: String,
    /// Threads of the team.
    pub threads: usize,
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Name of the value it makes, e.g. `blk.3.attn_norm`.
    pub name: String,
    /// Kernel and formats, e.g. `matmul Q4_1 x q8`.
    pub kernel: String,
    /// What was fused or chosen, and why.
    pub note: String,
    /// Weight bytes it reads.
    pub weight_bytes: usize,
    /// Bytes of activations it reads and writes.
    pub activation_bytes: usize,
    /// Multiply-adds of its matrix products, over all rows.
    pub multiply_adds: usize,
    /// What it multiplies in.
    pub math: Math,
    /// What it does for each position that a row attends to.
    pub attends: Option<Attends>,
    /// Arena offset and bytes of each output.
    pub outputs: Vec<(usize, usize)>,
}

impl StepReport {
    /// What the step costs in a run of these sequences: tokens before, and tokens of the run.
    pub fn cost(&self, seqs: &[(usize, usize)]) -> Cost {
        cost::of(self, seqs)
    }
}

/// Why a graph could not be compiled or run.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum ExecError {
    #[error("op `{op}` at node `{node}` has no kernel on backend `{backend}`")]
    Unsupported { op: String, node: String, backend: String },
    #[error("node `{node}`: {reason}")]
    Node { node: String, reason: String },
    #[error("not enough memory for {what}: {reason}")]
    Memory { what: String, reason: String },
    #[error("input {index}: {reason}")]
    Input { index: usize, reason: String },
    #[error("page {page} is outside the {pages} reserved pages")]
    Page { page: PageId, pages: usize },
    #[error("no output {0}")]
    Output(usize),
    #[error("cancelled")]
    Cancelled,
}
