//! Ragged batches: how rows of several sequences share one buffer, and where their past lives.
//!
//! A batch concatenates the new tokens of its sequences along dimension 0. Each sequence keeps its keys and values in
//! fixed-size pages; the page table belongs to whoever schedules the batch.

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

/// Shape of the key/value cache that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvSpec {
    /// One entry a layer, in layer order.
    pub layers: Vec<KvLayer>,
    /// Element type: F32, F16, BF16 or Q8_0.
    pub dtype: crate::DType,
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
                self.dtype.bytes_for(layer.key_dim)?.checked_add(self.dtype.bytes_for(layer.value_dim)?)?;
            total.checked_add(row.checked_mul(layer.heads)?.checked_mul(self.page_tokens)?)
        })
    }
}
