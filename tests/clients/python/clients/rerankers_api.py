"""The package rerankers with its rankers of APIs. It asks for all documents, looks at no status, and raises
whatever its reading of an error body comes to."""

from rerankers import Reranker

from judge import Client, Result


class Rerankers(Client):
    package = "rerankers"
    provider: str
    path = "/v1/rerank"
    errors = {400: KeyError, 404: KeyError, 424: KeyError, 429: KeyError}
    says_why = False
    takes_top_n = False

    def __init__(self, url):
        self.url = url

    def rank(self, query, documents, model, top_n):
        ranker = Reranker(model, model_type=self.provider, api_key="key", url=self.url + self.path, verbose=0)
        answer = ranker.rank(query=query, docs=documents)
        return [Result(result.doc_id, float(result.score)) for result in answer.results]


class Cohere(Rerankers):
    name = "rerankers cohere"
    provider = "cohere"


class Jina(Rerankers):
    name = "rerankers jina"
    provider = "jina"
    model = "jina-reranker-v2-base-multilingual"


class Voyage(Rerankers):
    name = "rerankers voyage"
    provider = "voyage"
    model = "rerank-2.5"


class TextEmbeddingsInference(Rerankers):
    name = "rerankers text-embeddings-inference"
    provider = "text-embeddings-inference"
    path = "/rerank"
    model = "BAAI/bge-reranker-base"
    bad_request = ("", ["", ""])
    errors = {400: TypeError, 404: TypeError, 424: TypeError, 429: TypeError}


CLIENTS = [Cohere, Jina, Voyage, TextEmbeddingsInference]
