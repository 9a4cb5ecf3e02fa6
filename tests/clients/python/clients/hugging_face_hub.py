"""Hugging Face's InferenceClient. It has no rerank; text_classification of pairs, one call a document, is what
a reranker behind text-embeddings-inference answers."""

from huggingface_hub import InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from judge import Client, Result


class Hub(Client):
    name = "huggingface_hub InferenceClient"
    package = "huggingface-hub"
    model = None
    bad_request = ("", [""])
    errors = {400: BadRequestError, 424: HfHubHTTPError, 429: HfHubHTTPError}
    takes_top_n = False

    def __init__(self, url):
        self.client = InferenceClient(base_url=f"{url}/predict")

    def rank(self, query, documents, model, top_n):
        scores = [self.client.text_classification([query, document]).score for document in documents]
        ranked = sorted(enumerate(scores), key=lambda scored: scored[1], reverse=True)
        return [Result(index, score) for index, score in ranked]


CLIENTS = [Hub]
