"""POST /classify and POST /moderate, as JSON or as JSON lines."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api.json_lines import JSONLines, JSONOrLines
from app.api.judged_texts import JudgedList, JudgedText, answer_texts
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected
from app.api.schemas import Fraction, Name
from app.classification import MOST_LABELS
from app.config.settings import Settings
from app.domain import Category, ClassifyOptions, Evidence, Label, ModerateOptions
from app.services.batches import DEFAULT_CONCURRENCY, MAX_CONCURRENCY
from app.services.labelling import DEFAULT_CATEGORIES, ClassifyService, ModerateService

MAX_TEXTS = 10_000

Text = Annotated[str, Meta(max_length=100_000)]
LabelName = Annotated[str, Meta(min_length=1, max_length=100)]
Description = Annotated[str, Meta(max_length=1000)]
Texts = Annotated[list[Text], Meta(min_length=1, max_length=MAX_TEXTS, description="Equal ones are asked for once.")]
Instructions = Annotated[str, Meta(max_length=4000, description="From the operator, not from end users.")]
Concurrency = Annotated[
    int, Meta(ge=1, le=MAX_CONCURRENCY, description="Texts in work at once, under the backend's own limits.")
]
LabellingBackend = Annotated[Name, Meta(description='The backend: a configured name, or "auto".')]


class LabelBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A label, and when it fits."""

    name: LabelName
    description: Description = ""


class ClassifyOptionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How texts are classified: POST /classify without its texts."""

    labels: Annotated[
        tuple[LabelName | LabelBody, ...],
        Meta(min_length=2, max_length=MOST_LABELS, description="Names, or objects with a description."),
    ] = ("POSITIVE", "NEGATIVE", "NEUTRAL")
    instructions: Instructions = ""
    multi_label: Annotated[bool, Meta(description="Any number of labels fit a text, not exactly one.")] = False
    unsure_below: Annotated[Fraction, Meta(description="`unsure` is true for a lower `confidence`.")] = 0.0
    backend: LabellingBackend | None = None
    concurrency: Concurrency = DEFAULT_CONCURRENCY

    def to_options(self) -> ClassifyOptions:
        """As the use case takes them."""
        return ClassifyOptions(
            labels=tuple(
                Label(name=one) if isinstance(one, str) else Label(name=one.name, description=one.description)
                for one in self.labels
            ),
            instructions=self.instructions,
            multi_label=self.multi_label,
            unsure_below=self.unsure_below,
            backend=self.backend,
        )


class ClassifyBody(ClassifyOptionsBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /classify."""

    texts: Texts


