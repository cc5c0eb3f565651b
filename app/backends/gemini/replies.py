"""What Gemini answers, as the ports want it: text, why it ended, and what it cost."""

from google.genai.types import Candidate, FinishReason, GenerateContentResponse

from app.backends import base as ports
from app.domain import TokenCount
from app.errors import Refused, UpstreamBadReply

_ENDINGS: dict[FinishReason, ports.FinishReason] = {
    FinishReason.STOP: "stop",
    FinishReason.MAX_TOKENS: "length",
    FinishReason.CONTINUATION: "length",
}
_REFUSALS = frozenset(
    {
        FinishReason.SAFETY,
        FinishReason.RECITATION,
        FinishReason.LANGUAGE,
        FinishReason.BLOCKLIST,
        FinishReason.PROHIBITED_CONTENT,
        FinishReason.SPII,
        FinishReason.ESCALATION,
        FinishReason.PUP_LIMITED_DISABLED,
        FinishReason.MODEL_ARMOR,
        FinishReason.IMAGE_SAFETY,
        FinishReason.IMAGE_PROHIBITED_CONTENT,
        FinishReason.IMAGE_RECITATION,
    }
)
_KNOWN = frozenset(FinishReason)
"""As this SDK was made: a word that Google adds later becomes a member at run time."""


class Reading:
    """One reply while it is read: the only chunk of a whole one, or those of a stream.

    `tokens` are those of the call so far, None before any were told. `service` and `model` are those asked.
    """

    def __init__(self, service: str, model: str) -> None:
        self.service = service
        self.model = model
        self.tokens: TokenCount | None = None
        self._finish: FinishReason | None = None
        self._has_text = False

    def take(self, chunk: GenerateContentResponse) -> str:
        """The text that this chunk adds. Raises Refused, UpstreamBadReply."""
        self.tokens = _tokens(chunk) or self.tokens
        self.model = chunk.model_version or self.model
        candidate = chunk.candidates[0] if chunk.candidates else None
        if candidate is None:
            self._check_prompt(chunk)
            return ""
        self._finish = candidate.finish_reason or self._finish
        self._check_answer()
        text = _text(candidate)
        self._has_text = self._has_text or bool(text)
        return text

    def end(self, *, may_be_empty: bool) -> ports.FinishReason:
        """Why it ended, once all of it has been taken. `may_be_empty`: a stop sequence can stand at its beginning.

        Raises UpstreamBadReply when it is not whole.
        """
        if self._finish is None:
            raise self._bad("its reply broke off")
        ending = _ENDINGS[self._finish]
        if ending == "stop" and not self._has_text and not may_be_empty:
            raise self._bad("its reply is empty")
        return ending

    def _check_prompt(self, chunk: GenerateContentResponse) -> None:
        if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
            raise Refused(self.service, f"{self.service} declines the prompt for safety", tokens=self.tokens)

    def _check_answer(self) -> None:
        reason = self._finish
        if reason is None or reason in _ENDINGS:
            return
        if reason in _REFUSALS:
            why = f"{self.service} declined to answer ({reason.value})"
            raise Refused(self.service, why, tokens=self.tokens)
        raise self._bad("its reply ended for " + (reason.value if reason in _KNOWN else "a reason unknown to us"))

    def _bad(self, what: str) -> UpstreamBadReply:
        return UpstreamBadReply(self.service, f"{self.service}: {what}", tokens=self.tokens)


def _tokens(chunk: GenerateContentResponse) -> TokenCount | None:
    usage = chunk.usage_metadata
    if usage is None:
        return None
    return TokenCount(
        input=usage.prompt_token_count or 0,
        cached=usage.cached_content_token_count or 0,
        output=usage.candidates_token_count or 0,
        thinking=usage.thoughts_token_count or 0,
    )


def _text(candidate: Candidate) -> str:
    parts = candidate.content.parts if candidate.content and candidate.content.parts else []
    return "".join(part.text for part in parts if part.text and not part.thought)
