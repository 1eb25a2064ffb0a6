//! Convolutions and pooling over images in channel blocks.

use std::sync::Arc;

use kinglet_graph::cost::Math;
use kinglet_graph::ops::{
    Axis, Binary, Clip, Conv, Fun2, Pool, PoolKind, Reduce, ReduceKind, Unary, Window as GraphWindow,
};
use kinglet_graph::{Args, Def, ExecError, Graph, Node, ValueId};
use kinglet_kernels::nd;
use kinglet_tensor::{DType, Tensor};

use super::chain::{Chain, Outputs};
use crate::blocked::{Image, constant, rows_of};
use crate::lower::{Lowering, Work, op_of};
use crate::reading::Reading;

/// Channels up to which an image that lies planar is convolved as it is.
const PLANAR: usize = 8;

/// The window over images of `size` with these taps (along one or two dimensions), if kernels can have it.
pub(super) fn window(
    window: &GraphWindow,
    size: [usize; 2],
    taps: &[usize],
    ceil: bool,
) -> Option<nd::Window> {
    let (y, x) = match *taps {
        [ky, kx] => (window.axis(0, 2, size[0], ky, ceil).ok()?, window.axis(1, 2, size[1], kx, ceil).ok()?),
        [k] => {
            (GraphWindow::default().axis(0, 1, 1, 1, false).ok()?, window.axis(0, 1, size[1], k, ceil).ok()?)
        }
        _ => return None,
    };
    let before = |axis: &Axis| usize::try_from(axis.before).ok();
    // What the last output sees, which may be more or less than the padding that was asked for.
    let after = |axis: &Axis, input: usize| {
        let end =
            (axis.output.checked_sub(1)? * axis.stride).checked_add((axis.kernel - 1) * axis.dilation + 1)?;
        Some(end.saturating_sub(input + before(axis)?))
    };
    let found = nd::Window {
        input: size,
        kernel: [y.kernel, x.kernel],
        stride: [y.stride, x.stride],
        dilation: [y.dilation, x.dilation],
        before: [before(&y)?, before(&x)?],
        after: [after(&y, size[0])?, after(&x, size[1])?],
    };
    (found.output() == Some([y.output, x.output])).then_some(found)
}

/// Taps of weights `[O, C, taps..]` for images of a value.
pub(super) fn taps_of<'a>(graph: &Graph, x: ValueId, weight: &'a Tensor) -> Option<&'a [usize]> {
    let taps = weight.shape().get(2..)?;
    (graph.tensor_type(x)?.rank() == taps.len() + 2).then_some(taps)
}

/// A convolution with constant weights, and what follows it.
struct Product {
    image: Image,
    out: Image,
    shape: nd::ConvShape,
    /// How many weights there are.
    weights: usize,
    chain: Chain,
}

impl Product {
    /// The convolution that a node is, if kernels can have it; nothing is marked as done yet.
    fn of(low: &mut Lowering<'_>, node: &Node) -> Option<Self> {
        let (op, graph) = (node.op.downcast::<Conv>()?, low.graph);
        let image = Image::of(graph, node.inputs[0])?;
        let weight = graph.weight(node.inputs[1]).filter(|weight| weight.dtype() == DType::F32)?;
        let (outputs, taps) = (weight.shape()[0], taps_of(graph, node.inputs[0], weight)?);
        let weights = weight.data().len() / size_of::<f32>();
        let window = window(&op.window, image.size, taps, false)?;
        let bias = match node.inputs.get(2) {
            Some(id) if !matches!(graph.value(*id).def, Def::Absent) => Some(constant(graph, *id)?),
            _ => None,
        };
        let chain = Chain::look(low, node, Outputs::Channels, bias, outputs);
        let (channels, groups) = (image.channels, op.groups);
        let shape = nd::ConvShape { channels, outputs, groups, window, act: chain.act };
        let out = Image { channels: outputs, size: window.output().unwrap_or_default(), ..image };
        Some(Self { image, out, shape, weights, chain })
    }

