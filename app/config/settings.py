"""The service's settings, from `winnow.toml` and the environment; both are passed in, and nothing is read on import.

Every key of the file can also be set by an environment variable: `timeout_s` of `[store]` by WINNOW_STORE_TIMEOUT_S.
The keys in SHORT_NAMES have shorter variables instead. `model` of `[backends.my-gpu]` is
WINNOW_BACKENDS_MY_GPU_MODEL, and WINNOW_BACKENDS_MY_GPU_KIND alone declares such a backend, called "my_gpu".
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

import msgspec
from msgspec import Meta

from app.backends.registry import completed, discovered, kinds, provider_variables
from app.backends.settings import BackendSettings, BudgetSettings, RoutingSettings, name_problem
from app.domain import Strategy, Substitute
from app.errors import ConfigError
from indexing.readers.limits import ReadLimits
from indexing.settings import EmbeddingSettings, StoreSettings

CONFIG_FILE = "winnow.toml"

SHORT_NAMES = {
    ("index", "home"): "WINNOW_HOME",
    ("store", "url"): "QDRANT_URL",
    ("store", "api_key"): "QDRANT_API_KEY",
    ("service", "host"): "WINNOW_HOST",
    ("service", "port"): "WINNOW_PORT",
    ("service", "allow_anonymous"): "WINNOW_ALLOW_ANONYMOUS",
    ("access", "admin_key"): "WINNOW_ADMIN_KEY",
    ("access", "admin_key_file"): "WINNOW_ADMIN_KEY_FILE",
    ("tracing", "endpoint"): "OTEL_EXPORTER_OTLP_ENDPOINT",
}

# Kubernetes sets these variables in every pod beside a Service called "winnow"; they are not settings of ours.
_SERVICE_LINK = re.compile(r"WINNOW_SERVICE_(HOST|PORT(_\w+)?)")
_ANY_SERVICE_LINK = re.compile(
    r"WINNOW_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)"
)
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")

_OTHER_VARIABLES = ("WINNOW_API_KEY", "WINNOW_CONFIG", "WINNOW_DOCUMENTS")
"""The file of settings, and the folder that docker-compose.yml mounts."""

_NEAR = 0.87
"""Similarity of a name to one of ours that is taken for a slip: QDRANT_ULR (.90) and VLLM_ULR (.88) are, and
GOOGLE_MAPS_API_KEY (.85) is not."""

T = TypeVar("T", bound=msgspec.Struct)

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP service.

    `hosts` are the names, besides loopback's, under which browsers and proxies may address the service; with
    `allow_anonymous` and no `hosts`, all names are accepted. `public_url` is the service's address for users' browsers,
    if it differs from that for programs: links in citations begin with it. `replica_url` is that for other replicas;
    None: as it listens, and where that is everywhere, its address as the database sees it. `backend` ranks if a request
    names none.
    What quoted texts are fenced with in prompts follows from `prompt_secret`; None: each process has its own.
    `log_format` "auto" is text on a terminal and JSON elsewhere.

    Web pages of `cors_origins` may use the service from a browser: exact origins, or "*" for all.

    A client has `header_timeout_s` for a request's head; its body must not pause for `body_timeout_s` nor come at
    less than `min_body_rate` bytes per second; one that reads nothing of a response for `write_timeout_s` is cut off.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    hosts: tuple[str, ...] = ()
    allow_anonymous: bool = False
    public_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]")] | None = None
    replica_url: Annotated[str, Meta(pattern=r"^https?://[^\s/@]+$")] | None = None
    backend: Annotated[str, Meta(min_length=1)] = "auto"
    prompt_secret: Annotated[str, Meta(min_length=16)] | None = None
    max_body_bytes: Count = 10_000_000
    max_upload_bytes: Count = 1_000_000_000
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    cors_origins: tuple[Annotated[str, Meta(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^\s/]+)$")], ...] = ()
    header_timeout_s: Seconds = 10.0
    body_timeout_s: Seconds = 15.0
    min_body_rate: Count = 250
    write_timeout_s: Seconds = 30.0
    keep_alive_s: Seconds = 75.0
    max_header_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    max_connections: Annotated[int, Meta(ge=8)] = 1024
    ping_s: Seconds = 15.0
    shutdown_grace_s: Seconds = 5.0


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is let in. While there is no key, `allow_anonymous` of [service] says who is.

    `admin_key` is a key with all rights that no file has, `admin_key_file` the path of a file that contains it: the
    first key of a container. With `required` a key is needed even before there is one. With `loopback` programs on this
    machine need none.
    """

    admin_key: Annotated[str, Meta(min_length=1)] | None = None
    admin_key_file: Path | None = None
    required: bool = False
    loopback: bool = False


class IndexSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`home` is the directory of the index, the manifest, the ledger and caches.

    Nothing is written there that would leave less than `disk_reserve_mb` (10^6 bytes) of free space. The metadata
    fields `filter_fields` are indexed from the start, the others once a filter has asked for them.
    """

    home: Path = Path(".winnow")
    disk_reserve_mb: Annotated[int, Meta(ge=0)] = 512
    filter_fields: tuple[str, ...] = ()


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The PostgreSQL database that several replicas of the service share; without `url` the home has it all."""

    url: str | None = None


class RankingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How models rank, unless a request says otherwise.

    A model reads the best `depth` candidates within `deadline_ms`. A model without log-probabilities reads `block`
    passages per request. The latest `cache_entries` scores are cached in memory; with "sqlite" also in the home
    directory, for the next start and for other processes; with "database" in that of [database], for all replicas.
    `controls`: a new model is asked about passages whose grades are known, and trusted as far as it grades them right;
    without, every model is trusted. `cascade` names a reranker that reads first: a language model then reads only what
    may still belong to the top.
    """

    strategy: Strategy = "auto"
    depth: Annotated[int, Meta(ge=1, le=1000)] = 50
    deadline_ms: Annotated[int, Meta(ge=1, le=60_000)] = 10_000
    cascade: str | None = None
    block: Annotated[int, Meta(ge=1, le=25)] = 25
    controls: bool = True
    cache: Literal["memory", "sqlite", "database"] = "memory"
    cache_entries: Count = 100_000


class AnswerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Passages below `min_relevance` are not answered from; None: a default for quoting, and a lower one for models.

    `fallback` says what comes of a model's reply of which nothing is supported: an abstention, or an extractive answer.
    """

    min_relevance: Fraction | None = None
    fallback: Substitute = "none"


class CompatSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The endpoints in other products' formats.

    `rerank_aliases` maps model names that clients send to backends. A model reads the best `rerank_depth` texts of a
    call, within `rerank_deadline_ms`; the default is less than the 10 s that RAGFlow's "Verify" waits. Up to
    `rerank_embedded` texts are matched by their vectors too, more only by their words. `embed_aliases` are additional
    names of the embedding model.
    """

    rerank_aliases: dict[str, str] = {}
    rerank_depth: Annotated[int, Meta(ge=1, le=1000)] = 100
    rerank_deadline_ms: Annotated[int, Meta(ge=1, le=25_000)] = 9_000
    rerank_embedded: Annotated[int, Meta(ge=0)] = 32
    embed_aliases: tuple[str, ...] = ()


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is fetched from URLs that clients name.

    Ports 80 and 443, and `ports` in addition. `hosts` are names (or addresses) of the intranet that may be private or
    loopback; all others must be public. A fetch ends after `timeout_s` as a whole, and at `max_bytes`.
    """

    ports: tuple[Annotated[int, Meta(ge=1, le=65_535)], ...] = ()
    hosts: tuple[str, ...] = ()
    max_bytes: Count = 10_000_000
    timeout_s: Seconds = 10.0


class TracingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces by OTLP over HTTP, to the collector at `endpoint`, without which there are none.

    Of all traces a `share` is recorded, and those that a caller records. With `texts` they hold what is asked and
    answered.
    """

    endpoint: Annotated[str, Meta(pattern=r"^https?://[^\s/]")] | None = None
    share: Fraction = 1.0
    texts: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings, by section of the file."""

    service: ServiceSettings = ServiceSettings()
    access: AccessSettings = AccessSettings()
    index: IndexSection = IndexSection()
    database: DatabaseSettings = DatabaseSettings()
    reading: ReadLimits = ReadLimits()
    store: StoreSettings = StoreSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    ranking: RankingSettings = RankingSettings()
    answer: AnswerSettings = AnswerSettings()
    compat: CompatSettings = CompatSettings()
    fetch: FetchSettings = FetchSettings()
    tracing: TracingSettings = TracingSettings()
    routing: RoutingSettings = RoutingSettings()
    budgets: BudgetSettings = BudgetSettings()
    backends: dict[str, BackendSettings] = {}


BACKENDS = "backends"
SECTIONS: dict[str, type[msgspec.Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if field.name != BACKENDS
}


def read_settings(environ: Mapping[str, str], cwd: Path) -> Settings:
    """The file's settings, overridden by the environment's. Each is valid by itself; `load_settings` checks the whole.

    Raises ConfigError naming the place, the key and the fix.

    Paths in the result are absolute: in the file they are relative to its folder, in the environment to `cwd`.
    """
    configured = environ.get("WINNOW_CONFIG")
    path = cwd / (configured or CONFIG_FILE)
    # A file that was named must exist; the default one need not.
    raw = _read_file(path) if configured or path.exists() else {}
    _refuse_unknown(raw, (*SECTIONS, BACKENDS), f"{path}: unknown section")
    reader = _Reader(path, environ, cwd)
    sections: dict[str, Any] = {name: reader.section(name, kind, raw.get(name, {})) for name, kind in SECTIONS.items()}
    if sections["index"].home == IndexSection().home:
        sections["index"] = msgspec.structs.replace(sections["index"], home=cwd / IndexSection().home)
    if sections["embedding"].exports is None:
        sections["embedding"] = msgspec.structs.replace(sections["embedding"], exports=_cache(environ) / "models")
    backends = reader.backends(raw.get(BACKENDS, {}))
    reader.refuse_unknown_variables(backends)
    return Settings(**sections, backends=backends)


def _cache(environ: Mapping[str, str]) -> Path:
    """Where the user keeps what can be made again: exported models serve every home directory."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "winnow"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: not valid TOML: {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); check WINNOW_CONFIG") from exc


class _Reader:
    """Reads sections from the content of the file at `path` and from the environment."""

    def __init__(self, path: Path, environ: Mapping[str, str], cwd: Path) -> None:
        self._path = path
        self._environ = environ
        self._cwd = cwd

    def section(self, name: str, kind: type[T], raw: Any) -> T:
        """One section, checked; `name` may have dots."""
        return kind(**self._values(name, kind, raw))

    def backends(self, raw: Any) -> dict[str, BackendSettings]:
        """The backends of the file in their order, then those that only the environment declares."""
        sections = self._table(BACKENDS, raw)
        defaults = discovered(self._environ)
        for name in (*self._declared_by_variables(sections), *defaults):
            sections.setdefault(name, {})
        return {name: self._backend(name, section, defaults.get(name, {})) for name, section in sections.items()}

    def refuse_unknown_variables(self, backends: Iterable[str]) -> None:
        """Raise ConfigError for a misspelt variable. Only names that begin with that of a section are checked."""
        kinds: dict[str, type[msgspec.Struct]] = {
            **SECTIONS,
            **{f"{BACKENDS}.{name}": BackendSettings for name in backends},
        }
        valid = {variable_of(name, f.name) for name, kind in kinds.items() for f in msgspec.structs.fields(kind)}
        prefixes = tuple(f"WINNOW_{name.upper()}_" for name in (*SECTIONS, BACKENDS))
        ours = [key for key in self._environ if key.startswith(prefixes) and not _SERVICE_LINK.fullmatch(key)]
        _refuse_unknown(ours, valid, "environment: unknown variable")

    def _backend(self, name: str, raw: Any, defaults: Mapping[str, Any]) -> BackendSettings:
        where = f"{BACKENDS}.{name}"
        if problem := name_problem(name):
            raise ConfigError(f"{self._path}: [{where}]: {problem}")
        values = {**defaults, **self._values(where, BackendSettings, raw)}
        if "kind" not in values:
            raise ConfigError(f"{self._path}: [{where}] needs a kind: {kinds()}")
        return completed(name, BackendSettings(**values), self._environ)

    def _declared_by_variables(self, declared: Iterable[str]) -> list[str]:
        taken = {_upper_snake(name) for name in declared}
        matches = (re.fullmatch(r"WINNOW_BACKENDS_(\w+)_KIND", key) for key in self._environ)
        names = [match[1] for match in matches if match]
        return [name.lower() for name in sorted(names) if name not in taken]

    def _values(self, name: str, kind: type[msgspec.Struct], raw: Any) -> dict[str, Any]:
        raw = self._table(name, raw)
        keys = {field.name: field.type for field in msgspec.structs.fields(kind)}
        _refuse_unknown(raw, keys, f"{self._path}: unknown key in [{name}]:")
        values = {
            key: _checked(value, keys[key], f"{self._path}: {key} in [{name}]", self._path.parent)
            for key, value in raw.items()
        }
        for key, kind_of_value in keys.items():
            variable = variable_of(name, key)
            text = self._environ.get(variable, "")
            if text and not _SERVICE_LINK_VALUE.fullmatch(text):
                value = _from_text(text, kind_of_value, variable)
                values[key] = _checked(value, kind_of_value, variable, self._cwd, strict=False)
        return values

    def _table(self, name: str, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise ConfigError(f"{self._path}: {name} must be a section, written [{name}]")
        return dict(raw)


def variable_of(section: str, key: str) -> str:
    """The environment variable that overrides `key` of `[section]`."""
    return SHORT_NAMES.get((section, key)) or f"WINNOW_{_upper_snake(section)}_{_upper_snake(key)}"


def misspelt_variables(environ: Iterable[str]) -> list[str]:
    """A sentence for each variable that has no effect and was probably meant for Winnow.

    Those that begin with the name of a section are not among them: `read_settings` refuses them.
    """
    ours = [*SHORT_NAMES.values(), *_OTHER_VARIABLES, *provider_variables()]
    sections = tuple(f"WINNOW_{name.upper()}_" for name in (*SECTIONS, BACKENDS))
    sentences = []
    for name in sorted(set(environ) - set(ours)):
        if name.startswith(sections) or _ANY_SERVICE_LINK.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, ours, n=1, cutoff=_NEAR)
        if near:
            sentences.append(f"the variable {name} has no effect; did you mean {near[0]}?")
        elif name.startswith("WINNOW_"):
            sentences.append(f"the variable {name} has no effect; docs/configuration.md lists those that have")
    return sentences


def _upper_snake(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()


def _from_text(text: str, kind: Any, variable: str) -> Any:
    """Lists are separated by commas, tables are JSON."""
    if get_origin(kind) is tuple:
        return [item.strip() for item in text.split(",") if item.strip()]
    if text.startswith("{") and kind not in (str, Path):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            raise ConfigError(f"{variable}: not a JSON object: {exc}") from exc
    return text


def _checked(value: Any, kind: Any, where: str, base: Path, *, strict: bool = True) -> Any:
    try:
        checked = msgspec.convert(value, kind, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as exc:
        got = "" if "_key" in where.lower() else f" ({value!r} is given)"  # a key must not reach a log
        raise ConfigError(f"{where}: {str(exc).replace('`', '')}{got}") from exc
    return base / checked.expanduser() if isinstance(checked, Path) else checked


def _path(kind: type, value: Any) -> Path:
    """Converts the one type that msgspec does not know. It turns a TypeError into a ValidationError."""
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Path(value)


def _refuse_unknown(given: Iterable[str], valid: Iterable[str], what: str) -> None:
    names = sorted(valid)
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise ConfigError(f"{what} {key}; {fix}")
