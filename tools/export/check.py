#!/usr/bin/env python3
"""What Kinglet writes, judged by others: `kinglet convert` on real models, to ONNX and to Core ML packages.

    pip install numpy onnx onnxruntime coremltools && cargo build --release -p kinglet-cli
    python3 tools/export/check.py model.onnx model.mlmodel model.mlpackage bert.onnx@batch_size=1@sequence_length=32

For each model the written ONNX file must pass `onnx.checker` (with shape inference), run in ONNX Runtime, and, read again by
Kinglet, give the outputs of the original bit for bit; a written package must load in coremltools as a program, and give the same
outputs in Kinglet. Sizes after an @ fix open dimensions of the package; `--optimize` writes optimised models instead, whose
outputs may differ by rounding. Prints a Markdown table of the largest differences relative to the largest value; exits with
failure when one is above its bound.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
#: Between runtimes, whose sums are in another order.
BETWEEN = 1e-3
#: Size of open dimensions behind the first one.
OPEN = 32


def kinglet(binary, *args):
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def ports(binary, path):
    """Name, element type and sizes of each input."""
    for port in json.loads(kinglet(binary, "--json", "show", path))["inputs"]:
        dtype, _, sizes = port["type"].partition("[")
        sizes = [n.strip() for n in sizes.rstrip("]").split(",") if n.strip()]
        yield port["name"], DTYPES[dtype], sizes


def make_inputs(binary, path, fixed):
    """Seeded normal floats, or zeros and ones, for each input; symbolic sizes of `fixed` where it has them."""
    rng, inputs = np.random.default_rng(1), {}
    for name, dtype, sizes in ports(binary, path):
        size = lambda i, n: int(n) if n.isdigit() else int(fixed.get(n, 1 if i == 0 else OPEN))
        shape = [size(i, n) for i, n in enumerate(sizes)]
        floats = np.issubdtype(dtype, np.floating)
        values = rng.standard_normal(shape) if floats else rng.integers(0, 2, shape)
        inputs[name] = values.astype(dtype)
    return inputs


def renamed(binary, path, inputs):
    """The same inputs as the written model calls and types them."""
    return {name: values.astype(dtype) for (name, dtype, _), values in zip(ports(binary, path), inputs.values())}


def run(binary, path, inputs):
    with tempfile.TemporaryDirectory() as folder:
        args = []
        for i, (name, values) in enumerate(inputs.items()):
            np.save(f"{folder}/{i}.npy", values)
            args += ["--input", f"{name}={folder}/{i}.npy"]
        kinglet(binary, "run", path, *args, "--output", f"{folder}/out.npz")
        with np.load(f"{folder}/out.npz") as outputs:
            return list(outputs.values())


def run_ort(path, inputs):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def difference(found, expected):
    """The largest difference relative to the largest value, over all outputs; infinite for other shapes."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            return float("inf")
        if a.size:
            worst = max(worst, np.abs(a - b).max() / (np.abs(b).max() or 1.0))
    return float(worst)


def check_onnx(binary, model, written, inputs, expected):
    import onnx

    onnx.checker.check_model(written, full_check=True)
    again = renamed(binary, written, inputs)
    row = {"kinglet": difference(run(binary, written, again), expected)}
    ort = run_ort(written, again)
    row["ort"] = difference(ort, expected)
    if model.endswith(".onnx"):
        row["ort before"] = difference(ort, run_ort(model, inputs))
    return row


def check_package(binary, _, written, inputs, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        model = coremltools.models.MLModel(written, skip_model_load=True)
        spec = model.get_spec()
        load(spec, spec.specificationVersion, model.weights_dir)
    return {"kinglet": difference(run(binary, written, renamed(binary, written, inputs)), expected)}


def check(binary, text, optimize, folder):
    """A row for each format."""
    model, *fixed = text.split("@")
    dims = [arg for pair in fixed for arg in ("--dim", pair)]
    inputs = make_inputs(binary, model, dict(pair.rpartition("=")[::2] for pair in fixed))
    expected = run(binary, model, inputs)
    stem = os.path.splitext(os.path.basename(model))[0]
    for end in ("onnx", "mlpackage"):
        written = os.path.join(folder, f"{stem}.{end}")
        command = ["optimize", model, "-o", written, "--runs", "0"] if optimize else ["convert", model, written]
        wanted = dims if end == "mlpackage" else []
        try:
            kinglet(binary, *command, "--force", *wanted)
            row = {"onnx": check_onnx, "mlpackage": check_package}[end](binary, model, written, inputs, expected)
        except Exception as error:  # pylint: disable=broad-except
            row = {"error": str(error).splitlines()[0][:160]}
        yield {"model": os.path.basename(model), "to": end, **row}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="model[@NAME=N]...")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "kinglet"))
    parser.add_argument("--optimize", action="store_true", help="write optimised models")
    args = parser.parse_args()
    same = 1e-4 if args.optimize else 0.0
    bounds = {"kinglet": same, "ort": BETWEEN, "ort before": same}
    print("| model | to | Kinglet, read again | ONNX Runtime against Kinglet | ONNX Runtime, before and after |\n|---|---|---|---|---|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for text in args.models:
            for row in check(args.binary, text, args.optimize, folder):
                failed |= "error" in row or any(row[key] > bound for key, bound in bounds.items() if key in row)
                cell = lambda key: f"{row[key]:.1e}" if key in row else ""
                shown = row.get("error") or " | ".join(cell(key) for key in bounds)
                print(f"| {row['model']} | {row['to']} | {shown} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
