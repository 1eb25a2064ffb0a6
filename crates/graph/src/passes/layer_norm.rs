//! Layer normalisation that exporters spell out becomes `LayerNorm`.
//!
//! `c / sqrt(mean(c^2) + eps) * scale + bias` with `c = x - mean(x)`, or `c = x`, the means over the innermost dimensions. Squares
//! are powers or products, divisions may be products with a reciprocal, and operands of sums and products stand in
//! either order.

use std::sync::Arc;

use super::look::Look;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::{Fun, Fun2, LayerNorm, Reduce, ReduceKind};
use crate::{Args, BuildError, Graph, Node, ValueId};

/// Fuses every layer normalisation by a scale, with or without a bias.
pub fn fuse_layer_norm(graph: &Graph) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        match look.layer_norm(node) {
            Some((op, inputs)) => {
                let note = format!("spelled out as a sum ending in {}", node.name);
                rewrite.put(Arc::new(op), &inputs, &node.outputs, note)?;
            }
            None => rewrite.keep(node)?,
        }
    }
    prune(&rewrite.finish()?)
}

impl Look<'_> {
    /// The normalisation that ends in this node, and its inputs.
    fn layer_norm(&self, node: &Node) -> Option<(LayerNorm, Vec<ValueId>)> {
        let out = node.outputs[0];
        if let Some([(normed, scale), (_, bias)]) = self.scaled_and_shifted(out) {
            let (op, x) = self.normed(normed)?;
            return Some((op, vec![x, scale, bias]));
        }
        let (normed, scale) = self.times_weight(out)?;
        let (op, x) = self.normed(normed)?;
        let continues =
            self.reader(out).is_some_and(|next| self.scaled_and_shifted(next.outputs[0]).is_some());
        (!continues).then(|| (op, vec![x, scale]))
    }

    /// `normed * scale + bias`: the value and the constant of the product, then those of the sum.
    fn scaled_and_shifted(&self, id: ValueId) -> Option<[(ValueId, ValueId); 2]> {
        let (product, bias) = self.with_weight(id, Fun2::Add)?;
        if !self.is_read_once(product) {
            return None;
        }
        Some([self.times_weight(product)?, (product, bias)])
    }

    fn times_weight(&self, id: ValueId) -> Option<(ValueId, ValueId)> {
        self.with_weight(id, Fun2::Mul)
    }

    /// The value and the constant, one for each element of a row, that make `id`.
    fn with_weight(&self, id: ValueId, fun: Fun2) -> Option<(ValueId, ValueId)> {
        let [a, b] = self.binary(id, fun)?;
        let (x, w) = if self.graph.weight(b).is_some() { (a, b) } else { (b, a) };
        let (shape, weight) = (self.dims(x)?, self.dims(w)?);
        let fits = self.graph.weight(w).is_some() && shape.ends_with(&weight) && !weight.is_empty();
        (fits && self.dims(id)? == shape).then_some((x, w))
    }

    /// The normalisation, without scale, that makes `id`, and of what.
    fn normed(&self, id: ValueId) -> Option<(LayerNorm, ValueId)> {
        let (centred, root) = self.quotient(id)?;
        let (sum, Fun::Sqrt) = self.unary(root)? else { return None };
        let (eps, variance) = self.with_constant(sum, Fun2::Add)?;
        let (square, axis) = self.mean(variance)?;
        let of = self.squared(square)?;
        let same = of == centred
            || self.binary(of, Fun2::Sub).is_some_and(|sides| self.binary(centred, Fun2::Sub) == Some(sides));
        if !same || eps < 0.0 {
            return None;
        }
        let from = self.centred(centred, axis);
        let op = LayerNorm { axis, eps, centre: from.is_some() };
        Some((op, from.unwrap_or(centred)))
    }

    /// The value from which its mean was subtracted.
    fn centred(&self, id: ValueId, axis: i64) -> Option<ValueId> {
        let [x, mean] = self.binary(id, Fun2::Sub)?;
        (self.mean(mean)? == (x, axis)).then_some(x)
    }

    /// Dividend and divisor of a quotient, or of a product with a reciprocal.
    fn quotient(&self, id: ValueId) -> Option<(ValueId, ValueId)> {
        if let Some([a, b]) = self.binary(id, Fun2::Div) {
            return Some((a, b));
        }
        let [a, b] = self.binary(id, Fun2::Mul)?;
        [(a, b), (b, a)].into_iter().find_map(|(x, inverse)| match self.unary(inverse)? {
            (root, Fun::Reciprocal) => Some((x, root)),
            _ => None,
        })
    }

    /// What `id` is the square of.
    fn squared(&self, id: ValueId) -> Option<ValueId> {
        match self.with_constant(id, Fun2::Pow) {
            Some((2.0, x)) => Some(x),
            Some(_) => None,
            None => self.binary(id, Fun2::Mul).filter(|[a, b]| a == b).map(|[a, _]| a),
        }
    }

    /// What `id` is the mean of, over all dimensions from the returned one on, which stay as 1.
    fn mean(&self, id: ValueId) -> Option<(ValueId, i64)> {
        let (node, op) = self.made_by::<Reduce>(id)?;
        if op.kind != ReduceKind::Mean || !op.keep_dims {
            return None;
        }
        let args: Vec<_> = node.inputs.iter().map(|id| self.graph.arg(*id)).collect();
        let axes = op.axes(&Args(&args)).ok()??;
        let rank = self.dims(node.inputs[0])?.len();
        let first = *axes.first()?;
        axes.iter().copied().eq(first..rank).then_some((node.inputs[0], first as i64))
    }
}
