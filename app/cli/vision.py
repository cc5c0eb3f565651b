"""`winnow vision`: ask a model about pictures."""

from pathlib import Path

import rich_click as click

from app.cli.render import clean
from app.cli.session import ask_about_pictures
from app.cli.terminal import current_settings, dollars, err, out, print_json

_URLS = ("http://", "https://")


@click.command()
@click.argument("prompt")
@click.argument("pictures", nargs=-1, required=True, metavar="FILE|URL...")
@click.option("--backend", help="A configured name, or auto.  [default: the configured one]")
@click.option("--pages", help='Pages of PDFs, such as "1-3,7".  [default: all]')
@click.option("--system", help="Instructions for the model.")
@click.option("--max-output-tokens", type=click.IntRange(1, 65_536), default=1024, help="Limit of the reply.")
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")
def vision(
    prompt: str,
    pictures: tuple[str, ...],
    backend: str | None,
    pages: str | None,
    system: str | None,
    max_output_tokens: int,
    as_json: bool,
) -> None:
    """Ask a model PROMPT about pictures: PNG, JPEG, WebP, GIF or PDF files, or URLs of public hosts."""
    given = {"prompt": prompt, "backend": backend, "pages": pages, "system": system}
    options = {name: value for name, value in given.items() if value is not None}
    reply = ask_about_pictures(
        current_settings(), options | {"max_output_tokens": max_output_tokens}, [picture_of(one) for one in pictures]
    )
    if as_json:
        print_json(reply)
        return
    out.print(clean(reply["text"]), markup=False, highlight=False)
    used, usage = reply["backend"], reply["usage"]
    line = (
        f"{used['used']} ({used['model']}), {dollars(usage['cost_usd'])}, {reply['timings_ms']['total'] / 1000:.1f} s"
    )
    err.print(line, style="dim", markup=False, highlight=False)


def picture_of(argument: str) -> tuple[str, str | bytes]:
    """A URL as it is, or a file's content, under the field that takes it. Raises UsageError for an unreadable file."""
    if argument.lower().startswith(_URLS):
        return "image_url", argument
    try:
        return "files", Path(argument).read_bytes()
    except OSError as exc:
        raise click.UsageError(f"{argument} cannot be read: {exc.strerror}") from exc
