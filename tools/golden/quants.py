"""Writes crates/tensor/tests/data/{decode,encode}.txt: what the `gguf` package makes of seeded random blocks and values.

Run from the repository root, in an environment with the PyPI package `gguf`:  python tools/golden/quants.py

Blocks and values are not stored: the test generates the same ones with the same generator (SplitMix64).
A line of decode.txt is   TYPE FIXUPS HASH VALUES
  FIXUPS  offset:mask pairs: bits to clear in each block, so that no half-precision scale is infinite or NaN
  HASH    FNV-1a (64 bits) over the little-endian f32 values of BLOCKS blocks
  VALUES  those of the first block, hexadecimal
A line of encode.txt is   TYPE HASH BLOCK   with the hash of all blocks' bytes and the first block, hexadecimal.
"""

from pathlib import Path

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

BLOCKS = 64
DATA = Path("crates/tensor/tests/data")

# Byte offsets of the high bytes of half-precision scales: the exponent's lowest bit is cleared there.
HALVES = {
    "F16": [1], "Q4_0": [1], "Q4_1": [1, 3], "Q5_0": [1], "Q5_1": [1, 3], "Q8_0": [1], "Q8_1": [1], "Q1_0": [1],
    "Q2_K": [81, 83], "Q3_K": [109], "Q4_K": [1, 3], "Q5_K": [1, 3], "Q6_K": [209],
    "IQ2_XXS": [1], "IQ2_XS": [1], "IQ2_S": [1], "IQ3_XXS": [1], "IQ3_S": [1], "IQ1_S": [1],
    "IQ4_NL": [1], "IQ4_XS": [1], "TQ1_0": [53], "TQ2_0": [65],
}  # fmt: skip
FIXUPS = {name: [(at, 0x04) for at in offsets] for name, offsets in HALVES.items()} | {
    "BF16": [(0, 0x80)],
    "F64": [(7, 0x44)],
    "Q8_K": [(2, 0x80)],
    "IQ1_M": [(53, 0x40)],
    "MXFP4": [],
    "NVFP4": [],
}
ENCODED = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"]

# Layouts that the package does not decode: ggml's `block_q8_1`, `block_q8_K` and `block_q1_0`.
SIZES = {"Q8_1": (32, 36)}


def splitmix(seed: int):
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def random_blocks(name: str) -> np.ndarray:
    _, size = SIZES.get(name) or GGML_QUANT_SIZES[Type[name]]
    stream = splitmix(Type[name].value)
    blocks = np.array([[next(stream) >> 56 for _ in range(size)] for _ in range(BLOCKS)], dtype=np.uint8)
    for at, mask in FIXUPS[name]:
        blocks[:, at] &= ~mask & 0xFF
    return blocks


def decoded(name: str, blocks: np.ndarray) -> np.ndarray:
    def half(at: int) -> np.ndarray:
        return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)

    if name == "F64":
        with np.errstate(over="ignore", under="ignore"):
            return blocks.view(np.float64).astype(np.float32)
    if name == "Q8_1":
        return half(0) * blocks[:, 4:].view(np.int8).astype(np.float32)
    if name == "Q8_K":
        scale = np.ascontiguousarray(blocks[:, :4]).view(np.float32)
        return scale * blocks[:, 4:260].view(np.int8).astype(np.float32)
    if name == "Q1_0":
        bits = np.unpackbits(blocks[:, 2:], axis=-1, bitorder="little").astype(np.float32)
        return half(0) * (2 * bits - 1)
    return quants.dequantize(blocks, Type[name]).astype(np.float32)


def values() -> np.ndarray:
    """Groups of 256: random at many scales; every eighth one zero, small integers (ties), one magnitude."""
    stream = splitmix(2024)
    groups = []
    for k in range(BLOCKS):
        draws = np.array([next(stream) >> 40 for _ in range(256)], dtype=np.int64)
        exponent = 2.0 ** (k % 20 - 35)
        kinds = {5: draws * 0, 6: (draws % 17 - 8) * 2**20, 7: (draws % 2 * 2 - 1) * 2**20}
        groups.append(kinds.get(k % 8, draws - 2**23).astype(np.float32) * np.float32(exponent))
    return np.array(groups)


def write(name: str, lines: list[str]) -> None:
    (DATA / name).write_text("\n".join(lines) + "\n")
    print(f"{DATA / name}: {(DATA / name).stat().st_size} bytes")


DATA.mkdir(parents=True, exist_ok=True)
lines = []
for name in FIXUPS:
    result = decoded(name, random_blocks(name))
    assert not np.isnan(result).any(), name
    fixups = ",".join(f"{at}:{mask}" for at, mask in FIXUPS[name]) or "-"
    lines.append(f"{name} {fixups} {fnv(result.tobytes()):016x} {result[0].tobytes().hex()}")
write("decode.txt", lines)

lines = []
for name in ENCODED:
    result = quants.quantize(values(), Type[name])
    size = GGML_QUANT_SIZES[Type[name]][1]
    lines.append(f"{name} {fnv(result.tobytes()):016x} {result.tobytes()[:size].hex()}")
write("encode.txt", lines)
