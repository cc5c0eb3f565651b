"""`winnow cost`: what a month costs on each backend."""

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
from app.accounting.estimator.models import GPUS, ApiCost, Estimate, SelfHostCost
from app.cli.render import clean
from app.cli.terminal import dollars, out, print_json, read_tokens, settings_here, short

HEIGHT = 14
_GUTTER = 10


class Curve(msgspec.Struct, frozen=True):
    """`symbol` draws it; `usd` tells the dollars for so many tokens a month."""

    symbol: str
    label: str
    usd: Callable[[float], float]


class Mark(msgspec.Struct, frozen=True):
    """A point that is shown above all curves."""

    symbol: str
    tokens: float
    usd: float


def draw(
    curves: Sequence[Curve], marks: Sequence[Mark], here: float, right: float, top: float, width: int
) -> list[str]:
    """The lines, none longer than `width`, for [0, right] tokens and [0, top] dollars; what lies above is left out.

    `here` is shown below the axis; it and every mark lie within.
    """
    canvas = _Canvas(max(20, width - _GUTTER - 1), HEIGHT, right, top)
    for curve in curves:
        canvas.trace(curve)
    for mark in marks:
        canvas.put(mark.symbol, mark.tokens, mark.usd)
    return [*canvas.lines(), *_axis(canvas.columns, right, here)]


