"""POST /translate, as JSON or as JSON lines."""

from typing import Annotated

import msgspec
from litestar import Response, post
from litestar.params import JSONBody
from msgspec import Meta

from app.api.json_lines import JSONLines, JSONOrLines
from app.api.judged_texts import JudgedList, JudgedText, answer_texts
from app.api.openapi import problems
from app.api.request import BodyRequest, Injected
from app.api.schemas import Name
from app.config.settings import Settings
from app.services.batches import DEFAULT_CONCURRENCY, MAX_CONCURRENCY
from app.services.translate import Doubt, TranslateOptions, TranslateService
from app.text.kept import Loss

Text = Annotated[str, Meta(max_length=100_000)]
Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"\S")]
Language = Annotated[
    str,
    Meta(min_length=2, max_length=50, pattern=r"^\w[\w ()-]*$", description="A tag, such as de or pt-BR, or a name."),
]


class TranslateOptionsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How texts are translated: POST /translate without its texts."""

    target_language: Language
    source_language: Language | None = None
    glossary: Annotated[
        dict[Word, Word], Meta(max_length=500, description="Words of the texts, and what they must become.")
    ] = {}
    backend: Annotated[Name, Meta(description='The backend: a configured name, or "auto".')] | None = None
    concurrency: Annotated[
        int, Meta(ge=1, le=MAX_CONCURRENCY, description="Texts in work at once, under the backend's own limits.")
    ] = DEFAULT_CONCURRENCY

    def to_options(self) -> TranslateOptions:
        """As the use case takes them."""
        return TranslateOptions(
            target_language=self.target_language,
            source_language=self.source_language,
            glossary=self.glossary,
            backend=self.backend,
        )


class TranslateBody(TranslateOptionsBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /translate."""

    texts: Annotated[list[Text], Meta(min_length=1, max_length=10_000, description="Equal ones are translated once.")]


class TranslatedText(JudgedText, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a text: `error`, or else the rest.

    `lost` names what the text has and the translation lacks: placeholders, markup, links, code, numbers, lines, terms
    of the glossary. `doubts` say why it may be no translation at all, but an answer to the text, for instance.
    """

    translation: str | msgspec.UnsetType = msgspec.UNSET
    lost: tuple[Loss, ...] | msgspec.UnsetType = msgspec.UNSET
    doubts: tuple[Doubt, ...] | msgspec.UnsetType = msgspec.UNSET


class TranslateResponse(JudgedList, frozen=True, kw_only=True):
    """A translation or an error for each text, in their order.

    `failed` counts the errors, `timings_ms` holds translate and total; `backend` served most of the texts.
    """

    results: tuple[TranslatedText, ...]


@post(
    "/translate",
    dto=JSONOrLines[TranslateBody],
    return_dto=None,
    status_code=200,
    operation_id="translate",
    operation_class=JSONLines,
    summary="Translate texts",
    responses=problems(400, 401, 403, 413, 415, 422, 429),
    opt={"scope": "tasks"},
)
async def translate(
    request: BodyRequest,
    data: JSONBody[TranslateBody],
    translate_service: Injected[TranslateService],
    settings: Injected[Settings],
) -> Response[TranslateResponse]:
    """Translations that keep placeholders, markup, links, code, numbers and lines; what one lacks is named.

    A body of JSON lines (`application/x-ndjson`) has a text in each row: `{"id"?, "text"}` or a string, with the
    options in the URL. Each gets a row, in order, while the body is still being read.
    """
    return await answer_texts(
        request,
        TranslateResponse,
        TranslatedText,
        translate_service,
        data.to_options(),
        data.texts,
        requested=data.backend,
        concurrency=data.concurrency,
        deadline_s=settings.routing.deadline_s,
    )
