"""Brings `.venv-clients` up to date: frameworks that call rerankers, embedders and tools, for the tests.

They have an environment of their own because they bring a hundred packages, and pins that conflict with ours.
"""

import sys
from pathlib import Path

from tools.pip import pip_install
from tools.venvs import ROOT, Venv, stamp

CLIENTS = (
    "cohere-haystack",
    "jina-haystack",
    "langchain",
    "langchain-cohere",
    "langchain-community",
    "langchain-mcp-adapters",
    "llama-index-postprocessor-cohere-rerank",
    "llama-index-postprocessor-jinaai-rerank",
    "ragflow-sdk",
)
VENV = Venv(ROOT / ".venv-clients", hint="This takes about a minute and 0.7 GB.")
CONSTRAINTS = ROOT / "constraints-clients.txt"


def main() -> int:
    """Exit status 0 when `.venv-clients` is ready; 1 with plain lines when it cannot be made; 130 interrupted."""
    wanted = stamp("", (CONSTRAINTS, Path(__file__)))
    return VENV.exit_status(wanted, lambda _: install(VENV.python, ["--constraint", str(CONSTRAINTS)]))


def install(python: Path, options: list[str]) -> None:
    """Install the clients into the environment of `python`, with these options for pip. Raises InstallFailed."""
    pip_install(python, [*options, "--upgrade", "pip"], progress="off")
    pip_install(python, [*options, *CLIENTS])


if __name__ == "__main__":
    sys.exit(main())
