"""Batches at half the price, by the real SDK on a server of Gemini's protocol: submit, wait, collect, resume."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.domain import ChatTask, ClassifyOptions, Label
from app.errors import InvalidRequest, MissingCapability, Refused, UpstreamUnavailable
from app.services.half_price import HalfPrice, PatientJudge, PlacedText
from app.services.translate import TranslateOptions, Translation
from app.wiring import Services
from tests.fakes.gemini_server import GeminiServer, Said
from tests.fakes.labelling_mind import labels_of
from tests.fakes.models import gemini, openai_style, services_for
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.translating_mind import backwards, translates

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[GeminiServer]:
    async with GeminiServer() as server:
        yield server


@pytest.fixture
async def services(server: GeminiServer, tmp_path: Path) -> AsyncIterator[Services]:
    services = services_for(tmp_path, {"flash": gemini(server)})
    yield services
    await services.close()


class Desk:
    """Runs over the same texts; each one begins anew, as after a kill."""

    def __init__(self, services: Services, file: Path, texts: int) -> None:
        self.services, self.file = services, file
        self.judge: PatientJudge[Any] | None = None
        self.batch_tokens = 10**6
        self.texts = [PlacedText(f"t{at}", f"text {at}", at) for at in range(texts)]

    async def later(self, run: str = "one") -> HalfPrice:
        client = (await self.services.clients())["flash"]
        judge = self.judge or await self.services.chat_service.judge(ChatTask(messages=(), system="Be brief."))
        meter = self.services.accounts.meter
        return HalfPrice(
            client,
            meter,
            self.file,
            run,
            "chat",
            judge,
            batch_texts=4,
            batch_tokens=self.batch_tokens,
            first_look_s=0.001,
        )

    async def given(self, first: int) -> AsyncGenerator[PlacedText, None]:
        for text in self.texts[first:]:
            yield text

    async def run(self, first: int = 0, most: int = 10**6, run: str = "one") -> list[Any]:
        """The outcomes from `first` on, at most so many."""
        outcomes = (await self.later(run)).outcomes(self.given(first))
        found: list[Any] = []
        async for outcome in outcomes:
            found.append(outcome)
            if len(found) == most:
                break
        await outcomes.aclose()
        return found


@pytest.fixture
def desk(services: Services, tmp_path: Path) -> Desk:
    return Desk(services, tmp_path / "plan.json", 10)


async def test_each_text_gets_its_reply_for_half_the_price(desk: Desk, server: GeminiServer) -> None:
    """In order, out of several batches; the ledger has each at half the price."""
    server.looks = 2
    outcomes = await desk.run()
    assert [outcome.id for outcome in outcomes] == [text.id for text in desk.texts]
    assert [outcome.judged.result.text for outcome in outcomes] == [f"You said: text {at}" for at in range(10)]
    assert [len(batch.replies) for batch in server.batches] == [4, 4, 2]
    assert server.batched[0].body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    told_input = sum(call.told.input for call in server.batched)
    told_output = sum(call.told.output for call in server.batched)
    cost_usd = (told_input * 0.25e-6 + told_output * 1.5e-6) / 2
    assert sum(outcome.usage.cost_usd for outcome in outcomes) == pytest.approx(cost_usd)
    usage = desk.services.accounts.usage(group_by="stage")
    assert usage.total.cost_usd == pytest.approx(cost_usd)
    assert usage.total.input_tokens == told_input
    assert not desk.file.exists()


async def test_a_batch_holds_no_more_than_a_request_may(desk: Desk, server: GeminiServer) -> None:
    """With each text the system prompt is sent anew, and counts."""
    desk.judge = await desk.services.chat_service.judge(ChatTask(messages=(), system="Be brief. " * 100))
    desk.batch_tokens = 600
    assert len(await desk.run()) == 10
    assert [len(batch.replies) for batch in server.batches] == [2] * 5


async def test_a_run_that_was_killed_goes_on_with_the_same_batches(desk: Desk, server: GeminiServer) -> None:
    """Wherever it had come to: nothing is submitted twice, and each text comes once."""
    first = await desk.run(most=6)
    assert len(server.batches) == 3
    rest = await desk.run(first=6)
    assert [outcome.id for outcome in (*first, *rest)] == [text.id for text in desk.texts]
    assert len(server.batches) == 3
    assert not desk.file.exists()


async def test_a_batch_of_which_the_name_was_never_heard_is_found(desk: Desk, server: GeminiServer) -> None:
    """A kill between submitting and writing the name down costs nothing."""
    await desk.run(most=1)
    plan = msgspec.json.decode(desk.file.read_bytes())
    for batch in plan["batches"]:
        batch["name"] = ""
    desk.file.write_bytes(msgspec.json.encode(plan))
    assert len(await desk.run(first=1)) == 9
    assert len(server.batches) == 3


async def test_a_plan_of_another_run_is_none_of_ours(desk: Desk, server: GeminiServer) -> None:
    """Nor is a damaged one."""
    await desk.run(most=1)
    assert len(await desk.run(run="other")) == 10
    assert len(server.batches) == 6
    desk.file.write_bytes(b"{")
    assert len(await desk.run()) == 10


async def test_a_reply_that_is_none_is_an_error_of_its_text(desk: Desk, server: GeminiServer) -> None:
    """The others have theirs."""
    server.answers.append(Said(pieces=("",), finish="SAFETY"))
    outcomes = await desk.run()
    assert isinstance(outcomes[0].error, Refused)
    assert all(outcome.judged for outcome in outcomes[1:])


async def test_a_batch_that_failed_is_submitted_anew_by_the_next_run(desk: Desk, server: GeminiServer) -> None:
    """What came before it stays."""
    server.looks = 10**6
    running = asyncio.create_task(desk.run())
    async with asyncio.timeout(30):
        while len(server.batches) < 3:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.001)
    server.batches[0].failed = True
    server.looks = 0
    with pytest.raises(UpstreamUnavailable, match="next run"):
        await running
    for batch in server.batches[1:]:
        batch.looks = 0
    assert len(await desk.run()) == 10
    assert len(server.batches) == 4


async def test_a_backend_without_batches_is_refused(tmp_path: Path) -> None:
    """With who has some."""
    async with OpenAIServer() as server:
        services = services_for(tmp_path, {"own": openai_style(server)})
        client = (await services.clients())["own"]
        judge = await services.chat_service.judge(ChatTask(messages=()))
        with pytest.raises(MissingCapability, match="Gemini"):
            HalfPrice(client, services.accounts.meter, tmp_path / "plan", "one", "chat", judge)
        assert issubclass(MissingCapability, InvalidRequest)
        await services.close()


async def test_texts_are_translated_in_batches(desk: Desk, server: GeminiServer) -> None:
    """A long one in pieces of one batch, one without words by itself; a run that goes on reads the same replies."""
    server.mind = translates()
    desk.judge = await desk.services.translate_service.judge(TranslateOptions(target_language="Klingon"))
    long = "one sentence of this text. " * 300 + "\r\n\r\nthe end"
    texts = ["hello {name}", "{name}: 12", long, "good day", "a", "b", "ls", "```sh\nls\n```"]
    desk.texts = [PlacedText(at, text, at) for at, text in enumerate(texts)]
    first = await desk.run(most=3)
    rest = await desk.run(first=3)
    outcomes = [*first, *rest]
    expected = [text if at in (1, 7) else backwards(text) for at, text in enumerate(texts)]
    assert [outcome.judged.result for outcome in outcomes] == [Translation(translation=text) for text in expected]
    assert [outcome.judged.backend.used for outcome in outcomes] == [
        "none" if at in (1, 7) else "flash" for at in range(len(texts))
    ]
    pieces = [len(desk.judge.requests(text)) for text in texts]
    assert (pieces[2] > 1, [len(batch.replies) for batch in server.batches]) == (True, [sum(pieces[:5]), 2])
    assert [outcome.usage.requests for outcome in outcomes] == pieces


async def test_a_piece_without_a_translation_is_an_error_of_its_text(desk: Desk, server: GeminiServer) -> None:
    """What the other pieces cost is counted all the same."""
    server.mind = translates()
    desk.judge = await desk.services.translate_service.judge(TranslateOptions(target_language="Klingon"))
    desk.texts = [PlacedText(0, "one sentence of this text. " * 300, 0), PlacedText(1, "good", 1)]
    server.answers.append(Said(pieces=("",), finish="SAFETY"))
    outcomes = await desk.run()
    assert isinstance(outcomes[0].error, Refused)
    assert (outcomes[0].usage.requests, outcomes[1].judged.result.translation) == (3, "doog")


async def test_texts_are_classified_in_batches(desk: Desk, server: GeminiServer) -> None:
    """One in each request; a text without a character is an error at its place, and is not submitted."""
    server.mind = labels_of()
    labels = (Label(name="POSITIVE"), Label(name="NEGATIVE"))
    desk.judge = await desk.services.classify_service.judge(ClassifyOptions(labels=labels))
    texts = ["good", " ", "bad", "good", "good", "bad", ""]
    desk.texts = [PlacedText(at, text, at) for at, text in enumerate(texts)]
    outcomes = await desk.run()
    assert [outcome.judged and outcome.judged.result.label for outcome in outcomes] == [
        {"good": "POSITIVE", "bad": "NEGATIVE"}.get(text) for text in texts
    ]
    assert [type(outcome.error) for outcome in outcomes if outcome.error] == [InvalidRequest] * 2
    assert [len(batch.replies) for batch in server.batches] == [4, 1]
