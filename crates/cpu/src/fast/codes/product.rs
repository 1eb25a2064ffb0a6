//! Products of codes and constant weights: convolutions, and rows with matrices; with what follows them.

use std::sync::Arc;

use kinglet_graph::cost::Math;
use kinglet_graph::ops::{Binary, Coded, Conv, Fun2, Gemm};
use kinglet_graph::{Def, ExecError, Node, ValueId};
use kinglet_kernels::nd::codes::{
    CodeConv, CodeShape, CodeSpans, Ending, Join, Line, Recode, Result8, code_conv,
};
use kinglet_kernels::nd::{self, Act, Layout, Order};
use kinglet_tensor::DType;

use super::function::function;
use super::operand::{Operand, Scale, bounds, codes_of, integers, numbers, operands, result_scale, scale_at};
use crate::blocked::{Image, rows_of};
use crate::codes::Table;
use crate::fast::conv::{noted, window};
use crate::lower::{BufferId, Lowering, Work};
use crate::reading::{Codes, Reading};

/// A product, before it is known where it ends.
struct Product {
    shape: CodeShape,
    order: Order,
    layouts: [Layout; 2],
    /// Images, or one for all rows.
    images: usize,
    from: Scale,
    reading: Reading,
    /// Numbers for each unit of the sums, and what is added, one an output.
    factor: Vec<f64>,
    shift: Vec<f64>,
}

/// Binds a convolution.
pub(super) fn conv(low: &mut Lowering<'_>, node: &Node, op: &Coded) -> Result<bool, ExecError> {
    let Some(conv) = op.links[0].op.downcast::<Conv>() else { return Ok(false) };
    let Some(image) = low.code_image(node.inputs[0]) else { return Ok(false) };
    let kernel = low.graph.weight(node.inputs[3]).and_then(|w| <[usize; 4]>::try_from(w.shape()).ok());
    let Some([outputs, _, ky, kx]) = kernel else { return Ok(false) };
    let Some(window) = window(&conv.window, image.size, &[ky, kx], false) else { return Ok(false) };
    let shape = CodeShape { channels: image.channels, outputs, groups: conv.groups, window };
    let layouts = [Layout::Blocked; 2];
    let Some(product) = product(low, node, op, (shape, Order::Outputs, layouts, image.images)) else {
        return Ok(false);
    };
    let x = low.codes(node, node.inputs[0])?;
    bind(low, node, op, product, x)
}

/// Binds rows of codes times a matrix.
pub(super) fn rows(low: &mut Lowering<'_>, node: &Node, op: &Coded) -> Result<bool, ExecError> {
    let turned = op.links[0].op.downcast::<Gemm>().is_some_and(|op| op.trans_b);
    let order = if turned { Order::Outputs } else { Order::Inputs };
    let matrix = low.graph.weight(node.inputs[3]).and_then(|w| <[usize; 2]>::try_from(w.shape()).ok());
    let (Some(matrix), Some(sizes)) = (matrix, low.code_sizes(node.inputs[0])) else { return Ok(false) };
    let [k, n] = if turned { [matrix[1], matrix[0]] } else { matrix };
    let rows = sizes.iter().product::<usize>() / k.max(1);
    // A result that lies in blocks would have to be carried there.
    let blocked = op.codes_out && low.code_image(node.outputs[0]).is_some();
    if sizes.last() != Some(&k) || n == 0 || blocked {
        return Ok(false);
    }
    let shape = CodeShape::rows(rows, k, n);
    let Some(product) = product(low, node, op, (shape, order, [Layout::Rows; 2], 1)) else {
        return Ok(false);
    };
    let x = low.codes_in_order(node, node.inputs[0])?;
    bind(low, node, op, product, x)
}

