"""Passages as RAGFlow's chunks."""

from typing import Any

import msgspec

from app.api.compat.ragflow.highlight import highlighted, share
from app.api.compat.search import within
from app.domain import Hit


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A passage. `similarity` is the score of /search. `vector_similarity` is what a model gave it, or its cosine;
    `term_similarity` the share of the question's content words that it has.
    """

    id: str
    content: str
    document_id: str
    document_keyword: str
    document_name: str
    dataset_id: str
    kb_id: str
    similarity: float
    vector_similarity: float
    term_similarity: float
    document_metadata: dict[str, Any]
    positions: list[list[int]] = []
    highlight: str | msgspec.UnsetType = msgspec.UNSET
    content_ltks: str = ""
    image_id: str = ""
    important_keywords: list[str] = []
    tag_kwd: list[str] = []
    doc_type: str = ""
    doc_type_kwd: str = ""
    mom_id: str = ""
    url: str = ""
    row_id: str | None = None


def chunk_of(hit: Hit, collection: str, wanted: frozenset[str], *, mark: bool = False) -> Chunk:
    """`wanted` are the terms that `term_similarity` is about, and `mark` puts <em> around."""
    text = hit.text or ""
    meaning = hit.scores.grade if hit.scores.grade is not None else hit.scores.dense
    name = file_of(hit)
    return Chunk(
        id=hit.id,
        content=text,
        document_id=hit.document_id,
        document_keyword=name,
        document_name=name,
        dataset_id=collection,
        kb_id=collection,
        similarity=hit.score,
        vector_similarity=within(0.0, meaning or 0.0, 1.0),
        term_similarity=share(wanted, text),
        document_metadata={**hit.metadata, **({} if hit.page is None else {"page": hit.page})},
        highlight=highlighted(wanted, text) if mark else msgspec.UNSET,
    )


def file_of(hit: Hit) -> str:
    """What RAGFlow calls its document."""
    return hit.source or hit.title or hit.document_id
