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

    def __init__(self, url):
        self.url = url

    def rank(self, query, documents, model, top_n):
        nodes = [NodeWithScore(node=TextNode(text=text, id_=str(index))) for index, text in enumerate(documents)]
        answer = self.postprocessor(model, top_n or MANY).postprocess_nodes(nodes, QueryBundle(query))
        return [Result(int(node.node_id), node.score) for node in answer]


class Cohere(LlamaIndex):
    name = "llama-index CohereRerank"
    package = "llama-index-postprocessor-cohere-rerank"
    errors = {
        400: cohere.BadRequestError,
        404: cohere.NotFoundError,
        424: ApiError,
        429: cohere.TooManyRequestsError,
    }
    tries = 3

    def postprocessor(self, model, top_n):
        return CohereRerank(api_key="key", base_url=self.url, model=model, top_n=top_n)


class Jina(LlamaIndex):
    name = "llama-index JinaRerank"
    package = "llama-index-postprocessor-jinaai-rerank"
    model = "jina-reranker-v2-base-multilingual"
    errors = {400: RuntimeError, 404: RuntimeError, 424: RuntimeError, 429: RuntimeError}

    def postprocessor(self, model, top_n):
        return JinaRerank(api_key="key", base_url=f"{self.url}/v1", model=model, top_n=top_n)


class TextEmbeddingsInference(LlamaIndex):
    """It looks at no status, only whether there are as many results as documents."""

    name = "llama-index TextEmbeddingInference"
    package = "llama-index-postprocessor-tei-rerank"
    model = None
    bad_request = ("", ["", "", ""])
    errors = {400: AssertionError, 424: AssertionError, 429: AssertionError}
    says_why = False

    def postprocessor(self, model, top_n):
        return TeiRerank(base_url=self.url, top_n=top_n)


CLIENTS = [Cohere, Jina, TextEmbeddingsInference]
