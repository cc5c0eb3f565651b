"""The HTTP server: what a connection may take in time and bytes, and how the service ends.

uvicorn, which reads and writes HTTP, waits for ever for the rest of a request and for clients that do not read. Here
one look per second at all connections ends what has come to its deadline: a timer for each request would cost more.
"""

import asyncio
import gc
import os
import sys
import threading
import uuid
from heapq import nsmallest
from http import HTTPStatus
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AI_PASSIVE, SOCK_STREAM, SocketType, create_server, getaddrinfo, socket
from types import FrameType
from typing import Any

import httptools
import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.compat.errors import fit_for
from app.api.hand_on import HOP, standing_of
from app.api.problem_details import status_problem
from app.api.request import BUSY, HUNG_UP
from app.config.settings import ServiceSettings
from app.errors import WinnowError
from app.instance import announce, announced, ensure_home, is_loopback, presence_at, withdraw
from app.services.replicas import Replicas
from app.wiring import Services
from indexing.memory import share_arenas

MAX_HEADERS = 200
HOP_HEADERS, HOP_BYTES = 8, 2048
"""So much more may have what another replica hands on: the headers that it adds, and a space before each value."""

MAX_URL_BYTES = 16_384
"""An id of 512 characters may take 6 KB as a part of a URL."""

_LINGER_S = 2.0
"""How long a refused client may go on sending: closing at once could destroy the refusal on its way to it."""

_DRAIN_S = 30.0
"""How long a client may go on sending a body that has been answered already."""

_BRISK_S = 1.0
"""A head is usually one packet. One that takes longer may be given up for another client when connections run out."""

_RETRY_AFTER_S = 1

log = structlog.get_logger()


