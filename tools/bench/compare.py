#!/usr/bin/env python3
"""Kinglet beside llama.cpp on the same files, in one run: prints a Markdown table.

    pip install llama-cpp-python && cargo build --release -p kinglet-cli
    python3 tools/bench/compare.py --out table.json

The two alternate, round after round, so that both see the same hours of the machine; a figure is the median over all
repetitions of all rounds, the spread its 10th and 90th percentile. Without MODEL the small model of the README is used,
in each type that --types names: llama.cpp writes the types that are not there into --cache. Types made from a file of
another type are for speed only.

    python3 tools/bench/compare.py model.gguf --tests pp512,tg128,tg64@512,tg64@4096,tg64x8

A test is pp or tg with its tokens, then @ the tokens before and x the sequences that are decoded together.
"""

import argparse
import ctypes
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
#: Types that llama.cpp can write, by its numbers.
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}


def parse_test(text):
    """`tg64@512x8` as its parts."""
    found = re.fullmatch(r"(pp|tg)(\d+)(?:@(\d+))?(?:x(\d+))?", text)
    if not found:
        sys.exit(f"{text}: expected a test such as pp512, tg128, tg64@512 or tg64x8")
    kind, tokens, depth, batch = found.groups()
    return {"name": text, "kind": kind, "tokens": int(tokens), "depth": int(depth or 0), "batch": int(batch or 1)}


# llama.cpp, in a process of its own.


class Llama:
    """A model and a context of llama.cpp."""

    def __init__(self, path, threads, tests):
        import llama_cpp

        self.api = llama_cpp
        llama_cpp.llama_log_set(quiet(llama_cpp), ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        started = time.perf_counter()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        sequences = max(test["batch"] for test in tests)
        params.n_ctx = sequences * max(test["depth"] + test["tokens"] + 64 for test in tests)
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.random = random.Random(0)
        self.tokens(1, [0], 0)  # the first token is part of loading
        self.load_ms = (time.perf_counter() - started) * 1e3

    def tokens(self, count, sequences, past):
        """Appends random tokens to each sequence, in runs of at most 512; the last of each gives logits."""
        done = 0
        while done < count:
            part = min(512 // len(sequences), count - done)
            batch = self.api.llama_batch_init(part * len(sequences), 0, 1)
            for n in range(part * len(sequences)):
                sequence, offset = divmod(n, part)
                batch.token[n] = self.random.randrange(self.vocab)
                batch.pos[n] = past + done + offset
                batch.n_seq_id[n] = 1
                batch.seq_id[n][0] = sequences[sequence]
                batch.logits[n] = offset == part - 1
            batch.n_tokens = part * len(sequences)
            if self.api.llama_decode(self.context, batch) != 0:
                sys.exit("llama_decode failed")
            self.api.llama_synchronize(self.context)
            self.api.llama_batch_free(batch)
            done += part

    def run(self, test):
        """Tokens per second of one repetition."""
        sequences = list(range(test["batch"]))
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        if test["depth"]:
            for sequence in sequences:
                self.tokens(test["depth"], [sequence], 0)
        started = time.perf_counter()
        if test["kind"] == "pp":
            self.tokens(test["tokens"], [0], test["depth"])
        else:
            for step in range(test["tokens"]):
                self.tokens(1, sequences, test["depth"] + step)
        return test["tokens"] * test["batch"] / (time.perf_counter() - started)


def quiet(api):
    """A log function that says nothing; it must outlive the library's use of it."""
    quiet.kept = api.llama_log_callback(lambda *_: None)
    return quiet.kept


def llama_worker(arguments):
    tests = [parse_test(text) for text in arguments.tests.split(",")]
    llama = Llama(arguments.model[0], arguments.threads, tests)
    rates = {}
    for test in tests:
        rates[test["name"]] = [llama.run(test) for _ in range(arguments.reps + 1)][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"rates": rates, "load_ms": llama.load_ms, "peak_rss_mb": peak}))


