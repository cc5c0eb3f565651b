"""A hybrid search of Haystack for hayhooks, in Haystack's own environment; `benchmarks.peers` starts it.

PEERS_MODEL and PEERS_PASSAGES are the model's folder and a JSON file of texts.
"""

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from hayhooks import BasePipelineWrapper


def part(name: str, *arguments: Any, **options: Any) -> Any:
    """A component of Haystack by its path."""
    module, _, kind = name.rpartition(".")
    return getattr(import_module(module), kind)(*arguments, **options)


class PipelineWrapper(BasePipelineWrapper):
    """POST /search/run: {"query", "limit"} -> the texts and their scores."""

    def setup(self) -> None:
        """Fill the store in memory, and connect what searches it."""
        embedders = "haystack_integrations.components.embedders.sentence_transformers"
        model = os.environ["PEERS_MODEL"]
        store = part("haystack.document_stores.in_memory.InMemoryDocumentStore", embedding_similarity_function="cosine")
        texts = json.loads(Path(os.environ["PEERS_PASSAGES"]).read_text("utf-8"))
        writer = part(f"{embedders}.SentenceTransformersDocumentEmbedder", model=model, progress_bar=False)
        writer.warm_up()
        documents = [part("haystack.Document", content=text) for text in texts]
        store.write_documents(writer.run(documents)["documents"])
        self.pipeline = part("haystack.Pipeline")
        retrievers = "haystack.components.retrievers.in_memory"
        for name, component in (
            ("embedder", part(f"{embedders}.SentenceTransformersTextEmbedder", model=model, progress_bar=False)),
            ("vectors", part(f"{retrievers}.InMemoryEmbeddingRetriever", store)),
            ("words", part(f"{retrievers}.InMemoryBM25Retriever", store)),
            ("both", part("haystack.components.joiners.DocumentJoiner", join_mode="reciprocal_rank_fusion")),
        ):
            self.pipeline.add_component(name, component)
        self.pipeline.connect("embedder.embedding", "vectors.query_embedding")
        self.pipeline.connect("vectors", "both")
        self.pipeline.connect("words", "both")

    def run_api(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Both sides give `limit`, as a pipeline of the documentation does."""
        inputs = {
            "embedder": {"text": query},
            "vectors": {"top_k": limit},
            "words": {"query": query, "top_k": limit},
            "both": {"top_k": limit},
        }
        documents = self.pipeline.run(inputs)["both"]["documents"]
        return [{"id": one.id, "text": one.content, "score": one.score} for one in documents]
