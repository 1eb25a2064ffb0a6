//! Products, reductions, normalisations.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    ArgReduce, BatchNorm, Binary, Fun, Fun2, Gemm, GroupNorm, LayerNorm, Lrn, MatMul, Reduce, ReduceKind,
    Transpose, Unary,
};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::network::Cx;

type Done = Result<(), CoreMlError>;

#[rustfmt::skip]
pub(super) const LAYERS: &[Entry] = &[
    ("batchedMatmul", matmul),
    ("batchnorm", batchnorm),
    ("dot", dot),
    ("innerProduct", inner_product),
    ("layerNormalization", layer_norm),
    ("lrn", lrn),
    ("mvn", normalise),
    ("reduce", reduce),
    ("reduceL1", |cx| reduce_nd(cx, ReduceKind::L1)),
    ("reduceL2", |cx| reduce_nd(cx, ReduceKind::L2)),
    ("reduceLogSum", |cx| reduce_nd(cx, ReduceKind::LogSum)),
    ("reduceLogSumExp", |cx| reduce_nd(cx, ReduceKind::LogSumExp)),
    ("reduceMax", |cx| reduce_nd(cx, ReduceKind::Max)),
    ("reduceMean", |cx| reduce_nd(cx, ReduceKind::Mean)),
    ("reduceMin", |cx| reduce_nd(cx, ReduceKind::Min)),
    ("reduceProd", |cx| reduce_nd(cx, ReduceKind::Prod)),
    ("reduceSum", |cx| reduce_nd(cx, ReduceKind::Sum)),
    ("reduceSumSquare", |cx| reduce_nd(cx, ReduceKind::SumSquare)),
    ("softmax", |cx| { let x = cx.picture(0)?; cx.softmax(1, x) }),
    ("softmaxND", |cx| { let (x, axis) = (cx.input(0)?, cx.params().int(1)); cx.softmax(axis, x) }),
];

/// `x @ W^T + b` over the channels of `[N, C, 1, 1]`, or over the last dimension of other shapes.
fn inner_product(cx: &mut Cx<'_>) -> Done {
    let x = cx.input(0)?;
    let (inputs, outputs) = (cx.size(1), cx.size(2));
    let weight = cx.weights(20, &[outputs, inputs])?;
    let bias = if cx.params().bool(10) { Some(cx.weights(21, &[outputs])?) } else { None };
    let picture = matches!(cx.making.dims(x).as_deref(), Some([_, _, 1, 1]));
    let x = if picture { cx.reshaped(x, &[-1, inputs as i64])? } else { x };
    let made = if cx.making.rank(x) == Some(2) {
        let op = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        let inputs: Vec<_> = [x, weight].into_iter().chain(bias).collect();
        cx.temp(op, &inputs)?
    } else {
        let turned = cx.temp(Transpose { perm: vec![1, 0] }, &[weight])?;
        let product = cx.temp(MatMul, &[x, turned])?;
        match bias {
            Some(bias) => cx.temp(Binary(Fun2::Add), &[product, bias])?,
            None => product,
        }
    };
    let made = if picture { cx.reshaped(made, &[-1, outputs as i64, 1, 1])? } else { made };
    cx.pass(made)
}

fn matmul(cx: &mut Cx<'_>) -> Done {
    let mut sides = cx.inputs()?;
    if sides.len() == 1 {
        let (rows, columns) = (cx.size(5), cx.size(6));
        sides.push(cx.weights(8, &[rows, columns])?);
    }
    for (side, tag) in sides.iter_mut().zip([1, 2]) {
        if cx.params().bool(tag) {
            let rank = cx.making.rank(*side).filter(|rank| *rank >= 2);
            let rank = rank.ok_or_else(|| cx.fail("a matrix of unknown rank cannot be transposed"))?;
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.swap(rank - 2, rank - 1);
            *side = cx.temp(Transpose { perm }, &[*side])?;
        }
    }
    if !cx.params().bool(7) {
        return cx.emit(MatMul, &sides);
    }
    let product = cx.temp(MatMul, &sides)?;
    let columns = cx.size(6);
    let bias = cx.weights(9, &[columns])?;
    cx.emit(Binary(Fun2::Add), &[product, bias])
}

fn batchnorm(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let channels = [cx.size(1)];
    let (gamma, beta) = (cx.weights(15, &channels)?, cx.weights(16, &channels)?);
    let given = cx.params().has(10);
    let eps = if given { cx.params().float(10) } else { 1e-5 };
    if cx.params().bool(5) && cx.params().bool(6) {
        return cx.emit(GroupNorm { groups: None, eps }, &[x, gamma, beta]);
    }
    let (mean, variance) = (cx.weights(17, &channels)?, cx.weights(18, &channels)?);
    cx.emit(BatchNorm { eps, momentum: 0.9, training: false }, &[x, gamma, beta, mean, variance])
}

