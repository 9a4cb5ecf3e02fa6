#!/usr/bin/env python3
"""Starts rerankd and shows what it does: titles scored, and a page of Elasticsearch reranked.

    demo/demo.py --binary target/release/rerankd [--port 9500] [--admin-port 9600] [--exit]

Nothing is mocked: the binary is the real one, the page is what a real Elasticsearch sent
(tests/fixtures/elasticsearch/), and every command that is printed can be pasted into a shell.
The server stays until Ctrl-C; with --exit it is stopped at once, and whatever did not work makes
the exit code 1.

Standard library only; Python 3.8 or later.
"""

import argparse
import collections
import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PAGE = pathlib.Path("tests/fixtures/elasticsearch/chorus-smart-watch.json")
# The demo's server must not meet the data of another one.
DATA = pathlib.Path(".runtime/demo")
MODEL = "all-minilm-l6-v2"
POLICY = "semantic-blend"
TITLES_QUERY = "crocs"
TITLES = (
    "Crocs Jibbitz 5-Pack Alien Shoe Charms",
    "Crocs Specialist Vent Work",
    "Crocs Kids' Baya Clog",
)
START_SECONDS = 60
STOP_SECONDS = 20
REQUEST_SECONDS = 30
KEPT_LINES = 40  # of the server's output, to show when it fails
SHOWN_COLUMNS = (60, 160)  # narrower or wider terminals are treated as this


class DemoError(Exception):
    """Something did not work. The text is for a person."""


class Stopped(Exception):
    """The demo was told to end: Ctrl-C, or a signal that asks for it."""


def main():
    arguments = parse_arguments()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), raise_stopped)
    try:
        with contextlib.ExitStack() as until_end:
            port = free_port(arguments.port)
            admin_port = free_port(arguments.admin_port)
            server = Server(find_binary(arguments.binary), port, admin_port)
            until_end.callback(server.stop)
            run(server, arguments)
    except Stopped:
        return 130
    except DemoError as error:
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
    parser.add_argument("--port", type=int, default=9500, help="port on loopback (default: 9500)")
    parser.add_argument(
        "--admin-port", type=int, default=9600, help="port of the admin plane (default: 9600)"
    )
    parser.add_argument(
        "--exit", action="store_true", help="try the printed commands, then stop instead of staying"
    )
    return parser.parse_args()


def raise_stopped(*_):
    raise Stopped


def run(server, arguments):
    """The demo, top to bottom."""
    server.wait_until_ready()
    paint = Paint(sys.stdout)
    say(paint.dim(f"rerankd is ready on {server.base}"))
    show_titles(server, paint)
    show_page(server, paint)
    show_next(server, paint, check=arguments.exit)
    if not arguments.exit:
        say(f"\nThe server stays on {server.base} until you press {paint.bold('Ctrl-C')}.")
        server.follow()


def show_titles(server, paint):
    """Part 1: raw scores of three titles, in Metarank's form."""
    say(paint.title("1. How well do three products answer a query?"))
    pairs = [{"query": TITLES_QUERY, "text": title} for title in TITLES]
    lines = ",\n".join(f"  {json.dumps(pair)}" for pair in pairs)
    path, body = f"/inference/cross/{MODEL}", f'{{"input":[\n{lines}\n]}}'
    say(paint.command(curl(server.base + path, body)))
    answer, _ = server.post(path, body.encode())
    scores = answer.get("scores")
    if not is_numbers(scores, len(TITLES)):
        raise DemoError(f"POST {path} should answer with {len(TITLES)} scores, but sent: {answer}")
    for score, title in sorted(zip(scores, TITLES), reverse=True):
        say(f"  {paint.bold(f'{score:8.4f}')}  {title}")
    say(paint.dim(f'  Scores for "{TITLES_QUERY}", best first; it took {answer["took"]} ms.'))


