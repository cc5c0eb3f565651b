"""Backends side by side, over fake servers on real sockets."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from app.backends.settings import BackendSettings, BudgetSettings, PriceSettings
from app.domain import BackendUse, Fallback
from app.errors import BudgetExceeded, InvalidRequest, MissingCapability, UnknownBackend
from app.evaluation.data import DataSet
from app.evaluation.evaluation import NotMeasured, NotServed, check_measured, check_served, evaluate, limit_of
from app.evaluation.models import BackendReport, EvalOptions, EvaluationProgress, Fate, Report
from app.evaluation.runner import ShowProgress, index_documents, show_nothing
from indexing.errors import CollectionNotFound
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.beir import CORPUS, KNOWING, PLACES, beir_folder, evaluating
from tests.fakes.embedder import HashEmbedder
from tests.fakes.faults import Fault
from tests.fakes.models import openai_style
from tests.fakes.openai_model import FakeModel
from tests.fakes.openai_server import OpenAIServer

pytestmark = pytest.mark.anyio

ASKED = re.compile(r"tower of (\w+)\?")
BATCH = "/v1/chat/completions/batch"

GEMMA = EvalOptions(backends=("gemma",), concurrency=1)
ANSWERED = EvalOptions(answers=True, concurrency=1)


def scorer(**fields: object) -> OpenAIServer:
    return OpenAIServer(model=FakeModel(name="gemma-3", likely=KNOWING, mind=AnsweringModel()), **fields)  # type: ignore[arg-type]


async def run(
    tmp_path: Path,
    backends: Mapping[str, BackendSettings],
    options: EvalOptions = GEMMA,
    show: ShowProgress = show_nothing,
    embedder: HashEmbedder | None = None,
    **files: str | list[dict[str, str]],
) -> Report:
    data = DataSet(beir_folder(tmp_path / "data", **files))
    async with evaluating(tmp_path, backends, embedder=embedder) as services:
        return await evaluate(services, data, options, tmp_path / "run", show)


def means(report: BackendReport) -> dict[str, float]:
    return {measure: round(found.mean, 3) for measure, found in report.measures.items()}


async def test_a_backend_stands_beside_the_baseline(tmp_path: Path) -> None:
    """Quality with its gain, what it took, and what it cost; a backend that is named twice is asked once."""
    async with scorer() as server:
        options = msgspec.structs.replace(GEMMA, backends=("gemma", "none", "gemma", "extractive"))
        priced = msgspec.structs.replace(openai_style(server), price=PriceSettings(input=1.0, output=2.0))
        found = await run(tmp_path, {"gemma": priced}, options)
    none, gemma = found.backends
    assert (none.backend, gemma.backend, gemma.model) == ("none", "gemma", "gemma-3")
    assert (none.questions, none.requests, none.cost_usd, none.gains) == (8, 0, 0.0, {})
    assert means(gemma)["nDCG@10"] > means(none)["nDCG@10"]
    gain = gemma.gains["nDCG@10"]
    assert gain.mean == pytest.approx(gemma.measures["nDCG@10"].mean - none.measures["nDCG@10"].mean)
    assert gain.low <= gain.mean <= gain.high
    assert "degraded" not in gemma.gains
    assert gemma.requests == 8
    assert gemma.cost_usd == pytest.approx((gemma.input_tokens + 2 * gemma.output_tokens) / 1e6)
    assert gemma.usd_per_1000 == pytest.approx(1000 * gemma.cost_usd / 8)
    assert none.latency_ms.keys() == {"total"}
    assert gemma.latency_ms.keys() == {"rank", "total"}
    assert (found.documents, found.answerable, found.unanswerable) == (len(CORPUS), 8, 0)


async def test_recall_is_told_from_ranking(tmp_path: Path) -> None:
    """Every judged question has one fate; a model that reads turns passages that nobody read into right ones."""
    async with scorer() as server:
        found = await run(tmp_path, {"gemma": openai_style(server)})
    none, gemma = ({fate: int(of["count"]) for fate, of in one.fates.items()} for one in found.backends)
    assert sum(none.values()) == sum(gemma.values()) == 8
    assert none["misjudged"] == gemma["not_read"] == 0
    assert none["not_found"] == gemma["not_found"]
    assert gemma["right"] > none["right"]
    assert found.backends[1].fates["right"]["share"] == gemma["right"] / 8


@pytest.mark.parametrize(
    ("fates", "limit"),
    [
        ({"right": 9}, None),
        ({"right": 9, "not_found": 2, "misjudged": 1}, "recall"),
        ({"not_found": 2, "misjudged": 1, "not_read": 2}, "ranking"),
    ],
)
def test_the_limit_is_what_loses_more(fates: dict[Fate, int], limit: str | None) -> None:
    """Answers that are no candidates, against those that are candidates and not first."""
    assert limit_of(fates) == limit


async def test_questions_can_be_expanded(tmp_path: Path) -> None:
    """Its cost counts, once; a later run without it asks anew."""
    async with scorer() as server:
        backends = {"gemma": openai_style(server)}
        plain = await run(tmp_path, backends, EvalOptions(concurrency=1))
        expanded = await run(tmp_path, backends, EvalOptions(concurrency=1, expand_query="multi"))
        answered = await run(tmp_path, backends, msgspec.structs.replace(ANSWERED, expand_query="multi"))
    assert [one.backends[0].requests for one in (plain, expanded, answered)] == [0, 8, 12]


async def test_answers_are_judged(tmp_path: Path) -> None:
    """Against right answers, by their quotes and citations, and by silence where there is nothing to say."""
    async with scorer() as server:
        options = msgspec.structs.replace(ANSWERED, backends=("gemma",))
        found = await run(tmp_path, {"gemma": openai_style(server)}, options)
        _, gemma = found.backends
        assert (found.answerable, found.unanswerable, gemma.questions) == (8, 4, 12)
        measures = means(gemma)
        assert measures["quotes verbatim"] == 1.0
        assert measures["citation recall"] == measures["citation precision"] == 1.0
        assert measures["exact match"] == 0.0 < measures["F1"] < 1.0
        assert measures["gold in a quote"] > 0.5
        assert {"abstained, answerable", "abstained, unanswerable"} <= measures.keys()
        assert gemma.answered_by == {"gemma": 12}
        assert gemma.gate is not None
        assert (gemma.gate.answerable, gemma.gate.unanswerable) == (8, 4)
        assert 0.0 <= gemma.gate.auroc <= 1.0
        # The answer's own search is not paid for again.
        assert gemma.requests == 24


async def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Nothing is asked twice, neither of the model nor of the embedder; the report is that of an unbroken run."""
    told: list[EvaluationProgress] = []

    def kill(progress: EvaluationProgress) -> None:
        told.append(progress)
        if progress.step == "gemma" and progress.done == 5:
            raise RuntimeError("killed")

    embedder = HashEmbedder()
    async with scorer() as server:
        backends = {"gemma": openai_style(server)}
        with pytest.raises(RuntimeError, match="killed"):
            await run(tmp_path, backends, show=kill, embedder=embedder)
        embedded, asked = len(embedder.embedded), told[-1]
        found = await run(tmp_path, backends, embedder=embedder)
        assert (asked.done, asked.total) == (5, 8)
        assert len(embedder.embedded) == embedded
        bodies = [json.dumps(body) for body in server.bodies(BATCH)]
        queries = [named[1] for body in bodies if (named := ASKED.search(body))]
        unbroken = await run(tmp_path, backends, msgspec.structs.replace(GEMMA, fresh=True))
    assert found.backends[1].requests == 8
    assert sorted(queries) == sorted(PLACES)
    assert [means(one) for one in found.backends] == [means(one) for one in unbroken.backends]


