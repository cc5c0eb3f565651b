"""A real vLLM in a process of its own, on the processor, with a tiny random Gemma 3.

`python -m tests.vllm.running` keeps one up until Ctrl-C and says where it is: WINNOW_TEST_VLLM holds its URL for tests
that should use it instead of starting their own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
MISSING = "the vLLM that the tests run is not installed: `make test-vllm` does it"

MODEL = "tiny-gemma"
KEY = "key-of-the-tests"
CONTEXT = 4_096
SEQUENCES = 32
RUNNING = "WINNOW_TEST_VLLM"

START_S = 240.0
STOP_S = 30.0
TAIL = 40

OPTIONS = (
    *("--served-model-name", MODEL),
    *("--max-model-len", str(CONTEXT)),
    *("--max-num-seqs", str(SEQUENCES)),
    *("--generation-config", "vllm"),
    *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    "--enable-prompt-tokens-details",
    "--enforce-eager",
)

ENVIRON = {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_API_KEY": KEY,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


class VllmFailed(Exception):
    """It did not come up; the text has the end of its log."""


class RunningVllm:
    """A server at `url`, the root of its OpenAI-style API with /v1. It takes the key KEY."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.root = url.removesuffix("/v1")
        self.http = httpx.Client(base_url=self.root, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)

    def close(self) -> None:
        """Our connections; the server stays."""
        self.http.close()

    def running(self) -> int:
        """How many requests it is working on."""
        return int(self.metric("vllm:num_requests_running"))

    def metric(self, name: str, label: str = "") -> float:
        """The sum over its labels, or over those lines that carry `label`."""
        lines = (line for line in self.http.get("/metrics").text.splitlines() if label in line)
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def tokens(self, **body: object) -> list[int]:
        """What /tokenize makes of a prompt or of messages."""
        found: list[int] = self.http.post("/tokenize", json={"model": MODEL, **body}).json()["tokens"]
        return found

    def token(self, text: str) -> int:
        """The one that `text` is."""
        (found,) = self.tokens(prompt=text, add_special_tokens=False)
        return found

    def is_up(self) -> bool:
        """Whether it serves."""
        try:
            return self.http.get("/health", timeout=2).is_success
        except httpx.TransportError:
            return False


@contextmanager
def real_vllm(
    folder: Path,
    environ: Mapping[str, str],
    make: "Callable[[Path], Path] | None" = None,
    options: Sequence[str] = (),
) -> Iterator[RunningVllm]:
    """One that `environ` says is running, or a new one with its model and log in `folder`. Raises VllmFailed.

    `make` writes another model than the tiny Gemma to a folder, for a server of its own, with `options` as well.
    """
    if environ.get(RUNNING) and make is None:
        with closing(RunningVllm(environ[RUNNING])) as server:
            yield server
        return
    if not PYTHON.exists():
        raise VllmFailed(MISSING)
    from tests.vllm.tiny_gemma import make_tiny_gemma  # takes seconds to import

    model, log = (make or make_tiny_gemma)(folder / "model"), folder / "vllm.log"
    port = free_port()
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--model", str(model), *OPTIONS, *options],
            env={**environ, **ENVIRON},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with closing(RunningVllm(f"http://127.0.0.1:{port}/v1")) as server:
            _wait_until_up(server, process, log)
            yield server
    finally:
        _end(process)


def _wait_until_up(server: RunningVllm, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_S
    while not server.is_up():
        if process.poll() is not None or time.monotonic() > until:
            state = "is not up yet" if process.returncode is None else f"ended with status {process.returncode}"
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
            raise VllmFailed(f"vLLM {state}; the end of its log:\n{end}")
        time.sleep(0.5)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The server, and the worker processes of its session that outlive a kill of it."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    # As Ctrl-C does it, so that the server is ended. Blocking the signal, for sigwait, would block it there too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as place, real_vllm(Path(place), os.environ) as up:
        sys.stdout.write(f"{RUNNING}={up.url}  # Ctrl-C ends it; its key is {KEY}\n")
        sys.stdout.flush()
        signal.pause()
