//! Layers that pass a state from each position to the next.

use kinglet_graph::ValueId;
use kinglet_graph::ops::{
    Cell, Concat, Conv, Fun, LinearAttention, Pad, PadMode, Recurrent, Slice, Unary, Window,
};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "RNN", |cx| recurrent(cx, Cell::Plain)),
    ("", "GRU", |cx| {
        let reset_after = cx.flag("linear_before_reset", false);
        recurrent(cx, Cell::Gru { reset_after })
    }),
    ("", "LSTM", |cx| {
        let coupled = cx.flag("input_forget", false);
        recurrent(cx, Cell::Lstm { coupled })
    }),
    ("", "LinearAttention", linear_attention),
    ("", "CausalConvWithState", causal_conv),
];

fn recurrent(cx: &mut Cx<'_, '_>, cell: Cell) -> Result<(), OnnxError> {
    let backwards = match cx.attrs.text("direction").unwrap_or("forward") {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => return Err(cx.fail(format!("direction `{other}` is not known"))),
    };
    let functions = functions(cx, cell, backwards.len())?;
    cx.emit(Recurrent {
        cell,
        backwards,
        functions,
        clip: cx.attrs.float("clip").filter(|clip| *clip > 0.0),
        batch_first: cx.flag("layout", false),
    })
}

/// The functions of all directions; each takes its parameters, where it has any, from two lists in order.
fn functions(cx: &Cx<'_, '_>, cell: Cell, directions: usize) -> Result<Vec<Fun>, OnnxError> {
    let Some(names) = cx.attrs.texts("activations").filter(|names| !names.is_empty()) else {
        let own = match cell {
            Cell::Plain => &[Fun::Tanh][..],
            Cell::Gru { .. } => &[Fun::Sigmoid, Fun::Tanh],
            Cell::Lstm { .. } => &[Fun::Sigmoid, Fun::Tanh, Fun::Tanh],
        };
        return Ok(own.repeat(directions));
    };
    let mut alphas = cx.attrs.floats("activation_alpha").unwrap_or(&[]).iter().copied();
    let mut betas = cx.attrs.floats("activation_beta").unwrap_or(&[]).iter().copied();
    let mut one = |name: &String| {
        let mut alpha = |default| alphas.next().unwrap_or(default);
        Ok(match name.to_lowercase().as_str() {
            "tanh" => Fun::Tanh,
            "relu" => Fun::Relu,
            "sigmoid" => Fun::Sigmoid,
            "softsign" => Fun::Softsign,
            "softplus" => Fun::Softplus,
            "leakyrelu" => Fun::LeakyRelu(alpha(0.01)),
            "thresholdedrelu" => Fun::ThresholdedRelu(alpha(1.0)),
            "elu" => Fun::Elu(alpha(1.0)),
            "hardsigmoid" => Fun::HardSigmoid { alpha: alpha(0.2), beta: betas.next().unwrap_or(0.5) },
            _ => return Err(cx.fail(format!("the activation `{name}` is not supported"))),
        })
    };
    let list: Vec<Fun> = names.iter().map(&mut one).collect::<Result<_, _>>()?;
    let expected = cell.functions() * directions;
    if list.len() == expected {
        Ok(list)
    } else {
        Err(cx.fail(format!("{} activations, expected {expected}", list.len())))
    }
}

fn linear_attention(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let rule = cx.attrs.text("update_rule").unwrap_or("gated_delta").to_owned();
    let (gated, delta) = match rule.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => return Err(cx.fail(format!("update_rule `{other}` is not known"))),
    };
    if cx.has(4) != gated || cx.has(5) != delta {
        return Err(cx.fail(format!("update_rule `{rule}` with the inputs of another rule")));
    }
    let size = |name: &str| usize::try_from(cx.int(name, 0)).unwrap_or(0);
    let scale = cx.attrs.float("scale").filter(|scale| *scale != 0.0);
    cx.emit(LinearAttention { heads: size("q_num_heads"), kv_heads: size("kv_num_heads"), scale, delta })
}

/// The state is what stands before the input; the next state the end of both.
fn causal_conv(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let (x, w, bias, past) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3));
    let ty = cx.ty(1).tensor().cloned();
    let sizes =
        ty.filter(|ty| ty.rank() == 3).and_then(|ty| Some((ty.shape[0].fixed()?, ty.shape[2].fixed()?)));
    let (channels, kernel) = sizes.ok_or_else(|| cx.fail("kernels must have a fixed shape [C, 1, k]"))?;
    let before = kernel.saturating_sub(1) as i64;
    let all = if cx.has(3) {
        cx.temp(Concat { axis: 2 }, &[past, x])?
    } else {
        let pads = cx.ints(&[0, 0, before, 0, 0, 0])?;
        cx.temp(Pad { mode: PadMode::Constant }, &[x, pads])?
    };
    let conv = Conv { window: Window::default(), groups: channels.max(1) };
    match cx.attrs.text("activation").unwrap_or("none") {
        "none" => {
            let y = cx.temp(conv, &[all, w, bias])?;
            cx.bind(0, y)?;
        }
        "silu" | "swish" => {
            let y = cx.temp(conv, &[all, w, bias])?;
            let y = cx.temp(Unary(Fun::Swish(1.0)), &[y])?;
            cx.bind(0, y)?;
        }
        other => return Err(cx.fail(format!("the activation `{other}` is not known"))),
    }
    if cx.wants(1) {
        let state = tail(cx, all, before)?;
        cx.bind(1, state)?;
    }
    Ok(())
}

/// The last `n` elements along the third dimension.
fn tail(cx: &mut Cx<'_, '_>, x: ValueId, n: i64) -> Result<ValueId, OnnxError> {
    // From the end there is no way to say "the last none".
    let start = cx.ints(&[if n == 0 { i64::MAX } else { -n }])?;
    let (end, axis) = (cx.ints(&[i64::MAX])?, cx.ints(&[2])?);
    cx.temp(Slice, &[x, start, end, axis])
}
