//! Products, reductions and normalisations.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    ArgReduce, BatchNorm, Binary, Cast, Einsum, Fun2, Gemm, GroupNorm, LayerNorm, Lrn, MatMul, Reduce,
    ReduceKind, Softmax, SoftmaxKind, Transpose,
};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const OPS: &[Entry] = &[
    ("batch_norm", batch_norm),
    ("einsum", |cx| {
        let equation = cx.text("equation").ok_or_else(|| cx.fail("`equation` is missing"))?;
        let values = cx.list("values")?;
        cx.emit(Einsum { equation }, &values)
    }),
    ("instance_norm", instance_norm),
    ("layer_norm", layer_norm),
    ("linear", linear),
    ("local_response_norm", local_response),
    ("matmul", matmul),
    ("reduce_argmax", |cx| place(cx, true)),
    ("reduce_argmin", |cx| place(cx, false)),
    ("reduce_l1_norm", |cx| reduce(cx, ReduceKind::L1)),
    ("reduce_l2_norm", |cx| reduce(cx, ReduceKind::L2)),
    ("reduce_log_sum", |cx| reduce(cx, ReduceKind::LogSum)),
    ("reduce_log_sum_exp", |cx| reduce(cx, ReduceKind::LogSumExp)),
    ("reduce_max", |cx| reduce(cx, ReduceKind::Max)),
    ("reduce_mean", |cx| reduce(cx, ReduceKind::Mean)),
    ("reduce_min", |cx| reduce(cx, ReduceKind::Min)),
    ("reduce_prod", |cx| reduce(cx, ReduceKind::Prod)),
    ("reduce_sum", |cx| reduce(cx, ReduceKind::Sum)),
    ("reduce_sum_square", |cx| reduce(cx, ReduceKind::SumSquare)),
    ("softmax", |cx| { let (x, axis) = (cx.input("x")?, cx.int("axis", -1)); cx.emit(Softmax { kind: SoftmaxKind::Soft, axis, flat: false }, &[x]) }),
];

fn reduce(cx: &mut Cx<'_>, kind: ReduceKind) -> Done {
    let (x, keep_dims) = (cx.input("x")?, cx.flag("keep_dims", false));
    let op = Reduce { kind, keep_dims, keep_all: false };
    match cx.ints("axes")? {
        None => cx.emit(op, &[x]),
        Some(list) => {
            let axes = cx.constant_ints(&list)?;
            cx.emit(op, &[x, axes])
        }
    }
}

fn place(cx: &mut Cx<'_>, max: bool) -> Done {
    let (x, axis, keep_dims) = (cx.input("x")?, cx.int("axis", -1), cx.flag("keep_dims", false));
    let place = cx.temp(ArgReduce { max, axis, keep_dims, last: false }, &[x])?;
    cx.emit(Cast::to(DType::I32), &[place])
}

/// `x @ weight^T + bias`, over the last dimension of `x`.
fn linear(cx: &mut Cx<'_>) -> Done {
    let (x, weight, bias) = (cx.input("x")?, cx.input("weight")?, cx.maybe("bias")?);
    if cx.rank(x)? == 2 {
        let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        let inputs: Vec<ValueId> = [x, weight].into_iter().chain(bias).collect();
        return cx.emit(op, &inputs);
    }
    let turned = cx.temp(Transpose { perm: vec![1, 0] }, &[weight])?;
    match bias {
        None => cx.emit(MatMul, &[x, turned]),
        Some(bias) => {
            let product = cx.temp(MatMul, &[x, turned])?;
            cx.emit(Binary(Fun2::Add), &[product, bias])
        }
    }
}

fn matmul(cx: &mut Cx<'_>) -> Done {
    let mut sides = [cx.input("x")?, cx.input("y")?];
    for (side, parameter) in sides.iter_mut().zip(["transpose_x", "transpose_y"]) {
        let rank = cx.rank(*side)?;
        if cx.flag(parameter, false) && rank >= 2 {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 2, rank - 1);
            *side = cx.temp(Transpose { perm }, &[*side])?;
        }
    }
    cx.emit(MatMul, &sides)
}

/// A parameter, or as many of `value` as the vector `like` has elements, or the picture `like` channels.
fn vector_or(cx: &mut Cx<'_>, parameter: &str, like: ValueId, value: f32) -> Result<ValueId, CoreMlError> {
    if let Some(id) = cx.maybe(parameter)? {
        return Ok(id);
    }
    let channels = cx.making.dims(like).and_then(|dims| dims.get(usize::from(dims.len() > 1)).copied());
    let count = channels.ok_or_else(|| cx.fail("the number of channels is not known"))?;
    let name = format!("{}.{parameter}", cx.op.name);
    Ok(cx.making.floats(&name, &[count], &vec![value; count])?)
}

fn batch_norm(cx: &mut Cx<'_>) -> Done {
    let (x, mean, variance) = (cx.input("x")?, cx.input("mean")?, cx.input("variance")?);
    let (gamma, beta) = (vector_or(cx, "gamma", mean, 1.0)?, vector_or(cx, "beta", mean, 0.0)?);
    let eps = cx.float("epsilon", 1e-5);
    cx.emit(BatchNorm { eps, momentum: 0.9, training: false }, &[x, gamma, beta, mean, variance])
}

fn instance_norm(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let (gamma, beta) = (vector_or(cx, "gamma", x, 1.0)?, vector_or(cx, "beta", x, 0.0)?);
    let eps = cx.float("epsilon", 1e-5);
    cx.emit(GroupNorm { groups: None, eps }, &[x, gamma, beta])
}

/// Over the last dimensions, as every exporter writes it.
fn layer_norm(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let rank = cx.rank(x)? as i64;
    let mut axes = cx.ints("axes")?.unwrap_or_else(|| (0..rank).collect());
    axes.iter_mut().for_each(|axis| *axis += if *axis < 0 { rank } else { 0 });
    axes.sort_unstable();
    let first = axes.first().copied().unwrap_or(0);
    if !axes.iter().copied().eq(first..rank) {
        return Err(cx.fail(format!("axes {axes:?} are not the last ones of {rank}")));
    }
    let gamma = match cx.maybe("gamma")? {
        Some(gamma) => gamma,
        None => cx.scalar(1.0)?,
    };
    let inputs: Vec<ValueId> = [x, gamma].into_iter().chain(cx.maybe("beta")?).collect();
    let eps = cx.float("epsilon", 1e-5);
    cx.emit(LayerNorm { axis: first, eps, centre: true }, &inputs)
}

fn local_response(cx: &mut Cx<'_>) -> Done {
    let x = cx.input("x")?;
    let size = usize::try_from(cx.int("size", 1)).unwrap_or(1);
    let (alpha, beta, bias) = (cx.float("alpha", 1e-4), cx.float("beta", 0.75), cx.float("k", 1.0));
    cx.emit(Lrn { alpha, beta, bias, size }, &[x])
}
