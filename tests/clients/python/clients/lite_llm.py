"""LiteLLM, with each of its providers that can be pointed at a server."""

import litellm

from judge import Client, Result

litellm.suppress_debug_info = True


class LiteLLM(Client):
    package = "litellm"
    provider: str
    base = ""
    errors = {
        400: litellm.BadRequestError,
        404: litellm.NotFoundError,
        424: litellm.BadRequestError,
        429: litellm.RateLimitError,
    }

    def __init__(self, url):
        self.base_url = url + self.base

    def rank(self, query, documents, model, top_n):
        return self._rank(query, documents, model, top_n=top_n, return_documents=False)

    def rank_with_documents(self, query, documents, model):
        # It asks for them where nothing is said.
        return self._rank(query, documents, model)

    def _rank(self, query, documents, model, **more):
        answer = litellm.rerank(
            model=f"{self.provider}/{model or 'any'}",
            query=query,
            documents=documents,
            api_base=self.base_url,
            api_key="key",
            **more,
        )
        return [
            Result(result["index"], result["relevance_score"], (result.get("document") or {}).get("text"))
            for result in answer.results
        ]


class Cohere(LiteLLM):
    name = "litellm cohere"
    provider = "cohere"


class Jina(LiteLLM):
    name = "litellm jina_ai"
    provider = "jina_ai"
    model = "jina-reranker-v2-base-multilingual"


class HostedVllm(LiteLLM):
    name = "litellm hosted_vllm"
    provider = "hosted_vllm"
    model = "BAAI/bge-reranker-base"
    errors = LiteLLM.errors | {424: litellm.APIError}


class Infinity(LiteLLM):
    name = "litellm infinity"
    provider = "infinity"
    base = "/infinity"
    model = "BAAI/bge-reranker-base"
    unknown_model = 400
    errors = LiteLLM.errors | {404: litellm.BadRequestError}


class Voyage(LiteLLM):
    name = "litellm voyage"
    provider = "voyage"
    model = "rerank-2.5"


class HuggingFace(LiteLLM):
    name = "litellm huggingface"
    provider = "huggingface"
    model = None
    bad_request = ("", ["", ""])
    errors = {400: litellm.BadRequestError, 424: litellm.APIError, 429: litellm.RateLimitError}


CLIENTS = [Cohere, Jina, HostedVllm, Infinity, Voyage, HuggingFace]