    /// The kernel over packed weights, times the factors of what follows. `input` is how images lie that it reads.
    fn conv(
        &self,
        low: &mut Lowering<'_>,
        node: &Node,
        input: nd::Layout,
    ) -> Result<Arc<nd::Conv>, ExecError> {
        let fail = |e: nd::NdError| ExecError::Node { node: node.name.clone(), reason: e.to_string() };
        let reading = Reading::times(&self.chain.scale, self.weights / self.shape.outputs.max(1));
        let conv =
            nd::Conv::new(low.tuning.0, self.shape, Some(&self.chain.shift), input, None).map_err(fail)?;
        let conv = if low.bf16 { conv.in_bf16() } else { conv };
        let halves = input == nd::Layout::Blocked && low.is_halves(node.inputs[0]) && conv.takes_halves();
        let x = if halves { nd::Layout::Halves } else { input };
        let conv = conv.between(x, makes(low, self.chain.out)).map_err(fail)?;
        let weights = low.packed(node, node.inputs[1], reading, conv.packing())?;
        conv.with(weights).map(Arc::new).map_err(fail)
    }
}

/// Binds a convolution with constant weights, what follows it, and the convolutions after that which gain from being
/// computed with it, band by band.
pub(crate) fn conv(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let Some(first) = Product::of(low, node) else { return Ok(false) };
    let image = first.image;
    let planar = !low.is_blocked(node.inputs[0]) && image.channels <= PLANAR;
    let layout = if planar { nd::Layout::Planar } else { nd::Layout::Blocked };
    let packed = first.conv(low, node, layout)?;
    first.chain.claim(low);
    let (products, convs) = followers(low, first, packed)?;
    let (Some(last), Some(made)) = (products.last(), convs.last()) else { return Ok(false) };
    let (lies, made) = (convs[0].lies()[0], made.lies()[1]);
    let x = low.lying(node, node.inputs[0], image, lies)?;
    let residual = last.chain.residual.map(|id| low.lying(node, id, last.out, made)).transpose()?;
    let out = low.make_lying(last.chain.out, last.out, made);
    let reads: Vec<_> = [x].into_iter().chain(residual).collect();
    let multiply_adds = products.iter().map(|product| product.shape.multiply_adds()).sum();
    let bytes = convs.iter().map(|conv| conv.bytes()).sum();
    let taken = products.iter().flat_map(|product| product.chain.taken.iter().copied()).collect();
    let noted = noted(low, node, taken);
    let chain = if convs.len() > 1 { Some(joined(node, convs.clone())?) } else { None };
    let math = math(convs.iter().any(|conv| conv.is_bf16()));
    low.step(&noted, &reads, &[out], Work { multiply_adds, math, ..Work::bytes(bytes) }, move |s| {
        let span = |id| rows_of(s, id, image.images);
        match &chain {
            Some(chain) => nd::conv_chain(chain.clone(), span(x), residual.map(span), span(out)),
            None => nd::conv(convs[0].clone(), span(x), residual.map(span), span(out)),
        }
    })
    .parts = image.images;
    Ok(true)
}

/// How an image is best made that a step is about to make: in bfloat16 when all its readers take it so.
fn makes(low: &mut Lowering<'_>, id: ValueId) -> nd::Layout {
    if low.bf16 && takes_halves(low, id, SUMS) { nd::Layout::Halves } else { nd::Layout::Blocked }
}

/// Residual sums, one after the other, that are looked at to say how the first one's image is best made.
const SUMS: usize = 64;

/// Whether all readers of an image take it in bfloat16, behind at most so many residual sums.
fn takes_halves(low: &mut Lowering<'_>, id: ValueId, sums: usize) -> bool {
    if let Some(known) = low.known_halves(id) {
        return known;
    }
    let readers = if low.graph.outputs().contains(&id) { Vec::new() } else { low.readers_of(id) };
    let all = !readers.is_empty() && readers.iter().all(|reader| reads_halves(low, *reader, id, sums));
    low.know_halves(id, all);
    all
}