def show_page(server, paint):
    """Part 2: a recorded page of Elasticsearch, before and after."""
    page_bytes, about = read_page()
    query = about["query"]
    engine = "{name} {version}".format(**about["engine"]).capitalize()
    say(paint.title(f'2. A page of {engine} for "{query}", reranked'))
    path = f"/v1/rerank/{POLICY}/hits"
    start = f'{{"query":{json.dumps(query)},"response":'
    say("From the root of the repository:")
    say(
        paint.command(
            f"(printf '%s' '{start}'; cat {PAGE}; printf '}}') |\n"
            f"  curl -s -D- {server.base + path} \\\n"
            "    -H 'content-type: application/json' --data-binary @-"
        )
    )
    # The page goes out byte for byte as the engine sent it.
    answer, headers = server.post(path, start.encode() + page_bytes + b"}")
    before = json.loads(page_bytes)["hits"]["hits"]
    after = answer.get("hits", {}).get("hits", [])
    check_page(path, before, after, headers.get("Rerank-Status"))
    say(f"  Rerank-Status: {headers['Rerank-Status']}\n")
    show_side_by_side(before, after, about["judgments"]["grades"], paint)
    show_ndcg(before, after, about["judgments"], paint)


def read_page():
    """The recorded page's bytes, and what is known of it."""
    page, about = REPOSITORY / PAGE, REPOSITORY / PAGE.with_suffix(".about.json")
    try:
        return page.read_bytes(), json.loads(about.read_text(encoding="utf-8"))
    except OSError as error:
        raise DemoError(f"the recorded page cannot be read: {error}.") from None


def check_page(path, before, after, status):
    """A reranked page holds the same hits and says that it was reranked."""
    if sorted(hit["_id"] for hit in before) != sorted(hit["_id"] for hit in after):
        raise DemoError(f"POST {path} did not answer with the same hits that it was given.")
    if not status or not re.search(r"status=(applied|partial)\b", status):
        raise DemoError(f"POST {path} did not rerank; it says Rerank-Status: {status}")


def show_side_by_side(before, after, grades, paint, window=None):
    """One line a rank: the engine's hit on the left, rerankd's on the right, which came from `window`,
    the hits that the engine has of them all.
    """
    columns = shutil.get_terminal_size((110, 24)).columns
    columns = max(SHOWN_COLUMNS[0], min(columns - 1, SHOWN_COLUMNS[1]))
    # Rank, grade and a gap on the left; movement, score, grade and gaps on the right.
    title_width = (columns - 8 - 20) // 2
    old_ranks = {hit["_id"]: rank for rank, hit in enumerate(window or before, start=1)}
    head = f"  #  g  {'before':<{title_width}}  {'move':<4} {'score':>7}  g  after"
    say(paint.bold(head))
    for rank, (old, new) in enumerate(zip(before, after), start=1):
        left = title_of(old, title_width).ljust(title_width)
        moved = movement(old_ranks[new["_id"]] - rank)
        score = "-" if new["_score"] is None else f"{new['_score']:.4f}"
        say(
            f" {rank:2}  {grade_mark(old, grades, paint)}  {left}  {paint.movement(moved)} "
            f"{score:>7}  {grade_mark(new, grades, paint)}  {title_of(new, title_width)}"
        )
    say(paint.dim("  g: how well it answers the query, graded 0 to 3 by people; -: not graded"))


def title_of(hit, width):
    """A hit's title on one line of at most `width` characters."""
    title = " ".join(str(hit["_source"]["title"]).split())
    return title if len(title) <= width else title[: width - 1] + printable("…", ".")


def movement(places):
    """How far a hit moved, as four characters."""
    if places == 0:
        return "=".ljust(4)
    arrow = printable("↑", "+") if places > 0 else printable("↓", "-")
    return f"{arrow}{abs(places)}".ljust(4)


def grade_mark(hit, grades, paint):
    """People's grade of a hit, if they gave one."""
    grade = grades.get(hit["_id"])
    return "-" if grade is None else paint.grade(grade)


