#!/usr/bin/env python3
"""What the window costs the engine: the same searches with 10 hits and with 100.

    tests/bench/window.py opensearch elasticsearch

For each kind of search: the engine's CPU time, `took` and bytes, in turns of one of each, and the CPU time of two
searches in place of the one with 100 hits: one that brings ids, scores and text alone, and one for the hits of
the page. Prints a table in Markdown; docs/decisions/0005 has what followed from it. Standard library only; needs
what `make engines` fetches.
"""

import contextlib
import http.client
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENTS = 20_000
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "60"))
BATCH = 10
WORDS = (
    "garden shoe winter light river stone paper copper maple cotton silver mountain harbour window "
    "orange timber leather engine bottle canvas summer thunder meadow lantern basket marble ribbon"
).split()


def call(address, method, path, body=None, kind="application/json"):
    connection = http.client.HTTPConnection(address, timeout=120)
    text = body if body is None or isinstance(body, str) else json.dumps(body)
    connection.request(method, path, text, {"Content-Type": kind} if text else {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status in (200, 201), (answer.status, data[:500])
    return data


def fill(address):
    field = {"type": "text"}
    call(address, "PUT", "/bench", {
        "settings": {"number_of_shards": 2, "number_of_replicas": 0},
        "mappings": {"properties": {
            "title": field, "text": field, "note": field,
            "brand": {"type": "keyword"}, "price": {"type": "double"},
        }},
    })
    chance = random.Random(7)
    some = lambda count: " ".join(chance.choice(WORDS) for _ in range(count))
    for start in range(0, DOCUMENTS, 2000):
        lines = []
        for number in range(start, start + 2000):
            lines.append(json.dumps({"index": {"_index": "bench", "_id": str(number)}}))
            lines.append(json.dumps({
                "title": some(8), "text": some(120), "note": some(40),
                "brand": f"brand {chance.randrange(2000)}", "price": chance.random() * 100,
            }))
        call(address, "POST", "/_bulk?refresh=true", "\n".join(lines) + "\n", "application/x-ndjson")
    call(address, "POST", "/bench/_forcemerge?max_num_segments=1")


def searches():
    """The kinds of searches: what they have beside their query."""
    fields = {"fields": {name: {} for name in ("title", "text", "note")}}
    inner = {"name": "cheapest", "size": 2, "sort": [{"price": "asc"}]}
    return {
        "plain": {},
        "with aggregations": {"aggs": {
            "brands": {"terms": {"field": "brand"}}, "price": {"stats": {"field": "price"}}}},
        "highlight of three fields": {"highlight": fields},
        "collapse with inner hits": {"collapse": {"field": "brand", "inner_hits": inner}},
    }


def lean(body):
    """The window without what makes its hits expensive, and with the text alone."""
    kept = {name: value for name, value in body.items() if name not in ("highlight",)}
    if "collapse" in kept:
        kept["collapse"] = {"field": kept["collapse"]["field"]}
    return kept | {"_source": ["title", "text"], "size": 100}


def of_page(body, window, chance):
    """Ten of the window's hits, with all that the client wants of them."""
    hits = chance.sample(window["hits"]["hits"], 10)
    if "collapse" in body:
        wanted = {"terms": {"brand": [hit["fields"]["brand"][0] for hit in hits]}}
    else:
        wanted = {"ids": {"values": [hit["_id"] for hit in hits]}}
    kept = {name: value for name, value in body.items() if name != "aggs"}
    return kept | {"size": 10, "post_filter": wanted}


def below(process):
    """The processes that a process has started, and theirs."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def cpu(processes):
    """CPU time so far, milliseconds."""
    ticks = 0
    for process in processes:
        stat = pathlib.Path(f"/proc/{process}/stat").read_text()
        ticks += sum(int(number) for number in stat.rsplit(")", 1)[1].split()[11:13])
    return 10.0 * ticks


def measure(address, processes):
    chance = random.Random(11)
    search = lambda body: call(address, "POST", "/bench/_search", body)

    def ask(kind, body):
        if kind != "two":
            return [search(body | {"size": kind})]
        window = search(lean(body))
        return [window, search(of_page(body, json.loads(window), chance))]

    for name, more in searches().items():
        samples = {kind: ([], [], []) for kind in (10, 100, "two")}
        for turn in range(ROUNDS + 5):
            for kind, (times, took, sizes) in samples.items():
                before = cpu(processes)
                answers = []
                for _ in range(BATCH):
                    text = " ".join(chance.sample(WORDS, 2))
                    matching = {"multi_match": {"query": text, "fields": ["title", "text"]}}
                    answers.append(ask(kind, more | {"query": matching}))
                # The engine compiles its own code in the first of them.
                if turn >= 5:
                    times.append((cpu(processes) - before) / BATCH)
                    took += [sum(json.loads(data)["took"] for data in some) for some in answers]
                    sizes += [sum(len(data) for data in some) / 1024 for some in answers]
        ten, hundred, two = (
            [statistics.fmean(part) for part in samples[kind]] for kind in (10, 100, "two")
        )
        ratio = hundred[0] / max(ten[0], 1e-9)
        print(
            f"| {name} | {ten[0]:.1f} | {hundred[0]:.1f} | {ratio:.1f} | {two[0]:.1f} "
            f"| {ten[1]:.1f} | {hundred[1]:.1f} | {two[1]:.1f} "
            f"| {ten[2]:.0f} | {hundred[2]:.0f} | {two[2]:.0f} |",
            flush=True,
        )


def main():
    for name in sys.argv[1:]:
        script = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts/engines.py"), "run", name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        address = script.stdout.readline().strip().removeprefix("http://")
        try:
            fill(address)
            print(
                f"\n{name}, {DOCUMENTS} documents, {ROUNDS * BATCH} searches a cell, means\n\n"
                "| search | CPU ms, 10 | 100 | ratio | two | took ms, 10 | 100 | two | KiB, 10 | 100 | two |\n"
                "|---|---|---|---|---|---|---|---|---|---|---|"
            )
            measure(address, below(script.pid))
        finally:
            script.stdin.close()
            script.wait()


if __name__ == "__main__":
    main()
