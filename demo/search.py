#!/usr/bin/env python3
"""Starts a real OpenSearch with a small product index, and rerankd before it: one search, two answers.

    demo/search.py --binary target/release/rerankd [--port 9700] [--exit]

Everything stays until Ctrl-C; with --exit it is stopped at once, and whatever did not
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
import products  # noqa: E402


def main():
    arguments = parse_arguments()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), demo.raise_stopped)
    try:
        with contextlib.ExitStack() as until_end:
            engine = until_end.enter_context(engines.running(engines.OPENSEARCH))
            products.load(engine)
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


def show(engine, proxy, paint):
    """One search, asked of the engine and of the proxy."""
    query, body, judgments = products.judged_search()
    demo.say(paint.title(f'The same search for "{query}", of OpenSearch and through the proxy'))
    path = products.PATH
    for base in (engine.base, proxy.base):
        demo.say(paint.command(demo.curl(base + path, json.dumps(body))))
    before, after = (
        json.loads(client.request("POST", path, body))["hits"]["hits"] for client in (engine, proxy)
    )
    window = json.loads(engine.request("POST", path, {**body, "size": 100, "_source": False}))
    products.show_both(before, after, window["hits"]["hits"], judgments, paint)
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
