//! Products of numbers that are rounded to codes as they come: the spellings that exporters have for them become one
//! [`DynamicProduct`], and products of floats become some where integers are asked for.

use std::sync::Arc;

use kinglet_tensor::DType;

use super::codes::fits_signed;
use super::look::Look;
use super::prune::prune;
use super::rewrite::Rewrite;
use crate::ops::*;
use crate::{BuildError, Def, Graph, Node, ValueId};

/// Fuses `DynamicQuantize`, the product of the codes that it makes with constant ones, and the scales of both. The value is the
/// same one but for rounding in f32.
pub fn fuse_dynamic(graph: &Graph) -> Result<Graph, BuildError> {
    replace(graph, |look, node| look.of_integers(node).or_else(|| look.of_numbers(node)))
}

/// Rounds the inputs and the weights of products with constant floats to 8 bits: each row, or image, and each output with a
/// scale of its own. Depthwise convolutions and those of few channels stay as they are: moving codes is all they would do.
pub fn round_products(graph: &Graph) -> Result<Graph, BuildError> {
    replace(graph, |look, node| look.rounded(node))
}

fn replace<'a>(
    graph: &'a Graph,
    find: impl Fn(&Look<'a>, &'a Node) -> Option<Found>,
) -> Result<Graph, BuildError> {
    let look = Look::at(graph);
    let mut rewrite = Rewrite::of(graph)?;
    for node in graph.nodes() {
        let Some(Found { op, inputs }) = find(&look, node) else {
            rewrite.keep(node)?;
            continue;
        };
        let inputs: Vec<ValueId> =
            inputs.into_iter().map(|id| id.unwrap_or_else(|| rewrite.absent())).collect();
        let note = format!("{}, rounded as it runs", op.op.name());
        rewrite.put(Arc::new(op), &inputs, &node.outputs, note)?;
    }
    prune(&rewrite.finish()?)
}

struct Found {
    op: DynamicProduct,
    inputs: Vec<Option<ValueId>>,
}

/// Input channels below which a convolution is not rounded.
const FEW: usize = 16;

impl<'a> Look<'a> {
    /// `cast(product of codes) * (scale * scales of weights)`.
    fn of_integers(&self, node: &'a Node) -> Option<Found> {
        (node.op.downcast() == Some(&Binary(Fun2::Mul))).then_some(())?;
        let [a, b] = [node.inputs[0], node.inputs[1]];
        [(a, b), (b, a)].into_iter().find_map(|(sum, unit)| {
            let (cast, _) = self.made_by::<Cast>(sum).filter(|_| self.dims_known(sum))?;
            let (product, IntegerProduct { op }) = self.made_by::<IntegerProduct>(cast.inputs[0])?;
            let (made, _) = self.dynamic(product.inputs[0])?;
            let zero = product.inputs.get(2).filter(|zero| made.outputs.get(2) == Some(*zero));
            zero?;
            let scale = *made.outputs.get(1)?;
            let [s, t] = self.binary(unit, Fun2::Mul)?;
            let scales = if s == scale { t } else { s };
            (s == scale || t == scale).then_some(())?;
            let weights = [Some(product.inputs[1]), Some(scales), self.given(product, 3)];
            // Many scales would stand beside columns of an image, not beside its channels.
            let one = self.graph.weight(scales)?.elements() == 1;
            (one || op.downcast::<Conv>().is_none()).then_some(())?;
            self.over_codes(op.clone(), made.inputs[0], weights, vec![])
        })
    }

