"""Who ranks, who takes over, by when."""

from collections.abc import Sequence

import msgspec
import pytest

from app.backends.base import Probed
from app.backends.client import BackendClient
from app.backends.router import Backend, Backends, Route, Router
from app.backends.settings import RoutingSettings
from app.config.settings import RankingSettings
from app.domain import ANONYMOUS, BackendUse, Fallback, RankingOptions
from app.errors import (
    InvalidRequest,
    MissingCapability,
    Refused,
    UnknownBackend,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.ranking.cache import ScoreCache
from app.ranking.reranker import Reranker
from app.services.ranking import Rankers, RankingOutcome, can_rank
from tests.fakes.adapters import Plan, ScriptedAdapter
from tests.fakes.clients import make_client
from tests.fakes.passage_reader import falling
from tests.fakes.virtual_time import VIRTUAL_TIME

pytestmark = pytest.mark.anyio

FAIL = RankingOptions(on_failure="fail")
GRADES = Plan(pieces=('{"3": [1], "2": [], "1": [2]}',))


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


def scorer(name: str = "gemma", plan: Plan | None = None) -> BackendClient:
    return make_client(ScriptedAdapter(rest=plan or Plan()), name=name, retries=0)


def judge(name: str = "flash", plan: Plan = GRADES) -> BackendClient:
    probed = Probed(model="fake-1", capabilities=frozenset(("chat", "structured")))
    return make_client(ScriptedAdapter(rest=plan, probe=probed, scores=False), name=name, retries=0)


def rankers(clients: Sequence[BackendClient], settings: RankingSettings | None = None) -> Rankers:
    async def router() -> Router:
        return Router(clients, RoutingSettings())

    backends = Backends([Backend(name=client.name, kind="vllm", roles=("rank",)) for client in clients])
    return Rankers(backends, router, Reranker(ScoreCache(99)), settings or RankingSettings())


async def rank(
    clients: Sequence[BackendClient], requested: str = "auto", options: RankingOptions | None = None
) -> RankingOutcome:
    ours = rankers(clients)
    who = await ours.select(requested)
    assert isinstance(who, Route)
    return await ours.rank(
        who,
        "what?",
        falling(9),
        10,
        options or RankingOptions(),
        msgspec.structs.replace(ANONYMOUS, key="ann", request_id="r1"),
    )


@pytest.mark.parametrize("client", [scorer("one"), judge("one")])
async def test_both_kinds_of_backend_rank(client: BackendClient) -> None:
    """By log-probabilities if there are any, else by judgement; neither needs to be known before."""
    ordered = await rank([client])
    assert ordered.use == BackendUse(requested="auto", used="one", model="fake-1")
    assert ordered.ranking is not None
    assert len(ordered.ranking.order) == 9
    assert ordered.usage.by_stage.keys() == {"rank"}


async def test_another_kind_takes_over() -> None:
    """A scorer that fails is followed by a judge, and the response names it."""
    away = Plan(failure=UpstreamUnavailable("gemma", "away"))
    ordered = await rank([scorer(plan=away), judge()])
    assert ordered.use.used == "flash"
    assert ordered.use.fallbacks == (Fallback(backend="gemma", reason="unavailable"),)


async def test_a_silent_backend_leaves_time_for_the_next() -> None:
    """Half of the time passes without a word: then another one is asked."""
    options = RankingOptions(deadline_ms=4000)
    ordered = await rank([scorer(plan=Plan(seconds=60.0)), judge()], options=options)
    assert ordered.use.used == "flash"
    assert ordered.use.fallbacks == (Fallback(backend="gemma", reason="timeout"),)


async def test_labels_that_are_no_tokens_leave_judgement() -> None:
    """A model that cannot be asked for labels is asked for grades, if it can give these."""
    wrong = InvalidRequest("the label '0' is 2 tokens")
    adapter = ScriptedAdapter([Plan(failure=wrong)], rest=GRADES)
    ordered = await rank([make_client(adapter, name="odd")])
    assert ordered.use.used == "odd"
    assert ordered.ranking is not None
    assert ordered.ranking.order[0].grade == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (UpstreamUnavailable("gemma", "away"), "unavailable"),
        (UpstreamRejected("gemma", "no such model"), "rejected"),
        (Refused("gemma", "declined"), "refused"),
        (UpstreamTimeout("gemma", "slow"), "timeout"),
    ],
)
async def test_when_nobody_ranks(failure: Exception, reason: str) -> None:
    """The order of retrieval stays and the response says why; who wants an error gets it."""
    ordered = await rank([scorer(plan=Plan(failure=failure))])
    assert ordered.ranking is None
    assert ordered.use == BackendUse(
        requested="auto", used="none", fallbacks=(Fallback(backend="gemma", reason=reason),)
    )
    assert ordered.degraded == (f"gemma did not rank ({reason}); results are in retrieval order",)
    with pytest.raises(type(failure)):
        await rank([scorer(plan=Plan(failure=failure))], options=FAIL)


async def test_a_backend_that_turns_out_unable_is_the_callers_mistake() -> None:
    """By name it is refused even where failures are forgiven; "auto" passes it over."""
    probed = Probed(model="fake-1", capabilities=frozenset(("chat",)))

    def plain() -> BackendClient:
        return make_client(ScriptedAdapter(probe=probed, scores=False), name="plain")

    with pytest.raises(MissingCapability, match="neither rerank, logprobs, structured nor decide"):
        await rank([plain()], "plain")
    assert (await rank([plain(), judge()])).use.used == "flash"
    assert (await rank([plain()])).use.fallbacks == (Fallback(backend="plain", reason="cannot"),)


async def test_who_is_known_to_be_unable_is_refused_before_any_work() -> None:
    """And nobody is an answer for "auto" and "none", which need no router."""
    client = judge("plain")
    client.replicas.first.discovery.probed = Probed(model="fake-1", capabilities=frozenset(("chat",)))
    ours = rankers([client])
    assert not can_rank(client)
    with pytest.raises(MissingCapability):
        await ours.select("plain")
    with pytest.raises(UnknownBackend):
        await ours.select("nobody")
    unable = (Fallback(backend="plain", reason="cannot"),)
    assert await ours.select(None) == BackendUse(requested="auto", used="none", fallbacks=unable)
    assert await ours.select("none") == BackendUse(requested="none", used="none")
    assert await ours.auto_backend(ANONYMOUS) == "none"


async def test_the_settings_fill_in_what_a_request_leaves_out() -> None:
    """Strategy and depth are the request's, else the settings'."""
    client = judge(plan=Plan(pieces=("[2] > [1]",)))
    ours = rankers([client], RankingSettings(strategy="listwise", depth=2))
    who = await ours.select("auto")
    assert isinstance(who, Route)
    ordered = await ours.rank(who, "what?", falling(9), 10, RankingOptions(), ANONYMOUS)
    assert ordered.ranking is not None
    assert [place.id for place in ordered.ranking.order[:3]] == ["p1", "p0", "p2"]
    assert [place.read for place in ordered.ranking.order] == [True] * 2 + [False] * 7
    deeper = await ours.rank(who, "what?", falling(9), 10, RankingOptions(depth=3), ANONYMOUS)
    assert deeper.ranking is not None
    assert sum(place.read for place in deeper.ranking.order) == 3
