"""The URL of a PostgreSQL database: where it is, who asks, and how the connection is encrypted."""

import ssl
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from indexing.errors import StoreUnavailable

SETTING = "WINNOW_DATABASE_URL"
_SSL_MODES = ("disable", "prefer", "require", "verify-full")
_PARAMETERS = ("sslmode", "sslrootcert", "host")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where the database is. `socket` is the path of a Unix socket, in the place of a host."""

    host: str
    port: int
    database: str
    user: str
    password: str | None = msgspec.field(default=None)
    socket: str | None = None
    ssl_mode: str = "prefer"
    ssl_root: str | None = None

    @property
    def shown(self) -> str:
        """For people: without the password."""
        return f"{self.socket or self.host}:{self.port}/{self.database}"


def address_of(url: str) -> Address:
    """`postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE`.

    `?host=/run/postgresql` is the directory of a Unix socket. Raises ValueError, with a sentence without the password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        raise ValueError("it is not a URL") from None
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("it does not begin with postgresql://")
    if unknown := sorted({*options} - {*_PARAMETERS}):
        raise ValueError(f"it has the unknown parameter {unknown[0]!r}; known are {', '.join(_PARAMETERS)}")
    mode = options.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise ValueError(f"sslmode {mode!r} is not one of {', '.join(_SSL_MODES)}")
    directory, database = options.get("host", ""), unquote(parts.path[1:])
    if not (parts.hostname or directory) or not database or not parts.username:
        raise ValueError("it lacks a user, a host or a database")
    return Address(
        host=parts.hostname or "",
        port=port,
        database=database,
        user=unquote(parts.username),
        password=unquote(parts.password) if parts.password else None,
        socket=f"{directory}/.s.PGSQL.{port}" if directory else None,
        ssl_mode=mode,
        ssl_root=options.get("sslrootcert"),
    )


def ssl_context(address: Address) -> ssl.SSLContext | bool | None:
    """As the driver has it: False for none, None for encryption where the server offers it, without looking at who it
    is; "require" fails where it does not.
    """
    if address.ssl_mode == "disable" or address.socket is not None:
        return False
    if address.ssl_mode == "prefer":
        return None
    try:
        context = ssl.create_default_context(cafile=address.ssl_root)
    except OSError as exc:
        why = exc.strerror if isinstance(exc, FileNotFoundError | PermissionError) else "it holds no certificate"
        raise StoreUnavailable(f"sslrootcert {address.ssl_root} in {SETTING} cannot be read: {why}") from exc
    if address.ssl_mode == "require":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
