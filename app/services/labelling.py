"""Use cases: classify texts with a caller's own labels, and moderate them by categories.

Both have a model label the texts, in the best way that it offers:

calibrated             by a decision model, a text a call: nothing is generated
by log-probabilities   each text in a prompt of its own, many prompts in a request where the server takes them
stated                 up to `MOST_TEXTS` texts in a prompt, as JSON: the rules are paid for once

Texts that are asked for at the same moment go together. One that a model leaves out, or for which it declines them all,
is asked for again by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic

import msgspec

from app.backends.base import Account, Call, Capability, ChatRequest, Deadline, Reply, tokens_of
from app.backends.client import BackendClient
from app.backends.router import Route, Router
from app.backends.settings import model_or_auto
from app.classification import (
    LETTERS,
    MOST_TEXTS,
    NO_YES,
    Judgement,
    Labelling,
    choice_prompt,
    decision_questions,
    judged_as_stated,
    judged_by_decision,
    judged_by_digits,
    judged_by_letter,
    label_prompt,
    labelling_of,
    stated_request,
)
from app.domain import BackendUse, Category, Classified, ClassifyOptions, Moderated, ModerateOptions, TokenCount
from app.errors import InvalidRequest, MissingCapability, PromptTooLong, Refused, UpstreamBadReply, WinnowError
from app.services.batches import Judged, Result
from app.text.fencing import DrawFence, clean, draw_fence, neutralise
from indexing.concurrency import BackgroundTasks, together

NEEDS: Sequence[frozenset[Capability]] = (
    frozenset(("decide",)),
    frozenset(("logprobs",)),
    frozenset(("chat", "structured")),
)
"""What a backend must offer, in any of the ways."""

TOGETHER_TOKENS = 2_000
"""Of all texts in one request for stated labels."""

Answers = Sequence[Judgement | None]
"""In the order of the texts; None where the model did not say."""

Way = Callable[[BackendClient, Sequence[str], Call, Deadline | None], Awaitable[Answers]]


class Labelled(msgspec.Struct, frozen=True):
    """A text's judgement, and the backend that gave it."""

    judgement: Judgement
    backend: BackendUse


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    text: str
    call: Call
    labelled: asyncio.Future[Labelled]


