"""The protocols of a backend, what they take and give, and what every call carries.

Also how many tokens a call may take before anyone has counted them, and what log-probabilities of labels say.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from app.domain import Caller, Image, Label, StageUsage, TokenCount, ToolCall, Tools, Turn, Usage, total_usage
from app.errors import MissingCapability, UpstreamError

Role = Literal["system", "user", "assistant", "tool"]

FinishReason = Literal["stop", "length"]
"""A reply that was cut for its safety is no reply: it raises Refused."""

Capability = Literal["chat", "structured", "images", "logprobs", "thinking", "decide", "infill", "rerank"]
"""`logprobs`: first-token log-probabilities, hence a LabelScorer. `thinking`: it can think, and is asked not to.
`decide`: it answers typed questions by probabilities, hence a Decider. `infill`: it was trained to write what belongs
between two texts. `rerank`: it was trained to say how relevant texts are to a query, hence a RelevanceScorer.
"""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A turn. Pictures precede the text, and only in a user's turn.

    `calls` are an assistant's. A "tool" reports the result of the call `call_id`.
    """

    role: Role
    content: str
    images: tuple[Image, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


Conversation = tuple[Message, ...]
"""At most one system message, which comes first; the last one is the user's, or a tool's."""


S = TypeVar("S", Turn, Message)


def joined(side: Sequence[S]) -> S:
    """Join turns of one side, for models that insist on alternating sides: texts become paragraphs."""
    return msgspec.structs.replace(
        side[0],
        content="\n\n".join(turn.content for turn in side if turn.content),
        images=tuple(image for turn in side for image in turn.images),
        calls=tuple(call for turn in side for call in turn.calls),
    )


class Infill(msgspec.Struct, frozen=True, kw_only=True):
    """The texts between which a completion belongs."""

    prefix: str
    suffix: str


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One completion. `schema` is a JSON Schema: the text will be JSON and should fit it, which the caller must check.

    With `infill`, which needs that capability, it is no conversation: there are no messages.

    An adapter sees tools, and turns about them, only if its provider supports them (see `app.backends.tools`).
    """

    messages: Conversation = ()
    infill: Infill | None = None
    max_output_tokens: int = 1024
    temperature: float = 0.0
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    tools: Tools | None = None

    @property
    def uses_tools(self) -> bool:
        """Whether it offers tools, or has turns about them."""
        return self.tools is not None or any(message.calls or message.call_id for message in self.messages)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole completion. `text` may be empty when `finish_reason` is "length": thinking can use up all tokens.

    `calls` only if the request offered tools; a reply that ends with calls finishes by "stop" too. `model` is what the
    server says it used.
    """

    text: str
    finish_reason: FinishReason
    tokens: TokenCount
    model: str
    calls: tuple[ToolCall, ...] = ()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a completion. `tokens` are those of the whole call so far, whenever the server reports them.

    The last one carries `finish_reason`, and `tokens` if the server reports any; a stream that ends without a finish
    reason was cut off, and raises instead.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    tokens: TokenCount | None = None
    calls: tuple[ToolCall, ...] = ()


class LabelScores(msgspec.Struct, frozen=True, kw_only=True):
    """What the first token after each conversation would be: natural log-probabilities, in the order of the labels.

    They are raw, not normalised over the labels. None: the server did not report that label (it is below `floor`, the
    lowest log-probability that it reported for this conversation).
    """

    logprobs: tuple[float | None, ...]
    floor: float


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """Scores in the order of the conversations; None where that one failed. `requests` calls were made."""

    scores: tuple[LabelScores | None, ...]
    tokens: TokenCount
    requests: int = 1


class DecisionQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question about a text: which of the options fits, or without options whether `instructions` are true of it."""

    instructions: str
    options: tuple[Label, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """For each question the probabilities of its options, in their order and summing to 1; without options that of yes
    alone. None: the model declined it, or meant something other than an answer.
    """

    answers: tuple[tuple[float, ...] | None, ...]
    tokens: TokenCount
    requests: int = 1


class Relevance(msgspec.Struct, frozen=True, kw_only=True):
    """How relevant each text is to a query, as log-odds in the order of the texts, finite.

    `requests` are those that are billed: a provider may count a long list as several searches.
    """

    log_odds: tuple[float, ...]
    tokens: TokenCount
    requests: int = 1


BYTES_PER_TOKEN = 4

TOKENS_PER_MESSAGE = 5
"""The control tokens around a turn."""

TOKENS_PER_IMAGE = 1120
"""Gemini 3's for a picture at its default resolution; Gemma 3 takes 256."""


def tokens_of(text: str) -> int:
    """About how many tokens a text is: a quarter of its UTF-8 bytes, rounded up.

    Bytes, because a Chinese character (three) is most of a token, and a Latin letter (one) about a quarter. For prose
    in the vocabularies of Gemini, Gemma and Qwen expect it within a third either way; digits and code can be twice as
    many. Good enough to reserve and to book a call that was cut off; never used when the server reports its own count.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def tokens_of_prompt(messages: Conversation) -> int:
    """About how many tokens a conversation is, with its pictures and calls."""
    return sum(
        TOKENS_PER_MESSAGE
        + tokens_of(message.content)
        + TOKENS_PER_IMAGE * len(message.images)
        + tokens_of_calls(message.calls)
        for message in messages
    )


def tokens_of_calls(calls: Sequence[ToolCall]) -> int:
    """About how many tokens these calls are."""
    return sum(tokens_of(call.name + call.arguments) for call in calls)


def tokens_of_tools(tools: Tools | None) -> int:
    """About how many tokens they add to a prompt: most models read them as JSON."""
    return tokens_of(msgspec.json.encode(tools.functions).decode()) if tools else 0


def worst_of_chat(request: ChatRequest) -> TokenCount:
    """The most tokens that a completion may use."""
    between = tokens_of(request.infill.prefix + request.infill.suffix) if request.infill else 0
    prompt = tokens_of_prompt(request.messages) + tokens_of_tools(request.tools) + between
    return TokenCount(input=prompt, output=request.max_output_tokens)


def worst_of_scoring(prompts: Sequence[Conversation]) -> TokenCount:
    """The most tokens that a scoring may use: each prompt, and one token after it."""
    return TokenCount(input=sum(map(tokens_of_prompt, prompts)), output=len(prompts))


def worst_of_decision(context: str, questions: Sequence[DecisionQuestion]) -> TokenCount:
    """The most tokens that a decision may use: some servers read the context anew for each question."""
    asked = sum(
        tokens_of(question.instructions)
        + sum(TOKENS_PER_MESSAGE + tokens_of(option.name + option.description) for option in question.options)
        for question in questions
    )
    return TokenCount(input=len(questions) * (tokens_of(context) + TOKENS_PER_MESSAGE) + asked, output=len(questions))


def tokens_of_pairs(query: str, texts: Sequence[str]) -> TokenCount:
    """About how many tokens a reranker reads: it reads the query anew with each text."""
    return TokenCount(input=len(texts) * tokens_of(query) + sum(map(tokens_of, texts)))


def total(tokens: TokenCount) -> int:
    """All tokens, as a limit per minute counts them."""
    return tokens.input + tokens.output + tokens.thinking


MIN_MASS = 0.3
"""Below this probability of all labels together, the model meant to write something else."""

_MIN_MASS_LEFT = 1e-9
_MIN_LOGPROB = math.log(_MIN_MASS_LEFT)


def log_evidence(scores: LabelScores) -> tuple[float, ...] | None:
    """The labels' log-probabilities in [ln 1e-9, 0], all finite. None when the server reported none of them.

    A missing label is below `floor`, and all missing labels together have at most the probability that the others
    leave: each gets the lower of `floor` and an even share of that.
    """
    return mass_and_evidence(scores)[1]


def meant_evidence(scores: LabelScores | None) -> tuple[float, ...] | None:
    """`log_evidence`; None also without scores, and where the model meant to write something other than a label."""
    mass, evidence = mass_and_evidence(scores) if scores else (0.0, None)
    return evidence if mass >= MIN_MASS else None


def mass_and_evidence(scores: LabelScores) -> tuple[float, tuple[float, ...] | None]:
    """The probability in [0,1] that the first token is a reported label, and `log_evidence`."""
    logprobs = _clamped(scores)
    mass = min(1.0, sum(math.exp(logprob) for logprob in logprobs if logprob is not None))
    missing = logprobs.count(None)
    if missing == len(logprobs):
        return mass, None
    left = (1.0 - mass) / missing if missing else 0.0
    bound = min(math.log(max(left, _MIN_MASS_LEFT)), scores.floor if math.isfinite(scores.floor) else 0.0)
    return mass, tuple(max(_MIN_LOGPROB, bound) if logprob is None else logprob for logprob in logprobs)


def scores_of(chances: Sequence[float] | None) -> LabelScores | None:
    """The probabilities of labels as a decider gives them, as log-probabilities; None where it gave none."""
    if chances is None:
        return None
    return LabelScores(logprobs=tuple(math.log(max(chance, _MIN_MASS_LEFT)) for chance in chances), floor=_MIN_LOGPROB)


Way = Literal["reranker", "scorer", "judge", "decider"]
"""How a model judges texts: as it was trained to, by the log-probabilities of labels, in words, or by the probabilities
of the answers to typed questions.
"""


class Grader(Protocol):
    """A backend that judges texts for one request. Its calls raise WinnowErrors, and may be cancelled."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    @property
    def way(self) -> Way: ...

    @property
    def reads_together(self) -> bool:
        """Whether, as a decider, it can be asked about many texts side by side: small models lose track."""
        ...

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str]) -> Scoring: ...

    async def complete(self, request: ChatRequest) -> Reply: ...

    async def relevance(self, query: str, texts: Sequence[str]) -> Relevance: ...

    async def decide(self, context: str, questions: Sequence[DecisionQuestion]) -> Decision: ...


