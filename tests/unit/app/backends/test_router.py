"""Which backend serves a request."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends.base import Capability, Probed, Reply
from app.backends.client import BackendClient, needs_of
from app.backends.router import Router, Served
from app.backends.settings import RoutingSettings
from app.domain import BackendUse, Fallback
from app.errors import (
    BudgetExceeded,
    MissingCapability,
    Overloaded,
    Refused,
    Resting,
    UnknownBackend,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tests.fakes.adapters import ASKED, Plan, ScriptedAdapter
from tests.fakes.clients import a_call, make_client
from tests.fakes.meter import RecordingMeter
from tests.fakes.virtual_time import VIRTUAL_TIME, run

pytestmark = pytest.mark.anyio

CHAT: frozenset[Capability] = frozenset(("chat",))

ROUTING = RoutingSettings(failures=1, rest_s=5)


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


def failing(failure: Exception, name: str = "gemma", **settings: object) -> BackendClient:
    """A client on which every call fails."""
    return make_client(ScriptedAdapter(rest=Plan(failure=failure)), name=name, routing=ROUTING, retries=0, **settings)


def working(name: str = "flash", **settings: object) -> BackendClient:
    """A client on which every call goes well."""
    return make_client(ScriptedAdapter(), name=name, **settings)


async def ask(clients: Sequence[BackendClient], requested: str = "auto", seconds: float = 100) -> Served[Reply]:
    """One completion."""
    return await Router(clients, RoutingSettings()).route(requested, CHAT).complete(ASKED, a_call(seconds))


async def test_auto_takes_the_first() -> None:
    """The first backend serves, and the others hear nothing of it."""
    other = working("flash")
    served = await ask([working("gemma"), other])
    assert served.value.text == "It is 42."
    assert served.use == BackendUse(requested="auto", used="gemma", model="fake-1")
    assert other.status().health == "unknown"


async def test_auto_follows_the_configured_order() -> None:
    """The order of [routing] counts, not that of the declarations; who is not in it is not used."""
    clients = [working("a"), working("b"), working("c")]
    router = Router(clients, RoutingSettings(auto=("c", "a")))
    route = router.route("auto", CHAT)
    assert [client.name for client in route.clients] == ["c", "a"]
    assert (await route.complete(ASKED, a_call())).use.used == "c"
    assert (await router.route("b", CHAT).complete(ASKED, a_call())).use.used == "b"


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamTimeout("s", ""),
        UpstreamUnavailable("s", ""),
        UpstreamRateLimited("s", "", 30.0),
        UpstreamRejected("s", ""),
        UpstreamBadReply("s", ""),
    ],
)
async def test_the_next_takes_over(failure: UpstreamError) -> None:
    """When the first fails the second serves, and the response says who failed and of what."""
    served = await ask([failing(failure), working()])
    assert served.use.used == "flash"
    assert served.use.fallbacks == (Fallback(backend="gemma", reason=failure.code),)


async def test_the_next_takes_over_from_the_busy_and_the_poor() -> None:
    """A backend that has no room, and one that is over its budget, are passed over."""
    busy = make_client(ScriptedAdapter(rest=Plan(seconds=50)), name="busy", concurrency=1, queue=0)
    running = asyncio.ensure_future(busy.complete(ASKED, a_call()))
    await asyncio.sleep(0)
    served = await ask([busy, make_client(ScriptedAdapter(), RecordingMeter(attempts=0), name="poor"), working()])
    assert [(f.backend, f.reason) for f in served.use.fallbacks] == [("busy", "overloaded"), ("poor", "over_budget")]
    await running


async def test_a_refusal_is_an_answer() -> None:
    """What one backend declined for safety is not asked of the next."""
    other = working()
    with pytest.raises(Refused) as refused:
        await ask([failing(UpstreamTimeout("s", ""), "a"), failing(Refused("s", ""), "b"), other])
    assert refused.value.failures == (Fallback(backend="a", reason="timeout"),)
    assert other.status().health == "unknown"


async def test_who_rests_is_skipped() -> None:
    """While a backend rests no call reaches it, and the response says that it rests."""
    resting = failing(UpstreamTimeout("s", ""))
    await ask([resting, working()])
    served = await ask([resting, working()])
    assert served.use.fallbacks == (Fallback(backend="gemma", reason="resting"),)
    assert isinstance(resting.adapter, ScriptedAdapter)
    assert resting.adapter.begun == 1


async def test_who_is_down_comes_last() -> None:
    """A backend that the last check found down is only used when no other works, and is named with the reason."""
    adapter = ScriptedAdapter()
    adapter.away = lambda: UpstreamUnavailable("s", "")
    down = make_client(adapter)
    with suppress(UpstreamError):
        await down.replicas.first.discovery.ping()
    served = await ask([down, working()])
    assert (served.use.used, served.use.fallbacks) == ("flash", (Fallback(backend="gemma", reason="unavailable"),))
    assert adapter.begun == 0
    served = await ask([down, failing(UpstreamTimeout("s", ""), "flash")])
    assert (served.use.used, served.use.fallbacks) == ("gemma", (Fallback(backend="flash", reason="timeout"),))


async def test_a_slow_first_leaves_time_for_the_next() -> None:
    """While another could take over, a backend has half of the time that is left; the last one has all of it."""
    slow = make_client(ScriptedAdapter(rest=Plan(seconds=1000)), name="slow")
    steady = make_client(ScriptedAdapter(rest=Plan(seconds=8)), name="steady")
    served = await ask([slow, steady], seconds=20)
    assert served.use.used == "steady"
    assert asyncio.get_running_loop().time() == pytest.approx(18)
    assert (await ask([steady], seconds=9)).use.used == "steady"


async def test_nobody_is_hurried_for_a_backend_that_is_away() -> None:
    """If the others rest or are down, a backend may use all the time that is left."""
    resting, down = failing(UpstreamTimeout("s", ""), "resting"), working("down")
    with suppress(UpstreamTimeout):
        await resting.complete(ASKED, a_call())
    with suppress(UpstreamTimeout):
        await down.replicas.first.discovery.ping(timeout_s=0)
    steady = make_client(ScriptedAdapter(rest=Plan(seconds=4)), name="steady")
    assert (await ask([steady, resting, down], seconds=4.5)).use.used == "steady"


async def test_a_stream_is_handed_over_until_its_first_token() -> None:
    """A backend that gives no token in time is replaced; the stream that began may take all the time it needs."""
    silent = make_client(ScriptedAdapter(rest=Plan(seconds=1000)), name="silent")
    trickling = make_client(ScriptedAdapter(rest=Plan(apart=5)), name="trickling")
    last = working("last")
    route = Router([silent, trickling, last], RoutingSettings()).route("auto", CHAT)
    served = await route.stream(ASKED, a_call(40))
    assert "".join([delta.text async for delta in served.value]) == "It is 42."
    assert (served.use.used, served.use.fallbacks[0].reason) == ("trickling", "timeout")


async def test_scores_are_routed_too() -> None:
    """A scoring goes to a backend with log-probabilities, whatever comes before it in the order."""
    gemini = make_client(ScriptedAdapter(), name="flash", kind="gemini")
    router = Router([gemini, failing(UpstreamTimeout("s", ""), "gemma"), working("qwen")], RoutingSettings())
    served = await router.route("auto", frozenset(("logprobs",))).score([ASKED.messages], ("0",), a_call())
    assert (served.use.used, served.use.fallbacks) == ("qwen", (Fallback(backend="gemma", reason="timeout"),))


async def test_one_backends_error_is_its_own() -> None:
    """A backend that was asked for by name fails with its own words, and the failure is listed."""
    with pytest.raises(UpstreamUnavailable, match=r"^its own words$") as failure:
        await ask([failing(UpstreamUnavailable("s", "its own words")), working()], "gemma")
    assert failure.value.failures == (Fallback(backend="gemma", reason="unavailable"),)


async def test_when_all_fail_the_error_tells_of_each() -> None:
    """The error names each backend with its code, and the shortest time after which to try again."""
    clients = [
        failing(UpstreamRejected("s", ""), "a"),
        failing(UpstreamRateLimited("s", "", 30.0), "b"),
        make_client(ScriptedAdapter(), RecordingMeter(attempts=0), name="c"),
        failing(UpstreamUnavailable("s", "", 7.0), "d"),
    ]
    with pytest.raises(UpstreamRateLimited) as failure:
        await ask(clients)
    assert str(failure.value) == (
        "no backend could serve this: a (rejected), b (rate_limited), c (over_budget), d (unavailable)"
    )
    assert failure.value.retry_after == 7
    assert [f.backend for f in failure.value.failures] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([UpstreamRejected("s", ""), UpstreamTimeout("s", "")], UpstreamTimeout),
        ([Resting("s", "", 3.0), UpstreamTimeout("s", "")], UpstreamTimeout),
        ([BudgetExceeded("spent", 60.0), UpstreamRejected("s", "")], UpstreamRejected),
        ([BudgetExceeded("spent", 60.0), BudgetExceeded("spent", 90.0)], BudgetExceeded),
        ([MissingCapability("no"), BudgetExceeded("spent", 60.0)], BudgetExceeded),
        ([MissingCapability("no"), MissingCapability("no")], MissingCapability),
        ([Overloaded("full"), UpstreamRejected("s", "")], Overloaded),
        ([Overloaded("full"), BudgetExceeded("spent", 60.0)], Overloaded),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
async def test_the_most_useful_error_is_raised(
    failures: list[Exception], expected: type[Exception], turned: bool
) -> None:
    """What may pass comes before what will not, and a spent budget is only told when nothing else is wrong."""
    ordered = reversed(failures) if turned else failures
    clients = [failing(failure, f"line{number}") for number, failure in enumerate(ordered)]
    with pytest.raises(expected) as raised:
        await ask(clients)
    assert type(raised.value) is expected


async def test_after_the_deadline_nobody_is_asked() -> None:
    """When the time is over, those not tried are neither asked nor blamed."""
    clients = [failing(UpstreamTimeout("s", ""), "a"), working("b")]
    clients[0].replicas.first.adapter = ScriptedAdapter(rest=Plan(seconds=1000), deaf=True)
    clients[1].replicas.first.adapter = ScriptedAdapter(rest=Plan(seconds=1000))
    clients.append(working("c"))
    with pytest.raises(UpstreamTimeout) as failure:
        await ask(clients, seconds=0)
    assert [f.backend for f in failure.value.failures] == ["a"]


async def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    """Asking for a backend that is not there says which are."""
    with pytest.raises(UnknownBackend, match="'nobody'; known are auto, gemma, flash"):
        Router([working("gemma"), working("flash")], RoutingSettings()).route("nobody", CHAT)


async def test_what_nobody_offers_is_refused_before_any_work() -> None:
    """A need that no backend meets names the backends, and for one backend what it does offer."""
    images = needs_of(ASKED) | {"images"}
    plain = working("gemma")
    plain.replicas.first.discovery.probed = Probed(model="fake-1", capabilities=frozenset(("chat", "structured")))
    gemini = make_client(ScriptedAdapter(), name="flash", kind="gemini")
    router = Router([plain, gemini], RoutingSettings())
    with pytest.raises(MissingCapability, match="'gemma' does not offer chat, images; it offers chat, structured"):
        router.route("gemma", images)
    with pytest.raises(MissingCapability, match="none of the backends 'gemma', 'flash' offers logprobs"):
        router.route("auto", frozenset(("logprobs",)))
    with pytest.raises(MissingCapability, match="'flash' does not offer logprobs"):
        router.route("flash", frozenset(("logprobs",)))
    assert [client.name for client in router.route("auto", images).clients] == ["flash"]


async def test_without_any_backend_it_says_how_to_get_one() -> None:
    """ "auto" without a backend is answered with the settings that make one."""
    with pytest.raises(MissingCapability, match="VLLM_URL, OLLAMA_URL or GEMINI_API_KEY"):
        Router([], RoutingSettings()).route("auto", CHAT)


async def test_a_server_that_lost_a_capability_is_passed_over() -> None:
    """If a backend turns out not to do what was assumed of it, the next one serves."""
    lost = make_client(ScriptedAdapter(probe=Probed(model="fake-1", capabilities=CHAT)))
    router = Router([lost, working("qwen")], RoutingSettings())
    served = await router.route("auto", frozenset(("logprobs",))).score([ASKED.messages], ("0",), a_call())
    assert (served.use.used, served.use.fallbacks) == ("qwen", (Fallback(backend="gemma", reason="cannot"),))


@given(seed=st.integers(0, 2**32))
def test_every_call_ends_as_documented(seed: int) -> None:
    """Whatever the backends do, a call is served or raises a documented error in time, and no charge is left open."""
    run(_any_weather(Random(seed)))


async def _any_weather(random: Random) -> None:
    faults: list[Exception] = [
        UpstreamTimeout("s", ""),
        UpstreamUnavailable("s", "", 2.0),
        UpstreamRateLimited("s", "", 1.0),
        UpstreamRateLimited("s", "", quota="day"),
        UpstreamRejected("s", ""),
        UpstreamBadReply("s", ""),
        Refused("s", ""),
    ]

    def plan() -> Plan:
        failure = random.choice(faults) if random.random() < 0.6 else None
        return Plan(seconds=random.choice((0, 0.5, 5, 100)), failure=failure)

    meter = RecordingMeter(attempts=random.choice((None, 10)))
    routing = RoutingSettings(failures=random.choice((1, 3)), rest_s=1)
    adapters = [ScriptedAdapter(rest=plan) for _ in range(3)]
    clients = [
        make_client(a, meter, name=f"line{n}", routing=routing, concurrency=2, queue=3, hedge_after_s=0.3)
        for n, a in enumerate(adapters)
    ]
    router = Router(clients, routing)

    async def use() -> None:
        seconds = random.choice((1, 10, 60))
        until = asyncio.get_running_loop().time() + seconds
        with suppress(UpstreamError, Overloaded, BudgetExceeded):
            await router.route(random.choice(("auto", "line1")), CHAT).complete(ASKED, a_call(seconds))
        assert asyncio.get_running_loop().time() <= until + 1e-6

    users = []
    for _ in range(15):
        users.append(asyncio.ensure_future(use()))
        await asyncio.sleep(random.choice((0, 0.2, 2)))
    await asyncio.gather(*users)
    meter.check()
    assert [adapter.under_way for adapter in adapters] == [0, 0, 0]
