//! `Attention`: rotary angles once a run, then per layer one step that rotates and stores, and one that attends.

use kinglet_graph::cost::{Attends, Math};
use kinglet_graph::ops::{Attention, Rope, RopeStyle};
use kinglet_graph::{ExecError, Node};
use kinglet_kernels::ops::{self, AttentionShape, QkvSpans};
use kinglet_tensor::{KvLayer, KvType};

use crate::lower::{BufferId, Lowering, Work, op_of};

pub(super) fn attention(low: &mut Lowering<'_>, node: &Node) -> Result<(), ExecError> {
    let op = op_of::<Attention>(node)?;
    let [q, k, v] = [low.value(node.inputs[0])?, low.value(node.inputs[1])?, low.value(node.inputs[2])?];
    let out = low.value(node.outputs[0])?;
    let table = op
        .rope
        .as_ref()
        .map(|rope| Ok::<_, ExecError>((table(low, node, rope)?, style(rope))))
        .transpose()?;
    let shape = KvLayer { heads: op.kv_heads, key_dim: op.key_dim, value_dim: op.value_dim };
    let layer = op.layer;
    let reads: Vec<BufferId> = [q, k, v].into_iter().chain(table.map(|(t, _)| t)).collect();
    low.step(node, &reads, &[q, k], Work::default(), move |s| {
        let qkv = QkvSpans { q: s[q], k: s[k], v: s[v] };
        ops::rope_store(layer, shape, qkv, table.map(|(t, style)| (s[t], style)))
    });
    let attend = AttentionShape {
        layer,
        kv: shape,
        heads: op.heads,
        scale: op.scale,
        window: op.window,
        softcap: op.softcap,
    };
    let attends = Some(attends(low, node, op, shape)?);
    let codes = low.graph.kv().is_some_and(|kv| kv.kind == KvType::Q16);
    let math = if codes { Math::Int16 } else { Math::Float };
    let work = Work { attends, math, ..Work::default() };
    low.step(node, &[q], &[out], work, move |s| ops::attention(attend, s[q], s[out]));
    Ok(())
}

/// What a position costs: its keys and values of all heads, and a product with each query head.
fn attends(low: &Lowering<'_>, node: &Node, op: &Attention, shape: KvLayer) -> Result<Attends, ExecError> {
    let row = |kind: KvType| Some(kind.row_bytes(shape.key_dim)? + kind.row_bytes(shape.value_dim)?);
    let bytes = low.graph.kv().and_then(|kv| row(kv.kind)).ok_or_else(|| ExecError::Node {
        node: node.name.clone(),
        reason: "the key/value state does not hold its heads".into(),
    })?;
    let multiply_adds = op.heads * (op.key_dim + op.value_dim);
    Ok(Attends { bytes: bytes * shape.heads, multiply_adds, window: op.window })
}

/// The table of angles that all layers with this rotation share.
fn table(low: &mut Lowering<'_>, node: &Node, rope: &Rope) -> Result<BufferId, ExecError> {
    let rows = low.value(node.inputs[0])?;
    low.shared_table(rows, rope, |low, out| {
        let (inv_freq, magnitude) = (rope.inv_freq.clone(), rope.magnitude);
        low.step(node, &[], &[out], Work::default(), move |s| {
            ops::rope_table(inv_freq.clone(), magnitude, s[out])
        });
    })
}

fn style(rope: &Rope) -> ops::RopeStyle {
    match rope.style {
        RopeStyle::Halves => ops::RopeStyle::Halves,
        RopeStyle::Interleaved => ops::RopeStyle::Interleaved,
    }
}