def softmax(logs: Sequence[float]) -> list[float]:
    """Probabilities that sum to 1, of finite logs."""
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    whole = sum(weights)
    return [weight / whole for weight in weights]


def shares_of(chances: Sequence[float]) -> tuple[float, ...] | None:
    """Probabilities that sum to 1, in proportion; None if a server sent something that is none."""
    if not all(math.isfinite(chance) and chance >= 0 for chance in chances) or not (whole := sum(chances)) > 0:
        return None
    return tuple(chance / whole for chance in chances)


def chance_of(given: float | None) -> float | None:
    """A probability in [0,1]; None for anything else. Servers round, so that it may slightly exceed 1."""
    return min(1.0, given) if given is not None and 0 <= given <= 1.001 else None


def _clamped(scores: LabelScores) -> list[float | None]:
    """In [ln 1e-9, 0]: servers round, and a sum over the spellings of a label may slightly exceed 1."""
    return [
        None if logprob is None or not math.isfinite(logprob) else max(_MIN_LOGPROB, min(0.0, logprob))
        for logprob in scores.logprobs
    ]


class ChatModel(Protocol):
    """Completes conversations. Raises UpstreamError, Refused; asyncio.CancelledError cancels the call upstream."""

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """The reply, which may take `timeout_s` as a whole."""
        ...

    def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        """The reply in pieces, which may take `timeout_s` together. Closing the generator cancels the call upstream."""
        ...


