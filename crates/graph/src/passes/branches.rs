//! Branches over one input that are added up become one convolution: reparameterisation of MobileOne, RepVGG and FastViT blocks.
//!
//! `conv(x, v) + conv(x, w) = conv(x, v + w)`, the smaller kernel in the middle of the larger one; `x` itself is a kernel of one
//! pixel, and a factor or norm of its channels scales that kernel. The new weights are computed in f64; the result differs
//! from the sum of branches by rounding only. Deliberately absent: branches of different groups, strides or pools, which
//! no convolution of the same cost computes.

use std::collections::HashMap;
use std::sync::Arc;

use super::affine::{Look, Product, f64s, floats};
use super::log::Log;
use super::rewrite::Rewrite;
use crate::ops::{BatchNorm, Binary, Conv, Fun2, Pads, Window};
use crate::{BuildError, Def, Graph, Node, ValueId};

/// Adds branches of convolutions up.
pub fn merge_branches(graph: &Graph) -> Result<Graph, BuildError> {
    merge(graph, &mut Log::default())
}

pub(super) fn merge(graph: &Graph, log: &mut Log) -> Result<Graph, BuildError> {
    let forms = Forms::of(graph);
    let roots = forms.roots();
    let mut gone = vec![false; graph.nodes().len()];
    roots.iter().for_each(|id| forms.mark(*id, &mut gone));
    let mut rewrite = Rewrite::of(graph)?;
    for (index, node) in graph.nodes().iter().enumerate() {
        if !gone[index] {
            rewrite.keep(node)?;
        } else if roots.contains(&node.outputs[0]) {
            forms.write(node, &mut rewrite, log)?;
        }
    }
    rewrite.finish()
}

/// A value as a convolution of another one.
#[derive(Clone, Debug)]
struct Form {
    of: ValueId,
    /// Sizes of the kernel; none for a scaled input.
    kernel: Option<Kernel>,
    /// Sums in it.
    sums: usize,
    made: Made,
}

/// What convolutions that are added up have in common, and the largest kernel.
#[derive(Clone, Debug, PartialEq)]
struct Kernel {
    strides: [usize; 2],
    groups: usize,
    /// `[O, I / groups, height, width]`.
    shape: [usize; 4],
}

#[derive(Clone, Debug)]
enum Made {
    /// The node is a convolution.
    Conv,
    /// The node changes each channel of an operand on its own.
    Affine(ValueId),
    /// The node adds two operands, or subtracts the second one.
    Sum([ValueId; 2], bool),
}

struct Forms<'a> {
    look: Look<'a>,
    forms: HashMap<ValueId, (usize, Form)>,
}

impl<'a> Forms<'a> {
    fn of(graph: &'a Graph) -> Self {
        let mut this = Self { look: Look::at(graph), forms: HashMap::new() };
        for (index, node) in graph.nodes().iter().enumerate() {
            if let Some(form) = this.conv(node).or_else(|| this.sum(node)).or_else(|| this.affine(node)) {
                this.forms.insert(node.outputs[0], (index, form));
            }
        }
        this
    }

    /// The form of an operand that nothing else reads.
    fn operand(&self, id: ValueId) -> Option<&Form> {
        self.look.only_reader(id)?;
        self.forms.get(&id).map(|(_, form)| form)
    }

    /// A convolution of planes whose windows lie around each pixel.
    fn conv(&self, node: &Node) -> Option<Form> {
        let op = node.op.downcast::<Conv>()?;
        self.look.product(node)?;
        let shape = <[usize; 4]>::try_from(self.look.floats(node.inputs[1])?.shape()).ok()?;
        let pads = match &op.window.pads {
            Pads::Given(pads) if pads.is_empty() => [0; 4],
            Pads::Given(pads) => <[i64; 4]>::try_from(pads.as_slice()).ok()?,
            Pads::SameUpper | Pads::SameLower => return None,
        };
        let centred = (0..2).all(|i| {
            let half = (shape[2 + i] / 2) as i64;
            shape[2 + i] % 2 == 1 && pads[i] == half && pads[i + 2] == half && op.window.dilation(i) == 1
        });
        let strides = [op.window.stride(0), op.window.stride(1)];
        let kernel = Some(Kernel { strides, groups: op.groups.max(1), shape });
        centred.then_some(Form { of: node.inputs[0], kernel, sums: 0, made: Made::Conv })
    }

