"""Dockerfile, docker-compose.yml and what belongs to them, read as files; `make test-container` builds the image."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.fakes.http_server import answering

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
RENTED = ROOT / "deploy" / "rented.sh"
OURS = ("winnow", "winnow-gpu", "winnow-ollama")
_REFERENCE = re.compile(r"(?<!\$)\$(?:\{(?P<name>\w+)(?P<rest>[^}]*)\}|(?P<bare>\w+))")


@pytest.mark.parametrize(
    ("profile", "services"),
    [
        ("cpu", {"winnow", "qdrant"}),
        ("gpu", {"winnow-gpu", "qdrant", "vllm"}),
        ("ollama", {"winnow-ollama", "qdrant", "ollama", "ollama-model"}),
    ],
)
def test_a_profile_starts_what_it_needs_and_no_more(profile: str, services: set[str]) -> None:
    """Each profile has one winnow, the index, and the model server it is named for; all it waits for is in it."""
    started = {name for name, service in SERVICES.items() if profile in service["profiles"]}
    assert started == services
    assert {needed for name in started for needed in SERVICES[name].get("depends_on", {})} <= started


def test_only_winnow_is_published_and_only_to_this_machine() -> None:
    """Without API keys nothing may be reached from another machine, and vLLM, Qdrant and Ollama not even from this."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(ports) == set(OURS)
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert not [name for name, service in SERVICES.items() if service.get("network_mode")]


@pytest.mark.parametrize("name", OURS)
def test_names_guard_the_door_that_compose_opens(name: str) -> None:
    """All callers are let in, because Docker hides who they are; so the names they may use are set beside it."""
    environment = SERVICES[name]["environment"]
    assert environment["WINNOW_ALLOW_ANONYMOUS"] == "1"
    assert _filled(environment["WINNOW_SERVICE_HOSTS"]).split(",") == ["winnow", "host.docker.internal"]


@pytest.mark.parametrize("name", OURS)
def test_the_service_waits_for_the_index_and_never_for_a_model(name: str) -> None:
    """It searches while fifteen minutes of weights are loading."""
    conditions = {needed: how["condition"] for needed, how in SERVICES[name]["depends_on"].items()}
    assert conditions.pop("qdrant") == "service_healthy"
    assert set(conditions.values()) <= {"service_started"}


def test_every_variable_has_a_default() -> None:
    """`docker compose up` works without a .env file."""
    assert [
        found[0] for found in _REFERENCE.finditer(COMPOSE_TEXT) if not (found["rest"] or "").startswith((":-", "-"))
    ] == []


