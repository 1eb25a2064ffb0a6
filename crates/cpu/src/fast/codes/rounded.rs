//! Products of numbers that are rounded to codes as they come, with what follows them.

use std::sync::Arc;

use kinglet_graph::cost::Math;
use kinglet_graph::ops::{Conv, DynamicProduct};
use kinglet_graph::{Def, ExecError, Node, ValueId};
use kinglet_kernels::nd::codes::dynamic::{Numbers, range_floats, ranges, round_by, round_rows};
use kinglet_kernels::nd::codes::{CodeConv, CodeShape, CodeSpans, Ending, Result8, Scales, code_conv};
use kinglet_kernels::nd::{self, Layout, Order};
use kinglet_tensor::DType;

use super::operand::integers;
use crate::blocked::{Image, constant, rows_of};
use crate::codes::Rounded;
use crate::fast::chain::{Chain, Outputs};
use crate::fast::conv::{noted, window};
use crate::lower::{Lowering, Work, op_of};
use crate::reading::{Codes, Reading};

/// A product whose form kernels have.
struct Product {
    shape: CodeShape,
    order: Order,
    numbers: Numbers,
    scales: Scales,
    /// Images of the result; none for rows.
    out: Option<Image>,
}

/// Binds a product, when kernels have its form.
pub(crate) fn rounded(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = op_of::<DynamicProduct>(node)?;
    let product = match op.op.downcast::<Conv>() {
        Some(conv) => images(low, node, op, conv),
        None => rows(low, node, op),
    };
    let Some(product) = product.filter(|_| low.graph.weight(node.inputs[0]).is_none()) else {
        return Ok(false);
    };
    let outputs = product.shape.outputs;
    let (Some(bias), Some((reading, factor))) = (bias(low, node, outputs), weights(low, node, &product))
    else {
        return Ok(false);
    };
    let along = if product.out.is_some() { Outputs::Channels } else { Outputs::Last };
    let chain = Chain::follow(low, node, along, Some(bias), outputs);
    bind(low, node, &product, chain, (reading, factor))?;
    Ok(true)
}

fn images(low: &Lowering<'_>, node: &Node, op: &DynamicProduct, conv: &Conv) -> Option<Product> {
    let image = Image::of(low.graph, node.inputs[0])?;
    let [outputs, _, ky, kx] = <[usize; 4]>::try_from(low.graph.weight(node.inputs[1])?.shape()).ok()?;
    let window = window(&conv.window, image.size, &[ky, kx], false)?;
    let shape = CodeShape { channels: image.channels, outputs, groups: conv.groups, window };
    let Image { images, channels, .. } = image;
    let numbers = Numbers { images, channels, pixels: image.pixels(), layout: Layout::Blocked };
    let out = Some(Image { images, channels: outputs, size: window.output()? });
    let scales = if op.each { Scales::Images } else { Scales::One };
    Some(Product { shape, order: Order::Outputs, numbers, scales, out })
}

fn rows(low: &Lowering<'_>, node: &Node, op: &DynamicProduct) -> Option<Product> {
    let order = if op.along() == 0 { Order::Outputs } else { Order::Inputs };
    let matrix = <[usize; 2]>::try_from(low.graph.weight(node.inputs[1])?.shape()).ok()?;
    let [k, outputs] = if order == Order::Outputs { [matrix[1], matrix[0]] } else { matrix };
    let sizes = low.sizes(node.inputs[0]).filter(|sizes| sizes.last() == Some(&k) && outputs > 0)?;
    let rows = sizes[..sizes.len() - 1].iter().product();
    let numbers = Numbers { images: 1, channels: k, pixels: rows, layout: Layout::Rows };
    let scales = if op.each { Scales::Pixels } else { Scales::One };
    Some(Product { shape: CodeShape::rows(rows, k, outputs), order, numbers, scales, out: None })
}

/// What is added to each output; none when only the run knows.
fn bias(low: &Lowering<'_>, node: &Node, outputs: usize) -> Option<Vec<f32>> {
    let given = |id: &&ValueId| !matches!(low.graph.value(**id).def, Def::Absent);
    let Some(id) = node.inputs.get(4).filter(given) else { return Some(vec![0.0; outputs]) };
    let bias = constant(low.graph, *id)?;
    match bias.len() {
        1 => Some(vec![bias[0]; outputs]),
        n => (n == outputs).then_some(bias),
    }
}

