"""Writes the Core ML fixtures of crates/formats/tests/data/coreml with `coremltools`.

    pip install coremltools && python tools/golden/coreml_fixtures.py crates/formats/tests/data/coreml

`NAME.mlmodel` (and `NAME.bin`, its weight file) is one small model for each way of compressing weights; `golden.json`
lists the dense weights that coremltools itself makes of them, as values in `golden.bin` (little-endian f32).
"""

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.models.neural_network import quantization_utils as quantization

warnings.filterwarnings("ignore")
RNG = np.random.default_rng(11)
WEIGHT = RNG.normal(size=(16, 32)).astype(np.float32)
BIAS = RNG.normal(size=16).astype(np.float32)


class Golden:
    def __init__(self, out):
        self.out, self.rows, self.data = out, [], b""

    def expect(self, model, name, values):
        values = np.ascontiguousarray(values, np.float32)
        self.rows.append({"model": model, "name": name, "shape": values.shape, "at": len(self.data)})
        self.data += values.tobytes()

    def save(self):
        (self.out / "golden.json").write_text(json.dumps(self.rows, indent=1) + "\n")
        (self.out / "golden.bin").write_bytes(self.data)


def linear(target):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 32))], opset_version=target)
    def program(x):
        return mb.linear(x=x, weight=WEIGHT, bias=BIAS, name="y")

    return ct.convert(program, convert_to="mlprogram", minimum_deployment_target=target, skip_model_load=True)


def weights_of(model):
    """Dense weights of a program's linear layer by the name of its bias's neighbour, read by coremltools."""
    dense = cto.decompress_weights(model)
    found = {}
    for op in dense._mil_program.functions["main"].operations:
        if op.op_type == "linear":
            found[op.weight.name] = op.weight.val
    return found


def programs(golden):
    every = lambda config: cto.OptimizationConfig(global_config=config)
    palette = lambda mode="uniform", **more: every(cto.OpPalettizerConfig(mode=mode, weight_threshold=0, **more))
    quantise = lambda **more: every(cto.OpLinearQuantizerConfig(weight_threshold=0, **more))
    prune = every(cto.OpMagnitudePrunerConfig(target_sparsity=0.7, weight_threshold=0))
    ios16, ios18 = ct.target.iOS16, ct.target.iOS18
    ways = {"plain16": (ios16, lambda m: m), "plain18": (ios18, lambda m: m)}
    for bits in (1, 2, 4, 6, 8):
        ways[f"lut{bits}"] = (ios16, lambda m, b=bits: cto.palettize_weights(m, palette(nbits=b)))
    ways |= {
        "lut3-18": (ios18, lambda m: cto.palettize_weights(m, palette(nbits=3))),
        "lut4-groups": (
            ios18,
            lambda m: cto.palettize_weights(
                m, palette(nbits=4, granularity="per_grouped_channel", group_size=8)
            ),
        ),
        "lut4-vectors": (ios18, lambda m: cto.palettize_weights(m, palette("kmeans", nbits=4, cluster_dim=4))),
        "int8": (ios16, lambda m: cto.linear_quantize_weights(m, quantise(mode="linear_symmetric"))),
        "uint8": (ios16, lambda m: cto.linear_quantize_weights(m, quantise(mode="linear", dtype="uint8"))),
        "int4-blocks": (
            ios18,
            lambda m: cto.linear_quantize_weights(
                m, quantise(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=16)
            ),
        ),
        "uint4-blocks": (
            ios18,
            lambda m: cto.linear_quantize_weights(
                m, quantise(mode="linear", dtype="uint4", granularity="per_block", block_size=8)
            ),
        ),
        "sparse": (ios16, lambda m: cto.prune_weights(m, prune)),
        "sparse-18": (ios18, lambda m: cto.prune_weights(m, prune)),
        "sparse-lut": (
            ios18,
            lambda m: cto.palettize_weights(cto.prune_weights(m, prune), palette(nbits=2), joint_compression=True),
        ),
        "sparse-int8": (
            ios18,
            lambda m: cto.linear_quantize_weights(
                cto.prune_weights(m, prune), quantise(mode="linear_symmetric"), joint_compression=True
            ),
        ),
    }
    for name, (target, compress) in ways.items():
        model = compress(linear(target))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.mlpackage"
            model.save(str(path))
            data = path / "Data/com.apple.CoreML"
            shutil.copy(data / "model.mlmodel", golden.out / f"{name}.mlmodel")
            shutil.copy(data / "weights/weight.bin", golden.out / f"{name}.bin")
        for weight, values in weights_of(model).items():
            golden.expect(name, weight, values)


def state(golden):
    @mb.program(
        input_specs=[mb.TensorSpec((2,), dtype=types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, total):
        sum = mb.add(x=mb.read_state(input=total), y=x)
        return mb.coreml_update_state(state=total, value=sum)

    model = ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS18, skip_model_load=True
    )
    (golden.out / "state.mlmodel").write_bytes(model.get_spec().SerializeToString())


def networks(golden):
    modes = {
        "linear": (ct.models._QUANTIZATION_MODE_LINEAR_QUANTIZATION, (1, 3, 4, 7, 8)),
        "symmetric": (ct.models._QUANTIZATION_MODE_LINEAR_SYMMETRIC, (8,)),
        "lut": (ct.models._QUANTIZATION_MODE_LOOKUP_TABLE_LINEAR, (1, 2, 5, 8)),
        "half": (None, (0,)),
        "full": (None, (0,)),
    }
    for name, (mode, widths) in modes.items():
        for bits in widths:
            builder = NeuralNetworkBuilder([("x", datatypes.Array(32))], [("y", datatypes.Array(16))])
            builder.add_inner_product("y", WEIGHT, BIAS, 32, 16, True, "x", "y")
            weights = builder.spec.neuralNetwork.layers[0].innerProduct.weights
            if name == "half":
                weights.float16Value = WEIGHT.astype(np.float16).tobytes()
                del weights.floatValue[:]
            elif mode is not None:
                quantization._quantize_wp_field(weights, bits, mode, WEIGHT.shape)
            model = f"nn-{name}{bits or ''}"
            (golden.out / f"{model}.mlmodel").write_bytes(builder.spec.SerializeToString())
            if name == "half":
                dense = WEIGHT.astype(np.float16)
            else:
                quantization._dequantize_wp(weights, WEIGHT.shape)
                dense = np.array(weights.floatValue).reshape(WEIGHT.shape)
            golden.expect(model, "y", dense)


def main():
    golden = Golden(Path(sys.argv[1]))
    programs(golden)
    state(golden)
    networks(golden)
    golden.save()


main()
