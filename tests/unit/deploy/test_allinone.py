"""The first program of the image `allinone`, among stubs that are real processes."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "allinone.py"
KEY = "ssh-ed25519 AAAA me"
WAIT_S = 60

STUBS = {
    "winnow": 'env > "$OUT/winnow.env"; echo "$*" >> "$OUT/winnow"; . "$OUT/winnow.does"',
    "vllm": 'env > "$OUT/vllm.env"; echo "$*" >> "$OUT/vllm"; . "$OUT/vllm.does"',
    "sshd": 'env > "$OUT/sshd.env"; echo "$*" >> "$OUT/sshd"; exec sleep 60',
    "ssh-keygen": 'for path; do :; done; echo "made once" >> "$path"',
}
FOR_EVER = "while :; do sleep 0.02; done"
UNTIL_ENOUGH = 'while [ ! -e "$OUT/enough" ]; do sleep 0.02; done'


class Run:
    """A container's life in `folder`, where the stubs write what they were given."""

    def __init__(
        self, folder: Path, stubs: str, does: dict[str, str], environ: dict[str, str], *arguments: str
    ) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        for name in stubs.split():
            path = folder / "bin" / name
            # Without the caller's variables where the supervisor gives none, a stub must still know where to write.
            path.write_text(f"#!/bin/sh\nOUT={folder}\n{STUBS[name]}\n", encoding="utf-8")
            path.chmod(0o755)
        for name, script in does.items():
            (folder / f"{name}.does").write_text(script, encoding="utf-8")
        known = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder / "home"), "RESTART_S": "0.02"}
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments], env={**known, **environ}, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> int:
        """Its status; what it said is in `said` then."""
        _, text = self._process.communicate(timeout=WAIT_S)
        self.said: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines() if line[0] == "{"]
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_for(self, name: str, lines: int = 1) -> None:
        """Until a stub has written so many lines to the file."""
        deadline = time.monotonic() + WAIT_S
        while not (self.folder / name).exists() or len(self.lines(name)) < lines:
            assert time.monotonic() < deadline, f"{name} has not been written"
            assert self._process.poll() is None, self._process.communicate()
            time.sleep(0.01)

    def lines(self, name: str) -> list[str]:
        return (self.folder / name).read_text(encoding="utf-8").splitlines()

    def environ(self, name: str) -> dict[str, str]:
        return dict(line.partition("=")[::2] for line in self.lines(f"{name}.env"))


@pytest.mark.parametrize(("arguments", "given"), [((), "serve"), (("serve", "--samples"), "serve --samples")])
def test_winnow_alone_is_served_and_its_end_is_the_containers(
    tmp_path: Path, arguments: tuple[str, ...], given: str
) -> None:
    """Without a model's server in the image, and without SSH."""
    run = Run(tmp_path, "winnow sshd ssh-keygen", {"winnow": "exit 0"}, {"WINNOW_ADMIN_KEY": "k"}, *arguments)
    assert run.end() == 0
    assert run.lines("winnow") == [given]
    assert "VLLM_URL" not in run.environ("winnow")
    assert not (tmp_path / "sshd").exists()
    assert not (tmp_path / "home").exists()
    assert [line["level"] for line in run.said] == ["info"]


def test_a_wrong_setting_ends_the_container(tmp_path: Path) -> None:
    """No restart mends it, and whoever ordered the container sees it stop."""
    run = Run(tmp_path, "winnow", {"winnow": "exit 2"}, {"WINNOW_ADMIN_KEY": "k"})
    assert run.end() == 2
    assert len(run.lines("winnow")) == 1


@pytest.mark.parametrize("fall", ["exit 3", "kill -9 $$"])
def test_winnow_is_started_again_when_it_falls(tmp_path: Path, fall: str) -> None:
    """A rented host may not restart a container that has ended."""
    falls = f'[ "$(wc -l < "$OUT/winnow")" -lt 3 ] || exit 0; {fall}'
    run = Run(tmp_path, "winnow", {"winnow": falls}, {"WINNOW_ADMIN_KEY": "k"})
    assert run.end() == 0
    assert len(run.lines("winnow")) == 3
    told = [line["event"] for line in run.said if line["level"] == "error"]
    assert [event.rpartition("in ")[2] for event in told] == ["0.02 s", "0.04 s"]  # longer each time


