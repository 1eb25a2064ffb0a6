//! A compiled graph: lowered once, bound per shape bucket on first use, run without planning after that.

use std::collections::BTreeMap;

use kinglet_graph::{Call, ExecError, Executable, Input, PlanReport, Profiler};
use kinglet_kernels::{Arena, KvStore, LENT, Limits, Program, RunArgs, RunError, Span, Team};
use kinglet_simd::Level;
use kinglet_tensor::{KvSpec, PageId};

use crate::bank::Bank;
use crate::placed::{LoweredGraph, Placed};
use crate::weights::WeightBank;

/// A graph bound to this machine's CPU.
pub(crate) struct CpuExecutable {
    lowered: LoweredGraph,
    weights: WeightBank,
    /// Weights in bfloat16.
    bank: Bank,
    /// Largest value of each dimension.
    max_dims: Vec<usize>,
    /// Dimensions of each input: the symbolic one and the elements a row.
    inputs: Vec<InputShape>,
    kv: Option<KvStore>,
    team: Team,
    level: Level,
    arena: Arena,
    buckets: BTreeMap<Vec<usize>, Bucket>,
    /// Dimensions of the last call, and its bucket's.
    dims: Vec<usize>,
    key: Vec<usize>,
    /// Whether the last call left outputs.
    ran: bool,
}

/// How an input's length gives a dimension.
pub(crate) struct InputShape {
    /// Index of the symbolic dimension, when there is one.
    pub(crate) dim: Option<usize>,
    /// Elements a row.
    pub(crate) row: usize,
}

/// A program for dimensions up to the bucket's.
struct Bucket {
    program: Program,
    inputs: Vec<Span>,
    outputs: Vec<Span>,
}

impl CpuExecutable {
    pub(crate) fn new(
        lowered: LoweredGraph,
        (weights, bank): (WeightBank, Bank),
        max_dims: Vec<usize>,
        inputs: Vec<InputShape>,
        kv: Option<KvSpec>,
        (team, level): (Team, Level),
    ) -> Result<Self, ExecError> {
        let kv = kv.map(KvStore::new).transpose().map_err(|e| memory("the key/value state", e))?;
        let arena = Arena::try_new(0).map_err(|e| memory("activations", e))?;
        let (dims, key) = (vec![0; max_dims.len()], vec![0; max_dims.len()]);
        let (buckets, ran) = (BTreeMap::new(), false);
        Ok(Self { lowered, weights, bank, max_dims, inputs, kv, team, level, arena, buckets, dims, key, ran })
    }

    /// Sets the dimensions of a call, from the lengths of its inputs.
    fn measure(&mut self, inputs: &[Input<'_>]) -> Result<(), ExecError> {
        let wrong = |index: usize, reason: String| ExecError::Input { index, reason };
        if inputs.len() != self.inputs.len() {
            return Err(wrong(inputs.len(), format!("{} inputs expected", self.inputs.len())));
        }
        self.dims.fill(0);
        for (index, (input, shape)) in inputs.iter().zip(&self.inputs).enumerate() {
            let rows = input.len().checked_div(shape.row).unwrap_or(0);
            if rows * shape.row != input.len() {
                return Err(wrong(
                    index,
                    format!("{} values are no whole rows of {}", input.len(), shape.row),
                ));
            }
            let Some(dim) = shape.dim else { continue };
            if rows == 0 || rows > self.max_dims[dim] {
                return Err(wrong(index, format!("{rows} rows, expected 1 to {}", self.max_dims[dim])));
            }
            if ![0, rows].contains(&self.dims[dim]) {
                return Err(wrong(
                    index,
                    format!("{rows} rows, another input of this dimension has more or fewer"),
                ));
            }
            self.dims[dim] = rows;
        }
        self.dims.iter_mut().filter(|dim| **dim == 0).for_each(|dim| *dim = 1);
        Ok(())
    }

    /// Binds the bucket for the call's dimensions unless it is bound already; each dimension's next power of two.
    fn prepare(&mut self) -> Result<(), ExecError> {
        for ((key, dim), max) in self.key.iter_mut().zip(&self.dims).zip(&self.max_dims) {
            *key = dim.next_power_of_two().min(*max);
        }
        if self.buckets.contains_key(&self.key) {
            return Ok(());
        }
        let bucket = self.bind(&self.key)?;
        if bucket.program.arena_bytes() > self.arena.bytes() {
            self.arena =
                Arena::try_new(bucket.program.arena_bytes()).map_err(|e| memory("activations", e))?;
        }
        self.buckets.insert(self.key.clone(), bucket);
        Ok(())
    }

    fn bind(&self, dims: &[usize]) -> Result<Bucket, ExecError> {
        let Placed { parts, inputs, outputs, bytes, .. } = self.lowered.place(dims, &[])?;
        let limits = Limits {
            arena_bytes: bytes,
            dims: dims.to_vec(),
            workers: self.team.size(),
            level: self.level,
            kv: self.kv.as_ref().map(|kv| kv.spec().clone()),
        };
        let parts = parts.into_iter().flatten().collect();
        let program = Program::of_parts(parts, limits).map_err(|e| ExecError::Node {
            node: self.lowered.steps.get(e.step).map_or_else(String::new, |s| s.name.clone()),
            reason: e.to_string(),
        })?;
        Ok(Bucket { program, inputs, outputs })
    }

    fn execute(
        &mut self,
        call: &Call<'_>,
        profiler: Option<&mut dyn kinglet_kernels::Profiler>,
    ) -> Result<(), ExecError> {
        self.ran = false;
        self.measure(call.inputs)?;
        self.prepare()?;
        let Some(bucket) = self.buckets.get(&self.key) else { return Err(ExecError::Output(0)) };
        for (index, (span, input)) in bucket.inputs.iter().zip(call.inputs).enumerate() {
            let written = match input {
                Input::I32(values) => self.arena.write(span, values),
                Input::F32(values) => self.arena.write(span, values),
            };
            written.map_err(|e| ExecError::Input { index, reason: e.to_string() })?;
        }
        let cancel = || call.cancel.is_cancelled();
        let profiler = profiler.map(|told| told as &mut dyn kinglet_kernels::Profiler);
        let args = RunArgs {
            dims: &self.dims,
            seqs: call.seqs,
            kv: self.kv.as_mut(),
            cancel: &cancel,
            profiler,
            lent: [None; LENT],
        };
        bucket.program.run(&mut self.arena, &self.team, args).map_err(run_error)?;
        self.ran = true;
        Ok(())
    }
}

impl Executable for CpuExecutable {
    fn kv(&self) -> Option<&KvSpec> {
        self.kv.as_ref().map(KvStore::spec)
    }

