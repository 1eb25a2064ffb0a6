//! Batch norms, factors and summands of channels go into the weights of the convolution or product before them.
//!
//! `norm(conv(x, w) + b)` is `conv(x, a w) + a b + c`, where `a` and `c` follow from the norm's constants. They are
//! computed in f64; the result differs from the graph as it stands by rounding only.

use std::sync::Arc;

use kinglet_tensor::{DType, Tensor};

use super::log::Log;
use super::rewrite::Rewrite;
use crate::ops::{BatchNorm, Binary, Conv, ConvTranspose, Fun2, Gemm};
use crate::{BuildError, Def, Graph, Node, Op, ValueId};

/// Folds what follows convolutions and products channel by channel into their weights.
pub fn fold_affine(graph: &Graph) -> Result<Graph, BuildError> {
    fold(graph, &mut Log::default())
}

pub(super) fn fold(graph: &Graph, log: &mut Log) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut rewrite = Rewrite::of(graph)?;
    let mut folded = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        if folded[index] {
            continue;
        }
        match look.chain(node) {
            Some(chain) => chain.write(node, &look, &mut rewrite, &mut folded, log)?,
            None => {
                if node.op.downcast::<BatchNorm>().is_some() {
                    log.leave("affine", node, look.why_not(node));
                }
                rewrite.keep(node)?;
            }
        }
    }
    rewrite.finish()
}

/// A graph whose products and what follows their channels are looked for.
pub(super) struct Look<'a> {
    pub(super) graph: &'a Graph,
    readers: Vec<Vec<usize>>,
}

/// A product whose result only nodes read that work channel by channel: `y = a y + c`.
struct Chain {
    product: Product,
    factors: Vec<f64>,  // [channels]
    summands: Vec<f64>, // [channels]
    nodes: Vec<usize>,
}

/// How a product's weights belong to its output channels.
#[derive(Clone, Copy)]
pub(super) struct Product {
    channels: usize,
    /// Dimension of the output that holds channels, and the output's rank.
    axis: (usize, usize),
    layout: Layout,
}

#[derive(Clone, Copy)]
enum Layout {
    /// `[O, ..]`.
    Rows,
    /// `[K, O]`.
    Columns,
    /// `[C, O / groups, ..]`.
    Grouped { groups: usize },
}

impl Product {
    /// This many channels in dimension 1 of a value of this rank.
    pub(super) fn channels(channels: usize, rank: usize) -> Self {
        Self { channels, axis: (1, rank), layout: Layout::Rows }
    }
}

impl<'a> Look<'a> {
    pub(super) fn at(graph: &'a Graph) -> Self {
        Self { graph, readers: graph.readers() }
    }

    /// A product and all that follows it channel by channel; none when nothing does.
    fn chain(&self, node: &Node) -> Option<Chain> {
        let product = self.product(node)?;
        let mut chain = Chain {
            product,
            factors: vec![1.0; product.channels],
            summands: vec![0.0; product.channels],
            nodes: Vec::new(),
        };
        let mut id = node.outputs[0];
        while let Some(next) = self.only_reader(id) {
            let reader = &self.graph.nodes()[next];
            let Some((factors, summands)) = self.affine(reader, id, product) else { break };
            for (c, (a, s)) in factors.iter().zip(&summands).enumerate() {
                chain.factors[c] *= a;
                chain.summands[c] = chain.summands[c] * a + s;
            }
            chain.nodes.push(next);
            id = reader.outputs[0];
        }
        (!chain.nodes.is_empty()).then_some(chain)
    }