def show_ndcg(before, after, judgments, paint):
    """The gain as one number."""
    old, new = (ndcg_at_10(hits, judgments) for hits in (before, after))
    say(f"\n  NDCG@10 by people's grades: {old:.3f} before, {paint.bold(f'{new:.3f} after')}")
    mean = judgments["mean_over_queries"]
    say(
        paint.dim(
            f"  This page was chosen because it gains much. Mean over {mean['queries']} queries: "
            f"{mean['engine']:.3f} in the\n  engine's order, {mean['minilm']:.3f} in the model's, "
            f"{mean['half_and_half']:.3f} half and half."
        )
    )


def ndcg_at_10(hits, judgments):
    """Normalized discounted cumulative gain over ten ranks; what nobody judged counts as 0."""
    gain = discounted_gain([judgments["grades"].get(hit["_id"], 0) for hit in hits])
    best = discounted_gain(judgments["ideal"])
    return gain / best if best else 0.0


def discounted_gain(grades):
    """Sum of grade / log2(rank + 1) over the first ten ranks."""
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades[:10]))


def show_next(server, paint, check):
    """Part 3: what to try. With `check`, each command's request is made and has to succeed."""
    say(paint.title("3. What to try next"))
    native = json.dumps({"query": TITLES_QUERY, "documents": TITLES}, ensure_ascii=False)
    attempts = [
        ("The native form, with timings:", f"{server.base}/v1/rerank/{POLICY}", native),
        ("Is it well?", f"{server.base}/health/ready", None),
    ]
    for purpose, address, body in attempts:
        say(f"  {purpose}")
        say(paint.command(curl(address, body)))
        if check:
            server.call(address, body and body.encode())
    say("  What has it done so far? The admin plane tells who has the token; from the same place:")
    address = f"{server.admin_base}/metrics"
    say(paint.command(f'curl -s {address} -H "authorization: Bearer $(cat {server.token_file})"'))
    if check:
        server.call(address, token=(REPOSITORY / server.token_file).read_text().strip())
    say('  Your own ranking: "The five-minute path" in README.md.')


def curl(address, body=None):
    """The command that makes the same request; the body in a here-document, so quotes are safe."""
    if body is None:
        return f"curl -s {address}"
    header = "-H 'content-type: application/json'"
    return f"curl -s {address} {header} --data-binary @- <<'JSON'\n{body}\nJSON"


def is_numbers(values, count):
    """Whether `values` is a list of `count` finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )


def find_binary(path):
    """The binary's absolute path."""
    path = path.resolve()
    if not os.access(str(path), os.X_OK) or path.is_dir():
        raise DemoError(f"there is no program at {path}: `make demo` builds it first.")
    return path


