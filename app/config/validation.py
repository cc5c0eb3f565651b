"""The settings as a whole: what one of them says of another. Every command loads them here, before it does anything."""

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from app.backends.registry import foreign_settings, provider_of
from app.backends.router import Backends, declared
from app.config.settings import Settings, read_settings, variable_of
from app.errors import ConfigError, MissingCapability, UnknownBackend
from indexing.database_url import address_of
from indexing.settings import MULTILINGUAL_MODEL, QUICKSTART_MODEL

_NEAR = 0.8
"""Similarity to the name of a packaged model that is taken for a slip; the hub has few names without an owner."""


def load_settings(environ: Mapping[str, str], cwd: Path) -> Settings:
    """As `read_settings`, and nothing in them contradicts the rest: ConfigError names the first contradiction."""
    settings = read_settings(environ, cwd)
    for sentence in contradictions(settings):
        raise ConfigError(sentence)
    return settings


def contradictions(settings: Settings) -> Iterator[str]:
    """A sentence for each: the section, the key, and how to mend it."""
    for rule in _RULES:
        yield from rule(settings)


def named_backends(settings: Settings) -> Backends:
    """The backends of the settings. Raises ConfigError for a setting that names one which is not declared."""
    backends = Backends(declared(settings.backends), settings.service.backend, settings.routing.auto)
    for alias, name in settings.compat.rerank_aliases.items():
        try:
            backends.for_ranking(name)
        except (UnknownBackend, MissingCapability) as exc:
            raise ConfigError(f"rerank_aliases in [compat]: {alias!r} cannot stand for {name!r}: {exc}") from exc
    return backends


def _references(settings: Settings) -> Iterator[str]:
    try:
        named_backends(settings)
    except ConfigError as exc:
        yield str(exc)
    auto = settings.routing.auto
    for name in dict.fromkeys(name for name in auto if auto.count(name) > 1):
        yield f"auto in [routing] names {name} {auto.count(name)} times; name each backend once"


def _backend_names(settings: Settings) -> Iterator[str]:
    """Their variables must differ: WINNOW_BACKENDS_MY_GPU_MODEL would be that of "my-gpu" and of "My_GPU"."""
    by_variable = defaultdict(list)
    for name in settings.backends:
        by_variable[variable_of(f"backends.{name}", "kind")].append(name)
    for names in (names for names in by_variable.values() if len(names) > 1):
        yield f"[backends.{names[0]}] and [backends.{names[1]}] have the same variables; rename one of them"


def _backends(settings: Settings) -> Iterator[str]:
    for name, backend in settings.backends.items():
        where = f"[backends.{name}]"
        for key in foreign_settings(backend):
            yield f"{key} in {where} has no effect on the kind {backend.kind}; remove it"
        if backend.price is not None and backend.price.as_of and not _is_date(backend.price.as_of):
            yield f"as_of {backend.price.as_of!r} in [backends.{name}.price] is not a date; write it as 2026-11-22"
        hedge_s = backend.hedge_after_s
        if hedge_s is not None and hedge_s >= min(backend.first_token_s, backend.timeout_s):
            yield (
                f"hedge_after_s = {hedge_s:g} in {where} is never reached: the call has ended by then; "
                "it must be less than first_token_s and timeout_s there"
            )


def _routing(settings: Settings) -> Iterator[str]:
    cascade = settings.ranking.cascade
    named = settings.backends.get(cascade or "")
    if cascade is not None and (named is None or "rerank" not in provider_of(cascade, named).may_offer):
        yield f"cascade = {cascade!r} in [ranking] is no reranker; name a backend of kind rerank or cross_encoder"
    routing = settings.routing
    if routing.rest_s > routing.longest_rest_s:
        yield (
            f"rest_s = {routing.rest_s:g} in [routing] is more than longest_rest_s = {routing.longest_rest_s:g}; "
            "raise the second or lower the first"
        )


def _names_of_hosts(settings: Settings) -> Iterator[str]:
    for section, hosts in (("service", settings.service.hosts), ("fetch", settings.fetch.hosts)):
        for host in hosts:
            if "/" in host or not _has_host(f"//{host}"):
                yield f"hosts in [{section}]: {host!r} is not a name; write it as rag.example or rag.example:8443"


def _access(settings: Settings) -> Iterator[str]:
    access = settings.access
    if access.admin_key is not None and access.admin_key_file is not None:
        yield "admin_key and admin_key_file in [access] are both set, maybe by WINNOW_ADMIN_KEY and _FILE; keep one"


def _store(settings: Settings) -> Iterator[str]:
    store = settings.store
    if store.url is not None and not (store.url.startswith(("http://", "https://")) and _has_host(store.url)):
        yield f"url in [store] (QDRANT_URL): {store.url!r} is not like http://127.0.0.1:6333"
    replicas, confirming = store.replication_factor or 1, store.write_consistency_factor or 1
    if confirming > replicas:
        yield (
            f"write_consistency_factor = {confirming} in [store] is more than the replicas there are; "
            f"raise replication_factor ({replicas}) or lower it"
        )


def _database(settings: Settings) -> Iterator[str]:
    try:
        if settings.database.url is not None:
            address_of(settings.database.url)
    except ValueError as exc:
        yield (
            f"url in [database] (WINNOW_DATABASE_URL) is not like postgresql://user:password@host:5432/winnow: {exc}"
        )
    if settings.ranking.cache == "database" and settings.database.url is None:
        yield 'cache = "database" in [ranking] needs a database: set WINNOW_DATABASE_URL, or choose "sqlite"'


def _embedding(settings: Settings) -> Iterator[str]:
    model, packaged = settings.embedding.model, (QUICKSTART_MODEL, MULTILINGUAL_MODEL)
    if model in packaged or "/" in model or Path(model).is_dir():
        return
    if near := difflib.get_close_matches(model, packaged, n=1, cutoff=_NEAR):
        yield f"model in [embedding]: there is no {model!r}; did you mean {near[0]}?"


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


_RULES: tuple[Callable[[Settings], Iterator[str]], ...] = (
    _references,
    _backend_names,
    _backends,
    _routing,
    _names_of_hosts,
    _access,
    _store,
    _database,
    _embedding,
)
