#!/usr/bin/env python3
"""Make golden neural networks: layers as coremltools builds them, with outputs that NumPy computes from their definitions.

    pip install coremltools safetensors numpy
    python tools/golden/coreml_layers.py crates/testkit/tests/data/coreml

Each `NAME.mlmodel` stands beside `NAME.safetensors`: inputs and outputs of its run under `0.NAME`.
"""
import logging
import pathlib
import sys
import warnings

import coremltools as ct
import numpy as np
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from safetensors.numpy import save_file

from coreml_programs import cropped, normal, rng, suppressed

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
sigmoid = lambda x: 1 / (1 + np.exp(-x))


class Case:
    """A network under construction: every layer added leaves an output with its reference."""

    def __init__(self, **inputs):
        self.inputs, self.layers, self.outputs = inputs, [], {}

    def add(self, layer, reads, wanted, **params):
        """`wanted` is one array, or a list for several outputs."""
        several = isinstance(wanted, list)
        names = [f"{layer}_{len(self.layers)}_{i}" for i in range(len(wanted) if several else 1)]
        self.layers.append((layer, reads, names, several, params))
        for name, y in zip(names, wanted if several else [wanted]):
            self.outputs[name] = np.array(y, np.float32, order="C")
        return names[0]

    def build(self):
        array = lambda shape: datatypes.Array(*shape)
        builder = NeuralNetworkBuilder([(k, array(x.shape)) for k, x in self.inputs.items()], [(k, array(y.shape)) for k, y in self.outputs.items()],
                                       disable_rank5_shape_mapping=True)
        for i, (layer, reads, names, several, params) in enumerate(self.layers):
            add = getattr(builder, f"add_{layer}")
            takes = add.__code__.co_varnames[: add.__code__.co_argcount]
            given = dict(params)
            if "input_names" in takes:
                given["input_names"] = reads if isinstance(reads, list) else [reads] if reads else []
            elif "input_name" in takes:
                given["input_name"] = reads
            if "output_names" in takes:
                given["output_names"] = names
            else:
                given["output_name"] = names[0]
            add(name=f"{layer}.{i}", **given)
        return builder.spec


def picking():
    x, index = normal(4, 5), np.array([2, 0, 3], np.float32)
    case = Case(x=x, index=index, begin=np.array([1, 0], np.float32), end=np.array([3, 4], np.float32), at=np.array([1], np.float32),
                updates=normal(3, 5), along=np.array([[1, 0], [2, 2], [3, 1], [0, 4]], np.float32), few=normal(4, 2))
    i, along = index.astype(int), case.inputs["along"].astype(int)
    case.add("gather", ["x", "index"], x[i], axis=0)
    case.add("gather_along_axis", ["x", "along"], np.take_along_axis(x, along, 1), axis=1)
    case.add("gather_nd", ["x", "along"], x[along[:, 0], along[:, 1]])
    scattered = x.copy()
    np.add.at(scattered, i, case.inputs["updates"])
    case.add("scatter", ["x", "index", "updates"], scattered, axis=0, mode="ADD")
    largest = x.copy()
    for r in range(4):
        for c in range(2):
            largest[r, along[r, c]] = max(largest[r, along[r, c]], case.inputs["few"][r, c])
    case.add("scatter_along_axis", ["x", "along", "few"], largest, axis=1, mode="MAX")
    case.add("slice_dynamic", ["x", "begin", "end"], x[1:3, 0:4:2], strides=[1, 2], begin_masks=[False, False], end_masks=[False, False], squeeze_masks=[False, False])
    case.add("slice_by_size", ["x", "at"], x[:, 1:4], axis=1, size=3)
    case.add("reverse", "x", x[:, ::-1], reverse_dim=[False, True])
    case.add("split_nd", "x", [x[:, :2], x[:, 2:]], axis=1, num_splits=2, split_sizes=[2, 3])
    case.add("stack", ["x", "x"], np.stack([x, x], 1), axis=1)
    case.add("sliding_windows", "x", np.stack([x[:, 0:3], x[:, 2:5]], 1), axis=1, window_size=3, step=2)
    order = np.argsort(-x, 1, kind="stable")
    case.add("topk", ["x"], [np.take_along_axis(x, order[:, :2], 1), order[:, :2]], k=2, axis=1)
    case.add("topk", ["x"], [np.take_along_axis(x, order[:, ::-1][:, :2], 1), order[:, ::-1][:, :2]], k=2, axis=1, use_bottom_k=True)
    case.add("argsort", "x", np.argsort(x, 0, kind="stable"), axis=0)
    case.add("argmin", "x", x.argmin(1)[:, None], axis=1)
    case.add("argmax", "x", x.argmax(0), axis=0, keepdims=False)
    table, bias = normal(3, 6), normal(3)
    case.add("embedding_nd", case.add("expand_dims", "index", index[:, None], axes=[-1]), table.T[i] + bias, vocab_size=6, embedding_size=3, W=table, b=bias)
    hot = case.add("one_hot", ["index"], np.eye(4)[i] * 4 + 1, one_hot_vector_size=4, axis=-1, on_value=5.0, off_value=1.0)
    case.add("cumsum", [hot], np.cumsum(np.eye(4)[i] * 4 + 1, 1), axis=1)
    return case


