"""Infinity's own client, made from its OpenAPI document. Unless told so, it raises nothing and returns None."""

from infinity_client import Client as InfinityClient
from infinity_client.api.default import rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import RerankInput
from infinity_client.types import UNSET

from judge import Client, Result


class Infinity(Client):
    name = "infinity-client"
    package = "infinity-client"
    model = "BAAI/bge-reranker-base"
    unknown_model = 400
    errors = {400: UnexpectedStatus, 404: UnexpectedStatus, 424: UnexpectedStatus, 429: UnexpectedStatus}

    def __init__(self, url):
        self.client = InfinityClient(base_url=f"{url}/infinity", raise_on_unexpected_status=True)

    def rank(self, query, documents, model, top_n):
        return self._rank(query, documents, model, top_n=top_n)

    def rank_with_documents(self, query, documents, model):
        return self._rank(query, documents, model, return_documents=True)

    def _rank(self, query, documents, model, **more):
        body = RerankInput(query=query, documents=documents, model=model, **more)
        answer = rerank.sync(client=self.client, body=body)
        assert answer.usage.total_tokens > 0, f"{answer.usage}"
        return [
            Result(result.index, result.relevance_score, None if result.document is UNSET else result.document)
            for result in answer.results
        ]


CLIENTS = [Infinity]