class Labeller:
    """Labels the texts of one request. `route` is that to the backends which can."""

    def __init__(self, route: Route, labelling: Labelling, fence: DrawFence = draw_fence) -> None:
        self._route, self._labelling, self._fence = route, labelling, fence
        self._line: list[_Waiting] = []
        self._asking = BackgroundTasks()

    async def label(self, text: str, call: Call) -> Labelled:
        """Raises InvalidRequest for a text without a character, and what the model's calls raise."""
        shown = _shown(text)
        loop = asyncio.get_running_loop()
        if not self._line:
            loop.call_soon(self._ask_all)  # when all that are being started at this moment are in the line
        waiting = _Waiting(shown, call, loop.create_future())
        self._line.append(waiting)
        return await waiting.labelled

    def request(self, text: str) -> ChatRequest:
        """For the stated labels of one text. Raises InvalidRequest."""
        shown = _shown(text)
        return stated_request(self._labelling, [shown], self._fence([shown]))

    def read(self, reply: Reply, backend: str) -> Judgement:
        """What the reply to `request` says. Raises UpstreamBadReply."""
        (judgement,) = judged_as_stated(reply.text, self._labelling, 1)
        if judgement is None:
            raise UpstreamBadReply(backend, f"{backend} gave the text none of the labels", tokens=reply.tokens)
        return judgement

    def _ask_all(self) -> None:
        line, self._line = self._line, []
        for block in _blocks(line):
            task = self._asking.start(self._ask(block))
            task.add_done_callback(partial(_end, block))
            for waiting in block:
                waiting.labelled.add_done_callback(partial(_leave, block, task))

    async def _ask(self, block: Sequence[_Waiting]) -> None:
        """Ask for all of them, and for what is left by itself."""
        left = [waiting for waiting in block if not waiting.labelled.done()]
        try:
            left = await self._ask_once(left)
        except (Refused, PromptTooLong, UpstreamBadReply) as exc:
            if len(left) == 1:
                _fail(left, exc)
                return
        except WinnowError as exc:
            _fail(left, exc)
            return
        for waiting in left:
            if not waiting.labelled.done():
                await self._ask_alone(waiting)

    async def _ask_alone(self, waiting: _Waiting) -> None:
        try:
            if await self._ask_once([waiting]):
                names = " and ".join(client.name for client in self._route.clients)
                raise UpstreamBadReply(names, f"{names} gave the text none of the labels")
        except WinnowError as exc:
            _fail([waiting], exc)

    async def _ask_once(self, block: Sequence[_Waiting]) -> list[_Waiting]:
        """Those that the model said nothing of. What it cost is split between them."""
        call = msgspec.structs.replace(block[0].call, account=Account())
        texts = [waiting.text for waiting in block]
        try:
            served = await self._route.first(call, lambda client, until: self._answers(client, texts, call, until))
        finally:
            _split(call.account, [waiting.call.account for waiting in block])
        left = []
        for waiting, judgement in zip(block, served.value, strict=True):
            if judgement is None:
                left.append(waiting)
            elif not waiting.labelled.done():
                waiting.labelled.set_result(Labelled(judgement, served.use))
        return left

    async def _answers(
        self, client: BackendClient, texts: Sequence[str], call: Call, failover_deadline: Deadline | None
    ) -> Answers:
        """The best way's, and for texts that it left open those of the next."""
        await client.known((failover_deadline or call.deadline).left())
        answers: list[Judgement | None] = [None] * len(texts)
        error = MissingCapability(f"the backend {client.name!r} cannot label texts: it offers neither {_NEITHER}")
        asked = False
        for way in self._ways(client):
            left = [at for at, answer in enumerate(answers) if answer is None]
            if not left:
                break
            try:
                found = await way(client, [texts[at] for at in left], call, failover_deadline)
            except MissingCapability as exc:
                error = exc
                continue
            except WinnowError:
                if len(left) == len(texts):
                    raise
                break  # what an earlier way said of the others is paid for, and good
            asked = True
            for at, answer in zip(left, found, strict=True):
                answers[at] = answer
        if not asked:
            raise error
        return answers

    def _ways(self, client: BackendClient) -> list[Way]:
        """One call for each label is worth it where tokens cost nothing; elsewhere only if there is no other way."""
        ways: list[Way] = []
        if client.offers(NEEDS[2]):
            ways.append(self._stated)
        if client.offers(NEEDS[1]) and (not self._labelling.exclusive or len(self._labelling.labels) <= len(LETTERS)):
            dear = not self._labelling.exclusive and not client.local
            ways.insert(len(ways) if dear else 0, self._scored)
        if client.offers(NEEDS[0]):
            ways.insert(0, self._decided)
        return ways

    async def _decided(
        self, client: BackendClient, texts: Sequence[str], call: Call, failover_deadline: Deadline | None
    ) -> Answers:
        questions = decision_questions(self._labelling)
        decisions = await together(client.decide(text, questions, call, failover_deadline) for text in texts)
        return [judged_by_decision(decision.answers, self._labelling) for decision in decisions]

    async def _scored(
        self, client: BackendClient, texts: Sequence[str], call: Call, failover_deadline: Deadline | None
    ) -> Answers:
        labelling, fence = self._labelling, self._fence(texts)
        if labelling.exclusive:
            prompts = [choice_prompt(labelling, text, fence) for text in texts]
            tokens: Sequence[str] = LETTERS[: len(labelling.labels)]
        else:
            prompts = [label_prompt(labelling, label, text, fence) for text in texts for label in labelling.labels]
            tokens = NO_YES
        try:
            scores = (await client.score(prompts, tokens, call, failover_deadline)).scores
        except MissingCapability:
            raise
        except InvalidRequest as exc:
            raise MissingCapability(f"the backend {client.name!r} cannot label texts: {exc}") from exc
        if labelling.exclusive:
            return [judged_by_letter(one) for one in scores]
        each = len(labelling.labels)
        return [judged_by_digits(scores[at : at + each]) for at in range(0, len(scores), each)]

    async def _stated(
        self, client: BackendClient, texts: Sequence[str], call: Call, failover_deadline: Deadline | None
    ) -> Answers:
        request = stated_request(self._labelling, texts, self._fence(texts))
        reply = await client.complete(request, call, failover_deadline)
        return judged_as_stated(reply.text, self._labelling, len(texts))