fn lrn(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let (alpha, beta, bias) = (cx.params().float(1), cx.params().float(2), cx.params().float(4));
    let size = cx.size(3);
    cx.emit(Lrn { alpha, beta, bias, size }, &[x])
}

/// A function by number over channels, rows, columns or several; the place of the largest included.
fn reduce(cx: &mut Cx<'_>) -> Done {
    use ReduceKind::*;
    const KINDS: [ReduceKind; 9] = [Sum, Mean, Prod, LogSum, SumSquare, L1, L2, Max, Min];
    let x = cx.picture(0)?;
    let axes: &[i64] = match cx.params().int(3) {
        0 => &[1, 2, 3],
        1 => &[2, 3],
        2 => &[1],
        3 => &[2],
        _ => &[3],
    };
    let mode = cx.params().int(1);
    if mode == 9 {
        let [axis] = axes else { return Err(cx.fail("the place of the largest takes one axis")) };
        return cx.emit(ArgReduce { max: true, axis: *axis, keep_dims: true, last: false }, &[x]);
    }
    let kind = usize::try_from(mode).ok().and_then(|mode| KINDS.get(mode).copied());
    let kind = kind.ok_or_else(|| cx.fail(format!("reduction {mode} does not exist")))?;
    let axes = cx.ints(axes)?;
    cx.emit(Reduce { kind, keep_dims: true, keep_all: false }, &[x, axes])
}

fn reduce_nd(cx: &mut Cx<'_>, kind: ReduceKind) -> Done {
    let (x, axes, keep_dims) = (cx.input(0)?, cx.params().ints(1), cx.params().bool(2));
    let op = Reduce { kind, keep_dims, keep_all: false };
    if cx.params().bool(3) || axes.is_empty() {
        return cx.emit(op, &[x]);
    }
    let axes = cx.ints(&axes)?;
    cx.emit(op, &[x, axes])
}

/// The sum over `axes`, kept as ones, of `[.., C, H, W]`.
fn sum_over(cx: &mut Cx<'_>, kind: ReduceKind, x: ValueId, axes: &[i64]) -> Result<ValueId, CoreMlError> {
    let axes = cx.ints(axes)?;
    cx.temp(Reduce { kind, keep_dims: true, keep_all: false }, &[x, axes])
}

/// The product of two vectors of channels; of their directions alone where the cosine is asked for.
fn dot(cx: &mut Cx<'_>) -> Done {
    let (a, b) = (cx.picture(0)?, cx.picture(1)?);
    let product = cx.temp(Binary(Fun2::Mul), &[a, b])?;
    let dot = sum_over(cx, ReduceKind::Sum, product, &[-3])?;
    if !cx.params().bool(1) {
        return cx.pass(dot);
    }
    let lengths = [sum_over(cx, ReduceKind::L2, a, &[-3])?, sum_over(cx, ReduceKind::L2, b, &[-3])?];
    let lengths = cx.temp(Binary(Fun2::Mul), &lengths)?;
    cx.emit(Binary(Fun2::Div), &[dot, lengths])
}

/// Less the mean, over the deviation where that is asked for; of all channels, or of each.
fn normalise(cx: &mut Cx<'_>) -> Done {
    let x = cx.picture(0)?;
    let axes: &[i64] = if cx.params().bool(1) { &[-3, -2, -1] } else { &[-2, -1] };
    let mean = sum_over(cx, ReduceKind::Mean, x, axes)?;
    let centred = cx.temp(Binary(Fun2::Sub), &[x, mean])?;
    if !cx.params().bool(2) {
        return cx.pass(centred);
    }
    let squares = cx.temp(Binary(Fun2::Mul), &[centred, centred])?;
    let variance = sum_over(cx, ReduceKind::Mean, squares, axes)?;
    let given = cx.params().float(3);
    let epsilon = cx.scalar(if given == 0.0 { 1e-6 } else { given })?;
    let safe = cx.temp(Binary(Fun2::Add), &[variance, epsilon])?;
    let deviation = cx.temp(Unary(Fun::Sqrt), &[safe])?;
    cx.emit(Binary(Fun2::Div), &[centred, deviation])
}

/// Over the last dimensions, whose sizes are in field 1.
fn layer_norm(cx: &mut Cx<'_>) -> Done {
    let (x, shape, eps) = (cx.input(0)?, cx.sizes(1, &[]), cx.params().float(2));
    let (gamma, beta) = (cx.weights(3, &shape)?, cx.weights(4, &shape)?);
    cx.emit(LayerNorm { axis: -(shape.len() as i64), eps, centre: true }, &[x, gamma, beta])
}
