//! Whether a value is the expected one: shapes and types exactly, floats within the suite's own tolerance.

use half::{bf16, f16};
use kinglet_cpu::{Array, Value};
use kinglet_tensor::DType;

/// Relative and absolute tolerance of the ONNX backend tests.
const TOLERANCE: (f64, f64) = (1e-3, 1e-7);

/// What differs, if anything does.
pub(crate) fn compare(found: &Value, expected: &Value) -> Result<(), String> {
    match (found, expected) {
        (Value::Tensor(a), Value::Tensor(b)) => tensors(a, b),
        (Value::Sequence(a), Value::Sequence(b)) if a.len() == b.len() => {
            a.iter().zip(b).try_for_each(|(a, b)| compare(a, b))
        }
        (Value::Nothing, Value::Nothing) => Ok(()),
        _ => Err("another kind of value, or another length".into()),
    }
}

fn tensors(a: &Array, b: &Array) -> Result<(), String> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Err(format!("{}{:?}, expected {}{:?}", a.dtype(), a.shape(), b.dtype(), b.shape()));
    }
    if a.dtype() == DType::Str {
        return if a.as_texts() == b.as_texts() {
            Ok(())
        } else {
            Err(format!("{:?}, expected {:?}", a.as_texts(), b.as_texts()))
        };
    }
    let (Some(x), Some(y)) = (floats(a), floats(b)) else {
        return match a.bytes().iter().zip(b.bytes()).position(|(x, y)| x != y) {
            None => Ok(()),
            Some(at) => Err(format!("byte {at}: {}, expected {}", a.bytes()[at], b.bytes()[at])),
        };
    };
    let (relative, absolute) = match a.dtype() {
        DType::BF16 => (1e-2, 1e-2),
        DType::F16 => (2e-3, 1e-3),
        _ => TOLERANCE,
    };
    let differs = |(x, y): (&f64, &f64)| {
        !(x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= absolute + relative * y.abs())
    };
    match x.iter().zip(&y).position(differs) {
        None => Ok(()),
        Some(at) => Err(format!("element {at}: {}, expected {}", x[at], y[at])),
    }
}

fn floats(array: &Array) -> Option<Vec<f64>> {
    let bytes = array.bytes();
    Some(match array.dtype() {
        DType::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()).collect()
        }
        DType::F64 => {
            bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default())).collect()
        }
        DType::F16 => bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).into()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).into()).collect(),
        _ => return None,
    })
}