def shapes():
    x, small, size = normal(2, 3, 4), normal(1, 3, 1), np.array([4, 6], np.float32)
    wide = np.array([2, 3, 5], np.float32)
    case = Case(x=x, small=small, size=size, wide=wide)
    case.add("get_shape", "x", np.array([2, 3, 4]))
    case.add("fill_like", "x", np.full((2, 3, 4), 2.5), value=2.5)
    case.add("fill_static", None, np.full((2, 2), -1.0), output_shape=(2, 2), value=-1.0)
    case.add("fill_dynamic", "size", np.full((4, 6), 3.0), value=3.0)
    case.add("broadcast_to_like", ["small", "x"], np.broadcast_to(small, (2, 3, 4)))
    case.add("broadcast_to_static", "small", np.broadcast_to(small, (5, 3, 2)), output_shape=(5, 3, 2))
    case.add("broadcast_to_dynamic", ["small", "wide"], np.broadcast_to(small, (2, 3, 5)))
    flat = case.add("reshape_dynamic", ["x", "size"], x.reshape(4, 6))
    case.add("reshape_like", [flat, "x"], x)
    case.add("rank_preserving_reshape", "x", x.reshape(2, 4, 3), output_shape=(0, 4, -1))
    case.add("range_static", None, np.arange(1, 7, 1.5), end=7, start=1, step=1.5)
    case.add("matrix_band_part", "x", np.tril(np.triu(x, -1), 2), num_lower=1, num_upper=2)
    case.add("lower_triangular", "x", np.tril(x, -1), k=-1)
    case.add("upper_triangular", "x", np.triu(x, 1), k=1)
    case.add("reverse_sequence", ["x", "lengths"], np.stack([np.concatenate([x[0, :2][::-1], x[0, 2:]]), x[1, ::-1]]), batch_axis=0, seq_axis=1)
    case.inputs["lengths"] = np.array([2, 3], np.float32)
    case.add("where_nonzero", case.add("load_constant_nd", None, np.diag([1, 0, 2]), constant_value=np.diag([1.0, 0, 2]), shape=(3, 3)), np.array([[0, 0], [2, 2]]))
    return case


