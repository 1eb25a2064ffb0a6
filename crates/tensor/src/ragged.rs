//! Ragged batches: how rows of several sequences share one buffer, and where their past lives.
//!
//! A batch concatenates the new tokens of its sequences along dimension 0. Each sequence keeps its keys and values in
//! fixed-size pages; the page table belongs to whoever schedules the batch.

use crate::DType;

/// Index of a key/value page. One page covers the same `page_tokens` positions in every layer.
pub type PageId = u32;

/// One sequence's share of a ragged batch.
#[derive(Clone, Copy, Debug)]
pub struct SeqRows<'a> {
    /// First row of the batch that belongs to the sequence.
    pub start: usize,
    /// Number of rows, i.e. of new tokens.
    pub len: usize,
    /// Tokens already in the pages; the first new row has this position.
    pub past: usize,
    /// The sequence's pages in order: position `p` lives in `pages[p / page_tokens]`.
    pub pages: &'a [PageId],
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// Half floats (IEEE binary16).
    F16,
    /// bfloat16.
    Bf16,
    /// Signed bytes with a half-float scale for every 32 elements.
    Q8_0,
    /// Signed 16-bit codes with a float scale for every row: as precise as half floats, and multiplied as they are.
    #[default]
    Q16,
}

impl KvType {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q16];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q16 => "q16",
        }
    }

    /// Elements of a row come in multiples of this.
    pub fn block_len(self) -> usize {
        if self == Self::Q8_0 { DType::Q8_0.block_len() } else { 1 }
    }

    /// Bytes of a row of `dim` elements; none when it overflows or splits a block.
    pub fn row_bytes(self, dim: usize) -> Option<usize> {
        match self {
            Self::F32 => DType::F32.bytes_for(dim),
            Self::F16 | Self::Bf16 => DType::F16.bytes_for(dim),
            Self::Q8_0 => DType::Q8_0.bytes_for(dim),
            // Codes come in pairs.
            Self::Q16 => dim.div_ceil(2).checked_add(1)?.checked_mul(4),
        }
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Shape of the key/value cache that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// One entry a layer, in layer order.
    pub layers: Vec<KvLayer>,
    /// How they are stored.
    pub kind: KvType,
    /// Positions a page holds.
    pub page_tokens: usize,
}

/// Key/value shape of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayer {
    /// Number of key/value heads.
    pub heads: usize,
    /// Elements of a key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
}

impl KvSpec {
    /// Bytes that one page takes over all layers; none when it overflows or splits a block.
    pub fn page_bytes(&self) -> Option<usize> {
        self.layers.iter().try_fold(0usize, |total, layer| {
            let row =
                self.kind.row_bytes(layer.key_dim)?.checked_add(self.kind.row_bytes(layer.value_dim)?)?;
            total.checked_add(row.checked_mul(layer.heads)?.checked_mul(self.page_tokens)?)
        })
    }
}
