"""`winnow classify`, `winnow moderate`, `winnow translate`: texts of the command line or a pipe, or a file of them."""

import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
import rich_click as click
from click.exceptions import Exit
from rich.text import Text

from app.cli.batch.command import SOME_FAILED, FileOptions, file_options, work_through
from app.cli.http_client import ServiceRefused
from app.cli.render import clean
from app.cli.session import judge_lines
from app.cli.terminal import current_settings, err, out, run, write

Show = Callable[[str, dict[str, Any]], None]
"""Prints a text's row."""


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """The texts, and the options of all three commands."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print a JSON line for each text."),
        click.option("--backend", help="Backend: a configured name, or auto.  [default: the configured one]"),
        file_options,
        click.argument("texts", metavar="TEXT...", nargs=-1, required=True),
    ):
        command = option(command)
    return command


@click.command()
@_common
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME[=WHEN]",
    help="A label, and when it fits; at least two.  [default: POSITIVE, NEGATIVE, NEUTRAL]",
)
@click.option("--instructions", default="", help="What else the model is to know about the labels.")
@click.option("--multi-label", is_flag=True, help="Any number of labels may fit a text.")
@click.option("--unsure-below", type=click.FloatRange(0, 1), default=0.0, help="Mark what is less certain as unsure.")
def classify(texts: tuple[str, ...], as_json: bool, file: FileOptions, labels: tuple[str, ...], **options: Any) -> None:
    """Give each TEXT one of your labels, with its probability. "-" stands for the lines of a pipe. With --out, TEXT is
    a file.

    A file is gone on with where it was when it is run again, after Ctrl-C or a kill. Exit status 1: texts failed, or
    the budget left some; 3: the run had to stop.
    """
    options["labels"] = [_named(label, "description") for label in labels] or None
    _judge("classify", texts, options, file, None if as_json else _show_label)


@click.command()
@_common
@click.option(
    "--category",
    "categories",
    multiple=True,
    metavar="NAME[=WHAT]",
    help="A category, and what it is.  [default: OpenAI's thirteen]",
)
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.5, help="Flag from this score on.")
@click.option("--instructions", default="", help="What else the model is to know about the categories.")
def moderate(
    texts: tuple[str, ...], as_json: bool, file: FileOptions, categories: tuple[str, ...], **options: Any
) -> None:
    """Flag each TEXT by category. With --out, TEXT is a file: see `winnow classify --help`."""
    options["categories"] = [_named(category, "description") for category in categories] or None
    _judge("moderate", texts, options, file, None if as_json else _show_flags)


@click.command()
@_common
@click.option("--to", "target_language", required=True, help="Language of the translation, such as de or pt-BR.")
@click.option("--from", "source_language", help="Language of the text.  [default: the model sees it]")
@click.option(
    "--term", "terms", multiple=True, metavar="WORD=WORD", help="A word of the text, and what it must become."
)
def translate(texts: tuple[str, ...], as_json: bool, file: FileOptions, terms: tuple[str, ...], **options: Any) -> None:
    """Translate each TEXT, and say what it lost. With --out, TEXT is a file: see `winnow classify --help`."""
    pairs = [term.partition("=") for term in terms]
    if not all(word and translated for word, _, translated in pairs):
        raise click.UsageError("--term is WORD=WORD: the word of the text, and what it must become")
    options["glossary"] = {word: translated for word, _, translated in pairs} or None
    _judge("translate", texts, options, file, None if as_json else _show_translation)


def _named(given: str, rest: str) -> str | dict[str, str]:
    """NAME, or NAME=TEXT as an object."""
    name, _, text = _encodable(given).partition("=")
    return {"name": name.strip(), rest: text.strip()} if text.strip() else name.strip()


def _encodable(argument: str) -> str:
    """An argument in another encoding arrives with lone surrogates, which JSON cannot carry."""
    return argument.encode("utf-8", "replace").decode()


def _judge(
    command: str, texts: Sequence[str], options: Mapping[str, Any], file: FileOptions, show: Show | None
) -> None:
    """Judge the texts, or the file that the only one names. Without `show` rows are printed as they are."""
    given = {name: value for name, value in options.items() if value is not None}
    if file.out is None:
        lines = _lines_of_pipe() if texts == ("-",) else [_encodable(text) for text in texts]
        run(_print(command, lines, given, show))
    elif texts == ("-",):
        raise click.UsageError("with --out the argument is a file: a pipe cannot be gone on with")
    elif len(texts) > 1:
        raise click.UsageError("with --out there is one argument, the file")
    else:
        work_through(command, texts[0], given, file)


def _lines_of_pipe() -> list[str]:
    """Of standard input; blank ones are no texts. Raises UsageError where there are none."""
    lines = sys.stdin.buffer.read().decode("utf-8", "replace").splitlines()
    if not (texts := [line for line in lines if line.strip()]):
        raise click.UsageError("the pipe has no text")
    return texts


async def _print(command: str, texts: Sequence[str], options: Mapping[str, Any], show: Show | None) -> None:
    failed, ending = 0, False
    async with aclosing(judge_lines(current_settings(), f"/{command}", options, _rows(texts))) as lines:
        async for line in lines:
            row = msgspec.json.decode(line)
            if ending := "done" in row:
                if not row["done"]:
                    raise ServiceRefused(str(row["error"]["detail"]))
                break
            failed += "error" in row
            if show is None:
                write(line.rstrip(b"\n"))
            elif "error" in row:
                err.print(Text(clean(str(row["error"]["detail"])), "red"))
            else:
                show(texts[row["id"]], row)
    if not ending:
        raise ServiceRefused("the service closed the connection before it had finished")
    if failed:
        raise Exit(SOME_FAILED)


async def _rows(texts: Sequence[str]) -> AsyncGenerator[bytes, None]:
    for number, text in enumerate(texts):
        yield msgspec.json.encode({"id": number, "text": text}) + b"\n"


def _show_label(text: str, row: dict[str, Any]) -> None:
    style = "yellow" if row["unsure"] else "bold"
    labels = ", ".join(f"{clean(name)} {row['scores'][name]:.2f}" for name in row["labels"]) or "no label"
    out.print(Text.assemble((f"{labels}{' (unsure)' if row['unsure'] else ''}", style), f"  {clean(text)}"))


def _show_flags(text: str, row: dict[str, Any]) -> None:
    flags = ", ".join(f"{clean(name)} {row['scores'][name]:.2f}" for name in row["categories"])
    out.print(Text.assemble((flags or "not flagged", "red" if flags else "green"), f"  {clean(text)}"))


def _show_translation(_text: str, row: dict[str, Any]) -> None:
    out.print(Text(clean(row["translation"])))
    for name in ("lost", "doubts"):
        for one in row[name]:
            said = ", ".join(map(str, one.values())) if isinstance(one, dict) else str(one)
            err.print(Text(clean(f"{name}: {said}"), "yellow"))
