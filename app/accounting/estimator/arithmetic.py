"""The cost of a month of tokens: with APIs by their prices, and self-hosted by the price and speed of GPUs.

Pure arithmetic. Every result carries a formula that a reader can check by hand, and every assumption is listed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import ceil

import msgspec

from app.accounting.benchmarks import TOGETHER, Benchmark
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
"""A GPU with fewer busy seconds in the ledger counts as not measured."""

REFERENCE = "reference"


def estimate(
    backends: Mapping[str, BackendSettings],
    prices: Prices,
    month: Workload,
    measured: Sequence[Throughput] = (),
    benchmarks: Sequence[Benchmark] = (),
) -> Estimate:
    """For the configured backends. The speed of a GPU is that of its benchmark, or else its throughput in the ledger.

    The throughput mixes prompts and answers, so that it needs an assumption more.
    """
    benchmarks = [one for one in benchmarks if _is_of(one, backends)]
    rated = {(one.backend, one.model) for one in benchmarks}
    measured = [one for one in measured if _is_measured(one) and (one.backend, one.model) not in rated]
    with_speed = {one.backend for one in measured} | {one.backend for one in benchmarks}
    apis = sorted(_apis(backends, prices, month), key=lambda api: api.usd)
    hosted = [*_benchmarked(backends, month, benchmarks), *_own_gpus(backends, month, measured), *_rented(month)]
    hosted = [msgspec.structs.replace(one, break_even=_break_evens(one, apis, month)) for one in hosted]
    return Estimate(
        workload=month,
        apis=tuple(apis),
        self_hosted=tuple(sorted(hosted, key=lambda one: (one.backend is None, one.usd))),
        not_estimated=tuple(_not_estimated(backends, prices, with_speed)),
        assumptions=(*_speeds(benchmarks), *_assumptions(month)),
    )


def _apis(backends: Mapping[str, BackendSettings], prices: Prices, month: Workload) -> Iterator[ApiCost]:
    models = []
    for name, settings in backends.items():
        price = prices.of(name, settings.model or "")
        if price.rates is not None:
            models.append(settings.model)
            yield _api_cost(name, settings.model or "", price, price.rates, month)
    if GEMINI_MODEL not in models:
        listed = prices.listed(Offer(kind="gemini", model=GEMINI_MODEL))
        if listed is not None and listed.rates is not None:
            yield _api_cost(REFERENCE, GEMINI_MODEL, listed, listed.rates, month)


def _is_of(one: Benchmark, backends: Mapping[str, BackendSettings]) -> bool:
    """Whether it holds for a GPU that is configured, and for the model that is, which writes."""
    settings = backends.get(one.backend)
    return (
        settings is not None
        and one.tokens_per_s > 0
        and settings.gpu_usd_per_hour is not None
        and settings.model in (None, one.model)
    )


def _own_gpu(settings: BackendSettings) -> Gpu:
    return Gpu(name="own", memory_gib=0, bandwidth=0, usd_per_hour=settings.gpu_usd_per_hour or 0.0)


def _benchmarked(
    backends: Mapping[str, BackendSettings], month: Workload, benchmarks: Sequence[Benchmark]
) -> Iterator[SelfHostCost]:
    for one in benchmarks:
        settings = backends[one.backend]
        # Several servers write together, each on a GPU; a prompt is read by one of them.
        output_speed = one.output_tokens_per_s(month.concurrency) / len(settings.each())
        cost = self_host_cost(one.model, _own_gpu(settings), output_speed, one.prompt_tokens_per_s, month)
        yield msgspec.structs.replace(cost, backend=one.backend, speed_source=one.origin)


def _speeds(benchmarks: Sequence[Benchmark]) -> Iterator[Assumption]:
    for one in benchmarks:
        yield Assumption(
            name=f"speed of {one.backend} ({one.model})",
            value=f"{one.tokens_per_s:,.1f}/s alone, {one.tokens_per_s_at_16:,.1f}/s by {TOGETHER} at once, "
            f"prompts {one.prompt_tokens_per_s:,.0f}/s",
            source=one.origin,
        )


def _own_gpus(
    backends: Mapping[str, BackendSettings], month: Workload, measured: Sequence[Throughput]
) -> Iterator[SelfHostCost]:
    for throughput in measured:
        settings = backends.get(throughput.backend)
        if settings is None or settings.gpu_usd_per_hour is None:
            continue
        # The measured time is that of prompts and answers together; `prompt_factor` divides it between them.
        ratio = month.prompt_factor / month.concurrency
        prompts = throughput.input_tokens - throughput.cached_tokens
        output_speed = (prompts / ratio + throughput.output_tokens) / throughput.gpu_seconds
        gpu = _own_gpu(settings)
        cost = self_host_cost(throughput.model, gpu, output_speed, output_speed * ratio, month)
        source = f"measured: {throughput.gpu_seconds:,.0f} busy seconds in the ledger"
        yield msgspec.structs.replace(cost, backend=throughput.backend, speed_source=source)


def _not_estimated(
    backends: Mapping[str, BackendSettings], prices: Prices, with_speed: Collection[str]
) -> Iterator[str]:
    for name, settings in backends.items():
        price = prices.of(name, settings.model or "")
        if price.source == "unknown":
            yield f"{name}: no known price; set price in [backends.{name}]"
        elif price.source == "local":
            yield f"{name}: set gpu_usd_per_hour in [backends.{name}]"
        elif price.source == "gpu" and name not in with_speed:
            yield f"{name}: its speed is measured in use, or by winnow bench"


def uncached(workload: Workload) -> float:
    """Prompt tokens that must be read."""
    return workload.input_tokens * (1 - workload.cached_share)


def api_usd(rates: Rates, month: Workload) -> float:
    """Dollars per month."""
    cached = month.input_tokens * month.cached_share
    return (uncached(month) * rates.input + cached * rates.cached + month.output_tokens * rates.output) / 1e6


def api_usd_at(api: ApiCost, month: Workload, tokens: float) -> float:
    """Dollars for this many tokens of the month's mix."""
    return api.usd * tokens / month.tokens


