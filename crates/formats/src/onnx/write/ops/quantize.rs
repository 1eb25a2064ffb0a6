//! Numbers to codes and back.

use kinglet_graph::ops::{Conv, Dequantize, DynamicQuantize, IntegerProduct, Quantize};

use super::Entry;
use super::linear::attributes;
use crate::onnx::write::attribute::{flag, int, size};
use crate::onnx::write::node::Ex;
use crate::onnx::write::tensor::number_of;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Quantize", quantize),
    ("Dequantize", dequantize),
    ("DynamicQuantize", |ex| {
        if ex.op::<DynamicQuantize>()?.outer > 0 {
            return Err("with a scale for each row".into());
        }
        ex.emit("DynamicQuantizeLinear", vec![])?;
        ex.fill_outputs(3);
        Ok(())
    }),
    ("IntegerProduct", |ex| {
        let IntegerProduct { op } = ex.op()?;
        let Some(Conv { window, groups }) = op.downcast() else { return ex.emit("MatMulInteger", vec![]) };
        let mut attributes = attributes(window);
        attributes.push(size("group", *groups));
        ex.emit("ConvInteger", attributes)
    }),
];

fn quantize(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Quantize { axis, block, to, saturate } = *ex.op()?;
    let mut attributes = axis_of(ex, axis, 1);
    if block > 0 {
        ex.needs(21)?;
        attributes.push(size("block_size", block));
    }
    if !ex.has(2) && to != kinglet_tensor::DType::U8 {
        ex.needs(21)?;
        let number = number_of(to).ok_or_else(|| format!("whose codes are {to}"))?;
        attributes.push(int("output_dtype", number.into()));
    }
    if !saturate {
        ex.needs(19)?;
        attributes.push(flag("saturate", false));
    }
    ex.emit("QuantizeLinear", attributes)
}

fn dequantize(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let Dequantize { axis, block, to } = *ex.op()?;
    let mut attributes = axis_of(ex, axis, 1);
    if block > 0 {
        ex.needs(21)?;
        attributes.push(size("block_size", block));
    }
    if let Some(to) = to.filter(|to| *to != ex.dtype(1)) {
        ex.needs(23)?;
        let number = number_of(to).ok_or_else(|| format!("whose result is {to}"))?;
        attributes.push(int("output_dtype", number.into()));
    }
    ex.emit("DequantizeLinear", attributes)
}

/// The axis, unless one scale serves all: then it means nothing, and may be none of the value's.
fn axis_of(ex: &Ex<'_, '_>, axis: i64, scales: usize) -> Vec<crate::onnx::proto::Attribute> {
    let one = ex.ty(scales).is_some_and(|ty| ty.elements() == Some(1));
    if one { vec![] } else { vec![int("axis", axis)] }
}
