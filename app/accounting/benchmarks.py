"""The speeds that `winnow bench` measured, kept in a file of the home for the estimates of cost."""

from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from app.errors import ConfigError

BENCHMARKS_FILE = "benchmarks.json"

TOGETHER = 16
"""How many streams run at once in the second measurement of the speed of output."""

log = structlog.get_logger()


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend did `at` a moment, on or from a `machine`, for this `version` of Winnow.

    Medians; tokens/s are those of one stream, of `TOGETHER` streams together, and of a long prompt up to its first
    token; a reranker, which writes nothing, has 0 for the first three figures, and reads its prompt while it reranks.
    `rerank_ms` is for 50 passages. Dollars are None where no price is known or nothing is written, the rerank's figures
    also where it failed: `notes` say why.
    """

    backend: str
    model: str
    server: str
    at: datetime
    machine: str
    version: str
    first_token_ms: float
    tokens_per_s: float
    tokens_per_s_at_16: float
    prompt_tokens_per_s: float
    rerank_ms: float | None
    usd_per_million_input: float | None
    usd_per_million_output: float | None
    usd_per_1000_reranks: float | None
    price_source: str
    spent_usd: float
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Where its figures come from, in words."""
        return f"winnow bench of {self.at:%Y-%m-%d} on {self.machine}"

    def output_tokens_per_s(self, concurrency: int) -> float:
        """Of so many streams together: between the two that were measured on a straight line, beyond them as they."""
        share = (min(max(concurrency, 1), TOGETHER) - 1) / (TOGETHER - 1)
        return self.tokens_per_s + share * (self.tokens_per_s_at_16 - self.tokens_per_s)


def read_benchmarks(path: Path) -> tuple[Benchmark, ...]:
    """() where there is no file; one that cannot be read is a warning, since estimates can do without."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Benchmark, ...])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, msgspec.MsgspecError):
        log.warning("the benchmarks cannot be read, and are measured anew by winnow bench", path=str(path))
        return ()


def store_benchmark(path: Path, measured: Benchmark) -> None:
    """Store it in place of an earlier one of the same backend and model, atomically. Raises ConfigError."""
    owner = measured.backend, measured.model
    others = [one for one in read_benchmarks(path) if (one.backend, one.model) != owner]
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode([*others, measured])))
        draft.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc
