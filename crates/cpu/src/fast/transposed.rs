//! Transposed convolutions: one convolution for each place that an output pixel can have between the strides.

use std::sync::Arc;

use kinglet_graph::ops::ConvTranspose;
use kinglet_graph::{Def, ExecError, Node};
use kinglet_kernels::nd;
use kinglet_tensor::DType;

use super::chain::{Chain, Outputs};
use super::conv::{math, noted};
use crate::blocked::{Image, constant, rows_of};
use crate::lower::{Lowering, Work, op_of};
use crate::reading::{Gather, Reading};

/// Outputs up to which they leave planar: blocks would be mostly empty.
const FEW: usize = 4;

/// A transposed convolution with constant weights.
struct Transposed {
    image: Image,
    out: Image,
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Padding before, by axis.
    before: [usize; 2],
}

/// Along one axis: the outputs `at`, `at + stride`, …
struct Phase {
    at: usize,
    /// Taps of the kernel, in the order in which inputs meet them.
    taps: Vec<usize>,
    before: usize,
    after: usize,
}

/// Binds a transposed convolution with constant weights, and what follows it.
pub(crate) fn conv_transpose(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let Some(it) = Transposed::of(low, node)? else { return Ok(false) };
    let graph = low.graph;
    let bias = match node.inputs.get(2) {
        Some(id) if !matches!(graph.value(*id).def, Def::Absent) => match constant(graph, *id) {
            Some(bias) => Some(bias),
            None => return Ok(false),
        },
        _ => None,
    };
    if it.out.channels <= FEW && it.tiles() {
        let chain = Chain::follow(low, node, Outputs::Channels, bias, it.out.channels);
        if chain.residual.is_none() {
            return it.unfolded(low, node, &chain).map(|()| true);
        }
        return it.scattered(low, node, &chain, it.phases().unwrap_or_default()).map(|()| true);
    }
    let Some(phases) = it.phases() else { return Ok(false) };
    let chain = Chain::follow(low, node, Outputs::Channels, bias, it.out.channels);
    it.scattered(low, node, &chain, phases).map(|()| true)
}

impl Transposed {
    fn of(low: &Lowering<'_>, node: &Node) -> Result<Option<Self>, ExecError> {
        let (op, graph) = (op_of::<ConvTranspose>(node)?, low.graph);
        let images = [node.inputs[0], node.outputs[0]].map(|id| Image::of(graph, id));
        let weight = graph.weight(node.inputs[1]).filter(|w| w.dtype() == DType::F32);
        let shape = weight.and_then(|w| <[usize; 4]>::try_from(w.shape()).ok());
        let ([Some(image), Some(out)], Some([_, _, ky, kx])) = (images, shape) else { return Ok(None) };
        let kernel = [ky, kx];
        let axes = [0, 1].map(|i| op.axis(i, 2, image.size[i], kernel[i]).ok());
        let [Some((_, y)), Some((_, x))] = axes else { return Ok(None) };
        let before = [y, x].map(usize::try_from);
        let ([Ok(y), Ok(x)], stride) = (before, [0, 1].map(|i| op.window.stride(i))) else { return Ok(None) };
        let plain = op.groups == 1 && (0..2).all(|i| op.window.dilation(i) == 1 && stride[i] > 0);
        Ok(plain.then_some(Self { image, out, kernel, stride, before: [y, x] }))
    }

    /// Whether each input pixel makes a rectangle of its own, and these fill the output.
    fn tiles(&self) -> bool {
        let whole = |i: usize| self.out.size[i] == self.image.size[i] * self.stride[i];
        self.kernel == self.stride && self.before == [0, 0] && whole(0) && whole(1)
    }

    /// The phases of both axes; none when one of them has no taps or needs inputs to be cut off.
    fn phases(&self) -> Option<[Vec<Phase>; 2]> {
        let axis = |i: usize| -> Option<Vec<Phase>> {
            let (stride, kernel) = (self.stride[i], self.kernel[i]);
            (0..stride.min(self.out.size[i])).map(|at| self.phase(i, at, stride, kernel)).collect()
        };
        Some([axis(0)?, axis(1)?])
    }

    /// Output `at + stride t` sums inputs `t + shift - j` times taps `first + stride j`.
    fn phase(&self, axis: usize, at: usize, stride: usize, kernel: usize) -> Option<Phase> {
        let place = at + self.before[axis];
        let (first, shift) = (place % stride, place / stride);
        let taps: Vec<usize> = (first..kernel).step_by(stride).rev().collect();
        let outputs = (self.out.size[axis] - at).div_ceil(stride);
        let before = taps.len().checked_sub(shift + 1)?;
        let after = (outputs + taps.len() - 1).checked_sub(self.image.size[axis] + before)?;
        Some(Phase { at, taps, before, after })
    }

