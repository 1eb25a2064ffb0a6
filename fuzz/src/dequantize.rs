//! Any bytes decode as any block type: the first byte chooses the type, the rest are whole blocks and a remainder.

use kinglet_tensor::DType;
use kinglet_tensor::quant::dequantize;

/// Feeds one input.
pub fn run(bytes: &[u8]) {
    let Some((number, data)) = bytes.split_first() else { return };
    let Some(dtype) = DType::from_ggml((*number).into()) else { return };
    let blocks = data.len() / dtype.block_bytes();
    let mut values = vec![0.0; blocks * dtype.block_len()];
    let whole = &data[..blocks * dtype.block_bytes()];
    let decoded = dequantize(dtype, whole, &mut values);
    if whole.len() < data.len() {
        assert!(dequantize(dtype, data, &mut values).is_err(), "a partial block was accepted");
    }
    if decoded.is_ok() && !whole.is_empty() {
        assert!(dequantize(dtype, whole, &mut values[1..]).is_err(), "a wrong length was accepted");
    }
}
