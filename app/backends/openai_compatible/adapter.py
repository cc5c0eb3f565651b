"""A server that speaks OpenAI's protocol, as a backend."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from app.backends.base import ChatRequest, Decider, Delta, FinishReason, LabelScorer, Probed, Reply
from app.backends.openai_compatible.messages import (
    RUNAWAYS,
    Choice,
    Completion,
    MessageReply,
    Model,
    ThoughtFilter,
    Traits,
    asked,
    asked_to_stream,
    without_thoughts,
)
from app.backends.openai_compatible.probing import probed
from app.backends.openai_compatible.wire import Wire
from app.backends.settings import BackendSettings
from app.backends.status import NoSuchModel, NoSuchRoute, listed
from app.domain import TokenCount
from app.errors import ConfigError, Refused, UpstreamBadReply, UpstreamError, UpstreamUnavailable


class OpenAICompatible:
    """An `Adapter`. Before the first probe it answers only if its model is configured, by the plainest requests."""

    batches = reranker = None

    def __init__(self, name: str, settings: BackendSettings) -> None:
        self._name = name
        self._settings = settings
        self._wire = Wire(name, settings, _address(name, settings))
        self._traits = Traits(kind=settings.kind, model=settings.model) if settings.model else None
        self._opened = False  # the last reply had the end of a thought that began in the prompt
        self.scorer: LabelScorer | None = None
        """Of the last probe; None when the server gives no log-probabilities, or before it."""
        self.decider: Decider | None = None
        """Likewise; None when it answers no typed questions."""

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """One completion."""
        traits = self._known()
        completion = await self._wire.complete(*asked(request, traits), timeout_s)
        tokens = completion.tokens or TokenCount()
        choice = completion.choices[0]
        text = choice.message.text or choice.text or ""
        # Some servers give no reason why a whole reply ended; it is there all the same.
        ended = _ended(choice) or ("stop" if text or choice.message.calls else None)
        return Reply(
            finish_reason=self._finish(ended, tokens),
            text=without_thoughts(text),
            tokens=tokens,
            model=str(completion.model or traits.model),
            calls=choice.message.calls if request.tools else (),
        )

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        """One completion in pieces; thoughts come as pieces without text."""
        traits = self._known()
        path, body = asked_to_stream(request, traits)
        thoughts, ended, tokens = ThoughtFilter(opened=traits.opened or self._opened), None, None
        async with aclosing(self._wire.stream(path, body, timeout_s)) as chunks:
            try:
                async for chunk in chunks:
                    self._wire.check(chunk, tokens)
                    counted = chunk.tokens
                    piece = _first(chunk)
                    tokens, ended = counted or tokens, _ended(piece, ended)
                    if counted and not chunk.choices:
                        ended = ended or "stop"  # the count comes last, from a server that gave no reason
                    said = _message(piece)
                    if said.thought:
                        thoughts.separated()
                    text = thoughts.feed(said.text or piece.text or "")
                    calls = said.calls if request.tools else ()
                    if text or counted or calls or said.thought:
                        yield Delta(text=text, tokens=counted, calls=calls)
            except UpstreamError as exc:
                if ended is None:
                    exc.tokens = exc.tokens or tokens
                    raise
        finish_reason = self._finish(ended, tokens)
        cut = finish_reason == "length"
        rest = thoughts.end(cut=cut)
        self._opened = thoughts.met_close or (self._opened and cut)
        yield Delta(finish_reason=finish_reason, text=rest, tokens=tokens)

    async def probe(self, timeout_s: float) -> Probed:
        """Ask for the models, and try what the server does not describe with requests of a few tokens."""
        result, self._traits, self.scorer, self.decider = await probed(self._wire, self._settings, timeout_s)
        return result

    async def ping(self, timeout_s: float) -> None:
        """GET /v1/models. A server that has no such endpoint is there all the same; raises NoSuchModel."""
        try:
            served = await self._wire.get("models", "data", tuple[Model, ...], timeout_s, ())
        except NoSuchRoute:
            return
        wanted = self._traits.model if self._traits else None
        names = tuple(model.id for model in served)
        if names and wanted and not {wanted, f"{wanted}:latest"} & set(names):
            name = self._name
            raise NoSuchModel(name, f"{name} does not have the model {wanted!r}; it has {listed(names)}")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._wire.aclose()

    def _known(self) -> Traits:
        if self._traits is None:
            raise UpstreamUnavailable(self._name, f"{self._name}: its model is not known yet")
        return self._traits

    def _finish(self, ended: str | None, tokens: TokenCount | None) -> FinishReason:
        """Raises where there is no reply."""
        if ended is None:
            raise UpstreamBadReply(self._name, f"{self._name} broke off in the middle of its reply", tokens=tokens)
        if ended == "content_filter":
            raise Refused(self._name, f"{self._name} declined for its content policy", tokens=tokens)
        if ended in ("abort", "error"):
            raise UpstreamUnavailable(self._name, f"{self._name} aborted its reply", tokens=tokens)
        return "length" if ended in ("length", "max_tokens") else "stop"


def _address(name: str, settings: BackendSettings) -> str:
    if settings.url is None:
        raise ConfigError(f"[backends.{name}] needs a url, as in http://127.0.0.1:8000/v1")
    return settings.url


def _first(chunk: Completion) -> Choice:
    return chunk.choices[0] if chunk.choices else Choice()


def _message(choice: Choice) -> MessageReply:
    """The piece; the whole message from a server that does not stream."""
    return choice.message if choice.delta == MessageReply() else choice.delta


def _ended(choice: Choice, before: str | None = None) -> str | None:
    """Why the reply ended. A model's own refusal counts as the filter's; a document that ran away was cut."""
    if choice.message.refusal or choice.delta.refusal or before == "content_filter":
        return "content_filter"
    return "length" if choice.stop_reason in RUNAWAYS else choice.ended or before
