//! Saved log-probabilities of a text: the file format of llama.cpp's `llama-perplexity --kl-divergence-base`.
//!
//! ```text
//! "_logits_"  context: i32  vocabulary: i32  chunks: i32  tokens: i32 x context x chunks
//! then a row for each of the positions context/2 .. context - 1 of each chunk:
//! scale: f32  least log-probability: f32  codes: u16 x vocabulary (padded to an even number)
//! log-probability = least + scale * code; logits more than 16 below the greatest are stored as that
//! ```

use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"_logits_";
/// Sizes beyond these are no such file.
const MAX_SIZE: i32 = 1 << 24;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogitsHeader {
    /// Tokens of a chunk; the second half of each is scored.
    pub(crate) context: usize,
    /// Size of the vocabulary.
    pub(crate) vocab: usize,
    /// The tokens of all chunks.
    pub(crate) tokens: Vec<u32>,
}

impl LogitsHeader {
    /// Reads a header; the reader is left at the first row.
    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut magic = [0; 8];
        fill(from, &mut magic)?;
        if &magic != MAGIC {
            return Err(bad("not a file of saved logits (it does not begin with `_logits_`)"));
        }
        let (context, vocab, chunks) = (number(from)?, number(from)?, number(from)?);
        if [context, vocab, chunks].iter().any(|n| !(1..=MAX_SIZE).contains(n)) || context < 4 {
            return Err(bad("its sizes are impossible"));
        }
        let count = i64::from(context) * i64::from(chunks);
        // Grows with what is read, whatever the header claims.
        let mut bytes = Vec::new();
        from.take(4 * count as u64).read_to_end(&mut bytes)?;
        let tokens: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        if tokens.len() as i64 != count {
            return Err(too_short());
        }
        Ok(Self { context: context as usize, vocab: vocab as usize, tokens })
    }

    /// Writes the header.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(MAGIC)?;
        for size in [self.context, self.vocab, self.tokens.len() / self.context.max(1)] {
            to.write_all(&(size as i32).to_le_bytes())?;
        }
        self.tokens.iter().try_for_each(|token| to.write_all(&token.to_le_bytes()))
    }

    /// Index within a chunk of the first scored position.
    pub(crate) fn first_scored(&self) -> usize {
        self.context / 2
    }
}

/// Reads the next row as log-probabilities.
pub(crate) fn read_row(from: &mut impl Read, vocab: usize, row: &mut Vec<f32>) -> io::Result<()> {
    let (mut head, mut codes) = ([0; 8], vec![0; 2 * vocab.next_multiple_of(2)]);
    fill(from, &mut head)?;
    fill(from, &mut codes)?;
    let [scale, least] =
        [0, 4].map(|at| f32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    row.clear();
    row.extend(
        codes.as_chunks().0[..vocab].iter().map(|b| least + scale * f32::from(u16::from_le_bytes(*b))),
    );
    Ok(())
}

/// Writes a row of logits as log-probabilities.
pub(crate) fn write_row(to: &mut impl Write, logits: &[f32]) -> io::Result<()> {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let least = logits.iter().copied().fold(f32::INFINITY, f32::min).max(greatest - 16.0);
    let sum: f64 = logits.iter().map(|x| f64::from(x - greatest).exp()).sum();
    let scale = (greatest - least) / 65535.0;
    to.write_all(&scale.to_le_bytes())?;
    to.write_all(&((f64::from(least - greatest) - sum.ln()) as f32).to_le_bytes())?;
    let code = |x: &f32| if *x > least && scale > 0.0 { ((x - least) / scale).round() as u16 } else { 0 };
    let mut codes: Vec<u8> = logits.iter().flat_map(|x| code(x).to_le_bytes()).collect();
    codes.resize(2 * logits.len().next_multiple_of(2), 0);
    to.write_all(&codes)
}

fn number(from: &mut impl Read) -> io::Result<i32> {
    let mut bytes = [0; 4];
    fill(from, &mut bytes)?;
    Ok(i32::from_le_bytes(bytes))
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early; save it again")
}

fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<()> {
    let short = |e: &io::Error| e.kind() == io::ErrorKind::UnexpectedEof;
    from.read_exact(bytes).map_err(|e| if short(&e) { too_short() } else { e })
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_within_a_step_of_sixteen_bits() -> io::Result<()> {
        let logits: Vec<f32> = (0..7).map(|i| i as f32 * 1.5 - 3.0).collect();
        let header = LogitsHeader { context: 4, vocab: 7, tokens: vec![1, 2, 3, 4] };
        let mut file = Vec::new();
        header.write(&mut file)?;
        write_row(&mut file, &logits)?;
        let mut from = file.as_slice();
        assert_eq!(LogitsHeader::read(&mut from)?, header);
        let mut row = Vec::new();
        read_row(&mut from, 7, &mut row)?;
        let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        for (found, logit) in row.iter().zip(&logits) {
            assert!((f64::from(*found) - (f64::from(*logit) - sum.ln())).abs() < 3e-4, "{found} for {logit}");
        }
        assert!(from.is_empty());
        Ok(())
    }

    #[test]
    fn other_files_and_short_ones_are_errors() {
        let check = |bytes: &[u8], kind| {
            assert_eq!(LogitsHeader::read(&mut &*bytes).map_err(|e| e.kind()), Err(kind));
        };
        check(b"GGUF....", io::ErrorKind::InvalidData);
        check(b"_log", io::ErrorKind::UnexpectedEof);
        check(b"_logits_\xff\xff\xff\x7f\x01\0\0\0\x01\0\0\0", io::ErrorKind::InvalidData);
        check(b"_logits_\x04\0\0\0\x01\0\0\0\x01\0\0\0\0\0", io::ErrorKind::UnexpectedEof);
    }
}
