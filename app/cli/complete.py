"""`winnow complete`: what belongs at the cursor of a file, or between two texts."""

import re
import sys
from pathlib import Path

import rich_click as click

from app.cli.render import clean
from app.cli.session import complete_text
from app.cli.terminal import current_settings, dollars, err, out, print_json

_CURSOR = re.compile(r"(?P<file>.+?):(?P<line>[1-9]\d{0,8})(?::(?P<column>[1-9]\d{0,8}))?")

MOST_CHARACTERS = 100_000
"""Of each side, as many as /complete takes: those that are nearest to the cursor."""

LANGUAGES = {
    ".c": "C",
    ".cpp": "C++",
    ".cs": "C#",
    ".go": "Go",
    ".java": "Java",
    ".js": "JavaScript",
    ".kt": "Kotlin",
    ".php": "PHP",
    ".py": "Python",
    ".rb": "Ruby",
    ".rs": "Rust",
    ".sh": "shell",
    ".sql": "SQL",
    ".swift": "Swift",
    ".ts": "TypeScript",
}


@click.command()
@click.argument("cursor", required=False, metavar="FILE:LINE[:COLUMN]")
@click.option("--prefix", help="What stands before the cursor, in place of a file.")
@click.option("--suffix", default="", help="What stands after it.")
@click.option("--language", help="Programming language.  [default: by the file's extension]")
@click.option("--backend", help="A configured name, or auto.  [default: the configured one]")
@click.option("--max-output-tokens", type=click.IntRange(1, 8192), default=256, help="Limit of the completion.")
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")
def complete(
    cursor: str | None,
    prefix: str | None,
    suffix: str,
    language: str | None,
    backend: str | None,
    max_output_tokens: int,
    as_json: bool,
) -> None:
    """Print what belongs at the cursor: before COLUMN of a file's LINE (both from 1), or at the end of the LINE.

    Without a file: after --prefix, or after the text from a pipe. The file is not changed.
    """
    if cursor is not None:
        if prefix is not None or suffix:
            raise click.UsageError("specify FILE:LINE, or --prefix and --suffix, not both")
        path, prefix, suffix = at_cursor(cursor)
        language = language or LANGUAGES.get(path.suffix.lower())
    elif prefix is None:
        if sys.stdin.isatty():
            raise click.UsageError("specify FILE:LINE, --prefix, or a text from a pipe")
        prefix = sys.stdin.buffer.read().decode("utf-8", "replace")
    if not prefix:
        raise click.UsageError("there is nothing before the cursor to go on from")
    options = {"language": language, "backend": backend}
    reply = complete_text(
        current_settings(),
        {
            "prefix": prefix[-MOST_CHARACTERS:].encode("utf-8", "replace").decode(),
            "suffix": suffix[:MOST_CHARACTERS].encode("utf-8", "replace").decode(),
            "max_output_tokens": max_output_tokens,
            **{name: value for name, value in options.items() if value is not None},
        },
    )
    if as_json:
        print_json(reply)
        return
    out.print(clean(reply["text"]), markup=False, highlight=False)
    used, seconds = reply["backend"], reply["timings_ms"]["total"] / 1000
    way = reply["method"].replace("_", " ")
    line = f"{used['used']} ({used['model']}), {way}, {dollars(reply['usage']['cost_usd'])}, {seconds:.1f} s"
    err.print(clean(line), style="dim", markup=False, highlight=False)


def at_cursor(cursor: str) -> tuple[Path, str, str]:
    """The file, and what stands before and after the cursor. Raises UsageError."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise click.UsageError(f"{cursor!r} is not FILE:LINE or FILE:LINE:COLUMN")
    path = Path(match["file"])
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as exc:
        raise click.UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    lines = text.splitlines(keepends=True)
    if not text or text.endswith(("\n", "\r")):
        lines.append("")  # the cursor may stand below the last line
    number = int(match["line"])
    if number > len(lines):
        raise click.UsageError(f"{path} has {len(lines)} lines, and no line {number}")
    line = lines[number - 1]
    length = len(line.rstrip("\r\n"))
    column = int(match["column"] or length + 1)
    if column > length + 1:
        raise click.UsageError(f"line {number} of {path} has {length} characters, and no column {column}")
    at = sum(map(len, lines[: number - 1])) + column - 1
    return path, text[:at], text[at:]
