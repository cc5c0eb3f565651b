"""`winnow keys`: who may use the service, and for what."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import rich_click as click
from rich.table import Table
from rich.text import Text

from app.access.keys import KeyInfo, NewKey
from app.cli.render import clean
from app.cli.session import create_key, list_keys, revoke_key, rotate_key
from app.cli.terminal import current_settings, err, out, print_json
from app.domain import Scope

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@click.group(invoke_without_command=True)
@as_json_option
@click.pass_context
def keys(context: click.RichContext, /, as_json: bool) -> None:
    """Create, list, rotate and revoke API keys; without a command, list them.

    Once there is a key, every caller of the service needs one, except these commands on the service's machine.
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@keys.command(name="list")
@as_json_option
def show_list(as_json: bool) -> None:
    """List all keys, without their secrets."""
    _list(as_json)


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", type=click.Choice(get_args(Scope)), multiple=True, help="May be repeated.")
@click.option("--tenant", default="", help="Whose documents it sees and writes.")
@click.option("--group", "groups", multiple=True, help="Of documents that name groups it sees those of this one.")
@click.option("--collection", "collections", multiple=True, help="It sees this one only; may be repeated.")
@click.option("--backend", "backends", multiple=True, help="It may use this one only; may be repeated.")
@click.option("--requests-per-minute", type=click.IntRange(min=1))
@click.option("--tokens-per-minute", type=click.IntRange(min=1), help="Of models: input and output.")
@click.option("--daily-usd", type=click.FloatRange(min=0))
@click.option("--monthly-usd", type=click.FloatRange(min=0))
@click.option("--expires", metavar="WHEN", help="A date, a time (RFC 3339), or in how long: 90d, 12h, 4w.")
@as_json_option
def create(as_json: bool, expires: str | None, **fields: Any) -> None:
    """Create a key. Its secret is printed this once."""
    if not fields["scopes"]:
        raise click.UsageError(f"--scope says what it may do: {', '.join(get_args(Scope))}")
    bounds = {name: value for name, value in fields.items() if value not in ((), None)}
    if expires is not None:
        bounds["expires_at"] = _moment(expires)
    _show_new(create_key(current_settings(), bounds), as_json)


@keys.command()
@click.argument("name")
@click.option("--overlap", metavar="DURATION", help="For so long the secret before it holds, too: 24h, 7d.")
@as_json_option
def rotate(name: str, overlap: str | None, as_json: bool) -> None:
    """Give a key, by its name or id, a new secret. It stays the same key, with its bounds and usage."""
    seconds = 0.0 if overlap is None else _duration(overlap).total_seconds()
    _show_new(rotate_key(current_settings(), name, seconds), as_json)


@keys.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def revoke(name: str, yes: bool) -> None:
    """Revoke a key, by its name or id, at once and for good."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("add --yes to revoke a key without being asked")
        click.confirm(f"Revoke {clean(name)!r}?", abort=True, err=True)
    revoke_key(current_settings(), name)
    err.print(f"revoked {clean(name)}", markup=False, highlight=False)


def _show_new(key: NewKey, as_json: bool) -> None:
    if as_json:
        print_json(key)
        return
    print(key.key)  # noqa: T201 - alone on standard output, for a script
    err.print(
        f"this is the key {clean(key.name)!r}, shown this once: send it as Authorization: Bearer, or as X-API-Key",
        markup=False,
        highlight=False,
    )


def _list(as_json: bool) -> None:
    found = list_keys(current_settings())
    if as_json:
        print_json({"keys": found})
    elif found:
        out.print(_table(found), soft_wrap=False)
    else:
        out.print("no keys yet; create one with: winnow keys create NAME --scope search", markup=False)


def _table(found: list[KeyInfo]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("key", "begins with", "scopes", "bounds", "expires", "state"):
        table.add_column(head)
    for key in found:
        expires = "-" if key.expires_at is None else f"{key.expires_at.astimezone(UTC):%Y-%m-%d %H:%M}"
        state = Text(key.state, "" if key.state == "active" else "yellow")
        table.add_row(clean(key.name), key.prefix, ", ".join(key.scopes), clean(_bounds(key)), expires, state)
    return table


def _bounds(key: KeyInfo) -> str:
    """Those that are set, in few words."""
    words = {
        "tenant": key.tenant,
        "groups": ", ".join(key.groups),
        "collections": ", ".join(key.collections or ()),
        "backends": ", ".join(key.backends or ()),
        "requests/min": key.requests_per_minute,
        "tokens/min": key.tokens_per_minute,
        "$/day": key.daily_usd,
        "$/month": key.monthly_usd,
    }
    return "; ".join(f"{name} {value}" for name, value in words.items() if value not in ("", None)) or "-"


def _moment(text: str) -> datetime:
    """In UTC where no zone is named."""
    if text[-1:] in _UNITS:
        return datetime.now(UTC) + _duration(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is neither a date, nor a duration such as 90d") from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _duration(text: str) -> timedelta:
    try:
        return int(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError, OverflowError) as exc:
        raise click.BadParameter(f"{text!r} is not a duration; write 90m, 24h, 7d or 4w") from exc
