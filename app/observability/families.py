"""The metrics there are, as docs/metrics.md lists them.

Their labels have few values, whatever clients send: templates of routes, names from the settings, words of the program.
"""

from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]


class Family(msgspec.Struct, frozen=True):
    """A metric with the names of its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_MODEL = ("backend", "model")
_REPLICA = ("backend", "replica")
_BUDGET = ("scope", "name", "period")

# counted as it happens
REQUESTS = Family("winnow_requests_total", "counter", "Requests answered.", ("method", "route", "status"))
REFUSED = Family("winnow_requests_refused_total", "counter", "Requests of callers who were not let in.", ("kind",))
REQUEST_TIME = Family(
    "winnow_request_duration_seconds", "histogram", "From a request's head to the end of its response.", ("route",)
)
IN_PROGRESS = Family("winnow_requests_in_progress", "gauge", "Requests that are being answered.")
STAGE_TIME = Family(
    "winnow_stage_duration_seconds", "histogram", "Stages of requests, as in `timings_ms` of responses.", ("stage",)
)
DEGRADED = Family(
    "winnow_degraded_total", "counter", "Stages that did less than asked, as in `degraded` of responses.", ("stage",)
)
CALLS = Family("winnow_upstream_calls_total", "counter", "Calls of models, by what came of them.", (*_MODEL, "outcome"))
CALL_TIME = Family(
    "winnow_upstream_call_duration_seconds", "histogram", "Calls of models, to the end of the reply.", _MODEL
)
FIRST_TOKEN_TIME = Family(
    "winnow_upstream_first_token_seconds", "histogram", "Until the first token of a streamed reply.", _MODEL
)
TOKENS = Family("winnow_upstream_tokens_total", "counter", "Tokens that calls used.", (*_MODEL, "class"))
DOLLARS = Family("winnow_upstream_cost_usd_total", "counter", "US dollars that calls cost.", _MODEL)

# read when somebody scrapes
READY = Family("winnow_ready", "gauge", "1 if the dependency is ready, as GET /health/ready says.", ("dependency",))
BUILD = Family("winnow_build_info", "gauge", "Always 1; the version that runs.", ("version",))
GATE_INSIDE = Family("winnow_gate_inside", "gauge", "Requests at work behind a gate.", ("gate",))
GATE_WAITING = Family("winnow_gate_waiting", "gauge", "Requests in the line of a gate.", ("gate",))
GATE_REFUSED = Family("winnow_gate_refused_total", "counter", "Requests that a gate sent away with 503.", ("gate",))
GATE_WAIT = Family("winnow_gate_expected_wait_seconds", "gauge", "How long who comes now would wait.", ("gate",))
BACKEND_UP = Family("winnow_backend_up", "gauge", "1 if calls are sent to it, 0 if it is down or rests.", ("backend",))
BREAKER = Family("winnow_backend_breaker", "gauge", "1 for the state that the breaker is in.", ("backend", "state"))
IN_FLIGHT = Family("winnow_backend_in_flight", "gauge", "Calls under way.", ("backend",))
WAITING = Family("winnow_backend_waiting", "gauge", "Calls that wait for a slot.", ("backend",))
REPLICA_UP = Family(
    "winnow_replica_up", "gauge", "1 if calls are sent to this server of a backend that has several.", _REPLICA
)
REPLICA_TOKENS = Family(
    "winnow_replica_tokens_in_flight", "gauge", "Tokens that its calls under way may use at most.", _REPLICA
)
REPLICA_CALLS = Family("winnow_replica_calls_total", "counter", "Calls that it was sent.", _REPLICA)
CACHE = Family("winnow_cache_lookups_total", "counter", "What was looked for in a cache.", ("cache", "result"))
JOBS = Family("winnow_jobs", "gauge", "Jobs that are not finished.", ("state",))
JOBS_ENDED = Family("winnow_jobs_ended_total", "counter", "Jobs that have ended.", ("state",))
JOB_BYTES = Family("winnow_jobs_upload_bytes", "gauge", "Size of the uploads of jobs that are not finished.")
COLLECTIONS = Family("winnow_collections", "gauge", "Collections.", ("status",))
PASSAGES = Family("winnow_index_passages", "gauge", "Passages of a collection.", ("collection",))
INDEX_BYTES = Family("winnow_index_bytes", "gauge", "Space that a collection takes on the disk.", ("collection",))
DISK_FREE = Family("winnow_disk_free_bytes", "gauge", "Free space on the disk of the home directory.")
DISK_RESERVE = Family("winnow_disk_reserve_bytes", "gauge", "Below so much free space nothing is written.")
BUDGET_LIMIT = Family("winnow_budget_limit_usd", "gauge", "What may be spent in a period.", _BUDGET)
BUDGET_SPENT = Family("winnow_budget_spent_usd", "gauge", "What has been spent in it.", _BUDGET)
BUDGET_RESERVED = Family("winnow_budget_reserved_usd", "gauge", "What calls in flight may cost at most.", _BUDGET)
BUDGET_REFUSED = Family("winnow_budget_refused_total", "counter", "Calls that a spent budget refused.", ("scope",))
LEDGER_WRITTEN = Family("winnow_ledger_written_total", "counter", "Calls written to the ledger.")
LEDGER_LOST = Family("winnow_ledger_lost_total", "counter", "Calls that the ledger could not keep.")
LEDGER_PENDING = Family("winnow_ledger_pending", "gauge", "Calls that wait to be written to the ledger.")
LEDGER_LAG = Family("winnow_ledger_lag_seconds", "gauge", "How long the first of these has waited.")
LEDGER_FAILING = Family("winnow_ledger_failing", "gauge", "1 while the ledger cannot be written.")
