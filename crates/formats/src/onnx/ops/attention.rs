//! Attention and rotary embedding.

use kinglet_graph::ops::{Attend, Blank, Rotate};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;

pub(in crate::onnx) const OPS: &[Entry] = &[("", "Attention", attention), ("", "RotaryEmbedding", rotary)];

fn size(cx: &Cx<'_, '_>, name: &str) -> usize {
    usize::try_from(cx.int(name, 0)).unwrap_or(0)
}

fn attention(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let bound = |name: &str| match cx.int(name, -1) {
        -1 => Ok(None),
        n => usize::try_from(n).map(Some).map_err(|_| cx.fail(format!("{name} is {n}"))),
    };
    let op = Attend {
        heads: size(cx, "q_num_heads"),
        kv_heads: size(cx, "kv_num_heads"),
        scale: cx.attrs.float("scale"),
        causal: cx.flag("is_causal", false),
        window: [bound("left_window_size")?, bound("right_window_size")?],
        softcap: cx.float("softcap", 0.0),
        blank: Blank::Hidden,
        scores: cx.int("qk_matmul_output_mode", 0).clamp(0, 3) as u8,
    };
    cx.emit(op)
}

fn rotary(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let op = Rotate {
        heads: size(cx, "num_heads"),
        dims: size(cx, "rotary_embedding_dim"),
        interleaved: cx.flag("interleaved", false),
    };
    cx.emit(op)
}
