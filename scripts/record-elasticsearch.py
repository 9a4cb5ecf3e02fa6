#!/usr/bin/env python3
"""Records `_search` responses of a real Elasticsearch into tests/fixtures/elasticsearch/.

Each fixture is two files: `<name>.json`, the bytes that Elasticsearch sent, and
`<name>.about.json`, which says what was asked, of which version, and when. The demo and the
tests read them, so that neither needs an engine.

The recorded page of products is one that reranking visibly improves: of all queries of the data
set, the one whose 20 hits gain most (see `choose`), judged by the grades people gave. The side
file carries those grades, and the mean over all queries beside it, so that nobody takes the
chosen one for the rule.

Standard library only; Python 3.10 or later. See engines.py for what else is needed.
"""

import argparse
import dataclasses
import datetime
import json
import math
import pathlib
import re
import signal
import sys

sys.dont_write_bytecode = True  # this folder is a place of sources, not of caches
import engines  # noqa: E402

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PRODUCTS = "products"
PRODUCTS_INDEX = {
    "settings": {"number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {
        "properties": {
            "title": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
            "text": {"type": "text"},
        }
    },
}
PAGE_SIZE = 20
BULK_DOCUMENTS = 5000
# A query is only eligible if people graded at least this many of its 20 hits.
ENOUGH_GRADED = 10
LICENCE = (
    "Product texts: Database Right data-sheet Icecat. All rights reserved. Under the Open Content "
    "License (OPL), as is and without warranty; see LICENSE-DATA.md beside this file."
)

# Documents made up for the fixture `odd-sources`: everything that a rewriter of hits must not
# spoil. They are raw JSON, because the point is how they are written. Elasticsearch keeps a
# `_source` as it came; only `title`, `text` and `tags` are mapped.
ODD = "odd"
ODD_INDEX = {
    "settings": {"number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {
        "dynamic": False,
        "properties": {
            "title": {"type": "text"},
            "text": {"type": "text"},
            "tags": {"type": "text"},
        },
    },
}
ODD_DOCUMENTS = [
    (
        "integers",
        r'{"title":"Garden clog","text":"A light clog for wet gardens","sku":9007199254740993,'
        r'"largest":18446744073709551615,"smallest":-9223372036854775808,'
        r'"beyond":123456789012345678901234567890}',
    ),
    (
        "decimals",
        r'{"title":"Clog, size 38.50","price":29.90,"ratio":0.1000000000000000055511151231257827,'
        r'"tiny":1E-7,"large":1.0e+22,"minus_zero":-0.0,"whole":1.0}',
    ),
    (
        "non-ascii",
        '{"title":"Sabot de jardin d\u2019\u00e9t\u00e9 \u2013 42\u00bd",'
        '"text":"\u5ead\u3044\u3058\u308a\u7528\u306e\u30af\u30ed\u30c3\u30b0 '
        '\u0633\u0627\u0628\u0648 \U0001f45f\U0001f3fd e\u0301"}',
    ),
    (
        "escapes",
        r'{"title":"Clog \u0022Caf\u00e9\u0022 \ud83d\udc5f","text":"tab\there\nline\\path'
        r' \/ \u2028 <b>bold<\/b> \u0000 end"}',
    ),
    (
        "nested",
        r'{"title":"Clog with variants","variants":[{"size":38,"stock":{"shop":3,"web":null}},'
        r'{"size":39,"stock":{}}],"empty":[],"nothing":null,"available":true,'
        r'"hits":{"hits":[{"_id":"integers","_score":99,"_source":{"title":"not a hit"}}]}}',
    ),
    (
        "arrays",
        r'{"title":["Clog for children","Children\u2019s clog"],'
        r'"text":["Soft.","","With a strap."],"tags":["kids","clog","kids"]}',
    ),
    ("no-text-fields", r'{"sku":17,"tags":["clog"]}'),
    ("empty-strings", r'{"title":"","text":"   ","tags":["clog"]}'),
    ("empty-source", r"{}"),
    ("same-1", r'{"title":"Clog","text":"The same in every way"}'),
    ("same-2", r'{"title":"Clog","text":"The same in every way"}'),
    ("lone-surrogate", r'{"title":"Clog cut in half","note":"\ud83d","text":"\udc5f"}'),
    ("spaced", '{ "title" : "Clog in odd spacing" ,\t"z":1,  "a" : 2 }'),
]


