#!/usr/bin/env python3
"""Writes a text encoder in 8-bit integers with ONNX Runtime's own tools, three ways: the files of docs/performance.md.

    pip install onnx onnxruntime sympy
    python3 tools/bench/quantize_text.py minilm.onnx folder

`NAME.all.onnx` and `NAME.products.onnx` stand in pairs of QuantizeLinear and DequantizeLinear, around every op or around
`MatMul` only; `NAME.dynamic.onnx` finds the scales of activations as it runs. Weights are signed, with a scale for each
output; activations unsigned; scales come from a few rows of 128 made-up tokens, the same in every run.
"""

import argparse
import os
import tempfile

import numpy as np
import onnx
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

#: What stands in pairs, by the file's name; None is every op.
STATIC = {"all": None, "products": ["MatMul"]}
#: Scales for each output need this version of the pairs.
OPSET = 13
TOKENS = (1, 128)
ROWS = 8


class Rows(CalibrationDataReader):
    """Rows of tokens for every input that the model has."""

    def __init__(self, names):
        random = np.random.default_rng(0)
        made = {
            "input_ids": lambda: random.integers(1000, 25000, TOKENS),
            "attention_mask": lambda: np.ones(TOKENS, np.int64),
            "token_type_ids": lambda: np.zeros(TOKENS, np.int64),
        }
        self.rows = iter([{name: made[name]() for name in names} for _ in range(ROWS)])

    def get_next(self):
        return next(self.rows, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("folder")
    arguments = parser.parse_args()
    name = os.path.basename(arguments.model).removesuffix(".onnx")
    path = lambda way: os.path.join(arguments.folder, f"{name}.{way}.onnx")
    os.makedirs(arguments.folder, exist_ok=True)
    quantize_dynamic(arguments.model, path("dynamic"), weight_type=QuantType.QInt8, per_channel=True)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = os.path.join(scratch, "prepared.onnx")
        quant_pre_process(arguments.model, prepared, skip_symbolic_shape=True)
        model = version_converter.convert_version(onnx.load(prepared), OPSET)
        onnx.save(model, prepared)
        names = [port.name for port in model.graph.input]
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        for way, ops in STATIC.items():
            settings = types | {"quant_format": QuantFormat.QDQ, "per_channel": True, "op_types_to_quantize": ops}
            quantize_static(prepared, path(way), Rows(names), **settings)


if __name__ == "__main__":
    main()
