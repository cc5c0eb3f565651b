"""A backend with several servers: who gets a call, who takes over, and what they have to agree on."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import pytest
from structlog.testing import capture_logs

from app.backends.base import ChatRequest, Message, Probed
from app.backends.client import BackendClient
from app.backends.pool import MAX_PAUSE_S, Supervisor
from app.backends.replicas import BOUND, Replica, _weight, beginning, first_of
from app.backends.resilience.limits import WINDOW_S
from app.backends.settings import BackendSettings, RoutingSettings
from app.backends.status import NoSuchModel
from app.errors import (
    Resting,
    UpstreamBadReply,
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.ranking.prompts import grade_prompt, judge_request
from tests.fakes.adapters import ASKED, EVERYTHING, Plan, ScriptedAdapter
from tests.fakes.clients import a_call, replicated
from tests.fakes.meter import RecordingMeter
from tests.fakes.virtual_time import VIRTUAL_TIME

pytestmark = pytest.mark.anyio

FOUND = Probed(model="fake-1", capabilities=EVERYTHING, context_tokens=8192)


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


def down() -> UpstreamUnavailable:
    """It cannot be reached."""
    return UpstreamUnavailable("fake", "fake is down")


def asked(text: str) -> ChatRequest:
    """A conversation that begins with it."""
    return msgspec.structs.replace(ASKED, messages=(Message(role="user", content=text),))


def begun(adapters: Sequence[ScriptedAdapter]) -> list[int]:
    """How many calls each was sent."""
    return [adapter.begun for adapter in adapters]


def preferred(client: BackendClient, text: str) -> int:
    """The place of the server that gets such a call while all are idle."""
    return client.replicas.order(text, 1)[0].number - 1


def ranked(client: BackendClient, text: str) -> list[Replica]:
    """The servers in the order of their weights for such a call."""
    return sorted(client.replicas, key=lambda one: _weight(text, one), reverse=True)


async def test_a_conversation_stays_with_its_server() -> None:
    """Calls whose prompts begin alike go to one server; those of many conversations are spread over all."""
    adapters = [ScriptedAdapter() for _ in range(3)]
    client = replicated(adapters)
    turns = asked("How long is the guarantee?").messages
    for _ in range(5):
        await client.complete(msgspec.structs.replace(ASKED, messages=turns), a_call())
        turns = (*turns, Message(role="assistant", content="Two years."), Message(role="user", content="And then?"))
    assert sorted(begun(adapters)) == [0, 0, 5]
    for number in range(60):
        await client.complete(asked(f"question {number}"), a_call())
    assert min(begun(adapters)) >= 10


def test_a_rankings_calls_begin_alike() -> None:
    """Whatever passages they hold; another query begins otherwise, and so does another way of asking."""
    one, other = (beginning(grade_prompt("dental cover", text, "fence")) for text in ("a passage", "another"))
    assert one == other
    assert one != beginning(grade_prompt("holidays", "a passage", "fence"))
    judged = [beginning(judge_request("dental cover", [(n, f"p{n}")], "fence").messages) for n in (1, 2)]
    assert judged[0] == judged[1] != one
    assert beginning(()) == ""


async def test_every_service_prefers_the_same_server() -> None:
    """Whatever the order in which it names them; when one is added, calls move to that one alone."""
    two, three = (replicated([ScriptedAdapter() for _ in range(count)]) for count in (2, 3))
    turned = replicated([ScriptedAdapter()] * 2, url="http://gpu2/v1,http://gpu1/v1")
    texts = [f"question {number}" for number in range(50)]
    at = [two.replicas.order(text, 1)[0].settings.url for text in texts]
    assert [turned.replicas.order(text, 1)[0].settings.url for text in texts] == at
    later = [three.replicas.order(text, 1)[0].settings.url for text in texts]
    assert {new for old, new in zip(at, later, strict=True) if old != new} == {"http://gpu3/v1"}


async def test_a_loaded_server_gets_no_more() -> None:
    """Of two servers two equal calls at once share one; of many no server has more than a quarter above its share."""
    adapters = [ScriptedAdapter(rest=Plan(seconds=10)) for _ in range(2)]
    client = replicated(adapters)
    first = preferred(client, "hot")
    calls = [asyncio.ensure_future(client.complete(asked("hot"), a_call())) for _ in range(2)]
    await asyncio.sleep(1)
    assert adapters[first].begun == 2
    calls += [asyncio.ensure_future(client.complete(asked("hot"), a_call())) for _ in range(18)]
    await asyncio.sleep(1)
    assert sum(begun(adapters)) == 20
    assert 10 < adapters[first].begun <= BOUND * 10 + 1
    await asyncio.gather(*calls)
    assert [one.tokens_in_flight for one in client.replicas] == [0, 0]


async def test_load_is_counted_in_tokens() -> None:
    """One long prompt outweighs many short ones: they go elsewhere while it is read."""
    adapters = [ScriptedAdapter(rest=Plan(seconds=10)) for _ in range(2)]
    client = replicated(adapters)
    long = asyncio.ensure_future(client.complete(asked("word " * 10_000), a_call()))
    await asyncio.sleep(1)
    busy = begun(adapters).index(1)
    short = [asyncio.ensure_future(client.complete(asked(f"question {n}"), a_call())) for n in range(10)]
    await asyncio.sleep(1)
    assert adapters[busy].begun == 1
    await asyncio.gather(long, *short)


async def test_limits_are_each_servers_own() -> None:
    """Twice the servers work at twice the calls."""
    adapters = [ScriptedAdapter(rest=Plan(seconds=1)) for _ in range(2)]
    client = replicated(adapters, concurrency=2)
    calls = [asyncio.ensure_future(client.complete(asked(f"question {n}"), a_call())) for n in range(8)]
    await asyncio.sleep(0.5)
    assert [adapter.under_way for adapter in adapters] == [2, 2]
    assert client.status().in_flight == 4
    assert client.status().waiting == 4
    await asyncio.gather(*calls)


async def test_another_server_takes_over_at_once() -> None:
    """Without a pause and without a retry; the dead one is left out until a check finds it again."""
    adapters, meter = [ScriptedAdapter(), ScriptedAdapter()], RecordingMeter()
    client = replicated(adapters, meter, retries=0)
    text = next(f"question {n}" for n in range(100) if preferred(client, f"question {n}") == 0)
    supervisor = Supervisor([client])
    supervisor.start()
    await asyncio.sleep(2)
    adapters[0].away, adapters[0].rest = down, Plan(seconds=0, failure=down)
    assert (await client.complete(asked(text), a_call())).text == "It is 42."
    assert meter.story() == ["unavailable", "ok"]
    assert [one.state for one in client.replicas] == ["down", "up"]
    assert client.health == "up"
    for _ in range(5):
        await client.complete(asked(text), a_call())
    assert begun(adapters) == [1, 6]
    adapters[0].away, adapters[0].rest = None, Plan()
    await asyncio.sleep(2 * MAX_PAUSE_S)
    await client.complete(asked(text), a_call())
    assert begun(adapters) == [2, 6]
    assert [one.state for one in client.replicas] == ["up", "up"]
    await supervisor.close()


async def test_who_is_nowhere_served_learns_why() -> None:
    """Each server is tried before each retry, those that are down too; then all rest, and the call is refused."""
    adapters = [ScriptedAdapter(rest=Plan(seconds=0, failure=down)) for _ in range(2)]
    client = replicated(adapters, retries=1, routing=RoutingSettings(failures=2, rest_s=20))
    with pytest.raises(UpstreamUnavailable, match="fake is down"):
        await client.complete(ASKED, a_call())
    assert begun(adapters) == [2, 2]
    with pytest.raises(Resting) as refused:
        await client.complete(ASKED, a_call())
    assert refused.value.retry_after == pytest.approx(20, abs=1)
    assert (client.health, client.available) == ("down", False)


async def test_a_rejection_is_final() -> None:
    """What one server will not take another one would not either."""
    adapters = [ScriptedAdapter(rest=Plan(failure=UpstreamRejected("fake", ""))) for _ in range(2)]
    with pytest.raises(UpstreamRejected):
        await replicated(adapters).complete(ASKED, a_call())
    assert sum(begun(adapters)) == 1


async def test_one_that_starts_slowly_is_not_waited_for() -> None:
    """It gets its share as soon as it has said what it is, and no call before that."""
    adapters = [ScriptedAdapter(probe=FOUND), ScriptedAdapter(probe=down)]
    client = replicated(adapters, model=None)
    supervisor = Supervisor([client])
    supervisor.start()
    await asyncio.sleep(1)
    for number in range(10):
        await client.complete(asked(f"question {number}"), a_call())
    assert begun(adapters) == [10, 0]
    adapters[1].found = FOUND
    await asyncio.sleep(MAX_PAUSE_S)
    for number in range(10):
        await client.complete(asked(f"question {number}"), a_call())
    assert adapters[1].begun > 0
    await supervisor.close()


async def test_the_first_call_waits_for_the_first_that_answers() -> None:
    """Before anything is known of them; only if none answers is it a failure."""
    adapters = [ScriptedAdapter(probe=down), ScriptedAdapter(probe=FOUND)]
    client = replicated(adapters, model=None)
    assert (await client.complete(ASKED, a_call())).text == "It is 42."
    assert (client.model, begun(adapters)) == ("fake-1", [0, 1])
    with pytest.raises(UpstreamUnavailable):
        await replicated([ScriptedAdapter(probe=down)] * 2, model=None, retries=0).complete(ASKED, a_call())


async def test_another_model_gets_no_calls() -> None:
    """The model of most servers counts; whose is another is left out, and the log says which and why."""
    odd = ScriptedAdapter(probe=msgspec.structs.replace(FOUND, model="other-1"))
    adapters = [odd, ScriptedAdapter(probe=FOUND), ScriptedAdapter(probe=FOUND)]
    client = replicated(adapters, model=None)
    supervisor = Supervisor([client])
    with capture_logs() as logs:
        supervisor.start()
        await asyncio.sleep(5)
        odd.found = FOUND
        client.replicas.first.health.news.set()
        await asyncio.sleep(5)
    assert client.model == "fake-1"
    for number in range(20):
        await client.complete(asked(f"question {number}"), a_call())
    assert odd.begun == 0
    assert [client.replicas.serves(one) for one in client.replicas] == [False, True, True]
    assert "it has the model 'other-1', the others 'fake-1': it gets no calls" in {
        log["why"] for log in logs if log.get("replica") == 1 and "why" in log
    }
    await supervisor.close()


async def test_a_restarted_server_with_another_model_is_left_out() -> None:
    """The call that finds out is done by the other one."""
    gone = Plan(seconds=0, failure=lambda: NoSuchModel("fake", "fake does not have the model 'fake-1'"))
    adapters = [ScriptedAdapter(probe=FOUND), ScriptedAdapter(probe=FOUND)]
    client = replicated(adapters, model=None)
    await asyncio.gather(*(one.discovery.probe() for one in client.replicas))
    text = next(f"question {n}" for n in range(100) if preferred(client, f"question {n}") == 0)
    adapters[0].rest = gone
    for _ in range(3):
        await client.complete(asked(text), a_call())
    assert begun(adapters) == [1, 3]


async def test_what_all_can_do_is_what_the_backend_can_do() -> None:
    """The smallest context, and the abilities that all have."""
    small = Probed(model="fake-1", capabilities=EVERYTHING - {"images"}, context_tokens=4096)
    client = replicated([ScriptedAdapter(probe=FOUND), ScriptedAdapter(probe=small)])
    for one in client.replicas:
        await one.discovery.probe()
    assert client.probed is not None
    assert (client.probed.context_tokens, client.probed.capabilities) == (4096, small.capabilities)
    assert not client.offers(frozenset(("images",)))
    whys = [client.replicas.disagreement(one) for one in client.replicas]
    assert whys == ["not all of the others offer images: it is not used", ""]


async def test_a_hedge_goes_to_another_server() -> None:
    """A server that hangs is not asked twice."""
    adapters = [ScriptedAdapter(rest=Plan(seconds=60)), ScriptedAdapter()]
    client = replicated(adapters, hedge_after_s=1.0)
    text = next(f"question {n}" for n in range(100) if preferred(client, f"question {n}") == 0)
    await client.complete(asked(text), a_call())
    assert (begun(adapters), adapters[0].stopped) == ([1, 1], 1)


async def test_who_was_called_is_told() -> None:
    """Each charge names the server, so that the account of a request has their numbers."""
    meter = RecordingMeter()
    client = replicated([ScriptedAdapter(), ScriptedAdapter()], meter)
    for number in range(20):
        await client.complete(asked(f"question {number}"), a_call())
    assert Counter(booked.replica for booked in meter.booked).keys() == {1, 2}
    assert [one.calls for one in client.replicas] == [sum(b.replica == n for b in meter.booked) for n in (1, 2)]


def test_addresses_are_separated_by_commas() -> None:
    """Each server has the settings of the backend, and an address of its own."""
    settings = BackendSettings(kind="vllm", url="http://a/v1, http://b/v1", concurrency=3)
    assert [(one.url, one.concurrency) for one in settings.each()] == [("http://a/v1", 3), ("http://b/v1", 3)]
    assert BackendSettings(kind="gemini").each() == (BackendSettings(kind="gemini"),)


@pytest.mark.parametrize(
    "failure", [lambda: UpstreamTimeout("fake", "fake is late"), lambda: UpstreamBadReply("fake", "half a reply")]
)
async def test_a_retry_goes_to_another_server(failure: Callable[[], UpstreamError]) -> None:
    """One that hangs is not asked again while another one is there."""
    adapters = [ScriptedAdapter(rest=Plan(failure=failure)), ScriptedAdapter()]
    client = replicated(adapters, retries=1)
    text = next(f"question {n}" for n in range(100) if preferred(client, f"question {n}") == 0)
    await client.complete(asked(text), a_call())
    assert begun(adapters) == [1, 1]


async def test_one_that_used_up_its_limits_is_not_waited_for() -> None:
    """Another one takes over at once, and nobody takes it for down."""
    limited = Plan(seconds=0, failure=lambda: UpstreamRateLimited("fake", "enough for now", 60.0))
    adapters = [ScriptedAdapter(rest=limited), ScriptedAdapter()]
    client = replicated(adapters, retries=0)
    text = next(f"question {n}" for n in range(100) if preferred(client, f"question {n}") == 0)
    await client.complete(asked(text), a_call())
    assert begun(adapters) == [1, 1]
    assert client.replicas.first.state != "down"


async def test_a_used_up_minute_is_not_waited_for() -> None:
    """A conversation whose server has no room in its minute goes on at the next one by rank, and comes back later."""
    adapters = [ScriptedAdapter() for _ in range(3)]
    client = replicated(adapters, requests_per_minute=2)
    first, second, third = [one.number - 1 for one in ranked(client, "hot")]
    at, began = list[int](), asyncio.get_running_loop().time()
    for _ in range(6):
        before = begun(adapters)
        await client.complete(asked("hot"), a_call())
        at += [place for place in range(3) if begun(adapters)[place] > before[place]]
    assert at == [first, first, second, second, third, third]
    assert asyncio.get_running_loop().time() - began < 10
    await asyncio.sleep(WINDOW_S)
    await client.complete(asked("hot"), a_call())
    assert begun(adapters)[first] == 3


async def test_where_no_minute_has_room_the_first_to_have_it_is_waited_for() -> None:
    """Not the preferred one; and those that wait already count, so that calls are spread over all."""
    adapters = [ScriptedAdapter(rest=Plan(seconds=0)) for _ in range(2)]
    client = replicated(adapters, requests_per_minute=1)
    text = next(f"question {n}" for n in range(100) if preferred(client, f"question {n}") == 0)
    await client.complete(asked(text), a_call())
    await asyncio.sleep(20)
    await client.complete(asked(text), a_call())
    assert begun(adapters) == [1, 1]
    began = asyncio.get_running_loop().time()
    calls = [asyncio.ensure_future(client.complete(asked(text), a_call(seconds=300))) for _ in range(2)]
    await asyncio.gather(*calls)
    assert begun(adapters) == [2, 2]
    assert asyncio.get_running_loop().time() - began == pytest.approx(WINDOW_S, abs=1)


async def test_loads_are_bounded_among_those_with_room() -> None:
    """One whose minute is used up is idle, and would take the mean down: the others would be too busy, all of them."""
    client = replicated([ScriptedAdapter() for _ in range(3)], requests_per_minute=1)
    await client.complete(asked("hot"), a_call())
    idle = ranked(client, "hot")[0]
    for one in client.replicas:
        one.tokens_in_flight = 0 if one is idle else 1000
    for number in range(50):
        text = f"question {number}"
        order = client.replicas.order(text, 100)
        assert order[0] is next(one for one in ranked(client, text) if one is not idle)
        assert order[-1] is idle


async def test_nobody_takes_over_once_no_time_is_left() -> None:
    """What the first server did wrong is told."""
    client, served = replicated([ScriptedAdapter()] * 2), list[int]()

    async def serve(replica: Replica, _: Replica) -> None:
        served.append(replica.number)
        raise down()

    with pytest.raises(UpstreamUnavailable, match="fake is down"):
        await first_of([*client.replicas], serve, lambda: 0.0)
    assert served == [1]
    with pytest.raises(UpstreamUnavailable):
        await first_of([*client.replicas], serve, lambda: 1.0)
    assert served == [1, 1, 2]
