"""Gemini through Google's SDK.

adapter   the backend: its calls, and the connection they go over
decisions typed questions to a decision model
messages  requests as the SDK wants them, replies as the ports want them
errors    the one seam for what can go wrong there
"""

from collections.abc import Mapping

import msgspec

from app.backends.base import Adapter
from app.backends.provider import Provider, checked_url
from app.backends.settings import BackendSettings
from app.errors import ConfigError

GEMINI_MODEL = "gemini-3.1-flash-lite"
"""The default; a retired model is one setting away from its successor."""


def _complete(provider: Provider, name: str, settings: BackendSettings, environ: Mapping[str, str]) -> BackendSettings:
    key = provider.key(name, settings, environ)
    if not key and not settings.project:
        raise ConfigError(f"[backends.{name}] needs a key: set {provider.variable}, or api_key or project there")
    return msgspec.structs.replace(
        settings,
        # With a project the credentials of Google Cloud count, not a key that happens to be in the environment.
        api_key=None if settings.project and not settings.api_key else key,
        model=settings.model or provider.model,
        url=settings.url and checked_url(name, settings.url),
    )


def _load() -> None:
    import app.backends.gemini.adapter  # noqa: F401


def _open(name: str, settings: BackendSettings) -> Adapter:
    from app.backends.gemini.adapter import GeminiAdapter

    return GeminiAdapter(name, settings)


GEMINI = Provider(
    kind="gemini",
    may_offer=frozenset(("chat", "structured", "images", "thinking", "decide")),
    load=_load,
    open=_open,
    complete=_complete,
    model=GEMINI_MODEL,
    key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    own_settings=("project", "location", "service_tier"),
    tools="none",
    tools_hint="Winnow passes no tools to Gemini; choose another kind of backend",
    trace_name="gcp.gemini",
    price_list_id="google",
    # Half for flex, 1.8 for priority: https://ai.google.dev/gemini-api/docs/pricing, verified 2026-10-14.
    price_factors={"flex": 0.5, "priority": 1.8},
)
