//! Odd inputs and damaged models: every case's model, fed with what nobody planned for, or changed in one byte. An answer or
//! an error is right, a panic is not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kinglet_cpu::{Array, CpuBackend, Feed, Session, SessionOptions, Value};
use kinglet_formats::onnx::{self, NoExternal, proto};
use kinglet_tensor::{Bytes, DType};
use prost::Message;

use crate::case::panic_text;

/// Whole numbers that lengths, positions and axes should not be.
const ODD: [i64; 5] = [0, -1, i64::MIN, i64::MAX, 1 << 40];
/// And others.
const ODD_FLOATS: [f32; 5] = [0.0, -1.0, 1e30, 1e-30, f32::NAN];

/// Runs a model with each input made empty along each of its axes, flattened, or filled with odd numbers; the panics.
pub(crate) fn panics(model: &proto::Model, inputs: &[Value]) -> Vec<String> {
    // A loop runs as often as it is told to.
    let loops = |graph: &proto::Graph| graph.node.iter().any(|node| node.op_type == "Loop");
    if model.graph.as_ref().is_some_and(loops) {
        return Vec::new();
    }
    let model = Bytes::from(untyped(model.clone()).encode_to_vec());
    let mut found = Vec::new();
    for (i, input) in inputs.iter().enumerate() {
        let Some(array) = input.tensor() else { continue };
        for (what, odd) in variants(array) {
            let mut fed = inputs.to_vec();
            fed[i] = odd.into();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(run(&model, &fed)))) {
                found.push(format!("input {i} {what}: {}", panic_text(&*panic)));
            }
        }
    }
    found
}

/// Runs a model with each of its bytes changed, on its own inputs; the panics.
#[cfg(test)]
pub(crate) fn panics_when_damaged(model: &proto::Model, inputs: &[Value]) -> Vec<String> {
    let whole = model.encode_to_vec();
    let mut found = Vec::new();
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xFF] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            let bytes = Bytes::from(bytes);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(run(&bytes, inputs)))) {
                found.push(format!("byte {at} ^ {change:#x}: {}", panic_text(&*panic)));
            }
        }
    }
    found
}

/// The model without what it says of its inputs', outputs' and values' shapes.
fn untyped(mut model: proto::Model) -> proto::Model {
    let graph = model.graph.get_or_insert_default();
    graph.value_info.clear();
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        if let Some(proto::TypeValue::Tensor(tensor)) = info.r#type.as_mut().and_then(|ty| ty.value.as_mut())
        {
            tensor.shape = None;
        }
    }
    model
}

fn run(model: &Bytes, inputs: &[Value]) -> Result<(), String> {
    let model = onnx::read(model.clone(), &NoExternal).map_err(|e| e.to_string())?;
    let options = SessionOptions::new(CpuBackend::new(1));
    let mut session = Session::new(model.graph, &options).map_err(|e| e.to_string())?;
    let feeds: Vec<Feed<'_>> = inputs.iter().map(Feed::Value).collect();
    session.run(&feeds).map_err(|e| e.to_string())
}

fn variants(array: &Array) -> Vec<(String, Array)> {
    let mut found = Vec::new();
    let (shape, dtype) = (array.shape(), array.dtype());
    if dtype == DType::Str {
        return found;
    }
    for axis in 0..shape.len() {
        let mut empty = shape.to_vec();
        empty[axis] = 0;
        found.extend(Array::new(dtype, empty, Bytes::new()).map(|odd| (format!("empty along {axis}"), odd)));
    }
    let whole = Bytes::copy_from_slice(array.bytes());
    let count: usize = shape.iter().product();
    let flat = Array::new(dtype, vec![count], whole.clone());
    found.extend(flat.filter(|_| shape.len() != 1).map(|odd| ("flat".into(), odd)));
    let deep = Array::new(dtype, [&[1, 1], shape].concat(), whole);
    found.extend(deep.map(|odd| ("with two more dimensions".into(), odd)));
    let filled = |bytes: &[u8]| Array::new(dtype, shape.to_vec(), Bytes::from(bytes.repeat(count)));
    let ints = ODD.iter().filter_map(|n| match dtype {
        DType::I64 => Some((format!("all {n}"), filled(&n.to_le_bytes())?)),
        DType::I32 => Some((format!("all {n}"), filled(&(*n as i32).to_le_bytes())?)),
        _ => None,
    });
    let float = |x: &f32| Some((format!("all {x}"), filled(&x.to_le_bytes())?));
    found.extend(ints.chain(ODD_FLOATS.iter().filter(|_| dtype == DType::F32).filter_map(float)));
    found
}
