"""`winnow vllm`: prints or runs the command that serves Gemma 3 on one consumer GPU."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import rich_click as click

from app.cli.terminal import current_settings, print_json
from app.errors import ConfigError, InvalidRequest

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


PORT = 8001
"""Winnow itself listens on 8000."""

NOT_INSTALLED = (
    "vllm is not installed here. It needs an environment of its own, because it requires other versions of packages "
    "than Winnow: python3 -m venv vllm && vllm/bin/pip install '.[gpu]' in the checkout, then "
    "vllm/bin/winnow vllm --exec ..."
)


@click.command()
@click.option("--preset", "card", type=click.Choice(list(CARDS)), required=True, help="GPU model.")
@click.option(
    "--model", type=click.Choice(list(MODELS)), help="Size of Gemma 3.  [default: the one that suits the GPU best]"
)
@click.option(
    "--checkpoint", metavar="ID", help="Other weights of the same model: an id on the model hub, or a directory."
)
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, help="Port on 127.0.0.1.")
@click.option("--explain", is_flag=True, help="Show how the memory is used, and which figures are estimates.")
@click.option(
    "--exec", "start_it", is_flag=True, help="Run the command in place of this process; requires vllm (extra `gpu`)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the command, its environment and memory use as JSON.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTION...]")
def vllm(
    card: str,
    model: str | None,
    checkpoint: str | None,
    port: int,
    explain: bool,
    start_it: bool,
    as_json: bool,
    extra: tuple[str, ...],
) -> None:
    """Print the command that serves Gemma 3 on your GPU with vLLM, or run it.

    Options after -- are passed on to vLLM and override the ones before. vLLM needs an environment of its own, which
    the extra `gpu` installs, or a container.
    """
    current_settings()  # where it runs, Winnow probably will, too: better told now than after the weights are loaded
    chosen = preset(card, model, checkpoint)
    command = [*chosen.command(port), *extra]
    if as_json:
        print_json(_described(chosen, command, port))
    elif not start_it:
        click.echo("\n".join([*(f"# {line}" for line in _comments(chosen, port, explain)), written(command)]))
    if start_it:
        for line in _missing(chosen, os.environ):
            click.echo(f"winnow: {line}", err=True)
        start(command, os.environ)


def written(command: Sequence[str]) -> str:
    """The command as a shell reads it, one option a line."""
    lines = [" ".join(command[:3])]
    for word in map(shlex.quote, command[3:]):
        if word.startswith("-"):
            lines.append(f"  {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)


def start(
    command: list[str],
    environ: Mapping[str, str],
    become: Callable[[str, list[str], Mapping[str, str]], NoReturn] = os.execve,
) -> NoReturn:
    """Replace this process by vLLM: the one beside this Python, or the first on the path. Raises ConfigError."""
    path = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    program = shutil.which(command[0], path=path)
    if program is None:
        raise ConfigError(NOT_INSTALLED)
    sys.stdout.flush()  # exec discards what is buffered
    become(program, command, environ)


def _comments(chosen: Preset, port: int, explain: bool) -> list[str]:
    """Why this model, and how to use the command."""
    arithmetic = (
        explanation(chosen)
        if explain
        else ["Not measured on a GPU; --explain shows which figures are computed and which are estimates."]
    )
    return [
        f"{chosen.model.label}, text only, on an {chosen.card.label}: about {chosen.conversations(TYPICAL)} concurrent "
        f"conversations of {TYPICAL:,} tokens, each up to {CONTEXT:,}.",
        *([f"Why this one: {chosen.card.why}."] if chosen.model is MODELS[chosen.card.model] else []),
        *arithmetic,
        "If a display is connected to the same GPU, leave it some memory: add  --gpu-memory-utilization 0.85",
        "Environment: VLLM_API_KEY, the key that clients must send; and HF_TOKEN, "
        + ("since the weights are gated." if chosen.gated else "if the model hub asks you to accept Gemma's terms."),
        "Do not expose the port: the key protects only /v1, not the server's other routes.",
        f"Winnow uses it with  VLLM_URL=http://127.0.0.1:{port}/v1",
    ]


def _missing(chosen: Preset, environ: Mapping[str, str]) -> list[str]:
    """Warnings about missing environment variables."""
    warnings = []
    if not environ.get("VLLM_API_KEY"):
        warnings.append("VLLM_API_KEY is not set: everyone on this machine can use the model")
    if chosen.gated and not environ.get("HF_TOKEN"):
        warnings.append(
            f"HF_TOKEN is not set: {chosen.checkpoint} is gated, and can only be loaded if it is already downloaded"
        )
    return warnings


def _described(chosen: Preset, command: list[str], port: int) -> dict[str, Any]:
    return {
        "command": command,
        "environment": ["VLLM_API_KEY", "HF_TOKEN"],
        "url": f"http://127.0.0.1:{port}/v1",
        "model": chosen.checkpoint,
        "gpu": chosen.card.label,
        "memory_mib": {name: round(getattr(chosen, name), 1) for name in ("usable", "weights", "own", "room")},
        "cache_mib": {str(tokens): round(chosen.model.cache(tokens), 1) for tokens in (TYPICAL, CONTEXT)},
        "concurrency": {str(tokens): chosen.conversations(tokens) for tokens in (TYPICAL, CONTEXT)},
        "estimates": ["weights", "own", "room", "concurrency"],
    }
