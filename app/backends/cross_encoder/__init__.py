"""A reranker in this process, through sentence-transformers."""

from collections.abc import Mapping

import msgspec

from app.backends.base import Adapter
from app.backends.provider import Provider
from app.backends.settings import BackendSettings
from app.errors import ConfigError


def _complete(provider: Provider, name: str, settings: BackendSettings, environ: Mapping[str, str]) -> BackendSettings:
    if not settings.model:
        raise ConfigError(
            f"[backends.{name}] needs a model: the folder of a cross-encoder, or its name, "
            'as in "BAAI/bge-reranker-v2-m3"'
        )
    return msgspec.structs.replace(settings, url=None, api_key=None)


def _load() -> None:
    """Nothing: torch is loaded with the model, in the background, when the backend is first looked at."""


def _open(name: str, settings: BackendSettings) -> Adapter:
    from app.backends.cross_encoder.adapter import CrossEncoderAdapter

    return CrossEncoderAdapter(name, settings)


CROSS_ENCODER = Provider(
    kind="cross_encoder",
    may_offer=frozenset(("rerank",)),
    load=_load,
    open=_open,
    complete=_complete,
    own_settings=("device",),
    tools="none",
    local=True,
)
