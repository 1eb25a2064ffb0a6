#!/usr/bin/env python3
"""Make golden ML Programs of operations that no PyTorch module becomes, with outputs that NumPy computes from their definitions.

    pip install coremltools safetensors numpy
    python tools/golden/coreml_programs.py crates/testkit/tests/data/coreml

Each `NAME.mlpackage` stands beside `NAME.safetensors`: inputs and outputs of its run under `0.NAME`.
"""
import logging
import pathlib
import shutil
import sys
import warnings

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from safetensors.numpy import save_file

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
IOS15, IOS16, IOS17 = ct.target.iOS15, ct.target.iOS16, ct.target.iOS17
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def pixel(image, y, x, outside):
    """Bilinear, `outside` beyond the borders; `image` is `[C, H, W]`."""
    _, rows, columns = image.shape
    total = np.zeros(image.shape[0])
    for dy in (0, 1):
        for dx in (0, 1):
            r, c = int(np.floor(y)) + dy, int(np.floor(x)) + dx
            share = (1 - abs(y - r)) * (1 - abs(x - c))
            there = 0 <= r < rows and 0 <= c < columns
            total += share * (image[:, r, c] if there else outside)
    return total


def mirrored(at, n, edges):
    low, high = (-0.5, n - 0.5) if edges else (0.0, n - 1.0)
    span = high - low
    if span <= 0:
        return 0.0
    at = abs(at - low) % (2 * span)
    return float(np.clip(low + (at if at <= span else 2 * span - at), 0, n - 1))


def resampled(image, places, convention, align, padding, value):
    n, c, rows, columns = image.shape
    out = np.zeros((n, c, *places.shape[1:3]))

    def pixels(at, size):
        if convention == "unnormalized":
            return at
        share = (at + 1) / 2 if convention == "normalized_minus_one_to_one" else at
        return share * (size - 1) if align else share * size - 0.5

    for b, i, j in np.ndindex(n, *places.shape[1:3]):
        x, y = (pixels(float(places[b, i, j, k]), (columns, rows)[k]) for k in (0, 1))
        if padding == "border":
            x, y = np.clip(x, 0, columns - 1), np.clip(y, 0, rows - 1)
        if padding in ("reflection", "symmetric"):
            x, y = mirrored(x, columns, padding == "symmetric"), mirrored(y, rows, padding == "symmetric")
        out[b, :, i, j] = pixel(image[b], y, x, value)
    return out.astype(np.float32)


def grid(start, end, n, mode):
    """The sampling grids of `resize_bilinear`'s documentation, moved to `start`."""
    size, i = end - start + 1, np.arange(n)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if n == 1:
            return np.array([(start + end) / 2 if mode == "ALIGN_CORNERS" else start])
        return start + i * (size - 1) / (n - 1)
    if mode == "DEFAULT":
        at = i * (size - size / n) / max(n - 1, 1)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / n
        at = 0.5 * delta + i * delta
    else:
        at = i * size / n + 0.5 * size / n - 0.5
    return start + np.clip(at, 0, size - 1)


def cropped(image, box, size, mode, outside):
    out = np.full((image.shape[0], *size), outside, dtype=np.float64)
    for i, y in enumerate(grid(box[0], box[2], size[0], mode)):
        for j, x in enumerate(grid(box[1], box[3], size[1], mode)):
            if -1e-6 <= y <= image.shape[1] - 1 + 1e-6 and -1e-6 <= x <= image.shape[2] - 1 + 1e-6:
                out[:, i, j] = pixel(image, y, x, 0.0)
    return out


def suppressed(boxes, scores, overlap, threshold, most, by_class):
    n, _, classes = scores.shape
    kept_boxes, kept_scores = np.zeros((n, most, 4), np.float32), np.zeros((n, most, classes), np.float32)
    places, counts = -np.ones((n, most), np.int32), np.zeros(n, np.int32)

    def shared(a, b):
        low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
        high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
        both = np.prod(np.maximum(high - low, 0))
        return both / (np.prod(a[2:]) + np.prod(b[2:]) - both)

    for image in range(n):
        best, label = scores[image].max(-1), scores[image].argmax(-1)
        kept = []
        for i in np.argsort(-best, kind="stable"):
            rival = lambda k: not by_class or label[k] == label[i]
            free = all(not rival(k) or shared(boxes[image, k], boxes[image, i]) <= overlap for k in kept)
            if best[i] >= threshold and free and len(kept) < most:
                kept.append(i)
        kept = kept or [int(best.argmax())]
        counts[image] = len(kept)
        places[image, : len(kept)] = kept
        kept_boxes[image, : len(kept)], kept_scores[image, : len(kept)] = boxes[image, kept], scores[image, kept]
    return kept_boxes, kept_scores, places, counts


