#!/usr/bin/env python3
"""Make golden ONNX models of legal but unusual content, with what ONNX Runtime makes of them.

    pip install numpy onnx onnxruntime safetensors
    python tools/golden/onnx_oddities.py crates/testkit/tests/data/onnx

Each `NAME.onnx` stands beside `NAME.safetensors`: its inputs and outputs under their names.
"""
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from safetensors.numpy import save_file

RNG = np.random.default_rng(5)
FLOAT = T.FLOAT
node, info = helper.make_node, helper.make_tensor_value_info


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def number(value, name):
    return numpy_helper.from_array(np.asarray(value), name)


def model(nodes, feeds, outputs, constants=(), opset=17, functions=()):
    inputs = [info(name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape)) for name, x in feeds.items()]
    graph = helper.make_graph(nodes, "g", inputs, [info(name, ty, None) for name, ty in outputs.items()], list(constants))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=8 if opset < 21 else 10), feeds


def hidden_names():
    """Inputs of the body are called like outputs of its node."""
    body = helper.make_graph(
        [node("Add", ["s", "a"], ["s1"]), node("Mul", ["s1", "b"], ["o"])],
        "b",
        [info("s", FLOAT, [2]), info("a", FLOAT, [2]), info("b", FLOAT, [2])],
        [info("s1", FLOAT, [2]), info("o", FLOAT, [2])],
    )
    scan = node("Scan", ["s0", "A", "B"], ["s", "o"], body=body, num_scan_inputs=2, scan_input_axes=[1, 0], scan_input_directions=[1, 0],
                scan_output_axes=[-1], scan_output_directions=[1])
    return model([scan], {"s0": f32(2), "A": f32(2, 5), "B": f32(5, 2)}, {"s": FLOAT, "o": FLOAT})


def function_outputs():
    """A function within a function, whose attribute the callers give; outputs are called as the graph calls them."""
    constant = node("Constant", [], ["c"])
    constant.attribute.add(name="value_float", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    scale = helper.make_function("my", "Scale", ["a"], ["b"], [constant, node("Mul", ["a", "c"], ["b"])], sets, ["alpha"])
    calls = [node("Scale", ["a"], ["t"], domain="my", alpha=2.0), node("Scale", ["t"], ["b"], domain="my", alpha=3.0)]
    twice = helper.make_function("my", "Twice", ["a"], ["b"], calls, sets)
    nodes = [node("Twice", ["x"], ["y"], domain="my"), node("Scale", ["y"], ["z"], domain="my", alpha=0.5)]
    return model(nodes, {"x": f32(3)}, {"y": FLOAT, "z": FLOAT}, functions=[scale, twice])


def outer_names():
    """A branch within a loop reads values of both, and has a constant of its own."""
    one = helper.make_graph([node("Add", ["x", "k"], ["q"]), node("Mul", ["q", "w"], ["r"])], "one", [], [info("r", FLOAT, None)],
                            [number(np.float32(5), "k")])
    other = helper.make_graph([node("Sub", ["x", "held"], ["r2"])], "other", [], [info("r2", FLOAT, None)])
    body = helper.make_graph(
        [node("Mod", ["i", "two"], ["m"]), node("Cast", ["m"], ["odd"], to=T.BOOL), node("If", ["odd"], ["v"], then_branch=one, else_branch=other),
         node("Add", ["held", "v"], ["next"]), node("Identity", ["go"], ["again"])],
        "b",
        [info("i", T.INT64, []), info("go", T.BOOL, []), info("held", FLOAT, [3])],
        [info("again", T.BOOL, []), info("next", FLOAT, [3]), info("v", FLOAT, None)],
        [number(np.int64(2), "two")],
    )
    nodes = [node("Mul", ["x", "half"], ["w"]), node("Loop", ["n", "", "x"], ["y", "ys"], body=body)]
    return model(nodes, {"x": f32(3), "n": np.array(4)}, {"y": FLOAT, "ys": FLOAT}, [number(np.float32(0.5), "half")])


def batched_scan():
    body = helper.make_graph([node("Add", ["a", "e"], ["a2"]), node("Identity", ["a2"], ["o"])], "b", [info("a", FLOAT, [2]), info("e", FLOAT, [2])],
                             [info("a2", FLOAT, [2]), info("o", FLOAT, [2])])
    scan = node("Scan", ["", "s", "xs"], ["last", "all"], num_scan_inputs=1, body=body, directions=[1])
    return model([scan], {"s": f32(2, 2), "xs": f32(2, 4, 2)}, {"last": FLOAT, "all": FLOAT}, opset=8)


def sparse_constant():
    sparse = helper.make_sparse_tensor(helper.make_tensor("w", FLOAT, [2], [3.0, 4.0]), helper.make_tensor("at", T.INT64, [2], [1, 5]), [2, 3])
    nodes = [node("Constant", [], ["w"], sparse_value=sparse), node("Add", ["x", "w"], ["y"])]
    return model(nodes, {"x": f32(2, 3)}, {"y": FLOAT}, opset=13)


def codes_of_4_bits():
    nodes = [node("Cast", ["x"], ["q"], to=T.INT4), node("Cast", ["q"], ["y"], to=FLOAT)]
    return model(nodes, {"x": np.array([0.3, -1.7, 3.2, 5.9, -3.6, 2.6], np.float32)}, {"y": FLOAT}, opset=21)


def main():
    root = pathlib.Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    for build in [hidden_names, function_outputs, outer_names, batched_scan, sparse_constant, codes_of_4_bits]:
        made, feeds = build()
        name = build.__name__.replace("_", "-")
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        wanted = dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds)))
        onnx.save(made, root / f"{name}.onnx")
        save_file({k: np.array(v, order="C") for k, v in (feeds | wanted).items()}, root / f"{name}.safetensors")


if __name__ == "__main__":
    main()
