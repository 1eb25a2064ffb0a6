//! `Linear`: products with packed matrices read their input in 8 bits, the others as floats.

use std::collections::HashSet;
use std::sync::Arc;

use kinglet_graph::cost::Math;
use kinglet_graph::ops::Linear;
use kinglet_graph::{ExecError, Graph, Node, ValueId};
use kinglet_kernels::nd;
use kinglet_kernels::ops::{self, Product, Weight};

use crate::lower::{BufferId, Lowering, Work, op_of};
use crate::reading::Reading;
use crate::weights::WeightBank;

/// One weight of a node with its bias and destination.
#[derive(Clone)]
struct Weighted {
    id: ValueId,
    weight: Weight,
    bias: Option<Arc<[f32]>>,
    out: BufferId,
}

pub(super) fn linear(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let op = op_of::<Linear>(node)?;
    let (mut packed, mut plain, mut rounded) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..op.biased.len() {
        let (weight_at, bias) = op.inputs_of(i);
        let bias = bias.map(|b| WeightBank::vector(low.graph, node, node.inputs[b])).transpose()?;
        let weight = low.weights.product(low.graph, node.inputs[weight_at])?.clone();
        let list = match weight {
            Weight::Packed(_) => &mut packed,
            Weight::Plain(_) if low.bf16 => &mut rounded,
            Weight::Plain(_) => &mut plain,
        };
        list.push(Weighted { id: node.inputs[weight_at], weight, bias, out: low.value(node.outputs[i])? });
    }
    if !rounded.is_empty() {
        in_bf16(low, node, rounded)?;
    }
    if !packed.is_empty() {
        let codes = quantized_input(low, node)?;
        products(low, node, codes, packed);
    }
    if !plain.is_empty() {
        let x = low.value(node.inputs[0])?;
        products(low, node, x, plain);
    }
    Ok(())
}

/// Products whose input and weights are rounded to bfloat16.
fn in_bf16(low: &mut Lowering<'_>, node: &Node, parts: Vec<Weighted>) -> Result<(), ExecError> {
    let fail = |e: nd::NdError| ExecError::Node { node: node.name.clone(), reason: e.to_string() };
    let mut work = Work { math: Math::Bf16, ..Work::default() };
    let mut products = Vec::with_capacity(parts.len());
    for part in parts {
        let (n, k) = part.weight.shape();
        let bias = part.bias.as_deref();
        let gemm = nd::Gemm::new(low.tuning.0, (k, n), nd::Order::Outputs, bias, nd::Act::NONE);
        let gemm = gemm.map_err(fail)?.in_bf16();
        let weights = low.packed(node, part.id, Reading::default(), gemm.packing())?;
        let gemm = Arc::new(gemm.with(weights).map_err(fail)?);
        work.multiply_adds += k * n;
        work.weight_bytes += gemm.bytes();
        products.push((gemm, part.out));
    }
    let x = low.value(node.inputs[0])?;
    let outs: Vec<BufferId> = products.iter().map(|(_, out)| *out).collect();
    low.step(node, &[x], &outs, work, move |s| {
        let product =
            |(gemm, out): (Arc<nd::Gemm>, BufferId)| nd::GemmProduct { gemm, residual: None, out: s[out] };
        nd::gemms(s[x], products.iter().cloned().map(product).collect())
    });
    Ok(())
}

/// The input in 8 bits; a step makes it unless the input's own step did.
fn quantized_input(low: &mut Lowering<'_>, node: &Node) -> Result<BufferId, ExecError> {
    let (codes, made) = low.quantized(node.inputs[0])?;
    if !made {
        let x = low.value(node.inputs[0])?;
        low.step(node, &[x], &[codes], Work::default(), move |s| ops::quantize(s[x], s[codes]));
    }
    Ok(codes)
}

fn products(low: &mut Lowering<'_>, node: &Node, x: BufferId, parts: Vec<Weighted>) {
    let work = parts.iter().fold(Work::default(), |sum, part| {
        let (bytes, elements, math) = size(&part.weight);
        let (weight_bytes, multiply_adds) = (sum.weight_bytes + bytes, sum.multiply_adds + elements);
        Work { weight_bytes, multiply_adds, math, ..sum }
    });
    let outs: Vec<BufferId> = parts.iter().map(|p| p.out).collect();
    low.step(node, &[x], &outs, work, move |s| {
        let product = |p: Weighted| Product { weight: p.weight, bias: p.bias, out: s[p.out] };
        ops::linear(s[x], parts.iter().cloned().map(product).collect())
    });
}

/// Bytes and elements of a matrix, and what it is multiplied in.
fn size(weight: &Weight) -> (usize, usize, Math) {
    match weight {
        Weight::Packed(w) => (w.data().len(), w.plan().rows() * w.plan().cols(), Math::Int8),
        Weight::Plain(w) => (w.rows() * w.row(0).len(), w.rows() * w.cols(), Math::Float),
    }
}

/// The values that some node reads as floats, and those that some product reads in 8 bits.
pub(crate) fn wanted_forms(graph: &Graph, weights: &WeightBank) -> [HashSet<ValueId>; 2] {
    let mut wanted = [graph.outputs().iter().copied().collect(), HashSet::new()];
    for node in graph.nodes() {
        let Some(op) = node.op.downcast::<Linear>() else {
            wanted[0].extend(node.inputs.iter().copied());
            continue;
        };
        for i in 0..op.biased.len() {
            let product = weights.product(graph, node.inputs[op.inputs_of(i).0]);
            let packed = matches!(product, Ok(Weight::Packed(_)));
            wanted[usize::from(packed)].insert(node.inputs[0]);
        }
    }
    wanted
}
