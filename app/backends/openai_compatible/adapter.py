"""A server that speaks OpenAI's protocol, as a backend."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from app.backends.base import ChatRequest, Decider, Delta, FinishReason, LabelScorer, Probed, Reply
from app.backends.openai_compatible.messages import (
    RUNAWAYS,
    Choice,
    Completion,
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
from app.backends.status import NoSuchRoute
from app.domain import TokenCount
from app.errors import ConfigError, Refused, UpstreamBadReply, UpstreamError, UpstreamUnavailable


class OpenAICompatible:
    """An `Adapter`. Before the first probe it answers only if its model is configured, by the plainest requests."""

    batches = None

    def __init__(self, name: str, settings: BackendSettings) -> None:
        self._name = name
        self._settings = settings
        self._wire = Wire(name, settings, _address(name, settings))
        self._traits = Traits(kind=settings.kind, model=settings.model) if settings.model else None
        self.scorer: LabelScorer | None = None
        """Of the last probe; None when the server gives no log-probabilities, or before it."""
        self.decider: Decider | None = None
        """Likewise; None when it answers no typed questions."""

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """One completion."""
        traits = self._known()
        completion = await self._wire.complete(*asked(request, traits), timeout_s)
        tokens = completion.usage.count() if completion.usage else TokenCount()
        choice = completion.choices[0]
        return Reply(
            finish_reason=self._finish(_ended(choice), tokens),
            text=without_thoughts(choice.message.content or choice.text or ""),
            tokens=tokens,
            model=completion.model or traits.model,
            calls=choice.message.calls if request.tools else (),
        )

    async def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        """One completion in pieces; thoughts come as pieces without text."""
        path, body = asked_to_stream(request, self._known())
        thoughts, ended, tokens = ThoughtFilter(), None, None
        async with aclosing(self._wire.stream(path, body, timeout_s)) as chunks:
            try:
                async for chunk in chunks:
                    self._wire.check(chunk, tokens)
                    counted = chunk.usage.count() if chunk.usage else None
                    piece = _first(chunk)
                    tokens, ended = counted or tokens, _ended(piece, ended)
                    text = thoughts.feed(piece.delta.content or piece.text or "")
                    calls = piece.delta.calls if request.tools else ()
                    if text or counted or calls or piece.delta.thought:
                        yield Delta(text=text, tokens=counted, calls=calls)
            except UpstreamError as exc:
                if ended is None:
                    exc.tokens = exc.tokens or tokens
                    raise
        yield Delta(finish_reason=self._finish(ended, tokens), text=thoughts.end(), tokens=tokens)

    async def probe(self, timeout_s: float) -> Probed:
        """Ask for the models, and try what the server does not describe with requests of a few tokens."""
        result, self._traits, self.scorer, self.decider = await probed(self._wire, self._settings, timeout_s)
        return result

    async def ping(self, timeout_s: float) -> None:
        """GET /v1/models. A server that has no such endpoint is there all the same."""
        try:
            await self._wire.get("models", "data", tuple[Model, ...], timeout_s, ())
        except NoSuchRoute:
            return

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


def _ended(choice: Choice, before: str | None = None) -> str | None:
    """Why the reply ended. A model's own refusal counts as the filter's; a document that ran away was cut."""
    if choice.message.refusal or choice.delta.refusal or before == "content_filter":
        return "content_filter"
    return "length" if choice.stop_reason in RUNAWAYS else choice.finish_reason or before
