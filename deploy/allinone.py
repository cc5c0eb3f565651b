"""The first program of the image `allinone`: keeps Winnow running, and beside it vLLM and SSH where they are wanted.

    winnow   always. Its end with status 0 or 2 (a setting is wrong, which no restart mends) ends the container
    vllm     where the image has it, unless VLLM_URL names another server or VLLM_MODEL is empty
    sshd     where SSH_PUBLIC_KEY is set

What falls is started again after a pause, twice as long each time it falls soon. SIGTERM and SIGINT go to all; what has
not ended STOP_S later is killed. tini stands above and reaps orphans. Nothing here needs root.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FIRST_PAUSE_S = float(os.environ.get("RESTART_S", "2"))
LONGEST_PAUSE_S = 60 * FIRST_PAUSE_S
STEADY_S = 300.0
"""Who has run for so long falls for another reason than the last time: the pauses begin anew."""

STOP_S = 8.0
"""`docker stop` kills everything after 10 s."""

FOR_GOOD = (0, 2)

VLLM_PORT = 8001

OUR_SECRETS = ("WINNOW_", "QDRANT_", "GEMINI_", "GOOGLE_", "OLLAMA_", "SSH_")
"""Beginnings of the variables that vLLM, which runs code of its models' authors, has no business with."""

OF_THE_COMMAND = ("VLLM_MODEL", "VLLM_MAX_MODEL_LEN", "VLLM_MAX_NUM_SEQS", "VLLM_GPU_MEMORY_UTILIZATION")


@dataclass(frozen=True)
class Program:
    """What to run. The container ends with it if it is the `main` one."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    main: bool = False


def programs(environ: Mapping[str, str], arguments: list[str]) -> list[Program]:
    """Those that the environment asks for, Winnow first."""
    ours = {name: value for name, value in environ.items() if not name.startswith("SSH_")}
    beside = []
    if environ.get("VLLM_MODEL", "default") and not environ.get("VLLM_URL") and shutil.which("vllm"):
        key = environ.get("VLLM_API_KEY") or secrets.token_urlsafe(32)
        ours |= {"VLLM_URL": f"http://127.0.0.1:{VLLM_PORT}/v1", "VLLM_API_KEY": key}
        beside.append(_vllm(environ, key))
    if environ.get("SSH_PUBLIC_KEY"):
        beside.append(_sshd(environ))
    elif not environ.get("WINNOW_ADMIN_KEY") and not environ.get("WINNOW_ADMIN_KEY_FILE"):
        say("warning", "nobody can use this: set WINNOW_ADMIN_KEY, or SSH_PUBLIC_KEY")
    return [Program("winnow", ("winnow", *(arguments or ["serve"])), ours, main=True), *beside]


def _vllm(environ: Mapping[str, str], key: str) -> Program:
    """On loopback; the key is in its environment, since everybody in the container can read a command line."""
    theirs = {
        name: value
        for name, value in environ.items()
        if not name.startswith(OUR_SECRETS) and name not in OF_THE_COMMAND
    }
    command = (
        *("vllm", "serve", environ.get("VLLM_MODEL", "google/gemma-3-4b-it")),
        *("--host", "127.0.0.1", "--port", str(VLLM_PORT)),
        f"--max-model-len={environ.get('VLLM_MAX_MODEL_LEN') or 8192}",
        f"--max-num-seqs={environ.get('VLLM_MAX_NUM_SEQS') or 64}",
        f"--gpu-memory-utilization={environ.get('VLLM_GPU_MEMORY_UTILIZATION') or 0.92}",
        "--language-model-only",
        "--generation-config=vllm",
        "--enable-prompt-tokens-details",
        '--structured-outputs-config={"backend":"xgrammar","disable_any_whitespace":true}',
        "--disable-fastapi-docs",
    )
    return Program("vllm", command, theirs | {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1"})


def _sshd(environ: Mapping[str, str]) -> Program:
    """For that public key alone, with a host key of this container's own: everybody has the image."""
    folder = Path(environ.get("HOME", "/data")) / ".ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authorized, host_key = folder / "authorized_keys", folder / "host_key"
    authorized.write_text(environ["SSH_PUBLIC_KEY"].strip() + "\n", encoding="utf-8")
    authorized.chmod(0o600)
    if not host_key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    sshd = shutil.which("sshd", path=f"{environ.get('PATH', '')}:/usr/sbin") or "/usr/sbin/sshd"
    options = ("-D", "-e", "-p", environ.get("SSH_PORT") or "2222", "-h", str(host_key))
    # By its full path, on which it insists; and without our variables, which its sessions do not need.
    return Program("sshd", (sshd, *options, "-f", "/etc/winnow/sshd_config"), {"PATH": environ.get("PATH", "")})


async def keep(program: Program, stop: asyncio.Event) -> int:
    """Run it, again and again, until it ends for good or `stop` is set; its last status."""
    pause_s = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        status = await _run_once(program, stop)
        if stop.is_set() or (program.main and status in FOR_GOOD):
            return status
        if time.monotonic() - began > STEADY_S:
            pause_s = FIRST_PAUSE_S
        say("error", f"ended with status {status}; starts again in {pause_s:g} s", program.name)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)
            return status
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


async def _run_once(program: Program, stop: asyncio.Event) -> int:
    """In a process group of its own, all of which has ended when this returns: what is left would hold the GPU."""
    try:
        process = await asyncio.create_subprocess_exec(*program.command, env=program.environ, start_new_session=True)
    except OSError as exc:
        say("error", f"cannot be started: {exc.strerror}", program.name)
        return 127
    say("info", f"started as process {process.pid}", program.name)
    ending, told = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.wait())
    await asyncio.wait({ending, told}, return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        _signal(process.pid, signal.SIGTERM)
        await asyncio.wait({ending}, timeout=STOP_S)
    told.cancel()
    _signal(process.pid, signal.SIGKILL)
    return await ending


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


async def supervise(wanted: list[Program]) -> int:
    """All of them, until the main one ends for good or a signal comes; the status of the container."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    main, *beside = (asyncio.create_task(keep(program, stop)) for program in wanted)
    try:
        await asyncio.wait({main, *beside}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        await asyncio.gather(main, *beside, return_exceptions=True)
    status = main.result()
    return status if status >= 0 else 128 - status


def say(level: str, event: str, program: str = "allinone") -> None:
    """A line of JSON on standard error, as Winnow writes its log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"timestamp": stamp, "level": level, "program": program, "event": event}
    sys.stderr.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(supervise(programs(os.environ, sys.argv[1:]))))
