#!/usr/bin/env python3
"""Measures ways to less arithmetic for one model, side by side, and writes them into docs/benchmarks.md.

    python models/export/bench_graph.py [--page docs/benchmarks.md] [--runs 60] [--openvino LIBRARY]

All graphs compute the same cross-encoder (MiniLM's encoder under a random head) on one
thread of one process, in turns. What counts is CPU time, which a busy neighbour changes little. LIBRARY is
the execution-provider plugin of the Python package onnxruntime-ep-openvino.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions

import export
from bert import MASKED, Graph, Shape

SIZES = ((1, 24), (4, 24), (1, 80), (4, 80))  # rows, tokens
BEGIN, END = ("<!-- written by `make bench-graph`: begin -->", "<!-- written by `make bench-graph`: end -->")


class FoldedEmbeddings(Graph):
    """Positions and segments in one table, looked up once: one sum over all tokens less."""

    def embeddings(self, w: dict[str, np.ndarray], shape: Shape) -> str:
        words = self.lookup("input_ids", "embeddings.words", w["embeddings.word_embeddings.weight"])
        types, places = w["embeddings.token_type_embeddings.weight"], w["embeddings.position_embeddings.weight"]
        table = (types[:, None] + places[None]).reshape(-1, shape.hidden)
        length = self.op("Squeeze", [self.op("Shape", ["input_ids"], "tokens", start=1, end=2)], "tokens.scalar")
        zero, one = (self.weight(f"index_{n}", np.array(n, np.int64)) for n in (0, 1))
        place = self.op("Range", [zero, length, one], "embeddings.place")
        offset = self.op("Mul", ["token_type_ids", self.ints(len(places))], "embeddings.offset")
        index = self.op("Add", [offset, place], "embeddings.index")
        rest = self.op("Gather", [self.weight("embeddings.folded", table), index], "embeddings.rest")
        total = self.op("Add", [words, rest], "embeddings.sum")
        return self.layer_norm(
            total, "embeddings.norm", w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], shape.norm_eps
        )


class MaskAsExported(Graph):
    """The mask in the order of PyTorch's exporter, by which ONNX Runtime's optimizer knows attention."""

    def attention_bias(self) -> str:
        mask = "attention_mask"
        for axis in (1, 2):
            mask = self.op("Unsqueeze", [mask, self.ints(axis)], f"mask.axis_{axis}")
        mask = self.op("Cast", [mask], "mask", to=onnx.TensorProto.FLOAT)
        absent = self.op("Sub", [self.scalar(1.0), mask], "mask.absent")
        return self.op("Mul", [absent, self.scalar(MASKED)], "mask.bias")


def graph(kind: type[Graph], quantize: bool, first_token_only: bool) -> bytes:
    w, made = export.bench_weights(), kind(quantize=quantize)
    made.logits(made.encoder(w, export.MINILM, first_token_only), w)
    return made.build("bench", "a graph to be measured")


def fused(model: bytes, folder: Path, quantize: bool, attention: bool) -> tuple[bytes, str]:
    """ONNX Runtime's own BERT optimizer on the plain fp32 graph; what it fused."""
    source, result = folder / "plain.onnx", folder / "fused.onnx"
    source.write_bytes(model)
    options = FusionOptions("bert")
    options.enable_attention = attention
    options.enable_embed_layer_norm = attention
    made = optimizer.optimize_model(
        str(source),
        model_type="bert",
        num_heads=export.MINILM.heads,
        hidden_size=export.MINILM.hidden,
        optimization_options=options,
        opt_level=0,
    )
    counts = {name: count for name, count in made.get_fused_operator_statistics().items() if count}
    made.save_model_to_file(str(result))
    if quantize:
        source.write_bytes(result.read_bytes())
        quantization.quantize_dynamic(
            source,
            result,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            # What a fused operator gives has no type for the standard's own inference of types.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    return result.read_bytes(), ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = made.inter_op_num_threads = 1
    made.log_severity_level = 3
    made.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return made


def openvino(model: bytes, precision: str) -> onnxruntime.InferenceSession:
    devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == "OpenVINOExecutionProvider"]
    device = next(d for d in devices if d.ep_metadata.get("ov_device") == "CPU")
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": "1"}
    made = options()
    made.add_provider_for_devices([device], {"load_config": json.dumps({"CPU": settings})})
    return onnxruntime.InferenceSession(model, made)


