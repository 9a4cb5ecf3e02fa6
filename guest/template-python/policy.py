"""Moves documents up whose title has the words of the query."""

import re
from pathlib import Path

from wit_world.exports import Policy as Contract
from wit_world.imports import types
from wit_world.imports.types import FirstStage, Judgment, Outcome_Scored

from panics import reported

# Read while the component is built: when it runs, it has no files.
MANIFEST = Path(__file__).with_name("manifest.json").read_text(encoding="utf-8")

# How far a title with all words of the query moves a document up; 1.0 is all the way from the engine's
# last score to its first.
TITLE_BOOST = 0.3  # <- the line to edit


class Policy(Contract):
    """What the host calls, on a fresh instance for every request."""

    def describe(self) -> str:
        return MANIFEST

    @reported
    def rerank(self, request: types.Request) -> list[Judgment]:
        wanted = words(request.query)
        scores = [
            base + TITLE_BOOST * share_in_title(wanted, document)
            for base, document in zip(first_stage(request), request.documents)
        ]
        return [
            Judgment(index, Outcome_Scored(score), False, None)
            for index, score in enumerate(scores)
        ]


def first_stage(request: types.Request) -> list[float]:
    """What the engine thought of each document, from 0.0 to 1.0; 0.0 where nobody knows."""
    count = len(request.documents)
    if request.first_stage == FirstStage.NONE:
        return [0.0] * count
    if request.first_stage == FirstStage.SCORED:
        values = [document.score for document in request.documents]
    else:
        values = [float(count - position) for position in range(count)]
    # Halves, as the difference of two finite numbers may overflow.
    smallest, largest = min(values) / 2, max(values) / 2
    if smallest == largest:
        return [0.5] * count
    return [(value / 2 - smallest) / (largest - smallest) for value in values]


def share_in_title(wanted: list[str], document: types.Document) -> float:
    """How many of the query's words the title has: from 0.0, none, to 1.0, all."""
    titles = [field.value for field in document.fields if field.name == "title"]
    there = {
        word
        for title in titles
        if isinstance(title, types.Value_Text)
        for word in words(title.value)
    }
    return sum(word in there for word in wanted) / max(len(wanted), 1)


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
