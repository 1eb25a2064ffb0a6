//! The CPU backend: binds graph ops to kernels.
//!
//! Compiling lowers the graph once, packs each weight once, and binds a program per shape bucket on first use. Adding an
//! op is one binder under `ops/` and one line in its registry. Deliberately absent: kernels, and planning memory.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod alias;
mod bank;
mod blocked;
mod codes;
mod control;
mod env;
mod executable;
mod fast;
mod handed;
mod host;
mod host_step;
mod lanes;
mod lower;
mod ops;
mod outputs;
mod pack_file;
mod placed;
mod plan;
mod reading;
mod session;
mod value;
mod views;
mod weights;

use std::sync::Arc;

pub use env::{Fold, SessionOptions};
pub use handed::{LargeOutputs, OutputFiles};
pub use session::{BufferStats, Feed, Session, TensorView};
pub use value::{Array, Value};

use kinglet_graph::passes::Integers;
use kinglet_graph::{Backend, Dim, ExecError, Executable, Graph};
use kinglet_kernels::Team;
use kinglet_simd::Level;

use crate::bank::Bank;
use crate::executable::{CpuExecutable, InputShape};
use crate::lower::Lowering;
pub use crate::pack_file::{PackFile, PackStore};
use crate::weights::WeightBank;

/// In which precision products of activations and weights are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As the model suggests: integers where weights are quantised or the graph quantises values itself; else bfloat16 in
    /// language models, where the machine multiplies such numbers, and f32.
    #[default]
    Auto,
    /// Activations as they are, weights decoded exactly. Slower, for references and small models.
    F32,
    /// Activations and weights rounded to bfloat16 (8 significant bits), sums in f32, where the machine multiplies such
    /// numbers; else f32.
    Bf16,
    /// Activations as 8-bit integers, one scale for 32 of them, where the weight's type has such a kernel; values
    /// beyond five times the row's root mean square have eight bits more. Products of graph models with constant weights as
    /// well: weights as 8-bit integers, one scale an output, and inputs, one scale a row or an image. Other products in f32.
    Int8,
}

impl Precision {
    /// Whether quantised weights are multiplied as integers.
    pub(crate) fn integers(self) -> bool {
        matches!(self, Self::Auto | Self::Int8)
    }

    /// Which products of a graph that describes all of its ops are computed over codes.
    fn codes(self) -> Integers {
        match self {
            Self::Auto => Integers::Given,
            Self::Int8 => Integers::All,
            Self::F32 | Self::Bf16 => Integers::None,
        }
    }
}

/// Runs graphs on this machine's CPU.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    /// Workers, the calling thread included.
    pub threads: usize,
    /// Instruction set that kernels are bound to.
    pub level: Level,
    /// Precision of matrix products.
    pub precision: Precision,
    /// Where packed weights are kept between runs, if they are.
    pub packs: Option<Arc<dyn PackStore>>,
}

impl CpuBackend {
    /// This many threads and the best instruction set there is.
    pub fn new(threads: usize) -> Self {
        let (level, precision) = (Level::detect(), Precision::default());
        Self { threads: threads.max(1), level, precision, packs: None }
    }

    /// Whether products that are not of integers are computed in bfloat16; with `auto`, also where the precision leaves it
    /// to the backend.
    fn bf16(&self, auto: bool) -> bool {
        let asked = self.precision == Precision::Bf16 || auto && self.precision == Precision::Auto;
        asked && self.level.has_bf16()
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &str {
        "cpu"
    }

    fn compile(&self, graph: Graph) -> Result<Box<dyn Executable>, ExecError> {
        let team = Team::new(self.threads);
        let bf16 = self.bf16(true);
        let bank = Bank::new(&graph, self);
        let weights = WeightBank::prepare(&graph, self, None, bf16)?;
        let lowering = Lowering::new(&graph, &weights);
        let lowering = if bf16 { lowering.with_bf16(self.level, &bank) } else { lowering };
        let lowered = lowering.finish()?;
        let max_dims = graph.dims().iter().map(|dim| dim.max).collect();
        let inputs = graph
            .inputs()
            .iter()
            .map(|v| input_shape(graph.tensor_type(*v).map_or(&[], |ty| &ty.shape)))
            .collect();
        let kv = graph.kv().cloned();
        Ok(Box::new(CpuExecutable::new(lowered, (weights, bank), max_dims, inputs, kv, (team, self.level))?))
    }
}

fn input_shape(shape: &[Dim]) -> InputShape {
    let dim = shape.first().and_then(|dim| if let Dim::Sym(s) = dim { Some(*s) } else { None });
    let inner = &shape[usize::from(dim.is_some())..];
    InputShape { dim, row: inner.iter().map(|dim| if let Dim::Fixed(n) = dim { *n } else { 1 }).product() }
}
