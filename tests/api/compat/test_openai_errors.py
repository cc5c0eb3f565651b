"""Errors in OpenAI's shape, and what RAGFlow makes of their texts."""

from app.api.compat.errors import openai_error, openai_failure
from app.api.problem_details import problem_of
from app.errors import (
    BudgetExceeded,
    InvalidRequest,
    MissingCapability,
    NotFound,
    Overloaded,
    PromptTooLong,
    RateLimited,
    Refused,
    Resting,
    UnknownBackend,
    UpstreamBadReply,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    pointing_at,
)
from indexing.errors import CollectionNotFound, StoreUnavailable

_WORDS = (
    ("spent", ("quota", "capacity", "credit", "billing", "balance")),
    ("wait", ("rate limit", "429", "tpm limit", "too many requests", "requests per minute")),
    ("key", ("auth", "key", "apikey", "401", "forbidden", "permission")),
    ("invalid", ("invalid", "bad request", "400", "format", "malformed", "parameter")),
    ("wait", ("server", "503", "502", "504", "500", "unavailable")),
)
"""The order in which RAGFlow looks for words in the text of an exception; "wait" is asked again, minutes later."""

PASSING = (
    UpstreamTimeout("g", "gemma did not answer in time"),
    UpstreamUnavailable("g", "gemma cannot be reached; is it running, and is `url` right?"),
    UpstreamUnavailable("g", "gemma cannot serve now (503)", 3.0),
    Resting("g", "gemma has failed 5 times in a row and rests for 5 s", 5.0),
    UpstreamRateLimited("g", "gemini wants us to wait: too many requests or tokens", 7.0, quota="minute"),
    UpstreamBadReply("g", "gemma broke its reply off"),
    Overloaded("gemma is busy, and 12 calls wait for it", 2.0),
    Overloaded("gemma has had all that its limits per minute allow", 20.0),
    StoreUnavailable("the store does not answer"),
    Overloaded("too many texts wait to be embedded"),
    RateLimited("slow down", 1.0),
)
SPENT = BudgetExceeded("the budget of $500 a day in total is spent", 3600.0)
BLOCKED = Refused("g", "gemma declined for its content policy")
MISSING = (
    NotFound("chat model 'x' not found"),
    CollectionNotFound("x"),
    UnknownBackend("unknown backend 'server'"),
)
TOO_LONG = PromptTooLong("g", "the prompt is too long for the context of 4096 tokens of gemma")
BAD_FIELD = pointing_at("/messages/0/content", "the question is empty")
LASTING = (
    SPENT,
    BLOCKED,
    *MISSING,
    BAD_FIELD,
    UpstreamRateLimited("g", "gemini: the quota of the day is spent", quota="day"),
    UpstreamRejected("g", "gemma refuses the key (401); set api_key in [backends.gemma]"),
    TOO_LONG,
    UpstreamRejected("g", "gemma refuses the request (500)"),
    MissingCapability("the backend 'server' does not offer images"),
    InvalidRequest("the body is empty"),
)


def as_the_sdk_says(exc: Exception) -> list[str]:
    """`str` of what OpenAI's SDK raises, up to version 2 and since."""
    status, failure = openai_error(problem_of(exc, "id", None), exc)
    return [f"Error code: {status} - {said}".lower() for said in (failure, failure["error"]["message"])]


def ragflow_does(text: str) -> str:
    return next((what for what, words in _WORDS if any(word in text for word in words)), "other")


def test_ragflow_asks_again_where_it_helps() -> None:
    """No word in the text of a failure that may pass keeps RAGFlow from asking again."""
    assert {ragflow_does(text) for exc in PASSING for text in as_the_sdk_says(exc)} == {"wait"}


def test_ragflow_does_not_ask_again_where_it_is_no_use() -> None:
    """No number or word in the text of a failure that stays makes RAGFlow ask for minutes."""
    texts = [text for exc in LASTING for text in as_the_sdk_says(exc)]
    assert [text for text in texts if ragflow_does(text) == "wait"] == []


def test_a_spent_budget_is_told_in_the_text_too() -> None:
    """The message of a chunk is all that RAGFlow sees of it, and its figures may look like a status."""
    _, failure = openai_error(problem_of(SPENT, "id", None), SPENT)
    assert ragflow_does(failure["error"]["message"].lower()) == "spent"
    assert (failure["error"]["type"], failure["error"]["code"]) == ("insufficient_quota", "insufficient_quota")


def test_what_is_not_there_is_the_model() -> None:
    """A model, collection or backend that is not there is 404 model_not_found, as OpenAI has it."""
    for exc in MISSING:
        status, failure = openai_error(problem_of(exc, "id", None), exc)
        assert (status, failure["error"]["code"], failure["error"]["param"]) == (404, "model_not_found", "model")


def test_a_bad_field_is_named() -> None:
    """`param` is the path of the field with dots."""
    status, failure = openai_error(problem_of(BAD_FIELD, "id", None), BAD_FIELD)
    assert (status, failure["error"]["type"], failure["error"]["param"]) == (
        400,
        "invalid_request_error",
        "messages.0.content",
    )


def test_a_safety_block_is_the_requests_fault() -> None:
    """400 content_filter, as Azure has it: clients do not ask again."""
    status, failure = openai_error(problem_of(BLOCKED, "id", None), BLOCKED)
    assert (status, failure["error"]["code"]) == (400, "content_filter")


def test_a_backend_that_cannot_is_in_the_models_name() -> None:
    """`winnow-rerank@nobody` is a bad `model`; elsewhere than in a chat the status is ours."""
    for exc in (UnknownBackend("unknown backend 'nobody'"), MissingCapability("extractive cannot rank")):
        status, failure = openai_failure(problem_of(exc, "id", None), exc)
        assert (status, failure["error"]["param"]) == (422, "model")


def test_a_prompt_that_is_too_long_is_the_requests_fault() -> None:
    """400 context_length_exceeded, which clients know how to handle; a 502 would send people to look for a fault."""
    status, failure = openai_error(problem_of(TOO_LONG, "id", None), TOO_LONG)
    assert (status, failure["error"]["code"], failure["error"]["param"]) == (400, "context_length_exceeded", "messages")
    assert "this model's maximum context length is" in failure["error"]["message"]  # what LiteLLM looks for
