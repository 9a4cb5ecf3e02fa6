#!/usr/bin/env python3
"""Starts a real OpenSearch with a small product index, and rerankd before it: one search, two answers.

    demo/search.py --binary target/release/rerankd [--port 9700] [--exit]

The products are those of tests/fixtures and tests/bench/texts (Icecat's, under their own licence, see the
files beside them). Everything stays until Ctrl-C; with --exit it is stopped at once, and whatever did not
work makes the exit code 1.

Standard library only; Python 3.10 or later.
"""

import argparse
import contextlib
import json
import pathlib
import signal
import sys

sys.dont_write_bytecode = True  # these folders are places of sources, not of caches
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "demo"), str(REPOSITORY / "scripts")]
import demo  # noqa: E402
import engines  # noqa: E402

INDEX = "products"
MAPPINGS = {
    "settings": {"number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {"properties": {"title": {"type": "text"}, "text": {"type": "text"}}},
}
PAGES = ("chorus-smart-watch", "chorus-sorted", "chorus-aggregations")
TITLES = pathlib.Path("tests/bench/texts/titles-chorus.json")


def main():
    arguments = parse_arguments()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), demo.raise_stopped)
    try:
        with contextlib.ExitStack() as until_end:
            engine = until_end.enter_context(engines.running(engines.OPENSEARCH))
            load(engine)
            port = demo.free_port(arguments.port)
            flags = ["--upstream", engine.base, "--proxy-listen", f"127.0.0.1:{port}"]
            binary = demo.find_binary(arguments.binary)
            server = demo.Server(binary, demo.free_port(9500), demo.free_port(9600), flags)
            until_end.callback(server.stop)
            server.wait_until_ready()
            show(engine, engines.Client(f"http://127.0.0.1:{port}"), demo.Paint(sys.stdout))
            if not arguments.exit:
                demo.say("\nAll of it stays until you press Ctrl-C.")
                server.follow()
    except demo.Stopped:
        return 130
    except (demo.DemoError, engines.EngineError) as error:
        sys.stdout.flush()
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--binary",
        type=pathlib.Path,
        default=REPOSITORY / "target" / "release" / "rerankd",
        help="the built server (default: target/release/rerankd)",
    )
    parser.add_argument("--port", type=int, default=9700, help="port of the proxy (default: 9700)")
    parser.add_argument("--exit", action="store_true", help="stop instead of staying")
    return parser.parse_args()


def load(engine):
    """Indexes every product that the checkout holds."""
    products = {}
    for search in json.loads((REPOSITORY / TITLES).read_text(encoding="utf-8")):
        for document in search["documents"]:
            products[document["id"]] = {"title": document["title"]}
    for name in PAGES:
        page = REPOSITORY / "tests" / "fixtures" / "elasticsearch" / f"{name}.json"
        for hit in json.loads(page.read_text(encoding="utf-8"))["hits"]["hits"]:
            if "_source" in hit:
                products[hit["_id"]] = hit["_source"]
    engine.request("PUT", f"/{INDEX}", MAPPINGS)
    sources = [(name, json.dumps(source).encode()) for name, source in products.items()]
    engine.bulk(INDEX, sources)
    demo.say(f"OpenSearch on {engine.base} has {len(products)} products.")


def show(engine, proxy, paint):
    """One search, asked of the engine and of the proxy."""
    _, about = demo.read_page()
    query = about["query"]
    body = {"query": {"multi_match": {"query": query, "fields": ["title", "text"]}}}
    demo.say(paint.title(f'The same search for "{query}", of OpenSearch and through the proxy'))
    path = f"/{INDEX}/_search"
    for base in (engine.base, proxy.base):
        demo.say(paint.command(demo.curl(base + path, json.dumps(body))))
    before, after = (
        json.loads(client.request("POST", path, body))["hits"]["hits"] for client in (engine, proxy)
    )
    if [hit["_id"] for hit in before] == [hit["_id"] for hit in after]:
        raise demo.DemoError("the proxy did not rerank anything.")
    window = json.loads(engine.request("POST", path, {**body, "size": 100, "_source": False}))
    grades = about["judgments"]["grades"]
    demo.show_side_by_side(before, after, grades, paint, window["hits"]["hits"])
    old, new = (demo.ndcg_at_10(hits, about["judgments"]) for hits in (before, after))
    demo.say(f"\n  NDCG@10 by people's grades: {old:.3f} before, {paint.bold(f'{new:.3f} after')}")
    hint = "This search was chosen because it gains much; docs/benchmarks.md has the mean of many."
    demo.say(paint.dim(f"  {hint}"))
    demo.say(paint.title("What to try next"))
    demo.say("  Why was this not reranked? Every answer says so in `Rerank-Status`:")
    sorted_search = json.dumps({**body, "sort": ["_doc"], "size": 1})
    demo.say(paint.command(demo.curl(proxy.base + path, sorted_search).replace("curl ", "curl -i ")))
    demo.say("  The second page, which goes on where the first one ended:")
    demo.say(paint.command(demo.curl(proxy.base + path, json.dumps({**body, "from": 10}))))
    demo.say("  Any client of OpenSearch works: give it the proxy's address in place of the engine's.")
    demo.say(f"  {paint.bold(proxy.base)}")


if __name__ == "__main__":
    sys.exit(main())
