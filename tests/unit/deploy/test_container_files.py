"""Dockerfile, docker-compose.yml and what belongs to them, read as files; `make test-container` builds the image."""

import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from app.cli.vllm import CARDS, GIB, preset
from tests.fakes.compose_files import faults_of
from tests.fakes.http_server import answering

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
ALLINONE = ROOT / "deploy" / "allinone.py"
MONITORING = ROOT / "deploy" / "monitoring"
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
REQUIRED = ("WINNOW_ADMIN_KEY", "QDRANT__SERVICE__API_KEY")
OURS = ("winnow", "winnow-gpu", "winnow-ollama")
_REFERENCE = re.compile(r"(?<!\$)\$(?:\{(?P<name>\w+)(?P<rest>[^}]*)\}|(?P<bare>\w+))")


@pytest.mark.parametrize(
    ("profile", "services"),
    [
        ("cpu", {"winnow", "qdrant"}),
        ("gpu", {"winnow-gpu", "qdrant", "vllm"}),
        ("ollama", {"winnow-ollama", "qdrant", "ollama", "ollama-model"}),
        ("tls", {"caddy"}),
        ("monitoring", {"prometheus", "grafana"}),
    ],
)
def test_a_profile_starts_what_it_needs_and_no_more(profile: str, services: set[str]) -> None:
    """One winnow, the index and the model server it is named for, or what stands beside; all it waits for is in it."""
    started = {name for name, service in SERVICES.items() if profile in service["profiles"]}
    assert started == services
    assert {needed for name in started for needed in SERVICES[name].get("depends_on", {})} <= started


def test_what_is_published_needs_a_key_and_stays_on_this_machine() -> None:
    """Winnow's port by default, and those of the monitoring; Caddy's are for others. Models and index have none."""
    ports = {name: [_filled(port) for port in one["ports"]] for name, one in SERVICES.items() if "ports" in one}
    assert {port for name in OURS for port in ports.pop(name)} == {"127.0.0.1:8000:8000"}
    assert ports.pop("caddy") == ["80:80", "443:443", "443:443/udp"]
    assert ports == {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}
    assert not [name for name, service in SERVICES.items() if service.get("network_mode")]


@pytest.mark.parametrize("name", OURS)
def test_nobody_is_served_without_a_key(name: str) -> None:
    """Docker hides who calls, so that no exception for this machine could hold; the first key comes from outside."""
    environment = SERVICES[name]["environment"]
    assert environment["WINNOW_ADMIN_KEY"].startswith("${WINNOW_ADMIN_KEY:?")
    assert "WINNOW_ALLOW_ANONYMOUS" not in environment