/// The product that a node is, if kernels can have it.
fn product(
    low: &Lowering<'_>,
    node: &Node,
    op: &Coded,
    (shape, order, layouts, images): (CodeShape, Order, [Layout; 2], usize),
) -> Option<Product> {
    let from = scale_at(low, node, 1, node.inputs[0])?;
    let outputs = shape.outputs;
    let weight = low.graph.weight(node.inputs[3])?;
    let scales = crate::blocked::constant(low.graph, node.inputs[4])?;
    let zeros = match low.graph.value(node.inputs[5]).def {
        Def::Absent => vec![0],
        _ => integers(low, node.inputs[5])?,
    };
    let many = |len: usize| len == 1 || len == outputs;
    (many(scales.len()) && many(zeros.len())).then_some(())?;
    let each = if order == Order::Inputs { 1 } else { weight.elements() / outputs };
    let zeros = zeros.iter().map(|zero| *zero as i32).collect();
    let reading = Reading::codes(Codes { signed: weight.dtype() == DType::I8, zeros, each });
    let factor = |i: usize| f64::from(from.scale) * f64::from(scales[i % scales.len()]);
    let bias = bias(low, node, op, outputs)?;
    Some(Product {
        shape,
        order,
        layouts,
        images,
        from,
        reading,
        factor: (0..outputs).map(factor).collect(),
        shift: bias.iter().map(|x| f64::from(*x)).collect(),
    })
}

/// What is added to each output.
fn bias(low: &Lowering<'_>, node: &Node, op: &Coded, outputs: usize) -> Option<Vec<f32>> {
    let first = operands(op).swap_remove(0);
    match first.get(2) {
        Some(operand) if !matches!(low.graph.value(node.inputs[operand.at]).def, Def::Absent) => {
            let bias = numbers(low, node, *operand)?;
            match bias.len() {
                1 => Some(vec![bias[0]; outputs]),
                n => (n == outputs).then_some(bias),
            }
        }
        _ => Some(vec![0.0; outputs]),
    }
}

/// What a product's codes go through in its registers, and the value that they end as.
struct Tail {
    line: Option<Line>,
    join: Option<(Join, BufferId)>,
    table: Option<Table>,
    out: ValueId,
    taken: Vec<usize>,
}

/// Adds the step.
fn bind(
    low: &mut Lowering<'_>,
    node: &Node,
    op: &Coded,
    product: Product,
    x: BufferId,
) -> Result<bool, ExecError> {
    let fail = |e: nd::NdError| ExecError::Node { node: node.name.clone(), reason: e.to_string() };
    let Some(end) = end(low, node, op, &product)? else { return Ok(false) };
    let End { ending, out, residual, taken } = end;
    let Product { shape, order, layouts, images, from, reading, .. } = product;
    let conv = CodeConv::new(low.tuning.0, shape, order, layouts, from.zero, ending).map_err(fail)?;
    let weights = low.packed(node, node.inputs[3], reading, conv.packing())?;
    let conv = Arc::new(conv.with(weights).map_err(fail)?);
    let per_row = shape.channels * shape.outputs;
    let multiply_adds = if layouts[1] == Layout::Rows { per_row } else { shape.multiply_adds() };
    let work = Work { multiply_adds, math: Math::Int8, ..Work::bytes(conv.bytes()) };
    let reads: Vec<_> = [x].into_iter().chain(residual).collect();
    low.step(&noted(low, node, taken), &reads, &[out], work, move |s| {
        let span = |id| rows_of(s, id, images);
        let (x, residual, out) = (span(x), residual.map(span), span(out));
        code_conv(conv.clone(), CodeSpans { x, given: None, residual, out })
    })
    .parts = images;
    Ok(true)
}

/// What becomes of a product's sums, and where it goes.
struct End {
    ending: Ending,
    out: BufferId,
    residual: Option<BufferId>,
    taken: Vec<usize>,
}

