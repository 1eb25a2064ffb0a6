//! `Constant`, `ConstantOfShape`, `Identity`, and how texts and sparse tensors become constants.

use kinglet_graph::ops::{ConstantOfShape, EyeLike, Identity, OneHot, Range, Shape, Size, TextConstant};
use kinglet_graph::{GraphBuilder, ValueId};
use kinglet_tensor::{Bytes, DType, Tensor};

use super::Entry;
use crate::onnx::error::OnnxError;
use crate::onnx::node::Cx;
use crate::onnx::proto;
use crate::onnx::tensor::{External, dtype_of, tensor, texts};

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("", "Constant", constant),
    ("", "ConstantOfShape", constant_of_shape),
    ("", "Identity", |cx| cx.emit(Identity)),
    ("", "Shape", |cx| cx.emit(Shape { start: cx.int("start", 0), end: cx.attrs.int("end") })),
    ("", "Size", |cx| cx.emit(Size)),
    ("", "Range", |cx| cx.emit(Range)),
    ("", "OneHot", |cx| cx.emit(OneHot { axis: cx.int("axis", -1) })),
    ("", "EyeLike", eye_like),
];

fn constant(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    if let Some(message) = cx.attrs.tensor("value") {
        if let Some((shape, texts)) = texts(message) {
            return cx.emit(TextConstant { shape, texts });
        }
        let tensor = tensor(message, cx.reader.external)?;
        return bind(cx, tensor);
    }
    if let Some(message) = cx.attrs.sparse("sparse_value") {
        let (_, tensor) = dense(message, cx.reader.external)?;
        return bind(cx, tensor);
    }
    if let Some(texts) = cx.attrs.texts("value_strings") {
        return cx.emit(TextConstant { shape: vec![texts.len()], texts });
    }
    if let Some(text) = cx.attrs.text("value_string") {
        return cx.emit(TextConstant { shape: Vec::new(), texts: vec![text.into()] });
    }
    let (dtype, shape, bytes): (_, _, Vec<u8>) = if let Some(n) = cx.attrs.int("value_int") {
        (DType::I64, Vec::new(), n.to_le_bytes().to_vec())
    } else if let Some(list) = cx.attrs.ints("value_ints") {
        (DType::I64, vec![list.len()], list.iter().flat_map(|n| n.to_le_bytes()).collect())
    } else if let Some(x) = cx.attrs.float("value_float") {
        (DType::F32, Vec::new(), x.to_le_bytes().to_vec())
    } else if let Some(list) = cx.attrs.floats("value_floats") {
        (DType::F32, vec![list.len()], list.iter().flat_map(|x| x.to_le_bytes()).collect())
    } else {
        return Err(cx.fail("holds no value that can be read"));
    };
    let tensor = Tensor::new("", dtype, shape, Bytes::from(bytes)).map_err(|e| cx.fail(e.to_string()))?;
    bind(cx, tensor)
}

/// The node's output as a constant.
fn bind(cx: &mut Cx<'_, '_>, tensor: Tensor) -> Result<(), OnnxError> {
    let name = cx.node.output.first().cloned().unwrap_or_default();
    let name = cx.builder().fresh(&name);
    let id = cx.builder().weight_as(&name, tensor)?;
    cx.bind(0, id)
}

fn constant_of_shape(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let value = match cx.attrs.tensor("value") {
        Some(message) => tensor(message, cx.reader.external)?,
        None => Tensor::new("", DType::F32, vec![1], Bytes::from(vec![0; 4]))
            .map_err(|e| cx.fail(e.to_string()))?,
    };
    if value.elements() != 1 {
        return Err(cx.fail("its value must be one element"));
    }
    cx.emit(ConstantOfShape { value })
}

fn eye_like(cx: &mut Cx<'_, '_>) -> Result<(), OnnxError> {
    let dtype = cx.attrs.int("dtype").and_then(|n| dtype_of(n as i32));
    cx.emit(EyeLike { dtype, k: cx.int("k", 0) })
}

/// A constant of texts.
pub(crate) fn text_constant(
    builder: &mut GraphBuilder,
    message: &proto::Tensor,
) -> Result<ValueId, OnnxError> {
    let (shape, texts) = texts(message).ok_or_else(|| OnnxError::Tensor {
        name: message.name.clone(),
        reason: "its texts do not fill its shape".into(),
    })?;
    Ok(builder.node(&message.name, TextConstant { shape, texts }, &[])?)
}

/// A sparse constant with its zeroes; also its name.
pub(crate) fn dense(
    sparse: &proto::SparseTensor,
    external: &dyn External,
) -> Result<(String, Tensor), OnnxError> {
    let values = sparse.values.as_ref().map(|t| tensor(t, external)).transpose()?;
    let indices = sparse.indices.as_ref().map(|t| tensor(t, external)).transpose()?;
    let (Some(values), Some(indices)) = (values, indices) else { return Err(OnnxError::NoGraph) };
    let name = values.name().to_owned();
    let fail = |reason: &str| OnnxError::Tensor { name: name.clone(), reason: reason.into() };
    let shape: Option<Vec<usize>> = sparse.dims.iter().map(|n| usize::try_from(*n).ok()).collect();
    let shape = shape.ok_or_else(|| fail("an impossible shape"))?;
    let (size, most) = (values.dtype().block_bytes(), 1 << 30);
    let total = Tensor::bytes_of(values.dtype(), &shape)
        .filter(|n| *n <= most)
        .ok_or_else(|| fail("it is too large"))?;
    let places = kinglet_graph::ints(&indices).ok_or_else(|| fail("indices must be integers"))?;
    let depth = if indices.shape().len() == 2 { shape.len().max(1) } else { 1 };
    let mut data = vec![0u8; total];
    for (place, value) in places.chunks(depth).zip(values.data().chunks_exact(size)) {
        let flat = if depth == 1 && indices.shape().len() < 2 {
            place.first().and_then(|p| usize::try_from(*p).ok())
        } else {
            place.iter().zip(&shape).try_fold(0usize, |at, (p, n)| {
                let p = usize::try_from(*p).ok().filter(|p| p < n)?;
                Some(at * n + p)
            })
        };
        let at = flat.and_then(|i| i.checked_mul(size)).filter(|at| at + size <= total);
        let at = at.ok_or_else(|| fail("an index is outside of the shape"))?;
        data[at..at + size].copy_from_slice(value);
    }
    let tensor =
        Tensor::new(name.clone(), values.dtype(), shape, data.into()).map_err(|e| fail(&e.to_string()))?;
    Ok((name, tensor))
}
