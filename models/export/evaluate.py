#!/usr/bin/env python3
"""Measures the bi-encoder: int8 against fp32, and both against BM25, on judged searches; and each with
its vectors rounded to half precision.

    python models/export/evaluate.py [--data FOLDER] [--max-tokens N] [--separator TEXT]
        [--first N] [--threads N] [--model LABEL=FOLDER]...

FOLDER holds chorus_icecat/, trec_dl19/ and scifact/, each with corpus.jsonl, queries.jsonl,
qrels.tsv, split.test.txt and bm25.top100.trec. Rows run one at a time, as the manifest of the
int8 model asks. Prints the table of the model card.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import tokenizers

MODELS = Path(__file__).resolve().parent.parent
SETS = ("chorus_icecat", "trec_dl19", "scifact")
WEIGHTS = (0.5, 0.8)
TOP = 10


def read_jsonl(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """query -> document -> score, documents in the order of the file."""
    run: dict[str, dict[str, float]] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            query, _, document, _, score, _ = line.split()
            run.setdefault(query, {})[document] = float(score)
    return run


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    with open(path, encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, document, grade = line.split("\t")
            qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def text_of(document: dict, separator: str = ". ") -> str:
    return separator.join(part for part in (document["title"], document["text"]) if part)


def ndcg(order: list[str], grades: dict[str, int], exponential: bool) -> float:
    """NDCG@10; what is not judged counts 0, the ideal is over all judged documents."""

    def gain(grade: int) -> float:
        return 2.0**grade - 1 if exponential else float(grade)

    def dcg(values: list[int]) -> float:
        return sum(gain(v) / math.log2(place + 2) for place, v in enumerate(values[:TOP]))

    ideal = dcg(sorted(grades.values(), reverse=True))
    return dcg([grades.get(d, 0) for d in order]) / ideal if ideal else 0.0


def min_max(values: np.ndarray) -> np.ndarray:
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.full_like(values, 0.5)


class Encoder:
    """Texts -> embeddings, one row a run, `threads` rows at a time on one thread each."""

    def __init__(self, model: Path, max_tokens: int, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(model / "model.onnx", options, providers=["CPUExecutionProvider"])
        self.tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        self.threads = threads

    def row(self, encoding) -> np.ndarray:
        ids = np.array([encoding.ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return self.session.run(["sentence_embedding"], feed)[0][0]

    def embed(self, texts: list[str]) -> np.ndarray:
        with ThreadPoolExecutor(self.threads) as pool:
            return np.stack(list(pool.map(self.row, self.tokenizer.encode_batch(texts))))


def timing(encoder: Encoder) -> str:
    """Median milliseconds of one row on one thread."""
    said = []
    for tokens in (24, 80, 256):
        ids = np.full((1, tokens), 2000, np.int64) + np.arange(tokens)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        times = []
        for _ in range(60):
            start = time.perf_counter()
            encoder.session.run(["sentence_embedding"], feed)
            times.append(time.perf_counter() - start)
        said.append(f"{tokens} tokens {1000 * float(np.median(times)):.2f} ms")
    return ", ".join(said)


def evaluate(folder: Path, first: int | None, separator: str, encoders: dict[str, Encoder]) -> None:
    texts = {d["_id"]: text_of(d, separator) for d in read_jsonl(folder / "corpus.jsonl")}
    queries = {q["_id"]: q["text"] for q in read_jsonl(folder / "queries.jsonl")}
    qrels = read_qrels(folder / "qrels.tsv")
    run = read_run(folder / "bm25.top100.trec")
    test = (folder / "split.test.txt").read_text().split()[:first]
    # A run may name a document whose text is not in the corpus: it keeps its place in BM25 only.
    pools = {q: [d for d in run.get(q, {}) if d in texts][:100] for q in test}
    documents = sorted({d for pool in pools.values() for d in pool})
    vectors = {}
    for name, encoder in encoders.items():
        of_document = dict(zip(documents, encoder.embed([texts[d] for d in documents])))
        of_query = dict(zip(test, encoder.embed([queries[q] for q in test])))
        vectors[name] = (of_document, of_query)
        # As `output_precision = "fp16"` gives them out.
        vectors[f"{name} in half"] = tuple(
            {text: np.float32(np.float16(vector)) for text, vector in of.items()} for of in vectors[name]
        )

    print(f"\n{folder.name}: {len(test)} queries, {len(documents)} documents")
    if {"int8", "fp32"} <= vectors.keys():
        cosines = np.array([float(vectors["int8"][0][d] @ vectors["fp32"][0][d]) for d in documents])
        print(f"  int8 against fp32, cosine of the same text: mean {cosines.mean():.4f}, min {cosines.min():.4f}")
    for exponential in (False, True):
        totals: dict[str, list[float]] = {}
        for query in test:
            pool = pools[query]
            lexical = np.array([run[query][d] for d in pool])
            orders = {"bm25": lexical}
            for name, (of_document, of_query) in vectors.items():
                semantic = np.array([float(of_document[d] @ of_query[query]) for d in pool])
                orders[f"{name} alone"] = semantic
                for weight in WEIGHTS:
                    orders[f"{name} blend {weight}"] = (1 - weight) * min_max(lexical) + weight * min_max(semantic)
            for name, scores in orders.items():
                order = [pool[i] for i in np.argsort(-scores, kind="stable")]
                totals.setdefault(name, []).append(ndcg(order, qrels[query], exponential))
        print(f"  NDCG@{TOP}, {'exponential' if exponential else 'linear'} gain")
        for name, values in totals.items():
            print(f"    {name:22} {np.mean(values):.4f}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, default=MODELS.parent.parent / "shared" / "data")
    arguments.add_argument("--max-tokens", type=int, default=256, metavar="N", help="cut texts to this; 256")
    arguments.add_argument("--separator", default=". ", metavar="TEXT", help="between title and text; '. '")
    arguments.add_argument("--first", type=int, metavar="N", help="only the first N test queries of each set")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument(
        "--model", action="append", metavar="LABEL=FOLDER", help="instead of int8 and fp32 of the default model"
    )
    options = arguments.parse_args()
    chosen = options.model or ["int8=all-minilm-l6-v2", "fp32=all-minilm-l6-v2-fp32"]
    encoders = {}
    for choice in chosen:
        label, _, folder = choice.partition("=")
        if (MODELS / folder).exists():
            encoders[label] = Encoder(MODELS / folder, options.max_tokens, options.threads)
            print(f"{label}: {timing(encoders[label])}")
        else:
            print(f"{label}: {folder} is not made, skipped")
    for name in SETS:
        evaluate(options.data / name, options.first, options.separator, encoders)


if __name__ == "__main__":
    main()
