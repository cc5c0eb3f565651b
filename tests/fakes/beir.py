"""A small BEIR-style folder, and services over an index of its own for it."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from app.backends.settings import BackendSettings, BudgetSettings
from app.config.settings import AnswerSettings, IndexSection, RankingSettings, Settings
from app.ranking.calibration import Fits
from app.wiring import Services
from indexing.store.base import VectorStore
from indexing.store.embedded import EmbeddedStore
from tests.fakes.embedder import HashEmbedder
from tests.fakes.source import GivenEmbedder

PLACES = ("Ulm", "Bonn", "Kiel", "Jena", "Gera", "Hof", "Trier", "Essen")

CORPUS = [
    {"_id": f"{topic}-{place}", "title": place, "text": text.format(place=place, number=number)}
    for number, place in enumerate(PLACES, 11)
    for topic, text in (
        ("tower", "The tower of {place} is {number} metres high and golden."),
        ("mayor", "A mayor of {place} likes the tower but never says how high it is."),
    )
]
"""Two documents for each place, and one of them answers."""

QUERIES = [
    {"_id": f"q-{place}", "text": f"How high is the tower of {place}?", "answers": [f"{number} metres"]}
    for number, place in enumerate(PLACES, 11)
]

QRELS = "\n".join(["query-id\tcorpus-id\tscore", *(f"q-{place}\ttower-{place}\t1" for place in PLACES)]) + "\n"

UNANSWERABLE = [{"_id": f"u-{place}", "text": f"Who painted the ceiling of {place} blue?"} for place in PLACES[:4]]

KNOWING = {
    "golden": {"3": -0.05, "0": -4.0},
    "never": {"0": -0.05, "3": -4.0},
}
"""What a scorer says first that can tell the documents apart, for `FakeModel.likely`."""


def beir_folder(folder: Path, **files: Sequence[Mapping[str, Any]] | str) -> Path:
    """With the files above; `files` replaces some, as in corpus=[...]."""
    told = {"corpus": CORPUS, "queries": QUERIES, "qrels": QRELS, "unanswerable": UNANSWERABLE} | files
    folder.mkdir(exist_ok=True)
    for name, rows in told.items():
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.{'tsv' if name == 'qrels' else 'jsonl'}").write_text(text, encoding="utf-8")
    return folder


@asynccontextmanager
async def evaluating(
    home: Path,
    backends: Mapping[str, BackendSettings] | None = None,
    *,
    budgets: BudgetSettings | None = None,
    fits: Fits | None = None,
    embedder: HashEmbedder | None = None,
) -> AsyncIterator[Services]:
    """The real services over an index in `home`/apart. Models are asked once a question, for grades."""
    settings = Settings(
        index=IndexSection(home=home),
        backends=dict(backends or {}),
        budgets=budgets or BudgetSettings(),
        answer=AnswerSettings(min_relevance=0.3),
        ranking=RankingSettings(strategy="graded", deadline_ms=60_000, controls=False),
    )

    async def open_store() -> VectorStore:
        return EmbeddedStore(home / "apart" / "index")

    services = Services(
        settings,
        open_store,
        GivenEmbedder(embedder or HashEmbedder()),
        index_home=home / "apart",
        fits=fits,
    )
    try:
        yield services
    finally:
        await services.close()
