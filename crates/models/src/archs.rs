//! The registry of decoder architectures. A new one is a constant here and a tiny golden model in the tests.

use kinglet_graph::ops::Activation::{GeluTanh, Silu};
use kinglet_graph::ops::RopeStyle::{Halves, Interleaved};

use crate::arch::{Arch, Norm, Windows};

/// Llama 1 to 3, SmolLM, TinyLlama.
pub const LLAMA: Arch =
    Arch::decoder(Halves, Silu, Norm::Rms).gguf_rope(Interleaved).ids(&["llama", "LlamaForCausalLM"]);

/// Mistral 7B and its kin. GGUF files call it `llama`.
pub const MISTRAL: Arch =
    Arch::decoder(Halves, Silu, Norm::Rms).gguf_rope(Interleaved).ids(&["MistralForCausalLM"]);

/// Qwen2 and Qwen2.5.
pub const QWEN2: Arch =
    Arch::decoder(Halves, Silu, Norm::Rms).ids(&["qwen2", "Qwen2ForCausalLM"]).windows(Windows::Switched);

/// Qwen3, dense.
pub const QWEN3: Arch = Arch::decoder(Halves, Silu, Norm::Rms)
    .ids(&["qwen3", "Qwen3ForCausalLM"])
    .qk_norm()
    .windows(Windows::Switched);

/// Phi-3 and Phi-3.5 mini and medium.
pub const PHI3: Arch = Arch::decoder(Halves, Silu, Norm::Rms).ids(&["phi3", "Phi3ForCausalLM"]);

/// Gemma 2: windows on every other layer.
pub const GEMMA2: Arch = Arch::decoder(Halves, GeluTanh, Norm::RmsPlusOne)
    .ids(&["gemma2", "Gemma2ForCausalLM"])
    .gemma_shell()
    .windows(Windows::AllButLastOf(2))
    .wide_scale_layers(46);

/// Gemma 3, text: windows on five of six layers, with their own rotary base.
pub const GEMMA3: Arch = Arch::decoder(Halves, GeluTanh, Norm::RmsPlusOne)
    .ids(&["gemma3", "Gemma3ForCausalLM"])
    .gemma_shell()
    .qk_norm()
    .windows(Windows::AllButLastOf(6))
    .local_rope_base(10_000.0)
    .wide_scale_layers(62);

/// Every architecture that can be loaded.
pub const ARCHS: [&Arch; 7] = [&LLAMA, &MISTRAL, &QWEN2, &QWEN3, &PHI3, &GEMMA2, &GEMMA3];

/// The architecture that goes by this name.
pub fn find_arch(id: &str) -> Option<&'static Arch> {
    ARCHS.into_iter().find(|arch| arch.ids.contains(&id))
}
