#!/usr/bin/env python3
"""Make the golden ML Programs: small PyTorch modules as coremltools converts them, with PyTorch's outputs.

    pip install torch coremltools safetensors numpy
    python tools/golden/coreml_ops.py crates/testkit/tests/data/coreml

Each `NAME.mlpackage` stands beside `NAME.safetensors`: inputs and outputs of each run under `RUN.NAME`. Programs with states run
several times, one run going on from the other.
"""
import logging
import pathlib
import shutil
import sys
import warnings

import coremltools as ct
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
IOS17, IOS18 = ct.target.iOS17, ct.target.iOS18


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *x):
        return self.function(*x)


class Layer(nn.Module):
    """A recurrent layer: all states and the last one."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y, last = self.layer(x)
        return y, last[0] if isinstance(last, tuple) else last


class Until(nn.Module):
    def forward(self, x):
        y = x
        while bool(y.sum() < 100.0):
            y = y * 2.0 + x
        return y


class Either(nn.Module):
    def forward(self, x):
        if bool(x.sum() > 0.0):
            y = x * 2.0
        else:
            y = x - 1.0
        return y


class Average(nn.Module):
    """Half of what it was, and what comes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(3, 4, dtype=torch.float16))

    def forward(self, x):
        self.average.mul_(0.5)
        self.average.add_(x)
        return self.average * 2.0


class Cache(nn.Module):
    """Rows written into a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(1, 2, 8, 4, dtype=torch.float16))

    def forward(self, x):
        self.rows[:, :, 2:4, :] = x
        return self.rows * 1.0


def assigned(x, update):
    x = x.clone()
    x[:, 2:4] = update
    return x


def cases():
    random = lambda *shape: torch.randn(*shape)
    x, image = random(3, 8), random(1, 3, 6, 8)
    queries, keys, values = random(2, 3, 5, 8), random(2, 3, 7, 8), random(2, 3, 7, 8)
    places = torch.tensor([[0, 2], [1, 1], [7, 3]])
    yield "lstm", Layer(nn.LSTM(6, 4)), [random(5, 2, 6)], {}
    yield "lstm-both-ways", Layer(nn.LSTM(6, 4, bidirectional=True, batch_first=True)), [random(2, 5, 6)], {}
    yield "gru", Layer(nn.GRU(6, 4)), [random(5, 2, 6)], {}
    yield "rnn", Layer(nn.RNN(6, 4)), [random(5, 2, 6)], {}
    attention = lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m)
    yield "attention", Lambda(attention), [queries, keys, values, random(5, 7)], dict(target=IOS18)
    order = lambda x: (*torch.topk(x, 3, dim=1), torch.argsort(x, dim=1), torch.cumsum(x, 1), torch.tril(x), torch.triu(x, 1))
    yield "order", Lambda(order), [x], {}
    yield "einsum", Lambda(lambda a, b: torch.einsum("bij,bkj->bik", a, b)), [random(2, 3, 4), random(2, 5, 4)], {}
    yield "one-hot", Lambda(lambda i: F.one_hot(i, 6)), [torch.tensor([1, 3, 5])], {}
    scatter = lambda x, i, u: (x.scatter(1, i, u), x.scatter_add(1, i, u), torch.gather(x, 1, i))
    yield "scatter", Lambda(scatter), [x, places, random(3, 2)], {}
    yield "assign", Lambda(assigned), [x, random(3, 2)], {}
    yield "nonzero", Lambda(lambda x: torch.nonzero(x > 0).float()), [x], {}
    sizes = lambda x: (F.interpolate(x, size=(9, 11)), F.interpolate(x, size=(9, 11), mode="bilinear"),
                       F.interpolate(x, size=(9, 11), mode="bilinear", align_corners=True))
    yield "resize", Lambda(sizes), [image], {}
    yield "grid", Lambda(lambda x, g: F.grid_sample(x, g, align_corners=True)), [image, torch.rand(1, 4, 5, 2) * 2 - 1], {}
    yield "unshuffle", Lambda(lambda x: F.pixel_unshuffle(x, 2)), [image], {}
    yield "while", Until(), [torch.rand(3, 4)], dict(script=True)
    yield "either", Either(), [torch.rand(3, 4)], dict(script=True, more=[[-torch.rand(3, 4)]])
    state = lambda shape, name: [ct.StateType(wrapped_type=ct.TensorType(shape=shape, dtype=np.float16), name=name)]
    half = lambda *shape: torch.rand(*shape).half()
    yield "average", Average(), [half(3, 4)], dict(states=state((3, 4), "average"), more=[[half(3, 4)], [half(3, 4)]])
    yield "cache", Cache(), [half(1, 2, 2, 4)], dict(states=state((1, 2, 8, 4), "rows"))


def convert(module, inputs, target=IOS17, states=None, script=False, **rest):
    made = torch.jit.script(module.eval()) if script else torch.jit.trace(module.eval(), tuple(inputs))
    dtype = {torch.int64: np.int32, torch.float16: np.float16}
    types = [ct.TensorType(name=f"in{i}", shape=x.shape, dtype=dtype.get(x.dtype, np.float32)) for i, x in enumerate(inputs)]
    half = ct.precision.FLOAT16 if states else ct.precision.FLOAT32
    more = dict(states=states) if states else {}
    return ct.convert(made, inputs=types, minimum_deployment_target=IOS18 if states else target, compute_precision=half,
                      skip_model_load=True, convert_to="mlprogram", **more)


def stored(x):
    return x.astype(np.int32) if x.dtype == np.int64 else x


def write(root, name, model, runs):
    package = root / f"{name}.mlpackage"
    shutil.rmtree(package, ignore_errors=True)
    model.save(package)
    names = [feature.name for feature in model.get_spec().description.output]
    tensors = {}
    for i, (inputs, outputs) in enumerate(runs):
        tensors.update({f"{i}.in{j}": stored(x.numpy()) for j, x in enumerate(inputs)})
        tensors.update({f"{i}.{key}": np.ascontiguousarray(stored(y.numpy())) for key, y in zip(names, outputs)})
    save_file(tensors, root / f"{name}.safetensors")


def outputs(module, inputs):
    with torch.no_grad():
        made = module(*inputs)
    return [y.clone() for y in (made if isinstance(made, tuple) else (made,))]


def main():
    root = pathlib.Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, module, inputs, options in cases():
        model = convert(module, inputs, **options)
        for buffer in module.buffers():
            buffer.zero_()
        write(root, name, model, [(x, outputs(module, x)) for x in [inputs, *options.get("more", [])]])


if __name__ == "__main__":
    main()
