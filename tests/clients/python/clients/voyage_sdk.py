"""Voyage's own SDK. It never asks for documents: it takes them from its caller's list."""

import voyageai
from voyageai.error import APIError, InvalidRequestError, RateLimitError

from judge import Client, Result


class Voyage(Client):
    name = "voyageai"
    package = "voyageai"
    model = "rerank-2.5"
    errors = {400: InvalidRequestError, 404: APIError, 424: APIError, 429: RateLimitError}
    retries = 0

    def __init__(self, url):
        self.client = voyageai.Client(api_key="key", base_url=f"{url}/v1", max_retries=self.retries)

    def rank(self, query, documents, model, top_n):
        answer = self.client.rerank(query, documents, model=model, top_k=top_n)
        assert answer.total_tokens > 0, f"{answer.total_tokens} tokens"
        return [Result(result.index, result.relevance_score) for result in answer.results]


class PatientVoyage(Voyage):
    name = "voyageai, max_retries=2"
    retries = 2
    tries = 2
    errors = {429: RateLimitError}


CLIENTS = [Voyage, PatientVoyage]
