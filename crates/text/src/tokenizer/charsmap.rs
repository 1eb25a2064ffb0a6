//! SentencePiece's `precompiled_charsmap`: which sequences of bytes a text's normal form replaces by which.
//!
//! Layout: the size of the trie in bytes (u32), the trie (a double array of u32, as Darts-clone packs it), and a pool
//! of zero-terminated replacements. All integers are little-endian.

use super::error::TokenizerError;

/// The longest prefix wins; what the trie does not know stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Charsmap {
    trie: Vec<u32>,
    pool: Vec<u8>,
}

impl Charsmap {
    /// Reads the table; no bytes make a table that changes nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let bad = |problem| TokenizerError::BadCharsmap { problem };
        let (size, rest) = bytes.split_first_chunk().ok_or(bad("it is shorter than its header"))?;
        let size = u32::from_le_bytes(*size) as usize;
        let (trie, pool) = rest.split_at_checked(size).ok_or(bad("its trie is longer than the table"))?;
        let (units, rest) = trie.as_chunks();
        if units.is_empty() || !rest.is_empty() {
            return Err(bad("its trie is not a list of 32-bit units"));
        }
        Ok(Self { trie: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(), pool: pool.to_vec() })
    }

    /// The text's normal form, as UTF-8 again where a replacement is not.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let (len, replacement) = self.longest(rest.as_bytes()).unwrap_or((0, b""));
            if len == 0 || !rest.is_char_boundary(len) {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            } else {
                out.push_str(&String::from_utf8_lossy(replacement));
                rest = &rest[len..];
            }
        }
        out
    }

    /// The length of the longest prefix of `bytes` in the trie, and what replaces it.
    fn longest(&self, bytes: &[u8]) -> Option<(usize, &[u8])> {
        let mut found = None;
        let mut node = offset(*self.trie.first()?);
        for (i, &byte) in bytes.iter().enumerate() {
            if byte == 0 {
                break;
            }
            node ^= u32::from(byte);
            let Some(&unit) = self.trie.get(node as usize) else { break };
            if unit & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = self.trie.get(node as usize).map(|unit| unit & !(1 << 31));
                found = value.map(|at| (i + 1, at));
            }
        }
        let (len, at) = found?;
        let tail = self.pool.get(at as usize..)?;
        let end = tail.iter().position(|&b| b == 0)?;
        Some((len, &tail[..end]))
    }
}

/// Where a unit's children begin, relative to the unit.
fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}
