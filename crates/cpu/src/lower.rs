//! Lowering: graph nodes become steps over virtual buffers, once; each shape bucket then places the buffers and binds.
//!
//! Every op has one binder, a line in [`crate::ops::BINDERS`]. A binder adds steps through [`Lowering::step`]; it sees
//! buffers, never offsets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kinglet_graph::cost::{Attends, Math};
use kinglet_graph::ops::Rope;
use kinglet_graph::{Dim, ExecError, Graph, Node, TensorType, Type, ValueId};
use kinglet_kernels::matmul::quant_row_bytes;
use kinglet_kernels::nd::{Packed, Packing};
use kinglet_kernels::ops::RowsOut;
use kinglet_kernels::{DimId, Elem, Rows, Step, StepError};
use kinglet_simd::Level;
use kinglet_tensor::DType;

use crate::bank::{Bank, Wanted};
use crate::placed::{Buffer, Lowered, LoweredGraph};
pub(crate) use crate::placed::{BufferId, Spans};
use crate::plan::Faults;
use crate::reading::Reading;
use crate::weights::WeightBank;

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
    /// Whether it reads only as much of its inputs as it writes.
    pub(crate) gathers: bool,
}

impl Work {
    /// Work that only moves bytes.
    pub(crate) fn bytes(weight_bytes: usize) -> Self {
        Self { weight_bytes, ..Self::default() }
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
    /// Values in channel blocks, and nodes that another node's step computes.
    pub(crate) images: crate::blocked::Images,
    /// Values in the form that kernels over codes read.
    pub(crate) codes: crate::codes::Codes,
    /// Values that lie in the buffers of others.
    pub(crate) views: crate::views::Views,
    /// Instruction set of kernels that are packed for one, and whether steps may compute several nodes.
    pub(crate) tuning: (Level, bool),
    /// Whether products with constants are computed in bfloat16.
    pub(crate) bf16: bool,
    /// For graphs that host kernels may compute: where they report faults, and whether all ops run that way, one by one.
    host: Option<(Arc<Faults>, bool)>,
    /// Constants that kernels of such graphs want packed.
    packs: Option<Wanted<'a>>,
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

impl<'a> Lowering<'a> {
    pub(crate) fn new(graph: &'a Graph, weights: &'a WeightBank) -> Self {
        let (buffers, values, quantized) = (Vec::new(), HashMap::new(), HashMap::new());
        let wanted = crate::ops::linear::wanted_forms(graph, weights);
        Self {
            graph,
            weights,
            buffers,
            values,
            wanted,
            quantized,
            tables: Vec::new(),
            steps: Vec::new(),
            images: crate::blocked::Images::default(),
            codes: crate::codes::Codes::default(),
            views: crate::views::Views::new(),
            tuning: (Level::SCALAR, false),
            bf16: false,
            host: None,
            packs: None,
        }
    }

    /// Ops without a binder are computed by host kernels, and those whose values only the data decides between programs.
    /// Constants are packed by the bank.
    pub(crate) fn with_host(
        mut self,
        faults: Arc<Faults>,
        interpret: bool,
        tuning: (Level, bool),
        bf16: bool,
        bank: &'a Bank,
    ) -> Self {
        self.host = Some((faults, interpret));
        self.packs = Some(bank.wanted());
        self.tuning = tuning;
        self.bf16 = bf16;
        self
    }

    /// Weights that are not packed in integers are packed by the bank in bfloat16.
    pub(crate) fn with_bf16(mut self, level: Level, bank: &'a Bank) -> Self {
        self.packs = Some(bank.wanted());
        self.tuning.0 = level;
        self.bf16 = true;
        self
    }

    /// Lowers every node, then starts to pack what they want.
    pub(crate) fn finish(mut self) -> Result<LoweredGraph, ExecError> {
        let (graph, open) = (self.graph, self.host.is_some());
        let inputs = self.buffers_of(graph.inputs(), open)?;
        for (index, node) in graph.nodes().iter().enumerate() {
            self.node(index, node)?;
        }
        let outputs = self.buffers_of(graph.outputs(), open)?;
        if let Some(packs) = self.packs {
            packs.start();
        }
        Ok(LoweredGraph { buffers: self.buffers, steps: self.steps, values: self.values, inputs, outputs })
    }

    /// The buffers of values; with `open`, of those only that have a place in the arena.
    fn buffers_of(&mut self, ids: &[ValueId], open: bool) -> Result<Vec<BufferId>, ExecError> {
        let graph = self.graph;
        let placed = |id: &&ValueId| !open || (in_arena(graph, **id) && graph.weight(**id).is_none());
        ids.iter().filter(placed).map(|v| self.value(*v)).collect()
    }

    fn node(&mut self, index: usize, node: &Node) -> Result<(), ExecError> {
        let Some((faults, interpret)) = self.host.clone() else {
            let binder = crate::ops::binder(&*node.op).ok_or_else(|| unsupported(node))?;
            return binder(self, node);
        };
        if self.images.is_done(index) {
            return Ok(());
        }
        let fixed = |id: &ValueId| self.graph.value(*id).ty == Type::Absent || in_arena(self.graph, *id);
        let fixed = node.op.bodies().is_empty() && node.inputs.iter().chain(&node.outputs).all(fixed);
        if !fixed || interpret {
            return self.between(index, node);
        }
        if crate::alias::passes(&*node.op) && self.graph.weight(node.inputs[0]).is_none() {
            let buffer = self.value(node.inputs[0])?;
            self.values.insert(node.outputs[0], buffer);
            return Ok(());
        }
        if let Some(binder) = crate::ops::binder(&*node.op) {
            return binder(self, node);
        }
        if let Some(binder) = crate::ops::fast(&*node.op)
            && binder(self, node)?
        {
            return Ok(());
        }
        crate::host_step::host_step(self, node, faults)
    }

    /// A node that runs between programs.
    fn between(&mut self, index: usize, node: &Node) -> Result<(), ExecError> {
        let (reads, writes) = (self.buffers_of(&node.inputs, true)?, self.buffers_of(&node.outputs, true)?);
        let bind = |_: &Spans| -> Result<Box<dyn Step>, StepError> {
            Err(StepError { step: "dynamic", reason: "runs between programs".into() })
        };
        self.step(node, &reads, &writes, Work::default(), bind).dynamic = Some(index);
        Ok(())
    }

    /// The buffer of a value, made on first use.
    pub(crate) fn value(&mut self, id: ValueId) -> Result<BufferId, ExecError> {
        if let Some(buffer) = self.values.get(&id) {
            return Ok(*buffer);
        }
        let buffer = self.typed(id)?;
        let buffer = self.buffer(buffer);
        self.values.insert(id, buffer);
        self.unblock(id, buffer)?;
        self.unview(id, buffer)?;
        self.plain_numbers(id, buffer)?;
        Ok(buffer)
    }

    /// The plain buffer of a value, if it has one by now.
    pub(crate) fn plain(&self, id: ValueId) -> Option<BufferId> {
        self.values.get(&id).copied()
    }

    /// A buffer of floats that no value has in this form.
    pub(crate) fn floats(&mut self, rows: usize, cols: usize) -> BufferId {
        self.buffer(Buffer { rows: Rows::Fixed(rows), cols, elem: Elem::F32 })
    }

    /// A buffer of bytes that no value has in this form.
    pub(crate) fn bytes(&mut self, rows: usize, cols: usize) -> BufferId {
        self.buffer(Buffer { rows: Rows::Fixed(rows), cols, elem: Elem::U8 })
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

    /// A constant in the order in which a kernel reads it, shared and still to come.
    pub(crate) fn packed(
        &mut self,
        node: &Node,
        id: ValueId,
        reading: Reading,
        packing: Packing,
    ) -> Result<Packed, ExecError> {
        let fail = |reason: String| ExecError::Node { node: node.name.clone(), reason };
        let tensor = self.graph.weight(id).ok_or_else(|| fail("takes a constant".into()))?;
        let packs = self.packs.as_mut().ok_or_else(|| fail("nothing is packed here".into()))?;
        packs.packed(tensor, reading, packing).map_err(fail)
    }

    /// Adds a step for `node`.
    pub(crate) fn step(
        &mut self,
        node: &Node,
        reads: &[BufferId],
        writes: &[BufferId],
        work: Work,
        bind: impl Fn(&Spans) -> Result<Box<dyn Step>, StepError> + Send + Sync + 'static,
    ) -> &mut Lowered {
        let at = self.steps.len();
        self.steps.push(Lowered {
            dynamic: None,
            parts: 0,
            name: node.name.clone(),
            note: node.note.clone(),
            work,
            reads: reads.to_vec(),
            writes: writes.to_vec(),
            bind: Box::new(bind),
        });
        &mut self.steps[at]
    }

    /// How many parts of a buffer rows of a value are, `rows` of them with so many elements between, when they fill it; else 0.
    /// Constants, which have no buffer, are whole for each row when all rows have the same ones.
    pub(crate) fn rows_apart(&self, id: Option<BufferId>, rows: usize, stride: usize, skip: usize) -> usize {
        let Some(id) = id else { return rows * usize::from(stride == 0) };
        let Buffer { rows: all, cols, .. } = self.buffers[id.0];
        let len = all.count(&[]).and_then(|all| all.checked_mul(cols));
        if rows.checked_mul(stride) == len && skip < stride { rows } else { 0 }
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

fn unsupported(node: &Node) -> ExecError {
    ExecError::Unsupported { op: node.op.name().into(), node: node.name.clone(), backend: "cpu".into() }
}

/// Whether a value is a tensor of known shape and of numbers.
pub(crate) fn in_arena(graph: &Graph, id: ValueId) -> bool {
    graph.value(id).ty.known().is_some_and(|ty| ty.dtype != DType::Str && !ty.dtype.is_quantized())
}

/// Rows and columns of an activation. With a symbolic size, rows are the outermost dimension; else columns are the
/// innermost one. Types without kernels of their own are rows of bytes.
fn buffer_of(ty: &TensorType) -> Option<Buffer> {
    let (elem, width) = match ty.dtype {
        DType::F32 => (Elem::F32, 1),
        DType::I32 => (Elem::I32, 1),
        other if other.is_quantized() || other == DType::Str => return None,
        other => (Elem::U8, other.block_bytes()),
    };
    let times = |product: usize, dim: &Dim| product.checked_mul(dim.fixed()?);
    let (rows, cols) = match (ty.shape.as_slice(), ty.shape.split_last()) {
        ([Dim::Sym(s), rest @ ..], _) => (Rows::Dim(DimId(*s)), rest.iter().try_fold(1, times)?),
        ([n], _) => (Rows::Fixed(n.fixed()?), 1),
        (_, Some((last, outer))) => (Rows::Fixed(outer.iter().try_fold(1, times)?), last.fixed()?),
        (_, None) => (Rows::Fixed(1), 1),
    };
    Some(Buffer { rows, cols: cols.checked_mul(width)?, elem })
}

/// The concrete op of a node that the registry found by its type.
pub(crate) fn op_of<T: kinglet_graph::Op>(node: &Node) -> Result<&T, ExecError> {
    let reason = "the registry named another op".to_owned();
    node.op.downcast::<T>().ok_or_else(|| ExecError::Node { node: node.name.clone(), reason })
}
