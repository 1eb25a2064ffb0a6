//! Normalisations, softmax and reductions.

use kinglet_graph::ops::{
    ArgReduce, BatchNorm, GroupNorm, LayerNorm, Lrn, Reduce, ReduceKind, Softmax, SoftmaxKind,
};
use kinglet_graph::{Dim, axis};

use super::Entry;
use super::layout::sized;
use crate::coreml::write::node::{Arg, Ex, shaped};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[
    ("BatchNorm", batch_norm),
    ("GroupNorm", group_norm),
    ("LayerNorm", layer_norm),
    ("Lrn", |ex| {
        let Lrn { alpha, beta, bias, size } = *ex.op()?;
        let x = ex.input(0)?;
        let given = vec![
            ("x", x.into()),
            ("size", Arg::Int(size as i64)),
            ("alpha", Arg::Float(alpha)),
            ("beta", Arg::Float(beta)),
            ("k", Arg::Float(bias)),
        ];
        ex.emit("local_response_norm", given)
    }),
    ("Softmax", softmax),
    ("Reduce", reduce),
    ("ArgReduce", |ex| {
        let ArgReduce { max, axis, keep_dims, last } = *ex.op()?;
        if last {
            return Err("which takes the last of equal elements".into());
        }
        let x = ex.input(0)?;
        let given = vec![("x", x.into()), ("axis", Arg::Int(axis)), ("keep_dims", Arg::Flag(keep_dims))];
        ex.emit(if max { "reduce_argmax" } else { "reduce_argmin" }, given)
    }),
];

fn batch_norm(ex: &mut Ex<'_, '_>) -> Done {
    let BatchNorm { eps, training, .. } = *ex.op()?;
    if training {
        return Err("which trains".into());
    }
    if !(3..=5).contains(&ex.ty(0)?.rank()) {
        return Err("of a value that is no image".into());
    }
    let mut given = vec![("epsilon", Arg::Float(eps))];
    for (i, name) in ["x", "gamma", "beta", "mean", "variance"].into_iter().enumerate() {
        if i > 0 {
            ex.weight(i)?;
        }
        given.push((name, Arg::Name(ex.input(i)?)));
    }
    ex.emit("batch_norm", given)
}

fn group_norm(ex: &mut Ex<'_, '_>) -> Done {
    let GroupNorm { groups, eps } = *ex.op()?;
    ex.weight(1)?;
    ex.weight(2)?;
    let Some(groups) = groups else {
        let (x, gamma, beta) = (ex.input(0)?, ex.input(1)?, ex.input(2)?);
        let given = vec![
            ("x", x.into()),
            ("gamma", gamma.into()),
            ("beta", beta.into()),
            ("epsilon", Arg::Float(eps)),
        ];
        return ex.emit("instance_norm", given);
    };
    grouped(ex, groups, eps)
}

/// Each group in a row, normalised, and put back: then factor and summand of each channel.
fn grouped(ex: &mut Ex<'_, '_>, groups: usize, eps: f32) -> Done {
    let (ty, dims) = (ex.ty(0)?, ex.dims(0)?);
    let (channels, rest) = (dims[1], dims[1..].iter().product::<usize>() / groups);
    if ex.weight(1)?.elements() != channels {
        return Err("whose factors are one a group, not one a channel".into());
    }
    let rows = sized(ty, &[dims[0], groups, rest]);
    let ints = |dims: &[usize]| Arg::Ints(dims.iter().map(|n| *n as i64).collect());
    let x = ex.input(0)?;
    let x = ex.temp("reshape", vec![("x", x.into()), ("shape", ints(&[dims[0], groups, rest]))], &rows);
    let given = vec![("x", x.into()), ("axes", Arg::Ints(vec![2])), ("epsilon", Arg::Float(eps))];
    let x = ex.temp("layer_norm", given, &rows);
    let x = ex.temp("reshape", vec![("x", x.into()), ("shape", ints(&dims))], ty);
    let mut shape = vec![1; dims.len()];
    shape[1] = channels;
    let channel = |i: usize, ex: &mut Ex<'_, '_>| {
        let (dtype, data) = (ex.weight(i)?.dtype(), ex.weight(i)?.data().clone());
        ex.tensor("channels", dtype, &shape, data)
    };
    let (scale, bias) = (channel(1, ex)?, channel(2, ex)?);
    let y = ex.temp("mul", vec![("x", x.into()), ("y", scale.into())], ty);
    ex.emit("add", vec![("x", y.into()), ("y", bias.into())])
}

