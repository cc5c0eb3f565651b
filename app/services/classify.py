"""Use case: classify texts with a caller's own labels."""

from collections.abc import Awaitable, Callable, Sequence

from app.backends.base import Call, ChatRequest, Reply
from app.backends.router import Router
from app.backends.settings import model_or_auto
from app.classification.models import Judgement, labelling_of
from app.domain import Classified, ClassifyOptions
from app.services.batches import Judged
from app.services.labelling import NEEDS, Labeller
from app.text.fencing import DrawFence, draw_fence

LIKELY = 0.5
"""From this probability on a label applies, where several may."""


class ClassifyService:
    """Classifies texts on the backends. The router is asked for with each request, so that it can be opened late.

    `default` serves requests that name no backend ("auto" if it is no model).
    """

    stage = "classify"

    def __init__(self, router: Callable[[], Awaitable[Router]], default: str, fence: DrawFence = draw_fence) -> None:
        self._router, self._default, self._fence = router, model_or_auto(default), fence

    async def judge(self, options: ClassifyOptions) -> "ClassifyJudge":
        """Raises InvalidRequest for the labels, UnknownBackend, MissingCapability."""
        labelling = labelling_of(options.labels, options.instructions, exclusive=not options.multi_label)
        route = (await self._router()).route(options.backend, *NEEDS, default=self._default)
        return ClassifyJudge(Labeller(route, labelling, self._fence), options)


class ClassifyJudge:
    """Classifies the texts of one request: an `app.services.batches.TextJudge`."""

    def __init__(self, labeller: Labeller, options: ClassifyOptions) -> None:
        self._labeller, self._options = labeller, options

    async def one(self, text: str, call: Call) -> Judged[Classified]:
        """Raises InvalidRequest for an empty text, and what the model's calls raise."""
        labelled = await self._labeller.label(text, call)
        return Judged(result=classified(labelled.judgement, self._options), backend=labelled.backend)

    def requests(self, text: str) -> Sequence[ChatRequest]:
        """For one text in a batch. Raises InvalidRequest."""
        return (self._labeller.request(text),)

    def read(self, _text: str, replies: Sequence[Reply], backend: str) -> Classified:
        """Raises UpstreamBadReply."""
        (reply,) = replies
        return classified(self._labeller.read(reply, backend), self._options)


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
