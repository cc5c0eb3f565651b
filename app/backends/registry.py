"""The providers there are. To add one: a package that declares its `Provider`, and a line here."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.backends.base import Adapter
from app.backends.cross_encoder import CROSS_ENCODER
from app.backends.gemini import GEMINI
from app.backends.openai_compatible import OLLAMA, OPENAI, RERANK, VLLM
from app.backends.provider import Provider
from app.backends.settings import BackendSettings
from app.errors import ConfigError

PROVIDERS: dict[str, Provider] = {
    provider.kind: provider
    for provider in (
        # The user's own machines come first: "auto" prefers those that the environment declares in this order.
        VLLM,
        OLLAMA,
        GEMINI,
        OPENAI,
        RERANK,
        CROSS_ENCODER,
    )
}


def kinds() -> str:
    """All of them, for a sentence."""
    return _listed(PROVIDERS)


def setup_hint() -> str:
    """How to get a language model without a configuration file."""
    variables = [provider.variable for provider in PROVIDERS.values() if provider.variable]
    return f"set {_listed(variables)}"


def provider_of(name: str, settings: BackendSettings) -> Provider:
    """Raises ConfigError for a kind that nobody provides."""
    if settings.kind not in PROVIDERS:
        raise ConfigError(f"kind in [backends.{name}] must be {kinds()}, not {settings.kind!r}")
    return PROVIDERS[settings.kind]


def is_local(kind: str) -> bool:
    """Whether backends of that kind run on the user's own hardware."""
    return kind in PROVIDERS and PROVIDERS[kind].local


def foreign_settings(settings: BackendSettings) -> list[str]:
    """The keys that have been set and are for other kinds only."""
    own = PROVIDERS[settings.kind].own_settings
    others = [key for provider in PROVIDERS.values() for key in provider.own_settings if key not in own]
    return [key for key in dict.fromkeys(others) if getattr(settings, key) is not None]


def discovered(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The backends that need no configuration, by name: those that the environment has a URL or a key for."""
    return {kind: {"kind": kind} for kind, provider in PROVIDERS.items() if provider.is_declared(environ)}


def provider_variables() -> list[str]:
    """The environment variables that hold URLs and keys of providers."""
    providers = PROVIDERS.values()
    return [name for one in providers for name in (one.url_variable, *one.key_variables) if name]


def completed(name: str, settings: BackendSettings, environ: Mapping[str, str]) -> BackendSettings:
    """With key, URL and model from where they are known. Raises ConfigError naming what is missing."""
    provider = provider_of(name, settings)
    return provider.complete(provider, name, settings, environ)


def open_adapter(name: str, settings: BackendSettings) -> Adapter:
    """The adapter of its kind. Raises ConfigError when it cannot work."""
    return provider_of(name, settings).open(name, settings)


def load_sdks(backends: Mapping[str, BackendSettings]) -> None:
    """Import the SDKs of these, which takes some 0.5 s each: for a thread, before they are opened."""
    for name, settings in backends.items():
        provider_of(name, settings).load()


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
