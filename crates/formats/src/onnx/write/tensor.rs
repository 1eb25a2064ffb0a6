//! Constants as messages: row-major little-endian bytes, small integers packed.

use kinglet_tensor::{Bytes, DType, Tensor};

use crate::onnx::proto;
use crate::onnx::tensor::{bits, dtype_of};

/// The number of an element type in `TensorProto.DataType`; none for types that ONNX does not have.
pub(super) fn number_of(dtype: DType) -> Option<i32> {
    (1..=26).find(|number| dtype_of(*number) == Some(dtype))
}

/// A constant under this name, sharing the tensor's bytes where they need no packing.
pub(super) fn message(tensor: &Tensor, name: &str) -> Result<proto::Tensor, String> {
    let dtype = tensor.dtype();
    let data_type = number_of(dtype).ok_or_else(|| format!("whose elements are {dtype}"))?;
    let raw = match bits(dtype) {
        8 => tensor.data().clone(),
        bits => pack(tensor.data(), bits),
    };
    let dims = tensor.shape().iter().map(|n| *n as i64).collect();
    Ok(proto::Tensor { dims, data_type, name: name.into(), raw_data: Some(raw), ..Default::default() })
}

/// A constant of texts.
pub(super) fn texts(shape: &[usize], texts: &[String]) -> proto::Tensor {
    let string_data = texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    let dims = shape.iter().map(|n| *n as i64).collect();
    proto::Tensor { dims, data_type: number_of(DType::Str).unwrap_or(0), string_data, ..Default::default() }
}

/// `bits` bits an element from one byte an element, lowest first.
fn pack(codes: &[u8], bits: usize) -> Bytes {
    let mask = (1u8 << bits) - 1;
    let byte =
        |part: &[u8]| part.iter().enumerate().fold(0, |byte, (i, code)| byte | (code & mask) << (i * bits));
    codes.chunks(8 / bits).map(byte).collect::<Vec<u8>>().into()
}
