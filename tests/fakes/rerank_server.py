"""Servers of a reranker that speak the wire protocols of the real ones, as their sources and references have them.

tei       text-embeddings-inference 1.8: GET /info, POST /rerank; refuses more texts than its batch
vllm      vLLM 0.32: GET /version, /v1/models, POST /v1/rerank, /v1/score
infinity  Infinity 0.0.77: GET /models, POST /rerank
cohere    api.cohere.com: POST /v2/rerank; refuses fields that it does not know
jina      api.jina.ai: POST /v1/rerank
voyage    api.voyageai.com: POST /v1/rerank; calls the list `data`
"""

import json
import math
from collections.abc import Sequence
from typing import Any, Literal

from tests.fakes.wire import Answering, Asked, WireServer

Product = Literal["tei", "vllm", "infinity", "cohere", "jina", "voyage"]
PRODUCTS: tuple[Product, ...] = ("tei", "vllm", "infinity", "cohere", "jina", "voyage")
MODEL = "tiny-reranker"
KEY = "key-of-the-reranker"
BATCH = 8
"""Texts that text-embeddings-inference takes at once."""

_PATHS: dict[Product, tuple[str, ...]] = {
    "tei": ("/rerank",),
    "vllm": ("/v1/rerank", "/rerank", "/v2/rerank"),
    "infinity": ("/rerank",),
    "cohere": ("/v2/rerank",),
    "jina": ("/v1/rerank",),
    "voyage": ("/v1/rerank",),
}
_FIELDS: dict[Product, frozenset[str]] = {
    "tei": frozenset(("query", "texts", "truncate", "raw_scores", "return_text")),
    "cohere": frozenset(("model", "query", "documents", "top_n", "max_tokens_per_doc")),
    "voyage": frozenset(("model", "query", "documents", "top_k", "return_documents", "truncation")),
}


def relevance(query: str, text: str) -> float:
    """Log-odds that rise with the share of the query's words in the text."""
    words = set(query.lower().split())
    return 8.0 * len(words & set(text.lower().split())) / max(len(words), 1) - 4.0


class RerankServer(WireServer):
    """`raw`: it sends log-odds. `asked` are the bodies of the calls that it answered, `failing` statuses come first."""

    def __init__(self, product: Product, *, raw: bool = False) -> None:
        super().__init__()
        self.product, self.raw = product, raw
        self.asked: list[dict[str, Any]] = []
        self.failing: list[int] = []
        self.spoilt: bytes | None = None

    async def answer(self, asked: Asked, answering: Answering) -> None:
        """As the product does."""
        status, reply = self._reply(asked)
        await answering.whole(status, reply if isinstance(reply, bytes) else json.dumps(reply).encode())

    def _reply(self, asked: Asked) -> tuple[int, Any]:
        if self.product != "tei" and asked.headers.get("authorization") != f"Bearer {KEY}":
            return 401, {"detail": "no such key"}
        if asked.method == "GET":
            return self._described(asked.path)
        if asked.path not in _PATHS[self.product]:
            return 404, {"detail": "Not Found"}
        if self.failing:
            return self.failing.pop(0), {"error": {"message": "secret reason"}}
        body = json.loads(asked.body)
        unknown = body.keys() - _FIELDS.get(self.product, body.keys())
        texts = body.get("texts" if self.product == "tei" else "documents")
        if unknown or texts is None or "query" not in body:
            return 422, {"detail": f"invalid fields: {sorted(unknown)}"}
        if self.product == "tei" and len(texts) > BATCH:
            return 422, {"error": "batch size > maximum allowed batch size", "error_type": "Validation"}
        if self.product != "tei" and body["model"] != MODEL:
            return 404, {"error": {"message": "model not found", "code": "model_not_found"}}
        self.asked.append(body)
        return 200, self._ranked(body["query"], texts) if self.spoilt is None else self.spoilt

    def _described(self, path: str) -> tuple[int, Any]:
        if self.product == "tei" and path == "/info":
            return 200, {
                "model_id": MODEL,
                "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}}},
                "max_input_length": 512,
                "max_client_batch_size": BATCH,
                "version": "1.8.3",
            }
        models = {"vllm": "/v1/models", "infinity": "/models"}.get(self.product)
        if path == models:
            entry = {"id": MODEL, "object": "model", "owned_by": self.product}
            return 200, {"object": "list", "data": [entry | ({"max_model_len": 512} if models != "/models" else {})]}
        return 404, {"detail": "Not Found"}

    def _ranked(self, query: str, texts: Sequence[str]) -> Any:
        odds = [relevance(query, text) for text in texts]
        scores = odds if self.raw else [1 / (1 + math.exp(-one)) for one in odds]
        name = "score" if self.product == "tei" else "relevance_score"
        ranks = [{"index": index, name: scores[index]} for index in sorted(range(len(texts)), key=lambda i: -scores[i])]
        match self.product:
            case "tei":
                return ranks
            case "cohere":
                units = {"search_units": math.ceil(len(texts) / 100)}
                return {"id": "r1", "results": ranks, "meta": {"api_version": {"version": "2"}, "billed_units": units}}
            case "voyage":
                return {"object": "list", "data": ranks, "model": MODEL, "usage": {"total_tokens": 7 * len(texts)}}
            case _:
                usage = {"total_tokens": 7 * len(texts), "prompt_tokens": 7 * len(texts)}
                return {"id": "r1", "model": MODEL, "results": ranks, "usage": usage}