def resampling():
    image, places = normal(2, 3, 5, 7), rng.uniform(-1.6, 1.6, (2, 4, 3, 2)).astype(np.float32)
    cases = [("normalized_minus_one_to_one", True, "constant", 0.7), ("normalized_minus_one_to_one", True, "symmetric", 0.0),
             ("normalized_zero_to_one", False, "border", 0.0), ("normalized_zero_to_one", True, "reflection", 0.0),
             ("unnormalized", True, "reflection", 0.0), ("unnormalized", False, "constant", 0.0),
             ("normalized_minus_one_to_one", False, "constant", 0.0)]

    def build(image, places):
        return tuple(mb.resample(x=image, coordinates=places, sampling_mode="bilinear", padding_mode=padding, align_corners=align,
                                 padding_value=np.float32(value), coordinates_mode=convention)
                     for convention, align, padding, value in cases)

    return [image, places], build, [resampled(image, places, c, a, p, v) for c, a, p, v in cases], IOS15


def affine():
    image, maps = normal(2, 3, 5, 7), normal(1, 6)
    out = np.zeros((2, 3, 4, 6))
    for b, i, j in np.ndindex(2, 4, 6):
        x, y = j / 5 * 2 - 1, i / 3 * 2 - 1
        a = maps[0].astype(np.float64)
        u, v = a[0] * x + a[1] * y + a[2], a[3] * x + a[4] * y + a[5]
        out[b, :, i, j] = pixel(image[b], (v + 1) / 2 * 4, (u + 1) / 2 * 6, 0.0)
    build = lambda image, maps: mb.affine(x=image, transform_matrix=maps, output_height=4, output_width=6, sampling_mode="bilinear",
                                          padding_mode="constant", padding_value=np.float32(0), align_corners=True,
                                          coordinates_mode="normalized_minus_one_to_one")
    return [image, maps], build, [out], IOS15


MODES = ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"]


def regions():
    """Every picture under every box, and boxes with a picture of their own."""
    image = normal(2, 3, 9, 8)
    boxes = np.array([[1, 1, 6, 5], [0.5, 2, 4.25, 7], [-1, 0, 8, 9]], np.float32)
    own = np.array([1, 0, 1], np.float32)
    half = [[(a + c) / 2, (b + d) / 2, c - a, d - b] for a, b, c, d in boxes]
    share = boxes / np.array([8, 7, 8, 7], np.float32)

    def build(image, boxes, own):
        rows = mb.reshape(x=boxes, shape=[3, 1, 4, 1, 1])
        with_own = mb.concat(values=[mb.reshape(x=own, shape=[3, 1, 1, 1, 1]), rows], axis=2)
        every = [mb.crop_resize(x=image, roi=rows, target_height=4, target_width=3, sampling_mode=mode) for mode in MODES]
        mine = mb.crop_resize(x=image, roi=with_own, target_height=2, target_width=1, sampling_mode="ALIGN_CORNERS", pad_value=np.float32(7))
        centred = mb.crop_resize(x=image, roi=np.array(half, np.float32).reshape(3, 1, 4, 1, 1), target_height=3, target_width=3,
                                 sampling_mode="ALIGN_CORNERS", box_coordinate_mode="CENTER_SIZE_HEIGHT_FIRST")
        scaled = mb.crop_resize(x=image, roi=share[:, [1, 0, 3, 2]].reshape(3, 1, 4, 1, 1) * 2, target_height=3, target_width=3,
                                normalized_coordinates=True, spatial_scale=0.5, sampling_mode="ALIGN_CORNERS",
                                box_coordinate_mode="CORNERS_WIDTH_FIRST")
        return (*every, mine, centred, scaled)

    crop = lambda box, size, mode, out=0.0: np.stack([cropped(x, box, size, mode, out) for x in image])
    every = [np.stack([crop(box, (4, 3), mode) for box in boxes]) for mode in MODES]
    mine = np.stack([cropped(image[int(i)], box, (2, 1), "ALIGN_CORNERS", 7.0)[None] for i, box in zip(own, boxes)])
    plain = np.stack([crop(box, (3, 3), "ALIGN_CORNERS") for box in boxes])
    return [image, boxes, own], build, [*every, mine, plain, plain], IOS16


