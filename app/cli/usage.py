"""`winnow usage`: what the model calls cost, and the state of the budgets."""

import sys
from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.accounting.accounts import UsageReport
from app.accounting.budgets import BudgetState
from app.accounting.reports import DEFAULT_SINCE, UsageRow
from app.cli.render import clean
from app.cli.session import export_usage
from app.cli.session import usage as request_usage
from app.cli.terminal import current_settings, dollars, err, out, print_json, short

GROUPS = ("backend", "replica", "model", "stage", "key", "day")


@click.command()
@click.option("--since", default=DEFAULT_SINCE, help="Start: a date, a time, or how long ago (90m, 24h, 7d, 4w).")
@click.option("--until", help="End, in the same formats.  [default: now]")
@click.option("--by", "group_by", type=click.Choice(GROUPS), default="backend", help="What to group the calls by.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--export",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write every call to this file as JSON lines; - for standard output.",
)
def usage(since: str, until: str | None, group_by: str, as_json: bool, export: str | None) -> None:
    """Show the calls, tokens, cost and latency of models, and the state of the budgets."""
    params = {"since": since} | ({"until": until} if until else {})
    if export is not None:
        _export(params, export)
        return
    report = request_usage(current_settings(), {**params, "group_by": group_by})
    if as_json:
        print_json(report)
    else:
        show_usage(out, report)


def _export(params: dict[str, str], target: str) -> None:
    pages = export_usage(current_settings(), params)
    if target == "-":
        for page in pages:
            sys.stdout.buffer.write(page)
        sys.stdout.buffer.flush()
        return
    lines = 0
    try:
        with Path(target).open("wb") as file:
            for page in pages:
                lines += page.count(b"\n")
                file.write(page)
    except OSError as exc:
        raise click.UsageError(f"{target} cannot be written: {exc.strerror}") from exc
    err.print(f"{lines} calls written to {target}", markup=False, highlight=False)


def show_usage(console: Console, report: UsageReport) -> None:
    """Print the report as tables that fit 80 columns."""
    console.print(Text(f"{report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} UTC", "dim"))
    if report.rows:
        console.print(_table(report), soft_wrap=False)
    else:
        console.print("no model calls")
    for name in report.unpriced:
        backend = name.partition(":")[0]
        note = f"no known price for {name}: its calls are counted as free; set price in [backends.{backend}]"
        console.print(Text(clean(note), "yellow"))
    if any(row.estimated_calls for row in report.rows):
        note = f"the tokens of {report.total.estimated_calls} calls are estimates: the server did not report them"
        console.print(Text(note, "dim"))
    if report.budgets:
        console.print(_budgets(report.budgets), soft_wrap=False)
    _show_ledger(console, report)


def _table(report: UsageReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_footer=len(report.rows) > 1)
    cells = [_cells(row) for row in report.rows]
    total = _cells(report.total)
    heads = (report.group_by, "calls", "failed", "input", "cached", "output", "cost", "p50 ms", "p95 ms")
    for column, head in enumerate(heads):
        right = "right" if column else "left"
        table.add_column(head, justify=right, footer=total[column] if column else "total", overflow="fold")  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*row)
    return table


def _cells(row: UsageRow) -> tuple[str, ...]:
    latency = row.latency_ms
    return (
        clean(row.name),
        f"{row.calls:,}",
        f"{row.failed:,}" if row.failed else "-",
        short(row.input_tokens),
        short(row.cached_tokens),
        short(row.output_tokens + row.thinking_tokens),
        dollars(row.cost_usd) + ("*" if row.unpriced_calls else ""),
        f"{latency.p50:,.0f}" if latency else "-",
        f"{latency.p95:,.0f}" if latency else "-",
    )


def _budgets(states: list[BudgetState]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=None)
    for head in ("budget", "period", "limit", "spent", "", "resets"):
        table.add_column(head, justify="right" if head in ("limit", "spent", "") else "left")
    for state in states:
        share = state.spent_usd / state.limit_usd if state.limit_usd else 1.0
        style = "red" if share >= 1 else "yellow" if share >= 0.8 else ""
        who = "all" if state.scope == "total" else f"{state.scope} {clean(state.name)}"
        figures = (dollars(state.limit_usd), dollars(state.spent_usd), f"{min(share, 9.99):.0%}")
        table.add_row(who, state.period, *figures, f"{state.resets_at:%Y-%m-%d}", style=style)
    return table


def _show_ledger(console: Console, report: UsageReport) -> None:
    ledger = report.ledger
    if ledger is not None and (ledger.failure or ledger.lost):
        why = f"the ledger cannot be written ({ledger.failure}): " if ledger.failure else "ledger: "
        note = f"{why}{ledger.pending} calls wait in memory, {ledger.lost} are lost"
        console.print(Text(clean(note), "red"))
