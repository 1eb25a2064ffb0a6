//! Constants: every way in which ONNX stores elements, into row-major little-endian bytes.

use kinglet_tensor::{Bytes, DType, Tensor};

use super::error::{ExternalError, OnnxError};
use super::proto;

/// `TensorProto.DataLocation` of data that lies in another file.
const EXTERNAL: i32 = 1;

/// Where a model's external data lies.
pub trait External {
    /// The bytes `offset..offset + length` (to the end without a length) of a file beside the model. `location` is as the
    /// model gives it: whoever opens files must refuse paths and links that leave the model's folder.
    fn read(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, ExternalError>;
}

/// No external data: for models in one piece.
pub struct NoExternal;

impl External for NoExternal {
    fn read(&self, location: &str, _: u64, _: Option<u64>) -> Result<Bytes, ExternalError> {
        Err(ExternalError::NoFolder { location: location.into() })
    }
}

/// The element type with this number in `TensorProto.DataType`.
pub fn dtype_of(number: i32) -> Option<DType> {
    use DType::*;
    const TYPES: [Option<DType>; 27] = [
        None,
        Some(F32),
        Some(U8),
        Some(I8),
        Some(U16),
        Some(I16),
        Some(I32),
        Some(I64),
        Some(Str),
        Some(Bool),
        Some(F16),
        Some(F64),
        Some(U32),
        Some(U64),
        None,
        None,
        Some(BF16),
        Some(F8E4M3),
        Some(F8E4M3FNUZ),
        Some(F8E5M2),
        Some(F8E5M2FNUZ),
        Some(U4),
        Some(I4),
        Some(F4E2M1),
        Some(F8E8M0),
        Some(U2),
        Some(I2),
    ];
    TYPES.get(usize::try_from(number).ok()?).copied().flatten()
}

/// The tensor that a message holds.
pub fn tensor(message: &proto::Tensor, external: &dyn External) -> Result<Tensor, OnnxError> {
    let fail = |reason: String| OnnxError::Tensor { name: message.name.clone(), reason };
    let dtype = dtype_of(message.data_type)
        .filter(|d| *d != DType::Str)
        .ok_or_else(|| fail(format!("element type {} cannot be stored", message.data_type)))?;
    let shape = message.dims.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<usize>>>();
    let elements = shape.as_ref().and_then(|s| s.iter().try_fold(1usize, |n, d| n.checked_mul(*d)));
    let (Some(shape), Some(elements)) = (shape, elements) else {
        return Err(fail(format!("the shape {:?} is impossible", message.dims)));
    };
    let raw = if message.data_location == EXTERNAL {
        let (location, offset, length) = place(message, dtype, elements).map_err(fail)?;
        let read = external.read(location, offset, Some(length));
        Some(read.map_err(|source| OnnxError::External { name: message.name.clone(), source })?)
    } else {
        message.raw_data.clone()
    };
    let data = match (raw, bits(dtype)) {
        (Some(raw), 8) => raw,
        (Some(raw), bits) => unpack(&raw, dtype, bits, elements).map_err(fail)?,
        (None, 8) => typed(message, dtype),
        (None, bits) => unpack(&typed(message, dtype), dtype, bits, elements).map_err(fail)?,
    };
    Tensor::new(message.name.clone(), dtype, shape, data).map_err(|e| fail(e.to_string()))
}

/// The texts of a tensor of texts, with its shape.
pub(crate) fn texts(message: &proto::Tensor) -> Option<(Vec<usize>, Vec<String>)> {
    let shape: Vec<usize> = message.dims.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?;
    let texts: Vec<String> =
        message.string_data.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect();
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    (dtype_of(message.data_type) == Some(DType::Str) && elements == texts.len()).then_some((shape, texts))
}

/// Location, offset and length in bytes of a tensor's external data.
fn place(message: &proto::Tensor, dtype: DType, elements: usize) -> Result<(&str, u64, u64), String> {
    let entry = |key: &str| message.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("`{key}` is `{text}`, not a number")),
    };
    let location = entry("location").ok_or("external data without a location")?;
    let expected = (elements as u64).checked_mul((dtype.block_bytes() * bits(dtype)) as u64);
    let expected = expected.ok_or("the size overflows")?.div_ceil(8);
    let length = number("length")?.unwrap_or(expected);
    Ok((location, number("offset")?.unwrap_or(0), length))
}

/// Bits that an element takes in a file; here each takes whole bytes.
pub(crate) fn bits(dtype: DType) -> usize {
    match dtype {
        DType::I4 | DType::U4 | DType::F4E2M1 => 4,
        DType::I2 | DType::U2 => 2,
        _ => 8,
    }
}

/// One byte an element from `bits` bits an element, lowest first; signed ones extended.
fn unpack(packed: &[u8], dtype: DType, bits: usize, elements: usize) -> Result<Bytes, String> {
    let per_byte = 8 / bits;
    if packed.len() != elements.div_ceil(per_byte) {
        return Err(format!("{elements} elements of {dtype} in {} bytes", packed.len()));
    }
    let one = |i: usize| {
        let code = packed[i / per_byte] >> (i % per_byte * bits) & ((1 << bits) - 1);
        let shift = 8 - bits;
        let signed = matches!(dtype, DType::I4 | DType::I2);
        if signed { ((code << shift) as i8 >> shift) as u8 } else { code }
    };
    Ok((0..elements).map(one).collect::<Vec<u8>>().into())
}

/// The elements in the field for their type.
fn typed(message: &proto::Tensor, dtype: DType) -> Bytes {
    let ints = |width: usize| {
        message
            .int32_data
            .iter()
            .flat_map(move |n| n.to_le_bytes().into_iter().take(width))
            .collect::<Vec<u8>>()
    };
    match dtype {
        DType::F32 => message.float_data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
        DType::F64 => message.double_data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
        DType::I64 => message.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
        DType::U64 => message.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
        DType::U32 => {
            message.uint64_data.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect::<Vec<u8>>().into()
        }
        other => ints(other.block_bytes()).into(),
    }
}
