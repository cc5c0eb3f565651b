"""`winnow cost`: estimates the cost of a month on each backend."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.accounting.budgets import rate
from app.accounting.estimator.arithmetic import api_usd_at, break_even, self_host_usd_at
from app.accounting.estimator.models import (
    GPUS,
    LONGEST_RENTAL_H,
    SHORTEST_RENTAL_H,
    ApiCost,
    Estimate,
    SelfHostCost,
)
from app.cli.render import clean
from app.cli.session import estimate_cost
from app.cli.terminal import current_settings, dollars, out, print_json, read_tokens, short

HEIGHT = 14
_GUTTER = 10
_MAX_WIDTH = 100
_CURVES = 3
"""Of each kind; more cannot be told apart."""


class Curve(msgspec.Struct, frozen=True):
    """`symbol` draws it; `usd` gives the dollars for a number of tokens a month."""

    symbol: str
    label: str
    usd: Callable[[float], float]


Mark = tuple[str, float, float]
"""A point drawn over the curves: its symbol, tokens and dollars."""


def draw(
    curves: Sequence[Curve], marks: Sequence[Mark], workload: float, right: float, top: float, width: int
) -> list[str]:
    """The lines of a chart over [0, right] tokens and [0, top] dollars, none longer than `width`.

    What lies above `top` is left out. `workload` is marked below the axis; it and every mark lie within the chart.
    """
    columns, last = max(20, width - _GUTTER - 1), HEIGHT - 1
    canvas = [[" "] * columns for _ in range(HEIGHT)]

    def row_of(usd: float) -> int:
        """Counted from the top; negative above the chart."""
        return last - round(min(max(usd / top, 0.0), 2.0) * last)

    for curve in curves:
        before: int | None = None
        for column in range(columns):
            row = row_of(curve.usd(right * column / (columns - 1)))
            # From next to the neighbour's point to this one, so that a steep curve has no gaps.
            start = row if before is None or row == before else before + (1 if row > before else -1)
            for step in range(min(start, row), max(start, row) + 1):
                if step >= 0:
                    canvas[step][column] = curve.symbol
            before = row
    for symbol, tokens, usd in marks:
        canvas[max(0, row_of(usd))][round(tokens / right * (columns - 1))] = symbol
    labels = {0: _label(top), last // 2: _label(top * (1 - last // 2 / last)), last: "$0"}
    lines = [f"{labels.get(n, ''):>{_GUTTER - 1}} |{''.join(row).rstrip()}" for n, row in enumerate(canvas)]
    return [*lines, *_axis(columns, right, workload)]


def _label(usd: float) -> str:
    return dollars(usd) if usd < 10_000 else f"${short(usd)}"


def _axis(columns: int, right: float, workload: float) -> list[str]:
    indent = " " * _GUTTER
    middle, end = short(right / 2), f"{short(right)} tokens"
    scale = list(f"{'0':<{columns + 1}}")
    for text, at in ((middle, columns // 2 - len(middle) // 2), (end, columns + 1 - len(end))):
        scale[at : at + len(text)] = text
    column = round(workload / right * (columns - 1)) + 1
    note = f"^ your volume: {short(workload)}"
    mark = f"{' ' * column}{note}" if column + len(note) <= columns + 1 else f"{note[2:] + ' ^':>{column + 1}}"
    return [f"{indent}+{'-' * columns}", f"{indent}{''.join(scale)}", f"{indent}{mark}"]


def token_count(text: str) -> int:
    """An option's value such as 10M, 1.5B or 250k. Raises BadParameter."""
    try:
        return read_tokens(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


def rented_hours(text: str) -> float | Literal["needed"]:
    """An option's value: a number of hours, or "needed". Raises BadParameter."""
    if text == "needed":
        return "needed"
    try:
        hours = float(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is neither a number of hours nor 'needed'") from exc
    if not SHORTEST_RENTAL_H <= hours <= LONGEST_RENTAL_H:
        raise click.BadParameter(f"{text} is not between {SHORTEST_RENTAL_H:g} and {LONGEST_RENTAL_H:g} hours")
    return hours


def gpu_price(text: str) -> tuple[str, float]:
    """An option's value such as 4090, "RTX 4090" or 4090=0.40. Raises BadParameter."""
    name, _, price = text.partition("=")
    short_name = name.strip().lower().removeprefix("rtx").strip()
    gpu = next((gpu for gpu in GPUS.values() if gpu.name.lower().removeprefix("rtx ") == short_name), None)
    if gpu is None:
        raise click.BadParameter(f"unknown GPU {name!r}; known are {', '.join(GPUS)}")
    try:
        return gpu.name, float(price) if price else gpu.usd_per_hour
    except ValueError as exc:
        raise click.BadParameter(f"{price!r} is not a price per hour") from exc


@click.command()
@click.option(
    "--input",
    "input_tokens",
    type=token_count,
    default="0",
    metavar="TOKENS",
    help="Input tokens per month: 250k, 10M, 1.5B.",
)
@click.option(
    "--output", "output_tokens", type=token_count, default="0", metavar="TOKENS", help="Output tokens per month."
)
@click.option(
    "--cached",
    "cached_share",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Fraction of input tokens served from the prompt cache.",
)
@click.option(
    "--gpu",
    "gpus",
    type=gpu_price,
    multiple=True,
    metavar="NAME[=USD]",
    help="Consider only this GPU, optionally at this price per hour; repeatable.",
)
@click.option(
    "--hours",
    type=rented_hours,
    default="730",
    metavar="HOURS",
    help="Hours that a GPU is rented per month; 'needed': only while there is work.",
)
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, help="Concurrent requests per GPU.")
@click.option(
    "--prompt-factor",
    type=click.FloatRange(1, 10_000),
    default=50.0,
    help="Prefill speed relative to the decode speed of one stream.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as JSON.")
def cost(as_json: bool, gpus: tuple[tuple[str, float], ...], **workload: Any) -> None:
    """Estimate the monthly cost of APIs and of self-hosting, with the break-even point."""
    if not workload["input_tokens"] + workload["output_tokens"]:
        raise click.UsageError("specify --input, --output or both")
    estimate = estimate_cost(current_settings(), {**workload, **({"gpus": dict(gpus)} if gpus else {})})
    if as_json:
        print_json(estimate)
    else:
        show_estimate(out, estimate)


def show_estimate(console: Console, estimate: Estimate) -> None:
    """Tables of costs, a chart with its formulas, and the assumptions."""
    month = estimate.workload
    cached = f" ({month.cached_share:.0%} cached)" if month.cached_share else ""
    tokens = f"{short(month.input_tokens)} input tokens{cached}, {short(month.output_tokens)} output tokens"
    _say(console, f"per month: {tokens}\n")
    _show_apis(console, estimate)
    if estimate.self_hosted:
        _show_self_hosted(console, estimate)
        _show_chart(console, estimate)
    for line in estimate.not_estimated:
        _say(console, f"not estimated: {clean(line)}", "yellow")
    _say(console, "assumptions", "bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    for assumption in estimate.assumptions:
        table.add_row(Text(f"  {assumption.name}"), Text(f"{assumption.value} ({assumption.source})"))
    console.print(table, soft_wrap=False)


def _show_apis(console: Console, estimate: Estimate) -> None:
    table = _table("API", "model", "input", "cached", "output", "per month", left=2)
    for api in estimate.apis:
        prices = (rate(usd) for usd in (api.input_usd, api.cached_usd, api.output_usd))
        table.add_row(clean(api.backend), clean(api.model), *prices, dollars(api.usd))
    console.print(table, soft_wrap=False)
    sources = {f"{api.price_source}{f' as of {api.as_of}' if api.as_of else ''}" for api in estimate.apis}
    _say(console, f"dollars per million tokens: {clean('; '.join(sorted(sources)))}\n", "dim")


def _show_self_hosted(console: Console, estimate: Estimate) -> None:
    table = _table("model", "GPU", "per hour", "tokens/s", "GPUs", "per month", "break-even", left=2)
    for one in estimate.self_hosted:
        point = one.break_even[0].monthly_tokens if one.break_even else None
        table.add_row(
            clean(one.model),
            _place(one),
            rate(one.usd_per_hour),
            f"{one.output_tokens_per_s:,.0f}",
            f"{one.gpus:,}",
            dollars(one.usd),
            "never" if point is None else short(point),
        )
    console.print(table, soft_wrap=False)
    if estimate.apis:
        _say(console, f"break-even: tokens per month above which it beats {clean(estimate.apis[0].backend)}", "dim")
    console.print()


def _show_chart(console: Console, estimate: Estimate) -> None:
    month, first = estimate.workload, estimate.self_hosted[0]
    apis = estimate.apis[:_CURVES]
    crossings = [(api, at) for api in apis if (at := break_even(first, api, month))]
    right = max(1.25 * month.tokens, 2 * min((at for _, at in crossings), default=0.0))
    crossings = [(api, at) for api, at in crossings if at <= right]
    top = max(curve.usd(right) for curve in (*_api_curves(estimate, apis), *_hosted_curves(estimate, [first]))) or 1.0
    hosted = [one for one in _one_of_each_gpu(estimate) if self_host_usd_at(one, month, 0) <= top]
    curves = [*_api_curves(estimate, apis), *_hosted_curves(estimate, hosted)]
    marks = [(mark, at, api_usd_at(api, month, at)) for mark, (api, at) in zip("XYZ", crossings, strict=False)]
    for line in draw(curves, marks, month.tokens, right, top, min(console.width, _MAX_WIDTH)):
        _say(console, line)
    legend = Table.grid(padding=(0, 2, 0, 0))
    for curve in curves:
        legend.add_row(Text(f"  {curve.symbol}"), Text(clean(curve.label)))
    for (symbol, tokens, usd), (api, _) in zip(marks, crossings, strict=False):
        both = f"{clean(api.backend)} and {clean(first.model)} on {_place(first)} cost the same"
        legend.add_row(Text(f"  {symbol}"), Text(f"{both}: {short(tokens)} tokens, {dollars(usd)}"))
    console.print(legend, soft_wrap=False)
    console.print()


def _one_of_each_gpu(estimate: Estimate) -> list[SelfHostCost]:
    """The first row of each: rows are sorted by ownership, then by dollars."""
    first: dict[str, SelfHostCost] = {}
    for one in estimate.self_hosted:
        first.setdefault(_place(one), one)
    return list(first.values())[:_CURVES]


def _api_curves(estimate: Estimate, apis: Sequence[ApiCost]) -> list[Curve]:
    return [
        Curve(symbol, f"{api.backend}, {api.model}: {api.formula}", partial(api_usd_at, api, estimate.workload))
        for symbol, api in zip("abc", apis, strict=False)
    ]


def _hosted_curves(estimate: Estimate, hosted: Sequence[SelfHostCost]) -> list[Curve]:
    return [
        Curve(symbol, f"{one.model} on {_place(one)}: {one.formula}", partial(self_host_usd_at, one, estimate.workload))
        for symbol, one in zip("123", hosted, strict=False)
    ]


def _place(one: SelfHostCost) -> str:
    return clean(one.backend or one.gpu)


def _table(*heads: str, left: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, head in enumerate(heads):
        table.add_column(head, justify="left" if column < left else "right", overflow="fold")
    return table


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style))
