//! Activations that exporters spell out get their name back: `x * sigmoid(x)` becomes SiLU, and so on.
//!
//! A product is read as its factors, in whatever order and nesting they stand: constants on one side, values on the
//! other. The named function is the spelled one but for rounding.

use std::sync::Arc;

use super::look::Look;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::{Binary, Clip, Fun, Fun2, Unary};
use crate::{BuildError, Graph, Node, ValueId};

/// Names every activation that is spelled out; what only the spelling needed goes away.
pub fn name_activations(graph: &Graph) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        match look.activation(node) {
            Some((fun, x)) => {
                let note = format!("spelled out as a product ending in {}", node.name);
                rewrite.put(Arc::new(Unary(fun)), &[x], &node.outputs, note)?;
            }
            None => rewrite.keep(node)?,
        }
    }
    prune(&rewrite.finish()?)
}

/// The factor of the cube in the approximation of GELU.
const CUBIC: f32 = 0.044_715;
/// How near a constant must be to the one that the formula has.
const NEAR: f32 = 1e-4;

fn near(found: f32, wanted: f32) -> bool {
    (found - wanted).abs() <= NEAR * wanted.abs()
}

impl Look<'_> {
    /// The function that ends in this node, and of which value.
    fn activation(&self, node: &Node) -> Option<(Fun, ValueId)> {
        let Binary(Fun2::Mul | Fun2::Div) = node.op.downcast::<Binary>()? else { return None };
        let (mut constant, mut values) = (1.0, Vec::new());
        self.factors(node, &mut constant, &mut values);
        match *values.as_slice() {
            [gate] => self.ramp(constant, gate).map(|(x, alpha, beta)| (Fun::HardSigmoid { alpha, beta }, x)),
            [a, b] => {
                [(a, b), (b, a)].into_iter().find_map(|(x, gate)| Some((self.gated(constant, x, gate)?, x)))
            }
            _ => None,
        }
    }

    /// `x`, `alpha` and `beta` where `constant * gate` is `clip(alpha * x + beta, 0, 1)`.
    fn ramp(&self, constant: f32, gate: ValueId) -> Option<(ValueId, f32, f32)> {
        let (node, Clip) = self.made_by::<Clip>(gate)?;
        let bound = |i: usize| self.scalar(*node.inputs.get(i)?);
        if bound(1)? != 0.0 || !near(bound(2)? * constant, 1.0) {
            return None;
        }
        let (beta, scaled) = self.with_constant(node.inputs[0], Fun2::Add)?;
        let (alpha, x) = self.multiple(scaled).unwrap_or((1.0, scaled));
        Some((x, alpha * constant, beta * constant))
    }

    /// The function that `constant * x * gate` is, `gate` being made of `x`.
    fn gated(&self, constant: f32, x: ValueId, gate: ValueId) -> Option<Fun> {
        if let Some((inner, fun)) = self.unary(gate) {
            return match fun {
                Fun::Sigmoid if near(constant, 1.0) => self.scaled(inner, x).map(Fun::Swish),
                Fun::HardSigmoid { alpha, beta } if near(constant, 1.0) && inner == x => {
                    (near(alpha, 1.0 / 6.0) && near(beta, 0.5)).then_some(Fun::HardSwish)
                }
                Fun::Tanh if near(constant, 1.0) => {
                    self.unary(inner).filter(|found| *found == (x, Fun::Softplus)).map(|_| Fun::Mish)
                }
                _ => None,
            };
        }
        if let Some((inner, alpha, beta)) = self.ramp(constant, gate) {
            return (inner == x && near(alpha, 1.0 / 6.0) && near(beta, 0.5)).then_some(Fun::HardSwish);
        }
        // x / 2 * (1 + erf(x / sqrt 2)), or the approximation of it by a hyperbolic tangent
        let (one, bent) = self.with_constant(gate, Fun2::Add)?;
        if !near(constant, 0.5) || !near(one, 1.0) {
            return None;
        }
        match self.unary(bent)? {
            (inner, Fun::Erf) => {
                let fits = near(self.scaled(inner, x)?, std::f32::consts::FRAC_1_SQRT_2);
                fits.then_some(Fun::Gelu { tanh: false })
            }
            (inner, Fun::Tanh) => self.is_cubic(inner, x).then_some(Fun::Gelu { tanh: true }),
            _ => None,
        }
    }

    /// Whether `id` is `sqrt(2 / pi) * (x + 0.044715 x^3)`, or that with `x` as a factor.
    fn is_cubic(&self, id: ValueId, x: ValueId) -> bool {
        let (outer, values) = self.product_of(id);
        if !near(outer, 0.797_884_6) {
            return false;
        }
        let term = |id: ValueId, power: usize| {
            let (factor, values) = self.product_of(id);
            near(factor, CUBIC) && values == vec![x; power]
        };
        match *values.as_slice() {
            [sum] => {
                self.binary(sum, Fun2::Add).is_some_and(|[a, b]| a == x && term(b, 3) || b == x && term(a, 3))
            }
            [a, b] if a == x || b == x => {
                let sum = if a == x { b } else { a };
                self.with_constant(sum, Fun2::Add).is_some_and(|(one, b)| near(one, 1.0) && term(b, 2))
            }
            _ => false,
        }
    }

    /// The constant and the values whose product `id` is, powers taken apart.
    fn product_of(&self, id: ValueId) -> (f32, Vec<ValueId>) {
        let (mut constant, mut values) = (1.0, Vec::new());
        match self.node(id) {
            Some(node) if self.product(node) => self.factors(node, &mut constant, &mut values),
            _ => values.push(id),
        }
        let powers = values.into_iter().flat_map(|id| match self.with_constant(id, Fun2::Pow) {
            Some((n, x)) if n == 2.0 || n == 3.0 => vec![x; n as usize],
            _ => vec![id],
        });
        (constant, powers.collect())
    }

    /// The factors of a product, divisors that are constants among them.
    fn factors(&self, node: &Node, constant: &mut f32, values: &mut Vec<ValueId>) {
        let divides = node.op.downcast::<Binary>() == Some(&Binary(Fun2::Div));
        for (i, &id) in node.inputs.iter().enumerate() {
            let below = divides && i == 1;
            match (self.scalar(id), self.node(id)) {
                (Some(c), _) => *constant *= if below { 1.0 / c } else { c },
                (None, Some(inner)) if !below && self.is_read_once(id) && self.product(inner) => {
                    self.factors(inner, constant, values);
                }
                // A value below the line is no factor: one value too many spoils every pattern.
                _ if below => values.extend([id; 3]),
                _ => values.push(id),
            }
        }
    }

    fn product(&self, node: &Node) -> bool {
        matches!(node.op.downcast::<Binary>(), Some(Binary(Fun2::Mul | Fun2::Div)))
    }

    /// The factor by which `id` is `x` scaled.
    fn scaled(&self, id: ValueId, x: ValueId) -> Option<f32> {
        if id == x {
            return Some(1.0);
        }
        self.multiple(id).filter(|(_, value)| *value == x).map(|(factor, _)| factor)
    }
}

