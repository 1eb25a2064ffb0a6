//! Matrix products.

use kinglet_graph::Dim;
use kinglet_graph::ops::{Gemm, Linear};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::write::node::{Arg, Ex, shaped};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[
    ("MatMul", matmul),
    ("Gemm", gemm),
    ("Linear", |ex| {
        let op = ex.op::<Linear>()?;
        let [biased] = op.biased.as_slice() else { return Err("with several weights".into()) };
        linear(ex, *biased)
    }),
];

fn product(x: String, y: String, turn_x: bool, turn_y: bool) -> crate::coreml::write::node::Given<'static> {
    vec![
        ("x", Arg::Name(x)),
        ("y", Arg::Name(y)),
        ("transpose_x", Arg::Flag(turn_x)),
        ("transpose_y", Arg::Flag(turn_y)),
    ]
}

/// Vectors become matrices of one row or column, which goes away afterwards.
fn matmul(ex: &mut Ex<'_, '_>) -> Done {
    if !ex.is_float(0) {
        return Err("of integers".into());
    }
    let (mut sides, mut shapes, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for (i, axis) in [(0, 0), (1, 1)] {
        let (mut side, ty) = (ex.input(i)?, ex.ty(i)?);
        let mut shape = ty.shape.clone();
        if ty.rank() == 1 {
            shape.insert(axis, Dim::Fixed(1));
            let given = vec![("x", side.into()), ("axes", Arg::Ints(vec![axis as i64]))];
            side = ex.temp("expand_dims", given, &shaped(ty, shape.clone()));
            gone.push(axis as i64 - 2);
        }
        sides.push(side);
        shapes.push(shape);
    }
    let (y, x) = (sides.remove(1), sides.remove(0));
    if gone.is_empty() {
        return ex.emit("matmul", product(x, y, false, false));
    }
    let rank = shapes[0].len().max(shapes[1].len());
    let outer = |shape: &[Dim]| shape[..shape.len() - 2].to_vec();
    let mut shape = kinglet_graph::broadcast(&outer(&shapes[0]), &outer(&shapes[1]))?;
    shape.extend([shapes[0][shapes[0].len() - 2], shapes[1][shapes[1].len() - 1]]);
    let whole = ex.temp("matmul", product(x, y, false, false), &shaped(ex.ty(0)?, shape));
    let axes = gone.into_iter().map(|axis| axis + rank as i64).collect();
    ex.emit("squeeze", vec![("x", whole.into()), ("axes", Arg::Ints(axes))])
}

fn linear(ex: &mut Ex<'_, '_>, biased: bool) -> Done {
    ex.fixed(1)?;
    let (x, weight) = (ex.input(0)?, ex.input(1)?);
    let mut given = vec![("x", Arg::Name(x)), ("weight", Arg::Name(weight))];
    if biased {
        ex.weight(2)?;
        given.push(("bias", Arg::Name(ex.input(2)?)));
    }
    ex.emit("linear", given)
}

/// A product with the weights as they lie where that is one operation; otherwise product, factor and sum.
fn gemm(ex: &mut Ex<'_, '_>) -> Done {
    let Gemm { alpha, beta, trans_a, trans_b } = *ex.op()?;
    let biased = ex.has(2);
    let vector = |ex: &Ex<'_, '_>| ex.weight(2).is_ok_and(|t| t.shape().len() == 1 && t.elements() > 1);
    let plain = alpha == 1.0 && (beta == 1.0 || !biased) && !trans_a;
    if plain
        && trans_b
        && ex.weight(1).is_ok()
        && (!biased || vector(ex))
        && ex.weight(1)?.dtype() == DType::F32
    {
        return linear(ex, biased);
    }
    let (a, b, ty) = (ex.input(0)?, ex.input(1)?, ex.made(0)?);
    if plain && !biased {
        return ex.emit("matmul", product(a, b, trans_a, trans_b));
    }
    let mut y = ex.temp("matmul", product(a, b, trans_a, trans_b), ty);
    if !biased {
        return ex.emit("mul", vec![("x", y.into()), ("y", Arg::Float(alpha))]);
    }
    if alpha != 1.0 {
        y = ex.temp("mul", vec![("x", y.into()), ("y", Arg::Float(alpha))], ty);
    }
    let mut c = ex.input(2)?;
    if beta != 1.0 {
        let own = ex.ty(2)?;
        c = ex.temp("mul", vec![("x", c.into()), ("y", Arg::Float(beta))], own);
    }
    ex.emit("add", vec![("x", y.into()), ("y", c.into())])
}