/// The end of a product, with its followers when it makes codes; none when kernels cannot have it.
fn end(low: &mut Lowering<'_>, node: &Node, op: &Coded, product: &Product) -> Result<Option<End>, ExecError> {
    let to = if op.codes_out { result_scale(low, node) } else { Some(Scale { scale: 1.0, zero: 0 }) };
    let (Some((lo, hi)), Some(to)) = (bounds(low, node, op, 1), to) else { return Ok(None) };
    let unit = f64::from(to.scale);
    let scaled = |list: &[f64]| list.iter().map(|x| (x / unit) as f32).collect();
    let (factor, shift) = (scaled(&product.factor), scaled(&product.shift));
    let end = |result, out| End {
        ending: Ending { factor, shift, result },
        out,
        residual: None,
        taken: Vec::new(),
    };
    if !op.codes_out {
        let image = Image::of(low.graph, node.outputs[0]);
        let out = match image.filter(|_| product.layouts[1] == Layout::Blocked) {
            Some(image) => low.make_blocked(node.outputs[0], image),
            None => low.value(node.outputs[0])?,
        };
        return Ok(Some(end(Result8::Floats(Act::Clip { lo, hi }), out)));
    }
    let Tail { line, join, table, out, taken } =
        tail(low, node, to, (product.shape.outputs, product.layouts[1]))?;
    let recode = Recode::new(to.zero, lo / to.scale, hi / to.scale);
    let result = Result8::Codes { to: recode, line, join: join.map(|(join, _)| join), table };
    let out = low.make_codes(out)?;
    Ok(Some(End { residual: join.map(|(_, buffer)| buffer), taken, ..end(result, out) }))
}

/// Follows the readers of a product's codes as far as they can be taken in, and marks them as done.
fn tail(
    low: &mut Lowering<'_>,
    node: &Node,
    own: Scale,
    outputs: (usize, Layout),
) -> Result<Tail, ExecError> {
    let mut tail = Tail { line: None, join: None, table: None, out: node.outputs[0], taken: Vec::new() };
    if !low.tuning.1 {
        return Ok(tail);
    }
    let mut own = own;
    if let Some((next, line, scale)) = along(low, tail.out, own, outputs) {
        (tail.line, own) = (Some(line), scale);
        tail.out = low.graph.nodes()[next].outputs[0];
        tail.taken.push(next);
    }
    if let Some((next, join, other)) = joined(low, tail.out, own) {
        tail.join = Some((join, low.codes(node, other)?));
        tail.out = low.graph.nodes()[next].outputs[0];
        tail.taken.push(next);
    }
    if let Some((out, table, taken)) = translated(low, tail.out) {
        tail.table = Some(table);
        tail.out = out;
        tail.taken.extend(taken);
    }
    tail.taken.iter().for_each(|node| low.done(*node));
    Ok(tail)
}

/// The sum or the product of a value, which nothing else reads, and constants, one for each output; with the scale of its
/// result.
fn along(
    low: &mut Lowering<'_>,
    id: ValueId,
    own: Scale,
    (outputs, layout): (usize, Layout),
) -> Option<(usize, Line, Scale)> {
    let next = low.only_reader(id)?;
    let node = &low.graph.nodes()[next];
    let op = node.op.downcast::<Coded>().filter(|op| op.codes_out)?;
    let Binary(fun) = *op.links[0].op.downcast::<Binary>()?;
    let first = operands(op).swap_remove(0);
    let [a, b] = first.as_slice() else { return None };
    let (side, constant) = if codes_of(low, node, *a) == Some(id) { (a, b) } else { (b, a) };
    (codes_of(low, node, *side) == Some(id) && low.code_sizes(id) == low.code_sizes(node.outputs[0]))
        .then_some(())?;
    scale_at(low, node, side.at + 1, id).filter(|seen| *seen == own)?;
    let values = numbers(low, node, *constant)?;
    // Single values are functions, which tables have.
    let shape = low.graph.tensor_type(node.inputs[constant.at])?.dims()?;
    let behind = if layout == Layout::Blocked { 3 } else { 1 };
    (values.len() == outputs
        && outputs > 1
        && shape.len().checked_sub(behind).map(|at| shape[at]) == Some(outputs))
    .then_some(())?;
    let (to, (lo, hi)) = (result_scale(low, node)?, bounds(low, node, op, 1)?);
    let per = f64::from(own.scale) / f64::from(to.scale);
    let each = |f: &dyn Fn(f64) -> f64| values.iter().map(|x| f(f64::from(*x)) as f32).collect();
    let (factor, shift) = match fun {
        Fun2::Add => (vec![per as f32; outputs], each(&|x| x / f64::from(to.scale))),
        Fun2::Mul => (each(&|x| x * per), vec![0.0; outputs]),
        _ => return None,
    };
    let recode = Recode::new(to.zero, lo / to.scale, hi / to.scale);
    Some((next, Line { factor, shift, to: recode }, to))
}