async def test_more_questions_ask_only_for_more(tmp_path: Path) -> None:
    """What was asked of a smaller sample counts in a larger one; another setting begins anew."""
    steps: list[EvaluationProgress] = []
    few = msgspec.structs.replace(ANSWERED, questions=2)
    await run(tmp_path, {}, few)
    await run(tmp_path, {}, msgspec.structs.replace(few, questions=8), steps.append)
    first = next(progress for progress in steps if progress.step == "none")
    assert (first.done, first.total) == (4, 12)
    steps.clear()
    await run(tmp_path, {}, msgspec.structs.replace(few, k=30), steps.append)
    assert next(progress for progress in steps if progress.step == "none").done == 0


async def test_a_backend_that_is_down_is_no_bad_backend(tmp_path: Path) -> None:
    """Its questions are counted as failed and asked again; what fails by its own fault is a part of how it does."""
    server = scorer()
    async with server:
        backends = {"gemma": openai_style(server)}
    found = await run(tmp_path, backends)
    assert (found.backends[1].questions, sum(found.backends[1].failed.values())) == (0, 8)
    async with scorer() as again:
        found = await run(tmp_path, {"gemma": openai_style(again)})
    assert (found.backends[1].questions, found.backends[1].failed) == (8, {})


def test_who_was_served_by_someone_else() -> None:
    """A spent budget ends the run, what may pass is asked again, the rest stands."""

    def use(reason: str) -> BackendUse:
        return BackendUse(requested="m", used="none", fallbacks=(Fallback(backend="m", reason=reason),))

    with pytest.raises(BudgetExceeded):
        check_served(use("over_budget"))
    for reason in ("resting", "unavailable", "rate_limited", "rejected", "overloaded"):
        with pytest.raises(NotServed) as raised:
            check_served(use(reason))
        assert raised.value.code == reason
    for reason in ("timeout", "bad_reply", "refused", "cannot"):
        check_served(use(reason))


