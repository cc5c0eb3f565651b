"""The runner of the README's commands, tried on a small repository with a small service."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.readme import Block, CommandFailed, Reader, commands, fresh_reader, is_service

README = """\
# Example

```sh
make run
```

```console
$ rm -rf everything
```

```sh
HERE=$(curl -s http://127.0.0.1:8000/health/ready)
```

```sh
echo "the service says $HERE"
```
"""

SERVICE = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health/ready" else 404)
        self.end_headers()
        self.wfile.write(b"hello")
http.server.HTTPServer(("127.0.0.1", int(os.environ["WINNOW_PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README.md").write_text(README)
    (folder / "service.py").write_text(SERVICE)
    (folder / "Makefile").write_text("run:\n\t@exec python3 service.py\n")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b.example commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def reader(repository: Path, tmp_path: Path) -> Reader:
    return fresh_reader(repository, tmp_path / "a clone")


def test_only_blocks_marked_sh_are_run() -> None:
    """What is marked `console` is shown and never run; each block knows its line."""
    assert [block.line for block in commands(README)] == [4, 12, 16]
    assert [is_service(block) for block in commands(README)] == [True, False, False]


def test_commands_share_one_shell_beside_the_service(reader: Reader) -> None:
    """Variables of one block are there in the next, and the port is the reader's own."""
    with reader.serving(ready_s=20):
        output = reader.type_in(commands(README)[1:])
    assert "the service says hello" in output


def test_the_service_is_gone_afterwards(reader: Reader) -> None:
    """SIGTERM reaches what `make run` started: its port is free again."""
    with reader.serving(ready_s=20):
        pass
    with pytest.raises(CommandFailed):
        reader.type_in([Block(1, "curl -s http://127.0.0.1:8000/health/ready\n")])


@pytest.mark.parametrize("command", ["curl -s http://127.0.0.1:8000/nothing", "false | true", "echo $UNSET"])
def test_a_failing_command_fails_the_readme(reader: Reader, command: str) -> None:
    """An HTTP error, a broken pipe in the middle and an unset variable all count, and the message names the line."""
    with reader.serving(ready_s=20), pytest.raises(CommandFailed, match="line 7"):
        reader.type_in([Block(7, f"{command}\necho done\n")])


def test_a_service_that_ends_is_reported_with_its_output(repository: Path, tmp_path: Path) -> None:
    """A `make run` that dies is not waited for."""
    (repository / "Makefile").write_text("run:\n\t@echo no such thing; exit 3\n")
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "-qam", "second"]
    subprocess.run(commit, cwd=repository, check=True)
    with pytest.raises(CommandFailed, match="no such thing"), fresh_reader(repository, tmp_path / "b").serving():
        pass


def test_nobody_elses_settings_reach_the_commands(repository: Path, tmp_path: Path) -> None:
    """Keys, addresses and make's own variables of the surrounding shell are left out."""
    environ = {"PATH": "/usr/bin", "GEMINI_API_KEY": "k", "QDRANT_URL": "u", "WINNOW_HOME": "h", "MAKEFLAGS": "n"}
    kept = fresh_reader(repository, tmp_path / "c", environ).environ
    assert set(kept) == {"PATH", "WINNOW_PORT"}