_NEITHER = "decide, logprobs nor structured"


def _shown(text: str) -> str:
    """As a model reads it."""
    if shown := neutralise(clean(text)).strip():
        return shown
    raise InvalidRequest("the text is empty")


def _blocks(line: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """In their order, of at most `MOST_TEXTS` texts and `TOGETHER_TOKENS`; a longer text is alone."""
    blocks: list[list[_Waiting]] = []
    room = 0
    for waiting in line:
        tokens = tokens_of(waiting.text)
        if not blocks or len(blocks[-1]) == MOST_TEXTS or tokens > room:
            blocks.append([])
            room = TOGETHER_TOKENS
        blocks[-1].append(waiting)
        room -= tokens
    return blocks


def _leave(block: Sequence[_Waiting], task: asyncio.Task[None], _: asyncio.Future[Labelled]) -> None:
    """Nobody waits for the block any more when all who asked have gone away."""
    if all(waiting.labelled.cancelled() for waiting in block):
        task.cancel()


def _end(block: Sequence[_Waiting], task: asyncio.Task[None]) -> None:
    """Nobody may wait for ever: a task that was cancelled, or has a fault of ours, ends the waiting of all."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        _fail(block, failure)
    for waiting in block:
        waiting.labelled.cancel()


def _fail(block: Sequence[_Waiting], failure: BaseException) -> None:
    for waiting in block:
        if not waiting.labelled.done():
            waiting.labelled.set_exception(failure)


def _split(used: Account, accounts: Sequence[Account]) -> None:
    """Book on each account an even share; what cannot be divided, as the number of calls, on the first."""
    others = len(accounts) - 1
    for stage, usage in used.usage().by_stage.items():
        counts = (usage.input_tokens, usage.cached_tokens or 0, usage.output_tokens)
        share = [count // len(accounts) for count in counts]
        rest = [count - others * part for count, part in zip(counts, share, strict=True)]
        for place, account in enumerate(accounts):
            read, cached, written = share if place else rest
            told = None if usage.cached_tokens is None else cached
            tokens = TokenCount(input=read, cached=told, output=written)
            account.add(
                stage, 0 if place else usage.requests, tokens, usage.cost_usd / len(accounts), usage.replicas or ()
            )


class LabelJudge(Generic[Result]):
    """Labels the texts of one request, and makes results of the judgements: an `app.services.batches.TextJudge`."""

    def __init__(self, labeller: Labeller, result_of: Callable[[Judgement], Result]) -> None:
        self._labeller, self._result_of = labeller, result_of

    async def one(self, text: str, call: Call) -> Judged[Result]:
        """Raises InvalidRequest for an empty text, and what the model's calls raise."""
        labelled = await self._labeller.label(text, call)
        return Judged(result=self._result_of(labelled.judgement), backend=labelled.backend)

    def requests(self, text: str) -> Sequence[ChatRequest]:
        """For one text in a batch. Raises InvalidRequest."""
        return (self._labeller.request(text),)

    def read(self, _text: str, replies: Sequence[Reply], backend: str) -> Result:
        """Raises UpstreamBadReply."""
        (reply,) = replies
        return self._result_of(self._labeller.read(reply, backend))


LIKELY = 0.5
"""From this probability on a label applies, where several may."""


class ClassifyService:
    """Classifies texts on the backends. The router is asked for with each request, so that it can be opened late.

    `default` serves requests that name no backend ("auto" if it is no model).
    """

    stage = "classify"

    def __init__(self, router: Callable[[], Awaitable[Router]], default: str, fence: DrawFence = draw_fence) -> None:
        self._router, self._default, self._fence = router, model_or_auto(default), fence

    async def judge(self, options: ClassifyOptions) -> LabelJudge[Classified]:
        """Raises InvalidRequest for the labels, UnknownBackend, MissingCapability."""
        labelling = labelling_of(options.labels, options.instructions, exclusive=not options.multi_label)
        route = (await self._router()).route(options.backend, *NEEDS, default=self._default)
        return LabelJudge(Labeller(route, labelling, self._fence), partial(classified, options=options))


def classified(judgement: Judgement, options: ClassifyOptions) -> Classified:
    """The labels that the scores speak for; of equal ones the first."""
    scores = {label.name: score for label, score in zip(options.labels, judgement.scores, strict=True)}
    order = sorted(scores, key=lambda name: -scores[name])
    if options.multi_label:
        labels = tuple(name for name in order if scores[name] >= LIKELY)
        confidence = min(max(score, 1.0 - score) for score in judgement.scores)
    else:
        labels = (order[0],)
        confidence = scores[order[0]]
    return Classified(
        label=labels[0] if labels else None,
        labels=labels,
        confidence=confidence,
        scores=scores,
        unsure=confidence < options.unsure_below,
        evidence=judgement.evidence,
    )


_DEFAULT = {
    "harassment": "expresses, incites or promotes harassing language towards any target",
    "harassment/threatening": "harassment that also includes violence or serious harm towards any target",
    "hate": "expresses, incites or promotes hate based on race, gender, ethnicity, religion, nationality, sexual "
    "orientation, disability status or caste",
    "hate/threatening": "hate that also includes violence or serious harm towards the targeted group",
    "illicit": "gives advice or instructions on how to commit wrongdoing",
    "illicit/violent": "gives advice or instructions on wrongdoing that includes violence, or on getting a weapon",
    "self-harm": "promotes, encourages or depicts acts of self-harm, such as suicide, cutting and eating disorders",
    "self-harm/intent": "the speaker is engaging or intends to engage in acts of self-harm",
    "self-harm/instructions": "encourages acts of self-harm, or gives instructions or advice on how to commit them",
    "sexual": "is meant to arouse sexual excitement, or promotes sexual services; not education or wellness",
    "sexual/minors": "sexual content that includes an individual who is under 18 years old",
    "violence": "depicts death, violence or physical injury",
    "violence/graphic": "depicts death, violence or physical injury in graphic detail",
}

DEFAULT_CATEGORIES = tuple(Category(name=name, description=text) for name, text in _DEFAULT.items())
"""Those of OpenAI's moderation, by its names: https://platform.openai.com/docs/guides/moderation."""

_TASK = (
    "You are a moderator. A label applies only if the text itself is such content; to report on it, to ask about it or "
    "to condemn it is not."
)


def described(category: Category) -> Category:
    """One of the default names without a description gets the description of the default."""
    if category.description or category.name not in _DEFAULT:
        return category
    return Category(name=category.name, description=_DEFAULT[category.name], threshold=category.threshold)


class ModerateService:
    """Moderates texts on the backends: see `ClassifyService`."""

    stage = "moderate"

    def __init__(self, router: Callable[[], Awaitable[Router]], default: str, fence: DrawFence = draw_fence) -> None:
        self._router, self._default, self._fence = router, model_or_auto(default), fence

    async def judge(self, options: ModerateOptions) -> LabelJudge[Moderated]:
        """Raises InvalidRequest for the categories, UnknownBackend, MissingCapability."""
        instructions = f"{_TASK}\n\n{options.instructions}".rstrip()
        categories = tuple(map(described, options.categories))
        labelling = labelling_of(categories, instructions, exclusive=False, field="categories")
        route = (await self._router()).route(options.backend, *NEEDS, default=self._default)
        return LabelJudge(Labeller(route, labelling, self._fence), partial(moderated, categories=categories))


def moderated(judgement: Judgement, categories: tuple[Category, ...]) -> Moderated:
    """The categories whose score reaches their threshold."""
    scores = {one.name: score for one, score in zip(categories, judgement.scores, strict=True)}
    flagged = [one.name for one in categories if scores[one.name] >= one.threshold]
    return Moderated(
        flagged=bool(flagged),
        categories=tuple(sorted(flagged, key=lambda name: -scores[name])),
        scores=scores,
        evidence=judgement.evidence,
    )
