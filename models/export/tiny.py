"""A tiny cross-encoder whose weights are written down, not trained.

It scores the share of the query's tokens that the document holds. Every weight is
chosen so that an ordinary BERT forward pass computes that; nothing in the graph is
special. How, in the order of the forward pass (one head, two layers, 72 numbers a token):

0.  Embeddings. A vocabulary token is a code of 56 numbers, each +1 or -1, half of each.
    No two codes agree too much (cosine at most MAX_COSINE). A special token has the same
    energy in a place of its own instead of a code. The segment adds +1/-1 in one place.
    Every place is a pair (v, -v), so the mean is 0 and the energy is the same for all
    tokens: LayerNorm is then the identity, up to one known factor.
1.  Attention. Token i scores token j with
        BETA * cosine(code i, code j) + CROSS if the segments differ, - CROSS if not,
    and every special token but [CLS] with a penalty; [CLS] with SINK. An identical token of
    the other segment (BETA + CROSS) beats [CLS] (SINK), which beats all else. The value
    is 1 for a vocabulary token and 0 for [CLS], so the result is 1 for a token with a
    match and 0 for one without. It is written to MATCH.
    The feed-forward block makes a clean step of it: below 0.25 none, above 0.75 all.
2.  Attention. [CLS] averages MATCH over the tokens of the query, and with the small weight
    DOCUMENT_WEIGHT over those of the document: of two documents with the same words of
    the query, the one with less besides comes first. It is written to ANSWER.
    The feed-forward block adds a convex term: the last missing word counts most.
3.  Pooler and classifier read ANSWER at [CLS]. All matched is about +5, none about -5.

Positions carry nothing (their table is 0): the order of words does not matter.
"""

from __future__ import annotations

import json

import numpy as np

from bert import Graph, Shape

SEED = 20240601
MAX_TOKENS = 128
VOCABULARY = 4600
INNER = 72
CODE = 56
SHAPE = Shape(hidden=72, heads=1, layers=2)

# Places in the 72 numbers; each is the first of a pair (v, -v).
SEGMENT, CLS, SPECIAL, MATCH, ANSWER = 56, 58, 60, 62, 64
# 66..71 stay empty.

MAX_COSINE = 24 / 56
SPECIAL_SIZE = float(np.sqrt(CODE / 2))  # a pair of these has the energy of a code
ENERGY = CODE + 2.0

