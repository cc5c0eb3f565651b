"""Finding out what a server is: one question at a time, and busy is not down."""

import asyncio

import pytest

from app.backends.base import Probed
from app.backends.client import BackendClient
from app.backends.discovery import PATIENCE_S, PROBE_S
from app.backends.status import NoSuchModel
from app.errors import UpstreamTimeout, UpstreamUnavailable
from tests.fakes.adapters import ASKED, EVERYTHING, FINE, Plan, ScriptedAdapter
from tests.fakes.clients import a_call, make_client
from tests.fakes.virtual_time import VIRTUAL_TIME

pytestmark = pytest.mark.anyio


class BusyAdapter(ScriptedAdapter):
    """Says at once that it is there, and after `queue_s` what it is."""

    queue_s = 60.0

    async def probe(self, timeout_s: float) -> Probed:
        self.begun += 1
        await asyncio.sleep(self.queue_s)
        return await super().probe(timeout_s)


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Waiting takes no time."""
    return VIRTUAL_TIME


async def test_a_busy_server_is_asked_once_and_is_not_down() -> None:
    """Callers leave when their time is over; the question stays, and what it finds out is for those who come later."""
    adapter = BusyAdapter()
    client = make_client(adapter, model=None)
    for _ in range(5):
        with pytest.raises(UpstreamTimeout):
            await client.known(8.0)
        assert client.health == "up"
    assert adapter.begun == 1
    assert (await client.known(60.0)).model == "fake-1"
    assert (adapter.begun, adapter.pings) == (1, 11)
    await client.replicas.first.discovery.close()


async def test_who_waits_together_learns_together() -> None:
    """One question is for all of them, and so is its failure."""
    adapter = BusyAdapter(probe=lambda: UpstreamUnavailable("fake", "fake is down"))
    client = make_client(adapter, model=None)
    outcomes = await asyncio.gather(*(client.known(100.0) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamUnavailable] * 3
    assert (adapter.begun, client.health) == (1, "down")


@pytest.mark.parametrize("away", [True, False])
async def test_a_server_that_hangs_is_down(away: bool) -> None:
    """After ten seconds if it does not even say that it is there, else when all patience is spent."""
    adapter = BusyAdapter()
    adapter.queue_s = 10 * PATIENCE_S
    adapter.away = (lambda: UpstreamUnavailable("fake", "fake is down")) if away else None
    client = make_client(adapter, model=None)
    began = asyncio.get_running_loop().time()
    with pytest.raises(UpstreamUnavailable if away else UpstreamTimeout):
        await client.replicas.first.discovery.probe()
    assert client.health == "down"
    assert asyncio.get_running_loop().time() - began <= (PROBE_S if away else PATIENCE_S) + 1


async def test_closing_gives_up_a_question() -> None:
    """No task is left."""
    client, before = make_client(BusyAdapter(), model=None), asyncio.all_tasks()
    waiting = asyncio.ensure_future(client.known(100.0))
    await asyncio.sleep(1)
    await client.replicas.first.discovery.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert asyncio.all_tasks() == before


def gone() -> NoSuchModel:
    return NoSuchModel("fake", "fake does not have the model 'fake-1'")


async def restarted() -> tuple[ScriptedAdapter, BackendClient]:
    """A client whose server has another model since it was probed."""
    adapter = ScriptedAdapter()
    client = make_client(adapter, model=None, retries=0)
    await client.known()
    adapter.plans, adapter.found = [Plan(failure=gone)], Probed(model="fake-2", capabilities=EVERYTHING)
    with pytest.raises(NoSuchModel):
        await client.complete(ASKED, a_call())
    return adapter, client


async def test_a_model_that_is_gone_leads_to_a_new_probe() -> None:
    """The next call goes to the model that is there now, under whose name its grades are kept."""
    adapter, client = await restarted()
    adapter.rest = FINE
    await client.complete(ASKED, a_call())
    assert (client.model, adapter.probes) == ("fake-2", 2)
