"""What a month of tokens costs: over APIs by their prices, and on GPUs of one's own by their price and speed.

Pure arithmetic. Every result carries the line that a reader can check by hand, and every assumption is listed.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil

import msgspec

from app.accounting.budgets import rate
from app.accounting.estimator.models import (
    GPUS,
    MODELS,
    MONTH_H,
    OVERHEAD_GIB,
    SEED_PRICE,
    SPEEDS_ON,
    USABLE,
    ApiCost,
    Assumption,
    BreakEven,
    Estimate,
    Gpu,
    SelfHostCost,
    Workload,
    conversations,
    speed,
)
from app.accounting.prices import Offer, Price, Prices, Rates
from app.accounting.reports import Throughput
from app.backends.gemini import GEMINI_MODEL
from app.backends.settings import BackendSettings

MEASURED_S = 10.0
"""With fewer busy seconds than these in the ledger, a GPU counts as not measured."""

REFERENCE = "reference"


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """Of one GPU, in tokens/s: all answers together, and prompts."""

    output: float
    prompt: float

    def hours(self, workload: Workload) -> float:
        """What the month takes. A cached prompt takes none."""
        return (uncached(workload) / self.prompt + workload.output_tokens / self.output) / 3600


class Estimator:
    """For the backends that are configured."""

    def __init__(self, backends: Mapping[str, BackendSettings], prices: Prices) -> None:
        self._backends = backends
        self._prices = prices

    def estimate(self, month: Workload, measured: Sequence[Throughput] = ()) -> Estimate:
        """`measured` are the ledger's throughputs: where there is one, it is used."""
        apis = sorted(self._apis(month), key=lambda api: api.usd)
        hosted = [*self._own(month, measured), *_rented(month)]
        hosted = [msgspec.structs.replace(one, break_even=_break_evens(one, apis, month)) for one in hosted]
        return Estimate(
            workload=month,
            apis=tuple(apis),
            self_hosted=tuple(sorted(hosted, key=lambda one: (one.backend is None, one.usd))),
            not_estimated=tuple(self._unknown(measured)),
            assumptions=tuple(_assumptions(month)),
        )

    def _apis(self, month: Workload) -> Iterator[ApiCost]:
        models = []
        for name, settings in self._backends.items():
            price = self._prices.of(name, settings.model or "")
            if price.rates is not None:
                models.append(settings.model)
                yield _api_cost(name, settings.model or "", price, price.rates, month)
        if GEMINI_MODEL not in models:
            listed = self._prices.listed(Offer(kind="gemini", model=GEMINI_MODEL))
            if listed is not None and listed.rates is not None:
                yield _api_cost(REFERENCE, GEMINI_MODEL, listed, listed.rates, month)

    def _own(self, month: Workload, measured: Sequence[Throughput]) -> Iterator[SelfHostCost]:
        for found in measured:
            settings = self._backends.get(found.backend)
            if settings is None or settings.gpu_usd_per_hour is None or not _enough(found):
                continue
            speeds = _measured_speeds(found, month)
            gpu = Gpu(name="own", memory_gib=0, bandwidth=0, usd_per_hour=settings.gpu_usd_per_hour)
            source = f"measured: {found.gpu_seconds:,.0f} busy seconds in the ledger"
            cost = self_host_cost(found.model, gpu, speeds, month)
            yield msgspec.structs.replace(cost, backend=found.backend, speed_source=source)

    def _unknown(self, measured: Sequence[Throughput]) -> Iterator[str]:
        known = {found.backend for found in measured if _enough(found)}
        for name, settings in self._backends.items():
            price = self._prices.of(name, settings.model or "")
            if price.source == "unknown":
                yield f"{name}: no price is known; set price in [backends.{name}]"
            elif price.source == "local":
                yield f"{name}: set gpu_usd_per_hour in [backends.{name}]"
            elif price.source == "gpu" and name not in known:
                yield f"{name}: its speed is measured as it is used, and has not been yet"


def uncached(workload: Workload) -> float:
    """Prompt tokens that must be read."""
    return workload.input_tokens * (1 - workload.cached_share)


def api_usd(rates: Rates, month: Workload) -> float:
    """Dollars for the month."""
    cached = month.input_tokens * month.cached_share
    return (uncached(month) * rates.input + cached * rates.cached + month.output_tokens * rates.output) / 1e6


def api_usd_at(api: ApiCost, month: Workload, tokens: float) -> float:
    """Dollars for so many tokens of the month's mix."""
    return api.usd * tokens / month.tokens


def self_host_usd_at(hosted: SelfHostCost, month: Workload, tokens: float) -> float:
    """Dollars for so many tokens of the month's mix: a step up for every GPU that is added."""
    hours = hosted.gpu_hours * tokens / month.tokens
    if hosted.rented_hours is None:
        return hours * hosted.usd_per_hour
    return gpus_for(hours, hosted.rented_hours) * hosted.rented_hours * hosted.usd_per_hour


def gpus_for(hours: float, rented: float) -> int:
    """How many GPUs do so many hours of work in the hours that each is rented."""
    return max(1, ceil(hours / rented - 1e-9))


