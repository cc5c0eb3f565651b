"""Services for an evaluation: the home's backends, ledger and budgets, over an index that is not the user's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from app.config.settings import Settings
from app.evaluation.data import DataSet
from app.ranking.scoring.calibration_file import Fits
from app.wiring import Services, build_services

FOLDER = "evals"


def folder_of(settings: Settings, data: DataSet) -> Path:
    """Where in the home the index of this data and what was found out are kept, for the next run."""
    return settings.index.home / FOLDER / data.digest[:16]


@asynccontextmanager
async def services_apart(
    settings: Settings, folder: Path, collection: str | None, fits: Fits | None = None
) -> AsyncIterator[tuple[Services, DataSet, Path]]:
    """With the data in `folder`, and where what is found out of it is kept.

    The index is a new one of that data, or with a `collection` the user's own. Scores are remembered within this run
    alone: one that an earlier request has paid for would seem to cost nothing.
    """
    data = DataSet(folder)
    kept = folder_of(settings, data)
    ranking = msgspec.structs.replace(settings.ranking, cache="memory")
    settings = msgspec.structs.replace(settings, ranking=ranking)
    services = build_services(settings, index_home=None if collection else kept, fits=fits)
    try:
        yield services, data, kept
    finally:
        await services.close()