#[cfg(test)]
mod tests {
    use kinglet_tensor::{Bytes, DType, Tensor};

    use super::*;
    use crate::{GraphBuilder, TensorType};

    type Spell = fn(&mut Spelling, ValueId) -> ValueId;

    /// A graph being spelled.
    struct Spelling {
        builder: GraphBuilder,
        count: usize,
    }

    impl Spelling {
        fn name(&mut self) -> String {
            self.count += 1;
            format!("v{}", self.count)
        }

        fn constant(&mut self, x: f32) -> ValueId {
            let name = self.name();
            let bytes = Bytes::copy_from_slice(&x.to_le_bytes());
            self.builder.weight(Tensor::new(name, DType::F32, vec![], bytes).expect("whole")).expect("new")
        }

        fn unary(&mut self, fun: Fun, x: ValueId) -> ValueId {
            let name = self.name();
            self.builder.node(&name, Unary(fun), &[x]).expect("typed")
        }

        fn binary(&mut self, fun: Fun2, a: ValueId, b: ValueId) -> ValueId {
            let name = self.name();
            self.builder.node(&name, Binary(fun), &[a, b]).expect("typed")
        }

        /// `min(max(x + shift, 0), most)`.
        fn clipped(&mut self, x: ValueId, shift: f32, most: f32) -> ValueId {
            let sum = self.by(Fun2::Add, x, shift);
            let (low, high, name) = (self.constant(0.0), self.constant(most), self.name());
            self.builder.node(&name, Clip, &[sum, low, high]).expect("typed")
        }