def numbers():
    x, y = normal(2, 4, 3), normal(1, 4, 3)
    y[0, 1] = x[0, 1]
    half = np.array(np.tanh(x) * 0.9, np.float32)
    case = Case(x=x, y=y, half=half)
    for name, f, reads in [("exp2", np.exp2, "x"), ("tan", np.tan, "x"), ("asin", np.arcsin, "half"), ("acos", np.arccos, "half"), ("atan", np.arctan, "x"),
                           ("sinh", np.sinh, "x"), ("cosh", np.cosh, "x"), ("asinh", np.arcsinh, "x"), ("atanh", np.arctanh, "half")]:
        case.add(name, reads, f(case.inputs[reads]))
    case.add("acosh", case.add("cosh", "x", np.cosh(x)), np.abs(x))
    case.add("equal", ["x", "y"], x == y)
    case.add("not_equal", ["x"], x != 0.5, alpha=0.5)
    low = case.add("less_than", ["x", "y"], x <= y, use_less_than_equal=True)
    high = case.add("greater_than", ["x"], x > 0.25, alpha=0.25)
    case.add("logical", [low, high], (x <= y) & (x > 0.25), mode="AND")
    case.add("logical", [low, high], (x <= y) ^ (x > 0.25), mode="XOR")
    case.add("where_broadcastable", [high, "x", "y"], np.where(x > 0.25, x, y))
    case.add("mod_broadcastable", ["x", "y"], np.mod(x, y))
    case.add("floor_div_broadcastable", ["x", "y"], np.floor(x / y))
    case.add("clamped_relu", "x", np.minimum(np.where(x >= 0, x, 0.1 * x), 0.5), alpha=0.1, beta=0.5)
    for name, f in [("l1", lambda v: np.abs(v).sum(1)), ("l2", lambda v: np.sqrt((v * v).sum(1))), ("prod", lambda v: v.prod(1)), ("sumsquare", lambda v: (v * v).sum(1)),
                    ("logsumexp", lambda v: np.log(np.exp(v).sum(1)))]:
        case.add(f"reduce_{name}", "x", f(x), axes=[1], keepdims=False)
    gamma, beta = normal(4, 3), normal(4, 3)
    wide = x.astype(np.float64)
    mean, var = wide.mean((1, 2), keepdims=True), wide.var((1, 2), keepdims=True)
    case.add("layer_normalization", "x", (wide - mean) / np.sqrt(var + 1e-5) * gamma + beta, normalized_shape=[4, 3], gamma=gamma, beta=beta)
    return case


def pictures():
    x = normal(1, 3, 6, 5)
    case = Case(x=x)
    wide = x.astype(np.float64)
    case.add("mvn", "x", (wide - wide.mean((2, 3), keepdims=True)) / np.sqrt(wide.var((2, 3), keepdims=True) + 1e-5), across_channels=False)
    case.add("mvn", "x", wide - wide.mean((1, 2, 3), keepdims=True), across_channels=True, normalize_variance=False)
    case.add("l2_normalize", "x", wide / np.sqrt((wide**2).sum((1, 2, 3), keepdims=True) + 1e-5))
    alpha, beta = normal(3), normal(3)
    to = lambda v: v.reshape(1, 3, 1, 1)
    case.add("activation", "x", to(alpha) * np.log1p(np.exp(to(beta) * wide)), non_linearity="PARAMETRICSOFTPLUS", params=[alpha, beta])
    for mode, name in [("UPSAMPLE_MODE", "DEFAULT"), ("ROI_ALIGN_MODE", "OFFSET_CORNERS"), ("ALIGN_ENDPOINTS_MODE", "ALIGN_CORNERS")]:
        case.add("resize_bilinear", "x", cropped(x[0], (0, 0, 5, 4), (4, 8), name, 0.0)[None], target_height=4, target_width=8, mode=mode)
    boxes = np.array([[1, 0, 4, 3], [0.5, 1, 5, 4]], np.float32)
    case.inputs |= dict(five=x[None], boxes=boxes.reshape(2, 1, 4, 1, 1))
    case.add("crop_resize", ["five", "boxes"], np.stack([cropped(x[0], b, (3, 2), "OFFSET_CORNERS", 0.0)[None] for b in boxes]), target_height=3, target_width=2,
             mode="ROI_ALIGN_MODE")
    corners = np.concatenate([rng.uniform(0, 10, (1, 12, 2)), rng.uniform(2, 5, (1, 12, 2))], -1).astype(np.float32)
    scores = rng.uniform(0, 1, (1, 12, 2)).astype(np.float32)
    case.inputs |= dict(corners=corners, scores=scores)
    case.add("nms", ["corners", "scores"], list(suppressed(corners, scores, 0.3, 0.4, 5, False)), iou_threshold=0.3, score_threshold=0.4, max_boxes=5)
    return case


