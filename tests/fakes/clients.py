"""Backend clients over scripted adapters, and the calls made on them."""

from collections.abc import Sequence
from random import Random
from typing import Any

from app.backends.base import Account, Call, Deadline
from app.backends.client import BackendClient
from app.backends.settings import BackendSettings, RoutingSettings
from tests.fakes.adapters import ScriptedAdapter
from tests.fakes.meter import RecordingMeter

ROUTING = RoutingSettings()


def make_client(
    adapter: ScriptedAdapter,
    meter: RecordingMeter | None = None,
    *,
    name: str = "gemma",
    routing: RoutingSettings = ROUTING,
    **settings: Any,
) -> BackendClient:
    """A client of kind "vllm" whose model is configured."""
    values = BackendSettings(**({"kind": "vllm", "model": "fake-1"} | settings))
    return BackendClient(name, values, [adapter], meter or RecordingMeter(), routing, random=Random(1))


def replicated(
    adapters: Sequence[ScriptedAdapter],
    meter: RecordingMeter | None = None,
    *,
    routing: RoutingSettings = ROUTING,
    **settings: Any,
) -> BackendClient:
    """A client of several servers, http://gpu1/v1 and so on."""
    urls = ",".join(f"http://gpu{number}/v1" for number in range(1, len(adapters) + 1))
    values = BackendSettings(**({"kind": "vllm", "model": "fake-1", "url": urls} | settings))
    return BackendClient("gemma", values, adapters, meter or RecordingMeter(), routing, random=Random(1))


def a_call(seconds: float = 100.0) -> Call:
    """A call that has so many seconds."""
    return Call(stage="chat", deadline=Deadline(seconds), account=Account())
