"""Calibrating a backend, over fake servers on real sockets."""

import asyncio
import json
import math
import re
from pathlib import Path

import msgspec
import pytest

from app.backends.settings import BudgetSettings, PriceSettings
from app.domain import ANONYMOUS, Query, SearchResult
from app.errors import BudgetExceeded, InvalidRequest, MissingCapability, UnknownBackend
from app.evaluation.calibration import CalibrationReport, Graded, calibrate, held_out
from app.evaluation.data import DataSet
from app.evaluation.models import CalibrateOptions, EvaluationProgress
from app.ranking.calibration import FITS_FILE, read_fits
from app.ranking.models import Calibration
from app.ranking.prompts import PROMPT_VERSION
from app.ranking.scoring import score_of
from tests.fakes.beir import CORPUS, KNOWING, PLACES, QRELS, beir_folder, evaluating
from tests.fakes.gemini_requests import text_of
from tests.fakes.gemini_server import Call, GeminiServer, Said
from tests.fakes.models import BRISK, gemini, openai_style
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = [pytest.mark.anyio, pytest.mark.numeric]

GEMMA = CalibrateOptions(backend="gemma", depth=20, concurrency=1)
FRESH = msgspec.structs.replace(GEMMA, fresh=True)


class KnowingJudge(GeminiServer):
    """Finds those passages good that are golden."""

    def _saying(self, call: Call) -> Said:
        if self.answers:
            return self.answers.popleft()
        shown = re.findall(r"^\w+ \[(\d+)\] (.+)$", text_of(call.body["contents"][-1]), re.MULTILINE)
        good = [int(number) for number, text in shown if "golden" in text]
        return Said(pieces=(json.dumps({"3": good, "2": [], "1": []}),))


def scorer(name: str = "gemma-3", **fields: object) -> OpenAIServer:
    return OpenAIServer(model=FakeModel(name=name, likely=KNOWING), **fields)  # type: ignore[arg-type]


async def fit(
    tmp_path: Path, server: OpenAIServer, options: CalibrateOptions = GEMMA, **files: str
) -> CalibrationReport:
    data = DataSet(beir_folder(tmp_path / "data", **files))
    async with evaluating(tmp_path, {"gemma": openai_style(server)}, fits={}) as services:
        return await calibrate(services, data, options, tmp_path / "run")


async def searched(tmp_path: Path, server: OpenAIServer) -> SearchResult:
    """By new services, with the calibrations of the home."""
    async with evaluating(tmp_path, {"gemma": openai_style(server)}) as services:
        [collection] = await (await services.store.get()).collections()
        return await services.searcher.search(
            Query(text="How high is the tower of Ulm?", collection=collection.name, backend="gemma", limit=16),
            ANONYMOUS,
        )


async def test_a_fit_is_kept_and_applied(tmp_path: Path) -> None:
    """Scores of the next services are those of the fit; the order stays, and so does another model's."""
    async with scorer() as server, scorer("another") as other:
        found = await fit(tmp_path, server)
        assert (found.model, found.prompt_version, found.queries, found.failed) == ("gemma-3", PROMPT_VERSION, 8, 0)
        assert (found.fit.n, found.fit.positives) == (8 * 16, 8)
        assert found.fit.ece_after < found.fit.ece_before
        [kept] = read_fits(tmp_path / FITS_FILE)
        assert kept.fit == found.fit
        after, without = await searched(tmp_path, server), await searched(tmp_path, other)
    assert [hit.id for hit in after.results] == [hit.id for hit in without.results]
    for mine, plain in zip(after.results, without.results, strict=True):
        z = _logit(plain.score)
        assert score_of(z, Calibration()) == pytest.approx(plain.score)
        assert mine.score == pytest.approx(score_of(z, found.fit.calibration))
        assert mine.score != pytest.approx(plain.score)


async def test_a_judge_is_calibrated_too(tmp_path: Path) -> None:
    """A model without log-probabilities has z as well; the passages of a failed query are left out."""
    data = DataSet(beir_folder(tmp_path / "data"))
    async with KnowingJudge() as server, evaluating(tmp_path, {"flash": gemini(server)}, fits={}) as services:
        server.answers.append(Said(pieces=("I shall not",)))
        options = CalibrateOptions(backend="flash", depth=20, concurrency=1)
        found = await calibrate(services, data, options, tmp_path / "run")
    assert (found.model, found.failed) == (server.models[0], 1)
    assert found.fit.n == 7 * 16
    assert found.requests == 7


