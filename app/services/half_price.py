"""Use case: have many texts answered in a backend's batches, which take up to a day and cost half.

What was submitted is in a file, and is written there before it is submitted: whoever is killed in between finds the
batch by its label, and nothing is submitted twice. Texts have places, which stay the same from run to run.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from app.backends.base import (
    BatchModel,
    Call,
    ChatRequest,
    Meter,
    Reply,
    Target,
    call_of,
    tokens_of,
    tokens_of_prompt,
    worst_of_chat,
)
from app.backends.client import BackendClient
from app.backends.router import NONE
from app.domain import ANONYMOUS, BackendUse, TokenCount
from app.errors import InvalidRequest, MissingCapability, UpstreamError, UpstreamUnavailable
from app.services.batches import Judged, Outcome

Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)

BATCH_TEXTS = 5_000
BATCH_TOKENS = 3_000_000
"""Of all their requests: about 12 MB; a batch may have 20."""

BATCHES_AT_ONCE = 10

FIRST_LOOK_S, LONGEST_LOOK_S = 2.0, 60.0
"""Between two looks at a batch."""

_CALL_S = 300.0
"""What a call about a batch may take; replies to thousands of texts come in one."""


class PlacedText(msgspec.Struct, frozen=True):
    """A text, its id, and its place among all of its file."""

    id: int | str
    text: str
    at: int


class Submitted(msgspec.Struct, kw_only=True):
    """A batch: the texts at these places, of so many requests each. `name` is the server's; "" until it says so."""

    label: str
    places: list[int]
    counts: list[int]
    name: str = ""


class Plan(msgspec.Struct, kw_only=True):
    """What has been submitted and not been collected, of the run with this `token`, at this backend."""

    token: str
    backend: str
    batches: list[Submitted] = []


class PatientJudge(Protocol[ResultOut]):
    """Judges a text by requests, the replies to which may come tomorrow, to another process."""

    def requests(self, text: str) -> Sequence[ChatRequest]:
        """As many for the same text each time; none for one that needs no model. Raises InvalidRequest."""
        ...

    def read(self, text: str, replies: Sequence[Reply], backend: str) -> ResultOut:
        """What the replies to `requests` say of it. Raises UpstreamBadReply."""
        ...


