//! The graph evaluated in f64, one naive loop per op: the independent reference of every backend.
//!
//! Evaluates one sequence from its first token, so the key/value state is simply the batch itself. Nothing here is
//! shared with the kernels; only weights are decoded by `kinglet-tensor`, which is checked against the `gguf` package.

use std::collections::HashMap;

use kinglet_graph::ops::{
    Activation, Add, AddRmsNorm, Attention, Embed, Glu, Linear, RmsNorm, Rope, RopeStyle, Scale, SelectRows,
    Softcap,
};
use kinglet_graph::{Def, Graph, Node, ValueId};
use kinglet_tensor::quant;

/// A matrix of f64, row-major.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// Columns.
    pub cols: usize,
    /// `rows * cols` values.
    pub data: Vec<f64>,
}

impl Matrix {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.cols.max(1)
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.cols..][..self.cols]
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { cols: self.cols, data: self.data.iter().map(|x| f(*x)).collect() }
    }

    fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(a, b)| f(*a, *b)).collect();
        Self { cols: self.cols, data }
    }
}

/// Every value that the graph makes, by name, for integer inputs in graph order.
///
/// # Panics
/// On an op that has no reference, naming it: tests want to stop there.
pub fn evaluate(graph: &Graph, inputs: &[&[i32]]) -> HashMap<String, Matrix> {
    let mut eval = Evaluation { graph, values: HashMap::new(), weights: HashMap::new() };
    for (&id, input) in graph.inputs().iter().zip(inputs) {
        eval.values.insert(id, Matrix { cols: 1, data: input.iter().map(|x| f64::from(*x)).collect() });
    }
    for node in graph.nodes() {
        let made = eval.node(node);
        eval.values.extend(node.outputs.iter().copied().zip(made));
    }
    eval.values.into_iter().map(|(id, value)| (graph.value(id).name.clone(), value)).collect()
}

struct Evaluation<'a> {
    graph: &'a Graph,
    values: HashMap<ValueId, Matrix>,
    weights: HashMap<ValueId, Matrix>,
}

impl Evaluation<'_> {
    fn node(&mut self, node: &Node) -> Vec<Matrix> {
        node.inputs.iter().for_each(|id| self.load_weight(*id));
        let op = &*node.op;
        let x = |i: usize| self.get(node.inputs[i]);
        if let Some(op) = op.downcast::<Embed>() {
            return vec![gather(x(1), x(0)).map(|v| v * f64::from(op.scale))];
        }
        if op.downcast::<SelectRows>().is_some() {
            return vec![gather(x(0), x(1))];
        }
        if op.downcast::<Add>().is_some() {
            return vec![x(0).zip(x(1), |a, b| a + b)];
        }
        if let Some(op) = op.downcast::<AddRmsNorm>() {
            let sum = x(0).zip(x(1), |a, b| a + b);
            let normed = rms_norm(&sum, x(2), f64::from(op.eps));
            return vec![sum, normed];
        }
        if let Some(op) = op.downcast::<RmsNorm>() {
            return vec![rms_norm(x(0), x(1), f64::from(op.eps))];
        }
        if let Some(op) = op.downcast::<Linear>() {
            return (0..op.biased.len()).map(|i| self.linear(node, op.inputs_of(i))).collect();
        }
        if let Some(op) = op.downcast::<Glu>() {
            return vec![x(0).zip(x(1), |gate, up| activate(op.act, gate) * up)];
        }
        if let Some(op) = op.downcast::<Scale>() {
            return vec![x(0).map(|v| v * f64::from(op.factor))];
        }
        if let Some(op) = op.downcast::<Softcap>() {
            return vec![x(0).map(|v| softcap(v, f64::from(op.cap)))];
        }
        if let Some(op) = op.downcast::<Attention>() {
            return vec![attention(op, x(0), x(1), x(2))];
        }
        panic!("op `{}` at node `{}` has no reference", op.name(), node.name)
    }

    fn get(&self, id: ValueId) -> &Matrix {
        self.weights.get(&id).or_else(|| self.values.get(&id)).expect("nodes stand in running order")
    }

    fn load_weight(&mut self, id: ValueId) {
        let Def::Weight(tensor) = &self.graph.value(id).def else { return };
        self.weights.entry(id).or_insert_with(|| {
            let mut values = vec![0f32; tensor.elements()];
            quant::dequantize(tensor.dtype(), tensor.data(), &mut values).expect("weights decode");
            let cols = tensor.shape().last().copied().unwrap_or(1);
            Matrix { cols, data: values.into_iter().map(f64::from).collect() }
        });
    }

    fn linear(&self, node: &Node, (weight, bias): (usize, Option<usize>)) -> Matrix {
        let (x, w) = (self.get(node.inputs[0]), self.get(node.inputs[weight]));
        let bias = bias.map(|b| &self.get(node.inputs[b]).data);
        let mut data = Vec::with_capacity(x.rows() * w.rows());
        for row in 0..x.rows() {
            for n in 0..w.rows() {
                data.push(dot(x.row(row), w.row(n)) + bias.map_or(0.0, |b| b[n]));
            }
        }
        Matrix { cols: w.rows(), data }
    }
}