class RecordError(Exception):
    """Recording cannot go on. The text is one sentence for a person."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The product data set: documents, queries, people's grades, and MiniLM's scores."""

    documents: list  # {"_id", "title", "text"}
    queries: dict  # query id -> text
    grades: dict  # query id -> {document id: 0..3}
    model_scores: dict  # query id -> {document id: cosine}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One query's recorded page and what reranking it does to NDCG@10."""

    query_id: str
    query: str
    page: bytes
    graded: int
    first_stage: float
    model: float
    blend: float

    @property
    def gain(self):
        """What is certain to be gained, whether the model decides alone or has half a say."""
        return min(self.model, self.blend) - self.first_stage


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        data = read_dataset(arguments.data)
        with engines.running(engines.ELASTICSEARCH, arguments.user) as client:
            record_all(client, data, arguments)
    except (engines.EngineError, RecordError) as error:
        print(f"record-elasticsearch: {error}", file=sys.stderr)
        return 1
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=REPOSITORY.parent / "shared" / "data" / "chorus_icecat",
        help="folder of the product data set",
    )
    parser.add_argument(
        "--into", type=pathlib.Path, default=REPOSITORY / "tests" / "fixtures" / "elasticsearch"
    )
    parser.add_argument("--query-id", help="record this query rather than choosing one")
    parser.add_argument("--user", default="nobody", help="run as this user when started by root")
    return parser.parse_args()


def record_all(client, data, arguments):
    """Indexes the data and writes every fixture."""
    index_products(client, data.documents)
    candidates = weigh_queries(client, data)
    chosen = choose(candidates, arguments.query_id)
    recorder = Recorder(client, arguments.into)
    name = "chorus-" + re.sub(r"[^a-z0-9]+", "-", chosen.query.lower()).strip("-")
    recorder.write(name, PRODUCTS, page_request(chosen.query), chosen.query, chosen.page,
                   judgments=judgments(chosen, candidates, data, arguments.query_id))  # fmt: skip
    recorder.record("chorus-no-hits", PRODUCTS, page_request("qwertzuiop"), "qwertzuiop")
    recorder.record("chorus-aggregations", PRODUCTS, AGGREGATIONS_REQUEST, "dvd player")
    recorder.record("chorus-sorted", PRODUCTS, SORTED_REQUEST, "dvd player")
    client.request("PUT", f"/{ODD}", ODD_INDEX)
    client.bulk(ODD, [(name, source.encode("utf-8")) for name, source in ODD_DOCUMENTS])
    recorder.record("odd-sources", ODD, ODD_REQUEST, "clog for children")


def page_request(query):
    """The search that an unassuming shop sends."""
    return {
        "query": {"multi_match": {"query": query, "fields": ["title", "text"]}},
        "size": PAGE_SIZE,
    }


# Text only in `fields`, since `_source` is off; everything else that a page may carry around its
# hits; and a total that is a lower bound.
AGGREGATIONS_REQUEST = {
    "query": {"multi_match": {"query": "dvd player", "fields": ["title", "text"]}},
    "size": 5,
    "_source": False,
    "fields": ["title", "text"],
    "track_total_hits": 10,
    "highlight": {"fields": {"title": {}, "text": {"fragment_size": 60, "number_of_fragments": 2}}},
    "aggs": {
        "portable": {
            "filter": {"match": {"title": "portable"}},
            "aggs": {"titles": {"terms": {"field": "title.keyword", "size": 3}}},
        },
        "titles": {"cardinality": {"field": "title.keyword"}},
    },
}
# Sorted by a field, Elasticsearch computes no scores: `_score` and `max_score` are null.
SORTED_REQUEST = {
    "query": {"multi_match": {"query": "dvd player", "fields": ["title", "text"]}},
    "size": 5,
    "sort": [{"title.keyword": "desc"}],
}
# `match_all` brings the documents without any text as well, below the others.
ODD_REQUEST = {
    "query": {
        "bool": {
            "should": [
                {
                    "multi_match": {
                        "query": "clog for children",
                        "fields": ["title", "text", "tags"],
                    }
                },
                {"match_all": {}},
            ]
        }
    },
    "size": PAGE_SIZE,
}


