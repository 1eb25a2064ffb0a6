//! Lowering: graph nodes become steps over virtual buffers, once; each shape bucket then places the buffers and binds.
//!
//! Every op has one binder, a line in [`crate::ops::BINDERS`]. A binder adds steps through [`Lowering::step`]; it sees
//! buffers, never offsets.

use std::collections::{HashMap, HashSet};

use kinglet_graph::cost::{Attends, Math};
use kinglet_graph::ops::Rope;
use kinglet_graph::{Dim, ExecError, Graph, Lifetime, Node, TensorType, ValueId, plan_memory};
use kinglet_kernels::matmul::quant_row_bytes;
use kinglet_kernels::ops::RowsOut;
use kinglet_kernels::{DimId, Elem, Rows, Span, Step, StepError};
use kinglet_tensor::DType;

use crate::weights::WeightBank;

const TOO_LARGE: &str = "the size overflows";

/// Index of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BufferId(usize);

/// A matrix in the arena that has no place yet.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    rows: Rows,
    cols: usize,
    elem: Elem,
}

/// What a step costs, whatever its kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Weight bytes it reads, however many rows.
    pub(crate) weight_bytes: usize,
    /// Weight bytes it reads for each row.
    pub(crate) row_bytes: usize,
    /// Multiply-adds of its matrix products, per row.
    pub(crate) multiply_adds: usize,
    /// What they are done in.
    pub(crate) math: Math,
    /// What it does for each position that a row attends to.
    pub(crate) attends: Option<Attends>,
}

impl Work {
    /// Work that only moves bytes.
    pub(crate) fn bytes(weight_bytes: usize) -> Self {
        Self { weight_bytes, ..Self::default() }
    }
}

type Bind = dyn Fn(&Spans) -> Result<Box<dyn Step>, StepError> + Send + Sync;

/// A step that waits for its buffers' places.
pub(crate) struct Lowered {
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) work: Work,
    pub(crate) reads: Vec<BufferId>,
    pub(crate) writes: Vec<BufferId>,
    bind: Box<Bind>,
}

/// Buffers with their places, for one bucket.
pub(crate) struct Spans(Vec<Span>);

impl std::ops::Index<BufferId> for Spans {
    type Output = Span;

    fn index(&self, id: BufferId) -> &Span {
        &self.0[id.0]
    }
}

/// A graph being lowered.
pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) weights: &'a WeightBank,
    buffers: Vec<Buffer>,
    values: HashMap<ValueId, BufferId>,
    /// Values that are read as floats, and those that are read in 8 bits.
    wanted: [HashSet<ValueId>; 2],
    /// The 8-bit forms that were made so far.
    quantized: HashMap<ValueId, BufferId>,
    /// Tables of rotary angles, shared by layers.
    tables: Vec<(Rope, BufferId)>,
    steps: Vec<Lowered>,
}

/// Where a step leaves a value: as floats, in 8 bits, or both, as its readers want it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forms {
    plain: Option<BufferId>,
    quant: Option<BufferId>,
}

impl Forms {
    /// The buffers that are written.
    pub(crate) fn buffers(&self) -> Vec<BufferId> {
        self.plain.into_iter().chain(self.quant).collect()
    }

    /// The destinations of a row operation.
    pub(crate) fn rows_out(&self, spans: &Spans) -> RowsOut {
        RowsOut { plain: self.plain.map(|b| spans[b]), quant: self.quant.map(|b| spans[b]) }
    }
}

/// A lowered graph: what every bucket is bound from.
pub(crate) struct LoweredGraph {
    buffers: Vec<Buffer>,
    pub(crate) steps: Vec<Lowered>,
    inputs: Vec<BufferId>,
    outputs: Vec<BufferId>,
}

/// A lowered graph with every buffer in its place.
pub(crate) struct Placed {
    pub(crate) steps: Vec<Box<dyn Step>>,
    pub(crate) inputs: Vec<Span>,
    pub(crate) outputs: Vec<Span>,
    /// For each step, the spans it writes.
    pub(crate) written: Vec<Vec<Span>>,
    pub(crate) bytes: usize,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(graph: &'a Graph, weights: &'a WeightBank) -> Self {
        let (buffers, values, quantized) = (Vec::new(), HashMap::new(), HashMap::new());
        let wanted = crate::ops::linear::wanted_forms(graph, weights);
        Self { graph, weights, buffers, values, wanted, quantized, tables: Vec::new(), steps: Vec::new() }
    }

    /// Lowers every node.
    pub(crate) fn finish(mut self) -> Result<LoweredGraph, ExecError> {
        let inputs = self.graph.inputs().iter().map(|v| self.value(*v)).collect::<Result<_, _>>()?;
        for node in self.graph.nodes() {
            let binder = crate::ops::binder(&*node.op).ok_or_else(|| ExecError::Unsupported {
                op: node.op.name().into(),
                node: node.name.clone(),
                backend: "cpu".into(),
            })?;
            binder(&mut self, node)?;
        }
        let outputs = self.graph.outputs().iter().map(|v| self.value(*v)).collect::<Result<_, _>>()?;
        Ok(LoweredGraph { buffers: self.buffers, steps: self.steps, inputs, outputs })
    }

