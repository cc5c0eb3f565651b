"""A line of the ledger."""

import msgspec


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One model call, in the order of the ledger's columns.

    `at_ms` is when it ended, milliseconds since 1970. `cached` is a part of `input`; `output` is without `thinking`.
    `estimated`: the server did not tell the tokens. `pico` is the cost in picodollars. `gpu_s` is None for an API.
    """

    at_ms: int
    request_id: str
    stage: str
    backend: str
    kind: str
    model: str
    key: str
    outcome: str
    requests: int
    input: int
    cached: int
    output: int
    thinking: int
    estimated: bool
    pico: int
    price_source: str
    gpu_s: float | None
    latency_ms: float
    first_token_ms: float | None
