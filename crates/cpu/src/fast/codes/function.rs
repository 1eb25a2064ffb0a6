//! Functions of codes, element by element: of one value a table of what stands for each code, of two values pairs.

use std::sync::Arc;

use kinglet_graph::ops::{Binary, Coded, Fun2, Source};
use kinglet_graph::{ExecError, Node, ValueId};
use kinglet_kernels::nd::codes::{self, Fun, Pairing, Recode};
use kinglet_kernels::nd::{Axes, BLOCK};
use kinglet_tensor::DType;

use super::operand::{Operand, Scale, bounds, codes_of, numbers, operands, result_scale, scale_at};
use crate::blocked::{Image, rows_of};
use crate::codes::Table;
use crate::fast::elementwise::broadcast;
use crate::host::coded::compute;
use crate::host::{Arg, Call, View};
use crate::lower::{BufferId, Lowering, Work};

/// Binds a function of one value's codes; a step computes it when somebody reads it.
pub(super) fn table(low: &mut Lowering<'_>, node: &Node, op: &Coded) -> Result<bool, ExecError> {
    let root = |id: ValueId| Some(low.root(id));
    match function(low, node, op, root) {
        Some((root, table)) if low.is_coded(root) => {
            low.make_table(node.outputs[0], root, table);
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The value of which alone the result is a function, and which function; `root` says this of the inputs.
pub(super) fn function(
    low: &Lowering<'_>,
    node: &Node,
    op: &Coded,
    root: impl Fn(ValueId) -> Option<(ValueId, Option<Table>)>,
) -> Option<(ValueId, Table)> {
    let sizes = low.code_sizes(node.outputs[0]).filter(|_| op.codes_out && elementwise(op))?;
    let mut only = None;
    let mut codes: Vec<Option<[u8; 256]>> = vec![None; node.inputs.len()];
    for operand in operands(op).into_iter().flatten() {
        let id = node.inputs.get(operand.at).filter(|_| operand.source != Source::Before);
        let Some(id) = id.copied() else { continue };
        let Some(id) = codes_of(low, node, operand).or_else(|| low.graph.weight(id).is_none().then_some(id))
        else {
            let tensor = low.graph.weight(id)?;
            (tensor.elements() == 1).then_some(())?;
            continue;
        };
        if operand.source == Source::Plain {
            matches!(low.graph.value(id).def, kinglet_graph::Def::Absent).then_some(())?;
            continue;
        }
        let (from, table) = root(id)?;
        let whole =
            low.code_sizes(id).as_ref() == Some(&sizes) && low.code_sizes(from).as_ref() == Some(&sizes);
        (whole && only.is_none_or(|only| only == from)).then_some(())?;
        only = Some(from);
        let signed = low.graph.tensor_type(id)?.dtype == DType::I8;
        let code =
            |i: usize| table.as_ref().map_or(i as u8, |table| table[i]) ^ if signed { 0x80 } else { 0 };
        codes[operand.at] = Some(std::array::from_fn(code));
    }
    Some((only?, evaluate(low, node, &codes)?))
}

/// Whether all ops work element by element: chains of others do not come here.
fn elementwise(op: &Coded) -> bool {
    op.links.iter().all(|link| matches!(link.op.name(), "Binary" | "Unary" | "Clip"))
}

/// The node over vectors of all codes.
fn evaluate(low: &Lowering<'_>, node: &Node, codes: &[Option<[u8; 256]>]) -> Option<Table> {
    const ALL: [usize; 1] = [256];
    let arg = |(id, codes): (&ValueId, &'_ Option<[u8; 256]>)| -> Option<Arg<'_>> {
        let dtype = low.graph.tensor_type(*id).map_or(DType::U8, |ty| ty.dtype);
        Some(match (low.graph.weight(*id), codes) {
            (_, Some(_)) => Arg::Tensor(View { dtype, shape: &ALL, data: &[], texts: &[] }),
            (Some(t), None) => Arg::Tensor(View { dtype: t.dtype(), shape: &[], data: t.data(), texts: &[] }),
            (None, None) => Arg::Absent,
        })
    };
    let mut args: Vec<Arg<'_>> = node.inputs.iter().zip(codes).map(arg).collect::<Option<_>>()?;
    for (arg, codes) in args.iter_mut().zip(codes) {
        if let (Arg::Tensor(view), Some(codes)) = (arg, codes) {
            view.data = codes;
        }
    }
    let made = compute(&*node.op, &Call { args: &args }).ok()?;
    let flip = if made.dtype() == DType::I8 { 0x80 } else { 0 };
    let bytes: [u8; 256] = made.bytes().try_into().ok()?;
    Some(Arc::new(bytes.map(|byte| byte ^ flip)))
}

/// A side of a pair, and how it moves along the axes of the result.
struct Side {
    what: What,
    strides: Vec<usize>,
}

impl Side {
    /// Rows of the result, `rows` of them outermost, that it has parts for.
    fn apart(&self, low: &Lowering<'_>, rows: usize) -> usize {
        let stride = self.strides.first().copied().unwrap_or(0);
        let id = if let What::Codes(id, _) = &self.what { Some(*id) } else { None };
        low.rows_apart(id, rows, stride, 0)
    }
}

enum What {
    Codes(BufferId, Scale),
    Values(Arc<[f32]>),
}

/// Binds a function of two values, and bounds behind it.
pub(super) fn pair(low: &mut Lowering<'_>, node: &Node, op: &Coded) -> Result<bool, ExecError> {
    let Some(Binary(fun)) = op.links[0].op.downcast::<Binary>() else { return Ok(false) };
    let fun = match fun {
        Fun2::Add => Fun::Add,
        Fun2::Sub => Fun::Sub,
        Fun2::Mul => Fun::Mul,
        Fun2::Div => Fun::Div,
        _ => return Ok(false),
    };
    let (Some(sizes), Some(to), Some((lo, hi))) =
        (low.code_sizes(node.outputs[0]), result_scale(low, node), bounds(low, node, op, 1))
    else {
        return Ok(false);
    };
    let both = operands(op).swap_remove(0);
    let image = low.code_image(node.outputs[0]);
    let (Some(a), Some(b)) =
        (side(low, node, both[0], &sizes, image)?, side(low, node, both[1], &sizes, image)?)
    else {
        return Ok(false);
    };
    let loops = loops(&sizes, image);
    let apart = [&a, &b].map(|side| side.apart(low, loops[0]));
    let apart = apart[0].min(apart[1]);
    let recode = Recode::new(to.zero, lo / to.scale, hi / to.scale);
    let out = low.make_codes(node.outputs[0])?;
    let buffer = |side: &Side| if let What::Codes(id, _) = side.what { Some(id) } else { None };
    let reads: Vec<_> = [&a, &b].into_iter().filter_map(buffer).collect();
    low.step(node, &reads, &[out], Work::default(), move |s| {
        let side = |side: &Side| match &side.what {
            What::Codes(id, scale) => Pairing::Codes(rows_of(s, *id, 1), *scale),
            What::Values(values) => Pairing::Values(values.clone()),
        };
        let axes = Axes::new(&s.shared(&loops), [&a.strides, &b.strides]);
        codes::pair_codes(fun, &axes, [side(&a), side(&b)], to.scale, recode, rows_of(s, out, 1))
    })
    .parts = apart;
    Ok(true)
}

/// Loops over a value, or over the blocks of an image.
fn loops(sizes: &[usize], image: Option<Image>) -> Vec<usize> {
    match image {
        Some(image) => vec![image.images, image.channels.div_ceil(BLOCK), image.pixels(), BLOCK],
        None => sizes.to_vec(),
    }
}

/// An operand along the loops of the result; none when it cannot be spread over them.
fn side(
    low: &mut Lowering<'_>,
    node: &Node,
    operand: Operand,
    sizes: &[usize],
    image: Option<Image>,
) -> Result<Option<Side>, ExecError> {
    if let Some(id) = codes_of(low, node, operand) {
        let (Some(scale), Some(own)) = (scale_at(low, node, operand.at + 1, id), low.code_sizes(id)) else {
            return Ok(None);
        };
        let Some(whole) = image else {
            let buffer = low.codes_in_order(node, id)?;
            return Ok(Some(Side { what: What::Codes(buffer, scale), strides: broadcast(&own, sizes) }));
        };
        let Some(part) = low.code_image(id) else { return Ok(None) };
        let (one, many) = (part.size == [1, 1], part.size == whole.size);
        if part.images != whole.images || part.channels != whole.channels || !(one || many) {
            return Ok(None);
        }
        let (plane, step) = (part.pixels() * BLOCK, if many { BLOCK } else { 0 });
        let strides = vec![part.channels.div_ceil(BLOCK) * plane, plane, step, 1];
        return Ok(Some(Side { what: What::Codes(low.codes(node, id)?, scale), strides }));
    }
    let Some(values) = numbers(low, node, operand) else { return Ok(None) };
    let Some(own) = low.graph.tensor_type(node.inputs[operand.at]).and_then(|ty| ty.dims()) else {
        return Ok(None);
    };
    Ok(spread(values, &own, sizes, image))
}

/// Constants along the loops of a result.
fn spread(values: Vec<f32>, own: &[usize], sizes: &[usize], image: Option<Image>) -> Option<Side> {
    let fits = own.len() <= sizes.len() && own.iter().product::<usize>() == values.len();
    fits.then_some(())?;
    let Some(image) = image else {
        return Some(Side { what: What::Values(values.into()), strides: broadcast(own, sizes) });
    };
    if let [value] = values[..] {
        return Some(Side { what: What::Values(Arc::new([value])), strides: vec![0; 4] });
    }
    // One for each channel.
    let channel = own.len().checked_sub(3).map(|at| own[at]);
    (channel == Some(image.channels) && values.len() == image.channels).then_some(())?;
    let mut padded = values;
    padded.resize(image.channels.next_multiple_of(BLOCK), 1.0);
    Some(Side { what: What::Values(padded.into()), strides: vec![0, BLOCK, 0, 1] })
}
