//! Weights of neural network layers: plain, of half precision, or quantised.

use kinglet_tensor::{Bytes, DType};

use super::CoreMlError;
use super::network::Fields;

/// Weights as they stand in the file.
#[derive(Clone, Debug)]
pub enum Weights {
    /// Numbers of a plain type.
    Plain(DType, Bytes),
    /// `code * scale + bias` of integers of 1 to 8 bits, one scale and bias for all or for each output channel.
    Linear {
        /// Bits of a code.
        bits: u8,
        /// The codes, the highest bit first.
        codes: Bytes,
        /// Factors.
        scale: Vec<f32>,
        /// Offsets; as many.
        bias: Vec<f32>,
    },
    /// Entries of a table.
    Table {
        /// Bits of a code.
        bits: u8,
        /// The codes, the highest bit first.
        codes: Bytes,
        /// What each code stands for.
        table: Vec<f32>,
    },
}

impl Weights {
    pub(super) fn of(layer: &str, fields: &Fields) -> Result<Self, CoreMlError> {
        let fail = |why: String| CoreMlError::value(layer, why);
        let Some(quantised) = fields.message(40)? else {
            if let Some(half) = fields.bytes(2).filter(|half| !half.is_empty()) {
                return Ok(Self::Plain(DType::F16, half.clone()));
            }
            if let Some(packed) = fields.bytes(1) {
                return Ok(Self::Plain(DType::F32, packed.clone()));
            }
            let listed = fields.floats(1).iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
            return Ok(Self::Plain(DType::F32, listed.into()));
        };
        let bits = u8::try_from(quantised.int(1)).ok().filter(|bits| (1..=8).contains(bits));
        let bits =
            bits.ok_or_else(|| fail(format!("weights of {} bits cannot be read", quantised.int(1))))?;
        let codes = fields.bytes(30).or(fields.bytes(31)).cloned().unwrap_or_default();
        if let Some(table) = quantised.message(102)? {
            let table = table.floats(1);
            let fits = table.len() == 1 << bits;
            return if fits {
                Ok(Self::Table { bits, codes, table })
            } else {
                Err(fail(format!("a table of {} entries is not of {bits} bits", table.len())))
            };
        }
        let linear =
            quantised.message(101)?.ok_or_else(|| fail("their quantisation is of no known kind".into()))?;
        let scale = linear.floats(1);
        let bias =
            Some(linear.floats(2)).filter(|bias| !bias.is_empty()).unwrap_or_else(|| vec![0.0; scale.len()]);
        if scale.is_empty() || scale.len() != bias.len() {
            return Err(fail(format!("{} scales do not go with {} offsets", scale.len(), bias.len())));
        }
        Ok(Self::Linear { bits, codes, scale, bias })
    }

    /// How many there are; packed codes may end with unused bits.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(dtype, data) => data.len() / dtype.block_bytes(),
            Self::Linear { bits, codes, .. } | Self::Table { bits, codes, .. } => {
                codes.len().saturating_mul(8) / usize::from(*bits)
            }
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `count` numbers that they stand for; none when there are not as many, or scales do not divide them.
    pub fn floats(&self, count: usize) -> Option<Vec<f32>> {
        match self {
            Self::Plain(dtype, data) => {
                let mut values = vec![0.0; Some(count).filter(|n| *n == self.len())?];
                kinglet_tensor::quant::dequantize(*dtype, data, &mut values).ok()?;
                Some(values)
            }
            Self::Table { bits, codes, table } => {
                Some(unpacked(codes, *bits, count)?.map(|code| table[usize::from(code)]).collect())
            }
            Self::Linear { bits, codes, scale, bias } => {
                let share = Some(count / scale.len()).filter(|n| n * scale.len() == count && *n > 0)?;
                let value = |(i, code): (usize, u8)| f32::from(code) * scale[i / share] + bias[i / share];
                Some(unpacked(codes, *bits, count)?.enumerate().map(value).collect())
            }
        }
    }
}

/// `count` codes of `bits` bits, the highest bit first; none unless exactly their bytes are there.
fn unpacked(codes: &[u8], bits: u8, count: usize) -> Option<impl Iterator<Item = u8>> {
    let bits = usize::from(bits);
    let one = move |i: usize| {
        let (byte, shift) = (i * bits / 8, i * bits % 8);
        let next = codes.get(byte + 1).copied().unwrap_or(0);
        let pair = u16::from_be_bytes([codes[byte], next]);
        (pair >> (16 - bits - shift)) as u8 & (0xFF >> (8 - bits))
    };
    (codes.len() == count.checked_mul(bits)?.div_ceil(8)).then(|| (0..count).map(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_packed_with_the_highest_bit_first() {
        let check = |bits: u8, codes: &[u8], expected: &[u8]| {
            let found: Vec<u8> = unpacked(codes, bits, expected.len()).expect("as many").collect();
            assert_eq!(found, expected, "{bits} bits");
        };
        check(8, &[7, 255], &[7, 255]);
        check(4, &[0x1F, 0x20], &[1, 15, 2]);
        check(3, &[0b1010_0111, 0b0110_0000], &[5, 1, 6, 6]);
        check(1, &[0b1010_0000], &[1, 0, 1]);
        assert!(unpacked(&[1, 2], 8, 1).is_none());
        assert!(unpacked(&[1], 8, usize::MAX).is_none());
    }
}
