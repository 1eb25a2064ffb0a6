//! Attention and rotary embedding.

use kinglet_graph::ops::{Attend, Blank, Rotate};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::write::attribute::{flag, float, int, size, sizes};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[("Attend", attend), ("Rotate", rotate)];

/// The operator where the set has it; spelled out in plain ones where these can say the same.
fn attend(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let op = *ex.op::<Attend>()?;
    let plain = !op.ordered() && ex.node.outputs.len() == 1 && (4..7).all(|i| !ex.has(i));
    let mixed = ex.rank(1)? != ex.rank(0)?;
    if plain && (op.blank != Blank::Never || mixed || !ex.allows(23)) {
        return spelled(ex, &op);
    }
    // A row that sees nothing is zero by the operator's definition.
    let windowed = op.window != [None; 2];
    ex.needs(if windowed {
        25
    } else if ex.has(6) {
        24
    } else {
        23
    })?;
    let mut attributes = vec![flag("is_causal", op.causal), float("softcap", op.softcap)];
    attributes.push(int("qk_matmul_output_mode", op.scores.into()));
    attributes.extend(op.scale.map(|scale| float("scale", scale)));
    let bound = |side: Option<usize>| side.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    if windowed {
        attributes.push(int("left_window_size", bound(op.window[0])));
        attributes.push(int("right_window_size", bound(op.window[1])));
    }
    if ex.rank(0)? == 3 {
        attributes.extend([size("q_num_heads", op.heads), size("kv_num_heads", op.kv_heads)]);
    }
    ex.emit("Attention", attributes)
}

/// `softmax(cap(scale q k^T) + mask) v`.
fn spelled(ex: &mut Ex<'_, '_>, op: &Attend) -> Result<(), String> {
    let folded = ex.rank(0)? == 3;
    let (heads, kv_heads, width) = counts(ex, op)?;
    let dtype = ex.dtype(0);
    let mut parts = Vec::new();
    for (i, own) in [(0, heads), (1, kv_heads), (2, kv_heads)] {
        let x = ex.input(i);
        let x = if ex.rank(i)? == 3 { unfold(ex, &x, own) } else { x };
        parts.push(if own == heads { x } else { repeat(ex, &x, own, heads / own) });
    }
    let scale = op.scale.unwrap_or_else(|| 1.0 / (width as f32).sqrt());
    let scale = ex.scalar(dtype, scale)?;
    let queries = ex.temp("Mul", &[&parts[0], &scale], vec![]);
    let keys = ex.temp("Transpose", &[&parts[1]], vec![sizes("perm", &[0, 1, 3, 2])]);
    let mut scores = ex.temp("MatMul", &[&queries, &keys], vec![]);
    if op.softcap != 0.0 {
        let cap = ex.scalar(dtype, op.softcap)?;
        let small = ex.temp("Div", &[&scores, &cap], vec![]);
        let tanh = ex.temp("Tanh", &[&small], vec![]);
        scores = ex.temp("Mul", &[&tanh, &cap], vec![]);
    }
    if ex.has(3) {
        scores = masked(ex, &scores, dtype)?;
    }
    let mut shares = ex.temp("Softmax", &[&scores], vec![int("axis", -1)]);
    if op.blank != Blank::Never {
        let nothing = if op.blank == Blank::Always {
            ex.temp("IsNaN", &[&shares], vec![])
        } else {
            let hidden = ex.scalar(dtype, f32::NEG_INFINITY)?;
            ex.temp("Equal", &[&scores, &hidden], vec![])
        };
        let zero = ex.scalar(dtype, 0.0)?;
        shares = ex.temp("Where", &[&nothing, &zero, &shares], vec![]);
    }
    if !folded {
        return ex.emit_with("MatMul", &[shares, parts.remove(2)], vec![]);
    }
    let y = ex.temp("MatMul", &[&shares, &parts[2]], vec![]);
    let y = ex.temp("Transpose", &[&y], vec![sizes("perm", &[0, 2, 1, 3])]);
    let shape = ex.ints(&[0, 0, -1]);
    ex.emit_with("Reshape", &[y, shape], vec![])
}

/// Query heads, key heads and elements of a head, which must be known.
fn counts(ex: &Ex<'_, '_>, op: &Attend) -> Result<(usize, usize, usize), String> {
    let known = || {
        let [_, heads, _, width] = kinglet_graph::ops::heads_of(ex.ty(0)?, op.heads).ok()?;
        let [_, kv_heads, ..] = kinglet_graph::ops::heads_of(ex.ty(1)?, op.kv_heads).ok()?;
        let counts = (heads.fixed()?, kv_heads.fixed()?, width.fixed()?);
        (counts.1 > 0 && counts.0.is_multiple_of(counts.1)).then_some(counts)
    };
    known().ok_or_else(|| "whose heads are not known".into())
}

/// `[B, S, heads * D]` to `[B, heads, S, D]`.
fn unfold(ex: &mut Ex<'_, '_>, x: &str, heads: usize) -> String {
    let shape = ex.ints(&[0, 0, heads as i64, -1]);
    let split = ex.temp("Reshape", &[x, &shape], vec![]);
    ex.temp("Transpose", &[&split], vec![sizes("perm", &[0, 2, 1, 3])])
}

/// Each of `heads` heads as often as query heads share it.
fn repeat(ex: &mut Ex<'_, '_>, x: &str, heads: usize, times: usize) -> String {
    let which: Vec<i64> = (0..heads as i64).flat_map(|head| std::iter::repeat_n(head, times)).collect();
    let which = ex.ints(&which);
    ex.temp("Gather", &[x, &which], vec![int("axis", 1)])
}

/// Summands are added; what truth values rule out becomes as small as can be.
fn masked(ex: &mut Ex<'_, '_>, scores: &str, dtype: DType) -> Result<String, String> {
    let mask = ex.input(3);
    if ex.dtype(3) != DType::Bool {
        return Ok(ex.temp("Add", &[scores, &mask], vec![]));
    }
    let never = ex.scalar(dtype, f32::NEG_INFINITY)?;
    Ok(ex.temp("Where", &[&mask, scores, &never], vec![]))
}

fn rotate(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    ex.needs(23)?;
    let Rotate { heads, dims, interleaved } = *ex.op()?;
    let mut attributes = vec![flag("interleaved", interleaved), size("rotary_embedding_dim", dims)];
    if heads > 0 {
        attributes.push(size("num_heads", heads));
    }
    ex.emit("RotaryEmbedding", attributes)
}
