"""The images, built and used without a daemon. Minutes: `make test-container`."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.e2e.container import ALLINONE, ROOT, SERVICE, Container, build_images, image_config, obstacle

UID = 10001
KEY = "k" * 64
ASKED = {"query": "How fast may a forklift go?", "limit": 1}
CUDA = "import sys, torch, pathlib; print(torch.version.cuda, [p.name for p in pathlib.Path(sys.prefix).glob("
CUDA += "'lib/python3*/site-packages/*') if p.name.startswith(('nvidia', 'cuda', 'triton'))])"
WRITTEN = "find / -xdev -newer /data/mark -type f -not -path '/proc/*' -not -path '/data/*' -not -path '/tmp/*'"
OF_THE_RUNNER = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/run/.containerenv"}
KNOWN_ENVIRONMENT = {
    *("PATH", "PYTHONDONTWRITEBYTECODE", "HF_HOME", "XDG_CACHE_HOME"),
    *("WINNOW_HOME", "WINNOW_HOST", "WINNOW_PORT"),
}

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "it can be built"),
]


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Freshly built."""
    build_images(tmp_path_factory.mktemp("images"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _folders(folder: Path) -> tuple[Path, Path]:
    """For its data, and the samples as its documents."""
    data, documents = folder / "data", folder / "documents"
    data.mkdir()
    data.chmod(0o777)
    documents.mkdir()
    for sample in (ROOT / "app" / "samples").iterdir():
        (documents / sample.name).write_bytes(sample.read_bytes())
    (data / "mark").touch()
    return data, documents


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The service, with the samples as its documents."""
    made = Container(SERVICE, *_folders(tmp_path_factory.mktemp("container")), _free_port())
    yield made
    made.remove()


def test_it_serves_ends_cleanly_and_keeps_its_index(container: Container, tmp_path: Path) -> None:
    """Ready, indexed from inside, asked from outside, ended by SIGTERM with status 0; a second run still knows it all,
    and only the volume was written to.
    """
    health = image_config(SERVICE)["Healthcheck"]["Test"]
    assert health[0] == "CMD"
    with container.serving(tmp_path / "first.log"):
        assert container.run(*health[1:]).returncode == 0
        indexed = container.run("winnow", "index", "/documents")
        assert indexed.returncode == 0, indexed.stderr
        first = container.post("/search", ASKED)
        assert first["results"][0]["source"].endswith("warehouse-safety.txt")
        assert container.post("/answer", {"query": "When does dental cover start?"})["answerable"]
    assert container.run(*health[1:]).returncode != 0
    with container.serving(tmp_path / "second.log"):
        assert container.post("/search", ASKED)["results"][0]["id"] == first["results"][0]["id"]
    assert set(container.run("sh", "-c", WRITTEN).stdout.split()) <= OF_THE_RUNNER


def test_it_is_nobody_in_particular(container: Container) -> None:
    """The process is not root, cannot write outside /data, and what it makes there has a fixed owner."""
    assert container.run("id", "-u").stdout.strip() == str(UID)
    assert container.run("sh", "-c", "touch /opt/winnow/x || touch /etc/winnow/x || touch /usr/x").returncode != 0
    assert container.run("sh", "-c", "touch /data/x && stat -c %u /data/x && rm /data/x").stdout.strip() == str(UID)


def test_it_has_no_cuda(container: Container) -> None:
    """torch is the processor's build, and no library of a GPU came along."""
    assert container.run("/opt/winnow/bin/python", "-c", CUDA).stdout.strip() == "None []"


@pytest.mark.parametrize("image", [SERVICE, ALLINONE])
def test_it_says_what_it_is(image: str) -> None:
    """Its user, its volume, its signal and its labels are part of the image; settings of the build are not."""
    config = image_config(image)
    assert config["User"] == f"{UID}:{UID}"
    assert list(config["Volumes"]) == ["/data"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"].startswith("winnow")
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not [line for line in config["Env"] if line.partition("=")[0] not in KNOWN_ENVIRONMENT]


def test_all_in_one_serves_and_lets_one_key_in_by_ssh(tmp_path: Path) -> None:
    """Nobody in it is root: SSH leads to a shell beside the service and through a tunnel to it, for one key, where the
    service asks for its own; and both end with the container.
    """
    private = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(private)], check=True)
    ssh_port, http_port, tunnel = _free_port(), _free_port(), _free_port()
    data, documents = _folders(tmp_path)
    public = private.with_suffix(".pub").read_text(encoding="utf-8")
    environ = {"SSH_PUBLIC_KEY": public, "SSH_PORT": str(ssh_port), "WINNOW_ADMIN_KEY": KEY}
    made = Container(ALLINONE, data, documents, http_port, **environ)
    ssh = ["ssh", "-p", str(ssh_port), "-i", str(private), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    ssh += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    try:
        with made.serving(tmp_path / "log"):
            assert _said([*ssh, "winnow@127.0.0.1", "id -u && winnow index /documents --json"]).startswith(f"{UID}\n")
            assert subprocess.run([*ssh, "root@127.0.0.1", "true"], check=False).returncode != 0
            with _running([*ssh, "-N", "-L", f"127.0.0.1:{tunnel}:127.0.0.1:{http_port}", "winnow@127.0.0.1"]):
                made.url = f"http://127.0.0.1:{tunnel}"
                _wait_for_port(tunnel)
                assert made.post("/search", ASKED, KEY)["results"][0]["source"].endswith("warehouse-safety.txt")
                with pytest.raises(HTTPError, match="401"):
                    made.post("/search", ASKED)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ssh_port)).close()
    finally:
        made.remove()


def _said(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError(f"nobody listens on {port}")