class ClassifiedText(JudgedText, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a text: `error`, or else the rest.

    `label` is the likeliest one; null if none of several applies. `labels` are all that apply: of several those that
    are at least as likely as not. `scores` has the probability of each label. `confidence` is the probability that
    `label` is right; of several labels, that the least certain decision about one is.
    """

    label: str | msgspec.UnsetType | None = msgspec.UNSET
    labels: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    confidence: float | msgspec.UnsetType = msgspec.UNSET
    scores: Mapping[str, float] | msgspec.UnsetType = msgspec.UNSET
    unsure: bool | msgspec.UnsetType = msgspec.UNSET
    evidence: Evidence | msgspec.UnsetType = msgspec.UNSET


class ClassifyResponse(JudgedList, frozen=True, kw_only=True):
    """A result or an error for each text, in their order.

    `failed` counts the errors, `timings_ms` holds classify and total; `backend` served most of the texts.
    """

    results: tuple[ClassifiedText, ...]


@post(
    "/classify",
    dto=JSONOrLines[ClassifyBody],
    return_dto=None,
    status_code=200,
    operation_id="classify",
    operation_class=JSONLines,
    summary="Classify texts with your own labels",
    responses=problems(400, 401, 403, 413, 415, 422, 429),
    opt={"scope": "tasks"},
)
async def classify(
    request: BodyRequest,
    data: JSONBody[ClassifyBody],
    classify_service: Injected[ClassifyService],
    settings: Injected[Settings],
) -> Response[ClassifyResponse]:
    """For each text its label, the probability of every label, and what that rests on; an error fails its own text
    alone.

    A body of JSON lines (`application/x-ndjson`) has a text in each row, `{"id"?, "text"}` or a string, and the options
    are in the URL. Each row gets one, in order, while the body is still being read.
    """
    return await answer_texts(
        request,
        ClassifyResponse,
        ClassifiedText,
        classify_service,
        data.to_options(),
        data.texts,
        requested=data.backend,
        concurrency=data.concurrency,
        deadline_s=settings.routing.deadline_s,
    )


class CategoryBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A category, and the score from which on a text is flagged for it; none: the request's."""

    name: LabelName
    description: Description = ""
    threshold: Fraction | None = None


class ModerateOptionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How texts are moderated: POST /moderate without its texts."""

    categories: (
        Annotated[
            list[LabelName | CategoryBody],
            Meta(min_length=1, max_length=MOST_LABELS, description="Default: the 13 of OpenAI's moderation."),
        ]
        | None
    ) = None
    threshold: Annotated[Fraction, Meta(description="A text is flagged for a category from this score on.")] = 0.5
    instructions: Instructions = ""
    backend: LabellingBackend | None = None
    concurrency: Concurrency = DEFAULT_CONCURRENCY

    def to_options(self) -> ModerateOptions:
        """As the use case takes them."""
        given = [one.name for one in DEFAULT_CATEGORIES] if self.categories is None else self.categories
        return ModerateOptions(
            categories=tuple(map(self._category, given)), instructions=self.instructions, backend=self.backend
        )

    def _category(self, given: str | CategoryBody) -> Category:
        if isinstance(given, str):
            return Category(name=given, threshold=self.threshold)
        threshold = self.threshold if given.threshold is None else given.threshold
        return Category(name=given.name, description=given.description, threshold=threshold)


class ModerateBody(ModerateOptionsBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /moderate."""

    texts: Texts


class ModeratedText(JudgedText, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a text: `error`, or else the rest.

    `categories` are those that it is flagged for, likeliest first; `scores` has the probability of each category.
    """

    flagged: bool | msgspec.UnsetType = msgspec.UNSET
    categories: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    scores: Mapping[str, float] | msgspec.UnsetType = msgspec.UNSET
    evidence: Evidence | msgspec.UnsetType = msgspec.UNSET


class ModerateResponse(JudgedList, frozen=True, kw_only=True):
    """A result or an error for each text, in their order.

    `failed` counts the errors, `timings_ms` holds moderate and total; `backend` served most of the texts.
    """

    results: tuple[ModeratedText, ...]


@post(
    "/moderate",
    dto=JSONOrLines[ModerateBody],
    return_dto=None,
    status_code=200,
    operation_id="moderate",
    operation_class=JSONLines,
    summary="Flag texts by category",
    responses=problems(400, 401, 403, 413, 415, 422, 429),
    opt={"scope": "tasks"},
)
async def moderate(
    request: BodyRequest,
    data: JSONBody[ModerateBody],
    moderate_service: Injected[ModerateService],
    settings: Injected[Settings],
) -> Response[ModerateResponse]:
    """For each text the categories that it is flagged for, and the score of every category; an error fails its own text
    alone.

    A body of JSON lines (`application/x-ndjson`) has a text in each row, `{"id"?, "text"}` or a string, and the options
    are in the URL. Each row gets one, in order, while the body is still being read.
    """
    return await answer_texts(
        request,
        ModerateResponse,
        ModeratedText,
        moderate_service,
        data.to_options(),
        data.texts,
        requested=data.backend,
        concurrency=data.concurrency,
        deadline_s=settings.routing.deadline_s,
    )
