//! The set of tokens a grammar allows next.

/// One bit per token of the vocabulary; a token beyond its end is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u64>,
    len: usize,
}

impl TokenMask {
    /// Allows none of `len` tokens.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// Allows all of `len` tokens.
    pub fn all(len: usize) -> Self {
        let mut mask = Self::none(len);
        (0..len as u32).for_each(|token| mask.allow(token));
        mask
    }

    /// Number of tokens the mask speaks of.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mask speaks of no tokens at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allows `token`; a token beyond the vocabulary is ignored.
    pub fn allow(&mut self, token: u32) {
        if (token as usize) < self.len {
            self.words[token as usize / 64] |= 1 << (token % 64);
        }
    }

    /// Forbids `token`.
    pub fn forbid(&mut self, token: u32) {
        if (token as usize) < self.len {
            self.words[token as usize / 64] &= !(1 << (token % 64));
        }
    }

    /// Forbids everything.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Whether `token` is allowed.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 64).is_some_and(|word| word >> (token % 64) & 1 == 1)
    }

    /// Sets the logit of each token that is not allowed to −∞.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        for (at, block) in logits.chunks_mut(64).enumerate() {
            let word = self.words.get(at).copied().unwrap_or(0);
            if word != u64::MAX {
                for (bit, logit) in block.iter_mut().enumerate() {
                    *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
    }

    /// Number of tokens allowed.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }
}