class Recorder:
    """Asks one client and writes fixtures into one folder."""

    def __init__(self, client, folder):
        self.client = client
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, name, index, body, query):
        """Runs one search and writes it down."""
        self.write(name, index, body, query, search(self.client, index, body))

    def write(self, name, index, body, query, page, judgments=None):
        """Writes a page's bytes and, beside them, what they are."""
        distribution = engines.ELASTICSEARCH
        about = {
            "query": query,
            "request": {"method": "POST", "path": f"/{index}/_search", "body": body},
            "engine": {"name": distribution.name, "version": distribution.version},
            "recorded": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
        if index == PRODUCTS:
            about["licence"] = LICENCE
        if judgments:
            about["judgments"] = judgments
        (self.folder / f"{name}.json").write_bytes(page)
        text = json.dumps(about, ensure_ascii=False, indent=1) + "\n"
        (self.folder / f"{name}.about.json").write_text(text, encoding="utf-8")
        engines.progress(f"recorded {name}")


def search(client, index, body):
    """One search; the answer's bytes as they came."""
    return client.request("POST", f"/{index}/_search", body)


def index_products(client, documents):
    """Puts every product into the index, titles and texts as they are."""
    engines.progress(f"indexing {len(documents)} products")
    client.request("PUT", f"/{PRODUCTS}", PRODUCTS_INDEX)
    for start in range(0, len(documents), BULK_DOCUMENTS):
        part = documents[start : start + BULK_DOCUMENTS]
        client.bulk(PRODUCTS, [(document["_id"], source_of(document)) for document in part])


def source_of(document):
    """A product's `_source`: all but its id."""
    source = {"title": document["title"], "text": document["text"]}
    return json.dumps(source, ensure_ascii=False).encode("utf-8")


def weigh_queries(client, data):
    """Searches for every query; keeps those with a full page whose hits MiniLM has all scored."""
    candidates = []
    for query_id, query in data.queries.items():
        page = search(client, PRODUCTS, page_request(query))
        hits = json.loads(page)["hits"]["hits"]
        scores = data.model_scores.get(query_id, {})
        if len(hits) == PAGE_SIZE and all(hit["_id"] in scores for hit in hits):
            candidates.append(weigh(query_id, query, page, data))
    if not candidates:
        raise RecordError("no query of the data set has a full page that MiniLM has scored.")
    return candidates


def weigh(query_id, query, page, data):
    """Computes a page's NDCG@10 in the engine's order, in MiniLM's, and half and half."""
    hits = json.loads(page)["hits"]["hits"]
    grades = data.grades.get(query_id, {})
    ideal = sorted(grades.values(), reverse=True)
    model_scores = [data.model_scores[query_id][hit["_id"]] for hit in hits]
    own_scores = [hit["_score"] for hit in hits]
    blended = [sum(pair) for pair in zip(spread(model_scores), spread(own_scores))]

    def ndcg_by(scores):
        order = sorted(range(len(hits)), key=lambda position: -scores[position])
        return ndcg_at_10([grades.get(hits[position]["_id"], 0) for position in order], ideal)

    return Candidate(
        query_id=query_id,
        query=query,
        page=page,
        graded=sum(hit["_id"] in grades for hit in hits),
        first_stage=ndcg_by(own_scores),
        model=ndcg_by(model_scores),
        blend=ndcg_by(blended),
    )


def spread(scores):
    """Scores mapped to 0..1 by their smallest and largest; all equal gives zeros."""
    low, high = min(scores), max(scores)
    return [(score - low) / (high - low) if high > low else 0.0 for score in scores]


def ndcg_at_10(grades, ideal):
    """Normalized discounted cumulative gain over ten ranks, the grade itself being the gain.

    `grades`: in rank order, 0 where nobody judged. `ideal`: all of the query's grades, best first.
    """
    best = discounted_gain(ideal)
    return discounted_gain(grades) / best if best else 0.0


def discounted_gain(grades):
    """Sum of grade / log2(rank + 1) over the first ten ranks."""
    return sum(grade / math.log2(rank + 2) for rank, grade in enumerate(grades[:10]))


def choose(candidates, query_id):
    """The query asked for, else the one with enough grades and the most certain gain."""
    ranked = sorted(candidates, key=lambda candidate: -candidate.gain)
    print("NDCG@10 of 20 hits:  engine  MiniLM  half/half  graded  query")
    for candidate in ranked:
        print(
            f"                     {candidate.first_stage:6.3f}  {candidate.model:6.3f}  "
            f"{candidate.blend:9.3f}  {candidate.graded:6}  {candidate.query_id} {candidate.query}"
        )
    for candidate in ranked:
        if candidate.query_id == query_id if query_id else candidate.graded >= ENOUGH_GRADED:
            print(f"chosen: {candidate.query_id} {candidate.query}")
            return candidate
    raise RecordError(f"the query {query_id or ''} has no full page that MiniLM has scored.")


def judgments(chosen, candidates, data, asked_for):
    """What the side file says of the chosen query's grades, and of all queries together."""
    grades = data.grades[chosen.query_id]
    ids = [hit["_id"] for hit in json.loads(chosen.page)["hits"]["hits"]]
    return {
        "query_id": chosen.query_id,
        "scale": "0 to 3, by people; a hit without a grade was not judged and counts as 0",
        "grades": {identifier: grades[identifier] for identifier in ids if identifier in grades},
        "ideal": sorted(grades.values(), reverse=True)[:10],
        "ndcg_at_10": {
            "engine": round(chosen.first_stage, 4),
            "minilm": round(chosen.model, 4),
            "half_and_half": round(chosen.blend, 4),
        },
        "chosen": "by hand"
        if asked_for
        else "the query that gains most among those below with enough grades: not typical",
        "mean_over_queries": {
            "queries": len(candidates),
            "engine": mean(candidate.first_stage for candidate in candidates),
            "minilm": mean(candidate.model for candidate in candidates),
            "half_and_half": mean(candidate.blend for candidate in candidates),
        },
    }


def mean(values):
    """The mean, to four digits."""
    values = list(values)
    return round(sum(values) / len(values), 4)


def read_dataset(folder):
    """Reads the product data set's files."""
    try:
        documents = read_json_lines(folder / "corpus.jsonl")
        queries = {line["_id"]: line["text"] for line in read_json_lines(folder / "queries.jsonl")}
        grades = read_grades(folder / "qrels.tsv")
        scores = {}
        for name in ("minilm.top100.trec", "minilm.judged.trec"):
            read_run(folder / name, scores)
    except OSError as error:
        raise RecordError(
            f"the data set cannot be read ({error}): say where it is with --data."
        ) from None
    return Dataset(documents, queries, grades, scores)


def read_json_lines(path):
    """One JSON value a line."""
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_grades(path):
    """A qrels file: a header, then query, document and grade, between tabs."""
    grades = {}
    with open(path, encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query_id, document_id, grade = line.split("\t")
            grades.setdefault(query_id, {})[document_id] = int(grade)
    return grades


def read_run(path, scores):
    """Adds a TREC run file (query, Q0, document, rank, score, tag) to `scores`."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            query_id, _, document_id, _, score, _ = line.split()
            scores.setdefault(query_id, {})[document_id] = float(score)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