def volumes():
    x, w, b = normal(1, 2, 4, 5, 6), normal(3, 2, 2, 3, 2), normal(3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 1), (0, 0))).astype(np.float64)
    out = np.zeros((1, 3, 4, 3, 5))
    for o, d, i, j in np.ndindex(3, 4, 3, 5):
        out[0, o, d, i, j] = (padded[0, :, d : d + 2, 2 * i : 2 * i + 3, j : j + 2] * w[o]).sum() + b[o]
    case = Case(x=x)
    case.add("convolution3d", "x", out, input_channels=2, output_channels=3, depth=2, height=3, width=2, W=w, b=b, has_bias=True, stride_height=2, padding_mode="custom",
             padding_front=1, padding_top=1, padding_bottom=1)
    pool = np.zeros((1, 2, 2, 2, 3))
    for c, d, i, j in np.ndindex(2, 2, 2, 3):
        pool[0, c, d, i, j] = x[0, c, 2 * d : 2 * d + 2, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max()
    case.add("pooling3d", "x", pool, pooling_type="MAX", kernel_depth=2, kernel_height=2, kernel_width=2, stride_depth=2, stride_height=2, stride_width=2)
    case.add("global_pooling3d", "x", x.mean((2, 3, 4), keepdims=True), pooling_type="AVERAGE")
    return case


def recurrence():
    steps, batch, n, h = 5, 2, 3, 4
    x = normal(steps, batch, n, 1, 1)
    case, rows = Case(x=x), x[..., 0, 0].astype(np.float64)
    wide = lambda y: np.asarray(y)[..., None, None]

    def weights(gates):
        return [normal(h, n) for _ in range(gates)], [normal(h, h) for _ in range(gates)], [normal(h) for _ in range(gates)]

    def lstm(rows, w, r, b, peep=None):
        y, c, all_ = np.zeros((batch, h)), np.zeros((batch, h)), []
        for row in rows:
            i, f, o, z = (row @ w[k].T + y @ r[k].T + b[k] for k in range(4))
            if peep:
                i, f = i + peep[0] * c, f + peep[1] * c
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(z)
            y = sigmoid(o + (peep[2] * c if peep else 0)) * np.tanh(c)
            all_.append(y)
        return np.stack(all_), y, c

    w, r, b = weights(4)
    peep = [normal(h) for _ in range(3)]
    all_, y, c = lstm(rows, w, r, b, peep)
    common = dict(hidden_size=h, input_size=n)
    case.add("unilstm", ["x"], [wide(all_), wide(y[None]), wide(c[None])], W_h=r, W_x=w, b=b, peep=peep, output_all=True, **common)
    w2, r2, b2 = weights(4)
    ahead, back = lstm(rows, w, r, b), lstm(rows[::-1], w2, r2, b2)
    both = np.concatenate([ahead[0], back[0][::-1]], -1)
    case.add("bidirlstm", ["x"], [wide(both), wide(ahead[1][None]), wide(ahead[2][None]), wide(back[1][None]), wide(back[2][None])], W_h=r, W_x=w, b=b, W_h_back=r2, W_x_back=w2,
             b_back=b2, output_all=True, **common)
    case.add("bidirlstm", ["x"], [wide(np.concatenate([ahead[1], back[1]], -1)[None]), *map(wide, (ahead[1][None], ahead[2][None], back[1][None], back[2][None]))], W_h=r, W_x=w, b=b,
             W_h_back=r2, W_x_back=w2, b_back=b2, **common)
    w, r, b = weights(3)
    y = np.zeros((batch, h))
    for row in rows[::-1]:
        z, s = (sigmoid(row @ w[k].T + y @ r[k].T + b[k]) for k in range(2))
        o = np.tanh(row @ w[2].T + (y * s) @ r[2].T + b[2])
        y = (1 - z) * o + z * y
    case.add("gru", ["x"], [wide(y[None]), wide(y[None])], W_h=r, W_x=w, b=b, inner_activation="SIGMOID", reverse_input=True, **common)
    w, r, b = weights(1)
    y, all_ = np.zeros((batch, h)), []
    for row in rows:
        y = np.maximum(row @ w[0].T + y @ r[0].T + b[0], 0)
        all_.append(y)
    case.add("simple_rnn", ["x"], [wide(np.stack(all_)), wide(y[None])], W_h=r[0], W_x=w[0], b=b[0], activation="RELU", output_all=True, **common)
    case.add("sequence_repeat", "x", np.concatenate([x, x]), nrep=2)
    return case


class Layers(NeuralNetworkBuilder):
    """A builder of the layers of a network within a layer."""

    def __init__(self, network):
        super().__init__(nn_spec=network, disable_rank5_shape_mapping=True)


def flow():
    """Branches and loops: names that are written again, counted and conditional rounds, jumps out of them, loops in loops."""
    x = np.array([1, -2, 3], np.float32)
    builder = NeuralNetworkBuilder([("x", datatypes.Array(3))], [(name, None) for name in ["either", "rounds", "doubled", "picked", "grown", "late", "nested"]],
                                   disable_rank5_shape_mapping=True)
    counter = lambda name, value=0.0: builder.add_load_constant_nd(f"{name}.0", name, np.array([value]), (1,))
    start = lambda name: builder.add_copy(f"{name}.first", "x", name)

    builder.add_reduce_sum("sum", "x", "sum", axes=[0], keepdims=True)
    builder.add_greater_than("positive", ["sum"], "positive", alpha=5.0)
    branch = builder.add_branch("branch", "positive").branch
    Layers(branch.ifBranch).add_elementwise("double", ["x"], "either", "MULTIPLY", 2.0)
    Layers(branch.elseBranch).add_elementwise("ten", ["x"], "either", "ADD", 10.0)
    wanted = {"either": x * 2 if x.sum() > 5 else x + 10}

    start("doubled"), counter("rounds")
    loop = builder.add_loop("while", condition="small").loop
    test = Layers(loop.conditionNetwork)
    test.add_reduce_sum("total", "doubled", "total", axes=[0], keepdims=True)
    test.add_less_than("small", ["total"], "small", alpha=100.0)
    body = Layers(loop.bodyNetwork)
    body.add_elementwise("twice", ["doubled"], "twice", "MULTIPLY", 2.0), body.add_copy("twice.copy", "twice", "doubled")
    body.add_elementwise("next", ["rounds"], "next", "ADD", 1.0), body.add_copy("next.copy", "next", "rounds")
    wanted["doubled"], wanted["rounds"] = x.copy(), np.zeros(1)
    while wanted["doubled"].sum() < 100:
        wanted["doubled"], wanted["rounds"] = wanted["doubled"] * 2, wanted["rounds"] + 1

    counter("i"), counter("picked")
    body = Layers(builder.add_loop("jumps", max_iterations=20).loop.bodyNetwork)
    body.add_elementwise("i.next", ["i"], "i.next", "ADD", 1.0), body.add_copy("i.copy", "i.next", "i")
    body.add_greater_than("big", ["i"], "big", alpha=10.0)
    Layers(body.add_branch("leave", "big").branch.ifBranch).add_loop_break("break")
    body.add_load_constant_nd("three", "three", np.array([3.0]), (1,)), body.add_mod_broadcastable("mod", ["i", "three"], "mod")
    body.add_equal("third", ["mod"], "third", alpha=0.0)
    Layers(body.add_branch("skip", "third").branch.ifBranch).add_loop_continue("continue")
    body.add_add_broadcastable("more", ["picked", "i"], "more"), body.add_copy("more.copy", "more", "picked")
    wanted["picked"] = np.array([sum(i for i in range(1, 11) if i % 3)])

    start("grown")
    body = Layers(builder.add_loop("grow", max_iterations=3).loop.bodyNetwork)
    body.add_concat_nd("longer", ["grown", "x"], "longer", axis=0), body.add_copy("longer.copy", "longer", "grown")
    wanted["grown"] = np.tile(x, 4)

    Layers(builder.add_loop("first", max_iterations=2).loop.bodyNetwork).add_elementwise("made", ["x"], "made", "MULTIPLY", 3.0)
    builder.add_elementwise("late", ["made"], "late", "ADD", 1.0)
    wanted["late"] = x * 3 + 1

    start("nested"), counter("j")
    body = Layers(builder.add_loop("outer", max_iterations=3).loop.bodyNetwork)
    body.add_elementwise("j.next", ["j"], "j.next", "ADD", 1.0), body.add_copy("j.copy", "j.next", "j")
    inner = Layers(body.add_loop("inner", input_name="j").loop.bodyNetwork)
    inner.add_add_broadcastable("plus", ["nested", "j"], "plus"), inner.add_copy("plus.copy", "plus", "nested")
    inner.add_greater_than("far", ["j"], "far", alpha=2.0)
    branch = inner.add_branch("stop", "far").branch
    Layers(branch.ifBranch).add_loop_break("stop.break")
    other = Layers(branch.elseBranch)
    other.add_elementwise("again", ["nested"], "again", "MULTIPLY", 2.0), other.add_copy("again.copy", "again", "nested")
    y = x.copy()
    for j in range(1, 4):
        for _ in range(j):
            y = y + j
            if j > 2:
                break
            y = y * 2
    wanted["nested"] = y

    case = Case(x=x)
    case.outputs = {name: np.array(value, np.float32) for name, value in wanted.items()}
    for feature in builder.spec.description.output:
        feature.type.multiArrayType.shape.extend(case.outputs[feature.name].shape)
        feature.type.multiArrayType.dataType = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    case.build = lambda: builder.spec
    return case


def custom():
    """A layer of class `Affine`, which a test registers: `slope * x` plus the weights of the layer."""
    x, shift = np.array([1, -2, 3], np.float32), np.array([0.5, 1, 2], np.float32)
    case = Case(x=x)
    case.outputs = {"y": 3 * x + shift}
    builder = NeuralNetworkBuilder([("x", datatypes.Array(3))], [("y", datatypes.Array(3))], disable_rank5_shape_mapping=True)
    layer = builder.nn_spec.layers.add(name="affine", input=["x"], output=["y"])
    layer.custom.className = "Affine"
    layer.custom.parameters["slope"].doubleValue = 3.0
    layer.custom.weights.add().floatValue.extend(shift)
    case.build = lambda: builder.spec
    return case


def main():
    root = pathlib.Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    for build in [picking, shapes, numbers, pictures, volumes, recurrence, flow, custom]:
        case = build()
        name = f"layers-{build.__name__}"
        ct.models.utils.save_spec(case.build(), str(root / f"{name}.mlmodel"))
        tensors = {f"0.{k}": np.ascontiguousarray(v, np.float32) for k, v in (case.inputs | case.outputs).items()}
        save_file(tensors, root / f"{name}.safetensors")


if __name__ == "__main__":
    main()
