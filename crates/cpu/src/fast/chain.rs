//! What follows a product and can be done in its registers: factors and sums for each output, a residual, an activation.

use kinglet_graph::ops::{BatchNorm, Binary, Clip, Fun, Fun2, Unary};
use kinglet_graph::{Node, ValueId};
use kinglet_kernels::nd::Act;

use crate::blocked::{constant, scalar};
use crate::lower::Lowering;

/// A product's weights, `outputs` rows or columns of them, and what is done to its sums.
pub(crate) struct Chain {
    /// A factor and a summand for each output.
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    pub(crate) residual: Option<ValueId>,
    pub(crate) act: Act,
    /// The value that the step makes.
    pub(crate) out: ValueId,
    /// The nodes that are taken in.
    pub(crate) taken: Vec<usize>,
}

/// Where a product's outputs stand among a value's dimensions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outputs {
    /// Dimension 1.
    Channels,
    /// The last dimension.
    Last,
}

impl Chain {
    /// Follows the only readers of `node`'s output as far as they can be taken in, and marks them as done.
    pub(crate) fn follow(
        low: &mut Lowering<'_>,
        node: &Node,
        outputs: Outputs,
        bias: Option<Vec<f32>>,
        count: usize,
    ) -> Self {
        let chain = Self::look(low, node, outputs, bias, count);
        chain.claim(low);
        chain
    }

    /// Marks the nodes that are taken in as done.
    pub(crate) fn claim(&self, low: &mut Lowering<'_>) {
        self.taken.iter().for_each(|node| low.done(*node));
    }

    /// Follows the only readers of `node`'s output as far as they can be taken in.
    pub(crate) fn look(
        low: &mut Lowering<'_>,
        node: &Node,
        outputs: Outputs,
        bias: Option<Vec<f32>>,
        count: usize,
    ) -> Self {
        let mut chain = Self {
            scale: vec![1.0; count],
            shift: bias.unwrap_or_else(|| vec![0.0; count]),
            residual: None,
            act: Act::NONE,
            out: node.outputs[0],
            taken: Vec::new(),
        };
        while low.tuning.1
            && chain.act == Act::NONE
            && let Some(next) = low.only_reader(chain.out)
            && chain.take(low, next, outputs)
        {
            chain.out = low.graph.nodes()[next].outputs[0];
            chain.taken.push(next);
        }
        chain
    }

    /// Takes a node in, if that can be done.
    fn take(&mut self, low: &Lowering<'_>, next: usize, outputs: Outputs) -> bool {
        let (graph, node) = (low.graph, &low.graph.nodes()[next]);
        if let Some(act) = activation(low, node) {
            self.act = act;
            return true;
        }
        if let Some(norm) = node.op.downcast::<BatchNorm>() {
            return self.residual.is_none()
                && outputs == Outputs::Channels
                && self.batch_norm(low, node, norm);
        }
        let Some(Binary(fun)) = node.op.downcast::<Binary>() else { return false };
        let first = node.inputs[0] == self.out;
        let other = node.inputs[usize::from(first)];
        let shape = |id: ValueId| graph.value(id).ty.known().and_then(|ty| ty.dims());
        if node.inputs[0] == node.inputs[1] || shape(node.outputs[0]) != shape(self.out) {
            return false;
        }
        if let Some(values) = self.per_output(low, other, outputs) {
            return self.residual.is_none() && self.affine(*fun, first, &values);
        }
        let fits = *fun == Fun2::Add && self.residual.is_none();
        if fits && shape(other) == shape(self.out) && low.is_made(other) {
            self.residual = Some(other);
            return true;
        }
        false
    }

