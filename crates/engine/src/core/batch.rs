//! What one run of the executable computes.

use kinglet_tensor::PageId;

use super::order::RequestId;

/// The rows of one run, ready to be handed to an executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// One token a row.
    pub tokens: Vec<i32>,
    /// The sequences, covering the rows in order without gaps.
    pub seqs: Vec<BatchSeq>,
    /// Rows whose logits are wanted, ascending.
    pub out_rows: Vec<i32>,
}

/// One sequence's share of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSeq {
    /// Whose rows they are.
    pub id: RequestId,
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Tokens that precede the first row.
    pub past: usize,
    /// Pages of past and new tokens, in order.
    pub pages: Vec<PageId>,
    /// How many of its last rows have an output.
    pub outputs: usize,
}
