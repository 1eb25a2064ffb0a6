#!/usr/bin/env python3
"""Save llama.cpp's logits over a text, in the file format of its own `llama-perplexity --kl-divergence-base`.

    pip install llama-cpp-python
    python tools/fidelity/llama_logits.py MODEL.gguf TEXT OUT --tokens 8192 [--f32-state]
    kinglet perplexity MODEL --text TEXT --kl-divergence OUT

Chunks of 512 tokens; the second half of each is scored, as llama.cpp does. `--f32-state` keeps keys and values in f32.
"""
import argparse, ctypes, struct

import llama_cpp as L
import numpy as np

CONTEXT = 512


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("out")
    p.add_argument("--tokens", type=int, default=8192)
    p.add_argument("--f32-state", action="store_true")
    a = p.parse_args()
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    L.llama_backend_init()
    model = L.llama_model_load_from_file(a.model.encode(), L.llama_model_default_params())
    vocab = L.llama_model_get_vocab(model)
    n_vocab = L.llama_vocab_n_tokens(vocab)
    params = L.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
    params.n_threads = params.n_threads_batch = 2
    if a.f32_state:
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
    ctx = L.llama_init_from_model(model, params)
    text = open(a.text, "rb").read()[: a.tokens * 8]
    buffer = (L.llama_token * (len(text) + 8))()
    add_bos = L.llama_vocab_get_add_bos(vocab)
    count = L.llama_tokenize(vocab, text, len(text), buffer, len(buffer), add_bos, False)
    chunks = min(a.tokens, count) // CONTEXT
    tokens = np.ctypeslib.as_array(buffer)[: chunks * CONTEXT].copy()
    nll = rows = 0
    with open(a.out, "wb") as f:
        f.write(b"_logits_" + struct.pack("<iii", CONTEXT, n_vocab, chunks) + tokens.astype("<i4").tobytes())
        for c in range(chunks):
            part = tokens[c * CONTEXT :][:CONTEXT].copy()
            if add_bos: part[0] = L.llama_vocab_bos(vocab)
            logits = evaluate(ctx, part, n_vocab)
            for i in range(CONTEXT // 2, CONTEXT - 1):
                nll += write_row(f, logits[i], int(part[i + 1])); rows += 1
            print(f"chunk {c + 1}/{chunks}: perplexity {np.exp(nll / rows):.4f}", flush=True)


def evaluate(ctx, part, n_vocab) -> np.ndarray:
    L.llama_memory_clear(L.llama_get_memory(ctx), True)
    batch = L.llama_batch_init(CONTEXT, 0, 1)
    batch.n_tokens = CONTEXT
    for i, token in enumerate(part):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
        batch.seq_id[i][0] = 0
    assert L.llama_decode(ctx, batch) == 0
    logits = np.ctypeslib.as_array(L.llama_get_logits(ctx), shape=(CONTEXT, n_vocab)).copy()
    L.llama_batch_free(batch)
    return logits


def write_row(f, logits: np.ndarray, token: int) -> float:
    """One row of 16-bit log-probabilities; returns the token's negative log-likelihood."""
    top = logits.max()
    bottom = max(logits.min(), top - 16)
    log_sum = np.log(np.exp((logits - top).astype(np.float64)).sum())
    scale = np.float32((top - bottom) / 65535)
    codes = np.where(logits > bottom, np.rint((logits - bottom) / scale), 0).astype("<u2")
    f.write(struct.pack("<ff", scale, bottom - top - log_sum))
    f.write(codes.tobytes() + b"\0" * (2 * (len(codes) % 2)))
    return float(top + log_sum - logits[token])


@L.llama_log_callback
def quiet(level, text, user_data):
    pass


if __name__ == "__main__":
    main()
