"""Writes crates/tensor/src/quant/grids.bin: the lattices of the IQ types, packed as the `gguf` package packs them.

Run from the repository root, in an environment with the PyPI package `gguf`:  python tools/golden/iq_grids.py
"""

from pathlib import Path

from gguf import quants
from gguf.constants import GGMLQuantizationType

ORDER = ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"]


def packed(name: str) -> bytes:
    return bytes.fromhex(quants._type_traits[GGMLQuantizationType[name]].grid_hex.decode())


target = Path("crates/tensor/src/quant/grids.bin")
target.write_bytes(b"".join(packed(name) for name in ORDER))
print(f"{target}: {target.stat().st_size} bytes")
