#!/usr/bin/env python3
"""The reports of `kinglet optimize` on many models, side by side: what was done, what was left and why, what it is worth.

    cargo build --release -p kinglet-cli
    python3 tools/export/reports.py model.onnx model.mlmodel model.mlpackage bert.onnx@batch_size=1@sequence_length=32

Sizes after an @ fix open dimensions. Each model's whole report goes to `--folder` (a temporary one otherwise) as JSON, and as text as
a user sees it; a Markdown table sums them up. Fails when a report lacks one of its parts, or an output moved by more than 1e-5
of its largest value. Gains are ratios: of the plan's least time, and of medians of runs in turn, against the model as it stands.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: Relative to the largest value of an output.
BOUND = 1e-5


def optimise(arguments, model, folder, out):
    """The report as JSON; both forms are left in the folder."""
    path, *dims = model.split("@")
    stem = os.path.join(folder, os.path.basename(path.rstrip("/")))
    command = [arguments.kinglet, "optimize", path, "-o", out, "--force", "--runs", str(arguments.runs)]
    command += [part for dim in dims for part in ("--dim", dim)]
    for name, options in ((f"{stem}.txt", ["--report"]), (None, ["--report", f"{stem}.json"])):
        done = subprocess.run(command + options, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[0])
        if name:
            with open(name, "w", encoding="utf-8") as file:
                file.write(done.stdout)
    with open(f"{stem}.json", encoding="utf-8") as file:
        return json.load(file)


def row(name, report):
    """The cells of a model's row, and what is wrong with its report."""
    done = collections.Counter(entry["pass"] for entry in report["done"])
    left = collections.Counter(entry["what"] for entry in report["left"])
    most = ", ".join(f"{count} {why}" for why, count in left.most_common(2))
    gain, wrong = report["gain"], []
    cells = [name, f"{report['from']['operations']} → {report['operations']}"]
    cells += [", ".join(f"{count} {what}" for what, count in done.items()), f"{len(report['left'])}: {most}" if most else "none"]
    if gain is None:
        return cells + ["not measured"] * 3, ["it was not measured"]
    ratio = lambda times: times["as_it_stands"] / times["optimised"]
    worst = max(difference["relative"] for difference in gain["differences"])
    cells += [f"{ratio(gain['predicted_ms']):.2f}", f"{ratio(gain['measured_ms']):.2f}", f"{worst:.1e}"]
    if worst > BOUND:
        wrong.append(f"an output moved by {worst:.1e}")
    wrong += [f"a step joins operations without saying so: {step['operation']}" for step in gain["joined"] if not step["with"]]
    wrong += [f"no reason for {entry['operation']}" for entry in report["left"] if not entry["what"]]
    return cells, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="+")
    parser.add_argument("--kinglet", default=os.path.join(ROOT, "target", "release", "kinglet"))
    parser.add_argument("--runs", type=int, default=15, help="runs of each variant")
    parser.add_argument("--folder", help="where the reports stay")
    arguments = parser.parse_args()
    failed = False
    print("| model | operations | done | left | predicted | measured | difference |")
    print("|---" * 7 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or scratch
        os.makedirs(folder, exist_ok=True)
        for model in arguments.model:
            name = os.path.basename(model.split("@")[0].rstrip("/"))
            try:
                cells, wrong = row(name, optimise(arguments, model, folder, os.path.join(scratch, "out.onnx")))
            except RuntimeError as error:
                cells, wrong = [name] + [""] * 6, [str(error)]
            print("| " + " | ".join(cells) + " |", flush=True)
            for problem in wrong:
                failed = True
                print(f"{name}: {problem}", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