def llama_round(path, arguments):
    command = [sys.executable, os.path.abspath(__file__), path, "--llama", "--threads", str(arguments.threads)]
    command += ["--tests", arguments.tests, "--reps", str(arguments.reps)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


# Kinglet, through its command.


def kinglet_round(path, arguments):
    rates, shares, peak = {}, {}, 0.0
    for test in map(parse_test, arguments.tests.split(",")):
        other = "--tg" if test["kind"] == "pp" else "--pp"
        command = [arguments.kinglet, "--json", "bench", path, f"--{test['kind']}", str(test["tokens"]), other, "0"]
        command += ["--depth", str(test["depth"]), "--batch", str(test["batch"]), "--reps", str(arguments.reps)]
        command += ["--threads", str(arguments.threads)] + isa(arguments)
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        result = report["results"][0]
        rates[test["name"]] = result["repetitions"]
        shares[test["name"]] = (result["percent_of_ceiling"], result["ceiling"])
        peak = max(peak, report["peak_rss_mb"] or 0.0)
    return {"rates": rates, "shares": shares, "load_ms": first_token(path, arguments), "peak_rss_mb": peak}


def first_token(path, arguments):
    """Milliseconds from the start of loading to the first token of an answer to one word."""
    command = [arguments.kinglet, "--json", "run", path, "Hi", "--raw", "-n", "1", "--temperature", "0"]
    command += ["--threads", str(arguments.threads)] + isa(arguments)
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer["load_ms"] + answer["ttft_ms"]


def isa(arguments):
    return ["--isa", arguments.isa] if arguments.isa else []


# Both, in turn.


def typed_files(arguments):
    """Name and path of each model: those given, or the small one in each type."""
    if arguments.model:
        return [(os.path.basename(path), path) for path in arguments.model]
    shown = subprocess.run(
        [arguments.kinglet, "--json", "pull", "smollm2"], check=True, stdout=subprocess.PIPE
    ).stdout
    source = json.loads(shown)[0]["files"][0]["path"]
    os.makedirs(arguments.cache, exist_ok=True)
    return [(name, typed_file(source, name, arguments.cache)) for name in arguments.types.split(",")]


def typed_file(source, name, cache):
    path = os.path.join(cache, f"smollm2-135m.{name}.gguf")
    if not os.path.exists(path):
        import llama_cpp

        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.allow_requantize, params.nthread = FILE_TYPES[name], True, 2
        llama_cpp.llama_log_set(quiet(llama_cpp), ctypes.c_void_p(0))
        if llama_cpp.llama_model_quantize(source.encode(), f"{path}.new".encode(), ctypes.byref(params)) != 0:
            sys.exit(f"llama.cpp cannot write {path}")
        os.rename(f"{path}.new", path)
    return path


def compare(arguments):
    report = []
    if arguments.out and os.path.exists(arguments.out):
        with open(arguments.out, encoding="utf-8") as file:
            report = json.load(file)
    for name, path in typed_files(arguments):
        entry = next((entry for entry in report if entry["model"] == name), None)
        if entry is None:
            report.append(entry := {"model": name, "rounds": []})
        rounds = entry["rounds"]
        for number in range(arguments.rounds):
            print(f"{name}: round {number + 1} of {arguments.rounds}", file=sys.stderr)
            rounds.append((llama_round(path, arguments), kinglet_round(path, arguments)))
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
    print(table(report))


def table(report):
    lines = ["| model | test | llama.cpp | Kinglet | ratio | of ceiling |", "|---|---|---|---|---|---|"]
    for entry in report:
        for name in dict.fromkeys(test for llama, _ in entry["rounds"] for test in llama["rates"]):
            theirs, ours = (gather(entry, side, name) for side in (0, 1))
            shares = [kinglet["shares"][name] for _, kinglet in entry["rounds"] if name in kinglet["shares"]]
            share = f"{statistics.median(percent for percent, _ in shares):.0f} % {shares[0][1]}"
            ratio = statistics.median(ours) / statistics.median(theirs)
            lines.append(f"| {entry['model']} | {name} | {spread(theirs)} | {spread(ours)} | {ratio:.2f} | {share} |")
        for key, unit in (("load_ms", "ms to the first token"), ("peak_rss_mb", "MB resident at most")):
            theirs, ours = ([pair[side][key] for pair in entry["rounds"]] for side in (0, 1))
            ratio = statistics.median(theirs) / statistics.median(ours)
            lines.append(f"| {entry['model']} | {unit} | {spread(theirs)} | {spread(ours)} | {ratio:.2f} | |")
    return "\n".join(lines)


def gather(entry, side, test):
    return [rate for pair in entry["rounds"] for rate in pair[side]["rates"].get(test, [])]


def spread(values):
    ordered = sorted(values)
    low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.1, 0.9))
    return f"{statistics.median(ordered):,.0f} ({low:,.0f}–{high:,.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*", help="GGUF files")
    parser.add_argument("--kinglet", default=os.path.join(ROOT, "target", "release", "kinglet"))
    parser.add_argument("--tests", default="pp512,tg128,tg64@512")
    parser.add_argument("--types", default="Q4_1,Q4_0,Q8_0,Q4_K_M,F16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", help="instruction set for Kinglet, such as avx2")
    parser.add_argument("--reps", type=int, default=5, help="repetitions of a test in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cache", default=os.path.join(ROOT, "target", "bench-models"))
    parser.add_argument("--out", help="write all rounds, as JSON; rounds that are there already count too")
    parser.add_argument("--llama", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    llama_worker(arguments) if arguments.llama else compare(arguments)


if __name__ == "__main__":
    main()
