"""What a client's `model` means in a chat."""

import pytest

from app.api.compat.openai.chat import CHAT_TOKENS, Target, target_of
from app.backends.base import Probed
from app.domain import ANONYMOUS
from app.errors import NotFound, UpstreamUnavailable
from tests.fakes.adapters import EVERYTHING, ScriptedAdapter
from tests.fakes.clients import make_client

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("context", "tokens"), [(None, CHAT_TOKENS), (100_000, CHAT_TOKENS), (1000, 500), (1, 1)])
async def test_a_reply_leaves_half_of_the_context(context: int | None, tokens: int) -> None:
    """Where nobody says how long it may be; a model is asked what it is when its id is first needed."""
    probe = Probed(model="tiny", capabilities=EVERYTHING, context_tokens=context)
    line = make_client(ScriptedAdapter(probe=probe), model=None)
    assert await target_of("tiny", {"gemma": line}, ANONYMOUS) == Target(None, "gemma", tokens)


async def test_a_backend_comes_before_a_model_of_its_name() -> None:
    """Backends are named by whoever runs the service, models by others."""
    lines = {name: make_client(ScriptedAdapter(), name=name, model=model) for name, model in (("a", "b"), ("b", "c"))}
    assert await target_of("b", lines, ANONYMOUS) == Target(None, "b", CHAT_TOKENS)


async def test_a_backend_that_is_away_is_no_reason_to_fail() -> None:
    """Its model is not known; the refusal lists the others."""
    away = ScriptedAdapter(probe=lambda: UpstreamUnavailable("a", "a cannot be reached"))
    lines = {
        "a": make_client(away, name="a", model=None),
        "b": make_client(ScriptedAdapter(), name="b", model="fake-1"),
    }
    with pytest.raises(NotFound, match=r"'tiny'.*fake-1"):
        await target_of("tiny", lines, ANONYMOUS)
