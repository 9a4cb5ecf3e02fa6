"""What is compared, each by its own natural interface.

A subject is made in a process of its own (`worker.py`), so that no peer sees another's packages, threads
or memory. Each is a function of a description (`{"subject", "precision", "folder", "threads", "url"}`)
that returns `connect`; `connect()` gives one client's way to score: `(query, documents)` -> scores in the
documents' order, in [0, 1].
"""

import http.client
import json
import math
import pathlib


def fastembed(about):
    """`TextCrossEncoder.rerank`, with its own batches of 64. All clients share one model."""
    from fastembed.common.model_description import ModelSource
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    TextCrossEncoder.add_custom_model(model="bench", sources=ModelSource(hf="bench"), model_file="model.onnx")
    model = TextCrossEncoder("bench", specific_model_path=about["folder"])

    def score(query, documents):
        return [sigmoid(logit) for logit in model.rerank(query, documents)]

    return lambda: score


def flashrank(about):
    """`Ranker.rerank`: all passages in one batch. All clients share one ranker."""
    from flashrank import Config, Ranker, RerankRequest

    folder = pathlib.Path(about["folder"])
    # It only takes names that are in its table.
    Config.model_file_map[folder.name] = "model.onnx"
    ranker = Ranker(model_name=folder.name, cache_dir=str(folder.parent), log_level="ERROR")

    def score(query, documents):
        passages = [{"id": place, "text": text} for place, text in enumerate(documents)]
        scores = [0.0] * len(documents)
        for passage in ranker.rerank(RerankRequest(query=query, passages=passages)):
            scores[passage["id"]] = float(passage["score"])
        return scores

    return lambda: score


def sentence_transformers(about):
    """`CrossEncoder.predict`, with its own batches of 32. All clients share one model."""
    from sentence_transformers import CrossEncoder

    options = {}
    if about["backend"] == "onnx":
        options = {"backend": "onnx", "model_kwargs": {"file_name": "model.onnx", "export": False}}
    model = CrossEncoder(about["folder"], device="cpu", **options)

    def score(query, documents):
        pairs = [(query, text) for text in documents]
        return model.predict(pairs, show_progress_bar=False).tolist()

    return lambda: score


def row_scheduling(about):
    """Bare ONNX Runtime as a scheduler of rows would use it: nobody's product, but what text-embeddings-inference
    was once measured beside. Rows by length, a session of one thread for each thread; int8 rows alone, fp32 rows
    in runs of 4."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy
    import onnxruntime
    from tokenizers import Tokenizer

    folder, threads = pathlib.Path(about["folder"]), about["threads"]
    rows_a_run = 1 if about["precision"] == "int8" else 4
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_second")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sessions = [onnxruntime.InferenceSession(str(folder / "model.onnx"), options) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def run(session, rows, runs, scores):
        while True:
            try:
                members = runs.pop()
            except IndexError:
                return
            columns = max(len(rows[row].ids) for row in members)
            cells = numpy.zeros((3, len(members), columns), dtype=numpy.int64)
            for place, row in enumerate(members):
                length = len(rows[row].ids)
                cells[0, place, :length] = rows[row].ids
                cells[1, place, :length] = 1
                cells[2, place, :length] = rows[row].type_ids
            names = ("input_ids", "attention_mask", "token_type_ids")
            (logits,) = session.run(None, dict(zip(names, cells)))
            for row, logit in zip(members, logits[:, 0].tolist()):
                scores[row] = sigmoid(logit)

    def score(query, documents):
        rows = tokenizer.encode_batch([(query, text) for text in documents])
        order = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
        # Taken from the end: the longest first.
        runs = [order[at : at + rows_a_run] for at in range(0, len(order), rows_a_run)]
        scores = [0.0] * len(rows)
        work = [pool.submit(run, session, rows, runs, scores) for session in sessions]
        for one in work:
            one.result()
        return scores

    return lambda: score


def rerankd(about):
    """`POST /v1/rerank/cross-encoder`; each client keeps a connection."""

    def read(answer, scores):
        if answer["status"] != "applied":
            raise RuntimeError(f"status {answer['status']}")
        for result in answer["results"]:
            scores[result["index"]] = result["score"]

    return over_http(about["url"], "/v1/rerank/cross-encoder", {}, read)


def infinity(about):
    """`POST /rerank`; each client keeps a connection."""

    def read(answer, scores):
        for result in answer["results"]:
            scores[result["index"]] = result["relevance_score"]

    return over_http(about["url"], "/rerank", {"model": about["model"]}, read)


def over_http(address, path, more, read):
    """Texts to JSON and the answer's JSON to scores belong to a request."""
    host, port = address.split(":")

    def connect():
        connection = http.client.HTTPConnection(host, int(port), timeout=600)
        connection.connect()

        def score(query, documents):
            body = json.dumps({"query": query, "documents": documents, **more}).encode()
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {answer[:200].decode()}")
            scores = [math.nan] * len(documents)
            read(json.loads(answer), scores)
            return scores

        return score

    return connect


def sigmoid(logit):
    return 1.0 / (1.0 + math.exp(-logit))


SUBJECTS = {
    "fastembed": fastembed,
    "flashrank": flashrank,
    "sentence-transformers": sentence_transformers,
    "row-scheduling": row_scheduling,
    "rerankd": rerankd,
    "infinity": infinity,
}
