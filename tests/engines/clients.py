"""Runs an engine's own Python client through the search proxy: what it gets must be what it gets from the
engine alone, but for the order of hits.

    tests/engines/clients.py opensearch http://127.0.0.1:ENGINE http://127.0.0.1:PROXY

The engine holds the documents of tests/scenarios. Each check prints its name; the first that fails ends
this with its reason.
"""

import sys

SHOES = {"match": {"title": "garden shoe"}}
INDEX = "products"
MADE = "made-by-a-client"


class OpenSearch:
    """What differs between the clients: opensearch-py."""

    def __init__(self, address):
        import opensearchpy

        self.errors = opensearchpy.exceptions
        self.helpers = opensearchpy.helpers
        self.client = opensearchpy.OpenSearch([address], http_compress=True)

    def search(self, headers=None, params=None, **body):
        return self.client.search(index=INDEX, body=body, headers=headers or {}, params=params)

    def msearch(self, lines):
        return self.client.msearch(body=lines)

    def status_of(self, error):
        return error.status_code

    def info(self):
        return self.client.info()["version"]["distribution"]


class Elasticsearch:
    """What differs between the clients: elasticsearch-py, which checks that it talks to its own."""

    def __init__(self, address):
        import elasticsearch
        from elasticsearch import helpers

        self.errors = elasticsearch
        self.helpers = helpers
        self.client = elasticsearch.Elasticsearch([address], http_compress=True)

    def search(self, headers=None, params=None, **body):
        client = self.client.options(headers=headers) if headers else self.client
        if "from" in body:
            body["from_"] = body.pop("from")
        return client.search(index=INDEX, **body, **(params or {})).body

    def msearch(self, lines):
        return self.client.msearch(searches=lines).body

    def status_of(self, error):
        return error.meta.status

    def info(self):
        # This build has no `GET /`; a search answers with the product's header all the same.
        return self.client.count(index=INDEX).meta.headers["x-elastic-product"].lower()


CLIENTS = {"opensearch": OpenSearch, "elasticsearch": Elasticsearch}


def ids(answer):
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def check_product(name, own, through):
    assert own.info() == through.info() == name


def check_search(name, own, through):
    before = own.search(query=SHOES, size=20)
    after = through.search(query=SHOES, size=20)
    assert before["hits"]["total"] == after["hits"]["total"]
    assert ids(before) != ids(after), "nothing was reranked"
    scores = [hit["_score"] for hit in after["hits"]["hits"]]
    assert scores == sorted(scores, reverse=True), scores
    assert after["hits"]["max_score"] == scores[0]


def check_sources(name, own, through):
    everything = {hit["_id"]: hit["_source"] for hit in own.search(query=SHOES, size=100)["hits"]["hits"]}
    for hit in through.search(query=SHOES, size=100)["hits"]["hits"]:
        assert hit["_source"] == everything[hit["_id"]], hit


def check_options(name, own, through):
    headers = {"Rerankd-Enabled": "false"}
    assert ids(own.search(query=SHOES)) == ids(through.search(query=SHOES, headers=headers))


def check_paging(name, own, through):
    expected = sorted(ids(own.search(query=SHOES, size=100)))
    found = []
    while True:
        page = ids(through.search(query=SHOES, **{"from": len(found), "size": 9}))
        if not page:
            break
        found += page
    assert sorted(found) == expected, "pages repeat or lose hits"


def check_aggregations(name, own, through):
    aggs = {"brands": {"terms": {"field": "brand"}}}
    before = own.search(query=SHOES, aggs=aggs)["aggregations"]
    assert through.search(query=SHOES, aggs=aggs)["aggregations"] == before


def check_msearch(name, own, through):
    lines = [
        {"index": INDEX}, {"query": SHOES},
        {"index": "nowhere"}, {"query": SHOES},
        {"index": INDEX}, {"query": SHOES, "sort": ["sku"]},
    ]  # fmt: skip
    before, after = own.msearch(lines)["responses"], through.msearch(lines)["responses"]
    assert ids(before[0]) != ids(after[0]), "nothing was reranked"
    assert before[1] == after[1] and after[1]["error"]["type"] == "index_not_found_exception"
    assert before[2]["hits"] == after[2]["hits"]


def check_bulk(name, own, through):
    actions = [
        {"_index": MADE, "_id": str(number), "title": f"Shoe number {number}", "number": number}
        for number in range(700)
    ]
    done, failed = through.helpers.bulk(through.client, actions, chunk_size=200, refresh=True)
    assert (done, failed) == (700, [])
    bad = [{"_op_type": "update", "_index": MADE, "_id": "none", "doc": {"title": "x"}}]
    done, failed = through.helpers.bulk(through.client, bad, raise_on_error=False)
    assert done == 0 and failed[0]["update"]["status"] == 404, failed


def check_scan(name, own, through):
    query = {"query": {"match": {"title": "shoe"}}}
    found = [hit["_id"] for hit in through.helpers.scan(through.client, query, index=MADE, size=64)]
    assert len(found) == len(set(found)) == 700


def check_documents(name, own, through):
    client = through.client
    assert client.get(index=MADE, id="17")["_source"]["number"] == 17
    assert client.exists(index=MADE, id="17") and not client.exists(index=MADE, id="none")
    client.delete(index=MADE, id="17", refresh=True)
    assert client.count(index=MADE)["count"] == 699
    client.indices.delete(index=MADE)
    assert not client.indices.exists(index=MADE)


def check_errors(name, own, through):
    def raised(kind, call):
        try:
            call()
        except kind as error:
            return error
        raise AssertionError(f"no {kind.__name__}")

    errors = through.errors
    calls = {
        404: (errors.NotFoundError, lambda side: side.client.search(index="nowhere")),
        400: (
            getattr(errors, "RequestError", None) or errors.BadRequestError,
            lambda side: side.search(query={"rhymes": {}}),
        ),
        409: (
            errors.ConflictError,
            lambda side: side.client.create(index=INDEX, id="p00", body={"title": "again"})
            if name == "opensearch"
            else side.client.create(index=INDEX, id="p00", document={"title": "again"}),
        ),
    }
    for status, (kind, call) in calls.items():
        before, after = raised(kind, lambda: call(own)), raised(kind, lambda: call(through))
        assert own.status_of(before) == through.status_of(after) == status
        assert str(before) == str(after), (before, after)
    # An error of rerankd itself is one of the client's, too.
    kind = calls[400][0]
    ours = raised(kind, lambda: through.search(query=SHOES, headers={"Rerankd-Windows": "1"}))
    assert through.status_of(ours) == 400 and "windows" in str(ours), ours


CHECKS = [
    check_product,
    check_search,
    check_sources,
    check_options,
    check_paging,
    check_aggregations,
    check_msearch,
    check_bulk,
    check_scan,
    check_documents,
    check_errors,
]


def main():
    name, engine, proxy = sys.argv[1:]
    own, through = CLIENTS[name](engine), CLIENTS[name](proxy)
    for check in CHECKS:
        print(check.__name__, flush=True)
        check(name, own, through)


if __name__ == "__main__":
    main()
