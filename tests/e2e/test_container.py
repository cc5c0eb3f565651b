"""The image, built and used without a daemon. Minutes: `make test-container`."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.container import ROOT, Container, build_image, image_config, obstacle

UID = 10001
ASKED = {"query": "How fast may a forklift go?", "limit": 1}
CUDA = "import sys, torch, pathlib; print(torch.version.cuda, [p.name for p in pathlib.Path(sys.prefix).glob("
CUDA += "'lib/python3*/site-packages/*') if p.name.startswith(('nvidia', 'cuda', 'triton'))])"
WRITTEN = "find / -xdev -newer /data/mark -type f -not -path '/proc/*' -not -path '/data/*' -not -path '/tmp/*'"
OF_THE_RUNNER = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/run/.containerenv"}
KNOWN_ENVIRONMENT = {"PATH", "WINNOW_HOME", "WINNOW_HOST", "WINNOW_PORT", "HF_HOME", "PYTHONDONTWRITEBYTECODE"}

pytestmark = [
    pytest.mark.container,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "it can be built"),
]


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """The freshly built image, with the samples as its documents."""
    folder = tmp_path_factory.mktemp("container")
    build_image(folder)
    data, documents = folder / "data", folder / "documents"
    data.mkdir()
    data.chmod(0o777)
    documents.mkdir()
    for sample in (ROOT / "app" / "samples").iterdir():
        (documents / sample.name).write_bytes(sample.read_bytes())
    (data / "mark").touch()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Container(data, documents, port)
    yield made
    made.remove()


def test_it_serves_ends_cleanly_and_keeps_its_index(container: Container, tmp_path: Path) -> None:
    """Ready, indexed from inside, asked from outside, ended by SIGTERM with status 0; a second run still knows it all,
    and only the volume was written to.
    """
    health = image_config()["Healthcheck"]["Test"]
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


def test_it_says_what_it_is() -> None:
    """Its user, its volume, its signal and its labels are part of the image; settings of the build are not."""
    config = image_config()
    assert config["User"] == f"{UID}:{UID}"
    assert list(config["Volumes"]) == ["/data"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == "winnow"
    assert not [line for line in config["Env"] if line.partition("=")[0] not in KNOWN_ENVIRONMENT]
