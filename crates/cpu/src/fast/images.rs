//! Joining and enlarging images in channel blocks.

use kinglet_graph::ops::{Concat, Coordinates, NearestRule, Resize, ResizeMode};
use kinglet_graph::{Args, ExecError, Node, axis};
use kinglet_kernels::nd;

use crate::blocked::{Image, rows_of};
use crate::lower::{Lowering, Work, op_of};

/// Binds images one behind the other along their channels, when most of them lie in blocks.
pub(crate) fn concat(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let graph = low.graph;
    let parts: Option<Vec<Image>> = node.inputs.iter().map(|id| Image::of(graph, *id)).collect();
    let (Some(parts), Some(out)) = (parts, Image::of(graph, node.outputs[0])) else { return Ok(false) };
    let blocked = node.inputs.iter().filter(|id| low.is_blocked(**id)).count();
    let rank = graph.tensor_type(node.outputs[0]).map_or(0, |ty| ty.rank());
    let along = axis(op_of::<Concat>(node)?.axis, rank) == Ok(1);
    let constant = node.inputs.iter().any(|id| graph.weight(*id).is_some());
    if !along || constant || 2 * blocked <= parts.len() {
        return Ok(false);
    }
    let images = node.inputs.iter().zip(&parts).map(|(id, image)| low.blocked(node, *id, *image));
    let reads = images.collect::<Result<Vec<_>, _>>()?;
    let to = low.make_blocked(node.outputs[0], out);
    let from: Vec<_> = parts.iter().map(|image| image.channels).zip(reads.clone()).collect();
    low.step(node, &reads, &[to], Work::default(), move |s| {
        let span = |id| rows_of(s, id, out.images);
        let parts = from.iter().map(|(channels, id)| (*channels, span(*id))).collect();
        nd::concat(parts, out.pixels(), span(to))
    })
    .parts = out.images;
    Ok(true)
}

/// Binds repeating each pixel of images in blocks a whole number of times.
pub(crate) fn resize(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (op_of::<Resize>(node)?, low.graph);
    let images = [node.inputs[0], node.outputs[0]].map(|id| Image::of(graph, id));
    let [Some(x), Some(out)] = images else { return Ok(false) };
    if !low.is_blocked(node.inputs[0]) || !repeats(op, graph, node, &x, &out) {
        return Ok(false);
    }
    let factors = [0, 1].map(|i| out.size[i] / x.size[i]);
    let (from, to) = (low.blocked(node, node.inputs[0], x)?, low.make_blocked(node.outputs[0], out));
    low.step(node, &[from], &[to], Work::default(), move |s| {
        let span = |id| rows_of(s, id, x.images);
        nd::enlarge(x.channels, x.size, factors, span(from), span(to))
    })
    .parts = x.images;
    Ok(true)
}

/// Whether every output pixel `i` is input pixel `i / factor`, for whole factors.
fn repeats(op: &Resize, graph: &kinglet_graph::Graph, node: &Node, x: &Image, out: &Image) -> bool {
    let rule = match op.mode {
        ResizeMode::Nearest(rule) => rule,
        _ => return false,
    };
    // Output i lies at i / factor, or half a pixel off both ways, which rounds to the same pixel.
    let same = match op.coordinates {
        Coordinates::Asymmetric => rule == NearestRule::Floor,
        Coordinates::HalfPixel => matches!(rule, NearestRule::PreferFloor | NearestRule::PreferCeil),
        _ => false,
    };
    let whole = (0..2).all(|i| out.size[i].is_multiple_of(x.size[i]));
    if graph.tensor_type(node.inputs[0]).is_none_or(|ty| ty.rank() != 4) {
        return false;
    }
    let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
    let shape = [x.images, x.channels, x.size[0], x.size[1]];
    let Ok(Some(scaled)) = op.scaled(&Args(&args), &shape) else { return false };
    let exact = scaled.iter().all(|s| s.scale * shape[s.axis] as f64 == s.output as f64);
    same && whole && exact && (x.images, x.channels) == (out.images, out.channels)
}
