"""vLLM's command line for Gemma 3 on one consumer GPU, and the arithmetic of why it fits.

The cache is computed from the models' configurations. The weights and vLLM's own share are estimates: nothing here was
measured on a GPU. Memory is in MiB, unless a name says otherwise.
"""

import msgspec

from app.errors import InvalidRequest

GIB = 1024.0
GB = 1e9 / 2**20

WINDOW = 1_024
"""Tokens that a layer with a sliding window attends to."""
GLOBAL_EVERY = 6
"""One layer in six attends to every token."""
BYTES = 2
"""bfloat16"""

UTILISATION = 0.92
OWN_GIB = 2.0
"""An estimate of what vLLM needs beside weights and cache: CUDA itself, activations, captured graphs."""

CONTEXT = 8_192
"""Room for the 6,000 tokens of passages and the 1,024 of an answer that /answer asks for by default."""
TYPICAL = 2_048
"""More than a ranking prompt, less than an answer's: as many of these as fit run at once, the rest waits."""
MAX_SEQUENCES = 128


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint. `weights_gb` is an estimate, without the vision encoder; the rest determines its cache."""

    label: str
    checkpoint: str
    weights_gb: float
    layers: int
    kv_heads: int
    head_dim: int

    @property
    def global_layers(self) -> int:
        """Layers that attend to every token; the others attend to the last WINDOW."""
        return self.layers // GLOBAL_EVERY

    @property
    def kib_per_token(self) -> float:
        """Keys and values of one token in one layer."""
        return 2 * self.kv_heads * self.head_dim * BYTES / 1024

    def cache(self, tokens: int) -> float:
        """The cache of a conversation of this length."""
        windowed = (self.layers - self.global_layers) * min(tokens, WINDOW)
        return (self.global_layers * tokens + windowed) * self.kib_per_token / 1024


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, with the name of the model that suits it best, and the reason."""

    label: str
    memory_gib: float
    model: str
    why: str


MODELS = {
    "4b": Model(
        label="Gemma 3 4B, 4-bit weights",
        checkpoint="RedHatAI/gemma-3-4b-it-quantized.w4a16",
        weights_gb=3.8,
        layers=34,
        kv_heads=4,
        head_dim=256,
    ),
    "4b-bf16": Model(
        label="Gemma 3 4B",
        checkpoint="google/gemma-3-4b-it",
        weights_gb=7.8,
        layers=34,
        kv_heads=4,
        head_dim=256,
    ),
    "12b": Model(
        label="Gemma 3 12B, 4-bit weights",
        checkpoint="ISTA-DASLab/gemma-3-12b-it-GPTQ-4b-128g",
        weights_gb=7.7,
        layers=48,
        kv_heads=8,
        head_dim=256,
    ),
    "27b": Model(
        label="Gemma 3 27B, 4-bit weights",
        checkpoint="RedHatAI/gemma-3-27b-it-quantized.w4a16",
        weights_gb=17.2,
        layers=62,
        kv_heads=16,
        head_dim=128,
    ),
}

CARDS = {
    "rtx3060": Card(
        label="RTX 3060 with 12 GB",
        memory_gib=12,
        model="4b",
        why="the 12B fits as well (--model 12b), but serves only a few conversations at once, and ranking sends fifty",
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
        why="the 27B fits as well (--model 27b), but serves only a few conversations at once, and ranking sends fifty",
    ),
}


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a card. `checkpoint` has the model's shape, and is the model's own unless another was named."""

    card: Card
    model: Model
    checkpoint: str

    @property
    def usable(self) -> float:
        """The memory that vLLM may use."""
        return self.card.memory_gib * GIB * UTILISATION

    @property
    def weights(self) -> float:
        """An estimate."""
        return self.model.weights_gb * GB

    @property
    def own(self) -> float:
        """An estimate of what vLLM itself needs."""
        return OWN_GIB * GIB

    @property
    def room(self) -> float:
        """What is left for the cache."""
        return self.usable - self.weights - self.own

    @property
    def gated(self) -> bool:
        """Whether the weights require accepting Gemma's terms. Copies by others may require it as well."""
        return self.checkpoint.startswith("google/")

    def conversations(self, tokens: int) -> int:
        """How many conversations of this length fit at the same time."""
        return int(self.room // self.model.cache(tokens))

    def command(self, port: int) -> list[str]:
        """The command for the GPU's host. Text only, reachable from this host alone, and without secrets."""
        sequences = min(self.conversations(TYPICAL), MAX_SEQUENCES)
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
    """The named model, or the card's own. Raises InvalidRequest if not even one conversation would fit."""
    card = CARDS[card_name]
    model = MODELS[model_name or card.model]
    chosen = Preset(card=card, model=model, checkpoint=checkpoint or model.checkpoint)
    if chosen.conversations(CONTEXT) < 1:
        raise InvalidRequest(
            f"{model.label} does not fit an {card.label}: of the {chosen.usable / GIB:.1f} GiB that vLLM may use, "
            f"its weights take {chosen.weights / GIB:.1f} and vLLM itself about {OWN_GIB:.1f}; a conversation of "
            f"{CONTEXT:,} tokens needs {model.cache(CONTEXT) / GIB:.1f} more"
        )
    return chosen


def explanation(chosen: Preset) -> list[str]:
    """The arithmetic, line by line, with the estimates marked."""
    model = chosen.model
    windowed = model.layers - model.global_layers
    return [
        f"memory of an {chosen.card.label:<42}{chosen.card.memory_gib:7.2f} GiB",
        f"  vLLM may use {UTILISATION} of it{chosen.usable / GIB:37.2f}",
        f"- weights, {chosen.model.weights_gb} GB (an estimate){chosen.weights / GIB:32.2f}",
        f"- vLLM itself: CUDA, activations, graphs (an estimate){chosen.own / GIB:10.2f}",
        f"= room for the cache{chosen.room / GIB:43.2f}",
        f"The cache of a token takes {model.kib_per_token:.0f} KiB a layer (2 x {model.kv_heads} heads x "
        f"{model.head_dim} x {BYTES} bytes): in {model.global_layers} layers for every token, in {windowed} for the "
        f"last {WINDOW:,}.",
        *(
            f"  {tokens:5,} tokens: {model.cache(tokens):5,.0f} MiB, so {chosen.conversations(tokens)} at once"
            for tokens in (TYPICAL, CONTEXT // 2, CONTEXT)
        ),
    ]