fn layer_norm(ex: &mut Ex<'_, '_>) -> Done {
    let LayerNorm { axis: first, eps, centre } = *ex.op()?;
    let ty = ex.ty(0)?;
    let first = axis(first, ty.rank())?;
    let axes: Vec<i64> = (first as i64..ty.rank() as i64).collect();
    if !centre {
        return rms_norm(ex, &axes, first, eps);
    }
    let rows: Option<Vec<usize>> = ty.shape[first..].iter().map(|dim| dim.fixed()).collect();
    let rows = rows.ok_or("over open sizes")?;
    let mut given = vec![("axes", Arg::Ints(axes)), ("epsilon", Arg::Float(eps))];
    for (i, name) in [(1, "gamma"), (2, "beta")] {
        if !ex.has(i) {
            continue;
        }
        if ex.weight(i)?.shape() != rows {
            return Err("whose factors are not of the shape of a row".into());
        }
        given.push((name, Arg::Name(ex.input(i)?)));
    }
    given.push(("x", Arg::Name(ex.input(0)?)));
    ex.emit("layer_norm", given)
}

/// `x / sqrt(mean(x^2) + eps) * scale`.
fn rms_norm(ex: &mut Ex<'_, '_>, axes: &[i64], first: usize, eps: f32) -> Done {
    let (x, scale, ty) = (ex.input(0)?, ex.input(1)?, ex.ty(0)?);
    let mut shape = ty.shape.clone();
    shape[first..].fill(Dim::Fixed(1));
    let stat = shaped(ty, shape);
    let squares = ex.temp("square", vec![("x", (&x).into())], ty);
    let given =
        vec![("x", squares.into()), ("axes", Arg::Ints(axes.to_vec())), ("keep_dims", Arg::Flag(true))];
    let mean = ex.temp("reduce_mean", given, &stat);
    let shifted = ex.temp("add", vec![("x", mean.into()), ("y", Arg::Float(eps))], &stat);
    let root = ex.temp("sqrt", vec![("x", shifted.into())], &stat);
    let y = ex.temp("real_div", vec![("x", x.into()), ("y", root.into())], ty);
    ex.emit("mul", vec![("x", y.into()), ("y", scale.into())])
}

fn softmax(ex: &mut Ex<'_, '_>) -> Done {
    let Softmax { kind, axis: along, flat } = *ex.op()?;
    let ty = ex.ty(0)?;
    let first = axis(along, ty.rank())?;
    let alone = ty.shape[first + 1..].iter().all(|dim| *dim == Dim::Fixed(1));
    if flat && !alone {
        return Err("over several dimensions".into());
    }
    let x = ex.input(0)?;
    match kind {
        SoftmaxKind::Soft => ex.emit("softmax", vec![("x", x.into()), ("axis", Arg::Int(first as i64))]),
        SoftmaxKind::Log => {
            let mut shape = ty.shape.clone();
            shape[first] = Dim::Fixed(1);
            let axes = Arg::Ints(vec![first as i64]);
            let given = vec![("x", (&x).into()), ("axes", axes), ("keep_dims", Arg::Flag(true))];
            let sum = ex.temp("reduce_log_sum_exp", given, &shaped(ty, shape));
            ex.emit("sub", vec![("x", x.into()), ("y", sum.into())])
        }
        SoftmaxKind::Hard => Err("which has no counterpart".into()),
    }
}

fn reduce(ex: &mut Ex<'_, '_>) -> Done {
    let op = *ex.op::<Reduce>()?;
    let axes = ex.with_args(|args| op.axes(args))?.ok_or("over axes that are no constants")?;
    let kind = match op.kind {
        ReduceKind::Sum => "reduce_sum",
        ReduceKind::Mean => "reduce_mean",
        ReduceKind::Max => "reduce_max",
        ReduceKind::Min => "reduce_min",
        ReduceKind::Prod => "reduce_prod",
        ReduceKind::L1 => "reduce_l1_norm",
        ReduceKind::L2 => "reduce_l2_norm",
        ReduceKind::LogSum => "reduce_log_sum",
        ReduceKind::LogSumExp => "reduce_log_sum_exp",
        ReduceKind::SumSquare => "reduce_sum_square",
    };
    let x = ex.input(0)?;
    if axes.is_empty() {
        return ex.emit("identity", vec![("x", x.into())]);
    }
    let axes = Arg::Ints(axes.into_iter().map(|i| i as i64).collect());
    ex.emit(kind, vec![("x", x.into()), ("axes", axes), ("keep_dims", Arg::Flag(op.keep_dims))])
}
