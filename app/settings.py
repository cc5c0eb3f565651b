"""The service's settings: `winnow.toml` and the environment, both handed in; nothing is read on import.

Every key is one line of the file and one environment variable: `port` of `[service]` is WINNOW_SERVICE_PORT by the
general rule, except for the keys in SHORT_NAMES, which have a shorter name.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

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
}

# Kubernetes sets these in every pod beside a Service called "winnow"; they are not meant for us.
_SERVICE_LINK = re.compile(r"WINNOW_SERVICE_(HOST|PORT(_\w+)?)")
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+")

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The HTTP side.

    `hosts` are names, besides loopback's, under which browsers and proxies may address the service; with
    `allow_anonymous` all names are fine until some are given. `backend` ranks where a request names none. `log_format`
    "auto" is text on a terminal and JSON elsewhere.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    hosts: tuple[str, ...] = ()
    allow_anonymous: bool = False
    backend: Annotated[str, Meta(min_length=1)] = "auto"
    max_body_bytes: Count = 10_000_000
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    ping_s: Seconds = 15.0
    shutdown_grace_s: Seconds = 30.0


class IndexSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`home` holds index, manifest, ledger and caches."""

    home: Path = Path(".winnow")


class AnswerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answering. Below `min_relevance` it abstains; None: the answerer's own calibrated default."""

    min_relevance: Fraction | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be told, by section of the file."""

    service: ServiceSettings = ServiceSettings()
    index: IndexSection = IndexSection()
    reading: ReadLimits = ReadLimits()
    store: StoreSettings = StoreSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    answer: AnswerSettings = AnswerSettings()


SECTIONS: dict[str, type[msgspec.Struct]] = {field.name: field.type for field in msgspec.structs.fields(Settings)}


def load_settings(environ: Mapping[str, str], cwd: Path) -> Settings:
    """The file's settings, overridden by the environment's. Raises ConfigError naming the place, the key and the fix.

    Paths in the result are absolute: those of the file count from its folder, those of the environment from `cwd`.
    """
    named = environ.get("WINNOW_CONFIG")
    path = cwd / (named or CONFIG_FILE)
    raw = _read_file(path) if named or path.exists() else {}
    _refuse_unknown(raw, SECTIONS, f"{path}: unknown section")
    _refuse_unknown_variables(environ)
    sections = {name: _section(name, raw.get(name, {}), path, environ, cwd) for name in SECTIONS}
    return Settings(**sections)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: this is not valid TOML: {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); WINNOW_CONFIG names the file") from exc


def _section(name: str, raw: Any, path: Path, environ: Mapping[str, str], cwd: Path) -> Any:
    kind = SECTIONS[name]
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: {name} must be a section, written [{name}]")
    keys = {field.name: field.type for field in msgspec.structs.fields(kind)}
    _refuse_unknown(raw, keys, f"{path}: unknown key in [{name}]:")
    values = {key: _checked(value, keys[key], f"{path}: {key} in [{name}]", path.parent) for key, value in raw.items()}
    for key, kind_of_value in keys.items():
        variable = variable_of(name, key)
        text = environ.get(variable, "")
        if text and not _SERVICE_LINK_VALUE.fullmatch(text):
            values[key] = _checked(_from_text(text, kind_of_value), kind_of_value, variable, cwd, strict=False)
    if name == "index":
        values.setdefault("home", cwd / IndexSection().home)
    return kind(**values)


def variable_of(section: str, key: str) -> str:
    """The environment variable that overrides `key` of `[section]`."""
    return SHORT_NAMES.get((section, key)) or f"WINNOW_{section}_{key}".upper()


def _from_text(text: str, kind: Any) -> Any:
    """A list is written with commas."""
    return [item.strip() for item in text.split(",") if item.strip()] if kind == tuple[str, ...] else text


def _checked(value: Any, kind: Any, where: str, base: Path, *, strict: bool = True) -> Any:
    try:
        checked = msgspec.convert(value, kind, strict=strict, dec_hook=_path)
    except msgspec.ValidationError as exc:
        shown = "" if "api_key" in where.lower() else f" ({value!r} is given)"
        raise ConfigError(f"{where}: {str(exc).replace('`', '')}{shown}") from exc
    return base / checked.expanduser() if isinstance(checked, Path) else checked


def _path(kind: type, value: Any) -> Path:
    """The one type that msgspec does not know. A TypeError becomes its ValidationError."""
    if kind is not Path or not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Path(value)


def _refuse_unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    names = sorted(known)
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise ConfigError(f"{what} {key}; {fix}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    """A misspelt variable is as bad as a misspelt key. Only names that begin like a section's are ours to judge."""
    known = {variable_of(name, f.name) for name, kind in SECTIONS.items() for f in msgspec.structs.fields(kind)}
    prefixes = tuple(f"WINNOW_{name.upper()}_" for name in SECTIONS)
    ours = [key for key in environ if key.startswith(prefixes) and not _SERVICE_LINK.fullmatch(key)]
    _refuse_unknown(ours, known, "environment: unknown variable")
