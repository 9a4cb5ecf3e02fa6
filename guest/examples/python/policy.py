"""Blends meaning with the first stage, as the bundled policy `semantic-blend` does by default.

What asks the host for something is here, the arithmetic is in `blend.py`.
"""

import json
from array import array
from dataclasses import dataclass
from math import isnan, sumprod
from pathlib import Path

from componentize_py_types import Err
from wit_world.exports import Policy as Contract
from wit_world.imports import graph, tokenizer, types
from wit_world.imports.types import FirstStage, Judgment, Outcome_Scored, Outcome_Unscored

import blend
from panics import reported

# Read while the component is built: when it runs, it has no files.
MANIFEST = Path(__file__).with_name("manifest.json").read_text(encoding="utf-8")
SCHEMA = json.loads(MANIFEST)["parameters"]["properties"]
DEFAULTS = {name: parameter["default"] for name, parameter in SCHEMA.items()}
MODEL = "bi-encoder"


class Policy(Contract):
    """What the host calls, on a fresh instance for every request."""

    def describe(self) -> str:
        return MANIFEST

    @reported
    def rerank(self, request: types.Request) -> list[Judgment]:
        # The host has checked them against the manifest's schema.
        parameters = DEFAULTS | json.loads(request.parameters)
        texts = [text_of(document, parameters["fields"]) for document in request.documents]
        similarities = compare(request.query, texts)
        scores = [similarity.cosine for similarity in similarities]
        if request.first_stage != FirstStage.NONE:
            scores = blend.blend(scores, first_stage(request), parameters["weight"])
        return [
            judge(index, similarity, score, request.explain)
            for index, (similarity, score) in enumerate(zip(similarities, scores))
        ]


@dataclass
class Similarity:
    """How near a document is to the query, or why nobody knows."""

    cosine: float | None = None
    truncated: bool = False
    unscored: str = ""


def compare(query: str, texts: list[str]) -> list[Similarity]:
    """Embeds the query and all texts in one call: the host sorts and batches them itself."""
    filled = [text for text in texts if text]
    if not filled:
        return [Similarity(unscored="empty")] * len(texts)
    embeddings, truncated = embed([query, *filled])
    rows = iter(zip(embeddings[1:], truncated[1:]))
    return [
        similarity(embeddings[0], *next(rows)) if text else Similarity(unscored="empty")
        for text in texts
    ]


def similarity(query: array, document: array, truncated: bool) -> Similarity:
    # A row that did not run in time is NaN; without the query's own, all documents are late.
    if isnan(query[0]) or isnan(document[0]):
        return Similarity(unscored="late")
    # The embeddings have length 1. Rounding may lead out of the range of a cosine.
    return Similarity(max(-1.0, min(1.0, sumprod(query, document))), truncated)


def embed(texts: list[str]) -> tuple[list[array], list[bool]]:
    """The embedding of each text, and whether the model saw only the start of the text."""
    try:
        encoding = tokenizer.encode_texts(MODEL, texts)
        context = graph.load_by_name(MODEL).init_execution_context()
        outputs = dict(context.compute(encoding.tensors()))
    except Err as error:
        # The tokenizer's errors are texts, those of wasi:nn resources.
        reason = error.value if isinstance(error.value, str) else error.value.data()
        raise Err(types.Error_Model(f"model `{MODEL}`: {reason}")) from None
    tensor = outputs["sentence_embedding"]
    values, width = array("f", tensor.data()), tensor.dimensions()[1]
    rows = [values[start : start + width] for start in range(0, len(values), width)]
    cut = set(encoding.truncated())
    return rows, [row in cut for row in range(len(texts))]


def first_stage(request: types.Request) -> list[float]:
    """What the engine thought of each document, higher is better."""
    if request.first_stage == FirstStage.SCORED:
        return [document.score for document in request.documents]
    count = len(request.documents)
    return [(count - position) / count for position in range(count)]


def text_of(document: types.Document, names: list[str]) -> str:
    """The chosen fields, in their order, as sentences: models were trained on sentences."""
    fields = {field.name: field.value for field in document.fields}
    return blend.as_sentences(printed(fields[name]) for name in names if name in fields)


def printed(value: types.Value) -> str:
    match value:
        case types.Value_Text(text):
            return text
        case types.Value_Texts(texts):
            return " ".join(filter(None, map(str.strip, texts)))
        case types.Value_Boolean(boolean):
            return "true" if boolean else "false"
        case types.Value_Integer(number) | types.Value_Number(number):
            return str(number)
    # Arrays of numbers, vectors and JSON are no text.
    return ""


def judge(index: int, similarity: Similarity, score: float | None, explain: bool) -> Judgment:
    if score is None:
        return Judgment(index, Outcome_Unscored(similarity.unscored), False, None)
    explanation = f"The cosine is {similarity.cosine:.4f}." if explain else None
    return Judgment(index, Outcome_Scored(score), similarity.truncated, explanation)
