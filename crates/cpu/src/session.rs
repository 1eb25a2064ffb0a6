//! A graph on this machine's CPU: specialised, planned and packed once for each shape of its inputs, then run.
//!
//! What is static runs as programs over one arena; what only the data decides runs between them, one op at a time, in
//! buffers of a pool. Running a static plan a second time allocates nothing.

use std::sync::Arc;

use kinglet_graph::{Binding, Dim, ExecError, Graph, Profiler, TensorType, Type, specialise};
use kinglet_kernels::Arena;
use kinglet_tensor::{BufferPool, DType, PoolStats, Tensor};

use crate::env::{Env, SessionOptions};
use crate::handed::{hand_out, hand_over, pooled};
use crate::plan::Plan;
use crate::value::Value;

/// So many shapes are planned for; after that, one plan serves all others.
const MAX_PLANS: usize = 24;

/// A graph ready to run.
pub struct Session {
    env: Arc<Env>,
    graph: Arc<Graph>,
    constants: Vec<Option<Tensor>>,
    plans: Vec<(Vec<Type>, Plan)>,
    arena: Arena,
    /// The plan of the last run, and the one that was prepared last.
    last: Option<usize>,
    prepared: Option<usize>,
    /// Buffers that steps found in the arena, and arenas made, over all runs.
    planned: u64,
    arenas: u64,
    runs: u64,
}

/// Where the buffers of a session's runs came from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BufferStats {
    /// Runs.
    pub runs: u64,
    /// Buffers that steps found in an arena that was there.
    pub planned: u64,
    /// Arenas that were allocated.
    pub arenas: u64,
    /// Size of the arena.
    pub arena_bytes: usize,
    /// The pool of everything else: what only the data sizes, and outputs that were handed out.
    pub pool: PoolStats,
}

impl BufferStats {
    /// Share of all buffers that nothing was allocated for, 0 to 1.
    pub fn avoided(&self) -> f64 {
        let all = self.planned + self.pool.requests();
        let allocated = self.arenas + self.pool.misses;
        if all == 0 { 0.0 } else { 1.0 - allocated.min(all) as f64 / all as f64 }
    }

    /// What happened since `before`; sizes are as they are now.
    pub fn since(&self, before: &Self) -> Self {
        let (now, then) = (self.pool, before.pool);
        let pool = PoolStats {
            hits: now.hits - then.hits,
            misses: now.misses - then.misses,
            bytes_saved: now.bytes_saved - then.bytes_saved,
            freed: now.freed - then.freed,
            ..now
        };
        let (planned, arenas) = (self.planned - before.planned, self.arenas - before.arenas);
        Self { runs: self.runs - before.runs, planned, arenas, pool, ..*self }
    }
}

/// A tensor that a run brings, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Row-major elements.
    pub data: &'a [u8],
}

/// An input of a run.
#[derive(Clone, Copy, Debug)]
pub enum Feed<'a> {
    /// A tensor.
    Tensor(TensorView<'a>),
    /// Any value.
    Value(&'a Value),
}

impl<'a> Feed<'a> {
    /// The elements of a tensor.
    pub(crate) fn bytes(&self) -> Result<&'a [u8], String> {
        match self {
            Self::Tensor(view) => Ok(view.data),
            Self::Value(Value::Tensor(array)) => Ok(array.bytes()),
            Self::Value(_) => Err("expected a tensor".into()),
        }
    }

    fn ty(&self) -> Type {
        match self {
            Self::Tensor(view) => TensorType::fixed(view.dtype, view.shape).into(),
            Self::Value(value) => value.ty(),
        }
    }

    /// Whether it has this type; allocates nothing for tensors.
    fn has(&self, ty: &Type) -> bool {
        let (dtype, shape) = match self {
            Self::Tensor(view) => (view.dtype, view.shape),
            Self::Value(Value::Tensor(array)) => (array.dtype(), array.shape()),
            Self::Value(value) => return value.ty() == *ty,
        };
        let Type::Tensor(ty) = ty else { return false };
        let fits = |(dim, n): (&Dim, &usize)| matches!(dim, Dim::Unknown) || *dim == Dim::Fixed(*n);
        ty.dtype == dtype && ty.rank() == shape.len() && ty.shape.iter().zip(shape).all(fits)
    }
}

