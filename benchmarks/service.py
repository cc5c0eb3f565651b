"""A service in a process of its own, for the attacks on it: started, asked, killed, and started again.

By default its embedder is a fake one that needs no model, and starts within a second or two
(`tests.fakes.quick_winnow`); everything else is real. `REAL` is the whole service with the configured model.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
QUICK, REAL = "tests.fakes.quick_winnow", "app.cli.main"
POLL_S = 0.02

WORDS = ("garden", "river", "winter", "copper", "engine", "letter", "harbour", "silver", "market", "window", "doctor")
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aeiou"]


class DidNotStart(Exception):
    """The process ended before it listened, or did not listen in time; the text has its last lines."""


class Service:
    """`winnow serve` on a home directory. `log` is a file outside of it, to which each start appends.

    `settings` are environment variables, `root` is the checkout whose code runs, and `module` one of its modules or a
    file anywhere. A process group of its own keeps a Ctrl-C of the attacker from it.
    """

    def __init__(
        self,
        home: Path,
        log: Path,
        *,
        module: str = QUICK,
        settings: Mapping[str, str] | None = None,
        root: Path = ROOT,
    ) -> None:
        self.home, self.log, self.module, self.root = home, log, module, root
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._said_before = log.stat().st_size if log.exists() else 0
        self.url = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What this process has logged, or, before it was started, nothing."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self._said_before)
            return file.read().decode(errors="replace")

    @property
    def unexpected(self) -> str:
        """The first traceback that this process has logged, as text or as JSON; "" if there is none."""
        lines = self.said.splitlines()
        place = next((place for place, line in enumerate(lines) if "Traceback " in line or '"exc_type"' in line), None)
        return "" if place is None else "\n".join(lines[place : place + 30])[:3000]

    @property
    def exit_status(self) -> int | None:
        """Negative: the signal that ended it; None while it runs."""
        return None if self._process is None else self._process.poll()

    async def start(self, within_s: float = 60) -> float:
        """Seconds until it listens. Raises DidNotStart."""
        begun = time.perf_counter()
        self.log.touch()
        self._said_before = self.log.stat().st_size
        self._process = self._open()
        while (found := re.search(r"running on (http://[\d.:]+)", self.said)) is None:
            if self.exit_status is not None or time.perf_counter() - begun > within_s:
                status = self.exit_status
                self.kill()
                raise DidNotStart(f"exit status {status}: {self.said[-2000:]}")
            await asyncio.sleep(POLL_S)
        self.url = found[1]
        return time.perf_counter() - begun

    async def until_ready(self, within_s: float = 60) -> float:
        """Seconds from now until /health/ready says so. Raises TimeoutError."""
        begun = time.perf_counter()
        async with self.client() as client, asyncio.timeout(within_s):
            while True:
                if (await client.get("/health/ready")).status_code == 200:
                    return time.perf_counter() - begun
                await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def terminate(self, within_s: float = 90) -> tuple[float, int | None]:
        """SIGTERM: the seconds that it took to end, and its exit status; None if it had to be killed."""
        assert self._process is not None
        begun = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        while self._process.poll() is None:
            if time.perf_counter() - begun > within_s:
                self.kill()
                return time.perf_counter() - begun, None
            await asyncio.sleep(POLL_S)
        return time.perf_counter() - begun, self._process.returncode

    def command(self, *arguments: str) -> list[str]:
        """A command of `winnow`, as this service was started."""
        # -P: the folder of a file is no place to import from.
        code = ["-P", self.module] if self.module.endswith(".py") else ["-m", self.module]
        return [sys.executable, *code, *arguments]

    async def run(self, *arguments: str, within_s: float = 120) -> tuple[int, str]:
        """The exit status of a command of `winnow` on the same home, and what it said."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            cwd=self.log.parent,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(within_s):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace")

    def client(self, timeout_s: float = 60, connections: int = 100) -> httpx.AsyncClient:
        """An HTTP client of this process."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx.AsyncClient(base_url=self.url, timeout=timeout_s, limits=limits, trust_env=False)

    def _open(self) -> "subprocess.Popen[bytes]":
        # An attack that is told to end must end what it started: `finally` blocks run for an exit, not for a signal.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self.command("serve", "--port", "0"),
                cwd=self.log.parent,
                env=self._environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WINNOW_")}
        path = os.pathsep.join(filter(None, [str(self.root), os.environ.get("PYTHONPATH", "")]))
        return {**kept, "WINNOW_HOME": str(self.home), "PYTHONPATH": path, **self._settings}


def rare_word(*parts: object) -> str:
    """A made-up word that no other parts give, and that no stemmer shortens to another one."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).digest()
    return "".join(_SYLLABLES[byte % len(_SYLLABLES)] for byte in digest) + "x"


def text_of(word: str, sentences: int) -> str:
    """So many sentences, each with this word in it, so that each passage is known by it. The same for the same word."""
    dice = random.Random(word)
    return " ".join(f"{word.capitalize()} {' '.join(dice.choices(WORDS, k=9))}." for _ in range(sentences))


def documents(words: Mapping[str, str], sentences: int, **fields: object) -> list[dict[str, object]]:
    """Bodies of documents, by their ids."""
    return [{"id": key, "text": text_of(word, sentences), **fields} for key, word in words.items()]


async def put(client: httpx.AsyncClient, collection: str, bodies: Sequence[Mapping[str, object]]) -> httpx.Response:
    """POST /documents."""
    return await client.post("/documents", json={"collection": collection, "documents": list(bodies)})


async def found(client: httpx.AsyncClient, collection: str, query: str, limit: int = 20) -> list[dict[str, Any]]:
    """The results of a search by words, which a fake embedder cannot distort. Raises httpx.HTTPStatusError."""
    body = {"query": query, "collection": collection, "mode": "sparse", "backend": "none", "limit": limit}
    response = await client.post("/search", json=body)
    response.raise_for_status()
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def detail(response: httpx.Response) -> str:
    """What a problem says."""
    try:
        return str(response.json().get("detail", ""))
    except (json.JSONDecodeError, AttributeError):
        return response.text[:200]


def quantiles(seconds: Sequence[float]) -> str:
    """p50, p99 and the longest."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, longest {ordered[-1]:.2f} s"