/// The sum of a value, which nothing else reads, and another one of the same shape that has been made.
fn joined(low: &mut Lowering<'_>, id: ValueId, own: Scale) -> Option<(usize, Join, ValueId)> {
    let next = low.only_reader(id)?;
    let node = &low.graph.nodes()[next];
    let op = node.op.downcast::<Coded>().filter(|op| op.codes_out)?;
    (op.links[0].op.downcast() == Some(&Binary(Fun2::Add))).then_some(())?;
    let first = operands(op).swap_remove(0);
    let sides: Vec<ValueId> = first.iter().filter_map(|side: &Operand| codes_of(low, node, *side)).collect();
    let &[a, b] = sides.as_slice() else { return None };
    let at = usize::from(a == id);
    let other = [a, b][at];
    let sizes = |id| low.code_sizes(id);
    let same = sizes(a) == sizes(b) && sizes(a) == sizes(node.outputs[0]) && a != b;
    (same && low.is_coded(other) && (a == id || b == id)).then_some(())?;
    let theirs = scale_at(low, node, first[at].at + 1, other)?;
    let seen = scale_at(low, node, first[1 - at].at + 1, id).filter(|seen| *seen == own)?;
    let (to, (lo, hi)) = (result_scale(low, node)?, bounds(low, node, op, 1)?);
    let per = |scale: f32| (f64::from(scale) / f64::from(to.scale)) as f32;
    let join = Join {
        own: per(seen.scale),
        theirs: per(theirs.scale),
        shift: -(f64::from(theirs.zero) * f64::from(theirs.scale) / f64::from(to.scale)) as f32,
        to: Recode::new(to.zero, lo / to.scale, hi / to.scale),
    };
    Some((next, join, other))
}

/// The one value, a function of `id` alone, behind which `id` and other functions of it are not read any more; the function,
/// and the nodes on the way.
fn translated(low: &mut Lowering<'_>, id: ValueId) -> Option<(ValueId, Table, Vec<usize>)> {
    let mut known: Vec<(ValueId, Option<Table>)> = vec![(id, None)];
    let mut taken: Vec<usize> = Vec::new();
    while let Some((node, out, table)) = another(low, &known, &taken) {
        known.push((out, Some(table)));
        taken.push(node);
    }
    let mut ends = known.into_iter().filter(|(value, _)| {
        let readers = low.readers_of(*value);
        readers.is_empty()
            || low.graph.outputs().contains(value)
            || readers.iter().any(|r| !taken.contains(r))
    });
    let (end, table) = ends.next()?;
    let alone = ends.next().is_none();
    Some((end, table.filter(|_| alone)?, taken))
}

/// A node that reads known functions of one value only, which makes its result one more.
fn another(
    low: &mut Lowering<'_>,
    known: &[(ValueId, Option<Table>)],
    taken: &[usize],
) -> Option<(usize, ValueId, Table)> {
    let readers: Vec<usize> = known.iter().flat_map(|(value, _)| low.readers_of(*value)).collect();
    let root = |id: ValueId| {
        let found = known.iter().find(|(value, _)| *value == id);
        found.map(|(_, table)| (known[0].0, table.clone()))
    };
    readers.into_iter().filter(|reader| !taken.contains(reader)).find_map(|reader| {
        let node = &low.graph.nodes()[reader];
        let (_, table) = function(low, node, node.op.downcast::<Coded>()?, root)?;
        Some((reader, node.outputs[0], table))
    })
}
