#!/usr/bin/env python3
"""Measures other rerankers beside rerankd, in turns, with the same weights and texts: `make bench-peers`.

Writes tables between the markers of docs/benchmarks.md, and a plot beside that page. BENCH_QUICK=1 only tries
it out. Standard library only; the peers live in .venv/peers and .venv/peers-torch, each in a process of its own.
"""

import argparse
import contextlib
import math
import os
import pathlib
import sys
import time

sys.dont_write_bytecode = True  # this folder is a place of sources, not of caches
import machine  # noqa: E402
import models  # noqa: E402
import plot  # noqa: E402
import processes  # noqa: E402
import report  # noqa: E402
from processes import BenchError  # noqa: E402
from texts import Texts  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
WORK = REPOSITORY / "target" / "tmp" / "bench-peers"
KINDS = ("titles", "passages")
# fp32 scores of all must agree; those of the random head lie some .05 around .5.
TOLERANCE = 1e-5
# A dynamically quantized row's score depends on its neighbours, so only single rows are compared, and kernels
# of several builds round apart.
TOLERANCE_INT8 = 1e-3
# rerankd's graph quantizes the last layer's queries by the range of [CLS] alone, so int8 scores differ a little more.
TOLERANCE_INT8_GRAPHS = 2e-2

# (documents, clients, seconds for titles, seconds for passages), what matters most first: a cell that
# no longer fits into the time is left out. All subjects together take a turn; a cell has one turn at least.
FULL = (
    (100, 1, 70, 170),
    (10, 1, 20, 40),
    (1, 1, 10, 15),
    (10, 4, 25, 50),
    (1, 4, 8, 10),
    (10, 16, 40, 70),
    (1, 16, 10, 15),
    (1000, 1, 90, 240),
    (100, 4, 60, 100),
    (100, 16, 60, 150),
)
QUICK = (
    (100, 1, 12, 25),
    (10, 1, 4, 8),
    (10, 4, 6, 12),
    (1, 16, 4, 6),
)
LIMIT_SECONDS = {"full": 22 * 60, "quick": 120}
# Requests of a client in one turn, so that clients stay beside each other for most of it.
REQUESTS_A_TURN = {1: 8, 10: 4, 100: 2, 1000: 1}
MOST_TURNS = 40
# What all subjects together take for one document of a kind, as seen last.
SECONDS_A_ROW = {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=pathlib.Path, help="the page to write the tables into")
    parser.add_argument("--only", action="append", help="a subject's name; all, if none is given")
    arguments = parser.parse_args()
    quick = bool(os.environ.get("BENCH_QUICK"))
    try:
        findings = measure(quick, arguments.only)
        text = report.render(findings)
        print(text)
        if arguments.page:
            report.replace(arguments.page, text)
            picture = arguments.page.with_name("benchmarks-peers.svg")
            picture.write_text(plot.draw(findings), encoding="utf-8")
    except (BenchError, OSError) as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 1
    return 0


def measure(quick, only):
    """Starts all subjects, compares their scores, then times them in turns."""
    facts = machine.describe(REPOSITORY)
    texts = {kind: Texts(kind) for kind in KINDS}
    folders = models.prepare(WORK / "models")
    with contextlib.ExitStack() as until_end:
        subjects, missing = processes.start_all(WORK, folders, only, until_end)
        agreement = compare_scores(subjects, texts)
        limit = time.monotonic() + LIMIT_SECONDS["quick" if quick else "full"]
        before = machine.busy()
        cells, left_out = {}, []
        for documents, clients, *seconds in QUICK if quick else FULL:
            for kind, budget in zip(KINDS, seconds):
                cell = (kind, documents, clients)
                left = limit - time.monotonic()
                turns = time_cell(subjects, texts[kind], cell, budget, left)
                if turns is None:
                    left_out.append(cell)
                else:
                    cells[cell] = turns
        facts["cores taken by others during the run"] = machine.taken_by_others(before)
        memory = {subject.name: subject.peak_mebibytes() for subject in subjects}
    return report.Findings(
        facts=facts,
        subjects=subjects,
        missing=missing,
        agreement=agreement,
        cells=cells,
        left_out=left_out,
        memory=memory,
        quick=quick,
    )


def compare_scores(subjects, texts):
    """The largest difference of each subject's scores from rerankd's, by name; too large a one is an error."""
    differences = {}
    for precision in models.PRECISIONS:
        group = [subject for subject in subjects if subject.precision == precision]
        # (documents, requests): int8 rows alone, so as many requests as it takes to see some.
        documents, requests, tolerance = (100, 1, TOLERANCE) if precision == "fp32" else (1, 10, TOLERANCE_INT8_GRAPHS)
        for kind in KINDS:
            for turn in range(requests):
                request = texts[kind].request(documents, turn)
                scores = {subject.name: subject.scores(request) for subject in group}
                ours, *others = scores
                for name in others:
                    apart = difference(scores, name, ours, kind, tolerance)
                    differences[name] = max(apart, differences.get(name, 0.0))
                    if precision == "int8":
                        difference(scores, name, others[0], kind, TOLERANCE_INT8)
        progress(f"{precision}: scores agree")
    return differences


def difference(scores, name, reference, kind, tolerance):
    """The largest of one request between two subjects; too large a one is an error."""
    apart = [abs(one - other) for one, other in zip(scores[name], scores[reference], strict=True)]
    # A score that is missing is not a number, which no comparison would find.
    largest = max(math.inf if math.isnan(one) else one for one in apart)
    if largest > tolerance:
        raise BenchError(
            f"{name}: a score of {kind} is {largest:.2g} away from {reference}'s, more than {tolerance:.0e}: "
            "nothing was timed"
        )
    return largest


def time_cell(subjects, texts, cell, budget, left):
    """A list of turns, each `{name: {"seconds", "wall"}}`; None where not even one fits into the time left."""
    kind, documents, clients = cell
    name = f"{kind}, {documents} a request, clients: {clients}"
    requests = 1 if clients == 1 else REQUESTS_A_TURN[documents]
    if left < SECONDS_A_ROW.get(kind, 0) * documents * clients * requests:
        progress(f"{name}: left out, it would take too long")
        return None
    turns, spent, out = [], 0.0, set()
    while True:
        turn, start = {}, time.monotonic()
        number = len(turns)
        wanted = [
            [texts.request(documents, number * requests + one) for one in range(requests)] for _ in range(clients)
        ]
        # Forward, then backward, so that nobody always follows the same one.
        for subject in subjects if number % 2 == 0 else subjects[::-1]:
            if subject.name in out:
                continue
            answer = subject.time(wanted)
            turn[subject.name] = answer
            if "error" in answer:
                out.add(subject.name)
                progress(f"{subject.name}: {answer['error']}")
        turns.append(turn)
        took = time.monotonic() - start
        spent += took
        if spent + took > min(budget, left) or len(turns) >= MOST_TURNS:
            break
    SECONDS_A_ROW[kind] = took / (documents * clients * requests)
    # The first turn also finds buffers and fills caches of the processor; where there are turns enough it goes.
    kept = turns[1:] if len(turns) > 3 else turns
    ours = kept[0].get(subjects[0].name, {})
    first = f"{1000 * report.median(ours['seconds']):.1f} ms" if "seconds" in ours else "failed"
    progress(f"{name}: {len(kept)} turns, {spent:.0f} s, rerankd {first}")
    return kept


def progress(text):
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
