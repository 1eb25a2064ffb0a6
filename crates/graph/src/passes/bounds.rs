//! Bounds get their plain form: `-clip(-x, -6)` becomes `clip(x, .., 6)`, and bounds of what is bounded become one pair.
//!
//! Values stay exactly as they are, but for the sign of zero.

use std::sync::Arc;

use kinglet_tensor::{Bytes, DType, Tensor};

use super::look::Look;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::{Binary, Clip, Fun, Fun2, Unary};
use crate::{BuildError, Def, Graph, Node, ValueId};

/// Names bounds of a negated value, then joins bounds that follow each other.
pub fn join_bounds(graph: &Graph) -> Result<Graph, BuildError> {
    if !graph.nodes().iter().any(|node| node.op.downcast::<Clip>().is_some()) {
        return Ok(graph.clone());
    }
    rewritten(&rewritten(graph, |look, node| look.turned(node))?, |look, node| look.nested(node))
}

/// A value and its bounds.
struct Bounded {
    x: ValueId,
    low: f32,
    high: f32,
}

fn rewritten(graph: &Graph, rule: impl Fn(&Look<'_>, &Node) -> Option<Bounded>) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        let Some(Bounded { x, low, high }) = rule(&look, node) else {
            rewrite.keep(node)?;
            continue;
        };
        let scalar =
            |x: f32| Tensor::new("", DType::F32, vec![], Bytes::copy_from_slice(&x.to_le_bytes())).ok();
        let low = rewrite.constant(&format!("{}.low", node.name), scalar(low))?;
        let high = rewrite.constant(&format!("{}.high", node.name), scalar(high))?;
        rewrite.put(Arc::new(Clip), &[x, low, high], &node.outputs, "bounds in another spelling".into())?;
    }
    prune(&rewrite.finish()?)
}

/// Steps of an affine map that are followed.
const STEPS: usize = 4;

