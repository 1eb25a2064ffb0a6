//! Numbers to codes of 8 bits and back.
//!
//! Codes that only `Dequantize` reads stay codes; others leave as integers of 32 bits, as all whole numbers of a program do.

use kinglet_graph::axis;
use kinglet_graph::ops::{Dequantize, Quantize};
use kinglet_tensor::{DType, Tensor};

use super::Entry;
use crate::coreml::write::node::{Arg, Ex, Given};
use crate::coreml::write::weights;

type Done = Result<(), String>;

pub(super) const OPS: &[Entry] = &[("Dequantize", dequantize), ("Quantize", quantize)];

fn is_code(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8)
}

/// Scales, and zero points where there are some; of an axis when there are several.
fn scales(ex: &mut Ex<'_, '_>, along: i64) -> Result<Given<'static>, String> {
    let scale = ex.weight(1).map_err(|_| "by a scale that is no constant")?;
    let mut given = vec![("scale", Arg::Name(ex.input(1)?))];
    if scale.shape().len() > 1 {
        return Err("by scales of several dimensions".into());
    }
    if scale.elements() == 1 && !scale.shape().is_empty() {
        let number = ex.float(1)?;
        given = vec![("scale", Arg::Float(number))];
    } else if !scale.shape().is_empty() {
        given.push(("axis", Arg::Int(axis(along, ex.ty(0)?.rank())? as i64)));
    }
    if ex.has(2) {
        let zero = single(ex.weight(2).map_err(|_| "from a zero point that is no constant")?)?;
        given.push(("zero_point", Arg::Name(ex.codes("zero_point", &zero)?)));
    }
    Ok(given)
}

/// A vector of one number without dimensions; any other tensor as it is.
fn single(tensor: &Tensor) -> Result<Tensor, String> {
    let shape = if tensor.elements() == 1 { Vec::new() } else { tensor.shape().to_vec() };
    Tensor::new("", tensor.dtype(), shape, tensor.data().clone()).map_err(|e| e.to_string())
}

fn quantize(ex: &mut Ex<'_, '_>) -> Done {
    let Quantize { axis, block, .. } = *ex.op()?;
    let ty = ex.made(0)?;
    let dtype = match ty.dtype {
        DType::I8 => "int8",
        DType::U8 => "uint8",
        other => return Err(format!("to codes of {other}")),
    };
    if block != 0 {
        return Err("in blocks".into());
    }
    ex.writer.newer();
    let mut given = vec![("input", Arg::Name(ex.input(0)?)), ("output_dtype", Arg::Text(dtype))];
    given.extend(scales(ex, axis)?);
    let codes = ex.temp_of("quantize", given, weights::code_type(ty));
    ex.writer.codes.insert(ex.node.outputs[0], codes.clone());
    if ex.only_dequantized() {
        return Ok(());
    }
    ex.emit("cast", vec![("x", codes.into()), ("dtype", Arg::Text("int32"))])
}

fn dequantize(ex: &mut Ex<'_, '_>) -> Done {
    let Dequantize { axis: along, block, .. } = *ex.op()?;
    let (id, ty) = (ex.node.inputs[0], ex.ty(0)?);
    if block != 0 {
        return Err("in blocks".into());
    }
    if !is_code(ty.dtype) {
        return Err(format!("of codes of {}", ty.dtype));
    }
    if let Some(codes) = ex.writer.codes.get(&id).cloned() {
        let mut given = vec![("input", Arg::Name(codes))];
        given.extend(scales(ex, along)?);
        return ex.emit("dequantize", given);
    }
    match ex.graph.weight(id) {
        Some(codes) => {
            let codes = codes.clone();
            let scale = single(ex.weight(1).map_err(|_| "by a scale that is no constant")?)?;
            let along = if scale.shape().is_empty() { 0 } else { axis(along, ty.rank())? };
            let zero = if ex.has(2) { Some(single(ex.weight(2)?)?) } else { None };
            ex.compressed(&codes, &scale, zero.as_ref(), along)
        }
        None => {
            ex.writer.newer();
            let dtype = if ty.dtype == DType::I8 { "int8" } else { "uint8" };
            let whole = ex.input(0)?;
            let given = vec![("x", whole.into()), ("dtype", Arg::Text(dtype))];
            let codes = ex.temp_of("cast", given, weights::code_type(ty));
            let mut given = vec![("input", Arg::Name(codes))];
            given.extend(scales(ex, along)?);
            ex.emit("dequantize", given)
        }
    }
}