    fn max_rows(&self) -> usize {
        self.max_dims.first().copied().unwrap_or(1)
    }

    fn max_outputs(&self) -> usize {
        self.max_dims.get(1).copied().unwrap_or(1)
    }

    fn reserve_pages(&mut self, pages: usize) -> Result<(), ExecError> {
        self.kv.as_mut().map_or(Ok(()), |kv| kv.reserve(pages)).map_err(|e| memory("the key/value state", e))
    }

    fn copy_page(&mut self, from: PageId, to: PageId) -> Result<(), ExecError> {
        let pages = self.kv.as_ref().map_or(0, KvStore::pages);
        let copied = self.kv.as_mut().map_or(Ok(()), |kv| kv.copy_page(from, to));
        copied.map_err(|_| ExecError::Page { page: from.max(to), pages })
    }

    fn run(&mut self, call: &Call<'_>) -> Result<(), ExecError> {
        self.execute(call, None)
    }

    fn profile(&mut self, call: &Call<'_>, profiler: &mut dyn Profiler) -> Result<(), ExecError> {
        self.execute(call, Some(&mut Told(profiler)))
    }

    fn output(&self, index: usize) -> Result<&[f32], ExecError> {
        let bucket = self.buckets.get(&self.key).filter(|_| self.ran);
        let span = bucket.and_then(|bucket| bucket.outputs.get(index)).ok_or(ExecError::Output(index))?;
        self.arena.read(span, &self.dims).map_err(|_| ExecError::Output(index))
    }

    fn report(&self, dims: &[usize]) -> Result<PlanReport, ExecError> {
        let placed = self.lowered.place(dims, &[])?;
        Ok(PlanReport {
            packed_bytes: self.weights.packed_bytes() + self.bank.bytes(),
            mapped_bytes: self.weights.mapped_bytes(),
            isa: self.level.name().into(),
            threads: self.team.size(),
            ..self.lowered.report(&placed, dims)
        })
    }
}

/// Tells a graph's profiler of a program's steps.
struct Told<'a>(&'a mut dyn Profiler);

impl kinglet_kernels::Profiler for Told<'_> {
    fn begin(&mut self) {
        self.0.begin();
    }

    fn step(&mut self, index: usize) {
        self.0.step(index);
    }
}

fn memory(what: &str, e: impl std::fmt::Display) -> ExecError {
    ExecError::Memory { what: what.into(), reason: e.to_string() }
}

fn run_error(e: RunError) -> ExecError {
    match e {
        RunError::Cancelled => ExecError::Cancelled,
        other => ExecError::Node { node: "run".into(), reason: other.to_string() },
    }
}
