"""Writes the safetensors fixtures of crates/formats/tests/data with the `safetensors` package.

    pip install safetensors numpy && python tools/golden/safetensors_fixtures.py crates/formats/tests/data

`all.safetensors` holds every type that can be read, a scalar and an empty tensor; `sharded-*` are two files and their
index. `expected-safetensors.json` lists the tensors that went in, with the CRC-32 of their bytes.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize_file

SIZES = {
    "float64": 8, "int64": 8, "uint64": 8, "float32": 4, "uint32": 4, "int32": 4, "bfloat16": 2, "float16": 2,
    "uint16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
NAMES = {
    "float64": "F64", "int64": "I64", "uint64": "U64", "float32": "F32", "uint32": "U32", "int32": "I32",
    "bfloat16": "BF16", "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def tensor(rng, dtype, shape):
    return dtype, shape, rng.integers(0, 2, int(np.prod(shape)) * SIZES[dtype], dtype=np.uint8)


def save(path, tensors):
    specs = {
        name: TensorSpec(dtype=dtype, shape=shape, data_ptr=data.ctypes.data, data_len=data.nbytes)
        for name, (dtype, shape, data) in tensors.items()
    }
    serialize_file(specs, path, {"format": "pt"})


def listing(tensors):
    return {n: [NAMES[d], list(s), zlib.crc32(data.tobytes())] for n, (d, s, data) in sorted(tensors.items())}


def main():
    out = Path(sys.argv[1])
    rng = np.random.default_rng(7)
    everything = {f"t.{dtype}": tensor(rng, dtype, (2, 3)) for dtype in SIZES}
    everything["a.scalar"] = tensor(rng, "float32", ())
    everything["an.empty"] = tensor(rng, "float16", (0, 4))
    save(out / "all.safetensors", everything)

    shards = [{f"layer.{i}.{n}": tensor(rng, "float32", (4, i + 1)) for n in "ab"} for i in range(2)]
    weight_map = {}
    for i, shard in enumerate(shards):
        name = f"sharded-{i + 1:05}-of-00002.safetensors"
        save(out / name, shard)
        weight_map.update({tensor_name: name for tensor_name in shard})
    index = {"metadata": {"total_size": 96}, "weight_map": weight_map}
    (out / "sharded.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

    golden = {"all": listing(everything), "sharded": listing(shards[0] | shards[1])}
    (out / "expected-safetensors.json").write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