    fn sum(&self, node: &Node) -> Option<Form> {
        let minus = match node.op.downcast::<Binary>()? {
            Binary(Fun2::Add) => false,
            Binary(Fun2::Sub) => true,
            _ => return None,
        };
        let &[a, b] = node.inputs.as_slice() else { return None };
        let shape = |id: ValueId| self.look.graph.tensor_type(id).map(|ty| &ty.shape);
        if shape(a)? != shape(b)? {
            return None;
        }
        let source =
            |id: ValueId| self.operand(id).map_or((id, None, 0), |f| (f.of, f.kernel.clone(), f.sums));
        let ((x, first, n), (y, second, m)) = (source(a), source(b));
        let kernel = Some(joined(first, second).filter(|_| x == y)?);
        Some(Form { of: x, kernel, sums: n + m + 1, made: Made::Sum([a, b], minus) })
    }

    fn affine(&self, node: &Node) -> Option<Form> {
        let is_one = node.op.downcast::<BatchNorm>().is_some() || node.op.downcast::<Binary>().is_some();
        let id = *node.inputs.iter().find(|id| is_one && self.look.graph.weight(**id).is_none())?;
        let ty = self.look.graph.tensor_type(id).filter(|ty| ty.rank() == 4)?;
        let product = Product::channels(ty.shape[1].fixed()?, 4);
        self.look.affine(node, id, product)?;
        let made = Made::Affine(id);
        Some(match self.operand(id) {
            Some(form) => Form { made, ..form.clone() },
            None => Form { of: id, kernel: None, sums: 0, made },
        })
    }

    /// The values that sums end in.
    fn roots(&self) -> Vec<ValueId> {
        let graph = self.look.graph;
        let inner = |id: ValueId| {
            let reader = self.look.only_reader(id).map(|index| graph.nodes()[index].outputs[0]);
            let form = reader.and_then(|id| self.forms.get(&id)).map(|(_, form)| &form.made);
            matches!(form, Some(Made::Affine(_) | Made::Sum(..)))
        };
        let made = graph.nodes().iter().map(|node| node.outputs[0]);
        made.filter(|id| self.forms.get(id).is_some_and(|(_, form)| form.sums > 0) && !inner(*id)).collect()
    }

    /// Marks the nodes of a form.
    fn mark(&self, id: ValueId, gone: &mut [bool]) {
        let Some((index, form)) = self.forms.get(&id) else { return };
        gone[*index] = true;
        let operands = match form.made {
            Made::Conv => [None, None],
            Made::Affine(operand) => [Some(operand), None],
            Made::Sum([a, b], _) => [Some(a), Some(b)],
        };
        operands
            .into_iter()
            .flatten()
            .filter(|id| self.operand(*id).is_some())
            .for_each(|id| self.mark(id, gone));
    }

    /// Adds the convolution that stands for a root.
    fn write(&self, node: &Node, rewrite: &mut Rewrite<'_>, log: &mut Log) -> Result<(), BuildError> {
        let Some((_, form)) = self.forms.get(&node.outputs[0]) else { return rewrite.keep(node) };
        let Some(kernel) = &form.kernel else { return rewrite.keep(node) };
        let Some((weights, bias)) = self.numbers(Some(form), node, kernel) else {
            return rewrite.keep(node);
        };
        let weight = rewrite.constant(&format!("{}.weight", node.name), floats(&kernel.shape, weights))?;
        let bias = rewrite.constant(&format!("{}.bias", node.name), floats(&kernel.shape[..1], bias))?;
        let half = [kernel.shape[2], kernel.shape[3]].map(|n| (n / 2) as i64);
        let pads = Pads::Given(vec![half[0], half[1], half[0], half[1]]);
        let window = Window { strides: kernel.strides.to_vec(), dilations: Vec::new(), pads };
        let note = format!("{} branches added up", form.sums + 1);
        log.did("branches", node, note.clone());
        let op = Arc::new(Conv { window, groups: kernel.groups });
        rewrite.put(op, &[form.of, weight, bias], &node.outputs, note)
    }

