"""`winnow vllm`: the command line that serves a Gemma 3 on one consumer GPU, printed or started."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import rich_click as click

from app.cli.terminal import print_json
from app.cli.vllm_presets import CARDS, CONTEXT, MODELS, TYPICAL, Preset, explanation, preset
from app.errors import ConfigError

PORT = 8001
"""Winnow itself has 8000."""

NOT_INSTALLED = (
    "vllm is not installed here. It needs an environment of its own, since its versions are not those that Winnow is "
    "tested with: python3 -m venv vllm && vllm/bin/pip install 'winnow[gpu]' (in a checkout '.[gpu]'), then "
    "vllm/bin/winnow vllm --exec ..."
)


@click.command()
@click.option("--preset", "card", type=click.Choice(list(CARDS)), required=True, help="The GPU.")
@click.option("--model", type=click.Choice(list(MODELS)), help="Another Gemma 3 than the one that suits the GPU best.")
@click.option("--checkpoint", metavar="ID", help="Other weights of the same model: a hub's id, or a folder.")
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, help="Port on 127.0.0.1.")
@click.option("--explain", is_flag=True, help="Show where the memory goes, and which figures are estimates.")
@click.option("--exec", "start_it", is_flag=True, help="Start it in place of this process; needs vllm (extra `gpu`).")
@click.option("--json", "as_json", is_flag=True, help="Print command, environment and memory as JSON.")
@click.argument("others", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTION...]")
def vllm(
    card: str,
    model: str | None,
    checkpoint: str | None,
    port: int,
    explain: bool,
    start_it: bool,
    as_json: bool,
    others: tuple[str, ...],
) -> None:
    """Print the command that serves a Gemma 3 on your GPU, or start it.

    What stands after -- is handed on to vLLM, where the last of two equal options counts. vLLM belongs into an
    environment of its own, which the extra `gpu` fills, or into a container.
    """
    chosen = preset(card, model, checkpoint)
    command = [*chosen.command(port), *others]
    if as_json:
        print_json(_described(chosen, command, port))
    elif not start_it:
        click.echo("\n".join([*(f"# {line}" for line in _comments(chosen, port, explain)), written(command)]))
    if start_it:
        for line in _missing(chosen, os.environ):
            click.echo(f"winnow: {line}", err=True)
        start(command, os.environ)


def written(command: Sequence[str]) -> str:
    """As a person would write it: an option a line."""
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
    """Become vLLM: the one beside this Python, or the first on the path. Raises ConfigError when there is none."""
    places = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    found = shutil.which(command[0], path=places)
    if found is None:
        raise ConfigError(NOT_INSTALLED)
    sys.stdout.flush()
    become(found, command, environ)


def _comments(chosen: Preset, port: int, explain: bool) -> list[str]:
    """Why this, and what to do with it."""
    arithmetic = (
        explanation(chosen)
        if explain
        else ["Not measured on a GPU; --explain shows what is computed and what an estimate."]
    )
    return [
        f"{chosen.model.label}, text only, on an {chosen.card.label}: about {chosen.at_once(TYPICAL)} conversations of "
        f"{TYPICAL:,} tokens at once, each up to {CONTEXT:,}.",
        *([f"Why this one: {chosen.card.why}."] if chosen.model is MODELS[chosen.card.model] else []),
        *arithmetic,
        "Where a screen hangs on the same GPU, leave it some: add  --gpu-memory-utilization 0.85",
        "In the environment: VLLM_API_KEY, the key that callers must send; and HF_TOKEN, "
        + ("since the weights are gated." if chosen.gated else "if the hub asks you to accept Gemma's terms first."),
        "Never publish the port: the key guards /v1, and leaves other ways to the model open.",
        f"Winnow finds it by  VLLM_URL=http://127.0.0.1:{port}/v1",
    ]


def _missing(chosen: Preset, environ: Mapping[str, str]) -> list[str]:
    """What the environment lacks, and what follows."""
    said = []
    if not environ.get("VLLM_API_KEY"):
        said.append("VLLM_API_KEY is not set: everyone on this machine may use the model")
    if chosen.gated and not environ.get("HF_TOKEN"):
        said.append(f"HF_TOKEN is not set: {chosen.checkpoint} is gated, and can only be loaded if it is here already")
    return said


def _described(chosen: Preset, command: list[str], port: int) -> dict[str, Any]:
    return {
        "command": command,
        "environment": ["VLLM_API_KEY", "HF_TOKEN"],
        "url": f"http://127.0.0.1:{port}/v1",
        "model": chosen.model.label,
        "card": chosen.card.label,
        "memory_mib": {name: round(value, 1) for name, value in msgspec.structs.asdict(chosen.fit).items()},
        "cache_mib": {str(tokens): round(chosen.model.shape.cache(tokens), 1) for tokens in (TYPICAL, CONTEXT)},
        "at_once": {str(tokens): chosen.at_once(tokens) for tokens in (TYPICAL, CONTEXT)},
        "estimates": ["weights", "own", "room", "at_once"],
    }