class _Canvas:
    """Rows from the top down."""

    def __init__(self, columns: int, height: int, right: float, top: float) -> None:
        self.columns = columns
        self._rows = [[" "] * columns for _ in range(height)]
        self._right = right
        self._top = top

    def trace(self, curve: Curve) -> None:
        """A point in every column, and no gap between neighbours."""
        before: int | None = None
        for column in range(self.columns):
            row = self._row(curve.usd(self._right * column / (self.columns - 1)))
            start = row if before is None or row == before else before + (1 if row > before else -1)
            for step in range(min(start, row), max(start, row) + 1):
                if step >= 0:
                    self._rows[step][column] = curve.symbol
            before = row

    def put(self, symbol: str, tokens: float, usd: float) -> None:
        """One point."""
        self._rows[max(0, self._row(usd))][round(tokens / self._right * (self.columns - 1))] = symbol

    def lines(self) -> list[str]:
        """With dollars at the left."""
        last = len(self._rows) - 1
        labels = {0: _label(self._top), last // 2: _label(self._top * (1 - last // 2 / last)), last: "$0"}
        return [f"{labels.get(n, ''):>{_GUTTER - 1}} |{''.join(row).rstrip()}" for n, row in enumerate(self._rows)]

    def _row(self, usd: float) -> int:
        """Negative: above the chart."""
        last = len(self._rows) - 1
        return last - round(min(max(usd / self._top, 0.0), 2.0) * last)


def _label(usd: float) -> str:
    return dollars(usd) if usd < 10_000 else f"${short(usd)}"


def _axis(columns: int, right: float, here: float) -> list[str]:
    indent = " " * _GUTTER
    middle, end = short(right / 2), f"{short(right)} tokens"
    scale = list(f"{'0':<{columns + 1}}")
    for text, at in ((middle, columns // 2 - len(middle) // 2), (end, columns + 1 - len(end))):
        scale[at : at + len(text)] = text
    column = round(here / right * (columns - 1)) + 1
    note = f"^ you: {short(here)}"
    you = f"{' ' * column}{note}" if column + len(note) <= columns + 1 else f"{note[2:] + ' ^':>{column + 1}}"
    return [f"{indent}+{'-' * columns}", f"{indent}{''.join(scale)}", f"{indent}{you}"]


_CURVES = 3
"""Of each kind; more cannot be told apart."""

_WIDEST = 100


class Tokens(click.ParamType[Any]):
    """10M, 1.5B, 250k."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return read_tokens(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


class Hours(click.ParamType[Any]):
    """A number, or "needed"."""

    name = "hours"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Literal["needed"]:
        if value == "needed":
            return "needed"
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of hours nor needed", param, ctx)


class GpuPrice(click.ParamType[Any]):
    """4090, "RTX 4090" or 4090=0.40."""

    name = "gpu"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        name, _, price = str(value).partition("=")
        found = [gpu for gpu in GPUS.values() if gpu.name.lower().removeprefix("rtx ") == _bare(name)]
        if not found:
            self.fail(f"{name!r} is not known; known are {', '.join(GPUS)}", param, ctx)
        try:
            return found[0].name, float(price) if price else found[0].usd_per_hour
        except ValueError:
            self.fail(f"{price!r} is no price per hour", param, ctx)


def _bare(name: str) -> str:
    return name.strip().lower().removeprefix("rtx").strip()


@click.command()
@click.option("--input", "input_tokens", type=Tokens(), default="0", help="Prompt tokens a month: 250k, 10M, 1.5B.")
@click.option("--output", "output_tokens", type=Tokens(), default="0", help="Answer tokens a month.")
@click.option(
    "--cached", "cached_share", type=click.FloatRange(0, 1), default=0.0, help="The part of the input that is cached."
)
@click.option(
    "--gpu",
    "gpus",
    type=GpuPrice(),
    multiple=True,
    metavar="NAME[=USD]",
    help="Only this GPU, at that price an hour; repeatable.",
)
@click.option(
    "--hours", type=Hours(), default=730.0, help="Rented a month, used or not; or needed: only while there is work."
)
@click.option("--concurrency", type=click.IntRange(1, 1024), default=8, help="Conversations that a GPU serves at once.")
@click.option(
    "--prompt-factor",
    type=click.FloatRange(1, 10_000),
    default=50.0,
    help="How much faster a prompt is read than one answer is written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the estimate as JSON.")
def cost(as_json: bool, gpus: tuple[tuple[str, float], ...], **told: Any) -> None:
    """Estimate a month's dollars by backend and on GPUs, with the break-even point."""
    from app.cli.session import estimate_cost

    if not told["input_tokens"] + told["output_tokens"]:
        raise click.UsageError("give --input, --output or both")
    found = estimate_cost(settings_here(), {**told, **({"gpus": dict(gpus)} if gpus else {})})
    if as_json:
        print_json(found)
    else:
        show_estimate(out, found)


def show_estimate(console: Console, found: Estimate) -> None:
    """Tables, the chart, how its figures came about, and what they stand on."""
    month = found.workload
    cached = f" ({month.cached_share:.0%} cached)" if month.cached_share else ""
    given, made = short(month.input_tokens), short(month.output_tokens)
    _say(console, f"a month of {given} input tokens{cached} and {made} output tokens\n")
    _show_apis(console, found)
    if found.self_hosted:
        _show_self_hosted(console, found)
        _show_chart(console, found)
    for line in found.not_estimated:
        _say(console, f"not estimated: {clean(line)}", "yellow")
    _say(console, "assumptions", "bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    for assumption in found.assumptions:
        table.add_row(Text(f"  {assumption.name}"), Text(f"{assumption.value} ({assumption.source})"))
    console.print(table, soft_wrap=False)


def _show_apis(console: Console, found: Estimate) -> None:
    table = _table("API", "model", "in", "cached", "out", "a month", left=2)
    for api in found.apis:
        prices = (rate(usd) for usd in (api.input_usd, api.cached_usd, api.output_usd))
        table.add_row(clean(api.backend), clean(api.model), *prices, dollars(api.usd))
    console.print(table, soft_wrap=False)
    sources = {f"{api.price_source}{f' as of {api.as_of}' if api.as_of else ''}" for api in found.apis}
    _say(console, f"dollars per million tokens: {clean('; '.join(sorted(sources)))}\n", "dim")


def _show_self_hosted(console: Console, found: Estimate) -> None:
    table = _table("model", "GPU", "an hour", "tokens/s", "GPUs", "a month", "break-even", left=2)
    for one in found.self_hosted:
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
    if found.apis:
        _say(console, f"break-even: tokens a month from which it is cheaper than {clean(found.apis[0].backend)}", "dim")
    console.print()


def _show_chart(console: Console, found: Estimate) -> None:
    month, first = found.workload, found.self_hosted[0]
    apis = found.apis[:_CURVES]
    crossings = [(api, at) for api in apis if (at := break_even(first, api, month))]
    right = max(1.25 * month.tokens, 2 * min((at for _, at in crossings), default=0.0))
    crossings = [(api, at) for api, at in crossings if at <= right]
    top = max(curve.usd(right) for curve in (*_api_curves(found, apis), *_hosted_curves(found, [first]))) or 1.0
    hosted = [one for one in _one_of_each_gpu(found) if self_host_usd_at(one, month, 0) <= top]
    curves = [*_api_curves(found, apis), *_hosted_curves(found, hosted)]
    marks = [Mark(mark, at, api_usd_at(api, month, at)) for mark, (api, at) in zip("XYZ", crossings, strict=False)]
    for line in draw(curves, marks, month.tokens, right, top, min(console.width, _WIDEST)):
        _say(console, line)
    legend = Table.grid(padding=(0, 2, 0, 0))
    for curve in curves:
        legend.add_row(Text(f"  {curve.symbol}"), Text(clean(curve.label)))
    for mark, (api, _) in zip(marks, crossings, strict=False):
        both = f"{clean(api.backend)} and {clean(first.model)} on {_place(first)} cost the same"
        legend.add_row(Text(f"  {mark.symbol}"), Text(f"{both}: {short(mark.tokens)} tokens, {dollars(mark.usd)}"))
    console.print(legend, soft_wrap=False)
    console.print()


def _one_of_each_gpu(found: Estimate) -> list[SelfHostCost]:
    """The first: rows are sorted by what is one's own, then by dollars."""
    first: dict[str, SelfHostCost] = {}
    for one in found.self_hosted:
        first.setdefault(_place(one), one)
    return list(first.values())[:_CURVES]


def _api_curves(found: Estimate, apis: Sequence[ApiCost]) -> list[Curve]:
    return [
        Curve(symbol, f"{api.backend}, {api.model}: {api.formula}", partial(api_usd_at, api, found.workload))
        for symbol, api in zip("abc", apis, strict=False)
    ]


def _hosted_curves(found: Estimate, hosted: Sequence[SelfHostCost]) -> list[Curve]:
    return [
        Curve(symbol, f"{one.model} on {_place(one)}: {one.formula}", partial(self_host_usd_at, one, found.workload))
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