    /// Convolves with all outputs of a rectangle as channels, then makes channels pixels.
    fn unfolded(&self, low: &mut Lowering<'_>, node: &Node, chain: &Chain) -> Result<(), ExecError> {
        let Self { image, out, kernel: [ky, kx], .. } = self;
        let (image, out, taps) = (*image, *out, ky * kx);
        let outputs = out.channels * taps;
        let turned =
            Gather { first: 0, sizes: [outputs, image.channels, 1, 1], strides: [1, outputs as isize, 0, 0] };
        let bias: Vec<f32> = (0..outputs).map(|output| chain.shift[output / taps]).collect();
        let window = nd::Window::square(image.size, 1, 1, 0);
        let shape = nd::ConvShape { channels: image.channels, outputs, groups: 1, window, act: chain.act };
        let reading = Reading::times(&chain.scale, image.channels * taps).gathered(turned);
        let conv = nd::Conv::new(low.tuning.0, shape, Some(&bias), nd::Layout::Blocked, None);
        let conv = conv.map_err(|e| failed(node, e))?;
        let conv = if low.bf16 { conv.in_bf16() } else { conv };
        let weights = low.packed(node, node.inputs[1], reading, conv.packing())?;
        let packed = Arc::new(conv.with(weights).map_err(|e| failed(node, e))?);
        let x = low.blocked(node, node.inputs[0], image)?;
        let folded = Image { channels: outputs, ..image };
        let middle = low.floats(image.images, folded.floats(nd::Layout::Blocked));
        let (multiply_adds, math) = (shape.multiply_adds(), math(packed.is_bf16()));
        let work = Work { multiply_adds, math, ..Work::bytes(packed.bytes()) };
        let noted = noted(low, node, chain.taken.clone());
        low.step(&noted, &[x], &[middle], work, move |s| {
            let span = |id| rows_of(s, id, image.images);
            nd::conv(packed.clone(), span(x), None, span(middle))
        })
        .parts = image.images;
        let (to, factors) = (low.value(chain.out)?, self.stride);
        low.step(node, &[middle], &[to], Work::default(), move |s| {
            let span = |id| rows_of(s, id, image.images);
            nd::unfold(out.channels, image.size, factors, span(middle), span(to))
        })
        .parts = image.images;
        Ok(())
    }

    /// A convolution for each phase, into its pixels of the output.
    fn scattered(
        &self,
        low: &mut Lowering<'_>,
        node: &Node,
        chain: &Chain,
        [rows, columns]: [Vec<Phase>; 2],
    ) -> Result<(), ExecError> {
        let (image, out) = (self.image, self.out);
        let x = low.blocked(node, node.inputs[0], image)?;
        let residual = chain.residual.map(|id| low.blocked(node, id, out)).transpose()?;
        let to = low.make_blocked(chain.out, out);
        let reads: Vec<_> = [x].into_iter().chain(residual).collect();
        for (y, column) in rows.iter().flat_map(|y| columns.iter().map(move |x| (y, x))) {
            let packed = self.conv(low, node, chain, [y, column])?;
            let multiply_adds = packed.shape().multiply_adds();
            let math = math(packed.is_bf16());
            let work = Work { multiply_adds, math, ..Work::bytes(packed.bytes()) };
            let noted = noted(low, node, chain.taken.clone());
            low.step(&noted, &reads, &[to], work, move |s| {
                let span = |id| rows_of(s, id, image.images);
                nd::conv(packed.clone(), span(x), residual.map(span), span(to))
            })
            .parts = image.images;
        }
        Ok(())
    }

    /// The weights of the outputs at these phases, `[O][C][taps][taps]` of `[C][O][height][width]`.
    fn taps(&self, [y, x]: [&Phase; 2]) -> Gather {
        let Self { image, out, kernel, stride, .. } = self;
        let first = |phase: &Phase| phase.taps.first().copied().unwrap_or(0);
        let all = kernel[0] * kernel[1];
        // Taps are met from the last one on.
        let [down, across] = [stride[0] * kernel[1], stride[1]].map(|step| step as isize);
        Gather {
            first: first(y) * kernel[1] + first(x),
            sizes: [out.channels, image.channels, y.taps.len(), x.taps.len()],
            strides: [all as isize, (out.channels * all) as isize, -down, -across],
        }
    }

    fn conv(
        &self,
        low: &mut Lowering<'_>,
        node: &Node,
        chain: &Chain,
        axes: [&Phase; 2],
    ) -> Result<Arc<nd::Conv>, ExecError> {
        let Self { image, out, stride, .. } = self;
        let window = nd::Window {
            input: image.size,
            kernel: axes.map(|axis| axis.taps.len()),
            stride: [1, 1],
            dilation: [1, 1],
            before: axes.map(|axis| axis.before),
            after: axes.map(|axis| axis.after),
        };
        let shape = nd::ConvShape {
            channels: image.channels,
            outputs: out.channels,
            groups: 1,
            window,
            act: chain.act,
        };
        let scatter = nd::Scatter { size: out.size, stride: *stride, at: axes.map(|axis| axis.at) };
        let (level, bias) = (low.tuning.0, Some(&chain.shift[..]));
        let conv = nd::Conv::new(level, shape, bias, nd::Layout::Blocked, Some(scatter));
        let conv = conv.map_err(|e| failed(node, e))?;
        let conv = if low.bf16 { conv.in_bf16() } else { conv };
        let gather = self.taps(axes);
        let each = gather.sizes[1..].iter().product();
        let reading = Reading::times(&chain.scale, each).gathered(gather);
        let weights = low.packed(node, node.inputs[1], reading, conv.packing())?;
        conv.with(weights).map(Arc::new).map_err(|e| failed(node, e))
    }
}

fn failed(node: &Node, e: nd::NdError) -> ExecError {
    ExecError::Node { node: node.name.clone(), reason: e.to_string() }
}
