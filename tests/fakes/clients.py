"""Backend clients over scripted adapters, and the calls made on them."""

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
    return BackendClient(name, values, adapter, meter or RecordingMeter(), routing, random=Random(1))


def a_call(seconds: float = 100.0) -> Call:
    """A call that has so many seconds."""
    return Call(stage="chat", deadline=Deadline(seconds), account=Account())
