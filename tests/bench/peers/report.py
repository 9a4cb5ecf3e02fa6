"""The findings as tables, between the markers of docs/benchmarks.md."""

import dataclasses
import statistics

BEGIN = "<!-- written by `make bench-peers`: begin -->"
END = "<!-- written by `make bench-peers`: end -->"
QUICK = "**Tried out with `BENCH_QUICK=1`: these numbers mean nothing.**\n\n"
OURS = {"fp32": "rerankd-fp32", "int8": "rerankd-int8"}
# Milliseconds for 100 passages of the same length, in one run on another machine of two cores: see the page.
TEI_OVER_ROWS = {"fp32": 1233 / 736, "int8": 568 / 272}
TEI_GOALS = {"fp32": 1.7, "int8": 2.2}


@dataclasses.dataclass
class Findings:
    """Everything that was measured. `cells` has turns by (kind, documents, clients)."""

    facts: dict
    subjects: list
    missing: dict
    agreement: dict
    cells: dict
    left_out: list
    memory: dict
    quick: bool

    def ratio(self, cell, peer, ours):
        """How many times as long as ours the peer takes: the median over turns; None where one of them has none."""
        ratios = [
            median(turn[peer]["seconds"]) / median(turn[ours]["seconds"])
            for turn in self.cells.get(cell, ())
            if "seconds" in turn.get(peer, ()) and "seconds" in turn.get(ours, ())
        ]
        return median(ratios) if ratios else None

    def milliseconds(self, cell, name):
        """The median of all requests of a cell; None where it failed."""
        turns = self.cells.get(cell, ())
        seconds = [one for turn in turns for one in turn.get(name, {}).get("seconds", ())]
        return 1000 * median(seconds) if seconds else None

    def documents_a_second(self, cell, name):
        """Of all clients together."""
        turns = [turn[name] for turn in self.cells.get(cell, ()) if "seconds" in turn.get(name, ())]
        wall = sum(turn["wall"] for turn in turns)
        return cell[1] * sum(len(turn["seconds"]) for turn in turns) / wall if wall else None

    def goals(self):
        """Each as (text, limit, measured or None)."""
        for peer, title in (("fastembed", "fastembed"), ("flashrank", "FlashRank")):
            for kind, equal, default in (("passages", 3.0, 6.0), ("titles", 1.5, 3.0)):
                cell = (kind, 100, 1)
                for precision in ("fp32", "int8"):
                    measured = self.ratio(cell, f"{peer}-{precision}", OURS[precision])
                    yield f"{title}, {kind}, both {precision}", equal, measured
                measured = self.ratio(cell, f"{peer}-fp32", OURS["int8"])
                yield f"{title}, {kind}, at defaults (its fp32, our int8)", default, measured
        for precision, limit in TEI_GOALS.items():
            rows = self.ratio(("passages", 100, 1), f"row-scheduling-{precision}", OURS[precision])
            measured = TEI_OVER_ROWS[precision] * rows if rows else None
            yield f"text-embeddings-inference, passages, both {precision}, computed", limit, measured


def median(values):
    return statistics.median(values)


def replace(page, tables):
    """Replaces what lies between the markers of `page`."""
    text = page.read_text(encoding="utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{head}{BEGIN}\n{tables}\n{END}{tail}", encoding="utf-8")


def render(findings):
    parts = [
        goals(findings),
        machine(findings),
        one_client(findings),
        several_clients(findings),
        beside(findings),
    ]
    return (QUICK if findings.quick else "") + "\n".join(parts).rstrip()


def goals(findings):
    lines = [
        "100 documents, one client; how many times as long as rerankd the other takes, the median of turns.\n",
        "| against | goal | measured | |",
        "|---|---|---|---|",
    ]
    for text, limit, measured in findings.goals():
        if measured is None:
            lines.append(f"| {text} | {limit} | - | not measured |")
        else:
            verdict = "met" if measured >= limit else "**missed**"
            lines.append(f"| {text} | {limit} | {measured:.2f} | {verdict} |")
    return "\n".join(lines) + "\n"


def machine(findings):
    facts = [f"{name}: {value}." for name, value in findings.facts.items()]
    missing = [f"Not measured: {title} ({reason})." for title, reason in findings.missing.items()]
    return " ".join(facts + missing) + "\n"


def one_client(findings):
    lines = ["One client, medians, ms; beside it how many times as long as rerankd at the same precision.\n"]
    counts = sorted({documents for _, documents, clients in findings.cells if clients == 1})
    for kind in ("titles", "passages"):
        lines += [
            f"| {kind} | precision | " + " | ".join(f"{count} document{'s' * (count > 1)} | ×" for count in counts) + " |",
            "|---|---|" + "---|---|" * len(counts),
        ]
        for subject in findings.subjects:
            row = [subject.title, subject.precision]
            for count in counts:
                cell = (kind, count, 1)
                row.append(number(findings.milliseconds(cell, subject.name)))
                row.append(times(findings.ratio(cell, subject.name, OURS[subject.precision])))
            lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines)


def several_clients(findings):
    lines = ["Several clients, each sends its next request when the last is answered: documents a second of all together, "
             "and the median of a request, ms.\n"]  # fmt: skip
    cells = {(documents, clients) for _, documents, clients in findings.cells if clients > 1}
    cells = sorted(cells, key=lambda cell: cell[::-1])
    for kind in ("titles", "passages"):
        shown = [cell for cell in cells if (kind, *cell) in findings.cells]
        if not shown:
            continue
        heads = [f"{documents} documents, {clients} clients | ms" for documents, clients in shown]
        lines += [f"| {kind} | precision | " + " | ".join(heads) + " |", "|---|---|" + "---|---|" * len(shown)]
        for subject in findings.subjects:
            row = [subject.title, subject.precision]
            for cell in shown:
                row.append(number(findings.documents_a_second((kind, *cell), subject.name)))
                row.append(number(findings.milliseconds((kind, *cell), subject.name)))
            lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines)


def beside(findings):
    """Memory, agreement, and how much was measured."""
    lines = [
        "Most resident memory of the process with the model during the run (libraries: the whole Python process), and the "
        "largest difference of a score from rerankd's before anything was timed (fp32: 100 documents a request; int8: one):\n",
        "| | precision | MiB | difference |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for subject in findings.subjects:
        apart = findings.agreement.get(subject.name)
        shown = "" if apart is None else f"{apart:.1e}"
        lines.append(f"| {subject.title} | {subject.precision} | {number(findings.memory[subject.name])} | {shown} |")
    turns = [f"{kind} {documents}×{clients}: {len(turns)}" for (kind, documents, clients), turns in findings.cells.items()]
    lines.append(f"\nTurns (documents × clients): {', '.join(turns)}.")
    if findings.left_out:
        names = [f"{kind} {documents}×{clients}" for kind, documents, clients in findings.left_out]
        lines.append(f"Left out, as the time was up: {', '.join(names)}.")
    return "\n".join(lines)


def number(value):
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def times(value):
    return "-" if value is None else f"{value:.2f}"