class _Refused(Exception):
    """The request cannot be served, and why. It goes through the parser, which wraps it."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Connection(HttpToolsProtocol):
    """A connection of the service, with the limits of its settings.

        awaiting or reading a head      `header_timeout_s`, `max_header_bytes`; idle ones `keep_alive_s` (uvicorn's)
        reading a body                  `body_timeout_s`, and `min_body_rate` in the long run
        with a response to be read      `write_timeout_s` without any progress

    The deadline for a body is a bucket: each byte buys its share of a second, and no more than `body_timeout_s` are
    saved. So a stalled body ends after that time, and a drip of bytes too.
    """

    def __init__(self, limits: ServiceSettings, replicas: Replicas | None, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._limits, self._replicas = limits, replicas
        self._handed_on = False
        self._in_head = True
        self._head_bytes = 0
        self._since = self.loop.time()
        self._head_deadline: float | None = self._since + limits.header_timeout_s
        self._body_deadline = 0.0
        self._unsent = 0
        self._unsent_since: float | None = None
        self._gone_by: float | None = None
        self._hung_up = asyncio.Event()

    # asyncio's part

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for it if there are too many, or refuse it."""
        super().connection_made(transport)
        most = self._limits.max_connections
        if len(self.connections) > most and not self._make_room():
            if len(self.connections) > most + most // 4:
                transport.abort()
            else:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the requests."""
        super().connection_lost(exc)
        self._hung_up.set()

    def data_received(self, data: bytes) -> None:
        """Parse it, a head never beyond its limit."""
        self._unset_keepalive_if_required()
        if self._gone_by is not None:
            return
        try:
            self._feed(data)
        except _Refused as refused:
            self._refuse(refused.status, str(refused))
        except httptools.HttpParserError as exc:
            if isinstance(exc.__context__, _Refused):
                self._refuse(exc.__context__.status, str(exc.__context__))
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "this is not a valid HTTP request")

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        self._unsent_since = None

    def _feed(self, data: bytes) -> None:
        start = 0
        while start < len(data):
            piece = data[start:]
            if self._in_head:
                room = self._limits.max_header_bytes + HOP_BYTES * self._handed_on - self._head_bytes
                if room <= 0:
                    raise _Refused(
                        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                        f"the headers may have {self._limits.max_header_bytes} bytes in all",
                    )
                if self._head_deadline is None:
                    self._since = self.loop.time()
                    self._head_deadline = self._since + self._limits.header_timeout_s
                piece = piece[:room]
                self._head_bytes += len(piece)
            try:
                self.parser.feed_data(piece)
                start += len(piece)
            except httptools.HttpParserUpgrade as upgrade:
                # To WebSocket or HTTP/2, which is not offered: the request is served as it is, and what follows too.
                start += int(upgrade.args[0])

    # the parser's part

    def on_url(self, url: bytes) -> None:
        """A piece of it."""
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG, f"a URL may have {MAX_URL_BYTES} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """The first of what another replica hands on says so."""
        super().on_header(name, value)
        if self._replicas is not None and name.lower() == HOP:
            self._handed_on = bool(standing_of(self.headers, self._replicas))

    def on_headers_complete(self) -> None:
        """A request begins."""
        if len(self.headers) > MAX_HEADERS + HOP_HEADERS * self._handed_on:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request may have {MAX_HEADERS} headers")
        if self.url == b"*":
            self.url = b"/"  # OPTIONS of the server as a whole
        self.scope["state"][HUNG_UP] = self._hung_up
        super().on_headers_complete()  # which refuses a target that is no URL, such as that of CONNECT
        self._in_head, self._head_deadline = False, None
        self._body_deadline = self.loop.time() + self._limits.body_timeout_s

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        if self._busy:
            most = self.loop.time() + self._limits.body_timeout_s
            self._body_deadline = min(most, self._body_deadline + len(body) / self._limits.min_body_rate)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next byte is of another head."""
        self._in_head, self._head_bytes, self._handed_on = True, 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or the rest of a body that nobody wanted."""
        now = self.loop.time()
        self._since, self._body_deadline = now, now + _DRAIN_S
        super().on_response_complete()

    # deadlines

    def enforce(self, now: float) -> None:
        """End the connection if it has come to one of its deadlines."""
        if self._gone_by is not None:
            if now >= self._gone_by:
                self.transport.abort()
        elif self._stopped_reading(now):
            log.info("connection closed", client=self.client, reason="the client does not read the response")
            self.transport.abort()
        elif self._head_deadline is not None:
            self._check_head(now, self._head_deadline)
        elif not self._in_head:
            self._check_body(now)

    def _stopped_reading(self, now: float) -> bool:
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if not self._unsent or self._unsent < before:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = now
        return self._unsent_since is not None and now - self._unsent_since >= self._limits.write_timeout_s

    def _check_head(self, now: float, deadline: float) -> None:
        if self._busy:  # it sends its next request early
            self._head_deadline = now + self._limits.header_timeout_s
        elif now >= deadline and self._head_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the headers took more than {self._limits.header_timeout_s:g} s")
        elif now >= deadline:
            self.transport.close()

    def _check_body(self, now: float) -> None:
        if self.flow.read_paused or (self.cycle.waiting_for_100_continue and self._busy) or self._at_work():
            self._body_deadline = now + self._limits.body_timeout_s  # it waits for us
        elif now >= self._body_deadline:
            detail = f"the body stalled for {self._limits.body_timeout_s:g} s, or came too slowly"
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)

    def _at_work(self) -> bool:
        """Whether the client waits for results of what it has sent before it sends more."""
        busy = self.scope["state"].get(BUSY)
        return busy is not None and bool(busy())

    @property
    def _busy(self) -> bool:
        """Whether a request has not been answered completely."""
        return self.cycle is not None and not self.cycle.response_complete

    # refusals

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Say so, unless another response would be damaged, and close."""
        log.info("connection refused", client=self.client, status=status.value, detail=detail)
        if self.cycle is not None and (self.cycle.response_started or self._in_head) and self._busy:
            self.transport.abort()
            return
        if self._busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        answered = self.cycle is not None and self.cycle.response_complete and not self._in_head
        if not answered:
            self.transport.write(self._refusal(status, detail))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._gone_by = self.loop.time() + _LINGER_S

    def _refusal(self, status: HTTPStatus, detail: str) -> bytes:
        path = "/" if self._in_head else self.scope["path"]
        problem = status_problem(status, detail, uuid.uuid4().hex)
        content, media_type = fit_for(path, problem, _Refused(status, detail))
        body = msgspec.json.encode(content)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", media_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", problem.instance.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", str(_RETRY_AFTER_S).encode()))
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return STATUS_LINE[status] + lines + b"\r\n" + body

    # room for others

    def _make_room(self) -> bool:
        """Close a few of the connections that have waited longest without a request, if there are any."""
        now = self.loop.time()
        waiting = [one for one in _open(self.server_state) if one is not self and one.expendable(now)]
        for one in nsmallest(1 + self._limits.max_connections // 16, waiting, key=lambda one: one.since):
            one.give_way()
        return bool(waiting)

    @property
    def since(self) -> float:
        """When it began to wait for the request that it waits for."""
        return self._since

    def expendable(self, now: float) -> bool:
        """Whether it has no request, or one whose head does not come along, or has been refused."""
        if self._gone_by is not None:
            return True
        return not self._busy and self._in_head and (not self._head_bytes or now - self._since > _BRISK_S)

    def give_way(self) -> None:
        """Close at once."""
        self.connections.discard(self)
        if self._gone_by is not None or self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()


def _open(state: ServerState) -> list[Connection]:
    return [connection for connection in state.connections if isinstance(connection, Connection)]


def server_config(app: Any, service: ServiceSettings, replicas: Replicas | None = None) -> uvicorn.Config:
    """The settings of uvicorn."""

    def connect(**uvicorns: Any) -> Connection:
        uvicorns.pop("_loop", None)
        return Connection(service, replicas, **uvicorns)

    return uvicorn.Config(
        app,
        host=service.host,
        port=service.port,
        loop="uvloop",
        http=connect,  # type: ignore[arg-type] # anything that makes a protocol
        ws="none",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=max(1, round(service.keep_alive_s)),
    )


class CannotListen(WinnowError):
    """The address is in use, or not one of this machine."""


def bind(host: str, port: int) -> socket:
    """A listening socket; IPv4 if the name has addresses of both kinds. Raises CannotListen."""
    try:
        addresses = getaddrinfo(host, port, type=SOCK_STREAM, flags=AI_PASSIVE)
        family, *_, address = min(info for info in addresses if info[0] in (AF_INET, AF_INET6))
        return create_server(address[:2], family=family, backlog=2048)
    except OSError as exc:
        # create_server appends the address to the message, which has it already.
        reason = (str(exc.strerror or exc)).partition(" (while")[0].lower()
        detail = f"cannot listen on {host}:{port}: {reason}; choose with --host and --port (0 takes any free port)"
        raise CannotListen(detail) from exc


_CANCELLED_S = 0.5
"""How long requests that were cancelled at the end of the grace have to say so."""

_CLOSING_S = 4.0
"""How long the services have to close. What then still runs is in a thread that nothing can stop, such as torch's."""

_LEAVING_S = 0.5
"""How long Python has to join its threads, before the process ends without them."""


class Server(uvicorn.Server):
    """Exits with status 0 after a drain; any second signal forces the end, not only SIGINT.

    While it listens, the command line can find it through the home directory. It opens the index before it listens: a
    second service on the same home raises IndexBusy.
    """

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._freezing: asyncio.Task[None] | None = None
        self._unannounced: str | None = None
        """Why the command line does not find the service, as it was logged; "" once it could find it."""

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Read the keys, own the index and the ledger, then serve until told to stop.

        Raises ConfigError, IndexBusy, StoreBusy.
        """
        ensure_home(self._services.settings.index.home)
        _allow_files(self._services.settings.service.max_connections)
        share_arenas()
        with self.capture_signals():
            await self._services.hold_home()
            await asyncio.to_thread(self._services.access.open)  # here a failure is a line, and there a traceback
            if self._services.replicas is not None and sockets:
                self._services.replicas.listens(*sockets[0].getsockname()[:2])
            await self._services.store.get()
            self._services.accounts.open()
            await self._serve(sockets)
        _leave_soon()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listen, then announce the address."""
        await super().startup(sockets)
        if self.started:
            url = _local_url(self.servers[0].sockets[0])
            self._services.presence = presence_at(url)
            self._announce()
            self._announce_url(url)
            self._freezing = asyncio.create_task(_freeze_heap(self._services))

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; once in it, look at all connections, and that the command line can find the service."""
        if counter % 10 == 0:
            self._enforce()
            self._announce()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Finish the requests, or tell them, and close the services; each step has its time.

        The command line can no longer find the service when it begins.
        """
        if self._services.presence is not None:
            withdraw(self._services.settings.index.home, self._services.presence)
        self._services.stopping.set()
        if self._freezing is not None:
            self._freezing.cancel()
        log.info("shutting down", requests=len(self.server_state.tasks))
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for connection in _open(self.server_state):
            connection.shutdown()
        await self._drained(self._services.settings.service.shutdown_grace_s)
        for task in self.server_state.tasks:
            task.cancel()  # the middleware tells the client
        await self._drained(_CANCELLED_S)
        for connection in _open(self.server_state):
            connection.transport.abort()
        if not self.force_exit:
            await self._close_services()

    async def _drained(self, seconds: float) -> None:
        """Wait until all is answered and all connections are closed, or for so long, or for a second signal."""
        loop, state = asyncio.get_running_loop(), self.server_state
        deadline = loop.time() + seconds
        while (state.connections or state.tasks) and loop.time() < deadline and not self.force_exit:
            await asyncio.sleep(0.05)
            self._enforce()

    async def _close_services(self) -> None:
        try:
            async with asyncio.timeout(_CLOSING_S):
                await self.lifespan.shutdown()
        except TimeoutError:
            log.warning("services are still closing; the process ends without them", seconds=_CLOSING_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by the signal handler."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def _enforce(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in _open(self.server_state):
            connection.enforce(now)

    def _announce(self) -> None:
        """Write the file that the command line looks for, as soon as it can be written, and again if it is gone.

        One that is there may be of a service that was killed, or later of another one that is to be found.
        """
        home, presence = self._services.settings.index.home, self._services.presence
        if presence is None or (self._unannounced == "" and announced(home)):
            return
        reason = announce(home, presence)
        if reason and reason != self._unannounced:
            log.warning("the command line does not find the service", home=str(home), reason=reason)
        self._unannounced = reason

    def _announce_url(self, url: str) -> None:
        """On a terminal a line for people, else an event for the log."""
        if sys.stderr.isatty():
            service, keyed = self._services.settings.service, self._services.access.keyed
            sys.stderr.write(f"{startup_message(service, url, keyed=keyed)}\n")
        else:
            log.info(f"running on {url}")


def _allow_files(connections: int) -> None:
    """Raise the limit of open files, often 1,024, to what so many connections and the index need."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * connections + 4096
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _leave_soon() -> None:
    """End the process even if a thread does not: Python would wait for it, and a batch in torch takes a minute."""
    timer = threading.Timer(_LEAVING_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


async def _freeze_heap(services: Services) -> None:
    """Exempt what was loaded to serve (libraries, the model) from garbage collection, once the service is warm.

    It is half a million objects, and each full collection held up all requests for a fifth of a second.
    """
    await services.warm_up.done.wait()
    gc.collect()
    gc.freeze()
    log.info("warmed up", objects=gc.get_freeze_count())


def startup_message(service: ServiceSettings, url: str, *, keyed: bool) -> str:
    """Where the service is, and whom it serves where that is not this machine alone."""
    line = f"Winnow is listening on {url} (API reference: {url}/schema); Ctrl-C stops it."
    if is_loopback(service.host):
        return line
    if keyed:
        whom = "those who send a key; `winnow keys` lists them"
    elif service.allow_anonymous:
        whom = "all who reach it"
    else:
        whom = "programs on this machine; `winnow keys create` makes a key for others"
    return f"{line}\nIt listens on {service.host} and serves {whom}."


def _local_url(listening: SocketType) -> str:
    """How a program on this machine reaches a listening socket."""
    host, port = listening.getsockname()[:2]
    address = ip_address(host)
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{address}:{port}" if address.version == 4 else f"http://[{address}]:{port}"
