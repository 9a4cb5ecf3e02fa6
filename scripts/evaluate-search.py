#!/usr/bin/env python3
"""Measures searches of a real OpenSearch with and without rerankd before it: NDCG@10 and latency.

Indexes the product data set, asks the judged test queries of the engine and of the proxy in turns, and
writes a table between the markers of docs/benchmarks.md.

Standard library only; Python 3.10 or later. See engines.py for what else is needed.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import pathlib
import statistics
import sys
import time

sys.dont_write_bytecode = True  # this folder is a place of sources, not of caches
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "demo"), str(REPOSITORY / "scripts")]
import demo  # noqa: E402
import engines  # noqa: E402

INDEX = "products"
MAPPINGS = {
    "settings": {"number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {"properties": {"title": {"type": "text"}, "text": {"type": "text"}}},
}
BULK_DOCUMENTS = 5000
ROUNDS = 5
BEGIN = "<!-- written by `make eval-e2e`: begin -->"
END = "<!-- written by `make eval-e2e`: end -->"


def main():
    arguments = parse_arguments()
    try:
        data = DataSet(arguments.data)
        with contextlib.ExitStack() as until_end:
            engine = until_end.enter_context(engines.running(engines.OPENSEARCH))
            data.index_into(engine)
            port = demo.free_port(9700)
            flags = ["--upstream", engine.base, "--proxy-listen", f"127.0.0.1:{port}"]
            server = demo.Server(
                REPOSITORY / "target/release/rerankd", demo.free_port(9500), demo.free_port(9600), flags
            )
            until_end.callback(server.stop)
            server.wait_until_ready()
            proxy = engines.Client(f"http://127.0.0.1:{port}")
            table = measure(data, engine, proxy)
    except (demo.DemoError, engines.EngineError, OSError) as error:
        print(f"evaluate-search: {error}", file=sys.stderr)
        return 1
    print(table)
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        head, tail = text.split(BEGIN)[0], text.split(END)[1]
        arguments.page.write_text(f"{head}{BEGIN}\n{table}\n{END}{tail}", encoding="utf-8")
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=REPOSITORY.parent / "shared" / "data" / "chorus_icecat",
        help="folder of the product data set",
    )
    parser.add_argument("--page", type=pathlib.Path, help="the page to write the table into")
    return parser.parse_args()


class DataSet:
    """Documents, test queries and what people said of both."""

    def __init__(self, folder):
        def lines(name):
            return (folder / name).read_text(encoding="utf-8").splitlines()

        self.documents = [json.loads(line) for line in lines("corpus.jsonl")]
        texts = {query["_id"]: query["text"] for query in map(json.loads, lines("queries.jsonl"))}
        self.queries = {name: texts[name] for name in lines("split.test.txt") if name}
        self.grades = {}
        for line in lines("qrels.tsv")[1:]:
            query, document, grade = line.split("\t")
            self.grades.setdefault(query, {})[document] = int(grade)

    def index_into(self, engine):
        engine.request("PUT", f"/{INDEX}", MAPPINGS)
        for start in range(0, len(self.documents), BULK_DOCUMENTS):
            part = self.documents[start : start + BULK_DOCUMENTS]
            sources = ({"title": one["title"], "text": one["text"]} for one in part)
            names = (one["_id"] for one in part)
            engine.bulk(INDEX, [(name, json.dumps(one).encode()) for name, one in zip(names, sources)])
        engine.request("POST", f"/{INDEX}/_forcemerge?max_num_segments=1")


class Side:
    """What one way to search gave."""

    def __init__(self, client, more=lambda round_: {}):
        self.client = client
        self.more = more
        self.ndcg = {}
        self.seconds = []

    def search(self, query, text, grades, round_):
        body = {
            "query": {"multi_match": {"query": text, "fields": ["title", "text"]}},
            "_source": ["title"],
            **self.more(round_),
        }
        start = time.perf_counter()
        answer = self.client.request("POST", f"/{INDEX}/_search?request_cache=false", body)
        self.seconds.append(time.perf_counter() - start)
        found = [hit["_id"] for hit in json.loads(answer)["hits"]["hits"]][:10]
        self.ndcg[query] = ndcg_at_10(found, grades)

    def row(self, name):
        ordered = sorted(self.seconds)
        p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
        return (
            f"| {name} | {statistics.mean(self.ndcg.values()):.3f} "
            f"| {1000 * statistics.median(ordered):.1f} | {1000 * p99:.1f} |"
        )


def measure(data, engine, proxy):
    """Asks every query of both sides in turns, and makes the table."""
    own = Side(engine)
    # A signal that differs: no cache of rankings answers in the policy's place.
    through = Side(proxy, lambda round_: {"ext": {"rerankd": {"signals": {"round": round_}}}})
    for side in (own, through):  # warm
        for query, text in list(data.queries.items())[:10]:
            side.search(query, text, data.grades[query], 0)
        side.seconds.clear()
    for round_ in range(1, ROUNDS + 1):
        engines.progress(f"round {round_} of {ROUNDS}")
        for query, text in data.queries.items():
            for side in (own, through):
                side.search(query, text, data.grades[query], round_)
    better = sum(through.ndcg[query] > own.ndcg[query] + 1e-9 for query in data.queries)
    worse = sum(through.ndcg[query] < own.ndcg[query] - 1e-9 for query in data.queries)
    now = datetime.datetime.now(datetime.timezone.utc)
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    return "\n".join(
        [
            "| | NDCG@10 | median, ms | 99 %, ms |",
            "|---|---|---|---|",
            own.row(f"OpenSearch {engines.OPENSEARCH.version}"),
            through.row("through rerankd, `semantic-blend`, window 100"),
            "",
            f"{len(data.queries)} queries over {len(data.documents)} products (chorus_icecat, grades 0 to 3, linear "
            f"gain, what nobody judged counts as 0); {better} queries gain, {worse} lose. Searches of titles and "
            f"texts, ten hits, {ROUNDS} rounds in turns, each on a connection of its own, with the engine, "
            f"the proxy and the client on {os.cpu_count()} cores. Nothing is taken from the cache of rankings. "
            f"Date: {now:%Y-%m-%d %H:%M} UTC. Load average at the end: {load}.",
        ]
    )


def ndcg_at_10(found, grades):
    def gain(values):
        return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(values[:10]))

    best = gain(sorted(grades.values(), reverse=True))
    return gain([grades.get(name, 0) for name in found]) / best if best else 0.0


if __name__ == "__main__":
    sys.exit(main())
