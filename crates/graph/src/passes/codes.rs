//! Ops between `Dequantize` and `Quantize` become ops over codes: `quantize(op(dequantize(x), ..))` is one [`Coded`].
//!
//! A chain is read backwards from a `Quantize`, or from a product whose result stays a number. Products have constant codes as
//! weights; what follows them, and every other chain, works element by element. Ops that only move elements move the codes.
//! Every value that is left is the same one; `Coded::decompose` gives the pairs back.

use std::sync::Arc;

use kinglet_tensor::{DType, Tensor};

use super::look::Look;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::*;
use crate::{BuildError, Def, Graph, Node, ValueId};

/// Most ops of a chain.
const LONGEST: usize = 6;

/// Fuses pairs around ops into the op over codes.
pub fn fuse_codes(graph: &Graph) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        match look.coded(node) {
            Some(Ok(Found::Chain(chain))) => {
                let note = format!("{} nodes over codes", chain.nodes);
                let inputs: Vec<ValueId> =
                    chain.inputs.iter().map(|id| id.unwrap_or_else(|| rewrite.absent())).collect();
                rewrite.put(Arc::new(chain.op), &inputs, &node.outputs, note)?;
            }
            Some(Ok(Found::Moved(op, inputs))) => {
                rewrite.put(op, &inputs, &node.outputs, "moves codes".into())?;
            }
            Some(Ok(Found::Picked(made))) => {
                let codes = rewrite.temporary(&format!("{}.codes", node.name));
                let mut inputs = node.inputs.clone();
                inputs[0] = made.inputs[0];
                rewrite.put(node.op.clone(), &inputs, &[codes], "picks codes".into())?;
                let inputs: Vec<ValueId> =
                    [codes].into_iter().chain(made.inputs[1..].iter().copied()).collect();
                rewrite.put(made.op.clone(), &inputs, &node.outputs, String::new())?;
            }
            _ => rewrite.keep(node)?,
        }
    }
    prune(&rewrite.finish()?)
}

/// Spells ops over codes, and over numbers that are rounded to some, as pairs around the plain op again.
pub fn spell_codes(graph: &Graph) -> Result<Graph, BuildError> {
    super::decompose::only(graph, |op| {
        op.downcast::<Coded>().is_some() || op.downcast::<DynamicProduct>().is_some()
    })
}

/// Why a `Quantize`, or a product of what `Dequantize` made, was left as it is.
pub(super) fn left(graph: &Graph) -> Vec<(&Node, String)> {
    let look = Look::at(graph);
    let why = |node| match look.coded(node) {
        Some(Err(reason)) => Some((node, reason)),
        _ => None,
    };
    graph.nodes().iter().filter_map(why).collect()
}

/// What a node can become.
enum Found<'a> {
    Chain(Chain),
    /// What makes numbers of a table of codes that a node picks some of: it can be done to those alone.
    Picked(&'a Node),
    /// The op that moves elements, over codes.
    Moved(Arc<dyn Op>, Vec<ValueId>),
}

struct Chain {
    op: Coded,
    /// None for zero points that are not given.
    inputs: Vec<Option<ValueId>>,
    /// How many nodes it stands for, pairs apart.
    nodes: usize,
}