    /// A product of constant f32 weights, and of a bias that is constant where there is one.
    pub(super) fn product(&self, node: &Node) -> Option<Product> {
        let rank = self.graph.tensor_type(node.outputs[0])?.rank();
        let weight = self.floats(*node.inputs.get(1)?)?;
        let biased = node.inputs.get(2).is_some_and(|id| !matches!(self.graph.value(*id).def, Def::Absent));
        if biased {
            self.floats(node.inputs[2])?;
        }
        let shape = weight.shape();
        let (channels, axis, layout) = if node.op.downcast::<Conv>().is_some() {
            (shape[0], 1, Layout::Rows)
        } else if let Some(op) = node.op.downcast::<ConvTranspose>() {
            (shape[1] * op.groups, 1, Layout::Grouped { groups: op.groups })
        } else {
            let op =
                node.op.downcast::<Gemm>().filter(|op| op.alpha == 1.0 && (op.beta == 1.0 || !biased))?;
            let layout = if op.trans_b { Layout::Rows } else { Layout::Columns };
            (shape[usize::from(!op.trans_b)], 1, layout)
        };
        let whole = !biased || self.floats(node.inputs[2])?.elements() == channels;
        (whole && channels > 0).then_some(Product { channels, axis: (axis, rank), layout })
    }

    /// The only reader of a value that is no output.
    pub(super) fn only_reader(&self, id: ValueId) -> Option<usize> {
        match self.readers[id.index()].as_slice() {
            [reader] if !self.graph.outputs().contains(&id) => Some(*reader),
            _ => None,
        }
    }

    /// Factor and summand of each channel that a node applies to the value.
    pub(super) fn affine(&self, node: &Node, of: ValueId, product: Product) -> Option<(Vec<f64>, Vec<f64>)> {
        let channels = product.channels;
        let (ones, zeros) = (vec![1.0; channels], vec![0.0; channels]);
        if let Some(op) = node.op.downcast::<BatchNorm>() {
            return self.norm(node, of, op, channels);
        }
        let Binary(fun) = *node.op.downcast::<Binary>()?;
        let &[a, b] = node.inputs.as_slice() else { return None };
        let first = a == of;
        let constant = self.by_channel(if first { b } else { a }, product)?;
        let minus = |list: Vec<f64>| list.into_iter().map(|x| -x).collect::<Vec<_>>();
        Some(match (fun, first) {
            (Fun2::Mul, _) => (constant, zeros),
            (Fun2::Add, _) => (ones, constant),
            (Fun2::Sub, true) => (ones, minus(constant)),
            (Fun2::Sub, false) => (minus(ones), constant),
            (Fun2::Div, true) if constant.iter().all(|x| *x != 0.0) => {
                (constant.into_iter().map(|x| 1.0 / x).collect(), zeros)
            }
            _ => return None,
        })
    }

    fn norm(
        &self,
        node: &Node,
        of: ValueId,
        op: &BatchNorm,
        channels: usize,
    ) -> Option<(Vec<f64>, Vec<f64>)> {
        if op.training || node.inputs[0] != of || node.outputs.len() > 1 {
            return None;
        }
        let list = |i: usize| {
            let values = f64s(self.floats(*node.inputs.get(i)?)?);
            (values.len() == channels).then_some(values)
        };
        let (scale, bias, mean, variance) = (list(1)?, list(2)?, list(3)?, list(4)?);
        let factors: Vec<f64> =
            scale.iter().zip(&variance).map(|(s, v)| s / (v + f64::from(op.eps)).sqrt()).collect();
        let summands = (0..channels).map(|c| bias[c] - mean[c] * factors[c]).collect();
        Some((factors, summands))
    }

    /// A constant that holds one number for all, or one for each channel, broadcast over the output.
    fn by_channel(&self, id: ValueId, product: Product) -> Option<Vec<f64>> {
        let tensor = self.floats(id)?;
        let (axis, rank) = product.axis;
        let shape = tensor.shape();
        let from = rank.checked_sub(shape.len())?;
        let fits = |(i, n): (usize, &usize)| *n == 1 || from + i == axis && *n == product.channels;
        if !shape.iter().enumerate().all(fits) {
            return None;
        }
        let values = f64s(tensor);
        Some(if values.len() == 1 { vec![values[0]; product.channels] } else { values })
    }