/// Whether a node reads an image in bfloat16.
fn reads_halves(low: &mut Lowering<'_>, reader: usize, id: ValueId, sums: usize) -> bool {
    let (node, graph) = (&low.graph.nodes()[reader], low.graph);
    if node.op.downcast::<Pool>().is_some() {
        return true;
    }
    if let Some(op) = node.op.downcast::<Reduce>() {
        return pixels(op, graph, node);
    }
    if let Some(Binary(fun)) = node.op.downcast::<Binary>() {
        // The residual of a product lies as its output does.
        let whole = *fun == Fun2::Add && low.sizes(node.inputs[0]) == low.sizes(node.inputs[1]);
        return whole && sums > 0 && {
            let out = activated(low, node.outputs[0]);
            takes_halves(low, out, sums - 1)
        };
    }
    let Some(product) = Product::of(low, node).filter(|_| node.inputs[0] == id) else { return false };
    let conv = nd::Conv::new(low.tuning.0, product.shape, None, nd::Layout::Blocked, None);
    conv.is_ok_and(|conv| conv.in_bf16().takes_halves())
}

/// What becomes of a sum that only an activation reads.
fn activated(low: &mut Lowering<'_>, sum: ValueId) -> ValueId {
    let Some(next) = low.only_reader(sum) else { return sum };
    let next = &low.graph.nodes()[next];
    let acts = next.op.downcast::<Unary>().is_some() || next.op.downcast::<Clip>().is_some();
    if acts { next.outputs[0] } else { sum }
}

/// What products are done in.
pub(super) fn math(bf16: bool) -> Math {
    if bf16 { Math::Bf16 } else { Math::Float }
}

fn joined(node: &Node, convs: Vec<Arc<nd::Conv>>) -> Result<Arc<nd::ConvChain>, ExecError> {
    let chain = nd::ConvChain::new(convs);
    chain.map(Arc::new).map_err(|e| ExecError::Node { node: node.name.clone(), reason: e.to_string() })
}

/// The convolutions that are computed together, with their weights: the first one, and those after it while each is the
/// only reader of the one before.
fn followers(
    low: &mut Lowering<'_>,
    first: Product,
    packed: Arc<nd::Conv>,
) -> Result<(Vec<Product>, Vec<Arc<nd::Conv>>), ExecError> {
    let (mut products, mut convs) = (vec![first], vec![packed]);
    while low.tuning.1
        && let Some(before) = products.last()
        && before.chain.residual.is_none()
        && let Some(next) = low.only_reader(before.chain.out)
        && let node = &low.graph.nodes()[next]
        && node.inputs[0] == before.chain.out
        && let Some(after) = Product::of(low, node)
        && gains(before, &after)
        && !waits(low, next, &after)
    {
        let mut longer = convs.clone();
        longer.push(after.conv(low, node, nd::Layout::Blocked)?);
        if !nd::ConvChain::new(longer.clone()).is_ok_and(|chain| chain.fits()) {
            break;
        }
        low.done(next);
        after.chain.claim(low);
        let mut after = after;
        after.chain.taken.insert(0, next);
        products.push(after);
        convs = longer;
    }
    Ok((products, convs))
}

/// Floats of an image between two convolutions from which on it is worth keeping it in the nearest caches.
const LARGE: usize = 48 << 10;
/// Multiply-adds for each of them up to which moving it counts.
const LIGHT: usize = 256;

/// Whether what lies between two convolutions costs more to move than it costs to read all weights for each band.
fn gains(before: &Product, after: &Product) -> bool {
    let between = before.out.floats(nd::Layout::Blocked);
    let weights = before.weights + after.weights;
    let work = before.shape.multiply_adds() + after.shape.multiply_adds();
    between >= LARGE && between >= 4 * weights && work <= LIGHT * between
}

/// Whether the sum that follows has another side that is not made yet, but will be when convolution `index` has its turn:
/// then it can be added there.
fn waits(low: &mut Lowering<'_>, index: usize, product: &Product) -> bool {
    let (out, graph) = (product.chain.out, low.graph);
    let Some(next) = low.only_reader(out).filter(|_| product.chain.residual.is_none()) else { return false };
    let node = &graph.nodes()[next];
    let sum = node.op.downcast::<Binary>().is_some_and(|Binary(fun)| *fun == Fun2::Add);
    let later = |id: &ValueId| matches!(graph.value(*id).def, Def::Node(made, _) if made < index);
    sum && node.inputs.iter().any(|id| *id != out && !low.is_made(*id) && later(id))
}

