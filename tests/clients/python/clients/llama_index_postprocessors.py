"""LlamaIndex's node postprocessors, as a query engine calls them."""

import cohere
from cohere.core.api_error import ApiError
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference as TeiRerank

from judge import Client, Result

MANY = 1000


class LlamaIndex(Client):
    def postprocessor(self, model, top_n):
        raise NotImplementedError

    def __init__(self, url, key):
        self.url, self.key = url, key

    def rank(self, query, documents, model, top_n):
        nodes = [NodeWithScore(node=TextNode(text=text, id_=str(index))) for index, text in enumerate(documents)]
        answer = self.postprocessor(model, top_n or MANY).postprocess_nodes(nodes, QueryBundle(query))
        return [Result(int(node.node_id), node.score) for node in answer]


class Cohere(LlamaIndex):
    name = "llama-index CohereRerank"
    package = "llama-index-postprocessor-cohere-rerank"
    errors = {
        400: cohere.BadRequestError,
        401: cohere.UnauthorizedError,
        404: cohere.NotFoundError,
        424: ApiError,
        429: cohere.TooManyRequestsError,
    }
    tries = 3

    def postprocessor(self, model, top_n):
        return CohereRerank(api_key=self.key, base_url=self.url, model=model, top_n=top_n)


class Jina(LlamaIndex):
    name = "llama-index JinaRerank"
    package = "llama-index-postprocessor-jinaai-rerank"
    model = "jina-reranker-v2-base-multilingual"
    errors = {400: RuntimeError, 401: RuntimeError, 404: RuntimeError, 424: RuntimeError, 429: RuntimeError}

    def postprocessor(self, model, top_n):
        return JinaRerank(api_key=self.key, base_url=f"{self.url}/v1", model=model, top_n=top_n)


class TextEmbeddingsInference(LlamaIndex):
    """It looks at no status, only whether there are as many results as documents."""

    name = "llama-index TextEmbeddingInference"
    package = "llama-index-postprocessor-tei-rerank"
    model = None
    bad_request = ("", ["", "", ""])
    # Without a key nothing of the body is read, so the error is that of the other clients of /rerank. It has
    # as many keys as there are documents here.
    errors = {400: AssertionError, 401: TypeError, 424: AssertionError, 429: AssertionError}
    says_why = False

    def postprocessor(self, model, top_n):
        return TeiRerank(base_url=self.url, auth_token=f"Bearer {self.key}", top_n=top_n)


CLIENTS = [Cohere, Jina, TextEmbeddingsInference]