    pub(super) fn floats(&self, id: ValueId) -> Option<&Tensor> {
        self.graph.weight(id).filter(|tensor| tensor.dtype() == DType::F32)
    }

    /// Why a batch norm stays.
    fn why_not(&self, node: &Node) -> &'static str {
        let before = match self.graph.value(node.inputs[0]).def {
            Def::Node(index, 0) => &self.graph.nodes()[index],
            _ => return "no node makes what it reads",
        };
        let product = [
            before.op.downcast::<Conv>().is_some(),
            before.op.downcast::<ConvTranspose>().is_some(),
            before.op.downcast::<Gemm>().is_some(),
        ];
        match () {
            () if node.op.downcast::<BatchNorm>().is_some_and(|op| op.training) => "it trains",
            () if !product.contains(&true) => "no convolution or product stands before it",
            () if self.only_reader(node.inputs[0]).is_none() => "others read the product before it, too",
            () => "the weights before it or its own are no constants of f32",
        }
    }
}

impl Chain {
    /// Adds the product with changed weights in the place of the chain.
    fn write(
        &self,
        node: &Node,
        look: &Look<'_>,
        rewrite: &mut Rewrite<'_>,
        folded: &mut [bool],
        log: &mut Log,
    ) -> Result<(), BuildError> {
        let graph = look.graph;
        let weight = graph.weight(node.inputs[1]);
        let weight = weight.and_then(|t| floats(t.shape(), self.weights(&f64s(t), t.shape())));
        let bias = node.inputs.get(2).and_then(|id| graph.weight(*id)).map(f64s);
        let bias = bias.unwrap_or_else(|| vec![0.0; self.product.channels]);
        let sums = bias.iter().zip(self.factors.iter().zip(&self.summands)).map(|(b, (a, s))| b * a + s);
        let bias = floats(&[self.product.channels], sums.collect());
        let name = |id: ValueId| graph.value(id).name.clone();
        let weight = rewrite.constant(&format!("{}.folded", name(node.inputs[1])), weight)?;
        let bias = rewrite.constant(&format!("{}.bias", node.name), bias)?;
        let mut last = node;
        for index in &self.nodes {
            last = &graph.nodes()[*index];
            folded[*index] = true;
            log.did("affine", last, format!("went into the weights of {}", node.name));
        }
        let names: Vec<&str> = self.nodes.iter().map(|i| graph.nodes()[*i].name.as_str()).collect();
        let note = format!("{} in the weights", names.join(", "));
        let op: Arc<dyn Op> = match node.op.downcast::<Gemm>() {
            Some(gemm) => Arc::new(Gemm { beta: 1.0, ..*gemm }),
            None => node.op.clone(),
        };
        rewrite.put(op, &[node.inputs[0], weight, bias], &last.outputs[..1], note)
    }

    /// Each weight times the factor of its channel.
    fn weights(&self, values: &[f64], shape: &[usize]) -> Vec<f64> {
        let channels = self.product.channels;
        let inner: usize = shape.iter().skip(2).product();
        let channel = |i: usize| match self.product.layout {
            Layout::Rows => i / (values.len() / channels),
            Layout::Columns => i % channels,
            Layout::Grouped { groups } => {
                let (row, column) = (i / (shape[1] * inner), i / inner % shape[1]);
                row / (shape[0] / groups).max(1) * shape[1] + column
            }
        };
        values.iter().enumerate().map(|(i, x)| x * self.factors[channel(i)]).collect()
    }
}

pub(super) fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

pub(super) fn floats(shape: &[usize], values: Vec<f64>) -> Option<Tensor> {
    let bytes: Vec<u8> = values.into_iter().flat_map(|x| (x as f32).to_le_bytes()).collect();
    Tensor::new("", DType::F32, shape.to_vec(), bytes.into()).ok()
}
