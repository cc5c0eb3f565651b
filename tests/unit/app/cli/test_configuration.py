"""Every command refuses settings that contradict one another, before it does anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import rich_click as click

from app.cli.doctor import examine
from app.cli.main import cli
from app.errors import ConfigError

COMMANDS: dict[str, tuple[str, ...]] = {
    "answer": ("q",),
    "batch": ("lines.jsonl", "--out", "out.jsonl"),
    "bench": (),
    "calibrate": ("--data", ".", "--backend", "none"),
    "chat": ("hello",),
    "classify": ("text", "--label", "a", "--label", "b"),
    "collections": (),
    "collections create": ("c",),
    "collections delete": ("c", "--yes"),
    "collections list": (),
    "collections repair": ("c",),
    "collections show": ("c",),
    "complete": ("--prefix", "x"),
    "cost": ("--input", "10M"),
    "documents delete": ("d",),
    "documents list": (),
    "documents show": ("d",),
    "eval": ("--data", "."),
    "index": (".",),
    "jobs": (),
    "jobs cancel": ("j",),
    "jobs list": (),
    "jobs show": ("j",),
    "keys": (),
    "keys create": ("k", "--scope", "search"),
    "keys list": (),
    "keys revoke": ("k", "--yes"),
    "keys rotate": ("k",),
    "mcp": (),
    "migrate": (),
    "moderate": ("text",),
    "search": ("q",),
    "serve": (),
    "snapshot create": (),
    "snapshot list": (),
    "snapshot restore": ("s",),
    "translate": ("text", "--to", "de"),
    "usage": (),
    "vision": ("q", "https://pictures.example/a.png"),
    "vllm": ("--preset", "rtx3060"),
    "watch": ("lines.jsonl",),
}
"""With arguments that are valid. `doctor` is missing: it reports what the others refuse."""


def commands(group: click.Group, path: str = "") -> Iterator[str]:
    """The commands of the group and below that do something by themselves."""
    for name, command in group.commands.items():
        is_group = isinstance(command, click.Group)
        if not is_group or command.invoke_without_command:
            yield path + name
        if is_group:
            yield from commands(command, f"{path}{name} ")


def test_no_command_is_forgotten() -> None:
    """A new command joins the table above."""
    assert set(commands(cli)) - {"doctor"} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_contradiction_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """With the sentence that says what to correct, and nothing is created."""
    (tmp_path / "winnow.toml").write_text('[routing]\nauto = ["zz"]\n')
    (tmp_path / "lines.jsonl").write_text('{"text": "t"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"auto in \[routing\] names zz"):
        cli([*command.split(), *COMMANDS[command]], prog_name="winnow", standalone_mode=False)
    assert not (tmp_path / ".winnow").exists()


def test_the_doctor_lists_all_of_them(tmp_path: Path) -> None:
    """Not the first one only."""
    (tmp_path / "winnow.toml").write_text('[routing]\nauto = ["zz"]\nrest_s = 90\n')
    found = examine({}, tmp_path)
    assert [(one.name, one.state) for one in found] == [("configuration", "broken")] * 2
