//! What all plans of a session share, and how a session treats its graph.

use kinglet_graph::{Evaluate, Graph, Op, Type};
use kinglet_kernels::Team;
use kinglet_tensor::{BufferPool, Contents, DType, PoolLimits, PooledBuffer, Tensor};

use crate::CpuBackend;
use crate::bank::Bank;
use crate::handed::LargeOutputs;
use crate::host::{Arg, Call, View, host};
use crate::outputs::Outputs;

/// What all plans of a graph and of its bodies share.
pub(crate) struct Env {
    pub(crate) team: Team,
    pub(crate) backend: CpuBackend,
    /// Packed weights.
    pub(crate) bank: Bank,
    /// What host kernels compute in.
    pub(crate) room: Fold,
    /// Most rounds of a loop, and elements of a list that it carries.
    pub(crate) max_rounds: u64,
    pub(crate) max_list: usize,
    /// Where large outputs go.
    pub(crate) large: Option<LargeOutputs>,
    /// Whether graphs are fused before they are planned.
    pub(crate) fuse: bool,
    /// Whether ops are run one by one, without programs.
    pub(crate) interpret: bool,
}

impl Env {
    /// For a model whose constants live as long as this.
    pub(crate) fn new(graph: &Graph, options: &SessionOptions) -> Self {
        Self {
            team: Team::new(options.backend.threads),
            bank: Bank::new(graph, &options.backend),
            backend: options.backend.clone(),
            room: Fold::new(options),
            max_rounds: options.max_rounds,
            max_list: options.max_list,
            large: options.large_outputs.clone(),
            fuse: options.fuse,
            interpret: options.interpret,
        }
    }
}

/// How a session treats its graph.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Threads, instruction set and precision.
    pub backend: CpuBackend,
    /// Whether ops are fused.
    pub fuse: bool,
    /// Run every op by its plain form, one after the other, without a plan: the slow, simple way.
    pub interpret: bool,
    /// What the pool may keep.
    pub pool: PoolLimits,
    /// Most elements of a value whose size the data decides (`Expand`, `Range`, `Pad` by computed sizes).
    pub max_elements: usize,
    /// Most rounds of a loop.
    pub max_rounds: u64,
    /// Most elements of a list that a loop carries.
    pub max_list: usize,
    /// Outputs that are handed out in files of their own; without it, all are in memory.
    pub large_outputs: Option<LargeOutputs>,
}

impl SessionOptions {
    /// Elements of a value whose size the data decides, at most, unless the options say otherwise.
    pub const MAX_ELEMENTS: usize = 1 << 28;
    /// Rounds of a loop, at most, unless the options say otherwise: more than any model means.
    pub const MAX_ROUNDS: u64 = 1 << 22;
    /// Elements of a list that a loop carries, at most, unless the options say otherwise.
    pub const MAX_LIST: usize = 1 << 13;

    /// Everything that makes it fast.
    pub fn new(backend: CpuBackend) -> Self {
        let (pool, large_outputs) = (PoolLimits::default(), None);
        Self {
            backend,
            fuse: true,
            interpret: false,
            pool,
            max_elements: Self::MAX_ELEMENTS,
            max_rounds: Self::MAX_ROUNDS,
            max_list: Self::MAX_LIST,
            large_outputs,
        }
    }
}

/// Computes ops by host kernels, in buffers of a pool: constants while graphs are bound, and what only the data decides.
#[derive(Clone, Debug)]
pub struct Fold {
    pool: BufferPool,
    max_elements: usize,
}

impl Fold {
    /// With the bounds of these options.
    pub fn new(options: &SessionOptions) -> Self {
        Self { pool: BufferPool::new(options.pool), max_elements: options.max_elements }
    }

    /// The pool.
    pub(crate) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// The bytes of a value whose size the data decided; an error when it is too large to compute.
    pub(crate) fn admit(&self, dtype: DType, shape: &[usize]) -> Result<usize, String> {
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let bytes = elements.filter(|n| *n <= self.max_elements).and(Tensor::bytes_of(dtype, shape));
        bytes.ok_or_else(|| {
            let most = self.max_elements;
            format!("the data asks for a result {dtype}{shape:?}; at most {most} elements are allowed")
        })
    }

    /// Room for a value.
    pub(crate) fn lend(&self, dtype: DType, shape: &[usize]) -> Result<PooledBuffer, String> {
        let bytes = self.admit(dtype, shape)?;
        self.pool.acquire(bytes, Contents::Stale).map_err(|e| e.to_string())
    }
}

impl Evaluate for Fold {
    fn evaluate(&self, op: &dyn Op, inputs: &[Option<&Tensor>], outputs: &[Type]) -> Option<Vec<Tensor>> {
        let kernel = host(op)?;
        let args: Vec<Arg<'_>> = inputs
            .iter()
            .map(|tensor| match tensor {
                None => Arg::Absent,
                Some(t) => {
                    Arg::Tensor(View { dtype: t.dtype(), shape: t.shape(), data: t.data(), texts: &[] })
                }
            })
            .collect();
        let planned: Vec<_> = outputs.iter().map(|ty| ty.known().cloned()).collect();
        let mut outs = Outputs::new(self, planned);
        kernel(op, &Call { args: &args }, &mut outs).ok()?;
        outs.finish().into_iter().map(|value| value?.tensor()?.constant()).collect()
    }
}