def test_the_example_lists_every_variable_with_its_default() -> None:
    """.env.example and docker-compose.yml know the same variables and the same defaults."""
    example = dict(re.findall(r"^#(\w+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    defaults = {
        found["name"]: found["rest"].lstrip(":").removeprefix("-") for found in _REFERENCE.finditer(COMPOSE_TEXT)
    }
    handed_over = {
        key for service in SERVICES.values() for key, value in _environment(service).items() if value is None
    }
    assert set(example) == set(defaults) | handed_over
    own = {name: value for name, value in defaults.items() if name not in handed_over | {"VLLM_URL", "OLLAMA_URL"}}
    assert {name: example[name] for name in own} == own


def test_images_are_pinned() -> None:
    """What is pulled today is pulled tomorrow, and what is built has the version of what it is built from."""
    images = [_filled(service["image"]) for service in SERVICES.values()]
    images += re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert [image for image in images if not re.search(r":v?\d[\w.-]*$", image)] == []
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {_filled(SERVICES[name]["image"]) for name in OURS} == {f"winnow:{version}"}
    assert re.search(r"^ARG UV=uv==[\d.]+$", DOCKERFILE, re.MULTILINE)


def test_keys_come_from_outside_and_an_unset_one_is_not_there() -> None:
    """No key is written down, and none is handed over empty: Qdrant takes an empty key for a key that nobody has."""
    for name in ("qdrant", "vllm", "ollama"):
        secrets = {key: value for key, value in _environment(SERVICES[name]).items() if re.search("KEY$|TOKEN", key)}
        assert set(secrets.values()) <= {None}
    assert not re.search(r"^(ARG|ENV) .*(KEY|TOKEN|PASSWORD|SECRET)", DOCKERFILE, re.MULTILINE)


def test_health_checks_use_what_the_images_have() -> None:
    """Only vLLM's image has curl."""
    checks = {name: service["healthcheck"]["test"] for name, service in SERVICES.items() if "healthcheck" in service}
    assert {name: test[1] for name, test in checks.items()} == {"qdrant": "bash", "vllm": "curl", "ollama": "ollama"}
    assert not re.search(
        r"\b(curl|wget)\b", "".join(re.findall(r"^(?:HEALTHCHECK|RUN).*(?:\n +.*)*", DOCKERFILE, re.M))
    )
    assert SERVICES["vllm"]["healthcheck"]["start_period"] == "900s"


@pytest.fixture(params=[200, 503])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """A port, and the status that is answered there."""
    with answering(request.param, b"not 200 OK" if request.param == 503 else b"") as url:
        yield urlsplit(url).port or 0, request.param


def test_qdrants_health_line_tells_ready_from_not_ready(server: tuple[int, int]) -> None:
    """It needs nothing but bash, and goes by the status, whatever the body says."""
    port, status = server
    command = [part.replace("6333", str(port)) for part in SERVICES["qdrant"]["healthcheck"]["test"][1:]]
    assert (subprocess.run(command, check=False, timeout=10).returncode == 0) == (status == 200)


def test_our_health_line_tells_ready_from_not_ready(server: tuple[int, int]) -> None:
    """The image's HEALTHCHECK, whatever proxy the environment names."""
    port, status = server
    environ = {"WINNOW_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    assert (subprocess.run(_health_command(), check=False, timeout=10, env=environ).returncode == 0) == (status == 200)


def test_nobody_there_is_not_healthy() -> None:
    """Both lines fail where nothing listens."""
    with answering(200) as url:
        port = str(urlsplit(url).port)
    line = [part.replace("6333", port) for part in SERVICES["qdrant"]["healthcheck"]["test"][1:]]
    for command in (line, _health_command()):
        ended = subprocess.run(
            command, check=False, timeout=10, env={**os.environ, "WINNOW_PORT": port}, capture_output=True
        )
        assert ended.returncode != 0


def test_the_image_is_the_processors_and_nobodys() -> None:
    """CPU torch by default, a fixed user that is not root, its volume, and signals that reach it."""
    final = DOCKERFILE[DOCKERFILE.index("AS service") : DOCKERFILE.index("AS rented")]
    assert re.search(r"^ARG TORCH_BACKEND=cpu$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert re.search(r"^VOLUME /data$", final, re.MULTILINE)
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", final, re.MULTILINE)[0]) == ["tini", "--", "winnow"]
    assert re.findall(r"^FROM .*$", DOCKERFILE, re.MULTILINE)[-1] == "FROM service AS winnow"


def test_libraries_are_a_layer_below_the_code() -> None:
    """A change of the code does not install torch again."""
    stage = DOCKERFILE[DOCKERFILE.index("AS dependencies") : DOCKERFILE.index("AS wheel")]
    copied = re.findall(r"^COPY (.*)$", stage, re.MULTILINE)
    assert copied == ["constraints.txt ./", "--from=requirements /requirements.txt ./"]


def test_only_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    """.dockerignore leaves out all but what is copied: no .git, .env, .venv or .winnow can get into a layer."""
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines[1:] if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {source.partition("/")[0] for sources in copied for source in sources.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_both_ways_to_start_vllm_are_the_same() -> None:
    """The rented container's vLLM takes the flags of docker-compose.yml, but listens on loopback only."""
    ours = {_filled(flag) for flag in SERVICES["vllm"]["command"] if not flag.startswith("--model=")}
    text = RENTED.read_text(encoding="utf-8").replace("\\\n", " ")
    line = re.findall(r"until vllm serve (.*); do", text)[0]
    words = [_filled(word) for word in shlex.split(line)]
    assert words[0] == _filled(SERVICES["vllm"]["command"][0].removeprefix("--model="))
    assert words[1:5] == ["--host", "127.0.0.1", "--port", "$VLLM_PORT"]
    assert set(words[5:]) == ours


def test_an_order_publishes_ssh_and_nothing_else() -> None:
    """The orders in docs/clore.md are JSON, open no port to the public but SSH, and bring the key that it needs."""
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "clore.md").read_text(encoding="utf-8"), re.DOTALL)
    orders = [json.loads(block) for block in blocks]
    assert [order["ports"] for order in orders] == [{"22": "tcp"}] * 2
    assert all("SSH_PUBLIC_KEY" in order["env"] and "command" not in order for order in orders)


STUBS = {
    "ssh-keygen": "",
    "sshd": 'echo "$@" > "$HOME/sshd"',
    "setpriv": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "winnow": 'echo "$* $HOME ${VLLM_URL:-none}" > "$OUT/winnow"; while [ ! -e "$OUT/enough" ]; do sleep 0.02; done',
    "vllm": 'echo "$@" >> "$OUT/vllm"; [ "$(wc -l < "$OUT/vllm")" -lt 3 ] || touch "$OUT/enough"; exit 1',
}


def _rented(folder: Path, *stubs: str, **environ: str) -> tuple[int, str]:
    """Runs deploy/rented.sh among stubs; its status and what it said."""
    (folder / "bin").mkdir()
    for name in stubs:
        path = folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{STUBS[name]}\n", encoding="utf-8")
        path.chmod(0o755)
    variables = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "OUT": str(folder), **environ}
    process = subprocess.Popen(
        ["bash", str(RENTED)], env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        status = process.wait(timeout=20)
    finally:
        with suppress(ProcessLookupError):  # where no vLLM's loop is left
            os.killpg(process.pid, signal.SIGTERM)  # as `tini -g` does
    assert process.stderr is not None
    with process.stderr as said:
        return status, said.read()


def test_a_rented_container_without_a_key_says_so(tmp_path: Path) -> None:
    """There would be no way in."""
    ended = subprocess.run(
        ["bash", str(RENTED)],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert ended.returncode != 0
    assert "SSH_PUBLIC_KEY" in ended.stderr
    assert not (tmp_path / ".ssh").exists()


def test_a_rented_container_opens_ssh_and_serves(tmp_path: Path) -> None:
    """With the key alone, no passwords, and no vLLM where the image has none."""
    (tmp_path / "enough").touch()
    status, _ = _rented(tmp_path, "ssh-keygen", "sshd", "setpriv", "winnow", SSH_PUBLIC_KEY="ssh-ed25519 AAAA me")
    assert status == 0
    keys = tmp_path / ".ssh" / "authorized_keys"
    assert keys.read_text(encoding="utf-8") == "ssh-ed25519 AAAA me\n"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert "PasswordAuthentication=no" in (tmp_path / "sshd").read_text(encoding="utf-8")
    assert (tmp_path / "winnow").read_text(encoding="utf-8") == "serve /data none\n"


def test_a_rented_container_starts_its_vllm_again(tmp_path: Path) -> None:
    """Winnow knows where it is, and serves while it falls and is started again."""
    status, said = _rented(tmp_path, *STUBS, SSH_PUBLIC_KEY="ssh-ed25519 AAAA me", RESTART_S="0.02")
    assert status == 0
    assert len((tmp_path / "vllm").read_text(encoding="utf-8").splitlines()) >= 3
    assert "vLLM ended with status 1" in said
    assert (tmp_path / "winnow").read_text(encoding="utf-8") == "serve /data http://127.0.0.1:8001/v1\n"


def _health_command() -> list[str]:
    text = DOCKERFILE.replace("\\\n", "")
    command: list[str] = json.loads(re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.MULTILINE)[0])
    return [sys.executable, *command[1:]]


def _environment(service: dict[str, Any]) -> dict[str, str | None]:
    environment: dict[str, str | None] = service.get("environment", {})
    return environment


def _filled(text: str) -> str:
    """With the defaults in place of the variables."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)
