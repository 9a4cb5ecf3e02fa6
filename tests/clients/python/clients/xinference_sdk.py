"""Xinference's RESTful client, which asks for the model before it ranks."""

from xinference_client import RESTfulClient

from judge import Client, Result


class Xinference(Client):
    name = "xinference-client"
    package = "xinference-client"
    model = "bge-reranker-base"
    asks_for_model = True
    errors = {400: RuntimeError, 404: RuntimeError, 424: RuntimeError, 429: RuntimeError}

    def __init__(self, url):
        self.client = RESTfulClient(url)

    def rank(self, query, documents, model, top_n):
        return results(self.client.get_model(model).rerank(documents, query, top_n=top_n))

    def rank_with_documents(self, query, documents, model):
        answer = self.client.get_model(model).rerank(documents, query, return_documents=True, return_len=True)
        assert answer["meta"]["tokens"]["input_tokens"] > 0, f"{answer['meta']}"
        return results(answer)


def results(answer):
    return [
        Result(result["index"], result["relevance_score"], (result.get("document") or {}).get("text"))
        for result in answer["results"]
    ]


CLIENTS = [Xinference]
