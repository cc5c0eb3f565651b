"""What `winnow doctor` finds, and how it is shown."""

from collections.abc import Iterable
from typing import Literal

import msgspec
from rich.console import Console
from rich.text import Text

State = Literal["ok", "note", "broken"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check. `fix` is "" where there is nothing to do."""

    name: str
    state: State
    detail: str
    fix: str = ""


def show(console: Console, findings: Iterable[Finding]) -> None:
    """Print a line for each finding, with its fix below."""
    marks = {"ok": ("ok    ", "green"), "note": ("note  ", "yellow"), "broken": ("broken", "bold red")}
    for finding in findings:
        console.print(Text.assemble(marks[finding.state], " ", (finding.name, "bold"), f": {finding.detail}"))
        if finding.fix:
            console.print(Text.assemble(("       fix: ", "dim"), finding.fix))
