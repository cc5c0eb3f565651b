"""How sure a mean is: percentile intervals of the bootstrap (Efron, 1979). Pure; the same seed gives the same bits."""

from collections.abc import Mapping

import numpy as np

from app.evaluation.models import Figure

RESAMPLES = 2000
LEVEL = 0.95


def figure(values: Mapping[str, float], seed: int, resamples: int = RESAMPLES) -> Figure | None:
    """The mean of one value a question, and the interval in which it lies with 95 %. None of no question."""
    if not values:
        return None
    ordered = np.array([values[key] for key in sorted(values)], dtype=np.float64)
    random = np.random.default_rng(seed)
    # One resample at a time: all of them together would take gigabytes for a large set.
    means = [ordered[random.integers(len(ordered), size=len(ordered))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Figure(mean=float(ordered.mean()), low=float(low), high=float(high), n=len(ordered))


def gain(values: Mapping[str, float], baseline: Mapping[str, float], seed: int) -> Figure | None:
    """The mean difference to the baseline on the same questions: paired, for what is hard is hard for both."""
    return figure({key: values[key] - baseline[key] for key in values.keys() & baseline.keys()}, seed)