def test_only_winnow_reaches_the_index() -> None:
    """And the index reaches nothing."""
    assert {name for name, service in SERVICES.items() if "store" in service.get("networks", ())} == {*OURS, "qdrant"}
    assert list(SERVICES["qdrant"]["networks"]) == ["store"]
    assert COMPOSE["networks"]["store"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened_alike(name: str) -> None:
    """No new privileges, no capabilities, bounds for memory, processes, logs, and read-only where it can be."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 8192
    assert re.fullmatch(r"\d+[gm]", _filled(service["mem_limit"]))
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["ulimits"] == {"core": 0}
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service.get("read_only", False) == (name != "vllm")
    assert not service.get("privileged")


def test_it_is_valid_by_the_compose_specification() -> None:
    """By its JSON schema, which check-jsonschema brings."""
    assert faults_of(COMPOSE) == []


@pytest.mark.parametrize("name", OURS)
def test_the_service_waits_for_the_index_and_never_for_a_model(name: str) -> None:
    """It searches while fifteen minutes of weights are loading."""
    conditions = {needed: how["condition"] for needed, how in SERVICES[name]["depends_on"].items()}
    assert conditions.pop("qdrant") == "service_healthy"
    assert set(conditions.values()) <= {"service_started"}


def test_every_variable_has_a_default_but_the_keys() -> None:
    """What is missing in .env is either not needed, or told with the way to get it."""
    demanded = {found["name"]: found["rest"] for found in _REFERENCE.finditer(COMPOSE_TEXT) if ":?" in found["rest"]}
    others = [found for found in _REFERENCE.finditer(COMPOSE_TEXT) if ":?" not in (found["rest"] or "")]
    assert [found[0] for found in others if not (found["rest"] or "").startswith((":-", "-"))] == []
    assert set(demanded) == set(REQUIRED)
    assert all(".env.example" in told for told in demanded.values())


def test_the_example_lists_every_variable_with_its_default() -> None:
    """.env.example and docker-compose.yml agree on variables and defaults; the required ones are empty."""
    example = dict(re.findall(r"^#?(\w+)=(.*)$", EXAMPLE, re.MULTILINE))
    defaults = {
        found["name"]: found["rest"].lstrip(":").removeprefix("-")
        for found in _REFERENCE.finditer(COMPOSE_TEXT)
        if found["name"] not in REQUIRED
    }
    handed_over = {
        key for service in SERVICES.values() for key, value in _environment(service).items() if value is None
    }
    assert set(example) == set(defaults) | handed_over | set(REQUIRED)
    assert re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE) == [(name, "") for name in REQUIRED]
    own = {name: value for name, value in defaults.items() if name not in handed_over | {"VLLM_URL", "OLLAMA_URL"}}
    assert {name: example[name] for name in own} == own


def test_the_command_of_the_example_writes_the_keys(tmp_path: Path) -> None:
    """Long random ones, into a file for its owner alone."""
    command = re.findall(r"^#   (\(umask.*)$", EXAMPLE, re.MULTILINE)[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    lines = dict(line.split("=") for line in (tmp_path / ".env").read_text(encoding="utf-8").splitlines())
    assert list(lines) == list(REQUIRED)
    assert {len(key) for key in lines.values()} == {64}
    assert len(set(lines.values())) == 2
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("card", CARDS)
def test_a_preset_is_what_winnow_vllm_prints(card: str) -> None:
    """Its values and the arithmetic in its comment; all of it are variables of docker-compose.yml."""
    text = (ROOT / "deploy" / "presets" / f"{card}.env").read_text(encoding="utf-8")
    values, chosen = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)), preset(card)
    command = chosen.command(8001)
    option = dict(zip(command[3::2], command[4::2], strict=False))
    assert values.pop("VLLM_MEMORY")
    assert values == {
        "VLLM_MODEL": chosen.checkpoint,
        "VLLM_MAX_MODEL_LEN": option["--max-model-len"],
        "VLLM_MAX_NUM_SEQS": option["--max-num-seqs"],
        "VLLM_GPU_MEMORY_UTILIZATION": option["--gpu-memory-utilization"],
    }
    told = " ".join(line.removeprefix("# ") for line in text.splitlines())
    for number in (chosen.usable, chosen.weights, chosen.own, chosen.room):
        assert f" {number / GIB:.2f} " in told
    for tokens in (2048, 8192):
        assert f"{tokens:,} tokens" in told
        assert f"{chosen.model.cache(tokens):.0f} MiB, so {chosen.conversations(tokens)}" in told
    assert f"{chosen.model.label.partition(',')[0]} with 4-bit weights on an {chosen.card.label}:" in told


def test_prometheus_is_given_its_key_by_a_file() -> None:
    """The shell of its container writes what the settings of Prometheus name, and nobody sees it in a command line."""
    prometheus = SERVICES["prometheus"]
    (line,) = prometheus["command"]
    path = re.findall(r'"\$\$WINNOW_METRICS_KEY" > (\S+);', line)[0]
    settings = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = settings["scrape_configs"]
    assert job["authorization"] == {"type": "Bearer", "credentials_file": path}
    assert job["static_configs"] == [{"targets": ["winnow:8000"]}]


def test_every_alert_has_its_line_in_the_manual() -> None:
    """Whoever is woken by one finds what to do."""
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_what_is_mounted_is_there() -> None:
    """Docker would make a directory of what is missing."""
    mounted = [volume for service in SERVICES.values() for volume in service.get("volumes", []) if volume[:2] == "./"]
    assert [volume for volume in mounted if not (ROOT / volume.partition(":")[0]).exists()] == []


def test_caddy_hands_on_streams_and_hides_what_is_for_the_inside() -> None:
    """Events come as they are written; figures and the command line's own routes stay inside."""
    text = (ROOT / "deploy" / "Caddyfile").read_text(encoding="utf-8")
    assert "reverse_proxy winnow:8000" in text
    assert "flush_interval -1" in text
    assert "path /metrics /internal/*" in text


def test_images_are_pinned() -> None:
    """What is pulled today is pulled tomorrow, and what is built has the version of what it is built from."""
    images = [_filled(service["image"]) for service in SERVICES.values()]
    assert [image for image in images if not re.search(r":v?\d[\w.-]*$", image)] == []
    assert re.search(r"^ARG BASE=python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {_filled(SERVICES[name]["image"]) for name in OURS} == {f"winnow:{version}"}
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE
    assert re.search(r"^ARG UV=uv==[\d.]+$", DOCKERFILE, re.MULTILINE)


def test_keys_come_from_outside() -> None:
    """No key is written down."""
    for service in SERVICES.values():
        secrets = {key: value for key, value in _environment(service).items() if re.search("KEY$|TOKEN", key)}
        assert {value for value in secrets.values() if value and not value.startswith("${")} == set()
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
    assert (subprocess.run(command, check=False, timeout=60).returncode == 0) == (status == 200)


def test_our_health_line_tells_ready_from_not_ready(server: tuple[int, int]) -> None:
    """The image's HEALTHCHECK, whatever proxy the environment names."""
    port, status = server
    environ = {"WINNOW_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    assert (subprocess.run(_health_command(), check=False, timeout=60, env=environ).returncode == 0) == (status == 200)


def test_nobody_there_is_not_healthy() -> None:
    """Both lines fail where nothing listens."""
    with answering(200) as url:
        port = str(urlsplit(url).port)
    line = [part.replace("6333", port) for part in SERVICES["qdrant"]["healthcheck"]["test"][1:]]
    for command in (line, _health_command()):
        ended = subprocess.run(
            command, check=False, timeout=60, env={**os.environ, "WINNOW_PORT": port}, capture_output=True
        )
        assert ended.returncode != 0


def test_the_images_are_the_processors_and_nobodys() -> None:
    """CPU torch by default, a fixed user that is not root, its volume, and signals that reach it."""
    stages = _stages()
    assert re.search(r"^ARG TORCH_BACKEND=cpu$", DOCKERFILE, re.MULTILINE)
    extras = re.findall(r'^ARG EXTRAS="(.*)"$', DOCKERFILE, re.MULTILINE)[0]
    assert _filled(COMPOSE["x-winnow"]["build"]["args"]["EXTRAS"]) == extras
    assert re.search(r"^VOLUME /data$", stages["application"], re.MULTILINE)
    for name in ("application", "allinone"):
        assert re.findall(r"^USER (.*)$", stages[name], re.MULTILINE)[-1] == "10001:10001"
        entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.*)$", stages[name], re.MULTILINE)[0])
        assert entrypoint[:2] == ["tini", "--"]
    assert list(stages)[-1] == "service"  # what a build without a target makes
    assert "USER" not in stages["service"]


def test_ssh_is_for_keys_only() -> None:
    """No password, nobody's forwarded agent, no server of the client's behind the container."""
    lines = (ROOT / "deploy" / "sshd_config").read_text(encoding="utf-8").splitlines()
    assert {"AuthenticationMethods publickey", "AllowAgentForwarding no", "AllowTcpForwarding local"} <= set(lines)
    assert "rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_*" in _stages()["allinone"]


def test_libraries_are_a_layer_below_the_code() -> None:
    """A change of the code does not install torch again."""
    copied = re.findall(r"^COPY (.*)$", _stages()["dependencies"], re.MULTILINE)
    assert copied == ["constraints.txt ./", "--from=requirements /requirements.txt ./"]


def test_a_change_of_the_code_is_never_taken_from_the_cache() -> None:
    """The wheel comes by COPY, by whose content builders go; podman does not look into what is mounted."""
    mounted = re.findall(r"--mount=type=bind,from=(\w+)", DOCKERFILE)
    assert set(mounted) == {"dependencies"}
    assert "COPY --from=wheel /wheel /opt/wheel" in _stages()["application"]


def test_only_what_the_image_is_made_of_is_sent_to_the_builder() -> None:
    """.dockerignore leaves out all but what is copied: no .git, .env, .venv or .winnow can get into a layer."""
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    allowed = {line.removeprefix("!") for line in lines[1:] if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    assert {source for sources in copied for source in sources.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_both_ways_to_start_vllm_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rented container's vLLM takes the flags of docker-compose.yml, but listens on loopback only."""
    monkeypatch.setattr("shutil.which", lambda name, path=None: f"/usr/bin/{name}")
    _, vllm = runpy.run_path(str(ALLINONE))["programs"]({"WINNOW_ADMIN_KEY": "k"}, [])
    model, *flags = (_filled(flag) for flag in SERVICES["vllm"]["command"])
    assert vllm.command[:7] == (
        *("vllm", "serve", model.removeprefix("--model=")),
        *("--host", "127.0.0.1", "--port", "8001"),
    )
    assert set(vllm.command[7:]) == set(flags)


def test_an_order_publishes_what_its_keys_open() -> None:
    """The orders in docs/deploy.md are JSON: SSH for a public key, or HTTP where there is a first key."""
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8"), re.DOTALL)
    opens = {"2222": ("tcp", "SSH_PUBLIC_KEY"), "8000": ("http", "WINNOW_ADMIN_KEY")}
    for order in map(json.loads, blocks):
        assert {port: opens[port][0] for port in order["ports"]} == order["ports"]
        assert all(opens[port][1] in order["env"] for port in order["ports"])
        assert "command" not in order
    assert len(blocks) == 2


def _health_command() -> list[str]:
    text = DOCKERFILE.replace("\\\n", "")
    command: list[str] = json.loads(re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.MULTILINE)[0])
    return [sys.executable, *command[1:]]


def _stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile, in their order."""
    parts = re.split(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _environment(service: dict[str, Any]) -> dict[str, str | None]:
    environment: dict[str, str | None] = service.get("environment", {})
    return environment


def _filled(text: str) -> str:
    """With the defaults in place of the variables."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)
