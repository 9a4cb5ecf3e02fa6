"""Haystack's rankers: components of a pipeline, which give back the caller's documents."""

import cohere
from cohere.core.api_error import ApiError
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.jina import JinaRanker

from judge import Client, Result

MANY = 1000


class Haystack(Client):
    def ranker(self, model):
        raise NotImplementedError

    def __init__(self, url):
        self.url = url

    def rank(self, query, documents, model, top_n):
        documents = [Document(content=text, meta={"index": index}) for index, text in enumerate(documents)]
        answer = self.ranker(model).run(query=query, documents=documents, top_k=top_n or MANY)
        return [Result(document.meta["index"], document.score) for document in answer["documents"]]


class Cohere(Haystack):
    name = "haystack CohereRanker"
    package = "cohere-haystack"
    errors = {
        400: cohere.BadRequestError,
        404: cohere.NotFoundError,
        424: ApiError,
        429: cohere.TooManyRequestsError,
    }
    tries = 3

    def ranker(self, model):
        return CohereRanker(model=model, api_key=Secret.from_token("key"), api_base_url=self.url)


class Jina(Haystack):
    name = "haystack JinaRanker"
    package = "jina-haystack"
    model = "jina-reranker-v2-base-multilingual"
    errors = {400: RuntimeError, 404: RuntimeError, 424: RuntimeError, 429: RuntimeError}

    def ranker(self, model):
        return JinaRanker(model=model, api_key=Secret.from_token("key"), base_url=f"{self.url}/v1/rerank")


CLIENTS = [Cohere, Jina]
