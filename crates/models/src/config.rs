//! Sizes and switches of one decoder, read from either format's configuration.

mod gguf;
mod hf;
pub(crate) mod keys;

use kinglet_tensor::Metadata;

use crate::rope::RopeConfig;
use crate::{Arch, ModelError};

/// Which format's conventions names and weights follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// GGUF: flat metadata, `blk.0.attn_q.weight`.
    Gguf,
    /// Hugging Face: `config.json`, `model.layers.0.self_attn.q_proj.weight`.
    HuggingFace,
}

/// Sizes and switches of one decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// Architecture.
    pub arch: &'static Arch,
    /// Conventions of the file it was read from.
    pub convention: Convention,
    /// Rows of the embedding, when the configuration says so.
    pub vocab: Option<usize>,
    /// Length of the residual.
    pub dim: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a query or key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Width of the MLP.
    pub ff: usize,
    /// Positions the model was trained for.
    pub context: usize,
    /// Added to the mean square in every norm.
    pub norm_eps: f32,
    /// Rotary embedding of layers that see everything.
    pub rope: RopeConfig,
    /// Rotary embedding of windowed layers.
    pub local_rope: RopeConfig,
    /// Sliding window, in tokens.
    pub window: Option<usize>,
    /// For each layer, whether it sees the window only.
    pub windowed: Vec<bool>,
    /// Factor on `q . k`.
    pub attn_scale: f32,
    /// Soft cap on attention scores.
    pub attn_softcap: Option<f32>,
    /// Soft cap on logits.
    pub logit_softcap: Option<f32>,
    /// The output matrix must be in the file: it is not the embedding table.
    pub own_output: bool,
}

impl DecoderConfig {
    /// Reads GGUF metadata.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, ModelError> {
        gguf::read(metadata)?.checked()
    }

    /// Reads a parsed `config.json`.
    pub fn from_hf(config: &Metadata) -> Result<Self, ModelError> {
        hf::read(config)?.checked()
    }

    /// The window of a layer, when it has one.
    pub fn layer_window(&self, layer: usize) -> Option<usize> {
        self.window.filter(|_| self.windowed.get(layer).copied().unwrap_or(false))
    }

    /// Refuses sizes that no model has, before anything is allocated for them.
    fn checked(self) -> Result<Self, ModelError> {
        let limits = [
            ("embedding length", self.dim, 1 << 20),
            ("block count", self.layers, 1 << 12),
            ("head count", self.heads, 1 << 12),
            ("key/value head count", self.kv_heads, 1 << 12),
            ("key length", self.key_dim, 1 << 16),
            ("value length", self.value_dim, 1 << 16),
            ("feed-forward length", self.ff, 1 << 24),
            ("context length", self.context, 1 << 30),
        ];
        for (key, found, max) in limits {
            if found == 0 || found > max {
                return Err(bad(key, found, format!("1 to {max}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(bad(
                "head count",
                self.heads,
                format!("a multiple of {} key/value heads", self.kv_heads),
            ));
        }
        self.check_numbers()?;
        let (rope, local_rope) = (self.rope.checked(self.key_dim)?, self.local_rope.checked(self.key_dim)?);
        Ok(Self { rope, local_rope, ..self })
    }

    /// Refuses factors that would make every result infinite or no number.
    fn check_numbers(&self) -> Result<(), ModelError> {
        if !(0.0..1.0).contains(&self.norm_eps) {
            return Err(bad("norm epsilon", self.norm_eps, "0 to 1"));
        }
        let factors = [
            ("attention scale", Some(self.attn_scale)),
            ("attention soft cap", self.attn_softcap),
            ("logit soft cap", self.logit_softcap),
        ];
        for (key, factor) in factors {
            if let Some(found) = factor.filter(|factor| !(factor.is_finite() && *factor > 0.0)) {
                return Err(bad(key, found, "a positive number"));
            }
        }
        Ok(())
    }
}

/// A value that cannot be right.
fn bad(key: &str, found: impl std::fmt::Display, expected: impl Into<String>) -> ModelError {
    ModelError::BadKey { key: key.into(), found: found.to_string(), expected: expected.into() }
}
