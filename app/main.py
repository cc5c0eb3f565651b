"""The composition root: the application and the server."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import FrameType

import uvicorn
from litestar import Litestar
from litestar.di import Provide

from app.api.answer import answer
from app.api.bodies import BodyRequest
from app.api.collections import list_collections, show_collection
from app.api.documentation import REQUEST_ID, StructShapes, openapi_config
from app.api.door import Door
from app.api.operations import installed_version, live, ready, show_backends, show_version
from app.api.problems import on_error
from app.api.search import search
from app.logs import configure_logging
from app.settings import Settings
from app.wiring import Services

ROUTES = (search, answer, live, ready, show_version, show_backends, list_collections, show_collection)


def create_app(settings: Settings, services: Services) -> Litestar:
    """The ASGI application. It starts and closes the services with its lifespan."""
    shapes = StructShapes()
    app = Litestar(
        ROUTES,
        lifespan=[_lifetime(services)],
        dependencies={"services": Provide(lambda: services, sync_to_thread=False, use_cache=True)},
        exception_handlers={Exception: on_error},
        openapi_config=openapi_config(installed_version()),
        request_class=BodyRequest,
        request_max_body_size=settings.service.max_body_bytes,
        response_headers=[REQUEST_ID],
        plugins=[shapes],
        logging_config=None,
    )
    shapes.describe(app.openapi_schema)
    app.asgi_handler = Door(app.asgi_handler, settings.service)
    return app


def serve(settings: Settings, services: Services) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way and return. A second signal cuts it short."""
    service = settings.service
    configure_logging(service.log_format, service.log_level)
    config = uvicorn.Config(
        create_app(settings, services),
        host=service.host,
        port=service.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=max(1, round(service.shutdown_grace_s)),
    )
    Server(config).run()


class Server(uvicorn.Server):
    """Ends well: exit status 0 after a drain, and any second signal forces the end, not only SIGINT."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal handler."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _lifetime(services: Services) -> Callable[[Litestar], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        await services.start()
        try:
            yield
        finally:
            await services.close()

    return lifespan
