//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>) as attributes of attention.

/// Which elements of a head form a rotated pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `(i, i + dims/2)`: GPT-NeoX, Hugging Face checkpoints.
    Halves,
    /// `(2i, 2i + 1)`: the original, Llama in GGUF files.
    Interleaved,
}

/// Rotates the first `2 * inv_freq.len()` elements of each head by `position * inv_freq[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Pairing.
    pub style: RopeStyle,
    /// Radians per position, one a pair; every scaling scheme is already applied.
    pub inv_freq: Vec<f64>,
    /// Factor on the rotated elements (YaRN, LongRoPE); 1 otherwise.
    pub magnitude: f32,
}

impl Rope {
    /// Elements of each head that are rotated.
    pub fn dims(&self) -> usize {
        2 * self.inv_freq.len()
    }
}