impl Look<'_> {
    /// What the node bounds, when it turns round the bounds of something turned round.
    fn turned(&self, node: &Node) -> Option<Bounded> {
        let (outer, bent) = self.affine(node.outputs[0]);
        self.made_by::<Clip>(bent).filter(|_| bent != node.outputs[0] && self.is_read_once(bent))?;
        let inner = self.bounded(bent)?;
        let (back, x) = self.affine(inner.x);
        let undone = outer[0] * back[0] == 1.0 && outer[0] * back[1] + outer[1] == 0.0;
        let [a, b] = [inner.low, inner.high].map(|bound| outer[0] * bound + outer[1]);
        (undone && x != inner.x && !a.is_nan() && !b.is_nan()).then_some(Bounded {
            x,
            low: a.min(b),
            high: a.max(b),
        })
    }

    /// What the node bounds, when that is bounded already and nobody else reads it.
    fn nested(&self, node: &Node) -> Option<Bounded> {
        node.op.downcast::<Clip>()?;
        let mut whole = self.bounded(node.outputs[0])?;
        let own = whole.x;
        while let Some(inner) = self.bounded(whole.x).filter(|_| self.is_read_once(whole.x))
            && inner.low <= inner.high
            && whole.low <= whole.high
        {
            let limit = |bound: f32| bound.max(whole.low).min(whole.high);
            whole = Bounded { x: inner.x, low: limit(inner.low), high: limit(inner.high) };
        }
        (whole.x != own).then_some(whole)
    }

    /// What a value of f32 is bounds of, by constants.
    fn bounded(&self, id: ValueId) -> Option<Bounded> {
        self.graph.tensor_type(id).filter(|ty| ty.dtype == DType::F32)?;
        if let Some((x, Fun::Relu)) = self.unary(id) {
            return Some(Bounded { x, low: 0.0, high: f32::INFINITY });
        }
        let (node, Clip) = self.made_by::<Clip>(id)?;
        let bound = |i: usize, open: f32| match node.inputs.get(i) {
            Some(id) if !matches!(self.graph.value(*id).def, Def::Absent) => self.scalar(*id),
            _ => Some(open),
        };
        Some(Bounded { x: node.inputs[0], low: bound(1, f32::NEG_INFINITY)?, high: bound(2, f32::INFINITY)? })
    }

    /// `[a, b]` and `x` such that the value is `a x + b`, as far as nobody else reads what lies between.
    fn affine(&self, id: ValueId) -> ([f32; 2], ValueId) {
        let ([mut a, mut b], mut x) = ([1.0, 0.0], id);
        for _ in 0..STEPS {
            let (factor, summand, next) = match self.node(x).map(|node| (node, &node.op)) {
                Some((node, op)) if op.downcast() == Some(&Unary(Fun::Neg)) => (-1.0, 0.0, node.inputs[0]),
                Some((_, op)) if op.downcast() == Some(&Binary(Fun2::Mul)) => {
                    let Some((c, next)) = self.with_constant(x, Fun2::Mul) else { break };
                    (c, 0.0, next)
                }
                Some((_, op)) if op.downcast() == Some(&Binary(Fun2::Add)) => {
                    let Some((c, next)) = self.with_constant(x, Fun2::Add) else { break };
                    (1.0, c, next)
                }
                _ => break,
            };
            let shape = |id: ValueId| self.dims(id);
            if x != id && !self.is_read_once(x) || shape(x).is_none() || shape(x) != shape(next) {
                break;
            }
            (a, b, x) = (a * factor, a * summand + b, next);
        }
        ([a, b], x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GraphBuilder, TensorType};

    /// A chain of steps on `x`, each a letter and a constant, and what is left of it.
    fn check(steps: &[(&str, f32)], expected: &str) {
        let mut builder = GraphBuilder::new();
        let mut x = builder.input("x", TensorType::fixed(DType::F32, &[2, 3])).expect("new");
        for (i, (step, c)) in steps.iter().enumerate() {
            let bytes = Bytes::copy_from_slice(&c.to_le_bytes());
            let tensor = Tensor::new(format!("c{i}"), DType::F32, vec![], bytes).expect("whole");
            let (name, constant) = (format!("v{i}"), builder.weight(tensor).expect("new"));
            let absent = builder.absent();
            let made = match *step {
                "mul" => builder.node(&name, Binary(Fun2::Mul), &[x, constant]),
                "add" => builder.node(&name, Binary(Fun2::Add), &[x, constant]),
                "above" => builder.node(&name, Clip, &[x, constant]),
                "below" => builder.node(&name, Clip, &[x, absent, constant]),
                "neg" => builder.node(&name, Unary(Fun::Neg), &[x]),
                _ => builder.node(&name, Unary(Fun::Relu), &[x]),
            };
            x = made.expect("typed");
        }
        builder.output(x);
        let graph = join_bounds(&builder.finish()).expect("typed");
        let look = Look::at(&graph);
        let text = |node: &Node| match look.bounded(node.outputs[0]) {
            Some(Bounded { low, high, .. }) => format!("{low}..{high}"),
            None => node.op.describe(),
        };
        let found: Vec<String> = graph.nodes().iter().map(text).collect();
        assert_eq!(found.join(" "), expected, "{steps:?}");
    }

    #[test]
    fn bounds_of_a_negated_value_are_those_of_the_value() {
        let turned = [("mul", -1.0), ("add", 0.0), ("above", -6.0), ("mul", -1.0), ("add", 0.0)];
        check(&turned, "-inf..6");
        check(&[&[("relu", 0.0)], &turned[..]].concat(), "0..6");
        check(&[("neg", 0.0), ("below", 2.0), ("neg", 0.0)], "-2..inf");
        check(&[("mul", 2.0), ("add", 1.0), ("below", 5.0), ("add", -1.0), ("mul", 0.5)], "-inf..2");
        check(&[("neg", 0.0), ("below", 2.0)], "Neg -inf..2");
        check(&[("mul", 2.0), ("below", 5.0), ("mul", 0.25)], "Mul -inf..5 Mul");
    }

    #[test]
    fn bounds_of_bounds_are_one_pair() {
        check(&[("relu", 0.0), ("below", 6.0)], "0..6");
        check(&[("above", -1.0), ("below", 4.0), ("above", 2.0)], "2..4");
        check(&[("above", 5.0), ("below", 4.0)], "4..4");
    }
}
