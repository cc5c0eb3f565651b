"""The house in numbers: `python -m benchmarks.structure`.

modules    files of app and indexing that hold code; code lines without blank lines, comments and docstrings
paths      modules and functions of app and indexing that a warm request runs through, in every thread: POST /search
           ranked by a label scorer (a fake vLLM on a real socket), and POST /answer written by the same model
start      CPU seconds of `import app.cli.main` in a fresh process, and which heavy packages `winnow --help` and
           `winnow search` against a running service load
"""

import ast
import asyncio
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from app.config.settings import RankingSettings
from app.observability.logging import configure_logging
from tests.fakes.answering_model import AnsweringModel
from tests.fakes.answering_service import backend_of, server_of
from tests.fakes.corpus import fill
from tests.fakes.models import client_of, services_for
from tests.fakes.running import RunningServer

ROOT = Path(__file__).parents[1]
HEAVY = (
    "litestar",
    "uvicorn",
    "numpy",
    "qdrant_client",
    "qdrant_edge",
    "sentence_transformers",
    "openai",
    "google.genai",
)
IMPORTS = "import app.cli.main"
RUNS = 5


def main() -> None:
    """Count, trace, import, print."""
    configure_logging("console", "error")
    for line in (*sizes(), *asyncio.run(paths()), *start()):
        print(line, flush=True)


def sizes() -> Iterator[str]:
    """How many modules, how large, how many classes, how long the functions, how many comments."""
    lengths, functions, classes, comments = [], [], 0, 0
    for path in sorted([*ROOT.glob("app/**/*.py"), *ROOT.glob("indexing/**/*.py")]):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        code, remarks = lines_of(text, tree)
        comments += remarks
        if code:
            lengths.append(code)
        for node in ast.walk(tree):
            classes += isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((node.end_lineno or node.lineno) - node.lineno + 1)
    functions.sort()
    yield f"modules          {len(lengths)} (at most 240)"
    yield f"code per module  {statistics.mean(lengths):.1f} on average (at least 110), {max(lengths)} at most"
    yield f"classes          {classes} (at most 450)"
    yield (
        f"functions        {len(functions)}; lines: median {functions[len(functions) // 2]}, "
        f"90 % {functions[len(functions) * 9 // 10]}, longest {functions[-1]}"
    )
    yield f"comments         {100 * comments / sum(lengths):.1f} per 100 lines of code"


def lines_of(text: str, tree: ast.Module) -> tuple[int, int]:
    """Lines with code, docstrings left out, and lines with a comment."""
    documented: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for child in body if isinstance(body, list) else ():
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                documented.update(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    code: set[int] = set()
    remarks = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            remarks += "noqa" not in token.string and "type: ignore" not in token.string
        elif token.type not in (
            tokenize.NL,
            tokenize.NEWLINE,
            tokenize.INDENT,
            tokenize.DEDENT,
            tokenize.ENDMARKER,
        ):
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - documented), remarks


class Trace:
    """The functions of app and indexing that run while it is `on`, in every thread that starts under it."""

    def __init__(self) -> None:
        self.on = False
        self._codes: set[CodeType] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """What `sys.setprofile` calls."""
        if self.on and event == "call":
            self._codes.add(frame.f_code)

    async def of(self, request: Callable[[], Awaitable[Any]]) -> list[CodeType]:
        """Those that the request runs through. It is sent three times before: what happens once does not count."""
        for _ in range(3):
            await request()
        self._codes.clear()
        self.on = True
        await request()
        self.on = False
        places = (str(ROOT / "app") + os.sep, str(ROOT / "indexing") + os.sep)
        return [code for code in self._codes if code.co_filename.startswith(places)]


async def paths() -> list[str]:
    """The ways of a search and of an answer."""
    trace, lines, count = Trace(), [], itertools.count()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        with tempfile.TemporaryDirectory() as home:
            async with server_of("vllm", AnsweringModel()) as server:
                ranking = RankingSettings(cache="off", controls=False)  # which the fake would not pass
                services = services_for(Path(home), {"gemma": backend_of(server)}, ranking=ranking)
                async with client_of(services) as client:
                    await fill(await services.store.get())
                    for path, most in (("/search", 40), ("/answer", 60)):

                        async def ask(path: str = path) -> None:
                            # Never the same words twice: a cached query vector would hide the embedding.
                            query = f"When does dental cover start {next(count)}?"
                            response = await client.post(path, json={"query": query, "backend": "gemma"})
                            body = response.raise_for_status().json()
                            assert (body["backend"]["used"], body["degraded"]) == ("gemma", []), body
                            assert path == "/search" or body["answerable"], body

                        codes = await trace.of(ask)
                        modules = sorted({str(Path(code.co_filename).relative_to(ROOT)) for code in codes})
                        lines.append(f"POST {path:11} {len(modules)} modules (at most {most}), {len(codes)} functions")
                        lines += [f"  {module}" for module in modules] if "--modules" in sys.argv else []
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type] # typeshed wants a function, Python takes None
    return lines


def start() -> Iterator[str]:
    """What it takes to say help, and to reach a running service."""
    _cpu_of([sys.executable, "-c", IMPORTS])  # writes the bytecode, which every later start of a command finds
    seconds = [_cpu_of([sys.executable, "-c", IMPORTS]) - _cpu_of([sys.executable, "-c", ""]) for _ in range(RUNS)]
    yield f"{IMPORTS:25} {statistics.median(seconds):.2f} s of CPU (at most 0.3)"
    yield f"winnow --help loads       {', '.join(loaded_by(['--help'])) or 'none of them'}"
    with tempfile.TemporaryDirectory() as home:
        running = RunningServer(Path(home))
        try:
            environment = {**os.environ, "WINNOW_HOME": home}
            used = loaded_by(["search", "dental cover"], environment)
            yield f"winnow search there loads {', '.join(used) or 'none of them'}"
        finally:
            running.close()


def loaded_by(arguments: Sequence[str], environment: dict[str, str] | None = None) -> list[str]:
    """Which of the heavy packages the command has loaded when it ends."""
    code = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]), file=sys.stderr))\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "from app.cli.main import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stderr.splitlines()[-1])
    return loaded


def _cpu_of(command: Sequence[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
