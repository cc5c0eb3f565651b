"""A few passages in a real store."""

from collections.abc import Sequence
from typing import Any

from indexing.documents import Passage, passage_id
from indexing.embedding.model import Embedder
from indexing.retrieval.bm25 import Lexical
from indexing.store.base import CollectionSpec, Point, VectorStore
from tests.fakes.embedder import HashEmbedder

HANDBOOK = (
    ("dental", "Dental cover starts on the first day of work.", {"lang": "en", "year": 2024}),
    ("office", "The office opens at nine and closes at six.", {"lang": "en", "year": 2022}),
    ("parking", "Parking is free for staff behind the office.", {"lang": "en", "year": 2020}),
    ("urlaub", "Der Urlaub beträgt dreißig Tage im Jahr.", {"lang": "de", "year": 2024}),
)


def passage(document_id: str, text: str, metadata: dict[str, Any] | None = None, ordinal: int = 0) -> Passage:
    """A passage that is a whole document."""
    return Passage(
        id=passage_id(document_id, "1", ordinal),
        document_id=document_id,
        version="1",
        ordinal=ordinal,
        start=0,
        end=len(text),
        text=text,
        source=f"{document_id}.txt",
        title=document_id.title(),
        metadata=metadata or {},
    )


def point(found: Passage, embedder: Embedder) -> Point:
    """The passage with its vectors."""
    return Point(passage=found, dense=embedder.embed_documents([found.text])[0], sparse=Lexical().document(found.text))


async def fill(
    store: VectorStore, passages: Sequence[Passage] = (), name: str = "default", fingerprint: str = "hash-words"
) -> None:
    """A collection of these passages, or of HANDBOOK."""
    embedder = HashEmbedder()
    await store.create(name, CollectionSpec(dimension=embedder.dimension, embedder=fingerprint))
    chosen = passages or [passage(*entry) for entry in HANDBOOK]
    await store.upsert(name, [point(found, embedder) for found in chosen])