    /// Weights of this kernel, and summands of the channels, of a form that `node` makes; of the input itself without one.
    fn numbers(&self, form: Option<&Form>, node: &Node, kernel: &Kernel) -> Option<(Vec<f64>, Vec<f64>)> {
        let Some(form) = form else { return Some((identity(kernel), vec![0.0; kernel.shape[0]])) };
        let operand = |id: ValueId| {
            let form = self.operand(id);
            let made = match (form, &self.look.graph.value(id).def) {
                (Some(_), Def::Node(index, _)) => &self.look.graph.nodes()[*index],
                _ => node,
            };
            self.numbers(form, made, kernel)
        };
        match form.made {
            Made::Conv => {
                let weight = self.look.floats(node.inputs[1])?;
                let bias = node.inputs.get(2).and_then(|id| self.look.floats(*id)).map(f64s);
                let bias = bias.unwrap_or_else(|| vec![0.0; kernel.shape[0]]);
                Some((centred(&f64s(weight), weight.shape(), kernel), bias))
            }
            Made::Affine(id) => {
                let (mut weights, mut bias) = operand(id)?;
                let product = Product::channels(kernel.shape[0], 4);
                let (factors, summands) = self.look.affine(node, id, product)?;
                let row = weights.len() / kernel.shape[0].max(1);
                weights.iter_mut().enumerate().for_each(|(i, w)| *w *= factors[i / row]);
                bias.iter_mut().enumerate().for_each(|(c, b)| *b = *b * factors[c] + summands[c]);
                Some((weights, bias))
            }
            Made::Sum([a, b], minus) => {
                let ((mut weights, mut bias), (v, c)) = (operand(a)?, operand(b)?);
                let sign = if minus { -1.0 } else { 1.0 };
                weights.iter_mut().zip(v).for_each(|(w, v)| *w += sign * v);
                bias.iter_mut().zip(c).for_each(|(b, c)| *b += sign * c);
                Some((weights, bias))
            }
        }
    }
}

/// The kernel of a sum; none when no convolution of the same cost computes it.
fn joined(a: Option<Kernel>, b: Option<Kernel>) -> Option<Kernel> {
    match (a, b) {
        (Some(a), Some(b)) => {
            let alike = a.strides == b.strides && a.groups == b.groups && a.shape[..2] == b.shape[..2];
            let within = |a: &Kernel, b: &Kernel| a.shape.iter().zip(&b.shape).all(|(a, b)| a <= b);
            match () {
                () if !alike => None,
                () if within(&a, &b) => Some(b),
                () if within(&b, &a) => Some(a),
                () => None,
            }
        }
        (Some(kernel), None) | (None, Some(kernel)) => {
            let keeps = kernel.strides == [1, 1] && kernel.shape[0] == kernel.shape[1] * kernel.groups;
            keeps.then_some(kernel)
        }
        (None, None) => None,
    }
}

/// A kernel that lets its input through.
fn identity(kernel: &Kernel) -> Vec<f64> {
    let [o, i, h, w] = kernel.shape;
    let mut values = vec![0.0; o * i * h * w];
    (0..o).for_each(|c| values[((c * i + c % i) * h + h / 2) * w + w / 2] = 1.0);
    values
}

/// A smaller kernel in the middle of zeros.
fn centred(values: &[f64], shape: &[usize], kernel: &Kernel) -> Vec<f64> {
    let [o, i, h, w] = kernel.shape;
    let (height, width) = (shape[2], shape[3]);
    let (top, left) = ((h - height) / 2, (w - width) / 2);
    let mut wide = vec![0.0; o * i * h * w];
    for (row, values) in values.chunks_exact(width).enumerate() {
        let (plane, y) = (row / height, row % height);
        let at = (plane * h + top + y) * w + left;
        wide[at..at + width].copy_from_slice(values);
    }
    wide
}

#[cfg(test)]
mod tests {
    use kinglet_tensor::{DType, Tensor};

    use super::*;
    use crate::ops::Op;
    use crate::{GraphBuilder, TensorType};