def self_host_cost(model: str, gpu: Gpu, speeds: Speeds, month: Workload) -> SelfHostCost:
    """On GPUs of that kind."""
    hours = speeds.hours(month)
    rented = None if month.hours == "needed" else float(month.hours)
    gpus = gpus_for(hours, rented or MONTH_H)
    usd = hours * gpu.usd_per_hour if rented is None else gpus * rented * gpu.usd_per_hour
    paid = f"{hours:,.2f} h" if rented is None else f"{gpus} x {rented:g} h"
    work = (
        f"{uncached(month):,.0f} prompt tokens / {speeds.prompt:,.0f} per s "
        f"+ {month.output_tokens:,} answer tokens / {speeds.output:,.0f} per s = {hours:,.2f} h of work"
    )
    return SelfHostCost(
        model=model,
        gpu=gpu.name,
        backend=None,
        usd_per_hour=gpu.usd_per_hour,
        concurrency=month.concurrency,
        output_tokens_per_s=speeds.output,
        prompt_tokens_per_s=speeds.prompt,
        speed_source="",
        gpu_hours=hours,
        gpus=gpus,
        rented_hours=rented,
        usd=usd,
        formula=f"{work}; {paid} x {rate(gpu.usd_per_hour)} = ${usd:,.2f}",
        break_even=(),
    )


def break_even(hosted: SelfHostCost, api: ApiCost, month: Workload) -> float | None:
    """Tokens a month, of the month's mix, at which both cost the same and above which the first GPU is cheaper."""
    by_api = api.usd / month.tokens
    if not by_api:
        return None
    if hosted.rented_hours is None:
        return 0.0 if hosted.gpu_hours * hosted.usd_per_hour <= api.usd else None
    # Beyond the first GPU both prices are multiples: what one GPU cannot win, two cannot.
    tokens = hosted.rented_hours * hosted.usd_per_hour / by_api
    fits = gpus_for(hosted.gpu_hours * tokens / month.tokens, hosted.rented_hours) == 1
    return tokens if fits else None


def _break_evens(hosted: SelfHostCost, apis: Sequence[ApiCost], month: Workload) -> tuple[BreakEven, ...]:
    return tuple(
        BreakEven(backend=api.backend, model=api.model, monthly_tokens=break_even(hosted, api, month)) for api in apis
    )


def _api_cost(backend: str, model: str, price: Price, rates: Rates, month: Workload) -> ApiCost:
    cached = month.input_tokens * month.cached_share
    usd = api_usd(rates, month)
    from_cache = f" + {cached:,.0f} cached x {rate(rates.cached)}" if cached else ""
    return ApiCost(
        backend=backend,
        model=model,
        reference=backend == REFERENCE,
        input_usd=rates.input,
        cached_usd=rates.cached,
        output_usd=rates.output,
        price_source=price.source,
        as_of=price.as_of,
        usd=usd,
        formula=(
            f"({uncached(month):,.0f} input x {rate(rates.input)}{from_cache} "
            f"+ {month.output_tokens:,} output x {rate(rates.output)}) / 1,000,000 = ${usd:,.2f}"
        ),
    )


def _rented(month: Workload) -> Iterator[SelfHostCost]:
    for name, gpu in GPUS.items():
        usd_per_hour = gpu.usd_per_hour if month.gpus is None else month.gpus.get(name)
        if usd_per_hour is None:
            continue
        for model in MODELS:
            at_once = min(month.concurrency, conversations(model, gpu))
            if at_once:
                stream = speed(model, gpu)
                speeds = Speeds(output=stream * at_once, prompt=stream * month.prompt_factor)
                priced = msgspec.structs.replace(gpu, usd_per_hour=usd_per_hour)
                cost = self_host_cost(model.name, priced, speeds, month)
                yield msgspec.structs.replace(cost, concurrency=at_once, speed_source=model.speed_source)


def _enough(found: Throughput) -> bool:
    return found.gpu_seconds >= MEASURED_S and found.input_tokens + found.output_tokens > 0


def _measured_speeds(found: Throughput, month: Workload) -> Speeds:
    """What was measured is the time for prompts and answers together; `prompt_factor` divides it between them."""
    ratio = month.prompt_factor / month.concurrency
    output = ((found.input_tokens - found.cached_tokens) / ratio + found.output_tokens) / found.gpu_seconds
    return Speeds(output=output, prompt=output * ratio)


def _assumptions(month: Workload) -> Iterator[Assumption]:
    for name, gpu in GPUS.items():
        told = month.gpus is not None and name in month.gpus
        usd = gpu.usd_per_hour if month.gpus is None else month.gpus.get(name)
        if usd is not None:
            yield Assumption(name=f"{name}, an hour", value=f"{rate(usd)}", source="yours" if told else SEED_PRICE)
    others = ", ".join(f"{gpu.name} x {gpu.bandwidth / SPEEDS_ON.bandwidth:.2f}" for gpu in GPUS.values())
    for name, value, source in (
        ("speed of one stream on an RTX 4090", "; ".join(f"{m.name} {m.speed:g}/s" for m in MODELS), "speed_source"),
        ("speed on other GPUs", others, "memory bandwidth by the data sheets: 360, 760, 1008 GB/s"),
        ("conversations at once", f"{month.concurrency}, each as fast as one alone", "concurrency; not measured"),
        (
            "conversations that fit",
            f"4-bit weights and 4,096 tokens each, in {USABLE:.0%} of the memory less {OVERHEAD_GIB:g} GiB",
            "the models' configurations; not measured",
        ),
        (
            "prompts are read",
            f"{month.prompt_factor:g} times as fast as one stream writes",
            "prompt_factor; not measured",
        ),
        ("cached prompt tokens", f"{month.cached_share:.0%} of the input; a GPU reads them in no time", "cached_share"),
        ("rented", "as long as there is work" if month.hours == "needed" else f"{month.hours:g} h a month", "hours"),
        ("load", "even over the rented hours; GPUs are added when one is full", "an estimate has no peaks"),
        ("left out", "setting up, storage, traffic, people; the models' quality", "by design"),
    ):
        yield Assumption(name=name, value=value, source=source)
