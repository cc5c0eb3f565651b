"""The schedules over real protocols: before the simulated judge behind our fakes of the servers, or before a model.

Over the wire the clock is the real one, so that its seconds say nothing about a GPU: what counts is that every schedule
gives the same order as in process, through the real adapters, their bodies, their parsing and their label ids.
"""

import os
import string
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.backends.base import (
    Account,
    Adapter,
    Call,
    ChatRequest,
    Conversation,
    Deadline,
    LabelScorer,
    Message,
    Reply,
    Scoring,
)
from app.backends.client import BackendClient
from app.backends.registry import open_adapter
from app.backends.settings import BackendSettings, RoutingSettings
from app.errors import WinnowError
from benchmarks.rerank_data import RerankSet, Task
from benchmarks.rerank_judge import GRADINGS, SimulatedJudge
from benchmarks.rerank_opinion import SMALL, Opinion, Reader
from benchmarks.rerank_peers import NEED_LOGPROBS, PEERS, Schedule
from benchmarks.rerank_product import BY_JUDGE, BY_LABELS
from benchmarks.rerank_runs import result_of, run, table
from benchmarks.rerank_server import FLASH_LITE, INSTANT, SimulatedServer
from tests.fakes.gemini_refusals import KEY
from tests.fakes.gemini_server import MODEL as GEMINI_MODEL
from tests.fakes.gemini_server import Call as GeminiCall
from tests.fakes.gemini_server import GeminiServer, Said
from tests.fakes.meter import RecordingMeter
from tests.fakes.openai_model import FakeModel, Turns, text_of
from tests.fakes.openai_server import OpenAIServer

CONTEXT = 131_072


@dataclass
class ServedModel(FakeModel):
    """A model for `OpenAIServer` that answers with a simulated judge's opinion."""

    judge: SimulatedJudge | None = None

    def text(self, schema: Mapping[str, Any] | None, turns: Turns) -> str:
        if self.judge is None:  # while it is being probed
            return super().text(schema, turns)
        return self.judge.reply(ChatRequest(messages=_conversation(turns), schema=schema))

    def first_tokens(self, turns: Turns) -> dict[str, float]:
        if self.judge is None:
            return super().first_tokens(turns)
        prompt = _conversation(turns)
        count = self.judge.passages(prompt)
        labels = tuple(string.ascii_uppercase[:count]) if count > 1 else GRADINGS[0]
        return dict(zip(labels, self.judge.first_tokens(prompt, labels), strict=True))


class ServedGemini(GeminiServer):
    """A Gemini of the same opinion."""

    judge: SimulatedJudge | None = None

    def _saying(self, call: GeminiCall) -> Said:
        assert self.judge is not None
        turns = call.body["contents"]
        text = "".join(part.get("text", "") for part in turns[-1]["parts"])
        schema = call.body.get("generationConfig", {}).get("responseJsonSchema")
        request = ChatRequest(messages=(Message(role="user", content=text),), schema=schema)
        return Said(pieces=(self.judge.reply(request),))


class ClientPorts:
    """A backend with its limits and retries as ports."""

    def __init__(self, client: BackendClient) -> None:
        self._client = client

    @property
    def scorer(self) -> LabelScorer | None:
        return self if self._client.offers(frozenset(("logprobs",))) else None

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """Raises what the client raises."""
        return await self._client.complete(request, _call(timeout_s))

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Raises what the client raises."""
        return await self._client.score(prompts, labels, _call(timeout_s))


async def over_wire(of: RerankSet) -> str:
    """Every strategy by both protocols, against the judge in process."""
    model, gemini = ServedModel(context=CONTEXT), ServedGemini()
    openai = OpenAIServer(model=model)
    async with openai, gemini:
        vllm_settings = BackendSettings(kind="vllm", url=openai.url, timeout_s=600)
        gemini_settings = BackendSettings(kind="gemini", url=gemini.url, api_key=KEY, model=GEMINI_MODEL, timeout_s=600)
        async with open_client("vllm", vllm_settings) as client:
            by_labels = [
                await _compared(of, client, model, name, ranked, scores=True) for name, ranked in BY_LABELS.items()
            ]
        async with open_client("gemini", gemini_settings) as client:
            by_judge = [
                await _compared(of, client, gemini, name, ranked, scores=False) for name, ranked in BY_JUDGE.items()
            ]
    return "over the wire, the same order as in process:\n\n" + "\n".join(
        [*(f"    vllm    {row}" for row in by_labels), *(f"    gemini  {row}" for row in by_judge)]
    )


async def with_model(of: RerankSet, address: str, model: str | None) -> str:
    """What fits the backend at `address`, or Gemini with the key of the environment. One list after another."""
    async with open_client("real", real_settings(address, model, os.environ)) as client:
        ports = ClientPorts(client)
        scores = ports.scorer is not None
        peers = {name: peer for name, peer in PEERS.items() if scores or name not in NEED_LOGPROBS}
        schedules = {**peers, **(BY_LABELS if scores else BY_JUDGE)}
        results, failed = {}, []
        for name, schedule in schedules.items():
            try:
                results[name] = result_of(name, of, [[await run(schedule, ports, task) for task in of.tasks]])
            except WinnowError as exc:
                failed.append(f"{name} failed ({exc.code}): {exc}")
    shown = [table(results, next(iter(results)))] if results else []
    return "\n\n".join([f"{client.model}: {len(of.tasks)} queries, real seconds", *shown, *failed])


def real_settings(address: str, model: str | None, environ: Mapping[str, str]) -> BackendSettings:
    """`address` is gemini, or the root of an OpenAI-style API with its /v1, whose key is VLLM_API_KEY."""
    if address != "gemini":
        key = environ.get("VLLM_API_KEY")
        return BackendSettings(kind="vllm", url=address, api_key=key, model=model, timeout_s=600)
    key = environ.get("GEMINI_API_KEY") or environ.get("GOOGLE_API_KEY")
    return BackendSettings(kind="gemini", api_key=key, model=model, concurrency=FLASH_LITE.concurrency)


async def _compared(
    of: RerankSet,
    client: BackendClient,
    server: ServedModel | ServedGemini,
    name: str,
    schedule: Schedule,
    *,
    scores: bool,
) -> str:
    same = 0
    for task in of.tasks:
        judge = judge_of(of, task, scores=scores)
        server.judge = judge
        over = await run(schedule, ClientPorts(client), task)
        within = await run(schedule, judge, task)
        same += over.order == within.order
    return f"{name:18} {same} of {len(of.tasks)}"


def judge_of(of: RerankSet, task: Task, *, scores: bool) -> SimulatedJudge:
    """The first judge, that takes no time."""
    return SimulatedJudge(Opinion(task, of.top_grade, SMALL, 1), Reader(task), SimulatedServer(INSTANT), scores=scores)


@asynccontextmanager
async def open_client(name: str, settings: BackendSettings) -> AsyncGenerator[BackendClient, None]:
    """A backend that was probed, closed at the end."""
    adapter: Adapter = open_adapter(name, settings)
    try:
        client = BackendClient(name, settings, [adapter], RecordingMeter(keep=False), RoutingSettings())
        await client.replicas.first.discovery.probe()
        yield client
    finally:
        await adapter.aclose()


def _call(timeout_s: float) -> Call:
    return Call(stage="rank", deadline=Deadline(timeout_s), account=Account())


def _conversation(turns: Turns) -> Conversation:
    return tuple(Message(role=turn["role"], content=text_of(turn)) for turn in turns)