async def test_a_timeout_is_a_part_of_the_figures(tmp_path: Path) -> None:
    """A backend that does not rank in time leaves the order of retrieval, and its share is told."""
    async with scorer() as server:
        told = msgspec.structs.replace(openai_style(server), timeout_s=0.1)
        server.slow_s = 5.0
        data = DataSet(beir_folder(tmp_path / "data"))
        async with evaluating(tmp_path, {"gemma": told}) as services:
            await (await services.pool.get()).router.clients["gemma"].known(5.0)
            server.choose = lambda: Fault.SLOW_FIRST_BYTE
            found = await evaluate(services, data, EvalOptions(backends=("gemma",), questions=1), tmp_path / "run")
    none, gemma = found.backends
    assert means(gemma)["degraded"] == 1.0
    assert gemma.measures["nDCG@10"] == none.measures["nDCG@10"]
    with pytest.raises(NotMeasured, match="100% of the results of gemma are degraded"):
        check_measured(msgspec.structs.replace(found, backends=(none, msgspec.structs.replace(gemma, requests=1))))
    with pytest.raises(NotMeasured, match="gemma was never asked"):
        check_measured(msgspec.structs.replace(found, backends=(none, msgspec.structs.replace(gemma, requests=0))))


async def test_a_spent_budget_ends_the_run(tmp_path: Path) -> None:
    """What is there is kept, and the error says what to do; with more money the same command goes on."""
    async with scorer() as server:
        told = msgspec.structs.replace(openai_style(server), price=PriceSettings(input=1000.0, output=1000.0))
        data = DataSet(beir_folder(tmp_path / "data"))
        async with evaluating(tmp_path, {"gemma": told}, budgets=BudgetSettings(daily_usd=4.0)) as services:
            with pytest.raises(BudgetExceeded, match=r"of 8 questions are kept: raise the budget"):
                await evaluate(services, data, GEMMA, tmp_path / "run")
        steps: list[EvaluationProgress] = []
        found = await run(tmp_path, {"gemma": told}, show=steps.append)
    assert next(progress for progress in steps if progress.step == "gemma").done > 0
    assert found.backends[1].questions == 8


async def test_a_collection_of_ones_own_is_asked(tmp_path: Path) -> None:
    """Nothing is indexed; one that is not there is told before any question."""
    folder = beir_folder(tmp_path / "data")
    (folder / "corpus.jsonl").unlink()
    async with evaluating(tmp_path) as services:
        whole = DataSet(beir_folder(tmp_path / "whole"))
        await index_documents(services, "mine", whole.documents)
        found = await evaluate(services, DataSet(folder), EvalOptions(collection="mine"), tmp_path / "run")
        assert means(found.backends[0])["recall@20"] == 1.0
        assert found.documents is None
        with pytest.raises(CollectionNotFound):
            await evaluate(services, DataSet(folder), EvalOptions(collection="other"), tmp_path / "run")


async def test_what_the_corpus_lacks_is_told(tmp_path: Path) -> None:
    """A note for judgements of unknown documents and documents without text; an error for two questions of one name."""
    found = await run(tmp_path, {}, EvalOptions(), qrels="q-Ulm\ttower-Ulm\t1\nq-Ulm\tgone\t1\n")
    assert found.notes == ("1 of 2 relevant documents are not in the corpus and cannot be found",)
    found = await run(tmp_path, {}, EvalOptions(), corpus=[*CORPUS, {"_id": "empty", "text": " "}])
    assert found.notes == (f"1 of {len(CORPUS) + 1} documents have no text and are not indexed",)
    with pytest.raises(InvalidRequest, match="same _id"):
        await run(tmp_path, {}, ANSWERED, unanswerable='{"_id": "q-Ulm", "text": "x"}\n')


async def test_answers_need_no_judgements(tmp_path: Path) -> None:
    """With right answers alone there are figures for answers, and none for retrieval."""
    folder = beir_folder(tmp_path / "data")
    (folder / "qrels.tsv").unlink()
    async with evaluating(tmp_path) as services:
        found = await evaluate(services, DataSet(folder), ANSWERED, tmp_path / "run")
        assert "nDCG@10" not in found.backends[0].measures
        assert found.backends[0].measures["F1"].n == 8
        with pytest.raises(InvalidRequest, match=r"has no qrels\.tsv or qrels/test\.tsv"):
            await evaluate(services, DataSet(folder), EvalOptions(), tmp_path / "run")


@pytest.mark.parametrize(("backend", "error"), [("nobody", UnknownBackend), ("plain", MissingCapability)])
async def test_who_cannot_rank_is_refused(tmp_path: Path, backend: str, error: type[Exception]) -> None:
    """By name, and before anything is asked of the others."""
    async with scorer(dialect="openai", lacks=frozenset(("logprobs", "structured"))) as server:
        with pytest.raises(error):
            await run(tmp_path, {"plain": openai_style(server)}, EvalOptions(backends=(backend,)))


async def test_cancelling_leaves_nothing_running(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends all calls that are under way."""
    async with scorer() as server:
        data = DataSet(beir_folder(tmp_path / "data"))
        async with evaluating(tmp_path, {"gemma": openai_style(server)}) as services:
            await (await services.pool.get()).router.clients["gemma"].known(5.0)
            server.choose, server.slow_s = lambda: Fault.SLOW_FIRST_BYTE, 30.0
            options = EvalOptions(backends=("gemma",), concurrency=3)
            work = asyncio.ensure_future(evaluate(services, data, options, tmp_path / "run"))
            await server.until_busy(3)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            await server.until_busy(0)
