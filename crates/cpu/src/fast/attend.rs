//! Attention over values of the graph.

use kinglet_graph::ops::{Attend, Blank};
use kinglet_graph::{Def, ExecError, Node, ValueId};
use kinglet_kernels::nd::{self, Side};
use kinglet_tensor::DType;

use super::elementwise::{From, broadcast};
use crate::blocked::{constant, rows_of};
use crate::lower::{BufferId, Lowering, Spans, Work, op_of};
use crate::views::dense;

/// An operand, and where its elements lie.
struct Operand {
    from: From,
    skip: usize,
    strides: [usize; 3],
}

impl Operand {
    /// Sequences, `batch` of them, that it has parts for.
    fn apart(&self, low: &Lowering<'_>, batch: usize) -> usize {
        low.rows_apart(self.from.buffer(), batch, self.strides[0], self.skip)
    }

    fn bound(&self, spans: &Spans) -> nd::Operand {
        nd::Operand { side: self.from.side(spans), offset: self.skip, strides: self.strides }
    }
}

/// Binds attention without a past, whose scores, joined keys and joined values nobody reads.
pub(crate) fn attend(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = *op_of::<Attend>(node)?;
    let absent =
        |i: usize| node.inputs.get(i).is_none_or(|id| matches!(low.graph.value(*id).def, Def::Absent));
    if op.ordered() || op.softcap != 0.0 || !(4..7).all(absent) {
        return Ok(false);
    }
    let masked = !absent(3);
    if node.outputs.iter().skip(1).any(|id| !low.unread(*id)) {
        return Ok(false);
    }
    let [q, k, v] = [(0, op.heads), (1, op.kv_heads), (2, op.kv_heads)];
    let sizes = [q, k, v].map(|(i, heads)| four(low, node.inputs[i], heads));
    let [Some([batch, heads, queries, dim]), Some([_, kv_heads, keys, _]), Some([.., value_dim])] = sizes
    else {
        return Ok(false);
    };
    let scale = op.scale.unwrap_or(1.0 / (dim as f32).sqrt());
    let Some(out) = low.sizes(node.outputs[0]).filter(|_| scale > 0.0) else { return Ok(false) };
    let mask = match masked.then(|| mask(low, node.inputs[3], [batch, heads, queries, keys])).transpose()? {
        Some(None) => return Ok(false),
        other => other.flatten(),
    };
    let (q, k, v) = (operand(low, node, q)?, operand(low, node, k)?, operand(low, node, v)?);
    let (Some(q), Some(k), Some(v)) = (q, k, v) else { return Ok(false) };
    let sizes = nd::Heads {
        batch,
        heads,
        queries,
        keys,
        dim,
        value_dim,
        scale,
        shared: heads / kv_heads,
        blank: match op.blank {
            Blank::Never => nd::Blank::Never,
            Blank::Hidden => nd::Blank::Hidden,
            Blank::Always => nd::Blank::Always,
        },
    };
    let strides = if out.len() == 4 {
        [heads * queries * value_dim, queries * value_dim, value_dim]
    } else {
        [queries * heads * value_dim, value_dim, heads * value_dim]
    };
    let to = low.value(node.outputs[0])?;
    let reads: Vec<BufferId> = [&q.from, &k.from, &v.from]
        .into_iter()
        .chain(mask.as_ref().map(|mask| &mask.from))
        .filter_map(From::buffer)
        .collect();
    let sides = [&q, &k, &v].map(|side| side.apart(low, batch));
    let masks = mask.as_ref().map_or(batch, |mask| mask.apart(low, batch));
    let apart = sides.into_iter().fold(masks, usize::min);
    let each = heads * keys * (dim + value_dim) / if out.len() == 4 { heads } else { 1 };
    let work = Work { multiply_adds: each, ..Work::default() };
    low.step(node, &reads, &[to], work, move |s| {
        let out = nd::Output { span: rows_of(s, to, 1), strides };
        let mask = mask.as_ref().map(|mask| mask.bound(s));
        let sizes = nd::Heads { batch: s.share(batch), ..sizes };
        nd::short_attention(sizes, [q.bound(s), k.bound(s), v.bound(s)], mask, out)
    })
    .parts = apart;
    Ok(true)
}