def free_port(wanted):
    """`wanted` if nothing listens there, else a port that the system says is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As servers do, so that a port of a server that just ended counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            found = probe.getsockname()[1]
            if found != wanted:
                say(f"Port {wanted} cannot be used (is something listening there?); using {found}.")
            return found
    raise DemoError("no port on 127.0.0.1 can be opened.")


class Server:
    """The rerankd that this demo started: its process, its output and its address."""

    def __init__(self, binary, port, admin_port, flags=()):
        self.base = f"http://127.0.0.1:{port}"
        self.admin_base = f"http://127.0.0.1:{admin_port}"
        self.token_file = DATA / "admin-token"  # below REPOSITORY
        self.lines = collections.deque(maxlen=KEPT_LINES)
        self.listening = threading.Event()
        self.following = threading.Event()
        # No proxy from the environment may stand between this and loopback.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        # A session of its own: Ctrl-C then reaches only the demo, which asks the server to end.
        try:
            self.process = subprocess.Popen(
                [str(binary), "serve", "--listen", f"127.0.0.1:{port}"]
                + ["--admin-listen", f"127.0.0.1:{admin_port}", "--data-dir", str(DATA)]
                + list(flags),
                cwd=str(REPOSITORY),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise DemoError(f"the server cannot be started: {error}.") from None
        self.reader = threading.Thread(target=self.read_output, daemon=True)
        self.reader.start()

    def read_output(self):
        """Runs on a thread of its own until the server closes its output."""
        for raw in self.process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            self.lines.append(line)
            if "listening" in line.lower():
                self.listening.set()
            if self.following.is_set():
                print(line, file=sys.stderr, flush=True)

    def wait_until_ready(self):
        """Waits until the server has said that it listens and /health/ready answers 200."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise DemoError(self.with_output(f"the server ended at once ({self.ending()})"))
            if self.listening.wait(0.05) and self.is_ready():
                return
            time.sleep(0.05)
        said = "said that it listens" if self.listening.is_set() else "did not say that it listens"
        raise DemoError(
            self.with_output(f"the server was not ready within {START_SECONDS} seconds (it {said})")
        )

    def is_ready(self):
        """Whether /health/ready answers 200 now."""
        try:
            with self.opener.open(self.base + "/health/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def post(self, path, body):
        """Posts JSON bytes; returns the answer as parsed JSON, and its headers."""
        text, headers = self.call(self.base + path, body)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise DemoError(f"POST {path} did not answer with a JSON object: {text[:300]!r}")
        return answer, headers

    def call(self, address, body=None, token=None):
        """One request (POST if it has a body); returns the answer's bytes and headers."""
        request = urllib.request.Request(address, data=body)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        what = f"{request.get_method()} {address}"
        try:
            with self.opener.open(request, timeout=REQUEST_SECONDS) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")[:500]
            raise DemoError(f"{what} answered {error.code}: {text}") from None
        except OSError as error:
            raise DemoError(self.with_output(f"{what} got no answer ({error})")) from None

    def follow(self):
        """Shows what the server says from now on, until Ctrl-C; fails if it ends by itself."""
        self.following.set()
        try:
            self.process.wait()
        except Stopped:
            return
        raise DemoError(self.with_output(f"the server ended by itself ({self.ending()})"))

    def ending(self):
        """How the process ended."""
        code = self.process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def with_output(self, sentence):
        """A sentence and, below it, the last lines that the server printed."""
        self.reader.join(timeout=1)
        output = "\n".join(f"    {line}" for line in self.lines) or "    (nothing)"
        return f"{sentence}; its output:\n{output}"

    def stop(self):
        """Asks the server to end, waits for it, and says so if it did not end well."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=STOP_SECONDS)
        except (subprocess.TimeoutExpired, Stopped) as reason:
            self.process.kill()
            self.process.wait()
            if isinstance(reason, Stopped):  # asked a second time: no more patience
                return
            sentence = f"the server did not end within {STOP_SECONDS} seconds and was killed"
            raise DemoError(self.with_output(sentence)) from None
        if self.process.returncode != 0:
            raise DemoError(self.with_output(f"the server did not end well ({self.ending()})"))
        say("\nThe server has ended.")


class Paint:
    """Colours, where standard output is a terminal that wants them (https://no-color.org)."""

    def __init__(self, stream):
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.on = stream.isatty() and not plain

    def style(self, codes, text):
        return f"\x1b[{codes}m{text}\x1b[0m" if self.on else text

    def bold(self, text):
        return self.style("1", text)

    def dim(self, text):
        return self.style("2", text)

    def title(self, text):
        return "\n" + self.style("1;36", text) + "\n"

    def command(self, text):
        """A shell command; unindented, so that a pasted here-document ends where it should."""
        return self.style("33", text) + "\n"

    def movement(self, text):
        colour = "32" if text[0] in "↑+" else "31" if text[0] in "↓-" else "2"
        return self.style(colour, text)

    def grade(self, grade):
        return self.style("32" if grade >= 2 else "31" if grade == 0 else "33", str(grade))


def printable(character, substitute):
    """`character`, or its substitute where standard output cannot show it."""
    try:
        character.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return substitute
    return character


def say(text):
    """Prints at once, so that the server's own lines do not overtake it."""
    encoding = sys.stdout.encoding or "ascii"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        # Whoever read the output has gone (`demo.py | head`); the server is stopped by now.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
