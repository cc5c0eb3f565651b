"""What the settings make of a shard's file of settings."""

import json
from pathlib import Path
from typing import Any

from indexing.settings import StoreSettings
from indexing.store.edge_layout import change, needs_change

PLAIN = {
    "vectors": {"dense": {"size": 4, "distance": "Cosine"}},
    "sparse_vectors": {"sparse": {"modifier": "idf"}},
}


def changed(directory: Path, settings: StoreSettings) -> tuple[bool, Any]:
    """Whether there was anything to do, and what the file says afterwards."""
    needed = needs_change(directory, settings)
    change(directory, settings)
    assert not needs_change(directory, settings)
    return needed, json.loads((directory / "edge_config.json").read_text())


def test_the_file_says_what_the_settings_ask_for(tmp_path: Path) -> None:
    """What they leave open stays as it is, and "none" takes the quantized vectors away."""
    (tmp_path / "edge_config.json").write_text(json.dumps(PLAIN))
    assert changed(tmp_path, StoreSettings()) == (False, PLAIN)
    scalar = {"scalar": {"type": "int8", "quantile": 0.99, "memory": "cached"}}
    cold = {"dense": {"size": 4, "distance": "Cosine", "memory": "cold"}}
    wanted = StoreSettings(quantization="scalar", quantized_in_ram=False, vectors_on_disk=True)
    quantized = {**PLAIN, "vectors": cold, "quantization_config": scalar}
    assert changed(tmp_path, wanted) == (True, quantized)
    assert changed(tmp_path, StoreSettings()) == (False, quantized)
    assert changed(tmp_path, StoreSettings(quantization="none")) == (True, {**PLAIN, "vectors": cold})
    for kind in ("binary", "turbo"):
        needed, config = changed(tmp_path, StoreSettings(quantization=kind))
        assert (needed, config["quantization_config"]) == (True, {kind: {"memory": "pinned"}})
    assert changed(tmp_path, StoreSettings(quantization="none", vectors_on_disk=False))[1]["vectors"] == {
        "dense": {"size": 4, "distance": "Cosine", "memory": "cached"}
    }
