//! Element types: plain numbers and the ggml block formats.
//!
//! A *block* is the smallest unit that can be stored: one element for plain types, 32 or 256 for quantised ones.

/// Element type of a tensor. Quantised variants name the block formats of the GGUF specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are the specification's own")]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    /// Stored one an element, like the other types of less than a byte below.
    I4,
    U4,
    I2,
    U2,
    F4E2M1,
    F8E4M3,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    /// Text. Not stored as bytes: such values exist only while a graph runs.
    Str,
}

/// One row of the registry: type, name, ggml number (or none), elements per block, bytes per block.
type Row = (DType, &'static str, Option<u32>, usize, usize);

use DType::*;

/// One row per variant, in the order of the enum: [`DType::row`] indexes by discriminant.
#[rustfmt::skip]
const TABLE: [Row; 50] = [
    (F64, "F64", Some(28), 1, 8),            (F32, "F32", Some(0), 1, 4),
    (F16, "F16", Some(1), 1, 2),             (BF16, "BF16", Some(30), 1, 2),
    (I64, "I64", Some(27), 1, 8),            (I32, "I32", Some(26), 1, 4),
    (I16, "I16", Some(25), 1, 2),            (I8, "I8", Some(24), 1, 1),
    (U64, "U64", None, 1, 8),                (U32, "U32", None, 1, 4),
    (U16, "U16", None, 1, 2),                (U8, "U8", None, 1, 1),
    (Bool, "BOOL", None, 1, 1),
    (Q4_0, "Q4_0", Some(2), 32, 18),         (Q4_1, "Q4_1", Some(3), 32, 20),
    (Q5_0, "Q5_0", Some(6), 32, 22),         (Q5_1, "Q5_1", Some(7), 32, 24),
    (Q8_0, "Q8_0", Some(8), 32, 34),         (Q8_1, "Q8_1", Some(9), 32, 36),
    (Q2_K, "Q2_K", Some(10), 256, 84),       (Q3_K, "Q3_K", Some(11), 256, 110),
    (Q4_K, "Q4_K", Some(12), 256, 144),      (Q5_K, "Q5_K", Some(13), 256, 176),
    (Q6_K, "Q6_K", Some(14), 256, 210),      (Q8_K, "Q8_K", Some(15), 256, 292),
    (IQ1_S, "IQ1_S", Some(19), 256, 50),     (IQ1_M, "IQ1_M", Some(29), 256, 56),
    (IQ2_XXS, "IQ2_XXS", Some(16), 256, 66), (IQ2_XS, "IQ2_XS", Some(17), 256, 74),
    (IQ2_S, "IQ2_S", Some(22), 256, 82),     (IQ3_XXS, "IQ3_XXS", Some(18), 256, 98),
    (IQ3_S, "IQ3_S", Some(21), 256, 110),    (IQ4_NL, "IQ4_NL", Some(20), 32, 18),
    (IQ4_XS, "IQ4_XS", Some(23), 256, 136),  (TQ1_0, "TQ1_0", Some(34), 256, 54),
    (TQ2_0, "TQ2_0", Some(35), 256, 66),     (MXFP4, "MXFP4", Some(39), 32, 17),
    (NVFP4, "NVFP4", Some(40), 64, 36),      (Q1_0, "Q1_0", Some(41), 128, 18),
    (I4, "I4", None, 1, 1),                  (U4, "U4", None, 1, 1),
    (I2, "I2", None, 1, 1),                  (U2, "U2", None, 1, 1),
    (F4E2M1, "F4E2M1", None, 1, 1),          (F8E4M3, "F8_E4M3", None, 1, 1),
    (F8E4M3FNUZ, "F8_E4M3FNUZ", None, 1, 1), (F8E5M2, "F8_E5M2", None, 1, 1),
    (F8E5M2FNUZ, "F8_E5M2FNUZ", None, 1, 1), (F8E8M0, "F8_E8M0", None, 1, 1),
    (Str, "STRING", None, 1, 16),
];

/// The inverse of the table's third column. Built at compile time, where it also proves the table's order.
const BY_GGML: [Option<DType>; 42] = {
    let mut inverse = [None; 42];
    let mut i = 0;
    while i < TABLE.len() {
        assert!(TABLE[i].0 as usize == i, "rows stand in the order of the variants");
        if let Some(number) = TABLE[i].2 {
            inverse[number as usize] = Some(TABLE[i].0);
        }
        i += 1;
    }
    inverse
};

impl DType {
    /// Every type, in declaration order.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The specification's spelling, e.g. `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type with this ggml number, as GGUF tensor records store it.
    pub fn from_ggml(number: u32) -> Option<Self> {
        *BY_GGML.get(number as usize)?
    }

    /// The ggml number, or none for types that GGUF cannot store.
    pub fn ggml(self) -> Option<u32> {
        self.row().2
    }

    /// Elements per block.
    #[inline]
    pub fn block_len(self) -> usize {
        self.row().3
    }

    /// Bytes per block.
    #[inline]
    pub fn block_bytes(self) -> usize {
        self.row().4
    }

    /// Whether values are integers or truth values.
    pub fn is_integer(self) -> bool {
        use DType::*;
        matches!(self, I64 | I32 | I16 | I8 | U64 | U32 | U16 | U8 | Bool | I4 | U4 | I2 | U2)
    }

    /// Whether values are stored as quantised blocks.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Bytes that `elements` consecutive elements take; none when they do not fill whole blocks or overflow.
    #[inline]
    pub fn bytes_for(self, elements: usize) -> Option<usize> {
        let whole = elements.is_multiple_of(self.block_len());
        whole.then(|| (elements / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ggml_numbers_round_trip() {
        for dtype in DType::all() {
            if let Some(number) = dtype.ggml() {
                assert_eq!(DType::from_ggml(number), Some(dtype));
            }
        }
        assert_eq!([4, 5, 31, 42, u32::MAX].map(DType::from_ggml), [None; 5]);
    }

    #[test]
    fn only_whole_blocks_have_a_size() {
        assert_eq!(Q4_K.bytes_for(512), Some(288));
        assert_eq!(Q4_K.bytes_for(100), None);
        assert_eq!(F32.bytes_for(usize::MAX), None);
    }
}