def self_host_usd_at(hosted: SelfHostCost, month: Workload, tokens: float) -> float:
    """Dollars for this many tokens of the month's mix, with a step for every GPU that is added."""
    hours = hosted.gpu_hours * tokens / month.tokens
    if hosted.rented_hours is None:
        return hours * hosted.usd_per_hour
    return gpus_for(hours, hosted.rented_hours) * hosted.rented_hours * hosted.usd_per_hour


def gpus_for(hours: float, rented: float) -> int:
    """The number of GPUs that do this many hours of work in the hours that each is rented."""
    return max(1, ceil(hours / rented - 1e-9))


def self_host_cost(model: str, gpu: Gpu, output_speed: float, prompt_speed: float, month: Workload) -> SelfHostCost:
    """The cost on GPUs of this kind. Speeds are tokens/s of one GPU, over all conversations."""
    # A cached prompt takes no time.
    hours = (uncached(month) / prompt_speed + month.output_tokens / output_speed) / 3600
    rented = None if month.hours == "needed" else float(month.hours)
    gpus = gpus_for(hours, rented or MONTH_H)
    usd = hours * gpu.usd_per_hour if rented is None else gpus * rented * gpu.usd_per_hour
    paid = f"{hours:,.2f} h" if rented is None else f"{gpus} x {rented:g} h"
    work = (
        f"{uncached(month):,.0f} prompt tokens / {prompt_speed:,.0f} per s "
        f"+ {month.output_tokens:,} answer tokens / {output_speed:,.0f} per s = {hours:,.2f} h of work"
    )
    return SelfHostCost(
        model=model,
        gpu=gpu.name,
        backend=None,
        usd_per_hour=gpu.usd_per_hour,
        concurrency=month.concurrency,
        output_tokens_per_s=output_speed,
        prompt_tokens_per_s=prompt_speed,
        speed_source="",
        gpu_hours=hours,
        gpus=gpus,
        rented_hours=rented,
        usd=usd,
        formula=f"{work}; {paid} x {rate(gpu.usd_per_hour)} = ${usd:,.2f}",
        break_even=(),
    )


def break_even(hosted: SelfHostCost, api: ApiCost, month: Workload) -> float | None:
    """Tokens per month, of the month's mix, at which both cost the same and above which the first GPU is cheaper."""
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
            concurrency = min(month.concurrency, conversations(model, gpu))
            if concurrency:
                stream = speed(model, gpu)
                priced = msgspec.structs.replace(gpu, usd_per_hour=usd_per_hour)
                cost = self_host_cost(model.name, priced, stream * concurrency, stream * month.prompt_factor, month)
                yield msgspec.structs.replace(cost, concurrency=concurrency, speed_source=model.speed_source)


def _is_measured(throughput: Throughput) -> bool:
    return throughput.gpu_seconds >= MEASURED_S and throughput.input_tokens + throughput.output_tokens > 0


def _assumptions(month: Workload) -> Iterator[Assumption]:
    for name, gpu in GPUS.items():
        chosen = month.gpus is not None and name in month.gpus
        usd = gpu.usd_per_hour if month.gpus is None else month.gpus.get(name)
        if usd is not None:
            yield Assumption(name=f"{name}, per hour", value=f"{rate(usd)}", source="yours" if chosen else SEED_PRICE)
    others = ", ".join(f"{gpu.name} x {gpu.bandwidth / SPEEDS_ON.bandwidth:.2f}" for gpu in GPUS.values())
    for name, value, source in (
        ("speed of one stream on an RTX 4090", "; ".join(f"{m.name} {m.speed:g}/s" for m in MODELS), "speed_source"),
        ("speed on other GPUs", others, "memory bandwidth in the data sheets: 360, 760, 1008 GB/s"),
        ("concurrent conversations", f"{month.concurrency}, each as fast as one alone", "concurrency; not measured"),
        (
            "conversations that fit",
            f"4-bit weights and 4,096 tokens each, in {USABLE:.0%} of the memory minus {OVERHEAD_GIB:g} GiB",
            "the models' configurations; not measured",
        ),
        (
            "prefill speed",
            f"{month.prompt_factor:g} times the decode speed of one stream",
            "prompt_factor; not measured",
        ),
        (
            "cached prompt tokens",
            f"{month.cached_share:.0%} of the input; they take a GPU no time",
            "cached_share",
        ),
        ("rental", "while there is work" if month.hours == "needed" else f"{month.hours:g} h per month", "hours"),
        ("load", "evenly spread over the rented hours; GPUs are added when one is full", "an estimate has no peaks"),
        ("not included", "setup, storage, traffic, staff; the quality of the models", "by design"),
    ):
        yield Assumption(name=name, value=value, source=source)