    fn affine(&mut self, fun: Fun2, first: bool, values: &[f32]) -> bool {
        let pairs = self.scale.iter_mut().zip(&mut self.shift).zip(values);
        match fun {
            Fun2::Add => pairs.for_each(|((_, shift), v)| *shift += v),
            Fun2::Sub if first => pairs.for_each(|((_, shift), v)| *shift -= v),
            Fun2::Mul => pairs.for_each(|((scale, shift), v)| (*scale, *shift) = (*scale * v, *shift * v)),
            Fun2::Div if first && values.iter().all(|v| *v != 0.0) => {
                pairs.for_each(|((scale, shift), v)| (*scale, *shift) = (*scale / v, *shift / v));
            }
            _ => return false,
        }
        true
    }

    fn batch_norm(&mut self, low: &Lowering<'_>, node: &Node, norm: &BatchNorm) -> bool {
        let Some((scale, shift)) = batch_norm_affine(low, node, norm) else { return false };
        if scale.len() != self.scale.len() {
            return false;
        }
        self.affine(Fun2::Mul, true, &scale) && self.affine(Fun2::Add, true, &shift)
    }

    /// The values of a constant that is broadcast to one for each output.
    fn per_output(&self, low: &Lowering<'_>, id: ValueId, outputs: Outputs) -> Option<Vec<f32>> {
        let (graph, count) = (low.graph, self.scale.len());
        let values = constant(graph, id)?;
        if values.len() == 1 {
            return Some(vec![values[0]; count]);
        }
        let shape = graph.value(id).ty.known()?.dims()?;
        let rank = graph.tensor_type(self.out)?.rank();
        let behind = if outputs == Outputs::Channels { rank.checked_sub(2)? } else { 0 };
        let at = shape.len().checked_sub(behind + 1)?;
        (values.len() == count && shape[at] == count).then_some(values)
    }
}

/// The factor and the summand that a normalisation by constants comes to, for each channel.
pub(crate) fn batch_norm_affine(
    low: &Lowering<'_>,
    node: &Node,
    norm: &BatchNorm,
) -> Option<(Vec<f32>, Vec<f32>)> {
    if norm.training || node.outputs.len() > 1 && node.outputs[1..].iter().any(|v| used(low, *v)) {
        return None;
    }
    let part = |i: usize| constant(low.graph, *node.inputs.get(i)?);
    let (scale, bias, mean, var) = (part(1)?, part(2)?, part(3)?, part(4)?);
    let factor = |(s, v): (&f32, &f32)| (f64::from(*s) / (f64::from(*v) + f64::from(norm.eps)).sqrt()) as f32;
    let scale: Vec<f32> = scale.iter().zip(&var).map(factor).collect();
    let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    Some((scale, shift))
}

fn used(low: &Lowering<'_>, id: ValueId) -> bool {
    low.graph.outputs().contains(&id) || low.graph.nodes().iter().any(|n| n.inputs.contains(&id))
}

/// The activation that a node is, if kernels have it.
pub(crate) fn activation(low: &Lowering<'_>, node: &Node) -> Option<Act> {
    if node.op.downcast::<Clip>().is_some() {
        let bound = |i: usize, open: f32| match node.inputs.get(i) {
            Some(id) if !matches!(low.graph.value(*id).def, kinglet_graph::Def::Absent) => {
                scalar(low.graph, *id)
            }
            _ => Some(open),
        };
        return Some(Act::Clip { lo: bound(1, f32::NEG_INFINITY)?, hi: bound(2, f32::INFINITY)? });
    }
    Some(match node.op.downcast::<Unary>()?.0 {
        Fun::Relu => Act::RELU,
        Fun::Sigmoid => Act::Sigmoid,
        Fun::Tanh => Act::Tanh,
        Fun::HardSwish => Act::HardSwish,
        Fun::Swish(1.0) => Act::Silu,
        Fun::LeakyRelu(slope) => Act::Leaky(slope),
        Fun::Elu(alpha) => Act::Elu(alpha),
        Fun::HardSigmoid { alpha, beta } => Act::HardSigmoid { alpha, beta },
        Fun::Gelu { tanh: false } => Act::Gelu,
        Fun::Gelu { tanh: true } => Act::GeluTanh,
        _ => return None,
    })
}
