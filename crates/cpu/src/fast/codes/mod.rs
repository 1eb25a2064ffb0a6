//! Binders to kernels over codes: pairs of conversions, and ops between them.

mod function;
mod operand;
mod pool;
mod product;
mod rounded;

use kinglet_graph::ops::{Coded, Conv, Dequantize, Gemm, MatMul, Pool, Quantize, Reduce};
use kinglet_graph::{ExecError, Node};
use kinglet_kernels::nd::Layout;
use kinglet_kernels::nd::codes::{self, Recode};

use self::operand::{Scale, scale_at};
pub(crate) use self::rounded::rounded;
use crate::blocked::rows_of;
use crate::lanes::ANY;
use crate::lower::{Lowering, Work, op_of};

/// Binds an op over codes.
pub(crate) fn coded(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = op_of::<Coded>(node)?;
    let Some(first) = op.links.first() else { return Ok(false) };
    let first = &*first.op;
    if first.downcast::<Conv>().is_some() {
        product::conv(low, node, op)
    } else if first.downcast::<MatMul>().is_some() || first.downcast::<Gemm>().is_some() {
        product::rows(low, node, op)
    } else if first.downcast::<Pool>().is_some() || first.downcast::<Reduce>().is_some() {
        pool::pool(low, node, op)
    } else {
        Ok(function::table(low, node, op)? || function::pair(low, node, op)?)
    }
}

/// Binds numbers that become codes of one scale.
pub(crate) fn quantize(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = *op_of::<Quantize>(node)?;
    let (x, out) = (node.inputs[0], node.outputs[0]);
    let Some(Scale { scale, zero }) = scale_at(low, node, 1, out).filter(|_| op.block == 0) else {
        return Ok(false);
    };
    if low.sizes(x).is_none() || low.graph.weight(x).is_some() {
        return Ok(false);
    }
    let to = Recode::new(zero, f32::NEG_INFINITY, f32::INFINITY);
    let image = low.code_image(out);
    if let Some(image) = image.filter(|image| image.channels <= codes::FEW && !low.is_blocked(x)) {
        let (from, made) = (low.value(x)?, low.make_codes(out)?);
        low.step(node, &[from], &[made], Work::default(), move |s| {
            let spans = [from, made].map(|id| rows_of(s, id, image.images));
            codes::quantize_image(image.channels, image.pixels(), scale, to, spans)
        })
        .parts = image.images;
        return Ok(true);
    }
    let (from, made, carried) = match image {
        Some(image) if low.is_blocked(x) => (low.blocked(node, x, image)?, low.make_codes(out)?, None),
        Some(image) => {
            let from = low.value(x)?;
            let planar = low.bytes(image.images, image.floats(Layout::Planar));
            (from, planar, Some(image))
        }
        None => (low.value(x)?, low.make_codes(out)?, None),
    };
    low.step(node, &[from], &[made], Work::default(), move |s| {
        codes::quantize(rows_of(s, from, 1), rows_of(s, made, 1), scale, to)
    })
    .parts = ANY;
    if let Some(image) = carried {
        let blocked = low.make_codes(out)?;
        low.carry_codes(node, image, [made, blocked], [Layout::Planar, Layout::Blocked]);
    }
    Ok(true)
}

/// Binds codes of one scale that become numbers.
pub(crate) fn dequantize(low: &mut Lowering<'_>, node: &Node) -> Result<bool, ExecError> {
    let op = *op_of::<Dequantize>(node)?;
    let (x, out) = (node.inputs[0], node.outputs[0]);
    let Some(Scale { scale, zero }) = scale_at(low, node, 1, x).filter(|_| op.block == 0) else {
        return Ok(false);
    };
    if low.code_sizes(x).is_none() || low.sizes(out).is_none() || low.graph.weight(x).is_some() {
        return Ok(false);
    }
    let from = low.codes(node, x)?;
    let to = match low.code_image(x) {
        Some(image) => low.make_blocked(out, image),
        None => low.value(out)?,
    };
    low.step(node, &[from], &[to], Work::default(), move |s| {
        codes::dequantize(rows_of(s, from, 1), rows_of(s, to, 1), scale, zero)
    })
    .parts = ANY;
    Ok(true)
}