        fn by(&mut self, fun: Fun2, a: ValueId, b: f32) -> ValueId {
            let b = self.constant(b);
            self.binary(fun, a, b)
        }
    }

    /// The ops that are left of a spelled function.
    fn check(expected: &str, spell: Spell) {
        let mut s = Spelling { builder: GraphBuilder::new(), count: 0 };
        let x = s.builder.input("x", TensorType::fixed(DType::F32, &[2, 3])).expect("new");
        let y = spell(&mut s, x);
        s.builder.output(y);
        let graph = name_activations(&s.builder.finish()).expect("typed");
        let ops: Vec<String> = graph.nodes().iter().map(|n| n.op.describe()).collect();
        assert_eq!(ops.join(" "), expected);
    }

    fn erf_gate(s: &mut Spelling, x: ValueId) -> ValueId {
        let scaled = s.by(Fun2::Div, x, std::f32::consts::SQRT_2);
        let erf = s.unary(Fun::Erf, scaled);
        s.by(Fun2::Add, erf, 1.0)
    }

    #[test]
    fn spelled_functions_are_named() {
        check("Gelu { tanh: false }", |s, x| {
            let gate = erf_gate(s, x);
            let product = s.binary(Fun2::Mul, x, gate);
            s.by(Fun2::Mul, product, 0.5)
        });
        check("Gelu { tanh: false }", |s, x| {
            let (gate, half) = (erf_gate(s, x), s.by(Fun2::Div, x, 2.0));
            s.binary(Fun2::Mul, half, gate)
        });
        check("Swish(1.0)", |s, x| {
            let gate = s.unary(Fun::Sigmoid, x);
            s.binary(Fun2::Mul, gate, x)
        });
        check("Swish(1.702)", |s, x| {
            let scaled = s.by(Fun2::Mul, x, 1.702);
            let gate = s.unary(Fun::Sigmoid, scaled);
            s.binary(Fun2::Mul, x, gate)
        });
        check("HardSwish", |s, x| {
            let gate = s.unary(Fun::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, x);
            s.binary(Fun2::Mul, x, gate)
        });
        check("HardSwish", |s, x| {
            let gate = s.clipped(x, 3.0, 6.0);
            let product = s.binary(Fun2::Mul, x, gate);
            s.by(Fun2::Div, product, 6.0)
        });
        check("HardSwish", |s, x| {
            let scaled = s.by(Fun2::Mul, x, 1.0 / 6.0);
            let gate = s.clipped(scaled, 0.5, 1.0);
            s.binary(Fun2::Mul, gate, x)
        });
        check("HardSigmoid { alpha: 0.16666667, beta: 0.5 }", |s, x| {
            let gate = s.clipped(x, 3.0, 6.0);
            s.by(Fun2::Div, gate, 6.0)
        });
        check("Mish", |s, x| {
            let soft = s.unary(Fun::Softplus, x);
            let gate = s.unary(Fun::Tanh, soft);
            s.binary(Fun2::Mul, x, gate)
        });
    }

    #[test]
    fn what_only_looks_alike_stays() {
        check("Sigmoid Div", |s, x| {
            let gate = s.unary(Fun::Sigmoid, x);
            s.binary(Fun2::Div, x, gate)
        });
        check("Div Erf Add Mul", |s, x| {
            let gate = erf_gate(s, x);
            s.binary(Fun2::Mul, x, gate)
        });
        check("Add  Mul Div", |s, x| {
            let gate = s.clipped(x, 3.0, 5.0);
            let product = s.binary(Fun2::Mul, x, gate);
            s.by(Fun2::Div, product, 6.0)
        });
        check("Add  Mul Mul", |s, x| {
            let gate = s.clipped(x, 2.0, 6.0);
            let product = s.binary(Fun2::Mul, x, gate);
            s.by(Fun2::Mul, product, 1.0 / 6.0)
        });
        check("Neg Sigmoid Mul", |s, x| {
            let other = s.unary(Fun::Neg, x);
            let gate = s.unary(Fun::Sigmoid, other);
            s.binary(Fun2::Mul, x, gate)
        });
    }
}
