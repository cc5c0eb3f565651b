"""Use case: moderate texts, by the categories of OpenAI's moderation or by a caller's own."""

from collections.abc import Awaitable, Callable, Sequence

from app.backends.base import Call, ChatRequest, Reply
from app.backends.router import Router
from app.backends.settings import model_or_auto
from app.classification.models import Judgement, labelling_of
from app.domain import Category, Moderated, ModerateOptions
from app.services.batches import Judged
from app.services.labelling import NEEDS, Labeller
from app.text.fencing import DrawFence, draw_fence

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
    """Moderates texts on the backends: see `app.services.classify.ClassifyService`."""

    stage = "moderate"

    def __init__(self, router: Callable[[], Awaitable[Router]], default: str, fence: DrawFence = draw_fence) -> None:
        self._router, self._default, self._fence = router, model_or_auto(default), fence

    async def judge(self, options: ModerateOptions) -> "ModerateJudge":
        """Raises InvalidRequest for the categories, UnknownBackend, MissingCapability."""
        instructions = f"{_TASK}\n\n{options.instructions}".rstrip()
        categories = tuple(map(described, options.categories))
        labelling = labelling_of(categories, instructions, exclusive=False, field="categories")
        route = (await self._router()).route(options.backend, *NEEDS, default=self._default)
        return ModerateJudge(Labeller(route, labelling, self._fence), categories)


class ModerateJudge:
    """Moderates the texts of one request: an `app.services.batches.TextJudge`."""

    def __init__(self, labeller: Labeller, categories: tuple[Category, ...]) -> None:
        self._labeller, self._categories = labeller, categories

    async def one(self, text: str, call: Call) -> Judged[Moderated]:
        """Raises InvalidRequest for an empty text, and what the model's calls raise."""
        labelled = await self._labeller.label(text, call)
        return Judged(result=moderated(labelled.judgement, self._categories), backend=labelled.backend)

    def requests(self, text: str) -> Sequence[ChatRequest]:
        """For one text in a batch. Raises InvalidRequest."""
        return (self._labeller.request(text),)

    def read(self, _text: str, replies: Sequence[Reply], backend: str) -> Moderated:
        """Raises UpstreamBadReply."""
        (reply,) = replies
        return moderated(self._labeller.read(reply, backend), self._categories)


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
