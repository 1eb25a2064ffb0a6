//! Products of rows with constant weights, and of matrices that steps made.

use std::sync::Arc;

use kinglet_graph::ops::Gemm;
use kinglet_graph::{Def, ExecError, Node};
use kinglet_kernels::nd;
use kinglet_tensor::DType;

use super::chain::{Chain, Outputs};
use super::conv::{math, noted};
use super::elementwise::{From, broadcast, operand};
use crate::blocked::{constant, rows_of};
use crate::lower::{Lowering, Work, op_of};
use crate::reading::Reading;

/// Binds `x @ w` for a constant matrix `w`, and what follows it; else a product of two values.
pub(crate) fn matmul(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    Ok(product(low, node, nd::Order::Inputs, None)? || values(low, node)?)
}

/// Binds a product of two values of floats, with any outer dimensions.
fn values(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let shapes = [node.inputs[0], node.inputs[1]].map(|id| low.sizes(id));
    let [Some(mut a), Some(mut b)] = shapes else { return Ok(false) };
    if a.len() == 1 {
        a.insert(0, 1);
    }
    if b.len() == 1 {
        b.push(1);
    }
    let Some(products) = products(&a, &b) else { return Ok(false) };
    let sides = [operand(low, node.inputs[0])?, operand(low, node.inputs[1])?];
    let out = low.value(node.outputs[0])?;
    let reads: Vec<_> = sides.iter().filter_map(From::buffer).collect();
    let [_, k, n] = products.sizes;
    let work = Work { multiply_adds: k * n, ..Work::default() };
    low.step(node, &reads, &[out], work, move |s| {
        nd::matmul(&products, sides[0].side(s), sides[1].side(s), rows_of(s, out, 1))
    });
    Ok(true)
}

/// Row-major matrices of these shapes, outer dimensions broadcast.
fn products(a: &[usize], b: &[usize]) -> Option<nd::Products> {
    let (outer_a, &[m, k]) = a.split_last_chunk::<2>()?;
    let (outer_b, &[_, n]) = b.split_last_chunk::<2>()?;
    let rank = outer_a.len().max(outer_b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let outer: Vec<usize> =
        (0..rank).map(|i| if at(outer_a, i) == 1 { at(outer_b, i) } else { at(outer_a, i) }).collect();
    let strides = |s: &[usize], matrix: usize| {
        broadcast(s, &outer).iter().map(|stride| stride.checked_mul(matrix)).collect::<Option<Vec<_>>>()
    };
    let (by_a, by_b) = (strides(outer_a, m.checked_mul(k)?)?, strides(outer_b, k.checked_mul(n)?)?);
    // One second matrix for all: the rows of all first ones are rows of one.
    let alone = outer_b.iter().all(|&size| size == 1);
    let (outer, m) = if alone {
        (nd::Axes::new(&[], [&[], &[]]), outer_a.iter().product::<usize>().checked_mul(m)?)
    } else {
        (nd::Axes::new(&outer, [&by_a, &by_b]), m)
    };
    Some(nd::Products { outer, sizes: [m, k, n], a_row: k, b_steps: [n, 1] })
}

/// Binds `x @ w + c` for constants `w` and `c`, and what follows it.
pub(crate) fn gemm(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = *op_of::<Gemm>(node)?;
    let graph = low.graph;
    if op.trans_a || op.alpha != 1.0 || op.beta != 1.0 {
        return Ok(false);
    }
    let order = if op.trans_b { nd::Order::Outputs } else { nd::Order::Inputs };
    let bias = match node.inputs.get(2) {
        Some(id) if !matches!(graph.value(*id).def, Def::Absent) => match constant(graph, *id) {
            Some(bias) => Some(bias),
            None => return Ok(false),
        },
        _ => None,
    };
    product(low, node, order, bias)
}

fn product(
    low: &mut Lowering<'_>,
    node: &Node,
    order: nd::Order,
    bias: Option<Vec<f32>>,
) -> Result<bool, ExecError> {
    let graph = low.graph;
    let Some(x_type) = graph.value(node.inputs[0]).ty.known().filter(|ty| ty.dtype == DType::F32) else {
        return Ok(false);
    };
    let shape = graph.weight(node.inputs[1]).and_then(|w| <[usize; 2]>::try_from(w.shape()).ok());
    let floats = graph.weight(node.inputs[1]).is_some_and(|w| w.dtype() == DType::F32);
    let Some(shape) = shape.filter(|_| floats) else { return Ok(false) };
    let [k, n] = if order == nd::Order::Inputs { shape } else { [shape[1], shape[0]] };
    let rows = x_type.elements().and_then(|all| all.checked_div(k)).unwrap_or(0);
    let bias = match bias {
        Some(one) if one.len() == 1 => Some(vec![one[0]; n]),
        Some(bias) if bias.len() != n => return Ok(false),
        other => other,
    };
    if rows == 0 || n == 0 || x_type.cols() != Some(k) || graph.weight(node.inputs[0]).is_some() {
        return Ok(false);
    }
    let chain = Chain::follow(low, node, Outputs::Last, bias, n);
    let fail = |e: nd::NdError| ExecError::Node { node: node.name.clone(), reason: e.to_string() };
    let reading = Reading::times(&chain.scale, if order == nd::Order::Inputs { 1 } else { k });
    let gemm = nd::Gemm::new(low.tuning.0, (k, n), order, Some(&chain.shift), chain.act).map_err(fail)?;
    let gemm = if low.bf16 { gemm.in_bf16() } else { gemm };
    let weights = low.packed(node, node.inputs[1], reading, gemm.packing())?;
    let packed = Arc::new(gemm.with(weights).map_err(fail)?);
    let x = low.value(node.inputs[0])?;
    let residual = chain.residual.map(|id| low.value(id)).transpose()?;
    let out = low.value(chain.out)?;
    let reads: Vec<_> = [x].into_iter().chain(residual).collect();
    let math = math(packed.is_bf16());
    let work = Work { multiply_adds: k * n, math, ..Work::bytes(packed.bytes()) };
    let noted = noted(low, node, chain.taken.clone());
    low.step(&noted, &reads, &[out], work, move |s| {
        let span = |id| rows_of(s, id, rows);
        nd::gemm(packed.clone(), span(x), residual.map(span), span(out))
    })
    .parts = rows;
    Ok(true)
}
