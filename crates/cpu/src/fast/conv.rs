//! Convolutions and pooling over images in channel blocks.

use std::sync::Arc;

use kinglet_graph::ops::{Conv, Pool, PoolKind, Reduce, ReduceKind, Window as GraphWindow};
use kinglet_graph::{Args, Def, ExecError, Node};
use kinglet_kernels::nd;

use super::chain::{Chain, Outputs};
use crate::blocked::{Image, constant, rows_of};
use crate::lower::{Lowering, Work, op_of};

/// Channels up to which an image that lies planar is convolved as it is.
const PLANAR: usize = 8;

/// A two-dimensional window over an input, if kernels can have it.
fn window(window: &GraphWindow, size: [usize; 2], kernel: [usize; 2], ceil: bool) -> Option<nd::Window> {
    let axes = [0, 1].map(|i| window.axis(i, 2, size[i], kernel[i], ceil).ok());
    let [Some(y), Some(x)] = axes else { return None };
    let pad = |n: i64| usize::try_from(n).ok();
    let found = nd::Window {
        input: size,
        kernel,
        stride: [y.stride, x.stride],
        dilation: [y.dilation, x.dilation],
        before: [pad(y.before)?, pad(x.before)?],
        after: [pad(y.after)?, pad(x.after)?],
    };
    (found.output() == Some([y.output, x.output])).then_some(found)
}

/// Binds a convolution with constant weights, and what follows it.
pub(crate) fn conv(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (op_of::<Conv>(node)?.clone(), low.graph);
    let (Some(image), Some(mut weights)) =
        (Image::of(graph, node.inputs[0]), constant(graph, node.inputs[1]))
    else {
        return Ok(false);
    };
    let shape = graph.weight(node.inputs[1]).and_then(|w| <[usize; 4]>::try_from(w.shape()).ok());
    let Some([outputs, _, ky, kx]) = shape else { return Ok(false) };
    let Some(window) = window(&op.window, image.size, [ky, kx], false) else { return Ok(false) };
    let bias = match node.inputs.get(2) {
        Some(id) if !matches!(graph.value(*id).def, Def::Absent) => match constant(graph, *id) {
            Some(bias) => Some(bias),
            None => return Ok(false),
        },
        _ => None,
    };
    let chain = Chain::follow(low, node, Outputs::Channels, bias, outputs);
    let each = weights.len() / outputs.max(1);
    for (weights, scale) in weights.chunks_exact_mut(each.max(1)).zip(&chain.scale) {
        weights.iter_mut().for_each(|w| *w *= scale);
    }
    let shape =
        nd::ConvShape { channels: image.channels, outputs, groups: op.groups, window, act: chain.act };
    let planar = !low.is_blocked(node.inputs[0]) && image.channels <= PLANAR;
    let layout = if planar { nd::Layout::Planar } else { nd::Layout::Blocked };
    let packed = nd::Conv::pack(low.tuning.0, shape, &weights, Some(&chain.shift), layout);
    let packed =
        Arc::new(packed.map_err(|e| ExecError::Node { node: node.name.clone(), reason: e.to_string() })?);
    let x = if planar { low.value(node.inputs[0])? } else { low.blocked(node, node.inputs[0], image)? };
    let out_image = Image { channels: outputs, size: window.output().unwrap_or_default(), ..image };
    let residual = chain.residual.map(|id| low.blocked(node, id, out_image)).transpose()?;
    let out = low.make_blocked(chain.out, out_image);
    let reads: Vec<_> = [x].into_iter().chain(residual).collect();
    let work = Work { multiply_adds: shape.multiply_adds(), ..Work::bytes(packed.bytes()) };
    low.step(&noted(node, &chain), &reads, &[out], work, move |s| {
        let span = |id| rows_of(s, id, image.images);
        nd::conv(packed.clone(), span(x), residual.map(span), span(out))
    });
    Ok(true)
}

/// The node, with a note of what its step computes besides.
pub(super) fn noted(node: &Node, chain: &Chain) -> Node {
    let mut node = node.clone();
    if !chain.taken.is_empty() {
        node.note = format!("with {}", chain.taken.join(", "));
    }
    node
}

/// Binds pooling.
pub(crate) fn pool(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (op_of::<Pool>(node)?.clone(), low.graph);
    let Some(image) = Image::of(graph, node.inputs[0]) else { return Ok(false) };
    if node.outputs.len() > 1 && !low.unread(node.outputs[1]) {
        return Ok(false);
    }
    let kind = match op.kind {
        PoolKind::Max { .. } => nd::Pool::Max,
        PoolKind::Average { count_pad: false } => nd::Pool::Mean,
        PoolKind::Average { count_pad: true } if !op.ceil => nd::Pool::PaddedMean,
        _ => return Ok(false),
    };
    if op.kernel.is_empty() {
        return if kind == nd::Pool::Max { Ok(false) } else { mean(low, node, image) };
    }
    let Ok(kernel) = <[usize; 2]>::try_from(op.kernel.as_slice()) else { return Ok(false) };
    let Some(window) = window(&op.window, image.size, kernel, op.ceil) else { return Ok(false) };
    let sees = (0..2).all(|i| window.before[i] < kernel[i] && window.after[i] < kernel[i]);
    if !sees || window.dilation != [1, 1] {
        return Ok(false);
    }
    let x = low.blocked(node, node.inputs[0], image)?;
    let size = window.output().unwrap_or_default();
    let out = low.make_blocked(node.outputs[0], Image { size, ..image });
    low.step(node, &[x], &[out], Work::default(), move |s| {
        let span = |id| rows_of(s, id, image.images);
        nd::pool(kind, image.channels, window, span(x), span(out))
    });
    Ok(true)
}

/// Binds the mean over all pixels of images that lie in blocks.
pub(crate) fn reduce(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (*op_of::<Reduce>(node)?, low.graph);
    let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
    let pixels = op.kind == ReduceKind::Mean
        && op.keep_dims
        && op.axes(&Args(&args)).is_ok_and(|axes| axes == Some(vec![2, 3]));
    match Image::of(graph, node.inputs[0]) {
        Some(image) if pixels && low.is_blocked(node.inputs[0]) => mean(low, node, image),
        _ => Ok(false),
    }
}

fn mean(low: &mut Lowering<'_>, node: &Node, image: Image) -> Result<bool, ExecError> {
    let x = low.blocked(node, node.inputs[0], image)?;
    let out = low.make_blocked(node.outputs[0], Image { size: [1, 1], ..image });
    low.step(node, &[x], &[out], Work::default(), move |s| {
        let span = |id| rows_of(s, id, image.images);
        nd::global_mean(image.channels, image.pixels(), span(x), span(out))
    });
    Ok(true)
}