fn gather(table: &Matrix, index: &Matrix) -> Matrix {
    Matrix {
        cols: table.cols,
        data: index.data.iter().flat_map(|i| table.row(*i as usize).to_vec()).collect(),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn rms_norm(x: &Matrix, w: &Matrix, eps: f64) -> Matrix {
    let group = w.data.len();
    let normed = x.data.chunks(group).flat_map(|chunk| {
        let scale = 1.0 / (dot(chunk, chunk) / group as f64 + eps).sqrt();
        chunk.iter().zip(&w.data).map(move |(x, w)| x * scale * w).collect::<Vec<_>>()
    });
    Matrix { cols: x.cols, data: normed.collect() }
}

fn softcap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

fn activate(act: Activation, x: f64) -> f64 {
    match act {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
    }
}

/// The error function by its Maclaurin series near zero and its continued fraction beyond; absolute error below 1e-12.
fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    if magnitude < 2.5 {
        let mut term = x;
        let terms = (1..60).map(|n| {
            term *= -x * x / f64::from(n);
            term / f64::from(2 * n + 1)
        });
        return 2.0 / std::f64::consts::PI.sqrt() * (x + terms.sum::<f64>());
    }
    let fraction = (1..=60).rev().fold(magnitude, |tail, n| magnitude + f64::from(n) / 2.0 / tail);
    (1.0 - (-x * x).exp() / (std::f64::consts::PI.sqrt() * fraction)).copysign(x)
}

fn rotate(rope: &Rope, head: &mut [f64], position: usize) {
    let pairs = rope.inv_freq.len();
    for (i, freq) in rope.inv_freq.iter().enumerate() {
        let (a, b) = match rope.style {
            RopeStyle::Halves => (i, i + pairs),
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
        };
        let (sin, cos) = (position as f64 * freq).sin_cos();
        let (x, y, m) = (head[a], head[b], f64::from(rope.magnitude));
        head[a] = m * (x * cos - y * sin);
        head[b] = m * (x * sin + y * cos);
    }
}

fn attention(op: &Attention, q: &Matrix, k: &Matrix, v: &Matrix) -> Matrix {
    let (mut q, mut k) = (q.clone(), k.clone());
    if let Some(rope) = &op.rope {
        for x in [&mut q, &mut k] {
            let cols = x.cols;
            for (position, row) in x.data.chunks_mut(cols).enumerate() {
                row.chunks_mut(op.key_dim).for_each(|head| rotate(rope, head, position));
            }
        }
    }
    let mut data = Vec::new();
    for position in 0..q.rows() {
        for head in 0..op.heads {
            data.extend(attend(op, &q, &k, v, position, head));
        }
    }
    Matrix { cols: op.heads * op.value_dim, data }
}

fn attend(op: &Attention, q: &Matrix, k: &Matrix, v: &Matrix, position: usize, head: usize) -> Vec<f64> {
    let kv_head = head * op.kv_heads / op.heads;
    let first = op.window.map_or(0, |window| (position + 1).saturating_sub(window));
    let query = &q.row(position)[head * op.key_dim..][..op.key_dim];
    let score = |p: usize| {
        let s = dot(query, &k.row(p)[kv_head * op.key_dim..][..op.key_dim]) * f64::from(op.scale);
        op.softcap.map_or(s, |cap| softcap(s, f64::from(cap)))
    };
    let scores: Vec<f64> = (first..=position).map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; op.value_dim];
    for (p, weight) in (first..=position).zip(weights) {
        let value = &v.row(p)[kv_head * op.value_dim..][..op.value_dim];
        out.iter_mut().zip(value).for_each(|(o, x)| *o += weight / total * x);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_tabulated_values() {
        // Abramowitz & Stegun, table 7.1.
        for (x, expected) in
            [(0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (3.0, 0.999_977_909_5)]
        {
            assert!((erf(x) - expected).abs() < 1e-9, "erf({x})");
            assert!((erf(-x) + expected).abs() < 1e-9, "erf(-{x})");
        }
    }
}
