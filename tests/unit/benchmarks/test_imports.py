"""The benchmarks are run by hand, and so would not notice a rename."""

import pkgutil
from importlib import import_module

import pytest

import benchmarks

OPTIONAL = {"nltk"}
MODULES = sorted(f"benchmarks.{module.name}" for module in pkgutil.iter_modules(benchmarks.__path__))


@pytest.mark.parametrize("name", [name for name in MODULES if name != "benchmarks.__main__"])
def test_every_benchmark_imports(name: str) -> None:
    """Every name that a benchmark takes from the service exists; only a library of its own may be missing."""
    try:
        import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name not in OPTIONAL:
            raise