    /// The buffer of a value, made on first use.
    pub(crate) fn value(&mut self, id: ValueId) -> Result<BufferId, ExecError> {
        if let Some(buffer) = self.values.get(&id) {
            return Ok(*buffer);
        }
        let buffer = self.typed(id)?;
        let buffer = self.buffer(buffer);
        self.values.insert(id, buffer);
        Ok(buffer)
    }

    /// The buffers of a value that the next step makes, in the forms its readers want.
    pub(crate) fn forms(&mut self, id: ValueId) -> Result<Forms, ExecError> {
        let quant = if self.wanted[1].contains(&id) { Some(self.quantized(id)?.0) } else { None };
        let plain =
            if quant.is_none() || self.wanted[0].contains(&id) { Some(self.value(id)?) } else { None };
        Ok(Forms { plain, quant })
    }

    /// The buffer of a value's 8-bit form, and whether it was made before.
    pub(crate) fn quantized(&mut self, id: ValueId) -> Result<(BufferId, bool), ExecError> {
        if let Some(buffer) = self.quantized.get(&id) {
            return Ok((*buffer, true));
        }
        let Buffer { rows, cols, .. } = self.typed(id)?;
        let buffer = self.buffer(Buffer { rows, cols: quant_row_bytes(cols), elem: Elem::U8 });
        self.quantized.insert(id, buffer);
        Ok((buffer, false))
    }

    /// The table of rotary angles for the rows of `like`; `make` adds the step that fills it, the first time.
    pub(crate) fn shared_table(
        &mut self,
        like: BufferId,
        rope: &Rope,
        make: impl FnOnce(&mut Self, BufferId),
    ) -> Result<BufferId, ExecError> {
        if let Some((_, table)) = self.tables.iter().find(|(made, _)| made == rope) {
            return Ok(*table);
        }
        let rows = self.buffers[like.0].rows;
        let table = self.buffer(Buffer { rows, cols: rope.dims(), elem: Elem::F32 });
        self.tables.push((rope.clone(), table));
        make(self, table);
        Ok(table)
    }

    /// Adds a step for `node`.
    pub(crate) fn step(
        &mut self,
        node: &Node,
        reads: &[BufferId],
        writes: &[BufferId],
        work: Work,
        bind: impl Fn(&Spans) -> Result<Box<dyn Step>, StepError> + Send + Sync + 'static,
    ) {
        self.steps.push(Lowered {
            name: node.name.clone(),
            note: node.note.clone(),
            work,
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            bind: Box::new(bind),
        });
    }

    fn typed(&self, id: ValueId) -> Result<Buffer, ExecError> {
        let value = self.graph.value(id);
        value.ty.tensor().and_then(buffer_of).ok_or_else(|| ExecError::Node {
            node: value.name.clone(),
            reason: format!("type {} has no buffer", self.graph.type_text(&value.ty)),
        })
    }

    fn buffer(&mut self, buffer: Buffer) -> BufferId {
        self.buffers.push(buffer);
        BufferId(self.buffers.len() - 1)
    }
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
        Ok(Placed {
            steps: self
                .steps
                .iter()
                .map(|s| (s.bind)(&spans).map_err(|e| node(s, e)))
                .collect::<Result<_, _>>()?,
            inputs: self.inputs.iter().map(|b| spans[*b]).collect(),
            outputs: self.outputs.iter().map(|b| spans[*b]).collect(),
            written: self.steps.iter().map(|s| s.writes.iter().map(|b| spans[*b]).collect()).collect(),
            bytes: layout.bytes,
        })
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

/// Rows and columns of an activation: the outermost dimension, and the product of the others.
fn buffer_of(ty: &TensorType) -> Option<Buffer> {
    let elem = match ty.dtype {
        DType::F32 => Elem::F32,
        DType::I32 => Elem::I32,
        _ => return None,
    };
    let (first, rest) = ty.shape.split_first()?;
    let rows = match *first {
        Dim::Fixed(n) => Rows::Fixed(n),
        Dim::Sym(s) => Rows::Dim(DimId(s)),
        Dim::Unknown => return None,
    };
    let cols = rest.iter().try_fold(1usize, |product, dim| match dim {
        Dim::Fixed(n) => product.checked_mul(*n),
        Dim::Sym(_) | Dim::Unknown => None,
    });
    Some(Buffer { rows, cols: cols?, elem })
}

/// The concrete op of a node that the registry found by its type.
pub(crate) fn op_of<T: kinglet_graph::Op>(node: &Node) -> Result<&T, ExecError> {
    let reason = "the registry named another op".to_owned();
    node.op.downcast::<T>().ok_or_else(|| ExecError::Node { node: node.name.clone(), reason })
}
