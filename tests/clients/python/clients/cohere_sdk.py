"""Cohere's own SDK: `Client` calls /v1/rerank, `ClientV2` calls /v2/rerank."""

import cohere
from cohere.core.api_error import ApiError

from judge import Client, Result


class V1(Client):
    name = "cohere Client"
    package = "cohere"
    errors = {
        400: cohere.BadRequestError,
        401: cohere.UnauthorizedError,
        404: cohere.NotFoundError,
        424: ApiError,
        429: cohere.TooManyRequestsError,
    }
    tries = 3

    def __init__(self, url, key):
        self.client = cohere.Client(api_key=key, base_url=url)

    def rank(self, query, documents, model, top_n):
        answer = self.client.rerank(query=query, documents=documents, model=model, top_n=top_n)
        return results(answer)

    def rank_with_documents(self, query, documents, model):
        answer = self.client.rerank(
            query=query, documents=[{"text": text} for text in documents], model=model, return_documents=True
        )
        return results(answer)

    def rank_by_fields(self, query, documents, model, fields):
        answer = self.client.rerank(query=query, documents=documents, model=model, rank_fields=fields)
        return results(answer)


class V2(V1):
    name = "cohere ClientV2"
    rank_with_documents = None
    rank_by_fields = None

    def __init__(self, url, key):
        self.client = cohere.ClientV2(api_key=key, base_url=url)


def results(answer):
    return [
        Result(result.index, result.relevance_score, text_of(result))
        for result in answer.results
    ]


def text_of(result):
    document = getattr(result, "document", None)
    # The second version of the API has none in its schema, but the server sends it all the same.
    return document["text"] if isinstance(document, dict) else document and document.text


CLIENTS = [V1, V2]
