"""How the vectors of a shard lie: what the settings ask for, and what its file of settings says.

The engine rewrites a segment that lies otherwise when it builds graphs the next time. What a setting leaves open stays
as it is.
"""

from pathlib import Path
from typing import Any

import msgspec

from indexing.settings import StoreSettings

_CONFIG = "edge_config.json"


def needs_change(directory: Path, settings: StoreSettings) -> bool:
    """Whether a shard lies otherwise than the settings say. Raises OSError."""
    config = _read(directory)
    return _changed(config, settings) != config


def change(directory: Path, settings: StoreSettings) -> None:
    """Make the next graphs of a shard that nobody has open lie as the settings say. Raises OSError."""
    (directory / _CONFIG).write_bytes(msgspec.json.encode(_changed(_read(directory), settings)))


def _read(directory: Path) -> dict[str, Any]:
    return msgspec.json.decode((directory / _CONFIG).read_bytes(), type=dict[str, Any])


def _changed(config: dict[str, Any], settings: StoreSettings) -> dict[str, Any]:
    changed = config.copy()
    if settings.quantization is not None:
        changed["quantization_config"] = _quantization(settings)
    if settings.vectors_on_disk is not None:
        memory = "cold" if settings.vectors_on_disk else "cached"
        changed["vectors"] = {name: {**vectors, "memory": memory} for name, vectors in config["vectors"].items()}
    return {key: value for key, value in changed.items() if value is not None}


def _quantization(settings: StoreSettings) -> dict[str, Any] | None:
    memory = "pinned" if settings.quantized_in_ram else "cached"
    match settings.quantization:
        case "scalar":
            return {"scalar": {"type": "int8", "quantile": 0.99, "memory": memory}}
        case "binary":
            return {"binary": {"memory": memory}}
        case "turbo":
            return {"turbo": {"memory": memory}}
    return None