def regions_flat():
    image, boxes, own = normal(2, 3, 9, 8), np.array([[1, 1, 6, 5], [0, 2, 4, 7]], np.float32), np.array([1, 1], np.int32)

    def build(image, boxes, own):
        return (mb.crop_resize(x=image, boxes=boxes, box_indices=own, target_height=4, target_width=5, sampling_mode="ALIGN_CORNERS"),
                mb.crop_resize(x=image, boxes=boxes, target_height=2, target_width=2, sampling_mode="UNALIGN_CORNERS"))

    crop = lambda places, size, mode: np.stack([cropped(image[i], box, size, mode, 0.0) for i, box in zip(places, boxes)])
    return [image, boxes, own], build, [crop(own, (4, 5), "ALIGN_CORNERS"), crop([0, 1], (2, 2), "UNALIGN_CORNERS")], IOS17


def sizes():
    image = normal(2, 3, 4, 5)
    resized = lambda mode, h, w: np.stack([cropped(x, (0, 0, 3, 4), (h, w), mode, 0.0) for x in image])
    build = lambda image: (*(mb.resize_bilinear(x=image, target_size_height=7, target_size_width=3, sampling_mode=m) for m in MODES),
                           mb.resize_bilinear(x=image, target_size_height=1, target_size_width=6, sampling_mode="ALIGN_CORNERS"))
    return [image], build, [*(resized(m, 7, 3) for m in MODES), resized("ALIGN_CORNERS", 1, 6)], IOS15


def boxes():
    boxes = np.concatenate([rng.uniform(0, 10, (2, 20, 2)), rng.uniform(2, 5, (2, 20, 2))], -1).astype(np.float32)
    scores = rng.uniform(0, 1, (2, 20, 3)).astype(np.float32)
    scores[1] *= 0.2
    ways = [(0.3, 0.4, 6, False), (0.3, 0.4, 12, True)]

    def build(boxes, scores):
        outs = ()
        for overlap, threshold, most, by_class in ways:
            outs += tuple(mb.non_maximum_suppression(boxes=boxes, scores=scores, iou_threshold=np.float32(overlap), max_boxes=most,
                                                     score_threshold=np.float32(threshold), per_class_suppression=by_class))
        return outs

    return [boxes, scores], build, [y for way in ways for y in suppressed(boxes, scores, *way)], IOS15


def boxes_columns():
    (boxes_, scores), _, _, _ = boxes()
    turn = lambda x: x.transpose(0, 2, 1)
    build = lambda boxes, scores: mb.non_maximum_suppression(boxes=boxes, scores=scores, iou_threshold=np.float32(0.3), max_boxes=25)
    b, s, i, _ = suppressed(boxes_, scores, 0.3, -np.inf, 25, False)
    return [turn(boxes_), turn(scores)], build, [turn(b), turn(s), i], IOS17


def lists():
    """A list that a loop makes longer, and one that is scattered to."""
    x = normal(4, 3)

    def build(x):
        ls = mb.make_list(init_length=1, dtype="fp32", elem_shape=[3])
        step = lambda i, ls: (mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=mb.squeeze(x=mb.gather(x=x, indices=mb.expand_dims(x=i, axes=[0]), axis=0), axes=[0])))
        i, ls = mb.while_loop(_cond=lambda i, ls: mb.less(x=i, y=4), _body=step, loop_vars=(np.int32(0), ls))
        other = mb.make_list(init_length=2, dtype="fp32", elem_shape=[3])
        other = mb.list_scatter(ls=other, indices=[1, 4], value=mb.slice_by_size(x=x, begin=[0, 0], size=[2, 3]))
        return (mb.list_gather(ls=ls, indices=[2, 0, 3]), mb.list_read(ls=ls, index=1), mb.list_length(ls=ls),
                mb.list_length(ls=other), mb.list_gather(ls=other, indices=[0, 1, 4]))

    scattered = np.stack([np.zeros(3), x[0], x[1]])
    return [x], build, [x[[2, 0, 3]], x[1], np.array([4], np.int32)[0], np.array([5], np.int32)[0], scattered], IOS15


def elements():
    """One element at a time: a curve by channel, quotients of whole numbers, gathering behind shared dimensions."""
    x, whole = normal(2, 3, 4, 5), np.array([7, -7, 8, -8], np.int32)
    alpha, beta = normal(3), normal(3)
    places = np.array([[1, 0], [2, 2]], np.int32)
    wide = lambda v: v.reshape(1, 3, 1, 1).astype(np.float64)

    def build(x, whole, places):
        return (mb.softplus_parametric(x=x, alpha=alpha, beta=beta), mb.floor_div(x=whole, y=np.array([3, 3, -3, -4], np.int32)),
                mb.gather(x=x, indices=places, axis=2, batch_dims=1), mb.gather(x=x, indices=places, axis=1, batch_dims=1))

    gathered = [np.stack([np.take(x[b], places[b], axis=axis) for b in range(2)]) for axis in (1, 0)]
    return [x, whole, places], build, [wide(alpha) * np.log1p(np.exp(x * wide(beta))), np.array([2, -3, -3, 2], np.int32), *gathered], IOS17


