"""`winnow vllm`: printed, explained, started."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from app.cli.main import cli
from app.cli.vllm import CARDS, preset, start
from app.errors import ConfigError


def output(*arguments: str) -> str:
    found = CliRunner().invoke(cli, ["vllm", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def pasted(tmp_path: Path) -> Callable[[str], list[str]]:
    """Runs a text in a shell where `vllm` says what it was given, a word a line."""
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\nprintf '%s\\n' vllm \"$@\"\n")
    program.chmod(0o755)

    def run(text: str) -> list[str]:
        return subprocess.check_output(["/bin/sh", "-c", text], env={"PATH": str(tmp_path)}, text=True).splitlines()

    return run


@pytest.mark.parametrize("card", CARDS)
def test_what_is_printed_can_be_pasted_into_a_shell(card: str, pasted: Callable[[str], list[str]]) -> None:
    """Comments, and one command over several lines that is the preset's."""
    assert pasted(output("--preset", card)) == preset(card).command(8001)


def test_more_options_are_handed_on(pasted: Callable[[str], list[str]]) -> None:
    """They come last, where vLLM lets them win."""
    printed = output("--preset", "rtx3060", "--port", "9000", "--", "--seed", "7", "--chat-template", "a b")
    assert pasted(printed) == [*preset("rtx3060").command(9000), "--seed", "7", "--chat-template", "a b"]


def test_the_comments_say_where_secrets_go_and_what_to_tell_winnow() -> None:
    """The key and the hub's token come from the environment; the URL is the one that is printed."""
    printed = output(
        "--preset", "rtx3060", "--port", "9000", "--model", "4b-bf16", "--checkpoint", "google/gemma-3-4b-it"
    )
    assert "HF_TOKEN, since the weights are gated" in printed
    assert "VLLM_URL=http://127.0.0.1:9000/v1" in printed
    assert "VLLM_API_KEY" in printed


def test_the_explanation_is_shown_on_request() -> None:
    """As comments, so that it can be pasted as well."""
    printed = output("--preset", "rtx4090", "--explain")
    assert "room for the cache" in printed
    assert all(line.startswith(("#", "vllm", "  --")) for line in printed.splitlines())


def test_as_json_the_command_is_a_list() -> None:
    """With the memory it needs in MiB, and which of the figures are estimates."""
    told = json.loads(output("--preset", "rtx3080", "--json"))
    assert told["command"] == preset("rtx3080").command(8001)
    assert set(told["estimates"]) <= {*told["memory_mib"], *told}
    assert (told["gpu"], told["model"]) == (CARDS["rtx3080"].label, preset("rtx3080").checkpoint)
    assert told["url"] == "http://127.0.0.1:8001/v1"


class Become:
    """Stands in for the system call that ends this process's Python."""

    def __init__(self) -> None:
        self.called_with: tuple[str, list[str], Mapping[str, str]] | None = None

    def __call__(self, path: str, command: list[str], environ: Mapping[str, str]) -> NoReturn:
        self.called_with = (path, command, environ)
        sys.exit(0)


def test_start_becomes_the_vllm_on_the_path(tmp_path: Path) -> None:
    """With the command's own words, and the environment that holds the secrets."""
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    become, environ = Become(), {"PATH": str(tmp_path), "VLLM_API_KEY": "secret"}
    with pytest.raises(SystemExit):
        start(["vllm", "serve", "m"], environ, become)
    assert become.called_with == (str(program), ["vllm", "serve", "m"], environ)


def test_without_vllm_start_names_the_extra(tmp_path: Path) -> None:
    """And that it needs an environment of its own."""
    with pytest.raises(ConfigError, match=r"environment of its own.*\.\[gpu\]"):
        start(["vllm", "serve", "m"], {"PATH": str(tmp_path)}, Become())
