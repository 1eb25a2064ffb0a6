"""Writes the GGUF fixtures of crates/formats/tests/data with the `gguf` package, and what its reader finds in them.

    pip install gguf numpy && python tools/golden/gguf_fixtures.py crates/formats/tests/data

The fixtures hold every metadata value type, every tensor type that the package knows (but Q8_1, which never
is in files, and whose blocks the package counts as 40 bytes where ggml has 36), both versions, a big-endian file,
and a model split over three files. `expected.json` lists keys, values and tensors as `gguf.GGUFReader` reads them.
"""

import json
import sys
import zlib
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType

TYPES = [
    "F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64",
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K",
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS",
    "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0",
]  # fmt: skip


def add_metadata(writer):
    writer.add_uint8("test.u8", 255)
    writer.add_int8("test.i8", -128)
    writer.add_uint16("test.u16", 65535)
    writer.add_int16("test.i16", -32768)
    writer.add_uint32("test.u32", 2**32 - 1)
    writer.add_int32("test.i32", -(2**31))
    writer.add_uint64("test.u64", 2**64 - 1)
    writer.add_int64("test.i64", -(2**63))
    writer.add_float32("test.f32", 0.1)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.yes", True)
    writer.add_bool("test.no", False)
    writer.add_string("test.str", "naïve ▁token\n")
    writer.add_string("test.str.empty", "")
    writer.add_array("test.strs", ["", "a", "é", "▁the", "<|end|>"])
    writer.add_array("test.ints", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -1.25])
    writer.add_array("test.bools", [True, False])
    writer.add_array("test.nested", [[1, 2], [3]])
    for sub in ("UINT8", "INT8", "UINT16", "INT16", "UINT32", "UINT64", "INT64", "FLOAT64"):
        kind = GGUFValueType[sub]
        writer.add_key_value(f"test.list.{sub.lower()}", [1, 2, 3], GGUFValueType.ARRAY, sub_type=kind)


def add_tensors(writer, rng):
    for name in TYPES:
        kind = GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        row = size if block > 1 else 5 * size
        data = rng.integers(0, 256, (2, 3, row), dtype=np.uint8)
        writer.add_tensor(f"t.{name}", data, raw_dtype=kind)
    for dims in range(1, 5):
        shape = tuple(range(2, 2 + dims))
        writer.add_tensor(f"dims.{dims}", rng.standard_normal(shape).astype(np.float32))


def write(path, endian=gguf.GGUFEndian.LITTLE, **split):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "test", False, endian, **split)
    if not split:
        writer.add_custom_alignment(64)
        add_metadata(writer)
    if endian == gguf.GGUFEndian.LITTLE:
        add_tensors(writer, rng)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expected(path):
    reader = gguf.GGUFReader(path)
    keys = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    keys.pop("test.nested", None)  # the reader flattens it
    tensors = [
        [t.name, t.tensor_type.name, [int(d) for d in reversed(t.shape)], zlib.crc32(t.data.tobytes())]
        for t in reader.tensors
    ]
    return {"metadata": keys, "tensors": tensors}


def main():
    out = Path(sys.argv[1])
    write(out / "all.gguf")
    version2 = bytearray((out / "all.gguf").read_bytes())
    version2[4] = 2
    (out / "v2.gguf").write_bytes(version2)
    write(out / "big-endian.gguf", gguf.GGUFEndian.BIG)
    write(out / "split.gguf", split_max_tensors=13)
    names = sorted(p.name for p in out.glob("*.gguf") if p.name != "big-endian.gguf")
    golden = {name: expected(out / name) for name in names}
    (out / "expected.json").write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
