"""The small product index of the demos on a real engine, and one search of it, with and without a policy.

The products are those of tests/fixtures and tests/bench/texts (Icecat's, under their own licence, see the
files beside them). Knows nothing of how rerankd gets at the search: see search.py and opensearch.py.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "demo")]
import demo  # noqa: E402

INDEX = "products"
PATH = f"/{INDEX}/_search"
MAPPINGS = {
    "settings": {"number_of_shards": 1, "number_of_replicas": 0},
    "mappings": {"properties": {"title": {"type": "text"}, "text": {"type": "text"}}},
}
PAGES = ("chorus-smart-watch", "chorus-sorted", "chorus-aggregations")
TITLES = pathlib.Path("tests/bench/texts/titles-chorus.json")


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


def judged_search():
    """A search whose products people have judged: its text, its body, and the judgments."""
    _, about = demo.read_page()
    query = about["query"]
    body = {"query": {"multi_match": {"query": query, "fields": ["title", "text"]}}}
    return query, body, about["judgments"]


def show_both(before, after, window, judgments, paint):
    """Two pages of the judged search side by side; `window` is the engine's own with 100 hits."""
    if [hit["_id"] for hit in before] == [hit["_id"] for hit in after]:
        raise demo.DemoError("nothing was reranked.")
    demo.show_side_by_side(before, after, judgments["grades"], paint, window)
    old, new = (demo.ndcg_at_10(hits, judgments) for hits in (before, after))
    demo.say(f"\n  NDCG@10 by people's grades: {old:.3f} before, {paint.bold(f'{new:.3f} after')}")
    hint = "This search was chosen because it gains much; docs/benchmarks.md has the mean of many."
    demo.say(paint.dim(f"  {hint}"))