/// Sizes of `[B, H, S, D]` or `[B, S, H * D]`.
fn four(low: &Lowering<'_>, id: ValueId, heads: usize) -> Option<[usize; 4]> {
    match *low.sizes(id)?.as_slice() {
        [b, h, s, d] => Some([b, h, s, d]),
        [b, s, c] if heads > 0 => Some([b, heads, s, c / heads]),
        _ => None,
    }
}

/// Where queries, keys or values lie, when the elements of a token of a head are neighbours.
fn operand(
    low: &mut Lowering<'_>,
    node: &Node,
    (i, heads): (usize, usize),
) -> Result<Option<Operand>, ExecError> {
    let id = node.inputs[i];
    let (Some(sizes), Some(own)) = (four(low, id, heads), low.sizes(id)) else { return Ok(None) };
    let (from, skip, strides) = match constant(low.graph, id) {
        Some(values) => (From::Values(values.into()), 0, dense(&own)),
        None => {
            let Some(place) = low.place_of(id)? else { return Ok(None) };
            (From::Buffer(place.from), place.skip, place.strides)
        }
    };
    let (strides, inner) = match *strides.as_slice() {
        [b, h, s, d] => ([b, h, s], d),
        [b, s, d] => ([b, sizes[3], s], d),
        _ => return Ok(None),
    };
    if inner != 1 && sizes[3] != 1 {
        let (from, own) = (From::Buffer(low.value(id)?), dense(&own));
        let strides = if own.len() == 4 { [own[0], own[1], own[2]] } else { [own[0], sizes[3], own[1]] };
        return Ok(Some(Operand { from, skip: 0, strides }));
    }
    Ok(Some(Operand { from, skip, strides }))
}

/// A mask, and where its elements lie.
struct Mask {
    from: From,
    strides: [usize; 3],
    /// Whether it is truth values.
    shown: bool,
}

impl Mask {
    /// Sequences, `batch` of them, that it has parts for.
    fn apart(&self, low: &Lowering<'_>, batch: usize) -> usize {
        low.rows_apart(self.from.buffer(), batch, self.strides[0], 0)
    }

    fn bound(&self, spans: &Spans) -> nd::Mask {
        let side = match &self.from {
            From::Buffer(id) if self.shown => Side::Span(spans[*id]),
            from => from.side(spans),
        };
        let operand = nd::Operand { side, offset: 0, strides: self.strides };
        if self.shown { nd::Mask::Shown(operand) } else { nd::Mask::Added(operand) }
    }
}

/// The mask over scores of these sizes, when it has an element for each key.
fn mask(low: &mut Lowering<'_>, id: ValueId, scores: [usize; 4]) -> Result<Option<Mask>, ExecError> {
    let graph = low.graph;
    let Some(ty) = graph.value(id).ty.known() else { return Ok(None) };
    let sizes = ty.dims().unwrap_or_default();
    let fits = sizes.len() <= 4
        && sizes.iter().rev().zip(scores.iter().rev()).all(|(&n, &of)| n == of || n == 1)
        && sizes.last() == Some(&scores[3]);
    if !fits {
        return Ok(None);
    }
    let strides = broadcast(&sizes, &scores);
    let strides = [strides[0], strides[1], strides[2]];
    let truths = ty.dtype == DType::Bool;
    let from = match graph.weight(id) {
        Some(tensor) if truths => {
            let summand = |byte: &u8| if *byte != 0 { 0.0 } else { f32::NEG_INFINITY };
            From::Values(tensor.data().iter().map(summand).collect())
        }
        Some(_) => match constant(graph, id) {
            Some(values) => From::Values(values.into()),
            None => return Ok(None),
        },
        None if truths || ty.dtype == DType::F32 => From::Buffer(low.value(id)?),
        None => return Ok(None),
    };
    let shown = truths && from.buffer().is_some();
    Ok(Some(Mask { from, strides, shown }))
}