class LabelScorer(Protocol):
    """Reads first-token log-probabilities. Raises like ChatModel when every conversation failed."""

    async def score(self, prompts: Sequence[Conversation], labels: Sequence[str], timeout_s: float) -> Scoring:
        """Labels are single tokens of the model, such as "0", "1", "2", "3"."""
        ...


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as its server describes it. `replies`: of each request a reply or why there is none; None: not yet.

    `failed` says why the batch as a whole has none; "" otherwise.
    """

    replies: tuple[Reply | UpstreamError, ...] | None = None
    failed: str = ""


class BatchModel(Protocol):
    """Completes many conversations for half the price, some time within a day. Raises like ChatModel."""

    async def submit(self, requests: Sequence[ChatRequest], label: str, timeout_s: float) -> str:
        """The name of a new batch."""
        ...

    async def find(self, label: str, timeout_s: float) -> str | None:
        """The name of the batch that was submitted with this label, if there is one."""
        ...

    async def look(self, name: str, timeout_s: float) -> BatchJob:
        """How it is."""
        ...


class Decider(Protocol):
    """Answers typed questions about a text by probabilities; nothing is generated. Raises like ChatModel, and
    MissingCapability for more questions or options than the model takes.
    """

    async def decide(self, context: str, questions: Sequence[DecisionQuestion], timeout_s: float) -> Decision:
        """All questions are about `context`, which is data."""
        ...


class RelevanceScorer(Protocol):
    """Scores texts by their relevance to a query. Raises like ChatModel."""

    async def relevance(self, query: str, texts: Sequence[str], timeout_s: float) -> Relevance:
        """Texts that are too long for the model are cut."""
        ...


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter found out about its server. `model` is the configured one, or the server's only or first one.

    `context_tokens` None: the server does not say. `server` is its own name and version, "" if unknown. Finding out
    took `requests` calls of the model, and `tokens`.
    """

    model: str
    capabilities: frozenset[Capability]
    context_tokens: int | None = None
    server: str = ""
    requests: int = 0
    tokens: TokenCount = TokenCount()


