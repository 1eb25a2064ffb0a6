#!/usr/bin/env python3
"""Kinglet beside ONNX Runtime and OpenVINO on the same ONNX files, in one run: prints a Markdown table.

    pip install onnxruntime openvino && cargo build --release -p kinglet-cli
    python3 tools/bench/compare_graph.py model.onnx other.onnx@x=1,3,640,640 --out table.json

All three take turns, round after round, each in processes of their own, so that all see the same hours of the machine; a
figure is the median over all repetitions of all rounds, the spread its 10th and 90th percentile. A ratio above 1 says
that Kinglet is faster than the faster of the two. Shapes follow the file's name after an @, inputs separated by a
semicolon; of what nothing says, the outermost dimension is the batch. `p99` is the 99th percentile of Kinglet's
times, in medians; memory is what is resident at most, in each. `error` is the largest difference between outputs of
Kinglet and of ONNX Runtime on the same inputs, relative to the largest value of that output. Peers that cannot load a model have no figures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = {"ort": "ONNX Runtime", "openvino": "OpenVINO"}
#: What Kinglet calls a precision. In `f32`, OpenVINO too computes a quantised model's integers.
PRECISIONS = {"f32": "auto", "bf16": "bf16", "int8": "int8"}
#: Runs before any is timed.
WARM_UP = 5


def parse_model(text):
    """`path@x=1,3,640,640;y=1` as path and shapes."""
    path, _, shapes = text.partition("@")
    pairs = (pair.rpartition("=") for pair in shapes.split(";") if pair)
    return path, {name: [int(n) for n in sizes.split(",")] for name, _, sizes in pairs}


# The peers, in processes of their own.


def make_inputs(path, shapes, batch=1):
    """Normal floats, or integers that look like tokens, for each input."""
    import numpy as np
    import onnxruntime as ort

    types = {"float": np.float32, "float16": np.float16, "double": np.float64, "bool": np.bool_}
    types |= {name: getattr(np, name) for name in ("int64", "int32", "uint8", "int8")}
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    random, feeds = np.random.default_rng(0), {}
    for port in ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).get_inputs():
        shape = shapes.get(port.name) or [batch if i == 0 and not isinstance(n, int) else n for i, n in enumerate(port.shape)]
        if not all(isinstance(n, int) and n > 0 for n in shape):
            raise SystemExit(f"{path}: the file leaves {port.name} {port.shape} open, its shape must follow an @")
        dtype = types[port.type.removeprefix("tensor(").removesuffix(")")]
        if port.name == "sr":  # the rate of a sound
            feeds[port.name] = np.full(shape, 16000, dtype)
            continue
        if np.issubdtype(dtype, np.floating):
            feeds[port.name] = random.standard_normal(shape).astype(dtype)
        elif "mask" in port.name:
            feeds[port.name] = np.ones(shape, dtype)
        elif "type" in port.name:
            feeds[port.name] = np.zeros(shape, dtype)
        else:
            feeds[port.name] = random.integers(0, 1000 if np.issubdtype(dtype, np.signedinteger) else 2, shape).astype(dtype)
    return feeds


def runner(peer, path, feeds, threads, precision):
    """A function that runs the model once, and hands back its outputs by name."""
    if peer == "ort":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda: dict(zip(names, session.run(None, feeds)))
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape({name: list(value.shape) for name, value in feeds.items()})
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = core.compile_model(model, "CPU", settings | {"INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision})
    request = compiled.create_infer_request()
    return lambda: request.infer(feeds, share_inputs=True)


def peer_worker(arguments):
    """Times one model in one peer, and prints its figures."""
    path, shapes = parse_model(arguments.model[0])
    feeds = make_inputs(path, shapes, arguments.batch)
    started = time.perf_counter()
    run = runner(arguments.peer, path, feeds, arguments.threads, arguments.precision)
    load_ms = (time.perf_counter() - started) * 1e3
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(arguments.reps):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1e3)
    print(json.dumps({"ms": times, "load_ms": load_ms}))


def run_child(command):
    """What a command prints as JSON, and the memory that it had resident at most, in megabytes."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    printed = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return json.loads(printed) | {"megabytes": usage.ru_maxrss / 1e3}


def peer_round(peer, model, arguments):
    command = [sys.executable, os.path.abspath(__file__), model, "--peer", peer, "--threads", str(arguments.threads)]
    command += ["--reps", str(arguments.reps), "--precision", arguments.precision, "--batch", str(arguments.batch)]
    try:
        return run_child(command)
    except subprocess.CalledProcessError:
        print(f"{PEERS[peer]} does not run {model}", file=sys.stderr)
        return None


# Kinglet, through its command.


def kinglet_round(model, arguments, fuse=True):
    path, shapes = parse_model(model)
    command = [arguments.kinglet, "--json", "bench", path, "--reps", str(arguments.reps)] + options(arguments)
    command += ["--batch", str(arguments.batch)] + ([] if fuse else ["--no-fuse"])
    for name, shape in shapes.items():
        command += ["--shape", f"{name}={','.join(map(str, shape))}"]
    report = run_child(command)
    result = report["results"][0]
    found = {"ms": result["repetitions"], "load_ms": report["load_ms"], "percent": result["percent_of_ceiling"]}
    return found | {"megabytes": resident(model, arguments)}


