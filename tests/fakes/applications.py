"""Applications that tests hand on to one another: registering the routes of one takes 70 ms, more than most tests."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litestar import Litestar

from app.config.settings import ServiceSettings
from app.main import create_app
from app.wiring import Services


class CurrentServices:
    """Stands for the services of the test that has the application at the moment.

    Each test has services of its own. Between two tests there are none: whatever an application kept of the services
    that it was made with would be an error here.
    """

    def __init__(self) -> None:
        self.services: Services | None = None

    def __getattr__(self, name: str) -> Any:
        if self.services is None:
            raise LookupError(f"no test has this application, which asks for {name}")
        return getattr(self.services, name)


_free: defaultdict[ServiceSettings, list[tuple[Litestar, CurrentServices]]] = defaultdict(list)


@contextmanager
def application(services: Services) -> Iterator[Litestar]:
    """An application over these services, for one test at a time."""
    free = _free[services.settings.service]
    app, current = free.pop() if free else _made(services)
    current.services = services
    try:
        yield app
    finally:
        current.services = None
        free.append((app, current))


def _made(services: Services) -> tuple[Litestar, CurrentServices]:
    current = CurrentServices()
    return create_app(services.settings, current), current
