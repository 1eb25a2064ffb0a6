#!/usr/bin/env python3
"""Make the tiny golden decoders: one seeded checkpoint per architecture, in both formats, with f64 reference outputs.

    pip install torch transformers safetensors gguf numpy
    python tools/golden/tiny_models.py crates/testkit/tests/data/tiny

Each folder holds `config.json` and `model.safetensors` (f32, as transformers writes them), `tiny.gguf` (the same weights
in GGUF's conventions) and `reference.safetensors`: token ids, the logits of every position and the residual after every
block, computed by transformers in f64.
"""
import json, pathlib, sys

import gguf
import numpy as np
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

TOKENS = [3, 17, 9, 41, 5, 5, 60, 22, 13, 8, 33, 2, 19, 47, 1, 28, 50, 11, 7, 36]
BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.2,
            bos_token_id=1, eos_token_id=2, pad_token_id=0)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 500000.0}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [1.5, 2.0, 4.0, 9.0]}

# name: (config class, GGUF architecture, changes to BASE)
MODELS = {
    "llama": (tf.LlamaConfig, "llama", {}),
    "llama3-scaled": (tf.LlamaConfig, "llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "mistral-window": (tf.MistralConfig, "llama", dict(sliding_window=6)),
    "qwen2": (tf.Qwen2Config, "qwen2", dict(tie_word_embeddings=True)),
    "qwen3": (tf.Qwen3Config, "qwen3", dict(head_dim=12)),
    "phi3": (tf.Phi3Config, "phi3", dict(sliding_window=9)),
    "phi3-short": (tf.Phi3Config, "phi3", dict(rope_parameters=LONG, original_max_position_embeddings=32, sliding_window=None)),
    "phi3-long": (tf.Phi3Config, "phi3", dict(rope_parameters=LONG, original_max_position_embeddings=16, sliding_window=None)),
    "gemma2": (tf.Gemma2Config, "gemma2", dict(head_dim=12, query_pre_attn_scalar=12, sliding_window=5,
                                               attn_logit_softcapping=20.0, final_logit_softcapping=10.0, tie_word_embeddings=True)),
    "gemma3": (tf.Gemma3TextConfig, "gemma3", dict(head_dim=12, query_pre_attn_scalar=12, sliding_window=5, num_hidden_layers=6,
                                                   hidden_size=24, intermediate_size=24, tie_word_embeddings=True)),
}

GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name: str, arch: str) -> str:
    stem, what = name.rsplit(".", 1)
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{what}"
    layer, rest = stem.removeprefix("model.layers.").split(".", 1)
    if rest == "post_attention_layernorm":
        part = "post_attention_norm" if arch.startswith("gemma") else "ffn_norm"
    else:
        part = GGUF_NAMES[rest]
    return f"blk.{layer}.{part}.{what}"


def permute(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows from halves to interleaved pairs, as GGUF's Llama has them."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(path: pathlib.Path, arch: str, config, tensors: dict) -> None:
    w = gguf.GGUFWriter(str(path), arch)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_vocab_size(config.vocab_size)
    w.add_rope_dimension_count(head_dim)
    rope = config.rope_parameters
    w.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if window := getattr(config, "sliding_window", None):
        w.add_sliding_window(window)
    if getattr(config, "attn_logit_softcapping", None):
        w.add_attn_logit_softcapping(config.attn_logit_softcapping)
        w.add_final_logit_softcapping(config.final_logit_softcapping)
    if rope.get("rope_type") == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))
    if rope.get("rope_type") == "longrope":
        original = config.original_max_position_embeddings
        w.add_rope_scaling_orig_ctx_len(original)
        stretch = config.max_position_embeddings / original
        w.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretch) / np.log(original))))
        w.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], np.float32))
        w.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], np.float32))
    for name, t in tensors.items():
        t = t.numpy()
        if arch == "llama" and (".q_proj." in name or ".k_proj." in name):
            t = permute(t, heads if ".q_proj." in name else kv_heads)
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            t = t + 1
        w.add_tensor(gguf_name(name, arch), np.ascontiguousarray(t))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def llama3_factors(rope: dict, head_dim: int) -> np.ndarray:
    """What each frequency is divided by, as GGUF converters store it."""
    freq = rope["rope_theta"] ** -(np.arange(0, head_dim, 2) / head_dim)
    low, high, old = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    smooth = np.clip((old * freq / (2 * np.pi) - low) / (high - low), 0, 1)
    return (1 / (smooth + (1 - smooth) / rope["factor"])).astype(np.float32)


def make(out: pathlib.Path, name: str, config_class, arch: str, changes: dict) -> None:
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(sum(map(ord, name)))
    config = config_class(**{**BASE, **changes})
    config._attn_implementation = "eager"
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("norm.weight"): p.add_(0.3 * torch.randn_like(p))
            if key.endswith("bias"): p.copy_(0.2 * torch.randn_like(p))
    model.save_pretrained(folder)
    for extra in ("generation_config.json",):
        (folder / extra).unlink(missing_ok=True)
    tensors = load_file(folder / "model.safetensors")
    write_gguf(folder / "tiny.gguf", arch, config, tensors)
    with torch.no_grad():
        result = model.double()(torch.tensor([TOKENS]), output_hidden_states=True, use_cache=False)
    reference = {"tokens": torch.tensor(TOKENS, dtype=torch.int32), "logits": result.logits[0].float().contiguous()}
    # The last hidden state that transformers reports is after the final norm: the residual of the last block is not among them.
    for i, h in enumerate(result.hidden_states[:-1]):
        reference[f"residual.{i}"] = h[0].float().contiguous()
    save_file(reference, folder / "reference.safetensors")
    print(name, {f.name: f.stat().st_size for f in folder.iterdir()}, "logits std", float(result.logits.std()))


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    for name, (config_class, arch, changes) in MODELS.items():
        make(out, name, config_class, arch, changes)
