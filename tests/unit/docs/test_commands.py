"""The documents name only commands, options and make targets that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import Group

from app.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))

_CODE = re.compile(r"^```(?:sh|console)\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_WINNOW = re.compile(r"(?:^|[\s/(])winnow (?!winnow|dstdomain)([a-z]+)\b([^\n|;&]*)", re.MULTILINE)
_OPTION = re.compile(r"(?<=\s)--[a-z-]+")
_MAKE = re.compile(r"(?:^|\s)make ([a-z-]+)", re.MULTILINE)
_HELP = re.compile(r"@echo 'make ([a-z-]+) ")


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page: str) -> None:
    """Each `winnow COMMAND --option` in code quotes is one of the command line's."""
    unknown = []
    for code in _quoted(page):
        for name, rest in _WINNOW.findall(code):
            command = cli.commands.get(name)
            # `winnow jobs --watch` is the group's own option.
            if isinstance(command, Group) and (words := rest.split()) and not words[0].startswith("-"):
                command = command.commands.get(words[0])
            known = {option for parameter in command.params for option in parameter.opts} if command else set()
            unknown += [name] if command is None else sorted(set(_OPTION.findall(rest)) - known - {"--help"})
    assert unknown == []


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    """Each `make TARGET` in code quotes is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {target for code in _quoted(page) for target in _MAKE.findall(code)}
    assert {target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_contributors_are_told_every_target() -> None:
    """CONTRIBUTING.md lists the targets that `make` alone lists."""
    listed = set(_HELP.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert {target for target in listed if f"`make {target}`" not in page} == set()


def _quoted(page: str) -> Iterator[str]:
    for block, span in _CODE.findall((ROOT / page).read_text(encoding="utf-8")):
        yield block or span