impl Session {
    /// A session over a graph; nothing is planned yet.
    pub fn new(graph: Graph, options: &SessionOptions) -> Result<Self, ExecError> {
        let graph = if options.interpret { graph } else { kinglet_graph::passes::widen(graph) };
        Self::within(Arc::new(Env::new(&graph, options)), Arc::new(graph), Vec::new())
    }

    /// A session over a body; `constants` are the inputs that never change.
    pub(crate) fn within(
        env: Arc<Env>,
        graph: Arc<Graph>,
        constants: Vec<Option<Tensor>>,
    ) -> Result<Self, ExecError> {
        let arena = Arena::try_new(0).map_err(memory)?;
        let (plans, planned, arenas, runs) = (Vec::new(), 0, 0, 0);
        Ok(Self { env, graph, constants, plans, arena, last: None, prepared: None, planned, arenas, runs })
    }

    /// The graph that is planned: as it was given, in floats of 32 bits where that had 16.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Figures of the pool.
    pub fn pool(&self) -> &BufferPool {
        self.env.room.pool()
    }

    /// Where the buffers of all runs so far came from.
    pub fn buffers(&self) -> BufferStats {
        let (runs, planned, arenas) = (self.runs, self.planned, self.arenas);
        BufferStats { runs, planned, arenas, arena_bytes: self.arena.bytes(), pool: self.pool().stats() }
    }

    /// Runs the graph on one feed for each of its inputs, in order; outputs stay until the next run.
    pub fn run(&mut self, feeds: &[Feed<'_>]) -> Result<(), ExecError> {
        self.run_with(feeds, None)
    }

    /// The same; `profiler` hears of each step of the plan.
    pub fn run_with(
        &mut self,
        feeds: &[Feed<'_>],
        profiler: Option<&mut dyn Profiler>,
    ) -> Result<(), ExecError> {
        let index = self.prepare(feeds)?;
        self.last = None;
        let plan = &mut self.plans[index].1;
        if plan.arena_bytes() > self.arena.bytes() {
            self.arena = Arena::try_new(plan.arena_bytes()).map_err(memory)?;
            self.arenas += 1;
        }
        self.planned += plan.placed() as u64;
        self.runs += 1;
        plan.run(&self.env, &mut self.arena, feeds, profiler)?;
        self.last = Some(index);
        Ok(())
    }

    /// Waits until the weights of all plans are packed. A run waits only for those that its next step reads, and meets the
    /// same errors.
    pub fn wait(&self) -> Result<(), ExecError> {
        self.env.bank.wait()
    }

    /// The plan for these feeds, made on first use. Its weights are packed in the background.
    pub fn prepare(&mut self, feeds: &[Feed<'_>]) -> Result<usize, ExecError> {
        let open = self.open_inputs();
        if feeds.len() != open {
            return Err(ExecError::Input { index: feeds.len(), reason: format!("{open} inputs expected") });
        }
        let fits = |types: &[Type]| types.iter().zip(feeds).all(|(ty, feed)| feed.has(ty));
        self.prepared = self.plans.iter().position(|(types, _)| fits(types));
        if let Some(found) = self.prepared {
            return Ok(found);
        }
        let general = self.plans.len() >= MAX_PLANS;
        let types: Vec<Type> =
            feeds.iter().map(|f| if general { open_type(f.ty()) } else { f.ty() }).collect();
        self.check_types(&types)?;
        let plan = self.plan(&types)?;
        self.plans.push((types, plan));
        self.prepared = Some(self.plans.len() - 1);
        Ok(self.plans.len() - 1)
    }

    fn open_inputs(&self) -> usize {
        self.graph.inputs().len() - self.constants.iter().flatten().count()
    }

    /// Each input that is not a constant, by its position in the graph.
    fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.graph.inputs().len()).filter(|i| self.constants.get(*i).is_none_or(Option::is_none))
    }

    fn check_types(&self, types: &[Type]) -> Result<(), ExecError> {
        let mut sizes = vec![None; self.graph.dims().len()];
        for (i, found) in self.open().zip(types) {
            let value = self.graph.value(self.graph.inputs()[i]);
            let (Type::Tensor(declared), Type::Tensor(found)) = (&value.ty, found) else { continue };
            let fail = || ExecError::Input {
                index: i,
                reason: format!(
                    "`{}` takes {}, found {}",
                    value.name,
                    self.graph.type_text(&value.ty),
                    self.graph.type_text(&Type::Tensor(found.clone()))
                ),
            };
            if declared.dtype != found.dtype || declared.rank() != found.rank() {
                return Err(fail());
            }
            for (dim, n) in declared.shape.iter().zip(&found.shape) {
                let agreed = match (dim, n.fixed()) {
                    (Dim::Fixed(a), Some(b)) => *a == b,
                    (Dim::Sym(s), Some(b)) => *sizes[*s].get_or_insert(b) == b,
                    _ => true,
                };
                if !agreed {
                    return Err(fail());
                }
            }
        }
        Ok(())
    }

    fn plan(&self, types: &[Type]) -> Result<Plan, ExecError> {
        let mut types = types.iter();
        let bindings: Vec<Binding> = (0..self.graph.inputs().len())
            .map(|i| match self.constants.get(i).cloned().flatten() {
                Some(tensor) => Binding::Constant(tensor),
                None => Binding::Input(types.next().cloned().unwrap_or(Type::Unknown)),
            })
            .collect();
        let (graph, room) = (&self.graph, &self.env.room);
        let bound = if self.env.fuse {
            kinglet_graph::passes::plan(graph, &bindings, room, self.env.backend.precision.codes())
        } else {
            specialise(graph, &bindings, room)
        };
        Plan::new(bound.map_err(build_error)?, &self.env)
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.graph.outputs().len()
    }

    /// Output `i` of the last run.
    pub fn output(&self, i: usize) -> Result<Feed<'_>, ExecError> {
        let index = self.last.ok_or(ExecError::Output(i))?;
        self.plans[index].1.output(&self.arena, i)
    }