def test_vllm_falls_and_comes_back_while_winnow_serves(tmp_path: Path) -> None:
    """Winnow knows where it is and the key that both were given; vLLM gets no secret of anybody else."""
    falls = '[ "$(wc -l < "$OUT/vllm")" -lt 3 ] || touch "$OUT/enough"; exit 1'
    secrets = {"WINNOW_ADMIN_KEY": "k", "GEMINI_API_KEY": "g", "QDRANT_API_KEY": "q", "HF_TOKEN": "h"}
    run = Run(tmp_path, "winnow vllm", {"winnow": UNTIL_ENOUGH, "vllm": falls}, {**secrets, "VLLM_MODEL": "a/b"})
    assert run.end() == 0
    assert len(run.lines("winnow")) == 1
    ours, theirs = run.environ("winnow"), run.environ("vllm")
    assert ours["VLLM_URL"] == "http://127.0.0.1:8001/v1"
    assert len(ours["VLLM_API_KEY"]) > 40
    assert theirs["VLLM_API_KEY"] == ours["VLLM_API_KEY"]
    assert secrets.keys() & theirs.keys() == {"HF_TOKEN"}
    command = run.lines("vllm")[0]
    assert command.startswith("serve a/b --host 127.0.0.1 --port 8001 ")
    assert ours["VLLM_API_KEY"] not in command


@pytest.mark.parametrize("environ", [{"VLLM_MODEL": ""}, {"VLLM_URL": "http://gpu:8000/v1"}])
def test_vllm_stays_out_where_it_is_not_wanted(tmp_path: Path, environ: dict[str, str]) -> None:
    """With no model, and with a server elsewhere."""
    run = Run(tmp_path, "winnow vllm", {"winnow": "exit 0"}, {"WINNOW_ADMIN_KEY": "k", **environ})
    assert run.end() == 0
    assert not (tmp_path / "vllm").exists()
    assert run.environ("winnow").get("VLLM_URL") == environ.get("VLLM_URL")


def test_ssh_is_open_for_one_key(tmp_path: Path) -> None:
    """For nobody else, with a host key of its own that stays, and without our variables."""
    given = {"SSH_PUBLIC_KEY": f" {KEY}\n", "SSH_PORT": "2200", "GEMINI_API_KEY": "g"}
    does = {"winnow": 'while [ ! -e "$OUT/sshd" ]; do sleep 0.02; done'}
    run = Run(tmp_path, "winnow sshd ssh-keygen", does, given)
    assert run.end() == 0
    folder = tmp_path / "home" / ".ssh"
    assert (folder / "authorized_keys").read_text(encoding="utf-8") == KEY + "\n"
    assert (folder / "authorized_keys").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run.lines("sshd")[0].startswith(f"-D -e -p 2200 -h {folder / 'host_key'} -f ")
    assert not {"GEMINI_API_KEY", "SSH_PUBLIC_KEY"} & run.environ("sshd").keys()
    assert "SSH_PUBLIC_KEY" not in run.environ("winnow")
    assert (folder / "host_key").read_text(encoding="utf-8") == "made once\n"


def test_a_container_that_nobody_can_use_says_so(tmp_path: Path) -> None:
    """Neither by a key of the service nor by SSH."""
    run = Run(tmp_path, "winnow", {"winnow": "exit 0"}, {})
    assert run.end() == 0
    assert "WINNOW_ADMIN_KEY, or SSH_PUBLIC_KEY" in run.said[0]["event"]


def test_what_cannot_be_started_holds_up_nothing(tmp_path: Path) -> None:
    """It is said, and tried again."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").write_text("#!/no/such/shell\n", encoding="utf-8")
    (tmp_path / "bin" / "vllm").chmod(0o755)
    (tmp_path / "bin").rename(tmp_path / "more")
    path = {"PATH": f"{tmp_path / 'bin'}:{tmp_path / 'more'}:/usr/bin:/bin", "WINNOW_ADMIN_KEY": "k"}
    run = Run(tmp_path, "winnow", {"winnow": "sleep 0.3; exit 0"}, path)
    assert run.end() == 0
    assert len([line for line in run.said if line["event"].startswith("cannot be started")]) >= 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them(tmp_path: Path, number: signal.Signals) -> None:
    """Winnow's own status is the container's, and nothing of vLLM is left, not even what ignores the signal."""
    stubborn = f"""(trap '' TERM INT; {FOR_EVER}) & echo $! > "$OUT/child"; {FOR_EVER}"""
    does = {"winnow": f"""trap 'exit 7' TERM; echo > "$OUT/ready"; {FOR_EVER}""", "vllm": stubborn}
    run = Run(tmp_path, "winnow vllm", does, {"WINNOW_ADMIN_KEY": "k"})
    run.wait_for("ready")
    run.wait_for("child")
    run.signal(number)
    assert run.end() == 7
    with pytest.raises(ProcessLookupError):
        _alive(int(run.lines("child")[0]))


def _alive(pid: int) -> None:
    """Raises ProcessLookupError where it has ended; a zombie, which tini would reap, has."""
    with suppress(FileNotFoundError):
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        if state != "Z":
            return
    raise ProcessLookupError
