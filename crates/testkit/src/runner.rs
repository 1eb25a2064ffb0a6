//! Runs a compiled decoder by hand: one call at a time, with page tables laid out by the test.

use kinglet_graph::{Call, CancelToken, ExecError, Executable, Input};
use kinglet_tensor::{PageId, SeqRows};

/// A sequence that a test feeds piece by piece.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Tokens stored so far.
    pub past: usize,
    /// Its pages.
    pub pages: Vec<PageId>,
}

impl Sequence {
    /// A sequence without tokens on these pages.
    pub fn on(pages: &[PageId]) -> Self {
        Self { past: 0, pages: pages.to_vec() }
    }
}

/// Appends each part's tokens to its sequence in one batch and returns the logits of every row, row-major.
pub fn feed(
    executable: &mut dyn Executable,
    parts: &mut [(&mut Sequence, &[i32])],
) -> Result<Vec<f32>, ExecError> {
    let tokens: Vec<i32> = parts.iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
    let rows: Vec<i32> = (0..tokens.len() as i32).collect();
    let mut start = 0;
    let seqs: Vec<SeqRows<'_>> = parts
        .iter()
        .map(|(seq, tokens)| {
            let rows = SeqRows { start, len: tokens.len(), past: seq.past, pages: &seq.pages };
            start += tokens.len();
            rows
        })
        .collect();
    let inputs = [Input::I32(&tokens), Input::I32(&rows)];
    executable.run(&Call { inputs: &inputs, seqs: &seqs, cancel: &CancelToken::default() })?;
    let logits = executable.output(0)?.to_vec();
    parts.iter_mut().for_each(|(seq, tokens)| seq.past += tokens.len());
    Ok(logits)
}