    /// A graph over `x` of four channels; weights count up.
    struct Blocks {
        b: GraphBuilder,
        x: ValueId,
    }

    impl Blocks {
        fn new() -> Self {
            let mut b = GraphBuilder::new();
            let x = b.input("x", TensorType::fixed(DType::F32, &[1, 4, 6, 6])).expect("new");
            Self { b, x }
        }

        fn put(&mut self, name: &str, op: impl Op, inputs: &[ValueId]) -> ValueId {
            self.b.node(name, op, inputs).expect("typed")
        }

        fn floats(&mut self, name: &str, shape: &[usize]) -> ValueId {
            let count = shape.iter().product::<usize>();
            let tensor = floats(shape, (1..=count).map(|i| i as f64).collect()).expect("sizes agree");
            self.b.weight_as(name, tensor).expect("new")
        }

        fn conv(&mut self, name: &str, side: usize, groups: usize, stride: usize) -> ValueId {
            let weight = self.floats(&format!("{name}.w"), &[4, 4 / groups, side, side]);
            let pads = Pads::Given(vec![(side / 2) as i64; 4]);
            let window = Window { strides: vec![stride; 2], dilations: Vec::new(), pads };
            self.put(name, Conv { window, groups }, &[self.x, weight])
        }

        fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> ValueId {
            self.put(name, Binary(Fun2::Add), &[a, b])
        }

        /// Ops that are left when `out` is the result, and the weights of the last one.
        fn merged(mut self, out: ValueId) -> (Vec<&'static str>, Option<Tensor>) {
            self.b.output(out);
            let graph = merge_branches(&self.b.finish()).expect("typed");
            let last = graph.nodes().last().and_then(|node| graph.weight(*node.inputs.get(1)?)).cloned();
            (graph.nodes().iter().map(|node| node.op.name()).collect(), last)
        }
    }

    #[test]
    fn kernels_meet_in_their_middle() {
        let mut m = Blocks::new();
        let (wide, narrow) = (m.conv("wide", 3, 4, 1), m.conv("narrow", 1, 4, 1));
        let sum = m.add("sum", wide, narrow);
        let all = m.add("all", sum, m.x);
        let (ops, weight) = m.merged(all);
        assert_eq!(ops, ["Conv"]);
        let weight = f64s(&weight.expect("constant"));
        assert_eq!(weight[..9], [1.0, 2.0, 3.0, 4.0, 5.0 + 1.0 + 1.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(weight[9 + 4], 14.0 + 2.0 + 1.0);
    }

    #[test]
    fn factors_of_channels_go_along() {
        let mut m = Blocks::new();
        let (mixed, gamma) = (m.conv("mixed", 3, 4, 1), m.floats("gamma", &[4, 1, 1]));
        let difference = m.put("difference", Binary(Fun2::Sub), &[mixed, m.x]);
        let scaled = m.put("scaled", Binary(Fun2::Mul), &[difference, gamma]);
        let all = m.add("all", m.x, scaled);
        let (ops, weight) = m.merged(all);
        assert_eq!(ops, ["Conv"]);
        assert_eq!(f64s(&weight.expect("constant"))[9 + 4], 2.0 * (14.0 - 1.0) + 1.0);
    }

    #[test]
    fn what_no_convolution_of_the_same_cost_computes_stays() {
        let stays = |[a, b]: [(usize, usize, usize); 2]| {
            let mut m = Blocks::new();
            let (a, b) = (m.conv("a", a.0, a.1, a.2), m.conv("b", b.0, b.1, b.2));
            let Ok(sum) = m.b.node("sum", Binary(Fun2::Add), &[a, b]) else { return };
            assert_eq!(m.merged(sum).0, ["Conv", "Conv", "Binary"]);
        };
        stays([(3, 4, 1), (1, 1, 1)]);
        stays([(3, 1, 1), (3, 2, 1)]);
        let mut m = Blocks::new();
        let conv = m.conv("conv", 3, 4, 1);
        let twice = m.add("twice", conv, conv);
        assert_eq!(m.merged(twice).0, ["Conv", "Binary"], "a branch that two operands read");
    }
}
