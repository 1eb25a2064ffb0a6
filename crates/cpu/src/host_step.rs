//! Host kernels as steps of a program: known shapes, spans of the arena, faults reported aside.

use std::sync::Arc;

use kinglet_graph::{Def, ExecError, Node, TensorType};
use kinglet_kernels::ops::HostIo;
use kinglet_tensor::{DType, Tensor};

use crate::host::{Arg, Call, Host, Outs, View, host};
use crate::lower::{BufferId, Lowering, Work};
use crate::plan::Faults;
use crate::value::Value;

/// Where an input comes from.
enum Source {
    Absent,
    Constant(Tensor),
    /// The span with this number among those read, its type and shape.
    Span(usize, DType, Vec<usize>),
}

impl Source {
    fn arg<'a>(&'a self, io: &HostIo<'a>) -> Arg<'a> {
        match self {
            Self::Absent => Arg::Absent,
            Self::Constant(t) => {
                Arg::Tensor(View { dtype: t.dtype(), shape: t.shape(), data: t.data(), texts: &[] })
            }
            Self::Span(i, dtype, shape) => {
                Arg::Tensor(View { dtype: *dtype, shape, data: io.read(*i), texts: &[] })
            }
        }
    }
}

/// A bound host kernel.
struct Bound {
    kernel: Host,
    node: Node,
    sources: Vec<Source>,
    outputs: Vec<(DType, Vec<usize>)>,
    faults: Arc<Faults>,
}

/// Adds the step that computes a node of known types.
pub(crate) fn host_step(low: &mut Lowering<'_>, node: &Node, faults: Arc<Faults>) -> Result<(), ExecError> {
    let kernel = host(&*node.op).ok_or_else(|| ExecError::Unsupported {
        op: node.op.name().into(),
        node: node.name.clone(),
        backend: "cpu".into(),
    })?;
    let mut reads: Vec<BufferId> = Vec::new();
    let mut sources = Vec::with_capacity(node.inputs.len());
    for id in &node.inputs {
        let value = low.graph.value(*id);
        sources.push(match (&value.def, value.ty.known()) {
            (Def::Absent, _) => Source::Absent,
            (Def::Weight(tensor), _) => Source::Constant(tensor.clone()),
            (_, Some(ty)) => {
                let (dtype, shape) = parts(ty);
                reads.push(low.value(*id)?);
                Source::Span(reads.len() - 1, dtype, shape)
            }
            (_, None) => Source::Absent,
        });
    }
    let mut writes = Vec::with_capacity(node.outputs.len());
    let mut outputs = Vec::with_capacity(node.outputs.len());
    for id in &node.outputs {
        writes.push(low.value(*id)?);
        outputs.extend(low.graph.value(*id).ty.known().map(parts));
    }
    let bound = Arc::new(Bound { kernel, node: node.clone(), sources, outputs, faults });
    let (ins, outs) = (reads.clone(), writes.clone());
    let label = format!("{} {} (plain)", node.op.name(), node.op.describe());
    low.step(node, &reads, &writes, Work::default(), move |s| {
        let bound = bound.clone();
        let spans = |ids: &[BufferId]| ids.iter().map(|id| s[*id]).collect();
        let run = Box::new(move |io: &mut HostIo<'_>| bound.run(io));
        Ok(kinglet_kernels::ops::host(label.clone(), spans(&ins), spans(&outs), run))
    });
    Ok(())
}

fn parts(ty: &TensorType) -> (DType, Vec<usize>) {
    (ty.dtype, ty.dims().unwrap_or_default())
}

impl Bound {
    fn run(&self, io: &mut HostIo<'_>) {
        let args: Vec<Arg<'_>> = self.sources.iter().map(|source| source.arg(io)).collect();
        let mut outs = Spans { io, outputs: &self.outputs };
        if let Err(reason) = (self.kernel)(&*self.node.op, &Call { args: &args }, &mut outs) {
            self.faults.report(&self.node.name, format!("{}: {reason}", self.node.op.name()));
        }
    }
}

/// Outputs that already have their place.
struct Spans<'a, 'b> {
    io: &'a mut HostIo<'b>,
    outputs: &'a [(DType, Vec<usize>)],
}

impl Outs for Spans<'_, '_> {
    fn wants(&self, i: usize) -> bool {
        i < self.outputs.len()
    }

    fn planned(&self, i: usize) -> Option<(DType, Vec<usize>)> {
        self.outputs.get(i).cloned()
    }

    fn make(&mut self, i: usize, dtype: DType, shape: &[usize]) -> Result<&mut [u8], String> {
        match self.outputs.get(i) {
            Some((d, s)) if *d == dtype && s == shape => Ok(self.io.write(i)),
            Some((d, s)) => Err(format!("made {dtype}{shape:?}, planned {d}{s:?}")),
            None => Err(format!("no output {i}")),
        }
    }

    fn put(&mut self, i: usize, value: Value) -> Result<(), String> {
        let array = value.tensor().ok_or("made no tensor")?;
        let (dtype, shape) = (array.dtype(), array.shape().to_vec());
        self.make(i, dtype, &shape)?.copy_from_slice(array.bytes());
        Ok(())
    }
}
