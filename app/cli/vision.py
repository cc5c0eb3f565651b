"""`winnow vision`: ask a model about pictures."""

from base64 import b64encode
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
@click.option("--system", help="Instructions for the model.")
@click.option("--max-output-tokens", type=click.IntRange(1, 65_536), default=1024, help="Limit of the reply.")
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")
def vision(
    prompt: str,
    pictures: tuple[str, ...],
    backend: str | None,
    system: str | None,
    max_output_tokens: int,
    as_json: bool,
) -> None:
    """Ask a model PROMPT about pictures: PNG, JPEG, WebP or GIF files, or URLs of public hosts."""
    settings = current_settings()
    body = {"prompt": prompt, "images": [picture_of(one) for one in pictures], "max_output_tokens": max_output_tokens}
    options = {"backend": backend, "system": system}
    reply = ask_about_pictures(settings, body | {name: value for name, value in options.items() if value is not None})
    if as_json:
        print_json(reply)
        return
    out.print(clean(reply["text"]), markup=False, highlight=False)
    used, usage = reply["backend"], reply["usage"]
    line = (
        f"{used['used']} ({used['model']}), {dollars(usage['cost_usd'])}, {reply['timings_ms']['total'] / 1000:.1f} s"
    )
    err.print(line, style="dim", markup=False, highlight=False)


def picture_of(argument: str) -> str:
    """A URL as it is, a file's content in base64. Raises UsageError for a file that cannot be read."""
    if argument.lower().startswith(_URLS):
        return argument
    try:
        return b64encode(Path(argument).read_bytes()).decode()
    except OSError as exc:
        raise click.UsageError(f"{argument} cannot be read: {exc.strerror}") from exc
