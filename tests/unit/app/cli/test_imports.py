"""The command line starts quickly: what it loads to print help and to talk to a running service."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from app.instance import announce, presence_at

HEAVY = (
    "litestar",
    "uvicorn",
    "numpy",
    "qdrant_client",
    "qdrant_edge",
    "grpc",
    "sentence_transformers",
    "torch",
    "mcp",
    "openai",
    "google.genai",
    "genai_prices",
    "app.wiring",
    "app.api",
    "app.services",
    "app.ranking",
    "app.answering",
)

SERVER = ("litestar", "uvicorn", "mcp", "app.main", "app.server", "app.api.routes", "torch", "sentence_transformers")

PROGRAM = f"""
import sys
from app.cli.main import main
status = "no exit"
try:
    main()
except SystemExit as exc:
    status = exc.code
print("loaded", [name for name in {HEAVY!r} if name in sys.modules], "status", status, file=sys.stderr)
"""

NOTES = {"warnings": [], "degraded": [], "timings_ms": {"total": 1.0}, "usage": {"cost_usd": 0.0}}
ANSWER = {
    **NOTES,
    "answer": "Yes.",
    "answerable": True,
    "abstain_reason": None,
    "citations": [],
    "unsupported": [],
    "answer_backend": {"requested": "none", "used": "extractive", "model": None, "fallbacks": []},
    "results": [],
}
USAGE_ROW = {
    "name": "gemini",
    "calls": 1,
    "failed": 0,
    "requests": 1,
    "input_tokens": 1,
    "cached_tokens": 0,
    "output_tokens": 1,
    "thinking_tokens": 0,
    "estimated_calls": 0,
    "cost_usd": 0.1,
    "unpriced_calls": 0,
    "gpu_seconds": 0.0,
    "output_tokens_per_gpu_second": None,
    "tokens_per_gpu_second": None,
    "latency_ms": {"p50": 1.0, "p95": 1.0, "p99": 1.0},
}
API = {
    "backend": "reference",
    "model": "m",
    "reference": True,
    "input_usd": 0.25,
    "cached_usd": 0.025,
    "output_usd": 1.5,
    "price_source": "list",
    "as_of": "",
    "usd": 2.5,
    "formula": "= $2.50",
}
HOSTED = {
    "model": "Gemma 3 4B",
    "gpu": "RTX 4090",
    "backend": None,
    "usd_per_hour": 1.2,
    "concurrency": 8,
    "output_tokens_per_s": 760.0,
    "prompt_tokens_per_s": 4750.0,
    "speed_source": "",
    "gpu_hours": 1.0,
    "gpus": 1,
    "rented_hours": 730.0,
    "usd": 876.0,
    "formula": "= $876.00",
    "break_even": [{"backend": "reference", "model": "m", "monthly_tokens": 1e9}],
}
COLLECTION = {
    "name": "c",
    "documents": 1,
    "passages": 1,
    "bytes": None,
    "embedder": "e",
    "vector_size": 3,
    "distance": "cosine",
    "status": "ready",
}
DOCUMENT = {
    "id": "d",
    "title": "",
    "source": "",
    "passages": 1,
    "indexed_at": "2026-11-28T12:00:00Z",
    "origin": "api",
    "tenant": "",
    "metadata": {},
    "ranges": [],
    "text": "text",
    "text_complete": True,
}
JOB = {
    "id": "j",
    "collection": "c",
    "state": "done",
    "documents": 1,
    "created": 1,
    "updated": 0,
    "unchanged": 0,
    "failed": 0,
    "passages": 1,
    "detail": None,
    "created_at": "2026-11-28T12:00:00Z",
    "started_at": "2026-11-28T12:00:00Z",
    "finished_at": "2026-11-28T12:00:01Z",
    "seconds_left": None,
    "errors": [],
}
REPLIES: dict[str, object] = {
    "/collections": {"collections": [COLLECTION]},
    "/collections/c": COLLECTION,
    "/documents": {"collection": "c", "documents": [DOCUMENT], "next_cursor": None},
    "/documents/d": DOCUMENT,
    "/jobs": {"jobs": [JOB], "next_cursor": None},
    "/jobs/j": JOB,
    "/search": {**NOTES, "query": "q", "results": []},
    "/answer": ANSWER,
    "/usage": {
        "since": "2026-11-01T00:00:00Z",
        "until": "2026-11-02T00:00:00Z",
        "group_by": "backend",
        "rows": [USAGE_ROW],
        "total": USAGE_ROW,
        "unpriced": [],
        "budgets": [],
        "ledger": None,
    },
    "/cost/estimate": {
        "workload": {"input_tokens": 10_000_000, "output_tokens": 0},
        "apis": [API],
        "self_hosted": [HOSTED],
        "not_estimated": [],
        "assumptions": [],
    },
    "/vision": {
        "text": "A cat.",
        "backend": {"used": "flash", "model": "m"},
        "usage": {"cost_usd": 0.0},
        "timings_ms": {"total": 1.0},
    },
    "/complete": {
        "text": "x",
        "backend": {"used": "flash", "model": "m"},
        "usage": {"cost_usd": 0.0},
        "timings_ms": {"total": 1.0},
        "method": "instruction",
    },
    "/internal/sync": {"type": "summary", "collection": "default"},
    "/internal/document": {"type": "summary", "collection": "default"},
}


class Service(BaseHTTPRequestHandler):
    """Confirms that it is the service of the home, and answers each route with its fixed reply."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/internal/presence":
            self.send_response(204)
            self.end_headers()
            return
        self._reply(path)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(self.path.partition("?")[0])

    def do_DELETE(self) -> None:
        self.send_response(204)
        self.end_headers()

    def do_PUT(self) -> None:
        self._reply(self.path.partition("?")[0])

    def _reply(self, path: str) -> None:
        body = json.dumps(REPLIES[path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home directory with a running service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        announce(tmp_path, presence_at(f"http://127.0.0.1:{server.server_port}"))
        yield tmp_path
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("search", "q"),
        ("answer", "q"),
        ("usage",),
        ("mcp",),
        ("vision", "q", "https://pictures.example/a.png"),
        ("complete", "--prefix", "def f("),
        ("cost", "--input", "10M"),
        ("index", "docs"),
        ("index", "-"),
        ("jobs", "--watch"),
        ("jobs", "show", "j"),
        ("jobs", "cancel", "j"),
        ("collections",),
        ("collections", "show", "c"),
        ("collections", "create", "c"),
        ("collections", "delete", "c", "--yes"),
        ("documents", "list", "--collection", "c"),
        ("documents", "show", "d"),
        ("documents", "delete", "d"),
    ],
    ids=" ".join,
)
def test_a_running_service_is_asked_without_loading_one(home: Path, arguments: tuple[str, ...]) -> None:
    """No web framework, no numpy, no index, no model: the service has loaded them already."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("WINNOW_", "QDRANT_"))}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=home,
        env={**environ, "WINNOW_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[4])},
        input="text",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert finished.stderr.splitlines()[-1] == "loaded [] status 0", finished.stderr


def test_without_a_service_no_web_framework_is_loaded() -> None:
    """What searches, answers and indexes in this process loads the service's parts, not the server around them."""
    code = f"import sys, app.cli.local\nprint([name for name in {SERVER!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout == "[]\n"


def test_help_looks_nothing_up_among_what_is_installed() -> None:
    """A list of all packages, and the parser of their descriptions, are a tenth of what a command takes to start."""
    code = "import sys, app.cli.main\nprint('importlib.metadata' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout == "False\n"
