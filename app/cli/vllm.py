"""`winnow vllm`: prints or runs the command that serves Gemma 3 on one consumer GPU."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import rich_click as click

from app.cli.terminal import current_settings, print_json
from app.cli.vllm_presets import CARDS, CONTEXT, MODELS, TYPICAL, Preset, explanation, preset
from app.errors import ConfigError

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
