#!/usr/bin/env python3
"""Write the golden cases of ONNX Runtime's own operators: crates/conformance/data/microsoft/CASE/{model.onnx,test_data_set_0}.

    python3 tools/golden/microsoft_ops.py

Needs numpy, onnx and onnxruntime. The layout is that of the ONNX backend tests; expected outputs are ONNX Runtime's on the CPU.
"""

import math
import pathlib
import shutil

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/conformance/data/microsoft"
MS = "com.microsoft"
RNG = np.random.default_rng(7)


def f32(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def u8(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def i8(*shape):
    return RNG.integers(-127, 128, shape, dtype=np.int8)


def build(name, op, inputs, outputs, constants=(), domain=MS, infos=(), **attributes):
    """A model of one node. `inputs`: (name, array or None); those in `constants` become initialisers."""
    given = [(n, a) for n, a in inputs if a is not None]
    node = helper.make_node(
        op, [n if a is not None else "" for n, a in inputs], list(outputs), domain=domain, name=name, **attributes
    )
    fed = [typed(n, a) for n, a in given if n not in constants]
    weights = [numpy_helper.from_array(a, n) for n, a in given if n in constants]
    infos = infos or [onnx.ValueInfoProto(name=n) for n in outputs if n]
    graph = helper.make_graph([node], name, fed, infos, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def typed(name, array):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def answer(model, inputs):
    """What ONNX Runtime makes of it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fed = {i.name for i in model.graph.input}
    return session.run(None, {n: a for n, a in inputs if n in fed})


def case(name, op, inputs, outputs, constants=(), same_as=None, results=None, **attributes):
    """Writes a case. `same_as`: other inputs with which the operator gives the same, where ONNX Runtime lacks this form;
    `results`: outputs from the operator's definition, where it has no kernel for the CPU."""
    if results is None:
        results = answer(build(name, op, same_as or inputs, outputs, constants, **attributes), same_as or inputs)
    wanted = [n for n in outputs if n]
    infos = [typed(n, a) for n, a in zip(wanted, results)]
    model = build(name, op, inputs, outputs, constants, infos=infos, **attributes)
    folder = ROOT / name / "test_data_set_0"
    folder.mkdir(parents=True)
    (folder.parent / "model.onnx").write_bytes(model.SerializeToString())
    arrays = dict(inputs)
    for i, info in enumerate(model.graph.input):
        data = numpy_helper.from_array(arrays[info.name], info.name)
        (folder / f"input_{i}.pb").write_bytes(data.SerializeToString())
    for i, (n, a) in enumerate(zip(wanted, results)):
        (folder / f"output_{i}.pb").write_bytes(numpy_helper.from_array(a, n).SerializeToString())


def elementwise():
    # Where the results vanish, f32 has no digits left to compare.
    x, b = np.clip(f32(2, 3, 8, scale=2), -2, 2), np.clip(f32(8), -1, 1)
    case("gelu", "Gelu", [("x", x)], ["y"])
    case("quick_gelu", "QuickGelu", [("x", x)], ["y"], alpha=1.5)
    case("bias_gelu", "BiasGelu", [("x", x), ("b", b)], ["y"])
    case("fast_gelu", "FastGelu", [("x", x)], ["y"])
    case("fast_gelu_bias", "FastGelu", [("x", x), ("b", b)], ["y"])
    case("trilu", "Trilu", [("x", f32(2, 4, 4))], ["y"], upper=0)
    case("expand_dims", "ExpandDims", [("x", x), ("axis", np.array(-2, np.int32))], ["y"])


def norms():
    x, s, g, b, c = f32(2, 3, 16), f32(2, 3, 16), f32(16), f32(16), f32(16)
    case("simplified_layer_norm", "SimplifiedLayerNormalization", [("x", x), ("g", g)], ["y"], domain="", epsilon=1e-5)
    case(
        "skip_layer_norm",
        "SkipLayerNormalization",
        [("x", x), ("s", s), ("g", g), ("b", b), ("c", c)],
        ["y", "", "", "sum"],
        epsilon=1e-5,
    )
    case("skip_layer_norm_plain", "SkipLayerNormalization", [("x", x), ("s", s), ("g", g)], ["y"], epsilon=1e-3)
    case(
        "skip_simplified_layer_norm",
        "SkipSimplifiedLayerNormalization",
        [("x", x), ("s", s), ("g", g), ("c", c)],
        ["y", "", "", "sum"],
        epsilon=1e-6,
    )
    ids, segments = np.array([[1, 4, 2], [3, 0, 5]], np.int32), np.array([[0, 0, 1], [1, 0, 0]], np.int32)
    tables = [("words", f32(6, 8)), ("places", f32(4, 8)), ("kinds", f32(2, 8)), ("g", f32(8)), ("b", f32(8))]
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    case(
        "embed_layer_norm",
        "EmbedLayerNormalization",
        [("ids", ids), ("segments", segments), *tables, ("mask", mask)],
        ["y", "lengths", "sum"],
        epsilon=1e-5,
    )
    no_kinds = [(n, None if n == "kinds" else a) for n, a in tables]
    places = np.array([[2, 1, 0], [3, 3, 1]], np.int32)
    case(
        "embed_layer_norm_positions",
        "EmbedLayerNormalization",
        [("ids", ids), ("segments", None), *no_kinds, ("mask", None), ("places_of", places)],
        ["y", "lengths"],
        epsilon=1e-5,
    )


def products():
    case("fused_matmul", "FusedMatMul", [("a", f32(2, 5, 3)), ("b", f32(2, 4, 5))], ["y"], transA=1, transB=1, alpha=0.5)
    case("fused_matmul_plain", "FusedMatMul", [("a", f32(3, 4)), ("b", f32(4, 2))], ["y"])
    gemm = [("a", f32(3, 4)), ("b", f32(5, 4)), ("c", f32(5))]
    case("fused_gemm", "FusedGemm", gemm, ["y"], transB=1, alpha=0.7, beta=0.3, activation="LeakyRelu", activation_alpha=0.2)
    conv = [("x", f32(1, 4, 6, 6)), ("w", f32(4, 4, 3, 3, scale=0.3)), ("b", f32(4))]
    case("fused_conv", "FusedConv", conv, ["y"], pads=[1, 1, 1, 1], activation="Relu")
    case(
        "fused_conv_sum",
        "FusedConv",
        [*conv, ("z", f32(1, 4, 6, 6))],
        ["y"],
        pads=[1, 1, 1, 1],
        activation="Relu",
    )
    case("fused_conv_clip", "FusedConv", conv, ["y"], pads=[1, 1, 1, 1], activation="Clip", activation_params=[0.0, 1.5])


def packed(bits, n, k, block, zeros, bias=False):
    blocks = -(-k // block)
    inputs = [
        ("x", f32(2, 3, k)),
        ("w", u8(n, blocks, block * bits // 8)),
        ("s", np.abs(f32(n * blocks, scale=0.1))),
    ]
    if zeros == "codes":
        inputs.append(("z", u8(n * -(-blocks * bits // 8))))
    elif zeros == "numbers":
        inputs.append(("z", f32(n * blocks, scale=2) + 8))
    if bias:
        inputs += [("z", None)] * (4 - len(inputs)) + [("g", None), ("c", f32(n))]
    name = f"matmul_{bits}_bits_{zeros}" + ("_bias" if bias else "") + ("" if k % block == 0 else "_odd")
    case(name, "MatMulNBits", inputs, ["y"], ("w", "s", "z", "c"), K=k, N=n, bits=bits, block_size=block)


def weights():
    packed(4, 5, 64, 32, "none")
    packed(4, 5, 64, 16, "codes")
    packed(4, 6, 80, 32, "codes")
    packed(4, 4, 64, 32, "numbers")
    packed(4, 4, 64, 32, "none", bias=True)
    packed(8, 4, 64, 32, "none")
    packed(8, 4, 64, 32, "codes")


def attentions():
    b, s, t, n, d, dv = 2, 3, 5, 2, 4, 6
    q, k, v = ("q", f32(b, s, n * d)), ("k", f32(b, t, n * d)), ("v", f32(b, t, n * dv))
    mha = "MultiHeadAttention"
    case("mha", mha, [q, k, v], ["y"], num_heads=n)
    case("mha_scale", mha, [q, k, v], ["y"], num_heads=n, scale=0.3)
    case("mha_bias", mha, [q, k, v, ("bias", f32(2 * n * d + n * dv))], ["y"], num_heads=n)
    mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]], np.int32)
    case("mha_padding", mha, [q, k, v, ("bias", None), ("mask", mask)], ["y"], num_heads=n)
    none = [("bias", None), ("mask", None)]
    case("mha_scores", mha, [q, k, v, *none, ("extra", f32(1, n, s, t))], ["y"], num_heads=n)
    same = [("q", f32(b, s, n * d)), ("k", f32(b, s, n * d)), ("v", f32(b, s, n * d))]
    case("mha_causal", mha, same, ["y"], num_heads=n, unidirectional=1)
    past = [("pk", f32(b, n, 2, d)), ("pv", f32(b, n, 2, d))]
    case(
        "mha_past", mha, [*same, *none, ("extra", None), *past], ["y", "keys", "values"], num_heads=n
    )
    qkv, kv = f32(b, s, n, 3, d), f32(b, t, n, 2, d)
    apart = [(x, qkv[:, :, :, i].reshape(b, s, n * d)) for i, x in enumerate("qkv")]
    case("mha_packed", mha, [("qkv", qkv)], ["y"], same_as=apart, num_heads=n)
    apart = [same[0]] + [(x, kv[:, :, :, i].reshape(b, t, n * d)) for i, x in enumerate("kv")]
    case("mha_packed_kv", mha, [same[0], ("kv", kv)], ["y"], same_as=apart, num_heads=n)
    case(
        "mha_cross", mha, [("q", f32(b, s, n * d)), ("k", f32(b, n, t, d)), ("v", f32(b, n, t, d))], ["y"], num_heads=n
    )
    x, w, bias = ("x", f32(b, s, 8)), ("w", f32(8, 3 * n * d)), ("b", f32(3 * n * d))
    case("attention", "Attention", [x, w, bias], ["y"], num_heads=n)
    case("attention_lengths", "Attention", [x, w, bias, ("m", np.array([2, 3], np.int32))], ["y"], num_heads=n)
    raw = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    case("attention_mask", "Attention", [x, w, bias, ("m", raw)], ["y"], num_heads=n)
    case("attention_causal", "Attention", [x, w, bias], ["y"], num_heads=n, unidirectional=1)
    both = ("past", f32(2, b, n, 2, d))
    case("attention_past", "Attention", [x, w, bias, ("m", None), both], ["y", "present"], num_heads=n)
    sized = [x, ("w", f32(8, 8 + 8 + 12)), ("b", f32(28))]
    case("attention_sizes", "Attention", sized, ["y"], num_heads=n, qkv_hidden_sizes=[8, 8, 12])


def decoders():
    b, s, n, kv, d = 2, 3, 4, 2, 16
    angles = np.outer(np.arange(16), 1 / 100 ** (np.arange(d // 2) / (d // 2)))
    cos, sin = ("cos", np.cos(angles).astype(np.float32)), ("sin", np.sin(angles).astype(np.float32))
    ids, first = ("ids", np.array([[0, 1, 2], [4, 5, 6]], np.int64)), ("first", np.array([3], np.int64))
    case("rotary", "RotaryEmbedding", [("x", f32(b, s, n * d)), ids, cos, sin], ["y"])
    case("rotary_first", "RotaryEmbedding", [("x", f32(b, n, s, d)), first, cos, sin], ["y"], interleaved=1)
    q, k, v = ("q", f32(b, s, n * d)), ("k", f32(b, s, kv * d)), ("v", f32(b, s, kv * d))
    no_past = [("pk", None), ("pv", None)]

    def lengths(total):
        return [("last", np.full((b,), total - 1, np.int32)), ("total", np.array(total, np.int32))]

    gqa, outputs = "GroupQueryAttention", ["y", "keys", "values"]
    heads = {"num_heads": n, "kv_num_heads": kv}
    case("gqa", gqa, [q, k, v, *no_past, *lengths(s)], outputs, **heads)
    case("gqa_rotary", gqa, [q, k, v, *no_past, *lengths(s), cos, sin], outputs, do_rotary=1, **heads)
    case("gqa_softcap", gqa, [q, k, v, *no_past, *lengths(s)], outputs, softcap=5.0, scale=0.4, **heads)
    all_in_one = [("qkv", f32(b, s, (n + 2 * kv) * d)), ("k", None), ("v", None)]
    case("gqa_packed", gqa, [*all_in_one, *no_past, *lengths(s)], outputs, **heads)
    one = [("q", f32(b, 1, n * d)), ("k", f32(b, 1, kv * d)), ("v", f32(b, 1, kv * d))]
    past = [("pk", f32(b, kv, 4, d)), ("pv", f32(b, kv, 4, d))]
    case("gqa_past", gqa, [*one, *past, *lengths(5), cos, sin], outputs, do_rotary=1, **heads)


def more_decoders():
    """Windows, sinks, buffers longer than what is valid, batches of unequal lengths."""
    b, s, n, kv, d = 2, 6, 4, 2, 16
    gqa, outputs, heads = "GroupQueryAttention", ["y", "keys", "values"], {"num_heads": n, "kv_num_heads": kv}
    angles = np.outer(np.arange(16), 1 / 100 ** (np.arange(d // 2) / (d // 2)))
    cos, sin = ("cos", np.cos(angles).astype(np.float32)), ("sin", np.sin(angles).astype(np.float32))
    one = [("q", f32(b, 1, n * d)), ("k", f32(b, 1, kv * d)), ("v", f32(b, 1, kv * d))]
    long = [("q", f32(b, s, n * d)), ("k", f32(b, s, kv * d)), ("v", f32(b, s, kv * d))]
    no_past = [("pk", None), ("pv", None)]
    tables = [("cos", None), ("sin", None), ("ids", None)]

    def lengths(last, total):
        return [("last", np.array(last, np.int32)), ("total", np.array(total, np.int32))]

    def past(length, valid=(99, 99)):
        """Zeros behind the valid positions, where ONNX Runtime leaves them. It counts positions right only with all outputs."""
        there = (np.arange(length) < np.array(valid)[:, None])[:, None, :, None]
        return [(name, f32(b, kv, length, d) * there.astype(np.float32)) for name in ("pk", "pv")]

    case("gqa_window", gqa, [*long, *no_past, *lengths([5, 5], 6)], outputs, local_window_size=2, **heads)
    case("gqa_window_past", gqa, [*one, *past(7), *lengths([7, 7], 8)], outputs, local_window_size=3, **heads)
    case("gqa_padded", gqa, [*long, *no_past, *lengths([3, 5], 6), cos, sin], outputs[:1], do_rotary=1, **heads)
    case("gqa_unequal", gqa, [*one, *past(7, (4, 7)), *lengths([4, 7], 8), cos, sin], outputs, do_rotary=1, **heads)
    case("gqa_buffer", gqa, [*one, *past(12, (5, 5)), *lengths([5, 5], 6), cos, sin], outputs, do_rotary=1, **heads)
    case("gqa_smooth", gqa, [*long, *no_past, *lengths([5, 5], 6)], outputs, smooth_softmax=1, **heads)
    sink = ("sink", f32(n))
    case("gqa_sink", gqa, [*one, *past(7), *lengths([7, 7], 8), *tables, ("bias", None), sink], outputs, local_window_size=4, **heads)
    bias = ("bias", f32(1, n, 1, 8))
    case("gqa_bias", gqa, [*one, *past(7), *lengths([7, 7], 8), *tables, bias], outputs, softcap=8.0, **heads)


def quantised():
    def q(name, shape, scale=0.05, zero=120):
        return [(name, u8(*shape)), (f"{name}_s", np.array(scale, np.float32)), (f"{name}_z", np.array(zero, np.uint8))]

    def out(scale=0.1, zero=130):
        return [("y_s", np.array(scale, np.float32)), ("y_z", np.array(zero, np.uint8))]

    case("qlinear_add", "QLinearAdd", [*q("a", (2, 9)), *q("b", (2, 9), 0.03), *out(0.07)], ["y"])
    case("qlinear_mul", "QLinearMul", [*q("a", (2, 9)), *q("b", (2, 9), 0.03), *out()], ["y"])
    case("qlinear_sigmoid", "QLinearSigmoid", [*q("a", (2, 9)), *out(1 / 256, 0)], ["y"])
    case("qlinear_leaky_relu", "QLinearLeakyRelu", [*q("a", (2, 9)), *out(0.06)], ["y"], alpha=0.2)
    case("qlinear_global_pool", "QLinearGlobalAveragePool", [*q("a", (1, 3, 5, 5)), *out(0.03)], ["y"])
    case(
        "qlinear_average_pool", "QLinearAveragePool", [*q("a", (1, 3, 6, 6)), *out(0.03)], ["y"], kernel_shape=[2, 2], strides=[2, 2]
    )
    case("qlinear_concat", "QLinearConcat", [*out(0.05, 128), *q("a", (2, 3)), *q("b", (2, 4), 0.04)], ["y"], axis=1)
    case("qlinear_softmax", "QLinearSoftmax", [*q("a", (3, 6)), *out(1 / 256, 0)], ["y"], axis=-1, opset=13)
    w = [("w", i8(6, 4)), ("w_s", f32(4) ** 2 * 0.01 + 0.01), ("w_z", np.zeros(4, np.int8))]
    bias = ("c", RNG.integers(-500, 500, (4,), dtype=np.int32))
    names = ("w", "w_s", "w_z", "c")
    case("qgemm", "QGemm", [*q("a", (3, 6)), *w, bias, *out(0.3)], ["y"], names, alpha=1.0)
    case("qgemm_float", "QGemm", [*q("a", (3, 6)), *w, bias], ["y"], names, alpha=0.5)
    single = [("b", i8(6, 4)), ("b_s", np.array(0.02, np.float32)), ("b_z", np.array(3, np.int8))]
    case("dynamic_quantize_matmul", "DynamicQuantizeMatMul", [("a", f32(3, 6)), *single, ("bias", f32(4))], ["y"])
    case(
        "matmul_integer_to_float",
        "MatMulIntegerToFloat",
        [
            ("a", u8(3, 6)),
            ("b", i8(6, 4)),
            ("a_s", np.array(0.03, np.float32)),
            ("b_s", np.abs(f32(4, scale=0.05))),
            ("a_z", np.array(117, np.uint8)),
            ("b_z", np.zeros(4, np.int8)),
            ("bias", f32(4)),
        ],
        ["y"],
    )


def channels_last():
    """What ONNX Runtime's layout passes make of quantised convolutions and pools."""
    x = [("a", u8(1, 6, 5, 4)), ("a_s", np.array(0.05, np.float32)), ("a_z", np.array(120, np.uint8))]
    out = [("y_s", np.array(0.2, np.float32)), ("y_z", np.array(130, np.uint8))]
    w = [("w", i8(6, 2, 3, 3)), ("w_s", np.full(6, 0.02, np.float32)), ("w_z", np.zeros(6, np.int8))]
    bias = ("c", RNG.integers(-500, 500, (6,), dtype=np.int32))
    shared = dict(group=2, pads=[1, 0, 1, 1], strides=[2, 1], channels_last=1)
    case("qlinear_conv_channels_last", "QLinearConv", [*x, *w, *out, bias], ["y"], ("w", "w_s", "w_z", "c"), **shared)
    case("qlinear_global_pool_channels_last", "QLinearGlobalAveragePool", [*x, *out], ["y"], channels_last=1)


def more_codes():
    """Rows of an embedding in few bits, and attention over codes."""
    names, rows = ("d", "s", "z"), np.array([[1, 4], [0, 5]], np.int64)
    table = [("d", u8(6, 24)), ("i", rows), ("s", f32(6, 3))]
    case("gather_4_bits", "GatherBlockQuantized", [*table, ("z", u8(6, 2))], ["y"], names, block_size=16)
    table = [("d", u8(6, 32)), ("i", rows), ("s", f32(6, 2))]
    case("gather_8_bits", "GatherBlockQuantized", table, ["y"], names, block_size=16, bits=8)
    x = [("x", u8(2, 3, 8)), ("w", i8(8, 24)), ("b", f32(24))]
    scales = [("x_s", np.array(0.02, np.float32)), ("w_s", np.abs(f32(24)) * 0.01)]
    zeros = [("x_z", np.array(128, np.uint8)), ("w_z", np.zeros(24, np.int8))]
    mask, names = ("m", np.array([3, 2], np.int32)), ("w", "b", "x_s", "w_s", "x_z", "w_z")
    case("q_attention", "QAttention", [*x, *scales, mask, *zeros], ["y"], names, num_heads=2)
    past = [("m", None), *zeros, ("p", f32(2, 2, 2, 4, 4))]
    case("q_attention_past", "QAttention", [*x, *scales, *past], ["y", "all"], names, num_heads=2, unidirectional=1)


def group_norm(x, scale, shift, groups, silu):
    """Of pictures whose channels stand last, in f64."""
    n, h, w, c = x.shape
    parts = x.astype(np.float64).reshape(n, h * w, groups, c // groups)
    mean, deviation = parts.mean((1, 3), keepdims=True), np.sqrt(parts.var((1, 3), keepdims=True) + 1e-5)
    y = ((parts - mean) / deviation).reshape(x.shape) * scale + shift
    return (y / (1 + np.exp(-y)) if silu else y).astype(np.float32)


def rest():
    """What ONNX Runtime's optimiser and its tools write less often."""
    case("nhwc_max_pool", "NhwcMaxPool", [("x", u8(2, 5, 6, 3))], ["y"], kernel_shape=[2, 3], strides=[2, 1], pads=[1, 0, 0, 1])
    pads = [("x", f32(2, 3)), ("p", np.array([1, 0, 0, 2], np.int64)), ("v", np.array([0.5], np.float32))]
    case("pad", "Pad", pads, ["y"])
    case("range", "Range", [(n, np.array(v, np.float32)) for n, v in (("a", 1), ("b", 7), ("d", 2))], ["y"])
    case("gather_nd", "GatherND", [("x", f32(2, 3, 4)), ("i", np.array([[0, 1], [1, 2]], np.int64))], ["y"])
    codes = lambda n, scale, zero: [(f"{n}_s", np.array(scale, np.float32)), (f"{n}_z", np.array(zero, np.uint8))]
    flags = ("c", np.array([[True], [False]]))
    picked = [flags, ("x", u8(2, 4)), *codes("x", 0.02, 120), ("y", u8(2, 4)), *codes("y", 0.05, 90), *codes("o", 0.04, 100)]
    case("qlinear_where", "QLinearWhere", picked, ["z"])
    x, scale, shift, skip, bias = f32(2, 3, 2, 8), f32(8), f32(8), f32(2, 8), f32(8)
    norm = [("x", x), ("g", scale), ("b", shift)]
    case("group_norm", "GroupNorm", norm, ["y"], results=[group_norm(x, scale, shift, 4, True)], groups=4, activation=1, epsilon=1e-5)
    total = x + skip[:, None, None] + bias
    results = [group_norm(total, scale, shift, 2, False), total]
    case("skip_group_norm", "SkipGroupNorm", [*norm, ("s", skip), ("c", bias)], ["y", "s2"], results=results, groups=2, activation=0, epsilon=1e-5)
    x, b = np.abs(f32(2, 3, 8)) + 0.25, np.abs(f32(8))
    left, gate = np.split(x.astype(np.float64) + b, 2, -1)
    gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    case("bias_split_gelu", "BiasSplitGelu", [("x", x), ("b", b)], ["y"], results=[(left * gelu(gate)).astype(np.float32)])
    a, w = f32(3, 4), f32(4, 5)
    result = np.tanh(0.5 * (a.astype(np.float64) @ w)).astype(np.float32)
    case("fused_matmul_activation", "FusedMatMulActivation", [("a", a), ("b", w)], ["y"], results=[result], alpha=0.5, activation="Tanh")
    lengths, causal = np.array([4, 2], np.int32), dict(num_heads=2, unidirectional=1)
    projected = [("x", f32(2, 4, 6)), ("w", f32(6, 18)), ("b", f32(18)), ("m", lengths)]
    case("attention_causal_lengths", "Attention", projected, ["y"], **causal)
    heads = [(name, f32(2, 4, 8)) for name in "qkv"]
    case("mha_causal_lengths", "MultiHeadAttention", [*heads, ("bias", None), ("m", lengths)], ["y"], **causal)


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    for part in (elementwise, norms, products, weights, attentions, decoders, quantised, more_decoders, channels_last, more_codes, rest):
        part()
    print(f"{len(list(ROOT.iterdir()))} cases")


if __name__ == "__main__":
    main()
