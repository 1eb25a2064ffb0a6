//! Ops that ONNX does not have, in its plain ones.

use kinglet_graph::ops::{Activation, AddRmsNorm, Embed, Glu, Linear, RmsNorm, Scale, Softcap};
use kinglet_tensor::DType;

use super::Entry;
use crate::onnx::write::attribute::{flag, int, sizes};
use crate::onnx::write::node::Ex;

pub(in crate::onnx) const OPS: &[Entry] = &[
    ("Add", |ex| ex.emit("Add", vec![])),
    ("Scale", |ex| {
        let factor = ex.op::<Scale>()?.factor;
        let (x, factor) = (ex.input(0), ex.scalar(ex.dtype(0), factor)?);
        ex.emit_with("Mul", &[x, factor], vec![])
    }),
    ("Softcap", |ex| {
        let cap = ex.op::<Softcap>()?.cap;
        let (x, cap) = (ex.input(0), ex.scalar(ex.dtype(0), cap)?);
        let small = ex.temp("Div", &[&x, &cap], vec![]);
        let tanh = ex.temp("Tanh", &[&small], vec![]);
        ex.emit_with("Mul", &[tanh, cap], vec![])
    }),
    ("Embed", |ex| {
        let scale = ex.op::<Embed>()?.scale;
        let (ids, table) = (ex.input(0), ex.input(1));
        if scale == 1.0 {
            return ex.emit_with("Gather", &[table, ids], vec![int("axis", 0)]);
        }
        let rows = ex.temp("Gather", &[&table, &ids], vec![int("axis", 0)]);
        let scale = ex.scalar(DType::F32, scale)?;
        ex.emit_with("Mul", &[rows, scale], vec![])
    }),
    ("SelectRows", |ex| ex.emit("Gather", vec![int("axis", 0)])),
    ("Linear", linear),
    ("RmsNorm", rms_norm),
    ("AddRmsNorm", add_rms_norm),
    ("Glu", glu),
];

/// `x w^T + b` for each weight.
fn linear(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let op = ex.op::<Linear>()?;
    let x = ex.input(0);
    for i in 0..ex.node.outputs.len() {
        let (weight, bias) = op.inputs_of(i);
        let (weight, y) = (ex.input(weight), ex.output(i));
        let turned = ex.temp("Transpose", &[&weight], vec![sizes("perm", &[1, 0])]);
        match bias {
            None => ex.named("MatMul", &[&x, &turned], vec![], &y),
            Some(bias) => {
                let bias = ex.input(bias);
                let product = ex.temp("MatMul", &[&x, &turned], vec![]);
                ex.named("Add", &[&product, &bias], vec![], &y);
            }
        }
    }
    Ok(())
}

fn rms_norm(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let eps = ex.op::<RmsNorm>()?.eps;
    let (x, w, y) = (ex.input(0), ex.input(1), ex.output(0));
    normed(ex, &x, &w, &y, eps)
}

/// The sum, and its norm.
fn add_rms_norm(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let eps = ex.op::<AddRmsNorm>()?.eps;
    let (a, b, w) = (ex.input(0), ex.input(1), ex.input(2));
    let (sum, y) = (ex.output(0), ex.output(1));
    ex.named("Add", &[&a, &b], vec![], &sum);
    normed(ex, &sum, &w, &y, eps)
}

/// `x / sqrt(mean(x^2) + eps) * w` over whole rows, called `y`.
fn normed(ex: &mut Ex<'_, '_>, x: &str, w: &str, y: &str, eps: f32) -> Result<(), String> {
    let weight = ex.node.inputs.len() - 1;
    let cols = |i: usize| ex.ty(i).and_then(kinglet_graph::TensorType::cols);
    if cols(0).is_none() || cols(0) != cols(weight) {
        return Err("over parts of a row".into());
    }
    let (axes, eps) = (ex.ints(&[-1]), ex.scalar(ex.dtype(0), eps)?);
    let squares = ex.temp("Mul", &[x, x], vec![]);
    let mean = ex.temp("ReduceMean", &[&squares, &axes], vec![flag("keepdims", true)]);
    let shifted = ex.temp("Add", &[&mean, &eps], vec![]);
    let root = ex.temp("Sqrt", &[&shifted], vec![]);
    let scaled = ex.temp("Div", &[x, &root], vec![]);
    ex.named("Mul", &[&scaled, w], vec![], y);
    Ok(())
}

/// `act(gate) * up`.
fn glu(ex: &mut Ex<'_, '_>) -> Result<(), String> {
    let act = ex.op::<Glu>()?.act;
    let (gate, up) = (ex.input(0), ex.input(1));
    let active = match act {
        Activation::Silu => {
            let share = ex.temp("Sigmoid", &[&gate], vec![]);
            ex.temp("Mul", &[&gate, &share], vec![])
        }
        Activation::GeluTanh | Activation::GeluErf => {
            ex.needs(20)?;
            let how = if act == Activation::GeluTanh { "tanh" } else { "none" };
            ex.temp("Gelu", &[&gate], vec![crate::onnx::write::attribute::text("approximate", how)])
        }
    };
    ex.emit_with("Mul", &[active, up], vec![])
}