BETA = 40.0
CROSS = 20.0
SINK = 50.0
PENALTY = 100.0
DOCUMENT_WEIGHT = 0.003
FOCUS = 15.0

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary(published: dict) -> list[str]:
    """Specials, single characters, then the most frequent words and pieces of the published one.

    BERT's vocabulary is sorted by frequency from its first whole word on, so "most
    frequent" is "first". Four words are taken for each piece.
    """
    tokens = [token for token, _ in sorted(published["model"]["vocab"].items(), key=lambda item: item[1])]
    tokens = [t for t in tokens if t not in SPECIALS and not t.startswith("[unused")]

    def bare(token: str) -> str:
        return token.removeprefix("##")

    singles = [t for t in tokens if len(bare(t)) == 1 and ord(bare(t)) < 0x250]
    words = [t for t in tokens if len(t) > 1 and not t.startswith("##")]
    pieces = [t for t in tokens if t.startswith("##") and len(bare(t)) > 1]
    room = VOCABULARY - len(SPECIALS) - len(singles)
    kept = words[: room - room // 5] + pieces[: room // 5]
    return SPECIALS + singles + sorted(kept, key=tokens.index)


def tokenizer(published: dict, tokens: list[str]) -> bytes:
    """The published tokenizer with another vocabulary, and neither padding nor truncation."""
    ids = {token: index for index, token in enumerate(tokens)}
    made = json.loads(json.dumps(published))
    made["truncation"] = made["padding"] = None
    for added in made["added_tokens"]:
        added["id"] = ids[added["content"]]
    for name, special in made["post_processor"]["special_tokens"].items():
        special["ids"] = [ids[name]]
    made["model"]["vocab"] = ids
    return (json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def codes(count: int) -> np.ndarray:
    """`count` balanced rows of +1 and -1, no two of them closer than MAX_COSINE."""
    random = np.random.Generator(np.random.PCG64(SEED))
    half = np.repeat(np.array([1, -1], np.int32), CODE // 2)
    taken = np.zeros((count, CODE), np.int32)
    have = 0
    while have < count:
        code = random.permutation(half)
        if have == 0 or (taken[:have] @ code).max() <= MAX_COSINE * CODE:
            taken[have] = code
            have += 1
    return taken


def pair(row: np.ndarray, place: int, value: float) -> None:
    """Writes (value, -value) at a place, or reads it back as value when used as a weight."""
    row[place], row[place + 1] = value, -value


def weights(tokens: list[str]) -> dict[str, np.ndarray]:
    hidden = SHAPE.hidden
    w: dict[str, np.ndarray] = {}

    table = np.zeros((len(tokens), hidden), np.float32)
    table[len(SPECIALS) :, :CODE] = codes(len(tokens) - len(SPECIALS))
    for index, token in enumerate(SPECIALS):
        pair(table[index], CLS if token == "[CLS]" else SPECIAL, SPECIAL_SIZE)
    types = np.zeros((2, hidden), np.float32)
    pair(types[0], SEGMENT, 1.0)
    pair(types[1], SEGMENT, -1.0)
    w["embeddings.word_embeddings.weight"] = table
    w["embeddings.token_type_embeddings.weight"] = types
    w["embeddings.position_embeddings.weight"] = np.zeros((MAX_TOKENS, hidden), np.float32)

    # LayerNorm divides by sqrt(ENERGY / hidden); the gain puts that back.
    gain = np.full(hidden, np.sqrt(ENERGY / hidden), np.float32)
    norms = ["embeddings.LayerNorm"]
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            w[f"{layer}.{name}.weight"] = np.zeros((hidden, hidden), np.float32)
            w[f"{layer}.{name}.bias"] = np.zeros(hidden, np.float32)
        for name in ("intermediate.dense", "output.dense"):
            w[f"{layer}.{name}.weight"] = np.zeros((INNER, INNER), np.float32)
            w[f"{layer}.{name}.bias"] = np.zeros(INNER, np.float32)
    for name in norms:
        w[name + ".weight"], w[name + ".bias"] = gain, np.zeros(hidden, np.float32)

    def matrix(name: str) -> tuple[np.ndarray, np.ndarray]:
        """Weight as [out, in], and bias; writing into them writes the model."""
        return w[name + ".weight"], w[name + ".bias"]

    def read(row: np.ndarray, place: int, factor: float) -> None:
        """A weight row that reads the value v of the pair (v, -v), times factor."""
        pair(row, place, factor / 2)

    root = float(np.sqrt(SHAPE.head_size))  # attention divides by it

    # Layer 0, attention. The query and key vectors hold: the code, the segment, a constant.
    segment, constant = CODE, CODE + 1
    query, query_bias = matrix("encoder.layer.0.attention.self.query")
    key, key_bias = matrix("encoder.layer.0.attention.self.key")
    for i in range(CODE):
        query[i, i] = BETA * root / CODE
        key[i, i] = 1.0
    read(query[segment], SEGMENT, CROSS * root)
    read(key[segment], SEGMENT, -1.0)
    read(key[segment], CLS, 1.0 / SPECIAL_SIZE)  # [CLS] is of segment 0: takes its -1 back
    query_bias[constant] = root
    read(key[constant], CLS, SINK / SPECIAL_SIZE)
    read(key[constant], SPECIAL, -PENALTY / SPECIAL_SIZE)
    value, value_bias = matrix("encoder.layer.0.attention.self.value")
    read(value[0], CLS, -1.0 / SPECIAL_SIZE)
    read(value[0], SPECIAL, -1.0 / SPECIAL_SIZE)
    value_bias[0] = 1.0
    out, _ = matrix("encoder.layer.0.attention.output.dense")
    out[MATCH, 0], out[MATCH + 1, 0] = 1.0, -1.0

    # Layer 0, feed-forward: match -> a ramp from 0 at 0.25 to 1 at 0.75, as two GELUs.
    steep = 40.0
    inner, inner_bias = matrix("encoder.layer.0.intermediate.dense")
    outer, _ = matrix("encoder.layer.0.output.dense")
    for neuron, start, sign in ((0, 0.25, 1.0), (1, 0.75, -1.0)):
        read(inner[neuron], MATCH, steep)
        inner_bias[neuron] = -steep * start
        outer[MATCH, neuron] += sign * 2.0 / steep
        outer[MATCH + 1, neuron] -= sign * 2.0 / steep
    # Two more take the old value away: gelu(z) - gelu(-z) = z.
    for neuron, sign in ((2, 1.0), (3, -1.0)):
        read(inner[neuron], MATCH, sign)
        outer[MATCH, neuron] -= sign
        outer[MATCH + 1, neuron] += sign

    # Layer 1, attention: FOCUS for the query's tokens, that and ln(DOCUMENT_WEIGHT) for
    # the document's, 0 for special ones.
    less = float(np.log(DOCUMENT_WEIGHT))
    _, query_bias = matrix("encoder.layer.1.attention.self.query")
    key, key_bias = matrix("encoder.layer.1.attention.self.key")
    query_bias[0] = root
    key_bias[0] = FOCUS + less / 2
    read(key[0], SEGMENT, -less / 2)
    read(key[0], CLS, -FOCUS / SPECIAL_SIZE)
    read(key[0], SPECIAL, -FOCUS / SPECIAL_SIZE)
    value, _ = matrix("encoder.layer.1.attention.self.value")
    read(value[0], MATCH, 1.0)
    out, _ = matrix("encoder.layer.1.attention.output.dense")
    out[ANSWER, 0], out[ANSWER + 1, 0] = 1.0, -1.0

    # Layer 1, feed-forward: the answer a gains gelu(2a) / 8, which bends upwards.
    inner, _ = matrix("encoder.layer.1.intermediate.dense")
    outer, _ = matrix("encoder.layer.1.output.dense")
    read(inner[0], ANSWER, 2.0)
    outer[ANSWER, 0], outer[ANSWER + 1, 0] = 1 / 8, -1 / 8

    # The answer runs from 0 to about 1.25. tanh of half of it round its middle, then
    # stretched to -5 .. +5.
    middle = 0.6
    pooler, pooler_bias = np.zeros((hidden, hidden), np.float32), np.zeros(hidden, np.float32)
    read(pooler[0], ANSWER, 0.5)
    pooler_bias[0] = -0.5 * middle
    classifier = np.zeros((1, hidden), np.float32)
    classifier[0, 0] = 5.0 / np.tanh(0.5 * middle)
    w["pooler.dense.weight"], w["pooler.dense.bias"] = pooler, pooler_bias
    w["classifier.weight"], w["classifier.bias"] = classifier, np.zeros(1, np.float32)
    return w


def model(published: dict) -> tuple[bytes, bytes]:
    """(model.onnx, tokenizer.json)"""
    tokens = vocabulary(published)
    graph = Graph(quantize=False)
    w = weights(tokens)
    graph.logits(graph.encoder(w, SHAPE, first_token_only=True), w)
    about = "Cross-encoder built by hand: scores the share of query tokens found in the document. Not trained."
    return graph.build("tiny-cross-encoder", about), tokenizer(published, tokens)
