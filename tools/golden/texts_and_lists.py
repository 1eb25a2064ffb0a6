"""Makes `crates/testkit/tests/data/onnx/texts-and-lists.onnx`: outputs that are texts and lists.

`label` is the name of the largest of `x` `[N, 3]`, `rows` the rows of `x` as a list, `count` `k` twice.

    python tools/golden/texts_and_lists.py crates/testkit/tests/data/onnx
"""

import sys
from pathlib import Path

from onnx import TensorProto, checker, helper, save


def main(folder: Path) -> None:
    names = helper.make_tensor("names", TensorProto.STRING, [3], [b"cat", b"dog", b"bird"])
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "best"], ["label"]),
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0),
        helper.make_node("Add", ["k", "k"], ["count"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
        helper.make_tensor_sequence_value_info("rows", TensorProto.FLOAT, None),
        helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
    ]
    graph = helper.make_graph(nodes, "texts and lists", inputs, outputs, [names])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model, full_check=True)
    save(model, folder / "texts-and-lists.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
