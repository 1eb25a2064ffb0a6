//! Numbers to codes and back.

use kinglet_graph::ops::{Cast, Dequantize, Quantize};
use kinglet_tensor::DType;

use super::Entry;
use crate::coreml::CoreMlError;
use crate::coreml::import::program::Cx;

type Done = Result<(), CoreMlError>;

pub(super) const OPS: &[Entry] = &[("dequantize", dequantize), ("quantize", quantize)];

/// Codes are kept as I32 between operations, as all whole numbers of a program are.
fn quantize(cx: &mut Cx<'_>) -> Done {
    let to = match cx.text("output_dtype").as_deref() {
        Some("uint8") => DType::U8,
        Some("int8") => DType::I8,
        other => return Err(cx.fail(format!("codes of type {other:?} cannot run"))),
    };
    let (x, scale, axis) = (cx.input("input")?, cx.input("scale")?, cx.int("axis", 0));
    let mut inputs = vec![x, scale];
    if let Some(zero) = cx.maybe("zero_point")? {
        inputs.push(cx.temp(Cast::to(to), &[zero])?);
    }
    let codes = cx.temp(Quantize { axis, block: 0, to, saturate: true }, &inputs)?;
    cx.emit(Cast::to(DType::I32), &[codes])
}

fn dequantize(cx: &mut Cx<'_>) -> Done {
    let (codes, scale, axis) = (cx.input("input")?, cx.input("scale")?, cx.int("axis", 0));
    let inputs: Vec<_> = [codes, scale].into_iter().chain(cx.maybe("zero_point")?).collect();
    cx.emit(Dequantize { axis, block: 0, to: Some(DType::F32) }, &inputs)
}