impl<'a> Look<'a> {
    /// What the node becomes over codes; none for nodes where no chain can end.
    fn coded(&self, node: &'a Node) -> Option<Result<Found<'a>, String>> {
        if let Some(made) = self.picked(node) {
            return Some(Ok(Found::Picked(made)));
        }
        if node.op.downcast::<Quantize>().is_some() {
            return Some(self.quantized(node));
        }
        let product = is_product(&*node.op) && self.codes_of(node.inputs[0]).is_some();
        // Where a result is quantised, the chain ends there.
        let ends =
            product && self.reader(node.outputs[0]).is_none_or(|next| !self.takes_in(next, node.outputs[0]));
        ends.then(|| {
            let chain = self.chain(node.outputs[0])?;
            Ok(Found::Chain(self.join(chain, None)))
        })
    }

    /// Whether a chain over codes that has `id` in it ends behind this node.
    fn takes_in(&self, node: &'a Node, id: ValueId) -> bool {
        let (mut node, mut id) = (node, id);
        for _ in 0..LONGEST {
            if node.op.downcast::<Quantize>().is_some() {
                return node.inputs[0] == id && self.quantized(node).is_ok();
            }
            if !is_elementwise(&*node.op) {
                return false;
            }
            id = node.outputs[0];
            match self.reader(id) {
                Some(next) => node = next,
                None => return false,
            }
        }
        false
    }

    fn quantized(&self, node: &'a Node) -> Result<Found<'a>, String> {
        let op = node.op.downcast::<Quantize>().ok_or("no quantisation")?;
        let scalar = |id: ValueId| self.graph.weight(id).is_some_and(|t| t.elements() == 1);
        let zero = node.inputs.get(2).copied().filter(|id| !self.is_absent(*id));
        let to = zero.and_then(|id| self.graph.tensor_type(id)).map_or(op.to, |ty| ty.dtype);
        if !scalar(node.inputs[1]) || zero.is_some_and(|id| !scalar(id)) || op.block > 0 {
            return Err("the result has scales that are many, or that only the data decides".into());
        }
        if !matches!(to, DType::U8 | DType::I8) || (zero.is_none() && to != DType::U8) {
            return Err(format!("codes of type {to} have no integer kernels"));
        }
        if let Some(moved) = self.moved(node) {
            return Ok(moved);
        }
        let chain = self.chain(node.inputs[0])?;
        Ok(Found::Chain(self.join(chain, Some(node))))
    }

    /// The node that makes numbers, of one scale, of a constant of codes of which this node picks some.
    fn picked(&self, node: &'a Node) -> Option<&'a Node> {
        node.op.downcast::<Gather>()?;
        let made = self.constant_codes(node.inputs[0])?;
        let one =
            |id: &ValueId| self.is_absent(*id) || self.graph.weight(*id).is_some_and(|t| t.elements() == 1);
        let codes = self.graph.weight(made.inputs[0])?;
        let picks = self.graph.weight(*node.inputs.get(1)?).is_none();
        (picks && made.inputs[1..].iter().all(one) && matches!(codes.dtype(), DType::U8 | DType::I8))
            .then_some(made)
    }

    fn is_absent(&self, id: ValueId) -> bool {
        matches!(self.graph.value(id).def, Def::Absent)
    }

    /// The op that moves elements between a pair of the same scale and zero point, over codes.
    fn moved(&self, node: &'a Node) -> Option<Found<'a>> {
        let made = self.node(node.inputs[0]).filter(|made| made.outputs.len() == 1 && moves(&*made.op))?;
        let from = self.codes_of(made.inputs[0])?;
        let same = |i: usize| {
            let tensor = |id: Option<&ValueId>| id.and_then(|id| self.graph.weight(*id));
            let [a, b] = [from.inputs.get(i), node.inputs.get(i)].map(tensor);
            match (a, b) {
                (Some(a), Some(b)) => a.dtype() == b.dtype() && a.data() == b.data(),
                (a, b) => a.is_none() && b.is_none(),
            }
        };
        let mut inputs = made.inputs.clone();
        inputs[0] = from.inputs[0];
        (same(1) && same(2)).then(|| Found::Moved(made.op.clone(), inputs))
    }

    /// The node that makes numbers of codes, one scale for all of them; `id` is what it makes.
    fn codes_of(&self, id: ValueId) -> Option<&'a Node> {
        let (node, op) = self.made_by::<Dequantize>(id)?;
        let codes = self.graph.tensor_type(node.inputs[0])?.dtype;
        let scalar = |id: ValueId| self.graph.weight(id).is_some_and(|t| t.elements() == 1);
        let zero = node.inputs.get(2).is_none_or(|id| self.is_absent(*id) || scalar(*id));
        let plain = matches!(codes, DType::U8 | DType::I8)
            && op.block == 0
            && op.to.is_none_or(|to| to == DType::F32);
        let constant = self.graph.weight(node.inputs[0]).is_some();
        (plain && scalar(node.inputs[1]) && zero && !constant && self.is_float(id)).then_some(node)
    }

    /// The node that makes constant numbers of constant codes.
    fn constant_codes(&self, id: ValueId) -> Option<&'a Node> {
        let (node, op) = self.made_by::<Dequantize>(id)?;
        let constant = |id: &ValueId| self.graph.weight(*id).is_some() || self.is_absent(*id);
        (node.inputs.iter().all(constant) && op.block == 0 && op.to.is_none() && self.is_float(id))
            .then_some(node)
    }

    fn is_float(&self, id: ValueId) -> bool {
        self.graph.tensor_type(id).is_some_and(|ty| ty.dtype == DType::F32)
    }

    /// The links that end in `id`, last one first, each with its node.
    fn chain(&self, id: ValueId) -> Result<Vec<(&'a Node, Vec<Source>)>, String> {
        let (mut links, mut id) = (Vec::new(), id);
        loop {
            let node = self.node(id).ok_or("it is given, not computed")?;
            let name = node.op.name();
            let first = is_product(&*node.op) || is_pool(&*node.op);
            if !(first || is_elementwise(&*node.op)) || node.outputs.len() != 1 {
                return Err(format!("{name} has no integer kernel"));
            }
            if links.len() == LONGEST {
                return Err("the chain of ops is too long".into());
            }
            let (sources, before) = self.sources(node)?;
            if is_product(&*node.op) {
                self.check_product(node)?;
            }
            links.push((node, sources));
            match before {
                None => break,
                Some(_) if first => return Err(format!("{name} reads numbers that are no codes")),
                Some(before) if !self.is_read_once(before) => {
                    return Err("a number between the pair is read elsewhere too".into());
                }
                Some(before) => id = before,
            }
        }
        self.check_chain(&links)?;
        Ok(links)
    }

    /// What the inputs of a node are, and which one another link makes.
    fn sources(&self, node: &'a Node) -> Result<(Vec<Source>, Option<ValueId>), String> {
        let (mut sources, mut before) = (Vec::new(), None);
        for id in &node.inputs {
            let constant = self.graph.weight(*id).is_some() || self.is_absent(*id);
            sources.push(if constant {
                Source::Plain
            } else if let Some(made) = self.codes_of(*id).or_else(|| self.constant_codes(*id)) {
                Source::Codes(made.op.downcast::<Dequantize>().map_or(1, |op| op.axis))
            } else if before.is_none() {
                before = Some(*id);
                Source::Before
            } else {
                return Err(format!("{} reads numbers that are no codes", node.op.name()));
            });
        }
        Ok((sources, before))
    }

    /// Whether kernels have a chain as a whole.
    fn check_chain(&self, links: &[(&'a Node, Vec<Source>)]) -> Result<(), String> {
        let Some((first, sources)) = links.last() else { return Err("there is no op".into()) };
        let made = |node: &Node, sources: &[Source]| {
            let codes =
                node.inputs.iter().zip(sources).filter(|(_, source)| matches!(source, Source::Codes(_)));
            codes.filter(|(id, _)| self.codes_of(**id).is_some()).count()
        };
        if made(first, sources) == 0 {
            return Err("it reads no codes".into());
        }
        let two = made(first, sources) > 1;
        for (node, sources) in &links[..links.len() - 1] {
            if made(node, sources) > 0 {
                return Err(format!("{} adds codes to numbers that were not rounded", node.op.name()));
            }
            let simple =
                node.op.downcast::<Clip>().is_some() || node.op.downcast() == Some(&Unary(Fun::Relu));
            if (is_product(&*first.op) || is_pool(&*first.op) || two) && !simple {
                return Err(format!("{} stands between {} and the codes", node.op.name(), first.op.name()));
            }
        }
        Ok(())
    }

    /// Whether integer kernels can have a product's weights.
    fn check_product(&self, node: &'a Node) -> Result<(), String> {
        if self.codes_of(node.inputs[0]).is_none() {
            return Err(format!("{} reads numbers that are no codes", node.op.name()));
        }
        let made = self.constant_codes(node.inputs[1]).ok_or("both sides are made by other ops")?;
        let weight = self.graph.weight(made.inputs[0]).ok_or("the weights are no constant")?;
        let rank = weight.shape().len();
        let op = node.op.downcast::<Gemm>();
        let (turned, plain) =
            (op.is_some_and(|op| op.trans_b), op.is_none_or(|op| !op.trans_a && op.alpha == 1.0));
        let conv = node.op.downcast::<Conv>().is_some();
        let along = if conv || turned { 0 } else { 1 };
        if !plain || op.is_some_and(|op| op.beta != 1.0) || (!conv && rank != 2) || (conv && rank != 4) {
            return Err(format!("{} of this form has no integer kernel", node.op.name()));
        }
        let axis = made.op.downcast::<Dequantize>().map_or(0, |op| op.axis);
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        let scales = self.graph.weight(made.inputs[1]).map_or(0, Tensor::elements);
        if scales != 1 && (axis != along || scales != weight.shape()[along as usize]) {
            return Err("scales of the weights are not one for each output".into());
        }
        let zero = made.inputs.get(2).and_then(|id| self.graph.weight(*id));
        let inner = weight.shape()[along as usize + 1..].iter().product();
        if !fits_signed(weight, zero, inner) {
            return Err("weights less their zero point are no signed bytes".into());
        }
        Ok(())
    }

    /// A chain as one op, with its inputs.
    fn join(&self, links: Vec<(&'a Node, Vec<Source>)>, quantize: Option<&'a Node>) -> Chain {
        let (mut inputs, mut made) = (Vec::new(), Vec::new());
        let nodes = links.len();
        for (node, sources) in links.into_iter().rev() {
            for (id, source) in node.inputs.iter().zip(&sources) {
                match source {
                    Source::Before => {}
                    Source::Plain => inputs.push(Some(*id)),
                    Source::Codes(_) => {
                        let made = self.node(*id);
                        inputs.extend((0..3).map(|i| made.and_then(|node| node.inputs.get(i).copied())));
                    }
                }
            }
            made.push(Link { op: node.op.clone(), inputs: sources });
        }
        if let Some(node) = quantize {
            inputs.extend((1..3).map(|i| node.inputs.get(i).copied()));
        }
        Chain { op: Coded { links: made, codes_out: quantize.is_some() }, inputs, nodes }
    }
}

/// Whether codes less their zero points are signed bytes; `inner` codes in a row have the same zero point.
pub(super) fn fits_signed(weight: &Tensor, zero: Option<&Tensor>, inner: usize) -> bool {
    let signed = weight.dtype() == DType::I8;
    if !matches!(weight.dtype(), DType::I8 | DType::U8) || zero.is_some_and(|z| z.dtype() != weight.dtype()) {
        return false;
    }
    let number = |byte: u8| if signed { i32::from(byte as i8) } else { byte.into() };
    let zeros: Vec<i32> = zero.map_or(vec![0], |z| z.data().iter().map(|byte| number(*byte)).collect());
    let middle = if signed { 0 } else { 128 };
    // Whatever the codes are.
    if zeros.iter().all(|zero| *zero == middle) {
        return true;
    }
    let fits = |byte: u8, zero: i32| i8::try_from(number(byte) - zero).is_ok();
    let mut runs = weight.data().chunks(inner.max(1)).zip(zeros.iter().cycle());
    runs.all(|(run, zero)| run.iter().all(|byte| fits(*byte, *zero)))
}

fn is_product(op: &dyn Op) -> bool {
    op.downcast::<Conv>().is_some() || op.downcast::<MatMul>().is_some() || op.downcast::<Gemm>().is_some()
}

/// Pooling that integer kernels have.
fn is_pool(op: &dyn Op) -> bool {
    let pool = |pool: &Pool| !matches!(pool.kind, PoolKind::Lp(_));
    let mean = |reduce: &Reduce| reduce.kind == ReduceKind::Mean && reduce.keep_dims;
    op.downcast::<Pool>().is_some_and(pool) || op.downcast::<Reduce>().is_some_and(mean)
}

/// Whether each result is a function of one element of each input, and a number.
fn is_elementwise(op: &dyn Op) -> bool {
    let unary =
        |Unary(fun): &Unary| !matches!(fun, Fun::Not | Fun::BitwiseNot | Fun::IsNan | Fun::IsInf { .. });
    let binary = |Binary(fun): &Binary| {
        matches!(fun, Fun2::Add | Fun2::Sub | Fun2::Mul | Fun2::Div | Fun2::Pow | Fun2::Min | Fun2::Max)
    };
    op.downcast::<Unary>().is_some_and(unary)
        || op.downcast::<Binary>().is_some_and(binary)
        || op.downcast::<Clip>().is_some()
}

/// Whether it puts elements of its first input elsewhere, and nothing else.
fn moves(op: &dyn Op) -> bool {
    op.downcast::<Reshape>().is_some()
        || op.downcast::<Flatten>().is_some()
        || op.downcast::<Squeeze>().is_some()
        || op.downcast::<Unsqueeze>().is_some()
        || op.downcast::<Transpose>().is_some()
        || op.downcast::<Slice>().is_some()
        || op.downcast::<Gather>().is_some()
        || op.downcast::<Expand>().is_some()
}