    /// A product of what `Dequantize` makes of codes that `DynamicQuantize` made, and of constant codes.
    fn of_numbers(&self, node: &'a Node) -> Option<Found> {
        plain_product(&*node.op).then_some(())?;
        let (numbers, _) = self.made_by::<Dequantize>(node.inputs[0])?;
        let (made, _) = self.dynamic(numbers.inputs[0])?;
        (numbers.inputs.get(1..3)? == made.outputs.get(1..3)?).then_some(())?;
        let (w, op) = self.made_by::<Dequantize>(node.inputs[1])?;
        let weight = self.graph.weight(w.inputs[0])?;
        let along = DynamicProduct { op: node.op.clone(), each: false }.along() as i64;
        let axis = if op.axis < 0 { op.axis + weight.shape().len() as i64 } else { op.axis };
        let scales = self.graph.weight(*w.inputs.get(1)?)?;
        (op.block == 0 && op.to.is_none() && (axis == along || scales.elements() == 1)).then_some(())?;
        let weights = [Some(w.inputs[0]), Some(w.inputs[1]), self.given(w, 2)];
        self.over_codes(node.op.clone(), made.inputs[0], weights, node.inputs[2..].to_vec())
    }

    /// The node that makes codes of one scale as it runs, of f32.
    fn dynamic(&self, codes: ValueId) -> Option<(&'a Node, DynamicQuantize)> {
        let (node, op) = self.made_by::<DynamicQuantize>(codes)?;
        let float = self.graph.tensor_type(node.inputs[0]).is_some_and(|ty| ty.dtype == DType::F32);
        (float && op.outer == 0).then_some((node, *op))
    }

    fn given(&self, node: &Node, i: usize) -> Option<ValueId> {
        node.inputs.get(i).copied().filter(|id| !matches!(self.graph.value(*id).def, Def::Absent))
    }

    fn dims_known(&self, id: ValueId) -> bool {
        self.dims(id).is_some()
    }

    /// The product with these constant codes, scales and zero points, if they are of a form that kernels have.
    fn over_codes(
        &self,
        op: Arc<dyn Op>,
        x: ValueId,
        weights: [Option<ValueId>; 3],
        rest: Vec<ValueId>,
    ) -> Option<Found> {
        let op = DynamicProduct { op, each: false };
        let along = op.along();
        let [codes, scales, zero] = weights.map(|id| id.and_then(|id| self.graph.weight(id)));
        let (codes, scales) = (codes?, scales.filter(|t| t.dtype() == DType::F32)?);
        let outputs = *codes.shape().get(along)?;
        let many = |n: usize| n == 1 || n == outputs;
        let rank = if op.op.downcast::<Conv>().is_some() { 4 } else { 2 };
        let zeros = weights[2].is_none() || zero.is_some_and(|zero| many(zero.elements()));
        let flat = scales.shape().len() <= 1;
        (codes.shape().len() == rank && flat && many(scales.elements()) && zeros).then_some(())?;
        let inner = codes.shape()[along + 1..].iter().product();
        fits_signed(codes, zero, inner).then_some(())?;
        let inputs = [Some(x)].into_iter().chain(weights).chain(rest.into_iter().map(Some));
        Some(Found { op, inputs: inputs.collect() })
    }

    /// A product of floats with constant ones.
    fn rounded(&self, node: &'a Node) -> Option<Found> {
        plain_product(&*node.op).then_some(())?;
        let weight = self.graph.weight(node.inputs[1]).filter(|w| w.dtype() == DType::F32)?;
        let rank = weight.shape().len();
        let made = self.dims(node.inputs[0])?;
        self.graph.weight(node.inputs[0]).is_none().then_some(())?;
        match node.op.downcast::<Conv>() {
            Some(conv) => {
                let deep = weight.shape().get(1).is_some_and(|channels| *channels >= FEW);
                (rank == 4 && conv.groups == 1 && deep).then_some(())?;
            }
            None => (rank == 2 && !made.is_empty()).then_some(())?,
        }
        let op = DynamicProduct { op: node.op.clone(), each: true };
        let inputs = [Some(node.inputs[0]), Some(node.inputs[1]), None, None];
        let rest = node.inputs[2..].iter().map(|id| Some(*id));
        Some(Found { op, inputs: inputs.into_iter().chain(rest).collect() })
    }
}

