#!/usr/bin/env python3
"""Starts a real OpenSearch with the plugin in it, and rerankd beside it: one search, two answers.

    demo/opensearch.py --binary target/release/rerankd [--exit]

Everything stays until Ctrl-C; with --exit it is stopped at once, and whatever did not work makes the exit
code 1.

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
import products  # noqa: E402

PLUGIN = REPOSITORY / "plugin" / "opensearch" / "dist" / "rerankd-opensearch3.zip"
PIPELINE = {
    "request_processors": [{"rerankd_window": {"window": 100}}],
    "response_processors": [{"rerankd": {}}],
}
ALONE = f"{products.PATH}?search_pipeline=_none"
AUTO = {"persistent": {"cluster.search.enabled_system_generated_factories": ["rerankd_auto"]}}
# The first searches of a fresh engine and model take longer than those of every day.
TIMEOUT_MS = 5000


def main():
    arguments = parse_arguments()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), demo.raise_stopped)
    try:
        with contextlib.ExitStack() as until_end:
            binary = demo.find_binary(arguments.binary)
            server = demo.Server(binary, demo.free_port(9500), demo.free_port(9600))
            until_end.callback(server.stop)
            server.wait_until_ready()
            settings = (f"rerankd.url: {server.base}", f"rerankd.timeout_ms: {TIMEOUT_MS}")
            extras = engines.Extras(plugins=(plugin(),), settings=settings)
            running = engines.running(engines.OPENSEARCH, extras=extras)
            engine = until_end.enter_context(running)
            products.load(engine)
            show(engine, demo.Paint(sys.stdout))
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
    parser.add_argument("--exit", action="store_true", help="stop instead of staying")
    return parser.parse_args()


def plugin():
    """The zip of the plugin."""
    if not PLUGIN.is_file():
        raise demo.DemoError(f"there is no plugin at {PLUGIN}: `make plugin` makes it.")
    return PLUGIN


def show(engine, paint):
    """One search, asked of the engine alone and with the pipeline."""
    query, body, judgments = products.judged_search()
    demo.say(paint.title("A search pipeline, once, as the default of the index"))
    settings = {"index.search.default_pipeline": "rerankd"}
    for path, value in (
        ("/_search/pipeline/rerankd", PIPELINE),
        (f"/{products.INDEX}/_settings", settings),
    ):
        command = demo.curl(engine.base + path, json.dumps(value))
        demo.say(paint.command(command.replace("curl ", "curl -X PUT ", 1)))
        engine.request("PUT", path, value)
    demo.say(paint.title(f'The same search for "{query}", without the pipeline and with it'))
    for path in (ALONE, products.PATH):
        demo.say(paint.command(demo.curl(f"'{engine.base}{path}'", json.dumps(body))))
    before, after = (
        json.loads(engine.request("POST", path, body)) for path in (ALONE, products.PATH)
    )
    window = json.loads(engine.request("POST", ALONE, {**body, "size": 100, "_source": False}))
    products.show_both(
        before["hits"]["hits"], after["hits"]["hits"], window["hits"]["hits"], judgments, paint
    )
    demo.say("\n  The answer says what became of it:")
    demo.say(paint.command(json.dumps(after["ext"]["rerankd"])))
    show_next(engine, body, paint)


def show_next(engine, body, paint):
    """What to try; each of it is tried here."""
    demo.say(paint.title("What to try next"))
    sorted_search = {**body, "sort": ["_doc"], "size": 1}
    other_policy = {**body, "size": 3, "ext": {"rerankd": {"policy": "first-stage"}}}
    for purpose, path, search in (
        ("Why was this not reranked?", products.PATH, sorted_search),
        ("The second page, which goes on where the first one ended:", products.PATH, {**body, "from": 10}),
        ("No pipeline, but a word in the search, once the cluster allows it:", ALONE, other_policy),
    ):
        demo.say(f"  {purpose}")
        if path == ALONE:
            command = demo.curl(f"{engine.base}/_cluster/settings", json.dumps(AUTO))
            demo.say(paint.command(command.replace("curl ", "curl -X PUT ", 1)))
            engine.request("PUT", "/_cluster/settings", AUTO)
        demo.say(paint.command(demo.curl(f"'{engine.base}{path}'", json.dumps(search))))
        answer = json.loads(engine.request("POST", path, search))
        if "rerankd" not in answer.get("ext", {}):
            raise demo.DemoError(f"the plugin says nothing of this search: {search}")
    demo.say("  Stop rerankd, and search again: the page is OpenSearch's own. docs/opensearch.md has the rest.")


if __name__ == "__main__":
    sys.exit(main())