def resident(model, arguments):
    """Megabytes that loading a model and running it once has resident: measuring ceilings takes memory of its own."""
    path, shapes = parse_model(model)
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.kinglet, "--json", "run", path] + options(arguments) + ["--output", os.path.join(folder, "out.npz")]
        command += save_inputs(make_inputs(path, shapes, arguments.batch), folder)
        return run_child(command)["megabytes"]


def save_inputs(feeds, folder):
    """Writes inputs, and says how Kinglet is told of them."""
    import numpy as np

    told = []
    for number, (name, value) in enumerate(feeds.items()):
        np.save(os.path.join(folder, f"{number}.npy"), value)
        told += ["--input", f"{name}={os.path.join(folder, f'{number}.npy')}"]
    return told


def options(arguments):
    chosen = ["--threads", str(arguments.threads), "--precision", PRECISIONS[arguments.precision]]
    return chosen + (["--isa", arguments.isa] if arguments.isa else [])


def largest_error(model, arguments):
    """The largest difference between outputs of Kinglet and of ONNX Runtime, relative to the output's largest value."""
    import numpy as np

    path, shapes = parse_model(model)
    feeds = make_inputs(path, shapes, arguments.batch)
    expected = runner("ort", path, feeds, arguments.threads, "f32")()
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.kinglet, "run", path, "--output", os.path.join(folder, "out.npz")] + options(arguments)
        command += save_inputs(feeds, folder)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = np.load(os.path.join(folder, "out.npz"))
        pairs = [(np.asarray(found[name], np.float64), np.asarray(value, np.float64)) for name, value in expected.items()]
    return max(float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)) for ours, theirs in pairs)


# All in turn.


def compare(arguments):
    report = []
    if arguments.out and os.path.exists(arguments.out):
        with open(arguments.out, encoding="utf-8") as file:
            report = json.load(file)
    for model in arguments.model:
        name = os.path.basename(parse_model(model)[0]).removesuffix(".onnx")
        entry = next((entry for entry in report if entry["model"] == name), None)
        if entry is None:
            report.append(entry := {"model": name, "rounds": []})
        entry["error"] = None if arguments.no_check else largest_error(model, arguments)
        for number in range(arguments.rounds):
            print(f"{name}: round {number + 1} of {arguments.rounds}", file=sys.stderr)
            sides = {peer: peer_round(peer, model, arguments) for peer in PEERS}
            sides = {peer: found for peer, found in sides.items() if found}
            sides["kinglet"] = kinglet_round(model, arguments)
            if arguments.no_fuse:
                sides["apart"] = kinglet_round(model, arguments, fuse=False)
            entry["rounds"].append(sides)
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    print(table(report))


def table(report):
    heads = ["model", "ONNX Runtime, ms", "OpenVINO, ms", "Kinglet, ms", "ratio", "of the least", "of peak", "p99", "loading, ms", "memory, MB", "unfused, ms", "error"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for entry in report:
        times = {side: gather(entry, side) for side in ("ort", "openvino", "kinglet")}
        peers = [times[peer] for peer in PEERS if times[peer]]
        ratios = [min(map(of, peers)) / of(times["kinglet"]) if peers else float("nan") for of in (statistics.median, min)]
        load = lambda side: [r[side]["load_ms"] for r in entry["rounds"] if side in r]
        loads = [statistics.median(load(side)) if load(side) else float("nan") for side in times]
        percent = statistics.median(r["kinglet"]["percent"] for r in entry["rounds"])
        cells = [entry["model"]] + [spread(values) for values in times.values()]
        cells += [f"{ratio:.2f}" for ratio in ratios] + [f"{percent:.0f} %"]
        ordered = sorted(times["kinglet"])
        cells += [f"{ordered[round(0.99 * (len(ordered) - 1))] / statistics.median(ordered):.2f}"]
        cells += [", ".join(f"{load:.0f}" for load in loads)]
        memory = [max((r[side].get("megabytes", 0) for r in entry["rounds"] if side in r), default=0) for side in times]
        cells += [", ".join(f"{size:.0f}" for size in memory)]
        apart = [ms for r in entry["rounds"] if "apart" in r for ms in r["apart"]["ms"]]
        cells += [spread(apart) if apart else ""]
        cells += ["" if entry.get("error") is None else f"{entry['error']:.1e}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gather(entry, side):
    return [ms for r in entry["rounds"] if side in r for ms in r[side]["ms"]]


def spread(values):
    if not values:
        return "–"
    ordered = sorted(values)
    low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0, 0.9))
    return f"{statistics.median(ordered):.2f} ({low:.2f}–{high:.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+", help="ONNX files, with shapes after an @ where they leave them open")
    parser.add_argument("--kinglet", default=os.path.join(ROOT, "target", "release", "kinglet"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", help="instruction set for Kinglet, such as avx2")
    parser.add_argument("--precision", default="f32", choices=list(PRECISIONS), help="of products, in Kinglet and, for bf16, OpenVINO; the peers know integers only in models that say so")
    parser.add_argument("--reps", type=int, default=30, help="repetitions in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="size of outermost dimensions that a model leaves open")
    parser.add_argument("--no-fuse", action="store_true", help="time Kinglet without fusion too")
    parser.add_argument("--no-check", action="store_true", help="do not compare outputs")
    parser.add_argument("--out", help="write all rounds, as JSON; rounds that are there already count too")
    parser.add_argument("--peer", choices=list(PEERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    peer_worker(arguments) if arguments.peer else compare(arguments)


if __name__ == "__main__":
    main()