/// Products whose second side can be weights.
fn plain_product(op: &dyn Op) -> bool {
    let gemm = |op: &Gemm| !op.trans_a && op.alpha == 1.0 && op.beta == 1.0;
    op.downcast::<MatMul>().is_some()
        || op.downcast::<Conv>().is_some()
        || op.downcast::<Gemm>().is_some_and(gemm)
}

#[cfg(test)]
mod tests {
    use kinglet_tensor::{Bytes, Tensor};

    use super::*;
    use crate::{GraphBuilder, TensorType};

    fn weight(b: &mut GraphBuilder, name: &str, dtype: DType, shape: &[usize]) -> ValueId {
        let bytes = vec![1; Tensor::bytes_of(dtype, shape).expect("small")];
        let tensor = Tensor::new(name, dtype, shape.to_vec(), Bytes::from(bytes)).expect("whole");
        b.weight(tensor).expect("new")
    }

    fn ops(graph: &Graph) -> Vec<&'static str> {
        graph.nodes().iter().map(|node| node.op.name()).collect()
    }

    /// What ONNX Runtime's quantiser writes: two products of the same rounded numbers.
    fn spelled(scales: usize) -> Graph {
        let mut b = GraphBuilder::new();
        let x = b.input("x", TensorType::fixed(DType::F32, &[2, 5, 8])).expect("new");
        let made =
            b.push(&["codes", "scale", "zero"], Arc::new(DynamicQuantize::default()), &[x], String::new());
        let [codes, scale, zero] = made.expect("typed")[..] else { panic!("three") };
        for i in 0..2 {
            let w = weight(&mut b, &format!("w{i}"), DType::I8, &[8, 6]);
            let z = weight(&mut b, &format!("z{i}"), DType::I8, &[scales]);
            let s = weight(&mut b, &format!("s{i}"), DType::F32, &[scales]);
            let op = IntegerProduct { op: Arc::new(MatMul) };
            let sums = b.node(&format!("sums{i}"), op, &[codes, w, zero, z]).expect("typed");
            let cast = b.node(&format!("cast{i}"), Cast::to(DType::F32), &[sums]).expect("typed");
            let unit = b.node(&format!("unit{i}"), Binary(Fun2::Mul), &[scale, s]).expect("typed");
            let y = b.node(&format!("y{i}"), Binary(Fun2::Mul), &[cast, unit]).expect("typed");
            b.output(y);
        }
        b.finish()
    }

    #[test]
    fn spelled_products_become_one_each_and_come_back() -> Result<(), BuildError> {
        for scales in [1, 6] {
            let fused = fuse_dynamic(&spelled(scales))?;
            assert_eq!(ops(&fused), ["DynamicProduct"; 2]);
            let plain = super::super::decompose(&fused)?;
            assert_eq!(ops(&plain)[..4], ["DynamicQuantize", "Dequantize", "Dequantize", "MatMul"]);
            assert_eq!(ops(&fuse_dynamic(&plain)?), ["DynamicProduct"; 2]);
        }
        Ok(())
    }

    #[test]
    fn depthwise_windows_stay() -> Result<(), BuildError> {
        let mut b = GraphBuilder::new();
        let x = b.input("x", TensorType::fixed(DType::F32, &[3, 8]))?;
        let (w, deep) =
            (weight(&mut b, "w", DType::F32, &[8, 4]), weight(&mut b, "c", DType::F32, &[4, 1, 3, 3]));
        let y = b.node("y", MatMul, &[x, w])?;
        let image = b.input("image", TensorType::fixed(DType::F32, &[1, 4, 9, 9]))?;
        let conv = b.node("conv", Conv { window: Window::default(), groups: 4 }, &[image, deep])?;
        [y, conv].into_iter().for_each(|id| b.output(id));
        assert_eq!(ops(&round_products(&b.finish())?), ["DynamicProduct", "Conv"]);
        Ok(())
    }
}
