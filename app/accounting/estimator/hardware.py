"""The GPUs that are often rented and the models that run on them, as inputs to an estimate.

Prices per hour and the 4090's speeds are the figures that the project began with: nobody has measured them here.
Weights are those of 4-bit checkpoints (w4a16), keys and values those of 4,096 tokens by the models' configurations.
"""

import msgspec

SEED_PRICE = "seed figure, spot rental, not confirmed"
SEED_SPEED = "seed figure, single stream on an RTX 4090, not measured"


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A graphics card. `memory_gib`, and `bandwidth` in GB/s by its data sheet."""

    name: str
    memory_gib: float
    bandwidth: float
    usd_per_hour: float


class LocalModel(msgspec.Struct, frozen=True, kw_only=True):
    """`weights_gb` in memory, `kv_mib` for one conversation, `speed` in tokens/s for one stream on an RTX 4090."""

    name: str
    weights_gb: float
    kv_mib: float
    speed: float
    speed_source: str


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="RTX 3060", memory_gib=12, bandwidth=360, usd_per_hour=0.25),
        Gpu(name="RTX 3080", memory_gib=10, bandwidth=760, usd_per_hour=0.35),
        Gpu(name="RTX 4090", memory_gib=24, bandwidth=1008, usd_per_hour=1.20),
    )
}

SPEEDS_ON = GPUS["RTX 4090"]

MODELS = (
    LocalModel(name="Gemma 3 4B", weights_gb=3.8, kv_mib=196, speed=95, speed_source=SEED_SPEED),
    LocalModel(name="Gemma 3 12B", weights_gb=7.7, kv_mib=576, speed=55, speed_source=SEED_SPEED),
    LocalModel(name="Gemma 3 27B", weights_gb=17.2, kv_mib=736, speed=32, speed_source=SEED_SPEED),
    LocalModel(
        name="Qwen3.5 4B",
        weights_gb=2.6,
        kv_mib=196,
        speed=95,
        speed_source="as Gemma 3 4B, which is as large; not measured",
    ),
    LocalModel(
        name="Qwen3.5 9B",
        weights_gb=5.7,
        kv_mib=576,
        speed=73,
        speed_source="Gemma 3 12B's 55 x 12/9, as decoding reads every weight once a token; not measured",
    ),
)
"""Qwen3.5 has no 7B: 4B and 9B are next to it."""

USABLE = 0.92
"""The part of the memory that vLLM takes by default."""

OVERHEAD_GIB = 2.0
"""Activations, CUDA graphs and the driver: an assumption."""


def conversations(model: LocalModel, gpu: Gpu) -> int:
    """How many of 4,096 tokens fit at once beside the weights; 0: the model does not fit."""
    free = gpu.memory_gib * USABLE - model.weights_gb * 1e9 / 2**30 - OVERHEAD_GIB
    return max(0, int(free * 1024 / model.kv_mib))


def speed(model: LocalModel, gpu: Gpu) -> float:
    """Tokens/s of one stream: decoding waits for memory, so by its bandwidth."""
    return model.speed * gpu.bandwidth / SPEEDS_ON.bandwidth
