"""LangChain's document compressors, as a retriever calls them."""

from unittest import mock

import cohere
from cohere.core.api_error import ApiError
from infinity_client import Client as InfinityClient
from infinity_client.errors import UnexpectedStatus
from langchain_cohere import CohereRerank
from langchain_community.document_compressors import InfinityRerank, JinaRerank, jina_rerank
from langchain_core.documents import Document

from judge import Client, Result


class LangChain(Client):
    def compressor(self, model, top_n):
        raise NotImplementedError

    def __init__(self, url):
        self.url = url

    def rank(self, query, documents, model, top_n):
        documents = [Document(text, metadata={"index": index}) for index, text in enumerate(documents)]
        answer = self.compressor(model, top_n).compress_documents(documents, query)
        return [
            Result(document.metadata["index"], document.metadata["relevance_score"]) for document in answer
        ]


class Cohere(LangChain):
    name = "langchain-cohere CohereRerank"
    package = "langchain-cohere"
    errors = {
        400: cohere.BadRequestError,
        404: cohere.NotFoundError,
        424: ApiError,
        429: cohere.TooManyRequestsError,
    }
    tries = 3

    def compressor(self, model, top_n):
        return CohereRerank(cohere_api_key="key", base_url=self.url, model=model, top_n=top_n)


class Jina(LangChain):
    name = "langchain-community JinaRerank"
    package = "langchain-community"
    model = "jina-reranker-v2-base-multilingual"
    errors = {400: RuntimeError, 404: RuntimeError, 424: RuntimeError, 429: RuntimeError}

    def compressor(self, model, top_n):
        return JinaRerank(jina_api_key="key", model=model, top_n=top_n)

    def rank(self, query, documents, model, top_n):
        # There is no other way to point it at a server.
        with mock.patch.object(jina_rerank, "JINA_API_URL", f"{self.url}/v1/rerank"):
            return super().rank(query, documents, model, top_n)


class Infinity(LangChain):
    name = "langchain-community InfinityRerank"
    package = "langchain-community"
    model = "BAAI/bge-reranker-base"
    unknown_model = 400
    errors = {400: UnexpectedStatus, 404: UnexpectedStatus, 424: UnexpectedStatus, 429: UnexpectedStatus}

    def compressor(self, model, top_n):
        client = InfinityClient(base_url=f"{self.url}/infinity", raise_on_unexpected_status=True)
        return InfinityRerank(client=client, model=model, top_n=top_n)


CLIENTS = [Cohere, Jina, Infinity]