async def test_a_stopped_run_keeps_nothing_half_and_loses_nothing(tmp_path: Path) -> None:
    """Cancelled in the middle, no fit is kept; the next run asks for the rest alone and finds the same fit."""
    data = DataSet(beir_folder(tmp_path / "data"))

    def stop_at_three(progress: EvaluationProgress) -> None:
        if progress.step.startswith("grading") and progress.done == 3:
            raise asyncio.CancelledError

    async with scorer() as server:
        async with evaluating(tmp_path, {"gemma": openai_style(server)}, fits={}) as services:
            with pytest.raises(asyncio.CancelledError):
                await calibrate(services, data, GEMMA, tmp_path / "run", stop_at_three)
        assert not (tmp_path / FITS_FILE).exists()
        asked: list[int] = []
        async with evaluating(tmp_path, {"gemma": openai_style(server)}, fits={}) as services:
            found = await calibrate(
                services, data, GEMMA, tmp_path / "run", lambda progress: asked.append(progress.done)
            )
        whole = await fit(tmp_path, server, FRESH)
    assert 3 in asked
    assert 2 not in asked
    assert found.fit == whole.fit


async def test_the_cost_is_booked_in_the_home(tmp_path: Path) -> None:
    """The ledger knows the calls, under the name of the command."""
    data = DataSet(beir_folder(tmp_path / "data"))
    async with scorer() as server, evaluating(tmp_path, {"gemma": openai_style(server)}, fits={}) as services:
        found = await calibrate(services, data, GEMMA, tmp_path / "run")
        calls = {row.name: row.calls for row in services.accounts.usage(group_by="key").rows}
    assert calls["calibrate"] == found.requests


async def test_a_spent_budget_says_what_to_do(tmp_path: Path) -> None:
    """Nothing is fitted of less than was asked for."""
    dear = PriceSettings(input=1000.0, output=1000.0)
    data = DataSet(beir_folder(tmp_path / "data"))
    async with scorer() as server:
        told = openai_style(server, BRISK)
        backends = {"gemma": msgspec.structs.replace(told, price=dear)}
        budgets = BudgetSettings(daily_usd=4.0)
        async with evaluating(tmp_path, backends, budgets=budgets, fits={}) as services:
            with pytest.raises(BudgetExceeded, match=r"of 8 questions are kept"):
                await calibrate(services, data, GEMMA, tmp_path / "run")
    assert not (tmp_path / FITS_FILE).exists()


@pytest.mark.parametrize(
    ("backend", "error"),
    [
        ("nobody", UnknownBackend),
        ("none", MissingCapability),
        ("auto", MissingCapability),
        ("extractive", MissingCapability),
    ],
)
async def test_who_cannot_be_calibrated_is_refused_before_any_work(
    tmp_path: Path, backend: str, error: type[Exception]
) -> None:
    """A calibration belongs to one model."""
    async with scorer() as server:
        with pytest.raises(error, match="gemma"):
            await fit(tmp_path, server, CalibrateOptions(backend=backend))
    assert not (tmp_path / "apart" / "manifest.sqlite3").exists()


async def test_what_cannot_be_fitted_is_told(tmp_path: Path) -> None:
    """Nothing relevant in the corpus; a model that finds relevant what is not; a backend that is down."""
    async with scorer() as server:
        with pytest.raises(InvalidRequest, match="none of the relevant documents is in the corpus"):
            await fit(tmp_path, server, qrels="q-Ulm\tgone\t1\n")
        with pytest.raises(InvalidRequest, match="say nothing about relevance"):
            await fit(tmp_path, server, qrels=QRELS.replace("tower", "mayor"))
    with pytest.raises(InvalidRequest, match=r"no query could be graded \(.*unavailable\); `winnow doctor`"):
        await fit(tmp_path, server, FRESH)


async def test_a_large_corpus_is_cut(tmp_path: Path) -> None:
    """What is relevant is in it, and others up to the number that was asked for."""
    options = CalibrateOptions(backend="gemma", depth=20, passages=10, queries=5)
    async with scorer() as server:
        assert (await fit(tmp_path, server, options)).fit.n == 5 * 10
        assert len(CORPUS) > 10


def test_half_of_the_queries_is_held_out() -> None:
    """A fit on one half says how it does on the other; None where a half has nothing relevant."""
    graded = [
        Graded(id=place, zs=(2 + number / 10, -1.0, -3.0, 0.5), relevant=(True, False, False, number % 3 == 0))
        for number, place in enumerate(PLACES)
    ]
    found = held_out(graded, seed=1)
    assert found is not None
    assert found.n == 16
    assert found == held_out(graded, seed=1)
    assert held_out(graded[:1], seed=1) is None


def _logit(score: float) -> float:
    return math.log(score / (1 - score))