def feed(rows: int, tokens: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(rows * 1000 + tokens)
    ids = random.integers(1000, 20000, (rows, tokens))
    segments = np.repeat((np.arange(tokens) > tokens // 3)[None].astype(np.int64), rows, 0)
    return {"input_ids": ids, "attention_mask": np.ones((rows, tokens), np.int64), "token_type_ids": segments}


def cpu_times(sessions: list, batch: dict, runs: int) -> list[list[float]]:
    """CPU milliseconds of each session, taken in turns.

    Each turn begins with a run that does not count: it finds the caches full of another graph's weights.
    """
    taken: list[list[float]] = [[] for _ in sessions]
    for _ in range(runs):
        for session, times in zip(sessions, taken):
            session.run(None, batch)
            started = time.process_time()
            session.run(None, batch)
            times.append((time.process_time() - started) * 1000)
    return taken


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    flags = next(line for line in lines if line.startswith("flags")).split()
    return f"{name} ({', '.join(f for f in ('avx2', 'avx512_vnni', 'amx_int8', 'amx_bf16') if f in flags)})"


def variants(folder: Path, plugin: Path | None) -> list[tuple[str, str, object]]:
    """(precision, what, session); the first of each precision is what the others are compared with."""

    def cpu(model: bytes) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(model, options(), providers=["CPUExecutionProvider"])

    plain, first = (graph(MaskAsExported, False, first_token_only) for first_token_only in (False, True))
    lines = []
    for precision in ("fp32", "int8"):
        quantize = precision == "int8"
        lines += [
            (precision, "every token of the last layer", cpu(graph(Graph, quantize, False))),
            (precision, "last layer for [CLS] alone", cpu(graph(Graph, quantize, True))),
            (precision, "positions and segments in one table", cpu(graph(FoldedEmbeddings, quantize, False))),
        ]
        for attention, what in ((True, "all of ONNX Runtime's BERT fusions"), (False, "the same without attention")):
            made, counts = fused(plain, folder, quantize, attention)
            how = f"{what} ({counts})" + (", then its `quantize_dynamic`" if quantize else "")
            lines.append((precision, how, cpu(made)))
        if quantize:
            made, _ = fused(first, folder, True, False)
            lines.append((precision, "[CLS] alone, those fusions, its `quantize_dynamic`", cpu(made)))
    if plugin:
        onnxruntime.register_execution_provider_library("openvino", str(plugin))
        for precision, model, what in (
            ("f32", plain, "OpenVINO in fp32"),
            ("bf16", plain, "OpenVINO in bf16"),
            ("bf16", first, "OpenVINO in bf16, [CLS] alone"),
        ):
            lines.append(("fp32", what, openvino(model, precision)))
    return lines


def table(lines: list, runs: int) -> tuple[str, list[str]]:
    sizes = [f"{tokens} x {rows}" for rows, tokens in SIZES]
    heads = ["precision", "graph", *(f"{s}, ms" for s in sizes), *(f"ratio {s}" for s in sizes), "scores differ by"]
    rows_of = {id(session): [] for _, _, session in lines}
    worst = {id(session): 0.0 for _, _, session in lines}
    for rows, tokens in SIZES:
        batch = feed(rows, tokens)
        sessions = [session for _, _, session in lines]
        taken = cpu_times(sessions, batch, runs)
        base, base_scores = {}, {}
        for (precision, _, session), times in zip(lines, taken):
            scores = session.run(["logits"], batch)[0]
            base.setdefault(precision, times)
            base_scores.setdefault(precision, scores)
            ratio = statistics.median(one / other for one, other in zip(times, base[precision]))
            rows_of[id(session)].append((statistics.median(times), ratio))
            apart = float(np.abs(scores - base_scores[precision]).max())
            worst[id(session)] = max(worst[id(session)], apart)
    made = []
    for precision, what, session in lines:
        cells = rows_of[id(session)]
        times, ratios = [f"{t:.2f}" for t, _ in cells], [f"{r:.3f}" for _, r in cells]
        made.append(" | ".join([precision, what, *times, *ratios, f"{worst[id(session)]:.0e}"]))
    return " | ".join(heads), made


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--page", type=Path, default=root / "docs" / "benchmarks.md")
    arguments.add_argument("--runs", type=int, default=60)
    arguments.add_argument("--openvino", type=Path, metavar="LIBRARY")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = variants(Path(folder), given.openvino)
    heads, rows = table(lines, given.runs)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    text = [
        f"| {heads} |",
        "|" + "---|" * (heads.count(" | ") + 1),
        *(f"| {row} |" for row in rows),
        "",
        f"Tokens x rows of a run; medians of {given.runs} runs in turns, milliseconds of CPU time on one thread; "
        "a ratio is the median of those of neighbours to the first line of the same precision, below 1 is faster. "
        f"Date: {now}. CPU: {cpu_name()}. ONNX Runtime {onnxruntime.__version__}.",
    ]
    page = given.page.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    given.page.write_text(before + "\n".join([BEGIN, *text, END]) + after)
    print("\n".join(text))


if __name__ == "__main__":
    main()