    /// Output `i` of the last run of a body as a value of its own.
    pub(crate) fn body_value(&self, i: usize) -> Result<Value, ExecError> {
        Ok(match self.output(i)? {
            Feed::Value(value) => value.clone(),
            Feed::Tensor(view) => pooled(&self.env, &view)?.into(),
        })
    }

    /// Output `i` of the last run as a value of its own: in a buffer of the pool, or in a file when it is a large tensor and
    /// the options say where such files are.
    pub fn output_value(&self, i: usize) -> Result<Value, ExecError> {
        Ok(match self.output(i)? {
            Feed::Value(Value::Tensor(array)) => hand_over(&self.env, array).into(),
            Feed::Value(value) => value.clone(),
            Feed::Tensor(view) => hand_out(&self.env, &view)?.into(),
        })
    }

    /// The plan that was prepared (or run) last.
    fn prepared_plan(&self) -> Option<&Plan> {
        Some(&self.plans[self.prepared?].1)
    }

    /// The bound, fused graph that was prepared (or run) last.
    pub fn planned_graph(&self) -> Option<&Graph> {
        self.prepared_plan().map(Plan::graph)
    }

    /// Steps, memory and threads of the plan that was prepared (or run) last.
    pub fn report(&self) -> Option<kinglet_graph::PlanReport> {
        let mut report = self.prepared_plan()?.report();
        report.isa = self.env.backend.level.name().into();
        report.threads = self.env.team.size();
        report.packed_bytes = self.env.bank.bytes();
        Some(report)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("plans", &self.plans.len()).finish_non_exhaustive()
    }
}

/// The type with every dimension open.
fn open_type(ty: Type) -> Type {
    match ty {
        Type::Tensor(ty) => TensorType::of_rank(ty.dtype, ty.rank()).into(),
        other => other,
    }
}

fn memory(e: impl std::fmt::Display) -> ExecError {
    ExecError::Memory { what: "activations".into(), reason: e.to_string() }
}

pub(crate) fn build_error(e: kinglet_graph::BuildError) -> ExecError {
    match e {
        kinglet_graph::BuildError::Node { node, op, reason } => {
            ExecError::Node { node, reason: format!("{op}: {reason}") }
        }
        other => ExecError::Node { node: "graph".into(), reason: other.to_string() },
    }
}
