//! Layers that pass a state from each position to the next, and attention.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{Attend, Cell, Concat, Fun, Recurrent, Reshape, Split, Transpose, Unsqueeze};

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[
    ("gru", |cx| recurrent(cx, &GRU)),
    ("lstm", |cx| recurrent(cx, &LSTM)),
    ("rnn", |cx| recurrent(cx, &RNN)),
    ("scaled_dot_product_attention", attention),
];

/// How MIL stores a cell.
struct Kind {
    cell: Cell,
    /// For each gate of the graph's op, its place in MIL's matrices.
    order: &'static [usize],
    /// Parameters that name functions, with what is usual.
    functions: &'static [(&'static str, &'static str)],
}

/// MIL: reset, output, update.
const GRU: Kind = Kind {
    cell: Cell::Gru { reset_after: true },
    order: &[2, 0, 1],
    functions: &[("recurrent_activation", "sigmoid"), ("activation", "tanh")],
};
/// MIL: input, forget, output, cell.
const LSTM: Kind = Kind {
    cell: Cell::Lstm { coupled: false },
    order: &[0, 2, 1, 3],
    functions: &[("recurrent_activation", "sigmoid"), ("cell_activation", "tanh"), ("activation", "tanh")],
};
const RNN: Kind = Kind { cell: Cell::Plain, order: &[0], functions: &[("activation", "tanh")] };

/// MIL: input, forget, output; the graph's op: input, output, forget.
const PEEPHOLES: &[usize] = &[0, 2, 1];

fn recurrent(cx: &mut Cx<'_>, kind: &Kind) -> Done {
    let backwards = match cx.text("direction").as_deref() {
        None | Some("forward") => vec![false],
        Some("reverse") => vec![true],
        Some("bidirectional") => vec![false, true],
        Some(other) => return Err(cx.fail(format!("direction `{other}` is not known"))),
    };
    let directions = backwards.len();
    let functions = functions(cx, kind)?.repeat(directions);
    let clip = cx.literal("clip").and_then(|l| l.float()).filter(|clip| clip.is_finite() && *clip > 0.0);
    let w = stacked(cx, kind.order, ["weight_ih", "weight_ih_back"], directions)?;
    let r = stacked(cx, kind.order, ["weight_hh", "weight_hh_back"], directions)?;
    let (w, r) = (required(cx, w, "weight_ih")?, required(cx, r, "weight_hh")?);
    let bias = bias(cx, kind, directions)?;
    let x = cx.input("x")?;
    let (absent, hidden) = (cx.absent(), by_direction(cx, "initial_h", directions)?);
    let mut inputs = vec![x, w, r, bias, absent, hidden];
    let lstm = matches!(kind.cell, Cell::Lstm { .. });
    if lstm {
        inputs.push(by_direction(cx, "initial_c", directions)?);
        inputs.extend(stacked(cx, PEEPHOLES, ["peephole", "peephole_back"], directions)?);
    }
    let op = Recurrent { cell: kind.cell, backwards, functions, clip, batch_first: false };
    let made = cx.temps(op, &inputs, if lstm { 3 } else { 2 })?;
    let hidden = rows(cx, made[1])?;
    let sequence = if cx.flag("output_sequence", false) {
        let steps = cx.temp(Transpose { perm: vec![0, 2, 1, 3] }, &[made[0]])?;
        let shape = cx.constant_ints(&[0, 0, -1])?;
        cx.temp(Reshape { allow_zero: false }, &[steps, shape])?
    } else {
        let front = cx.constant_ints(&[0])?;
        cx.temp(Unsqueeze, &[hidden, front])?
    };
    let mut outputs = vec![sequence, hidden];
    if lstm {
        outputs.push(rows(cx, made[2])?);
    }
    cx.bind_all(&outputs);
    Ok(())
}

fn functions(cx: &Cx<'_>, kind: &Kind) -> Result<Vec<Fun>, CoreMlError> {
    let one = |(parameter, usual): &(&str, &str)| {
        let name = cx.text(parameter);
        Ok(match name.as_deref().unwrap_or(usual) {
            "tanh" => Fun::Tanh,
            "sigmoid" => Fun::Sigmoid,
            "relu" => Fun::Relu,
            "hard_sigmoid" | "sigmoid_hard" => Fun::HardSigmoid { alpha: 0.2, beta: 0.5 },
            "linear" => Fun::LeakyRelu(1.0),
            other => return Err(cx.fail(format!("the activation `{other}` cannot run here"))),
        })
    };
    kind.functions.iter().map(one).collect()
}