class HalfPrice(Generic[Result]):
    """Collects the replies of one backend for a judge, for calls of that `stage`. `file` holds the plan."""

    def __init__(
        self,
        client: BackendClient,
        meter: Meter,
        file: Path,
        token: str,
        stage: str,
        judge: PatientJudge[Result],
        *,
        batch_texts: int = BATCH_TEXTS,
        batch_tokens: int = BATCH_TOKENS,
        first_look_s: float = FIRST_LOOK_S,
    ) -> None:
        """Raises MissingCapability."""
        if client.adapter.batches is None:
            raise MissingCapability(f"the backend {client.name!r} has no batches; Gemini with an api_key has")
        self._client, self._meter, self._stage, self._judge = client, meter, stage, judge
        self._batch_texts, self._batch_tokens, self._first_look_s = batch_texts, batch_tokens, first_look_s
        self._model: BatchModel = client.adapter.batches
        self._file = file
        self._plan = _read(file, token, client.name)
        self._known = {batch.label for batch in self._plan.batches}

    async def outcomes(self, texts: AsyncGenerator[PlacedText, None]) -> AsyncGenerator[Outcome[Result], None]:
        """In the order of the texts, each as soon as its batch is done. Raises UpstreamError, BudgetExceeded.

        Stopping it leaves the batches to the next run.
        """
        while taken := await self._take(texts):
            sizes, settled = self._sized(taken.values())
            batches = self._planned(sizes)
            for batch in batches:
                await self._submit(batch, taken)
            left = deque(taken.values())
            for batch in batches:
                replies = iter(await self._replies(batch))
                own = {at: list(islice(replies, count)) for at, count in zip(batch.places, batch.counts, strict=True)}
                while left and left[0].at <= batch.places[-1]:
                    text = left.popleft()
                    yield settled.get(text.at) or await self._outcome(text, own[text.at])
                self._forget(batch)
            for text in left:
                yield settled[text.at]

    def _sized(self, texts: Iterable[PlacedText]) -> tuple[dict[int, list[int]], dict[int, Outcome[Result]]]:
        """By place, the tokens of each of its requests; and the outcomes of those for which there are none."""
        sizes: dict[int, list[int]] = {}
        settled: dict[int, Outcome[Result]] = {}
        for text in texts:
            try:
                if own := [_size(request) for request in self._judge.requests(text.text)]:
                    sizes[text.at] = own
                else:
                    settled[text.at] = Outcome(id=text.id, judged=self._judged(text, (), NONE.name))
            except InvalidRequest as exc:
                settled[text.at] = Outcome(id=text.id, error=exc)
        return sizes, settled

    async def _take(self, texts: AsyncGenerator[PlacedText, None]) -> dict[int, PlacedText]:
        """The next texts by place: those of some batches, and all of those that are submitted already."""
        taken: dict[int, PlacedText] = {}
        last = max((batch.places[-1] for batch in self._plan.batches), default=-1)
        async for text in texts:
            taken[text.at] = text
            if len(taken) >= BATCHES_AT_ONCE * self._batch_texts and text.at >= last:
                break
        return taken

    def _planned(self, sizes: dict[int, list[int]]) -> list[Submitted]:
        """The batches of the texts at these places, old ones and new ones, in order; they are in the file."""
        if not sizes:
            return []
        batches = self._plan.batches = [batch for batch in self._plan.batches if batch.places[-1] >= min(sizes)]
        covered = {place for batch in batches for place in batch.places}
        new = {place: size for place, size in sizes.items() if place not in covered}
        for places in _portions(new, self._batch_texts, self._batch_tokens):
            counts = [len(sizes[place]) for place in places]
            batches.append(Submitted(label=f"winnow-{self._plan.token}-{places[0]}", places=places, counts=counts))
        batches.sort(key=lambda batch: batch.places[0])
        self._save()
        return [*batches]

    async def _submit(self, batch: Submitted, taken: dict[int, PlacedText]) -> None:
        """Unless it has been."""
        if not batch.name and batch.label in self._known:
            batch.name = await self._model.find(batch.label, _CALL_S) or ""
        if not batch.name:
            requests = [request for place in batch.places for request in self._judge.requests(taken[place].text)]
            worst = sum(map(worst_of_chat, requests), TokenCount())
            charge = await self._meter.begin(self._target, self._call(), worst)
            outcome = "ok"
            try:
                batch.name = await self._model.submit(requests, batch.label, _CALL_S)
            except UpstreamError as exc:
                outcome = exc.code
                raise
            finally:
                await charge.end(None, outcome=outcome, requests=1)
        self._save()

    async def _replies(self, batch: Submitted) -> Sequence[Reply | UpstreamError]:
        """Wait for them. Raises UpstreamError; a batch that failed as a whole is forgotten."""
        pause_s = self._first_look_s
        while True:
            try:
                job = await self._model.look(batch.name, _CALL_S)
            except UpstreamError as exc:
                if not exc.retryable:
                    raise
            else:
                if job.replies is not None and len(job.replies) == sum(batch.counts):
                    return job.replies
                if job.failed or job.replies is not None:
                    self._forget(batch)
                    why = job.failed or f"{self._client.name}: the batch has not as many replies as requests"
                    raise UpstreamUnavailable(self._client.name, f"{why}; the next run submits these texts again")
            await asyncio.sleep(pause_s)
            pause_s = min(1.5 * pause_s, LONGEST_LOOK_S)

    async def _outcome(self, text: PlacedText, replies: Sequence[Reply | UpstreamError]) -> Outcome[Result]:
        """Booked at half the price, when it is collected; the money is spent, whatever the budgets say by now."""
        call = self._call()
        for reply in replies:
            charge = await self._meter.begin(self._target, call, TokenCount())
            outcome = reply.code if isinstance(reply, UpstreamError) else "ok"
            await charge.end(reply.tokens, outcome=outcome, requests=1)
        good = [reply for reply in replies if isinstance(reply, Reply)]
        error = next((reply for reply in replies if isinstance(reply, UpstreamError)), None)
        if error is None:
            try:
                judged = self._judged(text, good, self._client.name)
                return Outcome(id=text.id, judged=judged, usage=call.account.usage())
            except UpstreamError as exc:
                error = exc
        return Outcome(id=text.id, error=error, usage=call.account.usage())

    def _judged(self, text: PlacedText, replies: Sequence[Reply], backend: str) -> Judged[Result]:
        model = self._client.model if replies else ""
        use = BackendUse(requested=self._client.name, used=backend, model=model or None)
        return Judged(result=self._judge.read(text.text, replies, backend), backend=use)

    @property
    def _target(self) -> Target:
        return Target(backend=self._client.name, model=self._client.model, batch=True)

    def _call(self) -> Call:
        return call_of(self._stage, _CALL_S, ANONYMOUS)

    def _forget(self, batch: Submitted) -> None:
        self._plan.batches.remove(batch)
        self._save()

    def _save(self) -> None:
        """In one step."""
        if not self._plan.batches:
            self._file.unlink(missing_ok=True)
            return
        temporary = self._file.with_name(self._file.name + ".new")
        temporary.write_bytes(msgspec.json.encode(self._plan))
        temporary.replace(self._file)


def _size(request: ChatRequest) -> int:
    """Of all that is sent: a long system prompt or many labels come with each text anew."""
    schema = msgspec.json.encode(request.schema).decode() if request.schema else ""
    return tokens_of_prompt(request.messages) + tokens_of(schema)


def _portions(sizes: dict[int, list[int]], most_texts: int, most_tokens: int) -> Iterator[list[int]]:
    """The places of each batch; the requests of a text are in one."""
    places: list[int] = []
    tokens = 0
    for place, own in sizes.items():
        if places and (len(places) >= most_texts or tokens + sum(own) > most_tokens):
            yield places
            places, tokens = [], 0
        places.append(place)
        tokens += sum(own)
    if places:
        yield places


def _read(file: Path, token: str, backend: str) -> Plan:
    """What an earlier run of the same kind has left."""
    try:
        plan = msgspec.json.decode(file.read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError):
        return Plan(token=token, backend=backend)
    return plan if (plan.token, plan.backend) == (token, backend) else Plan(token=token, backend=backend)