class Adapter(ChatModel, Protocol):
    """One backend's SDK behind the protocols, and its connections."""

    @property
    def scorer(self) -> LabelScorer | None:
        """None when the server gives no log-probabilities, or before the first probe."""
        ...

    @property
    def batches(self) -> BatchModel | None:
        """None when the server has none."""
        ...

    @property
    def decider(self) -> Decider | None:
        """None when neither server nor model decides, or before the first probe."""
        ...

    @property
    def reranker(self) -> RelevanceScorer | None:
        """None when the model was not trained for it."""
        ...

    async def probe(self, timeout_s: float) -> Probed:
        """Ask the server what it is and can do; the adapter remembers it. Raises UpstreamError.

        Costs no more than a few tokens. If no model is configured, the one found here is used.
        """
        ...

    async def ping(self, timeout_s: float) -> None:
        """Check that the server is there and accepts the key, without spending a token. Raises UpstreamError."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class RerankerOnly:
    """What the adapter of a model lacks that can do nothing but rerank."""

    scorer = batches = decider = None

    def __init__(self, name: str) -> None:
        self._name = name

    async def complete(self, request: ChatRequest, timeout_s: float) -> Reply:
        """Raises MissingCapability."""
        raise self._unable()

    def stream(self, request: ChatRequest, timeout_s: float) -> AsyncGenerator[Delta, None]:
        """Raises MissingCapability."""
        raise self._unable()

    def _unable(self) -> MissingCapability:
        return MissingCapability(f"the backend {self._name!r} is a reranker: it cannot write")


Clock = Callable[[], float]
"""Seconds that never go back, such as the event loop's."""

ANONYMOUS = "anonymous"


def loop_time() -> float:
    """The running event loop's clock."""
    return asyncio.get_running_loop().time()


class Deadline:
    """A moment after which no work is worth starting."""

    def __init__(self, seconds: float, clock: Clock = loop_time) -> None:
        self._clock = clock
        self.at = clock() + seconds

    def left(self) -> float:
        """Seconds until then; negative afterwards."""
        return self.at - self._clock()


class Account:
    """Collects what the model calls of one request used. One per request; not for several threads."""

    def __init__(self) -> None:
        self._stages: dict[str, StageUsage] = {}

    def add(
        self, stage: str, requests: int, tokens: TokenCount, cost_usd: float, replicas: tuple[int, ...] = ()
    ) -> None:
        """Add calls of a stage; `replicas`: see `StageUsage`."""
        used = StageUsage(
            requests=requests,
            input_tokens=tokens.input,
            cached_tokens=tokens.cached,
            output_tokens=tokens.output + tokens.thinking,
            cost_usd=cost_usd,
            replicas=replicas or msgspec.UNSET,
        )
        self._stages[stage] = self._stages.get(stage, StageUsage()) + used

    def usage(self) -> Usage:
        """The total so far, and that of each stage."""
        return total_usage(dict(self._stages))


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls a model and why. `stage` is "rank", "answer", "chat", ...; `key` names the API key of the caller.

    `backends` are those that the key is for, None: all.
    """

    stage: str
    deadline: Deadline
    account: Account
    key: str = ANONYMOUS
    request_id: str = ""
    backends: tuple[str, ...] | None = None


def call_of(stage: str, seconds: float, caller: Caller) -> Call:
    """A call of this caller's, from now on for so many seconds, on an account of its own."""
    return Call(
        stage=stage,
        deadline=Deadline(seconds),
        account=Account(),
        key=caller.key,
        request_id=caller.request_id,
        backends=caller.backends,
    )


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which backend a call goes to, and under which model's name. In a `batch` it costs half.

    `replica` is the number of the server, from 1, where the backend has several; else 0.
    """

    backend: str
    model: str
    batch: bool = False
    replica: int = 0


class Charge(Protocol):
    """The cost of one attempt. Ended exactly once."""

    async def end(
        self,
        tokens: TokenCount | None,
        *,
        outcome: str,
        requests: int = 1,
        estimate: TokenCount | None = None,
        first_token_s: float | None = None,
    ) -> None:
        """Book it: in the ledger, in the budgets, and on the call's account.

        `outcome` is "ok", "cancelled" or the code of the error. `tokens` None: the server did not report any; then
        `estimate` is booked and marked as one (None: nothing was used, as when the server was never reached).
        Returns when the row is safe from a kill of this process, but waits only briefly.
        """
        ...


class Meter(Protocol):
    """Lets attempts begin while the budgets allow, and books what they used."""

    async def begin(self, target: Target, call: Call, worst: TokenCount) -> Charge:
        """Begin the charge of an attempt that may use up to `worst` tokens. Raises BudgetExceeded with the figures, and
        StoreUnavailable where several processes share their budgets and cannot reach them.
        """
        ...