/// How weights are read, and the scales of those that are codes.
fn weights(low: &Lowering<'_>, node: &Node, product: &Product) -> Option<(Reading, Option<Vec<f32>>)> {
    let (weight, outputs) = (low.graph.weight(node.inputs[1])?, product.shape.outputs);
    if weight.dtype() == DType::F32 {
        return Some((Reading::times(&[], 1), None));
    }
    let scales = constant(low.graph, node.inputs[2])?;
    let zeros = match low.graph.value(node.inputs[3]).def {
        Def::Absent => vec![0],
        _ => integers(low, node.inputs[3])?,
    };
    let many = |len: usize| len == 1 || len == outputs;
    (many(scales.len()) && many(zeros.len())).then_some(())?;
    let each = if product.order == Order::Inputs { 1 } else { weight.elements() / outputs };
    let zeros = zeros.iter().map(|zero| *zero as i32).collect();
    let codes = Codes { signed: weight.dtype() == DType::I8, zeros, each };
    Some((Reading::codes(codes), Some((0..outputs).map(|i| scales[i % scales.len()]).collect())))
}

/// Adds the steps: the codes of what is read, unless another product has wanted them, and the product.
fn bind(
    low: &mut Lowering<'_>,
    node: &Node,
    product: &Product,
    chain: Chain,
    (reading, factor): (Reading, Option<Vec<f32>>),
) -> Result<(), ExecError> {
    let fail = |e: nd::NdError| ExecError::Node { node: node.name.clone(), reason: e.to_string() };
    let Product { shape, order, numbers, scales, out } = *product;
    let (rounds, factors) = (factor.is_none(), factor.unwrap_or_else(|| vec![1.0; shape.outputs]));
    let factor = factors.iter().zip(&chain.scale).map(|(a, b)| a * b).collect();
    let ending = Ending { factor, shift: chain.shift, result: Result8::Floats(chain.act) };
    let layouts = [Layout::Blocked, if out.is_some() { Layout::Blocked } else { Layout::Rows }];
    let conv = CodeConv::new(low.tuning.0, shape, order, layouts, 0, ending).map_err(fail)?;
    let conv = conv.rounded(scales, rounds).map_err(fail)?;
    let weights = low.packed(node, node.inputs[1], reading, conv.packing())?;
    let conv = Arc::new(conv.with(weights).map_err(fail)?);
    let Rounded { codes, pairs } = low.rounded(node, node.inputs[0], numbers, scales)?;
    let residual = match (chain.residual, out) {
        (Some(id), Some(out)) => Some(low.blocked(node, id, out)?),
        (Some(id), None) => Some(low.value(id)?),
        (None, _) => None,
    };
    let to = match out {
        Some(out) => low.make_blocked(chain.out, out),
        None => low.value(chain.out)?,
    };
    let reads: Vec<_> = [codes, pairs].into_iter().chain(residual).collect();
    let per_row = shape.channels * shape.outputs;
    let multiply_adds = if out.is_some() { shape.multiply_adds() } else { per_row };
    let work = Work { multiply_adds, math: Math::Int8, ..Work::bytes(conv.bytes()) };
    let noted = noted(low, node, chain.taken);
    low.step(&noted, &reads, &[to], work, move |s| {
        let span = |id| rows_of(s, id, numbers.images);
        let given = Some(rows_of(s, pairs, 1));
        let spans = CodeSpans { x: span(codes), given, residual: residual.map(span), out: span(to) };
        code_conv(conv.clone(), spans)
    });
    Ok(())
}

impl Lowering<'_> {
    /// The codes of numbers, with what they stand for; steps make them of what there is, once for all products.
    fn rounded(
        &mut self,
        node: &Node,
        id: ValueId,
        numbers: Numbers,
        scales: Scales,
    ) -> Result<Rounded, ExecError> {
        if let Some(found) = self.codes.rounded(id, scales) {
            return Ok(found);
        }
        let x = match Image::of(self.graph, id).filter(|_| numbers.layout == Layout::Blocked) {
            Some(image) => self.blocked(node, id, image)?,
            None => self.value(id)?,
        };
        let each = Layout::Blocked.floats(numbers.channels, numbers.pixels).unwrap_or(usize::MAX);
        let codes = self.bytes(numbers.images, each);
        let count = match scales {
            Scales::One => 1,
            Scales::Images => numbers.images,
            Scales::Pixels => numbers.images * numbers.pixels,
        };
        let pairs = self.floats(1, 2 * count);
        let spans = move |s: &crate::lower::Spans| {
            (rows_of(s, x, numbers.images), rows_of(s, codes, numbers.images), rows_of(s, pairs, 1))
        };
        if scales == Scales::Pixels {
            self.step(node, &[x], &[codes, pairs], Work::default(), move |s| {
                let (x, codes, pairs) = spans(s);
                round_rows(numbers, x, codes, pairs)
            });
        } else {
            let found = self.floats(1, range_floats(&numbers));
            self.step(node, &[x], &[found], Work::default(), move |s| {
                ranges(numbers, spans(s).0, rows_of(s, found, 1))
            });
            self.step(node, &[x, found], &[codes, pairs], Work::default(), move |s| {
                let (x, codes, pairs) = spans(s);
                round_by(numbers, rows_of(s, found, 1), scales == Scales::Images, [x, codes, pairs])
            });
        }
        let made = Rounded { codes, pairs };
        self.codes.set_rounded(id, scales, made);
        Ok(made)
    }
}
