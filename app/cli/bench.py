"""`winnow bench`: measures the speed and the price of backends from this machine."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import rich_click as click
from click.exceptions import Exit
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from app.accounting.benchmarks import TOGETHER, Benchmark
from app.accounting.budgets import rate
from app.cli.render import clean
from app.cli.terminal import current_settings, dollars, err, out, print_json, run, short
from app.config.settings import Settings
from app.domain import Caller
from app.errors import BudgetExceeded, WinnowError

if TYPE_CHECKING:  # it loads the services
    from app.evaluation.speed import Planned

FAILED = 3

Row = tuple[str, list[str]]


@click.command()
@click.option(
    "--backend", "names", multiple=True, metavar="NAME", help="Backend to measure; repeatable.  [default: all of auto]"
)
@click.option("--yes", is_flag=True, help="Do not ask before calls that cost something.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
def bench(names: tuple[str, ...], yes: bool, as_json: bool, markdown: bool) -> None:
    """Measure how fast backends are from this machine, and what they cost.

    The results are saved, and `winnow cost` uses them in place of assumed speeds. The calls are recorded in the ledger,
    count towards the budgets, and can cost no more than what is said beforehand.
    """
    if as_json and markdown:
        raise click.UsageError("specify --json or --markdown, not both")
    from app.evaluation.speed import plan

    settings = current_settings()
    planned = plan(settings, names)
    _agree(planned, yes=yes)
    results, failed = run(_measure(settings, planned))
    if as_json:
        print_json(results)
    elif markdown:
        out.print(Text("\n".join(markdown_lines(results))))
    elif results:
        show_benchmarks(out, results)
    if failed:
        raise Exit(FAILED)


def _agree(planned: "Sequence[Planned]", *, yes: bool) -> None:
    """Say what it may cost, and ask."""
    asking = [one for one in planned if one.asks]
    for one in asking:
        used = f"at most {short(one.tokens.input)} input and {short(one.tokens.output)} output tokens"
        price = f"at most {dollars(one.usd)}" if one.usd else "its price is not known"
        err.print(Text(f"{clean(one.backend)}: {price} ({used}; {clean(one.price.source)})"))
    if not asking or yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("this may cost something: agree with --yes")
    click.confirm("Measure?", abort=True, err=True)


async def _measure(settings: Settings, planned: "Sequence[Planned]") -> tuple[list[Benchmark], bool]:
    """The results, and whether any backend could not be measured; why not is said."""
    from app.evaluation.speed import bench_services, measure

    results = list[Benchmark]()
    async with bench_services(settings, planned) as (services, caller):
        for one in planned:
            with err.status(f"{clean(one.backend)}: starting") as status:
                show = partial(_show_step, status, one.backend)
                try:
                    results.append(await measure(services, one, caller, show))
                except WinnowError as exc:
                    err.print(Text(f"{clean(one.backend)} was not measured: {clean(why_not(exc, caller))}", "red"))
    return results, len(results) < len(planned)


def why_not(exc: WinnowError, caller: Caller) -> str:
    """The limit of this run is a budget of its own key, which stands in no file."""
    if isinstance(exc, BudgetExceeded) and caller.key in str(exc):
        return "it would cost more than the most that was planned for, and was stopped there"
    return str(exc)


def _show_step(status: Status, backend: str, step: str) -> None:
    status.update(f"{clean(backend)}: {step}")


def rows(results: Sequence[Benchmark]) -> list[Row]:
    """Each figure with its name, and a cell for every backend."""

    def cells(name: str, values: Sequence[str | None]) -> Row:
        return name, [value or "-" for value in values]

    return [
        cells("model", [one.model for one in results]),
        cells("first token", [f"{one.first_token_ms:,.0f} ms" if one.first_token_ms else None for one in results]),
        cells("tokens/s, one stream", [f"{one.tokens_per_s:,.1f}" if one.tokens_per_s else None for one in results]),
        cells(
            f"tokens/s, {TOGETHER} at once",
            [f"{one.tokens_per_s_at_16:,.1f}" if one.tokens_per_s_at_16 else None for one in results],
        ),
        cells("prefill, tokens/s", [f"{one.prompt_tokens_per_s:,.0f}" for one in results]),
        cells("rerank of 50", [None if one.rerank_ms is None else f"{one.rerank_ms:,.0f} ms" for one in results]),
        cells("$ per million input tokens", [_rate(one.usd_per_million_input) for one in results]),
        cells("$ per million output tokens", [_rate(one.usd_per_million_output) for one in results]),
        cells("$ per 1,000 reranks", [_rate(one.usd_per_1000_reranks) for one in results]),
    ]


def _rate(usd: float | None) -> str | None:
    """With three digits below a dollar."""
    return None if usd is None else rate(round(usd, 2) if usd >= 1 else float(f"{usd:.3g}"))


def show_benchmarks(console: Console, results: Sequence[Benchmark]) -> None:
    """The table, its origin, and what the runs cost."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for one in results:
        table.add_column(clean(one.backend), justify="right", overflow="fold")
    for name, cells in rows(results):
        table.add_row(name, *map(clean, cells))
    console.print(table, soft_wrap=False)
    for line in notes(results):
        console.print(Text(clean(line), "dim"))


def markdown_lines(results: Sequence[Benchmark]) -> list[str]:
    """The same as a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(clean(cell).replace("|", "\\|") for cell in cells) + " |"

    head = line(["", *(one.backend for one in results)])
    ruler = f"|---|{'---:|' * len(results)}"
    table = [line([name, *cells]) for name, cells in rows(results)]
    return [head, ruler, *table, "", *(clean(note) for note in notes(results))]


def notes(results: Sequence[Benchmark]) -> list[str]:
    """What was measured where, for how much, and what went wrong."""
    lines = []
    for one in results:
        server = f", {one.server}" if one.server else ""
        origin = f"{one.origin}, Winnow {one.version}{server}"
        lines.append(f"{one.backend}: {origin}; price: {one.price_source}; this run cost {dollars(one.spent_usd)}")
        lines += [f"{one.backend}: {note}" for note in one.notes]
    return lines