fn required(cx: &Cx<'_>, given: Option<ValueId>, name: &str) -> Result<ValueId, CoreMlError> {
    given.ok_or_else(|| cx.fail(format!("`{name}` is missing")))
}

/// A parameter of each direction, gates in the graph's order: `[directions, gates * H, ..]`; none when it is not given.
fn stacked(
    cx: &mut Cx<'_>,
    order: &[usize],
    names: [&str; 2],
    directions: usize,
) -> Result<Option<ValueId>, CoreMlError> {
    let mut all = Vec::new();
    for name in &names[..directions] {
        let Some(given) = cx.maybe(name)? else { return Ok(None) };
        all.push(reordered(cx, given, order)?);
    }
    cx.temp(Concat { axis: 0 }, &all).map(Some)
}

/// The parts of a matrix or vector in another order, below a new dimension.
fn reordered(cx: &mut Cx<'_>, x: ValueId, order: &[usize]) -> Result<ValueId, CoreMlError> {
    let parts = cx.temps(Split { axis: 0, parts: order.len() }, &[x], order.len())?;
    let parts: Vec<ValueId> = order.iter().map(|i| parts[*i]).collect();
    let x = cx.temp(Concat { axis: 0 }, &parts)?;
    let front = cx.constant_ints(&[0])?;
    cx.temp(Unsqueeze, &[x, front])
}

/// `[directions, 2 * gates * H]`: MIL adds both biases up, and keeps the sum outside of the reset gate.
fn bias(cx: &mut Cx<'_>, kind: &Kind, directions: usize) -> Result<ValueId, CoreMlError> {
    let Some(given) = stacked(cx, kind.order, ["bias", "bias_back"], directions)? else {
        return Ok(cx.absent());
    };
    let zero = cx.scalar(0.0)?;
    let nothing = cx.temp(kinglet_graph::ops::Binary(kinglet_graph::ops::Fun2::Mul), &[given, zero])?;
    cx.temp(Concat { axis: 1 }, &[given, nothing])
}

/// `[N, directions * H]` as `[directions, N, H]`.
fn by_direction(cx: &mut Cx<'_>, name: &str, directions: usize) -> Result<ValueId, CoreMlError> {
    let given = cx.input(name)?;
    let shape = cx.constant_ints(&[0, directions as i64, -1])?;
    let split = cx.temp(Reshape { allow_zero: false }, &[given, shape])?;
    cx.temp(Transpose { perm: vec![1, 0, 2] }, &[split])
}

/// `[directions, N, H]` as `[N, directions * H]`.
fn rows(cx: &mut Cx<'_>, x: ValueId) -> Result<ValueId, CoreMlError> {
    let turned = cx.temp(Transpose { perm: vec![1, 0, 2] }, &[x])?;
    let shape = cx.constant_ints(&[0, -1])?;
    cx.temp(Reshape { allow_zero: false }, &[turned, shape])
}

/// Attention over `[B, heads.., S, E]`; other ranks than four are made four on the way.
fn attention(cx: &mut Cx<'_>) -> Done {
    let qkv = [cx.input("query")?, cx.input("key")?, cx.input("value")?];
    let (mask, rank) = (cx.maybe("attn_mask")?, cx.rank(qkv[0])?);
    let op = Attend::default();
    match rank {
        4 => {
            let inputs: Vec<ValueId> = qkv.into_iter().chain(mask).collect();
            cx.emit(op, &inputs)
        }
        3 => {
            let axis = cx.constant_ints(&[1])?;
            let mut inputs = Vec::new();
            for id in qkv {
                inputs.push(cx.temp(Unsqueeze, &[id, axis])?);
            }
            if let Some(mask) = mask {
                let three = cx.rank(mask)? == 3;
                inputs.push(if three { cx.temp(Unsqueeze, &[mask, axis])? } else { mask });
            }
            let y = cx.temp(op, &inputs)?;
            cx.emit(kinglet_graph::ops::Squeeze, &[y, axis])
        }
        _ => Err(cx.fail(format!("attention over {rank} dimensions cannot run"))),
    }
}
