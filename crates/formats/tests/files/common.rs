//! What the tests of this crate share.

use std::path::Path;

use bytes::Bytes;
use kinglet_tensor::Tensor;

/// A fixture of `tests/data`.
pub(crate) fn data(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")).into()
}

/// CRC-32 as zlib computes it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Type, shape and checksum of a tensor, as the golden files spell them.
pub(crate) fn describe(tensor: &Tensor) -> serde_json::Value {
    serde_json::json!([tensor.dtype().name(), tensor.shape(), crc32(tensor.data())])
}