/// The node, with a note of what its step computes besides.
pub(super) fn noted(low: &Lowering<'_>, node: &Node, taken: Vec<usize>) -> Node {
    let mut node = node.clone();
    if !taken.is_empty() {
        let names: Vec<&str> = taken.iter().map(|i| low.graph.nodes()[*i].name.as_str()).collect();
        node.note = format!("with {}", names.join(", "));
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
    if graph.tensor_type(node.inputs[0]).is_none_or(|ty| ty.rank() != op.kernel.len() + 2) {
        return Ok(false);
    }
    let Some(window) = window(&op.window, image.size, &op.kernel, op.ceil) else { return Ok(false) };
    let sees = (0..2).all(|i| window.before[i] < window.kernel[i] && window.after[i] < window.kernel[i]);
    if !sees || window.dilation != [1, 1] {
        return Ok(false);
    }
    let lies = [reads(low, node.inputs[0]), makes(low, node.outputs[0])];
    let x = low.lying(node, node.inputs[0], image, lies[0])?;
    let size = window.output().unwrap_or_default();
    let out = low.make_lying(node.outputs[0], Image { size, ..image }, lies[1]);
    low.step(node, &[x], &[out], Work::default(), move |s| {
        let span = |id| rows_of(s, id, image.images);
        nd::pool(kind, image.channels, window, lies, span(x), span(out))
    })
    .parts = image.images;
    Ok(true)
}

/// The form in which an image in blocks is there.
fn reads(low: &Lowering<'_>, id: ValueId) -> nd::Layout {
    if low.is_halves(id) { nd::Layout::Halves } else { nd::Layout::Blocked }
}

/// Binds the mean over all pixels of images that lie in blocks, and sums and means of innermost dimensions.
pub(crate) fn reduce(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let (op, graph) = (*op_of::<Reduce>(node)?, low.graph);
    let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
    let Ok(Some(axes)) = op.axes(&Args(&args)) else { return Ok(false) };
    match Image::of(graph, node.inputs[0]) {
        Some(image) if pixels(&op, graph, node) && low.is_blocked(node.inputs[0]) => mean(low, node, image),
        _ => sums(low, node, op.kind, &axes),
    }
}

/// Whether it is the mean over all pixels of images.
fn pixels(op: &Reduce, graph: &Graph, node: &Node) -> bool {
    let args: Vec<_> = node.inputs.iter().map(|id| graph.arg(*id)).collect();
    op.kind == ReduceKind::Mean
        && op.keep_dims
        && op.axes(&Args(&args)).is_ok_and(|axes| {
            axes.is_some_and(|axes| axes.iter().copied().eq(2..args[0].ty.tensor().map_or(0, |ty| ty.rank())))
        })
}

/// Binds sums, or means, of innermost dimensions.
fn sums(low: &mut Lowering<'_>, node: &Node, kind: ReduceKind, axes: &[usize]) -> Result<bool, ExecError> {
    let Some(sizes) = low.sizes(node.inputs[0]) else { return Ok(false) };
    let kept = sizes.len() - axes.len();
    let inner = !axes.is_empty() && axes.iter().copied().eq(kept..sizes.len());
    let (rows, cols) = (sizes[..kept].iter().product::<usize>(), sizes[kept..].iter().product::<usize>());
    let parts = match kind {
        ReduceKind::Mean => cols as f32,
        ReduceKind::Sum => 1.0,
        _ => return Ok(false),
    };
    if !inner || low.graph.weight(node.inputs[0]).is_some() {
        return Ok(false);
    }
    let (x, out) = (low.value(node.inputs[0])?, low.value(node.outputs[0])?);
    low.step(node, &[x], &[out], Work::default(), move |s| {
        nd::row_sums(rows_of(s, x, rows), parts, rows_of(s, out, rows))
    })
    .parts = rows;
    Ok(true)
}

fn mean(low: &mut Lowering<'_>, node: &Node, image: Image) -> Result<bool, ExecError> {
    let lies = [reads(low, node.inputs[0]), nd::Layout::Blocked];
    let x = low.lying(node, node.inputs[0], image, lies[0])?;
    let out = low.make_blocked(node.outputs[0], Image { size: [1, 1], ..image });
    low.step(node, &[x], &[out], Work::default(), move |s| {
        let span = |id| rows_of(s, id, image.images);
        nd::global_mean(image.channels, image.pixels(), lies, span(x), span(out))
    })
    .parts = image.images;
    Ok(true)
}
