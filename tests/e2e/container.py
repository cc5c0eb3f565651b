"""Builds the image and runs it without a daemon: podman builds it and buildah starts it, both in a chroot.

The base is Debian 12 with its own Python 3.11, made by debootstrap, in place of python:3.11-slim-bookworm: the same
Debian, the same Python, and no registry of images needed.
"""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("podman", "buildah", "debootstrap")
BASE = "localhost/winnow-base:bookworm"
SERVICE, ALLINONE = "localhost/winnow:test", "localhost/winnow-allinone:test"
CHROOT = ("--isolation", "chroot")
CERTIFICATES = Path("/etc/ssl/certs")


def obstacle() -> str:
    """Why no container can be built here; "" if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "containers are built here by root on Linux only"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(missing)}; make test-container installs them on Debian" if missing else ""


def build_images(folder: Path) -> None:
    """SERVICE and ALLINONE from this tree. What stands in `folder` afterwards is of no use."""
    if subprocess.run(["podman", "image", "exists", BASE], check=False).returncode:
        _make_base(folder / "base")
    find_links = _write_pip_settings(folder, pip_settings())
    command = ["nice", "podman", "build", *CHROOT, "--format", "docker"]
    for argument in (f"BASE={BASE}", f"TORCH_BACKEND={'' if find_links else 'cpu'}"):
        command += ["--build-arg", argument]
    for path in (CERTIFICATES, *find_links):
        command += ["--volume", f"{path}:{path}:ro"]
    secrets = [f"id=pip,src={folder / 'pip.conf'}", f"id=uv,src={folder / 'uv.toml'}"]
    command += [f"--secret={secret}" for secret in secrets]
    for target, image in (("service", SERVICE), ("allinone", ALLINONE)):
        subprocess.run([*command, "--target", target, "--tag", image, str(ROOT)], check=True)


def _make_base(folder: Path) -> None:
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(["nice", "debootstrap", "--variant=minbase", packages, "bookworm", str(folder)], check=True)
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["podman", "import", "-", BASE], stdin=tar.stdout, check=True)
    shutil.rmtree(folder)


def pip_settings() -> dict[str, str]:
    """What this machine's pip is told by files and variables, by option; the stronger source wins."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    pairs = [line.partition("=") for line in lines if line.partition("=")[1]]
    return {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in reversed(pairs)}


def _write_pip_settings(folder: Path, told: Mapping[str, str]) -> list[Path]:
    """pip.conf and uv.toml for the build: where this machine gets its packages. Gives the local folders of wheels."""
    find_links = told.get("find-links", "").split()
    certificate = f"cert = {told['cert']}\n" if "cert" in told else ""
    index = told.get("index-url")
    pip = f"[global]\n{certificate}" + (f"index-url = {index}\n" if index else "")
    uv = f"system-certs = true\n[pip]\nfind-links = {json.dumps(find_links)}\n"
    (folder / "pip.conf").write_text(pip, encoding="utf-8")
    (folder / "uv.toml").write_text(uv + (f"index-url = {json.dumps(index)}\n" if index else ""), encoding="utf-8")
    return [Path(place) for place in find_links if Path(place).is_dir()]


class Container:
    """A working container of `image`, with `data` as its volume and this machine's network."""

    def __init__(self, image: str, data: Path, documents: Path, port: int, **environ: str) -> None:
        self._config = image_config(image)
        self.name = _said(["buildah", "from", image])
        # buildah lays the image's own volume over the one that it is given
        subprocess.run(["buildah", "config", "--volume", "/data-", self.name], check=True)
        mounts = ["--volume", f"{data}:/data", "--volume", f"{documents}:/documents:ro"]
        variables = [f"--env={name}={value}" for name, value in {"WINNOW_PORT": str(port), **environ}.items()]
        self._run = ["buildah", "run", *CHROOT, *mounts, *variables, self.name, "--"]
        self.url = f"http://127.0.0.1:{port}"

    def remove(self) -> None:
        """Whatever it has written, but for the volume, is gone."""
        subprocess.run(["buildah", "rm", self.name], check=True, stdout=subprocess.DEVNULL)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `docker exec` would: to its end, as the image's user."""
        return subprocess.run([*self._run, *command], check=False, capture_output=True, text=True)

    @contextmanager
    def serving(self, log: Path) -> Iterator[None]:
        """The image's own entrypoint and command; ready on entry, ended by SIGTERM on exit. Fails if it takes force."""
        config = self._config
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen([*self._run, *config["Entrypoint"], *config["Cmd"]], stdout=file, stderr=file)
            try:
                self._wait_until_ready(process, log)
                yield
                os.kill(_init_of(process.pid, config["Entrypoint"][0]), signal.SIGTERM)
                assert process.wait(timeout=40) == 0, log.read_text(encoding="utf-8")
            finally:
                for pid in [*_descendants(process.pid), process.pid] if process.poll() is None else []:
                    with suppress(ProcessLookupError):  # the ones above it end when it does
                        os.kill(pid, signal.SIGKILL)
                process.wait(timeout=10)

    def post(self, path: str, body: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """JSON in, JSON out. Raises HTTPError."""
        headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        request = urllib.request.Request(self.url + path, data=json.dumps(body).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/health/ready", timeout=10).close()
            except OSError:
                time.sleep(0.2)
            else:
                return
        raise AssertionError(f"it is not ready:\n{log.read_text(encoding='utf-8')}")


def image_config(image: str) -> dict[str, Any]:
    """What the image says of itself: User, Entrypoint, Cmd, Env, Healthcheck, Volumes, ..."""
    (image,) = json.loads(_said(["podman", "image", "inspect", image]))
    return {"Healthcheck": image["Healthcheck"], **image["Config"]}


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _init_of(pid: int, program: str) -> int:
    """The container's first process: the process below `pid` that runs `program`."""
    (found,) = [below for below in _descendants(pid) if _arguments(below)[0].rpartition("/")[2] == program]
    return found


def _descendants(pid: int) -> list[int]:
    """Children of every thread, and theirs."""
    lists = [_text(path) for path in Path(f"/proc/{pid}/task").glob("*/children")]
    children = [int(child) for found in lists for child in found.split()]
    return [below for child in children for below in (child, *_descendants(child))]


def _arguments(pid: int) -> list[str]:
    return _text(Path(f"/proc/{pid}/cmdline")).split("\0")


def _text(path: Path) -> str:
    """Empty where the process has ended."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