def draws():
    """Numbers drawn at random: what is certain about them, whether they are spread as they should be, and that seeds hold."""
    x = np.log(np.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]], np.float32))

    def near(value, wanted, slack):
        return mb.cast(x=mb.less(x=mb.abs(x=mb.sub(x=value, y=np.float32(wanted))), y=np.float32(slack)), dtype="int32")

    def build(x):
        n = 40000
        even = mb.random_uniform(shape=[n], low=np.float32(-1), high=np.float32(3), seed=1)
        bell = mb.random_normal(shape=[n], mean=np.float32(2), stddev=np.float32(0.5), seed=2)
        coin = mb.random_bernoulli(shape=[n], prob=np.float32(0.3), seed=3)
        picked = mb.random_categorical(x=x, mode="logits", size=n, seed=4)
        chance = mb.random_categorical(x=mb.exp(x=x), mode="probs", size=n)
        same = mb.random_normal(shape=[5], seed=9)
        again = mb.random_normal(shape=[5], seed=9)
        mean = lambda v: mb.reduce_mean(x=v, axes=[-1])
        share = lambda v, k: mean(mb.cast(x=mb.equal(x=v, y=np.float32(k)), dtype="fp32"))
        spread = lambda v, m: mb.sqrt(x=mean(mb.square(x=mb.sub(x=v, y=np.float32(m)))))
        return (near(mean(even), 1.0, 0.05), near(spread(even, 1.0), 4 / 12**0.5, 0.05), mb.cast(x=mb.less(x=mb.reduce_max(x=even), y=np.float32(3)), dtype="int32"),
                near(mean(bell), 2.0, 0.02), near(spread(bell, 2.0), 0.5, 0.02), near(mean(coin), 0.3, 0.02),
                near(share(picked, 2.0), [0.7, 0.1], 0.02), near(share(chance, 0.0), [0.1, 0.6], 0.02),
                mb.reduce_max(x=mb.abs(x=mb.sub(x=same, y=again))))

    one, two = np.array([1], np.int32)[0], np.ones(2, np.int32)
    return [x], build, [one, one, one, one, one, one, two, two, np.float32(0)], IOS15


def norms():
    """Norms of each channel of each picture, with a scale and a shift and without."""
    x, scale = normal(2, 3, 4, 5), normal(3)
    centred = x.astype(np.float64) - x.mean((2, 3), keepdims=True, dtype=np.float64)
    plain = centred / np.sqrt((centred**2).mean((2, 3), keepdims=True) + 1e-3)

    def build(x):
        return (mb.instance_norm(x=x, epsilon=np.float32(1e-3)), mb.instance_norm(x=x, gamma=scale, beta=scale, epsilon=np.float32(1e-3)))

    return [x], build, [plain, plain * scale.reshape(3, 1, 1) + scale.reshape(3, 1, 1)], IOS15


def convert(inputs, build, target):
    kinds = {np.dtype(np.int32): types.int32, np.dtype(np.float32): types.fp32}
    specs = [mb.TensorSpec(shape=x.shape, dtype=kinds[x.dtype]) for x in inputs]
    program = mb.program(input_specs=specs, opset_version=target)(build)
    return ct.convert(program, minimum_deployment_target=target, compute_precision=ct.precision.FLOAT32, skip_model_load=True,
                      convert_to="mlprogram", pass_pipeline=ct.PassPipeline.EMPTY)


def main():
    root = pathlib.Path(sys.argv[1])
    root.mkdir(parents=True, exist_ok=True)
    cases = dict(resampling=resampling, affine=affine, regions=regions, boxes=boxes, lists=lists, elements=elements, draws=draws, sizes=sizes)
    cases |= {"regions-flat": regions_flat, "boxes-columns": boxes_columns, "norms": norms}
    for name, case in cases.items():
        inputs, build, outputs, target = case()
        model = convert(inputs, build, target)
        package = root / f"{name}.mlpackage"
        shutil.rmtree(package, ignore_errors=True)
        model.save(package)
        spec = model.get_spec().description
        stored = lambda x: np.array(x, dtype=np.int32 if x.dtype == np.int32 else np.float32, order="C")
        tensors = {f"0.{port.name}": stored(x) for port, x in zip(spec.input, inputs)}
        assert len(spec.output) == len(outputs), name
        tensors |= {f"0.{port.name}": stored(np.asarray(y)) for port, y in zip(spec.output, outputs)}
        save_file(tensors, root / f"{name}.safetensors")


if __name__ == "__main__":
    main()
