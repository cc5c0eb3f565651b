"""vLLM's command line for a Gemma 3 on one consumer GPU, and the arithmetic of why it fits.

The cache is computed from the models' configurations. The weights and vLLM's own share are estimates: nothing here was
measured on a GPU. Memory is in MiB, unless a name says otherwise.
"""

import msgspec

from app.errors import InvalidRequest

GIB = 1024.0
GB = 1e9 / 2**20

WINDOW = 1_024
"""Tokens that the layers with a sliding window remember."""
GLOBAL_EVERY = 6
"""One layer in six remembers everything."""
BYTES = 2
"""bfloat16"""

UTILISATION = 0.92
OWN_GIB = 2.0
"""An estimate of what vLLM needs beside weights and cache: CUDA itself, activations, captured graphs."""

CONTEXT = 8_192
"""Room for the 6,000 tokens of passages and the 1,024 of an answer that /answer asks for by default."""
TYPICAL = 2_048
"""More than a ranking prompt, less than an answer's: as many of these as fit are let in at once, the rest waits."""
MOST_SEQUENCES = 128


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the size of the cache depends on."""

    layers: int
    kv_heads: int
    head_dim: int

    @property
    def global_layers(self) -> int:
        """Those that remember everything."""
        return self.layers // GLOBAL_EVERY

    @property
    def kib_per_token(self) -> float:
        """Keys and values of one token in one layer."""
        return 2 * self.kv_heads * self.head_dim * BYTES / 1024

    def cache(self, tokens: int) -> float:
        """What a conversation of this length takes."""
        windowed = (self.layers - self.global_layers) * min(tokens, WINDOW)
        return (self.global_layers * tokens + windowed) * self.kib_per_token / 1024


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint. `weights_gb` is an estimate, without the part that sees pictures."""

    label: str
    checkpoint: str
    shape: Shape
    weights_gb: float


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, and the name of the model that suits it best, and why."""

    label: str
    memory_gib: float
    model: str
    why: str


_4B = Shape(layers=34, kv_heads=4, head_dim=256)
_12B = Shape(layers=48, kv_heads=8, head_dim=256)
_27B = Shape(layers=62, kv_heads=16, head_dim=128)

MODELS = {
    "4b": Model(
        label="Gemma 3 4B, 4-bit weights",
        checkpoint="RedHatAI/gemma-3-4b-it-quantized.w4a16",
        shape=_4B,
        weights_gb=3.8,
    ),
    "4b-bf16": Model(label="Gemma 3 4B", checkpoint="google/gemma-3-4b-it", shape=_4B, weights_gb=7.8),
    "12b": Model(
        label="Gemma 3 12B, 4-bit weights",
        checkpoint="ISTA-DASLab/gemma-3-12b-it-GPTQ-4b-128g",
        shape=_12B,
        weights_gb=7.7,
    ),
    "27b": Model(
        label="Gemma 3 27B, 4-bit weights",
        checkpoint="RedHatAI/gemma-3-27b-it-quantized.w4a16",
        shape=_27B,
        weights_gb=17.2,
    ),
}

CARDS = {
    "rtx3060": Card(
        label="RTX 3060 with 12 GB",
        memory_gib=12,
        model="4b",
        why="the 12B fits as well (--model 12b), but lets in a few conversations at once only, and ranking sends fifty",
    ),
    "rtx3080": Card(
        label="RTX 3080 with 10 GB",
        memory_gib=10,
        model="4b",
        why="the 12B leaves no room for its cache",
    ),
    "rtx4090": Card(
        label="RTX 4090 with 24 GB",
        memory_gib=24,
        model="12b",
        why="the 27B fits as well (--model 27b), but lets in a few conversations at once only, and ranking sends fifty",
    ),
}


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Where the memory of a card goes; `room` is left for the cache."""

    usable: float
    weights: float
    own: float
    room: float


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a card. `checkpoint` has the model's shape, and is the model's own unless another was named."""

    card: Card
    model: Model
    checkpoint: str
    fit: Fit

    @property
    def gated(self) -> bool:
        """Whether the weights are given only to those who accepted Gemma's terms. Copies by others may be as well."""
        return self.checkpoint.startswith("google/")

    def at_once(self, tokens: int) -> int:
        """Conversations of this length whose caches fit beside one another."""
        return int(self.fit.room // self.model.shape.cache(tokens))

    def command(self, port: int) -> list[str]:
        """For a shell on the GPU's host. Text only, and reached from this host alone; no secret is in it."""
        sequences = min(self.at_once(TYPICAL), MOST_SEQUENCES)
        return [
            *("vllm", "serve", self.checkpoint),
            *("--host", "127.0.0.1"),
            *("--port", str(port)),
            *("--max-model-len", str(CONTEXT)),
            *("--max-num-seqs", str(sequences)),
            *("--gpu-memory-utilization", str(UTILISATION)),
            "--language-model-only",
            "--enable-prompt-tokens-details",
            *("--generation-config", "vllm"),
            *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
        ]


def preset(card_name: str, model_name: str | None = None, checkpoint: str | None = None) -> Preset:
    """The named model, or the card's own. Raises InvalidRequest when not one conversation would fit."""
    card = CARDS[card_name]
    model = MODELS[model_name or card.model]
    found = Preset(card=card, model=model, checkpoint=checkpoint or model.checkpoint, fit=_fit(card, model))
    if found.at_once(CONTEXT) < 1:
        raise InvalidRequest(
            f"{model.label} does not fit an {card.label}: of the {found.fit.usable / GIB:.1f} GiB that vLLM may use, "
            f"its weights take {found.fit.weights / GIB:.1f} and vLLM itself about {OWN_GIB:.1f}; a conversation of "
            f"{CONTEXT:,} tokens needs {model.shape.cache(CONTEXT) / GIB:.1f} more"
        )
    return found


def _fit(card: Card, model: Model) -> Fit:
    usable = card.memory_gib * GIB * UTILISATION
    weights = model.weights_gb * GB
    own = OWN_GIB * GIB
    return Fit(usable=usable, weights=weights, own=own, room=usable - weights - own)


def explanation(chosen: Preset) -> list[str]:
    """The arithmetic, line by line: what is computed and what is an estimate."""
    fit, shape = chosen.fit, chosen.model.shape
    windowed = shape.layers - shape.global_layers
    return [
        f"memory of an {chosen.card.label:<42}{chosen.card.memory_gib:7.2f} GiB",
        f"  vLLM may use {UTILISATION} of it{fit.usable / GIB:37.2f}",
        f"- weights, {chosen.model.weights_gb} GB (an estimate){fit.weights / GIB:32.2f}",
        f"- vLLM itself: CUDA, activations, graphs (an estimate){fit.own / GIB:10.2f}",
        f"= room for the cache{fit.room / GIB:43.2f}",
        f"The cache of a token takes {shape.kib_per_token:.0f} KiB a layer (2 x {shape.kv_heads} heads x "
        f"{shape.head_dim} x {BYTES} bytes): in {shape.global_layers} layers for every token, in {windowed} for the "
        f"last {WINDOW:,}.",
        *(
            f"  {tokens:5,} tokens: {shape.cache(tokens):5,.0f} MiB, so {chosen.at_once(tokens)} conversations at once"
            for tokens in (TYPICAL, CONTEXT // 2, CONTEXT)
        ),
    ]
