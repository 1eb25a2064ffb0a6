//! Products of rows with constant weights.

use std::sync::Arc;

use kinglet_graph::ops::Gemm;
use kinglet_graph::{Def, ExecError, Node};
use kinglet_kernels::nd;
use kinglet_tensor::DType;

use super::chain::{Chain, Outputs};
use super::conv::noted;
use crate::blocked::{constant, rows_of};
use crate::lower::{Lowering, Work, op_of};

/// Binds `x @ w` for a constant matrix `w`, and what follows it.
pub(crate) fn matmul(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    product(low, node, nd::Order::Inputs, None)
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
    let (Some(shape), Some(mut weights)) = (shape, constant(graph, node.inputs[1])) else { return Ok(false) };
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
    for (i, w) in weights.iter_mut().enumerate() {
        *w *= chain.scale[if order == nd::Order::Inputs { i % n } else { i / k }];
    }
    let packed = nd::Gemm::pack(low.tuning.0, (k, n), &weights, order, Some(&chain.shift), chain.act);
    let packed =
        Arc::new(packed.map_err(|e| ExecError::Node { node: node.name.clone(), reason: e.to_string() })?);
    let x = low.value(node.inputs[0])?;
    let residual = chain.residual.map(|id| low.value(id)).transpose()?;
    let out = low.value(chain.out)?;
    let reads: Vec<_> = [x].into_iter().chain(residual).collect();
    let work = Work { multiply_adds: k * n, ..Work::bytes(packed.bytes()) };
    let noted = noted(low, node, chain.taken.clone());
    low.step(&noted, &reads, &[out], work, move |s| {
        let span = |id| rows_of(s, id, rows);
        nd::gemm(packed.clone(), span(x), residual.map(span), span(out))
    });
    Ok(true)
}
