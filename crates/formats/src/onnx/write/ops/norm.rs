//! Normalisations, softmax and dropout.

use kinglet_graph::ops::{BatchNorm, Dropout, GroupNorm, LayerNorm, LpNorm, Lrn, Softmax, SoftmaxKind};

use super::Entry;
use crate::onnx::write::attribute::{flag, float, int, size};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("BatchNorm", |ex| {
        let BatchNorm { eps, momentum, training } = *ex.op()?;
        let attributes =
            vec![float("epsilon", eps), float("momentum", momentum), flag("training_mode", training)];
        ex.emit("BatchNormalization", attributes)
    }),
    ("GroupNorm", group_norm),
    ("LayerNorm", layer_norm),
    ("Lrn", |ex| {
        let Lrn { alpha, beta, bias, size: width } = *ex.op()?;
        let factors = [float("alpha", alpha), float("beta", beta), float("bias", bias)];
        ex.emit("LRN", factors.into_iter().chain([size("size", width)]).collect())
    }),
    ("LpNorm", |ex| {
        let LpNorm { axis, p } = *ex.op()?;
        ex.emit("LpNormalization", vec![int("axis", axis), int("p", p.into())])
    }),
    ("Softmax", softmax),
    ("Dropout", |ex| {
        let seed = ex.op::<Dropout>()?.seed;
        ex.emit("Dropout", seed.map(|seed| int("seed", seed)).into_iter().collect())
    }),
];

fn group_norm(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let GroupNorm { groups, eps } = *ex.op()?;
    let Some(groups) = groups else { return ex.emit("InstanceNormalization", vec![float("epsilon", eps)]) };
    let channels = ex.ty(0).and_then(|ty| ty.shape.get(1)?.fixed());
    let factors = ex.ty(1).and_then(|ty| ty.elements());
    if channels.is_none() || factors != channels {
        return Err("whose factors are one a group, not one a channel".into());
    }
    ex.needs(21)?;
    ex.emit("GroupNormalization", vec![float("epsilon", eps), size("num_groups", groups)])
}

fn layer_norm(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let LayerNorm { axis, eps, centre } = *ex.op()?;
    let attributes = vec![int("axis", axis), float("epsilon", eps)];
    if centre {
        return ex.emit("LayerNormalization", attributes);
    }
    if ex.has(2) || ex.node.outputs.len() > 1 {
        return Err("whose bias or statistics a norm without a mean does not have".into());
    }
    if ex.allows(23) { ex.emit("RMSNormalization", attributes) } else { rms_norm(ex, axis, eps) }
}

/// `x / sqrt(mean(x^2) + eps) * scale`.
fn rms_norm(ex: &mut Ex<'_, '_>, axis: i64, eps: f32) -> Result<(), String> {
    let rank = ex.rank(0)?;
    let first = kinglet_graph::axis(axis, rank)?;
    let (x, scale) = (ex.input(0), ex.input(1));
    let (axes, eps) =
        (ex.ints(&(first as i64..rank as i64).collect::<Vec<_>>()), ex.scalar(ex.dtype(0), eps)?);
    let squares = ex.temp("Mul", &[&x, &x], vec![]);
    let mean = ex.temp("ReduceMean", &[&squares, &axes], vec![flag("keepdims", true)]);
    let shifted = ex.temp("Add", &[&mean, &eps], vec![]);
    let root = ex.temp("Sqrt", &[&shifted], vec![]);
    let y = ex.temp("Div", &[&x, &root], vec![]);
    ex.emit_with("Mul", &[y, scale], vec![])
}

fn softmax(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Softmax { kind, axis, flat } = *ex.op()?;
    let name = match kind {
        SoftmaxKind::Soft => "Softmax",
        SoftmaxKind::Log => "LogSoftmax",
        SoftmaxKind::Hard => "Hardmax",
    };
    let ty = ex.ty(0);
    let rank = ty.map(|ty| ty.rank());
    let alone = |ty: &kinglet_graph::TensorType, first: usize| {
        // Dimensions of 1 behind the axis change nothing.
        ty.shape.get(first + 1..).is_some_and(|rest| rest.iter().all(|dim| dim.fixed() == Some(1)))
    };
    let first = rank.and_then(|rank| kinglet_graph::axis(axis, rank).ok());
    match (flat, ty, first) {
        (false, ..) => ex.emit(name, vec![int("axis", axis)]),
        (true, Some(ty), Some(first)) if alone(ty, first) => ex.emit(name, vec![size("axis", first)]),
        (true, Some(_), Some(first)) => flat_softmax(ex, name, first),
        _ => Err("over several dimensions of a value whose number of dimensions is not known".into()),
    }
}

/// Over all dimensions from `first` on: flattened, and back to the shape that it had.
fn flat_softmax(ex: &mut Ex<'_, '_>, name: &str, first: usize) -> Result<(), String> {
    let x = ex.input(0);
    let shape = ex.temp("Shape", &[&x], vec![]);
    let rows = ex.temp("Flatten", &[&x], vec![size("axis", first)]);
    let soft = ex.temp(name, &[&rows], vec![int("axis", -1)]);
    ex.emit_with("Reshape", &[soft, shape], vec![])
}
