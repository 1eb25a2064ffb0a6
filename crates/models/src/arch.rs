//! What one decoder architecture is, as data.
//!
//! Choices that would silently corrupt the output when guessed (pairing of rotary elements, activation, norm) have no
//! default. Sizes are not here: they come from the model file, see [`crate::DecoderConfig`].

use kinglet_graph::ops::{Activation, RopeStyle};

/// How norm weights are stored in Hugging Face checkpoints (GGUF files always store the factor itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// RMS norm, the weight is the factor.
    Rms,
    /// RMS norm, the factor is one more than the weight (Gemma).
    RmsPlusOne,
}

/// Which layers attend to a sliding window only, when the model has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// All of them.
    Every,
    /// None unless the configuration switches them on; then those from a layer on that it names.
    Switched,
    /// All but the last of each run of this many.
    AllButLastOf(usize),
}

impl Windows {
    /// For each of `layers` layers, whether it is windowed.
    pub fn layers(self, layers: usize) -> Vec<bool> {
        let windowed = |layer: usize| match self {
            Self::Every | Self::Switched => true,
            Self::AllButLastOf(n) => !(layer + 1).is_multiple_of(n),
        };
        (0..layers.min(1 << 12)).map(windowed).collect()
    }
}

/// A decoder architecture. Build one with [`Arch::decoder`], add it to [`crate::ARCHS`].
#[derive(Clone, Copy, Debug)]
pub struct Arch {
    /// `general.architecture` of GGUF files and `architectures[0]` of Hugging Face configs.
    pub ids: &'static [&'static str],
    /// Rotary pairing in Hugging Face checkpoints.
    pub rope: RopeStyle,
    /// Rotary pairing in GGUF files, whose writers may have permuted the projections.
    pub gguf_rope: RopeStyle,
    /// Activation on the gate.
    pub act: Activation,
    /// Norm.
    pub norm: Norm,
    /// Queries and keys are normalised per head.
    pub qk_norm: bool,
    /// Attention and MLP outputs are normalised before they join the residual.
    pub sandwich: bool,
    /// Embeddings are multiplied by `sqrt(dim)`.
    pub scale_embedding: bool,
    /// Layers that see the window, in models that have one.
    pub windows: Windows,
    /// Rotary base of windowed layers where it differs, and has no key in GGUF files.
    pub local_rope_base: Option<f64>,
    /// Layer count of the one size whose attention scale is `dim / heads` instead of the head's length.
    pub wide_scale_layers: Option<usize>,
}

impl Arch {
    /// A pre-norm decoder with gated MLP, one pairing in both formats and nothing special.
    pub const fn decoder(rope: RopeStyle, act: Activation, norm: Norm) -> Self {
        Self {
            ids: &[],
            rope,
            gguf_rope: rope,
            act,
            norm,
            qk_norm: false,
            sandwich: false,
            scale_embedding: false,
            windows: Windows::Every,
            local_rope_base: None,
            wide_scale_layers: None,
        }
    }

    /// Names it goes by in model files.
    pub const fn ids(mut self, ids: &'static [&'static str]) -> Self {
        self.ids = ids;
        self
    }

    /// GGUF writers permute query and key rows of this architecture to another pairing.
    pub const fn gguf_rope(mut self, style: RopeStyle) -> Self {
        self.gguf_rope = style;
        self
    }

    /// Queries and keys are normalised per head.
    pub const fn qk_norm(mut self) -> Self {
        self.qk_norm = true;
        self
    }

    /// Norms before and after attention and MLP, and embeddings scaled by `sqrt(dim)`.
    pub const fn gemma_shell(mut self) -> Self {
        self.sandwich = true;
        self.scale_embedding = true;
        self
    }

    /// Which layers see the window.
    pub const fn windows(mut self, windows: Windows) -> Self {
        self.windows = windows;
        self
    }

    /// Rotary base of windowed layers.
    pub const fn local_rope_base(mut self, base: f64) -> Self {
        self.local_rope_base = Some(base);
        self
    }

    /// Layer count of the size whose attention scale is `dim / heads`.
    pub const fn wide_scale_layers(mut self, layers: usize) -> Self {
        self.wide_scale_layers = Some(layers);
        self
    }
}
