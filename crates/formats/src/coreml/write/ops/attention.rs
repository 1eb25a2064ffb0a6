//! Attention, spelled out.

use kinglet_graph::ops::{Attend, Blank, heads_of};
use kinglet_tensor::DType;

use super::Entry;
use super::layout::sized;
use crate::coreml::write::node::{Arg, Ex};

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[("Attend", attend)];

/// `softmax(scale q k^T + mask) v` over known sizes, with as many key heads as query heads.
fn attend(ex: &mut Ex<'_, '_>) -> Done {
    let op = *ex.op::<Attend>()?;
    if op.ordered() || op.softcap != 0.0 || (4..7).any(|i| ex.has(i)) {
        return Err("with a past, a cap or an order of positions".into());
    }
    let known = |i: usize, heads: usize| -> Result<[usize; 4], String> {
        let dims = heads_of(ex.ty(i)?, heads)?.map(|dim| dim.fixed().ok_or("of open sizes"));
        let [b, h, s, d] = dims;
        Ok([b?, h?, s?, d?])
    };
    let (q, k, v) = (known(0, op.heads)?, known(1, op.kv_heads)?, known(2, op.kv_heads)?);
    if q[1] != k[1] {
        return Err("whose queries share keys".into());
    }
    let [queries, keys, values] = [(0, q), (1, k), (2, v)].map(|(i, dims)| by_heads(ex, i, dims));
    let (ty, scores) = (ex.ty(0)?, [q[0], q[1], q[2], k[2]]);
    let scale = op.scale.unwrap_or_else(|| 1.0 / (q[3] as f32).sqrt());
    let queries = ex.temp("mul", vec![("x", queries?.into()), ("y", Arg::Float(scale))], &sized(ty, &q));
    let given = vec![("x", queries.into()), ("y", keys?.into()), ("transpose_y", Arg::Flag(true))];
    let mut product = ex.temp("matmul", given, &sized(ty, &scores));
    if ex.has(3) {
        product = masked(ex, product, &scores)?;
    }
    let mut weights =
        ex.temp("softmax", vec![("x", product.clone().into()), ("axis", Arg::Int(-1))], &sized(ty, &scores));
    if op.blank != Blank::Never {
        let test = if op.blank == Blank::Always {
            ("not_equal", vec![("x", weights.clone().into()), ("y", weights.clone().into())])
        } else {
            ("equal", vec![("x", product.into()), ("y", Arg::Float(f32::NEG_INFINITY))])
        };
        let nothing = ex.temp(test.0, test.1, &sized(ty, &scores).with(DType::Bool));
        let given = vec![("cond", nothing.into()), ("a", Arg::Float(0.0)), ("b", weights.into())];
        weights = ex.temp("select", given, &sized(ty, &scores));
    }
    let given = vec![("x", weights.into()), ("y", values?.into())];
    if ty.rank() == 4 {
        return ex.emit("matmul", given);
    }
    let sums = ex.temp("matmul", given, &sized(ty, &[q[0], q[1], q[2], v[3]]));
    let perm = Arg::Ints(vec![0, 2, 1, 3]);
    let turned =
        ex.temp("transpose", vec![("x", sums.into()), ("perm", perm)], &sized(ty, &[q[0], q[2], q[1], v[3]]));
    let shape = Arg::Ints(vec![q[0] as i64, q[2] as i64, (q[1] * v[3]) as i64]);
    ex.emit("reshape", vec![("x", turned.into()), ("shape", shape)])
}

/// Input `i` as `[B, H, S, D]`.
fn by_heads(ex: &mut Ex<'_, '_>, i: usize, [b, h, s, d]: [usize; 4]) -> Result<String, String> {
    let (x, ty) = (ex.input(i)?, ex.ty(i)?);
    if ty.rank() == 4 {
        return Ok(x);
    }
    let shape = Arg::Ints([b, s, h, d].iter().map(|n| *n as i64).collect());
    let split = ex.temp("reshape", vec![("x", x.into()), ("shape", shape)], &sized(ty, &[b, s, h, d]));
    let perm = Arg::Ints(vec![0, 2, 1, 3]);
    Ok(ex.temp("transpose", vec![("x", split.into()), ("perm", perm)], &sized(ty, &[b, h, s, d])))
}

/// Summands are added; what truth values rule out becomes minus infinity.
fn masked(ex: &mut Ex<'_, '_>, product: String, scores: &[usize]) -> Result<String, String> {
    let (mask, ty) = (ex.input(3)?, sized(ex.ty(0)?, scores));
    Ok(if ex.ty(3)?.dtype == DType::Bool {
        let given = vec![("cond", mask.into()), ("a", product.into()), ("b", Arg::Float(f32::NEG_INFINITY))];
        ex.temp("select", given, &ty)
    } else {
        ex.temp("add", vec![("x", product.into()), ("y", mask.into())], &ty)
    })
}
