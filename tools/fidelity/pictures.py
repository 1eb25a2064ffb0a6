#!/usr/bin/env python3
"""Accuracy of graph models beside ONNX Runtime's, and of fused graphs beside unfused ones.

    pip install onnxruntime numpy pillow
    python tools/fidelity/pictures.py mnist MNIST.onnx t10k-images-idx3-ubyte t10k-labels-idx1-ubyte
    python tools/fidelity/pictures.py classify LABELS.csv FOLDER MODEL.onnx...
    python tools/fidelity/pictures.py words OCR_FOLDER PICTURES          box-*.csv beside img-*.jpg
    python tools/fidelity/pictures.py fused MODEL...

`--kinglet PATH` (first) names the command. ONNX Runtime reads what Kinglet prepared its own way: the middle of the picture after
Pillow's resize, as each family was trained. `words` counts words of the receipts that are read, each at most as often as it
stands there. `fused` tells the largest difference of `kinglet optimize`, relative to the largest value of the output.
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


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--kinglet"]:
        KINGLET, arguments = arguments[1], arguments[2:]
    {"mnist": mnist, "classify": classify, "words": words, "fused": fused}[arguments[0]](*arguments[1:])
