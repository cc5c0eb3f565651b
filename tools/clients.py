"""Brings `.venv-clients` up to date: frameworks that call rerankers and embedders, for the tests.

They have an environment of their own because they bring a hundred packages, and pins that fight ours.
"""

import sys
from pathlib import Path

from tools.pip import pip_install
from tools.venvs import ROOT, Stamp, Venv, stamp

CLIENTS = (
    "cohere-haystack",
    "jina-haystack",
    "langchain-cohere",
    "langchain-community",
    "llama-index-postprocessor-cohere-rerank",
    "llama-index-postprocessor-jinaai-rerank",
    "ragflow-sdk",
)
VENV = Venv(ROOT / ".venv-clients", hint="This takes about a minute and 0.7 GB.")
CONSTRAINTS = ROOT / "constraints-clients.txt"
INGREDIENTS = (CONSTRAINTS, Path(__file__))


def main() -> int:
    """Exit status 0 when `.venv-clients` is ready; 1 with plain lines when it cannot be made; 130 interrupted."""
    return VENV.exit_status(stamp("", INGREDIENTS), _fill_venv)


def fill(python: Path, constrained: list[str]) -> None:
    """Install the clients into the environment of `python`. Raises InstallFailed."""
    pip_install(python, [*constrained, "--upgrade", "pip"], progress="off")
    pip_install(python, [*constrained, *CLIENTS])


def _fill_venv(_: Stamp) -> None:
    fill(VENV.python, ["--constraint", str(CONSTRAINTS)])


if __name__ == "__main__":
    sys.exit(main())
