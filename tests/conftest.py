"""Fixtures for every test."""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.fakes.postgres import Postgres
    from tests.vllm.running import RunningVllm

settings.register_profile("winnow", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("winnow")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell makes what it starts in the background deaf to Ctrl-C, and every process of a test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

DOTS = 60
"""At most so many for a whole run, so that its progress is one line."""


class Progress:
    """Prints a dot for every sixtieth of the tests that passed; failures and skips keep a letter each."""

    def __init__(self) -> None:
        self._session: pytest.Session | None = None
        self._passed = 0

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """The category, the letter and the word of a report; None leaves it to pytest."""
        if report.when != "call" or report.outcome != "passed" or hasattr(report, "wasxfail") or self._session is None:
            return None
        self._passed += 1
        every = max(1, -(-self._session.testscollected // DOTS))
        return "passed", "" if self._passed % every else ".", "PASSED"


SUITES = {
    "browser": ("tests/e2e",),
    "clients": ("tests/clients",),
    "container": ("tests/e2e",),
    "postgres": ("tests/e2e", "tests/unit"),
    "prometheus": ("tests/e2e",),
    "ray": ("tests/distributed",),
    "real": ("tests/real",),
    "vllm": ("tests/contract", "tests/vllm"),
}
"""Where the tests with a marker are: `-m ray` reads these alone, since importing all tests takes half a minute."""


def pytest_configure(config: pytest.Config) -> None:
    """Register what every run uses, and leave out folders that have none of the tests that are asked for."""
    config.pluginmanager.register(Progress())
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        config.args[:] = SUITES.get(config.option.markexpr, config.args)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test outside the folders of its suite, which would never run."""
    for item in items:
        for mark in item.iter_markers():
            if mark.name in SUITES and not item.nodeid.startswith(SUITES[mark.name]):
                raise pytest.UsageError(f"{item.nodeid} is not run by `-m {mark.name}`: SUITES in tests/conftest.py")


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: what the service runs on."""
    return "asyncio"


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[RunningVllm]":
    """The real vLLM: one for all tests, started when the first of them asks for it."""
    from tests.vllm.running import VllmFailed, real_vllm

    try:
        with real_vllm(tmp_path_factory.mktemp("vllm"), os.environ) as server:
            yield server
    except VllmFailed as exc:
        pytest.fail(str(exc), pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A real PostgreSQL server: one for all tests, started when the first of them asks for it."""
    pytest.importorskip("pg8000", reason="the extra `postgres` is not installed")
    from tests.fakes.postgres import NoPostgres, running_postgres

    try:
        with running_postgres() as server:
            yield server
    except NoPostgres as exc:
        pytest.skip(str(exc))


@pytest.fixture
def database_url(postgres: "Postgres") -> str:
    """Of an empty database."""
    return postgres.database()


def both(*, here: str = "sqlite") -> pytest.MarkDecorator:
    """For suites that hold for SQLite and for PostgreSQL alike: the fixture `kind` is the one or the other."""
    return pytest.mark.parametrize("kind", [here, pytest.param("postgres", marks=pytest.mark.postgres)])
