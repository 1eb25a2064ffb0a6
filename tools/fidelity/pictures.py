#!/usr/bin/env python3
"""Accuracy of graph models beside ONNX Runtime's, and of fused graphs beside unfused ones.

    pip install onnxruntime numpy pillow
    python tools/fidelity/pictures.py mnist MNIST.onnx t10k-images-idx3-ubyte t10k-labels-idx1-ubyte
    python tools/fidelity/pictures.py classify LABELS.csv FOLDER MODEL.onnx...
    python tools/fidelity/pictures.py words OCR_FOLDER PICTURES          box-*.csv beside img-*.jpg
    python tools/fidelity/pictures.py fused MODEL...
    python tools/fidelity/pictures.py truth MODEL.onnx PICTURES          PP-OCR, on receipts (needs onnx and scipy)

`--kinglet PATH` (first) names the command. ONNX Runtime reads what Kinglet prepared its own way: the middle of the picture after
Pillow's resize, as each family was trained. `words` counts words of the receipts that are read, each at most as often as it
stands there. `fused` tells the largest difference of `kinglet optimize`, relative to the largest value of the output. `truth` tells
how far Kinglet fused, Kinglet unfused and ONNX Runtime are from onnx's reference evaluator with all numbers in f64: of a detector on
the receipts scaled to about 640 pixels, of a recogniser on every fourth box of them.
"""
import collections
import csv
import gzip
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

KINGLET = "kinglet"


def kinglet(*args):
    done = subprocess.run([KINGLET, "--json", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def session(model):
    import onnxruntime

    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def read(path):
    path = pathlib.Path(path)
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def mnist(model, images, labels):
    from PIL import Image

    images = np.frombuffer(read(images), np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.frombuffer(read(labels), np.uint8, offset=8)
    other = session(model)
    name = other.get_inputs()[0].name
    theirs = [int(np.argmax(other.run(None, {name: x[None, None].astype(np.float32) / 255})[0])) for x in images]
    ours = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(images), 1000):
            paths = []
            for i, image in enumerate(images[start : start + 1000]):
                paths.append(f"{folder}/{i}.png")
                Image.fromarray(image).save(paths[-1])
            ours += [row["classes"][0]["class"] for row in kinglet("run", model, "--top", 1, *paths)]
    ours, theirs = np.array(ours), np.array(theirs)
    print(f"pictures {len(labels)}: Kinglet {np.mean(ours == labels):.2%}, ONNX Runtime {np.mean(theirs == labels):.2%}, "
          f"same class on {np.mean(ours == theirs):.2%}")


# Short side, side, Pillow's filter, order of channels, mean and deviation (or divisor) of values from 0 to 255.
FAMILIES = {
    "mobilenet": (256, 224, 2, 1, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    "efficientnet_lite": (256, 224, 3, 1, [127] * 3, [128] * 3),
    "squeezenet": (256, 224, 2, -1, [104, 117, 123], [1] * 3),
}


def prepared(path, short, side, filter, order, mean, deviation):
    from PIL import Image

    image = Image.open(path).convert("RGB")
    width, height = image.size
    scale = short / min(width, height)
    image = image.resize((short if width <= height else int(short * width / height),
                          short if height <= width else int(short * height / width)), filter)
    left, top = round((image.size[0] - side) / 2), round((image.size[1] - side) / 2)
    x = np.asarray(image.crop((left, top, left + side, top + side)), np.float32)[:, :, ::order]
    return ((x - np.array(mean, np.float32)) / np.array(deviation, np.float32)).transpose(2, 0, 1)[None]


def classify(labels, folder, *models):
    rows = [row for row in csv.DictReader(open(labels)) if (pathlib.Path(folder) / row["file"]).exists()]
    truth = np.array([int(row["index"]) for row in rows])
    paths = [str(pathlib.Path(folder) / row["file"]) for row in rows]
    for model in models:
        family = next(f for name, f in FAMILIES.items() if name in pathlib.Path(model).name.lower())
        other = session(model)
        entry = other.get_inputs()[0]
        half = np.float16 if "float16" in entry.type else np.float32
        theirs = [np.argsort(-other.run(None, {entry.name: prepared(p, *family).astype(half)})[0].ravel(), kind="stable")[:5]
                  for p in paths]
        ours = [[c["class"] for c in row["classes"]] for row in kinglet("run", model, *paths)]
        ours, theirs = np.array(ours), np.array(theirs)
        one = lambda found: (found[:, 0] == truth).mean()
        five = lambda found: (found == truth[:, None]).any(1).mean()
        print(f"{pathlib.Path(model).name}, {len(rows)} pictures: Kinglet {one(ours):.1%} / {five(ours):.1%}, "
              f"ONNX Runtime {one(theirs):.1%} / {five(theirs):.1%} (top 1 / top 5); same top 1 on "
              f"{(ours[:, 0] == theirs[:, 0]).mean():.1%}")


def words_of(text):
    return collections.Counter(re.findall(r"[a-z0-9.]+", text.lower()))


def words(model, folder):
    found = total = 0
    for boxes in sorted(pathlib.Path(folder).glob("box-*.csv")):
        picture = boxes.with_name(boxes.name.replace("box-", "img-")).with_suffix(".jpg")
        truth = words_of(" ".join(",".join(line.split(",")[8:]) for line in boxes.read_text().splitlines()))
        read = words_of(kinglet("run", model, picture)[0]["text"])
        found, total = found + sum((truth & read).values()), total + sum(truth.values())
    print(f"words read: {found} of {total}, {found / total:.1%}")


def fused(*models):
    worst = 0.0
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            command = [KINGLET, "--json", "optimize", model, "-o", f"{folder}/out.onnx", "--runs", "1"]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{pathlib.Path(model).name}: {done.stderr.strip().splitlines()[0]}")
            continue
        gain = json.loads(done.stdout)["gain"]
        if gain is None:
            print(f"{pathlib.Path(model).name}: does not run on inputs that are made up")
            continue
        found = gain["differences"]
        most = max((row["relative"] for row in found), default=0.0)
        worst = max(worst, most)
        print(f"{pathlib.Path(model).name}: {most:.1e}")
    print(f"largest: {worst:.1e}")


def doubles(path):
    """A model with every 32-bit float as one of 64 bits, in onnx's reference evaluator."""
    import onnx
    import scipy.special
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float64), tensor.name))
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.t.data_type == onnx.TensorProto.FLOAT:
                value = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE

    class Conv(OpRun):
        op_domain = ""

        def _run(self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None, pads=None, strides=None):
            group, strides = group or 1, strides or [1, 1]
            if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
                total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[2:], w.shape[2:], strides)]
                first = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
                pads = [*first, *(t - f for t, f in zip(total, first))]
            top, left, bottom, right = pads or [0] * 4
            x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
            windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, :: strides[0], :: strides[1]]
            n, c, rows, columns = windows.shape[:4]
            parts = windows.reshape(n, group, c // group, rows, columns, *w.shape[2:])
            kernels = w.reshape(group, -1, *w.shape[1:])
            y = np.einsum("ngcrskl,gockl->ngors", parts, kernels, optimize=True).reshape(n, -1, rows, columns)
            return (y if b is None else y + b[:, None, None],)

    class Resize(OpRun):
        op_domain = ""

        def _run(self, x, roi=None, scales=None, sizes=None, **_):
            factors = [round(float(s)) for s in scales] if scales is not None and len(scales) else [b // a for a, b in zip(x.shape, sizes)]
            for axis, factor in enumerate(factors):
                x = np.repeat(x, factor, axis)
            return (x,)

    class Erf(OpRun):
        op_domain = ""

        def _run(self, x):
            return (scipy.special.erf(x),)

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(self, x, scale, bias, mean, var, epsilon=None, **_):
            across = lambda list_: list_.reshape(-1, *[1] * (x.ndim - 2))
            return (across(scale) * (x - across(mean)) / np.sqrt(across(var) + epsilon) + across(bias),)

    return ReferenceEvaluator(model, new_ops=[BatchNormalization, Conv, Erf, Resize])


def receipts(folder, detector):
    """Inputs of PP-OCR's detector, or of its recogniser."""
    from PIL import Image

    for path in sorted(pathlib.Path(folder).glob("img-*.jpg")):
        image = Image.open(path).convert("RGB")
        if detector:
            scale = 640 / max(image.size)
            image = image.resize([max(32, round(side * scale / 32) * 32) for side in image.size], 2)
            x = (np.asarray(image, np.float32)[:, :, ::-1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
            yield x.transpose(2, 0, 1)[None].astype(np.float32)
            continue
        for line in path.with_name(path.name.replace("img-", "box-")).with_suffix(".csv").read_text().splitlines()[::4]:
            corners = [int(n) for n in line.split(",")[:8]]
            box = min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])
            if box[2] - box[0] < 4 or box[3] - box[1] < 4:
                continue
            crop = image.crop(box)
            crop = crop.resize((max(16, round(crop.size[0] * 48 / crop.size[1])), 48), 2)
            x = np.asarray(crop, np.float32)[:, :, ::-1] / 127.5 - 1
            yield x.transpose(2, 0, 1)[None].astype(np.float32)


def truth(model, folder):
    exact, other = doubles(model), session(model)
    entry = other.get_inputs()[0].name
    errors = {"fused": [], "unfused": [], "ONNX Runtime": []}
    far = lambda y, t: float(np.abs(y.astype(np.float64) - t).max() / np.abs(t).max())
    with tempfile.TemporaryDirectory() as work:
        for x in receipts(folder, "det" in pathlib.Path(model).name):
            expected = exact.run(None, {entry: x.astype(np.float64)})[0]
            np.save(f"{work}/x.npy", x)
            for name, options in (("fused", []), ("unfused", ["--no-fuse"])):
                kinglet("run", model, "--input", f"{entry}={work}/x.npy", "--output", f"{work}/y.npz", "--precision", "f32", *options)
                errors[name].append(far(next(iter(np.load(f"{work}/y.npz").values())), expected))
            errors["ONNX Runtime"].append(far(other.run(None, {entry: x})[0], expected))
    print(f"{pathlib.Path(model).name}, {len(errors['fused'])} inputs, from f64, of the largest value (median, 90 %, most):")
    for name, list_ in errors.items():
        print(f"  {name}: " + ", ".join(f"{q:.1e}" for q in np.quantile(list_, [0.5, 0.9, 1])))
    worse = sum(a > b for a, b in zip(errors["fused"], errors["ONNX Runtime"]))
    print(f"  Kinglet is farther than ONNX Runtime on {worse}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--kinglet"]:
        KINGLET, arguments = arguments[1], arguments[2:]
    {"mnist": mnist, "classify": classify, "words": words, "fused": fused, "truth": truth}[arguments[0]](*arguments[1:])
