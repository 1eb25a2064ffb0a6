//! The block formats of ggml, to and from `f32`.
//!
//! Contract: decoding gives the bits that the `gguf` Python package (and ggml's own code) gives: every product and
//! sum is one `f32` operation in the order they use. Encoding is bit-exact with that package where it encodes the
//! type, and a search for the least weighted error elsewhere. No thread, no SIMD by hand: the inner loops are plain
//! enough for the compiler, and kernels that are hot have their own code over packed weights.

mod codebook;
mod encode;
mod float;
mod grids;
mod iq1;
mod iq2;
mod iq3;
mod kencode;
mod kquant;
mod legacy;
mod search;
mod ternary;

use crate::DType;

pub use float::{f16_to_f32, f32_to_f16};

/// Decodes whole blocks: the bytes of `n` blocks into `n * block_len` values. Whichever side is longer keeps its rest.
pub type RowDecoder = fn(&[u8], &mut [f32]);

/// Appends the blocks of whole blocks' values.
type RowEncoder = fn(&[f32], &mut Vec<u8>);

/// Values that cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// There is no conversion of this type.
    #[error("{dtype} cannot be {action}")]
    Unsupported {
        /// The type asked for.
        dtype: DType,
        /// `decoded to f32` or `encoded from f32`.
        action: &'static str,
    },
    /// Bytes and values are not the same whole number of blocks.
    #[error("{values} values of {dtype} take {} bytes, found {bytes}", expected(*dtype, *values))]
    Length {
        /// The block type.
        dtype: DType,
        /// Encoded bytes given.
        bytes: usize,
        /// Values given.
        values: usize,
    },
    /// The values do not fill whole blocks.
    #[error("{values} values do not fill whole blocks of {dtype}")]
    PartialBlock {
        /// The block type.
        dtype: DType,
        /// Values given.
        values: usize,
    },
    /// A block format has no infinity, no NaN, and scales of half precision.
    #[error("value {index} is not a finite number of at most 65504: {dtype} cannot hold it")]
    OutOfRange {
        /// The block type.
        dtype: DType,
        /// Position of the first such value.
        index: usize,
    },
}

fn expected(dtype: DType, values: usize) -> String {
    dtype.bytes_for(values).map_or_else(|| "no whole number of".into(), |bytes| bytes.to_string())
}

/// Decodes `src` into `dst`, which must be exactly its values.
pub fn dequantize(dtype: DType, src: &[u8], dst: &mut [f32]) -> Result<(), QuantError> {
    let decode = row_decoder(dtype).ok_or(QuantError::Unsupported { dtype, action: "decoded to f32" })?;
    if dtype.bytes_for(dst.len()) != Some(src.len()) {
        return Err(QuantError::Length { dtype, bytes: src.len(), values: dst.len() });
    }
    decode(src, dst);
    Ok(())
}

/// The decoder of a floating-point or block type; none for integers and booleans.
///
/// Look it up once per tensor: calling it costs one indirect call per row.
#[rustfmt::skip]
pub fn row_decoder(dtype: DType) -> Option<RowDecoder> {
    use DType::*;
    Some(match dtype {
        F64 => float::f64, F32 => float::f32, F16 => float::f16, BF16 => float::bf16,
        Q4_0 => legacy::q4_0, Q4_1 => legacy::q4_1, Q5_0 => legacy::q5_0, Q5_1 => legacy::q5_1,
        Q8_0 => legacy::q8_0, Q8_1 => legacy::q8_1, Q1_0 => legacy::q1_0,
        Q2_K => kquant::q2_k, Q3_K => kquant::q3_k, Q4_K => kquant::q4_k, Q5_K => kquant::q5_k,
        Q6_K => kquant::q6_k, Q8_K => kquant::q8_k,
        IQ1_S => iq1::iq1_s, IQ1_M => iq1::iq1_m,
        IQ2_XXS => iq2::iq2_xxs, IQ2_XS => iq2::iq2_xs, IQ2_S => iq2::iq2_s,
        IQ3_XXS => iq3::iq3_xxs, IQ3_S => iq3::iq3_s,
        IQ4_NL => codebook::iq4_nl, IQ4_XS => codebook::iq4_xs,
        MXFP4 => codebook::mxfp4, NVFP4 => codebook::nvfp4,
        TQ1_0 => ternary::tq1_0, TQ2_0 => ternary::tq2_0,
        I64 | I32 | I16 | I8 | U64 | U32 | U16 | U8 | Bool | I4 | U4 | I2 | U2 | Str => return None,
        F4E2M1 | F8E4M3 | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => return None,
    })
}

/// Appends `src`, which must fill whole blocks, encoded as `dtype`.
///
/// Block formats refuse values beyond half precision's range; floating-point types take any.
pub fn quantize(dtype: DType, src: &[f32], out: &mut Vec<u8>) -> Result<(), QuantError> {
    let encode = encoder(dtype).ok_or(QuantError::Unsupported { dtype, action: "encoded from f32" })?;
    if dtype.bytes_for(src.len()).is_none() {
        return Err(QuantError::PartialBlock { dtype, values: src.len() });
    }
    let holds = |x: &f32| x.abs() <= 65504.0 || !dtype.is_quantized();
    if let Some(index) = src.iter().position(|x| !holds(x)) {
        return Err(QuantError::OutOfRange { dtype, index });
    }
    encode(src, out);
    Ok(())
}

#[rustfmt::skip]
fn encoder(dtype: DType) -> Option<RowEncoder> {
    use DType::*;
    Some(match dtype {
        F32 => encode::f32, F16 => encode::f16, BF16 => encode::bf16,
        Q4_0 => encode::q4_0, Q4_1 => encode::q4_1, Q5_0 => encode::q5_0, Q5_1 => encode::q5_1,
        Q8_0 => encode::q8_0, TQ1_0 => encode::tq1_0, TQ2_0 => encode::tq2_0, MXFP4 => encode::mxfp4,
        Q2_K => kencode::q2_k, Q3_K => kencode::q3_k, Q4_K => kencode::q4_k, Q5_K => kencode::q5_k,
        Q6_K => kencode::q6_k, IQ4_NL => kencode::iq4_nl,
        _ => return None,
    })
}

/// Runs `decode` on each block of `B` bytes and its `N` values.
#[inline(always)]
fn each_block<const B: usize, const N: usize>(
    src: &[u8],
    dst: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; N]),
) {
    for (block, values) in src.as_chunks().0.iter().zip(dst.as_chunks_mut().0) {
        decode(block, values);
    }
}

/// The little-endian half float at byte `at`.
#[inline(always)]
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16_at(block, at))
}

#[inline(always)]
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

#[inline(always)]
fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
