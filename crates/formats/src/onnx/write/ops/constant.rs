//! Constants, and what follows from shapes.

use kinglet_graph::ops::{ConstantOfShape, EyeLike, OneHot, Shape, TextConstant};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::write::attribute::{int, tensor};
use crate::onnx::write::tensor as stored;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("TextConstant", |ex| {
        let TextConstant { shape, texts } = ex.op()?;
        ex.emit("Constant", vec![tensor("value", stored::texts(shape, texts))])
    }),
    ("ConstantOfShape", |ex| {
        let mut value = stored::message(&ex.op::<ConstantOfShape>()?.value, "")?;
        value.dims = vec![1];
        ex.emit("ConstantOfShape", vec![tensor("value", value)])
    }),
    ("Identity", |ex| ex.emit("Identity", vec![])),
    ("Shape", |ex| {
        let Shape { start, end } = *ex.op()?;
        let mut attributes = vec![int("start", start)];
        attributes.extend(end.map(|end| int("end", end)));
        ex.emit("Shape", attributes)
    }),
    ("Size", |ex| ex.emit("Size", vec![])),
    ("Range", |ex| {
        if matches!(ex.dtype(0), DType::F16 | DType::BF16) {
            ex.needs(27)?;
        }
        ex.emit("Range", vec![])
    }),
    ("OneHot", |ex| {
        let axis = ex.op::<OneHot>()?.axis;
        ex.emit("OneHot", vec![int("axis", axis)])
    }),
    ("EyeLike", |ex| {
        let EyeLike { dtype, k } = *ex.op()?;
        let mut attributes = vec![int("k", k)];
        if let Some(dtype) = dtype {
            let number = stored::number_of(dtype).ok_or_else(|| format!("whose result is {dtype}"))?;
            attributes.push(int("dtype", number.into()));
        }
        ex.emit("EyeLike", attributes)
    }),
];
